"""What a value is shown as: a picture, JSON, text or hexadecimal; no more of it is read than is shown."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final, NamedTuple

import numpy as np

from tilekv.notebook import picture_of
from tilekv.schema import Attr
from tilekv.store import Store

FORMS: Final = ("picture", "JSON", "text", "hex")
SHOWN_BYTES: Final = 1 << 16  # of a value that is no picture
PICTURE_BYTES: Final = 64 << 20  # a larger one is not decoded by the browser
_MARK_BYTES: Final = 16  # that tell a picture
_ROW: Final = 16  # bytes of a line of hexadecimal
_CONTROL: Final = re.compile(r"[\0-\x08\x0e-\x1f\x7f]")


class Shown(NamedTuple):
    """A value as it is shown.

    Attributes
    ----------
    form : str
        One of FORMS; "value" for what is neither bytes nor text, "null" for a null.
    text : str
        What is shown of it, unless it is a picture. It is not escaped.
    size : int or None
        Its bytes, of bytes and text.
    more : bool
        Whether there is more of it.
    """

    form: str
    text: str = ""
    size: int | None = None
    more: bool = False


def shown_value(db: Store, key: Any, attr: Attr, form: str = "") -> Shown:
    """One attribute of a key that is there, as `form` says, or as what its bytes look like.

    Raises
    ------
    KeyNotFoundError
        When the key is not there.
    """
    if attr.type_name not in ("bytes", "str"):
        return _shown_number(db, key, attr)
    value = db._stored(key, attr.name)
    if value is None:
        return Shown("null")
    size = value.size
    data = value.part(0, min(size, SHOWN_BYTES))
    more = size > len(data)
    text = _text_of(data, more)
    looked_at = form not in FORMS
    can_be_picture = attr.type_name == "bytes" and size <= PICTURE_BYTES
    if (looked_at or form == "picture") and can_be_picture and picture_of(data):
        return Shown("picture", size=size)
    if (looked_at or form == "JSON") and text is not None and not more:
        pretty = _json_of(text)
        if pretty is not None:
            return Shown("JSON", pretty, size)
    if form == "text" or (form != "hex" and text is not None and not _CONTROL.search(text)):
        return Shown("text", data.decode(errors="replace") if text is None else text, size, more)
    return Shown("hex", hex_lines(data), size, more)


def picture(db: Store, key: Any, attr: Attr) -> tuple[str, bytes] | None:
    """The media type and the bytes of a value that is a picture; None for any other.

    Raises
    ------
    KeyNotFoundError
        When the key is not there.
    """
    value = db._stored(key, attr.name) if attr.type_name == "bytes" else None
    if value is None or value.size > PICTURE_BYTES:
        return None
    kind = picture_of(value.part(0, min(value.size, _MARK_BYTES)))
    return None if kind is None else (f"image/{kind}", value.part(0, value.size))


def stored_size(db: Store, key: Any) -> int | None:
    """How large a key's bytes and texts are, before compression, without reading them; None where no attribute is either."""
    sizes = []
    for attr in db.schema.attrs:
        if attr.type_name in ("bytes", "str"):
            value = db._stored(key, attr.name)
            sizes.append(0 if value is None else value.size)
    return sum(sizes) if sizes else None


def hex_lines(data: bytes) -> str:
    """Offset, bytes and what of them is ASCII, 16 bytes a line."""
    lines = []
    for at in range(0, len(data), _ROW):
        row = data[at : at + _ROW]
        ascii_part = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<{3 * _ROW - 1}}  {ascii_part}")
    return "\n".join(lines)


def _shown_number(db: Store, key: Any, attr: Attr) -> Shown:
    row = db.read([key], [attr.name], "raise")
    if attr.name in row.valid and not row.valid[attr.name][0]:
        return Shown("null")
    value = row[attr.name][0]
    if isinstance(value, np.ndarray):
        text = np.array2string(value, threshold=1000)
        return Shown("value", f"{text}\n{value.dtype} {value.shape}")
    return Shown("value", str(value))


def _text_of(data: bytes, more: bool) -> str | None:
    """What is UTF-8; where there is more, it may end within a character."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not more)
    except UnicodeDecodeError:
        return None


def _json_of(text: str) -> str | None:
    """An object or a list of JSON, indented; None for anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
