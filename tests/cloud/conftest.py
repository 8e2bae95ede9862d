"""Buckets in the memory of this process, for tests of stores in them that need no server."""

from collections.abc import Iterator

import pytest

from bucket_stores import bucket_in_memory


@pytest.fixture
def memory_bucket() -> Iterator[str]:
    """The URI of an empty bucket."""
    with bucket_in_memory() as place:
        yield place
