"""What is fuzzed: everything that reads bytes which others may have written. Here files and parts of them; fuzz_stores.py has
whole stores, fuzz_arrow.py the columns of others.

A target takes bytes, may refuse them with the errors that it names, and returns. Anything else is a finding.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import tilekv
from fuzz_mutations import mutated
from fuzz_samples import goldens, old_stores, stored
from fuzz_seals import sealed_chunk, sealed_descriptor, sealed_list
from lists import vac_bytes
from tilekv.descriptor import Descriptor
from tilekv.engine import layout_of
from tilekv.history import history_of, listed, owners, read_list
from tilekv.kvcore import testing
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.codec import pipeline as codec
from tilekv.kvcore.codec.chunk import decode
from tilekv.legacy.schema import read_old_schema
from tilekv.names import FragmentName, newer_tiledb, vac_owner
from tilekv.record import Claim, Commit, Record, shorts
from tilekv.schema import Schema
from tilekv.schemafile import read_schema
from tilekv.storage import Listing, RecordFile

REFUSED = (tilekv.CorruptionError, tilekv.FormatError)


class Target(ABC):
    """Something that reads bytes."""

    name: ClassVar[str]
    short: ClassVar[int]  # inputs of the short run, by what one costs
    refuses: ClassVar[tuple[type[Exception], ...]] = REFUSED

    @abstractmethod
    def seeds(self) -> Sequence[bytes]:
        """Valid inputs, always the same."""

    @abstractmethod
    def run(self, data: bytes) -> None:
        """Read it; raises what is in `refuses`."""

    def mutated(self, rng: random.Random, data: bytes, other: bytes) -> bytes:
        return mutated(rng, data, other)

    def sealed(self, data: bytes) -> bytes:
        return data


class SchemaFile(Target):
    """The schema file of today's format and of the old ones."""

    name = "schema"
    short = 1500

    def seeds(self) -> Sequence[bytes]:
        stores = [*goldens().values(), *old_stores()]
        return list(dict.fromkeys(files["__kv_schema.tdb"] for files in stores))

    def run(self, data: bytes) -> None:
        for read in (self.old, lambda data: read_schema(data, "schema")):
            with contextlib.suppress(*REFUSED, tilekv.InvalidValueError):  # encrypted without a key
                read(data)

    @staticmethod
    def old(data: bytes) -> None:
        layout_of(read_old_schema(data, "schema", None).shown("md5-lp64"), False)


STRANGE = [
    None,
    True,
    0,
    1,
    -1,
    2**31,
    2**64,
    10**400,
    0.5,
    1e308,
    "",
    "x",
    "\ud800",
    "a/b",
    [],
    [0],
]
STRANGE += [
    [[]],
    {},
    {"dtype": "int32"},
    {"dtype": "int64", "shape": [2**40, 2**40]},
    "int32",
    "md5",
]


def strange_member(rng: random.Random, members: dict[str, Any]) -> None:
    """Give a member, or one inside it, another value or another name, or take it away."""
    while members:
        key = rng.choice(list(members))
        inner = members[key]
        if isinstance(inner, dict) and inner and rng.random() < 0.8:
            members = inner
            continue
        if rng.random() < 0.15:
            del members[key]
        elif rng.random() < 0.2:
            members[mutated(rng, key.encode()).decode("utf-8", "replace")] = members.pop(key)
        elif rng.random() < 0.3 and isinstance(inner, str):
            members[key] = mutated(rng, inner.encode()).decode("utf-8", "replace")
        else:
            members[key] = copy.deepcopy(rng.choice(STRANGE))
        return


class DescriptorFile(Target):
    """`__tilekv.json`, by itself and with the schema that it describes."""

    name = "descriptor"
    short = 1500

    def seeds(self) -> Sequence[bytes]:
        return [files["__tilekv.json"] for files in goldens().values()]

    def mutated(self, rng: random.Random, data: bytes, other: bytes) -> bytes:
        """Mostly JSON still, with a value in it that is another: few mutations of bytes get past the parser."""
        try:
            members = json.loads(data)
        except (ValueError, RecursionError):
            return mutated(rng, data, other)
        if not isinstance(members, dict) or rng.random() < 0.2:
            return mutated(rng, data, other)
        strange_member(rng, members)
        return json.dumps(members).encode()

    def sealed(self, data: bytes) -> bytes:
        return sealed_descriptor(data)

    def run(self, data: bytes) -> None:
        descriptor = Descriptor.from_bytes(data)
        assert Descriptor.from_bytes(descriptor.to_bytes()) == descriptor
        for files in goldens().values():
            with contextlib.suppress(*REFUSED):
                schema = files["__kv_schema.tdb"]
                renewed = sealed_descriptor(data, schema)
                layout_of(Schema._from_file(schema, Descriptor.from_bytes(renewed), "schema"), True)


