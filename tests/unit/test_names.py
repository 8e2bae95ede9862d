"""Names of fragments and files: strict, ordered, and what newer TileDB leaves behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilekv import names
from tilekv.errors import OutOfRangeError
from tilekv.names import FragmentName, newer_tiledb

A, B = "0" * 31 + "a", "0" * 31 + "b"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_round_trip(t: int, u: int) -> None:
    name = FragmentName.new(min(t, u), max(t, u))
    assert FragmentName.parse(str(name)) == name


def test_new_names_differ() -> None:
    first, second = FragmentName.new(5), FragmentName.new(5)
    assert (first.t1, first.t2) == (5, 5)
    assert first.uuid != second.uuid
    assert str(first) == f"__5_5_{first.uuid}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        f"__5_4_{A}",  # from later to earlier
        f"__05_5_{A}",
        f"__5_5_{A.upper()}",
        f"__5_5_{A}_22",  # TileDB 2
        f"__5_5_{A[1:]}",
        f"__5_5_{A}\n",
        f"__-1_5_{A}",
        f"__{2**64}_{2**64}_{A}",
        f"__\u0665_\u0665_{A}",
        f"__{A}_5",  # TileDB 1.5 and before
        f"__{A}_5_5",
        f"_5_5_{A}",
        f"x__5_5_{A}",
        f"__5_5_{A}.vac",
        "__kv_schema.tdb",
    ],
)
def test_not_fragments(name: str) -> None:
    assert FragmentName.parse(name) is None


@pytest.mark.parametrize(("t1", "t2"), [(-1, 5), (5, 4), (0, 2**64), (2**64, None)])
def test_timestamps_out_of_range(t1: int, t2: int | None) -> None:
    with pytest.raises(OutOfRangeError):
        FragmentName.new(t1, t2)


def test_newest_is_greatest() -> None:
    oldest_first = [
        FragmentName(9, 9, B),
        FragmentName(10, 20, B),  # consolidated
        FragmentName(10, 15, A),
        FragmentName(10, 10, A),  # committed late, inside it
        FragmentName(10, 10, B),  # the same millisecond: by name
        FragmentName(11, 11, A),
        FragmentName(100, 100, A),
    ]
    mixed = oldest_first[1::2] + oldest_first[::2]
    assert sorted(mixed, key=lambda name: name.order) == oldest_first


def test_temporary_names() -> None:
    first, second = names.temporary_name(), names.temporary_name()
    assert first != second
    assert first.startswith(".tmp-")
    assert names.is_temporary(first)
    assert not names.is_temporary(f"__5_5_{A}")
    assert FragmentName.parse(first) is None


def test_files() -> None:
    assert names.data_file("a1") == "a1.tdb"
    assert names.data_file("a1", True) == "a1_var.tdb"
    assert names.data_file("__coords") == "__coords.tdb"
    assert (names.KV_SCHEMA, names.ARRAY_SCHEMA) == ("__kv_schema.tdb", "__array_schema.tdb")
    assert (names.LOCK, names.DESCRIPTOR) == ("__lock.tdb", "__tilekv.json")
    assert names.FRAGMENT_METADATA == "__fragment_metadata.tdb"


@pytest.mark.parametrize("folder", ["__commits", "__fragments", "__schema"])
def test_newer_tiledb_folders(folder: str) -> None:
    folders = [f"__5_5_{A}", "__meta", folder]
    assert newer_tiledb(folders, [], lambda name: False) == folder
    assert newer_tiledb(folders, [], lambda name: name == folder) is None


def test_newer_tiledb_files() -> None:
    marker = f"__5_5_{A}_5.ok"
    assert newer_tiledb([], ["__lock.tdb", marker], lambda name: True) == marker
    assert newer_tiledb([f"__5_5_{A}"], ["__lock.tdb", "notes.ok"], lambda name: False) is None
