"""Filters forward and backward, the chain of them, and the chunk around it.

    u32 raw size | u32 filtered size | u32 metadata size | metadata                                   | filtered bytes
                                                           of the last filter .. of the first | CRC-32C

A filter is a row of `kinds`: two functions that turn (metadata, data) into (metadata, data), called through a pointer once a
chunk. Forward, a filter puts its own metadata before what it was given; backward, it takes its own and leaves the rest.
Compressors also compress the metadata before them; all share one such pair and differ in how they treat a block.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from tilekv.kvcore.wire cimport (
    cursor, out8, out32, out_bytes, out_free, out_room, store32, take, take8, take32, tkv_crc32c,
)

cdef extern from "lock.h" nogil:
    void* tkv_lock_alloc()
    void tkv_lock_free(void* lock)
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)

cdef extern from "zstd.h" nogil:
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass
    int ZSTD_CLEVEL_DEFAULT, ZSTD_c_compressionLevel, ZSTD_c_checksumFlag
    unsigned ZSTD_MAGICNUMBER
    ZSTD_CCtx* ZSTD_createCCtx()
    ZSTD_DCtx* ZSTD_createDCtx()
    size_t ZSTD_freeCCtx(ZSTD_CCtx* context)
    size_t ZSTD_freeDCtx(ZSTD_DCtx* context)
    size_t ZSTD_CCtx_setParameter(ZSTD_CCtx* context, int parameter, int value)
    size_t ZSTD_compressBound(size_t n)
    size_t ZSTD_compress2(ZSTD_CCtx* context, void* to, size_t room, const void* data, size_t n)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx* context, void* to, size_t room, const void* data, size_t n)
    unsigned long long ZSTD_getFrameContentSize(const void* data, size_t n)
    size_t ZSTD_findFrameCompressedSize(const void* data, size_t n)
    unsigned ZSTD_isError(size_t code)

cdef extern from "zstd_errors.h" nogil:
    int ZSTD_error_memory_allocation
    int ZSTD_getErrorCode(size_t code)

cdef extern from "lz4.h" nogil:
    int LZ4_MAX_INPUT_SIZE
    int LZ4_sizeofState()
    int LZ4_compressBound(int n)
    int LZ4_compress_fast_extState(void* state, const char* data, char* to, int n, int room, int acceleration)
    int LZ4_decompress_safe(const char* data, char* to, int n, int room)

cdef enum:
    HEADER = 12                 # the three sizes before a chunk's metadata
    CRC = 4
    KINDS = 14
    LONGEST_WINDOW = 10         # bit-width windows hold 2^5 to 2^10 elements
    SHORTEST_WINDOW = 5
    KEPT_SCRATCH = 1 << 20      # a codec that goes back to its pool keeps no scratch buffer above this


# ---- Filters ----

# What a filter is given, and where it leaves what it makes of it.
cdef struct Step:
    const Pipeline* pipeline
    const Filter* filter
    Codec* codec
    bint checked
    Cursor meta                 # the chunk's metadata and data; a filter that changes them makes new ones in the two
    Cursor data                 # buffers below and points here at those
    Out* new_meta
    Out* new_data
    size_t meta_limit           # backward: most bytes that the new ones may come to
    size_t data_limit

ctypedef Status (*Apply)(Step* step) noexcept nogil

# What a compressor does with one block. compress: room is at least bound(n). decompress: exactly n bytes become exactly `size`.
ctypedef size_t (*Bound)(size_t n) noexcept nogil
ctypedef Status (*Compress)(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil
ctypedef Status (*Decompress)(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil

cdef struct Kind:
    Apply forward               # NULL: a filter this build has not
    Apply backward
    Bound bound                 # compressors only
    Compress compress
    Decompress decompress

cdef Kind kinds[KINDS]


cdef Kind* kind_of(const Filter* filter) noexcept nogil:
    """The row of a filter, or NULL if this build has not got it."""
    if filter.type >= KINDS or kinds[filter.type].forward == NULL:
        return NULL
    return &kinds[filter.type]


cdef Status room_for(Out* out, size_t limit, size_t n, uint8_t** at) noexcept nogil:
    """Room for n more decoded bytes; CORRUPT before memory is asked for when out would exceed `limit`."""
    if n > limit - out.size:
        return CORRUPT
    at[0] = out_room(out, n)
    return OK if at[0] != NULL else NO_MEMORY


cdef Status leave(Step* step) noexcept nogil:
    return OK


# ---- zstd ----

cdef size_t bound_zstd(size_t n) noexcept nogil:
    return ZSTD_compressBound(n)


cdef Status compress_zstd(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil:
    cdef Codec* codec = step.codec
    cdef int level = step.filter.level
    cdef ZSTD_CCtx* context
    if codec.zstd_out == NULL:
        codec.zstd_out = ZSTD_createCCtx()
        if codec.zstd_out == NULL:
            return NO_MEMORY
    context = <ZSTD_CCtx*>codec.zstd_out
    if level == -1:  # TileDB's word for the default
        level = ZSTD_CLEVEL_DEFAULT
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
    written[0] = ZSTD_compress2(context, to, room, data, n)
    return NO_MEMORY if ZSTD_isError(written[0]) else OK  # nothing else can fail: the room is at least bound_zstd()


cdef bint is_our_frame(const uint8_t* data, size_t n, size_t size) noexcept nogil:
    """One frame and nothing after it, that states its content size and carries a content checksum (bit 2 of byte 4, RFC 8878)."""
    return data[4] & 4 != 0 and ZSTD_getFrameContentSize(data, n) == size and ZSTD_findFrameCompressedSize(data, n) == n


cdef Status decompress_zstd(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef Codec* codec = step.codec
    cdef size_t written
    # The magic number keeps out libzstd's decoders for pre-1.0 frames, which TileDB never wrote.
    if n < 5 or load32(data) != ZSTD_MAGICNUMBER:
        return CORRUPT
    if step.checked and not is_our_frame(data, n, size):
        return CORRUPT
    if codec.zstd_in == NULL:
        codec.zstd_in = ZSTD_createDCtx()
        if codec.zstd_in == NULL:
            return NO_MEMORY
    written = ZSTD_decompressDCtx(<ZSTD_DCtx*>codec.zstd_in, to, size, data, n)
    if ZSTD_isError(written) and ZSTD_getErrorCode(written) == ZSTD_error_memory_allocation:
        return NO_MEMORY
    return OK if written == size else CORRUPT


# ---- lz4 ----

cdef size_t bound_lz4(size_t n) noexcept nogil:
    return LZ4_compressBound(<int>n) if n <= <size_t>LZ4_MAX_INPUT_SIZE else 0


cdef Status compress_lz4(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil:
    cdef Codec* codec = step.codec
    if n > <size_t>LZ4_MAX_INPUT_SIZE:
        return TOO_LARGE
    if codec.lz4 == NULL:
        codec.lz4 = malloc(LZ4_sizeofState())
        if codec.lz4 == NULL:
            return NO_MEMORY
    written[0] = LZ4_compress_fast_extState(codec.lz4, <const char*>data, <char*>to, <int>n, <int>room, 1)
    return OK


cdef Status decompress_lz4(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    if size > <size_t>LZ4_MAX_INPUT_SIZE or n > <size_t>LZ4_compressBound(LZ4_MAX_INPUT_SIZE):
        return CORRUPT
    return OK if LZ4_decompress_safe(<const char*>data, <char*>to, <int>n, <int>size) == <int>size else CORRUPT


# ---- Compressors: u32 metadata parts, u32 data parts, then per part u32 raw, u32 compressed ----

cdef Status compress(Step* step) noexcept nogil:
    cdef Kind* kind = kind_of(step.filter)
    cdef Cursor[2] parts
    cdef uint32_t first = 0 if step.meta.left > 0 else 1
    cdef uint32_t part
    cdef size_t room, written = 0
    cdef uint8_t* at
    cdef Status status
    parts[0] = step.meta
    parts[1] = step.data
    if out32(step.new_meta, 1 - first) < 0 or out32(step.new_meta, 1) < 0:
        return NO_MEMORY
    for part in range(first, 2):
        if parts[part].left > UINT32_MAX:
            return TOO_LARGE
        room = kind.bound(parts[part].left)
        at = out_room(step.new_data, room)
        if at == NULL:
            return NO_MEMORY
        status = kind.compress(step, parts[part].at, parts[part].left, at, room, &written)
        if status != OK:
            return status
        if written > UINT32_MAX:
            return TOO_LARGE
        step.new_data.size += written
        if out32(step.new_meta, <uint32_t>parts[part].left) < 0 or out32(step.new_meta, <uint32_t>written) < 0:
            return NO_MEMORY
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


cdef Status decompress(Step* step) noexcept nogil:
    cdef Kind* kind = kind_of(step.filter)
    cdef uint64_t meta_parts = take32(&step.meta)
    cdef uint64_t parts = meta_parts + take32(&step.meta)
    cdef uint64_t part
    cdef uint32_t raw, stored
    cdef const uint8_t* block
    cdef uint8_t* at = NULL
    cdef Status status
    for part in range(parts):
        raw = take32(&step.meta)
        stored = take32(&step.meta)
        block = take(&step.data, stored)
        if step.meta.failed or step.data.failed:
            return CORRUPT
        if part < meta_parts:
            status = room_for(step.new_meta, step.meta_limit, raw, &at)
        else:
            status = room_for(step.new_data, step.data_limit, raw, &at)
        if status == OK:
            status = kind.decompress(step, block, stored, at, raw)
        if status != OK:
            return status
        if part < meta_parts:
            step.new_meta.size += raw
        else:
            step.new_data.size += raw
    if step.meta.failed or step.data.left > 0 or (step.checked and step.meta.left > 0):
        return CORRUPT
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    step.data = cursor(step.new_data.data, step.new_data.size)
    return OK


# ---- Bit-width reduction: u32 bytes, u32 windows, then per window T smallest, u8 bits, u32 bytes ----
#
# TileDB narrows the 16-, 32- and 64-bit integers only, and passes everything else on without metadata of its own. It reads the
# narrow values of signed elements with their sign, so those may use one bit less.

ctypedef fused Element:
    uint16_t
    uint32_t
    uint64_t

cdef struct Cut:                # how to cut a chunk into windows
    size_t window               # elements
    uint8_t width               # bytes of a narrow element


cdef inline bint can_narrow(const Pipeline* pipeline) noexcept nogil:
    return pipeline.element_integer and pipeline.cell_bytes in (2, 4, 8)


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


cdef Cut best_cut(const uint8_t* data, size_t n, size_t longest, Element flip) noexcept nogil:
    """The windows of one width that make n elements smallest: of 2^5 to 2^10 elements, but of no more than `longest`."""
    cdef uint8_t whole = sizeof(Element)
    cdef bint signed = flip != 0
    cdef size_t block = 1, levels = 1
    cdef Element[LONGEST_WINDOW - SHORTEST_WINDOW + 1] low, high
    cdef uint8_t[LONGEST_WINDOW - SHORTEST_WINDOW + 1] width
    cdef Element v, block_low, block_high
    cdef size_t level, i, k, begin, end, inside, size, smallest = 0
    cdef Cut cut
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
    cut.window = block
    cut.width = whole
    for level in range(levels):
        size = ((n + (block << level) - 1) // (block << level)) * (whole + 5) + n * width[level]
        if level == 0 or size <= smallest:
            smallest = size
            cut.window = block << level
            cut.width = width[level]
    return cut


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
    cdef Cut cut = best_cut[Element](data, n, longest, flip)
    cdef Element v, lowest
    cdef size_t window, begin, end, i
    cdef uint8_t* at
    for window in range((n + cut.window - 1) // cut.window):
        begin = window * cut.window
        end = min(begin + cut.window, n)
        lowest = element_at[Element](data, begin, flip)
        for i in range(begin + 1, end):
            lowest = min(lowest, element_at[Element](data, i, flip))
        at = out_room(step.new_data, (end - begin) * cut.width)
        if at == NULL:
            return NO_MEMORY
        narrow_window[Element](data + begin * sizeof(Element), end - begin, lowest, flip, cut.width, at)
        step.new_data.size += (end - begin) * cut.width
        v = lowest ^ flip
        if (out_bytes(step.new_meta, &v, sizeof(Element)) < 0 or out8(step.new_meta, 8 * cut.width) < 0
                or out32(step.new_meta, <uint32_t>((end - begin) * sizeof(Element))) < 0):
            return NO_MEMORY
    return OK


cdef Status copy_elements(Step* step) noexcept nogil:
    """Data that ends within an element, as one window that TileDB copies too: its bytes are no multiple of an element's."""
    cdef uint64_t lowest = 0
    if (out_bytes(step.new_meta, &lowest, step.pipeline.cell_bytes) < 0 or out8(step.new_meta, 8 * step.pipeline.cell_bytes) < 0
            or out32(step.new_meta, <uint32_t>step.data.left) < 0
            or out_bytes(step.new_data, step.data.at, step.data.left) < 0):
        return NO_MEMORY
    return OK