class Lists(Target):
    """`.vac` files, alone and a few of them together: line breaks of two part the files, whose owners are taken in turn."""

    name = "lists"
    short = 1000
    folders: ClassVar = [f"__{t}_{t + s}_{t:032x}" for t in (1, 5, 10**12) for s in (0, 9)]

    def seeds(self) -> Sequence[bytes]:
        a, b, c, *rest = self.folders
        lists = [[[a]], [[b, c]], [[b], [c], [a]], [[a, b], [a, b, c]], [rest, rest]]
        return [b"\n".join(vac_bytes("x", one) for one in each) for each in lists]

    def run(self, data: bytes) -> None:
        files = {}
        for owner, part in zip(self.folders, data.split(b"\n\n"), strict=False):
            files[f"{owner}.vac"] = sealed_list(part, owner)
            with contextlib.suppress(*REFUSED):
                listed(part, owner)
        storage = stored(dict(files))
        listing = Listing(tuple(self.folders), tuple(files))
        with contextlib.suppress(*REFUSED):
            lists = {owner: read_list(storage, owner) for owner in owners(listing)}
            assert history_of(listing, lists).visible, "everything has vanished"


class Records(Target):
    """The record of merges, sealed."""

    name = "records"
    short = 1500

    def seeds(self) -> Sequence[bytes]:
        names = [FragmentName(t, t + 1, f"{t:012x}8{t:019x}") for t in (1, 5, 9)]
        empty = Record("store")
        one = empty.committed(Commit((names[0],), shorts(names[1:]), 5), "")
        two = one.committed(Commit((names[2],), shorts(names[:1]), 9, 7), "")
        many = (empty, one, two, two.claimed(Claim("who", shorts(names), 3)).keeping(None))
        return [record.to_bytes() for record in many]

    def run(self, data: bytes) -> None:
        with contextlib.suppress(*REFUSED):
            Record.from_file(RecordFile(1, data))
        data = sealed_descriptor(data)
        seq = int(found[1]) if (found := re.search(rb'"seq": ([0-9]{1,18})', data)) else 1
        record = Record.from_file(RecordFile(seq, data))
        assert Record.from_file(RecordFile(record.seq, record.to_bytes())) == record
        names = [str(name) for commit in record.commits for name in commit.outputs]
        for moment in (None, 5):
            assert len(record.visible(names, moment)) <= len({*names})


class Names(Target):
    """Names of folders and files in a store's root, one a line."""

    name = "names"
    short = 1500

    def seeds(self) -> Sequence[bytes]:
        names = [*Lists.folders, "__kv_schema.tdb", f"{Lists.folders[0]}.vac", ".tmp-1", "__schema"]
        names += [f"__{1:032x}_5", f"__{1:032x}_5_7", "__commits", "__fragments", "a.wrt"]
        return ["\n".join(names).encode(), *(name.encode() for name in names)]

    def run(self, data: bytes) -> None:
        names = [line.decode("utf-8", "surrogateescape") for line in data.split(b"\n")]
        names = [name for name in names if name and "/" not in name and "\0" not in name]
        for name in names:
            parsed = FragmentName.parse(name)
            assert parsed is None or str(parsed) == name, "two names of one fragment"
            vac_owner(name)
        newer_tiledb(names, names, lambda _: False)
        with contextlib.suppress(*REFUSED):
            history_of(Listing(tuple(names), ()), {})
            Record("").visible(names)


# --- codec -----------------------------------------------------------------------------------------

FILTER_CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13)
COMPRESSORS = range(1, 7)
CODEC_HEADER = struct.Struct("<BBII")  # what an element is, flags, cell size, raw size
SIGNED, INTEGER, CHECKED = 1, 2, 4
MOST_RAW = 1 << 18  # bytes, which a caller reserves before it decodes


