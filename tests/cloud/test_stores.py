"""Stores in a bucket in memory."""

import pytest

from bucket_stores import Bucket, BucketStores


class TestInMemory(BucketStores):
    @pytest.fixture
    def bucket(self, memory_bucket: str) -> Bucket:
        return Bucket(memory_bucket)
