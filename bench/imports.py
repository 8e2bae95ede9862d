"""What `import tilekv` and the first open cost beyond `import numpy`: `python -m bench.imports`.

Each program has fresh interpreters, which take turns. Medians are printed, in milliseconds from the start of a process to its
end and of its processor time, with the spread of the rounds; and beside each what it takes beyond the program above it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = {
    "python": "",
    "import numpy": "import numpy",
    "import tilekv": "import numpy, tilekv",
    "open and get": "import numpy, sys, tilekv\nwith tilekv.open(sys.argv[1]) as db: db['key']",
    "all public names": "import numpy\nfrom tilekv import *",
}
ABOVE = {
    "import numpy": "python",
    "import tilekv": "import numpy",
    "open and get": "import tilekv",
    "all public names": "import tilekv",
}
FILL = "import sys, tilekv\nwith tilekv.open(sys.argv[1], 'x') as db: db['key'] = b'value'"
GOAL_MS = 40  # of `import tilekv` beyond `import numpy`


def measure(program: str, store: Path) -> tuple[float, float, int]:
    """Milliseconds of a process, of the processor for it, and how many modules it has at its end."""
    counted = f"{program}\nimport sys\nprint(len(sys.modules))"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", counted, str(store)], stdout=subprocess.PIPE, text=True
    )
    out = process.stdout
    assert out is not None
    with out:
        modules = out.read()
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"this program ended with {process.returncode}: {program}")
    return took * 1000, (used.ru_utime + used.ru_stime) * 1000, int(modules)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.imports", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rounds: dict[str, list[tuple[float, float, int]]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        store = Path(folder, "store")
        measure(FILL, store)
        for _ in range(options.rounds):
            for name, program in PROGRAMS.items():
                rounds[name].append(measure(program, store))
    print(
        f"{'ms':18}{'wall':>8}{'spread':>16}{'more':>8}{'cpu':>8}{'spread':>16}{'more':>8}{'modules':>9}"
    )
    for name, seen in rounds.items():
        line = f"{name:18}"
        for figure in (0, 1):
            values = [each[figure] for each in seen]
            spread = f"{min(values):.1f}..{max(values):.1f}"
            more = f"{_more(rounds, name, figure):.1f}" if name in ABOVE else ""
            line += f"{statistics.median(values):8.1f}{spread:>16}{more:>8}"
        print(f"{line}{seen[0][2]:9}")
    found, used = (_more(rounds, "import tilekv", figure) for figure in (0, 1))
    verdict = "met" if found <= GOAL_MS else "not met"
    print(
        f"import tilekv within {GOAL_MS} ms of import numpy: {verdict} ({found:.1f}; {used:.1f} of the processor)"
    )


def _more(rounds: dict[str, list[tuple[float, float, int]]], name: str, figure: int) -> float:
    """The median of what a program takes beyond the one above it in the same round."""
    pairs = zip(rounds[name], rounds[ABOVE[name]], strict=True)
    return statistics.median(one[figure] - base[figure] for one, base in pairs)


if __name__ == "__main__":
    main()
