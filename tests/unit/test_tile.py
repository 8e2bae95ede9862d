"""kvcore.format.tile: a file's bytes do not depend on how it was cut into runs."""

import itertools
import random

import pytest

import tilekv
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, ChunkPlan, encode
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.kvcore.write.sorted_buffer import sort_buffer

SCHEMA = tilekv.Schema(
    [
        tilekv.Attr("number", "uint16"),
        tilekv.Attr("wide", "float64", shape=(700,)),
        tilekv.Attr("blob", bytes),
    ],
    capacity=16,
)
SIZES = [0, 1, 100, 4096, 5000, 1 << 20, (1 << 20) + 1, (2 << 20) + 5, 0]


def source() -> tuple[Layout, CellSource]:
    pick = random.Random(7)
    with tilekv.open("memory://cuts", "w", schema=SCHEMA) as db:
        for i in range(50):
            size = SIZES[i] if i < len(SIZES) else pick.randrange(3000)
            db[i] = (i, [float(i)] * 700, pick.randbytes(size))
        del db[3]
        return db._layout, sort_buffer(db._buffer)


def stored(
    layout: Layout, cells: CellSource, plan: ChunkPlan, run: int, codecs: CodecPool
) -> bytes:
    return b"".join(bytes(encode(layout, cells, plan, *at, codecs)) for at in plan.runs(run))


def test_runs_join_to_the_same_bytes() -> None:
    layout, cells = source()
    codecs = CodecPool()
    slots = []
    for plan in FragmentBuilder(layout).add(cells):
        one = [stored(layout, cells, plan, size, codecs) for size in (1, 10_000, 1 << 40)]
        assert one[0] == one[1] == one[2] != b""
        slots.append(plan.slot)
        runs = plan.runs(10_000)
        assert runs[0][0] == 0
        assert all(a[1] == b[0] for a, b in itertools.pairwise(runs))
        with pytest.raises(IndexError):
            encode(layout, cells, plan, 0, runs[-1][1] + 1, codecs)
    assert slots == [slot for slot, _, _ in layout.files]


def test_every_chunk_of_a_long_cell_is_a_run_of_its_own() -> None:
    """What bounds a flush's memory: cells of over a megabyte are cut into megabytes."""
    layout, cells = source()
    plans = {plan.slot: plan for plan in FragmentBuilder(layout).add(cells)}
    blobs = plans[max(plans)]
    encoded = [encode(layout, cells, blobs, *run, CodecPool()) for run in blobs.runs(1 << 20)]
    assert max(map(len, encoded)) < (2 << 20) + 100_000


def test_a_source_that_gives_nothing() -> None:
    layout, _ = source()
    assert all(plan.runs(1) == [] for plan in FragmentBuilder(layout).add(CellSource()))
