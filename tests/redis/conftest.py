"""A served store and a Redis of this machine, for what is compared and for what clients do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redis_process import Process, redis_server, tilekv_server


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    server = tilekv_server(tmp_path_factory.mktemp("ours"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    server = redis_server(tmp_path_factory.mktemp("theirs"))
    yield server
    server.stop()
