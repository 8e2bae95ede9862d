"""Telling how far a long call has come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from tilekv.arguments import truth

WIDTH: Final = 30  # of a bar, in columns
Progress = bool | Callable[[int, int], object] | None


def reporter(progress: Progress, what: str) -> Callable[[int, int], object]:
    """What a long call reports to: `progress` itself, a line on stderr for True (on a terminal with a bar, if rich is installed),
    or nothing.

    A report is (done, total), in units of the caller's; the last one has done == total.
    """
    if callable(progress):
        return progress
    if progress is None or not truth("progress, unless it is callable,", progress):
        return lambda done, total: None
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 100
        if percent == shown:
            return
        shown = percent
        end = "\n" if done >= total else ""
        if sys.stderr.isatty():
            from tilekv.drawing import bar

            drawn = bar(sys.stderr, WIDTH, percent / 100)
            sys.stderr.write(f"\r{what}: {drawn + '  ' if drawn else ''}{percent}%{end}")
        elif end or percent % 10 == 0:
            sys.stderr.write(f"{what}: {percent}%\n")
        sys.stderr.flush()

    return show
