"""The options of handles, checked when they are set."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from dataclasses import KW_ONLY, Field, InitVar, dataclass, field, fields
from typing import Any, ClassVar, Final

from tilekv.arguments import is_one_of, truth, whole
from tilekv.errors import InvalidValueError, KeyNotFoundError, WrongTypeError, shown
from tilekv.tiledb.config import IGNORED_KEYS, S3_KEYS, TILEDB_KEYS, s3_options

UNSET: Final = -1  # a history that is the store's own
_PREFIX: Final = "kv."
_LOGGED: Final[set[str]] = set()  # keys of TileDB that were said to have no effect
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


def _word(default: str, *others: str, least: int = 0, most: int = -1) -> int | str:
    """A field that is one of a few words, or a whole number from `least` to `most`."""
    meta = {"least": least, "most": most, "size": False, "words": (default, *others)}
    word: int | str = field(default=default, metadata=meta)
    return word


@dataclass(frozen=True, eq=False)
class Config:
    """The options of handles: a mapping of strings as in TileDB-Py, whose attributes are the values.

    A handle or context has a copy: what is changed afterwards is for the next one. Any `config` argument takes a dict as well.

    Parameters
    ----------
    params : mapping or Config, optional
        Options by dotted key, ``kv.`` and an attribute's name, or TileDB's key where it means the same:
        sm.tile_cache_size (kv.cache_bytes), sm.num_tbb_threads and sm.compute_concurrency_level
        (kv.threads), sm.consolidation.max_fragment_size (kv.max_fragment_bytes). Those of vfs.s3 that are storage options are
        options of stores on S3, where no `storage_options` are given. Values are ints and bools, or strings of them:
        ``"64 MiB"`` (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB) for bytes, ``"true"``
        and ``"false"``. They win over keyword arguments, which are the attributes. Other keys of TileDB 1.x are kept and have
        no effect; the first of each is logged.

    Attributes
    ----------
    buffer_bytes : int
        ``kv.buffer_bytes``: a write buffer of more bytes than this is flushed while the next one fills. 256 MiB.
    cache_bytes : int
        ``kv.cache_bytes``: most bytes of decoded chunks that are kept. 256 MiB; 0 keeps none. Up to half
        of it goes to the digest index, 16 bytes a key, once a sixteenth of the keys was asked for (fewer
        where there are several fragments): below 32 bytes a key, lookups search each fragment instead.
    max_fragment_bytes : int
        ``kv.max_fragment_bytes``: a consolidation splits what would be larger, and upkeep merges no more than that. 0, the
        default, is 16 GiB, and 1 GiB on object storage, where a look-up may fetch the metadata of a fragment first.
    threads : int
        ``kv.threads``: most threads of one operation; 0, the default, is one for each core that
        the process may use.
    sync : bool
        ``kv.sync``: a flush returns when its data is durable. True; False syncs nothing, for speed:
        the death of the process loses nothing that was flushed, a crash of the machine may lose or
        damage whatever was written lately, and what that replaced if it was vacuumed.
    mmap : bool
        ``kv.mmap``: read through memory maps. True; False reads with pread, for network file
        systems. The smallest files of a fragment, 100 KiB of them, are read into memory. All handles
        of a process together have half of the maps that Linux gives one, beyond which files are read
        with pread, and half of its descriptors: the file that was not read for longest gives its own
        back, and is opened again when it is read. It is SnapshotGone if it was vacuumed meanwhile.
    upkeep : str
        ``kv.upkeep``: "on": a handle that flushes merges small fragments behind who writes, 64 to 256 MiB at a time, and removes
        what history no longer needs; "off": `Store.upkeep` and `consolidate` do. "auto", the default, is "on"; in TileDB's two
        faces, which do as TileDB does, it is "off".
    history : int or str
        ``kv.history``: for how many seconds upkeep keeps what merges have superseded, for `timestamp=` and for readers
        elsewhere; "all" for ever. It is the store's: a handle can make it longer, `Store.vacuum(history=)` shorter; "store", the
        default, leaves it as it is, a day at first.
    filters : int
        ``kv.filters``: a fragment whose files have at most so many bytes is written with a Bloom filter, 10 bits a key: a look-up
        passes over it, at the price of a cache line, when the key is not in it. 1 GiB; 0 writes none.
    max_mapped_fragments : int
        ``kv.max_mapped_fragments``: with more fragments than this, files are opened when they are
        first used. 1000.

    Raises
    ------
    WrongTypeError
        For params that are no mapping, keys that are not str and values of a wrong type.
    InvalidValueError
        For an unknown key (the message names the nearest one), two keys that set the same option,
        and values out of range.
    """

    params: InitVar[Config | Mapping[str, object] | None] = None
    _: KW_ONLY
    buffer_bytes: int = _whole(256 << 20, 1, 1 << 50, size=True)
    cache_bytes: int = _whole(256 << 20, 0, 1 << 50, size=True)
    max_fragment_bytes: int = _whole(0, 0, 1 << 60, size=True)
    threads: int = _whole(0, 0, 4096)
    sync: bool = True
    mmap: bool = True
    filters: int = _whole(1 << 30, 0, 1 << 60, size=True)
    max_mapped_fragments: int = _whole(1000, 0, (1 << 31) - 1)
    upkeep: int | str = _word("auto", "on", "off")
    history: int | str = _word("store", "all", least=0, most=10**10)

    def __post_init__(self, params: Config | Mapping[str, object] | None) -> None:
        # By key: what TileDB sets, and tilekv has another place or nothing for.
        object.__setattr__(self, "_tiledbs", {})
        for option in fields(self):
            self._set(option, getattr(self, option.name))
        if params is not None:
            self.update(params)

    @classmethod
    def of(cls, source: Config | Mapping[str, object] | None = None) -> Config:
        """Return a new Config made from `source`."""
        return cls(source)

    def as_dict(self) -> builtins.dict[str, int | bool | str]:
        """Return every option by its dotted key; ``Config.of`` takes it back."""
        found = {_PREFIX + option.name: getattr(self, option.name) for option in fields(self)}
        return found | self._tiledbs

    # --- a mapping of strings ---

    _tiledbs: ClassVar[builtins.dict[str, str]]  # of the instance, but no option

    def _set(self, option: Field[Any], value: object) -> None:
        key = _PREFIX + option.name
        checked = (
            _as_whole(key, value, option.metadata) if option.metadata else _as_bool(key, value)
        )
        object.__setattr__(self, option.name, checked)

    def __getitem__(self, key: str) -> str:
        """An option as TileDB's str, `true` and `false` in small letters; KeyNotFoundError when there is none of that name."""
        if key not in self:
            is_text = isinstance(key, str)
            raise KeyNotFoundError(key, None if is_text else "config keys are str")
        if key in self._tiledbs:
            return self._tiledbs[key]
        value = getattr(self, _OPTIONS[key].name)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def __setitem__(self, key: str, value: object) -> None:
        """Set an option; InvalidValueError or WrongTypeError for a name or a value that is refused."""
        _check_key(key)
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        """Give an option its default."""
        _check_key(key)
        if self._tiledbs.pop(key, None) is None and key not in _KEPT:
            name = _known(key).name
            object.__setattr__(self, name, getattr(Config(), name))

    def __contains__(self, key: object) -> bool:
        """Whether there is an option of that name."""
        return is_one_of(key, self._tiledbs) or is_one_of(key, _OPTIONS)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all options."""
        return iter(self.dict())

    def __len__(self) -> int:
        """The number of options."""
        return len(self.dict())

    def __eq__(self, other: object) -> bool:
        """Whether another Config has the same options."""
        if not isinstance(other, Config):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of an option, or `default` when there is none."""
        try:
            return self[key]
        except KeyNotFoundError:
            return default

    def dict(self, prefix: str = "") -> builtins.dict[str, str]:
        """Return the options whose keys begin with `prefix`, by tilekv's key where there is one."""
        if not isinstance(prefix, str):
            raise WrongTypeError(f"a prefix is a str, not {_kind(prefix)}")
        return {key: self[key] for key in self.as_dict() if key.startswith(prefix)}

    def keys(self, prefix: str = "") -> KeysView[str]:
        """Return the keys that begin with `prefix`."""
        return self.dict(prefix).keys()

    def values(self, prefix: str = "") -> ValuesView[str]:
        """Return the values of the keys that begin with `prefix`."""
        return self.dict(prefix).values()

    def items(self, prefix: str = "") -> ItemsView[str, str]:
        """Return the options whose keys begin with `prefix`."""
        return self.dict(prefix).items()

    def update(self, params: Config | Mapping[str, object]) -> None:
        """Set options; InvalidValueError, and nothing is set, when two are the same."""
        given = params.as_dict() if isinstance(params, Config) else params
        if not isinstance(given, Mapping):
            raise WrongTypeError(f"config must be a mapping or a Config, not {_kind(given)}")
        first: builtins.dict[str, str] = {}  # by option: the key that sets it
        for key in given:
            _check_key(key)
            if key in _KEPT:
                continue
            name = _known(key).name
            if name in first:
                raise InvalidValueError(
                    f"{first[name]} and {key} are the same option: leave one out"
                )
            first[name] = key
        for key, value in given.items():
            if key in _KEPT:
                self._keep(key, value)
            else:
                self._set(_known(key), value)

    def _keep(self, key: str, value: object) -> None:
        """Keep what is TileDB's; of what has no effect say so once."""
        if not isinstance(value, (str, int, float)):
            raise WrongTypeError(f"{key} is a string or a number, not {_kind(value)}")
        self._tiledbs[key] = str(value).lower() if isinstance(value, bool) else str(value)
        if key in IGNORED_KEYS and key not in _LOGGED:
            import logging

            _LOGGED.add(key)
            logging.getLogger("tilekv").warning("TileDB's option %s has no effect in tilekv", key)

    def clear(self) -> None:
        """Give every option its default."""
        self._tiledbs.clear()
        self.update(Config())

    def storage_options(self, uri: object) -> builtins.dict[str, str] | None:
        """What TileDB's keys say of S3, for the URI of something there."""
        if not isinstance(uri, str) or not uri.lower().startswith(("s3://", "s3a://")):
            return None
        return (
            s3_options({key: self._tiledbs[key] for key in S3_KEYS & self._tiledbs.keys()}) or None
        )

    @property
    def history_ms(self) -> int | None:
        """`history` in ms: None for ever, UNSET for what the store says."""
        if isinstance(self.history, str):
            return None if self.history == "all" else UNSET
        return self.history * 1000

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


