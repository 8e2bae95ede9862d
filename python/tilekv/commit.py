"""Writing one fragment: encode, sync, choose the timestamp, show it (docs/design.md 4).

Nothing here knows of folders or renames: a draft becomes visible by its `commit`, whatever the storage.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Final, NamedTuple

from tilekv.clock import seconds
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.footer import trailer
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import (
    LONG_CELL_CHUNK,
    CellSource,
    ChunkPlan,
    Encoded,
    StreamedBytes,
    encode,
)
from tilekv.kvcore.write.builder import FragmentBuilder
from tilekv.names import FRAGMENT_METADATA, FragmentName, data_file, merged_uuid
from tilekv.record import fragments_in
from tilekv.storage import FileWriter, Offer, OfferedDraft, Storage
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
# A time that was chosen longer ago is chosen again: merges wait for a draft no longer than twice that (`protocol.DRAFT_S`).
CHOSEN_S: Final = 30

Run = tuple[ChunkPlan, int, int]


class Expected(NamedTuple):
    """About how many cells a fragment will have, and where their first coordinates lie: among `width` from `low` on."""

    cells: int
    low: int = 0
    width: int = 0  # 0: 2^64


NO_KEYS: Final = Expected(0)


class StreamedCell(NamedTuple):
    """The only cell of a fragment, one attribute of which is longer than LONG_CELL and comes part by part."""

    row: CellSource  # all else of it
    slot: int  # of that attribute's bytes
    parts: Iterable[bytes]  # each but the last of RUN_BYTES, which are whole chunks
    size: int | None  # of all parts, when it is known before they have come


def write_fragment(
    storage: Storage,
    layout: Layout,
    codecs: CodecPool,
    portions: Iterable[CellSource | StreamedCell],
    workers: Workers,
    *,
    span: tuple[int, int] | None = None,
    sources: Sequence[str] = (),
    first_output: str = "",
    unique: uuid.UUID | None = None,
    expired: int = 0,
    keys: Expected = NO_KEYS,
    filters: int = 0,
    known: Iterable[str] = (),
    choosing: Callable[[], object] = lambda: None,
    showing: Callable[[FragmentName], object] = lambda name: None,
    written: Callable[[int], object] | None = None,
) -> FragmentName:
    """Write sorted cells as one fragment, durable when this returns; visible if it is a flush, and on the stage if it is of a
    merge or a job.

    Parameters
    ----------
    portions : iterable of CellSource
        The cells in order; each portion but the last fills whole tiles.
    workers : Workers
        Who plans and encodes.
    span : (int, int), optional
        First and last timestamp (ms) of a consolidation's sources, or of a job; a flush chooses its own.
    sources : sequence of str
        The fragments that these cells come from, if it is a consolidation, and the first of its outputs.
    first_output : str
        That one's name, if it is another.
    unique : uuid.UUID, optional
        What a part of a job is called.
    expired : int
        The moment (ms) by which it has left out what had expired; 0: it has not.
    keys : Expected
        What a Bloom filter is made for; it has none without cells.
    filters : int
        Bytes of data files above which it has none either (kv.filters).
    known : iterable of str
        Fragments that a flush is newer than, whatever the storage lists.
    choosing : callable, optional
        Called once the data is written, before the time is chosen.
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
    cells, low, width = keys
    builder = FragmentBuilder(layout, cells, low, width)
    staged = bool(sources or first_output or unique)
    unique = unique or (merged_uuid() if staged else uuid.uuid4())
    draft = storage.draft(staged=staged)
    try:
        with ExitStack() as stack:
            writers = {
                slot: stack.enter_context(closing(draft.create(data_file(stem, is_bytes))))
                for slot, stem, is_bytes in layout.files
            }
            size = 0
            for portion in portions:
                if isinstance(portion, StreamedCell):
                    size += _write_stream(builder, codecs, portion, writers, workers, written)
                else:
                    size += _write_portion(builder, codecs, portion, writers, workers, written)
            for slot, writer in writers.items():
                writer.write(trailer(unique.bytes, slot))
            if size > SYNC_FIRST:
                draft.sync(names=False)
            choosing()

            def metadata(name: FragmentName) -> bytes:
                return builder.metadata(
                    unique.bytes,
                    name.t1,
                    name.t2,
                    sources,
                    expired=expired,
                    filtered=size <= filters,
                    first_output=first_output,
                )

            while True:
                if span is None and isinstance(draft, OfferedDraft):
                    name = _offered(draft, size, known, unique.hex, metadata)
                    break
                with closing(draft.create(FRAGMENT_METADATA)) as writer:
                    # Merges leave alone what has appeared since a draft got its last file. So this one comes before the choice.
                    chosen = seconds()
                    first, last = span or (later_time(storage, known),) * 2
                    name = FragmentName.new(first, last, unique.hex)
                    writer.write(metadata(name))
                    draft.sync()
                if span or seconds() - chosen <= CHOSEN_S:
                    break
                draft.discard(FRAGMENT_METADATA)
        showing(name)
        draft.commit(str(name))
    finally:
        draft.abandon()
    return name


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


