"""What was measured, as pictures: the ratios to rivals, and how costs grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.life.upkeep import Kept
from bench.report import ratio

if TYPE_CHECKING:
    from bench.scale import Counts

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


def draw_scale(measured: dict[int, Counts], model: dict[int, Counts], path: Path) -> None:
    """Draw what an open and a look-up cost by the keys of a store: lines of the model, marks of stores that were made."""
    _settle()
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = (
        ("bytes", ("stored", "open_bytes", "get_bytes")),
        ("requests, and fragments", ("open_requests", "get_requests", "fragments")),
    )
    for axes, (title, names) in zip(figure.subplots(1, 2), panels, strict=True):
        for number, name in enumerate(names):
            (line,) = axes.plot(
                list(model),
                [getattr(each, name) for each in model.values()],
                label=name.replace("_", ", "),
            )
            axes.plot(
                list(measured),
                [getattr(each, name) for each in measured.values()],
                MARKERS[number],
                color=line.get_color(),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("keys")
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw_cold(record: dict[str, Any], path: Path) -> None:
    """Draw tilekv's figure over each contender's, a row a pass of `bench.cold`, on a logarithmic axis, into an SVG."""
    rows = [
        (data, name, contenders)
        for data, by_pass in record["figures"].items()
        for name, contenders in by_pass.items()
        if "tilekv" in contenders and len(contenders) > 1
    ]
    rivals = list(dict.fromkeys(name for *_, each in rows for name in each if name != "tilekv"))
    _settle()
    figure = Figure(figsize=(8, 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for number, rival in enumerate(rivals):
        points = []
        for row, (_, name, contenders) in enumerate(rows):
            pairs = zip(contenders["tilekv"], contenders.get(rival, []), strict=False)
            ratios = [ours["figure"] / theirs["figure"] for ours, theirs in pairs]
            if ratios:
                middle = statistics.median(ratios)
                points.append((middle if record["units"][name] == "/s" else 1 / middle, row))
        if points:
            axes.plot(*zip(*points, strict=True), MARKERS[number % 8], label=rival, alpha=0.85)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{name}, {data}" for data, name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3)
    axes.set_xlabel("times better than the rival (right of the line: tilekv is ahead)")
    axes.set_title(
        f"{record['options']['keys']:,} keys; {record['machine']['cpu']}, {record['machine']['cores']} cores",
        fontsize=9,
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw_cloud(results: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Draw what each operation of `bench.cloud` took whom, a panel a figure, on logarithmic axes, into an SVG."""
    _settle()
    panels = {"ms": "milliseconds", "requests": "requests", "waits": "waits", "bytes": "bytes"}
    operations = list(next(iter(results.values())))
    figure = Figure(figsize=(3 * len(panels), 1.6 + 0.36 * len(operations)), layout="constrained")
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, what) in zip(axes_of, panels.items(), strict=True):
        for number, (who, found) in enumerate(results.items()):
            # What takes none of it has no place on such an axis.
            points = [
                (getattr(one, name), row)
                for row, operation in enumerate(operations)
                if (one := found.get(operation)) is not None and getattr(one, name) > 0
            ]
            if points:
                axes.plot(*zip(*points, strict=True), MARKERS[number % 8], label=who, alpha=0.85)
        axes.set_xscale("log")
        axes.set_xlabel(what)
        axes.grid(alpha=0.3)
    axes_of[0].set_yticks(range(len(operations)), operations)
    axes_of[0].set_ylim(len(operations) - 0.5, -0.5)
    axes_of[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw_grown(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Draw what a look-up, and a key of a load, costs over the keys of `bench.growth`, a panel each, into an SVG."""
    _settle()
    names = ("load", "get hot", "get", "miss")
    figure = Figure(figsize=(4 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for number, (who, by_size) in enumerate(found.items()):
            points = [(size, 1e9 / figures[name]) for size, figures in by_size.items()]
            axes.plot(*zip(*points, strict=True), MARKERS[number % 8] + "-", label=who)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(f"keys: {name}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("ns a key")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
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


def draw_life(runs: Sequence[Kept], path: Path) -> None:
    """Draw what a store comes to as it is flushed into, a column for each size of flushes, into an SVG."""
    _settle()
    rows = (
        ("fragments", lambda kept: kept.fragments),
        ("folders", lambda kept: kept.folders),
        ("bytes of the folder, times the live", lambda kept: kept.times_live),
        ("gets a second", lambda kept: kept.gets),
    )
    figure = Figure(figsize=(4.5 * len(runs), 2 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(runs), sharex="col", squeeze=False)
    for line, (what, figures) in zip(panels, rows, strict=True):
        for axes, kept in zip(line, runs, strict=True):
            axes.plot(kept.at, figures(kept), linewidth=1)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        line[0].set_ylabel(what, fontsize=8)
    for axes, kept in zip(panels[-1], runs, strict=True):
        axes.set_xlabel(f"flushes of {kept.entries:,} entries")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _settle() -> None:
    """The same figures make the same file, and text stays text."""
    mpl.rcParams["svg.hashsalt"] = "tilekv"
    mpl.rcParams["svg.fonttype"] = "none"
