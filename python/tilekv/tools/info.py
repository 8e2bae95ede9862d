"""What a store holds, what of it is dead, and what would give its room back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tilekv.clock import milliseconds
from tilekv.engine import Engine
from tilekv.expiry import seen_at
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.read.snapshot import Snapshot

MANY_FRAGMENTS: Final = 8  # a look-up of a missing key searches each of them
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
        Fragments that consolidations have replaced and that are still there.
    superseded_bytes : int
        Bytes of their files.
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
    buffered: int
    expired: int | None

    @property
    def advice(self) -> str:
        """What would pay now, as a sentence; empty when nothing would."""
        if self.old:
            return "convert makes a tilekv store of it, which can be written to"
        parts = []
        if self.fragments > MANY_FRAGMENTS or self.dead_bytes > MUCH_DEAD * self.stored_bytes:
            parts.append(
                f"consolidate would merge {self.fragments} fragments and leave about {self.dead_bytes:,} bytes behind"
            )
        if self.superseded:
            parts.append(
                f"vacuum would give back {self.superseded_bytes:,} bytes, and the past with them"
            )
        return "; ".join(parts)


def describe(
    uri: str, engine: Engine, snapshot: Snapshot, buffered: int, timestamp: int | None = None
) -> Info:
    """Count what a snapshot holds now, or held at a moment."""
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
    superseded = superseded_bytes = 0
    storage = engine.storage
    try:
        for name in engine.opener.superseded():
            superseded_bytes += sum(storage.files(name).values())
            superseded += 1
    except FileNotFoundError:
        pass  # a vacuum is at work: what it has removed so far is not counted
    return Info(
        uri=uri,
        digest=engine.schema.digest,
        old=engine.id is None,
        attrs=tuple(f"{attr.name}: {attr.type_name}" for attr in engine.schema.attrs),
        capacity=engine.schema.capacity,
        fragments=len(fragments),
        cells=sum(fragment.cells for fragment in fragments),
        tombstones=sum(fragment.tombstones for fragment in fragments),
        live=sum(live),
        stored_bytes=sum(fragment.stored_bytes for fragment in fragments),
        dead_bytes=dead,
        superseded=superseded,
        superseded_bytes=superseded_bytes,
        buffered=buffered,
        expired=expired,
    )


def _live(snapshot: Snapshot, now: int) -> list[int]:
    """How many cells of each fragment are the value of a key that has not expired by `now`, in ms; 0: expired or not."""
    if len(snapshot.fragments) == 1 and not now:
        return [snapshot.fragments[0].cells - snapshot.fragments[0].tombstones]
    return Merge(snapshot, now=now).live()
