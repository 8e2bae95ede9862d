"""python -m tilekv ls, grep, du and cp, and how every command opens its store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
import tilekv.store
from tilekv.cli import keys as cli_keys
from tilekv.cli.command import build_parser, commands_of, main
from tilekv.cli.text import key_text
from tilekv.config import Config

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def photos(tmp_path: Path) -> str:
    place = str(tmp_path / "photos.kv")
    with tilekv.open(place, "x", config={"kv.sync": False}) as db:
        db.put_many({"2023/cat.jpg": b"miau", "2024/dog.jpg": b"w" * 100, "2024/5/cow.jpg": b"muh"})
        db.put_many({"readme": b"", "odd\nkey": b"1", 7: b"seven", b"\xff\0": b"raw", 2.5: b"x"})
    return place


def output(capture: Capture, *arguments: object, code: int = 0) -> str:
    assert main([str(each) for each in arguments]) == code
    captured = capture.readouterr()
    assert captured.err == b""
    return captured.out.decode("utf-8", "surrogateescape")


def failure(capture: Capture, *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 1
    captured = capture.readouterr()
    assert captured.out == b""
    return captured.err.decode()


def test_ls_in_every_form(photos: str, capsysbinary: Capture) -> None:
    lines = output(capsysbinary, "ls", photos).splitlines()
    with tilekv.open(photos) as db:
        shown = [key if key != "odd\nkey" and isinstance(key, str) else repr(key) for key in db]
        assert lines == shown
        plain = output(capsysbinary, "ls", "-0", photos).split("\0")
        assert plain[-1] == ""
        raw = {"\udcff", ""}  # the one that has a NUL itself
        assert set(plain) - raw == {str(key) for key in db if key != b"\xff\0"}
        for long in (False, True):
            made = output(capsysbinary, "ls", "--json", *["-l"] * long, photos).splitlines()
            facts = [json.loads(line) for line in made]
            assert len(facts) == len(db)
            assert {"key": "ff00", "type": "bytes"} | ({"size": 3} if long else {}) in facts
            assert {"key": 7, "type": "int"} | ({"size": 5} if long else {}) in facts
    made = output(capsysbinary, "ls", "--json", "--sorted", "--prefix", "2024/", photos)
    assert [json.loads(line)["key"] for line in made.splitlines()] == [
        "2024/5/cow.jpg",
        "2024/dog.jpg",
    ]
    assert "            4  str    2023/cat.jpg\n" in output(capsysbinary, "ls", "-l", photos)


ODD = ["ä§€", "c\x85", "\x7f", "tab\t", 'say "a\\b"', "", b"raw", -3, 2.5]


@pytest.mark.parametrize("odd", [ODD, [5, -3, 2**63, 0]])
@pytest.mark.parametrize("prefix", [None, "", "p"])
def test_every_form_of_ls_prints_what_its_keys_are(
    tmp_path: Path, capsysbinary: Capture, prefix: str | None, odd: list[Any]
) -> None:
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.update(dict.fromkeys([*odd, *(f"p{i}" for i in range(50))], b""))
        keys = [
            key for key in db if prefix is None or (isinstance(key, str) and key.startswith(prefix))
        ]
    words = [tmp_path / "s", *([] if prefix is None else ["--prefix", prefix])]
    assert output(capsysbinary, "ls", *words) == "".join(f"{key_text(key)}\n" for key in keys)
    raw = [key.decode() if isinstance(key, bytes) else str(key) for key in keys]
    assert output(capsysbinary, "ls", "-0", *words) == "".join(f"{key}\0" for key in raw)
    facts = [
        {"key": key.hex() if isinstance(key, bytes) else key, "type": type(key).__name__}
        for key in keys
    ]
    made = output(capsysbinary, "ls", "--json", *words)
    assert made == "".join(f"{json.dumps(fact)}\n" for fact in facts)


@pytest.mark.parametrize("form", [[], ["-0"], ["--json"], ["--prefix", "p"]])
def test_ls_makes_no_object_of_a_plain_key(
    tmp_path: Path,
    capsysbinary: Capture,
    monkeypatch: pytest.MonkeyPatch,
    form: list[str],
) -> None:
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.update(dict.fromkeys([f"photos/{i:03}.jpg" for i in range(100)], b""))
    monkeypatch.setattr(cli_keys, "_lines", None)
    assert output(capsysbinary, "ls", *form, tmp_path / "s").count("photos/") == 100


def test_grep(photos: str, capsysbinary: Capture) -> None:
    found = output(capsysbinary, "grep", r"^2024/.*[.]jpg$", photos)
    assert sorted(found.splitlines()) == ["2024/5/cow.jpg", "2024/dog.jpg"]
    assert output(capsysbinary, "grep", "-ci", "JPG", photos) == "3\n"
    assert sorted(output(capsysbinary, "grep", "-v", "jpg", photos).splitlines()) == [
        "'odd\\nkey'",
        "readme",
    ]
    assert output(capsysbinary, "grep", "none", photos, code=1) == ""
    assert "no regular expression" in failure(capsysbinary, "grep", "(", photos)


def test_du(photos: str, tmp_path: Path, capsysbinary: Capture) -> None:
    rows = [line.split() for line in output(capsysbinary, "du", photos).splitlines()]
    assert rows == [
        ["4", "1", "entry", "2023/"],
        ["103", "2", "entries", "2024/"],
        ["117", "8", "entries"],
    ]
    made = output(capsysbinary, "du", "--json", "--depth", 2, "--prefix", "2024/", photos)
    assert [json.loads(line) for line in made.splitlines()] == [
        {"prefix": "2024/", "entries": 2, "bytes": 103},
        {"prefix": "2024/5/", "entries": 1, "bytes": 3},
        {"prefix": "2024/", "entries": 2, "bytes": 103},
    ]
    schema = tilekv.Schema(
        [
            tilekv.Attr("n", "int32", (2, 3)),
            tilekv.Attr("many", "float64", var=True),
            tilekv.Attr("text", str, nullable=True),
        ]
    )
    with tilekv.open(tmp_path / "n", "x", schema=schema) as db:
        row = {"n": np.zeros((2, 3), "i4"), "many": np.zeros(5), "text": "ä"}
        db.update({"a": row, "b": {**row, "text": None}})
    size = (24 + 40) * 2 + 2
    assert output(capsysbinary, "du", tmp_path / "n").split()[0] == str(size)


def test_cp(photos: str, tmp_path: Path, capsysbinary: Capture) -> None:
    new = str(tmp_path / "new.kv")
    assert output(capsysbinary, "cp", photos, new, "--prefix", "2024/").startswith("2 entries in")
    with tilekv.open(new, "a") as db:
        assert sorted(db) == ["2024/5/cow.jpg", "2024/dog.jpg"]
        db["2024/dog.jpg"] = b"other"
        db["own"] = b"1"
    assert ", 1 as stored before" in output(capsysbinary, "cp", photos, new, "--glob", "2024/*")
    output(capsysbinary, "cp", photos, new, 7, "--type", "int")
    with tilekv.open(photos) as db, tilekv.open(new) as copy:
        assert {key: db[key] for key in copy if key != "own"} == {
            key: copy[key] for key in copy if key != "own"
        }
        assert len(copy) == 4
    assert output(capsysbinary, "cp", photos, tmp_path / "all.kv").startswith("8 entries")
    with tilekv.open(photos) as db, tilekv.open(tmp_path / "all.kv") as copy:
        assert db == copy
    assert "no key 'none'" in failure(capsysbinary, "cp", photos, new, "none")
    assert "KEYs, or" in failure(capsysbinary, "cp", photos, new, "a", "--prefix", "b")


def test_cp_takes_moments_of_expiry_along(tmp_path: Path, capsysbinary: Capture) -> None:
    with tilekv.open(tmp_path / "a", "x", expires=True) as db:
        db.set("soon", b"1", 1000)
        db["never"] = b"2"
    output(capsysbinary, "cp", tmp_path / "a", tmp_path / "b")
    with tilekv.open(tmp_path / "a") as db, tilekv.open(tmp_path / "b") as copy:
        assert copy.expires("soon") == db.expires("soon")
        assert copy.expires("never") is None


@pytest.fixture
def twice(tmp_path: Path) -> tuple[Path, int]:
    """A store, and a moment at which it had one entry of two."""
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db["a"] = b"1"
        db.flush()
        then = db.fragments[0].t2
        while time.time() * 1000 <= then + 1:
            time.sleep(0.001)
        db.update({"a": b"2+", "ab": b"3"})
    return tmp_path / "s", then


def test_a_store_as_it_was(twice: tuple[Path, int], tmp_path: Path, capsysbinary: Capture) -> None:
    place, then = twice
    moment = np.datetime64(then, "ms")
    for text in (str(then), f"{moment}+00:00"):
        assert output(capsysbinary, "ls", "--timestamp", text, place) == "a\n"
        assert output(capsysbinary, "get", "--timestamp", text, place, "a") == "1"
    output(capsysbinary, "cp", place, tmp_path / "old", "--timestamp", then)
    with tilekv.open(tmp_path / "old") as db:
        assert db == {"a": b"1"}
    with pytest.raises(SystemExit):
        main(["ls", "--timestamp", "yesterday", str(place)])
    assert b"ms since 1970" in capsysbinary.readouterr().err


def test_options_of_the_handle(photos: str, capsysbinary: Capture) -> None:
    assert output(capsysbinary, "get", "--config", "kv.threads=1", photos, "2023/cat.jpg") == "miau"
    with pytest.raises(SystemExit):
        main(["ls", "--config", "kv.thread=1", photos])
    assert b"kv.threads" in capsysbinary.readouterr().err  # what was meant


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The options of every handle that is opened from now on."""
    seen: list[Config] = []
    real = tilekv.store.open_engine

    def open_engine(found: Any, mode: str, schema: Any, config: Config, *rest: Any) -> Any:
        seen.append(config)
        return real(found, mode, schema, config, *rest)

    monkeypatch.setattr(tilekv.store, "open_engine", open_engine)
    return seen


