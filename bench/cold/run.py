"""A run: the stores made, then all passes in rounds, the contenders in turns."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.alone import try_in_child
from bench.cold import goals, passes
from bench.cold.pages import LEAST_RESIDENT, bring, drop
from bench.cold.passes import CACHED, Pass, Task
from bench.cold.stores import SETS, Contender, make
from bench.goals import Results
from bench.rivals import NotOffered

# data -> pass -> contender -> a dict of figures a round
Found = dict[str, dict[str, dict[str, list[dict[str, float]]]]]


@dataclass
class Run:
    """What a run came to. `seconds` and `sizes` are of the loads, by where the store is."""

    options: argparse.Namespace
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    found: Found = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def results(self) -> Results:
        """The figures as goals take them."""
        results: Results = {}
        for data, by_pass in self.found.items():
            results[data] = {}
            for name, contenders in by_pass.items():
                for key, suffix in (("figure", ""), ("read_bytes", goals.READ)):
                    results[data][name + suffix] = {
                        who: [each[key] for each in rounds] for who, rounds in contenders.items()
                    }
        return results


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def load(run: Run, chosen: list[Pass], folder: Path) -> None:
    """Make all stores that the passes need."""
    options = run.options
    for data in dict.fromkeys(each.data for each in chosen):
        for contender in contenders(run, data):
            if contender.stored in run.sizes or contender.rival in run.skipped:
                continue
            say(f"{contender.stored} is loaded")
            source = SETS[data].source(options.keys, options.large)
            outcome, answer = try_in_child(
                make, contender, source, folder / contender.stored, options.seed
            )
            if outcome == "done":
                run.seconds[contender.stored], run.sizes[contender.stored] = answer[:2]
                run.versions[contender.rival] = answer[2]
            elif outcome == "absent":
                run.skipped[contender.rival] = answer
                say(f"without {contender.rival}: {answer}")
            else:
                run.failures.append(f"load of {contender.stored}: {answer}")


def contenders(run: Run, data: str) -> list[Contender]:
    """Who takes part in a data set."""
    wanted = run.options.contenders
    return [
        each for each in SETS[data].contenders if wanted is None or each.name in wanted.split(",")
    ]


def measure(run: Run, chosen: list[Pass], folder: Path) -> None:
    """All rounds of all passes."""
    for turn in range(run.options.rounds):
        for each in chosen:
            say(f"round {turn + 1} of {run.options.rounds}: {each.name} of {each.data}")
            here = [
                one
                for one in contenders(run, each.data)
                if one.stored in run.sizes and (not each.who or one.name in each.who)
            ]
            at = turn % max(len(here), 1)
            for contender in here[at:] + here[:at]:
                key = f"{each.name} of {each.data}, {contender.name}"
                if key in run.skipped:
                    continue
                try:
                    figures = once(run, each, contender, folder / contender.stored, turn)
                except NotOffered as reason:
                    run.skipped[key] = str(reason)
                except (RuntimeError, OSError) as error:
                    run.failures.append(f"{key}: {error}")
                else:
                    by_pass = run.found.setdefault(each.data, {}).setdefault(each.name, {})
                    by_pass.setdefault(contender.name, []).append(figures)


def once(run: Run, each: Pass, contender: Contender, path: Path, turn: int) -> dict[str, float]:
    """One pass of one contender."""
    options = run.options
    if each.state == CACHED:
        there = bring(path)
        if there < LEAST_RESIDENT:
            raise RuntimeError(f"the system does not keep {path}: {there:.1%} of it is in memory")
    else:
        there = drop(path)
    task = Task(
        contender,
        path,
        SETS[each.data].source(options.keys, options.large),
        each.asked,
        options.seed + turn,
        each.cache_bytes,
        options.seconds,
    )
    return passes.perform(each, task, there)
