"""The item of TileDB's C++ face: one key with the values of its attributes (docs/design.md 2.3)."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tilekv.errors import InvalidValueError, KeyNotFoundError, WrongTypeError, shown
from tilekv.kvcore.values.keys import key_bytes
from tilekv.store import Store


class Rows:
    """A store, or some attributes of it, whose values are dicts by attribute however many there are."""

    def __init__(self, store: Store, names: tuple[str, ...]) -> None:
        self.max_buffered: int | None = None
        self.use(store, names)

    def use(self, store: Store, names: tuple[str, ...]) -> None:
        """Go on with another handle, showing the attributes `names`."""
        self.store = store
        self.names = names
        self._single = len(store.schema.attrs) == 1

    def get(self, key: Any) -> dict[str, Any] | None:
        """The values of a key; None when it is not there."""
        value = self.store.get(key, self)
        return None if value is self else self._row(value)

    def items(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Keys and their values, in ascending order of digests, of the state as it is now."""
        # No generator: threads may share an iterator.
        return map(self._keyed_row, self.store.items())

    def _keyed_row(self, pair: tuple[Any, Any]) -> tuple[Any, dict[str, Any]]:
        return pair[0], self._row(pair[1])

    def dtype_of(self, name: str) -> np.dtype[Any] | None:
        """The dtype of an attribute's elements; None when there is no such attribute."""
        attrs = self.store.schema.attrs
        return next((attr.dtype for attr in attrs if attr.name == name), None)

    def put(self, key: Any, values: Mapping[str, Any]) -> None:
        """Set the values of a key: those of every attribute, or it is an InvalidValueError."""
        if not self._single:
            self.put_value(key, values)
            return
        (name,) = self.names
        if values.keys() != {name}:
            raise InvalidValueError(f"an item has the attribute {name!r}, not {list(values)}")
        self.put_value(key, values[name])

    def put_value(self, key: Any, value: Any) -> None:
        """Set the value of a key, in the form that the store takes."""
        if self.max_buffered is not None and self.store._unflushed() >= self.max_buffered:
            self.store.flush()
        self.store[key] = value

    def _row(self, value: Any) -> dict[str, Any]:
        if self._single:
            return {self.names[0]: value}
        return {name: value[name] for name in self.names}


