"""MD5 and SHA-256 of what a filter is given, which passes unchanged.

    u32 metadata parts | u32 data parts | per part: u64 bytes, digest (16 or 32 bytes)

The parts lie one after the other in the metadata after these, and in the data. Reading always verifies them.
"""

from tilekv.kvcore.codec.filters cimport Kind, Pipeline, Sizes, Status, Step

cdef Status add_md5(Step* step) noexcept nogil
cdef Status verify_md5(Step* step) noexcept nogil
cdef Status add_sha256(Step* step) noexcept nogil
cdef Status verify_sha256(Step* step) noexcept nogil
cdef void grow_sums(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil
