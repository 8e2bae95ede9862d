"""General compressors, and what all compressors share: parts with their sizes, blocks one after the other.

    u32 metadata parts | u32 data parts | per part: u32 raw, u32 compressed      data: the compressed parts

A compressor also compresses the metadata before it. TileDB writes a part for each of its buffers, tilekv one for all metadata,
if there is any, and one for the data. Blocks: a zlib stream, a zstd frame, a raw lz4 block, a .bz2 stream; `rle` and `deltas`
have those of TileDB's own.
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.codec.filters cimport Codec, Kind, Pipeline, Sizes, Status, Step

cdef Status compress(Step* step) noexcept nogil
cdef Status decompress(Step* step) noexcept nogil
cdef void grow_parts(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil

# Written with a content checksum; read (checked) only with one.
cdef size_t bound_zstd(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_zstd(const Pipeline* pipeline) noexcept nogil
cdef Status compress_zstd(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_zstd(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef size_t bound_lz4(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_lz4(const Pipeline* pipeline) noexcept nogil
cdef Status compress_lz4(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_lz4(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef size_t bound_gzip(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_gzip(const Pipeline* pipeline) noexcept nogil
cdef Status compress_gzip(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_gzip(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef size_t bound_bzip2(const Pipeline* pipeline, size_t n) noexcept nogil
cdef uint64_t ratio_bzip2(const Pipeline* pipeline) noexcept nogil
cdef Status compress_bzip2(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
cdef Status decompress_bzip2(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

# Frees the compressors' contexts of a codec.
cdef void free_contexts(Codec* codec) noexcept nogil
