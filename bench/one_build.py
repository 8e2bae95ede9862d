"""The operations by which builds are compared, and the program that runs them with the tilekv that its path has first.

`bench.against` starts it. It runs an operation for each line of its input and answers with the processor's seconds; under
callgrind it runs each once between callgrind's two switches, and everything else is not counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tilekv
from bench.data import Source, make_data

# What several threads do, and how much of it in vain, is another thing in every run.
CONFIG = {"kv.threads": 1}


class Subject:
    """A store with the data, open for reading, and a folder for those that are written."""

    def __init__(self, folder: Path, keys: int, asked: int, seed: int) -> None:
        self.data = make_data(Source("sentence", keys, seed=seed), asked)
        self.written = folder / "written"
        self.path = folder / "read"
        with tilekv.open(self.path, "x", config=CONFIG) as db:
            db.put_many(self.data.keys, self.data.values)
        self.db = tilekv.open(self.path, config=CONFIG)
        table = dict(zip(self.data.keys, self.data.values, strict=True))
        found = self.db.get_many(self.data.asked)
        assert found == [table[key] for key in self.data.asked], "what was found was not written"

    @contextlib.contextmanager
    def new(self) -> Iterator[tilekv.Store]:
        """An empty store, removed after."""
        try:
            with tilekv.open(self.written, "x", config=CONFIG) as db:
                yield db
        finally:
            shutil.rmtree(self.written, ignore_errors=True)


# An operation gives the call that is measured, and how many keys it is for; what is around the call is not measured.
Measured = contextlib.AbstractContextManager[tuple[Callable[[], object], int]]


@contextlib.contextmanager
def get(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    db, asked = subject.db, subject.data.asked

    def work() -> None:
        for key in asked:
            db[key]

    yield work, len(asked)


@contextlib.contextmanager
def get_many(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    asked = subject.data.asked
    yield lambda: subject.db.get_many(asked), len(asked)


@contextlib.contextmanager
def put(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    data = subject.data
    with subject.new() as db:

        def work() -> None:
            for key, value in zip(data.keys, data.values, strict=True):
                db[key] = value

        yield work, len(data.keys)


@contextlib.contextmanager
def put_many(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    data = subject.data
    with subject.new() as db:
        yield lambda: db.put_many(data.keys, data.values), len(data.keys)


@contextlib.contextmanager
def flush(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    data = subject.data
    with subject.new() as db:
        db.put_many(data.keys, data.values)
        yield db.flush, len(data.keys)


@contextlib.contextmanager
def scan(subject: Subject) -> Iterator[tuple[Callable[[], object], int]]:
    yield lambda: sum(len(batch) for batch in subject.db.scan()), len(subject.data.keys)


OPERATIONS: dict[str, Callable[[Subject], Measured]] = {
    "get": get,
    "get_many": get_many,
    "put": put,
    "put_many": put_many,
    "flush": flush,
    "scan": scan,
}


def seconds(operation: str, subject: Subject) -> float:
    """The processor's seconds a key."""
    with OPERATIONS[operation](subject) as (work, count):
        start = time.process_time()
        work()
        return (time.process_time() - start) / count


def main() -> None:
    """A folder, keys, keys asked for, seed; and for counting the library of callgrind's switches."""
    folder, keys, asked, seed, *library = sys.argv[1:]
    subject = Subject(Path(folder), int(keys), int(asked), int(seed))
    gc.collect()
    gc.disable()  # a collection would fall on whichever operation comes just then
    if library:
        switch = ctypes.PyDLL(library[0])
        counts = {}
        for name, operation in OPERATIONS.items():
            seconds(name, subject)  # the second time counts, as the caches are then
            with operation(subject) as (work, counts[name]):
                switch.counting_begins()
                work()
                switch.counting_ends(name.encode())
        print(json.dumps(counts))
        return
    print(json.dumps([tilekv.__version__, tilekv.__file__]), flush=True)
    for line in sys.stdin:
        print(json.dumps(seconds(line.strip(), subject)), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
