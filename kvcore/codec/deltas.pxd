"""Deltas of integers: double deltas, a compressor's block, and positive deltas, a filter.

Double delta (integers, and datetimes as 64-bit ones; strings byte by byte):

    u8 bits | u64 elements | T first | T second | words
    word        u64, bits from the top: for every further element 1 sign bit and `bits` of the magnitude of its delta's change

Where `bits` is >= an element's bits - 1 the elements follow as they are. Sums are modulo 2^64, so every block can be written.

Positive delta (integers only, the rest passes unchanged):

    u32 windows | per window: T first, u32 bytes        data: deltas, of the elements' width; the first of a window is 0

A window whose bytes are no multiple of an element's is copied. TileDB refuses to write a delta below zero; tilekv begins a
window there, so that every chunk can be written, and only that of growing numbers gains from it.
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.codec.filters cimport Kind, Pipeline, Sizes, Status, Step

cdef size_t bound_double_delta(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_double_delta(const Pipeline* pipeline) noexcept nogil
cdef Status compress_double_delta(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room,
                                  size_t* written) noexcept nogil
cdef Status decompress_double_delta(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef Status to_positive_delta(Step* step) noexcept nogil
cdef Status from_positive_delta(Step* step) noexcept nogil
cdef void grow_positive_delta(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil
