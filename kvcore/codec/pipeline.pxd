"""Filter pipelines: a field's filters, run over the bytes of a chunk and back (docs/format.md 4.2).

All of it runs without the GIL. What stands around these bytes is codec/chunk. Modules above this package import from here what
`filters` and `bitwidth` declare.
"""

from libc.stdint cimport uint8_t, uint32_t

from tilekv.kvcore.base.wire cimport Cursor
from tilekv.kvcore.codec.bitwidth cimport WINDOW_HEADER, Windows, window_at
from tilekv.kvcore.codec.filters cimport (
    CORRUPT, FILTER_BIT_WIDTH, NO_MEMORY, OK, TOO_LARGE, UNSUPPORTED, Codec, Pipeline, Status, parse_pipeline,
)

# Codecs for any number of threads: a free list under a lock.
cdef struct Pool:
    void* lock
    Codec* free

cdef Codec* codec_acquire(Pool* pool) noexcept nogil            # NULL when memory is out
cdef void codec_release(Pool* pool, Codec* codec) noexcept nogil


cdef class CodecPool:
    """Owns a Pool and the contexts in it."""
    cdef Pool pool

# Raw bytes that one stored byte of a chunk can mean at most; UINT32_MAX, more than a chunk has, when it can be any number.
cdef uint32_t pipeline_ratio(const Pipeline* pipeline) noexcept nogil

# Runs n raw bytes through the filters, first to last. meta and data: what they make of them, in the codec's scratch memory or in
# raw itself.
cdef Status run_forward(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Cursor* meta,
                        Cursor* data) noexcept nogil
# And back, last to first: exactly raw_size bytes into raw, or CORRUPT. `checked` is true of what tilekv wrote: then each filter
# verifies what it can, and nothing of the metadata is left.
cdef Status run_reverse(const Pipeline* pipeline, Codec* codec, Cursor meta, Cursor data, uint8_t* raw, size_t raw_size,
                        bint checked) noexcept nogil

# Nothing when the status is OK, else the MemoryError or ValueError that says it.
cdef int raise_for(Status status) except -1
# A pipeline of its descriptor (docs/format.md 4.2) and what is known of its datatype; see decode().
cdef int read_pipeline(bytes descriptor, uint32_t element_size, bint signed, bint integer, uint32_t cell_size,
                       Pipeline* pipeline) except -1
