"""Every request fails, or is the last that a process makes, in everything that writes to a store in a bucket.

Nothing acknowledged is lost, and nothing else is there in part. An error comes to a process that goes on: the same step succeeds
afterwards. After a kill another process finds what is left, and goes on with it.
"""

import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tilekv
from operations import OPERATIONS, Operation, State
from survival import check, go_on
from tilekv.storage import objectclient, open_storage
from tilekv.storage.objectstore import ObjectStorage

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
FAULTS = ("killed before", "killed after", "error before", "error after")
# By day one request in so many, by turns: all kinds of faults meet all kinds of requests within some operations.
EVERY = 1 if NIGHTLY else 23


class Killed(BaseException):
    """The process is gone."""


class Requests:
    """Counts requests, and lets one of them meet a fault."""

    def __init__(self, number: int = 0, fault: str = "") -> None:
        self.number = number
        self.fault = fault
        self.made = 0
        self.met = ""
        self.dead = False
        self._lock = threading.Lock()
        self._call = objectclient.Client._call

    def call(self, client: Any, what: str, key: str, *rest: Any) -> Any:
        with self._lock:
            if self.dead:
                raise Killed
            self.made += 1
            meets = self.made == self.number
            if meets:
                self.met = f"{self.fault} {what} {key}"
                self.dead = self.fault == "killed before"
        if meets and self.fault == "killed before":
            raise Killed
        if meets and self.fault == "error before":
            raise OSError(errno.EIO, "injected", key)
        found = self._call(client, what, key, *rest)
        if meets and self.fault == "killed after":
            self.dead = True
            raise Killed
        if meets:
            raise OSError(errno.EIO, "injected", key)
        return found


class Attempts:
    """Takes the steps of an operation; one that meets an error is taken again."""

    def __init__(self, uri: str, states: Sequence[State], requests: Requests) -> None:
        self.uri = uri
        self.states = states
        self.requests = requests
        self.acknowledged = 0
        self.handles: list[tilekv.Store] = []

    def open(self, uri: str, mode: Any, config: Mapping[str, object]) -> tilekv.Store:
        self._again(lambda: self.handles.append(tilekv.open(uri, mode, config=config)), None)
        return self.handles[-1]

    def take(self, step: Callable[[], object], done: type[Exception] | None = None) -> None:
        self._again(step, done)
        self.acknowledged += 1

    def _again(self, step: Callable[[], object], done: type[Exception] | None) -> None:
        try:
            step()
        except OSError:
            assert self.requests.met, "it failed by itself"
            check(self.uri, self.states, self.acknowledged)
            try:
                step()
            except tilekv.TileKVError as error:
                if done is None or not isinstance(error, done):
                    raise


def method_of(call: Callable[..., Any]) -> Any:
    """What calls it with the object that it is a method of."""

    def method(client: Any, *request: Any) -> Any:
        return call(client, *request)

    return method


def run(operation: Operation, uri: str, folder: Path, requests: Requests) -> None:
    storage = open_storage(uri)
    assert isinstance(storage, ObjectStorage)
    template = folder / "store"
    for path in template.rglob("*"):
        if path.is_file():
            storage.client.put(storage.data + str(path.relative_to(template)), path.read_bytes())
    states = operation.states(folder)
    attempts = Attempts(uri, states, requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tilekv.consolidation.DRAFTS_S", 0)
        patch.setattr(objectclient.Client, "_call", method_of(requests.call))
        try:
            operation.run(uri, folder, attempts)
            assert attempts.acknowledged == len(states) - 1
        except Killed:
            assert requests.dead
    for db in attempts.handles:
        db.close(discard=True)
    now = check(uri, states, attempts.acknowledged)
    # The lock of who has ended, or could not give it back, is free within a minute.
    storage.client.delete([f"{storage.aside}lock"])
    go_on(uri, now)
    assert tilekv.verify(uri) == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_request_fails_in_every_way(
    operation: Operation, memory_bucket: str, tmp_path: Path, tally: Any
) -> None:
    operation.prepare(tmp_path)
    whole = Requests()
    run(operation, f"{memory_bucket}/0", tmp_path, whole)
    assert whole.made > 10
    runs = [(number, fault) for number in range(1, whole.made + 1) for fault in FAULTS]
    for at in range(OPERATIONS.index(operation) % EVERY, len(runs), EVERY):
        number, fault = runs[at]
        requests = Requests(number, fault)
        try:
            run(operation, f"{memory_bucket}/{at + 1}", tmp_path, requests)
        except BaseException as error:
            error.add_note(f"{operation.name}, request {number} of {whole.made}: {requests.met}")
            raise
        tally("faults in requests")
