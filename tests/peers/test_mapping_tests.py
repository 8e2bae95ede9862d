"""CPython's own tests of mappings, `test.mapping_tests` (README.md), run as they are over `Store`, `KV` and shelves."""

import shelve
import unittest
import uuid
from typing import Any

import pytest

import tilekv

tests = pytest.importorskip("test.mapping_tests", reason="this Python comes without its own tests")


class Stores(unittest.TestCase):
    """Makes the mappings that the tests ask for: their values are of one `kind`."""

    kind: Any = int
    flushed = False

    def _reference(self) -> dict[str, Any]:
        return {key: self.kind(number) for number, key in enumerate(("1", "key1", "key2"), 2)}

    def type2test(self, **items: Any) -> Any:
        store = self.opened(f"memory://{uuid.uuid4()}")
        self.addCleanup(store.close)
        return self._filled(store, items)

    def _full_mapping(self, data: dict[Any, Any]) -> Any:
        return self._filled(self.type2test(), data)

    def _filled(self, store: Any, data: dict[Any, Any]) -> Any:
        store.update(data)
        if self.flushed:
            store.flush()
        return store

    def opened(self, uri: str) -> Any:
        return tilekv.open(uri, "x", schema=tilekv.Schema([tilekv.Attr("v", self.kind)]))


class TestNumbers(Stores, tests.TestMappingProtocol):
    # What it sets is text (TestText), or what only a dict can do (README.md).
    test_bool = test_pop = test_fromkeys = test_copy = test_setdefault = None

    def test_popitem(self) -> None:
        """Its body of this name copies a mapping."""
        tests.BasicTestMappingProtocol.test_popitem(self)
        for size in (1, 2, 4, 300):
            items = {repr(number): number for number in range(size)}
            first, second = self._full_mapping(items), self._full_mapping(items)
            for _ in range(size):
                item = first.popitem()
                assert item == second.popitem()
                assert items.pop(item[0]) == item[1]
            assert not items
            assert not first
            assert not second


class TestText(Stores, tests.BasicTestMappingProtocol):
    kind = str
    test_bool = tests.TestMappingProtocol.test_bool
    test_pop = tests.TestMappingProtocol.test_pop


class TestNumbersOnDisk(TestNumbers):
    flushed = True


class TestTextOnDisk(TestText):
    flushed = True


class KVs(Stores):
    test_read = None  # iterates over keys, where a KV gives pairs

    def opened(self, uri: str) -> Any:
        attr = tilekv.Attr("v", bytes if self.kind is str else self.kind)
        tilekv.KV.create(uri, tilekv.KVSchema(attrs=[attr]))
        return tilekv.KV(uri)


class TestKVOfNumbers(KVs, TestNumbers):
    pass


class TestKVOfText(KVs, TestText):
    pass


class TestShelf0(tests.BasicTestMappingProtocol):
    """As in CPython's test.test_shelve: keys are text, values are pickled."""

    protocol = 0

    def _reference(self) -> dict[str, Any]:
        return {"key1": "value1", "key2": 2, "key3": (1, 2, 3)}

    def _empty_mapping(self) -> Any:
        shelf = shelve.Shelf(tilekv.open(f"memory://{uuid.uuid4()}", "x"), self.protocol)
        self.addCleanup(shelf.close)
        return shelf


class TestShelf1(TestShelf0):
    protocol = 1


class TestShelf2(TestShelf0):
    protocol = 2
