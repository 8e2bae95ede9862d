"""Says at the end of a run how many inputs were tried."""

from __future__ import annotations

import pytest

EXECUTIONS: pytest.StashKey[list[int]] = pytest.StashKey()


@pytest.fixture(scope="session")
def executions(request: pytest.FixtureRequest) -> list[int]:
    """How many inputs were tried, test by test."""
    return request.config.stash.setdefault(EXECUTIONS, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(EXECUTIONS, []):
        terminalreporter.write_line(f"tilekv: {sum(found):,} fuzz executions")