cdef Status narrow(Step* step) noexcept nogil:
    cdef uint32_t bytes_ = step.pipeline.cell_bytes
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
    cdef uint32_t bytes_ = step.pipeline.cell_bytes
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


# ---- The table ----

cdef void add_kind(FilterType type, Apply forward, Apply backward,
                   Bound bound, Compress compress, Decompress decompress) noexcept:
    cdef Kind* kind = &kinds[<int>type]
    kind.forward = forward
    kind.backward = backward
    kind.bound = bound
    kind.compress = compress
    kind.decompress = decompress


add_kind(FILTER_NONE, leave, leave, NULL, NULL, NULL)
add_kind(FILTER_ZSTD, compress, decompress, bound_zstd, compress_zstd, decompress_zstd)
add_kind(FILTER_LZ4, compress, decompress, bound_lz4, compress_lz4, decompress_lz4)
add_kind(FILTER_BIT_WIDTH, narrow, widen, NULL, NULL, NULL)


# ---- Chunks ----

cdef inline bint ends_in_zstd(const Pipeline* pipeline) noexcept nogil:
    return pipeline.n > 0 and pipeline.filters[pipeline.n - 1].type == FILTER_ZSTD


cdef Status encode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Out* out) noexcept nogil:
    cdef Step step
    cdef Kind* kind
    cdef uint32_t i
    cdef size_t sealed = 0 if ends_in_zstd(pipeline) else CRC
    cdef uint8_t* at
    cdef uint8_t* after
    cdef Status status
    if n > UINT32_MAX:
        return TOO_LARGE
    step.pipeline = pipeline
    step.codec = codec
    step.checked = True
    step.meta = cursor(NULL, 0)
    step.data = cursor(raw, n)
    step.meta_limit = step.data_limit = 0
    for i in range(pipeline.n):
        step.filter = &pipeline.filters[i]
        kind = kind_of(step.filter)
        if kind == NULL:
            return UNSUPPORTED
        pick_scratch(&step)
        status = kind.forward(&step)
        if status != OK:
            return status
    if step.data.left > UINT32_MAX or step.meta.left + sealed > UINT32_MAX:
        return TOO_LARGE
    at = out_room(out, HEADER + step.meta.left + sealed + step.data.left)
    if at == NULL:
        return NO_MEMORY
    store32(at, <uint32_t>n)
    store32(at + 4, <uint32_t>step.data.left)
    store32(at + 8, <uint32_t>(step.meta.left + sealed))
    after = at + HEADER + step.meta.left + sealed
    if step.meta.left > 0:
        memcpy(at + HEADER, step.meta.at, step.meta.left)
    if step.data.left > 0:
        memcpy(after, step.data.at, step.data.left)
    if sealed:
        store32(after - CRC, crc_of_chunk(at, HEADER + step.meta.left, step.data.left))
    out.size += HEADER + step.meta.left + sealed + step.data.left
    return OK


cdef void pick_scratch(Step* step) noexcept nogil:
    """Empties the two scratch buffers that hold neither the metadata nor the data: any earlier filter may have made those."""
    cdef Out* scratch = &step.codec.scratch[0]
    step.new_meta = &scratch[1] if points_into(step.meta.at, &scratch[0]) else &scratch[0]
    step.new_data = &scratch[3] if points_into(step.data.at, &scratch[2]) else &scratch[2]
    step.new_meta.size = 0
    step.new_data.size = 0


cdef inline bint points_into(const uint8_t* p, const Out* out) noexcept nogil:
    return out.data <= p < out.data + out.capacity


cdef inline uint32_t crc_of_chunk(const uint8_t* chunk, size_t before, size_t filtered) noexcept nogil:
    """Of the `before` bytes up to the CRC and the filtered ones after it."""
    return tkv_crc32c(tkv_crc32c(0, chunk, before), chunk + before + CRC, filtered)


# A stored chunk by its header: the sizes add up to the stored bytes.
cdef struct Parts:
    uint32_t raw_size
    Cursor meta
    Cursor data


cdef Status split(const uint8_t* stored, size_t stored_size, Parts* parts) noexcept nogil:
    cdef Cursor c = cursor(stored, stored_size)
    cdef uint32_t filtered, meta
    parts.raw_size = take32(&c)
    filtered = take32(&c)
    meta = take32(&c)
    parts.meta = cursor(take(&c, meta), meta)
    parts.data = cursor(take(&c, filtered), filtered)
    return CORRUPT if c.failed or c.left > 0 else OK


