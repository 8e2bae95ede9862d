"""TileDB 1.x lost 61,511 of a million keys `key_0` .. `key_999999`, and read back other keys' values. Not here."""

from pathlib import Path

import pytest

import tilekv


@pytest.mark.parametrize("digest", ["blake2b", "md5"])
def test_a_million_keys_come_back(tmp_path: Path, digest: str) -> None:
    n = 1_000_000
    keys = [f"key_{i}" for i in range(n)]
    values = [b"%d" % i for i in range(n)]
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], digest=digest)
    with tilekv.open(tmp_path / "s", "x", schema=schema, config={"kv.sync": False}) as db:
        db.put_many(keys, values)
    with tilekv.open(tmp_path / "s") as db:
        assert db.info().fragments == 1
        assert len(db) == n
        assert db.get_many(keys) == values
        assert all(db[f"key_{i}"] == b"%d" % i for i in range(0, n, 997))
        assert db.get_many([f"key_{i}" for i in range(n, n + 10_000)]) == [None] * 10_000
        assert set(db) == set(keys)
