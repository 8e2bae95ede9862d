"""A server that is asked too much is asked less, and more again when it answers."""

import threading
import time
from typing import Any

import pytest

from bucket_stores import OFF, Bucket
from tilekv.storage import objectclient, pace
from tilekv.storage.pace import Retries, Width

KEYS = {f"{i}": b"%d" % i * 50 for i in range(20_000)}


def test_it_is_halved_once_for_those_that_were_under_way_together() -> None:
    width = Width(32)
    with width as begun:
        pass
    for _ in range(20):
        width.narrow(begun)
    assert width.now == 16
    for expected in (8, 4, 2, 1, 1):
        with width as begun:
            width.narrow(begun)
        assert width.now == expected


def test_it_comes_back() -> None:
    """By one for as many answers as there may be requests, to what it was."""
    width = Width(8)
    for _ in range(3):
        with width as begun:
            width.narrow(begun)
    seen = []
    for _ in range(60):
        width.widen()
        seen.append(width.now)
    assert sorted(seen) == seen
    assert [seen.count(each) for each in range(1, 8)] == sorted(
        seen.count(each) for each in range(1, 8)
    )
    assert seen[-1] == 8


def test_requests_wait_for_room() -> None:
    width = Width(2)
    done = threading.Event()

    def hold() -> None:
        with width:
            done.wait(5)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    while width._under_way < 2:
        time.sleep(0.001)
    waiting = threading.Thread(target=hold)
    waiting.start()
    waiting.join(0.02)
    assert width._under_way == 2
    done.set()
    for thread in (*threads, waiting):
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("said", "passes", "too_much"),
    [
        ("Server returned non-2xx status code: 503 Service Unavailable", True, True),
        ("Server returned non-2xx status code: 429 Too Many Requests", True, True),
        ("Server returned non-2xx status code: 500 Internal Server Error", True, False),
        ("Server returned non-2xx status code: 408 Request Timeout", True, False),
        ("HTTP error: error sending request", True, False),
        ("Server returned non-2xx status code: 400 Bad Request", False, False),
        ("Received non-partial response when range requested", False, False),
    ],
)
def test_what_is_asked_again(said: str, passes: bool, too_much: bool) -> None:
    from obstore import exceptions

    error = exceptions.GenericError(said)
    assert (pace.may_pass(error), pace.is_too_much(error)) == (passes, too_much)
    assert not pace.may_pass(exceptions.PermissionDeniedError(said))


def test_pauses_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pauses = Retries(5, 60, 0.1, 0.4).pauses(pace.seconds())
    assert len([*pauses]) == 5
    assert slept >= [0.05, 0.1, 0.2, 0.2, 0.2]
    assert all(pause <= most for pause, most in zip(slept, (0.1, 0.2, 0.4, 0.4, 0.4), strict=True))
    assert [*Retries(5, 60, 0.1, 0.4).pauses(pace.seconds() - 61)] == []


def test_a_server_that_does_four_at_once(
    memory_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers are right, it is soon asked no more than it can do, and as much as before when it can do that again."""
    import obstore
    from obstore.exceptions import GenericError

    bucket = Bucket(memory_bucket)
    uri = bucket.new()
    with bucket.open(uri, "x", config=OFF) as db:
        db.put_many(KEYS)
    client = objectclient.client_of(memory_bucket, None)
    monkeypatch.setattr(client, "_retries", Retries(8, 60, 0.001, 0.01))
    real, lock = obstore.get_range, threading.Lock()
    under_way, most, refused, can = 0, 0, 0, 4

    def get_range(*arguments: Any, **options: Any) -> Any:
        nonlocal under_way, most, refused
        with lock:
            under_way += 1
            most = max(most, under_way)
            busy = under_way > can
            refused += busy
        try:
            time.sleep(0.002)
            if busy:
                raise GenericError("Server returned non-2xx status code: 503 Service Unavailable")
            return real(*arguments, **options)
        finally:
            with lock:
                under_way -= 1

    monkeypatch.setattr(obstore, "get_range", get_range)
    key = next(k for k in client.list_all("") if k.endswith("value_var.tdb"))
    size = client.head(key).size
    ranges = [(at, 500) for at in range(0, min(size, 60_000), 500)]

    def asked() -> list[bytes]:
        return client.at_once(lambda part: client.get_range(key, *part), ranges)

    want = asked()
    assert refused > 0
    assert client.width.now <= 8
    assert want == [bytes(real(client._opened(), key, start=at, length=n)) for at, n in ranges]
    most = 0
    assert asked() == want
    assert most <= 8
    can = 1000
    for _ in range(8):
        asked()
    assert client.width.now == objectclient.CONNECTIONS
    with bucket.open(uri) as db:
        assert dict(db.items()) == KEYS
