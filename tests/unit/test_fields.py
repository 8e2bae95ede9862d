"""frames.fields: which attribute holds the values of an Arrow type."""

from typing import Any

import pyarrow as pa
import pytest

from tilekv import WrongTypeError
from tilekv.frames.fields import Form, check_key, form_of
from tilekv.kvcore.values.arrow_schema import arrow_tree


def tree_of(kind: Any) -> dict[str, Any]:
    (tree,) = arrow_tree(pa.schema([("col", kind)]))["children"]
    return tree


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (pa.string_view(), Form("str")),
        (pa.binary(16), Form("bytes")),
        (pa.float16(), Form("float32")),
        (pa.date32(), Form("datetime64[D]")),
        (pa.date64(), Form("datetime64[ms]")),
        (pa.timestamp("ns", "Europe/Vienna"), Form("datetime64[ns]")),
        (pa.duration("s"), Form("timedelta64[s]")),
        (pa.dictionary(pa.int8(), pa.string()), Form("str")),
        (pa.run_end_encoded(pa.int32(), pa.int8()), Form("int8")),
        (pa.list_(pa.int16()), Form("int16", None, True)),
        (pa.large_list_view(pa.bool_()), Form("bool", None, True)),
        (pa.list_(pa.int16(), 3), Form("int16", (3,))),
        (pa.list_(pa.list_(pa.int16(), 3), 2), Form("int16", (2, 3))),
        (pa.fixed_shape_tensor(pa.float32(), (2, 3)), Form("float32", (2, 3))),
        (pa.fixed_shape_tensor(pa.float32(), (6,)), Form("float32", (6,))),
        (pa.uuid(), Form("bytes")),
        (pa.json_(), Form("str")),
    ],
)
def test_forms(kind: Any, form: Form) -> None:
    assert form_of(tree_of(kind)) == form


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        (pa.null(), "null", "nothing but nulls"),
        (pa.decimal128(10, 2), "decimal128(10, 2)", "cents"),
        (pa.time64("us"), "time64[us]", "duration"),
        (pa.month_day_nano_interval(), "month_day_nano_interval", "duration"),
        (pa.struct([("x", pa.int8())]), "struct<x: int8>", "each of its fields"),
        (pa.map_(pa.string(), pa.int8()), "map<string, int8>", "JSON"),
        (pa.list_(pa.string()), "list<string>", "join"),
        (pa.list_(pa.list_(pa.int8())), "list<list<int8>>", "one dimension"),
        (pa.list_(pa.int8(), 0), "fixed_size_list<int8>[0]", "no element"),
        (pa.dictionary(pa.int8(), pa.decimal128(3)), "dictionary<", "cents"),
        (pa.fixed_shape_tensor(pa.int8(), (2, 3), permutation=(1, 0)), "extension<", "strides"),
        (pa.dense_union([pa.field("a", pa.int8())]), "dense_union<a: int8>", "cast it"),
    ],
)
def test_what_is_refused_says_the_column_and_what_to_do(kind: Any, name: str, advice: str) -> None:
    with pytest.raises(WrongTypeError) as refused:
        form_of(tree_of(kind))
    said = str(refused.value)
    assert said.startswith(f"column 'col' is {name}")
    assert advice in said.partition("which no attribute holds: ")[2]


@pytest.mark.parametrize(
    "kind", [pa.bool_(), pa.list_(pa.int8()), pa.list_(pa.int8(), 2), pa.null()]
)
def test_what_is_no_key(kind: Any) -> None:
    with pytest.raises(WrongTypeError, match="column 'col'"):
        check_key(tree_of(kind))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.int8(), pa.float64(), pa.date32()])
def test_keys(kind: Any) -> None:
    check_key(tree_of(kind))
