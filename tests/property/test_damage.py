"""A store that is damaged anywhere gives the right answer or CorruptionError: never a wrong one, a crash or another error."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.errors import CorruptionError, FormatError, StoreNotFoundError

CONFIGS: list[dict[str, object]] = [{}, {"kv.mmap": False, "kv.cache_bytes": 0}]
Expected = dict[Any, Any]


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, Expected]:
    """Two fragments with every kind of file, and deletes in the newer one."""
    schema = tilekv.Schema(
        [
            tilekv.Attr("n", "int32"),
            tilekv.Attr("text", str),
            tilekv.Attr("plain", bytes, filters=tilekv.FilterList()),
        ],
        capacity=8,
    )
    expected = {}
    with tilekv.open(tmp_path / "s", "x", schema=schema) as db:
        for i in range(30):
            expected[f"key_{i}"] = {"n": i, "text": f"text {i}", "plain": b"%d" % i * 3}
        db.put_many(expected)
        db.flush()
        for i in range(0, 30, 4):
            del db[f"key_{i}"], expected[f"key_{i}"]
        db["new"] = expected["new"] = {"n": -1, "text": "", "plain": b"x" * 5000}
    return tmp_path / "s", expected


def attempt(call: Callable[[], Any], expected: Any) -> bool:
    """Whether it gave the right answer; it must, or raise CorruptionError."""
    try:
        assert call() == expected
    except CorruptionError:
        return False
    return True


def rows(batch: tilekv.Batch) -> list[tuple[Any, Any]]:
    columns = {
        name: batch[name].to_list() if hasattr(batch[name], "to_list") else batch[name].tolist()
        for name in batch
    }
    return [(key, {name: columns[name][i] for name in columns}) for i, key in enumerate(batch.keys)]


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size)


def unnoticed(store: Path, expected: Expected, config: dict[str, object]) -> bool:
    """Whether reading in every way and verify() see a sound store; reading must be right or raise CorruptionError."""
    sound = True
    try:
        db = tilekv.open(store, config=config)
    except (CorruptionError, FormatError, StoreNotFoundError):
        return False
    keys = [*expected, "key_0", "never there"]
    for call, right in [
        (lambda: dict(db.items()), expected),
        (lambda: db.get_many(keys), [expected.get(key) for key in keys]),
        (lambda: {key: row for batch in db.scan() for key, row in rows(batch)}, expected),
        (lambda: len(list(db)), len(expected)),
        *((lambda key=key: db.get(key), expected.get(key)) for key in keys[::5]),
    ]:
        sound &= attempt(call, right)
    problems = db.verify()
    assert sound or problems != []  # verify() finds whatever reading finds
    db.close()
    return sound and problems == []


@pytest.mark.parametrize("config", CONFIGS, ids=["map", "pread"])
def test_flipped_bits(store: tuple[Path, Expected], config: dict[str, object]) -> None:
    """Every 7th byte of every file; what reading does not notice changes nothing that is read."""
    path, expected = store
    assert unnoticed(path, expected, config)
    noticed = 0
    for file in files_of(path):
        data = bytearray(file.read_bytes())
        for at in range(len(file.name) % 7, len(data), 7):
            flip = 1 << at % 8
            data[at] ^= flip
            file.write_bytes(data)
            noticed += not unnoticed(path, expected, config)
            data[at] ^= flip
        file.write_bytes(data)
    assert noticed > 100
    assert unnoticed(path, expected, config)


@pytest.mark.parametrize("config", CONFIGS, ids=["map", "pread"])
def test_files_cut_short_or_lost(
    store: tuple[Path, Expected], config: dict[str, object], tmp_path: Path
) -> None:
    path, expected = store
    for file in files_of(path):
        data = file.read_bytes()
        for n in {0, 1, 8, len(data) // 2, len(data) - 9, len(data) - 1} - {len(data)}:
            if n >= 0:
                file.write_bytes(data[:n])
                unnoticed(path, expected, config)
        file.unlink()
        unnoticed(path, expected, config)
        file.write_bytes(data)
    assert unnoticed(path, expected, config)


def test_files_and_fragments_that_are_exchanged(
    store: tuple[Path, Expected], tmp_path: Path
) -> None:
    """A file of the other fragment is whole by its checksums, and is still not this one's."""
    path, expected = store
    one, two = sorted(folder for folder in path.iterdir() if folder.is_dir())
    for file in sorted(one.iterdir()):
        other = two / file.name
        kept = file.read_bytes(), other.read_bytes()
        file.write_bytes(kept[1])
        other.write_bytes(kept[0])
        for config in CONFIGS:
            assert not unnoticed(path, expected, config)
        file.write_bytes(kept[0])
        other.write_bytes(kept[1])
    away = tmp_path / "away"
    shutil.move(one, away)
    shutil.move(two, one)
    shutil.move(away, two)
    with pytest.raises(CorruptionError, match="another name"):
        tilekv.open(path)
