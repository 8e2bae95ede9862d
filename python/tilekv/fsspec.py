"""A store as a file system of fsspec: ``tilekv://2024/cat.jpg::file:///data/photos.kv`` (docs/fsspec.md).

Imported when it is used, by fsspec itself or a program of its own: it takes fsspec, which tilekv does not depend on.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from tilekv.errors import (
    InvalidValueError,
    KeyNotFoundError,
    MissingPackageError,
    ReadOnlyError,
    WrongTypeError,
    shown,
)
from tilekv.store import Store
from tilekv.store import open as open_store

try:
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.spec import AbstractFileSystem
    from fsspec.transaction import Transaction
except ImportError as error:
    raise MissingPackageError("tilekv.fsspec takes fsspec: pip install fsspec") from error

LARGE_BYTES: Final = 16 << 20  # of a local file that goes in by parts, into a fragment of its own
# Protocols of fsspec whose stores tilekv has by another name.
_OUR_NAMES: Final = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


class TilekvTransaction(Transaction):  # type: ignore[misc]  # fsspec has no types
    """What is written in it becomes visible to others at its end, in one fragment as long as it fits into the write buffer."""

    def complete(self, commit: bool = True) -> None:
        """Put all files, or none, and flush once."""
        with self.fs._flushing():
            super().complete(commit)


class TilekvFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The text keys of a store of bytes as paths, in folders by their slashes, and its values as files.

    Whatever writes is flushed when the call returns: a ``put``, ``pipe`` or ``rm`` of many files once, and so is what a
    ``with fs.transaction`` has written. The instance sees its own writes at once; other instances, and it those of others, after
    `invalidate_cache`. Folders are what keys have in common: an empty one cannot be made. Keys that are not text, that begin or
    end with a slash or have two in a row are not seen.

    Parameters
    ----------
    fo : str
        The store: a path or a URI as `tilekv.open` takes it. In a chained URL it is what stands behind ``::``.
    mode : {"a", "r"}
        "r" refuses to write. With "a" the store is opened for writing by the first write, which creates it when it is missing.
    target_protocol : str, optional
        The protocol of `fo`, as fsspec gives it for a chained URL.
    target_options : mapping, optional
        Of a store on object storage: the `storage_options` of `tilekv.open`.
    timestamp : int, datetime.datetime or numpy.datetime64, optional
        Show the store as it was then; with mode "r".
    config : mapping, optional
        Options, as of `tilekv.open`.
    **options
        Of fsspec: ``use_listings_cache``, ``skip_instance_cache`` and their like.

    Raises
    ------
    InvalidValueError
        When there is no `fo`, for another mode, and for files opened with a mode that is not read, write or create.
    """

    protocol = "tilekv"
    transaction_type = TilekvTransaction

    def __init__(
        self,
        fo: str = "",
        mode: Literal["r", "a"] = "a",
        target_protocol: str | None = None,
        target_options: Mapping[str, object] | None = None,
        timestamp: Any = None,
        config: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not fo:
            raise InvalidValueError(
                "which store? tilekv://KEY::file:///folder/STORE says it, or fo='folder/STORE'"
            )
        if mode not in ("r", "a"):
            raise InvalidValueError(f"mode is 'r' or 'a', not {shown(mode)}")
        self.uri = _uri(os.fspath(fo), target_protocol)
        self.mode = mode
        self._opening = {
            "timestamp": timestamp,
            "config": config,
            "storage_options": target_options,
        }
        self._handle: Store | None = None
        self._opened = threading.Lock()
        self._calls = threading.local()

    # --- the store ---

    @property
    def store(self) -> Store:
        """The open handle; for reading only until something was written."""
        with self._opened:
            if self._handle is None:
                self._handle = _checked(open_store(self.uri, "r", **self._opening))
            return self._handle

    def _writable(self) -> Store:
        if self.mode == "r":
            raise ReadOnlyError(f"{self.uri} was opened with mode 'r'")
        with self._opened:
            # What was handed out by the handle before keeps what it reads from.
            if self._handle is None or self._handle.mode == "r":
                self._handle = _checked(open_store(self.uri, "a", **self._opening))
                self.dircache.clear()
            return self._handle

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        """Flush at the end of the outermost call of this thread, once for all that it has written."""
        calls = self._calls
        calls.depth = getattr(calls, "depth", 0) + 1
        try:
            yield
        finally:
            calls.depth -= 1
            if calls.depth == 0 and self._handle is not None:
                self._handle.sync()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look again: forget listings, and see what others have flushed."""
        super().invalidate_cache(path)
        self.dircache.clear()
        if self._handle is not None:
            self._handle.reopen()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.lstrip("/") if isinstance(stripped, str) else stripped

    # --- listing ---

    def ls(self, path: str, detail: bool = True, sizes: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a folder, or a file itself, sorted by name.

        Parameters
        ----------
        path : str
        detail : bool
            Whether to give dicts with ``name``, ``size`` and ``type``, or names.
        sizes : bool
            Whether dicts have sizes, each of which takes a look-up; else they are None.
        """
        path = self._strip_protocol(path)
        names = self._folder(path)
        if not names:
            if not self.isfile(path):
                if path == "":
                    return []
                raise _missing(path)
            names = {path: False}
        if not detail:
            return sorted(names)
        return [self._details(name, names[name], sizes) for name in sorted(names)]

    def _details(self, name: str, folder: bool, sizes: bool = True) -> dict[str, Any]:
        size = 0 if folder else self._size(name) if sizes else None
        return {"name": name, "size": size, "type": "directory" if folder else "file"}

    def _size(self, path: str) -> int:
        value = self.store._stored(path, None)
        return 0 if value is None else value.size

    def _folder(self, path: str) -> dict[str, bool]:
        """The names in a folder, each with whether it is a folder itself."""
        if path not in self.dircache:
            found = _folders(self._keys(path), path, deep=False)
            self.dircache[path] = found[path]
            return found[path]
        known: dict[str, bool] = self.dircache[path]
        return known

    def _keys(self, path: str) -> list[str]:
        return self.store.scan_keys(prefix=f"{path}/" if path else "")

    def walk(
        self, path: str, maxdepth: int | None = None, *args: Any, **kwargs: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """As of fsspec: folders, and what is in each. The keys below `path` are looked through once."""
        path = self._strip_protocol(path)
        known = path in self.dircache or not self.dircache.use_listings_cache
        if maxdepth != 1 and not known:
            try:
                found = _folders(self._keys(path), path, deep=True)
            except FileNotFoundError:
                found = {}  # ls below raises it, or not, as the caller wants
            for folder, names in found.items():
                self.dircache[folder] = names
        yield from super().walk(path, maxdepth, *args, **kwargs)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As of fsspec: all files below a path. Sizes are looked up when `detail` is given."""
        kwargs.setdefault("sizes", detail)
        return super().find(path, maxdepth, withdirs, detail, **kwargs)

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """As of fsspec: the paths that match a pattern. Sizes are looked up when `detail` is given."""
        kwargs.setdefault("sizes", kwargs.get("detail", False))
        return super().glob(path, maxdepth, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """``name``, ``type``, and ``size``, that of the value in bytes; FileNotFoundError when there is no such path."""
        path = self._strip_protocol(path)
        if self.isfile(path):
            return self._details(path, False)
        if path == "" or self.dircache.get(path):
            return self._details(path, True)
        if self.store.scan_keys(prefix=f"{path}/", limit=1):
            return self._details(path, True)
        raise _missing(path)

    def isfile(self, path: str) -> bool:
        """Whether there is a file of this path."""
        path = self._strip_protocol(path)
        try:
            return _is_path(path) and path in self.store
        except FileNotFoundError:
            return False

    # --- reading ---

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """The bytes of a file, or those from `start` to `end`, as Python slices."""
        path = self._strip_protocol(path)
        try:
            if start is None and end is None:
                value: bytes = self.store[path]
                return value
            return self.store.get_range(path, start or 0, end) or b""
        except KeyNotFoundError:
            raise _missing(path) from None

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> Any:
        """As of fsspec: the bytes of one file, or of many as a dict, which are read together."""
        paths = self.expand_path(path, recursive=recursive)
        if kwargs or (isinstance(path, str) and paths == [self._strip_protocol(path)]):
            return super().cat(path, recursive, on_error, **kwargs)
        found: dict[str, Any] = {}
        for each, value in zip(paths, self.store.get_many(paths), strict=True):
            if value is not None:
                found[each] = value
            elif on_error == "raise":
                raise _missing(each)
            elif on_error == "return":
                found[each] = _missing(each)
        return found

    def get_file(self, rpath: str, lpath: Any, *args: Any, **kwargs: Any) -> None:
        """As of fsspec: copy a file to the local disk, some MiB of it in memory at a time."""
        if not self.isfile(rpath) and not self.isdir(rpath):
            raise _missing(self._strip_protocol(rpath))  # before a local file is made
        super().get_file(rpath, lpath, *args, **kwargs)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, object] | None = None,
        **kwargs: Any,
    ) -> io.BufferedIOBase:
        """A buffered file of a value as it is now, or a `TilekvFile`. Bytes are read as they are asked for."""
        if mode == "rb":
            try:
                return self.store.open_value(path)
            except KeyNotFoundError:
                raise _missing(path) from None
        if mode not in ("wb", "xb"):
            raise InvalidValueError(
                f"a file is opened to be read, written or created, not with mode {shown(mode)}: a value is written whole"
            )
        if mode == "xb":
            self._check_new([path])
        self._writable()
        return TilekvFile(self, path, autocommit)

    # --- writing ---

    def _put(self, values: Mapping[str, Any]) -> None:
        _check_paths(values)
        with self._flushing():
            self._writable().put_many(values)
            self._changed(values)

    def _changed(self, paths: Any) -> None:
        """Forget the listings that these paths are in."""
        for path in paths:
            while path:
                path = self._parent(path)
                self.dircache.pop(path, None)

    def _check_new(self, paths: Any) -> None:
        for path in paths:
            if self.isfile(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Set the bytes of a file; with mode "create" it must not be there."""
        self.pipe({path: value}, mode=mode)

    def pipe(self, path: Any, value: Any = None, mode: str = "overwrite", **kwargs: Any) -> None:
        """Set the bytes of one file, or of many that a dict has, which are flushed together."""
        if not isinstance(path, (str, dict)):
            raise WrongTypeError(f"path is a str or a dict, not {type(path).__name__}")
        given = {path: value} if isinstance(path, str) else path
        values = {self._strip_protocol(each): data for each, data in given.items()}
        if mode == "create":
            self._check_new(values)
        if not self._intrans:
            self._put(values)
            return
        for each, data in values.items():
            with self.open(each, "wb") as file:
                file.write(data)

    def put(self, *args: Any, **kwargs: Any) -> None:
        """As of fsspec: copy local files, which are flushed together."""
        with self._flushing():
            super().put(*args, **kwargs)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        """Copy a local file. One of more than 16 MiB comes by parts, into a fragment of its own."""
        local = LocalFileSystem()
        if local.isdir(lpath):
            return  # there are no empty folders
        path = self._strip_protocol(rpath)
        size = local.size(lpath)
        with local.open(lpath, "rb") as file:
            if size > LARGE_BYTES and not self._intrans:
                _check_paths([path])
                self._writable().put_stream(path, file)
                self._changed([path])
            else:
                self.pipe_file(path, file.read())
        if callback is not None:
            callback.set_size(size)
            callback.absolute_update(size)

    def copy(self, *args: Any, **kwargs: Any) -> None:
        """As of fsspec: copy within the store; the copies are flushed together."""
        with self._flushing():
            super().copy(*args, **kwargs)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file; of a folder nothing is copied."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isfile(path1):
            self._put({path2: self.store[path1]})
        elif not self.isdir(path1):
            raise _missing(path1)

    def mv(self, *args: Any, **kwargs: Any) -> None:
        """As of fsspec: copy and remove, in one flush."""
        with self._flushing():
            super().mv(*args, **kwargs)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, and with `recursive` all below a folder, in one flush.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            When a path is not there, or is a folder and `recursive` was not given. Nothing was removed then.
        """
        paths = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        files = [each for each in paths if self.isfile(each)]
        if len(files) < len(paths):
            folders = {each for each in set(paths) - set(files) if self.isdir(each)}
            lost = sorted(set(paths) - set(files) - folders)
            if lost:
                raise _missing(lost[0])
            if folders and not recursive:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), min(folders))
        with self._flushing():
            self._writable().delete_many(files)
            self._changed(files)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self.rm(path)


class TilekvFile(io.BytesIO):
    """A file that is written: in memory, and in the store when it is closed, or at the end of its transaction."""

    def __init__(self, fs: TilekvFileSystem, path: str, autocommit: bool) -> None:
        super().__init__()
        self.fs = fs
        self.path = path
        self._autocommit = autocommit
        self._data: bytes | None = None

    def close(self) -> None:
        """Set the value, unless that is left to a transaction."""
        if self.closed:
            return
        self._data = self.getvalue()
        super().close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        """Set the value to what was written."""
        self.close()
        data, self._data = self._data, None
        if data is not None:
            self.fs._put({self.path: data})

    def discard(self) -> None:
        """Let go of what was written."""
        self._autocommit = False
        self.close()
        self._data = None


def _uri(fo: str, protocol: str | None) -> str:
    """What `tilekv.open` takes, of what fsspec makes of a part of a chained URL."""
    if protocol is None or protocol in ("file", "local") or "://" in fo:
        return fo
    return f"{_OUR_NAMES.get(protocol, protocol)}://{fo.lstrip('/')}"


def _checked(db: Store) -> Store:
    attrs = db.schema.attrs
    if len(attrs) == 1 and attrs[0].type_name == "bytes" and not attrs[0].nullable:
        return db
    db.close()
    raise WrongTypeError(f"files are the values of one bytes attribute; {db.uri} has {attrs}")


def _check_paths(paths: Any) -> None:
    for path in paths:
        if not _is_path(path):
            raise InvalidValueError(f"{shown(path)} is no path of a file")


def _is_path(key: str) -> bool:
    """Whether it is one that a listing shows: of names that are not empty."""
    return key != "" and key[0] != "/" and key[-1] != "/" and "//" not in key


def _folders(keys: list[str], root: str, deep: bool) -> dict[str, dict[str, bool]]:
    """For `root`, and if `deep` each folder below it, the names in it; each is told whether it is a folder itself."""
    found: dict[str, dict[str, bool]] = {root: {}}
    skip = len(root) + 1 if root else 0
    for key in keys:
        if not _is_path(key):
            continue
        folder = root
        end = key.find("/", skip)
        while end > 0:
            name = key[:end]
            found[folder][name] = True
            if not deep:
                break
            folder = name
            found.setdefault(folder, {})
            end = key.find("/", end + 1)
        else:
            found[folder].setdefault(key, False)
    return found


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
