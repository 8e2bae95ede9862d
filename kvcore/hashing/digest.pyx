"""Keys to coordinates (docs/format.md 1), and the table hash."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tilekv.errors import InvalidValueError


cdef extern from "hashing/simd_dispatch.h" nogil:
    ctypedef struct Hash "tkv_hash":
        pass
    int tkv_best_level() noexcept
    const Hash* tkv_hash_at(DigestKind kind, int level) noexcept
    void tkv_digest_all(const Hash* hash, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1) noexcept

cdef extern from "hashing/siphash.h" nogil:
    uint64_t tkv_siphash13(const uint64_t* secret, uint64_t first, const uint8_t* bytes, uint64_t size) noexcept


DIGESTS = {"blake2b": BLAKE2B, "md5": MD5, "md5-lp64": MD5_LP64}

# In the order of their numbers in levels.h; the kernels of all give the same digests.
SIMD_LEVELS = ("scalar", "avx2", "avx512")[:tkv_best_level() + 1]

# Both written once, below, while the module is imported. A forked child keeps its parent's secret, and with it the tables it
# inherits.
cdef int level_in_use
cdef uint64_t[2] table_secret


cdef int simd_level(object name) except -1:
    """The number of a level of SIMD_LEVELS; None and "" are the level in use."""
    if not name:
        return level_in_use
    if name not in SIMD_LEVELS:
        raise InvalidValueError(
            f"the SIMD levels of this processor are {', '.join(SIMD_LEVELS)}, not {name!r}; "
            "leave TILEKV_SIMD unset for the highest"
        )
    return SIMD_LEVELS.index(name)

level_in_use = tkv_best_level()
level_in_use = simd_level(os.environ.get("TILEKV_SIMD"))
SIMD = SIMD_LEVELS[level_in_use]


cdef int read_secret(bytes secret, uint64_t* words) except -1:
    if len(secret) != 16:
        raise ValueError(f"a SipHash secret is 16 bytes, not {len(secret)}")
    memcpy(words, PyBytes_AS_STRING(secret), 16)
    return 0

read_secret(os.urandom(16), table_secret)


# 2^64-1 lies outside the domain [0, 2^64-2] of both dimensions. That two digests may now share a coordinate is harmless, because
# every lookup compares the stored key.
cdef inline uint64_t clamp(uint64_t half) noexcept nogil:
    return half - (half == UINT64_MAX)


cdef void digest_keys_at(int level, DigestKind kind, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1) noexcept nogil:
    cdef size_t i
    tkv_digest_all(tkv_hash_at(kind, level), keys, n, c0, c1)
    for i in range(n):
        c0[i] = clamp(c0[i])
        c1[i] = clamp(c1[i])


cdef void digest_keys(DigestKind kind, const KeyRef* keys, size_t n, uint64_t* c0, uint64_t* c1) noexcept nogil:
    digest_keys_at(level_in_use, kind, keys, n, c0, c1)


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


@cython.final
cdef class _Keys:
    """A batch of keys, and room for its coordinates."""
    cdef list held              # with its tuples, what keeps the bytes alive while the GIL is released
    cdef size_t n
    cdef KeyRef* refs
    cdef uint64_t* c0
    cdef uint64_t* c1

    def __cinit__(self, keys):
        cdef size_t i
        self.held = list(keys)
        self.n = len(self.held)
        self.refs = <KeyRef*> malloc(self.n * sizeof(KeyRef) + 1)
        self.c0 = <uint64_t*> malloc(self.n * 2 * sizeof(uint64_t) + 1)
        if self.refs == NULL or self.c0 == NULL:
            raise MemoryError(f"no memory for the coordinates of {self.n} keys")
        self.c1 = self.c0 + self.n
        for i in range(self.n):
            key_type, key = <tuple?> self.held[i]
            key_ref(key_type, <bytes?> key, &self.refs[i])

    def __dealloc__(self):
        free(self.refs)
        free(self.c0)

    cdef list pairs(self):
        cdef size_t i
        return [(self.c0[i], self.c1[i]) for i in range(self.n)]


def digest(kind, key_type, bytes key not None):
    """The 16-byte digest of one key as the hash function gives it, not clamped to the domain.

    ``kind`` is a value of ``DIGESTS``, ``key_type`` a datatype code of 0 to 127; ValueError for any other.
    """
    cdef DigestKind how = <DigestKind> checked_kind(kind)
    cdef uint64_t[2] halves
    cdef KeyRef ref
    key_ref(key_type, key, &ref)
    with nogil:
        tkv_digest_all(tkv_hash_at(how, level_in_use), &ref, 1, &halves[0], &halves[1])
    return PyBytes_FromStringAndSize(<const char*> halves, 16)


def coordinates(kind, keys, *, simd=None):
    """The coordinates ``(c0, c1)`` of each ``(key type, key bytes)`` of ``keys``, in order: ints of 0 to 2^64-2.

    ``kind`` is a value of ``DIGESTS``, a key type a datatype code of 0 to 127, ``simd`` one of ``SIMD_LEVELS`` (None: ``SIMD``);
    ValueError for any other.
    """
    cdef DigestKind how = <DigestKind> checked_kind(kind)
    cdef int level = simd_level(simd)
    cdef _Keys batch = _Keys(keys)
    with nogil:
        digest_keys_at(level, how, batch.refs, batch.n, batch.c0, batch.c1)
    return batch.pairs()


def _coordinates_again(kind, keys, size_t times, *, size_t block=256, simd=None):
    """``coordinates``, computed ``times`` times over in batches of ``block`` keys: what the benchmarks time."""
    cdef DigestKind how = <DigestKind> checked_kind(kind)
    cdef int level = simd_level(simd)
    cdef _Keys batch = _Keys(keys)
    cdef size_t at, n, _
    if times == 0 or block == 0:
        raise ValueError(f"times and block are 1 or more, not {times} and {block}")
    with nogil:
        for _ in range(times):
            at = 0
            while at < batch.n:
                n = min(block, batch.n - at)
                digest_keys_at(level, how, batch.refs + at, n, batch.c0 + at, batch.c1 + at)
                at += n
    return batch.pairs()


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
