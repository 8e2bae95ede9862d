"""kvcore.format.layout: which files a schema has, and what no store can have."""

import pytest

from tilekv.kvcore.format.layout import Layout

VAR = 0xFFFFFFFF
NONE = bytes(8)  # a pipeline without filters: max_chunk and count
KEY = ("__key", 40, VAR, NONE)
TYPE = ("__key_type", 6, 1, NONE)


def layout(*attrs: tuple[str, int, int, bytes], capacity: int = 8, digest: int = 0) -> Layout:
    return Layout([KEY, *attrs, TYPE], capacity, digest, NONE, NONE)


def test_files() -> None:
    made = layout(("a", 0, 3, NONE), ("b", 12, VAR, NONE))
    assert made.files == [
        (0, "__key", False),
        (1, "a", False),
        (2, "b", False),
        (3, "__key_type", False),
        (4, "__coords", False),
        (5, "__key", True),
        (7, "b", True),
    ]
    assert (made.nf, made.capacity) == (4, 8)


@pytest.mark.parametrize(
    ("attrs", "options"),
    [
        ([], {"capacity": 0}),
        ([], {"capacity": 1 << 28}),
        ([], {"digest": 99}),
        ([], {"digest": -1}),
        ([("a", 0, 0, NONE)], {}),  # no values a cell
        ([("a", 99, 1, NONE)], {}),  # no such datatype
        ([("a", 1, 1 << 28, NONE)], {}),  # wider than a chunk can be
        ([("a", 0, 1, b"\1")], {}),  # a pipeline that ends early
    ],
)  # fmt: skip
def test_refused(attrs: list[tuple[str, int, int, bytes]], options: dict[str, int]) -> None:
    with pytest.raises((ValueError, OSError)):
        layout(*attrs, **options)


def test_key_fields() -> None:
    for fields in (
        [],
        [KEY],
        [TYPE, KEY],
        [("__key", 40, 1, NONE), TYPE],
        [KEY, ("__key_type", 1, 1, NONE)],
    ):
        with pytest.raises(ValueError, match="__key"):
            Layout(fields, 8, 0, NONE, NONE)