cdef Status check_chunk(const uint8_t* stored, size_t stored_size) noexcept nogil:
    cdef Parts parts
    cdef size_t before
    if split(stored, stored_size, &parts) != OK or parts.meta.left < CRC:
        return CORRUPT
    before = HEADER + parts.meta.left - CRC
    return OK if load32(stored + before) == crc_of_chunk(stored, before, parts.data.left) else CORRUPT


cdef Status decode_chunk(const Pipeline* pipeline, Codec* codec, const uint8_t* stored, size_t stored_size,
                         uint8_t* raw, size_t raw_size, bint checked) noexcept nogil:
    cdef Parts parts
    cdef Step step
    cdef Kind* kind
    cdef uint32_t i
    cdef Out whole
    cdef uint8_t nothing = 0
    cdef Status status
    if split(stored, stored_size, &parts) != OK or parts.raw_size != raw_size:
        return CORRUPT
    if checked and not ends_in_zstd(pipeline):
        if check_chunk(stored, stored_size) != OK:
            return CORRUPT
        parts.meta.left -= CRC
    # The caller's memory as an Out that never grows: data_limit is its capacity.
    whole.data = raw if raw_size > 0 else &nothing
    whole.size = 0
    whole.capacity = raw_size
    step.pipeline = pipeline
    step.codec = codec
    step.checked = checked
    step.meta = parts.meta
    step.data = parts.data
    # What lies between two filters can be larger than the raw data: run lengths of random bytes triple it, bit-width windows of
    # one u16 make it 4.5 times as large. A chunk from a stranger may not ask for more.
    step.meta_limit = step.data_limit = 5 * raw_size + 4 * stored_size + 4096
    for i in range(pipeline.n, 0, -1):
        step.filter = &pipeline.filters[i - 1]
        kind = kind_of(step.filter)
        if kind == NULL:
            return UNSUPPORTED
        pick_scratch(&step)
        if i == 1:
            step.new_data = &whole
            step.data_limit = raw_size
        status = kind.backward(&step)
        if status != OK:
            return status
    if step.data.left != raw_size or (checked and step.meta.left > 0):
        return CORRUPT
    if step.data.at != whole.data and raw_size > 0:
        memcpy(raw, step.data.at, raw_size)
    return OK


