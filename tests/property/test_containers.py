"""Values and keys arrive exactly, or are refused: through every container, whatever their types are, and in all that reads."""

import contextlib
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import containers
import exactness
import tilekv
from containers import Made
from odd_values import attribute, column, key_column, sides
from samples import NIGHTLY, SEED
from tilekv import Attr, Schema, Store, TileKVError

EXAMPLES = 20_000 if NIGHTLY else 250
# Of pandas' containers those that show themselves as Arrow.
PANDAS_ARROW = ("pd arrow", "pd nullable", "pd nullable Index", "pd categories")
NOT_OF_PANDAS = (np.datetime64, np.timedelta64, np.bool_)
WAYS = 4  # containers of one example

Put = Callable[[Store], None]


def ways_in(keys: tuple[str, Any], values: tuple[str, Any]) -> dict[str, Put]:
    """How keys and values in containers come into a store."""
    k, v = keys[1], values[1]
    found: dict[str, Put] = {
        "put_many": lambda db: db.put_many(k, v),
        "column": lambda db: db.put_many(k, v=v),
        "dict of columns": lambda db: db.put_many({"k": k, "v": v}, key="k"),
    }
    library = keys[0][:3]
    if makes_objects(*keys) and makes_objects(*values):
        found["pairs"] = lambda db: db.put_many(zip(k, v, strict=True))
    if library != values[0][:3]:
        return found
    if library == "pd ":
        # Each by its own type: of other arrays of objects pandas makes times.
        both = {"k": k, "v": v}.items()
        frame = pd.DataFrame({at: pd.Series(np_of(each), dtype=each.dtype) for at, each in both})
        found["DataFrame"] = lambda db: db.put_many(frame, key="k")
    elif library == "pl ":
        table = pl.DataFrame({"k": k, "v": v})
        found["pl.DataFrame"] = lambda db: db.put_many(table, key="k")
        found["LazyFrame"] = lambda db: db.put_many(table.lazy(), key="k")
    elif library == "pa ":
        rows = pa.table({"k": k, "v": v})
        found["table"] = lambda db: db.put_many(rows, key="k")
        found["reader"] = lambda db: db.put_many(rows.to_reader(2), key="k")
    return found


def makes_objects(name: str, column: Any) -> bool:
    """Whether what a container gives one by one is what it holds. Python has no name for some of pandas' times."""
    try:
        return name[:3] in ("py ", "np ") or (name[:3] == "pd " and bool(list(column)))
    except (OverflowError, ValueError):
        return False


def np_of(column: Any) -> Any:
    """Of a pandas column what a Series is made of, without its index."""
    if column.dtype == object:
        return column.to_numpy()
    return getattr(column, "array", column)


def bits(value: Any, attr: Attr) -> bytes:
    """Of a value that was read, whose type must be the one that the attribute gives."""
    if attr.type_name in ("str", "bytes"):
        assert type(value) is (str if attr.type_name == "str" else bytes)
        return value if isinstance(value, bytes) else value.encode()
    if isinstance(value, (np.ndarray, np.generic)):
        assert value.dtype == attr.dtype
        return value.tobytes()
    assert type(value) is {"i": int, "u": int, "f": float, "b": bool}[attr.dtype.kind]
    return np.array(value, attr.dtype).tobytes()


def elements(column: Any) -> Any:
    return column if isinstance(column, np.ndarray) else column.to_list()


def readings(db: Store, keys: list[Any], attr: Attr) -> Iterator[tuple[str, list[bytes]]]:
    """Every way to read the keys that there are, in their order."""
    yield "read", [bits(value, attr) for value in elements(db.read(keys)["v"])]
    yield "get", [bits(db.get(key), attr) for key in keys]
    yield "get_many", [bits(value, attr) for value in db.get_many(keys)]
    place = {exactness.identity(key): i for i, key in enumerate(keys)}
    pairs = {"items": list(db.items()), "scan": []}
    for rows in db.scan(rows=3):
        pairs["scan"] += zip(rows.keys, elements(rows["v"]), strict=True)
    for way, found in pairs.items():
        assert len(found) == len(keys), way
        ordered = sorted(found, key=lambda pair: place[exactness.identity(pair[0])])
        yield way, [bits(value, attr) for _, value in ordered]


def right(found: list[bytes], wanted: list[set[bytes]], attr: Attr) -> bool:
    for given, each in zip(found, wanted, strict=True):
        if each is exactness.NAN:
            if not np.isnan(np.frombuffer(given, attr.dtype)).any():
                return False
        elif given not in each:
            return False
    return True


def create(attr: Attr) -> Store:
    return tilekv.open(f"memory://{uuid.uuid4()}", "x", schema=Schema([attr]))


def refusal(put: Put, db: Store) -> TileKVError | None:
    """Of a store with nothing in it, which has nothing after it either."""
    try:
        put(db)
    except TileKVError as error:
        assert list(db) == []
        return error
    return None


def companion(pick: random.Random, made: Made, name: str) -> str:
    """A container for the other column: mostly of the same library."""
    alike = [each for each in sorted(made) if each[:3] == name[:3]]
    return pick.choice(alike if alike and pick.random() < 0.7 else sorted(made))


