"""What only tests, the fuzzer and `bench` call of the compiled core: thin ways into C functions that Python never reaches.

Installed with the rest, since the tests of a wheel run against what it installs; nothing of tilekv imports it.
"""

import struct

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tilekv.kvcore.base.wire cimport Out, out_free
from tilekv.kvcore.codec.chunk cimport PLAIN_HEADER, check_chunk, encode_chunk, open_windows
from tilekv.kvcore.codec.filters cimport FILTER_BIT_WIDTH, FILTER_DOUBLE_DELTA, FILTER_GZIP, FILTER_POSITIVE_DELTA, Filter
from tilekv.kvcore.codec.pipeline cimport (
    NO_MEMORY, OK, Codec, CodecPool, Pipeline, Status, Windows, codec_acquire, codec_release, raise_for, read_pipeline, window_at,
)
from tilekv.kvcore.hashing.coords cimport (
    MOST_BUCKETS, Item, bucket_count, bucket_shift, compare_keys, count_buckets, fill_buckets, lower_bound, place_buckets,
    sort_buckets,
)
from tilekv.kvcore.hashing.digest cimport KeyRef, clamp, key_ref
from tilekv.kvcore.hashing.digest cimport table_hash as hash_of_key
from tilekv.kvcore.read.chunk_reader cimport FragmentData, ReadContext, context_close, fragment_bytes, fragment_place, tile_cells
from tilekv.kvcore.read.fragment cimport Fragment
from tilekv.kvcore.read.plan cimport Plan, cell_plan, search_plan

cdef extern from "base/crc32c.h" nogil:
    uint32_t tkv_crc32c_tables(uint32_t crc, const void* data, size_t n)

cdef extern from "hashing/message.h" nogil:
    enum: TKV_COLLIDING

cdef extern from "hashing/siphash.h" nogil:
    uint64_t tkv_siphash13(const uint64_t* secret, uint64_t first, const uint8_t* bytes, uint64_t size) noexcept

# The kind of digest that gives all keys one value.
COLLIDING = TKV_COLLIDING


# ---- base ----

def crc32c_software(data, uint32_t crc=0):
    """crc32c() by tables alone, on every machine: what crc32c() is tested against."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = tkv_crc32c_tables(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


# ---- hashing ----

def clamped(uint64_t half):
    """What a digest half becomes as a coordinate."""
    return clamp(half)


def table_hash(key_type, bytes key not None, bytes secret=None):
    """The table hash of one key, under a 16-byte ``secret`` instead of this process's if one is given."""
    cdef uint64_t[2] words
    cdef KeyRef ref
    key_ref(key_type, key, &ref)
    if secret is None:
        return hash_of_key(&ref)
    if len(secret) != 16:
        raise ValueError(f"a SipHash secret is 16 bytes, not {len(secret)}")
    memcpy(words, PyBytes_AS_STRING(secret), 16)
    return tkv_siphash13(words, ref.type, ref.data, ref.size)


cdef int compare_refs(const void* cells, uint32_t a, uint32_t b) noexcept nogil:
    cdef const KeyRef* keys = <const KeyRef*>cells
    return compare_keys(&keys[a], &keys[b])


