"""The public calls of tilekv, and odd objects to make them with: whatever comes out must be an answer or an error of its kind.

A call may raise a TileKVError, an OSError of the system with its errno, MemoryError, Python's TypeError for a call that does not
fit the signature, and what the caller's own objects raise. What is a sequence raises as a list does. `complaint` tells of all
else.
"""

import contextlib
import datetime as dt
import decimal
import enum
import inspect
import io
import os
import random
import re
import uuid
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import numpy as np

import tilekv
from tilekv.cli.command import main as command

PEERS: Final = ("pandas", "polars", "pyarrow")


class Own(Exception):
    """What an object of the caller raises, whatever it is asked."""


class Raises:
    """An object that answers nothing."""

    def _raise(self, *args: object) -> Any:
        raise Own

    __len__ = __iter__ = __getitem__ = __index__ = __float__ = __eq__ = __hash__ = __bool__ = _raise
    __fspath__ = __str__ = __array__ = __arrow_c_stream__ = __call__ = keys = items = write = _raise


class Lies:
    """An object whose answers are of the wrong types."""

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[Any]:
        return iter((1, "a", None))

    def __getitem__(self, key: object) -> Any:
        return key

    def keys(self) -> Any:
        return 5

    def __fspath__(self) -> str:
        return "lies\0"

    def __arrow_c_array__(self, requested: object = None) -> Any:
        return 1, 2


class Text(str):
    """A subclass."""

    __slots__ = ()


