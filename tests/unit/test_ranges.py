"""storage.ranges: what is asked for together comes in one round, and what came is not asked for again."""

import random
from collections.abc import Sequence

import pytest

from tilekv.errors import InvalidValueError
from tilekv.storage import ranges
from tilekv.storage.ranges import GAP, MOST, Range, RangeReader, joined, touching

FILES = {name: random.Random(name).randbytes(1 << 20) for name in ("a", "b")}


class Fetch:
    def __init__(self) -> None:
        self.rounds: list[list[Range]] = []

    def __call__(self, wanted: Sequence[Range]) -> Sequence[bytes]:
        self.rounds.append(list(wanted))
        return [FILES[str(file)][offset : offset + n] for file, offset, n in wanted]


def test_ranges_that_are_near_are_one_request() -> None:
    assert [*joined([Range("a", 100, 10), Range("b", 5, 5), Range("a", 0, 10)])] == [
        Range("a", 0, 110),
        Range("b", 5, 5),
    ]
    assert [*joined([Range("a", 0, 10), Range("a", 10 + GAP, 1)])] == [Range("a", 0, 11 + GAP)]
    far = [Range("a", 0, 10), Range("a", 11 + GAP, 1)]
    assert [*joined(far)] == far
    assert [*joined([Range("a", 0, 10), Range("a", 2, 3), Range("a", 0, 10)])] == [
        Range("a", 0, 10)
    ]


def test_ranges_that_touch_are_one() -> None:
    parts = [("a", 5, 5), ("b", 0, 1), ("a", 0, 5), ("a", 7, 1), ("a", 11, 2), ("a", 5, 5)]
    assert {*touching(parts)} == {Range("a", 0, 10), Range("a", 11, 2), Range("b", 0, 1)}
    assert [*touching([])] == []


def test_no_request_is_much_longer_than_what_is_wanted_at_once() -> None:
    parts = [Range("a", at, 1 << 20) for at in range(0, 3 * MOST, 1 << 20)]
    found = [*joined(parts)]
    assert [n for _, _, n in found] == [MOST] * 3
    assert [*joined([Range("a", 7, 2 * MOST)])] == [Range("a", 7, 2 * MOST)]  # as it was asked for


@pytest.mark.parametrize("part", [Range("a", -1, 5), Range("a", 0, 0)])
def test_what_is_no_range(part: Range) -> None:
    with pytest.raises(InvalidValueError, match="is no range"):
        [*joined([part])]


def test_rounds() -> None:
    fetch = Fetch()
    reader = RangeReader(fetch)
    reader.bring([("a", 1000, 50), ("b", 7, 9), ("a", 500_000, 10)])
    assert [len(round) for round in fetch.rounds] == [3]
    assert reader.read("a", 1010, 40) == FILES["a"][1010:1050]
    assert reader.read("b", 7, 9) == FILES["b"][7:16]
    reader.bring([("a", 1000, 1), ("a", 500_009, 1)])
    assert len(fetch.rounds) == 1
    assert reader.read("a", 1010, 41) == FILES["a"][1010:1051]  # one more than there is
    assert fetch.rounds[1:] == [[Range("a", 1010, 41)]]
    reader.bring([("a", 1000, 2000)])
    assert reader.read("a", 1010, 41) == FILES["a"][1010:1051]
    assert len(fetch.rounds) == 3


