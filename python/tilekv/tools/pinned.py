"""What a store shows at a moment, for many processes that read it: all of them see the same (docs/design.md 6.14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tilekv.arguments import whole
from tilekv.config import Config
from tilekv.consolidation import digest_ranges
from tilekv.engine import Engine, open_engine
from tilekv.errors import InvalidValueError, StoreReplacedError
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.probe import probe
from tilekv.storage import open_storage
from tilekv.store import Store

PART_BYTES: Final = 128 << 20  # stored bytes of a range, where nobody says how many there are
MOST_RANGES: Final = 1 << 20


class Pinned(NamedTuple):
    """A snapshot that travels: the names of the fragments that are visible at a moment. It can be pickled.

    Attributes
    ----------
    names : tuple of str
        Newest first.
    moment : int
        In ms since 1970: what expires later has not.
    stored_bytes : int
        Of all fragments.
    """

    uri: str
    id: str | None
    names: tuple[str, ...]
    moment: int
    stored_bytes: int
    config: Mapping[str, object]
    storage_options: Mapping[str, object] | None

    @classmethod
    def of(cls, store: Store) -> Pinned:
        """What an open handle shows of what was flushed."""
        fragments = store.fragments
        return cls(
            store.uri,
            store._engine.id,
            tuple(fragment.name for fragment in fragments),
            store._engine.opener.looked,
            sum(fragment.stored_bytes for fragment in fragments),
            dict(store._config),
            store._storage_options,
        )

    def handle(self) -> Store:
        """A handle, in any process, that shows the same.

        Raises
        ------
        StoreReplacedError
            When another store has taken its place.
        SnapshotGone
            While reading: when what it shows was merged, and removed since; ``kv.history`` keeps it.
        """
        options = Config.of(self.config)
        found = probe(open_storage(self.uri, options.sync, self.storage_options, cached=True))
        engine = open_engine(found, "r", None, options)
        if engine.id != self.id:
            raise StoreReplacedError(f"{self.uri} was replaced since it was looked at")
        return _PinnedStore(self, engine, options)

    def ranges(self, count: int | None = None) -> list[tuple[int, int]]:
        """Ranges of digests with about as many keys each; one for each 128 MiB unless `count` says."""
        if count is None:
            count = min(-(-self.stored_bytes // PART_BYTES), MOST_RANGES)
        elif not 1 <= whole("npartitions", count) <= MOST_RANGES:
            raise InvalidValueError(f"npartitions is 1 to {MOST_RANGES}, not {count}")
        return digest_ranges(max(count, 1))


class _PinnedStore(Store):
    """A handle that shows that and nothing else, whatever becomes of the store."""

    def __init__(self, pinned: Pinned, engine: Engine, options: Config) -> None:
        self._pinned = pinned
        super().__init__(pinned.uri, "r", engine, pinned.moment, options, pinned.storage_options)

    def _look(self, known: Snapshot | None = None) -> Snapshot:
        opener, names = self._engine.opener, self._pinned.names
        opened = known.opened if known else {}
        if len(names) <= opener.eager:
            opener.storage.expect(names)
        return opener.assemble(opened.get(name, name) for name in names)
