"""Every sample is written once in a session, and read by several readers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sample_stores import SAMPLES, Sample


class Written(NamedTuple):
    """A sample, and the folder of its store."""

    sample: Sample
    path: Path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    done: dict[str, Written] = {}

    def write(name: str) -> Written:
        if name not in done:
            sample = SAMPLES[name]()
            path = tmp_path_factory.mktemp("store") / "store"
            sample.write(path)
            done[name] = Written(sample, path)
        return done[name]

    return write
