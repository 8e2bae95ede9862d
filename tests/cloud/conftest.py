"""Buckets in the memory of this process, for tests of stores in them that need no server."""

import uuid
from collections.abc import Iterator

import pytest
from obstore.store import MemoryStore

from tilekv.storage import objectclient


@pytest.fixture
def memory_bucket() -> Iterator[str]:
    """The URI of an empty bucket."""
    place = f"s3://{uuid.uuid4().hex}"
    memory = MemoryStore()
    objectclient._clients[place, ()] = objectclient.Client(place, lambda _: memory)
    yield place
    del objectclient._clients[place, ()]
