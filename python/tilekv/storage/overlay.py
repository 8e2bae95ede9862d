"""What is done where a folder cannot be renamed: in a lower layer of overlayfs, which is what a container image is.

The system says EXDEV there of every folder that the image has. Files can be renamed and removed, and what is new can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tilekv.names import (
    DESCRIPTOR,
    FRAGMENT_METADATA,
    KV_SCHEMA,
    LOCK,
    is_temporary,
    temporary_name,
)

Sync = Callable[[str], object]  # makes the names in a folder durable


def remove_in_place(path: str, sync: Sync) -> None:
    """Remove a fragment's folder that a list keeps out of sight until it is gone.

    Its metadata gets a hidden name first, which goes last. So what is left after a crash is told from a fragment that has lost
    files, and the next vacuum, which the list leads here again, removes it.
    """
    metadata = os.path.join(path, FRAGMENT_METADATA)
    if os.path.lexists(metadata):
        os.rename(metadata, os.path.join(path, temporary_name()))
        sync(path)
    for last in (False, True):
        for name in os.listdir(path):
            if last or not is_temporary(name):
                _remove(os.path.join(path, name))
        sync(path)
    os.rmdir(path)


def replace_in_place(new: str, target: str, sync: Sync) -> None:
    """Put what is in the folder `new` in the place of the store in `target`. The caller holds its lock.

    Without the schema nobody opens a part of either store; with the new descriptor no handle of the old one goes on. After a
    crash this is done again by whoever replaces the store again.
    """
    schema = os.path.join(target, KV_SCHEMA)
    if os.path.lexists(schema):
        os.unlink(schema)
    sync(target)
    _move(DESCRIPTOR, new, target)
    sync(target)
    for name in os.listdir(target):
        if name not in (DESCRIPTOR, LOCK):
            _remove(os.path.join(target, name))
    sync(target)
    for name in os.listdir(new):
        if name not in (KV_SCHEMA, LOCK):
            _move(name, new, target)
    sync(target)
    _move(KV_SCHEMA, new, target)
    sync(target)


def _move(name: str, source: str, target: str) -> None:
    os.rename(os.path.join(source, name), os.path.join(target, name))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _remove(os.path.join(path, name))
        os.rmdir(path)
    else:
        os.unlink(path)
