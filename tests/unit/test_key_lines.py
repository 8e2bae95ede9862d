"""kvcore.batch.key_lines: the same bytes as are made of the keys one by one, and no object of a key that is plain."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import tilekv
from tilekv.errors import InvalidValueError
from tilekv.kvcore.batch.key_lines import key_lines

TEXTS = [
    "plain",
    "",
    "two words",
    "ä§€😀",
    "a\x85b",
    "tab\t",
    "line\nline",
    'say "a\\b"',
    "\x7f",
    "x" * 5000,
]
OTHERS = [7, -1, 2.5, b"raw", b"\xff\0", b""]
LETTERS = bytes(byte in b"abcdefghijklmnopqrstuvwxyz" for byte in range(256))


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    pick = random.Random(5)
    with tilekv.open(tmp_path / "s", "x", config={"kv.sync": False}) as db:
        db.put_many(dict.fromkeys([*TEXTS, *OTHERS], b""))
        for i in range(300):
            key = "".join(pick.choices("abc dé", k=pick.randrange(1, 9)))
            db[key if i % 3 else key.encode() if i % 2 else i] = b""
            if i == 200:
                db.flush()
        yield db


@pytest.mark.parametrize("blobs", [False, True])
@pytest.mark.parametrize("plain", [LETTERS, bytes(256), b"\1" * 256])
def test_it_prints_what_the_keys_are_one_by_one(keys: Any, plain: bytes, blobs: bool) -> None:
    odd: list[Any] = []

    def other(some: list[Any]) -> bytes:
        odd.extend(some)
        return b"".join(f"<{key!r}>".encode() for key in some)

    def is_plain(key: Any) -> bool:
        data = key.encode() if isinstance(key, str) else key
        return (
            isinstance(data, bytes) and (blobs or data is not key) and all(plain[b] for b in data)
        )

    found = keys._key_scan(None).part(0)
    text = key_lines(found, b"(", b")", plain, blobs, other)
    assert odd == [key for key in keys if not is_plain(key)]
    assert text == b"".join(
        b"(%b)" % (key.encode() if isinstance(key, str) else key)
        if is_plain(key)
        else f"<{key!r}>".encode()
        for key in keys
    )


def test_what_other_raises_is_passed_on(keys: Any) -> None:
    found = keys._key_scan(None).part(0)
    with pytest.raises(ZeroDivisionError):
        key_lines(found, b"", b"", bytes(256), False, lambda some: bytes(1 // 0))
    with pytest.raises(TypeError):
        key_lines(found, b"", b"", bytes(256), False, lambda some: "text")  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidValueError, match="256"):
        key_lines(found, b"", b"", b"", False, lambda some: b"")
