"""Writing one fragment: encode, sync, choose the timestamp, show it (docs/design.md 4).

Nothing here knows of folders or renames: a draft becomes visible by its `commit`, whatever the storage.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.footer import trailer
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource, ChunkPlan, Encoded, encode
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.names import FRAGMENT_METADATA, FragmentName, data_file
from tilekv.storage import Draft, FileWriter, Storage
from tilekv.workers import Workers

# Raw bytes that are encoded at a time: what a flush needs beside its cells.
RUN_BYTES: Final = 1 << 20
# Chunks: starting a thread costs about as much as encoding forty.
SMALL_FLUSH: Final = 256
# Planning them takes most of a millisecond: threads do it while others encode.
MANY_CELLS: Final = 1 << 16
# Bytes of files: more are synced before the time is chosen, since others commit meanwhile. Fewer are synced together with the
# metadata, which has the time in it: one wait less.
SYNC_FIRST: Final = 1 << 20
# A timestamp this little ahead of the clock is waited for.
AHEAD_MS: Final = 10

Run = tuple[ChunkPlan, int, int]


def write_fragment(
    storage: Storage,
    layout: Layout,
    codecs: CodecPool,
    portions: Iterable[CellSource],
    workers: Workers,
    *,
    span: tuple[int, int] | None = None,
    sources: Sequence[str] = (),
    expired: int = 0,
    known: Iterable[str] = (),
    showing: Callable[[FragmentName], object] = lambda name: None,
    written: Callable[[int], object] | None = None,
) -> FragmentName:
    """Write sorted cells as one fragment, visible and durable when this returns.

    Parameters
    ----------
    portions : iterable of CellSource
        The cells in order; each portion but the last fills whole tiles.
    workers : Workers
        Who plans and encodes.
    span : (int, int), optional
        First and last timestamp (ms) of a consolidation's sources; a flush chooses its own.
    sources : sequence of str
        The fragments that these cells come from, if it is a consolidation.
    expired : int
        The moment (ms) by which it has left out what had expired; 0: it has not.
    known : iterable of str
        Fragments that a flush is newer than, whatever the storage lists.
    showing : callable, optional
        Told the fragment's name before anybody can see it: an error or an interrupt may come before or after it has appeared.
    written : callable, optional
        Told the number of bytes after each write.

    Raises
    ------
    NotDurableError
        When all of it is visible, but perhaps not durable.
    OSError
        When writing fails. Nothing is visible, unless `showing` was told.
    """
    builder = FragmentBuilder(layout)
    unique = uuid.uuid4()
    draft = storage.draft()
    try:
        with ExitStack() as closing:
            writers = {
                slot: closing.enter_context(_open(draft, data_file(stem, is_bytes)))
                for slot, stem, is_bytes in layout.files
            }
            size = 0
            for portion in portions:
                size += _write_portion(builder, codecs, portion, writers, workers, written)
            for slot, writer in writers.items():
                writer.write(trailer(unique.bytes, slot))
            if size > SYNC_FIRST:
                draft.sync(names=False)
            first, last = span or (_timestamp(storage, known),) * 2
            name = FragmentName.new(first, last, unique.hex)
            metadata = builder.metadata(unique.bytes, name.t1, name.t2, sources, expired=expired)
            closing.enter_context(_open(draft, FRAGMENT_METADATA)).write(metadata)
            draft.sync()
        showing(name)
        draft.commit(str(name))
    finally:
        draft.abandon()
    return name


@contextmanager
def _open(draft: Draft, file: str) -> Iterator[FileWriter]:
    writer = draft.create(file)
    try:
        yield writer
    finally:
        writer.close()


def _write_portion(
    builder: FragmentBuilder,
    codecs: CodecPool,
    portion: CellSource,
    writers: dict[int, FileWriter],
    workers: Workers,
    written: Callable[[int], object] | None,
) -> int:
    """Append a portion to every file, and return the bytes. Runs are encoded by a few threads and written in file order."""
    size = 0
    planned: list[ChunkPlan] = []

    def runs(plans: Iterable[ChunkPlan]) -> Iterator[Run]:
        for plan in plans:
            planned.append(plan)
            for first, last in plan.runs(RUN_BYTES):
                yield plan, first, last

    def encoded(run: Run) -> tuple[ChunkPlan, Encoded]:
        return run[0], encode(builder.layout, portion, *run, codecs)

    def write(results: Iterable[tuple[ChunkPlan, Encoded]]) -> None:
        nonlocal size
        for plan, data in results:
            writers[plan.slot].write(data)
            size += len(data)
            if written:
                written(len(data))

    if len(portion) >= MANY_CELLS:
        write(workers.map_in_order(encoded, runs(builder.add(portion, workers))))
    else:
        listed = list(runs(builder.add(portion)))
        many = sum(last - first for _, first, last in listed) >= SMALL_FLUSH
        write((workers.map_in_order if many else map)(encoded, listed))
    for plan in planned:
        builder.written(plan)
    return size


def _timestamp(storage: Storage, known: Iterable[str]) -> int:
    """A timestamp in ms that is later than that of every fragment there is (docs/design.md 4.2).

    It is chosen after the data is written: a flush that took long must not be older than a short one that was committed
    meanwhile. Listing a folder can miss a consolidated fragment that is just appearing and also those that it replaced. So the
    fragments that the writer has open, `known`, count too.
    """
    names = filter(None, map(FragmentName.parse, {*storage.list().folders, *known}))
    now = time.time_ns() // 1_000_000
    chosen = max(now, max((name.t2 for name in names), default=-1) + 1)
    if 0 < chosen - now <= AHEAD_MS:
        time.sleep((chosen - now) / 1000)
    return chosen