cdef Status open_windows(const uint8_t* stored, size_t stored_size, size_t raw_size, Windows* windows) noexcept nogil:
    cdef Parts parts
    cdef uint32_t n, size, window, count
    cdef uint8_t bits = 64
    cdef size_t left = raw_size
    if split(stored, stored_size, &parts) != OK or parts.raw_size != raw_size or raw_size % 8 != 0 or parts.meta.left < CRC:
        return CORRUPT
    parts.meta.left -= CRC
    if take32(&parts.meta) != raw_size:
        return CORRUPT
    count = take32(&parts.meta)
    windows.minima = parts.meta.at
    windows.data = parts.data.at
    windows.shift = 31
    size = <uint32_t>raw_size
    for window in range(count):
        take(&parts.meta, 8)
        if window == 0:
            bits = take8(&parts.meta)
        elif take8(&parts.meta) != bits:
            return CORRUPT
        n = take32(&parts.meta)
        if window == 0 and n < raw_size:
            size = n
            windows.shift = 0
            while <uint64_t>8 << windows.shift < size:
                windows.shift += 1
            if <uint64_t>8 << windows.shift != size:
                return CORRUPT
        if parts.meta.failed or n == 0 or n != min(size, left):
            return CORRUPT
        left -= n
    if left > 0 or parts.meta.failed or parts.meta.left > 0 or bits not in (8, 16, 32, 64):
        return CORRUPT
    windows.nbytes = bits // 8
    return OK if parts.data.left == raw_size // 8 * windows.nbytes else CORRUPT


# ---- Codecs ----

