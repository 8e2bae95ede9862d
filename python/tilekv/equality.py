"""When two values are equal, arrays and rows that hold some included."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, ValuesView
from typing import Any

import numpy as np

from tilekv.arguments import NO_VALUE


def equal(one: Any, other: Any) -> bool:
    """Whether two values of a store are the same: arrays by shape and elements, where ``==`` has no one answer."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) or isinstance(other, (np.ndarray, np.void)):
        return _equal_arrays(one, other)
    return bool(one == other)


def equal_items(store: Any, other: Any) -> bool:
    """Whether a mapping has the same keys, type and all, with equal values; `store` has ``len`` and ``get``."""
    return len(store) == len(other) and all(
        equal(store.get(key, NO_VALUE), value) for key, value in other.items()
    )


class EqualValues(ValuesView[Any]):
    """A view of values that are compared by `equal`."""

    def __contains__(self, value: object) -> bool:
        """Whether one of the values is the same."""
        return any(equal(each, value) for each in self)


class EqualItems(ItemsView[Any, Any]):
    """A view of pairs whose values are compared by `equal`."""

    _mapping: Any

    def __contains__(self, item: object) -> bool:
        """Whether the key is there with the same value."""
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        return equal(self._mapping.get(item[0], NO_VALUE), item[1])


def _equal_arrays(one: Any, other: Any) -> bool:
    try:
        mine, theirs = np.asarray(one), np.asarray(other)
        return mine.shape == theirs.shape and bool(np.all(mine == theirs))
    except (TypeError, ValueError):  # lists of several lengths are no array, records no numbers
        return False
