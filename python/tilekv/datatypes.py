"""TileDB's datatype codes (docs/format.md 5). The numbers are on disk: never change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tilekv.errors import FormatError, WrongTypeError


@dataclass(frozen=True, slots=True)
class Datatype:
    """One of TileDB's datatypes.

    Attributes
    ----------
    code : int
        Its number on disk.
    name : str
        TileDB's name for it.
    size : int
        Bytes of one element.
    dtype : str or None
        The name of the NumPy dtype with the same values; None where there is none.
    """

    code: int
    name: str
    size: int
    dtype: str | None


def _table() -> tuple[Datatype, ...]:
    plain: list[tuple[str, int, str | None]] = [
        ("INT32", 4, "int32"),
        ("INT64", 8, "int64"),
        ("FLOAT32", 4, "float32"),
        ("FLOAT64", 8, "float64"),
        ("CHAR", 1, None),
        ("INT8", 1, "int8"),
        ("UINT8", 1, "uint8"),
        ("INT16", 2, "int16"),
        ("UINT16", 2, "uint16"),
        ("UINT32", 4, "uint32"),
        ("UINT64", 8, "uint64"),
        ("STRING_ASCII", 1, None),
        ("STRING_UTF8", 1, None),
        ("STRING_UTF16", 2, None),
        ("STRING_UTF32", 4, None),
        ("STRING_UCS2", 2, None),
        ("STRING_UCS4", 4, None),
        ("ANY", 1, None),
    ]
    units = "YEAR:Y MONTH:M WEEK:W DAY:D HR:h MIN:m SEC:s MS:ms US:us NS:ns PS:ps FS:fs AS:as"
    pairs = [unit.split(":") for unit in units.split()]
    plain += [(f"DATETIME_{name}", 8, f"datetime64[{unit}]") for name, unit in pairs]
    plain += [(f"TIME_{name}", 8, f"timedelta64[{unit}]") for name, unit in pairs[4:]]
    plain += [("BLOB", 1, None), ("BOOL", 1, "bool")]
    return tuple(Datatype(code, *row) for code, row in enumerate(plain))


DATATYPES: Final = _table()  # by code
_BY_DTYPE: Final = {row.dtype: row for row in DATATYPES if row.dtype is not None}

CHAR: Final = 4
UTF8: Final = 12
UINT64: Final = 10

# The key types of Python's own types (docs/design.md 3); a NumPy scalar has its own datatype.
KEY_STR: Final = CHAR
KEY_BYTES: Final = 40
KEY_INT: Final = 1
KEY_UINT: Final = UINT64  # ints above 2^63-1
KEY_FLOAT: Final = 3


def datatype(code: int) -> Datatype:
    """Return the datatype with this code; FormatError when there is none."""
    if not 0 <= code < len(DATATYPES):
        raise FormatError(f"datatype {code} is unknown; tilekv knows 0 to {len(DATATYPES) - 1}")
    return DATATYPES[code]


def datatype_of(dtype: np.dtype[Any]) -> Datatype:
    """Return the datatype of a NumPy number, bool, datetime64 or timedelta64, in any byte order.

    Raises
    ------
    WrongTypeError
        For float16, longdouble, complex, datetimes without a unit or with a multiple of one,
        timedeltas coarser than hours, and everything that is not a number; the message says what
        to use instead.
    """
    if dtype.kind in "iufb":
        # Not the name: NumPy has several types of one width, such as long and longlong.
        word = {"i": "int", "u": "uint", "f": "float", "b": "bool"}[dtype.kind]
        found = _BY_DTYPE.get(word if dtype.kind == "b" else f"{word}{dtype.itemsize * 8}")
    else:
        found = _BY_DTYPE.get(dtype.name)
    if found is not None:
        return found
    if dtype.kind == "f":
        raise WrongTypeError(f"{dtype.name} has no place in the format; use float32 or float64")
    if dtype.kind == "M":
        raise WrongTypeError(f"{dtype.name} needs one unit from Y to as, as in 'datetime64[ms]'")
    if dtype.kind == "m":
        raise WrongTypeError(f"{dtype.name} needs one unit from h to as, as in 'timedelta64[ms]'")
    if dtype.kind == "c":
        raise WrongTypeError(f"{dtype.name} has no place in the format; use a float and shape=(2,)")
    if dtype.kind in "SU":
        word = "bytes" if dtype.kind == "S" else "str"
        raise WrongTypeError(f"{dtype.str} has a fixed length; use {word}, which has any length")
    raise WrongTypeError(f"{dtype} has no place in the format; use bytes, str or a NumPy number")
