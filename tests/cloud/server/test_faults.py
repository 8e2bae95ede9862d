"""What a server, and the way to it, can do to a request: the answer is right, or an error that says what was asked of whom."""

import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from fault_proxy import FaultProxy, Rule
from s3_server import S3Server

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
ONCE = (
    "500",
    "503",
    "drop",
    "drop after",
    "cut",
    "short",
    "flip",
    "delay 300",
    "403",
    "404",
    "hang",
)
READS = {
    "listing": ("LIST", ""),
    "descriptor": ("GET", "__tilekv.json"),
    "record": ("GET", ".tilekv/record"),
    "metadata": ("GET", "__fragment_metadata.tdb"),
    "coordinates": ("GET", "__coords.tdb"),
    "values": ("GET", "value_var.tdb"),
}
WRITES = {
    "mark": ("PUT", ".tilekv/choosing"),
    "data": ("PUT", "value_var.tdb"),
    "pending": ("PUT", ".commit"),
    "commit": ("COPY", "__fragment_metadata.tdb"),
    "tidying": ("DELETE", ""),
}
KEYS = {f"{i}": b"%d" % i for i in range(50)}


@pytest.fixture(scope="session")
def uri(server: S3Server) -> str:
    """A store with a record, and two fragments."""
    bucket = Bucket(f"s3://{server.bucket}", server.options())
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        for part in (0, 1):
            db.put_many({key: value for key, value in KEYS.items() if int(key) % 2 == part})
            db.flush()
        db.consolidate()
        db["9"] = KEYS["9"]
    return uri


def outcome(call: Callable[[], Any]) -> Any:
    """What it gives, or what it raises that is an error for users."""
    try:
        return call()
    except (OSError, tilekv.TileKVError) as error:
        return error


# Nothing tells a listing in which a letter is another: that is what TLS is for.
READING = [
    (what, action) for what in READS for action in ONCE if (what, action) != ("listing", "flip")
]


@pytest.mark.parametrize(("what", "action"), READING)
def test_reading(
    uri: str, through: Bucket, proxy: FaultProxy, what: str, action: str, tally: Any
) -> None:
    kind, match = READS[what]
    proxy.rules(Rule(action, kind, match))
    begun = time.monotonic()
    found = outcome(lambda: through.items(uri))
    if isinstance(found, Exception):
        assert str(found)
        assert action in ("403", "404", "short"), found
    else:
        assert found == KEYS
    assert time.monotonic() - begun < 10
    assert proxy.counts()["faults"] == 1
    proxy.rules()
    assert through.items(uri) == KEYS
    tally("faults of a server")


@pytest.mark.skipif(not NIGHTLY, reason="ten minutes")
@pytest.mark.parametrize("times", [3, -1])
@pytest.mark.parametrize(("what", "action"), READING)
def test_again_and_again(
    uri: str, through: Bucket, proxy: FaultProxy, what: str, action: str, times: int
) -> None:
    """Right, or an error, and neither takes longer than it may."""
    kind, match = READS[what]
    proxy.rules(Rule(action, kind, match, times=times))
    begun = time.monotonic()
    found = outcome(lambda: through.items(uri))
    assert time.monotonic() - begun < 10, found
    if not isinstance(found, Exception):
        assert found == KEYS
    proxy.rules()
    assert through.items(uri) == KEYS


@pytest.mark.parametrize("action", ["503", "drop", "hang", "403"])
def test_for_ever(uri: str, through: Bucket, proxy: FaultProxy, action: str) -> None:
    """An error, which says what was not answered, and before anybody has lost patience."""
    proxy.rules(Rule(action, "GET", "value_var.tdb", times=-1))
    begun = time.monotonic()
    wanted = {"403": PermissionError, "hang": TimeoutError}.get(action, OSError)
    with pytest.raises(wanted, match=r"cannot read.*value_var\.tdb") as caught:
        through.items(uri)
    assert caught.value.errno
    assert time.monotonic() - begun < 10
    if action == "503":
        assert "503" in str(caught.value)
    if action == "403":
        assert "refuses these credentials" in str(caught.value)
    proxy.rules()
    assert through.items(uri) == KEYS


@pytest.mark.parametrize("action", ["500", "503", "drop", "drop after", "403", "delay 300", "hang"])
@pytest.mark.parametrize("what", WRITES)
def test_flushing(
    bucket: Bucket, through: Bucket, proxy: FaultProxy, what: str, action: str, tally: Any
) -> None:
    """Once, or not yet: never half, never twice."""
    uri = bucket.new()
    bucket.open(uri, "x").close()
    kind, match = WRITES[what]
    with through.open(uri, "a", config=OFF) as db:
        db["a"] = b"1"
        proxy.rules(Rule(action, kind, match))
        if (error := outcome(db.flush)) is not None:
            assert action in ("403", "drop", "drop after", "hang"), error
            assert bucket.items(uri) in ({}, {"a": b"1"})
        else:
            assert bucket.items(uri) == {"a": b"1"}
        proxy.rules()
        db["b"] = b"2"
        db.flush()
        assert bucket.items(uri) == dict(db.items()) == {"a": b"1", "b": b"2"}
        db.consolidate()
        assert bucket.items(uri) == {"a": b"1", "b": b"2"}
    tally("faults of a server")


