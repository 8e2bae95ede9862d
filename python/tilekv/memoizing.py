"""`tilekv.memoize`: what a function has returned, kept in a store."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import hashlib
import inspect
import os
import threading
import time
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, ParamSpec, TypeVar

import numpy as np

from tilekv.arguments import NO_VALUE, whole
from tilekv.culling import CULL_S, cull
from tilekv.errors import InvalidValueError, ReadOnlyError, WrongTypeError, shown
from tilekv.expiry import moment
from tilekv.store import Store

P = ParamSpec("P")
R = TypeVar("R")

SHARE_S: Final = 1.0  # between two looks at what other processes have computed


def memoize(
    store: Store,
    *,
    expire: float | dt.timedelta | None = None,
    max_bytes: int | None = None,
    name: str | None = None,
    key: Callable[..., str] | None = None,
    dumps: Callable[[Any], Any] | None = None,
    loads: Callable[[Any], Any] | None = None,
) -> Callable[[Callable[P, R]], Memoized[P, R]]:
    """A decorator: a function's results are kept in a store, by its arguments, for this process and others.

    Nothing is pickled: a result is what an attribute of the store holds, or what `dumps` makes such of, as ``json.dumps`` does;
    and an entry's key is made of a digest of the arguments, which are numbers, text, bytes, times, NumPy's arrays, and tuples,
    lists, sets and dicts of these.

    A result that is not found is computed. Before, what other processes have flushed is looked at, and what this one has computed
    is flushed, if the last time was a second ago. Two that miss at once both compute.

    Parameters
    ----------
    store : Store
        An open handle, of mode "a", which stays its owner's.
    expire : float or datetime.timedelta, optional
        After which a result is computed anew, of a store that keeps moments of expiry.
    max_bytes : int, optional
        Of the store on disk: with more, its upkeep deletes the entries that expire next, and merges what is left, in its thread:
        no call waits for that. It takes `expire`. With ``kv.upkeep`` off only `Memoized.cull` does it.
    name : str, optional
        How the entries' keys begin; the function's module and name unless given. Another one forgets what was computed.
    key : callable, optional
        Makes a str of the arguments, in place of their digest.
    dumps, loads : callable, optional
        What is stored of a result, and the result again.

    Returns
    -------
    callable
        Makes a `Memoized` of a function.

    Raises
    ------
    InvalidValueError
        When the store keeps no moments of expiry, and `expire` or `max_bytes` is given.
    WrongTypeError, ReadOnlyError, OutOfRangeError
        For arguments that are refused.
    """
    if not isinstance(store, Store):
        raise WrongTypeError(f"store is an open tilekv.Store, not {type(store).__name__}")
    if store.mode == "r":
        raise ReadOnlyError("this store is open for reading only: open it with mode 'a'")
    if expire is not None and not isinstance(expire, (int, float, dt.timedelta)):
        raise WrongTypeError(
            f"expire is a number of seconds or a timedelta, not {type(expire).__name__}"
        )
    moment(expire, 0)
    if max_bytes is not None and (whole("max_bytes", max_bytes) < 1 or expire is None):
        raise InvalidValueError(
            "max_bytes is at least 1, and takes expire: what expires next is what goes first"
        )
    if expire is not None and not store.schema.expires:
        raise InvalidValueError(f"{store.uri} keeps no moments of expiry").advised(
            "tilekv.open(..., 'x', expires=True) makes a store that does",
            "convert --expires makes a store that does",
        )
    if name is not None and not isinstance(name, str):
        raise WrongTypeError(f"name is a str, not {type(name).__name__}")
    for what, call in (("key", key), ("dumps", dumps), ("loads", loads)):
        if call is not None and not callable(call):
            raise WrongTypeError(f"{what} is a function, not {type(call).__name__}")

    def decorate(function: Callable[P, R]) -> Memoized[P, R]:
        given: Any = function
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise WrongTypeError(
                f"memoize is for functions that return a result, not for {shown(function)}"
            )
        return Memoized(function, _Choices(store, expire, max_bytes, name, key, dumps, loads))

    return decorate


class _Choices(NamedTuple):
    """What `memoize` was given."""

    store: Store
    expire: float | dt.timedelta | None
    max_bytes: int | None
    name: str | None
    key: Callable[..., str] | None
    dumps: Callable[[Any], Any] | None
    loads: Callable[[Any], Any] | None


class Memoized(Generic[P, R]):
    """A function whose results are kept. Made by `memoize`; ``__wrapped__`` is the function itself.

    Attributes
    ----------
    store : Store
    hits, misses : int
        How often a result was found, and computed, by this process.
    """

    def __init__(self, function: Callable[P, R], choices: object) -> None:
        if not isinstance(choices, _Choices):
            raise WrongTypeError("a Memoized is made by tilekv.memoize")
        functools.update_wrapper(self, function)
        self.store = choices.store
        self.hits = self.misses = 0
        self._function = function
        self._choices = choices
        self._signature = None if choices.key is not None else _signature(function)
        module = getattr(function, "__module__", "")
        qualified = getattr(function, "__qualname__", type(function).__name__)
        self._name = f"{module}.{qualified}" if choices.name is None else choices.name
        self._sharing = threading.Lock()
        self._shared = time.monotonic()
        if choices.max_bytes is not None and choices.store._keeper is not None:
            most = choices.max_bytes
            choices.store._keeper.also(CULL_S, lambda store, check: cull(store, most, check))

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        """The result for these arguments: the one that is kept, or else computed now."""
        key = self.key(*arguments, **named)
        found = self.store.get(key, NO_VALUE)
        if found is NO_VALUE and self._share():
            found = self.store.get(key, NO_VALUE)
        if found is not NO_VALUE:
            self.hits += 1
            result: R = found if self._choices.loads is None else self._choices.loads(found)
            return result
        self.misses += 1
        computed = self._function(*arguments, **named)
        value = computed if self._choices.dumps is None else self._choices.dumps(computed)
        if self._choices.expire is None:
            self.store[key] = value
        else:
            self.store.set(key, value, self._choices.expire)
        return computed

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Of a class that has it as a method: bound to its instance, which is the first argument."""
        return self if instance is None else types.MethodType(self, instance)

    def key(self, *arguments: P.args, **named: P.kwargs) -> str:
        """The key of the entry for these arguments, however they are given: by place, by name, or by default.

        Raises
        ------
        WrongTypeError
            For an argument that no digest is made of: give `memoize` a `key`.
        """
        if self._signature is None:
            assert self._choices.key is not None
            return f"{self._name}({self._choices.key(*arguments, **named)})"
        given = self._signature.bind(*arguments, **named)
        given.apply_defaults()
        digest = hashlib.blake2b(digest_size=16)
        for name, value in given.arguments.items():
            try:
                digest.update(_encoded(name) + _encoded(value))
            except _Unencodable as error:
                raise WrongTypeError(
                    f"argument {name!r} of {self._name} has a {error}, of which no digest is made: give memoize a key="
                ) from None
        return f"{self._name}({digest.hexdigest()})"

    def forget(self, *arguments: P.args, **named: P.kwargs) -> None:
        """Delete the result for these arguments; one that is not there is fine."""
        self.store.delete_many([self.key(*arguments, **named)])

    def cull(self) -> int:
        """Delete the entries of the store that expire next, as many as bring it within `max_bytes`, and merge what is left.

        Returns
        -------
        int
            How many were deleted: 0 where it is within, or without a bound.
        """
        if self._choices.max_bytes is None:
            return 0
        with self.store._alone():
            self.store.flush()
            return cull(self.store, self._choices.max_bytes, lambda *progress: None)

    def _share(self) -> bool:
        """Whether, since the last time was long enough ago, other processes were shown what is new, and theirs was looked at."""
        now = time.monotonic()
        if now - self._shared < SHARE_S or not self._sharing.acquire(blocking=False):
            return False
        try:
            self._shared = now
            self.store.flush()
            self.store.reopen()
        finally:
            self._sharing.release()
        return True


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise WrongTypeError(
            f"{shown(function)} does not tell which arguments it takes: give memoize a key="
        ) from None