def _write_stream(
    builder: FragmentBuilder,
    codecs: CodecPool,
    cell: StreamedCell,
    writers: dict[int, FileWriter],
    workers: Workers,
    written: Callable[[int], object] | None,
) -> int:
    """Write a cell as its value comes, in memory of some runs, and return the bytes."""
    slot, size, begun = cell.slot, 0, 0
    planned: list[ChunkPlan] = []
    for plan in builder.add(cell.row):
        if plan.slot == slot:
            continue
        for run in plan.runs(RUN_BYTES):
            data = encode(builder.layout, cell.row, plan, *run, codecs)
            writers[plan.slot].write(data)
            size += len(data)
        planned.append(plan)
    chunks = 1 if cell.size is None else -(-cell.size // LONG_CELL_CHUNK)

    def parts() -> Iterator[StreamedBytes]:
        nonlocal begun
        for data in cell.parts:
            yield StreamedBytes(slot, begun, data, chunks)
            begun += len(data)

    def encoded(part: StreamedBytes) -> tuple[StreamedBytes, Encoded]:
        return part, part.encode(builder.layout, codecs)

    whole: ChunkPlan | None = None
    for part, data in workers.map_in_order(encoded, parts()):
        writers[slot].write(data)
        size += len(data)
        if whole is None:
            whole = part.plan
            planned.append(whole)
        else:
            whole.extend(part.plan)
        if written:
            written(len(data))
    if whole is None:
        raise ValueError("a stream without bytes")
    count = whole.count()
    if cell.size is None:
        writers[slot].replace_start(count)
    for plan in planned:
        builder.written(plan)
    return size


def later_time(storage: Storage, known: Iterable[str] = ()) -> int:
    """A timestamp in ms that is later than that of every fragment there is (docs/design.md 4.2).

    It is chosen after the data is written: a flush that took long must not be older than a short one that was committed
    meanwhile. Listing a folder can miss a merged fragment that is just appearing and also those that it replaced. So what the
    record names counts too, and the fragments that the writer has open, `known`.
    """
    names = {*storage.list().folders, *known}
    file = storage.record()
    if file is not None:
        names.update(fragments_in(file.data))
    return _later(names)


def _offered(
    draft: OfferedDraft,
    size: int,
    known: Iterable[str],
    unique: str,
    metadata: Callable[[FragmentName], bytes],
) -> FragmentName:
    """Put a draft in its place under a timestamp that is later than that of every fragment there was when it looked.

    A small one looks afterwards, and is put again if that was too optimistic; a large one looks first.
    """
    names = {*known}
    looked = size > SYNC_FIRST
    if looked:
        names |= _there(draft.look())
    while True:
        chosen = _later(names)
        name = FragmentName.new(chosen, chosen, unique)
        names |= _there(draft.offer(str(name), metadata(name)))
        names.discard(str(name))
        if looked or _latest(names) < chosen:
            return name
        looked = True


def _there(offer: Offer) -> set[str]:
    """Names of what was found, and of what the record has."""
    record = offer.record
    return {*offer.names, *(fragments_in(record.data) if record is not None else ())}


def _latest(names: Iterable[str]) -> int:
    return max((name.t2 for name in map(FragmentName.parse, names) if name), default=-1)


def _later(names: Iterable[str]) -> int:
    """The time now, or one that is later than those of these fragments."""
    now = time.time_ns() // 1_000_000
    chosen = max(now, _latest(names) + 1)
    if 0 < chosen - now <= AHEAD_MS:
        time.sleep((chosen - now) / 1000)
    return chosen
