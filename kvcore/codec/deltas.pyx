from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tilekv.kvcore.base.wire cimport (
    Cursor, cursor, out32, out_bytes, out_room, store32, store64, take, take8, take32, take64,
)
from tilekv.kvcore.codec.filters cimport CORRUPT, NO_MEMORY, OK, TOO_LARGE, UNSUPPORTED, Pipeline, room_for

cdef enum:
    BLOCK_HEADER = 9            # bits, elements

ctypedef fused Element:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


cdef inline Element element_at(const uint8_t* data, size_t i, Element flip) noexcept nogil:
    """Element i with its sign bit flipped if it has one: unsigned order is the elements' order then."""
    cdef Element v = 0
    memcpy(&v, data + i * sizeof(Element), sizeof(Element))
    return v ^ flip


# ---- Double delta ----

cdef inline uint32_t delta_bytes(const Pipeline* pipeline) noexcept nogil:
    """The width TileDB takes for a datatype: strings of wide characters go byte by byte."""
    return pipeline.element_bytes if pipeline.element_integer or pipeline.element_bytes == 8 else 1


cdef inline uint64_t extended(const uint8_t* data, size_t i, Element flip) noexcept nogil:
    """Element i in 64 bits. flip is its sign bit, or 0: (v ^ flip) - flip extends the sign."""
    return <uint64_t>element_at[Element](data, i, flip) - flip


cdef inline uint64_t magnitude(uint64_t v) noexcept nogil:
    return 0 - v if v >> 63 else v


cdef uint8_t bits_of(const uint8_t* data, size_t n, Element flip) noexcept nogil:
    """Bits of the largest change of a delta; 1 at least, as TileDB has it."""
    cdef uint64_t before, v, delta, last, union = 1
    cdef uint8_t bits = 0
    cdef size_t i
    before = extended[Element](data, 1, flip)
    last = before - extended[Element](data, 0, flip)
    for i in range(2, n):
        v = extended[Element](data, i, flip)
        delta = v - before
        union |= magnitude(delta - last)
        before = v
        last = delta
    while union != 0:
        bits += 1
        union >>= 1
    return bits


cdef size_t pack_changes(const uint8_t* data, size_t n, Element flip, uint8_t bits, uint8_t* to) noexcept nogil:
    """The words of elements 2 to n; the bytes written."""
    cdef uint64_t before, v, delta, last, change, word = 0
    cdef uint8_t* at = to
    cdef uint8_t wide = bits + 1, room = 64
    cdef size_t i
    before = extended[Element](data, 1, flip)
    last = before - extended[Element](data, 0, flip)
    for i in range(2, n):
        v = extended[Element](data, i, flip)
        delta = v - before
        change = delta - last
        before = v
        last = delta
        change = (change >> 63) << bits | magnitude(change)
        if wide < room:
            room -= wide
            word |= change << room
        else:
            word |= change >> (wide - room)
            store64(at, word)
            at += 8
            room += 64 - wide
            word = change << room if room < 64 else 0
    if room < 64:
        store64(at, word)
        at += 8
    return at - to


cdef size_t pack_block(const uint8_t* data, size_t n, Element flip, uint8_t* to) noexcept nogil:
    cdef uint8_t bits = bits_of[Element](data, n, flip) if n > 2 else 0
    cdef size_t plain = min(n, <size_t>2) * sizeof(Element)
    to[0] = bits
    store64(to + 1, n)
    if bits >= 8 * sizeof(Element) - 1:
        plain = n * sizeof(Element)
    if plain > 0:
        memcpy(to + BLOCK_HEADER, data, plain)
    if plain == n * sizeof(Element):
        return BLOCK_HEADER + plain
    return BLOCK_HEADER + plain + pack_changes[Element](data, n, flip, bits, to + BLOCK_HEADER + plain)


cdef size_t bound_double_delta(const Pipeline* pipeline, size_t n) noexcept nogil:
    return BLOCK_HEADER + n + 8  # a change takes no more than an element; the last word may be part of one


cdef uint64_t ratio_double_delta(const Pipeline* pipeline) noexcept nogil:
    return 8 * delta_bytes(pipeline)  # a bit an element


cdef Status compress_double_delta(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room,
                                  size_t* written) noexcept nogil:
    cdef uint32_t width = delta_bytes(step.pipeline)
    cdef bint signed = step.pipeline.element_signed
    if n % width != 0:
        return UNSUPPORTED
    if width == 8:
        written[0] = pack_block[uint64_t](data, n // 8, (<uint64_t>1 << 63) if signed else 0, to)
    elif width == 4:
        written[0] = pack_block[uint32_t](data, n // 4, (<uint32_t>1 << 31) if signed else 0, to)
    elif width == 2:
        written[0] = pack_block[uint16_t](data, n // 2, 0x8000 if signed else 0, to)
    else:
        written[0] = pack_block[uint8_t](data, n, 0x80 if signed else 0, to)
    return OK


cdef Status unpack_block(Cursor* c, uint8_t* to, size_t n, Element kind) noexcept nogil:
    """The block of n elements. Modulo their width, signs do not count. `kind` only chooses the width."""
    cdef uint8_t bits = take8(c)
    cdef uint8_t wide = bits + 1, have = 0
    cdef uint64_t word = 0, change, mask
    cdef Element older, newer, v
    cdef const uint8_t* plain
    cdef size_t i, copied = min(n, <size_t>2)
    if take64(c) != n:
        return CORRUPT
    if bits >= 8 * sizeof(Element) - 1:
        copied = n
    plain = take(c, copied * sizeof(Element))
    if c.failed:
        return CORRUPT
    if copied > 0:
        memcpy(to, plain, copied * sizeof(Element))
    if copied == n:
        return OK
    older = element_at[Element](to, 0, 0)
    newer = element_at[Element](to, 1, 0)
    mask = (<uint64_t>1 << bits) - 1
    for i in range(2, n):
        if wide <= have:
            have -= wide
            change = word >> have
        else:
            change = word << (wide - have)  # the bits above those left of the word go with the mask
            word = take64(c)
            have += 64 - wide
            change |= word >> have
        v = <Element>(2 * newer - older)
        if change >> bits & 1:
            v = <Element>(v - (change & mask))
        else:
            v = <Element>(v + (change & mask))
        memcpy(to + i * sizeof(Element), &v, sizeof(Element))
        older = newer
        newer = v
    return CORRUPT if c.failed else OK


cdef Status decompress_double_delta(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef uint32_t width = delta_bytes(step.pipeline)
    cdef Cursor c = cursor(data, n)
    cdef Status status
    if size % width != 0:
        return CORRUPT
    if width == 8:
        status = unpack_block[uint64_t](&c, to, size // 8, 0)
    elif width == 4:
        status = unpack_block[uint32_t](&c, to, size // 4, 0)
    elif width == 2:
        status = unpack_block[uint16_t](&c, to, size // 2, 0)
    else:
        status = unpack_block[uint8_t](&c, to, size, 0)
    return status if c.left == 0 else CORRUPT


# ---- Positive delta ----

cdef inline bint can_delta(const Pipeline* pipeline) noexcept nogil:
    return pipeline.element_integer and pipeline.element_bytes in (1, 2, 4, 8)


cdef Status put_window(Step* step, const uint8_t* first, uint32_t width, size_t n) noexcept nogil:
    return OK if out_bytes(step.new_meta, first, width) == 0 and out32(step.new_meta, <uint32_t>n) == 0 else NO_MEMORY


cdef Status delta_windows(Step* step, size_t longest, Element flip, uint8_t* to) noexcept nogil:
    """Windows of at most `longest` elements that never fall."""
    cdef const uint8_t* data = step.data.at
    cdef size_t n = step.data.left // sizeof(Element)
    cdef size_t begin = 0, i
    cdef Element before, v, delta
    cdef Status status
    while begin < n:
        before = element_at[Element](data, begin, flip)
        i = begin
        while i < n and i - begin < longest:
            v = element_at[Element](data, i, flip)
            if v < before:
                break
            delta = <Element>(v - before)
            memcpy(to + i * sizeof(Element), &delta, sizeof(Element))
            before = v
            i += 1
        status = put_window(step, data + begin * sizeof(Element), sizeof(Element), (i - begin) * sizeof(Element))
        if status != OK:
            return status
        begin = i
    return OK


cdef Status to_positive_delta(Step* step) noexcept nogil:
    cdef uint32_t width = step.pipeline.element_bytes
    cdef bint signed = step.pipeline.element_signed
    cdef size_t n = step.data.left
    cdef size_t longest, ragged
    cdef uint64_t nothing = 0
    cdef uint8_t* to
    cdef Status status
    if not can_delta(step.pipeline):
        return OK
    if n > UINT32_MAX:
        return TOO_LARGE
    longest = max(step.filter.window // width, <uint32_t>1)
    ragged = n % width
    to = out_room(step.new_data, n)
    if to == NULL or out32(step.new_meta, 0) < 0:
        return NO_MEMORY
    if width == 8:
        status = delta_windows[uint64_t](step, longest, (<uint64_t>1 << 63) if signed else 0, to)
    elif width == 4:
        status = delta_windows[uint32_t](step, longest, (<uint32_t>1 << 31) if signed else 0, to)
    elif width == 2:
        status = delta_windows[uint16_t](step, longest, 0x8000 if signed else 0, to)
    else:
        status = delta_windows[uint8_t](step, longest, 0x80 if signed else 0, to)
    if status == OK and ragged > 0:
        memcpy(to + n - ragged, step.data.at + n - ragged, ragged)
        status = put_window(step, <const uint8_t*>&nothing, width, ragged)
    if status != OK:
        return status
    step.new_data.size += n
    store32(step.new_meta.data, <uint32_t>((step.new_meta.size - 4) // (width + 4)))
    if out_bytes(step.new_meta, step.meta.at, step.meta.left) < 0:
        return NO_MEMORY
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef void grow_positive_delta(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    if can_delta(pipeline):  # a window an element, and one of what ends within an element
        most.meta += 4 + (most.data // pipeline.element_bytes + 1) * (pipeline.element_bytes + 4)


cdef void sum_window(const uint8_t* deltas, size_t n, const uint8_t* first, uint8_t* to, Element kind) noexcept nogil:
    """`kind` only chooses the width."""
    cdef Element v = element_at[Element](first, 0, 0)
    cdef size_t i
    for i in range(n):
        v = <Element>(v + element_at[Element](deltas, i, 0))
        memcpy(to + i * sizeof(Element), &v, sizeof(Element))


cdef Status from_positive_delta(Step* step) noexcept nogil:
    cdef uint32_t width = step.pipeline.element_bytes
    cdef size_t n = step.data.left
    cdef uint32_t windows, size, _window
    cdef const uint8_t* first
    cdef const uint8_t* deltas
    cdef uint8_t* at = NULL
    cdef Status status
    if not can_delta(step.pipeline):
        return OK
    windows = take32(&step.meta)
    status = room_for(step.new_data, step.data_limit, n, &at)
    if status != OK:
        return status
    for _window in range(windows):
        first = take(&step.meta, width)
        size = take32(&step.meta)
        deltas = take(&step.data, size)
        if step.meta.failed or step.data.failed:
            return CORRUPT
        if size % width != 0:
            memcpy(at, deltas, size)
        elif width == 8:
            sum_window[uint64_t](deltas, size // 8, first, at, 0)
        elif width == 4:
            sum_window[uint32_t](deltas, size // 4, first, at, 0)
        elif width == 2:
            sum_window[uint16_t](deltas, size // 2, first, at, 0)
        else:
            sum_window[uint8_t](deltas, size, first, at, 0)
        at += size
    if step.meta.failed or step.data.left > 0:
        return CORRUPT
    step.new_data.size += n
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK
