"""What all tests share: how hard hypothesis looks, the empty store, and what is counted."""

import contextlib
import gc
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import tilekv
from counts import COUNTS, lines

MEMORY = "/dev/shm"  # a file system without a disk: making and removing folders takes a tenth of the time

# No deadlines: a machine under load is no bug. In CI a failure must come again when the run is repeated.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def store() -> Iterator[Callable[..., tilekv.Store]]:
    """Makes empty stores in memory, each of its own, and closes them.

    Of these attributes (what tilekv.open makes, unless given: one of bytes, `value`); options go to tilekv.open.
    """
    with contextlib.ExitStack() as stack:

        def make(*attrs: tilekv.Attr, **options: Any) -> tilekv.Store:
            if attrs:
                options["schema"] = tilekv.Schema(list(attrs))
            uri = f"memory://{uuid.uuid4()}"
            return stack.enter_context(tilekv.open(uri, "x", **options))

        yield make


@pytest.fixture
def db(store: Callable[..., tilekv.Store]) -> tilekv.Store:
    """An empty store: keys to bytes."""
    return store()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder where thousands of small stores are made and removed."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """Collections of garbage do not look through what is there already: in a run of all tests that takes a tenth of a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Count `n` of something that was gone through, and was right."""
    counts = COUNTS[request.path.parent.name]

    def count(what: str, n: int = 1) -> None:
        counts[what] += n

    return count


class TwoAtATime:
    """`pytest -n`: what each process has counted goes to the one that prints."""

    @staticmethod
    def pytest_sessionfinish(session: pytest.Session) -> None:
        if (told := getattr(session.config, "workeroutput", None)) is not None:
            told["counts"] = {folder: dict(counts) for folder, counts in COUNTS.items()}

    @staticmethod
    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(node: Any, error: object) -> None:
        for folder, counts in getattr(node, "workeroutput", {}).get("counts", {}).items():
            COUNTS[folder].update(counts)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(TwoAtATime())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in lines():
        terminalreporter.write_line(line)
