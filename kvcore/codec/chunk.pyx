"""Chunks there and back.

    u32 raw size | u32 filtered size | u32 metadata size | metadata                                   | filtered bytes
                                                           of the last filter .. of the first | CRC-32C
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX
from libc.string cimport memcpy

from tilekv.kvcore.base.crc32c cimport tkv_crc32c
from tilekv.kvcore.base.wire cimport load32, out_room, store32
from tilekv.kvcore.codec.bitwidth cimport read_windows
from tilekv.kvcore.codec.filters cimport FILTER_ZSTD, NO_MEMORY, TOO_LARGE
from tilekv.kvcore.codec.pipeline cimport (
    CodecPool, codec_acquire, codec_release, raise_for, read_pipeline, run_forward, run_reverse,
)


cdef inline bint ends_in_zstd(const Pipeline* pipeline) noexcept nogil:
    return pipeline.n > 0 and pipeline.filters[pipeline.n - 1].type == FILTER_ZSTD


cdef Status encode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Out* out) noexcept nogil:
    cdef size_t sealed = 0 if ends_in_zstd(pipeline) else CHUNK_CRC
    cdef Cursor meta, data
    cdef uint8_t* at
    cdef uint8_t* after
    cdef Status status
    if n > UINT32_MAX:
        return TOO_LARGE
    status = run_forward(pipeline, codec, raw, n, &meta, &data)
    if status != OK:
        return status
    if data.left > UINT32_MAX or meta.left + sealed > UINT32_MAX:
        return TOO_LARGE
    at = out_room(out, CHUNK_HEADER + meta.left + sealed + data.left)
    if at == NULL:
        return NO_MEMORY
    store32(at, <uint32_t>n)
    store32(at + 4, <uint32_t>data.left)
    store32(at + 8, <uint32_t>(meta.left + sealed))
    after = at + CHUNK_HEADER + meta.left + sealed
    if meta.left > 0:
        memcpy(at + CHUNK_HEADER, meta.at, meta.left)
    if data.left > 0:
        memcpy(after, data.at, data.left)
    if sealed:
        store32(after - CHUNK_CRC, crc_of_chunk(at, CHUNK_HEADER + meta.left, data.left))
    out.size += CHUNK_HEADER + meta.left + sealed + data.left
    return OK


cdef inline uint32_t crc_of_chunk(const uint8_t* chunk, size_t before, size_t filtered) noexcept nogil:
    """Of the `before` bytes up to the CRC and the filtered ones after it."""
    return tkv_crc32c(tkv_crc32c(0, chunk, before), chunk + before + CHUNK_CRC, filtered)


cdef Status check_chunk(const uint8_t* stored, size_t stored_size) noexcept nogil:
    cdef StoredChunk chunk
    cdef size_t before
    if split_chunk(stored, stored_size, &chunk) != OK or chunk.meta.left < CHUNK_CRC:
        return CORRUPT
    before = CHUNK_HEADER + chunk.meta.left - CHUNK_CRC
    return OK if load32(stored + before) == crc_of_chunk(stored, before, chunk.data.left) else CORRUPT


cdef Status decode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* stored, size_t stored_size,
                         uint8_t* raw, size_t raw_size, bint checked) noexcept nogil:
    cdef StoredChunk chunk
    if split_chunk(stored, stored_size, &chunk) != OK or chunk.raw_size != raw_size:
        return CORRUPT
    if checked and not ends_in_zstd(pipeline):
        if check_chunk(stored, stored_size) != OK:
            return CORRUPT
        chunk.meta.left -= CHUNK_CRC
    return run_reverse(pipeline, codec, chunk.meta, chunk.data, raw, raw_size, checked)


cdef Status open_windows(const uint8_t* stored, size_t stored_size, size_t raw_size, Windows* windows) noexcept nogil:
    cdef StoredChunk chunk
    if split_chunk(stored, stored_size, &chunk) != OK or chunk.raw_size != raw_size or chunk.meta.left < CHUNK_CRC:
        return CORRUPT
    chunk.meta.left -= CHUNK_CRC
    return read_windows(chunk.meta, chunk.data, raw_size, windows)


# ---- For Python: layers that touch few chunks ----

cdef CodecPool shared = CodecPool()


def decode(bytes pipeline, uint32_t element_size, bint signed, bint integer, stored, size_t raw_size, bint checked=True,
           uint32_t cell_size=0):
    """The `raw_size` bytes of a stored chunk: header, metadata and filtered bytes (docs/format.md 4.3).

    `pipeline` is a descriptor (docs/format.md 4.2); `element_size` (bytes), `signed` and `integer` describe the datatype, which
    bit-width reduction, deltas and shuffles work on; bool and blob count as integers. `cell_size` (bytes; an element's when 0)
    is a fixed-size attribute's cell, which run lengths work on.

    `checked` says that tilekv wrote the chunk, so that its checksum must hold; TileDB's own have none. ValueError when the chunk
    is not exactly what the pipeline writes for `raw_size` bytes, or needs a filter that is not supported.
    """
    cdef Pipeline parsed
    cdef Py_buffer view
    cdef Codec* codec
    cdef Status status = NO_MEMORY
    cdef bytes raw
    cdef uint8_t* to
    read_pipeline(pipeline, element_size, signed, integer, cell_size, &parsed)
    PyObject_GetBuffer(stored, &view, PyBUF_SIMPLE)
    try:
        raw = PyBytes_FromStringAndSize(NULL, raw_size)
        to = <uint8_t*>PyBytes_AS_STRING(raw)
        with nogil:
            codec = codec_acquire(&shared.pool)
            if codec != NULL:
                status = decode_chunk(&parsed, codec, <const uint8_t*>view.buf, view.len, to, raw_size, checked)
                codec_release(&shared.pool, codec)
        raise_for(status)
        return raw
    finally:
        PyBuffer_Release(&view)
