"""The pictures that docs/performance.md begins with: how many times better tilekv is than three rivals, and where it is worse.

    python -m bench.headline [FOLDER]    into bench/results unless named

Nothing is measured: they are drawn from the tables that are kept in bench/results, so that a picture and its table say the same.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_name("results")
RIVALS = 3  # a picture, at most


class Picture(NamedTuple):
    """`rows` (as the table calls them, and as they are called here) of the `part` of a table beside `rivals`, likewise."""

    source: str
    part: str  # what the line before it begins with
    title: str
    note: str
    rivals: dict[str, str]
    rows: dict[str, str]


STORES = {"lmdb": "LMDB", "rocksdict": "RocksDB", "sqlite3": "SQLite"}
PICTURES = {
    "stores": Picture(
        "sentence.txt",
        "sentence:",
        "A store that is in memory",
        "1,000,000 keys of 20 bytes, values of 100; every write durable",
        STORES,
        {
            "load": "load",
            "get": "get, one at a time",
            "miss": "get, missing keys",
            "get_many": "get_many",
            "items": "iterate items",
            "overwrite": "overwrite",
            "delete": "delete",
            "disk": "bytes on disk",
            "get_memory": "memory of get",
            "open": "open",
        },
    ),
    "beyond-memory": Picture(
        "cold.txt",
        "equal:",
        "A store that is on the disk",
        "10,000,000 keys of 20 bytes, values of 100; nothing in memory but where it says so",
        STORES,
        {
            "cold get": "get",
            "cold get_many": "get_many",
            "cold miss": "get, missing keys",
            "get in 256 MiB": "get, in 256 MiB of memory",
            "first touch": "get, files in memory",
        },
    ),
    "large-values": Picture(
        "cold.txt",
        "large:",
        "A part of a large value",
        "16 KiB of one value of 64 MB, and all of it",
        STORES,
        {
            "cold range": "a part, from the disk",
            "range": "a part, from memory",
            "whole": "all of it, the first time",
            "whole again": "all of it, again",
        },
    ),
    "bucket": Picture(
        "cloud.txt",
        "",
        "A store in a bucket",
        "100,000 keys of 20 bytes, values of 100; each answer comes 20 ms later; milliseconds",
        {
            "TileDB-Py 0.36.1": "TileDB",
            "icechunk 1.1.21": "Icechunk",
            "objects by obstore 0.12.1": "an object a key",
        },
        {
            "get": "get",
            "get_many 100": "get_many of 100",
            "get_many 10,000": "get_many of 10,000",
            "scan": "scan",
            "flush 1,000": "write 1,000",
            "open": "open",
        },
    ),
    "frames": Picture(
        "frames.txt",
        "tilekv's figure",
        "A frame on a disk",
        "886,000 rows, five columns; many: 100,000 rows by their names",
        {"Parquet": "Parquet", "DuckDB": "DuckDB", "SQLite": "SQLite"},
        {
            "look up one by one": "rows, one by one",
            "look up many": "many rows",
            "look up many, first time": "many rows, the first time",
            "load": "load",
            "scan": "scan",
            "bytes": "bytes on disk",
        },
    ),
}


# --- tables ---


def part_of(text: str, begins: str) -> list[str]:
    """The lines of a table: after the one that `begins` so, up to an empty one."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(begins)) + 1
    return lines[at : lines.index("", at)]


def cells(header: str, line: str) -> dict[str, str]:
    """What stands below each name of a header: both end in one column."""
    found, begin = {}, 0
    for name in re.finditer(r"\S+", header):
        found[name[0]] = line[begin : name.end()].strip()
        begin = name.end()
    return found


UNITS = {"/s": 1.0, "k/s": 1e3, "M/s": 1e6}


def rate(cell: str) -> float:
    """So many a second."""
    figure, unit = cell.split()
    return float(figure.replace(",", "")) * UNITS[unit]


def times_of(lines: list[str]) -> dict[str, dict[str, float]]:
    """Of a table of `bench` or `bench.cold`, where ratios stand below figures; row, rival, how many times better tilekv is."""
    header = next(line for line in lines if line.split()[:1] == ["tilekv"])
    found = {}
    for figures, line in pairwise(lines):
        if not re.fullmatch(r" +(x [\d.]+ *)+", line):
            continue
        above, below = cells(header, figures), cells(header, line)
        found[re.split(r"  +", figures)[0]] = {
            # Two digits behind the point are too few to divide by: there the figures are divided.
            name: rate(re.split(r"  +", above["tilekv"])[-1]) / rate(above[name])
            if below[name] < "x 0.05"
            else float(below[name][2:])
            for name in below
            if below[name]
        }
    return found


def times_in_frames(lines: list[str]) -> dict[str, dict[str, float]]:
    """Of the table of ratios of `bench.frames`, whose columns are those of the one above it."""
    names = ("Tilekv", "Parquet", "DuckDB", "SQLite", "Lance")
    found = {}
    for line in lines:
        label, *ratios = re.split(r"  +", line)
        found[label] = dict(zip(names, map(float, ratios), strict=True))
    return found


def times_in_cloud(text: str) -> dict[str, dict[str, float]]:
    """Of the tables of `bench.cloud`, one an operation: its milliseconds over tilekv's."""
    found = {}
    for table in text.split("\n\n"):
        heading, *lines = table.splitlines()
        if not (head := re.match(r"(.+?) +ms +requests", heading)):
            continue
        ms = {
            who: float(figure.replace(",", ""))
            for who, figure, *_ in (re.split(r"  +", line) for line in lines)
            if figure != "-"
        }
        found[head[1]] = {who: figure / ms["tilekv"] for who, figure in ms.items()}
    return found


