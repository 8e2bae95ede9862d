"""What arguments of many calls are: none at all, whole numbers, bools, one of several words, files to print to."""

from __future__ import annotations

import enum
import operator
from collections.abc import Container
from typing import Final, SupportsIndex, TextIO

import numpy as np

from tilekv.errors import WrongTypeError, shown


class _NoValue(enum.Enum):
    NO_VALUE = "no value"

    def __repr__(self) -> str:
        return f"<{self.value}>"


# The default of an argument where None is a value like any other; given to a look-up, it says that there is none.
NO_VALUE: Final = _NoValue.NO_VALUE


def whole(what: str, value: object) -> int:
    """The int that a value is; WrongTypeError, which says `what` it is of, for a bool and for what is no whole number."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:  # of a class, or of an array of several
            pass
    raise WrongTypeError(f"{what} is an int, not {type(value).__name__}")


def truth(what: str, value: object) -> bool:
    """The bool that a value is; WrongTypeError for what only counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise WrongTypeError(f"{what} is True or False, not {shown(value)}")
    return bool(value)


def is_one_of(value: object, words: Container[object]) -> bool:
    """Whether a value is one of some strs or ints. Of an array, `in` alone would compare the elements."""
    return isinstance(value, (str, int)) and value in words


def print_to(file: TextIO | None, text: str) -> None:
    """Print to a file, stdout for None."""
    if file is not None and not hasattr(file, "write"):
        raise WrongTypeError(f"file is a text file that is open, not {type(file).__name__}")
    print(text, file=file)
