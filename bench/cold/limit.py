"""A process that may have so much memory, the system's cache of its files included: a control group of Linux.

It is made below the group that this process is in already (version 1 of control groups) or beside it (version 2, where only
groups without processes have children with limits), and is removed at the end. Neither gives a process more than it had.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import NotOffered


def _groups() -> tuple[Path, str] | None:
    """Where a group can be made, and the file of its limit; None without control of memory."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        mounted = Path(before.split()[4])
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in own:
            return mounted / own["memory"], "memory.limit_in_bytes"
        if kind == "cgroup2" and "" in own:
            place = mounted / own[""]
            place = place if place == mounted else place.parent
            with contextlib.suppress(OSError):
                if "memory" in (place / "cgroup.subtree_control").read_text().split():
                    return place, "memory.max"
    return None


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Path]:
    """A group whose processes together have at most so many bytes, until the context ends.

    Raises
    ------
    NotOffered
        Where that is not allowed; the message says why.
    """
    try:
        groups = _groups()
        if groups is None:
            raise NotOffered("there is no control group of memory here")
        place, file = groups
        group = place / f"tilekv-bench-{os.getpid()}"
        group.mkdir()
    except OSError as error:
        raise NotOffered(f"no control group can be made: {error}") from None
    try:
        try:
            (group / file).write_text(str(limit))
        except OSError as error:
            raise NotOffered(f"the limit cannot be set: {error}") from None
        yield group
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:  # its last process is still being cleared away
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{group} cannot be removed: is a process left in it?")


def enter(group: Path) -> None:
    """Move this process into a group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
