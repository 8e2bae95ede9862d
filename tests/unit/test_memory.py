"""kvcore.base.memory: what one result was made in goes to the next, and to nobody while it is in use."""

import gc
import os
from collections.abc import Callable

import numpy as np
import pytest

import tilekv
from tilekv import Attr
from tilekv.kvcore.base.memory import PooledMemory

Make = Callable[..., tilekv.Store]
N = 20_000  # cells of a column that is large enough to be kept


def word(i: int) -> str:
    return f"word {i} "


def filled(store: Make) -> tilekv.Store:
    db = store(Attr("n", "int64"), Attr("text", str))
    db.put_many(range(N), [(i, word(i)) for i in range(N)])
    db.flush()
    return db


def check(batch: tilekv.Batch, keys: list[int]) -> None:
    assert batch["n"].tolist() == keys
    assert batch["text"].to_list() == list(map(word, keys))


def test_results_that_are_in_use_are_their_own(store: Make) -> None:
    """Some are dropped, some kept; of some only a column, or a part of one."""
    db = filled(store)
    asked = [list(range(i, N)) for i in range(8)]
    batches = [db.read(keys) for keys in asked]
    parts = [(db.read(keys)["n"][100:200], keys[100:200]) for keys in asked]
    del batches[::2]
    gc.collect()
    others = [db.read(keys[::-1]) for keys in asked]
    for batch, keys in zip(batches, asked[1::2], strict=True):
        check(batch, keys)
    for part, numbers in parts:
        assert part.tolist() == numbers
    for batch, keys in zip(others, asked, strict=True):
        check(batch, keys[::-1])


def test_they_are_made_where_another_was(store: Make) -> None:
    db = filled(store)
    keys = list(range(N))
    places = set()
    for _ in range(20):
        batch = db.read(keys)
        places.add(batch["n"].__array_interface__["data"][0])
        del batch
    assert len(places) < 10


@pytest.mark.parametrize("n", [0, 1, 3, N])
def test_nobody_writes_to_them(store: Make, n: int) -> None:
    batch = filled(store).read(range(n))
    for array in (batch["n"], batch["text"].offsets, batch["text"].data):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    assert len(batch["text"].data) == sum(map(len, map(word, range(n))))


def test_a_child_process_reads_too(store: Make) -> None:
    db = filled(store)
    db.read(range(N))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            array = np.arange(N)
            code = 0 if (db.read(array)["n"] == array).all() else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_only_the_core_makes_it() -> None:
    with pytest.raises(TypeError):
        PooledMemory()