class MapItem:
    """One key with the values of its attributes.

    ``Map.create_item(ctx, key)`` makes one that belongs to no map until `Map.add_item`: assigning to it only sets its own
    values. The items of ``m[key]``, ``m.get_item(key)`` and of a `MapIter` belong to the map `m`: assigning to
    ``item["a1"]`` or, with several attributes, to ``item["a1", "a2"]`` writes to it at once, so that all attributes must have
    a value then. ``m[key]`` looks the key up at each use; the other two hold what they found.

    An item is false when its key is not there. In a map of one attribute it compares and converts as its value does:
    ``m[key] == 1``, ``int(m[key])``.
    """

    def __init__(self, key: Any) -> None:
        self._begin(key, None, {}, True)

    @classmethod
    def _of(
        cls, rows: Rows, key: Any, found: dict[str, Any] | None = None, good: bool = True
    ) -> MapItem:
        """The item of a map."""
        made = cls.__new__(cls)
        made._begin(key, rows, found, good)
        return made

    def _begin(self, key: Any, rows: Rows | None, found: dict[str, Any] | None, good: bool) -> None:
        self._numbers = rows is None or rows.store._layout.numbers
        key_bytes(key, self._numbers)  # raises for what cannot be a key
        self._key = key
        self._rows = rows
        self._found = found  # None: looked up at each use
        self._good = good
        self._set: dict[str, Any] = {}  # not yet written

    def good(self) -> bool:
        """Tell whether the key is there: False for `Map.get_item` of one that is not."""
        if self._found is None and self._rows is not None:
            return self._key in self._rows.store
        return self._good

    def key(self, type: builtins.type | None = None) -> Any:
        """Return the key.

        Parameters
        ----------
        type : type, optional
            str, bytes, int, float, a NumPy scalar type, numpy.ndarray or `Key`: what the key is to be. An integer becomes one
            of another width, and a float too, where that is exact.

        Raises
        ------
        WrongTypeError
            When it is of another type, or too large for this one.
        """
        if type is None:
            return self._key
        converted = key_as(self._key, type)
        if converted is None:
            raise WrongTypeError(f"the key {self._key!r} is no {type.__name__}")
        return converted

    def key_info(self) -> tuple[int, int]:
        """Return the datatype of the key, as TileDB's code, and its size in bytes."""
        code, data = key_bytes(self._key, self._numbers)
        return code, len(data)

    def set(self, attr: Any, value: Any = ..., /) -> None:
        """Set a value of the item, and of nothing else: ``set(attr, value)``, or ``set(value)`` for a map of one attribute.

        `Map.add_item` writes the item, and checks it.
        """
        if value is ...:
            attr, value = self._only(), attr
        self._set.update(_pairs(attr, value))

    def get(self, attr: str | Sequence[str] | None = None) -> Any:
        """Return the value of an attribute, a tuple for several, or that of the only attribute.

        Raises
        ------
        KeyNotFoundError
            When the key is not in the map.
        InvalidValueError
            When the item has no such attribute, or none is named and the map has several.
        """
        if attr is None:
            attr = self._only()
        if isinstance(attr, str):
            return self._value(attr)
        return tuple([self._value(name) for name in _names(attr)])

    def get_ptr(self, attr: str) -> tuple[memoryview, int]:
        """Return the elements of a value, read-only, and their number: those of bytes and of str, as UTF-8, are bytes."""
        if not isinstance(attr, str):
            raise WrongTypeError(f"an attribute is asked for by name, not {shown(attr)}")
        value = self._value(attr)
        dtype = None if self._rows is None else self._rows.dtype_of(attr)
        try:
            with np.errstate(invalid="raise"):  # a NaN among integers
                elements = _elements(value, dtype)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise WrongTypeError(
                f"the value of attribute {attr!r}, not yet written, has no elements: {error}"
            ) from None
        return elements, len(elements)

    def __getitem__(self, attr: str | Sequence[str]) -> Any:
        """Return the value of an attribute, or a tuple for several, as `get`."""
        return self.get(attr)

    def __setitem__(self, attr: str | Sequence[str], value: Any) -> None:
        """Set values, and write the item at once when it is of a map."""
        new = _pairs(attr, value)
        if self._rows is None:
            self._set.update(new)
            return
        values = self.values() | new
        self._rows.put(self._key, values)
        self._set.clear()
        if self._found is not None:
            self._found = values
            self._good = True

    def values(self) -> dict[str, Any]:
        """Return what `Map.add_item` writes: the values that the item holds, by attribute."""
        return (self._found or {}) | self._set

    # --- as the value of the only attribute ---

    def __bool__(self) -> bool:
        """Whether the key is there, as `good`."""
        return self.good()

    def __eq__(self, other: object) -> Any:
        """Whether another item has the same key and values; else how the only value compares."""
        if isinstance(other, MapItem):
            return bool(self._key == other._key and self._row() == other._row())
        return self._compared(operator.eq, other)

    __hash__ = None  # type: ignore[assignment]  # its value changes

    def __lt__(self, other: object) -> Any:
        """Whether the value of the only attribute is less."""
        return self._compared(operator.lt, other)

    def __le__(self, other: object) -> Any:
        """Whether the value of the only attribute is less or equal."""
        return self._compared(operator.le, other)

    def __gt__(self, other: object) -> Any:
        """Whether the value of the only attribute is greater."""
        return self._compared(operator.gt, other)

    def __ge__(self, other: object) -> Any:
        """Whether the value of the only attribute is greater or equal."""
        return self._compared(operator.ge, other)

    def _compared(self, compare: Callable[[Any, Any], Any], other: object) -> Any:
        if not self._is_single() or (compare is operator.eq and not self):
            return NotImplemented
        return compare(self.get(), other)

    def __int__(self) -> int:
        """The value of the only attribute as an int."""
        return int(self.get())

    def __float__(self) -> float:
        """The value of the only attribute as a float."""
        return float(self.get())

    def __bytes__(self) -> bytes:
        """The value of the only attribute, if that is bytes; else WrongTypeError."""
        value = self.get()
        if not isinstance(value, bytes):
            raise WrongTypeError(f"the value of {self._key!r} is {type(value).__name__}, not bytes")
        return value

    def __str__(self) -> str:
        return str(self.get()) if self._is_single() and self else repr(self)

    def _is_single(self) -> bool:
        return self._rows is not None and len(self._rows.names) == 1

    def _row(self) -> dict[str, Any] | None:
        """All values, those that are set and not written among them; None when the key is not there."""
        found = self._found
        if found is None and self._rows is not None:
            found = self._rows.get(self._key)
        return found | self._set if found is not None and self._good else None

    def _value(self, name: str) -> Any:
        if name in self._set:
            return self._set[name]
        found = self._row()
        if found is None:
            raise KeyNotFoundError(self._key)
        if name not in found:
            raise InvalidValueError(f"the item has no attribute {name!r}, but {list(found)}")
        return found[name]

    def _only(self) -> str:
        if self._rows is None or len(self._rows.names) != 1:
            names = "" if self._rows is None else f": {list(self._rows.names)}"
            raise InvalidValueError(
                f"name the attribute; that goes without only in a map of one attribute{names}"
            )
        return self._rows.names[0]

    def __repr__(self) -> str:
        return f"<tilekv.MapItem {self._key!r}>"


