"""Work on a store that others do: consolidation and checks in parts, by any executor (docs/design.md 6.13)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, NamedTuple

from tilekv import consolidation
from tilekv.arguments import whole
from tilekv.config import Config
from tilekv.consolidation import Part, Tick, digest_ranges, unstage, write_part
from tilekv.engine import Engine, open_engine
from tilekv.errors import InvalidValueError, StoreReplacedError
from tilekv.executors import checked_executor, run
from tilekv.maintenance import Maintenance
from tilekv.names import FragmentName
from tilekv.probe import Kind, probe
from tilekv.progress import Progress
from tilekv.storage import open_storage

PART_BYTES: Final = 256 << 20  # stored bytes of a part, where nobody says how many there are
MOST_PARTS: Final = 1 << 12


def consolidate(
    uri: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    parts: int | None = None,
    progress: Progress = None,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> bool:
    """Merge all fragments of a store, in parts that others write: processes, or machines that reach the store at the same URI.

    Each part is a range of digests and becomes a fragment; all of them count at once, by one change of the store's record, or
    none does. A part whose process died is written again, by this one. Readers and writers go on meanwhile, and what is flushed
    stays as it is.

    Parameters
    ----------
    uri : str or os.PathLike
    executor : concurrent.futures.Executor, optional
        Who writes the parts: a ProcessPoolExecutor, or ``client.get_executor()`` of dask. Without one this process does.
    parts : int, optional
        How many parts, 1 to 4096; by default one for each 256 MiB of the store's files.
    progress : bool or callable, optional
        True for a line on stderr, or a callable that is told (cells done, cells in all).
    config, storage_options : optional
        As of `open`, for every process.

    Returns
    -------
    bool
        False when there was nothing to merge.

    Raises
    ------
    StoreNotFoundError, ReadOnlyError, FormatError
        When there is no store, or one of another program.
    StoreBusyError
        When another merge is under way, and takes more than a moment.
    CorruptionError
        When a source is damaged; nothing has changed then.
    WrongTypeError, InvalidValueError
        For an executor that is none, and a number of parts out of range.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with tilekv.open("memory://parts", "a") as db:
    ...     for n in range(3):
    ...         db[n] = b"value"
    ...         db.flush()
    >>> with ThreadPoolExecutor(2) as executor:
    ...     tilekv.consolidate("memory://parts", executor=executor, parts=2)
    True
    """
    executor = checked_executor(executor)
    if parts is not None:
        parts = whole("parts", parts)
        if not 1 <= parts <= MOST_PARTS:
            raise InvalidValueError(f"parts is 1 to {MOST_PARTS}, not {parts}")
    options = Config.of(config)
    if storage_options is None:
        storage_options = options.storage_options(uri)
    engine = _engine(uri, options, storage_options)

    def write(
        maintenance: Maintenance, merged: Part, tick: Tick, written: list[FragmentName]
    ) -> None:
        job = _Job(engine.storage.uri, engine.id, dict(options), storage_options)
        _write_parts(maintenance, _parts(maintenance, merged, parts), job, executor, tick, written)
        if not written:  # nothing is left: then a delete stays, which no part knows of
            write_part(maintenance, merged, tick, written)

    return consolidation.consolidate(engine, progress, write)


class _Job(NamedTuple):
    """What every process is told of a store."""

    uri: str
    id: str | None
    config: Mapping[str, object]
    storage_options: Mapping[str, object] | None


def _engine(
    uri: str | os.PathLike[str], config: Config, storage_options: Mapping[str, object] | None
) -> Engine:
    """An engine that may write; of a store that there is."""
    found = probe(open_storage(uri, False, storage_options))
    return open_engine(found, "a" if found.kind in (Kind.TILEKV, Kind.OLD) else "r", None, config)


def _parts(maintenance: Maintenance, merged: Part, count: int | None) -> list[Part]:
    """A merge cut into ranges."""
    if count is None:
        stored = sum(f.stored_bytes for f in maintenance.snapshot(merged.sources).fragments)
        count = min(max(-(-stored // PART_BYTES), 1), MOST_PARTS)
    return [merged._replace(low=low, high=high) for low, high in digest_ranges(count)]


def _write_parts(
    maintenance: Maintenance,
    parts: Sequence[Part],
    job: _Job,
    executor: Executor | None,
    tick: Tick,
    written: list[FragmentName],
) -> None:
    total = sum(f.cells for f in maintenance.snapshot(parts[0].sources).fragments)
    made = 0

    def cells() -> int:
        return total * made // len(parts)

    def done(names: list[FragmentName]) -> None:
        nonlocal made
        made += 1
        written.extend(names)

    def here(task: tuple[_Job, Part]) -> list[FragmentName]:
        names: list[FragmentName] = []
        begun = cells()
        try:
            write_part(maintenance, task[1], lambda read: tick(begun + read), names)
        except BaseException:
            written.extend(names)
            raise
        return names

    tasks = [(job, part) for part in parts]
    run(executor, _written, tasks, done, here=here, waiting=lambda: tick(cells()))


def _written(task: tuple[_Job, Part]) -> list[FragmentName]:
    """Put a part on the stage, in whatever process this is; the names of what is there now."""
    job, part = task
    engine = _engine(job.uri, Config.of(job.config), job.storage_options)
    if engine.id != job.id:
        raise StoreReplacedError(f"{job.uri} was replaced: nothing was merged")
    maintenance = Maintenance(engine)
    names: list[FragmentName] = []
    try:
        write_part(maintenance, part, lambda read: None, names)
    except BaseException:
        with suppress(Exception):
            unstage(maintenance, names)
        raise
    return names
