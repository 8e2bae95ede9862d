"""What the tests of damage share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from damage import IMAGES, Image, Place, standing_still


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
