"""The same stores as in memory, and the contract of storages, on a real server."""

import pytest

from bucket_stores import Bucket, BucketContract, BucketStores
from s3_server import S3Server
from storage_contract import Open
from tilekv.storage import open_storage


class TestOnAServer(BucketStores):
    @pytest.fixture
    def bucket(self, bucket: Bucket) -> Bucket:
        return bucket


class TestContract(BucketContract):
    @pytest.fixture
    def open_(self, server: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Open:
        """By the environment, where options do not say it."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        uri = bucket.new()
        return lambda: open_storage(uri)
