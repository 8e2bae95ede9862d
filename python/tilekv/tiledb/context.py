"""TileDB's context, which every function of its two faces takes."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Mapping
from typing import Final, ParamSpec, TypeVar

from tilekv.config import Config
from tilekv.errors import InvalidValueError, TileKVError, WrongTypeError, shown

TileDBError = TileKVError  # by the name that TileDB's users catch

Uri = str | os.PathLike[str]

P = ParamSpec("P")
T = TypeVar("T")


class Ctx:
    """TileDB's context: the options of the handles that are made with it. In the C++ face it is called Context.

    Functions of the Python face take one as ``ctx=``, or anywhere among their positional arguments: TileDB-Py had it first,
    and later last.

    Parameters
    ----------
    config : Config or mapping, optional
        Options by dotted key, ours or TileDB's; see `Config`.

    Raises
    ------
    InvalidValueError, WrongTypeError
        For options that are refused; an unknown key is told the nearest one.
    """

    def __init__(self, config: Config | Mapping[str, object] | None = None) -> None:
        self._config = Config.of(config)

    def config(self) -> Config:
        """Return the options; changing what is returned does not change the context's."""
        return Config.of(self._config)

    def __repr__(self) -> str:
        ours = Config(self._config.dict("kv."))  # what has no effect may be a password
        changed = dict(ours.as_dict().items() - Config().as_dict().items())
        return f"Ctx({changed or ''})"


Context = Ctx
_DEFAULT: Final = Ctx()


def default_ctx() -> Ctx:
    """Return the context of calls that name none: its options are the defaults."""
    return _DEFAULT


def takes_ctx(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function with a parameter `ctx` take a context anywhere among its positional arguments."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        found = [at for at, arg in enumerate(args) if isinstance(arg, Ctx)]
        if not found:
            return function(*args, **kwargs)
        if len(found) > 1 or "ctx" in kwargs:
            raise WrongTypeError("the context is given twice")
        rest = args[: found[0]] + args[found[0] + 1 :]
        return function(*rest, **kwargs, ctx=args[found[0]])  # type: ignore[arg-type]

    return call


class EncryptionType(enum.IntEnum):
    """How a map is encrypted: TILEDB_NO_ENCRYPTION or, by TileDB 1.4 to 1.6 only, TILEDB_AES_256_GCM."""

    NO_ENCRYPTION = 0
    AES_256_GCM = 1


TILEDB_NO_ENCRYPTION: Final = EncryptionType.NO_ENCRYPTION
TILEDB_AES_256_GCM: Final = EncryptionType.AES_256_GCM


def takes_encryption(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function with a parameter `key` take three arguments of TileDB's C++ for it: encryption type, key, its length."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        at = next((n for n, arg in enumerate(args) if isinstance(arg, EncryptionType)), None)
        if at is None:
            return function(*args, **kwargs)
        kind, *secret = args[at : at + 3]
        if "key" in kwargs or len(secret) < 2:
            raise WrongTypeError(
                "after an encryption type come the key and its length, and no key="
            )
        key, length = secret
        if kind == TILEDB_NO_ENCRYPTION:
            key = None
        elif not isinstance(key, (bytes, str)) or len(key) != length:
            raise InvalidValueError(
                f"the key is bytes or a str of the length that is given, {shown(length)}"
            )
        return function(*args[:at], *args[at + 3 :], **kwargs, key=key)  # type: ignore[arg-type]

    return call


def checked_ctx(ctx: object) -> Ctx:
    """`ctx`, if it is a context."""
    if not isinstance(ctx, Ctx):
        raise WrongTypeError(f"a context is a tilekv.Ctx, not {type(ctx).__name__}")
    return ctx


def chosen_ctx(ctx: Ctx | None) -> Ctx:
    """`ctx`, or the default when it is None."""
    return default_ctx() if ctx is None else checked_ctx(ctx)
