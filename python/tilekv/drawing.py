"""What rich draws on a terminal where it is installed: bars and tables. Elsewhere callers write text, as for a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TextIO


def bar(stream: TextIO, width: int, fraction: float) -> str | None:
    """A bar of `width` columns, `fraction` (0 to 1) of it done, as text for the terminal that the stream is.

    Returns
    -------
    str or None
        None where it is no terminal, or rich is not installed. The text has escapes, so it is longer than `width`.
    """
    console = _console(stream)
    if console is None:
        return None
    from rich.progress_bar import ProgressBar

    with console.capture() as captured:
        console.print(ProgressBar(1.0, fraction, width), end="")
    drawn: str = captured.get().rstrip("\n")
    return drawn


def table(stream: TextIO, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Draw rows on the terminal that the stream is; a column whose title begins with ``>`` is aligned to the right.

    Nothing is cut or folded: where a line does not fit, the terminal breaks it, and what is copied from it is whole.

    Returns
    -------
    bool
        False, and nothing is written, where it is no terminal, or rich is not installed.
    """
    console = _console(stream)
    if console is None:
        return False
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for title in titles:
        justify: Any = "right" if title.startswith(">") else "left"
        drawn.add_column(title.lstrip(">"), justify=justify)
    for row in rows:
        drawn.add_row(*map(Text, row))
    boundless = console.options.update(max_width=1 << 16)
    console.width = max(console.width, console.measure(drawn, options=boundless).maximum)
    console.print(drawn)
    return True


def _console(stream: TextIO) -> Any:
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)
