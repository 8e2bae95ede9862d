"""Browse: who is answered, what a browser is told, and that nothing of a store becomes markup."""

from __future__ import annotations

import http.client
import os
import re
import threading
import webbrowser
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import tilekv
from tilekv.browse import pages
from tilekv.browse.server import Browser
from tilekv.browse.values import SHOWN_BYTES
from tilekv.cli.command import main

HOSTILE = "<script>document.title='owned'</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
PICTURES = {
    "jpeg": b"\xff\xd8\xff\xe0 a picture",
    "png": b"\x89PNG\r\n\x1a\n a picture",
    "gif": b"GIF89a a picture",
    "webp": b"RIFF\x10\0\0\0WEBP a picture",
}
KEYS = [
    HOSTILE,
    "",
    'a"b&c',
    "ä/日本",
    b"\xff\xfe",
    7,
    -1.5,
    np.arange(3, dtype="i2"),
    "line\nbreak",
]


@pytest.fixture
def db() -> Iterator[tilekv.Store]:
    with tilekv.open("memory://browsed", "w") as store:
        store.put_many({f"many/{i:03}": b"%d" % i for i in range(250)})
        store.put_many([(key, b"of an odd key") for key in KEYS])
        store["hostile"] = HOSTILE.encode()
        store["svg"] = SVG
        store.put_many(PICTURES)
        store.flush()
        yield store


@pytest.fixture
def server(db: tilekv.Store) -> Iterator[Browser]:
    with Browser(db) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: Browser,
    path: str,
    method: str = "GET",
    host: str | None = None,
    token: str | None = None,
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {} if host is None else {"Host": host}
    word = server.token if token is None else token
    connection.request(method, f"/{word}/{path}", headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode(
        "latin-1" if answer.headers["Content-Type"].startswith("image") else "utf-8"
    )
    connection.close()
    return answer, text


def value(server: Browser, key: Any, more: str = "") -> tuple[int, str]:
    answer, text = ask(server, f"value?key={pages.key_word(server.db, key)}{more}")
    return answer.status, text


def links(text: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'<td><a href="(value\?[^"]*)"', text)]


@pytest.mark.parametrize("token", ["", "wrong", "%F0", "ä".encode().decode("latin-1")])
def test_who_has_not_the_token_sees_nothing(server: Browser, token: str) -> None:
    for page in ("", "value?key=4.61", "style.css", "nothing"):
        answer, text = ask(server, page, token=quote(token))
        assert answer.status == 403
        assert "many" not in text


def test_tokens_are_long_and_never_the_same(db: tilekv.Store) -> None:
    with Browser(db) as one, Browser(db) as other:
        assert one.token != other.token
        assert len(one.token) >= 43
        assert one.url == f"http://127.0.0.1:{one.server_port}/{one.token}/"
        assert one.server_address[0] == "127.0.0.1"


