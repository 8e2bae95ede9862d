"""Redis through redis-py with hiredis: a server of our own, over a unix socket in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hiredis
import redis

from bench.rivals.rival import NotOffered, Rival

BATCH = 10_000  # commands of one pipeline, keys of one MGET
INSTALL = "apt-get update && apt-get install -y --no-install-recommends redis-server"


class Redis(Rival):
    """What is loaded is saved (SAVE: one synced RDB file) before a load counts as done."""

    name = "redis"
    in_memory = True
    lookups = 20_000
    what = "own server, unix socket, hiredis, no log; SET in pipelines of 10,000 and SAVE; GET; MGET of 10,000"

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            raise NotOffered(f"redis-server is not installed. As root: {INSTALL}")
        # Short: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="tilekv-redis-"))
        socket = self.folder / "socket"
        command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""]
        self.server = subprocess.Popen(
            [*command, "--appendonly", "no", "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )
        self.client = redis.Redis(unix_socket_path=str(socket))
        try:
            self._wait()
            self.version = (
                f"{self.client.info('server')['redis_version']}, redis-py {redis.__version__}"
            )
            self.version += f", hiredis {hiredis.__version__}"
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        for _ in range(1000):
            if self.server.poll() is not None:
                break
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.01)
            else:
                return
        raise NotOffered("redis-server was started and does not answer")

    def stop(self) -> None:
        """End the server and remove its folder."""
        self.client.close()
        self.server.terminate()
        self.server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, path: Path, keys: list[bytes], values: list[bytes]) -> None:
        """SET in pipelines, SAVE."""
        self.write(path, keys, values)

    def open(self, path: Path, cache_bytes: int | None = None) -> None:
        """The server holds everything in memory."""
        if cache_bytes is not None:
            self._not_offered()
        self.client.ping()

    def close(self) -> None:
        """Nothing to close."""

    def get(self, keys: list[bytes]) -> None:
        """GET."""
        get = self.client.get
        for key in keys:
            get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """MGET."""
        found: list[bytes] = []
        for at in range(0, len(keys), BATCH):
            found += self.client.mget(keys[at : at + BATCH])
        return found

    def items(self) -> int:
        """SCAN and MGET."""
        count = 0
        for keys in self._batches():
            for _key, _value in zip(keys, self.client.mget(keys), strict=True):
                count += 1
        return count

    def values(self) -> int:
        """SCAN and MGET."""
        return sum(len(self.client.mget(keys)) for keys in self._batches())

    def _batches(self) -> Iterator[list[bytes]]:
        cursor = 0
        while True:
            cursor, keys = self.client.scan(cursor, count=BATCH)
            if keys:
                yield keys
            if cursor == 0:
                return

    def write(self, path: Path, keys: list[bytes], values: list[bytes], threads: int = 0) -> None:
        """SET in pipelines, SAVE."""
        for at in range(0, len(keys), BATCH):
            pipeline = self.client.pipeline(transaction=False)
            for key, value in zip(keys[at : at + BATCH], values[at : at + BATCH], strict=True):
                pipeline.set(key, value)
            pipeline.execute()
        self.client.save()

    def delete(self, path: Path, keys: list[bytes]) -> None:
        """DEL of 10,000 keys, SAVE."""
        for at in range(0, len(keys), BATCH):
            self.client.delete(*keys[at : at + BATCH])
        self.client.save()

    def processes(self) -> list[int]:
        """The server's and ours: the client's buffers count too."""
        return [*super().processes(), self.server.pid]

    def disk_bytes(self, path: Path) -> int:
        """The RDB file, made anew: it holds what the server holds."""
        self.client.save()
        return (self.folder / "dump.rdb").stat().st_blocks * 512

    def remove(self, path: Path) -> None:
        """FLUSHALL."""
        self.client.flushall()


STORE = Redis
