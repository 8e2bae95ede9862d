"""The power of a server is cut before and after every call that changes anything on disk, and its store is served again.

With `always` all that was answered is there, with `everysec` all that was answered more than a second ago; and always what was
written first: no command without those before it, no transaction in part.
"""

from __future__ import annotations

import os
import random
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from life import contents
from powercut import Disk, Tree, restore, seen
from redis_model import Model, Words, encoded
from redis_server import Stepped
from tilekv import tiers
from tilekv.serve import upkeep

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
# Of the cuts, and of the disks that they leave, one in so many is looked at.
CUTS, DISKS = (1, 1) if NIGHTLY else (23, 6)
State = dict[Any, bytes]


@dataclass
class History:
    """What clients were answered, and when, by a clock of the test's own; and what cuts may leave."""

    always: bool
    states: list[State] = field(default_factory=lambda: [{}])  # after so many commands
    answered: list[float] = field(default_factory=list)
    sent: int = 0
    now: float = 1000.0
    # By what is there: it, the first and the last command that it may be the state after, and when the power was cut.
    left: dict[object, tuple[Tree, int, int, str]] = field(default_factory=dict)
    points: int = 0
    disk: Disk | None = None

    def cut(self, after: str) -> None:
        """The power may be cut now."""
        assert self.disk is not None
        self.points += 1
        if self.points % CUTS:
            return
        last = self.now - (0 if self.always else upkeep.EVERY_S + 1.5 * upkeep.LOOK_S)
        first = sum(moment <= last for moment in self.answered)
        for tree in self.disk.outcomes(self.points):
            key = first, self.sent, frozenset(seen(tree))
            self.left.setdefault(key, (tree, first, self.sent, after))


def commands(rng: random.Random) -> list[Words]:
    """A command, or a transaction of a few."""
    key = [b"k%d" % rng.randrange(12) for _ in range(3)]
    value = rng.randbytes(rng.choice((1, 30, 3000)))
    one: list[Words] = [
        [b"SET", key[0], value],
        [b"DEL", key[0], key[1]],
        [b"MSET", key[0], value, key[1], b"m", key[2], b"n"],
        [b"INCR", b"n%d" % rng.randrange(3)],
        [b"MSETNX", key[0], value, key[1], b"x"],
    ]
    if rng.random() < 0.7:
        return [rng.choice(one)]
    return [[b"MULTI"], *(rng.choice(one) for _ in range(3)), [b"EXEC"]]


def state_of(model: Model) -> State:
    return {key.decode(): value for key, value in model.data.items()}


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_power_is_cut_while_clients_write(
    mode: str, folder: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Merges of three, so that there are some.
    for module in (upkeep, tiers):
        monkeypatch.setattr(module, "FAN", 3)
    rng = random.Random(mode)
    model = Model(1)
    history = History(mode == "always")
    world = folder / "world"
    world.mkdir()
    served = Stepped(
        folder,
        1,
        store=str(world / "store"),
        appendfsync=mode,
        history="0",
        unixsocket=str(folder / "u"),
    )
    database = served.server.database(0)
    turns = 80 if NIGHTLY else {"always": 18, "everysec": 40}[mode]
    history.disk = Disk(world, history.cut)
    with history.disk.recording():
        for turn in range(turns):
            asked = [commands(rng) for _ in range(rng.randrange(1, 4))]
            for each in asked:
                for words in each:
                    model.run(0, words)
                history.states.append(state_of(model))
            history.sent += len(asked)
            served.ends[0].send(b"".join(encoded(words) for each in asked for words in each))
            dirty = database.dirty_since
            (replies,) = served.step()
            assert len(replies) == sum(map(len, asked))
            history.answered += [history.now] * len(asked)
            if database.dirty_since:
                database.dirty_since = dirty or history.now
            history.cut("answered")
            for _ in range(rng.choice((0, 3, 30))):
                history.now += upkeep.LOOK_S
                served.server.upkeep.flush_due(history.now)
            if turn % 6 == 5:
                served.server.upkeep.merge_due()
    fragments = database.store.fragments
    assert any(fragment.sources for fragment in fragments), "some were merged"
    assert len({first for _, first, _, _ in history.left.values()}) > 3
    served.close()
    for number, (tree, first, sent, after) in enumerate(list(history.left.values())[::DISKS]):
        left = folder / f"left {number}"
        restore(tree, left)
        try:
            now = contents(left / "store", sync=False)
            check(history, now, first, sent, mode)
            if number % 8 == 0:
                served_again(folder, left, now)
        except BaseException as error:
            error.add_note(f"{mode}, cut after: {after}")
            raise
    tally("power cuts of a server", history.points // CUTS)
    tally("disks that a cut left of a server", len(history.left) // DISKS)


def check(history: History, now: State, first: int, sent: int, mode: str) -> None:
    """What is there is what the first so many commands have left."""
    whole = [history.states[first], history.states[sent]]
    allowed = whole if mode == "always" else history.states[first : sent + 1]
    assert now in allowed, (first, sent)


def served_again(folder: Path, left: Path, state: State) -> None:
    """A server of what a cut has left answers what is there, and writes on."""
    with closing(
        Stepped(folder, 1, store=str(left / "store"), unixsocket=str(folder / "v"))
    ) as served:
        asked: list[Words] = [[b"GET", key.encode()] for key in state]
        asked.append([b"SET", b"gone on", b"1"])
        served.ends[0].send(b"".join(map(encoded, asked)))
        (replies,) = served.step()
        assert replies == [*state.values(), "OK"]
        served.server.upkeep.flush_all()
    assert contents(left / "store", sync=False) == state | {"gone on": b"1"}
