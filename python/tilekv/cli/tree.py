"""A directory tree into a store, and back."""

from __future__ import annotations

import os
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from tilekv.cli.entries import copy_bytes, named_attr, opened_value
from tilekv.cli.options import Opening
from tilekv.cli.progress import Progress
from tilekv.cli.text import counted, error_text, size_text
from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.moving.importing import put_unless_equal
from tilekv.schema import Attr
from tilekv.store import Store

BATCH_BYTES: Final = 4 << 20  # of files that are handed to the store in one call
TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGE_BYTES: Final = 64 << 20  # a larger file is never in memory: it becomes a fragment of its own


@dataclass
class Walk:
    """The regular files below a folder, in batches, and a count of what is passed over."""

    folder: str
    avoid: (
        os.stat_result | None
    )  # a folder that is not entered: the store, which may lie in the tree
    links: int = 0
    special: int = 0  # FIFOs, sockets, devices
    errors: list[OSError] = field(default_factory=list)
    large: list[str] = field(default_factory=list)  # paths of the files that `batches` has left out

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """Every regular file, a folder's own files before those of its folders."""
        folders = [os.path.join(self.folder, "")]
        while folders:
            try:
                with os.scandir(folders.pop()) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                self.errors.append(error)
                continue
            for entry in entries:
                if entry.is_symlink():
                    self.links += 1
                elif entry.is_dir():
                    found_one = entry.stat(follow_symlinks=False)
                    if self.avoid is None or not os.path.samestat(found_one, self.avoid):
                        folders.append(entry.path)
                elif entry.is_file():
                    yield entry
                else:
                    self.special += 1

    def totals(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        files = size = 0
        for entry in self.entries():
            try:
                size += entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue  # gone since it was listed
            files += 1
        return files, size

    def batches(self) -> Iterator[tuple[list[str], list[bytes]]]:
        """Relative paths and contents: as many files as fill BATCH_BYTES, or one larger file."""
        start = len(os.path.join(self.folder, ""))
        keys: list[str] = []
        values: list[bytes] = []
        size = 0
        for entry in self.entries():
            try:
                if entry.stat(follow_symlinks=False).st_size > LARGE_BYTES:
                    self.large.append(entry.path)
                    continue
                with open(entry.path, "rb", buffering=0) as file:
                    value = file.read()
            except OSError as error:
                self.errors.append(error)
                continue
            if keys and size + len(value) > BATCH_BYTES:
                yield keys, values
                keys, values, size = [], [], 0
            keys.append(entry.path[start:])
            values.append(value)
            size += len(value)
        if keys:
            yield keys, values


@dataclass
class Source:
    """A file that is read, and what went wrong with reading it."""

    file: BinaryIO
    error: OSError | None = None
    size: int = 0

    def read(self, n: int, /) -> bytes:
        """The next bytes."""
        try:
            data = self.file.read(n)
        except OSError as error:
            self.error = error
            raise
        self.size += len(data)
        return data

    def seek(self, at: int) -> None:
        """Read again from the beginning, which is all that `at` may be."""
        self.size = self.file.seek(at)


def import_tree(folder: str, uri: str, expires: bool, shown: bool, opening: Opening) -> int:
    """Store every regular file below `folder` under its relative path, but for those that are there with the same content.

    Parameters
    ----------
    folder : str
        The tree. It may be a symbolic link itself; those in it are not followed.
    uri : str
        A store of one bytes attribute, created when it is missing.
    expires : bool
        Whether the store must keep moments of expiry, and does when it is created.
    shown : bool
        Whether to draw a progress bar on stderr.
    opening : Opening
        How the store is opened.

    Returns
    -------
    int
        The exit code: 1 when a file could not be read, which does not keep the others out.
    """
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder} is not a directory")
    with opening.to_write(uri, expires=expires) as db:
        attrs = db.schema.attrs
        if len(attrs) > 1 or attrs[0].type_name != "bytes":
            raise WrongTypeError(f"files go into a store of one bytes attribute; {uri} has {attrs}")
        store = os.stat(db.uri) if os.path.isdir(db.uri) else None
        bar = Progress(*Walk(folder, store).totals(), sys.stderr) if shown else None
        walk = Walk(folder, store)
        before = db.info().stored_bytes
        started = time.monotonic()
        files = size = equal = added = 0
        with bar or nullcontext():
            for keys, values in walk.batches():
                known = db.get_many(keys)
                new = [
                    pair
                    for pair, old in zip(zip(keys, values, strict=True), known, strict=True)
                    if pair[1] != old
                ]
                db.put_many(new)
                batch = sum(map(len, values))
                files += len(keys)
                size += batch
                equal += len(keys) - len(new)
                added += sum(len(value) for _, value in new)
                if bar:
                    bar.advance(len(keys), batch)
            for path in walk.large:
                source: Source | None = None
                try:
                    with open(path, "rb") as file:
                        source = Source(file)
                        key = path[len(os.path.join(folder, "")) :]
                        new_one = put_unless_equal(db, key, source)
                except OSError as raised:
                    if source is not None and source.error is not raised:
                        raise  # of the store
                    walk.errors.append(raised)
                    continue
                files += 1
                size += source.size
                equal += not new_one
                added += source.size if new_one else 0
                if bar:
                    bar.advance(1, source.size)
            db.flush()
        seconds = max(time.monotonic() - started, 1e-9)
        stored = db.info().stored_bytes - before
    print(
        f"{counted(files, 'file')}, {size_text(size)} in {seconds:.1f} s: {files / seconds:,.0f} entries/s, "
        f"{size_text(size / seconds)}/s; {size_text(stored)} stored, "
        f"ratio {added / stored if stored else 1:.2f}"
    )
    if equal:
        print(f"{counted(equal, 'file')} as stored before")
    for count, what in ((walk.links, "symbolic link"), (walk.special, "special file")):
        if count:
            print(f"{counted(count, what)} left out")
    for error in walk.errors:
        print(f"tilekv: {error_text(error)}", file=sys.stderr)
    return 1 if walk.errors else 0


