"""Random schedules: who works next, who sleeps, who is killed, all by a seed.

`python tests/model/merge_schedules.py SEED [RULE ...]` prints the steps of one, with these rules taken out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from merge_actors import Pause, Steps, flush, lengthen, merge, reader, travel, vacuum
from merge_world import RULES, Setting, World, Wrong

TURNS: Final = (60, 160)
SLEEPS: Final = (5, 10, 40, 70, 300)
AT_A_TURN: Final = (1, 1, 2, 3, 5, 8, 20)

# Who begins: the share of turns, added up; how many of them at once; how many fragments there are for them.
Beginner = tuple[float, Callable[[World], Steps], int, int]
BEGINNERS: Final[tuple[Beginner, ...]] = (
    (0.20, flush, 3, 0),
    (0.32, merge, 2, 2),
    (0.36, vacuum, 2, 2),
    (0.41, reader, 1, 1),
    (0.45, travel, 1, 1),
    (0.452, lengthen, 1, 1),
)


ANYTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Actor:
    __slots__ = ("awake", "kind", "name", "steps")

    def __init__(self, kind: Callable[[World], Steps], name: str, steps: Steps) -> None:
        self.kind = kind
        self.name = name
        self.steps = steps
        self.awake = 0


def run(
    seed: int,
    rules: frozenset[str] = RULES,
    fixed: Mapping[str, Any] = ANYTHING,
    log: list[str] | None = None,
) -> str | None:
    """What went wrong in the schedule of this seed, in words; None: nothing did. `log` gets the steps."""
    wrong, _ = play(World(seed, rules, fixed), log)
    return wrong


def play(world: World, log: list[str] | None = None) -> tuple[str | None, int]:
    """What went wrong, and the moments that readers showed and that never were, by flushes under way."""
    rng = world.rng
    rand = rng.random
    actors: list[Actor] = []
    if log is not None:
        log.append(phrase(world.setting))
    try:
        for _ in range(rng.randrange(*TURNS)):
            x = rand()
            if x < 0.5:
                world.now += 1
            elif x > 0.985:
                world.now += rng.choice((12, 40, 100))
            x = rand()
            for limit, kind, most, needs in BEGINNERS:
                if x < limit:
                    if len(world.root) >= needs and sum(a.kind is kind for a in actors) < most:
                        name = f"{kind.__name__} {world.number()}"
                        actors.append(Actor(kind, name, kind(world)))
                    break
            if not actors:
                continue
            i = int(rand() * len(actors))
            actor = actors[i]
            if actor.awake > world.now:
                continue
            x = rand()
            if x < 0.02:
                del actors[i]
                if log is not None:
                    log.append(f"{world.now:5} {actor.name} is killed")
                continue
            if x < 0.07:
                actor.awake = world.now + rng.choice(SLEEPS)
                if log is not None:
                    log.append(f"{world.now:5} {actor.name} sleeps until {actor.awake}")
                continue
            for _ in range(rng.choice(AT_A_TURN)):
                said = next(actor.steps, None)
                if said is None:
                    del actors[i]
                    break
                if log is not None:
                    log.append(f"{world.now:5} {actor.name} {phrase(said)}")
                if world.changed:
                    world.check()
                if type(said) is Pause and rand() < 0.1:
                    actor.awake = world.now + rng.choice(SLEEPS)
                    break
    except Wrong as wrong:
        if log is not None:
            log.append(f"{world.now:5} WRONG: {wrong}")
        return str(wrong), world.mixed
    return None, world.mixed


def phrase(said: object) -> str:
    if isinstance(said, Setting):
        return str(said)
    if isinstance(said, tuple):
        return " ".join(map(phrase, said))
    if isinstance(said, list):
        return ", ".join(map(phrase, said)) or "nothing"
    return str(said)


def told(seed: int, rules: frozenset[str] = RULES, fixed: Mapping[str, Any] = ANYTHING) -> str:
    """The schedule of this seed in words."""
    log: list[str] = []
    run(seed, rules, fixed, log)
    return f"seed {seed}, without {sorted(RULES - rules) or 'nothing'}:\n" + "\n".join(log)


def search(
    seeds: Iterable[int], rules: frozenset[str] = RULES, fixed: Mapping[str, Any] = ANYTHING
) -> int | None:
    """The first seed whose schedule goes wrong."""
    return next((seed for seed in seeds if run(seed, rules, fixed) is not None), None)


if __name__ == "__main__":
    print(told(int(sys.argv[1]), RULES - set(sys.argv[2:])))
