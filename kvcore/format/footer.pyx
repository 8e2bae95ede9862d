cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from tilekv.errors import CorruptionError

from tilekv.kvcore.base.crc32c cimport tkv_crc32c
from tilekv.kvcore.base.wire cimport (Cursor, Out, cursor, load32, load64, out8, out32, out64, out_bytes, out_free, store32,
                                      take, take8, take16, take32, take64)
from tilekv.kvcore.format.datatypes cimport CHAR, UINT64
from tilekv.kvcore.format.layout cimport COORDS_TILE, MAX_CHUNK


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ needs the pointer only
cdef class Metadata:
    def __cinit__(self, Layout layout not None):
        self.layout = layout
        self.sources = ()
        self.files = <FileTable*>calloc(layout.nslots, sizeof(FileTable))
        if self.files == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.files)


@cython.final
cdef class _Input:
    """A metadata file while it is parsed."""
    cdef str name               # of its fragment
    cdef const uint8_t* data
    cdef uint64_t size
    cdef uint64_t seen          # where the part that comes next may begin

    def __cinit__(self, str name not None):
        self.name = name

    cdef refuse(self, offset, reason):
        raise CorruptionError(f"{self.name}/__fragment_metadata.tdb", offset, reason)

    cdef int skip_padding(self, uint64_t position) except -1:
        """From what was parsed last to the next part: no gap but for alignment, and only zeros in it."""
        if position < self.seen or position - self.seen > 7:
            self.refuse(position, "parts of the metadata that do not follow one another")
        while self.seen < position:
            if self.data[self.seen]:
                self.refuse(self.seen, "padding that is not zero")
            self.seen += 1
        return 0


cdef int pad(Out* out, size_t to) except -1:
    while out.size % to:
        need(out8(out, 0))
    return 0


# --- the file (docs/format.md 8.6) ------------------------------------------------------------------------------------

cdef bytes write_metadata(Metadata metadata):
    cdef Out out, footer
    cdef size_t records
    cdef uint32_t crc
    memset(&out, 0, sizeof(out))
    memset(&footer, 0, sizeof(footer))
    try:
        need(out_bytes(&out, b"\0\0\0", RTREE_AT))
        write_footer(&out, &footer, metadata)
        pad(&out, 8)
        records = out.size
        write_records(&out, metadata)
        if out.size - records > 0xFFFFFFFF:
            raise ValueError("the chunk directory of one fragment is over 4 GiB")
        need(out32(&out, <uint32_t>(out.size - records)))
        crc = tkv_crc32c(0, out.data + records, out.size - records)
        need(out32(&out, tkv_crc32c(crc, footer.data, footer.size)))
        need(out32(&out, BLOCK_MAGIC))
        need(out_bytes(&out, footer.data, footer.size))
        return out.data[:out.size]
    finally:
        out_free(&out)
        out_free(&footer)


cdef Metadata parse_metadata(Layout layout, str name, const uint8_t* data, uint64_t n):
    """From the end, where the sizes are known; then the parts from front to back."""
    cdef Metadata metadata = Metadata(layout)
    cdef _Input file = _Input(name)
    cdef uint64_t footer_size = footer_bytes(layout.nf)
    cdef uint64_t footer_at, length
    cdef const uint8_t* tail
    file.data = data
    file.size = n
    if n < footer_size + BLOCK_TAIL:
        file.refuse(0, f"{n} bytes are too few")
    footer_at = n - footer_size
    tail = data + footer_at - BLOCK_TAIL
    if load32(tail + 8) != <uint32_t>BLOCK_MAGIC:
        file.refuse(footer_at - 4, "tilekv's mark is not before the footer")
    length = load32(tail)
    if length > footer_at - BLOCK_TAIL or (footer_at - BLOCK_TAIL - length) % 8:
        file.refuse(footer_at - BLOCK_TAIL, f"a private block of {length} bytes")
    if tkv_crc32c(tkv_crc32c(0, tail - length, length + 4), data + footer_at, footer_size) != load32(tail + 4):
        file.refuse(footer_at - BLOCK_TAIL - length, "private block and footer fail their checksum")
    parse_footer(file, metadata, footer_at)
    file.skip_padding(footer_at - BLOCK_TAIL - length)
    parse_records(file, metadata, tail - length, length)
    for slot, _, _ in layout.files:
        check_tiles(file, metadata, slot)
    return metadata


