"""kvcore.batch.get_many: first what is in memory, then what must be read, in the order in which it is stored."""

from typing import Any

import numpy as np
import pytest

import tilekv


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_values_in_the_order_asked_wherever_they_are(cache: int) -> None:
    """In memory, to be decoded, buffered, absent; and some of them twice."""
    text = {i: b"compressible " * (i % 50) for i in range(3000)}
    with tilekv.open("memory://anywhere", "w", config={"kv.cache_bytes": cache}) as db:
        db.put_many(text)
        db.flush()
        db.put_many(dict.fromkeys(range(0, 3000, 7), b"new"))
        db.get_many(range(100))
        asked = [*range(2999, -50, -3), *range(500)]
        expected = [None if key < 0 else b"new" if key % 7 == 0 else text[key] for key in asked]
        for _ in range(2):
            assert db.get_many(asked) == expected


def test_what_is_buffered_is_ordered_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no fragment no digest is computed: the memory for them holds those of other keys, and is not looked at."""
    argsort = np.argsort
    ordered: list[int] = []  # values that were different, of each sort

    def seen(where: Any) -> Any:
        ordered.append(len(set(where)))
        return argsort(where)

    monkeypatch.setattr(np, "argsort", seen)
    keys = list(range(500))
    values = [b"%d" % key for key in keys]
    with tilekv.open("memory://ordered", "w", config={"kv.cache_bytes": 0}) as db:
        db.put_many(keys, values)
        db.flush()
        assert db.get_many(keys) == values
        db.put_many(keys, values)
        assert db.get_many(keys) == values
    with tilekv.open("memory://nothing", "w") as db:
        db.put_many(keys, values)
        assert db.get_many(keys) == values
    assert ordered == [500, 1, 1]
