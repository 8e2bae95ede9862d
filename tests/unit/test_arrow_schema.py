"""kvcore.values.arrow_schema: Arrow's types as plain objects, and back."""

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tilekv import InvalidValueError, WrongTypeError
from tilekv.kvcore.values.arrow_schema import ArrowTree, arrow_tree

SCHEMA = pa.schema(
    [
        pa.field("n", pa.int32(), nullable=False),
        pa.field("größe", pa.timestamp("us", "Europe/Vienna"), metadata={"a": "b", "c": "ü"}),
        pa.field("d", pa.dictionary(pa.int8(), pa.large_string(), ordered=True)),
        pa.field("l", pa.list_(pa.field("item", pa.struct([("x", pa.decimal128(10, 2))])))),
        pa.field("r", pa.run_end_encoded(pa.int32(), pa.string_view())),
        pa.field("t", pa.fixed_shape_tensor(pa.float32(), (2, 3))),
        pa.field("m", pa.map_(pa.string(), pa.int8())),
        pa.field("w", pa.binary(3)),
    ],
    metadata={"pandas": "{}"},
)


def test_there_and_back_through_json() -> None:
    tree = json.loads(json.dumps(arrow_tree(SCHEMA)))
    assert pa.schema(ArrowTree(tree)).equals(SCHEMA, check_metadata=True)
    assert pa.table(ArrowTree(tree)).schema.equals(SCHEMA, check_metadata=True)
    assert pa.table(ArrowTree(tree)).num_rows == 0


def test_what_a_tree_says() -> None:
    tree = arrow_tree(SCHEMA)
    assert tree["metadata"] == {"pandas": "{}"}
    n, size, d, *_ = tree["children"]
    assert n == {"name": "n", "format": "i", "type": "int32"}
    assert size["format"] == "tsu:Europe/Vienna"
    assert size["metadata"] == {"a": "b", "c": "ü"}
    assert size["flags"] == 2
    assert d["flags"] == 3
    assert d["dictionary"]["format"] == "U"


def test_of_streams_which_are_not_read() -> None:
    frame = pl.DataFrame({"e": pl.Series(["a"], dtype=pl.Enum(["a", "b"])), "d": [[1, 2]]})
    assert pl.DataFrame(ArrowTree(arrow_tree(frame))).schema == frame.schema
    reader = pa.RecordBatchReader.from_batches(SCHEMA, [])
    assert arrow_tree(reader.schema)["children"][0]["name"] == "n"


def test_metadata_that_are_no_text_are_left_out() -> None:
    schema = pa.schema(
        [pa.field("a", pa.int8(), metadata={b"\xff": b"a", b"b": b"\xff", "c": "d"})]
    )
    assert arrow_tree(schema)["children"][0]["metadata"] == {"c": "d"}


@pytest.mark.parametrize("given", [None, 5, "text", {"a": 1}])
def test_what_has_no_schema(given: Any) -> None:
    with pytest.raises(WrongTypeError):
        arrow_tree(given)


def deep(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": "", "format": "i"}
    for _ in range(levels):
        tree = {"name": "", "format": "+l", "children": [tree]}
    return tree


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"name": 5, "format": "i"},
        {"name": "a\0", "format": "i"},
        {"name": "a", "format": "i", "flags": True},
        {"name": "a", "format": "i", "flags": 1 << 70},
        {"name": "a", "format": "i", "children": 5},
        {"name": "a", "format": "i", "children": [None]},
        {"name": "a", "format": "i", "dictionary": 5},
        {"name": "a", "format": "i", "metadata": 5},
        deep(100),
    ],
)
def test_what_is_no_tree(tree: Any) -> None:
    with pytest.raises(InvalidValueError):
        ArrowTree(tree)


def test_types_within_types_end_somewhere() -> None:
    kind = pa.int8()
    for _ in range(20):
        kind = pa.list_(kind)
    tree = arrow_tree(pa.schema([("a", kind)]))
    assert pa.schema(ArrowTree(tree)).field("a").type == kind
    for _ in range(20):
        kind = pa.list_(kind)
    with pytest.raises(InvalidValueError):
        arrow_tree(pa.schema([("a", kind)]))


def test_whatever_is_asked_for_first_is_freed() -> None:
    made = ArrowTree(arrow_tree(SCHEMA))
    for _ in range(100):
        made.__arrow_c_schema__()
        made.__arrow_c_stream__()
