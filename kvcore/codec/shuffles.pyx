from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tilekv.kvcore.base.wire cimport cursor, load64, out32, out_bytes, out_room, store64, take, take32
from tilekv.kvcore.codec.filters cimport CORRUPT, NO_MEMORY, OK, TOO_LARGE, room_for

cdef enum:
    BLOCK = 8192                # bytes that one bit shuffle covers

# Shuffles the n bytes of one part of elements of `width` bytes.
ctypedef void (*Shuffle)(const uint8_t* data, size_t n, uint32_t width, uint8_t* to) noexcept nogil

# Stands for an element's width, so that the inner loops know it.
ctypedef fused Element:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


# ---- What all shuffles share ----

cdef Status forward(Step* step, Shuffle shuffle, size_t unit) noexcept nogil:
    """One part, or two when the data is no multiple of `unit` bytes."""
    cdef size_t n = step.data.left
    cdef size_t tail = n % unit
    cdef uint8_t* to
    cdef int failed
    if n > UINT32_MAX:
        return TOO_LARGE
    to = out_room(step.new_data, n)
    if to == NULL:
        return NO_MEMORY
    shuffle(step.data.at, n - tail, step.pipeline.element_bytes, to)
    if tail > 0:
        memcpy(to + n - tail, step.data.at + n - tail, tail)
    step.new_data.size += n
    failed = out32(step.new_meta, 1 if tail == 0 else 2) | out32(step.new_meta, <uint32_t>(n - tail))
    if tail > 0:
        failed |= out32(step.new_meta, <uint32_t>tail)
    failed |= out_bytes(step.new_meta, step.meta.at, step.meta.left)
    if failed:
        return NO_MEMORY
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef Status backward(Step* step, Shuffle unshuffle) noexcept nogil:
    cdef size_t n = step.data.left
    cdef uint32_t parts = take32(&step.meta)
    cdef uint32_t size, _part
    cdef const uint8_t* data
    cdef uint8_t* at = NULL
    cdef Status status = room_for(step.new_data, step.data_limit, n, &at)
    if status != OK:
        return status
    for _part in range(parts):
        size = take32(&step.meta)
        data = take(&step.data, size)
        if step.meta.failed or step.data.failed:
            return CORRUPT
        unshuffle(data, size, step.pipeline.element_bytes, at)
        at += size
    if step.meta.failed or step.data.left > 0:
        return CORRUPT
    step.new_data.size += n
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef void grow_shuffled(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    most.meta += 4 + 2 * 4


cdef void copy(const uint8_t* data, size_t n, uint8_t* to) noexcept nogil:
    if n > 0:  # data may be NULL then
        memcpy(to, data, n)


# ---- Bytes ----

cdef void split_bytes(const uint8_t* data, size_t n, uint8_t* to, Element kind) noexcept nogil:
    """The bytes of n elements by their place. `kind` only chooses the width."""
    cdef size_t i, byte
    for byte in range(sizeof(Element)):
        for i in range(n):
            to[byte * n + i] = data[i * sizeof(Element) + byte]


cdef void join_bytes(const uint8_t* data, size_t n, uint8_t* to, Element kind) noexcept nogil:
    cdef size_t i, byte
    for byte in range(sizeof(Element)):
        for i in range(n):
            to[i * sizeof(Element) + byte] = data[byte * n + i]


cdef void split_part(const uint8_t* data, size_t n, uint32_t width, uint8_t* to) noexcept nogil:
    cdef size_t elements = n // width
    if width == 8:
        split_bytes[uint64_t](data, elements, to, 0)
    elif width == 4:
        split_bytes[uint32_t](data, elements, to, 0)
    elif width == 2:
        split_bytes[uint16_t](data, elements, to, 0)
    else:
        elements = 0
    copy(data + elements * width, n - elements * width, to + elements * width)


cdef void join_part(const uint8_t* data, size_t n, uint32_t width, uint8_t* to) noexcept nogil:
    cdef size_t elements = n // width
    if width == 8:
        join_bytes[uint64_t](data, elements, to, 0)
    elif width == 4:
        join_bytes[uint32_t](data, elements, to, 0)
    elif width == 2:
        join_bytes[uint16_t](data, elements, to, 0)
    else:
        elements = 0
    copy(data + elements * width, n - elements * width, to + elements * width)


cdef Status shuffle_bytes(Step* step) noexcept nogil:
    return forward(step, split_part, 1)


cdef Status unshuffle_bytes(Step* step) noexcept nogil:
    return backward(step, join_part)


# ---- Bits ----

cdef inline uint64_t transposed(uint64_t x) noexcept nogil:
    """8 by 8 bits: bit j of byte k is bit k of byte j of x (Hacker's Delight, 7-3)."""
    cdef uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAULL
    x ^= t ^ (t << 7)
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCULL
    x ^= t ^ (t << 14)
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ULL
    return x ^ t ^ (t << 28)


cdef void split_bits(const uint8_t* data, size_t n, uint8_t* to, Element kind) noexcept nogil:
    """8 n elements into 8 rows of n bytes for each of an element's bytes. `kind` only chooses the width."""
    cdef uint8_t[8] column
    cdef uint64_t x
    cdef size_t i, j, byte
    for byte in range(sizeof(Element)):
        for i in range(n):
            for j in range(8):
                column[j] = data[(8 * i + j) * sizeof(Element) + byte]
            x = transposed(load64(column))
            for j in range(8):
                to[(8 * byte + j) * n + i] = <uint8_t>(x >> 8 * j)


cdef void join_bits(const uint8_t* data, size_t n, uint8_t* to, Element kind) noexcept nogil:
    cdef uint8_t[8] column
    cdef size_t i, j, byte
    for byte in range(sizeof(Element)):
        for i in range(n):
            for j in range(8):
                column[j] = data[(8 * byte + j) * n + i]
            store64(column, transposed(load64(column)))
            for j in range(8):
                to[(8 * i + j) * sizeof(Element) + byte] = column[j]


cdef void split_bit_part(const uint8_t* data, size_t n, uint32_t width, uint8_t* to) noexcept nogil:
    cdef size_t size, eights
    cdef bint whole = n % 8 == 0 and n % width == 0 and width in (1, 2, 4, 8)
    while n > 0:
        size = min(n, <size_t>BLOCK)
        eights = size // width // 8 if whole else 0
        if width == 8:
            split_bits[uint64_t](data, eights, to, 0)
        elif width == 4:
            split_bits[uint32_t](data, eights, to, 0)
        elif width == 2:
            split_bits[uint16_t](data, eights, to, 0)
        else:
            split_bits[uint8_t](data, eights, to, 0)
        copy(data + eights * 8 * width, size - eights * 8 * width, to + eights * 8 * width)
        data += size
        to += size
        n -= size


cdef void join_bit_part(const uint8_t* data, size_t n, uint32_t width, uint8_t* to) noexcept nogil:
    cdef size_t size, eights
    cdef bint whole = n % 8 == 0 and n % width == 0 and width in (1, 2, 4, 8)
    while n > 0:
        size = min(n, <size_t>BLOCK)
        eights = size // width // 8 if whole else 0
        if width == 8:
            join_bits[uint64_t](data, eights, to, 0)
        elif width == 4:
            join_bits[uint32_t](data, eights, to, 0)
        elif width == 2:
            join_bits[uint16_t](data, eights, to, 0)
        else:
            join_bits[uint8_t](data, eights, to, 0)
        copy(data + eights * 8 * width, size - eights * 8 * width, to + eights * 8 * width)
        data += size
        to += size
        n -= size


cdef Status shuffle_bits(Step* step) noexcept nogil:
    return forward(step, split_bit_part, 8)


cdef Status unshuffle_bits(Step* step) noexcept nogil:
    return backward(step, join_bit_part)