cdef int check_tiles(_Input file, Metadata metadata, int slot) except -1:
    """Every tile of a file has chunks of its own, and no more cells or bytes than they can hold: what is decoded for one tile
    is never taken for another's, and no count makes anybody ask for memory before a chunk has shown that it is true."""
    cdef const FileTable* table = &metadata.files[slot]
    cdef uint64_t tile, chunks = 1
    if slot == metadata.layout.coords:
        if (metadata.cells > table.size // 16
                or table.size != COORDS_TILE * metadata.ntiles + 16 * metadata.cells):
            file.refuse(file.size, f"{table.size} bytes of coordinates for {metadata.cells} cells")
        return 0
    for tile in range(metadata.ntiles):
        if table.first_chunk != NULL:
            if table.first_chunk[tile] > table.first_chunk[tile + 1]:
                file.refuse(<const uint8_t*>table.first_chunk - file.data, "a chunk directory that runs backwards")
            chunks = table.first_chunk[tile + 1] - table.first_chunk[tile]
        if table.raw_size != NULL and table.raw_size[tile] > chunks * MAX_CHUNK:
            file.refuse(<const uint8_t*>table.raw_size - file.data,
                        f"a tile of {table.raw_size[tile]} bytes in chunks that hold {chunks * MAX_CHUNK}")
    return 0


# --- the footer, and what it points to (docs/format.md 6) -------------------------------------------------------------

cdef int write_footer(Out* out, Out* footer, Metadata metadata) except -1:
    """The footer, and to `out` the R-tree and the vectors, whose positions it has. The coordinates are the arrays' entry na, as
    they are slot nf."""
    cdef int na = metadata.layout.nf, f
    cdef const FileTable* files = metadata.files
    cdef uint64_t domain[4]
    cdef uint64_t i
    memcpy(domain, metadata.boxes, 32)
    for i in range(1, metadata.ntiles):
        unite(domain, metadata.boxes + 4 * i)
    need(out32(footer, FORMAT_VERSION))
    need(out8(footer, 0))                                       # dense
    need(out8(footer, 0))                                       # null non-empty domain
    need(out_bytes(footer, domain, 32))
    need(out64(footer, metadata.ntiles))
    need(out64(footer, metadata.last_tile_cells))
    for f in range(na + 1):
        need(out64(footer, files[f].size))
    for f in range(na):
        need(out64(footer, files[na + 1 + f].size))
    need(out64(footer, out.size))
    write_rtree(out, metadata.boxes, metadata.ntiles)
    for f in range(na + 1):
        write_vector(out, footer, files[f].tile_at, metadata.ntiles)
    for f in range(na):
        write_vector(out, footer, files[na + 1 + f].tile_at, metadata.ntiles if metadata.layout.is_var(f) else 0)
    for f in range(na):
        write_vector(out, footer, files[na + 1 + f].raw_size, metadata.ntiles if metadata.layout.is_var(f) else 0)
    return 0


