"""The stores that fuzzing begins with, by the bytes of their files; the same in every run."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import damage
import tilekv
from fuzz_seals import Files
from old_stores import OldStoreWriter
from tilekv.storage import memory
from tilekv.storage.memory import MemoryStorage
from tilekv.storage.protocol import check_component

TESTS = Path(__file__).parents[1]


def stored(files: Files) -> MemoryStorage:
    """A store in memory that has these files; paths that no file system has are left out."""
    named = {path: data for path, data in files.items() if _is_name(*path.split("/"))}
    files_first = {path for path in named if "/" not in path}
    memory._roots["fuzz"] = damage.root_of(
        {
            path: data
            for path, data in named.items()
            if path.split("/")[0] not in files_first - {path}
        }
    )
    return MemoryStorage("fuzz")


def _is_name(*names: str) -> bool:
    try:
        return all(map(check_component, names))
    except tilekv.InvalidValueError:
        return False


def _files(root: Path) -> Files:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


_found: dict[str, Any] = {}


def goldens() -> dict[str, Files]:
    """The frozen stores of tilekv."""
    if "goldens" not in _found:
        roots = sorted(TESTS.joinpath("golden").glob("*/store"))
        _found["goldens"] = {root.parent.name: _files(root) for root in roots}
    return _found["goldens"]


def old_stores() -> list[Files]:
    """Of every version, plain so that what is inside can be reached; and what TileDB itself wrote, compressed."""
    if "old" not in _found:
        with tempfile.TemporaryDirectory() as folder:
            _found["old"] = list(_write_old_stores(Path(folder)))
    return _found["old"]


def _write_old_stores(folder: Path) -> Iterator[Files]:
    items = [((4, b"key_%d" % i), i, b"value" * i) for i in range(5)]
    for version in range(5):
        for zstd in (False, True)[: 1 + (version > 0)]:
            root = folder / f"{version}{zstd}"
            writer = OldStoreWriter(root, version, zstd_coords=zstd)
            writer.flush(items, 1000)
            yield _files(root)
    for name in ("f1_tutorial", "f3_typed_keys", "f6_compressors", "i1_tutorial"):
        yield _fixture(name, folder)


def _fixture(name: str, folder: Path) -> Files:
    """What TileDB wrote, unpacked into a folder."""
    with tarfile.open(TESTS / "fixtures" / name / "store.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return _files(folder / name)


def consolidated() -> Files:
    """Two consolidations, one over the other, a flush after them, and all that they have superseded."""
    if "consolidated" not in _found:
        with damage.standing_still():
            _found["consolidated"] = damage.consolidated().files
    return _found["consolidated"]


def listed() -> Files:
    """The same of the time before the record."""
    if "listed" not in _found:
        with damage.standing_still():
            _found["listed"] = damage.listed().files
    return _found["listed"]


# --- encrypted ones --------------------------------------------------------------------------------

KEY = b"0123456789abcdeF0123456789abcdeF"
_TAG = 16  # bytes behind what is encrypted


class PlainCipher:
    """Stands for AES-GCM, and encrypts nothing: an attacker who has the key reaches what is behind it."""

    def __init__(self, key: bytes) -> None:
        pass

    def decrypt(self, _iv: bytes, data: bytes, _: None) -> bytes:
        return data[:-_TAG]


def encrypted() -> Files:
    """The encrypted store of TileDB 1.6, with what was encrypted in the clear, as PlainCipher takes it."""
    if "encrypted" not in _found:
        with tempfile.TemporaryDirectory() as folder:
            files = _fixture("i6_encrypted", Path(folder))
        seen: list[tuple[bytes, bytes]] = []

        class Noting:
            def __init__(self, key: bytes) -> None:
                self.aes = AESGCM(key)

            def decrypt(self, iv: bytes, data: bytes, _: None) -> bytes:
                plain = self.aes.decrypt(iv, data, None)
                seen.append((data[:-_TAG], plain))
                return plain

        with (
            mock.patch.object(aead, "AESGCM", Noting),
            tilekv.open(stored(files).uri, key=KEY) as db,
        ):
            assert len(list(db.items())) == len(db)
        for secret, plain in seen:
            files = {path: data.replace(secret, plain) for path, data in files.items()}
        _found["encrypted"] = files
    return _found["encrypted"]
