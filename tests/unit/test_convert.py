"""convert: what it copies, what it refuses, and the command."""

from pathlib import Path

import pytest

import tilekv
from old_stores import OldStoreWriter
from tilekv.cli.command import main

ITEMS = [((4, f"key_{i}".encode()), i, b"v" * i) for i in range(300)]


def written(path: Path) -> Path:
    OldStoreWriter(path, 2, 64).flush(ITEMS, 1000)
    return path


def test_every_entry(tmp_path: Path) -> None:
    old = written(tmp_path / "old")
    assert tilekv.convert(old, "memory://converted") == 300
    with tilekv.open("memory://converted") as db, tilekv.open(old) as source:
        assert dict(db) == dict(source)
        assert db.schema == tilekv.Schema(source.schema.attrs)


def test_progress_ends_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    new = tmp_path / "new"
    tilekv.convert(written(tmp_path / "old"), new, progress=lambda *now: told.append(now))
    assert [now for now in told if now[0] == now[1]] == told[-1:] == [(300, 300)]


def test_an_empty_store(tmp_path: Path) -> None:
    OldStoreWriter(tmp_path / "old", 3)
    assert tilekv.convert(tmp_path / "old", tmp_path / "new") == 0
    with tilekv.open(tmp_path / "new") as db:
        assert not db


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    old = written(tmp_path / "old")
    with tilekv.open(tmp_path / "new", "x") as db:
        db["mine"] = b"1"
    with pytest.raises(tilekv.StoreExistsError):
        tilekv.convert(old, tmp_path / "new")
    with pytest.raises(tilekv.StoreExistsError):
        tilekv.convert(old, old)
    with tilekv.open(tmp_path / "new") as db:
        assert dict(db) == {"mine": b"1"}


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """What is under way has another name, and is removed when it does not get to its end."""
    old = written(tmp_path / "old")

    def stop(done: int, total: int) -> None:
        assert not (tmp_path / "new").exists()
        assert len(list(tmp_path.glob(".tmp-*"))) == 1
        if done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tilekv.convert(old, tmp_path / "new", progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["old"]


def test_a_store_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    old = written(tmp_path / "old")

    def appear(done: int, total: int) -> None:
        if done == total:
            with tilekv.open(tmp_path / "new", "x") as db:
                db["mine"] = b"1"

    with pytest.raises(tilekv.StoreExistsError):
        tilekv.convert(old, tmp_path / "new", progress=appear)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "old"]
    with tilekv.open(tmp_path / "new") as db:
        assert dict(db) == {"mine": b"1"}


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(tilekv.StoreNotFoundError):
        tilekv.convert(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = str(written(tmp_path / "old")), str(tmp_path / "new")
    assert main(["convert", old, new]) == 0
    assert capsys.readouterr().out == "converted 300 entries\n"
    assert main(["convert", old, new]) == 1
    assert main(["put", old, "key", "--value", "text"]) == 1
    assert "convert makes a tilekv store of it" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_command_with_a_key(
    ending: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    old = str(written(tmp_path / "old"))
    secret = tmp_path / "key"
    secret.write_bytes(b"k" * 32 + ending)
    assert main(["convert", old, str(tmp_path / "new"), "--key-file", str(secret)]) == 1
    assert "not encrypted" in capsys.readouterr().err
    secret.write_bytes(b"k" * 33 + ending)
    assert main(["convert", old, str(tmp_path / "new"), "--key-file", str(secret)]) == 1
    assert "32 bytes, not 33" in capsys.readouterr().err
