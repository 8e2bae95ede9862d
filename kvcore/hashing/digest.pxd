"""Keys to coordinates: H(u8 key type | u64 key size | key bytes), 16 bytes, are two little-endian words (docs/format.md 1)."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t


cdef extern from "hashing/message.h" nogil:
    ctypedef enum DigestKind "tkv_kind":
        BLAKE2B "TKV_BLAKE2B"           # BLAKE2b with a 16-byte digest, RFC 7693
        MD5 "TKV_MD5"                   # RFC 1321
        MD5_LP64 "TKV_MD5_LP64"         # what TileDB 1.x computed on 64-bit Unix; for reading its stores only

    # One key by reference. The bytes belong to the caller and must outlive the call.
    ctypedef struct KeyRef "tkv_key":
        const uint8_t* data
        uint64_t size
        uint8_t type                    # datatype code, 0..127 (the tombstone bit is never part of a digest)


# A key by reference to `key`, which must outlive it. ValueError unless the type is a datatype code.
cdef int key_ref(object key_type, bytes key, KeyRef* ref) except -1


cdef inline uint64_t clamp(uint64_t half) noexcept nogil:
    """2^64-1 lies outside the domain [0, 2^64-2] of both dimensions. That two digests may now share a coordinate is harmless,
    because every lookup compares the stored key."""
    return half - (half == UINT64_MAX)


# The coordinates of n keys. c0 and c1 receive n words each, halves of 2^64-1 clamped to 2^64-2 (docs/format.md 1.2). From four
# keys on they are hashed in the lanes of vector registers, where the processor has AVX2: a batch should be a multiple of 32 keys.
cdef void digest_keys(DigestKind kind, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1) noexcept nogil

# Hash-table hash of a key: SipHash-1-3 keyed by a secret drawn once per process, so that nobody can choose keys that collide.
cdef uint64_t table_hash(const KeyRef* key) noexcept nogil
