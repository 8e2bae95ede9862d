"""Where tests of a cluster have their stores: in a folder, or in a bucket on an S3 server of this machine."""

import uuid
from pathlib import Path
from typing import Any

import tilekv
from s3_server import S3Server
from tiledb_cells import live_cells


class Place:
    """Where a test's stores are."""

    def __init__(self, folder: Path, server: S3Server | None) -> None:
        self._folder = folder
        self._server = server
        root = folder if server is None else f"s3://{server.bucket}"
        self.uri = f"{root}/{uuid.uuid4().hex}.kv"
        self.options: dict[str, Any] | None = None if server is None else server.options()

    def open(self, mode: Any = "r", **options: Any) -> tilekv.Store:
        return tilekv.open(self.uri, mode, storage_options=self.options, **options)

    def items(self) -> dict[Any, Any]:
        with self.open() as db:
            assert db.verify() == []
            return dict(db.items())

    def seen_by_tiledb(self) -> dict[bytes, bytes]:
        return live_cells(self.uri, self._folder / "seen.json", self._server)
