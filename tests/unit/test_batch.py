"""kvcore.serve.batch: what waits in a batch is answered as if it had been run in some order, wherever the streams are cut."""

import random
from pathlib import Path
from typing import Any

import pytest

import tilekv
from redis_model import Model, Words, encoded
from redis_server import Stepped
from tilekv.kvcore.serve.resp import Parser

CLIENTS = 8
KEYS = [b"a", b"b", b"caf\xc3\xa9", b"\xff", b"n"]


def some_command(rnd: random.Random) -> list[Words]:
    """A command, or a transaction."""

    def one() -> Words:
        key, value = rnd.choice(KEYS), rnd.choice([b"1", b"", b"x" * 40, b"y" * 20_000])
        other = rnd.choice(KEYS)
        return rnd.choice(
            [
                [b"GET", key],
                [b"SET", key, value],
                [b"MGET", key, other, key],
                [b"MSET", key, value, other, b"5"],
                [b"MSETNX", key, value, other, b"6"],
                [b"DEL", key],
                [b"DEL", key, other, key],
                [b"EXISTS", key, key, other],
                [b"INCR", rnd.choice([b"n", b"m"])],
            ]
        )

    if rnd.random() < 0.15:
        watch = [[b"WATCH", rnd.choice(KEYS)]] if rnd.random() < 0.7 else []
        return [*watch, one(), [b"MULTI"], *[one() for _ in range(rnd.randrange(4))], [b"EXEC"]]
    return [one()]


def play(folder: Path, seed: int, steps: int) -> None:
    rnd = random.Random(seed)
    stepped = Stepped(folder, CLIENTS)
    models = [Model(CLIENTS)]  # what may be so: replies do not always tell the order
    # By client: bytes that were not sent, and the ends of its commands among them.
    left = [b""] * CLIENTS
    waiting: list[list[tuple[int, Words]]] = [[] for _ in range(CLIENTS)]
    try:
        for _ in range(steps):
            ready = rnd.sample(range(CLIENTS), rnd.randrange(1, 4))
            asked = []
            for number in ready:
                while len(waiting[number]) < 6:
                    for words in some_command(rnd):
                        left[number] += encoded(words)
                        waiting[number].append((len(left[number]), words))
                n = min(rnd.choice([1, 20, 60, 200, 30_000]), len(left[number]))
                stepped.ends[number].sendall(left[number][:n])
                left[number] = left[number][n:]
                whole = [words for end, words in waiting[number] if end <= n]
                waiting[number] = [(end - n, words) for end, words in waiting[number] if end > n]
                if whole:
                    asked.append((number, whole))
            got = stepped.step()
            after = [
                outcome
                for model in models
                for outcome, replies in model.orders(asked)
                if all(got[number] == replies.get(number, []) for number in range(CLIENTS))
            ]
            assert after, f"seed {seed}: {asked} was answered {got}, which no order gives"
            models = list({repr(model): model for model in after}.values())
            if rnd.random() < 0.1:
                stepped.server.upkeep.flush_all()
    finally:
        stepped.close()
    with tilekv.open(folder / "store.kv") as db:
        stored = {k.encode() if isinstance(k, str) else k: v for k, v in db.items()}
    assert stored in [model.data for model in models]


@pytest.mark.parametrize("seed", range(6))
def test_streams_that_are_cut_anywhere(folder: Path, seed: int) -> None:
    play(folder, seed, 300)


def test_a_write_is_seen_behind_it_in_the_same_bytes(folder: Path) -> None:
    stepped = Stepped(folder, 1)
    commands = [
        [b"SET", b"k", b"1"],
        [b"GET", b"k"],
        [b"DEL", b"k"],
        [b"EXISTS", b"k"],
        [b"SET", b"k", b"2"],
        [b"GET", b"k"],
    ]
    stepped.ends[0].sendall(b"".join(map(encoded, commands)))
    assert stepped.step() == [["OK", b"1", 1, 0, "OK", b"2"]]
    stepped.close()


def test_replies_wait_for_room_and_come_in_order(folder: Path) -> None:
    """A hundred values of 1 MB are asked for at once, and read later: no more than two of them are in memory."""
    stepped = Stepped(folder, 1)
    values = [bytes([65 + i]) * (1 << 20) for i in range(4)]
    for i, value in enumerate(values):
        stepped.server.database(0).store[f"k{i}"] = value
    stepped.server.database(0).store.flush()
    stepped.ends[0].sendall(b"".join(encoded([b"GET", b"k%d" % (i % 4)]) for i in range(100)))
    got: list[bytes] = []
    connection = next(iter(stepped.server.loop.connections.values()))
    while len(got) < 100:
        got += stepped.step()[0]
        assert connection.unsent < 4 << 20
    assert got == [values[i % 4] for i in range(100)]
    stepped.close()


