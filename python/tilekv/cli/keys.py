"""Many keys: ls, grep, du and cp."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from tilekv.cli.entries import cell_size, read_cell
from tilekv.cli.options import Opening
from tilekv.cli.text import counted, key_text
from tilekv.drawing import table
from tilekv.errors import InvalidValueError, KeyNotFoundError
from tilekv.expiry import NEVER
from tilekv.kvcore.batch.key_lines import key_lines
from tilekv.kvcore.values.key_filter import KeyFilter
from tilekv.moving.importing import put_rows
from tilekv.moving.source import Row, Source
from tilekv.schema import Attr, Schema
from tilekv.store import Store

_quoted: Final = json.JSONEncoder().encode
AT_ONCE: Final = 1000  # keys that are printed, or copied, together
SMALL_BYTES: Final = (
    4096  # stored: smaller values are read sooner than each is looked up to be measured
)
_STEERING: Final = re.compile(r"[\0-\x09\x0b-\x1f\x7f-\x9f]")  # but for the end of a line
# Bytes of text that a form prints as they are, by not being 0. On a line: all but those that steer a terminal, and the first of
# those two that are a C1 control.
_ALL: Final = b"\1" * 256
_ON_A_LINE: Final = bytes(byte >= 0x20 and byte not in (0x7F, 0xC2) for byte in range(256))
_IN_JSON: Final = bytes(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in range(256))


class Form(NamedTuple):
    """How keys are printed.

    Attributes
    ----------
    long : bool
        With the size of the value and the type of the key.
    zero : bool
        As they are, each with a NUL behind it.
    as_json : bool
        An object a line.
    """

    long: bool = False
    zero: bool = False
    as_json: bool = False


def list_keys(
    uri: str,
    prefix: str | None,
    glob: str | None,
    ordered: bool,
    form: Form,
    opening: Opening,
) -> int:
    """Print the keys in digest order; or, of a prefix or a pattern or in the order of the keys, those that are text."""
    with opening.to_read(uri) as db:
        asked = None if prefix is None and glob is None else KeyFilter(prefix or "", glob)
        if ordered:
            print_keys(db, iter(db.scan_keys(prefix=prefix or "", glob=glob, sorted=True)), form)
        elif form.long:
            keys = db if asked is None else db.scan_keys(prefix=prefix or "", glob=glob)
            print_keys(db, iter(keys), form)
        else:
            _print_found(db, asked, form)
    return 0


def _print_found(db: Store, asked: KeyFilter | None, form: Form) -> None:
    """Write the keys that are asked for, or all, with no object for a key that is printed as it is: as quick as an iterator."""
    before, after = (word.encode() for word in _around(form, str))
    plain = _IN_JSON if form.as_json else _ALL if form.zero else _ON_A_LINE
    search = db._key_scan(asked)

    def other(keys: list[Any]) -> bytes:
        return _lines(db, keys, form).encode("utf-8", "surrogateescape")

    def printed(part: int) -> str:
        text = key_lines(search.part(part), before, after, plain, form.zero, other)
        return text.decode("utf-8", "surrogateescape")

    with closing(db._each_part(search, printed)) as parts:
        for text in parts:
            sys.stdout.write(text)


def search_keys(
    pattern: str,
    uri: str,
    ignore_case: bool,
    invert: bool,
    count: bool,
    form: Form,
    opening: Opening,
) -> int:
    """Print the text keys in which a regular expression is found, or is not if `invert`; or how many they are.

    Returns
    -------
    int
        The exit code, as of grep: 1 when there is no such key.
    """
    try:
        found = re.compile(pattern, re.IGNORECASE if ignore_case else 0).search
    except re.error as error:
        raise InvalidValueError(f"{pattern!r} is no regular expression: {error}") from None
    with opening.to_read(uri) as db:
        keys = (key for key in db if isinstance(key, str) and (found(key) is None) == invert)
        if count:
            n = sum(1 for _ in keys)
            print(n)
        else:
            n = print_keys(db, keys, form)
    return 0 if n else 1


def print_keys(db: Store, keys: Iterator[Any], form: Form) -> int:
    """Write keys, a thousand at a time: a terminal, and PYTHONUNBUFFERED, would make two system calls of each line."""
    n = 0
    while some := list(islice(keys, AT_ONCE)):
        sys.stdout.write(_lines(db, some, form))
        n += len(some)
    return n


def _around(form: Form, kind: type) -> tuple[str, str]:
    """What stands before and behind a key whose text, or number, is printed as it is."""
    if form.as_json:
        quote = '"' if kind is str else ""
        return f'{{"key": {quote}', f'{quote}, "type": "{kind.__name__}"}}\n'
    return "", "\0" if form.zero else "\n"


def _lines(db: Store, keys: list[Any], form: Form) -> str:
    if not form.long and set(map(type, keys)) == {int}:
        before, after = _around(form, int)
        return f"{before}{f'{after}{before}'.join(map(repr, keys))}{after}"
    if form.as_json:
        return "".join(f"{_json(db, key, form.long)}\n" for key in keys)
    if form.zero:
        return "".join(f"{_plain(key)}\0" for key in keys)
    if form.long:
        return "".join(
            f"{size_of(db, key):>13,}  {type(key).__name__:<5}  {key_text(key)}\n" for key in keys
        )
    try:  # mostly they are text with nothing in it that steers a terminal: looked through together
        text = "\n".join([*keys, ""])
    except TypeError:
        text = "\x7f"
    if _STEERING.search(text) or text.count("\n") != len(keys):
        return "".join(f"{key_text(key)}\n" for key in keys)
    return text


def _json(db: Store, key: Any, long: bool) -> str:
    """Text and numbers are themselves, bytes are hexadecimal, and anything else as Python writes it."""
    shown = (
        key.hex()
        if isinstance(key, bytes)
        else key
        if isinstance(key, (str, int, float))
        else repr(key)
    )
    size = f', "size": {size_of(db, key)}' if long else ""
    return f'{{"key": {_quoted(shown)}, "type": "{type(key).__name__}"{size}}}'  # json.dumps of a dict takes 3 us


def _plain(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def size_of(db: Store, key: Any) -> int:
    """The bytes of a value, before compression. Text and bytes are not read for it."""
    return sum(_cell_size(db, key, attr) for attr in db.schema.attrs)


def _cell_size(db: Store, key: Any, attr: Attr) -> int:
    if attr.type_name in ("bytes", "str"):
        value = db._stored(key, attr.name)
        return 0 if value is None else value.size
    if attr.var or attr.nullable:
        return cell_size(read_cell(db, key, attr), attr)
    return _fixed_size(attr)


def _fixed_size(attr: Attr) -> int:
    return attr.dtype.itemsize * int(np.prod(attr.shape or ()))


def _sizes(db: Store, prefix: str | None) -> Iterator[tuple[Any, int]]:
    """Keys with the bytes of their values."""
    stored = sum(fragment.stored_bytes for fragment in db.fragments)
    cells = sum(fragment.cells for fragment in db.fragments)
    if prefix is not None or stored > cells * SMALL_BYTES:
        for key in db if prefix is None else db.scan_keys(prefix=prefix):
            yield key, size_of(db, key)
        return
    wanted = [
        attr for attr in db.schema.attrs if attr.var or attr.nullable or attr.dtype.kind in "SU"
    ]
    rest = sum(_fixed_size(attr) for attr in db.schema.attrs if attr not in wanted)
    for batch in db.scan([attr.name for attr in wanted]):
        sizes = np.full(len(batch), rest, np.int64)
        for attr in wanted:
            if attr.var or attr.dtype.kind in "SU":
                sizes += np.diff(batch[attr.name].offsets)
            else:
                sizes += _fixed_size(attr) * batch.valid[attr.name]
        yield from zip(batch.keys, sizes.tolist(), strict=True)


def show_sizes(uri: str, prefix: str | None, depth: int, as_json: bool, opening: Opening) -> int:
    """Print how many entries, and bytes of values, are below each folder that slashes in text keys make; and all together.

    What is no text, or has no slash, counts in the last line alone. Bytes are those of values, before compression.
    """
    sums: dict[str, list[int]] = {}
    total = [0, 0]
    with opening.to_read(uri) as db:
        for key, size in _sizes(db, prefix):
            total[0] += 1
            total[1] += size
            if not isinstance(key, str):
                continue
            end = -1
            for _ in range(depth):
                end = key.find("/", end + 1)
                if end < 0:
                    break
                found = sums.setdefault(key[: end + 1], [0, 0])
                found[0] += 1
                found[1] += size
    folders = [*sorted(sums.items()), (prefix or "", total)]
    if as_json:
        for name, (entries, size) in folders:
            print(json.dumps({"prefix": name, "entries": entries, "bytes": size}))
        return 0
    rows = [
        (f"{size:,}", counted(entries, "entry", "entries"), key_text(name))
        for name, (entries, size) in folders
    ]
    if not table(sys.stdout, (">bytes", ">entries", "prefix"), rows):
        for row in rows:
            print(f"{row[0]:>15}  {row[1]:>15}  {row[2]}")
    return 0


def copy_keys(
    source: str,
    uri: str,
    keys: Sequence[Any],
    prefix: str | None,
    glob: str | None,
    expires: bool,
    report: Callable[[int, int], object],
    opening: Opening,
) -> int:
    """Put entries of one store into another: those of the keys, or that match, or all."""
    started = time.monotonic()
    with opening.to_read(source) as db:
        wanted: Iterable[Any] = keys or db
        if prefix is not None or glob is not None:
            wanted = db.scan_keys(prefix=prefix or "", glob=glob)
        total = len(keys) or (len(db) if wanted is db else len(list(wanted)))
        schema = Schema(db.schema.attrs, expires=db.schema.expires)._of_frame(db.schema._frame)
        found = Source(_rows(db, iter(wanted)), total, schema, db.schema.expires)
        config, options = opening.config, opening.storage_options
        done = put_rows(found, found.rows, uri, expires, report, config, options)
    entries = counted(done.entries, "entry", "entries")
    print(f"{entries} in {time.monotonic() - started:.1f} s, {done.equal:,} as stored before")
    return 0


def _rows(db: Store, keys: Iterator[Any]) -> Iterator[Row]:
    while some := list(islice(keys, AT_ONCE)):
        for key, value in zip(some, db.get_many(some, db), strict=True):
            if value is db:
                raise KeyNotFoundError(f"{db.uri} has no key {key!r}")
            yield key, value, db._expires(key) if db.schema.expires else NEVER
