"""The pages of browse, as HTML: all that a store holds is escaped, no page has a script, and the style is a file of its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from html import escape
from itertools import islice
from typing import Any, Final
from urllib.parse import urlencode

from tilekv.browse.values import FORMS, SHOWN_BYTES, shown_value, stored_size
from tilekv.errors import InvalidValueError, KeyNotFoundError
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.values.keys import key_object
from tilekv.store import Store
from tilekv.tiers import tier_of

KEYS: Final = 100  # of a page
# Keys of one prefix that are put in order. Of ten million, all can be looked at within a second, but sorting takes ten.
SORTED: Final = 10_000
FRAGMENTS: Final = 200  # of the table; the newest
_KEY_TEXT: Final = 200  # characters of a key that are shown in a list
_LINKED_BYTES: Final = 16_000  # of a key: a longer one does not go into a URL
_WIDTH, _BAND = 900, 22  # of the drawing, and of a tier in it

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5em auto; max-width: 62em; padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-bottom: 0 }
nav a { margin-right: 1.2em } a { color: #0b57d0; text-decoration: none } a:hover { text-decoration: underline }
table { border-collapse: collapse; margin: 1em 0; width: 100% }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
td.n, th.n { text-align: right; white-space: nowrap }
pre { background: #f5f5f5; padding: .8em; overflow: auto; max-height: 40em } img { max-width: 100%; max-height: 40em }
svg { width: 100%; background: #f5f5f5 } rect { fill: #0b57d0 } svg text { font-size: 11px; fill: #666 }
.faint { color: #666 } .advice { background: #fff4ce; padding: .5em .8em }
"""


def document(title: str, body: str) -> bytes:
    """A whole page; `body` is HTML, `title` is not."""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="style.css"></head><body>'
        f'<nav><a href="./">keys</a><a href="fragments">fragments</a></nav>{body}</body></html>'
    ).encode("utf-8", "replace")


def keys_page(db: Store, asked: dict[str, str]) -> bytes:
    """A page of keys: `prefix`, `of` ("text" or "bytes", whose prefix is hexadecimal) and `at`, how many keys are before it.

    Without a prefix all keys, in the order of their digests, which needs no list of them.
    """
    prefix, of, at = asked.get("prefix", ""), asked.get("of", "text"), _at(asked)
    note = ""
    if prefix:
        wanted = _hex(prefix) if of == "bytes" else prefix
        found = db.scan_keys(prefix=wanted, limit=max(at + KEYS, SORTED) + 1)
        if len(found) <= SORTED:
            found.sort()
        else:
            note = f"More than {SORTED:,} keys match, in the order of their digests: with a longer prefix they are sorted."
        keys = found[at : at + KEYS + 1]
    else:
        keys = list(islice(db, at, at + KEYS + 1))
    more = len(keys) > KEYS
    rows = "".join(_key_row(db, key) for key in keys[:KEYS])
    options = "".join(
        f'<option value="{name}"{" selected" if name == of else ""}>{text}</option>'
        for name, text in (("text", "text keys"), ("bytes", "bytes keys, in hexadecimal"))
    )
    form = (
        f'<form action="./"><input name="prefix" size="40" placeholder="prefix" value="{escape(prefix)}"> '
        f'<select name="of">{options}</select> <button>show</button></form>'
    )
    here = {"prefix": prefix, "of": of} if prefix else {}
    turns = []
    if at:
        turns.append(_link("./", {**here, "at": max(at - KEYS, 0)}, "back", "back"))
    if more:
        turns.append(_link("./", {**here, "at": at + KEYS}, "next", "next"))
    last = at + min(len(keys), KEYS)
    counted = f"{at + 1:,} to {last:,}" if last > at else "no keys"
    body = (
        f'<h1>{escape(db.uri)}</h1>{form}<p class="faint">{counted} {note}</p>'
        f'<table><tr><th>key</th><th>type</th><th class="n">bytes</th></tr>{rows}</table>'
        f"<p>{' '.join(turns)}</p>"
    )
    return document(db.uri, body)


def value_page(db: Store, asked: dict[str, str]) -> bytes:
    """A key with its attributes, each as `form` says or as what it looks like."""
    key = key_of(db, asked)
    form = asked.get("form", "")
    # One that is not there is refused here, whatever attributes there are.
    if key not in db:
        raise KeyNotFoundError("the store has no such key")
    facts = [f"{type(key).__name__} key"]
    if db.schema.expires:
        moment = db.expires(key)
        facts.append(
            "does not expire" if moment is None else f"expires {moment:%Y-%m-%d %H:%M:%S%z}"
        )
    forms = " ".join(
        _link("value", {"key": key_word(db, key), "form": name}, name) for name in FORMS
    )
    parts = []
    for attr in db.schema.attrs:
        shown = shown_value(db, key, attr, form)
        size = "" if shown.size is None else f", {shown.size:,} bytes"
        rest = f", of which the first {SHOWN_BYTES:,} are here" if shown.more else ""
        parts.append(f"<h2>{escape(attr.name)}</h2>")
        parts.append(
            f'<p class="faint">{escape(attr.type_name)}, shown as {shown.form}{size}{rest}</p>'
        )
        if shown.form == "picture":
            query = urlencode({"key": key_word(db, key), "attr": attr.name})
            parts.append(f'<img alt="the value" src="picture?{escape(query)}">')
        elif shown.form != "null":
            parts.append(f"<pre>{escape(shown.text)}</pre>")
    body = (
        f'<h1>{escape(shown_key(key))}</h1><p class="faint">{escape(", ".join(facts))}</p>'
        f"<p>{forms}</p>{''.join(parts)}"
    )
    return document(shown_key(key), body)