def test_any_reads_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is held, and however little of it: the bytes are the file's."""
    monkeypatch.setattr(ranges, "HELD", 100_000)
    rng = random.Random(1)
    fetch = Fetch()
    reader = RangeReader(fetch)
    for _ in range(3000):
        file, offset = rng.choice("ab"), rng.randrange(1 << 20)
        n = rng.randrange(1, min(5000, (1 << 20) - offset) + 1)
        if rng.random() < 0.3:
            reader.bring([(file, offset, n), (file, offset // 2, 3)])
        if rng.random() < 0.8:
            assert reader.read(file, offset, n) == FILES[file][offset : offset + n]
    assert reader._bytes == sum(len(data) for parts in reader._parts.values() for _, data in parts)
    assert reader._bytes < 1_000_000


def test_what_came_last_is_held_however_much_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "HELD", 1000)
    fetch = Fetch()
    reader = RangeReader(fetch)
    for turn in range(3):
        wanted = [("a", at + 50 * turn, 40) for at in range(0, 1 << 20, 2 * GAP)]
        reader.bring(wanted)
        for file, offset, n in wanted:
            assert reader.read(file, offset, n) == FILES[file][offset : offset + n]
    assert len(fetch.rounds) == 3
    assert reader._bytes <= 1000 + 40 * len(wanted)


def test_too_few_bytes() -> None:
    reader = RangeReader(lambda wanted: [b"short" for _ in wanted])
    with pytest.raises(OSError, match="5 bytes came, where 9 from 3 on"):
        reader.read("a", 3, 9)
    with pytest.raises(OSError, match="5 bytes came, where 9 from 3 on"):
        reader.bring([("a", 3, 9)])
    assert reader.read("a", 3, 5) == b"short"


def test_parts_that_join_are_one() -> None:
    """What is here already is not asked for again, whatever its parts are."""
    fetch = Fetch()
    reader = RangeReader(fetch)
    for at in (0, 100, 300):
        reader.bring([("a", at, 100)])
    reader.bring([("a", 20, 170)])
    assert reader.read("a", 20, 170) == FILES["a"][20:190]
    assert len(fetch.rounds) == 3
    reader.bring([("a", 150, 300)])
    assert fetch.rounds[3:] == [[Range("a", 200, 250)]]
    reader.bring([("a", 150, 200)])
    assert reader.read("a", 0, 450) == FILES["a"][:450]
    assert len(fetch.rounds) == 4
    rng = random.Random(3)
    for _ in range(2000):
        at, n = rng.randrange(1 << 19), rng.randrange(1, 1 << 14)
        reader.bring([("b", at, n)])
        rounds = len(fetch.rounds)
        assert reader.read("b", at, n) == FILES["b"][at : at + n]
        assert len(fetch.rounds) == rounds


def test_small_files_come_whole() -> None:
    """One that nobody asked for comes with its folder; from the second folder on, with all that is behind."""
    fetch = Fetch()
    reader = RangeReader(fetch)
    folders = [[f"{i}{name}" for name in "ab"] for i in range(4)]
    for each in folders:
        FILES.update({name: random.Random(name).randbytes(1000) for name in each})
        reader.know_small(dict.fromkeys(each, 1000))
    reader.bring([("0a", 5, 10)])
    assert fetch.rounds == [[Range("0a", 0, 1000)]]
    assert reader.read("0b", 7, 10) == FILES["0b"][7:17]
    assert fetch.rounds[1:] == [[Range("0b", 0, 1000)]]
    assert reader.read("2b", 7, 10) == FILES["2b"][7:17]
    assert sorted(part.file for part in fetch.rounds[2]) == ["1a", "1b", "2a", "2b", "3a", "3b"]
    assert reader.read("3a", 0, 1000) == FILES["3a"]
    assert len(fetch.rounds) == 3
    reader.forget(folders[3])
    assert reader.read("3a", 0, 10) == FILES["3a"][:10]


def test_what_a_batch_has_brought_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it is, and whatever else comes, until two others were brought."""
    monkeypatch.setattr(ranges, "HELD", 1000)
    monkeypatch.setattr(ranges, "BATCH", 50_000)
    fetch = Fetch()
    reader = RangeReader(fetch)
    reader.bring([("a", 0, 200_000)])
    for at in range(0, 50_000, 10_000):
        reader.bring([("b", at, 100)])
    reader.bring([("b", 200_000, 100_000)])
    rounds = len(fetch.rounds)
    assert reader.read("a", 100_000, 100) == FILES["a"][100_000:100_100]
    assert len(fetch.rounds) == rounds
    for at in (400_000, 600_000):
        reader.bring([("a", at, 100_000)])
    assert reader._bytes <= 201_000


def test_who_reads_along_a_large_file() -> None:
    """He begins with its end, and gets its beginning with that; whoever asks for a part gets that alone."""
    fetch = Fetch()
    reader = RangeReader(fetch)
    reader.know_large(dict.fromkeys(FILES, 1 << 20))
    assert reader.read("b", 500, 20) == FILES["b"][500:520]
    assert fetch.rounds == [[Range("b", 500, 20)]]
    size = 1 << 20
    assert reader.read("a", size - 20, 20) == FILES["a"][-20:]
    assert sum(n for _, _, n in fetch.rounds[1]) == size
    for at in range(0, size, 7919):
        n = min(7919, size - at)
        assert reader.read("a", at, n) == FILES["a"][at : at + n]
    assert len(fetch.rounds) == 2


def test_the_longest_part_goes_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "HELD", 1000)
    fetch = Fetch()
    reader = RangeReader(fetch)
    reader.bring([("a", 100, 900)])
    reader.bring([("a", 100, 900), ("a", 500, 100)])
    assert len(fetch.rounds) == 1
    reader.bring([("b", 0, 500)])  # "a" goes
    assert reader.read("a", 200, 10) == FILES["a"][200:210]
    assert fetch.rounds[2] == [Range("a", 200, 10)]


def test_damaged_bytes_are_asked_for_again() -> None:
    """These alone, past who keeps them; what came with them is read as it came."""
    damaged = bytearray(FILES["a"])
    damaged[250] ^= 1
    damaged[650] ^= 1
    fetch = Fetch()
    told: list[Range] = []
    reader = RangeReader(fetch, told.append)
    sound, FILES["a"] = FILES["a"], bytes(damaged)
    try:
        reader.bring([("a", 0, 800)])
        reader.bring([("a", 900, 100)])
    finally:
        FILES["a"] = sound
    reader.renew("a", 200, 100)
    assert told == [Range("a", 200, 100)]
    assert fetch.rounds[2:] == [told]
    assert reader.read("a", 0, 600) == sound[:600]
    assert reader.read("a", 600, 100) != sound[600:700]
    reader.renew("a", 780, 150)  # the end of one part, and the beginning of another
    assert reader.read("a", 700, 300) == sound[700:1000]
    reader.renew("b", 5, 10)
    assert reader.read("b", 7, 3) == FILES["b"][7:10]
    assert len(fetch.rounds) == 5
