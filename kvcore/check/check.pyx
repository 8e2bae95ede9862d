"""Everything that can be checked of one fragment: each chunk, each digest against its key, the order of all cells, and that
text is text. All that is wrong is listed: damage to one tile does not keep the others from being looked at."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from tilekv.kvcore.base.file cimport FILE_BEYOND, file_renew
from tilekv.kvcore.base.wire cimport Out, load64, out_bytes, out_free, out_room
from tilekv.kvcore.codec.pipeline cimport CORRUPT, NO_MEMORY, OK, Status, Windows
from tilekv.kvcore.format.bloom cimport (BLOOM_PAGE, Bloom, bloom_at, bloom_block, bloom_check, bloom_pages, tkv_bloom_has)
from tilekv.kvcore.format.datatypes cimport UTF8
from tilekv.kvcore.format.footer cimport NOT_UNIFORM
from tilekv.kvcore.format.layout cimport KEY_FIELD, SLOT_COORDS, SLOT_OFFSETS, TOMBSTONE
from tilekv.kvcore.hashing.coords cimport compare_keys
from tilekv.kvcore.hashing.digest cimport KeyRef, digest_keys
from tilekv.kvcore.read.chunk_reader cimport (ReadContext, FragmentData, Pin, Span, context_close, fragment_bound,
                                              fragment_bytes, fragment_cell, fragment_coords, fragment_decode, fragment_key,
                                              fragment_place, offsets_ascend, plain_windows, tile_cells, uniform_of, unpin)
from tilekv.kvcore.read.fragment cimport Fragment

cdef extern from "base/utf8.h" nogil:
    bint tkv_utf8_valid(const uint8_t* at, size_t n)


cdef const char* DISORDER = b"its cell is not after the one before it: keys or coordinates are out of order"
cdef const char* MISPLACED = b"its coordinates are not the digest of its key"
cdef const char* UNFILTERED = b"the Bloom filter does not know its key"
cdef const char* BOUNDS = b"its coordinates are outside the bounds that the metadata gives its tile"


# What check_tile_cells() carries from one tile to the next.
cdef struct Walk:
    ReadContext context
    Out before                  # the key of the cell before
    uint64_t c0, c1
    uint64_t type               # of the cell before plus one; 0 when there is none, or it could not be read
    uint64_t deletes
    uint64_t wrong              # cells of this tile
    uint64_t cell               # the first of them
    const char* reason          # what is wrong with it


def check_fragment(Fragment fragment not None):
    """All that is wrong, as a list of (file, offset or None, message). MemoryError; reading errors are among the problems."""
    cdef FragmentData* f = &fragment.data
    cdef int slot, field
    cdef uint64_t tile
    cdef list problems = []
    damaged = {}                                                # tiles by slot
    for slot in range(fragment.layout.nslots):
        if fragment.files[slot] is None:
            continue
        size = fragment.size_of(slot)
        expected = f.slots[slot].size + fragment.trailer
        if size != expected:
            problems.append((fragment.files[slot], min(size, expected), f"{size} bytes, {expected} by the metadata"))
        damaged[slot] = set()
        if size >= expected and not check_trailer(fragment, slot, problems):
            damaged[slot] = set(range(f.ntiles))
            continue
        for tile in range(f.ntiles):
            if size < expected and f.slots[slot].tile_at[tile] + 8 > size:
                damaged[slot].add(tile)                         # cut off: the size says so
                continue
            PyErr_CheckSignals()
            before = len(problems)
            check_tile(fragment, slot, tile, problems)
            if len(problems) > before:
                damaged[slot].add(tile)
    keys = (f.nf, f.key_type, KEY_FIELD, fragment.layout.bytes_slot(KEY_FIELD))
    check_cells(fragment, set().union(*(damaged[slot] for slot in keys)), problems)
    for field in range(1, f.nf - 1):
        if fragment.layout.is_var(field):
            check_values(fragment, field, damaged[field] | damaged[fragment.layout.bytes_slot(field)], problems)
    return problems


cdef bint check_trailer(Fragment fragment, int slot, list problems) except -1:
    cdef ReadContext context
    cdef Status status
    memset(&context, 0, sizeof(context))
    try:
        with nogil:
            status = fragment_bound(&fragment.data, slot, &context)
        fragment.demand(&context, status)
        if status != OK:
            problems.append((fragment.files[slot], context.offset, "its end does not say that it is this file of this fragment"))
        return status == OK
    finally:
        context_close(&context, fragment.data.codecs)


cdef bint as_alike(const FragmentData* f, int slot, uint64_t tile, const uint8_t* data, uint64_t n) noexcept nogil:
    """Whether the key types of a chunk, or the offsets of a tile, are what the metadata says of all of them, if anything."""
    cdef uint32_t common
    cdef uint64_t i
    if slot == f.key_type:
        common = uniform_of(&f.slots[slot], tile)
        for i in range(n if common != NOT_UNIFORM else 0):
            if data[i] != common:
                return False
    elif f.kinds[slot].kind == SLOT_OFFSETS:
        common = uniform_of(&f.slots[f.nf + 1 + slot], tile)
        for i in range(n // 8 if common != NOT_UNIFORM else 0):
            if load64(data + 8 * i) != i * common:
                return False
    return True


cdef int check_tile(Fragment fragment, int slot, uint64_t tile, list problems) except -1:
    """The chunks of one tile, and what its bytes say of their number; for offsets, that they ascend within the tile."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t first, last, index, position = 0, stored = 0, start = 0, raw = 0
    cdef uint64_t begin = f.slots[slot].tile_at[tile]
    cdef const uint8_t* at = NULL
    cdef ReadContext context
    cdef Out scratch
    cdef uint8_t* into
    cdef Status status = OK
    cdef Windows offsets
    cdef bint ascending = True, alike = True
    if f.kinds[slot].kind == SLOT_COORDS:
        first, last = 2 * tile, 2 * tile + 2
    elif f.slots[slot].first_chunk == NULL:
        first, last = tile, tile + 1
    else:
        first, last = f.slots[slot].first_chunk[tile], f.slots[slot].first_chunk[tile + 1]
    memset(&context, 0, sizeof(context))
    memset(&scratch, 0, sizeof(scratch))
    file = fragment.files[slot]
    try:
        status = fragment_bytes(f, slot, begin, 8, &context, &at)
        fragment.demand(&context, status)
        if status != OK:
            problems.append((file, begin, f"tile {tile} is not inside the file"))
            return 0
        if load64(at) != last - first and file_renew(&f.slots[slot].file, begin, 8) != FILE_BEYOND:
            fragment.demand(&context, fragment_bytes(f, slot, begin, 8, &context, &at))
        if load64(at) != last - first:
            problems.append((file, begin, f"tile {tile} counts {load64(at)} chunks, {last - first} by the metadata"))
        for index in range(first, last):
            with nogil:
                status = fragment_place(f, slot, tile, index, &position, &stored, &start, &raw)
                if status == OK:
                    scratch.size = 0
                    into = out_room(&scratch, raw)
                    status = NO_MEMORY if into == NULL else fragment_decode(f, slot, tile, index, &context, into, raw)
                    if status == OK and f.kinds[slot].kind == SLOT_OFFSETS:
                        plain_windows(&offsets, into)
                        ascending = offsets_ascend(&offsets, raw // 8, f.slots[f.nf + 1 + slot].raw_size[tile])
                    if status == OK:
                        alike = as_alike(f, slot, tile, into, raw)
            fragment.demand(&context, status)
            if status != OK:
                problems.append((file, position if position else begin, f"chunk {index - first} of tile {tile} is damaged"))
            elif not ascending:
                problems.append((file, position, f"the offsets of tile {tile} do not ascend within its bytes"))
            elif not alike:
                problems.append((file, position, f"the cells of tile {tile} are not as alike as the metadata says"))
    finally:
        out_free(&scratch)
        context_close(&context, f.codecs)
    return 0


cdef bint check_bloom(Fragment fragment, list problems) except -1:
    """Whether there is a Bloom filter, and the checksums of its pages hold."""
    cdef const Bloom* bloom = &fragment.data.bloom
    cdef uint64_t page
    sound = bloom.blocks > 0
    for page in range(bloom_pages(bloom.blocks)):
        if not bloom_check(bloom, page):
            problems.append(("__fragment_metadata.tdb", bloom_at(bloom, page * BLOOM_PAGE) - fragment._meta,
                             f"page {page} of the Bloom filter fails its checksum"))
            sound = False
    return sound


cdef int check_cells(Fragment fragment, set damaged, list problems) except -1:
    """Digests, order and bounds of the cells of all tiles but those, and how many are deletes."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t tile
    cdef Walk walk
    cdef Status status = OK
    cdef bint whole = not damaged
    cdef bint filtered = check_bloom(fragment, problems)
    memset(&walk, 0, sizeof(walk))
    try:
        for tile in range(f.ntiles):
            PyErr_CheckSignals()
            walk.wrong = 0
            if tile in damaged:
                walk.type = 0
                continue
            with nogil:
                status = check_tile_cells(fragment, tile, filtered, &walk)
            fragment.demand(&walk.context, status)
            if status != OK:
                problems.append((fragment.files[walk.context.slot], walk.context.offset, f"tile {tile} cannot be read"))
                walk.type = 0
                whole = False
            if walk.wrong:
                more = f", and {walk.wrong - 1} more cells of this tile" if walk.wrong > 1 else ""
                problems.append(("__coords.tdb", f.slots[f.nf].tile_at[tile],
                                 f"cell {walk.cell} of tile {tile}: {walk.reason.decode()}{more}"))
        if whole and walk.deletes != fragment.tombstones:
            problems.append(("__fragment_metadata.tdb", None,
                             f"{fragment.tombstones} deletes by the metadata, {walk.deletes} found"))
    finally:
        out_free(&walk.before)
        context_close(&walk.context, f.codecs)
    return 0


cdef Status check_tile_cells(Fragment fragment, uint64_t tile, bint filtered, Walk* walk) noexcept nogil:
    """filtered: whether there is a Bloom filter, all of it sound."""
    cdef FragmentData* f = &fragment.data
    cdef Pin pins[2]
    cdef Span span
    cdef KeyRef key, earlier
    cdef uint64_t c0, c1
    cdef uint64_t d[2]
    cdef uint64_t j
    cdef int difference
    cdef const char* reason
    cdef Status status = fragment_coords(f, tile, 0, &walk.context, &pins[0])
    if status != OK:
        return status
    status = fragment_coords(f, tile, 1, &walk.context, &pins[1])
    if status != OK:
        unpin(f, &pins[0])
        return status
    for j in range(tile_cells(f, tile)):
        status = fragment_key(f, tile, j, &walk.context, &span, &key)
        if status != OK:
            break
        walk.deletes += (key.type & TOMBSTONE) != 0
        key.type &= ~TOMBSTONE
        c0 = load64(pins[0].data + 8 * j)
        c1 = load64(pins[1].data + 8 * j)
        digest_keys(fragment.layout.digest, &key, 1, &d[0], &d[1])
        reason = NULL
        if c0 != d[0] or c1 != d[1]:
            reason = MISPLACED
        elif not (f.leaves[4 * tile] <= c0 <= f.leaves[4 * tile + 1] and f.leaves[4 * tile + 2] <= c1 <= f.leaves[4 * tile + 3]):
            reason = BOUNDS
        elif (j == 0 and c0 != f.leaves[4 * tile]) or (j + 1 == tile_cells(f, tile) and c0 != f.leaves[4 * tile + 1]):
            reason = BOUNDS             # a search takes them for the first and last coordinate
        elif filtered and not tkv_bloom_has(bloom_at(&f.bloom, bloom_block(&f.bloom, c0)), <uint32_t>c1):
            reason = UNFILTERED
        elif walk.type:
            difference = (c0 > walk.c0) - (c0 < walk.c0)
            if difference == 0:
                difference = (c1 > walk.c1) - (c1 < walk.c1)
            if difference == 0:
                earlier.data = walk.before.data
                earlier.size = walk.before.size
                earlier.type = <uint8_t>(walk.type - 1)
                difference = compare_keys(&key, &earlier)
            if difference <= 0:
                reason = DISORDER
        if reason != NULL:
            if walk.wrong == 0:
                walk.cell = j
                walk.reason = reason
            walk.wrong += 1
        walk.c0 = c0
        walk.c1 = c1
        walk.type = <uint64_t>key.type + 1
        walk.before.size = 0
        if out_bytes(&walk.before, key.data, key.size) < 0:
            status = NO_MEMORY
        unpin(f, &span.pin)
        if status != OK:
            break
    unpin(f, &pins[0])
    unpin(f, &pins[1])
    return status


cdef int check_values(Fragment fragment, int field, set damaged, list problems) except -1:
    """What a checksum cannot tell of a var field: that text is UTF-8, and an array a whole number of elements."""
    cdef FragmentData* f = &fragment.data
    cdef int slot = fragment.layout.bytes_slot(field)
    cdef bint text = fragment.layout.fields[field][1] == UTF8
    cdef uint64_t tile, j = 0, element = f.kinds[slot].pipeline.element_bytes
    cdef ReadContext context
    cdef Span span
    cdef Status status = OK
    cdef bint sound = True
    if not text and element == 1:
        return 0
    memset(&context, 0, sizeof(context))
    try:
        for tile in range(f.ntiles):
            if tile in damaged:
                continue
            PyErr_CheckSignals()
            with nogil:
                for j in range(tile_cells(f, tile)):
                    status = fragment_cell(f, field, tile, j, &context, &span)
                    if status != OK:
                        break
                    sound = tkv_utf8_valid(span.data, span.size) if text else span.size % element == 0
                    unpin(f, &span.pin)
                    if not sound:
                        status = CORRUPT
                        break
            fragment.demand(&context, status)
            if status != OK:
                what = f"tile {tile} cannot be read"
                if not sound:
                    what = f"cell {j} of tile {tile} is no {'text' if text else 'array'}"
                problems.append((fragment.files[slot], f.slots[slot].tile_at[tile], what))
                status = OK
                sound = True
    finally:
        context_close(&context, f.codecs)
    return 0
