from libc.string cimport memset

from tilekv.kvcore.base.wire cimport cursor, take, take8, take32


cdef inline bint is_compressor(uint8_t type) noexcept nogil:
    return FILTER_GZIP <= type <= FILTER_DOUBLE_DELTA


cdef inline bint has_window(uint8_t type) noexcept nogil:
    return type == FILTER_BIT_WIDTH or type == FILTER_POSITIVE_DELTA


cdef int parse_pipeline(Cursor* at, Pipeline* pipeline) except -1:
    cdef Filter* filter
    cdef Cursor meta
    cdef uint32_t i, size
    memset(pipeline, 0, sizeof(Pipeline))
    pipeline.element_bytes = pipeline.cell_bytes = 1
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
