"""Run lengths: (cell, u16 big-endian count) for every run of equal cells, of 1 to 65,535; one block of a compressor.

A block is whole cells, so what a filter before leaves must be: TileDB refuses anything else too.
"""

from libc.stdint cimport uint8_t

from tilekv.kvcore.filters cimport Status, Step

cdef size_t bound_runs(const Step* step, size_t n) noexcept nogil
cdef Status compress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_runs(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil
