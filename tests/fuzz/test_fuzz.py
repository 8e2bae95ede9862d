"""A short run of the fuzzer, the same every time, in a process of its own: a crash is a failed test.

`make fuzz SECONDS=...` is the long one.
"""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
from cryptography.hazmat.primitives.ciphers import aead

import fuzzer
import tilekv
from fuzz_samples import KEY, PlainCipher, consolidated, encrypted, listed, stored
from fuzz_seals import sealed_store
from fuzz_stores import Stores, unpacked
from fuzz_targets import Target
from tilekv import CorruptionError

SUPPORT = Path(__file__).parents[1] / "support"


def test_nothing_is_found(tally: Callable[..., None]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fuzzer", "--short"],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.search("tilekv: ([0-9]+) fuzz executions", done.stdout)
    assert printed
    tally("fuzz executions", int(printed[1]))


class Planted(Target):
    """Fails for a number that is too large."""

    name = "planted"

    def seeds(self) -> Sequence[bytes]:
        return [bytes(8)]

    def run(self, data: bytes) -> None:
        if data[:1] != b"\0":
            raise CorruptionError("file", 0, "refused")
        [0][int.from_bytes(data[4:8], "little")]


def test_a_planted_bug_is_found() -> None:
    found = fuzzer.Fuzzer(Planted(), random.Random(1), fuzzer.Slot())
    found.start()

    def run() -> None:
        for _ in range(1000):
            found.step()

    with pytest.raises(fuzzer.Finding, match="IndexError"):
        run()


def test_seals_are_those_that_tilekv_writes() -> None:
    for data in Stores().seeds():
        files = unpacked(data)
        sealed = sealed_store(files)
        for path in [path for path in files if "json" in path or "/record-" in path]:
            assert json.loads(sealed.pop(path)) == json.loads(files.pop(path))
        assert sealed == files


def test_seals_hide_what_was_changed() -> None:
    """A changed byte is read, and not refused: what is behind the checksums is reached."""
    # Without a Bloom filter, and with one.
    files, _ = (
        one for one in map(unpacked, Stores().seeds()) if any("point" in path for path in one)
    )
    (path, *_) = (path for path in files if path.endswith("blob_var.tdb"))
    changed = bytearray(files[path])
    changed[-21] ^= 1  # the last of its bytes, before the trailer
    with (
        tilekv.open(stored(files | {path: bytes(changed)}).uri) as db,
        pytest.raises(CorruptionError),
    ):
        list(db.items())
    with tilekv.open(stored(sealed_store(files | {path: bytes(changed)})).uri) as db:
        assert len(list(db.items())) == len(db)


def test_what_was_encrypted_is_in_the_clear() -> None:
    """So that mutations reach it: PlainCipher reads all of it."""
    with (
        mock.patch.object(aead, "AESGCM", PlainCipher),
        tilekv.open(stored(encrypted()).uri, key=KEY) as db,
    ):
        assert len(list(db.items())) == len(db) > 50


def test_the_consolidated_store_is_always_the_same() -> None:
    assert ".tilekv/record-5" in consolidated()
    names = sorted(path for path in listed() if path.endswith(".vac"))
    assert names == [
        f"__1700000000000_170000000000{n}_{2 * n + 2:08x}000040000000000000000000.vac"
        for n in (1, 2)
    ]
