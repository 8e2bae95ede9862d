"""What tells this process from all others of a machine, as long as that runs: by Linux's /proc, where there is one."""

from __future__ import annotations

import os
from contextlib import suppress


def process_name() -> str:
    """A name of this process that can be part of a file's; empty where the system does not tell."""
    pid = os.getpid()
    if pid not in _names:
        place = _machine()
        _names.clear()  # a parent's
        _names[pid] = f"{place}.{pid}.{_started(pid)}" if place else ""
    return _names[pid]


def has_ended(name: str) -> bool:
    """Whether a process of this name is known to have ended: one of this machine that is not there any more."""
    place, _, rest = name.rpartition(".")
    place, _, pid = place.rpartition(".")
    return bool(place) and pid.isdigit() and place == _machine() and _started(int(pid)) != rest


_names: dict[int, str] = {}  # of this process, by its number: a forked child has another


def _machine() -> str:
    """This boot of this machine, and the part of its processes that this one sees."""
    boot = _line("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}" if boot else ""
    return ""


def _started(pid: int) -> str:
    """When a process was started, in ticks; empty when it is not there, or is dead and its parent has not asked for it yet."""
    after = (
        _line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    )  # its name may have anything in it
    if len(after) <= 19:
        return ""
    state, threads, started = after[0], int(after[17]), after[19]
    return "" if state in "ZX" and threads <= 1 else started  # others may outlive its first thread


def _line(path: str) -> str:
    with suppress(OSError), open(path) as file:
        return file.readline().strip()
    return ""
