"""The kernels in ns a key or MB a second, each beside its reference: `python -m bench.kernels`.

pytest-benchmark measures bench/test_kernels.py; what it is given is given on (`-k digest`, `--benchmark-min-rounds=20`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("test_kernels.py")


def main(arguments: list[str]) -> int:
    """Run and print; pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        record = Path(folder, "kernels.json")
        quiet = ["-q", "--no-header", "--benchmark-columns=median", "--benchmark-disable-gc"]
        code = pytest.main([str(FILE), *quiet, f"--benchmark-json={record}", *arguments])
        text = record.read_text() if record.exists() else ""
    if text:
        show(json.loads(text)["benchmarks"])
    return int(code)


def show(benchmarks: list[dict[str, Any]]) -> None:
    """Print a line a kernel."""
    groups: dict[str, dict[bool, dict[str, Any]]] = defaultdict(dict)
    for each in benchmarks:
        groups[each["group"]][each["extra_info"].get("reference", False)] = each
    print(f"\n{'kernel':18}{'tilekv':>14}{'reference':>14}{'times':>8}  reference")
    for group, pair in groups.items():
        if False not in pair:
            continue
        line = f"{group:18}{rate(pair[False]):>14}"
        if True in pair:
            times = pair[True]["stats"]["median"] / pair[False]["stats"]["median"]
            other = pair[True]["name"].partition("_by_")[2].partition("[")[0]
            line += f"{rate(pair[True]):>14}{times:8.2f}  {other}"
        print(line)


def rate(benchmark: dict[str, Any]) -> str:
    """The median in the unit that the benchmark says it counts."""
    info, median = benchmark["extra_info"], benchmark["stats"]["median"]
    if "keys" in info:
        return f"{median / info['keys'] * 1e9:.1f} ns/key"
    return f"{info['bytes'] / median / 1e6:,.0f} MB/s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
