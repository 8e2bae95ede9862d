"""The data: synthetic keys and values made from a seed, and real ones that every Debian has."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SENTENCE = b"the quick brown fox jumps over the lazy dog and so"  # 50 bytes
DPKG = Path("/var/lib/dpkg")


@dataclass(frozen=True)
class Source:
    """One data set, small enough to be sent to another process, which makes the same data from it.

    `kind` names a function of KINDS; `keys` is how many keys are wanted, `value_size` the bytes of a value. Real data
    may have fewer keys, and has values of its own sizes.
    """

    kind: str
    keys: int
    value_size: int = 100
    seed: int = 1


@dataclass(frozen=True)
class Data:
    """Keys and their values, and what is asked.

    `asked` are present, `absent` are not, and both are new objects, as a program's keys are when it asks: a dict
    would find the very objects that it holds without comparing.
    """

    keys: list[bytes]
    values: list[bytes]
    asked: list[bytes]
    absent: list[bytes]

    @property
    def raw_bytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(map(len, self.keys)) + sum(map(len, self.values))


def make_data(source: Source, asked: int = 200_000) -> Data:
    """Make a data set and choose `asked` of its keys."""
    rng = random.Random(source.seed)
    keys, values, absent = KINDS[source.kind](source, rng)
    choice = rng.sample(keys, min(asked, len(keys)))
    rng.shuffle(absent)
    return Data(keys, values, list(map(_copy, choice)), absent[: len(choice)])


def _copy(key: bytes) -> bytes:
    return bytes(memoryview(key))


def _numbered(source: Source, rng: random.Random) -> tuple[list[bytes], list[bytes]]:
    """Keys of 20 bytes in random order; absent ones differ in the last byte, and lie between the others."""
    keys = [b"user:%014d0" % number for number in range(source.keys)]
    rng.shuffle(keys)
    return keys, [key[:-1] + b"1" for key in keys[:200_000]]


def _sentence(source: Source, rng: random.Random) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Values half of random bytes, half cut from one sentence."""
    keys, absent = _numbered(source, rng)
    noise = source.value_size - source.value_size // 2
    text = (SENTENCE * (source.value_size // len(SENTENCE) + 1))[: source.value_size - noise]
    return keys, [rng.randbytes(noise) + text for _ in keys], absent


def _words(source: Source, rng: random.Random) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Values half of random bytes, half of words from a vocabulary of 2,000: no value repeats another's text."""
    keys, absent = _numbered(source, rng)
    letters = b"abcdefghijklmnopqrstuvwxyz"
    words = [bytes(rng.choices(letters, k=rng.randint(3, 10))) for _ in range(2000)]
    noise = source.value_size - source.value_size // 2
    length = source.value_size - noise
    # Cut from one long text at random: a million times choosing ten words takes half a minute.
    text = b" ".join(rng.choices(words, k=200_000)) + b" "
    text *= length // len(text) + 2
    last = len(text) - length
    starts = [int(rng.random() * last) for _ in keys]
    return keys, [rng.randbytes(noise) + text[at : at + length] for at in starts], absent


def _files(source: Source, rng: random.Random) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Every file that a Debian package has installed here: its path, and its package and MD5."""
    rows = {}
    for listing in sorted((DPKG / "info").glob("*.md5sums")):
        package = listing.stem.encode()
        for line in listing.read_bytes().splitlines():
            digest, _, path = line.partition(b"  ")
            rows[path] = package + b" " + digest
    return _real(rows, source, rng)


def _packages(source: Source, rng: random.Random) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Every package that apt knows of (those installed, when it has no lists): its name, and its whole paragraph."""
    rows = {name: text for name, text in paragraphs() if name}
    return _real(rows, source, rng)


def _real(
    rows: dict[bytes, bytes], source: Source, rng: random.Random
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    if not rows:
        raise SystemExit(
            f"the data set {source.kind!r} comes from Debian's {DPKG}, which is not here"
        )
    items = list(rows.items())
    rng.shuffle(items)
    del items[source.keys :]
    keys = [key for key, _ in items]
    return keys, [value for _, value in items], [key + b"\0" for key in keys]


def paragraphs() -> Iterator[tuple[bytes, bytes]]:
    """(name, paragraph) of Debian's packages."""
    try:
        command = ["apt-cache", "dumpavail"]
        text = subprocess.run(command, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        text = b""
    if not text:
        status = DPKG / "status"
        text = status.read_bytes() if status.exists() else b""
    for paragraph in text.split(b"\n\n"):
        first = paragraph.lstrip(b"\n").partition(b"\n")[0]
        if first.startswith(b"Package: "):
            yield first[9:], paragraph


# A paragraph's fields as attributes: str, but for those that count.
TEXTS = (
    "Version", "Architecture", "Maintainer", "Depends", "Section", "Priority", "Description", "Homepage",
    "Filename", "SHA256",
)  # fmt: skip
NUMBERS = ("Installed-Size", "Size")


def attributes(paragraphs_: list[bytes]) -> dict[str, list[Any]]:
    """The fields of packages' paragraphs as columns; what a paragraph lacks is "" or 0."""
    columns: dict[str, list[Any]] = {name: [] for name in (*TEXTS, *NUMBERS)}
    for paragraph in paragraphs_:
        lines = paragraph.decode(errors="replace").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
        for name in TEXTS:
            columns[name].append(fields.get(name, ""))
        for name in NUMBERS:
            columns[name].append(int(fields.get(name, 0)))
    return columns


KINDS: dict[
    str, Callable[[Source, random.Random], tuple[list[bytes], list[bytes], list[bytes]]]
] = {"sentence": _sentence, "words": _words, "files": _files, "packages": _packages}
