from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from tilekv.kvcore.base.wire cimport Cursor, Out, cursor, out32, out64, out_bytes, take, take32, take64
from tilekv.kvcore.codec.filters cimport CORRUPT, NO_MEMORY, OK

cdef extern from "hashing/checksum.h" nogil:
    int TKV_MD5_BYTES, TKV_SHA256_BYTES
    void tkv_md5_of(const uint8_t* data, size_t n, uint8_t* digest) noexcept
    void tkv_sha256_of(const uint8_t* data, size_t n, uint8_t* digest) noexcept

cdef enum:
    LARGEST = 32                # bytes of the longer digest

ctypedef void (*Digest)(const uint8_t* data, size_t n, uint8_t* digest) noexcept nogil


cdef int put_part(Out* out, const Cursor* part, Digest digest, size_t size) noexcept nogil:
    cdef uint8_t[LARGEST] found
    digest(part.at, part.left, found)
    return out64(out, part.left) | out_bytes(out, found, size)


cdef Status add(Step* step, Digest digest, size_t size) noexcept nogil:
    cdef uint32_t meta_parts = 1 if step.meta.left > 0 else 0
    cdef int failed = out32(step.new_meta, meta_parts) | out32(step.new_meta, 1)
    if meta_parts:
        failed |= put_part(step.new_meta, &step.meta, digest, size)
    failed |= put_part(step.new_meta, &step.data, digest, size)
    failed |= out_bytes(step.new_meta, step.meta.at, step.meta.left)
    if failed:
        return NO_MEMORY
    step.meta = cursor(step.new_meta.data, step.new_meta.size)
    return OK


cdef Status verify_parts(Cursor* sums, uint64_t parts, Cursor covered, Digest digest, size_t size, bint whole) noexcept nogil:
    cdef uint8_t[LARGEST] found
    cdef const uint8_t* data
    cdef const uint8_t* expected
    cdef uint64_t n, _part
    for _part in range(parts):
        n = take64(sums)
        expected = take(sums, size)
        data = take(&covered, n)
        if expected == NULL or data == NULL and n > 0:
            return CORRUPT
        digest(data, n, found)
        if memcmp(found, expected, size) != 0:
            return CORRUPT
    return CORRUPT if covered.failed or (whole and covered.left > 0) else OK


cdef Status verify(Step* step, Digest digest, size_t size) noexcept nogil:
    cdef uint64_t meta_parts = take32(&step.meta)
    cdef uint64_t data_parts = take32(&step.meta)
    cdef Cursor sums = step.meta
    cdef Status status
    take(&step.meta, (meta_parts + data_parts) * (8 + size))  # what the metadata parts cover comes after all of the sums
    if step.meta.failed:
        return CORRUPT
    status = verify_parts(&sums, meta_parts, step.meta, digest, size, step.checked)
    if status == OK:
        status = verify_parts(&sums, data_parts, step.data, digest, size, step.checked)
    return status


cdef void grow_sums(const Pipeline* pipeline, const Kind* kind, Sizes* most) noexcept nogil:
    most.meta += 8 + 2 * (8 + LARGEST)


cdef Status add_md5(Step* step) noexcept nogil:
    return add(step, tkv_md5_of, TKV_MD5_BYTES)


cdef Status verify_md5(Step* step) noexcept nogil:
    return verify(step, tkv_md5_of, TKV_MD5_BYTES)


cdef Status add_sha256(Step* step) noexcept nogil:
    return add(step, tkv_sha256_of, TKV_SHA256_BYTES)


cdef Status verify_sha256(Step* step) noexcept nogil:
    return verify(step, tkv_sha256_of, TKV_SHA256_BYTES)
