"""The processes of a run: one a rival, which has a Place and runs workloads in it as it is asked."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.alone import CONTEXT
from bench.place import Options, Place
from bench.rivals import NotOffered
from bench.workloads import WORKLOADS


def serve(connection: Connection, name: str, folder: Path, options: Options) -> None:
    """The main function of a rival's process: answer (what, argument) with (outcome, result) until there is no more.

    Outcomes are "done", "absent" (the rival does not offer it) and "failed" (the result is the traceback).
    """
    place: Place | None = None

    def answer(what: str, argument: Any) -> Any:
        nonlocal place
        if what == "begin":
            place = Place(name, folder, options)
            return place.rival.version, place.rival.what
        assert place is not None
        if what == "prepare":
            return place.prepare(argument)
        return WORKLOADS[argument].run(place)

    try:
        while (request := _received(connection)) is not None:
            try:
                connection.send(("done", answer(*request)))
            except (ImportError, NotOffered) as reason:
                connection.send(("absent", str(reason)))
            except Exception:  # noqa: BLE001 - the run goes on with the other rivals, and tells at its end
                connection.send(("failed", traceback.format_exc()))
    finally:
        if place is not None:
            place.finish()
            shutil.rmtree(folder, ignore_errors=True)


def _received(connection: Connection) -> tuple[str, Any] | None:
    try:
        request: tuple[str, Any] | None = connection.recv()
    except EOFError:  # the run was ended from outside
        return None
    return request


class Worker:
    """A rival's process, as the parent sees it."""

    def __init__(self, name: str, folder: Path, options: Options) -> None:
        self.name = name
        self._connection, theirs = CONTEXT.Pipe()
        arguments = (theirs, name, folder, options)
        self._process = CONTEXT.Process(target=serve, args=arguments)
        self._process.start()
        theirs.close()

    def ask(self, what: str, argument: object = None) -> tuple[str, Any]:
        """Send a request and wait for the (outcome, result)."""
        self.send(what, argument)
        return self.answer()

    def send(self, what: str, argument: object = None) -> None:
        """Send a request; `answer` waits for what comes of it."""
        self._connection.send((what, argument))

    def answer(self) -> tuple[str, Any]:
        """Wait for the (outcome, result) of what was sent."""
        try:
            outcome: tuple[str, Any] = self._connection.recv()
        except EOFError:
            self._process.join()
            return "failed", f"the process of {self.name} died: {self._process.exitcode}"
        return outcome

    def finish(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._connection.send(None)
        self._process.join()
