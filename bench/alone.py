"""Workloads that need processes of their own: peaks of memory, and several writers."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier
from typing import Any

from bench.data import Source, make_data
from bench.rivals import NotOffered, Rival, rival

# A process that was forked would share what its parent's libraries hold; a spawned one starts with nothing.
CONTEXT = multiprocessing.get_context("spawn")


def peak(name: str, source: Source, path: Path, what: str, asked: int) -> int:
    """Most bytes of memory that one operation of a rival takes beyond what its process has before, the data itself included.

    Of a fresh process, so that nothing was freed before that could be used again. Linux's VmHWM: mapped files count
    as far as they are resident.
    """
    return int(in_child(_peak, name, source, path, what, asked))


def _peak(name: str, source: Source, path: Path, what: str, asked: int) -> int:
    data = make_data(source, asked) if what != "consolidate" else None
    store = rival(name)
    try:
        processes = store.processes()
        before = sum(restart_peak(process) for process in processes)
        if what == "consolidate":
            store.consolidate(path)
        elif what == "load":
            assert data is not None
            store.load(path, data.keys, data.values)
        else:
            assert data is not None
            store.open(path)
            store.get(data.asked[: store.lookups])
            store.close()
        return sum(status(process, "VmHWM") for process in processes) - before
    finally:
        store.stop()


def restart_peak(process: int) -> int:
    """Begin VmHWM anew from what is resident now; return that."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return status(process, "VmRSS")


def status(process: int, field: str) -> int:
    """Bytes of memory, by their name in /proc/PID/status."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def in_child(work: Any, *arguments: object) -> Any:
    """What a function of a module returns in a process of its own, in which nothing was before."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_reply, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__}{arguments} failed, see above") from None
    finally:
        process.join()


def try_in_child(work: Any, *arguments: object) -> tuple[str, Any]:
    """Likewise: "done" with what it returned, "absent" with why a rival cannot do it, or "failed" with the traceback."""
    try:
        answer: tuple[str, Any] = in_child(_try, work, *arguments)
    except RuntimeError as died:
        return "failed", str(died)
    return answer


def _try(work: Any, *arguments: object) -> tuple[str, Any]:
    try:
        return "done", work(*arguments)
    except (ImportError, NotOffered) as reason:
        return "absent", str(reason)
    except Exception:  # noqa: BLE001 - the run goes on with the others, and tells at its end
        return "failed", traceback.format_exc()


def _reply(connection: Connection, work: Any, arguments: tuple[object, ...]) -> None:
    connection.send(work(*arguments))


def write_at_once(store: Rival, source: Source, path: Path, writers: int) -> float:
    """Seconds from when `writers` processes begin to write a share each until all of it is durable; each has written as much
    elsewhere just before."""
    return at_once(writers, _write, store.name, source, path, writers)


def at_once(processes: int, work: Callable[..., None], *arguments: object) -> float:
    """Seconds of the slowest of so many processes, begun together.

    work(gate, number, *arguments) passes the gate twice: when it is ready, and when it is done.
    """
    gate = CONTEXT.Barrier(processes + 1)
    begun = [
        CONTEXT.Process(target=work, args=(gate, number, *arguments)) for number in range(processes)
    ]
    for process in begun:
        process.start()
    gate.wait(600)
    start = time.perf_counter()
    gate.wait(3600)
    seconds = time.perf_counter() - start
    for process in begun:
        process.join()
    return seconds


def _write(gate: Barrier, share: int, name: str, source: Source, path: Path, writers: int) -> None:
    try:
        data = make_data(source, 1)
        keys, values = data.keys[share::writers], data.values[share::writers]
        store = rival(name)
        # A writer that has been at it for a while: the first touch of memory may cost as much as all else (bench.floor).
        before = path.with_name(f"{path.name}-before-{share}")
        store.load(before, keys, values)
        store.remove(before)
        gate.wait(600)
        store.write(path, keys, values, threads=1)
        gate.wait(3600)
    except BaseException:
        gate.abort()  # or the others would wait for good
        raise
