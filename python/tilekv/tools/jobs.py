"""What many processes write and one of them commits, all of it at once: a job (docs/design.md 6.14).

A part is written like a flush, but onto the stage, where nobody sees it, as what a merge makes is. The commit is one change of
the store's record, which names every fragment of the job. So a part that was begun twice counts once, and a job that died not at
all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from tilekv.arguments import is_one_of
from tilekv.clock import milliseconds
from tilekv.commit import Expected, later_time, write_fragment
from tilekv.config import Config
from tilekv.engine import DEFAULT_SCHEMA, Engine, create, open_engine
from tilekv.errors import (
    InvalidValueError,
    StoreExistsError,
    StoreReplacedError,
    shown,
)
from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.maintenance import Maintenance
from tilekv.names import FragmentName, is_of_job, job_uuid
from tilekv.probe import Kind, Probe, probe
from tilekv.record import parsed
from tilekv.schema import Schema
from tilekv.storage import check_writable, open_storage
from tilekv.store import Store
from tilekv.workers import Workers

MODES: Final = ("error", "append", "overwrite")
MOST_PARTS: Final = 1 << 24  # three bytes of a fragment's name
_TOKEN_BYTES: Final = 6


class Job(NamedTuple):
    """What everybody who writes a part of a job is told; it can be pickled.

    Attributes
    ----------
    uri : str
        Where the parts are written: a store, or one that is being made.
    id : str
        That store's.
    moment : int
        When all of it counts as written, in ms since 1970: later than what was visible when the job began.
    token : bytes
        What is in the names of its fragments, and of no other's.
    place : str
        Where a store appears with the commit; empty when the parts go into one that is there.
    replace : bool
        Whether it takes the place of a store there.
    config, storage_options : mapping
        As of `tilekv.open`.
    """

    uri: str
    id: str | None
    moment: int
    token: bytes
    place: str
    replace: bool
    config: Mapping[str, object]
    storage_options: Mapping[str, object] | None


def check_mode(mode: object) -> None:
    """InvalidValueError when it is none of `MODES`."""
    if not is_one_of(mode, MODES):
        raise InvalidValueError(f"mode is one of {', '.join(MODES)}, not {shown(mode)}")


def begin_job(
    uri: str | os.PathLike[str],
    mode: str,
    schema: Schema | None = None,
    config: Mapping[str, object] | Config | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Job:
    """Begin a job. Nobody sees anything of it before its commit.

    Parameters
    ----------
    mode : {"error", "append", "overwrite"}
        What becomes of a store that is there: an error; it gets the entries too; the new store takes its place. With "append"
        one is made where there is none.
    schema : Schema, optional
        Of a store that is made; one attribute of bytes unless given. One that is there must have the same attributes, by name.

    Raises
    ------
    StoreExistsError
        When there is something else, or a store, and the mode does not say what becomes of it.
    InvalidValueError
        When the store that is there has other attributes.
    """
    check_mode(mode)
    options = Config.of(config)
    if storage_options is None:
        storage_options = options.storage_options(uri)
    storage = open_storage(uri, options.sync, storage_options)
    check_writable(storage)
    found = probe(storage)
    told = dict(options), storage_options
    token = os.urandom(_TOKEN_BYTES)
    if mode == "append" and found.kind not in (Kind.NOTHING, Kind.EMPTY):
        engine = open_engine(found, "a", None, options)
        check_fits(schema, engine.schema)
        return Job(storage.uri, engine.id, later_time(storage), token, "", False, *told)
    _check_free(found, mode)
    build = storage.build()
    try:
        place = probe(open_storage(build.uri, options.sync, storage_options))
        made = create(place, schema or DEFAULT_SCHEMA)
        assert made is not None  # the name is random
        engine = Engine(made, options)
    except BaseException:
        build.abandon()
        raise
    replace = mode == "overwrite"
    return Job(build.uri, engine.id, milliseconds(), token, storage.uri, replace, *told)


def check_fits(wanted: Schema | None, there: Schema) -> None:
    """InvalidValueError when a store that gets more entries has other attributes than they do."""
    if wanted is None:
        return
    given, names = ({attr.name for attr in schema.attrs} for schema in (wanted, there))
    if given != names:
        raise InvalidValueError(
            f"the store has the attributes {', '.join(sorted(names))}, and what is to be written {', '.join(sorted(given))}"
        )


def _check_free(found: Probe, mode: str) -> None:
    """Whether a store can be made there."""
    if found.damage:
        raise found.damage
    allowed = {Kind.NOTHING, Kind.EMPTY} | ({Kind.TILEKV} if mode == "overwrite" else set())
    if found.kind not in allowed:
        what = "a store" if found.kind is Kind.TILEKV else "something that is no tilekv store"
        raise StoreExistsError(f"there is {what} at {found.storage.uri} already")


def write_part(job: Job, part: int, fill: Callable[[Store], object]) -> list[str]:
    """Write a part, in any process; the names of its fragments, which are durable and which nobody sees.

    Parameters
    ----------
    part : int
        Its number, less than 2^24. Of the entries of one key those of the last part count.
    fill : callable
        Puts the entries into a store, which sees none that are there. What `fill` raises is raised, and nothing is left.
    """
    if not 0 <= part < MOST_PARTS:
        raise InvalidValueError(f"a job has at most {MOST_PARTS} parts")
    options = Config.of(job.config)
    engine = _PartEngine(_found(job, options), options)
    _check_identity(job, engine)
    engine.job, engine.part = job, part
    try:
        with _PartStore(job.uri, "a", engine, None, options, job.storage_options) as store:
            try:
                fill(store)
            except BaseException:
                store.close(discard=True)
                raise
    except BaseException:
        with suppress(Exception):
            engine.storage.reclaim(engine.storage.retire(map(str, engine.written)))
        raise
    return [str(name) for name in engine.written]


def commit_job(job: Job, names: Iterable[str]) -> None:
    """Let what the parts have written count, all of it at once; again, by whoever cannot know whether it was done, is harmless.

    Raises
    ------
    StoreExistsError
        When somebody else has made a store in the place meanwhile.
    StoreReplacedError, TileKVError
        When the store, or some of what was written, is not there any more: nothing counts.
    """
    options = Config.of(job.config)
    if job.place and _has_appeared(job, options):
        return
    engine = open_engine(_found(job, options), "a", None, options)
    _check_identity(job, engine)
    outputs = sorted(parsed(names), key=lambda name: name.order)
    if outputs:
        Maintenance(engine).add(outputs)
    _remove_strays(job, engine)
    if not job.place:
        return
    build = open_storage(job.place, options.sync, job.storage_options).build(job.uri)
    done = build.commit(job.replace)
    build.abandon()  # what it has taken the place of
    if not done:
        raise StoreExistsError(
            f"somebody has made a store at {job.place} meanwhile: nothing was written"
        )


def withdraw_job(job: Job) -> None:
    """Give up a job, unless its commit was tried: remove what was written. What a part still writes goes by its age, with a
    vacuum. Never raises."""
    options = Config.of(job.config)
    with suppress(Exception):
        if job.place:
            open_storage(job.place, options.sync, job.storage_options).build(job.uri).abandon()
        else:
            _remove_strays(job, open_engine(_found(job, options), "a", None, options))


def _found(job: Job, options: Config) -> Probe:
    return probe(open_storage(job.uri, options.sync, job.storage_options))


def _check_identity(job: Job, engine: Engine) -> None:
    if engine.id != job.id:
        raise StoreReplacedError(f"{job.uri} was replaced since the job began: nothing was written")


def _has_appeared(job: Job, options: Config) -> bool:
    found = probe(open_storage(job.place, options.sync, job.storage_options))
    return found.kind is Kind.TILEKV and Engine(found, options).id == job.id


def _remove_strays(job: Job, engine: Engine) -> None:
    """Remove what parts have staged that nobody commits: of processes that died, or were slower than their second attempt."""
    storage = engine.storage
    record = engine.opener.record()
    made = {name for commit in record.commits for name in commit.outputs} if record else set()
    strays = [name for name in parsed(storage.staged()) if is_of_job(name, job.token)]
    storage.reclaim(storage.retire(str(name) for name in strays if name not in made))


class _PartEngine(Engine):
    """Flushes onto the stage."""

    job: Job
    part: int

    def __init__(self, found: Probe, config: Config) -> None:
        super().__init__(found, config)
        self.written: list[FragmentName] = []

    def flush(
        self,
        source: CellSource,
        snapshot: Snapshot,
        workers: Workers,
        showing: Callable[[FragmentName], object],
    ) -> None:
        """Write the cells as a fragment of the part, later than those before it."""

        def staging(name: FragmentName) -> None:
            self.written.append(name)
            showing(name)

        write_fragment(
            self.storage,
            self.layout,
            self.opener.codecs,
            [source],
            workers,
            span=(self.job.moment, self.job.moment),
            unique=job_uuid(self.part, len(self.written), self.job.token),
            keys=Expected(len(source)),
            filters=self.config.filters,
            showing=staging,
        )

    def has_appeared(self, name: FragmentName) -> bool:
        """Whether it is on the stage."""
        return str(name) in self.storage.staged()

    def in_front(self, snapshot: Snapshot, name: FragmentName) -> Snapshot:
        """The same: who writes a part does not read it."""
        return snapshot


class _PartStore(Store):
    """What a part is put into: it sees nothing of the store, and leaves its upkeep to others."""

    def _keeps(self) -> bool:
        return False

    def _look(self, known: Snapshot | None = None) -> Snapshot:
        return self._engine.opener.assemble(())
