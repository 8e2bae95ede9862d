cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import re

from tilekv.errors import CorruptionError

from tilekv.kvcore.base.crc32c cimport tkv_crc32c
from tilekv.kvcore.base.wire cimport (Cursor, Out, cursor, load32, load64, out8, out32, out64, out_bytes, out_free, out_room,
                                      store32, take, take8, take16, take32, take64)
from tilekv.kvcore.format.bloom cimport BLOOM_BLOCK, bloom_bytes
from tilekv.kvcore.format.datatypes cimport CHAR, UINT64
from tilekv.kvcore.format.layout cimport COORDS_TILE, MAX_CHUNK

_is_fragment = re.compile("__[0-9]{1,20}_[0-9]{1,20}_[0-9a-f]{32}").fullmatch

cdef enum:
    MOST_BYTES = 0xFFFFFFFF     # that a size of 32 bits can say


@cython.final
@cython.no_gc                   # in no cycle; __dealloc__ needs the pointer only
cdef class Metadata:
    def __cinit__(self, Layout layout not None):
        self.layout = layout
        self.sources = ()
        self.first_output = ""
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

    cdef int skip_padding(self, uint64_t position, uint64_t alignment=8) except -1:
        """From what was parsed last to the next part: no gap but for alignment, and only zeros in it."""
        if position < self.seen or position - self.seen >= alignment:
            self.refuse(position, "parts of the metadata that do not follow one another")
        while self.seen < position:
            if self.data[self.seen]:
                self.refuse(self.seen, "padding that is not zero")
            self.seen += 1
        return 0


cdef int pad(Out* out, size_t to) except -1 nogil:
    while out.size % to:
        need(out8(out, 0))
    return 0


# --- the file (docs/format.md 8.6) ------------------------------------------------------------------------------------

cdef bytes write_metadata(Metadata metadata):
    cdef bytes sources = b"".join(len(name).to_bytes(4, "little") + name for name in (s.encode() for s in metadata.sources))
    cdef bytes origin = metadata.first_output.encode() or sources
    cdef const char* names = origin
    cdef size_t names_size = len(origin)
    cdef Tag tag = TAG_FIRST if metadata.first_output else TAG_SOURCES
    cdef Out out
    cdef char* copy
    memset(&out, 0, sizeof(out))
    try:
        with nogil:
            write_parts(&out, metadata, tag, <const uint8_t*>names, names_size)
        data = PyBytes_FromStringAndSize(NULL, out.size)
        copy = PyBytes_AS_STRING(data)
        with nogil:
            memcpy(copy, out.data, out.size)
        return data
    finally:
        out_free(&out)


cdef int write_parts(Out* out, Metadata metadata, Tag tag, const uint8_t* names, size_t names_size) except -1 nogil:
    cdef Out footer
    cdef size_t records, pages = 0
    cdef uint32_t crc
    memset(&footer, 0, sizeof(footer))
    try:
        need(out_bytes(out, b"\0\0\0", RTREE_AT))
        write_footer(out, &footer, metadata)
        if metadata.bloom.blocks:
            pad(out, BLOOM_ALIGNMENT)
            pages = out.size
            need(out_bytes(out, metadata.bloom.data, bloom_bytes(metadata.bloom.blocks)))
        pad(out, 8)
        records = out.size
        write_records(out, metadata, pages, tag, names, names_size)
        if out.size - records > MOST_BYTES:
            with gil:
                raise ValueError("the chunk directory of one fragment is over 4 GiB")
        need(out32(out, <uint32_t>(out.size - records)))
        crc = tkv_crc32c(0, out.data + records, out.size - records)
        need(out32(out, tkv_crc32c(crc, footer.data, footer.size)))
        need(out32(out, BLOCK_MAGIC))
        need(out_bytes(out, footer.data, footer.size))
    finally:
        out_free(&footer)
    return 0


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
    parse_records(file, metadata, tail - length, length)
    file.skip_padding(footer_at - BLOCK_TAIL - length)
    for slot, _, _ in layout.files:
        check_tiles(file, metadata, slot)
    return metadata


