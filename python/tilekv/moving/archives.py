"""Tar archives, and those that WebDataset has its samples in, as sources."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from tilekv.errors import FormatError, InvalidValueError
from tilekv.expiry import NEVER
from tilekv.moving.source import Request, Row, Source, Stream, bytes_schema
from tilekv.storage.foreign import files_of
from tilekv.storage.streams import opened_source

LARGE_BYTES: Final = 64 << 20  # of a file that is never in memory

# WebDataset's own rule: a sample's name goes to the first dot behind the last slash, and what follows names the part.
_PARTED: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")


class _Archives:
    """The archives that a name stands for, read one after the other."""

    def __init__(self, name: str) -> None:
        self.path = name  # of the one that is read
        self._sizes = {path: _size(path) for path in files_of(name)}
        self.total = sum(self._sizes.values())
        self._before = 0
        self._file: Any = None

    def done(self) -> int:
        """How much was read, in bytes of the archives."""
        return min(self._before + (int(self._file.tell()) if self._file else 0), self.total)

    def files(self) -> Iterator[tuple[str, tarfile.TarInfo, Any]]:
        """The regular files, each open; links and folders are passed over."""
        for path, size in self._sizes.items():
            self.path = path
            with opened_source(path) as source:
                self._file = source
                with tarfile.open(fileobj=self._file, mode="r:*") as archive:
                    for member in archive:
                        archive.members = []  # type: ignore[attr-defined]  # or tarfile keeps each that came
                        if member.isfile() and (opened := archive.extractfile(member)) is not None:
                            with opened:
                                yield member.name.removeprefix("./"), member, opened
                self._file = None
            self._before += size


def _size(path: str) -> int:
    with opened_source(path) as opened:
        file: Any = opened
        return int(file.seek(0, 2))


@contextmanager
def _opened(name: str) -> Iterator[_Archives]:
    archives = _Archives(name)
    try:
        yield archives
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{archives.path}: {error}") from error


@contextmanager
def open_tar(path: str, asked: Request) -> Iterator[Source]:
    """Each regular file of an archive, or of several, compressed or not: its name is the key."""
    with _opened(path) as archives, closing(_rows(archives)) as rows:
        yield Source(rows, archives.total, bytes_schema(), done=archives.done)


def _rows(archives: _Archives) -> Generator[Row]:
    for name, member, opened in archives.files():
        if member.size > LARGE_BYTES:
            yield name, Stream(opened, member.size), NEVER
        else:
            yield name, opened.read(), NEVER


@contextmanager
def open_webdataset(path: str, asked: Request) -> Iterator[Source]:
    """The samples of a shard of WebDataset, or of several: a row each, with an attribute of bytes for each kind of its files."""
    with _opened(path) as archives, closing(_samples(archives)) as rows:
        yield Source(rows, archives.total, done=archives.done)


def _samples(archives: _Archives) -> Generator[Row]:
    """WebDataset ends a sample where another begins, and at the end of a shard. Here one that the next shard goes on with is
    one, or its second part would take the place of the first."""
    current, parts = "", dict[str, bytes]()
    for name, _, opened in archives.files():
        parted = _PARTED.fullmatch(name)
        if parted is None:
            continue  # WebDataset passes it over too
        sample, kind = parted[1], parted[2].lower()
        if sample != current and parts:
            yield current, parts, NEVER
            parts = {}
        current = sample
        if kind in parts:
            raise InvalidValueError(f"{archives.path}: sample {sample!r} has two files .{kind}")
        parts[kind] = opened.read()
    if parts:
        yield current, parts, NEVER
