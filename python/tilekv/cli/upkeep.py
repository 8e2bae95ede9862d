"""consolidate, vacuum and convert."""

from __future__ import annotations

from tilekv.cli.text import counted
from tilekv.legacy.cipher import KEY_BYTES
from tilekv.store import open as open_store
from tilekv.tools.convert import convert


def consolidate_store(uri: str, vacuum: bool, shown: bool) -> int:
    """Merge all fragments, and remove what was merged if asked; say what became of the store."""
    with open_store(uri) as db:
        before = db.info()
    with open_store(uri, "a") as db:
        db.consolidate(vacuum=vacuum, progress=shown)
        after = db.info()
    print(
        f"{counted(before.fragments, 'fragment')}, {before.stored_bytes:,} bytes -> "
        f"{counted(after.fragments, 'fragment')}, {after.stored_bytes:,} bytes"
    )
    if after.advice:
        print(after.advice)
    return 0


def vacuum_store(uri: str, shown: bool) -> int:
    """Remove what consolidations have replaced; say how much that was."""
    with open_store(uri) as db:
        before = db.info()
    with open_store(uri, "a") as db:
        db.vacuum(progress=shown)
    print(f"removed {counted(before.superseded, 'fragment')}, {before.superseded_bytes:,} bytes")
    return 0


def convert_store(old: str, new: str, key_file: str | None, expires: bool, shown: bool) -> int:
    """Copy a store into a new one, whose entries may expire if asked; say how much that was."""
    key = None
    if key_file is not None:
        with open(key_file, "rb") as file:
            key = file.read(KEY_BYTES + 1)
        if len(key) > KEY_BYTES:
            key = key.removesuffix(b"\n")  # as an editor ends the only line
    n = convert(old, new, key, shown, expires)
    print(f"converted {counted(n, 'entry', 'entries')}")
    return 0
