"""What a run says: tables for people, JSON for the record."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.goals import GOALS, Results
from bench.workloads import WORKLOADS

ROOT = Path(__file__).parents[1]


def ratio(results: Results, data: str, workload: str, name: str) -> float | None:
    """tilekv's median advantage over a rival, round by round; more than 1 is better whatever the unit."""
    rounds = results[data].get(workload, {})
    pairs = zip(rounds.get("tilekv", []), rounds.get(name, []), strict=False)
    quotients = [ours / theirs for ours, theirs in pairs if theirs > 0]
    if not quotients:
        return None
    middle = statistics.median(quotients)
    return middle if WORKLOADS[workload].more_is_better else 1 / middle if middle > 0 else None


def figure(value: float, unit: str) -> str:
    """A figure with its prefix, in six columns at most."""
    if unit == "s":
        return f"{value * 1e6:.0f} us" if abs(value) < 9e-3 else f"{value * 1e3:,.0f} ms"
    if unit == "B":
        return f"{value / 1e6:,.1f} MB"
    if unit == "B/key":
        return f"{value:,.1f} B"
    for scale, prefix in ((1e6, " M/s"), (1e3, " k/s")):
        if value >= scale:
            return f"{value / scale:,.{2 if value < 10 * scale else 1}f}{prefix}"
    return f"{value:,.1f} /s"


def table(results: Results, data: str, names: list[str]) -> Iterable[str]:
    """Medians of one data set, and below each the ratio to tilekv."""
    yield f"{'':19}" + "".join(f"{name:>13}" for name in names)
    for workload, rounds in results[data].items():
        unit = WORKLOADS[workload].unit
        medians = [statistics.median(rounds[name]) if rounds.get(name) else None for name in names]
        cells = ["-" if median is None else figure(median, unit) for median in medians]
        yield f"{workload:19}" + "".join(f"{cell:>13}" for cell in cells)
        ratios = [
            None if name == "tilekv" else ratio(results, data, workload, name) for name in names
        ]
        if any(ratios):
            yield f"{'':19}" + "".join(
                f"{'' if one is None else f'x {one:.2f}':>13}" for one in ratios
            )


def goals(results: Results) -> list[dict[str, Any]]:
    """Every goal with what was measured."""
    rows = []
    for goal in GOALS:
        median = goal.median(results)
        rows.append(
            {
                "data": goal.data,
                "goal": goal.text,
                "bound": goal.bound,
                "at_most": goal.at_most,
                "median": median,
                "rounds": goal.figures(results),
                "met": None if median is None else goal.met(median),
            }
        )
    return rows


def goal_lines(rows: list[dict[str, Any]]) -> Iterable[str]:
    """The goals as a table."""
    yield f"{'goal':34}{'asked':>15}{'measured':>14}"
    for row in rows:
        bound, median = row["bound"], row["median"]
        unit = WORKLOADS[row["goal"]].unit if row["goal"] in WORKLOADS else ""
        shown = [
            "-" if one is None else figure(one, unit) if unit else f"{one:.3g}"
            for one in (bound, median)
        ]
        sign = "at most" if row["at_most"] else "at least"
        verdict = {None: "not measured", True: "met", False: "NOT MET"}[row["met"]]
        label = row["goal"] + ("" if row["data"] == "sentence" else f" ({row['data']})")
        yield f"{label:34}{sign + ' ' + shown[0]:>15}{shown[1]:>14}  {verdict}"


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    fields: dict[str, str] = {}
    for line in info.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "simd": [flag for flag in ("avx2", "avx512f", "avx512bw", "avx512vl") if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "load_average": os.getloadavg(),
    }


def commit() -> str:
    """The commit that was measured; a trailing + says that the tree was changed."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
