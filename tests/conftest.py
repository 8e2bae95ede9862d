"""What all tests share: how hard hypothesis looks, and what is counted."""

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

from counts import COUNTS, lines

# No deadlines: a machine under load is no bug. In CI a failure must come again when the run is repeated.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Count `n` of something that was gone through, and was right."""
    counts = COUNTS[request.path.parent.name]

    def count(what: str, n: int = 1) -> None:
        counts[what] += n

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in lines():
        terminalreporter.write_line(line)
