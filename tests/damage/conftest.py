"""What the tests of damage share, and the line at the end of a run that says how much was done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from damage import IMAGES, TALLY, Image, Place, standing_still


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """The stores, each made once."""
    with standing_still():
        return {name: make() for name, make in IMAGES.items()}


@pytest.fixture
def place() -> Iterator[Place]:
    found = Place()
    yield found
    found.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(TALLY.items()))
        terminalreporter.write_line(f"tilekv: {counts}")
