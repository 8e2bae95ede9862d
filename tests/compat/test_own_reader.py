"""tilekv reads back what the other readers are compared with: by iteration, by key, through maps and without them."""

from collections.abc import Callable
from typing import Any

import pytest

import tilekv
from sample_stores import SAMPLES, Row, Sample, cell_of, coords, key_of


def row_of(sample: Sample, value: Any) -> Row:
    attrs = sample.schema.attrs
    if len(attrs) == 1:
        value = {attrs[0].name: value}
    assert list(value) == [attr.name for attr in attrs]
    return {attr.name: cell_of(attr, value[attr.name]) for attr in attrs}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", SAMPLES)
def test_store(name: str, mmap: bool, written: Callable[[str], Any]) -> None:
    sample, path = written(name)
    rows = sample.rows()
    alive = {key: row for key, row in rows.items() if row is not None}
    with tilekv.open(path, config={"kv.mmap": mmap}) as db:
        assert db.schema == sample.schema
        assert db.verify() == []
        items = [(key_of(key), row_of(sample, value)) for key, value in db.items()]
        keys = [key for key, _ in items]
        assert keys == sorted(alive, key=lambda key: (*coords(key, sample.schema.digest), *key))
        assert dict(items) == alive
        assert len(db) == len(alive)
        for flush in sample.flushes:
            for key, _ in flush:
                row = rows[key_of(key)]
                assert (key in db) == (row is not None)
                if row is not None:
                    assert row_of(sample, db[key]) == row
        assert "no such key" not in db
