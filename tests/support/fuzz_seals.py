"""Checksums made right again, so that what is behind them is reached: an attacker computes a CRC as well as anybody.

Every function takes bytes that may be anything, and gives them back with the checksums right wherever they have a place.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from tilekv.kvcore.base.crc32c import crc32c

Files = dict[str, bytes]

CHUNK_HEADER = 12
BLOOM, BLOCK, BLOCKS = 4, 32, 127  # the record, bytes of a block, blocks of a page
TILE_PAYLOAD = 72  # of a generic tile as tilekv writes it
MAGIC = b"TKVB"


def sealed_chunk(data: bytearray, at: int, end: int) -> int:
    """Seal the chunk at `at`; where the next begins, or `end` when its sizes lead out of the tile."""
    if at + CHUNK_HEADER > end:
        return end
    _, filtered, meta = struct.unpack_from("<III", data, at)
    after = at + CHUNK_HEADER + meta
    if after + filtered > end:
        return end
    if meta >= 4:
        crc = crc32c(data[at : after - 4])
        struct.pack_into("<I", data, after - 4, crc32c(data[after : after + filtered], crc))
    return after + filtered


def sealed_data_file(data: bytes) -> bytes:
    """A data file: tiles of u64 chunks, chunks. Of chunks that end in zstd the metadata has no checksum to be set."""
    made = bytearray(data)
    at, end = 0, len(made) - 20
    while 0 <= at <= end - 8:
        (chunks,) = struct.unpack_from("<Q", made, at)
        at += 8
        for _ in range(min(chunks, len(made))):
            if at >= end:
                break
            if _is_zstd(made, at):
                _, filtered, meta = struct.unpack_from("<III", made, at)
                at += CHUNK_HEADER + filtered + meta
            else:
                at = sealed_chunk(made, at, end)
    return bytes(made)


def _is_zstd(data: bytearray, at: int) -> bool:
    """Whether a zstd frame begins behind a chunk's metadata."""
    if at + CHUNK_HEADER > len(data):
        return False
    (meta,) = struct.unpack_from("<I", data, at + 8)
    begin = at + CHUNK_HEADER + meta
    return data[begin : begin + 4] == b"\x28\xb5\x2f\xfd"


def sealed_metadata(data: bytes) -> bytes:
    """A fragment's metadata: the payloads of R-tree and vectors, then the private block and the footer."""
    made = bytearray(data)
    footer = data.rfind(MAGIC) + len(MAGIC)
    fields = (len(data) - footer - 78) // 40  # by the size of the footer
    if footer < 12 or fields < 1:
        return data
    at = footer + 54 + 8 * (2 * fields + 1)
    for (position,) in struct.iter_unpack("<Q", data[at : at + 8 * (3 * fields + 2)]):
        if position + TILE_PAYLOAD > footer:
            continue
        (size,) = struct.unpack_from("<I", made, position + 50)
        payload = position + TILE_PAYLOAD
        if payload + size <= footer:
            struct.pack_into("<I", made, payload - 10, crc32c(made[payload : payload + size]))
    (length,) = struct.unpack_from("<I", made, footer - 12)
    start = footer - 12 - length
    if start >= 0:
        seal_bloom(made, start, footer - 12)
        crc = crc32c(made[footer:], crc32c(made[start : footer - 8]))
        struct.pack_into("<I", made, footer - 8, crc)
    return bytes(made)


def seal_bloom(made: bytearray, at: int, end: int) -> None:
    """The checksums of a Bloom filter's pages, as far as the records from `at` to `end` say where it is."""
    while at + 16 <= end:
        tag, size = struct.unpack_from("<II", made, at)
        if tag == BLOOM and size == 32 and at + 40 <= end:
            page, blocks = struct.unpack_from("<QQ", made, at + 8)
            while 0 < blocks <= end and page + BLOCK * (min(blocks, BLOCKS) + 1) <= end:
                n = BLOCK * min(blocks, BLOCKS)
                struct.pack_into("<I", made, page + n, crc32c(made[page : page + n]))
                page += n + BLOCK
                blocks -= min(blocks, BLOCKS)
        at += 8 + -(-size // 8) * 8


def sealed_descriptor(data: bytes, schema: bytes | None = None) -> bytes:
    """`__tilekv.json`: its own checksum and, if given, the schema file's. Bytes that are no JSON object stay as they are."""
    try:
        members: Any = json.loads(data)
        if not isinstance(members, dict):
            return data
        members.pop("crc32c", None)
        if schema is not None:
            members["schema_crc32c"] = crc32c(schema)
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return data
    members["crc32c"] = crc32c(canonical)
    return json.dumps(members).encode()


def sealed_list(data: bytes, owner: str) -> bytes:
    """A `.vac` file: its last line is a checksum of the lines above and of whose list it is."""
    lines = data[: data.rfind(b"\n", 0, -1) + 1]
    return lines + b"/.crc32c-%08x\n" % crc32c(os.fsencode(owner) + b"\n" + lines)


def sealed_store(files: Files) -> Files:
    """Every file of a store of tilekv, by its path."""
    made = {}
    schema = files.get("__kv_schema.tdb", b"")
    for path, data in files.items():
        if path == "__tilekv.json":
            made[path] = sealed_descriptor(data, schema)
        elif path == "__array_schema.tdb":
            made[path] = schema
        elif path.startswith(".tilekv/record-"):
            made[path] = sealed_descriptor(data)
        elif path.endswith(".vac"):
            made[path] = sealed_list(data, path.removesuffix(".vac"))
        elif path.endswith("/__fragment_metadata.tdb"):
            made[path] = sealed_metadata(data)
        elif "/" in path:
            made[path] = sealed_data_file(data)
        else:
            made[path] = data
    return made
