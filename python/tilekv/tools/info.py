"""What a store holds, what of it is dead, and what would give its room back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tilekv.clock import milliseconds
from tilekv.engine import Engine
from tilekv.expiry import seen_at
from tilekv.keeper import MOST_VISIBLE
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot
from tilekv.maintenance import Maintenance
from tilekv.record import parsed
from tilekv.tiers import choose, most_behind
from tilekv.vacuuming import outlived

MUCH_DEAD: Final = 0.3  # of the bytes: rewriting two live bytes for one that is dead still pays


@dataclass(frozen=True)
class Info:
    """What a store is and holds, as its handle sees it.

    Attributes
    ----------
    uri, digest : str
    old : bool
        Whether TileDB 1.x wrote it: it is only read then.
    attrs : tuple of str
        The attributes, as `name: dtype`.
    capacity : int
        Cells of a tile.
    fragments : int
    cells : int
        Cells of all fragments: overwritten and deleted keys included.
    tombstones : int
        How many of the cells are deletes.
    live : int
        How many of the cells are the value of a key that has not expired.
    stored_bytes : int
        Bytes of all files of the fragments.
    dead_bytes : int
        How many of those belong to cells that no look-up finds, as near as their share of the cells tells.
    superseded : int
        Fragments that merges have replaced and that are still there.
    superseded_bytes : int
        Bytes of their files.
    outlived, outlived_bytes : int
        Those of them that history no longer needs.
    history : float or None
        For how many seconds upkeep keeps what is superseded; None: for ever.
    mergeable, mergeable_bytes : int
        Fragments that `Store.upkeep` would merge first and that no flush does by itself.
    failure : str
        What the last upkeep behind this handle's flushes has met; empty when it has succeeded.
    buffered : int
        Writes that are not flushed yet.
    expired : int or None
        How many of the cells are the value of a key that has expired; None where entries cannot.
    """

    uri: str
    digest: str
    old: bool
    attrs: tuple[str, ...]
    capacity: int
    fragments: int
    cells: int
    tombstones: int
    live: int
    stored_bytes: int
    dead_bytes: int
    superseded: int
    superseded_bytes: int
    outlived: int
    outlived_bytes: int
    history: float | None
    mergeable: int
    mergeable_bytes: int
    failure: str
    buffered: int
    expired: int | None

    @property
    def advice(self) -> str:
        """What would pay now and is not done by who flushes, as a sentence; empty when nothing would."""
        if self.old:
            return "convert makes a tilekv store of it, which can be written to"
        parts = []
        if self.mergeable:
            parts.append(
                f"upkeep would merge {self.mergeable} fragments, {self.mergeable_bytes:,} bytes"
            )
        if self.outlived:
            parts.append(
                f"upkeep would remove {self.outlived} superseded fragments, {self.outlived_bytes:,} bytes"
            )
        if self.dead_bytes > MUCH_DEAD * self.stored_bytes:
            parts.append(f"consolidate would leave about {self.dead_bytes:,} bytes behind")
        return "; ".join(parts)


def describe(
    uri: str,
    engine: Engine,
    snapshot: Snapshot,
    buffered: int,
    timestamp: int | None = None,
    failure: object = None,
) -> Info:
    """Count what a snapshot holds now, or held at a moment; `failure` is what its handle's upkeep has met."""
    fragments = snapshot.fragments
    expired = None
    live = _live(snapshot, 0)
    if engine.layout.expires >= 0:
        kept = sum(live)
        live = _live(snapshot, seen_at(timestamp) or milliseconds())
        expired = kept - sum(live)
    dead = sum(
        fragment.stored_bytes * (fragment.cells - alive) // fragment.cells
        for fragment, alive in zip(fragments, live, strict=True)
    )
    old = engine.id is None
    history = None if old else Maintenance(engine).history()
    replaced = _Replaced(engine, history)
    mergeable = () if old or timestamp is not None else _mergeable(engine, fragments)
    return Info(
        uri=uri,
        digest=engine.schema.digest,
        old=old,
        attrs=tuple(f"{attr.name}: {attr.type_name}" for attr in engine.schema.attrs),
        capacity=engine.schema.capacity,
        fragments=len(fragments),
        cells=sum(fragment.cells for fragment in fragments),
        tombstones=sum(fragment.tombstones for fragment in fragments),
        live=sum(live),
        stored_bytes=sum(fragment.stored_bytes for fragment in fragments),
        dead_bytes=dead,
        superseded=replaced.fragments,
        superseded_bytes=replaced.stored_bytes,
        outlived=replaced.outlived,
        outlived_bytes=replaced.outlived_bytes,
        history=None if history is None else history / 1000,
        mergeable=len(mergeable),
        mergeable_bytes=sum(fragment.stored_bytes for fragment in mergeable),
        failure="" if failure is None else str(failure),
        buffered=buffered,
        expired=expired,
    )


class _Replaced:
    """What merges have superseded and is still there, and what of it history (ms) no longer needs."""

    def __init__(self, engine: Engine, history: int | None) -> None:
        self.fragments = self.stored_bytes = self.outlived = self.outlived_bytes = 0
        try:
            names = engine.opener.superseded()
            record = engine.opener.record()
            over = set[str]()
            if record is not None:
                # By this clock: that of whatever keeps the files is asked by a write.
                over.update(map(str, outlived(record, parsed(names), history, milliseconds())))
            for name in names:
                size = sum(engine.storage.files(name).values())
                self.fragments += 1
                self.stored_bytes += size
                self.outlived += name in over
                self.outlived_bytes += size * (name in over)
        except FileNotFoundError:
            pass  # a vacuum is at work: what it has removed so far is not counted


def _mergeable(engine: Engine, fragments: Sequence[Fragment]) -> Sequence[Fragment]:
    """What upkeep would merge first, newest first, unless handles that flush do."""
    full = engine.max_fragment_bytes
    groups = [tuple(group) for _, group in groupby(fragments, lambda fragment: fragment.t1)]
    sizes = [sum(fragment.stored_bytes for fragment in group) for group in groups][::-1]
    behind = min(most_behind(sum(sizes)), full)
    sizes = [0 if size >= full else size for size in sizes]
    kept = engine.config.upkeep != "off" and len(fragments) <= MOST_VISIBLE
    if (kept and choose(sizes, behind)) or not (chosen := choose(sizes, full)):
        return ()
    first, last = chosen
    merged = groups[len(groups) - last : len(groups) - first]
    return [fragment for group in merged for fragment in group]


def _live(snapshot: Snapshot, now: int) -> list[int]:
    """How many cells of each fragment are the value of a key that has not expired by `now`, in ms; 0: expired or not."""
    if len(snapshot.fragments) == 1 and not now:
        return [snapshot.fragments[0].cells - snapshot.fragments[0].tombstones]
    return Merge(snapshot, now=now).live()