def pipeline(*codes: int) -> bytes:
    """A descriptor of docs/format.md 4.2."""
    parts = [struct.pack("<II", 65536, len(codes))]
    for code in codes:
        options = struct.pack("<Bi", code, -1) if code in COMPRESSORS else b""
        if code in (7, 10):
            options = struct.pack("<I", 64)
        parts += [struct.pack("<BI", code, len(options)), options]
    return b"".join(parts)


class Chunks(Target):
    """Stored chunks of every filter and of chains of them: {element, flags, cell size, raw size, u16 size, pipeline, chunk}."""

    name = "chunks"
    short = 6000
    refuses = (ValueError,)

    def seeds(self) -> Sequence[bytes]:
        rng = random.Random(1)
        chains = [*((code,) for code in FILTER_CODES), (), (7, 2), (10, 7, 3), (9, 2), (8, 3)]
        chains += [(6, 7), (4, 2), (10, 7, 6, 5, 1), (3, 2, 1), (12, 13, 7), (7, 12), (13, 3)]
        found = []
        for chain, element in itertools.product(chains, (1, 2, 4, 8)):
            for raw in (bytes(8 * element), rng.randbytes(9 * element), self.rising(element)):
                for checked in (True, False):
                    flags = INTEGER | (SIGNED if len(found) % 3 else 0) | CHECKED * checked
                    with contextlib.suppress(ValueError):
                        found.append(self.made(chain, element, flags, raw))
        return found

    @staticmethod
    def rising(element: int) -> bytes:
        return (np.arange(100) * 3 // 7).astype(f"<u{element}").tobytes()

    @staticmethod
    def made(chain: tuple[int, ...], element: int, flags: int, raw: bytes) -> bytes:
        described = pipeline(*chain)
        stored = testing.encode(described, element, bool(flags & SIGNED), True, raw)
        header = CODEC_HEADER.pack(element, flags, element, len(raw))
        return header + struct.pack("<H", len(described)) + described + stored

    def parts(self, data: bytes) -> tuple[tuple[int, int, int, int], bytes, bytes]:
        """The header, the pipeline and the chunk; the latter empty where bytes lack."""
        header = CODEC_HEADER.unpack_from(data.ljust(CODEC_HEADER.size, b"\0"))
        at = CODEC_HEADER.size
        size = int.from_bytes(data[at : at + 2], "little")
        return header, data[at + 2 : at + 2 + size], data[at + 2 + size :]

    def sealed(self, data: bytes) -> bytes:
        header, _, stored = self.parts(data)
        if not header[1] & CHECKED or not stored:
            return data
        made = bytearray(stored)
        sealed_chunk(made, 0, len(made))
        return data[: len(data) - len(stored)] + bytes(made)

    def run(self, data: bytes) -> None:
        (element, flags, cell, raw_size), described, stored = self.parts(data)
        signed, integer = bool(flags & SIGNED), bool(flags & INTEGER)
        raw_size = min(raw_size, MOST_RAW)
        for code in range(13):
            if data[-1:] == bytes(
                (code,)
            ):  # one in twenty: the block alone, as TileDB 1.3 stored it
                with contextlib.suppress(ValueError):
                    codec.decode_block(code, stored[28:], raw_size, cell)
        with contextlib.suppress(ValueError):
            testing.windows(stored, raw_size)
        testing.check(stored)
        with contextlib.suppress(ValueError):
            rewritten = testing.rewritten(described)
            assert testing.rewritten(rewritten) == rewritten
        raw = decode(described, element, signed, integer, stored, raw_size, True, cell)
        assert len(raw) == raw_size
        decode(described, element, signed, integer, stored, raw_size, False, cell)


# --- wire ------------------------------------------------------------------------------------------


class Checksums(Target):
    """CRC-32C of any bytes at any place: instructions and tables agree, and so do a whole and its parts."""

    name = "crc32c"
    short = 300

    def seeds(self) -> Sequence[bytes]:
        return [b"123456789", bytes(range(256)) * 5]

    def run(self, data: bytes) -> None:
        crc = len(data)
        for skip in range(min(len(data), 9)):
            rest = memoryview(data)[skip:]
            whole = testing.crc32c_software(rest, crc)
            assert crc32c(rest, crc) == whole
            assert crc32c(rest[skip:], crc32c(rest[:skip], crc)) == whole


BYTES: Sequence[Target] = (
    *(SchemaFile(), DescriptorFile(), Lists(), Records(), Names(), Chunks(), Checksums()),
)
