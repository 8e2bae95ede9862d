"""What tells a process from all others: claims of those that were killed are nobody's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tilekv.storage.process import has_ended, process_name


def test_this_process_has_not_ended() -> None:
    assert not has_ended(process_name())
    assert not {" ", "/"} & {*process_name()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_another() -> None:
    parent = process_name()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, process_name().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert child != parent
    assert has_ended(child) == bool(child)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="by /proc")
def test_another_that_was_killed() -> None:
    code = (
        "import sys; from tilekv.storage.process import process_name; "
        "print(process_name(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        assert not has_ended(name)
        assert f".{other.pid}." in name
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(name)  # though its parent has not asked for it
        other.wait()
    assert has_ended(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="by /proc")
def test_a_number_that_another_process_has_by_now() -> None:
    place, _, _ = process_name().rpartition(".")
    assert has_ended(f"{place}.1")  # started at another time


@pytest.mark.parametrize("name", ["", "x", "boot.5.7.9", "other-machine.1.{pid}.5", "..", "a.b.c"])
def test_nothing_is_known_of_others(name: str) -> None:
    assert not has_ended(name.format(pid=os.getpid()))
