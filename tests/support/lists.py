"""Consolidations of the time before the record: a fragment in the root, and a `.vac` file that lists what it supersedes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import tilekv
from tilekv.commit import write_fragment
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.merge.merge import Merge
from tilekv.kvcore.merge.merge_source import MergedCells
from tilekv.names import FragmentName, vac_file
from tilekv.record import parsed
from tilekv.storage import Draft
from tilekv.workers import Workers


def vac(path: Path, owner: str) -> Path:
    """The list of a consolidated fragment."""
    return path / f"{owner}.vac"


def vac_bytes(owner: str, fragments: Iterable[str]) -> bytes:
    """What is in it. TileDB wants a '/' in every line; the last one has the checksum of the owner's name and of all lines."""
    lines = "".join(f"/{name}\n" for name in fragments).encode()
    return lines + b"/.crc32c-%08x\n" % crc32c(owner.encode() + b"\n" + lines)


def merge_by_list(path: Path | str, sources: Sequence[str] | None = None) -> str:
    """Consolidate all that is visible, or these, as before there were records; what it made."""
    with (
        tilekv.open(path, "a", config={"kv.sync": False}) as db,
        pytest.MonkeyPatch.context() as patch,
    ):
        engine = db._engine
        storage, opener = engine.storage, engine.opener
        names = parsed(db._open_snapshot().names if sources is None else sources)
        names.sort(key=lambda name: name.order, reverse=True)
        snapshot = opener.assemble([opener.fragment(str(name)) for name in names])
        cells = MergedCells(Merge(snapshot), 1 << 20)
        if not len(cells):
            cells = MergedCells(Merge(snapshot, tombstones=True), 1)
        patch.setattr("tilekv.commit.merged_uuid", uuid.uuid4)
        draft = storage.draft

        def in_the_root(staged: bool) -> Draft:
            return draft()

        patch.setattr(storage, "draft", in_the_root)
        written: list[FragmentName] = []
        with Workers(1) as workers:
            write_fragment(
                storage,
                engine.layout,
                opener.codecs,
                [cells],
                workers,
                span=(min(name.t1 for name in names), max(name.t2 for name in names)),
                sources=snapshot.names,
                showing=written.append,
            )
        owner = str(written[0])
        storage.put(vac_file(owner), vac_bytes(owner, snapshot.names))
    return owner