def key_as(key: Any, type: builtins.type) -> Any:
    """A key as a Python or NumPy type: the same, or the equal number of another width; None when it is no such key."""
    if not isinstance(type, builtins.type):
        raise WrongTypeError(
            f"the type of a key is str, bytes, int, float, a NumPy type or Key, not {shown(type)}"
        )
    if isinstance(key, type):
        return key
    kind = _number(type)
    if kind is None or kind is not _number(builtins.type(key)):
        return None
    with np.errstate(over="ignore"):
        number = type(np.array(key).astype(type)[()])
    return number if kind(number) == kind(key) or key != key else None


def _number(type: builtins.type) -> builtins.type | None:
    """Int or float for the types of such keys: NumPy's durations are integers to it, and are none."""
    if issubclass(type, (bool, np.timedelta64)):
        return None
    if issubclass(type, (int, np.integer)):
        return int
    return float if issubclass(type, (float, np.floating)) else None


def _elements(value: Any, dtype: np.dtype[Any] | None) -> memoryview:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        value = np.atleast_1d(np.asarray(value, dtype)).reshape(-1)
        if value.dtype.kind in "mM":  # which no memoryview has
            value = value.view("int64")
    return memoryview(value).toreadonly()


def _names(attrs: object) -> list[str]:
    if not isinstance(attrs, (list, tuple)) or not all(isinstance(name, str) for name in attrs):
        raise WrongTypeError(
            f"attributes are a str, or a list or tuple of them, not {shown(attrs)}"
        )
    return list(attrs)


def _pairs(attrs: object, value: Any) -> dict[str, Any]:
    """Values by attribute: of one, or of several from a tuple or list of the same length."""
    if isinstance(attrs, str):
        return {attrs: value}
    names = _names(attrs)
    if not isinstance(value, (list, tuple)):
        raise WrongTypeError(f"the values of {names} are a tuple, not {type(value).__name__}")
    if len(value) != len(names):
        raise InvalidValueError(f"{len(names)} attributes {names}, but {len(value)} values")
    return dict(zip(names, value, strict=True))
