"""Keys to coordinates (docs/format.md 1), and the table hash."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
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

# In the order of their numbers in simd_dispatch.h; the kernels of all give the same digests.
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


memcpy(table_secret, PyBytes_AS_STRING(os.urandom(16)), 16)


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