class Keys(Mapping[Any, Any]):
    """A mapping that says what it was given, whatever it is."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.given)

    def __getitem__(self, key: object) -> Any:
        return b"1"


def peers_objects() -> list[Any]:
    """Those of pandas, polars and pyarrow, where they are installed."""
    if not all(map(find_spec, PEERS)):
        return []
    pd, pl, pa = map(import_module, PEERS)
    table = pa.table({"key": ["a", None], "value": [b"1", b"2"], "n": [1, 2]})
    return [
        pd.NA, pd.NaT, pd.Timestamp("2020"), pd.Timedelta(1), pd.Series([1, None]), pd.Series(["a", "b"]), pd.Index([1, 2]),
        pd.DataFrame({"value": [b"1"], "n": [1]}, index=["a"]), pd.DataFrame(), pd.Categorical(["a", None]), pd.array([1, None]),
        pd.MultiIndex.from_tuples([(1, 2)]), pd.Period("2020-01"), pd.Interval(0, 1), pd.DatetimeIndex(["2020"], tz="UTC"),
        pl.Series([1, None]), pl.DataFrame({"value": ["a"]}), pl.LazyFrame({"value": ["a"]}), pl.Series([[1], [2, 3]]), pl.Int8,
        table, table["key"], table.slice(1), table.schema, pa.array([1, None]), pa.array([{"a": 1}]), pa.scalar(1), pa.null(),
        pa.array([[1], None]), pa.array(["a", "b"]).dictionary_encode(), pa.py_buffer(b"a"), pa.array([None, None]), pa.int32(),
        pa.chunked_array([], pa.int8()), pa.struct([]),
    ]  # fmt: skip


def odd_objects() -> list[Any]:
    """New ones: some are used up, or change."""
    itself: list[Any] = []
    itself.append(itself)
    released = memoryview(b"gone")
    released.release()
    return [
        None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400,
        0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), 1j,
        "", "a", "value", "n", "key", "\0", "\ud83d", "\udcff", "\udcc3\udca9", "\u00e9", "a" * 300, "a/b", "..", ".",
        "r", "a", "w", "x", "mask", "64 MiB", "-1", "kv.threads", "int32", "<U3", "M8[ns]", "M8[x]", "O",
        "memory://", "memory://odd", "file://", "file:///dev/null/%ff", "hdfs://bucket", "http://a", Text("a"),
        b"", b"a", b"\0\xff", bytearray(b"a"), memoryview(b"abc"), memoryview(b"abcdef")[::2], released,
        memoryview(np.zeros((2, 2))), b"k" * 32,
        (), (1,), (1, 2), ("a", b"1"), ("a", b"1", 2), [], [1], ["a"], [None], [[]], [[1, 2], [3]], [b"1"], [("a", b"1")],
        {}, {"a": b"1"}, {1: 2}, {None: None}, {"value": b"1"}, {"n": 1, "t": "a"}, {"kv.threads": 1}, {"kv.threads": "x"},
        set(), {1}, frozenset((1,)), range(3), slice(None), ..., NotImplemented, int, str, bytes, float, object, type,
        object(), Exception("a"), Raises(), Lies(), iter(()), iter([1]), (x for x in "ab"), map(str, [1]), len,
        dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59), dt.date(2020, 1, 1), dt.timedelta(1), dt.UTC,  # noqa: DTZ001
        decimal.Decimal("0.1"), decimal.Decimal("NaN"), Fraction(1, 3), uuid.UUID(int=1),
        Path("a"), Path("a\0b"), io.BytesIO(b"a"), io.StringIO("a"),
        np.int8(1), np.uint64(2**64 - 1), np.float16(1), np.float32("nan"), np.longdouble(1) / 3, np.complex64(1), np.bool_(True),
        np.str_("a"), np.bytes_(b"a"), np.datetime64("NaT", "ms"), np.datetime64("2020-01-01", "ns"), np.timedelta64(1, "Y"),
        np.datetime64(2**62, "Y"), np.void(b"ab"), np.array(5), np.array([]), np.array([1, 2]), np.array(["a", "b"]),
        np.array([None, 1], object), np.zeros((2, 2)), np.zeros(2, [("a", "i4")]), np.ma.masked, np.ma.array([1, 2], mask=[0, 1]),
        np.array([1, 2], ">i4"), np.zeros(4)[::2], np.array(["2020"], "M8[D]"), np.dtype("int32"), np.dtype("O"), np.int32,
        tilekv.Key(0, b"abcd"), tilekv.Key(127, b""), tilekv.Attr("n", int), tilekv.Schema([tilekv.Attr("value", bytes)]),
        tilekv.ZstdFilter(), tilekv.FilterList(), tilekv.Ctx(), tilekv.Config(), tilekv.Store, tilekv.KVSchema, tilekv,
        10**5000, -(10**5000), itself, Keys(), Keys("a"), Keys(1), Keys(None, "a"), Keys("kv.threads"),
        *peers_objects(), b"a" * 5000, "\u0130" * 200,
        tilekv.KVSchema(attrs=[tilekv.Attr("a", bytes)]), tilekv.MapSchema(tilekv.Ctx()), tilekv.TILEDB_READ,
    ]  # fmt: skip


# Python's own methods, by how many arguments they take: it sees to that itself.
METHODS: Final = {
    "__getitem__": 1, "__setitem__": 2, "__delitem__": 1, "__contains__": 1, "__len__": 0, "__iter__": 0, "__next__": 0,
    "__eq__": 1, "__lt__": 1, "__bool__": 0, "__ior__": 1, "__or__": 1, "__repr__": 0, "__str__": 0, "__int__": 0,
    "__float__": 0, "__bytes__": 0, "__hash__": 0, "__copy__": 0, "__reduce__": 0, "__enter__": 0, "__exit__": 3,
    "__arrow_c_stream__": 0, "__arrow_c_array__": 0, "__arrow_c_schema__": 0,
}  # fmt: skip


COMMANDS: Final = (
    "import", "export", "ls", "get", "put", "rm", "info", "consolidate", "vacuum", "backup", "convert", "verify", "salvage",
    "--version",
)  # fmt: skip


class Public(NamedTuple):
    """A public call: its name, and what is called. Names begin with the class."""

    name: str
    call: Callable[..., Any]
    subject: Any  # whose method it is


def subjects() -> list[Any]:
    """Objects of every public class."""
    uris = [f"memory://{uuid.uuid4().hex}" for _ in range(6)]
    ctx = tilekv.Ctx()
    db = tilekv.open(uris[0], "a")
    db.put_many({"a": b"1", 2: b"2", b"c": b"3", 0.5: b""})
    db.flush()
    db["late"] = b"4"
    attrs = [tilekv.Attr("n", "int32"), tilekv.Attr("t", str), tilekv.Attr("v", float, var=True)]
    several = tilekv.open(uris[1], "a", schema=tilekv.Schema(attrs))
    several["a"] = (1, "x", [0.5])
    times = tilekv.open(uris[4], "a", schema=tilekv.Schema([tilekv.Attr("at", "M8[ms]", shape=2)]))
    brief = tilekv.open(uris[5], "a", expires=True)
    brief.put_many(["a", 2, b"c"], [b"1", b"2", b"3"], expire=[60, None, -1])
    brief.flush()
    brief.set("late", b"4", dt.timedelta(days=1))
    tilekv.KV.create(uris[2], tilekv.KVSchema(attrs=[tilekv.Attr("value", bytes)]))
    kv = tilekv.KV(uris[2])
    kv["a"] = "1"
    schema = tilekv.MapSchema(ctx).add_attribute(tilekv.Attribute.create(ctx, "n", int))
    tilekv.Map.create(uris[3], schema)
    map_ = tilekv.Map(ctx, uris[3])
    map_["a"] = 1
    closed = tilekv.open(uris[0])
    closed.close()
    batch = db.read(["a", 2])
    return [
        db, several, times, brief, closed, tilekv.open(uris[0]), kv, map_, map_["a"], map_.get_item("b"), tilekv.MapIter(map_),
        schema, batch, batch["value"], several.read(["a"]), db.scan(), iter(db), db.keys(), db.items(), db.values(), kv.items(),
        db.schema, db.schema.attrs[0], kv.schema, ctx, ctx.config(), tilekv.Key(1, b"a"), tilekv.GzipFilter(5), db.info(),
        tilekv.FilterList([tilekv.ZstdFilter()]), tilekv.ObjectIter(ctx, "memory://"), tilekv.Object.object(ctx, uris[0]),
    ]  # fmt: skip


def public_calls(made: Sequence[Any]) -> list[Public]:
    """Every public call: of the module, of objects of its classes, and the command line."""
    found = [Public("main", lambda *args: command(_words(args)), None)]
    for name in tilekv.__all__:
        public = getattr(tilekv, name)
        if not callable(public) or _is_pythons(public):
            continue
        found.append(Public(name, public, None))
        if isinstance(public, type):
            found += [
                Public(f"{name}.{word}", getattr(public, word), public)
                for word, each in vars(public).items()
                if not word.startswith("_") and isinstance(each, (staticmethod, classmethod))
            ]
    for subject in made:
        for word in dir(subject):
            name = f"{type(subject).__name__}.{word}"
            member = getattr(type(subject), word, None)
            if word.startswith("_") and word not in METHODS:
                continue
            if callable(member) and not _is_pythons(member):
                found.append(Public(name, getattr(subject, word), subject))
            elif isinstance(member, property) or inspect.isgetsetdescriptor(member):
                found.append(Public(name, _reading(subject, word), subject))
    return found


def _words(args: Sequence[Any]) -> list[str]:
    return [each if isinstance(each, str) else _shown(each) for each in args]


def _is_pythons(public: object) -> bool:
    """Whether a call is not ours: of an enumeration, or of a class of exceptions or of what a module only names."""
    return isinstance(public, type) and issubclass(public, (enum.Enum, Exception))


def _reading(subject: Any, word: str) -> Callable[[], Any]:
    return lambda: getattr(subject, word)


def fitting_objects(made: Sequence[Any]) -> dict[str, list[Any]]:
    """By parameter, what a call takes, so that what is odd beside it gets far."""
    stores = [each for each in made if isinstance(each, tilekv.Store) and not each.closed]
    uris = [each.uri for each in stores]
    attr = tilekv.Attr("x", "float32")
    schema = tilekv.Schema([attr])
    filters = [[], tilekv.ZstdFilter(), [tilekv.ByteShuffleFilter(), tilekv.GzipFilter()]]
    fresh = f"memory://{uuid.uuid4().hex}"
    keys = [["a", 2], np.array(["a", "b"]), np.arange(2), [], [np.int8(1), b"c"]]
    three = {"n": [1, 2], "t": ["x", "y"], "v": [[0.5], []]}
    return {
        "attr": [attr, "n", "value"], "attribute": ["n"], "attributes": [["n"]], "attrs": [[attr], ["n"], ["value"], None],
        "capacity": [2, 1000], "chunksize": [100], "columns": [{"value": [b"1", b"2"]}, three], "compressor": [("zstd", 2)],
        "config": [{"kv.threads": 1}, tilekv.Config(mmap=False)], "ctx": [tilekv.Ctx(), None], "data": [b"abcd"],
        "deletes": [["a", 2], []], "expire": [60, None, [60, None], dt.timedelta(1), np.array([1, 2])],
        "expires": [True, {"a": 60}, {2: None}, None],
        "digest": ["md5"], "discard": [True], "dtype": [bytes, str, "int32", "M8[s]"], "encoding": ["utf-8", None],
        "file": [io.StringIO()], "filter": [tilekv.LZ4Filter()], "filters": filters, "func": [lambda *args: None],
        "item": [each for each in made if isinstance(each, tilekv.MapItem)], "items": [{"a": b"1"}, {"a": (1, "x", [])}],
        "key": ["a", 2, b"c", None], "keys": keys, "key_filters": filters, "level": [1], "missing": ["mask"],
        "map": [each for each in made if isinstance(each, tilekv.Map)],
        "mode": ["r", "a", "x"], "n": [1], "name": ["n", "y"], "new": [fresh], "new_uri": [fresh], "offsets_filters": filters,
        "old": uris, "old_uri": uris, "params": [{"kv.sync": False}], "path": uris, "prefix": ["kv."], "progress": [None],
        "puts": [{"a": b"1"}, [("a", b"1"), (2, b"")], ()],
        "query_type": [tilekv.TILEDB_READ, None], "root": uris, "rows": [1], "shape": [2, (2, 3), None],
        "schema": [schema, tilekv.KVSchema(attrs=[attr]), None], "timestamp": [5, (0, 2**62), dt.datetime.now(dt.UTC), None],
        "type": [str, int, 4], "uri": [*uris, fresh], "value": [1, b"1", (1, "x", [0.5]), "a"], "var": [True, False],
        "values": [[b"1", b"2"], np.array([1, 2]), [(1, "x", []), (2, "y", [1.0])]], "vacuum": [True], "which": [0, "n"],
    }  # fmt: skip


def held(rng: random.Random, odd: Sequence[Any]) -> Any:
    """A container of odd objects, or of an odd one beside what is none."""
    one, other = rng.choices(odd, k=2)
    makers: Sequence[Callable[[], Any]] = (
        lambda: [one],
        lambda: (one, other),
        lambda: ["a", one],
        lambda: [(one, b"1"), ("a", other)],
        lambda: iter([one, other]),
        lambda: {"value": one},
        lambda: {"n": one, "t": other, "v": [0.5]},
        lambda: (1, "x", one),
        lambda: {"n": [1, one], "t": ["x", "y"], "v": other},
        lambda: {one: other},
        lambda: np.array([one, None], object),
        lambda: slice(one, other),
        lambda: Keys(one, other),
    )
    try:
        return rng.choice(makers)()
    except Exception:  # noqa: BLE001 - no dict can have an array
        return [one, other]


# The parameters of Python's own methods, as far as something fits them.
NAMED: Final = {"__getitem__": ["key"], "__setitem__": ["key", "value"], "__delitem__": ["key"]}


def arguments(
    rng: random.Random, public: Public, odd: list[Any], fitting: dict[str, list[Any]]
) -> tuple[list[Any], dict[str, Any]]:
    """Odd ones and fitting ones, as many as the call takes, or seldom any number."""

    def choice(name: str) -> Any:
        if name in fitting and rng.random() < 0.6:
            return rng.choice(fitting[name])
        return rng.choice(odd) if rng.random() < 0.7 else held(rng, odd)

    word = public.name.rpartition(".")[2]
    if word == "main":
        return [rng.choice(COMMANDS), *rng.choices(odd, k=rng.randrange(4))], {}
    if word in METHODS:
        names = NAMED.get(word, [])
        return [choice(name) for name in names] or rng.choices(odd, k=METHODS[word]), {}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    try:
        parameters = list(inspect.signature(public.call).parameters.values())
    except (TypeError, ValueError):
        return rng.choices(odd, k=rng.randrange(4)), {}
    for each in parameters:
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            if each.default is not each.empty and rng.random() < 0.5:
                break
            args.append(choice(each.name))
        elif each.kind is each.VAR_POSITIONAL:
            args += rng.choices(odd, k=rng.randrange(4))
        elif each.kind is each.KEYWORD_ONLY and rng.random() < 0.4:
            kwargs[each.name] = choice(each.name)
        elif each.kind is each.VAR_KEYWORD and rng.random() < 0.4:
            kwargs[rng.choice(("ctx", "key", "value", "n", "t"))] = rng.choice(odd)
    if rng.random() < 0.05:
        args = rng.choices(odd, k=rng.randrange(4))
    return args, kwargs


def complaint(public: Public, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """What is wrong with what a call raises; None when nothing is."""
    sink = io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")  # as sys.stderr is
    given = mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(b"given")))
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), given:
            made = public.call(*args, **kwargs)
            if isinstance(made, Iterator):
                for _ in made:
                    pass
    except tilekv.TileKVError as error:
        private = re.search(r"(?<!\w)_\w+\(", str(error))
        return f"{error} names what is private" if private else None
    except (Own, MemoryError, SystemExit):
        return None
    except StopIteration as error:
        return None if public.name.endswith(".__next__") else repr(error)
    except OSError as error:
        return None if error.errno else f"{error!r}, without errno"
    except Exception as error:  # noqa: BLE001 - that is the question
        if (
            (isinstance(error, TypeError) and _is_of_signature(public, args, kwargs, str(error)))
            or _is_of_a_list(public, args, error)
            or any(_is_own(each, error) for each in (*args, *kwargs.values()))
        ):
            return None
        return repr(error)
    return None


def _is_of_signature(
    public: Public, args: Sequence[Any], kwargs: dict[str, Any], message: str
) -> bool:
    """Whether a TypeError is what Python says of a call that does not fit: the message names nothing that is private."""
    if re.match(r"cannot create '[\w.]+' instances|Can't instantiate abstract class", message):
        return True
    word = public.name.rpartition(".")[2]
    if re.match(rf"([\w.]+\.)?({word}|__init__)\(\) (missing|takes|got)", message):
        return True
    try:
        inspect.signature(public.call).bind(*args, **kwargs)
    except TypeError:
        return True
    except ValueError:  # no signature is known
        return " takes " in message
    return False


def _is_of_a_list(public: Public, args: Sequence[Any], error: Exception) -> bool:
    """Whether the same method of a list or a set raises such an error: what Python's abstract classes add is as it is there."""
    word = public.name.rpartition(".")[2]
    if isinstance(public.subject, tilekv.MapItem):  # compares and converts as its value does
        return word in ("__int__", "__float__", "__str__", "__eq__", "__lt__")
    if word == "__or__" and isinstance(public.subject, ItemsView):
        try:
            set(public.subject)
        except TypeError:  # nor are a dict's items with such values
            return isinstance(error, TypeError)
    like: Any = None
    if isinstance(public.subject, (Sequence, ValuesView, tilekv.VarColumn)):
        like = list(public.subject)
    elif word in ("isdisjoint", "__or__"):
        like, word = set(), word.replace("__or__", "union")
    method = getattr(like, word, None)
    if method is None or like is None:
        return False
    try:
        method(*args)
    except Exception as other:  # noqa: BLE001
        return isinstance(error, (type(other), TypeError)) or _is_inherited(public.call)
    return False


