"""consolidate and vacuum."""

from __future__ import annotations

from tilekv.cli.text import counted
from tilekv.store import open as open_store


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