def ratios(picture: Picture, results: Path = RESULTS) -> dict[str, dict[str, float]]:
    """What a picture shows: row, rival, how many times better tilekv is; below 1 the rival is."""
    text = (results / picture.source).read_text()
    if picture.source == "cloud.txt":
        found = times_in_cloud(text)
    elif picture.source == "frames.txt":
        found = times_in_frames(part_of(text, picture.part))
    else:
        found = times_of(part_of(text, picture.part))
    return {
        shown: {
            name: found[row][rival] for rival, name in picture.rivals.items() if rival in found[row]
        }
        for row, shown in picture.rows.items()
    }


# --- drawing ---

WIDTH, LEFT, RIGHT = 760, 190, 22  # of the drawing; of what is beside the axis
BEHIND, AHEAD = 2, 3  # decades: 100x to the left of 1x, 1000x to the right
BAR, GAP, TOP = 11, 9, 78  # a rival's bar, between rows, above the first
LETTER = 6.5  # the width of one, about
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 15px; font-weight: 600 }
.note, .tick { font-size: 11px; fill: #59636e }
.times { font-size: 10px; fill: #59636e; dominant-baseline: central }
.row { text-anchor: end; dominant-baseline: central }
.paper { fill: #fff } .behind { fill: #f6f8fa }
.grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #59636e; stroke-width: 1.5 }
.r0 { fill: #0969da } .r1 { fill: #d4790a } .r2 { fill: #1a8a5b } .lost { opacity: .55 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note, .tick, .times { fill: #9198a1 }
.paper { fill: #0d1117 } .behind { fill: #161b22 }
.grid { stroke: #2a313c } .one { stroke: #9198a1 }
.r0 { fill: #4493f8 } .r1 { fill: #e3a04a } .r2 { fill: #3fb987 }
}
"""


def place(times: float) -> float:
    """Where so many times is on the axis."""
    decade = (WIDTH - LEFT - RIGHT) / (BEHIND + AHEAD)
    return LEFT + decade * (BEHIND + max(-BEHIND, min(AHEAD, math.log10(times))))


def said(times: float) -> str:
    """A ratio in two digits or three; of one below 1 how many times better the rival is."""
    more = max(times, 1 / times)
    return f"{more:.1f}x" if more < 9.95 else f"{more:.0f}x"


def text(x: float, y: float, words: str, look: str, anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{look}" text-anchor="{anchor}">{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, look: str) -> str:
    """A box."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{look}"/>'
    )


def bars(y: float, number: int, times: float) -> Iterator[str]:
    """One rival's bar of one row, from 1x to what it is, and its figure behind the end."""
    ends = sorted((place(1), place(times)))
    lost = times < 1
    width = max(ends[1] - ends[0], 1)
    yield rect(ends[0], y, width, BAR - 1, f"r{number} lost" if lost else f"r{number}")
    x, anchor = (ends[0] - 4, "end") if lost else (ends[1] + 4, "start")
    yield text(x, y + (BAR - 1) / 2, said(times), "times", anchor)


def drawing(picture: Picture, shown: dict[str, dict[str, float]]) -> str:
    """The SVG of a picture, light or dark as the page is."""
    rivals = list(picture.rivals.values())
    assert len(rivals) <= RIVALS
    step = BAR * len(rivals) + GAP
    bottom = TOP + step * len(shown)
    least = place(10.0**-BEHIND)
    lines = [
        text(0, 14, picture.title, "head"),
        text(0, 32, picture.note, "note"),
        rect(least, TOP - 6, place(1) - least, bottom - TOP + 6, "behind"),
    ]
    x = float(WIDTH)
    for number, name in reversed(list(enumerate(rivals))):
        x -= LETTER * len(name) + 30
        lines.append(rect(x, 4, 10, 10, f"r{number}"))
        lines.append(text(x + 16, 14, name, "name"))
    for power in range(-BEHIND, AHEAD + 1):
        x = place(10.0**power)
        look = "grid" if power else "one"
        lines.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" class="{look}"/>'
        )
        lines.append(text(x, bottom + 15, f"{10 ** abs(power)}x", "tick", "middle"))
    lines.append(text(place(1) - 10, TOP - 14, "← the rival is better", "note", "end"))
    lines.append(text(place(1) + 10, TOP - 14, "tilekv is better →", "note"))
    for row, (label, by_rival) in enumerate(shown.items()):
        y = TOP + step * row + GAP / 2 - 3
        lines.append(
            f'<text x="{LEFT - 26}" y="{y + BAR * len(rivals) / 2:.1f}" class="row">{escape(label)}</text>'
        )
        for number, name in enumerate(rivals):
            if name in by_rival:
                lines += bars(y + BAR * number, number, by_rival[name])
    height = bottom + 22
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -12 {WIDTH + 32} {height + 24}" role="img">',
            f"<title>{escape(picture.title)}: tilekv beside {escape(', '.join(rivals))}</title>",
            f"<style>{STYLE}</style>",
            rect(-16, -12, WIDTH + 32, height + 24, "paper"),
            *lines,
            "</svg>\n",
        ]
    )


def main(folder: Path = RESULTS) -> None:
    """Draw all of them into a folder."""
    for name, picture in PICTURES.items():
        (folder / f"headline-{name}.svg").write_text(drawing(picture, ratios(picture)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
