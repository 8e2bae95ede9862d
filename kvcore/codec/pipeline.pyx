"""The table of filters, chains of them, and codecs for threads."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tilekv.kvcore.base.wire cimport Out, cursor, out_free
from tilekv.kvcore.codec.bitwidth cimport grow_windows, narrow, ratio_windows, widen
from tilekv.kvcore.codec.checksums cimport add_md5, add_sha256, grow_sums, verify_md5, verify_sha256
from tilekv.kvcore.codec.compress cimport (
    bound_bzip2, bound_gzip, bound_lz4, bound_zstd, compress, compress_bzip2, compress_gzip, compress_lz4, compress_zstd,
    decompress, decompress_bzip2, decompress_gzip, decompress_lz4, decompress_zstd, free_contexts, grow_parts, ratio_bzip2,
    ratio_gzip, ratio_lz4, ratio_zstd,
)
from tilekv.kvcore.codec.deltas cimport (
    bound_double_delta, compress_double_delta, decompress_double_delta, from_positive_delta, grow_positive_delta,
    ratio_double_delta, to_positive_delta,
)
from tilekv.kvcore.codec.filters cimport (
    FILTER_BITSHUFFLE, FILTER_BYTESHUFFLE, FILTER_BZIP2, FILTER_DOUBLE_DELTA, FILTER_GZIP, FILTER_LZ4, FILTER_MD5, FILTER_NONE,
    FILTER_POSITIVE_DELTA, FILTER_RLE, FILTER_SHA256, FILTER_ZSTD, MAX_FILTERS, Apply, Bound, Compress, Decompress, FilterType,
    Grow, Kind, Ratio, Sizes, Step,
)
from tilekv.kvcore.codec.rle cimport bound_runs, compress_runs, decompress_runs, ratio_runs
from tilekv.kvcore.codec.shuffles cimport grow_shuffled, shuffle_bits, shuffle_bytes, unshuffle_bits, unshuffle_bytes

cdef extern from "base/lock.h" nogil:
    void* tkv_lock_alloc()
    void tkv_lock_free(void* lock)
    void tkv_lock_acquire(void* lock)
    void tkv_lock_release(void* lock)

cdef extern from "base/poison.h" nogil:
    void tkv_poison(void* at, size_t n)

cdef enum:
    KINDS = 14
    KEPT_SCRATCH = 1 << 20      # a codec that goes back to its pool keeps no scratch buffer above this
    OTHERS = 4096               # bytes that another encoder may take beyond what ours can


# ---- The table of filters ----

cdef Kind kinds[KINDS]


cdef inline const Kind* kind_of(uint8_t type) noexcept nogil:
    """The row of a filter, or NULL if this build has not got it."""
    if type >= KINDS or kinds[type].forward == NULL:
        return NULL
    return &kinds[type]


cdef Status leave(Step* step) noexcept nogil:
    return OK


cdef void leave_sizes(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    pass


cdef void add_filter(FilterType type, Apply forward, Apply backward, Grow grow, Ratio ratio) noexcept:
    kinds[<int>type].forward = forward
    kinds[<int>type].backward = backward
    kinds[<int>type].grow = grow
    kinds[<int>type].ratio = ratio


cdef void add_compressor(FilterType type, Bound bound, Ratio ratio, Compress compress_block,
                         Decompress decompress_block) noexcept:
    add_filter(type, compress, decompress, grow_parts, ratio)
    kinds[<int>type].bound = bound
    kinds[<int>type].compress = compress_block
    kinds[<int>type].decompress = decompress_block


add_filter(FILTER_NONE, leave, leave, leave_sizes, NULL)
add_compressor(FILTER_GZIP, bound_gzip, ratio_gzip, compress_gzip, decompress_gzip)
add_compressor(FILTER_ZSTD, bound_zstd, ratio_zstd, compress_zstd, decompress_zstd)
add_compressor(FILTER_LZ4, bound_lz4, ratio_lz4, compress_lz4, decompress_lz4)
add_compressor(FILTER_RLE, bound_runs, ratio_runs, compress_runs, decompress_runs)
add_compressor(FILTER_BZIP2, bound_bzip2, ratio_bzip2, compress_bzip2, decompress_bzip2)
add_compressor(FILTER_DOUBLE_DELTA, bound_double_delta, ratio_double_delta, compress_double_delta, decompress_double_delta)
add_filter(FILTER_BIT_WIDTH, narrow, widen, grow_windows, ratio_windows)
add_filter(FILTER_BITSHUFFLE, shuffle_bits, unshuffle_bits, grow_shuffled, NULL)
add_filter(FILTER_BYTESHUFFLE, shuffle_bytes, unshuffle_bytes, grow_shuffled, NULL)
add_filter(FILTER_POSITIVE_DELTA, to_positive_delta, from_positive_delta, grow_positive_delta, NULL)
add_filter(FILTER_MD5, add_md5, verify_md5, grow_sums, NULL)
add_filter(FILTER_SHA256, add_sha256, verify_sha256, grow_sums, NULL)


cdef uint32_t pipeline_ratio(const Pipeline* pipeline) noexcept nogil:
    cdef uint64_t ratio = 1
    cdef const Kind* kind
    cdef uint32_t i
    for i in range(pipeline.n):
        kind = kind_of(pipeline.filters[i].type)
        if kind == NULL:
            return UINT32_MAX  # whoever decodes with it is told why that cannot be
        if kind.ratio != NULL:
            ratio = min(ratio * kind.ratio(pipeline), <uint64_t>UINT32_MAX)
    return <uint32_t>ratio


# ---- Chains of filters ----

cdef inline void grow(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    """See Grow. Encoders that are not ours may take a little more."""
    kind.grow(pipeline, kind, most)
    most.meta += OTHERS
    most.data += OTHERS


cdef Status run_forward(const Pipeline* pipeline, Codec* codec, const uint8_t* raw, size_t n, Cursor* meta,
                        Cursor* data) noexcept nogil:
    cdef Step step
    cdef uint32_t i
    cdef Status status
    cdef Sizes most
    most.meta = 0
    most.data = n
    step.pipeline = pipeline
    step.codec = codec
    step.checked = True
    step.meta = cursor(NULL, 0)
    step.data = cursor(raw, n)
    step.meta_limit = step.data_limit = 0
    for i in range(pipeline.n):
        step.filter = &pipeline.filters[i]
        step.kind = kind_of(step.filter.type)
        if step.kind == NULL:
            return UNSUPPORTED
        pick_scratch(&step)
        status = step.kind.forward(&step)
        if status != OK:
            return status
        grow(pipeline, step.kind, &most)
        if step.meta.left > most.meta or step.data.left > most.data:
            return UNSUPPORTED  # a chunk that no reader would take
    meta[0] = step.meta
    data[0] = step.data
    return OK


cdef Status run_reverse(const Pipeline* pipeline, Codec* codec, Cursor meta, Cursor data, uint8_t* raw, size_t raw_size,
                        bint checked) noexcept nogil:
    cdef Step step
    cdef Sizes[MAX_FILTERS + 1] most  # what a writer can have given each filter
    cdef uint32_t i
    cdef Out whole
    cdef uint8_t nothing = 0
    cdef Status status
    most[0].meta = 0
    most[0].data = raw_size
    for i in range(pipeline.n):
        step.kind = kind_of(pipeline.filters[i].type)
        if step.kind == NULL:
            return UNSUPPORTED
        most[i + 1] = most[i]
        grow(pipeline, step.kind, &most[i + 1])
    # The caller's memory as an Out that never grows: data_limit is its capacity.
    whole.data = raw if raw_size > 0 else &nothing
    whole.size = 0
    whole.capacity = raw_size
    step.pipeline = pipeline
    step.codec = codec
    step.checked = checked
    step.meta = meta
    step.data = data
    for i in range(pipeline.n, 0, -1):
        step.filter = &pipeline.filters[i - 1]
        step.kind = kind_of(step.filter.type)
        step.meta_limit = most[i - 1].meta
        step.data_limit = most[i - 1].data
        pick_scratch(&step)
        if i == 1:
            step.new_data = &whole
        status = step.kind.backward(&step)
        if status != OK:
            return status
    if step.data.left != raw_size or (checked and step.meta.left > 0):
        return CORRUPT
    if step.data.at != whole.data and raw_size > 0:
        memcpy(raw, step.data.at, raw_size)
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
        else:
            tkv_poison(codec.scratch[i].data, codec.scratch[i].capacity)
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
            free_contexts(codec)
            for i in range(4):
                out_free(&codec.scratch[i])
            free(codec)
        tkv_lock_free(self.pool.lock)


# ---- For Python: layers that touch few chunks ----

cdef CodecPool shared = CodecPool()


cdef int raise_for(Status status) except -1:
    if status == OK:
        return 0
    if status == NO_MEMORY:
        raise MemoryError()
    if status == UNSUPPORTED:
        raise ValueError("the pipeline has a filter that this build does not support or that cannot work on what comes before it")
    if status == TOO_LARGE:
        raise ValueError("the chunk is too large: its sizes must fit 32 bits (lz4: 2,113,929,216 bytes at most)")
    raise ValueError("the chunk is damaged: its stored bytes are not what its pipeline writes")


cdef int read_pipeline(bytes descriptor, uint32_t element_size, bint signed, bint integer, uint32_t cell_size,
                       Pipeline* pipeline) except -1:
    cdef Cursor at = cursor(<const uint8_t*>PyBytes_AS_STRING(descriptor), len(descriptor))
    parse_pipeline(&at, pipeline)
    if at.left > 0:
        raise ValueError(f"{at.left} bytes follow the filter pipeline")
    if element_size == 0:
        raise ValueError("an element has 1, 2, 4 or 8 bytes, not 0")
    pipeline.element_bytes = element_size
    pipeline.cell_bytes = cell_size or element_size
    pipeline.element_signed = signed
    pipeline.element_integer = integer
    return 0


# TileDB 1.3 numbered compressors, not filters; blosc has 4 to 9. docs/format.md 4.1.
BLOCK_FILTERS = {
    0: FILTER_NONE, 1: FILTER_GZIP, 2: FILTER_ZSTD, 3: FILTER_LZ4, 10: FILTER_RLE, 11: FILTER_BZIP2, 12: FILTER_DOUBLE_DELTA,
}


cdef int block_pipeline(int compressor_code, uint32_t element_size, Pipeline* pipeline) except -1:
    if compressor_code not in BLOCK_FILTERS or element_size == 0:
        raise ValueError(f"compressor {compressor_code} with elements of {element_size} bytes; supported are "
                         f"{', '.join(map(str, BLOCK_FILTERS))}, with elements of 1 byte or more")
    memset(pipeline, 0, sizeof(Pipeline))
    pipeline.element_bytes = pipeline.cell_bytes = element_size
    pipeline.element_integer = True
    pipeline.n = 1
    pipeline.filters[0].type = BLOCK_FILTERS[compressor_code]
    return 0


def decode_block(int compressor_code, data, size_t raw_size, uint32_t element_size):
    """The `raw_size` bytes of one block as TileDB 1.3 stored it, without a chunk around it (docs/format.md 4.1).

    `compressor_code` is 1.3's own number; `element_size` (bytes) is a whole cell's for run lengths (10), a value's for double
    deltas (12; 1 for strings) and does not count for others. ValueError when the block is not exactly `raw_size` bytes, or the
    compressor is not supported: blosc (4 to 9) is not.
    """
    cdef Pipeline pipeline
    cdef Step step
    cdef Py_buffer view
    cdef Status status = NO_MEMORY
    cdef bytes raw
    cdef uint8_t* to
    block_pipeline(compressor_code, element_size, &pipeline)
    memset(&step, 0, sizeof(Step))
    step.pipeline = &pipeline
    step.kind = kind_of(pipeline.filters[0].type)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        raw = PyBytes_FromStringAndSize(NULL, raw_size)
        to = <uint8_t*>PyBytes_AS_STRING(raw)
        with nogil:
            step.codec = codec_acquire(&shared.pool)
            if step.codec != NULL:
                if step.kind.decompress != NULL:
                    status = step.kind.decompress(&step, <const uint8_t*>view.buf, view.len, to, raw_size)
                elif <size_t>view.len == raw_size:
                    memcpy(to, view.buf, raw_size)
                    status = OK
                else:
                    status = CORRUPT
                codec_release(&shared.pool, step.codec)
        raise_for(status)
        return raw
    finally:
        PyBuffer_Release(&view)


def ratio(bytes pipeline, uint32_t element_size, bint signed, bint integer, uint32_t cell_size=0):
    """Raw bytes that one stored byte of a chunk can mean at most, as far as filters are known. Arguments as decode() has them."""
    cdef Pipeline parsed
    read_pipeline(pipeline, element_size, signed, integer, cell_size, &parsed)
    return pipeline_ratio(&parsed)


def block_ratio(int compressor_code, uint32_t element_size):
    """The same of a block of TileDB 1.3. Arguments as decode_block() has them."""
    cdef Pipeline pipeline
    block_pipeline(compressor_code, element_size, &pipeline)
    return pipeline_ratio(&pipeline)