def sorted_order(coordinates, keys, size_t shares=1):
    """The permutation that sorts cells, as a list. coordinates: (c0, c1) pairs; keys: (type, bytes) pairs."""
    cdef size_t n = len(coordinates), i
    cdef uint64_t* words = <uint64_t*>malloc(2 * n * sizeof(uint64_t) + 1)
    cdef KeyRef* refs = <KeyRef*>malloc(n * sizeof(KeyRef) + 1)
    cdef Item* items = <Item*>malloc(n * sizeof(Item) + 1)
    cdef uint32_t* counts = <uint32_t*>malloc(shares * MOST_BUCKETS * sizeof(uint32_t))
    cdef int shift = bucket_shift(n)
    cdef size_t buckets = bucket_count(shift)
    cdef bytes key
    try:
        if words == NULL or refs == NULL or items == NULL or counts == NULL:
            raise MemoryError
        held = list(keys)
        for i in range(n):
            words[i], words[n + i] = coordinates[i]
            refs[i].type, key = held[i]
            refs[i].data = <const uint8_t*><const char*>key
            refs[i].size = len(key)
        for i in range(shares):
            count_buckets(words, n * i // shares, n * (i + 1) // shares, shift, counts + i * MOST_BUCKETS)
        place_buckets(counts, shares, shift)
        for i in range(shares):
            fill_buckets(words, words + n, n * i // shares, n * (i + 1) // shares, shift, counts + i * MOST_BUCKETS, items)
        for i in range(shares):
            sort_buckets(items, n, counts + (shares - 1) * MOST_BUCKETS, buckets * i // shares, buckets * (i + 1) // shares,
                         shift, compare_refs, refs)
        return [items[i].index for i in range(n)]
    finally:
        free(words)
        free(refs)
        free(items)
        free(counts)


def first_not_below(const uint64_t[::1] values not None, uint64_t key):
    """The first index whose value is >= key, else the length."""
    if values.shape[0] == 0:
        return 0
    return lower_bound(&values[0], 1, 0, values.shape[0], key)


# ---- codec ----

cdef CodecPool codecs = CodecPool()


def encode(bytes pipeline, uint32_t element_size, bint signed, bint integer, raw, uint32_t cell_size=0):
    """The stored chunk of the bytes of `raw`: header, metadata and filtered bytes (docs/format.md 4.3).

    Arguments as decode() has them. ValueError when the descriptor is bad, has a filter that is not supported or cannot work on
    what comes before it, or the chunk is too large.
    """
    cdef Pipeline parsed
    cdef Py_buffer view
    cdef Codec* codec
    cdef Status status = NO_MEMORY
    cdef Out out
    read_pipeline(pipeline, element_size, signed, integer, cell_size, &parsed)
    memset(&out, 0, sizeof(Out))
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            codec = codec_acquire(&codecs.pool)
            if codec != NULL:
                status = encode_chunk(&parsed, codec, <const uint8_t*>view.buf, view.len, &out)
                codec_release(&codecs.pool, codec)
        raise_for(status)
        return PyBytes_FromStringAndSize(<char*>out.data, out.size)
    finally:
        PyBuffer_Release(&view)
        out_free(&out)


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
    """A pipeline descriptor of filters that this build knows, parsed and written again."""
    cdef Pipeline parsed
    cdef const Filter* filter
    cdef uint32_t i
    read_pipeline(pipeline, 1, False, False, 1, &parsed)
    found = struct.pack("<II", parsed.max_chunk, parsed.n)
    for i in range(parsed.n):
        filter = &parsed.filters[i]
        if FILTER_GZIP <= filter.type <= FILTER_DOUBLE_DELTA:
            found += struct.pack("<BIBi", filter.type, 5, filter.type, filter.level)
        elif filter.type in (FILTER_BIT_WIDTH, FILTER_POSITIVE_DELTA):
            found += struct.pack("<BII", filter.type, 4, filter.window)
        else:
            found += struct.pack("<BI", filter.type, 0)
    return found


# ---- read ----

def plans(Fragment fragment not None, uint64_t c0, bytes wanted not None):
    """What a look-up of coordinates that are there asks for, but for what is in memory: at first, and once the cell is known.
    Two lists of (slot, offset, bytes). wanted: a flag for each field."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t tile = lower_bound(f.leaves + 1, 4, 0, f.ntiles, c0), n
    cdef uint64_t cell, position = 0, stored = 0, start = 0, raw = 0
    cdef const uint8_t* at = NULL
    cdef ReadContext context
    cdef Plan plan
    memset(&context, 0, sizeof(context))
    context.wanted = <const uint8_t*>PyBytes_AS_STRING(wanted)
    search_plan(&plan, f, tile, c0, &context)
    guessed = [(plan.ranges[i].slot, plan.ranges[i].offset, plan.ranges[i].n) for i in range(plan.n)]
    try:
        # As they are stored: a look-up would keep them at hand, and they would not be asked for again.
        fragment.demand(&context, fragment_place(f, f.nf, tile, 2 * tile, &position, &stored, &start, &raw))
        fragment.demand(&context, fragment_bytes(f, f.nf, position, stored, &context, &at))
        n = tile_cells(f, tile)
        cell = lower_bound(<const uint64_t*>(at + PLAIN_HEADER), 1, 0, n, c0)
    finally:
        context_close(&context, f.codecs)
    if cell == n:
        raise KeyError(c0)
    cell_plan(&plan, f, tile, cell, &context)
    return guessed, [(plan.ranges[i].slot, plan.ranges[i].offset, plan.ranges[i].n) for i in range(plan.n)]
