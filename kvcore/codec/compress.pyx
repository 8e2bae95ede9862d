from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from tilekv.kvcore.base.wire cimport Cursor, cursor, load32, out32, out_room, take, take32
from tilekv.kvcore.codec.filters cimport CORRUPT, NO_MEMORY, OK, TOO_LARGE, room_for

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

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        uint8_t* next_in
        unsigned avail_in
        uint8_t* next_out
        unsigned avail_out
    int Z_OK, Z_STREAM_END, Z_MEM_ERROR, Z_FINISH
    int deflateInit(z_stream* stream, int level)
    int deflateReset(z_stream* stream)
    int deflate(z_stream* stream, int flush)
    int deflateEnd(z_stream* stream)
    unsigned long compressBound(unsigned long n)
    int inflateInit(z_stream* stream)
    int inflate(z_stream* stream, int flush)
    int inflateEnd(z_stream* stream)

cdef extern from "bzlib.h" nogil:
    ctypedef struct bz_stream:
        char* next_in
        unsigned avail_in
        char* next_out
        unsigned avail_out
    int BZ_OK, BZ_STREAM_END, BZ_MEM_ERROR
    int BZ2_bzBuffToBuffCompress(char* to, unsigned* room, char* data, unsigned n, int level, int verbosity, int work)
    int BZ2_bzDecompressInit(bz_stream* stream, int verbosity, int small)
    int BZ2_bzDecompress(bz_stream* stream)
    int BZ2_bzDecompressEnd(bz_stream* stream)


# ---- What all compressors share ----

cdef Status compress(Step* step) noexcept nogil:
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
        room = step.kind.bound(step.pipeline, parts[part].left)
        at = out_room(step.new_data, room)
        if at == NULL:
            return NO_MEMORY
        status = step.kind.compress(step, parts[part].at, parts[part].left, at, room, &written)
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
            status = step.kind.decompress(step, block, stored, at, raw)
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


cdef void grow_parts(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    most.data = kind.bound(pipeline, most.meta) + kind.bound(pipeline, most.data)
    most.meta = 8 + 2 * 8


# ---- zstd ----

cdef size_t bound_zstd(const Pipeline* pipeline, size_t n) noexcept nogil:
    return ZSTD_compressBound(n)


cdef uint64_t ratio_zstd(const Pipeline* pipeline) noexcept nogil:
    return 1 << 15  # a block of 4 bytes repeats one 128 KiB times, and no block is longer


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

cdef size_t bound_lz4(const Pipeline* pipeline, size_t n) noexcept nogil:
    return LZ4_compressBound(<int>min(n, <size_t>LZ4_MAX_INPUT_SIZE))  # what is longer is not compressed


cdef uint64_t ratio_lz4(const Pipeline* pipeline) noexcept nogil:
    return 255  # a byte more makes a match that much longer


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


# ---- gzip: a zlib stream ----

cdef size_t bound_gzip(const Pipeline* pipeline, size_t n) noexcept nogil:
    return compressBound(n)


cdef uint64_t ratio_gzip(const Pipeline* pipeline) noexcept nogil:
    return 1032  # two bits are a match of 258 bytes


cdef Status compress_gzip(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil:
    cdef Codec* codec = step.codec
    cdef int level = -1 if step.filter.level < 0 else min(step.filter.level, 9)  # -1: zlib's default, as TileDB has it
    cdef z_stream* stream = <z_stream*>codec.deflate
    if room > UINT32_MAX:
        return TOO_LARGE
    if stream != NULL and codec.deflate_level != level:
        deflateEnd(stream)
        free(stream)
        stream = NULL
        codec.deflate = NULL
    if stream == NULL:
        stream = <z_stream*>calloc(1, sizeof(z_stream))
        if stream == NULL or deflateInit(stream, level) != Z_OK:
            free(stream)
            return NO_MEMORY
        codec.deflate = stream
        codec.deflate_level = level
    deflateReset(stream)
    stream.next_in = <uint8_t*>data
    stream.avail_in = <unsigned>n
    stream.next_out = to
    stream.avail_out = <unsigned>room
    if deflate(stream, Z_FINISH) != Z_STREAM_END:  # the room is at least bound_gzip(), so that this cannot be
        return NO_MEMORY
    written[0] = room - stream.avail_out
    return OK


cdef Status decompress_gzip(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef z_stream stream  # not kept: 4 KiB take 5.2 us with a new one, 5.1 with a kept one
    cdef int code
    if n > UINT32_MAX or size > UINT32_MAX:
        return CORRUPT
    memset(&stream, 0, sizeof(z_stream))
    if inflateInit(&stream) != Z_OK:
        return NO_MEMORY
    stream.next_in = <uint8_t*>data
    stream.avail_in = <unsigned>n
    stream.next_out = to
    stream.avail_out = <unsigned>size
    code = inflate(&stream, Z_FINISH)
    inflateEnd(&stream)
    if code == Z_MEM_ERROR:
        return NO_MEMORY
    return OK if code == Z_STREAM_END and stream.avail_in == 0 and stream.avail_out == 0 else CORRUPT


# ---- bzip2: a .bz2 stream ----

cdef size_t bound_bzip2(const Pipeline* pipeline, size_t n) noexcept nogil:
    return n + n // 100 + 600  # as its manual has it


cdef uint64_t ratio_bzip2(const Pipeline* pipeline) noexcept nogil:
    # A block of 900,000 bytes, 5 of which stand for up to 259, has 192 bits at least: 1,942,500. Zeros come to 1,147,000.
    return 1 << 21


cdef Status compress_bzip2(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t room, size_t* written) noexcept nogil:
    cdef unsigned size = <unsigned>room
    cdef int level = min(step.filter.level, 9) if step.filter.level > 0 else 1  # TileDB's default, in its blocks of 100 kB
    if room > UINT32_MAX:
        return TOO_LARGE
    if BZ2_bzBuffToBuffCompress(<char*>to, &size, <char*>data if n > 0 else <char*>to, <unsigned>n, level, 0, 0) != BZ_OK:
        return NO_MEMORY  # nothing else can fail
    written[0] = size
    return OK


cdef Status decompress_bzip2(Step* step, const uint8_t* data, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef bz_stream stream
    cdef int code
    if n > UINT32_MAX or size > UINT32_MAX:
        return CORRUPT
    memset(&stream, 0, sizeof(bz_stream))
    if BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK:
        return NO_MEMORY
    stream.next_in = <char*>data
    stream.avail_in = <unsigned>n
    stream.next_out = <char*>to
    stream.avail_out = <unsigned>size
    code = BZ2_bzDecompress(&stream)
    BZ2_bzDecompressEnd(&stream)
    if code == BZ_MEM_ERROR:
        return NO_MEMORY
    return OK if code == BZ_STREAM_END and stream.avail_in == 0 and stream.avail_out == 0 else CORRUPT


cdef void free_contexts(Codec* codec) noexcept nogil:
    ZSTD_freeDCtx(<ZSTD_DCtx*>codec.zstd_in)
    ZSTD_freeCCtx(<ZSTD_CCtx*>codec.zstd_out)
    free(codec.lz4)
    if codec.deflate != NULL:
        deflateEnd(<z_stream*>codec.deflate)
        free(codec.deflate)
