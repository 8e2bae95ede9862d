"""What a store needs of the place it is kept in.

A store is a root that holds small files and folders of files. Folders appear whole, by the commit
of a draft, and never change afterwards. A local folder and the keys of an object store can both be
this: nothing here is renamed, locked or half visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tilekv.errors import InvalidValueError
from tilekv.kvcore.base.file import File

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Listing(NamedTuple):
    """What is in a store's root, each sorted; without drafts and what is neither file nor folder.

    The names come from disk and may be anything.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]


class FileWriter(Protocol):
    """A file of a draft. One thread at a time."""

    def write(self, data: Buffer) -> None:
        """Append all of `data`, any contiguous buffer."""

    def close(self) -> None:
        """End the file; again is harmless."""


class Draft(Protocol):
    """A folder that is being written: no reader sees it before it is committed."""

    def create(self, file: str) -> FileWriter:
        """Begin a file.

        Raises
        ------
        FileExistsError
            When the draft has a file of that name.
        FileNotFoundError
            When the draft has vanished, as an abandoned one does in a vacuum.
        """

    def sync(self, *, names: bool = True) -> None:
        """Make all files written so far durable, and with `names` that they are in the folder, in one wait for the disk; nothing,
        unless the storage syncs. While more files are to come, names can wait for the last of them: `commit` needs them all.

        After an error the draft can only be abandoned: what a failed sync has lost the system does not write again.
        """

    def commit(self, name: str) -> None:
        """Show the folder under `name`, whole and durable, or not at all.

        Close the files before. After an error that is none of those below nobody knows whether it is
        visible, and it may not be durable.

        Raises
        ------
        NotDurableError
            When it is visible, but perhaps not durable: `Storage.sync` has to follow.
        FileExistsError
            When `name` is taken; the draft stays.
        FileNotFoundError
            When the draft has vanished.
        """

    def abandon(self) -> None:
        """Remove the draft; harmless after a commit. Never raises."""


class Build(Protocol):
    """A store that is being made: nobody sees it at its place before it is committed."""

    @property
    def uri(self) -> str:
        """What opens it meanwhile, to create and fill it; close it before the commit."""

    def commit(self, replace: bool) -> bool:
        """Show it at its place, whole and durable, or not at all.

        After an error the store may be visible but not durable.

        Returns
        -------
        bool
            False when something is there already. `replace` puts the new store into its place, and
            `abandon` removes what was there.
        """

    def abandon(self) -> None:
        """Remove what is left; harmless after a commit. Never raises."""


class Storage(Protocol):
    """A place for one store, which need not exist. Any number of threads.

    Names of files and folders that are no plain names, such as ``..`` or ``a/b``, are an
    InvalidValueError everywhere. What is missing is a FileNotFoundError. Symbolic links inside a
    store, and other things that are no files, are a CorruptionError.
    """

    @property
    def uri(self) -> str:
        """What opens the same place again, from any working directory."""

    def exists(self) -> bool:
        """Tell whether there is a root. NotADirectoryError when a file is in its place."""

    def is_empty(self, folder: str = "") -> bool:
        """Tell whether nothing at all is in the root, or in a folder in it; missing is empty."""

    def list(self) -> Listing:
        """List the root."""

    def files(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file of a folder, by name."""

    def read(self, name: str) -> bytes:
        """Return a small file of the root; CorruptionError when it has over 64 MiB."""

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Open a file of a folder, at the size that it has now; `mmap`: as a map if possible."""

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Open every file of a folder, by name, at once: half the time of one by one.

        What is no file is left out.
        """

    def put(self, name: str, data: bytes) -> None:
        """Write a small file of the root, durably: readers see the old one or all of `data`."""

    def create(self, files: Mapping[str, bytes], replace: bool) -> bool:
        """Make a root with these files: whole and durable, or not at all.

        Returns
        -------
        bool
            False when something is in the root already. `replace` puts the new root into its
            place and removes what was there.
        """

    def build(self) -> Build:
        """Begin a store that is to be here. FileNotFoundError when there is no folder to make it in."""

    def draft(self) -> Draft:
        """Begin a folder."""

    def sync(self) -> None:
        """Make durable what is visible in the root, after a NotDurableError; NotDurableError when that fails too."""

    def lock(self) -> AbstractContextManager[bool]:
        """Hold the one lock of a store's maintenance: the value says whether it was free. Never waits."""

    def now(self) -> int:
        """The time of whatever keeps the files, in ms since 1970. The caller holds the lock."""

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Take folders out of sight, for good and durably; those that are gone are passed over.

        Some storages must remove them file by file: only what readers pass over anyway may be hidden.

        Returns
        -------
        list of str
            What `reclaim` takes.
        """

    def remove(self, name: str) -> None:
        """Remove a small file of the root, durably; it may be gone already."""

    def reclaim(self, hidden: Iterable[str]) -> None:
        """Give back the room of what is hidden."""

    def abandoned(self, seconds: float) -> Sequence[str]:
        """Return what is hidden and has not been written to for so long: left behind by a crash."""


SMALL_FILE: int = 64 << 20  # most bytes that `Storage.read` takes into memory


def check_component(name: str) -> str:
    """Return `name`, the name of one file or folder; InvalidValueError if it could be a path."""
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise InvalidValueError(f"{name!r} is not the name of a file")
    return name