Mapping.register(Config)


# The options by their keys, ours and TileDB's.
_OURS: Final = {_PREFIX + option.name: option for option in fields(Config)}
_KEPT: Final = IGNORED_KEYS | S3_KEYS
_OPTIONS: Final = _OURS | {key: _OURS[ours] for key, ours in TILEDB_KEYS.items()}


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise WrongTypeError(f"config keys are str, not {_kind(key)}")


def _known(key: str) -> Field[Any]:
    """The option with a key; InvalidValueError, with the nearest one, when there is none."""
    if key not in _OPTIONS:
        import difflib

        known = [*_OPTIONS, *_KEPT]
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
        raise InvalidValueError(f"there is no config key {key!r}; the nearest is {nearest!r}")
    return _OPTIONS[key]


def _kind(value: object) -> str:
    return type(value).__name__


def _as_bool(key: str, value: object) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in ("true", "false"):
            raise InvalidValueError(f"{key} is true or false, not {value!r}")
        return word == "true"
    return truth(key, value)


def _as_whole(key: str, value: object, meta: Mapping[str, Any]) -> int | str:
    words = meta.get("words", ())
    if is_one_of(value, words):
        return str(value)
    if meta["most"] < meta["least"]:
        raise InvalidValueError(f"{key} is {', '.join(words)}, not {shown(value)}")
    if isinstance(value, str):
        number = _parse_whole(key, value, meta["size"])
    else:
        number = whole(key, value)
    if not meta["least"] <= number <= meta["most"]:
        raise InvalidValueError(f"{key} is {meta['least']} to {meta['most']}, not {shown(number)}")
    return number


def _parse_whole(key: str, text: str, size: bool) -> int:
    match = re.fullmatch(r"\s*(-?[0-9]{1,18})\s*([A-Za-z]*)\s*", text)
    unit = match[2].upper() if match else ""
    if not match or unit not in _UNITS or (unit and not size):
        wanted = 'a number of bytes such as "64 MiB"' if size else "a whole number"
        raise InvalidValueError(f"{key} is {wanted}, not {text!r}")
    return int(match[1]) * _UNITS[unit]
