"""What filters are made of: TileDB's numbers, a pipeline, and the step that a chunk takes through one filter.

A filter is two functions that turn (metadata, data) into (metadata, data), called through a pointer once a chunk. Forward, a
filter puts its own metadata before what it was given; backward, it takes its own and leaves the rest. The filters stand in
modules of their own; `pipeline` has the table of them and the chunk around them. Everything runs without the GIL.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.wire cimport Cursor, Out, out_room

cdef enum:
    MAX_FILTERS = 8

# TileDB's filter numbers: on disk, never changed. From 14 on stand filters that no store of these formats has.
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
    uint32_t element_bytes      # of the tile's datatype: what bit widths, deltas and shuffles work on
    uint32_t cell_bytes         # of a whole cell, an element of a var-size one: what run lengths count
    bint element_signed         # the datatype is a signed integer
    bint element_integer        # the datatype is an integer, bool or blob: others pass bit widths and positive deltas unchanged
    Filter filters[MAX_FILTERS]

# Reads a pipeline descriptor (docs/format.md 4.2) and leaves the cursor behind it. Filters this build does not know are kept by
# number and are UNSUPPORTED when used. Elements and cells become single bytes: the caller, which knows the datatype, sets the
# four fields about them after. ValueError when the descriptor is cut short, contradicts itself or has more than MAX_FILTERS.
cdef int parse_pipeline(Cursor* at, Pipeline* pipeline) except -1

# What can go wrong in a nogil kernel; the caller, which knows file and offset, raises.
cdef enum Status:
    OK = 0
    CORRUPT = -1                # the stored bytes are not what the pipeline writes
    NO_MEMORY = -2
    UNSUPPORTED = -3            # a filter this build has not, or that cannot work on what an earlier one leaves
    TOO_LARGE = -4              # a chunk of more than 2^32-1 bytes

# Compressors' contexts and scratch buffers, kept between calls: creating them costs more than a chunk (zstd decodes 8 KiB in
# 5.7 us with a kept context, 13.6 without; zlib 1 encodes 4 KiB in 12 and 67). One thread at a time; each is made by the first
# call that needs it.
cdef struct Codec:
    void* zstd_in
    void* zstd_out
    void* lz4
    void* deflate
    int deflate_level
    Out scratch[4]
    Codec* next

# What a filter is given, and where it leaves what it makes of it.
cdef struct Step:
    const Pipeline* pipeline
    const Filter* filter
    const Kind* kind
    Codec* codec
    bint checked
    Cursor meta                 # the chunk's metadata and data; a filter that changes them makes new ones in the two
    Cursor data                 # buffers below and points here at those
    Out* new_meta
    Out* new_data
    size_t meta_limit           # backward: most bytes that the new ones may come to, which a writer proved of every chunk
    size_t data_limit

ctypedef Status (*Apply)(Step* step) noexcept nogil

# Bytes of metadata and of data that lie between two filters.
cdef struct Sizes:
    uint64_t meta
    uint64_t data

# Makes of the most that a filter can be given the most that it can make of it, forward.
ctypedef void (*Grow)(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil
# Bytes, metadata and data together, that a filter can make of one stored byte at most, backward.
ctypedef uint64_t (*Ratio)(const Pipeline* pipeline) noexcept nogil

# What a compressor does with one block. compress: room is at least bound(n), which never falls as n grows. decompress: exactly n
# bytes become exactly `size`.
ctypedef size_t (*Bound)(const Pipeline* pipeline, size_t n) noexcept nogil
ctypedef Status (*Compress)(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
ctypedef Status (*Decompress)(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef struct Kind:
    Apply forward               # NULL: a filter this build has not
    Apply backward
    Grow grow
    Ratio ratio                 # NULL: 1
    Bound bound                 # compressors only
    Compress compress
    Decompress decompress


cdef inline Status room_for(Out* out, size_t limit, size_t n, uint8_t** at) noexcept nogil:
    """Room for n more decoded bytes; CORRUPT before memory is asked for when out would exceed `limit`."""
    if n > limit - out.size:
        return CORRUPT
    at[0] = out_room(out, n)
    return OK if at[0] != NULL else NO_MEMORY
