"""Descriptors that an interrupt does not leave open, and that other files give back where there is none left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Final

from tilekv.kvcore.base.file import Holding, give_back_descriptors

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def opening(path: str, how: int) -> Iterator[int]:
    with Holding() as held:
        yield open_held(held, path, how)


def open_held(held: list[int], path: str, how: int, parent: int | None = None) -> int:
    """A descriptor, which is in `held` then."""
    open_into(held.extend, path, how, parent)
    return held[-1]


def open_into(
    keep: Callable[[Iterator[int]], object], path: str, how: int, parent: int | None = None
) -> None:
    """As os.open; where there is no descriptor left, files that are read by pread give some back.

    The file is opened when `keep` asks the iterator, which is to put the number away without any Python code: a signal handler,
    which may raise, runs between a call and whatever takes its result, and a number that nobody has taken is never closed.
    """
    fds = partial(map, partial(os.open, flags=how, mode=0o666, dir_fd=parent), (path,))
    try:
        keep(fds())
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or not give_back_descriptors():
            raise
        keep(fds())


def scan(fd: int) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """As os.scandir, in the same way."""
    try:
        return os.scandir(fd)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or not give_back_descriptors():
            raise
        return os.scandir(fd)


def remove_tree(name: str, parent: int | None = None) -> None:
    """Remove a folder and what is in it, as far as that can be. No link is followed.

    Not shutil.rmtree: interrupted, it leaves descriptors open or closes one twice, which by then may be another thread's.
    """
    with suppress(OSError):
        with Holding() as held:
            folder = open_held(held, name, _FOLDER, parent)
            with scan(folder) as entries:
                inside = list(entries)
            for entry in inside:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.name, folder)
                else:
                    with suppress(OSError):
                        os.unlink(entry.name, dir_fd=folder)
        os.rmdir(name, dir_fd=parent)