def test_a_server_that_is_busy(through: Bucket, proxy: FaultProxy) -> None:
    """It turns away one request in three for a while, of reads and of writes."""
    uri = through.new()

    def busy() -> None:
        proxy.rules(*(Rule("503", skip=3 * number) for number in range(12)))

    with through.open(uri, "x", config=OFF) as db:
        for part in range(3):
            db.put_many({key: value for key, value in KEYS.items() if int(key) % 3 == part})
            busy()
            db.flush()
        busy()
        db.consolidate()
        busy()
        assert through.items(uri) == dict(db.items()) == KEYS
    assert proxy.counts()["faults"] > 15


def test_a_server_that_is_down(uri: str, server: S3Server) -> None:
    nobody = Bucket(f"s3://{server.bucket}", server.options(9, max_retries=1, timeout=1))
    begun = time.monotonic()
    with pytest.raises(OSError, match="cannot list"):
        nobody.items(uri)
    assert time.monotonic() - begun < 10


def test_a_bucket_that_is_not_there(through: Bucket, server: S3Server) -> None:
    other = Bucket("s3://no-such-bucket", through.options)
    with pytest.raises(OSError, match="no-such-bucket"):
        other.open("s3://no-such-bucket/store")


def test_wrong_credentials(uri: str, server: S3Server) -> None:
    options = server.options() | {"secret_access_key": "wrong"}
    with pytest.raises(PermissionError, match="refuses these credentials"):
        tilekv.open(uri, storage_options=options)


def provided(server: S3Server, port: int, seconds: float) -> tuple[dict[str, Any], list[float]]:
    """Options with a provider of credentials that last for so long, and when it was asked."""
    asked: list[float] = []

    def provide() -> dict[str, Any]:
        asked.append(time.monotonic())
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        return {
            "access_key_id": server.key,
            "secret_access_key": server.secret,
            "expires_at": moment,
        }

    given = server.options(port, timeout=2)
    del given["access_key_id"], given["secret_access_key"]
    return given | {"credential_provider": provide}, asked


def test_a_provider_is_asked_once(uri: str, server: S3Server, proxy: FaultProxy) -> None:
    """By however many handles and threads, though its credentials are about to expire; and once more when they are refused."""
    options, asked = provided(server, proxy.port, 60)
    bucket = Bucket(f"s3://{server.bucket}", options)
    handles = [bucket.open(uri) for _ in range(4)]
    threads = [threading.Thread(target=lambda db=db: dict(db.items())) for db in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    proxy.rules(Rule("403", "GET", "__tilekv.json"))
    assert bucket.items(uri) == KEYS
    assert len(asked) == 2
    for db in handles:
        db.close()


def test_conditions_that_are_ignored(through: Bucket, proxy: FaultProxy) -> None:
    """Some gateways do: what two programs create there would be lost."""
    uri = through.new()
    proxy.rules(Rule("careless", times=-1))
    with pytest.raises(OSError, match="ignores the conditions"):
        through.open(uri, "x")
    proxy.rules()
    with through.open(uri, "x", config=OFF) as db:
        for i in range(2):
            db["a"] = b"%d" % i
            db.flush()
        # The creation of the first record is heeded, its replacement is not.
        proxy.rules(Rule("careless", "PUT", ".tilekv/record", times=-1, skip=1))
        with pytest.raises(OSError, match="ignores the conditions"):
            db.consolidate()
        proxy.rules()
        assert through.items(uri) == {"a": b"1"}


def test_parts_that_come_whole(
    bucket: Bucket, uri: str, through: Bucket, proxy: FaultProxy
) -> None:
    """A server that does no ranges is told from one that does."""
    with bucket.open(uri, "a", config=OFF) as db:
        db.put_many({i: b"%d" % i for i in range(20_000)})
    with through.open(uri) as db:
        proxy.rules(Rule("no range", "GET", "__coords.tdb", times=-1))
        with pytest.raises(OSError, match="cannot read"):
            db.get(7)
        proxy.rules()
        assert db[7] == b"7"


def test_a_busy_server_is_asked_less(bucket: Bucket, server: S3Server, proxy: FaultProxy) -> None:
    """Half as much at once, until it answers again; and every answer is right."""
    most = 17  # a client of its own
    through = Bucket(bucket.uri, server.options(proxy.port, connections=most, init_backoff=0.01))
    uri = bucket.new()
    keys = {f"{i}": b"%d" % i * 100 for i in range(20_000)}
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many(keys)
    storage = through.storage(uri)
    width = storage.client.width
    assert width.now == most
    with through.open(uri) as db:
        proxy.rules(Rule("503", "GET", "_var.tdb", times=5))
        assert dict(db.items()) == keys
    assert proxy.counts()["faults"] == 5
    assert width.now <= most / 2 + 1
    for _ in range(most * most):
        storage.client.head(f"{storage.data}__tilekv.json")
    assert width.now == most