# What a command is given beside its options. `now` has two entries more than `then`; see the fixture `twice`.
WORDS = {
    "import": ["{out}/files", "{out}/new.kv"],
    "export": ["{store}", "{out}/copy"],
    "load": ["{out}/table.csv", "{out}/new.kv", "--key", "a"],
    "unload": ["{store}", "{out}/out.csv"],
    "ls": ["{store}"],
    "grep": ["a", "{store}"],
    "du": ["{store}"],
    "cp": ["{store}", "{out}/new.kv"],
    "get": ["{store}", "a"],
    "put": ["{store}", "c", "--value", "3"],
    "rm": ["{store}", "a"],
    "info": ["{store}"],
    "consolidate": ["{store}"],
    "upkeep": ["{store}"],
    "vacuum": ["{store}"],
    "browse": None,  # serves for ever: test_browse
    # They look at files, not at what a handle sees: manifest, backup, convert, verify, salvage. A file has serve's options.
}


def words_of(command: str, store: Path, out: Path) -> list[str]:
    (out / "files").mkdir()
    (out / "files" / "f").write_bytes(b"1")
    (out / "table.csv").write_text("a,b\nx,1\n")
    return [word.format(store=store, out=out) for word in WORDS[command] or ()]


def takes(option: str) -> list[str]:
    return [
        name
        for name, command in commands_of(build_parser()).items()
        if option in command._option_string_actions and name != "serve"
    ]


