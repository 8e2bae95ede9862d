"""kvcore.write.builder: what the metadata says is what a Fragment reads back."""

import pytest

import tilekv
from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.base.file import File
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.footer import trailer
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, encode
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.kvcore.write.sorted_buffer import sort_buffer

UUID = bytes(range(16))


def cells(n: int, capacity: int = 4, deletes: int = 0) -> tuple[Layout, CellSource]:
    schema = tilekv.Schema([tilekv.Attr("value", bytes)], capacity=capacity)
    with tilekv.open("memory://builder", "w", schema=schema) as db:
        db.put_many([(i, b"%d" % i * 3000) for i in range(n)])
        db.delete_many(range(deletes))
        return db._layout, sort_buffer(db._buffer)


def written(builder: FragmentBuilder, source: CellSource, codecs: CodecPool) -> dict[int, bytes]:
    files = {}
    for plan in builder.add(source):
        runs = plan.runs(1)
        files[plan.slot] = b"".join(
            bytes(encode(builder.layout, source, plan, *run, codecs)) for run in runs
        )
        builder.written(plan)
        files[plan.slot] += trailer(UUID, plan.slot)
    return files


@pytest.mark.parametrize(
    ("n", "capacity"), [(1, 1), (1, 4), (4, 4), (5, 4), (50, 1), (50, 4), (50, 1000)]
)
def test_round_trip(n: int, capacity: int) -> None:
    layout, source = cells(n, capacity, deletes=n // 2)
    codecs, builder = CodecPool(), FragmentBuilder(layout)
    files = written(builder, source, codecs)
    sources = ["__1_1_" + "0" * 32, "__2_2_" + "f" * 32]
    metadata = builder.metadata(UUID, 3, 5, sources)
    views = [File.memory(files[slot]) for slot, _, _ in layout.files]
    fragment = Fragment(
        layout, f"__3_5_{UUID.hex()}", File.memory(metadata), views, ChunkCache(0), codecs
    )
    assert (
        (fragment.cells, fragment.tombstones) == (builder.cells, builder.tombstones) == (n, n // 2)
    )
    assert (fragment.t1, fragment.t2, fragment.uuid) == (3, 5, UUID)
    assert (list(fragment.sources), fragment.first_output) == (sources, "")
    assert fragment.stored_bytes == len(metadata) + sum(map(len, files.values()))


def test_first_output() -> None:
    """Of the outputs of one consolidation the first has the list, and the others its name."""
    layout, source = cells(5)
    codecs, builder = CodecPool(), FragmentBuilder(layout)
    files = written(builder, source, codecs)
    first = "__3_5_" + "8" * 32
    metadata = builder.metadata(UUID, 3, 5, first_output=first)
    views = [File.memory(files[slot]) for slot, _, _ in layout.files]
    fragment = Fragment(
        layout, f"__3_5_{UUID.hex()}", File.memory(metadata), views, ChunkCache(0), codecs
    )
    assert (fragment.sources, fragment.first_output) == ((), first)


def test_refused() -> None:
    layout, source = cells(5)
    builder = FragmentBuilder(layout)
    with pytest.raises(ValueError, match="at least one cell"):
        builder.metadata(UUID, 1, 1)
    written(builder, source, CodecPool())
    for uuid, t1, t2 in [(UUID[1:], 1, 1), (UUID + b"x", 1, 1), (UUID, 2, 1)]:
        with pytest.raises(ValueError, match="16 bytes"):
            builder.metadata(uuid, t1, t2)
    with pytest.raises(ValueError, match="last portion"):
        builder.add(source)  # five cells, tiles of four: the last tile is not full


def test_metadata_before_all_chunks_are_written() -> None:
    layout, source = cells(5)
    builder = FragmentBuilder(layout)
    plans = builder.add(source)
    for plan in plans:
        with pytest.raises(ValueError, match="written"):
            builder.metadata(UUID, 1, 1)
        for run in plan.runs(1):
            encode(layout, source, plan, *run, CodecPool())
        builder.written(plan)
    assert builder.metadata(UUID, 1, 1)


def test_windows_continue_a_fragment() -> None:
    layout, source = cells(8)
    builder = FragmentBuilder(layout)
    first = written(builder, source, CodecPool())
    second = written(builder, source, CodecPool())
    assert first == second
    assert builder.cells == 16