class _Unencodable(Exception):
    """Of the type that the message says."""


def _framed(kind: bytes, *parts: bytes) -> bytes:
    """Bytes that no other parts, and none of another kind, make."""
    return b"".join([kind, b"%d:" % len(parts), *(b"%d:" % len(part) + part for part in parts)])


def _encoded(value: Any) -> bytes:
    """Bytes that are equal for equal values of one type, in every process."""
    made = _ENCODERS.get(type(value))
    if made is not None:
        return made(value)
    if isinstance(value, enum.Enum):
        kind = type(value)
        return _framed(b"E", f"{kind.__module__}.{kind.__qualname__}.{value.name}".encode())
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcmMSU":
        array = np.ascontiguousarray(value)
        shape = ",".join(map(str, np.shape(value)))
        return _framed(b"A", array.dtype.str.encode(), shape.encode(), array.tobytes())
    if isinstance(value, os.PathLike):
        return _framed(b"P", os.fsencode(value))
    raise _Unencodable(type(value).__name__)


def _text(value: str) -> bytes:
    return _framed(b"s", value.encode("utf-8", "surrogatepass"))


def _shown(kind: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(kind, repr(value).encode())


def _items(kind: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(kind, *map(_encoded, value))


def _unordered(kind: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(kind, *sorted(map(_encoded, value)))


def _mapping(value: Mapping[Any, Any]) -> bytes:
    pairs = sorted((_encoded(name), _encoded(each)) for name, each in value.items())
    return _framed(b"d", *(part for pair in pairs for part in pair))


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: b"N",
    type(Ellipsis): lambda value: b"e",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: _framed(b"i", hex(value).encode()),
    float: lambda value: _framed(b"f", value.hex().encode()),
    complex: _shown(b"c"),
    str: _text,
    bytes: lambda value: _framed(b"b", value),
    bytearray: lambda value: _framed(b"B", bytes(value)),
    tuple: _items(b"t"),
    list: _items(b"l"),
    set: _unordered(b"S"),
    frozenset: _unordered(b"Z"),
    dict: _mapping,
    range: _shown(b"r"),
    slice: _shown(b"/"),
    dt.date: _shown(b"D"),
    dt.time: _shown(b"h"),
    dt.datetime: lambda value: _framed(b"M", value.isoformat().encode(), b"%d" % value.fold),
    dt.timedelta: _shown(b"m"),
    decimal.Decimal: _shown(b"C"),
    uuid.UUID: lambda value: _framed(b"U", value.bytes),
}
