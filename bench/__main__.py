"""tilekv and its rivals on the same workloads, in the same run.

Each rival has a process of its own, and the processes take turns: every workload runs once a round on one after the other,
and the order of the rivals turns from round to round. Medians of the rounds are printed, and medians of the ratios of each
round. Nothing is switched off for it: checksums, key comparison and fsync are as a user has them. Stores are made
in the system's folder for temporary files: TMPDIR names another one.

`python -m bench cold growth life redis cloud` runs other benches, any of these: look-ups beyond memory, how costs grow with the
keys, what a store costs while it lives, what a served one costs beside Redis, and what one in a bucket costs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import parts, report
from bench.goals import Results
from bench.place import Options
from bench.rivals import MODULES
from bench.sets import SETS, DataSet
from bench.worker import Worker
from bench.workloads import BASIC, WORKLOADS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    described = "\n".join(
        ["workloads:"]
        + [f"  {name:20}{workload.what}" for name, workload in WORKLOADS.items()]
        + ["data sets:"]
        + [f"  {name:20}{each.what}" for name, each in SETS.items()]
    )
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keys", type=int, help="most keys (1,000,000; 200,000 with --against)")
    parser.add_argument("--asked", type=int, default=200_000, help="keys looked up (200,000)")
    parser.add_argument(
        "--open-keys", type=int, default=10_000_000, help="of open_large (10,000,000)"
    )
    parser.add_argument(
        "--rounds", type=int, help="at least 3 to be worth anything (3; 7 with --against)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", type=_names(SETS), help="data sets, by commas (all)")
    parser.add_argument("--value-size", type=int, help="one synthetic set, its values so large")
    parser.add_argument("--words", action="store_true", help="words instead of the sentence in it")
    parser.add_argument("--workloads", type=_names(WORKLOADS), help="by commas (all of a set)")
    parser.add_argument("--rivals", type=_names(MODULES), help="by commas (all installed)")
    parser.add_argument("--json", type=Path, help="write the figures of every round")
    parser.add_argument("--svg", type=Path, help="draw the ratios")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="count the processor's seconds, all threads together: for a machine that is busy with other things. Redis' "
        "server and the wait for a disk are not in them; two_writers counts the wall's always",
    )
    parser.add_argument("--tiny", action="store_true", help="2,000 keys, one round: does it run")
    two = parser.add_argument_group("two builds (bench/against.py)")
    two.add_argument(
        "--against",
        type=Path,
        metavar="WHEEL",
        help="instead of rivals: the installed build beside this one, a wheel, or the folder or environment of an installation",
    )
    two.add_argument("--at-most-time", type=float, metavar="RATIO", help="fail above it")
    two.add_argument("--at-most-instructions", type=float, metavar="RATIO", help="fail above it")
    two.add_argument("--profiles", type=Path, metavar="FOLDER", help="keep callgrind's profiles")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.keys, options.asked, options.open_keys, options.rounds = 2000, 500, 5000, 1
    options.keys = options.keys or (200_000 if options.against else 1_000_000)
    options.rounds = options.rounds or (7 if options.against else 3)
    return options


def _names(known: Iterable[str]) -> Any:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


def chosen_sets(options: argparse.Namespace) -> dict[str, DataSet]:
    """The data sets that the options ask for."""
    if options.value_size is None and not options.words:
        return {name: SETS[name] for name in options.sets or SETS}
    size = 100 if options.value_size is None else options.value_size
    kind = "words" if options.words else "sentence"
    for name, each in SETS.items():
        if (each.kind, each.value_size) == (kind, size):
            return {name: each}
    return {f"{size}B": DataSet(kind, size, BASIC, f"values of {size:,} bytes")}


class Run:
    """The workers of one run, and what they answer."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.results: Results = {}
        self.sizes: dict[str, dict[str, int]] = {}
        self.failures: list[str] = []
        self.rivals: dict[str, dict[str, str]] = {}
        self.workers: list[Worker] = []
        for name in options.rivals or MODULES:
            shared = Options(options.asked, options.open_keys, options.cpu)
            worker = Worker(name, folder / name, shared)
            outcome, answer = worker.ask("begin")
            if outcome == "done":
                self.rivals[name] = {"version": answer[0], "how": answer[1]}
                self.workers.append(worker)
            else:
                say(f"without {name}: {answer}")
                worker.finish()

    def data_set(self, name: str, chosen: DataSet) -> None:
        """All rounds on one data set."""
        source = chosen.source(self.options.keys, self.options.seed)
        for worker in self.workers:
            worker.send("prepare", source)
        for outcome, answer in [worker.answer() for worker in self.workers]:
            if outcome != "done":
                raise SystemExit(f"the data set {name} cannot be made:\n{answer}")
            self.sizes[name] = {"keys": answer[0], "raw_bytes": answer[1]}
        figures = self.results[name] = {
            workload: {} for workload in self.options.workloads or chosen.workloads
        }
        for turn in range(self.options.rounds):
            at = turn % len(self.workers)
            order = self.workers[at:] + self.workers[:at]
            for workload, rounds in figures.items():
                say(f"{name}, round {turn + 1} of {self.options.rounds}: {workload}")
                for worker in order:
                    outcome, answer = worker.ask("run", workload)
                    if outcome == "done":
                        rounds.setdefault(worker.name, []).append(answer)
                    elif outcome == "failed":
                        self.failures.append(f"{worker.name}, {workload} of {name}: {answer}")

    def finish(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.finish()


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def show(run: Run, sets: dict[str, DataSet], goals: list[dict[str, Any]]) -> None:
    """Print everything."""
    names = list(run.rivals)
    for name, figures in run.rivals.items():
        print(f"{name} {figures['version']}: {figures['how']}")
    for name in run.results:
        size = run.sizes[name]
        print(
            f"\n{name}: {sets[name].what}; {size['keys']:,} keys, {size['raw_bytes'] / 1e6:,.1f} MB"
        )
        clock = "processor" if run.options.cpu else "wall"
        print(
            f"medians of {run.options.rounds} rounds, {clock} seconds; x: tilekv is so many times better"
        )
        print("\n".join(report.table(run.results, name, names)))
    if any(goal["median"] is not None for goal in goals):
        print()
        print("\n".join(report.goal_lines(goals)))
    for failure in run.failures:
        print(f"\nFAILED: {failure}")


def main(arguments: list[str] | None = None) -> int:
    """Run and report; 1 when something failed."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and not given[0].startswith("-"):
        return parts.run(given)
    options = parse(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stores are removed, the server ends
    if options.against:
        from bench import against

        return against.run(options)
    sets = chosen_sets(options)
    machine = report.machine()
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as folder:
        run = Run(options, Path(folder))
        try:
            for name, chosen in sets.items():
                run.data_set(name, chosen)
        finally:
            run.finish()
            shutil.rmtree(folder, ignore_errors=True)
    goals = report.goals(run.results)
    show(run, sets, goals)
    record = {
        "when": report.now(),
        "commit": report.commit(),
        "machine": machine,
        "seed": options.seed,
        "rounds": options.rounds,
        "asked": options.asked,
        "open_keys": options.open_keys,
        "clock": "processor" if options.cpu else "wall",
        "rivals": run.rivals,
        "sets": run.sizes,
        "figures": run.results,
        "units": {name: workload.unit for name, workload in WORKLOADS.items()},
        "goals": goals,
        "failures": run.failures,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.svg:
        from bench.picture import draw_ratios

        options.svg.parent.mkdir(parents=True, exist_ok=True)
        draw_ratios(record, options.svg)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
