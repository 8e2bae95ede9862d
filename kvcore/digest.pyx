"""Keys to coordinates (FORMAT.md 1), and the table hash."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


cdef extern from "blake2b.h" nogil:
    void tkv_blake2b(uint8_t type, const uint8_t* key, uint64_t size, uint64_t* halves) noexcept

cdef extern from "md5.h" nogil:
    void tkv_md5(uint8_t type, const uint8_t* key, uint64_t size, uint64_t* halves) noexcept
    void tkv_md5_lp64(uint8_t type, const uint8_t* key, uint64_t size, uint64_t* halves) noexcept

cdef extern from "siphash.h" nogil:
    uint64_t tkv_siphash13(const uint64_t* secret, uint64_t first, const uint8_t* bytes, uint64_t size) noexcept


DIGESTS = {"blake2b": BLAKE2B, "md5": MD5, "md5-lp64": MD5_LP64}

# Written once, below, while the module is imported; a forked child keeps its parent's, and with it the tables it inherits.
cdef uint64_t[2] table_secret


cdef int read_secret(bytes secret, uint64_t* words) except -1:
    if len(secret) != 16:
        raise ValueError(f"a SipHash secret is 16 bytes, not {len(secret)}")
    memcpy(words, PyBytes_AS_STRING(secret), 16)
    return 0

read_secret(os.urandom(16), table_secret)


cdef inline void digest_key(DigestKind kind, const KeyRef* key, uint64_t* halves) noexcept nogil:
    if kind == BLAKE2B:
        tkv_blake2b(key.type, key.data, key.size, halves)
    elif kind == MD5:
        tkv_md5(key.type, key.data, key.size, halves)
    elif kind == COLLIDING:
        halves[0] = halves[1] = 1
    else:
        tkv_md5_lp64(key.type, key.data, key.size, halves)


# 2^64-1 lies outside the domain [0, 2^64-2] of both dimensions. That two digests may now share a coordinate is harmless, because
# every lookup compares the stored key.
cdef inline uint64_t clamp(uint64_t half) noexcept nogil:
    return half - (half == UINT64_MAX)


cdef void digest_keys(DigestKind kind, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1) noexcept nogil:
    cdef uint64_t[2] halves
    cdef size_t i
    for i in range(n):
        digest_key(kind, &keys[i], halves)
        c0[i] = clamp(halves[0])
        c1[i] = clamp(halves[1])


cdef uint64_t table_hash(const KeyRef* key) noexcept nogil:
    return tkv_siphash13(table_secret, key.type, key.data, key.size)


cdef int checked_kind(object kind) except -1:
    if kind not in DIGESTS.values():
        raise ValueError(f"a digest kind is one of {DIGESTS}, not {kind!r}")
    return kind


# The reference borrows from `key`, which must outlive it.
cdef int key_ref(object key_type, bytes key, KeyRef* ref) except -1:
    if key_type not in range(128):
        raise ValueError(f"a key type is a datatype code of 0 to 127, not {key_type!r}")
    ref.data = <const uint8_t*> PyBytes_AS_STRING(key)
    ref.size = PyBytes_GET_SIZE(key)
    ref.type = key_type
    return 0


def digest(kind, key_type, bytes key not None):
    """The 16-byte digest of one key as the hash function gives it, not clamped to the domain.

    ``kind`` is a value of ``DIGESTS``, ``key_type`` a datatype code of 0 to 127; ValueError for any other.
    """
    cdef DigestKind how = <DigestKind> checked_kind(kind)
    cdef uint64_t[2] halves
    cdef KeyRef ref
    key_ref(key_type, key, &ref)
    with nogil:
        digest_key(how, &ref, halves)
    return PyBytes_FromStringAndSize(<const char*> halves, 16)


def coordinates(kind, keys):
    """The coordinates ``(c0, c1)`` of each ``(key type, key bytes)`` of ``keys``, in order: ints of 0 to 2^64-2.

    ``kind`` is a value of ``DIGESTS``, a key type a datatype code of 0 to 127; ValueError for any other.
    """
    cdef DigestKind how = <DigestKind> checked_kind(kind)
    cdef list held = list(keys)     # with its tuples, what keeps the bytes alive while the GIL is released
    cdef size_t n = len(held)
    cdef size_t i
    cdef KeyRef* refs = <KeyRef*> malloc(n * sizeof(KeyRef) + 1)
    cdef uint64_t* c0 = <uint64_t*> malloc(n * 2 * sizeof(uint64_t) + 1)
    try:
        if refs == NULL or c0 == NULL:
            raise MemoryError(f"no memory for the coordinates of {n} keys")
        for i in range(n):
            key_type, key = <tuple?> held[i]
            key_ref(key_type, <bytes?> key, &refs[i])
        with nogil:
            digest_keys(how, refs, n, c0, c0 + n)
        return [(c0[i], c0[n + i]) for i in range(n)]
    finally:
        free(refs)
        free(c0)


def _clamp(uint64_t half):
    """What a digest half becomes as a coordinate."""
    return clamp(half)


def _table_hash(key_type, bytes key not None, bytes secret=None):
    """The table hash of one key, under a 16-byte ``secret`` instead of this process's if one is given."""
    cdef uint64_t[2] words
    cdef KeyRef ref
    key_ref(key_type, key, &ref)
    if secret is None:
        return table_hash(&ref)
    read_secret(secret, words)
    return tkv_siphash13(words, ref.type, ref.data, ref.size)
