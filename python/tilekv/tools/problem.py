"""What checking a store finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tilekv.errors import CorruptionError

# What tells of a store that it is not whole. Every other error is about the process or the system (no descriptor, no memory, no
# permission, a disk that does not answer): it says nothing of what is stored, and whoever checks or copies a store raises it.
DAMAGE: Final = CorruptionError, FileNotFoundError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    fragment : str
        The fragment's folder; empty for a file of the store itself.
    file : str
        The file in it.
    offset : int or None
        The byte of the file where the damaged part begins; None when it has no place of its own.
    message : str
        What is wrong.
    """

    fragment: str
    file: str
    offset: int | None
    message: str

    @classmethod
    def _of(cls, error: CorruptionError | FileNotFoundError, fragment: str = "") -> Problem:
        """What one of DAMAGE says that came of reading a store, or a fragment of it."""
        if not isinstance(error, CorruptionError):
            file = "" if fragment else str(error.filename or "")
            return cls(fragment, file, None, error.strerror or str(error))
        folder, _, file = error.file.rpartition("/")
        return cls(folder, file, error.offset, error.reason)

    def __str__(self) -> str:
        place = f"{self.fragment}/{self.file}" if self.fragment else self.file
        return f"{place if self.offset is None else f'{place}, byte {self.offset}'}: {self.message}"