cdef inline uint64_t metadata_cells(Metadata metadata, uint64_t tile) noexcept:
    """Of a tile."""
    return metadata.layout.capacity if tile + 1 < metadata.ntiles else metadata.last_tile_cells


cdef int check_tiles(_Input file, Metadata metadata, int slot) except -1:
    """Every tile of a file has chunks of its own, and no more cells or bytes than they can hold: what is decoded for one tile
    is never taken for another's, and no count makes anybody ask for memory before a chunk has shown that it is true."""
    cdef const FileTable* table = &metadata.files[slot]
    cdef uint64_t tile, chunks = 1, size
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
        if table.raw_size != NULL and table.nuniform:
            size = table.uniform[tile if table.nuniform > 1 else 0]
            if size != NOT_UNIFORM and size * metadata_cells(metadata, tile) != table.raw_size[tile]:
                file.refuse(<const uint8_t*>table.uniform - file.data,
                            f"a tile of {table.raw_size[tile]} bytes whose cells have {size} each")
    return 0


# --- the footer, and what it points to (docs/format.md 6) -------------------------------------------------------------

cdef int write_footer(Out* out, Out* footer, Metadata metadata) except -1 nogil:
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


cdef int write_rtree(Out* out, const uint64_t* boxes, uint64_t n) except -1 nogil:
    """Levels from the root to the leaves; a box is the union of FANOUT below it."""
    cdef uint64_t nodes[21]                                     # by level, the leaves first: 10^20 is more than 2^64
    cdef size_t at[21]                                          # where its boxes begin in `out`
    cdef size_t start = begin_generic_tile(out)
    cdef Py_ssize_t levels = 1, level
    cdef uint64_t* above
    cdef const uint64_t* below
    cdef uint64_t i
    nodes[0] = n
    while nodes[levels - 1] > 1:
        nodes[levels] = (nodes[levels - 1] + FANOUT - 1) // FANOUT
        levels += 1
    need(out32(out, 2))
    need(out32(out, FANOUT))
    need(out8(out, UINT64))
    need(out32(out, <uint32_t>levels))
    for level in range(levels - 1, -1, -1):
        need(out64(out, nodes[level]))
        at[level] = out.size
        if level:
            if out_room(out, 32 * nodes[level]) == NULL:
                need(-1)
            out.size += 32 * nodes[level]
        else:
            need(out_bytes(out, boxes, 32 * n))
    for level in range(1, levels):
        below = <const uint64_t*>(out.data + at[level - 1])
        above = <uint64_t*>(out.data + at[level])
        for i in range(nodes[level - 1]):
            if i % FANOUT == 0:
                memcpy(above + 4 * (i // FANOUT), below + 4 * i, 32)
            else:
                unite(above + 4 * (i // FANOUT), below + 4 * i)
    return end_generic_tile(out, start)


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


cdef int write_vector(Out* out, Out* footer, const uint64_t* values, uint64_t n) except -1 nogil:
    """n numbers, aligned to eight bytes; their position goes into the footer."""
    cdef size_t start
    pad(out, 8)
    need(out64(footer, out.size))
    start = begin_generic_tile(out)
    need(out64(out, n))
    if n:
        need(out_bytes(out, values, 8 * n))
    return end_generic_tile(out, start)


cdef const uint64_t* parse_vector(_Input file, uint64_t position, uint64_t expected) except? NULL:
    cdef uint64_t n = 0
    cdef const uint8_t* payload = parse_generic_tile(file, position, &n)
    if n != 8 + 8 * expected or load64(payload) != expected or (<size_t>payload) % 8:
        file.refuse(position, f"a vector of {expected} numbers expected")
    return <const uint64_t*>(payload + 8) if expected else NULL


# --- generic tiles (docs/format.md 3 and 4.3), raw and of one chunk ---------------------------------------------------

cdef size_t begin_generic_tile(Out* out) except 0 nogil:
    """Room for what stands before a payload; where that begins. The payload is appended, then end_generic_tile() called."""
    if out_room(out, TILE_PAYLOAD) == NULL:
        need(-1)
    out.size += TILE_PAYLOAD
    return out.size


cdef int end_generic_tile(Out* out, size_t start) except -1 nogil:
    cdef size_t n = out.size - start
    cdef Out head
    if n > MOST_BYTES:
        with gil:
            raise ValueError("more than 536,870,910 tiles in one fragment")
    head.data = out.data + start - TILE_PAYLOAD                 # there is room: nothing of this can fail
    head.size = 0
    head.capacity = TILE_PAYLOAD
    out32(&head, FORMAT_VERSION)
    out64(&head, 8 + 12 + PRIVATE_META + n)
    out64(&head, n)
    out8(&head, CHAR)
    out64(&head, 1)                                             # cell size
    out8(&head, 0)                                              # not encrypted
    out32(&head, 8)
    out32(&head, 0)                                             # the empty pipeline
    out32(&head, 0)
    out64(&head, 1)
    out32(&head, <uint32_t>n)
    out32(&head, <uint32_t>n)
    out32(&head, PRIVATE_META)
    out32(&head, tkv_crc32c(0, out.data + start, n))
    out_bytes(&head, b"\0\0\0\0\0\0", 6)
    return 0


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

cdef int write_records(Out* out, Metadata metadata, size_t pages, Tag tag, const uint8_t* names,
                       size_t names_size) except -1 nogil:
    """The small ones last, beside the footer: one read of the file's end brings them. pages: the filter's position; names: what
    tells the sources, as it is stored under `tag`."""
    cdef int slot
    for slot in range(metadata.layout.nslots):
        if metadata.files[slot].first_chunk != NULL:
            write_directory(out, slot, &metadata.files[slot], metadata.ntiles)
    for slot in range(metadata.layout.nslots):
        if metadata.files[slot].nuniform:
            write_uniform(out, slot, &metadata.files[slot])
    need(out32(out, TAG_IDENTITY))
    need(out32(out, 48))
    need(out_bytes(out, metadata.uuid, 16))
    need(out64(out, metadata.t1))
    need(out64(out, metadata.t2))
    need(out64(out, metadata.cells))
    need(out64(out, metadata.tombstones))
    if names_size:
        need(out32(out, tag))
        need(out32(out, <uint32_t>names_size))
        need(out_bytes(out, names, names_size))
        pad(out, 8)
    if metadata.bound:
        need(out32(out, TAG_BOUND))
        need(out32(out, 0))
    if metadata.expired:
        need(out32(out, TAG_EXPIRED))
        need(out32(out, 8))
        need(out64(out, metadata.expired))
    if metadata.bloom.blocks:
        need(out32(out, TAG_BLOOM))
        need(out32(out, 32))
        need(out64(out, pages))
        need(out64(out, metadata.bloom.blocks))
        need(out64(out, metadata.bloom.low))
        need(out64(out, metadata.bloom.factor))
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
        elif tag == TAG_FIRST:
            name = payload[:size].decode("latin-1")
            if not _is_fragment(name):
                file.refuse(payload - file.data, "the first output of the consolidation, whose name is no fragment's")
            metadata.first_output = name
        elif tag == TAG_BOUND:
            metadata.bound = True
        elif tag == TAG_EXPIRED and size == 8:
            metadata.expired = load64(payload)
        elif tag == TAG_BLOOM and size == 32:
            parse_bloom(file, metadata, payload, block)
        elif tag == TAG_UNIFORM:
            parse_uniform(file, metadata, payload, size)
        elif tag == TAG_CHUNKS:
            parse_directory(file, metadata, payload, size)
    metadata.sources = tuple(sources)
    if metadata.uuid == NULL or metadata.cells != expected or metadata.tombstones > metadata.cells:
        file.refuse(block - file.data, f"{metadata.cells} cells in the private block, {expected} in the footer")
    name = f"__{metadata.t1}_{metadata.t2}_{metadata.uuid[:16].hex()}"
    if file.name != name:
        file.refuse(block - file.data, f"this is fragment {name} under another name")
    return 0


cdef int write_directory(Out* out, uint32_t slot, const FileTable* table, uint64_t ntiles) except -1 nogil:
    cdef uint32_t width = 4
    cdef size_t i, at
    for i in range(2 * table.nchunks):
        if load64(table.chunks + 8 * i) > MOST_BYTES:
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
    if out.size - at > MOST_BYTES - 15:
        with gil:
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


cdef int write_uniform(Out* out, uint32_t slot, const FileTable* table) except -1 nogil:
    """Nothing, where no tile is uniform; one number, where all are alike."""
    cdef uint64_t i, n = 1
    for i in range(1, table.nuniform):
        if table.uniform[i] != table.uniform[0]:
            n = table.nuniform
            break
    if n == 1 and table.uniform[0] == NOT_UNIFORM:
        return 0
    need(out32(out, TAG_UNIFORM))
    need(out32(out, <uint32_t>(8 + 4 * n)))
    need(out32(out, slot))
    need(out32(out, <uint32_t>n))
    need(out_bytes(out, table.uniform, 4 * n))
    return pad(out, 8)


cdef int parse_uniform(_Input file, Metadata metadata, const uint8_t* at, size_t size) except -1:
    cdef Cursor c = cursor(at, size)
    cdef uint32_t slot = take32(&c), n = take32(&c), i
    cdef int nf = metadata.layout.nf
    cdef FileTable* table
    if (c.failed or size != 8 + 4 * <uint64_t>n or (n != 1 and n != metadata.ntiles)
            or not (slot == <uint32_t>metadata.layout.key_type
                    or (<uint32_t>nf < slot < <uint32_t>metadata.layout.nslots and metadata.layout.is_var(slot - nf - 1)))):
        file.refuse(at - file.data, "what the cells of tiles have in common, of no file")
    table = &metadata.files[slot]
    table.uniform = <const uint32_t*>take(&c, 4 * n)
    table.nuniform = n
    for i in range(n):
        if slot == <uint32_t>metadata.layout.key_type and 0xFF < table.uniform[i] < NOT_UNIFORM:
            file.refuse(at - file.data, f"a key type of {table.uniform[i]}")
    return 0


cdef int parse_bloom(_Input file, Metadata metadata, const uint8_t* at, const uint8_t* block) except -1:
    """Where the filter is; its pages are checked when they are looked into."""
    cdef uint64_t position = load64(at), blocks = load64(at + 8), records = block - file.data
    if blocks == 0 or blocks > records // BLOOM_BLOCK or position > records or bloom_bytes(blocks) > records - position:
        file.refuse(at - file.data, f"a filter of {blocks} blocks that the file has no room for")
    file.skip_padding(position, BLOOM_ALIGNMENT)
    file.seen += bloom_bytes(blocks)
    metadata.bloom.data = file.data + position
    metadata.bloom.blocks = blocks
    metadata.bloom.low = load64(at + 16)
    metadata.bloom.factor = load64(at + 24)
    return 0


# --- trailers of data files (docs/format.md 8.8) ----------------------------------------------------------------------

def trailer(bytes uuid not None, uint32_t slot):
    """What ends the file of a slot, so that it is taken for no other fragment's and no other attribute's."""
    return uuid + slot.to_bytes(4, "little")


cdef bint trailer_fits(const uint8_t* at, const uint8_t* uuid, uint32_t slot) noexcept nogil:
    return memcmp(at, uuid, 16) == 0 and load32(at + 16) == slot
