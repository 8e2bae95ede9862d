"""The exceptions. Each is a TileKVError and also the builtin that a user would catch."""

from __future__ import annotations

import errno
import io
import os
from typing import Final, Self

_MOST_SHOWN: Final = 200  # characters of an argument in a message


def shown(given: object) -> str:
    """An argument in a message: how Python writes it, the beginning at least; its type where Python cannot."""
    try:
        text = repr(given)
    except Exception:  # noqa: BLE001 - an int of thousands of digits, or an object whose __repr__ fails
        return f"<{type(given).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class TileKVError(Exception):
    """The root: every error that tilekv raises on purpose is one."""

    _advice = _command = ""

    def advised(self, advice: str, command: str) -> Self:
        """Say what to do about it: in Python, which ends the message, and on the command line."""
        self._advice, self._command = advice, command
        return self

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what}: {self._advice}" if self._advice else what

    @property
    def for_shell(self) -> str:
        """The message for those who have typed a command."""
        what = super().__str__()
        return f"{what}: {self._command}" if self._command else str(self)


class KeyNotFoundError(TileKVError, KeyError):
    """The key is not in the store.

    Attributes
    ----------
    reason : str or None
        Why it can be in no store; None for a key that could be there.
    """

    def __init__(self, key: object, reason: str | None = None) -> None:
        super().__init__(key)
        self.reason = reason

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which puts a message in quotes.
        if self.reason is None:
            return Exception.__str__(self)
        return f"{shown(self.args[0])}: {self.reason}"

    def __reduce__(self) -> tuple[type[KeyNotFoundError], tuple[object, str | None]]:
        return type(self), (self.args[0], self.reason)


class StoreNotFoundError(TileKVError, FileNotFoundError):
    """There is no store at the URI."""


class StoreExistsError(TileKVError, FileExistsError):
    """There is a store, or something else, where one was to be created."""


class ReadOnlyError(TileKVError, io.UnsupportedOperation):
    """A write through a handle that was opened for reading."""


class ClosedError(TileKVError, ValueError):
    """A handle was used after it was closed."""


class WrongTypeError(TileKVError, TypeError):
    """A key, value or option of a type that does not fit."""


class InvalidValueError(TileKVError, ValueError):
    """A key, value, name or option of the right type that is not allowed."""


class OutOfRangeError(TileKVError, OverflowError):
    """A number that does not fit its datatype."""


class CorruptionError(TileKVError, OSError):
    """Stored bytes are not what was written.

    Attributes
    ----------
    file : str
        The damaged file: its name in the store, or ``fragment/name``.
    offset : int or None
        The byte of the file where the damaged part begins; None when it has no place in the file.
    reason : str
        What is wrong.
    """

    def __init__(self, file: str, offset: int | None, reason: str) -> None:
        place = file if offset is None else f"{file}, byte {offset}"
        super().__init__(f"{place}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptionError], tuple[str, int | None, str]]:
        # What OSError gives would call the class with the finished message alone.
        return type(self), (self.file, self.offset, self.reason)


class FormatError(TileKVError, ValueError):
    """A store of a format that this tilekv does not read; the message says what wrote it."""


class MissingPackageError(TileKVError, ImportError):
    """An old store, or a frame, needs an optional package; the message says which, and how to install it."""


class SnapshotGone(TileKVError, FileNotFoundError):
    """A fragment of this snapshot was vacuumed before it was first used, or while the system had its files back; reopen."""


class StoreBusyError(TileKVError, BlockingIOError):
    """Another consolidation or vacuum of the store is under way; nothing was done."""


class HistoryVacuumed(TileKVError, LookupError):
    """The past that ``timestamp=`` asks for was consolidated and its fragments vacuumed."""


class NotDurableError(TileKVError, OSError):
    """What was flushed is in the store and every reader sees it, but the system did not say that it outlives a power cut.

    Nothing of it is buffered any more; the next flush, or a close, makes it durable first. ``errno`` is the system's.
    """

    @classmethod
    def of(cls, error: BaseException, place: str) -> NotDurableError:
        """What came of it: an error of the system, or want of memory."""
        code = (isinstance(error, OSError) and error.errno) or errno.ENOMEM
        text = f"cannot make durable what was committed to the store: {os.strerror(code)}"
        return cls(code, text, place)


class StoreReplacedError(TileKVError, OSError):
    """A flush into a store that is no longer the one the handle opened: its id has changed."""
