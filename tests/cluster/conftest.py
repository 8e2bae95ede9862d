"""A cluster of dask on this machine, and places for stores that its workers reach: a folder, and a bucket on an S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from cluster_places import Place
from distributed import Client, LocalCluster

from s3_server import S3Server
from samples import NIGHTLY

WORKERS = 4 if NIGHTLY else 2


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """Workers of one thread each, which come again when they are killed. A task may fail for as often as the tests kill."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        with (
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 50,
                    # Who is just being started again after so long, once more, would be given up.
                    "distributed.deploy.lost-worker-timeout": "1 hour",
                }
            ),
            LocalCluster(
                n_workers=WORKERS,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    bucket = request.param == "s3"
    return Place(tmp_path, request.getfixturevalue("server") if bucket else None)
