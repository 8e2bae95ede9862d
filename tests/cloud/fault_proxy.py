"""An HTTP proxy on 127.0.0.1, before an S3 server: it delays, fails, cuts and counts requests.

    with FaultProxy(server.port, latency_ms=20) as proxy:
        proxy.rules(Rule("503", "PUT", "__key_var", times=2))
        ...
        proxy.counts()

It is a process of its own, told what to do by lines of JSON. What a rule can do to a request:

    "500" "503" "403" "404" "412"   that status, with an S3 error in the body; the server does not see it
    "drop"           the connection is closed; the server does not see the request
    "drop after"     the server does it, and the connection is closed
    "cut"            half of the body comes, of as much as the header says
    "short"          half of the body comes, and the header says so
    "flip"           one bit in the middle of the body is another
    "hang"           no answer comes
    "delay N"        the answer comes N ms later
    "no range"       a part is asked for, and the answer says that it is the whole
    "careless"       what the server has refused because of a condition seems to be done
    "gate"           the request waits until `open_gate`, whoever has sent it
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

ERRORS = {
    "500": ("InternalError", "We encountered an internal error. Please try again."),
    "503": ("SlowDown", "Please reduce your request rate."),
    "403": ("ExpiredToken", "The provided token has expired."),
    "404": ("NoSuchKey", "The specified key does not exist."),
    "412": ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
}
KINDS = ("GET", "HEAD", "PUT", "COPY", "LIST", "DELETE", "POST")
MOST_HEAD = 1 << 26


@dataclass
class Rule:
    """What happens to requests: to the next `times` (-1: to all) of those that match, after `skip` of them.

    `kind` is as `counts` has it, empty for any; `match` a part of the path and query.
    """

    action: str
    kind: str = ""
    match: str = ""
    times: int = 1
    skip: int = 0


class FaultProxy:
    """A context manager; `port` is what to send requests to."""

    def __init__(self, server_port: int, latency_ms: float = 0) -> None:
        self._arguments = [str(server_port), str(latency_ms)]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.communicate()

    def rules(self, *rules: Rule) -> None:
        """These rules from now on, and no others."""
        self._ask("rules", [asdict(rule) for rule in rules])

    def open_gate(self) -> None:
        """Let go what waits at gates, and whatever comes there."""
        self._ask("open", None)

    def waiting(self) -> int:
        """How many requests wait at gates."""
        found: int = self._ask("waiting", None)
        return found

    def counts(self) -> dict[str, int]:
        """Requests since the last call, by kind (GET, HEAD, PUT, COPY, LIST, DELETE), "all" of them, and "faults".

        Also "rounds", how often a request came when none was under way, which tells how often somebody waited if answers take
        longer than asking, and "bytes" of the bodies, of requests and of answers.
        """
        found: dict[str, int] = self._ask("counts", None)
        return found

    def _ask(self, verb: str, what: object) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, what]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


# --- the process -----------------------------------------------------------------------------------


class _Message:
    """A request or an answer: its head as it came, its fields by name, its body."""

    def __init__(self, head: bytes, body: bytes = b"") -> None:
        self.head = head
        self.body = body
        self.fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            self.fields[name.decode("latin-1").lower()] = value.strip().decode("latin-1")

    @property
    def first(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def without(self, *fields: str) -> bytes:
        """The head without some fields."""
        prefixes = tuple(f"{name}:".encode() for name in fields)
        lines = self.head.split(b"\r\n")
        return b"\r\n".join(line for line in lines if not line.lower().startswith(prefixes))

    def with_length(self, n: int) -> bytes:
        return self.without("content-length")[:-2] + b"Content-Length: %d\r\n\r\n" % n


async def _read_message(
    reader: asyncio.StreamReader, of_head: bool = False, asker: asyncio.StreamWriter | None = None
) -> _Message | None:
    """The next message; None at the end. `of_head`: an answer to HEAD, which has no body. `asker` may wait for a "continue"."""
    try:
        found = _Message(await reader.readuntil(b"\r\n\r\n"))
        status = found.first[1] if found.head.startswith(b"HTTP") else ""
        if of_head or status in ("204", "304"):
            return found
        if asker is not None and "expect" in found.fields:
            asker.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in found.fields.get("transfer-encoding", ""):
            size = 1
            while size:
                line = await reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                found.body += line + await reader.readexactly(size + 2)
        else:
            found.body = await reader.readexactly(int(found.fields.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return found


def _kind_of(request: _Message) -> str:
    method, target = request.first[:2]
    query = target.partition("?")[2]
    if method == "GET" and "list-type" in query:
        return "LIST"
    if method == "POST" and "delete" in query:
        return "DELETE"
    if method == "PUT" and "x-amz-copy-source" in request.fields:
        return "COPY"
    return method


class _Proxy:
    def __init__(self, server_port: int, latency: float) -> None:
        self.server_port = server_port
        self.latency = latency
        self.rules: list[Rule] = []
        self.gate = asyncio.Event()
        self.waiting = 0
        self.counted: Counter[str] = Counter()
        self.under_way = 0

    def told(self, verb: str, what: Any) -> object:
        if verb == "rules":
            self.rules = [Rule(**each) for each in what]
            self.gate.clear()
        elif verb == "open":
            self.gate.set()
        elif verb == "waiting":
            return self.waiting
        elif verb == "counts":
            found, self.counted = self.counted, Counter()
            return found | {"all": sum(found[kind] for kind in KINDS)}
        return None

    def action(self, kind: str, target: str) -> str:
        for rule in self.rules:
            if rule.times and rule.kind in ("", kind) and rule.match in target:
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.times -= rule.times > 0
                self.counted["faults"] += 1
                return rule.action
        return ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read_message(reader, asker=writer):
                if not await self.answer(request, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, request: _Message, writer: asyncio.StreamWriter) -> bool:
        """Answer one; False when the connection has ended with it."""
        self.counted["rounds"] += self.under_way == 0
        self.under_way += 1
        try:
            return await self.answered(request, writer)
        finally:
            self.under_way -= 1

    async def answered(self, request: _Message, writer: asyncio.StreamWriter) -> bool:
        arrived = time.monotonic()
        kind = _kind_of(request)
        self.counted[kind] += 1
        self.counted["bytes"] += len(request.body)
        action = self.action(kind, urllib.parse.unquote(request.first[1]))
        if action == "gate":
            self.waiting += 1
            await self.gate.wait()
            self.waiting -= 1
        if action == "drop":
            writer.transport.abort()
            return False
        if action == "hang":
            await asyncio.sleep(3600)
        later = float(action.split()[1]) / 1000 if action.startswith("delay") else 0
        if action in ERRORS:
            answer = _error(action)
        else:
            answer = await self.ask(request)
        await asyncio.sleep(max(arrived + self.latency + later - time.monotonic(), 0))
        if action == "drop after":
            writer.transport.abort()
            return False
        head, body = _changed(answer, action)
        self.counted["bytes"] += len(body)
        writer.write(head + body)
        await writer.drain()
        return action != "cut"

    async def ask(self, request: _Message) -> _Message:
        """What the server answers, on a connection of its own."""
        head = request.without("connection", "expect")[:-2] + b"Connection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server_port, limit=MOST_HEAD
        )
        try:
            writer.write(head + request.body)
            await writer.drain()
            answer = await _read_message(reader, request.head.startswith(b"HEAD"))
        finally:
            writer.close()
        if answer is None:
            raise ConnectionError("the server closed the connection")
        return _Message(answer.without("connection"), answer.body)


def _error(status: str) -> _Message:
    code, text = ERRORS[status]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return _Message(head.encode(), body.encode())


def _changed(answer: _Message, action: str) -> tuple[bytes, bytes]:
    head, body = answer.head, answer.body
    half = len(body) // 2
    if action == "no range":
        lines = answer.without("content-range").split(b"\r\n")
        head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines[1:]])
    elif action == "cut":
        body = body[:half]
    elif action == "short":
        body = body[:half]
        head = answer.with_length(half)
    elif action == "careless" and answer.first[1] in ("409", "412"):
        head, body = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n', b""
    elif action == "flip" and body:
        body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
    return head, body


async def _main(server_port: int, latency_ms: float) -> None:
    proxy = _Proxy(server_port, latency_ms / 1000)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=MOST_HEAD)
    print(server.sockets[0].getsockname()[1], flush=True)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(proxy.told(*json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