def test_only_this_machine_is_named(server: Browser) -> None:
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert ask(server, "", host=host)[0].status == 403
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(server, "", host=host)[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_is_changed(server: Browser, method: str) -> None:
    answer, _ = ask(server, "", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.headers["Content-Security-Policy"]
    assert ask(server, "", "BREW")[0].status == 501


def test_what_every_answer_says(server: Browser) -> None:
    for page, method in [("", "GET"), ("nothing", "GET"), ("style.css", "HEAD"), ("", "BREW")]:
        headers = ask(server, page, method)[0].headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_head_has_no_body(server: Browser) -> None:
    answer, text = ask(server, "", "HEAD")
    assert (answer.status, text) == (200, "")
    assert int(answer.headers["Content-Length"]) > 1000


def test_pages_of_all_keys(server: Browser) -> None:
    seen: list[str] = []
    for at in (0, 100, 200):
        _, text = ask(server, f"?at={at}")
        assert ('id="back"' in text, 'id="next"' in text) == (at > 0, at < 200)
        seen += links(text)
    assert len(seen) == len(set(seen)) == len(server.db)
    assert "no keys" in ask(server, "?at=100000")[1]
    assert ask(server, "?at=x")[0].status == ask(server, "?at=-1")[0].status == 400


def test_pages_of_a_prefix_are_sorted(server: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = ask(server, "?prefix=many/&at=200")
    assert re.findall(r">(many/\d+)<", text) == [f"many/{i:03}" for i in range(200, 250)]
    _, text = ask(server, "?prefix=ff&of=bytes")
    assert len(links(text)) == 1
    assert ask(server, "?prefix=f&of=bytes")[0].status == 400
    monkeypatch.setattr(pages, "SORTED", 100)
    _, text = ask(server, "?prefix=many/&at=100")
    assert "More than 100 keys match" in text
    assert re.findall(r">(many/\d+)<", text) == server.db.scan_keys(prefix="many/")[100:200]


def test_every_key_has_its_page(server: Browser) -> None:
    text = "".join(ask(server, f"?at={at}")[1] for at in (0, 100, 200))
    for key in KEYS:
        word = pages.key_word(server.db, key)
        assert f"value?key={word}" in links(text)
        status, page = value(server, key)
        assert status == 200
        assert "of an odd key" in page


def test_what_is_not_there(server: Browser) -> None:
    assert value(server, "gone")[0] == 404
    assert ask(server, "picture?attr=value&key=4.61")[0].status == 404
    for word in ("", "x", "4.zz", "-1.00", "999.00", "4.ff", "9" * 5000 + ".00"):
        assert ask(server, f"value?key={word}")[0].status in (400, 404), word


def test_markup_is_text(server: Browser) -> None:
    everything = "".join(ask(server, f"?at={at}")[1] for at in (0, 100, 200))
    everything += value(server, HOSTILE)[1] + value(server, "hostile")[1] + value(server, "svg")[1]
    everything += ask(server, f"?prefix={quote(HOSTILE)}")[1]
    everything += ask(server, "?prefix=%22%3E%3Cscript%3E")[1]
    assert "<script" not in everything
    assert "<svg" not in everything
    assert everything.count("&lt;script&gt;") >= 4
    assert "&lt;svg" in everything


def test_pictures(server: Browser) -> None:
    for kind, data in PICTURES.items():
        status, text = value(server, kind)
        (source,) = re.findall(r'<img alt="the value" src="([^"]*)"', text)
        answer, shown = ask(server, unescape(source))
        assert (status, answer.status) == (200, 200)
        assert answer.headers["Content-Type"] == f"image/{kind}"
        assert shown.encode("latin-1") == data
    for key in ("svg", "hostile"):
        word = pages.key_word(server.db, key)
        assert "<img" not in value(server, key)[1]
        assert ask(server, f"picture?attr=value&key={word}")[0].status == 404


def test_forms_of_values(server: Browser) -> None:
    db = server.db
    db["json"] = b'{"b": [1, 2]}'
    db["broken"] = b'{"b": [1, 2'
    db["deep"] = b"[" * 60_000
    db["raw"] = bytes(range(32))
    db["long"] = "ä".encode() * SHOWN_BYTES + b"\xff"
    assert "&quot;b&quot;: [\n    1," in value(server, "json")[1]
    assert "<pre>{&quot;b&quot;: [1, 2]}</pre>" in value(server, "json", "&form=text")[1]
    assert "00000000  7b 22 62" in value(server, "json", "&form=hex")[1]
    assert "<pre>{&quot;b&quot;: [1, 2</pre>" in value(server, "broken")[1]
    assert value(server, "deep")[0] == 200
    assert "00000010  10 11 12 13" in value(server, "raw")[1]
    text = value(server, "long")[1]
    assert f"{2 * SHOWN_BYTES + 1:,} bytes, of which the first {SHOWN_BYTES:,} are here" in text
    assert text.count("ä") == SHOWN_BYTES // 2


def test_attributes_nulls_and_expiry() -> None:
    attrs = [
        tilekv.Attr("rgb", "u1", shape=(3,)),
        tilekv.Attr("name<b>", str, nullable=True),
        tilekv.Attr("n", "i8", nullable=True),
        tilekv.Attr("any", "f4", var=True),
    ]
    with tilekv.open("memory://typed", "w", schema=tilekv.Schema(attrs, expires=True)) as db:
        row = {"rgb": [1, 2, 3], "name<b>": "<i>", "n": None, "any": [0.5]}
        db.set("k", row, 1e6)
        text = pages.value_page(db, {"key": pages.key_word(db, "k")}).decode()
        assert "[1 2 3]\nuint8 (3,)" in text
        assert "&lt;i&gt;" in text
        assert "<i>" not in text
        assert "name&lt;b&gt;" in text
        assert "null" in text
        assert "[0.5]" in text
        assert "expires 2" in text


def test_fragments_by_time_and_tier(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    with tilekv.open(uri, "x", config={"kv.upkeep": "off"}) as db:
        assert b"Nothing is to be done" in pages.fragments_page(db)
        for i in range(12):
            db[i] = os.urandom(100_000 if i == 11 else 10)
            db.flush()
        text = pages.fragments_page(db).decode()
    assert text.count("<rect") == 12
    assert text.count(">tier ") == 2
    assert 'class="advice">upkeep would merge' in text


def test_a_first_page_shows_what_others_have_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    tilekv.open(uri, "x").close()
    with tilekv.open(uri) as db, Browser(db) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert "no keys" in ask(server, "")[1]
        with tilekv.open(uri, "a") as other:
            other["new"] = b"1"
        assert ">new<" in ask(server, "")[1]
        server.shutdown()
        thread.join()


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["browse", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
    for port in ("65536", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["browse", "x", f"--port={port}"])
    uri = str(tmp_path / "store")
    tilekv.open(uri, "x").close()
    shown: list[str] = []

    def interrupted(server: Browser) -> None:
        assert server.db.mode == "r"
        raise KeyboardInterrupt

    monkeypatch.setattr(Browser, "serve_forever", interrupted)
    monkeypatch.setattr(webbrowser, "open", shown.append)
    assert main(["browse", uri]) == 0
    assert shown == []
    capsys.readouterr()
    assert main(["browse", uri, "--open"]) == 0
    assert capsys.readouterr().out.split() == shown
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", shown[0])