def _is_inherited(call: Callable[..., Any]) -> bool:
    return getattr(call, "__module__", None) in ("collections.abc", "_collections_abc")


def _is_own(given: Any, error: Exception) -> bool:
    """Whether an argument raises this by itself, when it is iterated, asked for its keys, written to, called or taken
    for a dtype."""
    uses: tuple[Callable[[], Any], ...] = (
        lambda: list(given),
        lambda: list(given.keys()),
        lambda: given.write(""),
        lambda: given(1, 2),
        lambda: np.dtype(given),  # which warns of names that NumPy gives up
    )
    for use in uses[isinstance(given, Iterator) :]:
        try:
            use()
        except Exception as own:  # noqa: BLE001
            if isinstance(own, type(error)) and str(own) == str(error):
                return True
    return False


def exercised(seed: int, rounds: int) -> tuple[int, list[str]]:
    """Make every public call `rounds` times, in any order; tell how many calls that were, and the complaints."""
    rng = random.Random(seed)
    place = Path.cwd()
    n = 0
    found: dict[tuple[str, str], str] = {}
    for _ in range(rounds):
        place.mkdir(parents=True, exist_ok=True)  # a call may have moved it
        os.chdir(place)
        made = subjects()
        every, fitting = public_calls(made), fitting_objects(made)
        rng.shuffle(every)
        for done, public in enumerate(every):
            if done % 50 == 0:
                odd = odd_objects()
            args, kwargs = arguments(rng, public, odd, fitting)
            n += 1
            wrong = complaint(public, args, kwargs)
            if wrong is not None:
                given = [_shown(each) for each in args]
                given += [f"{name}={_shown(each)}" for name, each in kwargs.items()]
                line = f"{public.name}({', '.join(given)}): {wrong}"
                found.setdefault((public.name, wrong.partition("(")[0]), line)
        for each in made:
            if isinstance(each, (tilekv.Store, tilekv.KV, tilekv.Map)):
                each.close(discard=True)
    return n, sorted(found.values())


def _shown(given: Any) -> str:
    try:
        return repr(given)[:200]
    except Exception:  # noqa: BLE001
        return f"<{type(given).__name__}>"
