"""What was measured, as pictures: the ratios to rivals, and how costs grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import ratio

# What a program does with a store; from `what` on the first line down.
SHOWN = {
    "load": "load, durable",
    "get": "get, hot",
    "get_8MB": "get, 8 MiB cache",
    "miss": "get, missing",
    "get_many": "get_many",
    "items": "iterate items",
    "values": "iterate values",
    "overwrite": "overwrite",
    "delete": "delete",
    "consolidate": "consolidate, compact",
    "disk": "bytes on disk",
}
GROWN = ("load", "get", "miss", "get_many", "read", "items", "scan", "consolidate")
MARKERS = "os^Dv*PX"


def draw_ratios(record: dict[str, Any], path: Path) -> None:
    """Draw how many times better tilekv is than each rival, on a logarithmic axis, into an SVG."""
    results = record["figures"]
    data = "sentence" if "sentence" in results else next(iter(results))
    rows = [name for name in SHOWN if name in results[data]]
    rivals = [name for name in record["rivals"] if name != "tilekv"]
    _settle()
    figure = Figure(figsize=(8, 1.6 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(rivals):
        points = []
        for row, workload in enumerate(rows):
            one = ratio(results, data, workload, name)
            # A dict is not durable and has no bytes on disk: what would compare them says nothing.
            if one is not None and not (
                name == "dict" and workload in {"load", "disk", "overwrite"}
            ):
                points.append((one, row))
        if points:
            axes.plot(*zip(*points, strict=True), MARKERS[number % 8], label=name, alpha=0.85)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [SHOWN[name] for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3)
    axes.set_xlabel("times better than the rival (right of the line: tilekv is ahead)")
    size = record["sets"][data]
    axes.set_title(
        f"{size['keys']:,} keys, {size['raw_bytes'] / size['keys']:.0f} bytes of key and value; "
        f"{record['machine']['cpu']}, {record['machine']['cores']} cores",
        fontsize=9,
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw_growth(record: dict[str, Any], path: Path) -> None:
    """Draw what a key costs over each axis of `bench.costs`, both axes logarithmic, into an SVG."""
    _settle()
    growth = record["growth"]
    figure = Figure(figsize=(4 * len(growth), 3.6), layout="constrained")
    panels = figure.subplots(1, len(growth), sharey=True, squeeze=False)[0]
    for axes, (axis, lines) in zip(panels, growth.items(), strict=True):
        for number, name in enumerate(GROWN):
            points = [
                (at, seconds * 1e9)
                for at, seconds in zip(lines["at"], lines["figures"][name], strict=True)
                if seconds is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), MARKERS[number] + "-", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(axis)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("ns a key")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _settle() -> None:
    """The same figures make the same file, and text stays text."""
    mpl.rcParams["svg.hashsalt"] = "tilekv"
    mpl.rcParams["svg.fonttype"] = "none"
