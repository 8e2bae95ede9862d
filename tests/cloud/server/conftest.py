"""The server that all of these tests share."""

from collections.abc import Iterator

import pytest

from bucket_stores import Bucket
from fault_proxy import FaultProxy
from s3_server import S3Server


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    return Bucket(f"s3://{server.bucket}", server.options())


@pytest.fixture(scope="session")
def session_proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(session_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Before the server, without rules and counts."""
    session_proxy.rules()
    session_proxy.counts()
    yield session_proxy
    session_proxy.rules()


@pytest.fixture
def through(server: S3Server, proxy: FaultProxy) -> Bucket:
    """The bucket as it is seen through the proxy, by a client that does not wait for long."""
    quick = {"timeout": 2, "retry_timeout": 6, "max_retries": 4, "max_backoff": 0.2}
    return Bucket(f"s3://{server.bucket}", server.options(proxy.port, **quick))
