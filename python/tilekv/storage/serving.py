"""What a server needs of the file system: that it is the only one of a store, its socket, and its own size."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
from contextlib import suppress

from tilekv.errors import StoreBusyError
from tilekv.names import ASIDE, SERVER_LOCK
from tilekv.storage.local import LocalStorage


class ServerLock:
    """Holds a store for one writing server: an exclusive flock, which the system gives back when the process ends, however."""

    def __init__(self, storage: LocalStorage) -> None:
        """StoreBusyError when another server has it."""
        folder = os.path.join(storage.uri, ASIDE)
        with suppress(FileExistsError):
            os.mkdir(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(os.path.join(folder, SERVER_LOCK), flags, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreBusyError(
                f"another server (process {who or 'unknown'}) serves {storage.uri}: one that only reads takes --readonly"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others serve it; again is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def bind_private(path: str) -> socket.socket:
    """A socket at a path that only its owner can connect to. One that a server has left there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "there is something that is no socket", path)
            if not _answers(path):
                os.unlink(path)
        before = os.umask(0o077)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, 0o700)
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        try:
            asked.connect(path)
        except OSError:
            return False
        return True


def remove_socket(path: str) -> None:
    """Remove the socket of a server that ends."""
    with suppress(OSError):
        os.unlink(path)


def resident_bytes() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most there have been."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def processor_seconds() -> tuple[float, float]:
    """Of the system and of the program."""
    times = os.times()
    return times.system, times.user


def allow_files(n: int) -> None:
    """Have so many files open at once, if the system lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < n:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(n, hard), hard))
