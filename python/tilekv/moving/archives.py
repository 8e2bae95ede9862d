"""Tar archives, and those that WebDataset has its samples in, as sources."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tilekv.errors import FormatError, InvalidValueError
from tilekv.expiry import NEVER
from tilekv.moving.source import Request, Row, Source, Stream, bytes_schema
from tilekv.storage.streams import opened_source

LARGE_BYTES: Final = 64 << 20  # of a file that is never in memory

# WebDataset's own rule: a sample's name goes to the first dot behind the last slash, and what follows names the part.
_PARTED: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")


@contextmanager
def _archive(path: str) -> Iterator[tuple[tarfile.TarFile, Any, int]]:
    """It, the file that it is read from, and that one's size."""
    try:
        with opened_source(path) as opened:
            file: Any = opened
            size = file.seek(0, 2)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:*") as archive:
                yield archive, file, size
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{path}: {error}") from error


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo, Any]]:
    """The regular files of an archive, each open; links and folders are passed over."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # or tarfile keeps each that came
        if member.isfile() and (file := archive.extractfile(member)) is not None:
            with file:
                yield member.name.removeprefix("./"), member, file


@contextmanager
def open_tar(path: str, asked: Request) -> Iterator[Source]:
    """Each regular file of an archive, compressed or not: its name is the key."""
    with _archive(path) as (archive, file, size):

        def rows() -> Iterator[Row]:
            for name, member, opened in _files(archive):
                if member.size > LARGE_BYTES:
                    yield name, Stream(opened, member.size), NEVER
                else:
                    yield name, opened.read(), NEVER

        yield Source(rows(), size, bytes_schema(), done=lambda: min(int(file.tell()), size))


@contextmanager
def open_webdataset(path: str, asked: Request) -> Iterator[Source]:
    """The samples of a shard of WebDataset: a row each, with an attribute of bytes for each kind of its files."""
    with _archive(path) as (archive, file, size):
        yield Source(_samples(path, archive), size, done=lambda: min(int(file.tell()), size))


def _samples(path: str, archive: tarfile.TarFile) -> Iterator[Row]:
    current, parts = "", dict[str, bytes]()
    for name, _, opened in _files(archive):
        parted = _PARTED.fullmatch(name)
        if parted is None:
            continue  # WebDataset passes it over too
        sample, kind = parted[1], parted[2].lower()
        if sample != current and parts:
            yield current, parts, NEVER
            parts = {}
        current = sample
        if kind in parts:
            raise InvalidValueError(f"{path}: sample {sample!r} has two files .{kind}")
        parts[kind] = opened.read()
    if parts:
        yield current, parts, NEVER
