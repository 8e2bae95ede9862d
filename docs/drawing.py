"""Draws format.svg: a real store, from its folder down to the bytes of one chunk, with the sizes that its files have.

    python docs/drawing.py docs/format.svg

The store has no filters, so that its sizes follow from the format and from no version of a compressor; a test compares.
"""

import struct
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

import tilekv

KEYS = 2500
VALUE = 200  # bytes
CAPACITY = 1024
FIELDS = 3  # __key, value, __key_type
TRAILER = 20  # bytes behind the last tile: which fragment and slot it belongs to
SLOTS = ["__coords", "__key", "__key_var", "__key_type", "value", "value_var"]
WIDTH, LEFT, RIGHT = 1000, 570, 380  # of the drawing, of the column of bars and of that of rows
BAR, ROW = 46, 24
BLOOM = 4
RECORDS = {
    1: "tag 1: uuid, times, counts",
    3: "tag 3: chunks of a file",
    BLOOM: "tag 4: the Bloom filter",
    5: "tag 5: files have trailers",
    7: "tag 7: cells of one size, or type",
}

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.name { font-family: ui-monospace, monospace; font-size: 12px }
.size { font-size: 11px; fill: #59636e }
.head { font-weight: 600 }
.paper { fill: #fff }
rect { stroke: #8c959f; fill: #f6f8fa }
.fragment { fill: #ddf4ff } .tile { fill: #dafbe1 } .chunk { fill: #fff1c7 } .private { fill: #fbefff }
.zoom { fill: none; stroke: #8c959f; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .size { fill: #9198a1 } .paper { fill: #0d1117 } rect { stroke: #656c76; fill: #212830 }
.fragment { fill: #12324f } .tile { fill: #12391f } .chunk { fill: #463304 } .private { fill: #3a1f57 }
}
"""


class Part(NamedTuple):
    """A run of bytes."""

    name: str
    size: int | None
    kind: str = "plain"

    @property
    def bytes(self) -> str:
        """Its size in words; nothing where it says nothing."""
        return "" if self.size is None else f"{self.size:,} B"


class Store(NamedTuple):
    """What is drawn."""

    files: list[Part]
    tiles: list[Part]
    chunks: list[Part]
    chunk: list[Part]
    metadata: list[Part]
    private: list[Part]
    fragment: list[Part]


def measured(root: Path) -> Store:
    """A store made below `root`, taken apart."""
    schema = tilekv.Schema(
        [tilekv.Attr("value", bytes, filters=[])], capacity=CAPACITY, key_filters=[]
    )
    with tilekv.open(root / "store", "x", schema=schema) as db:
        db.put_many([f"key_{i:04}" for i in range(KEYS)], [bytes(VALUE)] * KEYS)
    folder = next(path for path in (root / "store").iterdir() if path.is_dir())
    names = ["__kv_schema.tdb", "__array_schema.tdb", "__tilekv.json", "__lock.tdb"]
    sizes = {path.name: path.stat().st_size for path in (root / "store").iterdir()}
    files = [Part(name, None if name.endswith("json") else sizes[name]) for name in names]
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    whole = sum(map(len, contents.values()))
    files.append(Part("__<t1>_<t2>_<uuid>/", whole, "fragment"))
    tiles = list(cut(contents["value_var.tdb"]))
    first = tiles[0]
    fragment = [
        Part(
            f"{slot}.tdb", len(contents[f"{slot}.tdb"]), "tile" if slot == "value_var" else "plain"
        )
        for slot in SLOTS
    ]
    fragment.append(
        Part("__fragment_metadata.tdb", len(contents["__fragment_metadata.tdb"]), "private")
    )
    raw, stored, meta = first[0]
    return Store(
        files,
        [
            Part(f"tile {i}", 8 + sum(12 + s + m for _, s, m in tile), "plain" if i else "chunk")
            for i, tile in enumerate(tiles)
        ],
        [Part("count", 8)]
        + [
            Part(f"chunk {i}", 12 + s + m, "plain" if i else "chunk")
            for i, (_, s, m) in enumerate(first)
        ],
        [
            Part("raw size", 4),
            Part("stored size", 4),
            Part("meta size", 4),
            Part("CRC-32C", meta),
            Part(f"{raw // VALUE} values", stored, "chunk"),
        ],
        *metadata(contents["__fragment_metadata.tdb"]),
        fragment,
    )


def cut(data: bytes) -> Iterator[list[tuple[int, int, int]]]:
    """The tiles of a file: of each chunk the raw, stored and metadata size."""
    at = 0
    while at < len(data) - TRAILER:
        (n,) = struct.unpack_from("<Q", data, at)
        at += 8
        chunks = []
        for _ in range(n):
            sizes = struct.unpack_from("<III", data, at)
            at += 12 + sizes[1] + sizes[2]
            chunks.append(sizes)
        yield chunks


def metadata(data: bytes) -> tuple[list[Part], list[Part]]:
    """The parts of the metadata file, and of the private block in it."""
    vectors = 1 + (FIELDS + 1) + FIELDS + FIELDS
    footer = 54 + 8 * (2 * FIELDS + 1) + 8 * vectors
    starts = struct.unpack_from(f"<{vectors}Q", data, len(data) - 8 * vectors)
    end = len(data) - footer
    size, _, magic = struct.unpack_from("<II4s", data, end - 12)
    assert magic == b"TKVB"
    block = end - 12 - size
    records, bloom = [], block
    at = block
    while at + 8 <= end - 12:
        tag, length = struct.unpack_from("<II", data, at)
        if tag == BLOOM:
            (bloom,) = struct.unpack_from("<Q", data, at + 8)
        at += 8 + -(-length // 8) * 8
        records.append(Part(RECORDS[tag], 8 + -(-length // 8) * 8, "private"))
    edges = [0, starts[0], starts[1], starts[FIELDS + 2], starts[2 * FIELDS + 2], bloom, block, end]
    names = ["zeros", "R-tree of the tiles' bounds", "positions of the tiles, of each file"]
    names += ["positions of their var bytes", "sizes of their var bytes"]
    names += ["Bloom filter of the digests", "private block", "footer"]
    ends = [*edges[1:], len(data)]
    parts = [
        Part(name, last - first, "private" if name == "private block" else "plain")
        for name, first, last in zip(names, edges, ends, strict=True)
    ]
    return parts, [*records, Part("size, CRC-32C, TKVB", 12, "private")]


class Drawing:
    """Lines of SVG."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def text(self, x: float, y: float, words: str, look: str, anchor: str = "start") -> None:
        """A line of text."""
        self.lines.append(
            f'<text x="{x:.0f}" y="{y:.0f}" class="{look}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def rect(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """A box."""
        self.lines.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{look}"/>'
        )

    def zoom(self, corners: list[tuple[float, float]]) -> None:
        """From both ends of a part to both ends of what it is drawn as."""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self.lines.append(f'<polyline points="{points}" class="zoom"/>')

    def bar(self, y: float, head: str, parts: list[Part], least: float) -> tuple[float, float]:
        """Parts side by side, none narrower than `least`; the ends of the one that is looked into next."""
        self.text(8, y - 8, head, "head")
        total = sum(part.size or 0 for part in parts)
        room = LEFT - least * len(parts)
        x, ends = 0.0, (0.0, 0.0)
        for part in parts:
            width = least + room * (part.size or 0) / total
            self.rect(x, y, width, BAR, part.kind)
            self.text(x + width / 2, y + 20, part.name, "name", "middle")
            self.text(x + width / 2, y + 36, part.bytes, "size", "middle")
            if part.kind != "plain":
                ends = x, x + width
            x += width
        return ends

    def rows(
        self, x: float, y: float, head: str, parts: list[Part], width: float
    ) -> dict[str, tuple[float, float]]:
        """Parts one above the other; where each that is looked into next begins and ends."""
        self.text(x + 8, y - 8, head, "head")
        ends = {}
        for part in parts:
            self.rect(x, y, width, ROW, part.kind)
            self.text(x + 8, y + 16, part.name, "name")
            if part.bytes:
                self.text(x + width - 8, y + 16, part.bytes, "size", "end")
            if part.kind != "plain":
                ends[part.kind] = y, y + ROW
            y += ROW
        return ends


def drawing(root: Path) -> str:
    """The picture of a store that is made below `root`."""
    store = measured(root)
    d = Drawing()
    side = WIDTH - RIGHT
    shown = d.rows(0, 24, f"The store: {KEYS:,} keys of 8 bytes", store.files, 380)
    files = d.rows(side, 24, "A fragment: one flush", store.fragment, RIGHT)
    middle = sum(shown["fragment"]) / 2
    d.zoom([(380, middle), (590, middle), (590, 24), (side, 24)])
    y = low = 282
    ends = d.bar(y, f"value_var.tdb: tiles of {CAPACITY:,} cells", store.tiles, 60)
    middle = sum(files["tile"]) / 2
    d.zoom([(side, middle), (590, middle), (590, y - 28), (0, y - 28), (0, y)])
    d.zoom([(LEFT, y - 28), (LEFT, y)])
    for head, parts, least in (
        ("tile 0: its chunks, whole cells each", store.chunks, 56),
        ("chunk 0: sizes, checksum, data", store.chunk, 88),
    ):
        below = y + BAR + 64
        d.zoom([(ends[0], y + BAR), (0, below - 28), (0, below)])
        d.zoom([(ends[1], y + BAR), (LEFT, below - 28), (LEFT, below)])
        y = below
        ends = d.bar(y, head, parts, least)
    inside = d.rows(side, low, "__fragment_metadata.tdb", store.metadata, RIGHT)
    bottom = files["private"][1]
    d.zoom([(side + RIGHT, bottom), (side + RIGHT, low)])
    d.zoom([(side, bottom), (side, low)])
    at = low + ROW * len(store.metadata) + 42
    d.rows(side, at, "The private block, which TileDB passes over", store.private, RIGHT)
    middle = sum(inside["private"]) / 2
    d.zoom([(side, middle), (side - 12, middle), (side - 12, at + 4), (side, at + 4)])
    height = at + ROW * len(store.private) + 8
    title = "A store's folder, a fragment's files, the tiles of one file, their chunks, and the metadata file"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -16 {WIDTH + 32} {height + 32}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect x="-16" y="-16" width="{WIDTH + 32}" height="{height + 32}" class="paper" stroke="none"/>',
            *d.lines,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        Path(sys.argv[1]).write_text(drawing(Path(made)))
