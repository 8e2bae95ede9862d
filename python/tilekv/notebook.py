"""What a notebook shows of a store and of a batch: a table of the first rows, with pictures where values are such.

Nothing of a value becomes markup: text is escaped, and a picture is shown by the browser's decoder of JPEG, PNG, GIF or WebP,
which runs nothing. SVG does, and is text here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from tilekv.errors import TileKVError
from tilekv.kvcore.batch.results import Batch
from tilekv.schema import Attr

ROWS: Final = 10
PICTURE_BYTES: Final = 1 << 18  # a larger one is told by its size
_SHOWN: Final = 80  # characters of a text, or an array
_SHOWN_BYTES: Final = 24
_PICTURES: Final = (
    (b"\xff\xd8\xff", 0, "jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"GIF8", 0, "gif"),
    (b"WEBP", 8, "webp"),
)


def store_html(db: Any) -> str:
    """Of a `Store`: its attributes, how large it is, and its first rows."""
    head = f"<p><code>{escape(repr(db))}</code></p>"
    if db.closed:
        return head
    fragments = db.fragments
    size = sum(fragment.stored_bytes for fragment in fragments)
    attrs = ", ".join(str(attr) for attr in db.schema.attrs)
    facts = f"<p>{escape(attrs)}<br>{len(fragments):,} fragments, {size:,} bytes</p>"
    try:
        batch = next(iter(db.scan([], rows=ROWS)), None)
        keys = [] if batch is None else batch.keys
        rows = [[_stored(db, key, attr) for attr in db.schema.attrs] for key in keys]
    except (TileKVError, OSError) as error:
        return f"{head}{facts}<p>{escape(str(error))}</p>"
    names = [attr.name for attr in db.schema.attrs]
    return head + facts + _table(names, keys, rows, len(keys) == ROWS)


def batch_html(batch: Batch) -> str:
    """Its first rows."""
    names = list(batch)
    keys = batch.keys[:ROWS]
    rows = []
    for row in range(len(keys)):
        there = batch.found is None or bool(batch.found[row])
        cells = []
        for name in names:
            null = name in batch.valid and not batch.valid[name][row]
            cells.append(_cell(None if null else batch[name][row]) if there else "")
        rows.append(cells)
    count = f"<p>{len(batch):,} rows</p>"
    return count + _table(names, keys, rows, len(batch) > len(keys))


def picture_of(data: bytes) -> str | None:
    """What picture begins with these bytes: jpeg, png, gif or webp; None: none that is shown as one."""
    return next((kind for mark, at, kind in _PICTURES if data.startswith(mark, at)), None)


def _stored(db: Any, key: Any, attr: Attr) -> str:
    """A cell, of which no more is read than is shown."""
    if attr.type_name not in ("bytes", "str"):
        row = db.get_many([key], attrs=[attr.name])[0]
        return _cell(row if len(db.schema.attrs) == 1 else row[attr.name])
    value = db._stored(key, attr.name)
    if value is None:
        return _cell(None)
    if value.size > PICTURE_BYTES:
        return f"<i>{value.size:,} bytes</i>"
    data = value.part(0, value.size)
    return _cell(data if attr.type_name == "bytes" else data.decode(errors="replace"))


def _cell(value: Any) -> str:
    if value is None:
        return "<i>null</i>"
    if isinstance(value, bytes):
        kind = picture_of(value)
        if kind and len(value) <= PICTURE_BYTES:
            data = b64encode(value).decode()
            return f'<img style="max-height:96px;max-width:192px" src="data:image/{kind};base64,{data}">'
        rest = f"... <i>{len(value):,} bytes</i>" if len(value) > _SHOWN_BYTES else ""
        return f"<code>{escape(repr(value[:_SHOWN_BYTES]))}</code>{rest}"
    if isinstance(value, np.ndarray):
        text = np.array2string(value, threshold=8, edgeitems=2).replace("\n", "")
        return (
            f"<code>{escape(_short(text))}</code> <i>{escape(f'{value.dtype} {value.shape}')}</i>"
        )
    return escape(_short(str(value)))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _table(
    names: Iterable[str], keys: Sequence[Any], rows: Iterable[Iterable[str]], more: bool
) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("key", *names))
    body = "".join(
        f"<tr><th>{escape(_short(key if isinstance(key, str) else repr(key)))}</th>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for key, cells in zip(keys, rows, strict=True)
    )
    rest = "<p>...</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
