"""The record of merges: what it says counts, and its file (docs/format.md 2.3)."""

from __future__ import annotations

import json

import pytest

from tilekv.errors import CorruptionError, FormatError
from tilekv.names import FragmentName
from tilekv.record import Claim, Commit, Record, parsed, shorts
from tilekv.sealed import seal
from tilekv.storage import RecordFile


def flush(t: int) -> FragmentName:
    return FragmentName(t, t, f"{t:012x}4{t:019x}")


def merged(t1: int, t2: int) -> FragmentName:
    return FragmentName(t1, t2, f"{t1:012x}8{t2:019x}")


A, B, C, D = map(flush, (10, 20, 30, 40))
AB, ABC = merged(10, 20), merged(10, 30)
EMPTY = Record("store")
ONE = EMPTY.committed(Commit((AB,), shorts([A, B]), 100), "")
TWO = ONE.committed(Commit((ABC,), shorts([AB, C]), 200), "")


def visible(record: Record, *names: FragmentName, timestamp: int | None = None) -> list[int]:
    """The first and last times, oldest first."""
    found = record.visible(map(str, names), timestamp)
    return [10**6 * name.t1 + name.t2 for name in reversed(found)]


def test_without_commits_every_flush_counts() -> None:
    assert EMPTY.visible(map(str, (A, C, B))) == [C, B, A]
    assert EMPTY.visible([str(A), "junk", ".tilekv"]) == [A]


def test_what_no_record_names_does_not_count() -> None:
    assert EMPTY.visible(map(str, (A, B, AB))) == [B, A]


def test_commits_supersede_their_sources() -> None:
    assert ONE.visible(map(str, (A, B, C))) == [C, AB]
    assert ONE.visible([]) == [AB]  # whether anybody has listed it or not
    assert TWO.visible(map(str, (A, B, C, D, AB))) == [D, ABC]
    assert TWO.superseded() == shorts([A, B, AB, C])


def test_what_came_late_is_not_superseded_by_its_time() -> None:
    late = flush(15)
    assert ONE.visible(map(str, (A, B, late))) == [late, AB]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(5, []), (10, [A]), (15, [A]), (20, [AB]), (29, [AB]), (30, [ABC]), (40, [D, ABC])],
)
def test_a_moment_counts_the_merges_of_its_time(moment: int, expected: list[FragmentName]) -> None:
    assert TWO.visible(map(str, (A, B, C, D)), moment) == expected


def test_a_merge_that_left_out_what_had_expired_counts_from_then_on() -> None:
    record = EMPTY.committed(Commit((AB,), shorts([A, B]), 100, expired=90), "")
    assert record.visible(map(str, (A, B)), 80) == [B, A]
    assert record.visible(map(str, (A, B)), 90) == [AB]


def test_forgetting_what_is_gone() -> None:
    left = TWO.without(shorts([A, B, AB]))
    assert left.seq == TWO.seq + 1
    assert left.commits == (Commit((ABC,), shorts([C]), 200),)
    assert left.without(shorts([C])).commits == (Commit((ABC,), frozenset(), 200),)


def test_claims() -> None:
    one = EMPTY.claimed(Claim("one", shorts([A]), 50)).claimed(Claim("two", shorts([B]), 60))
    assert [claim.owner for claim in one.claims] == ["one", "two"]
    renewed = one.claimed(Claim("one", shorts([A]), 90))
    assert {claim.owner: claim.until for claim in renewed.claims} == {"one": 90, "two": 60}
    assert [claim.owner for claim in renewed.released("one").claims] == ["two"]
    # A commit ends its own claim, and those that are over.
    after = renewed.committed(Commit((AB,), shorts([A, B]), 70), "one")
    assert after.claims == ()


def test_its_file_is_the_record() -> None:
    record = TWO.claimed(Claim("who x", shorts([D]), 7)).keeping(None)
    data = record.to_bytes()
    assert Record.from_file(RecordFile(record.seq, data)) == record
    assert data.count(b"\n  {") == 2  # a line a commit
    pretty = json.dumps(json.loads(data), indent=3).encode()
    assert Record.from_file(RecordFile(record.seq, pretty)) == record


def test_every_changed_byte_is_found() -> None:
    data = TWO.to_bytes()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert Record.from_file(RecordFile(TWO.seq, changed)) == TWO  # white space
        except CorruptionError as error:
            assert error.file == ".tilekv/record-2"  # noqa: PT017 - either of the two is right


def test_a_record_under_another_number_is_damage() -> None:
    with pytest.raises(CorruptionError, match=r"record-9.*number 2"):
        Record.from_file(RecordFile(9, TWO.to_bytes()))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("seq", -1),
        ("seq", True),
        ("store", 5),
        ("history", "long"),
        ("commits", {}),
        ("commits", [{}]),
        ("commits", [5]),
        ("commits", [{"outputs": ["../etc"], "sources": [], "time": 1}]),
        ("commits", [{"outputs": [], "sources": [5], "time": 1}]),
        ("commits", [{"outputs": [], "sources": [], "time": 2**64}]),
        ("claims", [{"owner": "x", "sources": []}]),
        ("format", "1"),
    ],
)
def test_sealed_nonsense_is_damage(member: str, value: object) -> None:
    members = json.loads(ONE.to_bytes())
    del members["crc32c"]
    members[member] = value
    with pytest.raises(CorruptionError):
        Record.from_file(RecordFile(1, json.dumps(seal(members)).encode()))


def test_a_newer_record_is_refused() -> None:
    members = json.loads(ONE.to_bytes()) | {"format": 2}
    del members["crc32c"]
    with pytest.raises(FormatError, match="update"):
        Record.from_file(RecordFile(1, json.dumps(seal(members)).encode()))


def test_a_backup_names_what_it_shows_and_lets_go_of_the_rest_at_every_moment() -> None:
    shown = [Commit((name,), frozenset(), 300) for name in (ABC, D)]
    record = TWO.claimed(Claim("x", frozenset(), 1)).backed_up(shown, shorts([A, B]), None, 300)
    assert (record.backup, record.claims, record.history) == (True, (), None)
    assert Record.from_file(RecordFile(record.seq, record.to_bytes())) == record
    for there in ([], [A, B, D]):
        assert record.visible(map(str, there)) == [D, ABC]
        assert record.visible(map(str, there), 30) == [ABC]
        assert record.visible(map(str, there), 29) == []
    assert not record.released("x").backup
    assert b"backup" not in record.released("x").to_bytes()


def test_short_names_are_as_good_as_long_ones() -> None:
    names = [flush(t) for t in range(1, 200)] + [merged(1, t) for t in range(1, 200)]
    assert len(shorts(names)) == len(names)
    assert parsed(map(str, names)) == names
