"""python -m tilekv: what it prints, what it writes, how it fails."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilekv
from old_stores import OldStoreWriter
from tilekv.cli import tree
from tilekv.cli.command import main
from tilekv.cli.progress import Progress
from tilekv.cli.text import counted, error_text, key_text, size_text, time_text

TREE = {
    "readme.txt": b"hello\n",
    "empty": b"",
    "a/b/deep.bin": bytes(range(256)) * 40,
    "a/b/other.bin": b"x" * 70_000,
    "a/sp ace\nline": b"odd",
    os.fsdecode(b"a/\xff\xfe"): b"a name that is not UTF-8",
    "ä/日本.txt": "日本".encode(),
}
COMMANDS = ["import", "export", "ls", "get", "put", "rm", "info", "convert", "verify"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, data in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def filled(tmp_path: Path) -> str:
    uri = str(tmp_path / "some.kv")
    with tilekv.open(uri, "x") as db:
        db["cat.jpg"] = b"miau"
        db["dog.jpg"] = b"wuff" * 300
        db["notes/dog.txt"] = b""
        db[7] = b"seven"
        db[b"\0raw"] = b"raw"
    return uri


@pytest.fixture
def points(tmp_path: Path) -> str:
    uri = str(tmp_path / "points.kv")
    attrs = [
        tilekv.Attr("a1", "int32"),
        tilekv.Attr("tag", str),
        tilekv.Attr("rgb", "uint8", shape=3),
    ]
    with tilekv.open(uri, "x", schema=tilekv.Schema(attrs)) as db:
        db["p"] = {"a1": -5, "tag": "grün", "rgb": np.array([1, 2, 3], "uint8")}
    return uri


def files_below(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def failure(capsysbinary: pytest.CaptureFixture[bytes], *argv: object) -> str:
    """The one line on stderr of a command that fails."""
    assert main([str(arg) for arg in argv]) == 1
    captured = capsysbinary.readouterr()
    line = captured.err.decode()
    assert captured.out == b""
    assert line.startswith("tilekv: ")
    assert line.index("\n") == len(line) - 1
    return line


def output(capsysbinary: pytest.CaptureFixture[bytes], *argv: object, code: int = 0) -> bytes:
    assert main([str(arg) for arg in argv]) == code
    captured = capsysbinary.readouterr()
    assert captured.err == b""
    return captured.out


# --- import and export ---


@pytest.mark.parametrize("arguments", [[], ["--batch-bytes", "1 KiB"]])
def test_import_and_export(arguments, folder, tmp_path, capsysbinary, monkeypatch) -> None:
    monkeypatch.setattr(tree, "BATCH_BYTES", 1000)
    uri = tmp_path / "tree.kv"
    summary = output(capsysbinary, "import", folder, uri, *arguments).decode()
    size = sum(map(len, TREE.values()))
    assert summary.startswith(f"{len(TREE)} files, {size_text(size)} in ")
    with tilekv.open(uri) as db:
        assert dict(db) == TREE
        assert f"; {size_text(db.info().stored_bytes)} stored, ratio " in summary
        assert (len(db.fragments) > 1) == bool(arguments)

    copy = tmp_path / "copy"
    summary = output(capsysbinary, "export", uri, copy).decode()
    assert summary.startswith(f"{len(TREE)} files, ")
    assert files_below(copy) == TREE


def test_second_import_counts_what_it_adds(folder, tmp_path, capsysbinary) -> None:
    output(capsysbinary, "import", folder, tmp_path / "tree.kv")
    (folder / "noise").write_bytes(os.urandom(100_000))
    summary = output(capsysbinary, "import", folder, tmp_path / "tree.kv").decode()
    with tilekv.open(tmp_path / "tree.kv") as db:
        newest, _ = db.fragments
        assert f"; {size_text(newest.stored_bytes)} stored, ratio " in summary
        assert dict(db) == TREE | {"noise": (folder / "noise").read_bytes()}
    assert newest.cells == 1
    assert summary.endswith(f"\n{len(TREE)} files as stored before\n")


def test_import_stores_what_has_changed(folder, tmp_path, capsysbinary, monkeypatch) -> None:
    """In content: times are no matter, and neither is how the batches fall."""
    output(capsysbinary, "import", folder, tmp_path / "tree.kv")
    for name in TREE:
        (folder / name).touch()
    monkeypatch.setattr(tree, "BATCH_BYTES", 1000)
    output(capsysbinary, "import", folder, tmp_path / "tree.kv")
    (folder / "readme.txt").write_bytes(b"hullo\n")
    (folder / "empty").write_bytes(b"\0")
    (folder / "a" / "b" / "deep.bin").write_bytes(b"")
    output(capsysbinary, "rm", tmp_path / "tree.kv", "ä/日本.txt")
    with tilekv.open(tmp_path / "tree.kv") as db:
        assert [each.cells for each in db.fragments] == [1, len(TREE)]
    output(capsysbinary, "import", folder, tmp_path / "tree.kv")
    with tilekv.open(tmp_path / "tree.kv") as db:
        assert db.fragments[0].cells == 4
        assert dict(db) == TREE | {"readme.txt": b"hullo\n", "empty": b"\0", "a/b/deep.bin": b""}


def test_import_passes_over_what_is_no_file(folder, tmp_path, capsysbinary) -> None:
    (folder / "link").symlink_to(folder / "readme.txt")
    (folder / "a" / "folder").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    out = output(capsysbinary, "import", folder, tmp_path / "tree.kv")
    assert out.endswith(b"\n2 symbolic links left out\n1 special file left out\n")
    with tilekv.open(tmp_path / "tree.kv") as db:
        assert set(db) == TREE.keys()


def test_import_leaves_out_the_store_itself(folder, capsysbinary, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    for _ in range(2):
        output(capsysbinary, "import", ".", "inner.kv")
    with tilekv.open("inner.kv") as db:
        assert dict(db) == TREE


def test_import_goes_on_after_an_unreadable_file(
    folder, tmp_path, capsysbinary, monkeypatch
) -> None:
    def guarded(path, *args, **kwargs):
        if path.endswith("readme.txt"):
            raise PermissionError(13, "Permission denied", path)
        return open(path, *args, **kwargs)

    monkeypatch.setattr(tree, "open", guarded, raising=False)
    assert main(["import", str(folder), str(tmp_path / "tree.kv")]) == 1
    error = capsysbinary.readouterr().err.decode()
    assert error == f"tilekv: {folder}/readme.txt: Permission denied\n"
    with tilekv.open(tmp_path / "tree.kv") as db:
        assert set(db) == TREE.keys() - {"readme.txt"}


def test_import_into_a_store_of_something_else(folder, points, capsysbinary) -> None:
    assert "one bytes attribute" in failure(capsysbinary, "import", folder, points)


def test_import_of_no_folder(tmp_path, capsysbinary) -> None:
    failure(capsysbinary, "import", tmp_path / "gone", tmp_path / "tree.kv")
    assert not (tmp_path / "tree.kv").exists()


def test_import_of_nothing(tmp_path, capsysbinary) -> None:
    (tmp_path / "void").mkdir()
    out = output(capsysbinary, "import", tmp_path / "void", tmp_path / "tree.kv", "--progress")
    assert out.startswith(b"0 files, 0 B in ")


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../up", "a/../b", "a/./b", "/etc/name", "a//b", "a/", "a\0b", b"raw", 7]
)
def test_export_refuses_keys_that_are_no_paths(key, tmp_path, capsysbinary) -> None:
    with tilekv.open(tmp_path / "bad.kv", "x") as db:
        db[key] = b"bad"
        db.update({f"good{i}": b"" for i in range(20)})
    line = failure(capsysbinary, "export", tmp_path / "bad.kv", tmp_path / "out" / "here")
    assert repr(key) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["...", ".hidden", "a..b", "..x/y..", "-x", "a/\n", "..\n"])
def test_export_takes_names_with_dots(name, tmp_path, capsysbinary) -> None:
    with tilekv.open(tmp_path / "good.kv", "x") as db:
        db[name] = b"good"
    output(capsysbinary, "export", tmp_path / "good.kv", tmp_path / "out")
    assert files_below(tmp_path / "out") == {name: b"good"}


def test_export_into_a_folder_with_files(tmp_path, capsysbinary) -> None:
    with tilekv.open(tmp_path / "one.kv", "x") as db:
        db["name"] = b"new"
    out = tmp_path / "out"
    out.mkdir()
    (out / "name").write_bytes(b"old")
    assert "--force" in failure(capsysbinary, "export", tmp_path / "one.kv", out)
    assert (out / "name").read_bytes() == b"old"
    output(capsysbinary, "export", tmp_path / "one.kv", out, "--force")
    assert (out / "name").read_bytes() == b"new"


@pytest.mark.parametrize("link", ["name", "name/below"])
def test_export_never_follows_a_link_out(link, tmp_path, capsysbinary) -> None:
    with tilekv.open(tmp_path / "one.kv", "x") as db:
        db[link] = b"new"
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "name").symlink_to(outside / "name" if link == "name" else outside)
    assert "symbolic link" in failure(capsysbinary, "export", tmp_path / "one.kv", out, "--force")
    assert list(outside.iterdir()) == []


def test_export_of_one_attribute(points, tmp_path, capsysbinary) -> None:
    assert "--attr: a1, tag, rgb" in failure(capsysbinary, "export", points, tmp_path / "out")
    output(capsysbinary, "export", points, tmp_path / "out", "--attr", "tag")
    assert files_below(tmp_path / "out") == {"p": "grün".encode()}


# --- single entries ---


def test_ls(filled, capsysbinary) -> None:
    lines = output(capsysbinary, "ls", filled).decode().splitlines()
    assert sorted(lines) == ["7", "b'\\x00raw'", "cat.jpg", "dog.jpg", "notes/dog.txt"]
    with tilekv.open(filled) as db:
        assert lines == [key_text(key) for key in db]


@pytest.mark.parametrize("arguments", [[], ["-l"]])
def test_ls_writes_many_keys_at_once(arguments, tmp_path, monkeypatch) -> None:
    """To a terminal too, and whatever PYTHONUNBUFFERED says: both mean a system call for each write."""
    with tilekv.open(tmp_path / "s", "x") as db:
        db.put_many([(f"key {i}", b"") for i in range(2500)])

    class Counted(io.BytesIO):
        writes = 0

        def write(self, data) -> int:
            self.writes += 1
            return super().write(data)

    out = Counted()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, write_through=True))
    assert main(["ls", *arguments, str(tmp_path / "s")]) == 0
    assert len(out.getvalue().splitlines()) == 2500
    assert out.writes <= 10


def test_ls_glob(filled, capsysbinary) -> None:
    lines = output(capsysbinary, "ls", "--glob", "*dog*", filled).splitlines()
    assert sorted(lines) == [b"dog.jpg", b"notes/dog.txt"]


def test_large_files_go_through_little_memory(tmp_path, capsysbinary, monkeypatch) -> None:
    """In and out, and left alone when they are stored with the same content; one that cannot be read keeps no other out."""
    monkeypatch.setattr("tilekv.cli.tree.LARGE_BYTES", 1000)
    folder, uri = tmp_path / "tree", tmp_path / "tree.kv"
    (folder / "in").mkdir(parents=True)
    contents = {"in/large": bytes(range(256)) * 20_000, "in/other": b"x" * 1001, "small": b"y"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    argv = ["import", "--no-progress", str(folder), str(uri)]
    assert b"3 files, 5.1 MB in" in output(capsysbinary, *argv)
    with tilekv.open(uri) as db:
        assert dict(db.items()) == contents
        assert len(db.fragments) == 3
    assert b"3 files as stored before" in output(capsysbinary, *argv)
    (folder / "in/large").write_bytes(contents["in/large"][:-1])
    assert b"2 files as stored before" in output(capsysbinary, *argv)
    output(capsysbinary, "export", uri, tmp_path / "copy")
    for name in contents:
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()
    real = open

    def refusing(path, *arguments, **options):
        if str(path).endswith("other"):
            raise PermissionError(13, "no", path)
        return real(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refusing)
    assert main(argv) == 1
    captured = capsysbinary.readouterr()
    assert captured.err.endswith(b"other: no\n")
    assert b"2 files" in captured.out


def test_put_takes_bytes_as_they_come(tmp_path, capsysbinary, monkeypatch) -> None:
    data = bytes(range(256)) * 10_000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert output(capsysbinary, "put", tmp_path / "s", "k", "-") == b""
    (tmp_path / "file").write_bytes(data)
    assert output(capsysbinary, "put", tmp_path / "s", "l", tmp_path / "file") == b""
    with tilekv.open(tmp_path / "s") as db:
        assert db["k"] == db["l"] == data
    assert output(capsysbinary, "get", tmp_path / "s", "k") == data


def test_ls_prefix_and_order(filled, capsysbinary) -> None:
    assert output(capsysbinary, "ls", "--prefix", "notes/", filled) == b"notes/dog.txt\n"
    assert output(capsysbinary, "ls", "--prefix", "d", "--glob", "*.txt", filled) == b""
    names = output(capsysbinary, "ls", "--sorted", filled).splitlines()
    assert names == [b"cat.jpg", b"dog.jpg", b"notes/dog.txt"]


def test_ls_long(filled, points, capsysbinary) -> None:
    lines = output(capsysbinary, "ls", "-l", filled).decode().splitlines()
    assert sorted(line.split() for line in lines) == [
        ["0", "str", "notes/dog.txt"],
        ["1,200", "str", "dog.jpg"],
        ["3", "bytes", "b'\\x00raw'"],
        ["4", "str", "cat.jpg"],
        ["5", "int", "7"],
    ]
    assert output(capsysbinary, "ls", "-l", points).split() == [b"12", b"str", b"p"]  # 4 + 5 + 3


def test_ls_gives_names_back_byte_for_byte(tmp_path, capsysbinary) -> None:
    with tilekv.open(tmp_path / "odd.kv", "x") as db:
        db[os.fsdecode(b"\xff")] = b""
    assert output(capsysbinary, "ls", tmp_path / "odd.kv") == b"\xff\n"


def test_get(filled, tmp_path, capsysbinary) -> None:
    assert output(capsysbinary, "get", filled, "cat.jpg") == b"miau"
    assert output(capsysbinary, "get", filled, "7", "--type", "int") == b"seven"
    assert output(capsysbinary, "get", filled, "cat.jpg", "-o", tmp_path / "cat") == b""
    assert (tmp_path / "cat").read_bytes() == b"miau"
    assert "no key '7'" in failure(capsysbinary, "get", filled, "7")
    assert "'x' is no int key" in failure(capsysbinary, "get", filled, "x", "--type", "int")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1:3", b"ia"), (":2", b"mi"), ("-2:", b"au"), ("3:1", b""), ("2:99", b"au"), (":", b"miau")],
)
def test_get_a_part(text, expected, filled, tmp_path, capsysbinary) -> None:
    assert output(capsysbinary, "get", filled, "cat.jpg", f"--range={text}") == expected
    argv = ("get", filled, "cat.jpg", f"--range={text}", "-o", tmp_path / "part")
    assert output(capsysbinary, *argv) == b""
    assert (tmp_path / "part").read_bytes() == expected


def test_get_a_part_of_one_attribute(points, capsysbinary) -> None:
    part = output(capsysbinary, "get", points, "p", "--attr", "tag", "--range", "2:4")
    assert part == "ü".encode()
    wrong = failure(capsysbinary, "get", points, "p", "--attr", "a1", "--range", "0:1")
    assert "--range is for bytes and text" in wrong


def test_get_leaves_the_file_when_the_key_is_missing(filled, tmp_path, capsysbinary) -> None:
    (tmp_path / "cat").write_bytes(b"old")
    failure(capsysbinary, "get", filled, "gone", "-o", tmp_path / "cat")
    assert (tmp_path / "cat").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("attr", "expected"), [("a1", "-5\n"), ("tag", "grün"), ("rgb", "[1, 2, 3]\n")]
)
def test_get_of_one_attribute(attr, expected, points, capsysbinary) -> None:
    assert output(capsysbinary, "get", points, "p", "--attr", attr).decode() == expected


def test_get_wants_an_attribute(points, capsysbinary) -> None:
    assert "--attr: a1, tag, rgb" in failure(capsysbinary, "get", points, "p")
    assert "no attribute 'x'" in failure(capsysbinary, "get", points, "p", "--attr", "x")
    assert "no key 'q'" in failure(capsysbinary, "get", points, "q", "--attr", "a1")


def test_put(filled, tmp_path, capsysbinary, monkeypatch) -> None:
    (tmp_path / "value").write_bytes(b"from a file")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from \xff stdin")))
    output(capsysbinary, "put", filled, "cat.jpg", tmp_path / "value")
    output(capsysbinary, "put", filled, "new", "-")
    output(capsysbinary, "put", filled, "new", "--value", "text", "--type", "bytes")
    output(capsysbinary, "put", filled, "1.5", "--value", "", "--type", "float")
    with tilekv.open(filled) as db:
        assert (db["cat.jpg"], db["new"]) == (b"from a file", b"from \xff stdin")
        assert (db[b"new"], db[1.5]) == (b"text", b"")


def test_put_creates(tmp_path, capsysbinary) -> None:
    output(capsysbinary, "put", tmp_path / "new.kv", "key", "--value", "ä")
    with tilekv.open(tmp_path / "new.kv") as db:
        assert dict(db) == {"key": "ä".encode()}


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [(str, "grün", "grün"), ("int32", "-5", -5), ("uint64", " 7\n", 7), ("float64", "1e3", 1000.0)],
)
def test_put_of_other_types(dtype, text, value, tmp_path, capsysbinary) -> None:
    uri = tmp_path / "typed.kv"
    tilekv.open(uri, "x", schema=tilekv.Schema(tilekv.Attr("a", dtype))).close()
    output(capsysbinary, "put", uri, "k", "--value", text)
    with tilekv.open(uri) as db:
        assert db["k"] == value


@pytest.mark.parametrize(
    ("attr", "text"),
    [
        (tilekv.Attr("a", "int8"), "300"),
        (tilekv.Attr("a", "int8"), "x"),
        (tilekv.Attr("a", "uint8"), "-1"),
        (tilekv.Attr("a", "float32"), ""),
        (tilekv.Attr("a", str), os.fsdecode(b"\xff")),
        (tilekv.Attr("a", "int8", shape=2), "1"),
        (tilekv.Attr("a", "int8", var=True), "1"),
        (tilekv.Attr("a", "bool"), "0"),
    ],
)
def test_put_of_what_does_not_fit(attr, text, tmp_path, capsysbinary) -> None:
    uri = tmp_path / "typed.kv"
    tilekv.open(uri, "x", schema=tilekv.Schema(attr)).close()
    assert "'a'" in failure(capsysbinary, "put", uri, "k", "--value", text)
    with tilekv.open(uri) as db:
        assert len(db) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5h", 1800), ("10m", 600), ("2h", 7200), ("3d", 259_200)]
)
def test_put_of_what_expires(text, seconds, tmp_path, capsysbinary) -> None:
    uri = tmp_path / "new.kv"
    before = time.time()
    output(capsysbinary, "put", uri, "k", "--value", "v", "--expire", text)
    with tilekv.open(uri, expires=True) as db:
        assert db["k"] == b"v"
        assert before + seconds - 1 < db.expires("k").timestamp() < time.time() + seconds + 1
    output(capsysbinary, "put", uri, "k", "--value", "v", "--expire", "never")
    output(capsysbinary, "put", uri, "gone", "--value", "v", "--expire=-1d")
    output(capsysbinary, "put", uri, "plain", "--value", "v")
    with tilekv.open(uri) as db:
        assert db.expires("k") is None
        assert db.expires("plain") is None
        assert set(db) == {"k", "plain"}
    assert "'gone'" in failure(capsysbinary, "get", uri, "gone")


def test_put_of_what_expires_into_a_store_that_keeps_no_moments(
    filled, tmp_path, capsysbinary
) -> None:
    for given in ("5", "never"):
        line = failure(capsysbinary, "put", filled, "k", "--value", "v", "--expire", given)
        assert line.endswith(
            "keeps no moments of expiry: convert --expires makes a store that does\n"
        )
    output(capsysbinary, "convert", "--expires", filled, tmp_path / "new.kv")
    output(capsysbinary, "put", tmp_path / "new.kv", "k", "--value", "v", "--expire", "1d")
    with tilekv.open(tmp_path / "new.kv", expires=True) as db, tilekv.open(filled) as old:
        assert db.expires("k") is not None
        assert {key: value for key, value in db.items() if key != "k"} == dict(old)


def test_import_into_a_store_that_keeps_moments(folder, filled, tmp_path, capsysbinary) -> None:
    uri = tmp_path / "tree.kv"
    output(capsysbinary, "import", "--expires", folder, uri)
    output(capsysbinary, "put", uri, "empty", "--value", "v", "--expire", "1d")
    with tilekv.open(uri, expires=True) as db:
        assert dict(db) == TREE | {"empty": b"v"}
    output(capsysbinary, "import", folder, uri)  # what is there already need not be said again
    assert "convert --expires" in failure(capsysbinary, "import", "--expires", folder, filled)


def test_put_into_several_attributes(points, capsysbinary) -> None:
    assert "a1, tag, rgb" in failure(capsysbinary, "put", points, "k", "--value", "1")


def test_rm(filled, capsysbinary) -> None:
    output(capsysbinary, "rm", filled, "7", "--type", "int")
    assert "'gone'" in failure(capsysbinary, "rm", filled, "cat.jpg", "gone")
    with tilekv.open(filled) as db:
        assert 7 not in db
        assert "cat.jpg" in db
    output(capsysbinary, "rm", filled, "cat.jpg", "dog.jpg")
    with tilekv.open(filled) as db:
        assert set(db) == {"notes/dog.txt", b"\0raw"}


# --- info and verify ---


def test_info(filled, points, capsysbinary) -> None:
    with tilekv.open(filled, "a") as db:
        del db[7]
    found = json.loads(output(capsysbinary, "info", "--json", filled))
    with tilekv.open(filled) as db:
        assert found["stored_bytes"] == sum(each.stored_bytes for each in db.fragments)
        assert [each["name"] for each in found["fragments"]] == [each.name for each in db.fragments]
    assert (found["keys"], found["cells"], found["tombstones"]) == (4, 6, 1)
    assert (found["uri"], found["digest"]) == (filled, "blake2b")

    text = output(capsysbinary, "info", filled).decode()
    assert "\nkeys       4\n" in text
    assert "\ncells      6, 1 of them tombstones\n" in text
    assert "bytes in 2 fragments\n" in text
    attrs = json.loads(output(capsysbinary, "info", "--json", points))["attrs"]
    assert [(each["name"], each["dtype"], each["shape"], each["var"]) for each in attrs] == [
        ("a1", "int32", None, False),
        ("tag", "str", None, True),
        ("rgb", "uint8", [3], False),
    ]
    assert "\nattribute  rgb: uint8 (3,), " in output(capsysbinary, "info", points).decode()


def test_info_of_a_store_whose_entries_expire(filled, tmp_path, capsysbinary) -> None:
    assert "expir" not in output(capsysbinary, "info", filled).decode()
    assert json.loads(output(capsysbinary, "info", "--json", filled))["expired"] is None
    uri = str(tmp_path / "expiring.kv")
    tilekv.open(uri, "x", expires=True).close()
    assert (
        "\nexpiry     entries can expire; 0 keys have\n"
        in output(capsysbinary, "info", uri).decode()
    )
    with tilekv.open(uri, "a") as db:
        db.put_many(["a", "b", "deleted"], [b""] * 3, expire=-1)
        db.put_many(["c", "later"], [b""] * 2, expire=86_400)
    for keys, expired in ((["b"], 3), (["a", "c"], 2), (["deleted"], 1)):
        text = output(capsysbinary, "info", uri).decode()
        assert (
            f"\nexpiry     entries can expire; {counted(expired, 'key has', 'keys have')}\n" in text
        )
        assert json.loads(output(capsysbinary, "info", "--json", uri))["expired"] == expired
        with tilekv.open(uri, "a") as db:
            db.delete_many(keys)


def test_verify_of_a_sound_store(filled, capsysbinary) -> None:
    out = output(capsysbinary, "verify", filled)
    assert out.startswith(b"sound: 5 cells in 1 fragment,")
    assert json.loads(output(capsysbinary, "verify", "--json", filled)) == {
        "uri": filled,
        "sound": True,
        "fragments": 1,
        "cells": 5,
        "problems": [],
    }


def test_several_processes(filled, capsysbinary, monkeypatch) -> None:
    monkeypatch.setattr("tilekv.cli.upkeep.processes", ThreadPoolExecutor)  # they start sooner
    with tilekv.open(filled, "a") as db:
        db["more"] = b"value"
        wanted = dict(db.items())
    said = output(capsysbinary, "consolidate", "--workers", "2", "--vacuum", filled)
    assert said.startswith(b"2 fragments")
    out = output(capsysbinary, "verify", "--workers", "1", filled)
    assert out.startswith(b"sound: 6 cells in 1 fragment,")
    with tilekv.open(filled) as db:
        assert dict(db.items()) == wanted
    for wrong in ("0", "two", "-1"):
        with pytest.raises(SystemExit):
            main(["verify", f"--workers={wrong}", filled])
        assert b"no number of processes" in capsysbinary.readouterr().err


def test_verify_of_a_damaged_store(filled, capsysbinary) -> None:
    (file,) = Path(filled).glob("__*/value_var.tdb")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    text = output(capsysbinary, "verify", filled, code=1).decode()
    found = json.loads(output(capsysbinary, "verify", "--json", filled, code=1))
    assert found["sound"] is False
    assert {(each["fragment"], each["file"]) for each in found["problems"]} == {
        (file.parent.name, file.name)
    }
    assert f"{file.parent.name}/{file.name}, byte " in text
    assert text.splitlines()[-1].startswith("damaged: ")


def test_verify_of_a_store_that_does_not_open(filled, capsysbinary) -> None:
    (Path(filled) / "__tilekv.json").write_bytes(b"{}")
    assert b"__tilekv.json" in output(capsysbinary, "verify", filled, code=1)
    (problem,) = json.loads(output(capsysbinary, "verify", "--json", filled, code=1))["problems"]
    assert problem["file"] == "__tilekv.json"


# --- how it ends ---


@pytest.mark.parametrize(
    "argv",
    [
        ["export", "{}", "out"],
        ["ls", "{}"],
        ["get", "{}", "k"],
        ["rm", "{}", "k"],
        ["info", "{}"],
        ["verify", "{}"],
    ],
    ids=lambda argv: argv[0],
)
def test_missing_store(argv, tmp_path, capsysbinary, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "gone.kv" in failure(capsysbinary, *(arg.format("gone.kv") for arg in argv))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["ls", "gone.kv"], "import and put create one"),
        (["get", "gone.kv", "k"], "import and put create one"),
        (["put", "old", "k", "--value", "x"], "convert makes a tilekv store of it"),
        (["rm", "old", "k"], "convert makes a tilekv store of it"),
        (["import", ".", "old"], "convert makes a tilekv store of it"),
        (["vacuum", "old"], "convert makes a tilekv store of it"),
        (["salvage", "old", "new"], "convert copies what can be read"),
        (["convert", "old", "new", "--key-file", "key"], "leave --key-file out"),
    ],
)
def test_errors_speak_of_the_command_line(argv, says, tmp_path, capsysbinary, monkeypatch) -> None:
    if "--key-file" in argv:
        pytest.importorskip("cryptography")
    monkeypatch.chdir(tmp_path)
    OldStoreWriter(tmp_path / "old", 3).flush([((4, b"one"), 1, b"first")], 1000)
    (tmp_path / "key").write_bytes(b"k" * 32)
    line = failure(capsysbinary, *argv)
    assert line.endswith(f": {says}\n")
    assert not re.search(r"mode|tilekv\.|key=", line)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example: python -m tilekv {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["put", "store", "key", "file\0"],
        ["put", "store", "key", "\ud83d"],
        ["get", "store"],
        ["get", "store", "key", "--type", "date"],
        ["get", "store", "key", "--range", "5"],
        ["get", "store", "key", "--range", "a:b"],
        ["put", "store", "key", "file", "--value", "text"],
        ["import", "dir", "store", "--batch-bytes", "many"],
        ["put", "store", "key", "file", "--expire", "soon"],
        ["put", "store", "key", "file", "--expire", "nan"],
        ["put", "store", "key", "file", "--expire", "10y"],
        ["put", "store", "key", "file", "--expire", "d"],
        ["put", "store", "key", "file", "--expire", ""],
        ["put", "store", "key", "file", "--expire", "1e999"],
    ],
)
def test_wrong_usage(argv, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m tilekv")


def command_line(*argv: str) -> subprocess.Popen[bytes]:
    """The program as a shell starts it: its output is buffered, whatever the tests run under."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tilekv", *argv],
        env={name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_closed_pipe_is_quiet(tmp_path) -> None:
    with tilekv.open(tmp_path / "many.kv", "x") as db:
        db.update({f"key_{i:060}": b"" for i in range(20_000)})
    with command_line("ls", str(tmp_path / "many.kv")) as process:
        assert process.stdout.readline().startswith(b"key_")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_pipe_that_was_never_read_is_quiet(filled) -> None:
    with command_line("ls", filled) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_interrupt_is_quiet(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # A test run in the background of a shell ignores SIGINT, and what it starts inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = command_line("put", str(tmp_path / "new.kv"), "key", str(pipe))
    finally:
        signal.signal(signal.SIGINT, before)
    with process, open(pipe, "wb"):  # opened as soon as the program waits for what we write
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert not (tmp_path / "new.kv").exists()


def test_memory_error_is_a_line(filled, capsysbinary, monkeypatch) -> None:
    def starved(*args):
        raise MemoryError

    monkeypatch.setattr("tilekv.cli.command.list_keys", starved)
    assert failure(capsysbinary, "ls", filled) == "tilekv: out of memory\n"


# --- progress and texts ---


class Screen(io.StringIO):
    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_progress_in_a_log() -> None:
    screen = Screen(False)
    with Progress(1000, 5_000_000, screen) as bar:
        for _ in range(1000):
            bar.advance(1, 5000)
    lines = screen.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [f"{tenth}0%" for tenth in range(1, 11)]
    assert "  500/1,000 files    2.5 MB/5.0 MB  " in lines[4]
    assert "███████████████░░░░░░░░░░░░░░░  " in lines[4]
    assert all("\r" not in line and "  ETA 0:0" in line for line in lines)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_progress_on_a_terminal(columns, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen(True)
    with Progress(10, 100, screen) as bar:
        for _ in range(10):
            bar.advance(1, 10)
    text = screen.getvalue()
    assert text.endswith("\x1b[K\n")
    pictures = text[1:].replace("\x1b[K", "").splitlines()[-1].split("\r")
    assert all(len(picture) < columns for picture in pictures)
    assert pictures[-1].startswith("100%")


def test_progress_of_empty_files_and_of_a_growing_tree() -> None:
    screen = Screen(False)
    with Progress(2, 0, screen) as bar:
        bar.advance(1, 0)
        bar.advance(5, 10)
    assert [line[:4] for line in screen.getvalue().splitlines()] == [" 50%", "100%"]


def test_progress_without_unicode() -> None:
    screen = Screen(False)
    screen.encoding = "ascii"
    with Progress(2, 2, screen) as bar:
        bar.advance(1, 1)
    assert "###############..............." in screen.getvalue()


def test_progress_is_shown_when_asked_for(folder, tmp_path, capsysbinary) -> None:
    assert main(["import", "--progress", str(folder), str(tmp_path / "tree.kv")]) == 0
    assert f"{len(TREE)}/{len(TREE)} files" in capsysbinary.readouterr().err.decode()


def test_texts() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 999_949, 999_950, 4.21e8, 3e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "421.0 MB",
        "3000.0 TB",
    ]
    assert [time_text(seconds) for seconds in (0, 7.4, 60, 3723)] == [
        "0:00",
        "0:07",
        "1:00",
        "1:02:03",
    ]
    assert (counted(1, "file"), counted(2000, "file")) == ("1 file", "2,000 files")
    assert key_text("a\x1b[2J") == r"'a\x1b[2J'"
    assert error_text(FileNotFoundError(2, "No such file", "x")) == "x: No such file"
    assert error_text(OSError("two\nlines")) == "two lines"
    assert error_text(RuntimeError()) == "RuntimeError"