cdef int parse_footer(_Input file, Metadata metadata, uint64_t at) except -1:
    cdef int na = metadata.layout.nf, f
    cdef FileTable* files = metadata.files
    cdef Cursor c = cursor(file.data + at, file.size - at)
    if take32(&c) != FORMAT_VERSION or take8(&c) != 0 or take8(&c) != 0:
        file.refuse(at, "not the footer of a sparse fragment of format 3")
    take(&c, 32)
    metadata.ntiles = take64(&c)
    metadata.last_tile_cells = take64(&c)
    if (not 1 <= metadata.last_tile_cells <= metadata.layout.capacity or metadata.ntiles == 0
            or metadata.ntiles > file.size // 32):
        file.refuse(at, f"{metadata.ntiles} tiles with {metadata.last_tile_cells} cells in the last")
    for f in range(na + 1):
        files[f].size = take64(&c)
    for f in range(na):
        files[na + 1 + f].size = take64(&c)
    metadata.boxes = parse_rtree(file, take64(&c), metadata.ntiles)
    for f in range(na + 1):
        files[f].tile_at = parse_vector(file, take64(&c), metadata.ntiles)
    for f in range(na):
        files[na + 1 + f].tile_at = parse_vector(file, take64(&c), metadata.ntiles if metadata.layout.is_var(f) else 0)
    for f in range(na):
        files[na + 1 + f].raw_size = parse_vector(file, take64(&c), metadata.ntiles if metadata.layout.is_var(f) else 0)
    return 0


cdef void unite(uint64_t* box, const uint64_t* other) noexcept nogil:
    box[0] = min(box[0], other[0])
    box[1] = max(box[1], other[1])
    box[2] = min(box[2], other[2])
    box[3] = max(box[3], other[3])


cdef int write_rtree(Out* out, const uint64_t* boxes, uint64_t n) except -1:
    """Levels from the root to the leaves; a box is the union of FANOUT below it."""
    cdef Out payload
    cdef const uint64_t* level
    cdef uint64_t* above
    cdef size_t i
    below = (<const char*>boxes)[:32 * n]
    levels = [below]
    memset(&payload, 0, sizeof(payload))
    while n > 1:
        level = <const uint64_t*><const char*>below
        merged = bytearray(32 * ((n + FANOUT - 1) // FANOUT))
        above = <uint64_t*><char*>merged
        for i in range(n):
            if i % FANOUT == 0:
                memcpy(above + 4 * (i // FANOUT), level + 4 * i, 32)
                continue
            unite(above + 4 * (i // FANOUT), level + 4 * i)
        below = bytes(merged)
        levels.append(below)
        n = (n + FANOUT - 1) // FANOUT
    try:
        need(out32(&payload, 2))
        need(out32(&payload, FANOUT))
        need(out8(&payload, UINT64))
        need(out32(&payload, len(levels)))
        for below in reversed(levels):
            need(out64(&payload, len(below) // 32))
            need(out_bytes(&payload, <const char*>below, len(below)))
        return write_generic_tile(out, &payload)
    finally:
        out_free(&payload)


cdef const uint64_t* parse_rtree(_Input file, uint64_t position, uint64_t ntiles) except NULL:
    """The leaves: a box a tile."""
    cdef uint64_t n = 0, nodes = 0, levels, _level
    cdef const uint8_t* payload = parse_generic_tile(file, position, &n)
    cdef const uint8_t* leaves = NULL
    cdef Cursor c = cursor(payload, n)
    if take32(&c) != 2 or take32(&c) != FANOUT or take8(&c) != UINT64:
        file.refuse(position, "not an R-tree of two uint64 dimensions")
    levels = take32(&c)
    for _level in range(levels):
        nodes = take64(&c)
        if c.failed or nodes > c.left // 32:
            file.refuse(position, "an R-tree that ends early")
        leaves = take(&c, 32 * nodes)
    if nodes != ntiles or (<size_t>leaves) % 8:
        file.refuse(position, f"an R-tree with {nodes} leaves for {ntiles} tiles")
    return <const uint64_t*>leaves


cdef int write_vector(Out* out, Out* footer, const uint64_t* values, uint64_t n) except -1:
    """n numbers, aligned to eight bytes; their position goes into the footer."""
    cdef Out payload
    memset(&payload, 0, sizeof(payload))
    pad(out, 8)
    need(out64(footer, out.size))
    try:
        need(out64(&payload, n))
        if n:
            need(out_bytes(&payload, values, 8 * n))
        return write_generic_tile(out, &payload)
    finally:
        out_free(&payload)


cdef const uint64_t* parse_vector(_Input file, uint64_t position, uint64_t expected) except? NULL:
    cdef uint64_t n = 0
    cdef const uint8_t* payload = parse_generic_tile(file, position, &n)
    if n != 8 + 8 * expected or load64(payload) != expected or (<size_t>payload) % 8:
        file.refuse(position, f"a vector of {expected} numbers expected")
    return <const uint64_t*>(payload + 8) if expected else NULL


# --- generic tiles (docs/format.md 3 and 4.3), raw and of one chunk ---------------------------------------------------

cdef int write_generic_tile(Out* out, const Out* payload) except -1:
    cdef size_t n = payload.size
    if n > 0xFFFFFFFF:
        raise ValueError("more than 536,870,910 tiles in one fragment")
    need(out32(out, FORMAT_VERSION))
    need(out64(out, 8 + 12 + PRIVATE_META + n))
    need(out64(out, n))
    need(out8(out, CHAR))
    need(out64(out, 1))                                         # cell size
    need(out8(out, 0))                                          # not encrypted
    need(out32(out, 8))
    need(out32(out, 0))                                         # the empty pipeline
    need(out32(out, 0))
    need(out64(out, 1))
    need(out32(out, <uint32_t>n))
    need(out32(out, <uint32_t>n))
    need(out32(out, PRIVATE_META))
    need(out32(out, tkv_crc32c(0, payload.data, n)))
    need(out_bytes(out, b"\0\0\0\0\0\0", 6))
    return need(out_bytes(out, payload.data, n))


cdef const uint8_t* parse_generic_tile(_Input file, uint64_t position, uint64_t* n) except NULL:
    """The payload, its checksum verified."""
    cdef Cursor c
    cdef uint64_t size, body
    cdef uint32_t crc, version
    cdef const uint8_t* payload = NULL
    if position > file.size:
        file.refuse(position, "a metadata tile beyond the file")
    c = cursor(file.data + position, file.size - position)
    file.skip_padding(position)
    version = take32(&c)
    body = take64(&c)
    size = take64(&c)
    if (version != FORMAT_VERSION or body != 8 + 12 + PRIVATE_META + size
            or take8(&c) != CHAR or take64(&c) != 1 or take8(&c) != 0                # datatype, cell size, encryption
            or take32(&c) != 8 or take32(&c) != 0 or take32(&c) != 0 or take64(&c) != 1   # an empty pipeline, one chunk
            or take32(&c) != size or take32(&c) != size or take32(&c) != PRIVATE_META):
        file.refuse(position, "not a raw metadata tile of one chunk")
    crc = take32(&c)
    if take32(&c) != 0 or take16(&c) != 0:
        file.refuse(position, "private bytes that are not zero")
    payload = take(&c, size)
    if payload == NULL or size == 0:
        file.refuse(position, f"a metadata tile of {size} bytes")
    if tkv_crc32c(0, payload, size) != crc:
        file.refuse(position, "a metadata tile fails its checksum")
    file.seen += TILE_PAYLOAD + size
    n[0] = size
    return payload


# --- the records of the private block (docs/format.md 8.7) ------------------------------------------------------------

cdef int write_records(Out* out, Metadata metadata) except -1:
    cdef int slot
    need(out32(out, TAG_IDENTITY))
    need(out32(out, 48))
    need(out_bytes(out, metadata.uuid, 16))
    need(out64(out, metadata.t1))
    need(out64(out, metadata.t2))
    need(out64(out, metadata.cells))
    need(out64(out, metadata.tombstones))
    if metadata.sources:
        names = b"".join(len(name).to_bytes(4, "little") + name for name in (s.encode() for s in metadata.sources))
        need(out32(out, TAG_SOURCES))
        need(out32(out, len(names)))
        need(out_bytes(out, <const char*>names, len(names)))
        pad(out, 8)
    if metadata.bound:
        need(out32(out, TAG_BOUND))
        need(out32(out, 0))
    if metadata.expired:
        need(out32(out, TAG_EXPIRED))
        need(out32(out, 8))
        need(out64(out, metadata.expired))
    for slot in range(metadata.layout.nslots):
        if metadata.files[slot].first_chunk != NULL:
            write_directory(out, slot, &metadata.files[slot], metadata.ntiles)
    return 0


cdef int parse_records(_Input file, Metadata metadata, const uint8_t* block, size_t n) except -1:
    cdef Cursor c = cursor(block, n)
    cdef Cursor names
    cdef uint32_t tag, size
    cdef uint64_t expected = (metadata.ntiles - 1) * metadata.layout.capacity + metadata.last_tile_cells
    cdef const uint8_t* payload
    cdef const uint8_t* at
    sources = []
    while c.left:
        tag = take32(&c)
        size = take32(&c)
        payload = take(&c, size)
        take(&c, (8 - size % 8) % 8)
        if c.failed:
            file.refuse(block - file.data, "a record that is longer than the private block")
        if tag == TAG_IDENTITY and size == 48:
            metadata.uuid = payload
            metadata.t1 = load64(payload + 16)
            metadata.t2 = load64(payload + 24)
            metadata.cells = load64(payload + 32)
            metadata.tombstones = load64(payload + 40)
        elif tag == TAG_SOURCES:
            names = cursor(payload, size)
            while names.left:
                size = take32(&names)
                at = take(&names, size)
                if at == NULL:
                    file.refuse(payload - file.data, "a list of sources that ends early")
                try:
                    sources.append(at[:size].decode())
                except UnicodeDecodeError:
                    file.refuse(payload - file.data, "a source whose name is not text")
        elif tag == TAG_BOUND:
            metadata.bound = True
        elif tag == TAG_EXPIRED and size == 8:
            metadata.expired = load64(payload)
        elif tag == TAG_CHUNKS:
            parse_directory(file, metadata, payload, size)
    metadata.sources = tuple(sources)
    if metadata.uuid == NULL or metadata.cells != expected or metadata.tombstones > metadata.cells:
        file.refuse(block - file.data, f"{metadata.cells} cells in the private block, {expected} in the footer")
    name = f"__{metadata.t1}_{metadata.t2}_{metadata.uuid[:16].hex()}"
    if file.name != name:
        file.refuse(block - file.data, f"this is fragment {name} under another name")
    return 0


cdef int write_directory(Out* out, uint32_t slot, const FileTable* table, uint64_t ntiles) except -1:
    cdef uint32_t width = 4
    cdef size_t i, at
    for i in range(2 * table.nchunks):
        if load64(table.chunks + 8 * i) > 0xFFFFFFFF:
            width = 8
            break
    need(out32(out, TAG_CHUNKS))
    need(out32(out, 0))                                         # the size, set below
    at = out.size
    need(out32(out, slot))
    need(out32(out, width))
    need(out64(out, table.nchunks))
    need(out_bytes(out, table.first_chunk, 4 * ntiles))
    need(out32(out, <uint32_t>table.nchunks))
    pad(out, 8)
    for i in range(2 * table.nchunks):
        if width == 8:
            need(out64(out, load64(table.chunks + 8 * i)))
        else:
            need(out32(out, <uint32_t>load64(table.chunks + 8 * i)))
    if out.size - at > 0xFFFFFFF0:
        raise ValueError("the chunk directory of one file is over 4 GiB")
    store32(out.data + at - 4, <uint32_t>(out.size - at))
    return pad(out, 8)


cdef int parse_directory(_Input file, Metadata metadata, const uint8_t* at, size_t n) except -1:
    cdef Cursor c = cursor(at, n)
    cdef uint32_t slot = take32(&c), width = take32(&c)
    cdef uint64_t nchunks = take64(&c)
    cdef uint64_t starts = (4 * (metadata.ntiles + 1) + 7) // 8 * 8
    cdef int nf = metadata.layout.nf
    cdef FileTable* table
    if (c.failed or slot >= <uint32_t>metadata.layout.nslots or slot == <uint32_t>metadata.layout.coords
            or (slot > <uint32_t>nf and not metadata.layout.is_var(slot - nf - 1))      # no file has that number
            or width not in (4, 8) or nchunks > n or n != 16 + starts + 2 * width * nchunks):
        file.refuse(at - file.data, "a chunk directory that fits no file")
    table = &metadata.files[slot]
    table.first_chunk = <const uint32_t*>take(&c, starts)
    table.chunks = take(&c, 2 * width * nchunks)
    table.width = width
    table.nchunks = nchunks
    if table.first_chunk[metadata.ntiles] != nchunks:
        file.refuse(at - file.data, "a chunk directory that counts its chunks wrongly")
    return 0


# --- trailers of data files (docs/format.md 8.8) ----------------------------------------------------------------------

def trailer(bytes uuid not None, uint32_t slot):
    """What ends the file of a slot, so that it is taken for no other fragment's and no other attribute's."""
    return uuid + slot.to_bytes(4, "little")


cdef bint trailer_fits(const uint8_t* at, const uint8_t* uuid, uint32_t slot) noexcept nogil:
    return memcmp(at, uuid, 16) == 0 and load32(at + 16) == slot
