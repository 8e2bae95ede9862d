"""Filter pipelines: one chunk of raw bytes to its stored form and back (FORMAT.md 4.2, 4.3).

Everything about chunks runs without the GIL.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.wire cimport Cursor, Out, load16, load32, load64

cdef enum:
    MAX_FILTERS = 8

# TileDB's filter numbers: on disk, never changed.
cdef enum FilterType:
    FILTER_NONE = 0
    FILTER_GZIP = 1
    FILTER_ZSTD = 2
    FILTER_LZ4 = 3
    FILTER_RLE = 4
    FILTER_BZIP2 = 5
    FILTER_DOUBLE_DELTA = 6
    FILTER_BIT_WIDTH = 7
    FILTER_BITSHUFFLE = 8
    FILTER_BYTESHUFFLE = 9
    FILTER_POSITIVE_DELTA = 10
    FILTER_MD5 = 12
    FILTER_SHA256 = 13

cdef struct Filter:
    uint8_t type                # FilterType
    int32_t level               # compressors; others 0
    uint32_t window             # bit-width reduction and positive delta: most bytes a window; others 0

cdef struct Pipeline:
    uint32_t max_chunk          # bytes; steers writers only, readers take sizes from chunk headers
    uint32_t n
    uint32_t cell_bytes         # bytes of one element of the tile's datatype: what bit-width reduction works on
    bint element_signed         # the datatype is a signed integer
    bint element_integer        # the datatype is an integer (bit-width reduction copies others)
    Filter filters[MAX_FILTERS]

# Reads a pipeline descriptor (FORMAT.md 4.2) and leaves the cursor behind it. Filters this build does not know are kept by number
# and are UNSUPPORTED when used. The elements become single bytes: the caller, which knows the datatype, sets the three fields
# about them after. ValueError when the descriptor is cut short, contradicts itself or has more than MAX_FILTERS filters.
cdef int parse_pipeline(Cursor* at, Pipeline* pipeline) except -1
# The descriptor of a pipeline of known filters.
cdef bytes pipeline_bytes(const Pipeline* pipeline)

# What can go wrong in a nogil kernel; the caller, which knows file and offset, raises.
cdef enum Status:
    OK = 0
    CORRUPT = -1                # the stored bytes are not what the pipeline writes
    NO_MEMORY = -2
    UNSUPPORTED = -3            # a filter this build cannot decode
    TOO_LARGE = -4              # a chunk of more than 2^32-1 bytes

# zstd contexts and scratch buffers, kept between calls: creating them costs more than decoding a chunk
# (8 KiB: 5.7 us with a kept context, 13.6 without). One thread at a time; take one from a CodecPool.
cdef struct Codec:
    void* zstd_in
    void* zstd_out
    void* lz4
    Out scratch[4]
    Codec* next

# Codecs for any number of threads: a free list under a lock.
cdef struct Pool:
    void* lock
    Codec* free

cdef Codec* codec_acquire(Pool* pool) noexcept nogil            # NULL when memory is out
cdef void codec_release(Pool* pool, Codec* codec) noexcept nogil


cdef class CodecPool:
    """Owns a Pool and the contexts in it."""
    cdef Pool pool

# Appends the stored chunk {u32 raw, u32 filtered, u32 meta size, meta, filtered bytes} to out.
# Chunks that end in zstd carry its content checksum; every other chunk ends its meta with a CRC-32C over
# header, meta before it, and filtered bytes (DESIGN.md 8).
cdef Status encode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Out* out) noexcept nogil

# Decodes the stored chunk [stored, stored + stored_size) into raw, which has room for exactly raw_size bytes.
# CORRUPT unless the header says raw_size, every byte of the chunk is accounted for, and (checked) its checksum holds.
# `checked` is true for chunks tilekv wrote; TileDB's own carry no checksum of ours, and metadata that no filter takes is
# ignored in them, as TileDB ignores it.
cdef Status decode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* stored, size_t stored_size,
                         uint8_t* raw, size_t raw_size, bint checked) noexcept nogil

# A stored chunk of uint64 whose only filter is bit-width reduction, read in place: element i is one load and one add.
# encode_chunk cuts such chunks into windows of 2^shift elements that all use the same width, so that i finds its window by a
# shift.
cdef struct Windows:
    const uint8_t* minima       # window w's smallest value at minima + 13 * w (its header in the chunk's meta)
    const uint8_t* data         # element i at data + i * nbytes
    uint8_t shift
    uint8_t nbytes              # 1, 2, 4 or 8; with 8 the elements are as they are and minima do not count

# CORRUPT unless the chunk holds exactly raw_size bytes in equal windows (the last may be shorter) of one width. Does not check
# the CRC: decode_chunk or check_chunk has done that once before.
cdef Status open_windows(const uint8_t* stored, size_t stored_size, size_t raw_size, Windows* windows) noexcept nogil
# Only the header and the trailing CRC-32C of a chunk written by tilekv that does not end in zstd.
cdef Status check_chunk(const uint8_t* stored, size_t stored_size) noexcept nogil


cdef inline uint64_t window_at(const Windows* w, size_t i) noexcept nogil:
    cdef const uint8_t* p = w.data + i * w.nbytes
    if w.nbytes == 2:
        return load16(p) + load64(w.minima + 13 * (i >> w.shift))
    if w.nbytes == 4:
        return load32(p) + load64(w.minima + 13 * (i >> w.shift))
    if w.nbytes == 1:
        return p[0] + load64(w.minima + 13 * (i >> w.shift))
    return load64(p)
