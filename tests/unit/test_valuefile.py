"""tilekv.valuefile: a value as a file, compared with the same bytes in a BytesIO."""

from __future__ import annotations

import io
import pickle
import random
import threading
from pathlib import Path

import pytest

import tilekv

MIB = 1 << 20


def test_it_reads_as_other_files_do(tmp_path: Path) -> None:
    pick = random.Random(1)
    data = pick.randbytes(3 * MIB // 2) + bytes(3 * MIB // 2)
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"] = data
        for _ in range(2):
            with db.open_value("a") as file:
                like = io.BytesIO(data)
                assert isinstance(file, io.BufferedReader)
                assert file.readable()
                assert file.seekable()
                assert not file.writable()
                for _ in range(300):
                    what = pick.randrange(5)
                    if what == 0:
                        whence = pick.randrange(3)
                        offset = pick.randrange(len(data) + 10) * (-1 if whence == 2 else 1)
                        if whence == 1:
                            offset = pick.randrange(-min(like.tell(), 5000), 5000)
                        if whence == 2:
                            offset = max(offset, -len(data))
                        assert file.seek(offset, whence) == like.seek(offset, whence)
                    elif what == 1:
                        assert file.readline() == like.readline()
                    elif what == 2:
                        into, other = bytearray(777), bytearray(777)
                        assert file.readinto(into) == like.readinto(other)
                        assert into == other
                    else:
                        n = pick.choice([0, 1, 100, 70_000, 300_000])
                        assert file.read(n) == like.read(n)
                    assert file.tell() == like.tell()
                like.seek(5)
                file.seek(5)
                assert file.read() == like.read()
            db.flush()


def test_it_refuses_as_other_files_do() -> None:
    with tilekv.open("memory://files", "w") as db:
        db["a"] = b"12345"
        file = db.open_value("a")
        raw = file.raw
        for call in (
            lambda: raw.seek(-1),
            lambda: raw.seek(0, 7),
            lambda: file.write(b""),
            lambda: pickle.dumps(file),
        ):
            with pytest.raises((ValueError, io.UnsupportedOperation, TypeError)):
                call()
        assert raw.seek(2**62) == 2**62
        assert raw.read(5) == b""
        file.close()
        for call in (raw.readable, raw.seekable, raw.tell, lambda: raw.seek(0), file.read):
            with pytest.raises(ValueError, match="closed file"):
                call()
        with pytest.raises(ValueError, match="closed file"):
            raw.readinto(bytearray(1))


def test_it_shows_the_value_of_its_moment(tmp_path: Path) -> None:
    """In the buffer, and in a fragment that was merged and vacuumed since; and after the handle was closed."""
    db = tilekv.open(tmp_path / "s", "w")
    db["a"] = b"first" * MIB
    buffered = db.open_value("a")
    db.flush()
    flushed = db.open_value("a")
    db["a"] = b"second"
    db["b"] = b""
    assert buffered.read(5) == flushed.read(5) == b"first"
    db.consolidate(vacuum=True)
    db["a"] = b"third"
    db.close()
    for file in (buffered, flushed):
        file.seek(-5, 2)
        assert file.read() == b"first"
        file.close()


def test_nulls_and_missing_keys() -> None:
    schema = tilekv.Schema([tilekv.Attr("text", str, nullable=True)])
    with tilekv.open("memory://files", "w", schema=schema) as db:
        db["a"], db["null"] = "grün", None
        with io.TextIOWrapper(db.open_value("a"), "utf-8") as text:
            assert text.read() == "grün"
        with pytest.raises(tilekv.InvalidValueError, match="null"):
            db.open_value("null")
        with pytest.raises(tilekv.KeyNotFoundError):
            db.open_value("b")
    with pytest.raises(tilekv.ClosedError):
        db.open_value("a")


def test_many_threads_read_one_value(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    with tilekv.open(tmp_path / "s", "w") as db:
        db["a"] = data
    wrong: list[int] = []

    def work(seed: int) -> None:
        pick = random.Random(seed)
        with shared.open_value("a") as file:
            for _ in range(100):
                at = pick.randrange(len(data))
                file.seek(at)
                if file.read(5000) != data[at : at + 5000]:
                    wrong.append(at)

    with tilekv.open(tmp_path / "s", config={"kv.cache_bytes": MIB}) as shared:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
