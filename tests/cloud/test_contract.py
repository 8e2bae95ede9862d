"""A bucket is a storage like the others."""

import pytest

from bucket_stores import BucketContract
from storage_contract import Open
from tilekv.storage import open_storage


class TestBucket(BucketContract):
    @pytest.fixture
    def open_(self, memory_bucket: str) -> Open:
        return lambda: open_storage(f"{memory_bucket}/some/store")


class TestWholeBucket(BucketContract):
    @pytest.fixture
    def open_(self, memory_bucket: str) -> Open:
        return lambda: open_storage(memory_bucket)
