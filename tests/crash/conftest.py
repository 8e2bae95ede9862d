"""Where stores are interrupted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"  # a file system without a disk: making and removing folders takes a tenth of the time


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder where thousands of small stores are made and removed."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as path:
        yield Path(path)
