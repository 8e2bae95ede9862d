"""A stored chunk: its header, its checksum, and between them what a pipeline makes of raw bytes (docs/format.md 4.3)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.wire cimport Cursor, Out, cursor, take, take32
from tilekv.kvcore.codec.pipeline cimport CORRUPT, OK, Codec, Pipeline, Status, Windows

cdef enum:
    CHUNK_HEADER = 12           # u32 raw, u32 filtered, u32 metadata bytes: what begins a stored chunk
    CHUNK_CRC = 4
    PLAIN_HEADER = CHUNK_HEADER + CHUNK_CRC     # what stands before the bytes of a chunk without filters

# A stored chunk by its header: the sizes add up to the stored bytes.
cdef struct StoredChunk:
    uint32_t raw_size
    Cursor meta
    Cursor data


cdef inline Status split_chunk(const uint8_t* stored, size_t stored_size, StoredChunk* chunk) noexcept nogil:
    cdef Cursor c = cursor(stored, stored_size)
    cdef uint32_t filtered, meta
    chunk.raw_size = take32(&c)
    filtered = take32(&c)
    meta = take32(&c)
    chunk.meta = cursor(take(&c, meta), meta)
    chunk.data = cursor(take(&c, filtered), filtered)
    return CORRUPT if c.failed or c.left > 0 else OK


cdef inline const uint8_t* plain_chunk(const uint8_t* stored, size_t stored_size, uint64_t raw_size) noexcept nogil:
    """The bytes of a chunk without filters; NULL unless they are raw_size. Does not check the CRC."""
    cdef StoredChunk chunk
    if (split_chunk(stored, stored_size, &chunk) != OK or chunk.raw_size != raw_size or chunk.data.left != raw_size
            or chunk.meta.left != CHUNK_CRC):
        return NULL
    return chunk.data.at

# Appends the stored chunk {u32 raw, u32 filtered, u32 meta size, meta, filtered bytes} to out.
# Chunks that end in zstd carry its content checksum; every other chunk ends its meta with a CRC-32C over
# header, meta before it, and filtered bytes (docs/format.md 4.3).
cdef Status encode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Out* out) noexcept nogil

# Decodes the stored chunk [stored, stored + stored_size) into raw, which has room for exactly raw_size bytes.
# CORRUPT unless the header says raw_size, every byte of the chunk is accounted for, and (checked) its checksum holds.
# `checked` is true for chunks tilekv wrote; TileDB's own carry no checksum of ours, and metadata that no filter takes is
# ignored in them, as TileDB ignores it.
cdef Status decode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* stored, size_t stored_size,
                         uint8_t* raw, size_t raw_size, bint checked) noexcept nogil

# The windows of a stored chunk of uint64 whose only filter is bit-width reduction. CORRUPT unless it holds exactly raw_size bytes
# in equal windows of one width. Does not check the CRC: decode_chunk or check_chunk has done that once before.
cdef Status open_windows(const uint8_t* stored, size_t stored_size, size_t raw_size, Windows* windows) noexcept nogil
# Only the header and the trailing CRC-32C of a chunk written by tilekv that does not end in zstd.
cdef Status check_chunk(const uint8_t* stored, size_t stored_size) noexcept nogil