@pytest.mark.parametrize("flushed", [False, True])
def test_others_are_answered_while_a_long_command_runs(folder: Path, flushed: bool) -> None:
    stepped = Stepped(folder, 2)
    server, store = stepped.server, stepped.server.database(0).store
    server.loop.batch.most_seconds = 0
    keys = [b"k%d" % i for i in range(1000)]
    store.put_many({key.decode(): key for key in keys})
    if flushed:
        store.flush()
    execute = server.execute
    met = []

    def echoed(connection: Any, words: Words) -> Any:
        """Each of them is sent when the one before it has come."""
        met.append(words[1])
        stepped.ends[1].sendall(
            encoded([b"ECHO", b"%d" % len(met)]) + encoded([b"SET", *keys[:1], b"new"])
        )
        return execute(connection, words)

    server.execute = echoed  # type: ignore[method-assign]
    stepped.ends[1].sendall(encoded([b"ECHO", b"0"]))
    stepped.ends[0].sendall(
        encoded([b"MGET", *keys]) + encoded([b"EXISTS", *keys]) + encoded([b"GET", keys[0]])
    )
    ((first,), echoes) = stepped.step()
    assert first == keys, "as they were when it began"
    assert len(echoes) > 8
    server.execute = execute  # type: ignore[method-assign]
    assert stepped.step()[0] == [1000, b"new"]
    stepped.close()


def test_set_and_expiry_without_python(folder: Path) -> None:
    stepped = Stepped(folder, 1)
    for words in (
        [b"SET", b"a", b"1", b"PX", b"100000"],
        [b"setex", b"b", b"100", b"2"],
        [b"PSETEX", b"c", b"100000", b"3"],
    ):
        stepped.ends[0].sendall(encoded(words))
        assert stepped.step() == [["OK"]]
    stepped.ends[0].sendall(b"".join(encoded([b"TTL", key]) for key in (b"a", b"b", b"c")))
    assert stepped.step() == [[100, 100, 100]]
    ((name, (calls, seconds)),) = stepped.server.loop.batch.counts().items()
    assert (name, calls) == ("set", 3)
    assert 0 < seconds < 60
    stepped.close()


def test_a_damaged_value_is_an_error_and_the_others_are_answered(folder: Path) -> None:
    with tilekv.open(folder / "store.kv", "x", expires=True) as db:
        db["whole"] = b"1"
        db.flush()
        db["damaged"] = b"x" * 1000
    with tilekv.open(folder / "store.kv") as db:
        newest = folder / "store.kv" / db.fragments[0].name
    file = newest / "value_var.tdb"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    stepped = Stepped(folder, 1)
    stepped.ends[0].sendall(
        b"".join(encoded([b"GET", key]) for key in (b"whole", b"damaged", b"none", b"whole"))
    )
    replies = []
    for _ in range(3):
        replies += stepped.step()[0]
    assert (replies[0], *replies[2:]) == (b"1", None, b"1")
    assert replies[1].startswith("ERR CorruptionError")
    stepped.close()


ODD = [
    b"\r\n",
    b"$-1\r\n",
    b"*1\r\n",
    b"$99999999999\r\n",
    b"0",
    b"*0\r\n",
    b"*",
    b"PING\r\n",
    b"\xff",
]


def test_mutated_streams_have_a_reply_for_each_request(folder: Path) -> None:
    """As many as a parser by itself finds requests, and one more for what is none, after which the connection is closed."""
    rnd = random.Random(1)
    stepped = Stepped(folder, 0)
    base = b"".join(
        map(
            encoded,
            [[b"SET", b"a", b"bb"], [b"GET", b"a"], [b"MGET", b"a", b"b"], [b"DEL", b"a", b"a"]],
        )
    )
    for _ in range(200):
        data = bytearray(base * 2)
        for _ in range(rnd.randrange(1, 6)):
            i = rnd.randrange(len(data))
            kind = rnd.random()
            if kind < 0.4:
                data[i] = rnd.randrange(256)
            elif kind < 0.7:
                del data[i : i + rnd.randrange(1, 5)]
            else:
                data[i:i] = rnd.choice(ODD)
        parser, requests, broken = Parser(), 0, 0
        for i in range(len(data)):
            try:
                requests += len(parser.feed(bytes(data[i : i + 1])))
            except ValueError:
                broken = 1
                break
        number = stepped.connect()
        got: list[object] = []
        at = 0
        while at < len(data):
            n = rnd.choice([1, 7, 50, 1000])
            try:
                stepped.ends[number].sendall(data[at : at + n])
            except ConnectionError:
                break
            at += n
            got += stepped.step()[number]
        assert len(got) == requests + broken, (bytes(data), got)
        connection = stepped.server.loop.connections.values()
        assert len(connection) == (0 if broken else 1)
        stepped.ends.pop().close()
        stepped.replies.pop()
        stepped.step()
        assert not stepped.server.loop.connections
    stepped.close()
