"""A storage in memory whose fragments are elsewhere: all but their metadata is had by rounds of requests, which are counted."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence

import pytest

from tilekv.kvcore.base.file import File
from tilekv.names import FRAGMENT_METADATA
from tilekv.storage.memory import MemoryStorage
from tilekv.storage.ranges import Range, RangeReader


class Elsewhere:
    """What was asked for, and what may go wrong."""

    def __init__(self) -> None:
        self.files: dict[Hashable, bytes] = {}
        self.lock = threading.Lock()
        self.failures: list[BaseException] = []  # raised by the rounds to come, the last first
        self.reader = RangeReader(self.fetch)
        self.near = 0  # bytes of a file that is here, as the metadata is
        self.clear()

    def clear(self) -> None:
        self.rounds = self.requests = self.bytes = 0

    def fetch(self, wanted: Sequence[Range]) -> Sequence[bytes]:
        with self.lock:
            self.rounds += 1
            self.requests += len(wanted)
            self.bytes += sum(each.n for each in wanted)
            if self.failures:
                raise self.failures.pop()
        return [self.files[file][offset : offset + n] for file, offset, n in wanted]

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have every store in memory read so."""
        whole = MemoryStorage.open_files

        def open_files(storage: MemoryStorage, folder: str, mmap: bool) -> dict[str, File]:
            found = whole(storage, folder, mmap)
            for name, file in found.items():
                if name != FRAGMENT_METADATA and file.size > self.near:
                    self.files[folder, name] = file.read(0, file.size)
                    found[name] = File.remote(file.size, self.reader, (folder, name))
            return found

        monkeypatch.setattr(MemoryStorage, "open_files", open_files)
