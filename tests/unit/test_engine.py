"""engine: what each mode opens, creates, replaces and refuses."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tilekv
from tilekv.errors import (
    CorruptionError,
    FormatError,
    InvalidValueError,
    StoreExistsError,
    StoreNotFoundError,
    StoreReplacedError,
)

OTHER = tilekv.Schema([tilekv.Attr("n", "int32")])
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(params=["local", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "s") if request.param == "local" else f"memory://{tmp_path}"


def test_missing(uri: str) -> None:
    with pytest.raises(StoreNotFoundError, match="create one") as caught:
        tilekv.open(uri)
    assert isinstance(caught.value, FileNotFoundError)
    for mode in ("a", "x", "w"):
        place = f"{uri}-{mode}"
        with tilekv.open(place, mode) as db:  # type: ignore[arg-type]
            assert (db.mode, db.uri, len(db)) == (mode, place, 0)
            db["k"] = b"v"
        with tilekv.open(place) as db:
            assert db["k"] == b"v"
            assert [attr.name for attr in db.schema.attrs] == ["value"]


def test_there_already(uri: str) -> None:
    with tilekv.open(uri, "x", schema=OTHER) as db:
        db["k"] = 1
    with pytest.raises(StoreExistsError, match="mode 'a'") as caught:
        tilekv.open(uri, "x", schema=OTHER)
    assert isinstance(caught.value, FileExistsError)
    for mode in ("r", "a"):
        with tilekv.open(uri, mode) as db:  # type: ignore[arg-type]
            assert db["k"] == 1
        with tilekv.open(uri, mode, schema=OTHER) as db:  # type: ignore[arg-type]
            assert db["k"] == 1
        with pytest.raises(InvalidValueError, match="another schema"):
            tilekv.open(uri, mode, schema=tilekv.Schema([tilekv.Attr("m", "int32")]))  # type: ignore[arg-type]
    with tilekv.open(uri, "w") as db:
        assert len(db) == 0
        assert [attr.name for attr in db.schema.attrs] == ["value"]


@pytest.mark.parametrize("mode", ["a", "x", "w"])
def test_another_folder_is_never_touched(tmp_path: Path, mode: str) -> None:
    for content in ("file", ".hidden", "folder/"):
        place = tmp_path / "folder"
        place.mkdir()
        path = place / content
        path.mkdir() if content.endswith("/") else path.write_text("mine")
        with pytest.raises(StoreExistsError, match="not a tilekv store"):
            tilekv.open(place, mode)  # type: ignore[arg-type]
        assert list(place.iterdir()) == [path]
        shutil.rmtree(place)
    place.touch()
    with pytest.raises(OSError, match="folder"):
        tilekv.open(place, mode)  # type: ignore[arg-type]
    assert place.read_bytes() == b""


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    for mode in ("a", "x", "w"):
        (tmp_path / mode).mkdir()
        with pytest.raises(StoreNotFoundError):
            tilekv.open(tmp_path / mode)
        tilekv.open(tmp_path / mode, mode).close()  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a",
        "w",
        "x",
    ]  # no hidden sibling stays


def test_no_parent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        tilekv.open(tmp_path / "missing" / "s", "a")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"mode": "rw"}, ValueError),
        ({"mode": ""}, ValueError),
        ({"mode": None}, ValueError),
        ({"mode": "a", "schema": "int32"}, TypeError),
        ({"mode": "a", "timestamp": 1}, ValueError),
        ({"mode": "x", "timestamp": 1}, ValueError),
        ({"timestamp": "now"}, TypeError),
        ({"timestamp": True}, TypeError),
        ({"timestamp": 1.5}, TypeError),
        ({"config": {"kv.cash_bytes": 1}}, ValueError),
    ],
    ids=repr,
)
def test_arguments(arguments: dict[str, object], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        tilekv.open(tmp_path / "s", **arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, tilekv.TileKVError)
    assert not (tmp_path / "s").exists()


def test_a_store_that_was_replaced(uri: str) -> None:
    """What is buffered belongs to the store that was opened."""
    old = tilekv.open(uri, "x")
    old["k"] = b"old"
    tilekv.open(uri, "w").close()
    with pytest.raises(StoreReplacedError, match="still in this handle") as caught:
        old.flush()
    assert isinstance(caught.value, OSError)
    assert old["k"] == b"old"
    with pytest.raises(StoreReplacedError):
        old.close()
    with tilekv.open(uri) as db:
        assert len(db) == 0
    old.close(discard=True)


def test_of_two_creators_one_wins_and_both_may_write(tmp_path: Path) -> None:
    for round_ in range(5):
        place = tmp_path / str(round_)
        made: list[str] = []
        start = threading.Barrier(6)

        def create(
            mode: str, place: Path = place, made: list[str] = made, start: threading.Barrier = start
        ) -> None:
            start.wait()
            with contextlib.suppress(StoreExistsError), tilekv.open(place, mode) as db:  # type: ignore[arg-type]
                db[len(made)] = mode.encode()
                made.append(mode)

        threads = [threading.Thread(target=create, args=(mode,)) for mode in "axaxax"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made.count("a") == 3
        assert made.count("x") <= 1
        with tilekv.open(place) as db:
            assert db.info().fragments == len(made)
    assert len(list(tmp_path.iterdir())) == 5


# --- damage and other programs ------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with tilekv.open(tmp_path / "s", "x") as db:
        db["k"] = b"v"
    return tmp_path / "s"


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("file", ["__kv_schema.tdb", "__array_schema.tdb", "__tilekv.json"])
def test_a_file_of_the_root_is_lost_or_damaged(root: Path, file: str, mode: str) -> None:
    """Damage, not a store that is not there: nobody shall be told to create one."""
    data = (root / file).read_bytes()
    (root / file).unlink()
    with pytest.raises(CorruptionError, match=file):
        tilekv.open(root, mode)  # type: ignore[arg-type]
    for damaged in (
        b"",
        data[:-2],
        data[:20],
        bytes([data[0] ^ 1]) + data[1:],
        data[:-9] + b"!" + data[-8:],
    ):
        (root / file).write_bytes(damaged)
        with pytest.raises(CorruptionError, match=file):
            tilekv.open(root, mode)  # type: ignore[arg-type]
    (root / file).write_bytes(data)
    with tilekv.open(root, mode) as db:  # type: ignore[arg-type]
        assert db["k"] == b"v"


def test_a_store_of_another_format(root: Path) -> None:
    path = root / "__tilekv.json"
    content = json.loads(path.read_text())
    content["format"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises((FormatError, CorruptionError)):
        tilekv.open(root)


def test_an_empty_store_without_its_descriptor(root: Path) -> None:
    (root / "__tilekv.json").unlink()
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    with pytest.raises(CorruptionError, match=r"__tilekv\.json: it is missing"):
        tilekv.open(root)
    with pytest.raises(StoreExistsError):
        tilekv.open(root, "w")


def test_opening_for_reading_writes_nothing(root: Path) -> None:
    """It works on read-only media."""
    code = "import sys, tilekv; db = tilekv.open(sys.argv[1]); assert (db['k'], db.verify()) == (b'v', [])"
    before = {path: path.stat().st_mtime_ns for path in [root.parent, *root.parent.rglob("*")]}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        subprocess.run([sys.executable, "-P", "-c", code, str(root)], check=True)
    finally:
        for path in before:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {
        path: path.stat().st_mtime_ns for path in [root.parent, *root.parent.rglob("*")]
    } == before
