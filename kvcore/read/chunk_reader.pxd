"""The chunks of an open fragment: where each is, its raw bytes checked, decoded and pinned, and by them any offset, key or value.

Everything here runs without the GIL on a FragmentData, which the object in read/fragment owns; what is in memory already, a
look-up finds inline, by read/resident. A call from another module is one through a pointer, which the compiler cannot inline: it
is made once a chunk, or once a cell that read/resident does not have.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.base.cache cimport Cache, Chunk, tkv_flag, tkv_set_flag
from tilekv.kvcore.base.file cimport STREAMS, FileRef, Stream, Wanted, file_cached
from tilekv.kvcore.base.wire cimport Out, load32, load64
from tilekv.kvcore.codec.pipeline cimport Codec, Pool, Status, Windows
from tilekv.kvcore.format.bloom cimport Bloom
from tilekv.kvcore.format.footer cimport NOT_UNIFORM
from tilekv.kvcore.format.layout cimport SLOT_BYTES, Slot
from tilekv.kvcore.hashing.digest cimport KeyRef

cdef enum:
    # Beside codec's Status:
    READ_FAILED = -50           # the file could not be read
    READ_GONE = -51             # it had been given back, and its folder is gone
    READ_UNFETCHED = -52        # it is elsewhere, and could not be read
    CACHED = 16
    DIRECT = 1 << 16            # a chunk of this size that is wanted whole may be decoded where it is wanted, past the cache

# What one reading operation carries with it. One thread at a time; context_close() gives back what it took.
cdef struct ReadContext:
    Codec* codec                # taken from the pool at the first decode
    Out stored                  # a stored chunk that had to be read by pread
    Out joined                  # a key or value that spans chunks
    Status status               # with slot and offset: what went wrong, for raise_fault()
    int slot
    uint64_t offset
    int error                   # errno of a read that failed; 0: the file has become shorter
    int64_t now                 # what expires by this moment (ms since 1970) is as if deleted; 0: nothing is
    const uint8_t* wanted       # a flag for each field that will be read of what is found; NULL: none
    int first                   # of them
    bint planned                # what will be read was asked for already
    Wanted* gathered            # where plans put what is elsewhere, for one round; NULL: it is had at once
    bint doubts                 # look at the cells, whatever a fragment's Bloom filter says

cdef void context_close(ReadContext* context, Pool* codecs) noexcept nogil

# Raw bytes of a chunk, in the map or in the cache: valid until unpin().
cdef struct Pin:
    const uint8_t* data
    uint64_t size
    uint64_t start              # the chunk's first cell or byte in its tile
    Chunk* chunk                # NULL when in place

# A cell's bytes: in a pinned chunk, or in context.joined until the next call that joins.
cdef struct Span:
    const uint8_t* data
    uint64_t size
    Pin pin

cdef struct SlotView:           # a data file; pointers lead into the mapped metadata, checked for room and alignment at open
    FileRef file                # borrowed from the File, which the fragment owns
    const uint64_t* tile_at
    const uint64_t* raw_size    # bytes slots
    const uint32_t* first_chunk     # NULL: one chunk a tile
    const uint8_t* chunks       # nchunks x {start, position}, `width` bytes each
    uint32_t width
    uint64_t size               # bytes of the file, by the footer
    uint64_t nchunks
    uint8_t bound               # a flag: the trailer has been found to be this slot's; from the start when there is none
    bint in_place               # chunks are used where they are mapped; else they are decoded into the cache
    void** ready                # in place, a pointer a chunk: its raw bytes, once its checksum has held
    Windows* windows            # in place, offsets: how to read those of each tile; set once, `data` last
    Chunk** homes               # decoded chunks
    uint8_t* recent             # a byte for each home: see Chunk.recent
    Stream streams[STREAMS]     # how far somebody reads along the file
    const uint32_t* uniform     # what cells of a tile have in common: see uniform_of()
    uint64_t nuniform


# What code without the GIL reads a fragment through. Immutable but for what has been verified or decoded so far, which is
# published by atomic stores or under the cache's lock. Owned by a Fragment and valid while it lives.
cdef struct FragmentData:
    int nf
    int key_type                # field
    uint64_t capacity           # cells a tile
    uint64_t ntiles
    uint64_t last_tile_cells
    uint64_t cells
    uint64_t owner              # and a slot: by which the cache knows cells
    const uint8_t* uuid         # 16 bytes, in the metadata
    const Slot* kinds           # by slot, of the layout
    SlotView* slots
    void* same_types            # one key type, as often as the largest tile has cells; NULL until there is such a tile
    Bloom bloom                 # over the digests
    bint distant                # some of its files may have to be waited for
    bint remote                 # some are elsewhere
    uint8_t found               # how often in turn what was asked of the system was cached, CACHED at most
    uint8_t skipped             # questions, modulo 16, that were not asked since
    const uint64_t* leaves      # 4 words a tile: lo0, hi0, lo1, hi1
    Cache* cache
    Pool* codecs

cdef inline uint64_t tile_cells(const FragmentData* f, uint64_t tile) noexcept nogil:
    return f.capacity if tile + 1 < f.ntiles else f.last_tile_cells


cdef inline bint may_be_cold(FragmentData* f) noexcept nogil:
    """Whether to look if something must be waited for. Once nothing had to be, only one time in 16: a look costs a twentieth of
    what decoding a chunk does."""
    cdef uint8_t skipped
    if tkv_flag(&f.found) < CACHED:
        return True
    skipped = tkv_flag(&f.skipped) + 1
    tkv_set_flag(&f.skipped, skipped)
    return skipped & 15 == 0


cdef inline void note_cached(FragmentData* f) noexcept nogil:
    if tkv_flag(&f.found) < CACHED:
        tkv_set_flag(&f.found, tkv_flag(&f.found) + 1)


cdef inline bint is_cold(FragmentData* f, int slot, uint64_t offset, uint64_t n) noexcept nogil:
    """Whether some of n bytes of the file of a slot must be waited for, as far as the system tells. That they need not says
    little, since they may have been asked for: plans alone count it, by note_cached()."""
    if file_cached(&f.slots[slot].file, offset, n):
        return False
    tkv_set_flag(&f.found, 0)
    return True


cdef inline uint32_t uniform_of(const SlotView* s, uint64_t tile) noexcept nogil:
    """What the metadata says of all cells of a tile, or NOT_UNIFORM: the type in the slot of the key types, the size in a slot of
    bytes. What it says need not be read."""
    if s.nuniform == 0:
        return NOT_UNIFORM
    return s.uniform[tile if s.nuniform > 1 else 0]


cdef inline uint64_t chunk_start(const SlotView* s, uint64_t index) noexcept nogil:
    return load32(s.chunks + 8 * index) if s.width == 4 else load64(s.chunks + 16 * index)


cdef inline uint64_t chunk_index(const FragmentData* f, int slot, uint64_t tile, uint64_t at) noexcept nogil:
    """The chunk (counted over the file) that holds cell or byte `at` of a tile, were the directory sound.

    Chunks aim at one size, so a guess in proportion is right or next to right; else a search by halves.
    """
    cdef const SlotView* s = &f.slots[slot]
    cdef uint64_t lo, hi, middle, total
    cdef int steps = 4
    if s.first_chunk == NULL:
        return tile
    lo = s.first_chunk[tile]
    hi = s.first_chunk[tile + 1]
    total = s.raw_size[tile] if f.kinds[slot].kind == SLOT_BYTES else tile_cells(f, tile)
    if hi > s.nchunks or lo >= hi or at >= total:
        return s.nchunks                                    # one more slot than chunks, always empty: fragment_place() refuses it
    if hi - lo == 2:                                        # no branch: which of two is a coin's throw to the processor
        return lo + (chunk_start(s, lo + 1) <= at)
    if hi - lo > 2 and total >> 63 == 0:
        # Signed: a processor has an instruction for that.
        middle = lo + <uint64_t><int64_t>(<double><int64_t>at / <double><int64_t>total * <double><int64_t>(hi - lo))
        while steps and middle < hi:
            steps -= 1
            if chunk_start(s, middle) > at:
                if middle == lo:
                    break
                hi = middle
                middle -= 1
            elif middle + 1 < hi and chunk_start(s, middle + 1) <= at:
                lo = middle + 1
                middle += 1
            else:
                return middle
    while hi - lo > 1:
        middle = lo + (hi - lo) // 2
        if chunk_start(s, middle) <= at:
            lo = middle
        else:
            hi = middle
    return lo


# A reader of offsets that stand as plain words.
cdef void plain_windows(Windows* windows, const uint8_t* words) noexcept nogil
# Whether n offsets begin with 0 and ascend to at most `total`: else cells could share bytes, and a small tile expand to any size.
cdef bint offsets_ascend(const Windows* windows, uint64_t n, uint64_t total) noexcept nogil
# Where chunk `index` (counted over the file) of a tile is and what it holds, checked against the file and the tile: CORRUPT when
# that cannot be. start: its first cell or byte in the tile; raw: its raw bytes.
cdef Status fragment_place(FragmentData* f, int slot, uint64_t tile, uint64_t index, uint64_t* position, uint64_t* stored,
                           uint64_t* start, uint64_t* raw) noexcept nogil
# *at = n bytes of the file of a slot, as they are stored.
cdef Status fragment_bytes(FragmentData* f, int slot, uint64_t offset, uint64_t n, ReadContext* context,
                           const uint8_t** at) noexcept nogil
# Whether the file of a slot ends in its trailer: CORRUPT when it is another fragment's, or another slot's.
cdef Status fragment_bound(FragmentData* f, int slot, ReadContext* context) noexcept nogil
# That chunk verified and decoded into `into`, past the cache. raw: from fragment_place().
cdef Status fragment_decode(FragmentData* f, int slot, uint64_t tile, uint64_t index, ReadContext* context, uint8_t* into,
                            uint64_t raw) noexcept nogil
# Pins chunk `index` (counted over the file) of a tile. wanted: how many bytes of it, UINT64_MAX for all. One that is large beside
# them only passes a full cache; see base/cache.
cdef Status fragment_chunk(FragmentData* f, int slot, uint64_t tile, uint64_t index, uint64_t wanted, ReadContext* context,
                           Pin* pin) noexcept nogil
cdef void unpin(FragmentData* f, Pin* pin) noexcept nogil
# Pins the chunk that holds cell (fixed) or byte (bytes slots) `at` of a tile.
cdef Status fragment_chunk_at(FragmentData* f, int slot, uint64_t tile, uint64_t at, uint64_t wanted, ReadContext* context,
                              Pin* pin) noexcept nogil
# Keeps a cell whose chunk passes: `size` bytes that stand at cell (fixed) or byte (bytes slots) `at` of a tile.
cdef void keep_cell(FragmentData* f, int slot, uint64_t tile, uint64_t at, const Pin* pin, const uint8_t* data,
                    uint64_t size) noexcept nogil
# Copies such a cell if it was kept.
cdef bint copy_cell(FragmentData* f, int slot, uint64_t tile, uint64_t at, uint64_t size, uint8_t* out) noexcept nogil
# One dimension of a tile's coordinates: tile_cells(tile) words.
cdef Status fragment_coords(FragmentData* f, uint64_t tile, int dimension, ReadContext* context, Pin* pin) noexcept nogil
# Offsets of a tile's cells; `pin` holds what `windows` reads when that is not in place.
cdef Status fragment_offsets(FragmentData* f, int field, uint64_t tile, ReadContext* context, Windows* windows,
                             Pin* pin) noexcept nogil
# Where in its tile's bytes cell j of a var field stands: [start, end).
cdef Status fragment_extent(FragmentData* f, int field, uint64_t tile, uint64_t j, ReadContext* context, uint64_t* start,
                            uint64_t* end) noexcept nogil
# n bytes from byte `start` of a tile of a bytes slot, copied. Chunks of DIRECT bytes go past the cache when they are read for the
# first time and there is no room for all n bytes, or when these are more than half of its budget.
cdef Status fragment_copy(FragmentData* f, int slot, uint64_t tile, uint64_t start, uint64_t n, ReadContext* context,
                          uint8_t* out) noexcept nogil
# A cell of any field. unpin(&span.pin) when done.
cdef Status fragment_cell(FragmentData* f, int field, uint64_t tile, uint64_t j, ReadContext* context, Span* span) noexcept nogil
# The key of a cell with its type, tombstone bit included. unpin(&span.pin) when done.
cdef Status fragment_key(FragmentData* f, uint64_t tile, uint64_t j, ReadContext* context, Span* span, KeyRef* key) noexcept nogil


# Whether fragment_chunk() would find a chunk in place or decoded; a hint. REQUIRES: fragment_place() has accepted the index.
cdef bint chunk_at_hand(const FragmentData* f, int slot, uint64_t index) noexcept nogil
