"""What a notebook shows of stores and batches."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

import tilekv
from tilekv import notebook

HOSTILE = "<script>alert(1)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


PICTURES = {  # as their files begin
    "png": b"\x89PNG\r\n\x1a\n a picture",
    "jpeg": b"\xff\xd8\xff\xe0 a picture",
    "gif": b"GIF89a a picture",
    "webp": b"RIFF\x10\0\0\0WEBP a picture",
}


class Tags(HTMLParser):
    """What a browser would make of it: the tags, and what images show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"src", "style"}
        self.images += [value for name, value in attrs if name == "src" and value]


@pytest.fixture
def db(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    attrs = [
        tilekv.Attr("image", bytes, nullable=True),
        tilekv.Attr("label", str),
        tilekv.Attr("n", "int32", (2, 3)),
    ]
    made = store(*attrs)
    n = np.arange(6, dtype="int32").reshape(2, 3)
    for kind, data in PICTURES.items():
        made[f"a.{kind}"] = {"image": data, "label": kind, "n": n}
    made[HOSTILE] = {"image": SVG, "label": HOSTILE, "n": n}
    made[b"\0<b>"] = {"image": None, "label": "x" * 1000, "n": n}
    return made


def test_rows_with_pictures(db: tilekv.Store) -> None:
    for shown in (db, next(iter(db.scan())), db.read(list(db))):
        text = shown._repr_html_()
        tags = Tags(text)
        assert tags.tags.count("tr") == 7
        assert tags.tags.count("img") == 4
        assert not {"script", "svg", "b"} & set(tags.tags)
        seen = {}
        for image in tags.images:
            kind, _, data = image.partition(";base64,")
            seen[kind.removeprefix("data:image/")] = base64.b64decode(data)
        assert seen == PICTURES
        assert "<i>null</i>" in text
        assert "int32 (2, 3)" in text
        assert "x" * 81 not in text
    assert "int32" in db._repr_html_()


def test_little_is_read_of_what_is_large(db: tilekv.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "PICTURE_BYTES", 1000)
    large = PICTURES["png"] + bytes(2000)
    db["large"] = {"image": large, "label": "", "n": np.zeros((2, 3), "int32")}
    assert f"<i>{len(large):,} bytes</i>" in db._repr_html_()
    assert Tags(db._repr_html_()).tags.count("img") == 4
    assert f"{len(large):,} bytes" in db.read(["large"])._repr_html_()


def test_only_the_first_rows_are_shown(store: Callable[..., tilekv.Store]) -> None:
    db = store()
    assert Tags(db._repr_html_()).tags.count("tr") == 1
    db.put_many({i: b"%d" % i for i in range(1000)})
    assert Tags(db._repr_html_()).tags.count("tr") == 11
    batch = db.read(["none", *range(50)], missing="mask")
    assert "51 rows" in batch._repr_html_()
    assert Tags(batch._repr_html_()).tags.count("tr") == 11
    db.close()
    assert Tags(db._repr_html_()).tags == ["p", "code"]
    assert "closed" in db._repr_html_()


def test_a_damaged_store_says_so(db: tilekv.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise tilekv.CorruptionError("file", 7, "<bad>")

    monkeypatch.setattr(notebook, "_stored", fail)
    assert "file, byte 7: &lt;bad&gt;" in db._repr_html_()
