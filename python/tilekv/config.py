"""The options of a handle, checked once and then fixed."""

from __future__ import annotations

import difflib
import operator
import os
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field, fields
from typing import Any, Final, SupportsIndex

from tilekv.errors import InvalidValueError, WrongTypeError
from tilekv.tiledb_config import TILEDB_KEYS

_PREFIX: Final = "kv."
_UNITS: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}


def _whole(default: int, least: int, most: int, *, size: bool = False) -> int:
    """A field that is a whole number; `size`: counts bytes, so that strings may name a unit."""
    meta = {"least": least, "most": most, "size": size}
    number: int = field(default=default, metadata=meta)
    return number


@dataclass(frozen=True)
class Config:
    """The options of one handle. Frozen: a plain dict is what changes, and any `config` argument takes one.

    Parameters
    ----------
    source : mapping or Config, optional
        Options by dotted key, ``kv.`` and an attribute's name, or TileDB's key where it means the same:
        sm.tile_cache_size (kv.cache_bytes), sm.num_tbb_threads and sm.compute_concurrency_level
        (kv.threads), sm.consolidation.max_fragment_size (kv.max_fragment_bytes). Values are ints and bools,
        or strings of them: ``"64 MiB"`` (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB) for bytes, ``"true"``
        and ``"false"``. They win over keyword arguments, which are the attributes.

    Attributes
    ----------
    buffer_bytes : int
        ``kv.buffer_bytes``: a write buffer of more bytes than this flushes itself. 256 MiB.
    cache_bytes : int
        ``kv.cache_bytes``: most bytes of decoded chunks that are kept. 256 MiB; 0 keeps none. Up to half
        of it goes to a table of positions, 16 bytes a key, once a sixteenth of the keys was asked for:
        below 32 bytes a key, lookups search each fragment instead.
    max_fragment_bytes : int
        ``kv.max_fragment_bytes``: a consolidation splits what would be larger. 16 GiB.
    threads : int
        ``kv.threads``: most threads of one operation; 0, the default, is one for each core that
        the process may use.
    sync : bool
        ``kv.sync``: a flush returns when its data is durable. True; False syncs nothing, for speed:
        the death of the process loses nothing that was flushed, a crash of the machine may lose or
        damage whatever was written lately, and what that replaced if it was vacuumed.
    mmap : bool
        ``kv.mmap``: read through memory maps. True; False reads with pread, for network file
        systems.
    max_mapped_fragments : int
        ``kv.max_mapped_fragments``: with more fragments than this, files are opened when they are
        first used. 1000.

    Raises
    ------
    WrongTypeError
        For a source that is no mapping, keys that are not str and values of a wrong type.
    InvalidValueError
        For an unknown key (the message names the nearest one), two keys that set the same option,
        and values out of range.
    """

    source: InitVar[Config | Mapping[str, object] | None] = None
    _: KW_ONLY
    buffer_bytes: int = _whole(256 << 20, 1, 1 << 50, size=True)
    cache_bytes: int = _whole(256 << 20, 0, 1 << 50, size=True)
    max_fragment_bytes: int = _whole(16 << 30, 1, 1 << 60, size=True)
    threads: int = _whole(0, 0, 4096)
    sync: bool = True
    mmap: bool = True
    max_mapped_fragments: int = _whole(1000, 0, (1 << 31) - 1)

    def __post_init__(self, source: Config | Mapping[str, object] | None) -> None:
        given = {} if source is None else _by_option(source)
        for option in fields(self):
            value = given.get(option.name, getattr(self, option.name))
            key = _PREFIX + option.name
            checked = (
                _as_whole(key, value, option.metadata) if option.metadata else _as_bool(key, value)
            )
            object.__setattr__(self, option.name, checked)

    @classmethod
    def of(cls, source: Config | Mapping[str, object] | None = None) -> Config:
        """Return `source` when it is a Config, else the Config that is made from it."""
        return source if isinstance(source, Config) else cls(source)

    def as_dict(self) -> dict[str, int | bool]:
        """Return every option by its dotted key; ``Config.of`` takes it back."""
        return {_PREFIX + option.name: getattr(self, option.name) for option in fields(self)}

    @property
    def usable_threads(self) -> int:
        """The number of threads to use: `threads`, or the cores this process may use, at least 1.

        It is not resolved when the Config is made, because a Config travels with a pickled handle.
        """
        if self.threads:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


def _by_option(source: object) -> dict[str, Any]:
    """The values of a source by the names of the options."""
    if isinstance(source, Config):
        source = source.as_dict()
    if not isinstance(source, Mapping):
        raise WrongTypeError(f"config must be a mapping or a Config, not {_kind(source)}")
    own = {_PREFIX + option.name: option.name for option in fields(Config)}
    known = own | {key: own[ours] for key, ours in TILEDB_KEYS.items()}
    given: dict[str, Any] = {}
    first: dict[str, str] = {}  # by option: the key that set it
    for key, value in source.items():
        if not isinstance(key, str):
            raise WrongTypeError(f"config keys are str, not {_kind(key)}")
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise InvalidValueError(f"there is no config key {key!r}; the nearest is {nearest!r}")
        name = known[key]
        if name in first:
            raise InvalidValueError(f"{first[name]} and {key} are the same option: leave one out")
        first[name] = key
        given[name] = value
    return given


def _kind(value: object) -> str:
    return type(value).__name__


def _as_bool(key: str, value: object) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in ("true", "false"):
            raise InvalidValueError(f"{key} is true or false, not {value!r}")
        return word == "true"
    if not isinstance(value, bool):
        raise WrongTypeError(f"{key} is a bool, not {_kind(value)}")
    return value


def _as_whole(key: str, value: object, meta: Mapping[str, Any]) -> int:
    if isinstance(value, str):
        number = _parse_whole(key, value, meta["size"])
    elif isinstance(value, SupportsIndex) and not isinstance(value, bool):
        number = operator.index(value)
    else:
        raise WrongTypeError(f"{key} is an int, not {_kind(value)}")
    if not meta["least"] <= number <= meta["most"]:
        raise InvalidValueError(f"{key} is {meta['least']} to {meta['most']}, not {number}")
    return number


def _parse_whole(key: str, text: str, size: bool) -> int:
    match = re.fullmatch(r"\s*(-?[0-9]{1,18})\s*([A-Za-z]*)\s*", text)
    unit = match[2].upper() if match else ""
    if not match or unit not in _UNITS or (unit and not size):
        wanted = 'a number of bytes such as "64 MiB"' if size else "a whole number"
        raise InvalidValueError(f"{key} is {wanted}, not {text!r}")
    return int(match[1]) * _UNITS[unit]
