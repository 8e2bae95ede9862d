"""TileDB's datatypes (docs/format.md 5) for Python: the table itself is kvcore/format/datatypes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from tilekv.errors import FormatError, WrongTypeError
from tilekv.kvcore.format.datatypes import INTEGER_KINDS, ROWS


class Datatype(NamedTuple):
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
    kind : str
        The letter that NumPy has for it; `text` or `bytes` where there is no dtype.
    """

    code: int
    name: str
    size: int
    dtype: str | None
    kind: str

    @property
    def signed(self) -> bool:
        """Whether it is an integer with a sign."""
        return self.kind == "i"

    @property
    def integer(self) -> bool:
        """Whether bit-width reduction and positive delta work on it; they copy others."""
        return self.kind in INTEGER_KINDS


DATATYPES: Final = tuple(Datatype(code, *row) for code, row in enumerate(ROWS))  # by code
_BY_DTYPE: Final = {row.dtype: row for row in DATATYPES if row.dtype is not None}
_BY_NAME: Final = {row.name: row.code for row in DATATYPES}

ANY: Final = _BY_NAME["ANY"]
ASCII: Final = _BY_NAME["STRING_ASCII"]
CHAR: Final = _BY_NAME["CHAR"]
INT64: Final = _BY_NAME["INT64"]
UINT8: Final = _BY_NAME["UINT8"]
UINT64: Final = _BY_NAME["UINT64"]
UTF8: Final = _BY_NAME["STRING_UTF8"]


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
