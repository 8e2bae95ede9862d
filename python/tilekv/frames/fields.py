"""What attribute holds the values of an Arrow type."""

from __future__ import annotations

import json
from typing import Final, NamedTuple, NoReturn

from tilekv.errors import WrongTypeError
from tilekv.frametypes import Tree, values_of

# By Arrow's format string (https://arrow.apache.org/docs/format/CDataInterface.html). A half is held exactly by a float32.
_NUMBERS: Final = {
    "b": "bool",
    "c": "int8",
    "s": "int16",
    "i": "int32",
    "l": "int64",
    "C": "uint8",
    "S": "uint16",
    "I": "uint32",
    "L": "uint64",
    "e": "float32",
    "f": "float32",
    "g": "float64",
    "tdD": "datetime64[D]",
    "tdm": "datetime64[ms]",
    "tDs": "timedelta64[s]",
    "tDm": "timedelta64[ms]",
    "tDu": "timedelta64[us]",
    "tDn": "timedelta64[ns]",
}
_INSTANTS: Final = {"tss": "s", "tsm": "ms", "tsu": "us", "tsn": "ns"}
_TEXTS: Final = ("u", "U", "vu")
_BLOBS: Final = ("z", "Z", "vz")
_LISTS: Final = ("+l", "+L", "+vl", "+vL")
TENSOR: Final = "arrow.fixed_shape_tensor"
EXTENSION: Final = "ARROW:extension:name"


class Form(NamedTuple):
    """How values are held: `dtype` as `Attr` takes it, `shape` and `var` as it has them."""

    dtype: str
    shape: tuple[int, ...] | None = None
    var: bool = False


def form_of(tree: Tree) -> Form:
    """The attribute that holds a column: dictionaries and runs as what they stand for, extensions as what they are stored as.

    Raises
    ------
    WrongTypeError
        When none does; the message names the column and says what to do.
    """
    inner = values_of(tree)
    format_ = inner["format"]
    word, _, size = format_.partition(":")
    if format_ in _TEXTS:
        return Form("str")
    if format_ in _BLOBS or word == "w":
        return Form("bytes")
    if word in _LISTS:
        return Form(_number(inner["children"][0], tree), None, True)
    sides: list[int] = []
    while word == "+w":
        sides.append(int(size))
        inner = values_of(inner["children"][0])
        word, _, size = inner["format"].partition(":")
    dtype = _number(inner, tree)
    if not sides:
        return Form(dtype)
    if 0 in sides:
        _refuse(tree, "leave it out, lists of no element hold nothing")
    return Form(dtype, _tensor(tree) or tuple(sides))


def _number(inner: Tree, outer: Tree) -> str:
    format_ = values_of(inner)["format"]
    if format_ in _NUMBERS:
        return _NUMBERS[format_]
    if format_[:4].rstrip(":") in _INSTANTS:
        return f"datetime64[{_INSTANTS[format_[:3]]}]"
    return _refuse(outer, _advice(inner, inner is outer or inner is values_of(outer)))


def _advice(tree: Tree, whole: bool) -> str:
    format_ = values_of(tree)["format"]
    if not whole and (format_ in _TEXTS or format_ in _BLOBS):
        return (
            "join each list to one text, or encode it as JSON: an attribute's arrays are of numbers"
        )
    if format_ == "n":
        return "cast it to the type that its values will have, or leave it out: nothing but nulls is in it"
    if format_[:2] == "d:":
        return "cast it to float64, to text, or to an int64 of the smallest unit, such as cents"
    if format_[:2] == "tt":
        return "cast it to a duration, or to an integer: there is no attribute of times of day"
    if format_[:2] == "ti":
        return "cast it to a duration: there is no attribute of intervals of months"
    if format_ == "+s":
        return "make a column of each of its fields, or encode it as JSON"
    if format_[:2] == "+m":
        return "encode it as JSON, or make a store of its entries"
    if format_[0] == "+" and not whole:
        return "encode it as JSON: an attribute's arrays have one dimension, or sides of a fixed length"
    return "cast it to text, bytes, numbers or times, or leave it out"


def _tensor(tree: Tree) -> tuple[int, ...] | None:
    """The shape of Arrow's own arrays of fixed shape, which are lists of all their numbers; None for other lists."""
    metadata = tree.get("metadata", {})
    if metadata.get(EXTENSION) != TENSOR:
        return None
    told = json.loads(metadata.get("ARROW:extension:metadata") or "{}")
    shape = told.get("shape")
    if told.get("permutation") not in (None, list(range(len(shape)))):
        _refuse(tree, "make its strides those of C: the permuted are not taken")
    return tuple(shape)


def _refuse(tree: Tree, advice: str) -> NoReturn:
    raise WrongTypeError(
        f"column {tree['name']!r} is {tree.get('type', tree['format'])}, which no attribute holds: {advice}"
    )


def check_key(tree: Tree) -> None:
    """WrongTypeError when values of this column cannot be keys."""
    form = form_of(tree)
    if form.dtype == "bool" or form.shape is not None or form.var:
        raise WrongTypeError(
            f"column {tree['name']!r} is {tree.get('type', tree['format'])}, and keys are text, bytes, numbers or times: "
            "choose another column, or make one of text"
        )