cdef Codec* codec_acquire(Pool* pool) noexcept nogil:
    cdef Codec* codec
    tkv_lock_acquire(pool.lock)
    codec = pool.free
    if codec != NULL:
        pool.free = codec.next
    tkv_lock_release(pool.lock)
    # A new one is empty: each context is made by the first call that needs it.
    return codec if codec != NULL else <Codec*>calloc(1, sizeof(Codec))


cdef void codec_release(Pool* pool, Codec* codec) noexcept nogil:
    cdef int i
    for i in range(4):
        if codec.scratch[i].capacity > KEPT_SCRATCH:
            out_free(&codec.scratch[i])
    tkv_lock_acquire(pool.lock)
    codec.next = pool.free
    pool.free = codec
    tkv_lock_release(pool.lock)


cdef class CodecPool:
    def __cinit__(self):
        self.pool.lock = tkv_lock_alloc()
        if self.pool.lock == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef Codec* codec
        while self.pool.free != NULL:
            codec = self.pool.free
            self.pool.free = codec.next
            ZSTD_freeDCtx(<ZSTD_DCtx*>codec.zstd_in)
            ZSTD_freeCCtx(<ZSTD_CCtx*>codec.zstd_out)
            free(codec.lz4)
            for i in range(4):
                out_free(&codec.scratch[i])
            free(codec)
        tkv_lock_free(self.pool.lock)


# ---- Descriptors ----

cdef inline bint is_compressor(uint8_t type) noexcept nogil:
    return FILTER_GZIP <= type <= FILTER_DOUBLE_DELTA


cdef inline bint has_window(uint8_t type) noexcept nogil:
    return type == FILTER_BIT_WIDTH or type == FILTER_POSITIVE_DELTA


cdef int parse_pipeline(Cursor* at, Pipeline* pipeline) except -1:
    cdef Filter* filter
    cdef Cursor meta
    cdef uint32_t i, size
    memset(pipeline, 0, sizeof(Pipeline))
    pipeline.cell_bytes = 1
    pipeline.max_chunk = take32(at)
    pipeline.n = take32(at)
    if at.failed:
        raise ValueError("the filter pipeline is cut short")
    if pipeline.n > MAX_FILTERS:
        raise ValueError(f"the filter pipeline has {pipeline.n} filters; at most {MAX_FILTERS} are supported")
    for i in range(pipeline.n):
        filter = &pipeline.filters[i]
        filter.type = take8(at)
        size = take32(at)
        meta = cursor(take(at, size), size)
        if at.failed:
            raise ValueError(f"the filter pipeline is cut short in filter {i + 1} of {pipeline.n}")
        if is_compressor(filter.type):
            if take8(&meta) != filter.type:
                raise ValueError(f"filter {i + 1} of the pipeline has type {filter.type} and another compressor's code")
            filter.level = <int32_t>take32(&meta)
        elif has_window(filter.type):
            filter.window = take32(&meta)
        elif filter.type == FILTER_NONE or filter.type in (FILTER_BITSHUFFLE, FILTER_BYTESHUFFLE, FILTER_MD5, FILTER_SHA256):
            pass
        else:
            continue
        if meta.failed or meta.left > 0:
            raise ValueError(f"filter {i + 1} of the pipeline (type {filter.type}) cannot have options of {size} bytes")
    return 0


cdef bytes pipeline_bytes(const Pipeline* pipeline):
    cdef Out out
    cdef int failed
    cdef uint32_t i
    memset(&out, 0, sizeof(Out))
    try:
        failed = out32(&out, pipeline.max_chunk) | out32(&out, pipeline.n)
        for i in range(pipeline.n):
            failed |= put_filter(&out, &pipeline.filters[i])
        if failed:
            raise MemoryError()
        return PyBytes_FromStringAndSize(<char*>out.data, out.size)
    finally:
        out_free(&out)


cdef int put_filter(Out* out, const Filter* filter) noexcept nogil:
    if is_compressor(filter.type):
        return out8(out, filter.type) | out32(out, 5) | out8(out, filter.type) | out32(out, <uint32_t>filter.level)
    if has_window(filter.type):
        return out8(out, filter.type) | out32(out, 4) | out32(out, filter.window)
    return out8(out, filter.type) | out32(out, 0)


# ---- For Python: tests, and layers that touch few chunks ----

cdef CodecPool shared = CodecPool()


