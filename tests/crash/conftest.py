"""Counts what was interrupted, for the last lines of the run."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"  # a file system without a disk: making and removing folders takes a tenth of the time

COUNTS: pytest.StashKey[Counter[str]] = pytest.StashKey()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder where thousands of small stores are made and removed."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Count `n` of something that was done to a store and left it whole."""
    counts = request.config.stash.setdefault(COUNTS, Counter())

    def count(what: str, n: int = 1) -> None:
        counts[what] += n

    return count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash.get(COUNTS, Counter())
    if counts:
        line = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
        terminalreporter.write_line(f"tilekv: {line}")
