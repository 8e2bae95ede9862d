"""Bit-width reduction: integers as their distance from the smallest of their window, in as few whole bytes as fit.

    u32 raw bytes | u32 windows | per window: T smallest, u8 bits, u32 raw bytes      data: the narrow elements

TileDB narrows the 16-, 32- and 64-bit integers only, and passes everything else on without metadata of its own. It reads the
narrow values of signed elements with their sign, so those may use one bit less. A window of `bits` >= an element's, or of raw
bytes that are no multiple of an element's, is copied.

tilekv cuts the uint64 of a chunk into equal windows of one width, so that element i is one load and one add (Windows).
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.base.wire cimport Cursor, load16, load32, load64
from tilekv.kvcore.codec.filters cimport Kind, Pipeline, Sizes, Status, Step

cdef Status narrow(Step* step) noexcept nogil
cdef Status widen(Step* step) noexcept nogil
cdef void grow_windows(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil
cdef uint64_t ratio_windows(const Pipeline* pipeline) noexcept nogil

cdef enum:
    WINDOW_HEADER = 13          # u64 smallest, u8 bits, u32 raw bytes: before each window of uint64

# A chunk of uint64 whose only filter is bit-width reduction, read in place.
cdef struct Windows:
    const uint8_t* minima       # window w's smallest value at minima + WINDOW_HEADER * w (its header in the chunk's meta)
    const uint8_t* data         # element i at data + i * nbytes
    uint64_t stride             # with nbytes 0, element i is i * stride, and nothing of the chunk is read
    uint8_t shift               # 2^shift elements a window
    uint8_t nbytes              # 0, 1, 2, 4 or 8; with 8 the elements are as they are and minima do not count

# From a chunk's metadata (of this filter alone) and data. CORRUPT unless they are exactly raw_size bytes in equal windows (the
# last may be shorter) of one width.
cdef Status read_windows(Cursor meta, Cursor data, size_t raw_size, Windows* windows) noexcept nogil


cdef inline uint64_t window_at(const Windows* w, size_t i) noexcept nogil:
    cdef const uint8_t* p = w.data + i * w.nbytes
    if w.nbytes == 0:
        return i * w.stride
    if w.nbytes == 2:
        return load16(p) + load64(w.minima + WINDOW_HEADER * (i >> w.shift))
    if w.nbytes == 4:
        return load32(p) + load64(w.minima + WINDOW_HEADER * (i >> w.shift))
    if w.nbytes == 1:
        return p[0] + load64(w.minima + WINDOW_HEADER * (i >> w.shift))
    return load64(p)
