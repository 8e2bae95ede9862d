"""Arrow arrays and streams that do not fit their types, through the C interfaces, for the fuzzer.

The interface has pointers and no sizes of buffers: what no consumer can check stays right here. Every buffer has ROOM bytes,
and lengths and offsets are either within it or far beyond what any array has. All else may be anything: formats, counts of
buffers and children, missing buffers, children and dictionaries, nulls, offsets that fall.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import tilekv
from fuzz_targets import Target
from tilekv import Attr, Schema

ROOM = 1 << 16
MOST = 200  # elements
USES = 300  # of a store
HEAD = struct.Struct(
    "<16sqqqBBB"
)  # format, length, nulls, offset, buffers, children, what is there
NODE = HEAD.size + 64  # and the first bytes of its buffers

DICTIONARY, NO_BUFFERS, NO_CHILDREN, NO_NAME, NO_CHILD, NO_CHILD_TYPE = 1, 2, 4, 8, 16, 32


class CSchema(ctypes.Structure):
    """ArrowSchema."""


class CArray(ctypes.Structure):
    """ArrowArray."""


RELEASE_SCHEMA = ctypes.CFUNCTYPE(None, ctypes.POINTER(CSchema))
RELEASE_ARRAY = ctypes.CFUNCTYPE(None, ctypes.POINTER(CArray))
CSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(CSchema))),
    ("dictionary", ctypes.POINTER(CSchema)),
    ("release", RELEASE_SCHEMA),
    ("private_data", ctypes.c_void_p),
]
CArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(CArray))),
    ("dictionary", ctypes.POINTER(CArray)),
    ("release", RELEASE_ARRAY),
    ("private_data", ctypes.c_void_p),
]


class CStream(ctypes.Structure):
    """ArrowArrayStream."""


GET_SCHEMA = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
GET_NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
GET_ERROR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
RELEASE_STREAM = ctypes.CFUNCTYPE(None, ctypes.POINTER(CStream))
CStream._fields_ = [
    ("get_schema", GET_SCHEMA),
    ("get_next", GET_NEXT),
    ("get_last_error", GET_ERROR),
    ("release", RELEASE_STREAM),
    ("private_data", ctypes.c_void_p),
]


@RELEASE_SCHEMA
def release_schema(at: Any) -> None:
    at.contents.release = RELEASE_SCHEMA()


@RELEASE_ARRAY
def release_array(at: Any) -> None:
    at.contents.release = RELEASE_ARRAY()


@RELEASE_STREAM
def release_stream(at: Any) -> None:
    at.contents.release = RELEASE_STREAM()


capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype = ctypes.py_object
capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Trees:
    """Schemas and arrays of the nodes in some bytes, each node's children and dictionary being the nodes that follow."""

    def __init__(self, data: bytes) -> None:
        self.kept: list[Any] = []
        self.nodes = [data[at : at + NODE].ljust(NODE, b"\0") for at in range(0, len(data), NODE)]

    @staticmethod
    def like(given: bytes, schema: CSchema | None) -> bytes:
        """A node whose buffers are those of a type: its offsets lead nowhere outside of them."""
        return given if schema is None else (schema.format or b"").ljust(16, b"\0") + given[16:]

    def node(self, depth: int = 0, shape: CSchema | None = None) -> tuple[CSchema, CArray]:
        """The next tree; its buffers are filled as those of `shape`, if given."""
        given = self.like(self.nodes.pop(0) if self.nodes else bytes(NODE), shape)
        parts = HEAD.unpack_from(given)
        text, length, nulls, offset, buffers, children, flags = parts
        schema, array = CSchema(), CArray()
        schema.format = text.rstrip(b"\0")
        schema.name = None if flags & NO_NAME else text[-4:].rstrip(b"\0")
        schema.release, array.release = release_schema, release_array
        array.length, array.null_count, array.offset = within(length), nulls, within(offset)
        width = 8 if text.split(b"\0")[0] in (b"U", b"Z", b"+L", b"+vL") else 4
        self.fill(array, buffers % 5, given[HEAD.size :], width, bool(flags & NO_BUFFERS))
        inner = []
        for i in range(children % 3 if depth < 4 else 0):
            known = shape is not None and i < shape.n_children and shape.children[i]
            inner.append(self.node(depth + 1, known.contents if known else None))
        if inner and not flags & NO_CHILDREN:
            of_schema = (ctypes.POINTER(CSchema) * len(inner))(
                *(ctypes.pointer(one) for one, _ in inner)
            )
            of_array = (ctypes.POINTER(CArray) * len(inner))(
                *(ctypes.pointer(one) for _, one in inner)
            )
            if flags & NO_CHILD:
                of_array[0] = None
            if flags & NO_CHILD_TYPE:
                of_schema[0] = None
            schema.children, array.children = of_schema, of_array
            schema.n_children = array.n_children = len(inner)
            self.kept += [of_schema, of_array]
        elif inner:
            array.n_children = len(inner)  # and there is no place for them
        if flags & DICTIONARY and depth < 4:
            known = shape is not None and shape.dictionary
            values_schema, values = self.node(depth + 1, known.contents if known else None)
            schema.dictionary = ctypes.pointer(values_schema)
            if flags & NO_CHILDREN == 0:
                array.dictionary = ctypes.pointer(values)
        self.kept += [schema, array, inner]
        return schema, array

    def fill(self, array: CArray, buffers: int, begin: bytes, width: int, missing: bool) -> None:
        """Numbers in the buffers: no offset that leads out of one, and the sizes of views' blocks are right."""
        array.n_buffers = buffers
        if missing:
            return
        made = (ctypes.c_void_p * max(buffers, 1))()
        for i in range(buffers):
            # Offsets of 16 bits, which lead nowhere outside.
            words = bytes(byte * (place % width < 2) for place, byte in enumerate(begin))
            data = begin if i == 0 else words
            buffer = ctypes.create_string_buffer((data * (ROOM // len(data) + 1))[:ROOM], ROOM)
            if i == buffers - 1 and i > 2:
                ctypes.memmove(buffer, struct.pack("<8q", *[ROOM] * 8), 64)
            made[i] = ctypes.addressof(buffer)
            self.kept.append(buffer)
        array.buffers = made
        self.kept.append(made)


class Made(Trees):
    """One array with its schema."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.schema, self.array = self.node()
        self.rows = self.array.length

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        at = ctypes.addressof(self.schema), ctypes.addressof(self.array)
        return capsule(at[0], b"arrow_schema", None), capsule(at[1], b"arrow_array", None)


CHUNKS = 4  # of a stream
SAYS_NOTHING, SAYS_BYTES = 1, 2


class MadeStream(Trees):
    """A stream of what follows {u8 which call fails, the schema's being the first, u8 what it says}: the first array brings the
    schema, and the others may not fit it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data[2:])
        self.fails, self.says = data[:2].ljust(2, b"\0")
        self.schema, array = self.node()
        self.arrays = [array]
        while self.nodes and len(self.arrays) < CHUNKS:
            self.arrays.append(self.node(0, self.schema)[1])
        self.rows = sum(array.length for array in self.arrays)
        self.calls = 0
        self.error = ctypes.create_string_buffer(b"\xff\xfe" if self.says & SAYS_BYTES else b"!")
        self.stream = CStream()
        self.stream.get_schema, self.stream.get_next = GET_SCHEMA(self.begin), GET_NEXT(self.next)
        self.stream.get_last_error = GET_ERROR(self.last_error)
        self.stream.release = release_stream

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return capsule(ctypes.addressof(self.stream), b"arrow_array_stream", None)

    def begin(self, _: int, out: int) -> int:
        return self.give(self.schema, out)

    def next(self, _: int, out: int) -> int:
        return self.give(self.arrays.pop(0) if self.arrays else CArray(), out)

    def give(self, struct: ctypes.Structure, out: int) -> int:
        self.calls += 1
        if self.calls == self.fails:
            return 5
        ctypes.memmove(out, ctypes.addressof(struct), ctypes.sizeof(struct))
        return 0

    def last_error(self, _: int) -> int | None:
        return None if self.says & SAYS_NOTHING else ctypes.addressof(self.error)


def within(number: int) -> int:
    """As it is when it is negative, or so large that a consumer can tell; else small enough for the buffers."""
    return number if number < 0 or number >= 1 << 62 else number % MOST


def node(
    text: bytes, length: int, buffers: int, children: int = 0, flags: int = 0, begin: bytes = b""
) -> bytes:
    head = HEAD.pack(text, length, 0, 0, buffers, children, flags)
    return head + (begin or bytes(range(0, 256, 4)))


def counting(width: int) -> bytes:
    """1, 2, 3, ...: offsets, sizes or ends of runs that fit a child of some length."""
    return struct.pack(f"<{64 // width}{'iq'[width // 8]}", *range(1, 64 // width + 1))


def rows_of(key: bytes = b"i", buffers: int = 2, flags: int = 0) -> bytes:
    """A table of two columns: `k`, of keys, and `n`."""
    columns = [
        node(key.ljust(12, b"\0") + b"k", 4, buffers),
        node(b"i".ljust(12, b"\0") + b"n", 4, 2),
    ]
    return node(b"+s", 4, 1, 2, flags) + b"".join(columns)


class Arrows(Target):
    """Columns and tables of Arrow, as keys and as values."""

    name = "arrow"
    short = 500
    made: Callable[[bytes], Made | MadeStream] = Made
    refuses = (tilekv.InvalidValueError, tilekv.WrongTypeError, tilekv.OutOfRangeError)

    def __init__(self) -> None:
        self.stores: dict[Attr | None, tuple[tilekv.Store, int]] = {}

    def seeds(self) -> Sequence[bytes]:
        plain = [
            b"c",
            b"C",
            b"s",
            b"S",
            b"i",
            b"I",
            b"l",
            b"L",
            b"f",
            b"g",
            b"b",
            b"tsm:",
            b"tDn",
            b"tdD",
        ]
        found = [node(text, 4, 2) for text in (*plain, b"w:3")]
        found += [node(text, 4, 3) for text in (b"u", b"U", b"z", b"Z", b"vu", b"vz")]
        found += [node(text, 4, 4) for text in (b"vu", b"vz")]
        found += [node(b"+w:2", 4, 1, 1) + node(text, 8, 2) for text in (b"i", b"f", b"b")]
        found += [node(text, 4, 2, 1) + node(b"i", 180, 2) for text in (b"+l", b"+L")]
        for text, width, buffers in ((b"+l", 4, 2), (b"+L", 8, 2), (b"+vl", 4, 3), (b"+vL", 8, 3)):
            lists = node(text, 4, buffers, 1, 0, counting(width)) + node(b"i", 180, 2)
            found += [lists, node(b"c", 4, 2, 0, DICTIONARY, bytes(range(64))) + lists]
        for values in (
            node(b"l", 9, 2),
            node(b"u", 9, 3),
            node(b"+w:2", 9, 1, 1) + node(b"f", 18, 2),
        ):
            found.append(node(b"+r", 4, 0, 2) + node(b"i", 9, 2, 0, 0, counting(4)) + values)
        found += [
            node(text, 4, 2)
            for text in (
                b"d:5,2",
                b"d:38,0",
                b"d:9,2,32",
                b"d:18,-1,64",
                b"d:76,9,256",
                b"tin",
                b"tiD",
            )
        ]
        found += [node(b"i", 4, 2, 0, DICTIONARY) + node(text, 4, 3) for text in (b"u", b"i", b"l")]
        found += [rows_of(), rows_of(b"u", 3)]
        return [*found, node(b"n", 4, 0)]

    def run(self, data: bytes) -> None:
        columns = [Attr("b", bytes), Attr("s", str), Attr("n", "int32"), Attr("m", "datetime64[m]")]
        columns += [Attr("v", "int32", var=True), Attr("w", "float32", shape=2)]
        columns += [Attr("d", "timedelta64[us]"), Attr("f", "float64")]
        columns += [
            Attr("s", str, nullable=True),
            Attr("v", "int32", var=True, nullable=True),
            Attr("w", "float32", shape=2, nullable=True),
            Attr("d", "timedelta64[us]", nullable=True),
        ]
        refused = None
        for attr in (None, *columns):
            try:
                self.put(attr, data)
            except self.refuses as error:
                refused = error
        if refused:
            raise refused

    def put(self, attr: Attr | None, data: bytes) -> None:
        """As the column of an attribute; with None as keys, and as a table with keys in it."""
        made = self.made(data)
        n = max(0, min(made.rows, MOST))
        db = self.store(attr)
        if attr is not None:
            db.put_many(range(n), **{attr.name: made})
            list(itertools.islice(db.items(), 5))
            return
        with contextlib.suppress(*self.refuses):
            db.put_many(made, n=[0] * n)
        db.put_many(self.made(data), key="k")

    def store(self, attr: Attr | None) -> tilekv.Store:
        """A store that takes an attribute, and is used a few times: creating one takes a millisecond."""
        db, uses = self.stores.get(attr, (None, USES))
        if db is None or uses == USES:
            if db is not None:
                db.close()
            schema = Schema([attr or Attr("n", "int32")])
            db, uses = tilekv.open(f"memory://{self.name} {attr}", "w", schema=schema), 0
        self.stores[attr] = db, uses + 1
        return db


class Streams(Arrows):
    """The same, in chunks."""

    name = "arrow streams"
    short = 300
    made = MadeStream

    def seeds(self) -> Sequence[bytes]:
        whole = [bytes((9, 0)) + data + data for data in super().seeds()]
        data = node(b"i", 4, 2)
        return [*whole, *(bytes((fails, fails)) + data * 3 for fails in range(4))]
