"""The files of one small fragment in memory, to be changed and opened by the compiled core alone, without a store."""

from __future__ import annotations

from pathlib import Path

import tilekv
from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.base.file import File
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.read.fragment import Fragment

METADATA = "__fragment_metadata.tdb"
FIELDS = 4  # __key, n, blob, __key_type


class FragmentFiles:
    """Ten cells in three tiles, one of them a delete; values of several chunks a tile."""

    def __init__(self, folder: Path) -> None:
        schema = tilekv.Schema([tilekv.Attr("n", "int32"), tilekv.Attr("blob", bytes)], capacity=4)
        with tilekv.open(folder / "s", "x", schema=schema) as db:
            db.put_many([(i, (i, b"%d" % i * 2500)) for i in range(10)])
            db.delete_many([3])
            db.flush()
            self.fragment = db.fragments[0]
            self.name = self.fragment.name
            self.layout = db._layout
        self.files = {path.name: path.read_bytes() for path in (folder / "s" / self.name).iterdir()}

    def open(self, name: str | None = None, **changed: bytes) -> Fragment:
        files = self.files | {f"{stem}.tdb": data for stem, data in changed.items()}
        opened = []
        for _, stem, is_bytes in self.layout.files:
            opened.append(File.memory(files[f"{stem}_var.tdb" if is_bytes else f"{stem}.tdb"]))
        metadata = File.memory(files[METADATA])
        return Fragment(
            self.layout, name or self.name, metadata, opened, ChunkCache(0), CodecPool()
        )
