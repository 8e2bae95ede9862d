"""Many keys in three arrays: no Python object a key, so that processes share them, or have a copy of their bytes alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from tilekv.kvcore.values.keys import key_bytes, key_object

_AT_ONCE: Final = 1 << 16  # keys that are objects while they are packed


class PackedKeys(Sequence[Any]):
    """An immutable sequence of keys, made of any iterable of such.

    Parameters
    ----------
    keys : iterable of keys
        Of any types that a store takes, str and bytes for two.
    numbers : bool
        Whether the store tells numbers by their values, as all do that tilekv has made since 0.1.

    Raises
    ------
    WrongTypeError
        For what is no key.
    """

    def __init__(self, keys: Iterable[Any], numbers: bool = True) -> None:
        self._numbers = numbers
        types: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        sizes: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        data: list[bytes] = []
        given = iter(keys)
        while some := [key_bytes(key, numbers) for key in islice(given, _AT_ONCE)]:
            types.append(np.array([kind for kind, _ in some], np.uint8))
            sizes.append(np.array([len(name) for _, name in some], np.int64))
            data.append(b"".join(name for _, name in some))
        self._types = np.concatenate([np.zeros(0, np.uint8), *types])
        self._ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        self._data = b"".join(data)

    def __len__(self) -> int:
        return len(self._types)

    def __getitem__(self, index: Any) -> Any:
        """The key at a place, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        begin, end = self._ends[place], self._ends[place + 1]
        return key_object(int(self._types[place]), self._data[begin:end], self._numbers)

    def take(self, places: Sequence[int]) -> list[Any]:
        """The keys at some places, sooner than one by one. IndexError for a place that there is not."""
        chosen = np.asarray(places, np.int64)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"places of {len(self):,} keys")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        data, numbers = self._data, self._numbers
        kinds, begins = self._types[chosen].tolist(), self._ends[chosen].tolist()
        ends = self._ends[chosen + 1].tolist()
        return [
            key_object(kind, data[begin:end], numbers)
            for kind, begin, end in zip(kinds, begins, ends, strict=True)
        ]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))
