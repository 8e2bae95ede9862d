"""A progress line, whose bar rich draws where it is installed."""

from __future__ import annotations

import shutil
import time
from typing import Final, Self, TextIO

from tilekv import drawing
from tilekv.cli.text import size_text, time_text

WIDEST: Final = 30  # characters of the bar itself
NARROWEST: Final = 5
INTERVAL: Final = 0.1  # seconds between two pictures on a terminal
EIGHTHS: Final = " ▏▎▍▌▋▊▉"


class Progress:
    """How far a known number of files and bytes has come; a context manager that leaves the bar as it ended.

    On a terminal one line is drawn over and over; elsewhere, as in a log, a line is written for every tenth.
    """

    def __init__(self, files: int, size: int, stream: TextIO) -> None:
        self._files = files
        self._size = size
        self._stream = stream
        self._terminal = stream.isatty()
        self._done_files = 0
        self._done_size = 0
        self._started = time.monotonic()
        self._drawn = self._started - INTERVAL
        self._tenth = 0

    def advance(self, files: int, size: int) -> None:
        """Count files of `size` bytes altogether as done."""
        self._done_files += files
        self._done_size += size
        if self._terminal:
            if time.monotonic() - self._drawn >= INTERVAL:
                self._draw()
        elif self._fraction() * 10 >= self._tenth + 1:
            self._tenth = int(self._fraction() * 10)
            self._stream.write(self._line(WIDEST) + "\n")
            self._stream.flush()

    def _fraction(self) -> float:
        """0 to 1. A tree that grew meanwhile stays at 1."""
        done, total = (
            (self._done_size, self._size) if self._size else (self._done_files, self._files)
        )
        return min(done / total, 1.0) if total else 1.0

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        room = columns - len(self._line(0)) - 3  # what parts the bar, and the last column
        line = self._line(min(room, WIDEST)) if room >= NARROWEST else self._line(0)[: columns - 1]
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()
        self._drawn = time.monotonic()

    def _line(self, width: int) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        fraction = self._fraction()
        total = f"{self._files:,}"
        parts = [
            f"{fraction:4.0%}",
            self._bar(width, fraction),
            f"{f'{self._done_files:,}':>{len(total)}}/{total} files",
            f"{size_text(self._done_size):>8}/{size_text(self._size)}",
            f"{size_text(self._done_size / elapsed):>8}/s",
            f"ETA {time_text(elapsed / fraction - elapsed)}" if fraction else "ETA -",
        ]
        return "  ".join(filter(None, parts))

    def _bar(self, width: int, fraction: float) -> str:
        drawn = drawing.bar(self._stream, width, fraction) if width else ""
        if drawn is not None:
            return drawn
        if not (self._stream.encoding or "").lower().startswith("utf"):
            return ("#" * round(width * fraction)).ljust(width, ".")
        full, part = divmod(round(width * 8 * fraction), 8)
        return ("█" * full + EIGHTHS[part].strip()).ljust(width, "░")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()