def test_which_commands_say_how_they_open() -> None:
    assert takes("--config") == [*sorted(WORDS, key=list(commands_of(build_parser())).index)]
    writing = {"import", "load", "put", "rm", "consolidate", "upkeep", "vacuum"}
    assert set(takes("--timestamp")) == set(WORDS) - writing


@pytest.mark.parametrize("command", [name for name in WORDS if WORDS[name]])
def test_options_are_those_of_every_handle(
    photos: str,
    tmp_path: Path,
    capsysbinary: Capture,
    opened: list[Config],
    command: str,
) -> None:
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db["a"] = b"1"
    opened.clear()
    options = ["--config", "kv.threads=1", "--config", "kv.cache_bytes=2 MiB"]
    output(capsysbinary, command, *words_of(command, tmp_path / "s", tmp_path), *options)
    assert opened
    assert {(config.threads, config.cache_bytes) for config in opened} == {(1, 2 << 20)}


def left(out: Path) -> Any:
    """What a command has made: files, a table, or a store."""
    if (out / "copy").is_dir():
        return {path.name: path.read_bytes() for path in (out / "copy").iterdir()}
    if (out / "out.csv").exists():
        return (out / "out.csv").read_text().splitlines()[1:]
    if (out / "new.kv").exists():
        with tilekv.open(out / "new.kv") as db:
            return dict(db)
    return None


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("export", {"a": b"1"}),
        ("unload", ['"a","1"']),
        ("ls", "a\n"),
        ("grep", "a\n"),
        ("du", "              1          1 entry  \n"),
        ("cp", {"a": b"1"}),
        ("get", "1"),
        ("info", "(?s).*\nkeys       1\n.*"),
    ],
)
def test_every_command_that_reads_shows_the_past(
    twice: tuple[Path, int], tmp_path: Path, capsysbinary: Capture, command: str, shown: Any
) -> None:
    store, then = twice
    words = words_of(command, store, tmp_path)
    told = output(capsysbinary, command, *words, "--timestamp", then)
    if isinstance(shown, str):
        assert re.fullmatch(shown, told)
        assert not re.fullmatch(shown, output(capsysbinary, command, *words))
    else:
        assert left(tmp_path) == shown


def test_it_is_a_script_too(photos: str) -> None:
    script = Path(sysconfig.get_path("scripts")) / "tilekv"
    command = [script] if script.exists() else [sys.executable, "-P", "-m", "tilekv"]
    run = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"tilekv {tilekv.__version__}\n"
