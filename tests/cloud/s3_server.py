"""An S3 server on free ports of 127.0.0.1, with a bucket: SeaweedFS, of `requirements.txt`."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_WAIT_S = 60
_ABOVE = 10_000  # where SeaweedFS has the second port that goes with each


def free_port() -> int:
    """A port that is free, and so is the one that goes with it."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
        if port + _ABOVE > 65_535:
            port -= 2 * _ABOVE
        try:
            for each in (port, port + _ABOVE):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


class S3Server:
    """A context manager: a child process, which is stopped by its own number. Any number of them may run at once.

    Attributes
    ----------
    bucket, key, secret : str
        One that is there, and who may use it.
    """

    def __init__(self, wait_s: float = _WAIT_S) -> None:
        self._wait_s = wait_s
        self.bucket, self.key, self.secret = "stores", "tilekv", "tilekvsecret"
        self.port = free_port()
        self._folder = tempfile.mkdtemp(prefix="tilekv-s3-")
        self._process: subprocess.Popen[bytes] | None = None

    def options(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        """Storage options that lead here, or to a proxy's port."""
        return {
            "endpoint": f"http://127.0.0.1:{port or self.port}",
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "region": "us-east-1",
            **more,
        }

    def __enter__(self) -> Self:
        program = Path(sys.executable).parent / "weed"
        data = Path(self._folder, "data")
        data.mkdir()
        keys = {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}
        ports = [f"-{part}.port={free_port()}" for part in ("master", "volume", "filer")]
        off = ("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false")
        place = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", f"-bucket={self.bucket}")
        with Path(self._folder, "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    "-logtostderr=true",
                    "mini",
                    *place,
                    f"-s3.port={self.port}",
                    *ports,
                    *off,
                    "-master.telemetry=false",
                ],
                env=os.environ | keys | {"TMPDIR": self._folder},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        """Until it takes what is put there."""
        from tilekv.storage.objectclient import client_of

        assert self._process is not None
        client = client_of(f"s3://{self.bucket}", self.options(timeout=2, max_retries=0))
        end = time.monotonic() + self._wait_s
        while self._process.poll() is None and time.monotonic() < end:
            try:
                client.put("ready", b"")
                return
            except OSError:
                time.sleep(0.1)
        log = Path(self._folder, "log").read_text(errors="replace")
        raise RuntimeError(f"the S3 server did not come up:\n{log[-3000:]}")

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
