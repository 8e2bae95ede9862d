"""What a run says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from bench import report
from bench.cold import goals
from bench.cold.passes import CACHED, Pass
from bench.cold.run import Run, contenders
from bench.cold.stores import SETS


def show(run: Run, chosen: list[Pass], rows: list[dict[str, Any]]) -> None:
    """Print everything."""
    for name, version in run.versions.items():
        print(f"{name} {version}")
    for data in run.found:
        print(f"\n{data}: {SETS[data].what}; medians of {run.options.rounds} rounds")
        for each in SETS[data].contenders:
            if each.how:
                print(f"  {each.name}: {each.how}")
        print("\n".join(table(run, data, [each for each in chosen if each.data == data])))
    print()
    print("\n".join(goals.lines(rows, run.options.keys)))
    print(f"\ncold passes began with at most {most_left(run, chosen):.2%} of a store in memory")
    for what, reason in run.skipped.items():
        print(f"without {what}: {reason}")
    for failure in run.failures:
        print(f"\nFAILED: {failure}")


def most_left(run: Run, chosen: list[Pass]) -> float:
    """The most of a store that was in memory before a cold pass."""
    left = [
        figures["there"]
        for each in chosen
        if each.state != CACHED
        for rounds in run.found.get(each.data, {}).get(each.name, {}).values()
        for figures in rounds
    ]
    return max(left, default=0.0)


def table(run: Run, data: str, chosen: list[Pass]) -> Iterable[str]:
    """Medians of one data set, the ratio to tilekv below each, and of what reads the disk how much, and the faults."""
    names = [each.name for each in contenders(run, data) if each.stored in run.sizes]
    yield f"{'':22}" + "".join(f"{name:>13}" for name in names)
    stored = {each.name: each.stored for each in SETS[data].contenders}
    yield _row("load", [report.figure(_rate(run, data, stored[one]), "/s") for one in names])
    yield _row("bytes", [report.figure(run.sizes[stored[one]], "B") for one in names])
    for each in chosen:
        rounds = run.found[data].get(each.name, {})
        if not rounds:
            continue
        yield _row(each.name, [_median(rounds.get(one), "figure", each.unit) for one in names])
        ratios = [_ratio(rounds, one, each.unit) for one in names]
        if any(ratios):
            yield _row("", ["" if one is None else f"x {one:.2f}" for one in ratios])
        if each.state != CACHED:
            yield _row("  read", [_median(rounds.get(one), "read_bytes", "KB") for one in names])
            yield _row("  waiting faults", [_median(rounds.get(one), "major", "") for one in names])


def _row(name: str, cells: list[str]) -> str:
    return f"{name:22}" + "".join(f"{cell:>13}" for cell in cells)


def _rate(run: Run, data: str, stored: str) -> float:
    keys = 1 if SETS[data].large else run.options.keys
    return keys / max(run.seconds[stored], 1e-9)


def _median(rounds: list[dict[str, float]] | None, key: str, unit: str) -> str:
    if not rounds:
        return "-"
    middle = statistics.median(each[key] for each in rounds)
    if unit == "KB":
        return f"{middle / 1e3:,.1f} KB"
    return report.figure(middle, unit) if unit else f"{middle:,.2f}"


def _ratio(rounds: dict[str, list[dict[str, float]]], name: str, unit: str) -> float | None:
    """How many times better tilekv is, whatever the unit."""
    if name == "tilekv" or name not in rounds or "tilekv" not in rounds:
        return None
    pairs = zip(rounds["tilekv"], rounds[name], strict=False)
    middle = statistics.median(ours["figure"] / theirs["figure"] for ours, theirs in pairs)
    return middle if unit == "/s" else 1 / middle
