"""What a store needs of the place it is kept in.

A store is a root that holds small files and folders of files. Folders appear whole, by the commit
of a draft, and never change afterwards. A local folder and the keys of an object store can both be
this: nothing here is renamed, locked or half visible.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from tilekv.errors import InvalidValueError
from tilekv.kvcore.base.file import File

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Listing(NamedTuple):
    """What is in a store's root, each sorted; without drafts, what is staged or set aside, and what is neither file nor folder.

    The names come from disk and may be anything.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]


class RecordFile(NamedTuple):
    """The record of a store's merges, as it is kept: its number, and what is in it."""

    seq: int
    data: bytes


class FileWriter(Protocol):
    """A file of a draft. One thread at a time."""

    def write(self, data: Buffer) -> None:
        """Append all of `data`, any contiguous buffer."""

    def replace_start(self, data: bytes) -> None:
        """Put `data` in the place of as many bytes at the file's beginning, which are written already."""

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

    def discard(self, file: str) -> None:
        """Remove a file that was closed, so that it can be begun again."""

    def commit(self, name: str) -> None:
        """Show the folder under `name`, whole and durable, or not at all. A staged one appears to `Storage.staged` and to those
        who ask for it by name.

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


class Offer(NamedTuple):
    """What was there when a draft was in its place: names of folders, and the record of merges."""

    names: Collection[str]
    record: RecordFile | None


@runtime_checkable
class OfferedDraft(Draft, Protocol):
    """A draft where waiting is dear: its time is chosen first, and found to be late enough once all is in its place.

    A time is late enough if it is later than all that `look`, or the first `offer`, has found.
    """

    def look(self) -> Offer:
        """From now on merges leave alone what appears; then look what is there. FileNotFoundError as for `offer`."""

    def offer(self, name: str, metadata: bytes) -> Offer:
        """Put all of it, and its metadata, where `commit` shows it under this name, then `look`. Again to change the name.

        Raises
        ------
        FileNotFoundError
            When the draft has vanished, or another store is there.
        """


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
        """Return the size in bytes of each file of a folder, by name. Folders that are staged or set aside are found too, here
        and by `open_file` and `open_files`."""

    def read(self, name: str) -> bytes:
        """Return a small file of the root; CorruptionError when it has over 64 MiB."""

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Open a file of a folder, at the size that it has now; `mmap`: as a map if possible."""

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Open every file of a folder, by name, at once: half the time of one by one.

        What is no file is left out.
        """

    def distrust(self, name: str) -> bool:
        """Told that what a file of the root, or the metadata of a folder, was read as is damaged: whether it has come over a
        network, and is asked for again by whoever reads it now."""

    def expect(self, folders: Iterable[str]) -> None:
        """Told which folders `open_files` is about to be asked for, one by one: what takes long is done for all at once."""

    def spare(self, folders: Iterable[str], always: bool = False) -> int:
        """Told what is visible after a flush: a manifest may be written that spares whoever opens it; `always` is by who asks for
        one. Its bytes; 0 when none was written, as in memory, or when a merge came between."""

    def ahead(self) -> None:
        """Told, after `list`, that a store is about to be opened: its descriptor, its record and another listing may be read at
        once, and are then what `read`, `record`, `list` and `record_seq` give."""

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

    def build(self, uri: str = "") -> Build:
        """Begin a store that is to be here, or go on, in any process, with one that was begun and has this URI.

        FileNotFoundError when there is no folder to make it in.
        """

    def draft(self, staged: bool = False) -> Draft:
        """Begin a folder; a staged one is committed where `list` does not show it, until `show`."""

    def settled(self, folders: Iterable[str]) -> frozenset[str]:
        """Which of these folders had appeared before any draft that is under way now has begun its metadata.

        Whoever chooses a time for such a draft, after it has begun its metadata, chooses one that is later than those; a draft
        without metadata will choose one that is later than all there is now. Drafts that have begun it longer than `DRAFT_S`
        ago do not count, and cannot be committed any more. Ask after the listing.
        """

    def record(self) -> RecordFile | None:
        """The newest record of the store's merges; None when there is none."""

    def record_seq(self) -> int:
        """Its number; 0 when there is none."""

    def replace_record(self, seq: int, data: bytes) -> bool:
        """Make `data` the record of this number, durably; False, and nothing is done, when there is one of it or a newer one."""

    def staged(self, seconds: float = 0) -> tuple[str, ...]:
        """The folders that were committed as staged and are not shown yet, sorted; those that have not changed for so long."""

    def past(self) -> tuple[str, ...]:
        """The folders that were set aside, sorted."""

    def show(self, folders: Iterable[str]) -> None:
        """Have staged folders listed, durably; those that are not staged any more are passed over."""

    def set_aside(self, folders: Iterable[str]) -> None:
        """Have folders, staged ones too, no longer listed, one after the other; those that are gone are passed over. They are
        opened by name."""

    def sync(self) -> None:
        """Make durable what is visible in the root or staged, after a NotDurableError; NotDurableError when that fails too."""

    def lock(self) -> AbstractContextManager[bool]:
        """Hold the one lock of a store's maintenance: the value says whether it was free. Never waits."""

    def room(self) -> int | None:
        """Bytes that may still be written; None where nobody knows."""

    def now(self) -> int:
        """The time of whatever keeps the files, in ms since 1970."""

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


DRAFT_S: int = 60  # a draft that has begun its metadata so long ago is not committed any more
SMALL_FILE: int = 64 << 20  # most bytes that `Storage.read` takes into memory


def check_component(name: str) -> str:
    """Return `name`, the name of one file or folder; InvalidValueError if it could be a path."""
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise InvalidValueError(f"{name!r} is not the name of a file")
    return name