def check_values(pick: random.Random) -> tuple[int, int]:
    attr = attribute(pick)
    n = pick.choice([1, 2, 3, 8])
    made, values, own = column(pick, attr, n)
    made.pop("py no dimension", None)  # is refused as a value
    dtype = {"str": str, "bytes": bytes}.get(attr.type_name) or attr.dtype
    wanted = exactness.cells(values, dtype, sides(attr))
    keys: list[Any] = list(range(n))
    keys_made = containers.of_array(np.arange(n))
    if pick.random() < 0.5:
        keys = [f"k{i}" for i in range(n)]
        keys_made = containers.of_texts(keys)
    arrived = refused = 0
    for name in pick.sample(sorted(made), min(WAYS, len(made))):
        key_name = companion(pick, keys_made, name)

        def fresh(name: str = name, key_name: str = key_name) -> dict[str, Put]:
            return ways_in((key_name, keys_made[key_name]()), (name, made[name]()))

        way = pick.choice(sorted(fresh()))
        expected = wanted
        if (name[:2] in ("pa", "pl") or name in PANDAS_ARROW) and not all(wanted):
            expected = exactness.counts(values, dtype)
        with (
            noted(f"{way}: keys {key_name}, values {name}: {values!r} into {attr!r}"),
            create(attr) as db,
        ):
            error = refusal(fresh()[way], db)
            if error:
                assert not (own and all(wanted) and plain(name, values)), f"refused: {error}"
                refused += 1
                continue
            assert all(expected), f"taken as {db.get_many(keys)}"
            for where in ("buffered", "flushed"):
                for reading, found in readings(db, keys, attr):
                    said = f"{reading}, {where}: {found}, not {expected}"
                    assert right(found, expected, attr), said
                db.flush()
            arrived += 1
    return arrived, refused


def plain(name: str, values: list[Any]) -> bool:
    """Whether nothing in a container is a null there."""
    arrow = name[:3] in ("pa ", "pl ") or name in ("py Arrow", "py polars")
    nulls = pd.isna if name.startswith("pd ") else no_time if arrow else lambda _: False
    return not any(nulls(each) for value in values for each in exactness.flat(value))


def no_time(value: Any) -> bool:
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))


def check_keys(pick: random.Random) -> tuple[int, int]:
    n = pick.choice([1, 2, 3, 8])
    made, keys = key_column(pick, n)
    wanted = {exactness.identity(key): i for i, key in enumerate(keys)}  # the last of equal ones
    legal = None not in wanted
    values_made = containers.of_array(np.arange(n))
    values_made.pop("py no dimension")  # is refused as a value
    arrived = refused = 0
    for name in pick.sample(sorted(made), min(WAYS, len(made))):
        value_name = companion(pick, values_made, name)

        def fresh(name: str = name, value_name: str = value_name) -> dict[str, Put]:
            found = ways_in((name, made[name]()), (value_name, values_made[value_name]()))
            if name[:3] == "pd " and isinstance(keys[0], NOT_OF_PANDAS):
                found.pop("pairs", None)  # of which pandas makes objects that are no keys
            return found

        way = pick.choice(sorted(fresh()))
        other = pick.choice(sorted(made))
        with (
            noted(f"{way}: keys {name}, asked {other}, values {value_name}: {keys!r}"),
            create(Attr("v", "int64")) as db,
        ):
            error = refusal(fresh()[way], db)
            if error:
                assert not (legal and plain(name, keys)), f"refused: {error}"
                refused += 1
                continue
            assert legal, f"taken as {list(db)}"
            for _where in ("buffered", "flushed"):
                check_found(db, keys, wanted, made[other] if plain(other, keys) else None)
                db.flush()
            if plain(other, keys):
                db.delete_many(made[other]())
                assert list(db) == []
            arrived += 1
    return arrived, refused


def check_found(
    db: Store, keys: list[Any], wanted: dict[Any, int], asked: Callable[[], Any] | None
) -> None:
    newest = [wanted[exactness.identity(key)] for key in keys]
    scanned = []
    for rows in db.scan(rows=3):
        scanned += zip(rows.keys, rows["v"].tolist(), strict=True)
    assert len(db) == len(scanned) == len(wanted)
    assert {exactness.identity(key): value for key, value in scanned} == wanted
    assert {exactness.identity(key): value for key, value in db.items()} == wanted
    assert [db.get(key) for key in keys] == newest
    assert all(key in db for key in db)
    if asked:
        assert db.get_many(asked()) == newest
        assert db.read(asked())["v"].tolist() == newest
        assert db.read(asked(), missing="mask").found.all()


def test_keys(tally: Callable[..., None]) -> None:
    run(check_keys, "keys", tally)


def test_values(tally: Callable[..., None]) -> None:
    run(check_values, "values", tally)


def run(
    check: Callable[[random.Random], tuple[int, int]], what: str, tally: Callable[..., None]
) -> None:
    arrived = refused = 0
    for i in range(EXAMPLES):
        with noted(f"TILEKV_SEED={SEED}, example {i} of {what} in containers"):
            some_arrived, some_refused = check(random.Random(f"{SEED} {what} {i}"))
        arrived += some_arrived
        refused += some_refused
    assert arrived > EXAMPLES
    assert refused > EXAMPLES // 25
    tally(f"columns of {what} arrived (TILEKV_SEED={SEED})", arrived)
    tally(f"columns of {what} refused", refused)


@contextlib.contextmanager
def noted(note: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(note)
        raise
