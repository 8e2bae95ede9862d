"""Run lengths: (cell, u16 big-endian count) for every run of equal cells, of 1 to 65,535; one block of a compressor.

A block is whole cells, so what a filter before leaves must be: TileDB refuses anything else too.
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.codec.filters cimport Pipeline, Status, Step

cdef size_t bound_runs(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_runs(const Pipeline* pipeline) noexcept nogil
cdef Status compress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil
