from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tilekv.kvcore.base.wire cimport cursor, load16, load32, out8, out32, out_bytes, out_room, store32, take, take8, take32
from tilekv.kvcore.codec.filters cimport CORRUPT, NO_MEMORY, OK, TOO_LARGE, Pipeline, room_for

cdef enum:
    LONGEST_WINDOW = 10         # windows hold 2^5 to 2^10 elements
    SHORTEST_WINDOW = 5

ctypedef fused Element:
    uint16_t
    uint32_t
    uint64_t

cdef struct Windowing:          # how to divide a chunk into windows
    size_t window               # elements
    uint8_t width               # bytes of a narrow element


cdef inline bint can_narrow(const Pipeline* pipeline) noexcept nogil:
    return pipeline.element_integer and pipeline.element_bytes in (2, 4, 8)


cdef inline Element element_at(const uint8_t* data, size_t i, Element flip) noexcept nogil:
    """Element i with its sign bit flipped if it has one: unsigned order is the elements' order then."""
    cdef Element v = 0
    memcpy(&v, data + i * sizeof(Element), sizeof(Element))
    return v ^ flip


cdef inline uint8_t width_of(uint64_t span, bint signed, uint8_t whole) noexcept nogil:
    cdef uint8_t width = 1
    while width < whole and span >> (8 * width - (1 if signed else 0)) != 0:
        width *= 2
    return width


cdef Windowing best_windowing(const uint8_t* data, size_t n, size_t longest, Element flip) noexcept nogil:
    """The windows of one width that make n elements smallest: of 2^5 to 2^10 elements, but of no more than `longest`."""
    cdef uint8_t whole = sizeof(Element)
    cdef bint signed = flip != 0
    cdef size_t block = 1, levels = 1
    cdef Element[LONGEST_WINDOW - SHORTEST_WINDOW + 1] low, high
    cdef uint8_t[LONGEST_WINDOW - SHORTEST_WINDOW + 1] width
    cdef Element v, block_low, block_high
    cdef size_t level, i, k, begin, end, inside, size, smallest = 0
    cdef Windowing best
    while 2 * block <= longest and block < 1 << SHORTEST_WINDOW:
        block *= 2
    while block << levels <= longest and block << levels <= 1 << LONGEST_WINDOW:
        levels += 1
    for level in range(levels):
        low[level] = high[level] = 0
        width[level] = 1
    for k in range((n + block - 1) // block):
        begin = k * block
        end = min(begin + block, n)
        block_low = block_high = element_at[Element](data, begin, flip)
        for i in range(begin + 1, end):
            v = element_at[Element](data, i, flip)
            block_low = min(block_low, v)
            block_high = max(block_high, v)
        for level in range(levels):
            inside = k & ((<size_t>1 << level) - 1)
            low[level] = block_low if inside == 0 else min(low[level], block_low)
            high[level] = block_high if inside == 0 else max(high[level], block_high)
            width[level] = max(width[level], width_of(<Element>(high[level] - low[level]), signed, whole))
    best.window = block
    best.width = whole
    for level in range(levels):
        size = ((n + (block << level) - 1) // (block << level)) * (whole + 5) + n * width[level]
        if level == 0 or size <= smallest:
            smallest = size
            best.window = block << level
            best.width = width[level]
    return best


cdef void narrow_window(const uint8_t* data, size_t n, Element lowest, Element flip, uint8_t width, uint8_t* to) noexcept nogil:
    cdef size_t i
    cdef uint32_t v32
    cdef uint16_t v16
    if width == sizeof(Element):
        memcpy(to, data, n * sizeof(Element))
    elif width == 1:
        for i in range(n):
            to[i] = <uint8_t>(element_at[Element](data, i, flip) - lowest)
    elif width == 2:
        for i in range(n):
            v16 = <uint16_t>(element_at[Element](data, i, flip) - lowest)
            memcpy(to + 2 * i, &v16, 2)
    else:
        for i in range(n):
            v32 = <uint32_t>(element_at[Element](data, i, flip) - lowest)
            memcpy(to + 4 * i, &v32, 4)


cdef Status narrow_elements(Step* step, size_t longest, Element flip) noexcept nogil:
    cdef const uint8_t* data = step.data.at
    cdef size_t n = step.data.left // sizeof(Element)
    cdef Windowing best = best_windowing[Element](data, n, longest, flip)
    cdef Element v, lowest
    cdef size_t window, begin, end, i
    cdef uint8_t* at
    for window in range((n + best.window - 1) // best.window):
        begin = window * best.window
        end = min(begin + best.window, n)
        lowest = element_at[Element](data, begin, flip)
        for i in range(begin + 1, end):
            lowest = min(lowest, element_at[Element](data, i, flip))
        at = out_room(step.new_data, (end - begin) * best.width)
        if at == NULL:
            return NO_MEMORY
        narrow_window[Element](data + begin * sizeof(Element), end - begin, lowest, flip, best.width, at)
        step.new_data.size += (end - begin) * best.width
        v = lowest ^ flip
        if (out_bytes(step.new_meta, &v, sizeof(Element)) < 0 or out8(step.new_meta, 8 * best.width) < 0
                or out32(step.new_meta, <uint32_t>((end - begin) * sizeof(Element))) < 0):
            return NO_MEMORY
    return OK


cdef Status copy_elements(Step* step) noexcept nogil:
    """Data that ends within an element, as one window that TileDB copies too: its bytes are no multiple of an element's."""
    cdef uint64_t lowest = 0
    if (out_bytes(step.new_meta, &lowest, step.pipeline.element_bytes) < 0
            or out8(step.new_meta, 8 * step.pipeline.element_bytes) < 0
            or out32(step.new_meta, <uint32_t>step.data.left) < 0
            or out_bytes(step.new_data, step.data.at, step.data.left) < 0):
        return NO_MEMORY
    return OK


cdef Status narrow(Step* step) noexcept nogil:
    cdef uint32_t bytes_ = step.pipeline.element_bytes
    cdef bint signed = step.pipeline.element_signed
    cdef bint ragged
    cdef size_t longest
    cdef uint64_t windows
    cdef Status status
    if not can_narrow(step.pipeline):
        return OK
    if step.data.left > UINT32_MAX:
        return TOO_LARGE
    ragged = step.data.left % bytes_ != 0
    longest = max(step.filter.window // bytes_, <uint32_t>1)
    if out32(step.new_meta, <uint32_t>step.data.left) < 0 or out32(step.new_meta, 0) < 0:
        return NO_MEMORY
    if ragged:
        status = copy_elements(step)
    elif bytes_ == 8:
        status = narrow_elements[uint64_t](step, longest, (<uint64_t>1 << 63) if signed else 0)
    elif bytes_ == 4:
        status = narrow_elements[uint32_t](step, longest, (<uint32_t>1 << 31) if signed else 0)
    else:
        status = narrow_elements[uint16_t](step, longest, 0x8000 if signed else 0)
    if status != OK:
        return status
    windows = (step.new_meta.size - 8) // (bytes_ + 5)
    store32(step.new_meta.data + 4, <uint32_t>windows)
    if out_bytes(step.new_meta, step.meta.at, step.meta.left) < 0:
        return NO_MEMORY
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef void grow_windows(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    if can_narrow(pipeline):  # a window an element, and one of what ends within an element
        most.meta += 8 + (most.data // pipeline.element_bytes + 1) * (pipeline.element_bytes + 5)


cdef uint64_t ratio_windows(const Pipeline* pipeline) noexcept nogil:
    return pipeline.element_bytes if can_narrow(pipeline) else 1  # a byte an element


cdef void widen_window(const uint8_t* data, size_t n, const uint8_t* lowest, uint8_t width, uint8_t* to,
                       Element flip) noexcept nogil:
    """Adds the smallest value to n narrow ones. flip is their sign bit, or 0: (v ^ flip) - flip extends the sign."""
    cdef Element base = <Element>(element_at[Element](lowest, 0, 0) - flip)
    cdef Element v
    cdef size_t i
    if width == 1:
        for i in range(n):
            v = <Element>(base + (data[i] ^ flip))
            memcpy(to + i * sizeof(Element), &v, sizeof(Element))
    elif width == 2:
        for i in range(n):
            v = <Element>(base + (load16(data + 2 * i) ^ flip))
            memcpy(to + i * sizeof(Element), &v, sizeof(Element))
    else:
        for i in range(n):
            v = <Element>(base + (load32(data + 4 * i) ^ flip))
            memcpy(to + i * sizeof(Element), &v, sizeof(Element))


cdef Status widen(Step* step) noexcept nogil:
    cdef uint32_t bytes_ = step.pipeline.element_bytes
    cdef uint64_t sign
    cdef uint32_t size, windows, left, n, _window
    cdef uint8_t bits
    cdef const uint8_t* lowest
    cdef const uint8_t* data
    cdef uint8_t* at = NULL
    cdef Status status
    if not can_narrow(step.pipeline):
        return OK
    size = take32(&step.meta)
    windows = take32(&step.meta)
    if step.meta.failed:
        return CORRUPT
    status = room_for(step.new_data, step.data_limit, size, &at)
    if status != OK:
        return status
    left = size
    for _window in range(windows):
        lowest = take(&step.meta, bytes_)
        bits = take8(&step.meta)
        n = take32(&step.meta)
        if step.meta.failed or n > left:
            return CORRUPT
        if bits >= 8 * bytes_ or n % bytes_ != 0:
            data = take(&step.data, n)
            if data == NULL:
                return CORRUPT
            memcpy(at, data, n)
        elif bits in (8, 16, 32):
            data = take(&step.data, n // bytes_ * (bits // 8))
            if data == NULL:
                return CORRUPT
            sign = <uint64_t>1 << (bits - 1) if step.pipeline.element_signed else 0
            if bytes_ == 8:
                widen_window[uint64_t](data, n // 8, lowest, bits // 8, at, sign)
            elif bytes_ == 4:
                widen_window[uint32_t](data, n // 4, lowest, bits // 8, at, <uint32_t>sign)
            else:
                widen_window[uint16_t](data, n // 2, lowest, bits // 8, at, <uint16_t>sign)
        else:
            return CORRUPT
        at += n
        left -= n
    if left > 0 or step.data.left > 0:
        return CORRUPT
    step.new_data.size += size
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef Status read_windows(Cursor meta, Cursor data, size_t raw_size, Windows* windows) noexcept nogil:
    cdef uint32_t n, size, window, count
    cdef uint8_t bits = 64
    cdef size_t left = raw_size
    if take32(&meta) != raw_size or raw_size % 8 != 0:
        return CORRUPT
    count = take32(&meta)
    windows.minima = meta.at
    windows.data = data.at
    windows.shift = 31
    size = <uint32_t>raw_size
    for window in range(count):
        take(&meta, 8)
        if window == 0:
            bits = take8(&meta)
        elif take8(&meta) != bits:
            return CORRUPT
        n = take32(&meta)
        if window == 0 and n < raw_size:
            size = n
            windows.shift = 0
            while <uint64_t>8 << windows.shift < size:
                windows.shift += 1
            if <uint64_t>8 << windows.shift != size:
                return CORRUPT
        if meta.failed or n == 0 or n != min(size, left):
            return CORRUPT
        left -= n
    if left > 0 or meta.failed or meta.left > 0 or bits not in (8, 16, 32, 64):
        return CORRUPT
    windows.nbytes = bits // 8
    return OK if data.left == raw_size // 8 * windows.nbytes else CORRUPT
