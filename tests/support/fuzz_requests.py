"""What clients of the server may send: a stream of requests, in two pieces, and then another client who is still answered."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz_targets import Target
from redis_model import encoded
from redis_server import Stepped

COMMANDS = (
    "SET a 1|GET a|SETEX b 100 2|PSETEX c 100 3|MSET a 1 b 2|MGET a b none|DEL a a b|EXISTS a b|UNLINK a",
    "SET a 1 EX 5 NX GET|GETEX a PERSIST|GETDEL a|APPEND a x|SETRANGE a 5 y|GETRANGE a 0 -1|INCRBYFLOAT n 1.5|STRLEN a",
    "MULTI|SET a 1|INCR a|FLUSHDB|DBSIZE|EXEC|WATCH a|MULTI|DISCARD|UNWATCH|RANDOMKEY|EXPIRE a 10 GT|TTL a|PERSIST a",
    "HELLO 3|CLIENT SETNAME me|CLIENT LIST|SUBSCRIBE x|PSUBSCRIBE y*|PUBLISH x hello|UNSUBSCRIBE|RESET|PING|ECHO a",
    "SCAN 0 MATCH a* COUNT 5|KEYS *|TYPE a|RENAME a b|COPY b c DB 1|MOVE c 1|SELECT 1|FLUSHALL|OBJECT ENCODING a|MEMORY USAGE a",
    "INFO all|COMMAND COUNT|COMMAND GETKEYS GET a|CONFIG GET *|SLOWLOG GET 1|TIME|ROLE|LASTSAVE|WAIT 0 0|HGETALL a|HSET a n 1",
)


class Requests(Target):
    """The loop, the parser, the batch, and the commands behind them."""

    name = "requests"
    short = 150
    refuses = ()

    def seeds(self) -> Sequence[bytes]:
        streams = [
            b"".join(encoded([word.encode() for word in each.split()]) for each in line.split("|"))
            for line in COMMANDS
        ]
        many = encoded([b"MGET", *(b"%d" % i for i in range(40))])
        deleted = encoded([b"DEL", *(b"%d" % i for i in range(40))])
        large = encoded([b"SET", b"large", bytes(70_000)]) + encoded([b"GET", b"large"]) * 2
        return [
            bytes([7 * i]) + each for i, each in enumerate([*streams, many + deleted, large])
        ] + [b"\x05PING\r\nSET a 'b c'\r\nGET \"a\\x00\"\r\n"]

    def run(self, data: bytes) -> None:
        stepped, faults = served()
        first = len(data) * (data[0] if data else 0) // 256
        for part in (data[1:first], data[max(first, 1) :]):
            if not stepped.ends:
                stepped.connect()
            with contextlib.suppress(ConnectionError, BlockingIOError):
                stepped.ends[0].sendall(part)
            for _ in range(3):
                stepped.step()
        stepped.ends.pop().close()
        stepped.replies.pop()
        stepped.connect()
        stepped.ends[0].sendall(b"PING\r\n")
        assert stepped.step() == [["PONG"]]
        stepped.ends.pop().close()
        stepped.replies.pop()
        stepped.step()
        if faults:
            raise faults.pop()


@functools.cache
def served() -> tuple[Stepped, list[BaseException]]:
    """One server for all inputs, and the faults of its commands that were no answer to anything."""
    folder = tempfile.mkdtemp(prefix="tilekv-fuzz-")
    atexit.register(shutil.rmtree, folder, True)
    logging.getLogger("tilekv.serve").setLevel(logging.CRITICAL)
    stepped = Stepped(Path(folder), 0, appendfsync="no", databases=2, max_value=1 << 20)
    server: Any = stepped.server
    server.loop.batch.most_seconds = 0
    faults: list[BaseException] = []
    real = server.failed

    def failed(error: BaseException, fault: bool = False) -> bytes:
        if fault:
            faults.append(error)
        return bytes(real(error, fault))

    server.failed = failed
    return stepped, faults