def export_tree(uri: str, folder: str, attr: str | None, force: bool, opening: Opening) -> int:
    """Write every value of a store to the file below `folder` that its key names, or to a tar archive of that name.

    All keys are checked before the first file is written. Nothing is ever written outside `folder`:
    not by a key, and not through a symbolic link that is there.

    Parameters
    ----------
    uri : str
        A store of which every key is a str.
    folder : str
        Created when it is missing; refused when there is something in it, unless `force`. A name that ends with .tar, .tar.gz,
        .tgz, .tar.bz2 or .tar.xz is that of an archive, refused when it is there, unless `force`.
    attr : str, optional
        The attribute to write, bytes or str; needed when there are several.
    force : bool
        Write into a folder that has files, and over those that have an entry's name; replace an archive.
    opening : Opening
        How the store is opened.

    Returns
    -------
    int
        The exit code, 0.
    """
    started = time.monotonic()
    with opening.to_read(uri) as db:
        chosen = named_attr(db, attr)
        for key in db:
            check_path(key)
        files, size = (_into_tar if is_tar(folder) else _into_folder)(db, folder, chosen, force)
    print(f"{counted(files, 'file')}, {size_text(size)} in {time.monotonic() - started:.1f} s")
    return 0


def is_tar(place: str) -> bool:
    """Whether a file of this name is an archive."""
    return place.endswith(TARS)


def _into_folder(db: Store, folder: str, chosen: Attr, force: bool) -> tuple[int, int]:
    """How many files, and their bytes."""
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder) and not force:
        raise FileExistsError(f"{folder} is not empty: --force writes into it all the same")
    root = os.path.realpath(folder)
    files = size = 0
    for key in db:
        path = os.path.join(root, key)
        if os.path.realpath(path) != path:
            raise InvalidValueError(
                f"{path} is reached through a symbolic link, and may lie elsewhere"
            )
        # Without force nothing is there, but two keys may name one file where case does not count.
        with opened_value(db, key, chosen, None) as value:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb" if force else "xb") as file:
                size += copy_bytes(value, file)
        files += 1
    return files, size


def _into_tar(db: Store, place: str, chosen: Attr, force: bool) -> tuple[int, int]:
    """How many files, and their bytes. The archive has its name when it is whole; two of one store are equal byte for byte."""
    if os.path.exists(place) and not force:
        raise FileExistsError(f"{place} is there: --force replaces it")
    ending = place.rpartition(".")[2]
    mode: Any = "w" if ending == "tar" else f"w:{'gz' if ending == 'tgz' else ending}"
    part = f"{place}.part"
    files = size = 0
    try:
        with tarfile.open(part, mode, format=tarfile.PAX_FORMAT) as archive:
            for key in db:
                with opened_value(db, key, chosen, None) as value:
                    member = tarfile.TarInfo(key)
                    member.size = value.seek(0, os.SEEK_END)
                    value.seek(0)
                    archive.addfile(member, value)
                files += 1
                size += member.size
        os.replace(part, place)
    finally:
        with suppress(FileNotFoundError):
            os.remove(part)
    return files, size


def check_path(key: object) -> None:
    """Refuse a key that is no path below the folder it is exported to, or that another spelling of it equals."""
    if not isinstance(key, str):
        raise WrongTypeError(f"key {key!r} is no path: only str keys can be exported")
    if "\0" in key or re.search(r"(^|/)\.{0,2}(/|\Z)", key):
        raise InvalidValueError(
            f"key {key!r} is no path below a folder: it is empty or absolute, or has a NUL, '.', '..' or '//'"
        )
