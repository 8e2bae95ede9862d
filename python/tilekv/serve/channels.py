"""Publish and subscribe: who listens to what. Nothing of it is stored."""

from __future__ import annotations

from typing import Any, Protocol

from tilekv.kvcore.serve.resp import matching


class Listener(Protocol):
    """A client: a Session."""

    channels: dict[bytes, None]
    patterns: dict[bytes, None]
    shards: dict[bytes, None]

    def tell(self, message: list[Any]) -> None:
        """Send it a message."""


Listeners = dict[bytes, dict[Listener, None]]


class Channels:
    """Who listens to what. Shards are channels of their own, as in a cluster of one."""

    def __init__(self) -> None:
        self.by_channel: Listeners = {}
        self.by_pattern: Listeners = {}
        self.by_shard: Listeners = {}

    def publish(self, channel: bytes, message: bytes) -> int:
        """Tell those who listen; how many they are."""
        n = _tell(self.by_channel, channel, [b"message", channel, message])
        for pattern in list(self.by_pattern):
            if matching(pattern, [channel]):
                n += _tell(self.by_pattern, pattern, [b"pmessage", pattern, channel, message])
        return n

    def publish_shard(self, channel: bytes, message: bytes) -> int:
        """Tell those who listen to a shard's channel."""
        return _tell(self.by_shard, channel, [b"smessage", channel, message])

    def join(self, listener: Listener, kind: str, name: bytes) -> None:
        """It listens to a channel ("" or "s"), or to those that a pattern ("p") matches."""
        mine, everyone = self.of(listener, kind)
        mine[name] = None
        everyone.setdefault(name, {})[listener] = None

    def leave(self, listener: Listener, kind: str, name: bytes) -> None:
        """It listens to it no more."""
        mine, everyone = self.of(listener, kind)
        mine.pop(name, None)
        if name in everyone:
            everyone[name].pop(listener, None)
            if not everyone[name]:
                del everyone[name]

    def leave_all(self, listener: Listener) -> None:
        """It listens to nothing any more."""
        for kind in ("", "p", "s"):
            for name in list(self.of(listener, kind)[0]):
                self.leave(listener, kind, name)

    def of(self, listener: Listener, kind: str) -> tuple[dict[bytes, None], Listeners]:
        """What it listens to, and who else does."""
        if kind == "p":
            return listener.patterns, self.by_pattern
        if kind == "s":
            return listener.shards, self.by_shard
        return listener.channels, self.by_channel


def _tell(listeners: Listeners, name: bytes, message: list[Any]) -> int:
    told = list(listeners.get(name, ()))
    for listener in told:
        listener.tell(message)
    return len(told)
