"""What a store remembers of its frame, in `__tilekv.json`."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tilekv
from tilekv.descriptor import Descriptor
from tilekv.frametypes import FrameTypes, values_of
from tilekv.sealed import seal

COLUMN = {"name": "a", "format": "i"}
MEMBERS: dict[str, Any] = {"key": "a", "columns": [COLUMN], "metadata": {"m": "ü"}}


def test_there_and_back() -> None:
    frame = FrameTypes.of(MEMBERS)
    assert frame is not None
    assert frame.members == MEMBERS
    assert frame.key == "a"
    assert frame.columns == [COLUMN]
    assert frame == FrameTypes.of(dict(reversed(MEMBERS.items())))
    assert hash(frame) == hash(FrameTypes.of(MEMBERS))


@pytest.mark.parametrize(
    "members",
    [
        None,
        [],
        {},
        {"key": 5, "columns": []},
        {"key": "a", "columns": {}},
        {"key": "a", "columns": [5]},
        {"key": "a", "columns": [{"name": "a"}]},
        {"key": "a", "columns": [], "metadata": []},
        {"key": "a", "columns": [], "categories": 5},
        {"key": "a", "columns": [], "dtypes": "x"},
    ],
)
def test_what_is_no_frame(members: object) -> None:
    assert FrameTypes.of(members) is None


def test_zones() -> None:
    instants = {"name": "x", "format": "tsu:UTC"}
    frame = FrameTypes.of(
        {
            "key": "k",
            "columns": [
                instants,
                {"name": "list", "format": "+l", "children": [instants]},
                {"name": "of", "format": "i", "dictionary": instants},
                {"name": "none", "format": "tsu:"},
                {"name": "number", "format": "i"},
            ],
        }
    )
    assert frame is not None
    assert [frame.zone(name) for name in ("x", "list", "of")] == [b"UTC"] * 3
    assert [frame.zone(name) for name in ("none", "number", "missing")] == [None] * 3
    assert values_of(frame.columns[2]) == instants


def test_the_descriptor_keeps_it_and_stays_of_its_format(tmp_path: Path) -> None:
    """A program that does not know it reads the store as any other."""
    table = pa.table({"k": ["a"], "v": [1]})
    tilekv.from_arrow(tmp_path / "s", table, "k").close()
    file = tmp_path / "s" / "__tilekv.json"
    told = json.loads(file.read_text())
    assert told["format"] == 1
    assert told["frame"]["key"] == "k"
    assert Descriptor.from_bytes(file.read_bytes()).to_bytes() == file.read_bytes()
    del told["frame"], told["crc32c"]
    file.write_text(json.dumps(seal(told)))
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"a": 1}
        assert db.schema.key_name is None
    told["frame"] = {"key": 5}
    file.write_text(json.dumps(seal(told)))
    with pytest.raises(tilekv.CorruptionError, match="`frame`"):
        tilekv.open(tmp_path / "s")


def test_a_plain_store_says_nothing_of_it(tmp_path: Path) -> None:
    tilekv.open(tmp_path / "s", "x").close()
    assert "frame" not in json.loads((tmp_path / "s" / "__tilekv.json").read_text())


def test_copies_keep_it(tmp_path: Path) -> None:
    with tilekv.from_arrow(tmp_path / "s", pa.table({"k": ["a"], "v": [1]}), "k") as db:
        schema = db.schema
        db.consolidate(vacuum=True)
        assert db.to_arrow().column_names == ["k", "v"]
    tilekv.salvage(tmp_path / "s", tmp_path / "t")
    tilekv.convert(tmp_path / "s", tmp_path / "u")
    for name in ("s", "t", "u"):
        with tilekv.open(tmp_path / name) as db:
            assert db.schema.key_name == "k"
            assert db.schema == schema
