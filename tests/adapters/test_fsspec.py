"""A store as a file system: fsspec's own tests of copy, get, put, pipe and open, and what it promises beyond them."""

from __future__ import annotations

import pickle
import random
import uuid
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import polars as pl
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract
from pyarrow.dataset import dataset

import tilekv
from tilekv.fsspec import LARGE_BYTES, TilekvFileSystem


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where a store will be."""
    return str(tmp_path / "files.kv")


@pytest.fixture
def fs(place: str) -> TilekvFileSystem:
    """A file system of a store that its first write creates."""
    return fsspec.filesystem("tilekv", fo=place)


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self) -> TilekvFileSystem:
        return fsspec.filesystem("tilekv", fo=f"memory://{uuid.uuid4()}")

    # fsspec's is a class method, which pytest 9 makes no fixture of.
    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def local_path(self, tmp_path: Path) -> str:
        path = tmp_path / "local"
        path.mkdir()
        return str(path)

    # Not the root: fsspec takes a path without a slash for its own parent, here as in a zip file.
    @pytest.fixture
    def fs_path(self) -> str:
        return "top"

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


# --- paths and folders ---


def test_folders_are_what_keys_have_in_common(fs: TilekvFileSystem) -> None:
    fs.pipe({"top": b"1", "2023/cat": b"22", "2024/dog": b"333", "2024/more/cow": b"4444"})
    assert fs.ls("", detail=False) == ["2023", "2024", "top"]
    assert fs.ls("2024") == [
        {"name": "2024/dog", "size": 3, "type": "file"},
        {"name": "2024/more", "size": 0, "type": "directory"},
    ]
    assert fs.ls("/2024/more/") == [{"name": "2024/more/cow", "size": 4, "type": "file"}]
    assert fs.ls("top", detail=False) == ["top"]
    assert fs.info("2024/more/cow")["size"] == 4
    assert fs.info("2024")["type"] == "directory"
    assert fs.du("") == 10
    assert list(fs.walk("")) == [
        ("", ["2023", "2024"], ["top"]),
        ("2023", [], ["cat"]),
        ("2024", ["more"], ["dog"]),
        ("2024/more", [], ["cow"]),
    ]
    assert fs.find("2024") == ["2024/dog", "2024/more/cow"]
    assert fs.glob("202?/*") == ["2023/cat", "2024/dog", "2024/more"]
    assert fs.glob("**/c*") == ["2023/cat", "2024/more/cow"]
    for missing in ("2025", "202", "top/x"):
        assert not fs.exists(missing)
        with pytest.raises(FileNotFoundError, match=missing):
            fs.ls(missing)


def test_a_listing_is_of_one_look_through_the_keys(
    fs: TilekvFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.pipe({f"{i % 10}/{i % 7}/{i}": b"" for i in range(1000)})
    looks = []
    scan = tilekv.Store.scan_keys

    def counted(db: tilekv.Store, **asked: Any) -> list[Any]:
        looks.append(asked)
        return scan(db, **asked)

    monkeypatch.setattr(tilekv.Store, "scan_keys", counted)
    assert sum(len(files) for _, _, files in fs.walk("")) == 1000
    assert len(fs.find("")) == len(fs.glob("*/*/*")) == 1000
    assert len(looks) == 1


def test_keys_that_are_no_paths_are_not_seen(place: str, fs: TilekvFileSystem) -> None:
    with tilekv.open(place, "x") as db:
        db.put_many(dict.fromkeys(["a/b", "/c", "d/", "e//f", "", b"bytes", 7, 1.5], b"1"))
    assert fs.find("") == ["a/b"]
    assert fs.ls("", detail=False) == ["a"]
    with pytest.raises(tilekv.InvalidValueError, match="no path"):
        fs.pipe_file("a//b", b"")


# --- reading ---


def test_parts_and_many_files_are_read(fs: TilekvFileSystem) -> None:
    fs.pipe({"a": b"0123456789", "b": b"xyz"})
    assert fs.cat("a") == b"0123456789"
    assert fs.cat(["a", "b"]) == {"a": b"0123456789", "b": b"xyz"}
    assert fs.cat_file("a", 2, 5) == b"234"
    assert fs.cat_file("a", -3, -1) == b"78"
    assert fs.cat_ranges(["a", "b", "none"], [1, -2, 0], [3, None, 1])[:2] == [b"12", b"yz"]
    with pytest.raises(FileNotFoundError, match="none"):
        fs.cat(["a", "none"])
    assert fs.cat(["a", "none"], on_error="omit") == {"a": b"0123456789"}
    assert isinstance(fs.cat(["none"], on_error="return")["none"], FileNotFoundError)
    with fs.open("a") as file:
        assert file.seek(-4, 2) == 6
        assert file.read(2) == b"67"


def test_a_mapper_asks_for_many_at_once(fs: TilekvFileSystem) -> None:
    m = fs.get_mapper("z")
    m.setitems({"a": b"1", "b/c": b"2"})
    m["d"] = b"3"
    assert m.getitems(["a", "b/c", "none"], on_error="omit") == {"a": b"1", "b/c": b"2"}
    assert sorted(m) == ["a", "b/c", "d"]
    m.delitems(["a", "d"])
    assert list(m) == ["b/c"]
    with pytest.raises(KeyError):
        m["a"]


# --- writing ---


def test_a_write_is_seen_at_once_and_by_others_when_they_look_again(place: str) -> None:
    one, other = (fsspec.filesystem("tilekv", fo=place, n=n) for n in range(2))
    one.pipe("first", b"1")
    assert other.ls("", detail=False) == ["first"]
    one.pipe("second", b"2")
    assert one.ls("", detail=False) == ["first", "second"]
    assert other.ls("", detail=False) == ["first"]
    other.invalidate_cache()
    assert other.cat("second") == b"2"
    assert other.ls("", detail=False) == ["first", "second"]


def test_what_many_files_cost_is_one_flush(
    place: str, fs: TilekvFileSystem, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(20):
        (folder / str(i)).write_bytes(b"%d" % i)
    fs.put(str(folder), "in", recursive=True)
    fs.copy("in/", "copy/", recursive=True)
    fs.mv("copy/", "moved/", recursive=True)
    fs.rm("in", recursive=True)
    with fs.transaction:
        for i in range(5):
            fs.pipe(f"t/{i}", b"1")
            assert not fs.exists(f"t/{i}")
    with tilekv.open(place) as db:
        assert len(db.fragments) == 5
        assert {key.split("/")[0] for key in db} == {"moved", "t"}
        assert len(db) == 25


def test_nothing_is_left_of_a_transaction_that_fails(fs: TilekvFileSystem) -> None:
    fs.pipe("a", b"1")

    def fail() -> None:
        with fs.transaction:
            fs.pipe({"a": b"2", "b": b"2"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert fs.cat(fs.find("")) == {"a": b"1"}


def test_large_files_come_by_parts(fs: TilekvFileSystem, tmp_path: Path) -> None:
    data = bytes(LARGE_BYTES + 1)
    (tmp_path / "large").write_bytes(data)
    fs.put(str(tmp_path / "large"), "large")
    fs.get("large", str(tmp_path / "again"))
    assert fs.info("large")["size"] == len(data)
    assert (tmp_path / "again").read_bytes() == data


def test_modes(place: str, fs: TilekvFileSystem) -> None:
    with fs.open("new", "xb") as file:
        file.write(b"1")
    for create in (lambda: fs.open("new", "xb"), lambda: fs.pipe_file("new", b"", mode="create")):
        with pytest.raises(FileExistsError, match="new"):
            create()
    for mode in ("ab", "r+b", "a"):
        with pytest.raises(tilekv.InvalidValueError, match="mode"):
            fs.open("new", mode)
    with fs.open("text", "w", encoding="utf-8") as file:
        file.write("ä")
    assert fs.cat("text") == "ä".encode()
    reading = fsspec.filesystem("tilekv", fo=place, mode="r")
    assert reading.cat("new") == b"1"
    for write in (lambda: reading.pipe("a", b""), lambda: reading.rm("new")):
        with pytest.raises(tilekv.ReadOnlyError):
            write()
    with pytest.raises(IsADirectoryError):
        fs.pipe("d/e", b"") or fs.rm("d")
    with pytest.raises(FileNotFoundError):
        fs.rm("none")


def test_what_a_store_must_be(tmp_path: Path) -> None:
    with pytest.raises(tilekv.InvalidValueError, match="which store"):
        fsspec.filesystem("tilekv")
    with pytest.raises(tilekv.InvalidValueError, match="mode is"):
        fsspec.filesystem("tilekv", fo="a", mode="w")
    missing = fsspec.filesystem("tilekv", fo=str(tmp_path / "none"))
    assert not missing.exists("a")
    with pytest.raises(FileNotFoundError):
        missing.ls("")
    assert not (tmp_path / "none").exists()
    with tilekv.open(tmp_path / "n", "x", schema=tilekv.Schema([tilekv.Attr("n", int)])) as db:
        db["a"] = 1
    with pytest.raises(tilekv.WrongTypeError, match="one bytes attribute"):
        fsspec.filesystem("tilekv", fo=str(tmp_path / "n")).ls("")


# --- by URL ---


def test_urls_name_a_key_and_a_store(place: str) -> None:
    url = f"tilekv://2024/cat.txt::file://{place}"
    with fsspec.open(url, "w") as file:
        file.write("meow")
    with fsspec.open(url) as file:
        assert file.read() == b"meow"
    with fsspec.open("tilekv://2024/cat.txt", fo=place) as file:
        assert file.read() == b"meow"
    fs, path = fsspec.url_to_fs("tilekv://a/b::memory://stored")
    fs.pipe(path, b"1")
    with tilekv.open("memory://stored") as db:
        assert dict(db) == {"a/b": b"1"}
    with fsspec.open_files(f"tilekv://*/cat.*::file://{place}")[0] as file:
        assert file.read() == b"meow"


def test_frames_are_written_and_read_by_url(place: str) -> None:
    url = f"tilekv://tables/{{}}.parquet::file://{place}"
    frame = pd.DataFrame({"n": range(1000), "name": [f"row {i}" for i in range(1000)]})
    frame.to_parquet(url.format("pandas"))
    pd.testing.assert_frame_equal(pd.read_parquet(url.format("pandas")), frame)
    assert pd.read_parquet(url.format("pandas"), columns=["n"]).shape == (1000, 1)
    frame.to_csv(url.format("csv"), index=False)
    pd.testing.assert_frame_equal(pd.read_csv(url.format("csv")), frame)


def test_polars_takes_the_url_by_pyarrow_and_files_by_itself(place: str) -> None:
    """What the page says of it: its own reader lets nobody add a scheme, and reads a file as a whole."""
    noise = [random.randbytes(20) for _ in range(50_000)]
    frame = pl.DataFrame({"n": range(50_000), "noise": noise})
    url, short = (f"tilekv://{key}::file://{place}" for key in ("a/b.parquet", "/b.parquet"))
    for each in (url, short):
        with fsspec.open(each, "wb") as file:
            frame.write_parquet(file)
        assert pl.read_parquet(each, use_pyarrow=True).equals(frame)
        for refused in (pl.read_parquet, lambda url: pl.scan_parquet(url).collect()):
            with pytest.raises(FileNotFoundError, match="No such file"):
                refused(each)
    with pytest.raises(FileNotFoundError, match="No such file"):
        frame.write_parquet(url)
    fs = fsspec.filesystem("tilekv", fo=place)
    read: list[int] = []
    whole = fs.info("a/b.parquet")["size"]

    def counted(**options: Any) -> int:
        with fs.open("a/b.parquet") as file:
            real = file.read

            def counting(*most: int) -> bytes:
                data = real(*most)
                read.append(len(data))
                return data

            file.read = counting
            read.clear()
            assert pl.read_parquet(file, columns=["n"], **options).equals(frame.select("n"))
            return sum(read)

    assert counted() == whole
    assert counted(use_pyarrow=True) < whole / 2
    tables = dataset("a/b.parquet", filesystem=fs)
    found = pl.scan_pyarrow_dataset(tables).filter(pl.col("n") < 5).collect()
    assert found.equals(frame.head(5))
    with tilekv.open(place) as db:
        assert pl.read_parquet(db["a/b.parquet"]).equals(frame)
        assert pl.read_parquet([db["a/b.parquet"], db["b.parquet"]]).shape == (100_000, 2)


def test_a_zip_file_in_a_store(fs: TilekvFileSystem, place: str) -> None:
    with fs.open("all.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("in/a", b"zipped")
    with fsspec.open(f"zip://in/a::tilekv://all.zip::file://{place}") as member:
        assert member.read() == b"zipped"


def test_it_travels(place: str, fs: TilekvFileSystem) -> None:
    fs.pipe("a", b"1")
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat("a") == b"1"
    with fs.open("a") as file:
        fs.pipe("a", b"2")
        assert file.read() == b"1"  # of the moment when it was opened
