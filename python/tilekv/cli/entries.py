"""Single entries: get, put and rm, and how keys and values are written on a command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BufferedIOBase, BytesIO
from math import isinf
from typing import Any, BinaryIO, Final

import numpy as np

from tilekv.cli.options import Opening
from tilekv.errors import InvalidValueError, KeyNotFoundError, WrongTypeError
from tilekv.schema import Attr
from tilekv.store import Store

KEY_TYPES: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "bytes": os.fsencode,
    "int": int,
    "float": float,
}

COPIED_BYTES: Final = 1 << 20  # of a value


def get_value(
    uri: str,
    key: Any,
    attr: str | None,
    output: str | None,
    part: slice | None,
    opening: Opening,
) -> int:
    """Write one attribute of a key, or a part of it, to a file or to stdout: some bytes at a time, however large it is."""
    with opening.to_read(uri) as db, ExitStack() as stack:
        source = stack.enter_context(opened_value(db, key, named_attr(db, attr), part))
        file = sys.stdout.buffer if output is None else stack.enter_context(open(output, "wb"))
        size = source.seek(0, os.SEEK_END)
        start, stop, _ = (part or slice(None)).indices(size)
        source.seek(start)
        copy_bytes(source, file, max(stop - start, 0))
    return 0


def copy_bytes(source: BufferedIOBase, file: BinaryIO, n: int | None = None) -> int:
    """Copy `n` bytes, or all there are, some at a time: how many there were."""
    done = 0
    while some := source.read(COPIED_BYTES if n is None else min(n - done, COPIED_BYTES)):
        file.write(some)
        done += len(some)
    return done


def opened_value(db: Store, key: Any, attr: Attr, part: slice | None) -> BufferedIOBase:
    """What is written of one attribute of a key, as a file."""
    if attr.type_name not in ("bytes", "str"):
        if part is not None:
            raise WrongTypeError(f"--range is for bytes and text; {attr} is neither")
        return BytesIO(value_bytes(read_cell(db, key, attr)))
    if attr.nullable and read_cell(db, key, attr) is None:
        return BytesIO()
    try:
        return db.open_value(key, attr.name)
    except KeyNotFoundError:
        raise KeyNotFoundError(f"{db.uri} has no key {key!r}") from None


def put_value(
    uri: str, key: Any, file: str, value: str | None, expire: float | None, opening: Opening
) -> int:
    """Set a key to `value`, or to what is in a file; `-` is stdin. Creates a store that is missing.

    With `expire`, in seconds, infinite for never, the store must keep moments of expiry, and does when it is created. What
    expires is read into memory; other bytes are written as they come.
    """
    with ExitStack() as stack:
        source: BinaryIO = BytesIO(os.fsencode(value or ""))
        if value is None:
            source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        db = stack.enter_context(opening.to_write(uri, expires=expire is not None))
        if len(db.schema.attrs) > 1:
            names = ", ".join(attr.name for attr in db.schema.attrs)
            raise InvalidValueError(f"put is for stores of one attribute; {uri} has {names}")
        never = expire is None or isinf(expire)
        if never and db.schema.attrs[0].type_name == "bytes":
            db.put_stream(key, source)
        else:
            value_read = parse_value(source.read(), db.schema.attrs[0])
            db.set(key, value_read, None if never else expire)
    return 0


def remove_keys(uri: str, keys: Sequence[Any], opening: Opening) -> int:
    """Delete keys, all or none: a key that is missing leaves the others where they are."""
    opening.to_read(uri).close()  # mode "a" would create a store that is missing
    with opening.to_write(uri) as db:
        for key in keys:
            if key not in db:
                raise KeyNotFoundError(f"{uri} has no key {key!r}")
        db.delete_many(keys)
    return 0


def key_of(text: str, kind: str) -> Any:
    """The key that an argument stands for; `kind` is one of KEY_TYPES."""
    try:
        return KEY_TYPES[kind](text)
    except ValueError:
        raise InvalidValueError(f"{text!r} is no {kind} key") from None


def named_attr(db: Store, name: str | None) -> Attr:
    """The attribute of that name, or the only one."""
    attrs = {attr.name: attr for attr in db.schema.attrs}
    names = ", ".join(attrs)
    if name is None and len(attrs) > 1:
        raise InvalidValueError(f"{db.uri} has several attributes, choose one with --attr: {names}")
    if name is not None and name not in attrs:
        raise InvalidValueError(f"{db.uri} has no attribute {name!r}; it has {names}")
    return db.schema.attrs[0] if name is None else attrs[name]


def read_cell(db: Store, key: Any, attr: Attr) -> Any:
    """One attribute of a key; the others are not read."""
    if len(db.schema.attrs) == 1:
        value = db.get(key, db)
        if value is db:
            raise KeyNotFoundError(f"{db.uri} has no key {key!r}")
        return value
    row = db.get_many([key], db, [attr.name])[0]
    if row is db:
        raise KeyNotFoundError(f"{db.uri} has no key {key!r}")
    return row[attr.name]


def cell_size(value: Any, attr: Attr) -> int:
    """The bytes of a value, before compression; of a null none."""
    if value is None:
        return 0
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else attr.dtype.itemsize * np.size(value)


def value_bytes(value: Any) -> bytes:
    """bytes as they are, str in UTF-8, nothing of a null, anything else as text on a line of its own."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return f"{value.tolist() if isinstance(value, np.ndarray) else value}\n".encode()


def parse_value(data: bytes, attr: Attr) -> Any:
    """What `value_bytes` wrote, for an attribute of bytes, str or a scalar number."""
    if attr.type_name == "bytes":
        return data
    if attr.dtype.kind not in "Uiuf":
        raise WrongTypeError(f"put writes bytes, text and numbers; {attr} is none of these")
    try:
        text = data.decode()
        return text if attr.type_name == "str" else attr.dtype.type(text.strip())
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(f"attribute {attr.name!r} is {attr.type_name}: {error}") from None
