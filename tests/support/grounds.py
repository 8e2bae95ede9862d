"""Where the tests of crashes keep their stores: in folders or in memory, made anew from a template each time."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from damage import root_of
from tilekv.names import LOCK
from tilekv.storage import memory


class LocalGround:
    """Stores in a folder. What a template's files hold is shared: nothing ever writes into a file of a store again."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = itertools.count()

    @contextmanager
    def world(self, template: Path) -> Iterator[tuple[str, Path]]:
        """A copy of a folder: the uri of the store in it, and the folder."""
        folder = self._folder / f"world {next(self._made)}"
        shutil.copytree(template, folder, copy_function=_share)
        yield str(folder / "store"), folder
        shutil.rmtree(folder)


def _share(source: str, target: str) -> None:
    # A lock is one of a file, by whatever name.
    (shutil.copy if os.path.basename(source) == LOCK else os.link)(source, target)


class MemoryGround:
    """The same in memory; what is beside the store stays in its folder."""

    name = "memory"

    @contextmanager
    def world(self, template: Path) -> Iterator[tuple[str, Path]]:
        name = f"ground {template}"
        memory._roots.pop(name, None)
        if (template / "store").exists():
            memory._roots[name] = root_of(self._files(template))
        yield f"memory://{name}", template
        memory._roots.pop(name, None)

    @cache  # noqa: B019 - one ground a test
    def _files(self, template: Path) -> dict[str, bytes]:
        store = template / "store"
        return {
            str(each.relative_to(store)): each.read_bytes()
            for each in store.rglob("*")
            if each.is_file()
        }
