"""The metadata file of a fragment, with its private block and footer: drawn, written and parsed here, and nowhere else.

The contract is docs/format.md 6 and 8.6 to 8.8; n is the number of fields, a box is four u64: least and greatest c0, least and
greatest c1. Numbers on disk are never changed, and retired tags stay reserved.

    at 3       R-tree         generic tile {u32 2, u32 FANOUT, u8 UINT64, u32 levels, per level, the root first: u64 m, m boxes}
    8-aligned  vectors        generic tiles {u64 m, m x u64}: n + 1 tile offsets, n offsets of bytes, n raw sizes of bytes
    64-aligned Bloom filter   if there is one: pages of up to 127 blocks of 32 bytes, u32 CRC-32C of them, 28 zero bytes
    8-aligned  private block  records {u32 tag, u32 size, payload, zeros to a multiple of eight}, then a tail
                              {u32 size of the records, u32 CRC-32C over records, size and footer, "TKVB"}
    at the end footer         u32 3, u8 dense 0, u8 no domain 0, the domain, a box, u64 tiles, u64 cells of the last tile,
                              u64 x (n + 1) file sizes, u64 x n sizes of files of bytes,
                              u64 position of the R-tree, u64 x (3n + 1) positions of the vectors

A generic tile (docs/format.md 3), as it is here, with an empty pipeline and one raw chunk:

    +0  u32 3, u64 bytes from +34 on, u64 payload's bytes, u8 CHAR, u64 1, u8 not encrypted 0, u32 size of the pipeline 8
    +34 u32 0, u32 0                                                        the pipeline
    +42 u64 1, u32 payload's bytes, u32 payload's bytes, u32 PRIVATE_META   the chunk
    +62 u32 CRC-32C of the payload, 6 zero bytes                            its metadata, of which TileDB takes no notice
    +72 payload
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.format.bloom cimport Bloom
from tilekv.kvcore.format.layout cimport Layout

cdef enum:
    FORMAT_VERSION = 3
    FANOUT = 10
    RTREE_AT = 3                # so the boxes, at +72 +13 and behind their number, are aligned to eight bytes
    TILE_PAYLOAD = 72           # from a generic tile's start
    PRIVATE_META = 10
    BLOCK_TAIL = 12
    BLOOM_ALIGNMENT = 64
    BLOCK_MAGIC = 0x42564B54    # "TKVB"
    TRAILER = 20                # {16 bytes of uuid, u32 slot}

cdef extern from *:
    """
    #define TKV_NOT_UNIFORM 0xFFFFFFFFu
    """
    const uint32_t NOT_UNIFORM "TKV_NOT_UNIFORM"

cdef enum Tag:                  # docs/format.md 8.7
    # 16 bytes of uuid, u64 t1, u64 t2, u64 cells, u64 deletes
    TAG_IDENTITY = 1
    # the fragments that a consolidation read, per name: u32 size, bytes
    TAG_SOURCES = 2
    # a chunk directory: u32 slot, u32 width (4 or 8), u64 chunks, u32 x (tiles + 1) first chunk of each tile and number of
    # chunks, padding to eight, per chunk {start, position}: its first cell (or byte, in files of bytes) in the tile, and where
    # it begins, from the tile's start. A file without one has one chunk a tile, at 8.
    TAG_CHUNKS = 3
    # a Bloom filter over the digests: u64 position of its pages, u64 blocks, u64 low, u64 factor. The block of a cell is
    # floor((c0 - low) * factor / 2^64), or the last one.
    TAG_BLOOM = 4
    # no payload: data files end in a trailer
    TAG_BOUND = 5
    # u64 ms: a consolidation has left out what expired by then
    TAG_EXPIRED = 6
    # u32 slot, u32 n (1, or tiles), u32 x n: what all cells of each tile, or of every one, have in common, or NOT_UNIFORM. Of
    # the key types the type with its bit for deletes; of files of bytes the cell's size.
    TAG_UNIFORM = 7
    # the name of the consolidation's first output, which has the list of tag 2 for all of them
    TAG_FIRST = 8


cdef inline uint64_t footer_bytes(uint64_t nf) noexcept nogil:
    """Of a fragment with so many fields: it ends with the file, so its size says where it begins."""
    return 54 + 8 * (2 * nf + 1) + 8 + 8 * (3 * nf + 1)


cdef struct FileTable:          # of one data file: where its tiles and chunks are
    uint64_t size               # bytes of the file that count: not the trailer's
    const uint64_t* tile_at     # by tile: where it begins
    const uint64_t* raw_size    # by tile, of files of bytes: its raw bytes; else NULL
    const uint32_t* first_chunk     # by tile, then the number of chunks, which a writer may leave out; NULL: no directory
    const uint8_t* chunks       # nchunks x {start, position}, `width` bytes each; a writer's are 8 bytes wide
    uint32_t width
    uint64_t nchunks            # in the directory
    const uint32_t* uniform     # by tile, or one for all: see TAG_UNIFORM
    uint64_t nuniform           # 0: nothing is said


cdef class Metadata:
    """What the file says, on its way to or from it. The pointers are borrowed: from the file, or from whoever writes it."""
    cdef Layout layout
    cdef uint64_t ntiles
    cdef uint64_t last_tile_cells
    cdef uint64_t cells
    cdef uint64_t tombstones
    cdef uint64_t t1            # ms
    cdef uint64_t t2
    cdef const uint8_t* uuid    # 16 bytes
    cdef const uint64_t* boxes  # 4 words a tile: the leaves of the R-tree
    cdef tuple sources          # names
    cdef str first_output       # the fragment that lists the sources of this one, too; else empty
    cdef bint bound             # data files end in a trailer
    cdef uint64_t expired       # ms: what expired by then was left out; 0: nothing
    cdef Bloom bloom            # over the digests; a reader finds a place for `checked`
    cdef FileTable* files       # by slot; owned

# The file's bytes, made without the GIL: of 1,500,000 cells they are two megabytes. REQUIRES: all is set, files by layout.files.
# ValueError for more than its numbers can hold; MemoryError.
cdef bytes write_metadata(Metadata metadata)
# The n bytes at `data` are the metadata of the fragment of that name; the pointers of what is returned lead into them, checked
# for room and alignment. REQUIRES: `data` is aligned to eight bytes. CorruptionError when it is not what write_metadata() makes.
cdef Metadata parse_metadata(Layout layout, str name, const uint8_t* data, uint64_t n)
# Whether the TRAILER bytes at `at` are those of that slot of the fragment with that uuid.
cdef bint trailer_fits(const uint8_t* at, const uint8_t* uuid, uint32_t slot) noexcept nogil


cdef inline int need(int status) except -1 nogil:
    """For what out_...() of base/wire returned: MemoryError when it could not append."""
    if status < 0:
        with gil:
            raise MemoryError
    return 0
