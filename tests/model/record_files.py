"""The record on a local disk: numbered files, the greatest is the truth; the next is made by a link, which fails where one is.

A number that was removed is free again: who slept since before it was made can still make it, and must find out that it came to
nothing. Each process adds its word to the record, and what is believed to be in it has to stay.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Final, NamedTuple

RULES: Final = frozenset({
    "link fails",  # where the number is taken
    "reads what it made",  # a change has happened when the record that is read afterwards has it
    "looks again",  # who finds no record, where there was one
    "reads twice",  # who shows what a record says, until it is the same
})  # fmt: skip
TURNS: Final = 150

Steps = Generator[str, None, None]


class Wrong(Exception):
    """A change was lost, or a reader was misled."""


class State(NamedTuple):
    number: int
    words: frozenset[int]


class Folder:
    def __init__(self, seed: int, rules: frozenset[str]) -> None:
        self.rng = random.Random(seed)
        self.rules = rules
        self.files = {1: State(1, frozenset())}
        self.truths = [self.files[1]]
        self.done: set[int] = set()

    def check(self) -> None:
        truth = self.files[max(self.files)]
        if truth is not self.truths[-1]:
            self.truths.append(truth)
        if lost := self.done - truth.words:
            raise Wrong(f"record {truth.number} has lost {sorted(lost)}")


def listing(folder: Folder) -> Generator[str, None, list[int]]:
    """Numbers as a folder has them, in an order of its own: what appears or goes meanwhile may be missed."""
    found = [n for n in folder.files if n * 40503 >> 7 & 1]
    yield "lists a half"
    found += [n for n in folder.files if not n * 40503 >> 7 & 1]
    yield f"lists the other half: {sorted(found)}"
    return sorted(found)


def read(folder: Folder) -> Generator[str, None, State]:
    while True:
        numbers = yield from listing(folder)
        if not numbers:
            if "looks again" in folder.rules:
                continue
            raise Wrong("a reader finds no record")
        state = folder.files.get(numbers[-1])
        yield f"opens record {numbers[-1]}"
        if state is not None:
            return state


def change(folder: Folder, word: int) -> Steps:
    rules = folder.rules
    while True:
        state = yield from read(folder)
        if word in state.words:
            break
        numbers = yield from listing(folder)
        if numbers and numbers[-1] > state.number:
            continue
        yield "writes a file"
        number = state.number + 1
        if number in folder.files and "link fails" in rules:
            yield f"finds record {number} taken"
            continue
        folder.files[number] = State(number, state.words | {word})
        yield f"makes record {number} for {word}"
        for each in numbers[:-1]:
            folder.files.pop(each, None)
            yield f"removes record {each}"
        if "reads what it made" not in rules:
            break
    folder.done.add(word)
    yield f"believes that {word} is in the record"


def reader(folder: Folder) -> Steps:
    since = len(folder.truths) - 1
    state = yield from read(folder)
    while "reads twice" in folder.rules:
        first, state = state, (yield from read(folder))
        if first == state:
            break
    if state not in folder.truths[since:]:
        raise Wrong(f"a reader believes record {state.number} of {sorted(state.words)}")
    yield f"has read record {state.number}"


def run(seed: int, rules: frozenset[str] = RULES, log: list[str] | None = None) -> str | None:
    """What went wrong in the schedule of this seed; None: nothing did. `log` gets the steps."""
    folder = Folder(seed, rules)
    rng = folder.rng
    actors: dict[str, Steps] = {}
    asleep: dict[str, int] = {}
    number = 0
    try:
        for turn in range(TURNS):
            if len(actors) < 4:
                number += 1
                if rng.random() < 0.25:
                    actors[f"reader {number}"] = reader(folder)
                else:
                    actors[f"writer {number}"] = change(folder, number)
            name = rng.choice(list(actors))
            if asleep.get(name, 0) > turn:
                continue
            if rng.random() < 0.06:
                asleep[name] = turn + rng.randrange(60)
                continue
            if rng.random() < 0.01:
                del actors[name]
                continue
            for _ in range(rng.choice((1, 2, 5, 12))):
                said = next(actors[name], None)
                if said is None:
                    del actors[name]
                    break
                if log is not None:
                    log.append(f"{name} {said}")
                folder.check()
    except Wrong as wrong:
        if log is not None:
            log.append(f"WRONG: {wrong}")
        return str(wrong)
    return None


def told(seed: int, rules: frozenset[str] = RULES) -> str:
    log: list[str] = []
    run(seed, rules, log)
    return f"seed {seed}, without {sorted(RULES - rules) or 'nothing'}:\n" + "\n".join(log)
