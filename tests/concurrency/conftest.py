"""Counts what was done at once, for the last lines of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

DONE: pytest.StashKey[Counter[str]] = pytest.StashKey()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Count `n` of something that was done while others were at the same store, and that was right."""
    counts = request.config.stash.setdefault(DONE, Counter())

    def count(what: str, n: int = 1) -> None:
        counts[what] += n

    return count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash.get(DONE, Counter())
    if counts:
        line = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
        terminalreporter.write_line(f"tilekv: {line}")