def fragments_page(db: Store) -> bytes:
    """What the store is, what would pay, and its fragments by time and tier."""
    info = db.info()
    fragments = db.fragments
    facts = [
        ("attributes", ", ".join(str(attr) for attr in db.schema.attrs)),
        ("keys", f"{info.live:,}"),
        ("cells", f"{info.cells:,}, {info.tombstones:,} of them deletes"),
        ("stored", f"{info.stored_bytes:,} bytes, about {info.dead_bytes:,} of them dead"),
        ("superseded", f"{info.superseded:,} fragments, {info.superseded_bytes:,} bytes"),
    ]
    table = "".join(f"<tr><th>{name}</th><td>{escape(fact)}</td></tr>" for name, fact in facts)
    advice = info.advice or "Nothing is to be done by hand."
    rows = "".join(
        f'<tr><td>{_moment(each.t1)}</td><td>{_moment(each.t2)}</td><td class="n">{tier_of(each.stored_bytes)}</td>'
        f'<td class="n">{each.cells:,}</td><td class="n">{each.tombstones:,}</td><td class="n">{each.stored_bytes:,}</td></tr>'
        for each in fragments[:FRAGMENTS]
    )
    older = len(fragments) - FRAGMENTS
    body = (
        f'<h1>{escape(db.uri)}</h1><p class="advice">{escape(advice)}</p><table>{table}</table>'
        f"<h2>{len(fragments):,} fragments, by time and tier</h2>{_drawing(fragments)}"
        '<table><tr><th>first write</th><th>last write</th><th class="n">tier</th><th class="n">cells</th>'
        f'<th class="n">deletes</th><th class="n">bytes</th></tr>{rows}</table>'
        + (f"<p>and {older:,} older ones</p>" if older > 0 else "")
    )
    return document(f"fragments of {db.uri}", body)


def key_word(db: Store, key: Any) -> str:
    """A key as it stands in a URL: the code of its type, and its bytes in hexadecimal. Every key has one, whatever its type."""
    code, data = db._bytes_of(key)
    return f"{code}.{data.hex()}"


def key_of(db: Store, asked: dict[str, str]) -> Any:
    """The key of a URL.

    Raises
    ------
    InvalidValueError
        When there is none.
    """
    code, _, data = asked.get("key", "").partition(".")
    try:
        return key_object(int(code), _hex(data), db._layout.numbers)
    except (ValueError, TypeError, OverflowError):
        raise InvalidValueError("this is no key of a URL of these pages") from None


def shown_key(key: object) -> str:
    """A text key as it is, any other as Python writes it."""
    text = key if isinstance(key, str) else repr(key)
    return text if len(text) <= _KEY_TEXT else f"{text[:_KEY_TEXT]}..."


def _key_row(db: Store, key: Any) -> str:
    word = key_word(db, key)
    name = shown_key(key) or "''"
    there = _link("value", {"key": word}, name) if len(word) <= 2 * _LINKED_BYTES else escape(name)
    try:
        size = stored_size(db, key)
    except KeyNotFoundError:  # it has expired since
        size = None
    shown = "" if size is None else f"{size:,}"
    kind = escape(type(key).__name__)
    return f'<tr><td>{there}</td><td>{kind}</td><td class="n">{shown}</td></tr>'


def _link(page: str, query: dict[str, Any], text: str, name: str = "") -> str:
    mark = f' id="{name}"' if name else ""
    return f'<a{mark} href="{page}?{escape(urlencode(query))}">{escape(text)}</a>'


def _drawing(fragments: Sequence[Fragment]) -> str:
    """A bar for each fragment, from its first write to its last, in the row of its tier; the smallest are below."""
    if not fragments:
        return ""
    first = min(each.t1 for each in fragments)
    span = max(max(each.t2 for each in fragments) - first, 1)
    tiers = sorted({tier_of(each.stored_bytes) for each in fragments}, reverse=True)
    height = _BAND * len(tiers)
    texts = "".join(
        f'<text x="4" y="{_BAND * row + 15}">tier {tier}</text>' for row, tier in enumerate(tiers)
    )
    scale = (_WIDTH - 70) / span
    bars = "".join(
        f'<rect x="{60 + (each.t1 - first) * scale:.1f}" y="{_BAND * tiers.index(tier_of(each.stored_bytes)) + 4}" '
        f'width="{max((each.t2 - each.t1) * scale, 3):.1f}" height="{_BAND - 8}"/>'
        for each in fragments
    )
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="fragments">{texts}{bars}</svg>'


def _moment(ms: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # beyond the years of the calendar
        return f"{ms} ms"


def _at(asked: dict[str, str]) -> int:
    text = asked.get("at", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InvalidValueError("at is no number of keys")
    return int(text)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidValueError("this is not hexadecimal") from None
