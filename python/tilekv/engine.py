"""A store on a storage: creating it, opening it, flushing into it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from tilekv.clock import milliseconds
from tilekv.commit import Expected, write_fragment
from tilekv.config import Config
from tilekv.descriptor import Descriptor
from tilekv.errors import (
    CorruptionError,
    FormatError,
    InvalidValueError,
    ReadOnlyError,
    StoreExistsError,
    StoreNotFoundError,
    StoreReplacedError,
    TileKVError,
)
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource
from tilekv.kvcore.hashing.digest import DIGESTS
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.names import (
    ARRAY_SCHEMA,
    DESCRIPTOR,
    KV_SCHEMA,
    LOCK,
    FragmentName,
)
from tilekv.opener import Opener
from tilekv.probe import Kind, Probe, probe
from tilekv.record import parsed
from tilekv.schema import OLD_DIGEST, Attr, Schema
from tilekv.storage import Listing, Storage, in_bucket
from tilekv.version import VERSION
from tilekv.workers import Workers

# Bytes of the largest fragment that is merged, where kv.max_fragment_bytes does not say. In a bucket whoever looks a key up in a
# fragment for the first time fetches all of its metadata, 2 bytes a key (`python -m bench.scale`).
MOST_BYTES: Final = 16 << 30
MOST_BYTES_IN_BUCKET: Final = 1 << 30

DEFAULT_SCHEMA = Schema([Attr("value", bytes)])


class Engine:
    """An open store, without its buffer: what a handle reads from and flushes into.

    Parameters
    ----------
    found : Probe
        What is there. The first look at the fragments begins with its listing.
    key : bytes or str, optional
        Of an encrypted store of TileDB 1.x.
    ignore_newer : bool
        Show the store without what TileDB 2 has added to it.

    Raises
    ------
    StoreNotFoundError, FormatError, CorruptionError
        When there is no store.
    InvalidValueError, WrongTypeError, MissingPackageError
        When the key, or the lack of one, does not fit.
    """

    def __init__(
        self,
        found: Probe,
        config: Config,
        key: bytes | str | None = None,
        ignore_newer: bool = False,
    ) -> None:
        self.storage = storage = found.storage
        self.config = config
        self.key = key
        self.ignore_newer = ignore_newer
        most = MOST_BYTES_IN_BUCKET if in_bucket(storage) else MOST_BYTES
        self.max_fragment_bytes = config.max_fragment_bytes or most
        self.sizes: dict[
            str, int
        ] = {}  # bytes of fragments, by name, that upkeep has asked for: they never change
        reading = config.cache_bytes, config.mmap, config.max_mapped_fragments
        if found.kind is Kind.OLD:
            from tilekv.legacy.opener import OldOpener, OldStore

            old = OldStore(found, key, config.mmap, ignore_newer)
            self.id: str | None = None
            self.schema = old.schema
            self.layout = layout_of(old.schema, False)
            self.opener: Opener = OldOpener(old, self.layout, *reading)
            return
        if not found.files and found.kind is Kind.TILEKV:
            storage.ahead()
        descriptor = _described(found)
        if key is not None:
            raise InvalidValueError(
                f"{storage.uri} is not encrypted: key= is for stores that TileDB 1.x encrypted"
            )
        self.id = descriptor.id
        if descriptor.schema is not None:
            self.schema = Schema._from_file(descriptor.schema, descriptor, DESCRIPTOR)
        else:
            schema = _schema_file(found, KV_SCHEMA, descriptor)
            self.schema = Schema._from_file(schema, descriptor, KV_SCHEMA)
            _schema_file(found, ARRAY_SCHEMA, descriptor)
        self.layout = layout_of(self.schema, descriptor.numbers)
        self.opener = Opener(storage, self.layout, *reading, descriptor.id, ignore_newer, found)
        self.opener.recorded = descriptor.record

    def flush(
        self,
        source: CellSource,
        snapshot: Snapshot,
        workers: Workers,
        showing: Callable[[FragmentName], object],
    ) -> None:
        """Write the cells as the newest fragment, newer than all of the snapshot.

        `workers`, `showing`, and more errors: see write_fragment().

        Raises
        ------
        StoreReplacedError
            When another store has taken the place of the one that was opened.
        """
        # A draft in a bucket looks itself, when all is in its place.
        looks = in_bucket(self.storage)
        if not looks:
            self.check_identity()
        try:
            name = write_fragment(
                self.storage,
                self.layout,
                self.opener.codecs,
                [source],
                workers,
                keys=Expected(len(source)),
                filters=self.config.filters,
                known=snapshot.names,
                showing=showing,
            )
        except FileNotFoundError:
            if looks:
                self.check_identity()
            raise
        # The flush has happened: what only spares others something does not make it fail.
        with suppress(OSError, MemoryError, TileKVError):
            self.storage.spare((*snapshot.names, str(name)))

    def has_appeared(self, name: FragmentName) -> bool:
        """Whether a fragment is in the store, or was merged into one that is."""
        storage = self.storage
        folders = storage.list().folders
        if str(name) in folders or str(name) in storage.past():
            return True
        record = self.opener.record()
        if record is not None and name.short in record.superseded():
            return True
        others = filter(None, map(FragmentName.parse, folders))
        around = (str(other) for other in others if other.t1 <= name.t1 <= other.t2)
        return any(str(name) in self.opener.fragment(other).sources for other in around)

    def newest(self, snapshot: Snapshot, name: FragmentName) -> Snapshot:
        """The newest state, in which a fragment has appeared that this handle has flushed."""
        names = {*snapshot.names, str(name)}
        with suppress(OSError, MemoryError, TileKVError):
            there = {str(other) for other in parsed(self.storage.list().folders)}
            # Others have done nothing, as far as two calls tell.
            if there != names or self.storage.record_seq() != self.opener.seq:
                return self.opener.snapshot(None, snapshot)
        return self.in_front(snapshot, name)

    def in_front(self, snapshot: Snapshot, name: FragmentName) -> Snapshot:
        """The snapshot with a fragment that has appeared since. What cannot be opened now is opened when it is next needed."""
        if str(name) in snapshot.names:
            return snapshot
        newest: Fragment | str = str(name)
        try:
            newest = self.opener.fragment(str(name))
        except FileNotFoundError:
            # Merged and vacuumed since the commit: only the newest state still has what was written.
            with suppress(OSError, MemoryError):
                return self.opener.snapshot()
        except (OSError, MemoryError):
            pass
        opened = snapshot.opened
        return self.opener.assemble((newest, *(opened.get(name, name) for name in snapshot.names)))

    def check_identity(self) -> None:
        """StoreReplacedError when another store has taken the place of the one that was opened."""
        old = self.id is None and probe(self.storage).kind is Kind.OLD
        now = None if old else _descriptor(self.storage).id
        if now != self.id:
            raise StoreReplacedError(
                f"{self.storage.uri} was replaced by another store since it was opened; "
                "what was not flushed is still in this handle"
            )


def layout_of(schema: Schema, numbers: bool) -> Layout:
    """What the compiled core needs of a schema, and whether equal numbers are one key."""
    return Layout(
        [field[:4] for field in schema.fields],
        schema.capacity,
        DIGESTS[schema.digest],
        schema.offsets_pipeline,
        schema.coords_pipeline,
        numbers,
    )


def create(
    found: Probe, schema: Schema, replace: bool = False, numbers: bool = True
) -> Probe | None:
    """Make an empty store: whole and durable, or not at all.

    Parameters
    ----------
    replace : bool
        Put it into the place of a store that is there.
    numbers : bool
        Whether equal numbers are one key of it. False only for the keys of a store that keeps exact types.

    Returns
    -------
    Probe
        The new store; None when one is there already, perhaps since a moment ago.

    Raises
    ------
    CorruptionError, StoreExistsError
        When a store without its descriptor, or something else, is in its place: that is never touched.
    InvalidValueError
        For the digest of old stores.
    """
    storage = found.storage
    if schema.digest == OLD_DIGEST:
        raise InvalidValueError(
            f"no store is created with the digest {OLD_DIGEST!r}, which makes keys collide: use 'blake2b'"
        )
    if found.damage:
        raise found.damage
    if found.kind not in (Kind.NOTHING, Kind.EMPTY, Kind.TILEKV):
        raise StoreExistsError(
            f"{storage.uri} is not empty and not a tilekv store; choose another place"
        )
    data = schema.to_file()
    descriptor = schema.describe(uuid.uuid4().hex, VERSION, numbers)
    if in_bucket(storage):
        descriptor = descriptor.with_schema(data)
    files = {
        KV_SCHEMA: data,
        ARRAY_SCHEMA: data,
        LOCK: b"",
        DESCRIPTOR: descriptor.to_bytes(),
    }
    moment = milliseconds()
    if not storage.create(files, replace):
        return None
    return Probe(storage, moment, Listing((), tuple(sorted(files))), Kind.TILEKV, files=files)


def open_engine(
    found: Probe,
    mode: str,
    schema: Schema | None,
    config: Config,
    key: bytes | str | None = None,
    ignore_newer: bool = False,
    default: Schema = DEFAULT_SCHEMA,
) -> Engine:
    """Open or create by mode: r, a, x or w (docs/design.md 2.1). default: the schema of a store that is created without one."""
    storage = found.storage
    if mode != "r" and found.kind is Kind.OLD:
        _refuse_to_write(found, mode)
    if mode == "x" or mode == "w":
        made = create(found, schema or default, replace=mode == "w")
        if made is None:
            raise StoreExistsError(
                f"there is a store at {storage.uri} already: open it with mode 'a', "
                "or with 'w' to replace it"
            )
        found = made
    elif mode == "a" and found.kind is not Kind.TILEKV:
        found = create(found, schema or default) or probe(storage)
    engine = Engine(found, config, key, ignore_newer)
    if mode in "ra" and schema is not None and schema != engine.schema:
        raise InvalidValueError(
            f"{storage.uri} has another schema: {engine.schema!r}, not {schema!r}; "
            "leave schema= out to use the store's own"
        )
    return engine


def _refuse_to_write(found: Probe, mode: str) -> NoReturn:
    """To what TileDB wrote."""
    from tilekv.legacy.opener import check_old_format

    storage = found.storage
    wrong = ReadOnlyError if mode == "a" else StoreExistsError
    try:
        check_old_format(found)
    except FormatError:
        raise wrong(
            f"{storage.uri} is an array of TileDB 2, which tilekv does not write to; a store that goes with it can be in a "
            f"folder within: {storage.uri}/.kv"
        ) from None
    raise wrong(
        f"{storage.uri} was written by TileDB 1.x, and tilekv does not write to it"
    ).advised(
        "open it with mode='r' (a Map with TILEDB_READ), or make a tilekv store of it with "
        f"tilekv.convert({storage.uri!r}, new)",
        "convert makes a tilekv store of it",
    )


def _described(found: Probe) -> Descriptor:
    """The descriptor of what was found; see _descriptor()."""
    if found.files:
        return Descriptor.from_bytes(found.files[DESCRIPTOR])
    if found.kind in (Kind.NOTHING, Kind.EMPTY, Kind.LOST):
        raise _refusal(found)
    return _descriptor(found.storage)  # of FOREIGN too: a link of that name is damage


def _descriptor(storage: Storage) -> Descriptor:
    """The descriptor that is there now.

    Raises
    ------
    StoreNotFoundError
        When there is no store.
    CorruptionError
        When the descriptor is damaged, or missing from a store of tilekv's.
    """
    try:
        return Descriptor.from_bytes(storage.read(DESCRIPTOR))
    except FileNotFoundError:
        pass
    raise _refusal(probe(storage))


def _refusal(found: Probe) -> CorruptionError | StoreNotFoundError:
    """Why what has no descriptor is not opened."""
    if found.damage:
        return found.damage
    uri = found.storage.uri
    if found.kind in (Kind.NOTHING, Kind.EMPTY):
        return StoreNotFoundError(f"there is no store at {uri}").advised(
            "create one with mode 'a' or 'x'", "import and put create one"
        )
    return StoreNotFoundError(f"{uri} is not a tilekv store: it has no {DESCRIPTOR}")


def _schema_file(found: Probe, name: str, descriptor: Descriptor) -> bytes:
    """A file that every store has. Without it the store is damaged: it is not one that could be created."""
    try:
        data = found.files[name] if found.files else found.storage.read(name)
        try:
            descriptor.check_schema(data, name)
        except CorruptionError:
            if not found.storage.distrust(name):
                raise
            data = found.storage.read(name)
            descriptor.check_schema(data, name)
        return data
    except FileNotFoundError:
        reason = f"it is missing from the store {found.storage.uri}"
        raise CorruptionError(name, None, reason) from None
