"""Fragments that are elsewhere: a look-up is one round, whatever the cache; faults are raised, and the next look-up is right."""

import random
import signal
import threading
from collections.abc import Callable

import pytest

import tilekv
from elsewhere import Elsewhere

N = 40_000
LOOKUPS = 20_000
OFF = {"kv.upkeep": "off"}


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Has stores in memory read from elsewhere."""
    elsewhere = Elsewhere()
    elsewhere.patch(monkeypatch)
    return elsewhere


def value_of(i: int) -> bytes:
    return b"%09d" % i * 11


def fill(fragments: int = 1, n: int = N) -> None:
    with tilekv.open("memory://away", "w", config=OFF) as db:
        for part in range(fragments):
            db.put_many({i: value_of(i) for i in range(part, n, fragments)})
            db.flush()


@pytest.mark.parametrize("cache", [0, 64 << 10, 256 << 20])
def test_a_look_up_is_one_round(away: Elsewhere, cache: int) -> None:
    """Of 20,000 at most one in a hundred has a second one, and none a third."""
    fill()
    with tilekv.open("memory://away", config={"kv.cache_bytes": cache}) as db:
        db.get(0)
        rng = random.Random(cache)
        away.clear()
        most = 0
        for _ in range(LOOKUPS):
            key = rng.randrange(N)
            before = away.rounds
            assert db[key] == value_of(key)
            most = max(most, away.rounds - before)
        assert most <= 2
        assert away.rounds <= 1.01 * LOOKUPS
        if cache == 256 << 20:  # all of it came once
            assert away.bytes < 3 * sum(map(len, away.files.values()))


def test_cells_that_were_kept_are_not_asked_for(away: Elsewhere) -> None:
    """The coordinates fit into the cache and the values do not: keys in use are there without a round."""
    fill()
    keys = random.Random(6).sample(range(N), 500)
    with tilekv.open("memory://away", config={"kv.cache_bytes": 2 << 20}) as db:
        for _ in range(3):
            away.clear()
            assert [db[key] for key in keys] == [value_of(key) for key in keys]
        assert away.rounds <= 25


def test_without_any_plan(away: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not asked for together is read when it is needed: more rounds, and the same answers."""
    fill(3, 3000)
    monkeypatch.setattr(away.reader, "bring", lambda wanted: None)
    with tilekv.open("memory://away") as db:
        assert all(db[i] == value_of(i) for i in range(0, 3000, 7))
        assert db.get_many([*range(3000), -1]) == [*map(value_of, range(3000)), None]
        assert dict(db) == {i: value_of(i) for i in range(3000)}


@pytest.mark.parametrize("near", [30_000, 60_000, 700_000])
def test_some_files_are_here(away: Elsewhere, near: int) -> None:
    """Coordinates or values: the others are had by rounds, whichever they are."""
    away.near = near
    fill(2, 3000)
    with tilekv.open("memory://away", "a", config=OFF) as db:
        db["long"] = bytes(3 << 20)
        db.flush()
        db.put_many({-i: b"" for i in range(1, 3000)})
        db.flush()
    with tilekv.open("memory://away") as db:
        away.clear()
        assert [db[i] for i in range(0, 3000, 9)] == [value_of(i) for i in range(0, 3000, 9)]
        assert db.get_many([5, -5, "long", "no"]) == [value_of(5), b"", bytes(3 << 20), None]
        assert len(db) == 6000


def test_batches(away: Elsewhere) -> None:
    fill(3)
    with tilekv.open("memory://away") as db:
        away.clear()
        keys = random.Random(5).sample(range(-N, N), 10_000)
        expected = [value_of(key) if key >= 0 else None for key in keys]
        assert db.get_many(keys) == expected
        assert away.rounds <= 12  # 4,096 keys are asked for together
        assert away.requests < 400
        batch = db.read(keys, missing="mask")
        assert [
            v if f else None for v, f in zip(batch["value"].to_list(), batch.found, strict=True)
        ] == expected


def test_misses_cost_nothing(away: Elsewhere) -> None:
    """Filters of 1 %: of 1,000 look-ups in three fragments at least 95 of 100 ask for nothing."""
    fill(3)
    with tilekv.open("memory://away") as db:
        away.clear()
        idle = 0
        for key in range(-1000, 0):
            before = away.rounds
            assert db.get(key) is None
            idle += away.rounds == before
        assert idle >= 950


def test_scans_and_merges_read_far_ahead(away: Elsewhere) -> None:
    fill(3)
    with tilekv.open("memory://away", "a", config=OFF) as db:
        away.clear()
        assert dict(db) == {i: value_of(i) for i in range(N)}
        whole = sum(map(len, away.files.values()))
        assert away.bytes < 2 * whole
        assert away.rounds <= 5 * len(away.files)
        db.consolidate(vacuum=True)
        assert len(db.fragments) == 1
        assert db.verify() == []
        assert dict(db) == {i: value_of(i) for i in range(N)}


def test_sixteen_threads(away: Elsewhere) -> None:
    fill(2)
    wrong: list[object] = []
    with tilekv.open("memory://away", config={"kv.cache_bytes": 64 << 10}) as db:

        def look(seed: int) -> None:
            rng = random.Random(seed)
            try:
                for _ in range(150):
                    key = rng.randrange(N)
                    if db[key] != value_of(key):
                        wrong.append(key)
                keys = [rng.randrange(N) for _ in range(500)]
                if db.get_many(keys) != [*map(value_of, keys)]:
                    wrong.append(keys)
            except BaseException as error:  # noqa: BLE001 - the test fails with it
                wrong.append(error)

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


LOOKS: dict[str, Callable[[tilekv.Store], object]] = {
    "get": lambda db: db[7],
    "get_many": lambda db: db.get_many([7, 8]),
    "read": lambda db: db.read([7]),
    "items": lambda db: [*db.items()],
    "get_range": lambda db: db.get_range(7, 0, 5),
}


@pytest.mark.parametrize("error", [OSError("away"), PermissionError(13, "no"), RuntimeError("?")])
@pytest.mark.parametrize("look", LOOKS)
def test_a_round_that_fails(away: Elsewhere, error: Exception, look: str) -> None:
    """It is raised as the storage raised it, and the next look-up is right."""
    fill(2, 3000)
    with tilekv.open("memory://away") as db:
        away.failures = [error] * 50
        with pytest.raises(type(error)) as caught:
            LOOKS[look](db)
        assert caught.value is error
        away.failures = []
        LOOKS[look](db)
        assert db[7] == value_of(7)


def test_ctrl_c_in_a_round(away: Elsewhere) -> None:
    fill(1, 3000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    try:
        with tilekv.open("memory://away") as db:
            away.failures = [KeyboardInterrupt()]
            with pytest.raises(KeyboardInterrupt):
                _ = [db.get(i) for i in range(5)]
            assert db[7] == value_of(7)
    finally:
        signal.signal(signal.SIGINT, before)
