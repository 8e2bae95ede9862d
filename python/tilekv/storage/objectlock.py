"""A lock in a bucket: an object that its holder renews."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tilekv.storage.objectclient import Client
from tilekv.storage.objectlayout import owner_of
from tilekv.storage.process import has_ended, process_name

LEASE_S: Final = 60  # the lock of who does not renew it any more is free then


class Lease:
    """A lock that ends by itself when its holder does."""

    def __init__(self, client: Client, key: str, now: Callable[[], int]) -> None:
        self._client = client
        self._key = key
        self._now = now
        self._owner = f"{uuid.uuid4().hex}-{process_name()}"
        self._version: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def taken(self) -> bool:
        """Take it, if it is free."""
        try:
            self._version = self._client.put_new(self._key, self._text()) or self._taken_over()
        except BaseException:
            self.release()  # it may have been taken all the same
            raise
        if self._version is None:
            return False
        self._thread = threading.Thread(target=self._renew, name="tilekv lock", daemon=True)
        self._thread.start()
        return True

    def _taken_over(self) -> dict[str, Any] | None:
        """The version of a lock that was another's, or is this one's: the answer to its request was lost."""
        try:
            found = self._client.get(self._key)
        except FileNotFoundError:
            return None
        if found is None or not (self._is_over(found.data) or self._is_mine(found.data)):
            return None
        return self._client.put_if(self._key, self._text(), found.version)

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(OSError):
            found = self._client.get(self._key)
            if found is not None and self._is_mine(found.data):
                self._client.delete([self._key])

    def _text(self) -> bytes:
        return json.dumps({"owner": self._owner, "until": self._now() + LEASE_S * 1000}).encode()

    def _is_mine(self, data: bytes) -> bool:
        return self._owner.encode() in data

    def _is_over(self, data: bytes) -> bool:
        try:
            lease = json.loads(data)
            return bool(lease["until"] < self._now() or has_ended(owner_of(lease["owner"])))
        except (ValueError, KeyError, TypeError):
            return True

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_S / 4):
            with suppress(OSError):
                version = self._version and self._client.put_if(
                    self._key, self._text(), self._version
                )
                if version is None:
                    return
                self._version = version