cdef int raise_for(Status status) except -1:
    if status == OK:
        return 0
    if status == NO_MEMORY:
        raise MemoryError()
    if status == UNSUPPORTED:
        raise ValueError("the pipeline has a filter that this build does not support")
    if status == TOO_LARGE:
        raise ValueError("the chunk is too large: its sizes must fit 32 bits (lz4: 2,113,929,216 bytes at most)")
    raise ValueError("the chunk is damaged: its stored bytes are not what its pipeline writes")


cdef int read_pipeline(bytes descriptor, uint32_t element_size, bint signed, bint integer, Pipeline* pipeline) except -1:
    cdef Cursor at = cursor(<const uint8_t*>PyBytes_AS_STRING(descriptor), len(descriptor))
    parse_pipeline(&at, pipeline)
    if at.left > 0:
        raise ValueError(f"{at.left} bytes follow the filter pipeline")
    pipeline.cell_bytes = element_size
    pipeline.element_signed = signed
    pipeline.element_integer = integer
    return 0


def encode(bytes pipeline, uint32_t element_size, bint signed, bint integer, raw):
    """The stored chunk of the bytes of `raw`: header, metadata and filtered bytes (FORMAT.md 4.3).

    `pipeline` is a descriptor (FORMAT.md 4.2); `element_size` (bytes), `signed` and `integer` describe the datatype, which
    bit-width reduction works on. ValueError when the descriptor is bad, has a filter that is not supported, or the chunk is too
    large.
    """
    cdef Pipeline parsed
    cdef Py_buffer view
    cdef Codec* codec
    cdef Status status = NO_MEMORY
    cdef Out out
    read_pipeline(pipeline, element_size, signed, integer, &parsed)
    memset(&out, 0, sizeof(Out))
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            codec = codec_acquire(&shared.pool)
            if codec != NULL:
                status = encode_chunk(&parsed, codec, <const uint8_t*>view.buf, view.len, &out)
                codec_release(&shared.pool, codec)
        raise_for(status)
        return PyBytes_FromStringAndSize(<char*>out.data, out.size)
    finally:
        PyBuffer_Release(&view)
        out_free(&out)


def decode(bytes pipeline, uint32_t element_size, bint signed, bint integer, stored, size_t raw_size, bint checked=True):
    """The `raw_size` bytes of a stored chunk; the reverse of encode().

    `checked` says that tilekv wrote the chunk, so that its checksum must hold; TileDB's own have none. ValueError when the chunk
    is not exactly what the pipeline writes for `raw_size` bytes, or needs a filter that is not supported.
    """
    cdef Pipeline parsed
    cdef Py_buffer view
    cdef Codec* codec
    cdef Status status = NO_MEMORY
    cdef bytes raw
    cdef uint8_t* to
    read_pipeline(pipeline, element_size, signed, integer, &parsed)
    PyObject_GetBuffer(stored, &view, PyBUF_SIMPLE)
    try:
        raw = PyBytes_FromStringAndSize(NULL, raw_size)
        to = <uint8_t*>PyBytes_AS_STRING(raw)
        with nogil:
            codec = codec_acquire(&shared.pool)
            if codec != NULL:
                status = decode_chunk(&parsed, codec, <const uint8_t*>view.buf, view.len, to, raw_size, checked)
                codec_release(&shared.pool, codec)
        raise_for(status)
        return raw
    finally:
        PyBuffer_Release(&view)


def windows(bytes stored, size_t raw_size):
    """The uint64 elements of a bit-width chunk, read in place: what open_windows() and window_at() are tested by.

    ValueError when its windows are not equal, or do not hold `raw_size` bytes.
    """
    cdef Windows opened
    cdef size_t i
    raise_for(open_windows(<const uint8_t*>PyBytes_AS_STRING(stored), len(stored), raw_size, &opened))
    return [window_at(&opened, i) for i in range(raw_size // 8)]


def check(bytes stored):
    """Whether the sizes in the header of a stored chunk and the CRC-32C at the end of its metadata hold."""
    return check_chunk(<const uint8_t*>PyBytes_AS_STRING(stored), len(stored)) == OK


def rewritten(bytes pipeline):
    """A pipeline descriptor, parsed and written again."""
    cdef Pipeline parsed
    read_pipeline(pipeline, 1, False, False, &parsed)
    return pipeline_bytes(&parsed)
