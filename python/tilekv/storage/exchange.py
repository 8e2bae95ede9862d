"""Renames that Python does not offer: onto nothing only, and both ways at once."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final

from tilekv.names import temporary_name
from tilekv.storage.descriptors import remove_tree

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
# What a system or file system says that does not know the call or the flag.
_UNKNOWN: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)

Rename = Callable[[int, bytes, int, bytes, int], int]


def _load() -> Rename | None:
    """Linux's renameat2, since glibc 2.28."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    found: Rename = call
    return found


_renameat2 = _load()


def _rename(old: str, new: str, flag: int) -> bool:
    """Rename with a flag; False where that is not known."""
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), old, None, new)


def move_new(old: str, new: str) -> None:
    """Rename a folder; FileExistsError when there is anything of the new name.

    Without the system's help the test comes first: the names are random, so that nobody else is
    about to take one.
    """
    if _rename(old, new, _RENAME_NOREPLACE):
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new)


def swap(new: str, target: str) -> bool:
    """Put folder `new` where `target` is, and what was there under the name `new`.

    Returns
    -------
    bool
        False when somebody else took the place between two renames, which only happens where the
        system cannot do it in one. What was there is removed then.
    """
    if _rename(new, target, _RENAME_EXCHANGE):
        return True
    aside = os.path.join(os.path.dirname(target), temporary_name())
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            os.rename(aside, target)
            raise
        remove_tree(aside)
        return False
    os.rename(aside, new)
    return True
