"""Numbers of a fragment's metadata. On disk: never changed, and retired tags stay reserved (docs/format.md 3, 6, 8.6 to 8.8).

    pos 3      R-tree         generic tile, so that the MBRs at +72+13 are 8-byte aligned
    8-aligned  vectors        generic tiles {u64 n, n x u64}: tile positions (na+1), var positions (na), var raw sizes (na)
    8-aligned  private block  records, u32 length of the records, u32 CRC-32C over records, length and footer, "TKVB"
    at the end footer         unwrapped, docs/format.md 6

Generic tile, raw, one chunk: 34-byte header, empty pipeline (8), u64 1, u32 raw, u32 raw, u32 10, {u32 CRC-32C over the
payload, 6 zero bytes}, payload: the vector's length stands at +72, its data at +80.

A record: u32 tag, u32 bytes, payload, zero padding to a multiple of 8.

With TAG_BOUND every data file ends, behind the bytes that the footer counts, in a trailer {16-byte uuid of its fragment, u32
slot}: a chunk's checksum says nothing of where the chunk belongs, and files of two fragments, or attributes, may have one layout.
"""

cdef enum:
    FORMAT_VERSION = 3
    FANOUT = 10
    RTREE_AT = 3
    TILE_PAYLOAD = 72           # from a generic tile's start
    PRIVATE_META = 10
    RTREE_HEADER = 13           # u32 ndim, u32 fanout, u8 type, u32 levels
    BLOCK_TAIL = 12             # u32 length, u32 CRC, "TKVB"
    BLOCK_MAGIC = 0x42564B54    # "TKVB"
    TRAILER = 20                # bytes

cdef enum Tag:
    # 16-byte uuid, u64 t1, u64 t2, u64 cells, u64 tombstones
    TAG_IDENTITY = 1
    # names of the fragments that a consolidation read, each u32 length + bytes
    TAG_SOURCES = 2
    # u32 slot, u32 width (4 or 8), u64 nchunks, u32 first_chunk[ntiles + 1], padding to 8,
    # nchunks x {start, position}: first cell (fixed) or first byte (var bytes) in the tile; position from the tile's start.
    # Slots without one have one chunk a tile, at +8.
    TAG_CHUNKS = 3
    # reserved: a filter over the digests
    TAG_FILTER = 4
    # no payload: data files end in a trailer
    TAG_BOUND = 5
