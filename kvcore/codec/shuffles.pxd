"""Byte and bit shuffles: bytes, or bits, of the same place in all elements are put together, where a compressor finds them alike.

    u32 parts | per part: u32 bytes         data: the parts, each shuffled, sizes as before

A byte shuffle of n elements of T bytes puts all first bytes, then all second bytes; a tail shorter than an element is copied.
A bit shuffle does it with bits, lowest first, in blocks of 8,192 bytes; 8 elements make a byte of each bit, and those that are
left over are copied. It splits off what is no multiple of 8 bytes as a part that is copied, as is any part that ends within
an element.
"""

from tilekv.kvcore.codec.filters cimport Kind, Pipeline, Sizes, Status, Step

cdef Status shuffle_bytes(Step* step) noexcept nogil
cdef Status unshuffle_bytes(Step* step) noexcept nogil
cdef Status shuffle_bits(Step* step) noexcept nogil
cdef Status unshuffle_bits(Step* step) noexcept nogil
cdef void grow_shuffled(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil
