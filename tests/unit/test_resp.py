"""kvcore.serve.resp: requests wherever they are cut, replies of both protocols, patterns."""

import fnmatch
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_model import Replies, encoded
from tilekv.kvcore.serve.resp import (
    NO_ARRAY,
    Parser,
    Push,
    ReplyError,
    Verbatim,
    encode,
    matching,
    split_line,
)

WORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


@given(st.lists(WORDS, max_size=6), st.lists(st.integers(1, 50), max_size=30))
def test_requests_wherever_they_are_cut(requests: list[list[bytes]], sizes: list[int]) -> None:
    parser = Parser()
    data = b"".join(map(encoded, requests))
    found: list[list[bytes]] = []
    at = 0
    for size in [*sizes, len(data)]:
        found += parser.feed(data[at : at + size])
        at += size
    assert found == requests


BITS = [
    b"*1\r\n",
    b"$4\r\n",
    b"PING\r\n",
    b"*",
    b"$-1\r\n",
    b"*-1\r\n",
    b"9" * 30,
    b"\r",
    b"\n",
    b"\0",
    b":1\r\n",
]


@given(st.lists(st.sampled_from(BITS), max_size=12))
def test_hostile_bytes_are_requests_or_an_error_whole_or_byte_by_byte(parts: list[bytes]) -> None:
    data = b"".join(parts)

    def outcome(pieces: list[bytes]) -> tuple[list[list[bytes]], str]:
        parser, found = Parser(arguments=100, bulk=1000, line=200), []
        try:
            for piece in pieces:
                found += parser.feed(piece)
        except ValueError as error:
            return found, str(error)
        return found, ""

    whole, slow = outcome([data]), outcome([data[i : i + 1] for i in range(len(data))])
    # What stands before an error is lost when it comes with it.
    assert whole[1] == slow[1]
    assert whole[1] or whole[0] == slow[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"*2147483647\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*1\r\n\0", "expected '$', got '?'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$" + b"1" * 40, "invalid bulk length"),
        (b"*1\r\n$1\r\nabc", "an argument does not end where it says"),
        (b"a" * 65537, "too big inline request"),
        (b'GET "a\r\n', "unbalanced quotes in request"),
    ],
)
def test_what_is_no_request(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Parser().feed(data)


def test_what_is_announced_costs_nothing() -> None:
    parser = Parser()
    tracemalloc.start()
    for data in (b"*1048576\r\n$536870912\r\n", b"abc"):
        assert parser.feed(data) == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()


def test_lines_and_requests_in_turn() -> None:
    parser = Parser()
    assert parser.feed(b"PING\r\n\r\n  \n*0\r\n*-1\r\nSET a 'b c'\n*1\r\n$4\r\nPING\r\nGE") == [
        [b"PING"],
        [b"SET", b"a", b"b c"],
        [b"PING"],
    ]
    assert parser.feed(b"T x\r\n") == [[b"GET", b"x"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" a\tb ", [b"a", b"b"]),
        (b'"a\\x41\\n\\"" ', [b'aA\n"']),
        (b"'a\\'b' c", [b"a'b", b"c"]),
        (b'""', [b""]),
    ],
)
def test_words_of_a_line(line: bytes, words: list[bytes]) -> None:
    assert split_line(line) == words


@pytest.mark.parametrize("line", [b'"a', b"'a", b'"a"b', b"'a'b"])
def test_quotes_that_do_not_close(line: bytes) -> None:
    with pytest.raises(ValueError, match="unbalanced"):
        split_line(line)


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        ("OK", b"+OK\r\n", b"+OK\r\n"),
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (NO_ARRAY, b"*-1\r\n", b"_\r\n"),
        (-5, b":-5\r\n", b":-5\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (
            [1, [b"a", None]],
            b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n",
            b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n_\r\n",
        ),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (Push([b"m"]), b"*1\r\n$1\r\nm\r\n", b">1\r\n$1\r\nm\r\n"),
        (Verbatim("hé"), b"$3\r\nh\xc3\xa9\r\n", b"=7\r\ntxt:h\xc3\xa9\r\n"),
        (ReplyError("ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
    ],
)
def test_replies(value: Any, resp2: bytes, resp3: bytes) -> None:
    assert encode(value, False) == resp2
    assert encode(value, True) == resp3


@given(
    st.recursive(st.none() | st.integers() | st.binary(), lambda each: st.lists(each, max_size=4)),
    st.booleans(),
)
def test_replies_are_read_as_they_were(value: Any, resp3: bool) -> None:
    assert Replies().feed(encode(value, resp3)) == [value]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (b"*", b"", True),
        (b"h?llo", b"hello", True),
        (b"h[ae]llo", b"hillo", False),
        (b"h[^e]llo", b"hallo", True),
        (b"h[a-c]llo", b"hbllo", True),
        (b"h[c-a]llo", b"hbllo", True),
        (b"\\*", b"*", True),
        (b"\\*", b"a", False),
        (b"[\\]]", b"]", True),
        (b"[a", b"a", True),
        (b"a[", b"a", False),
        (b"[]", b"a", False),
        (b"**a**", b"bab", True),
        (b"a*b", b"ab\xff", False),
    ],
)
def test_patterns(pattern: bytes, text: bytes, matches: bool) -> None:
    assert matching(pattern, [text]) == [text] * matches


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_are_those_of_fnmatch(pattern: str, text: str) -> None:
    expected = fnmatch.fnmatchcase(text, pattern)
    assert bool(matching(pattern.encode(), [text.encode()])) == expected


def test_a_pattern_takes_no_exponential_time() -> None:
    assert matching(b"a*" * 40 + b"b", [b"a" * 5000]) == []
