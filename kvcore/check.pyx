"""Everything that can be checked of one fragment: each chunk, each digest against its key, and the order of all cells."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from tilekv.kvcore.codec cimport NO_MEMORY, OK, Status
from tilekv.kvcore.coords cimport compare_keys
from tilekv.kvcore.digest cimport KeyRef, digest_keys
from tilekv.kvcore.fragment cimport (Access, Fragment, FragmentData, Pin, Span, access_close, fragment_coords, fragment_decode,
                                     fragment_key, fragment_place, tile_cells, unpin)
from tilekv.kvcore.layout cimport SLOT_COORDS, SLOT_OFFSETS, TOMBSTONE
from tilekv.kvcore.view cimport VIEW_OK, file_bytes
from tilekv.kvcore.wire cimport Out, load64, out_bytes, out_free, out_room


cdef const char* DISORDER = b"its cell is not after the one before it: keys or coordinates are out of order"
cdef const char* MISPLACED = b"its coordinates are not the digest of its key"
cdef const char* BOUNDS = b"its coordinates are outside the bounds that the metadata gives its tile"


def check_fragment(Fragment fragment not None):
    """All that is wrong, as a list of (file, offset or None, message). MemoryError; reading errors are among the problems."""
    cdef FragmentData* f = &fragment.data
    cdef int slot
    cdef uint64_t tile
    problems = []
    for slot in range(fragment.layout.nslots):
        if fragment.files[slot] is None:
            continue
        size = fragment.size_of(slot)
        if size != f.slots[slot].size:
            problems.append((fragment.files[slot], None, f"{size} bytes, {f.slots[slot].size} by the metadata"))
        for tile in range(f.ntiles):
            check_tile(fragment, slot, tile, problems)
    if not problems:
        check_cells(fragment, problems)
    return problems


cdef int check_tile(Fragment fragment, int slot, uint64_t tile, list problems) except -1:
    """The chunks of one tile, and what its bytes say of their number; for offsets, that they ascend within the tile."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t first, last, index, position = 0, stored = 0, start = 0, raw = 0
    cdef uint64_t begin = f.slots[slot].tile_at[tile]
    cdef const uint8_t* at = NULL
    cdef Access access
    cdef Out scratch
    cdef uint8_t* into
    cdef Status status = OK
    cdef bint ascending = True
    if f.kinds[slot].kind == SLOT_COORDS:
        first, last = 2 * tile, 2 * tile + 2
    elif f.slots[slot].first_chunk == NULL:
        first, last = tile, tile + 1
    else:
        first, last = f.slots[slot].first_chunk[tile], f.slots[slot].first_chunk[tile + 1]
        if not first <= last <= f.slots[slot].nchunks:
            problems.append((fragment.files[slot], begin, f"the chunk directory gives tile {tile} chunks {first} to {last}"))
            return 0
    memset(&access, 0, sizeof(access))
    memset(&scratch, 0, sizeof(scratch))
    file = fragment.files[slot]
    try:
        if file_bytes(&f.slots[slot].file, begin, 8, &access.stored, &at) != VIEW_OK:
            problems.append((file, begin, f"tile {tile} is not inside the file"))
            return 0
        if load64(at) != last - first:
            problems.append((file, begin, f"tile {tile} counts {load64(at)} chunks, {last - first} by the metadata"))
        for index in range(first, last):
            with nogil:
                status = fragment_place(f, slot, tile, index, &position, &stored, &start, &raw)
                if status == OK:
                    scratch.size = 0
                    into = out_room(&scratch, raw)
                    status = NO_MEMORY if into == NULL else fragment_decode(f, slot, tile, index, &access, into, raw)
                    if status == OK and f.kinds[slot].kind == SLOT_OFFSETS:
                        ascending = offsets_ascend(into, raw // 8, f.slots[f.nf + 1 + slot].raw_size[tile])
            if status == NO_MEMORY:
                raise MemoryError
            if status != OK:
                problems.append((file, position if position else begin, f"chunk {index - first} of tile {tile} is damaged"))
            elif not ascending:
                problems.append((file, position, f"the offsets of tile {tile} do not ascend within its bytes"))
    finally:
        out_free(&scratch)
        access_close(&access, f.codecs)
    return 0


cdef bint offsets_ascend(const uint8_t* words, uint64_t n, uint64_t total) noexcept nogil:
    cdef uint64_t i, before = 0, word
    for i in range(n):
        word = load64(words + 8 * i)
        if word < before or word > total or (i == 0 and word):
            return False
        before = word
    return True


cdef int check_cells(Fragment fragment, list problems) except -1:
    """Digests, order and bounds of all cells, and how many are deletes. Stops at the first cell that is wrong in a tile."""
    cdef FragmentData* f = &fragment.data
    cdef uint64_t tile, deletes = 0, cell = 0
    cdef const char* wrong
    cdef Access access
    cdef Out before
    cdef uint64_t last[3]
    cdef Status status = OK
    memset(&access, 0, sizeof(access))
    memset(&before, 0, sizeof(before))
    memset(last, 0, sizeof(last))
    try:
        for tile in range(f.ntiles):
            wrong = NULL
            with nogil:
                status = check_tile_cells(fragment, tile, &access, &before, last, &deletes, &cell, &wrong)
            if status != OK:
                fragment.raise_fault(&access)
            if wrong != NULL:
                problems.append(("__coords.tdb", f.slots[f.nf].tile_at[tile], f"cell {cell} of tile {tile}: {wrong.decode()}"))
        if not problems and deletes != fragment.tombstones:
            problems.append(("__fragment_metadata.tdb", None, f"{fragment.tombstones} deletes by the metadata, {deletes} found"))
    finally:
        out_free(&before)
        access_close(&access, f.codecs)
    return 0


cdef Status check_tile_cells(Fragment fragment, uint64_t tile, Access* access, Out* before, uint64_t* last, uint64_t* deletes,
                             uint64_t* cell, const char** wrong) noexcept nogil:
    """before and last: key bytes, and c0, c1 and type (plus one, 0 for none) of the cell before."""
    cdef FragmentData* f = &fragment.data
    cdef Pin pins[2]
    cdef Span span
    cdef KeyRef key, earlier
    cdef uint64_t c[2]
    cdef uint64_t d[2]
    cdef uint64_t j, n = tile_cells(f, tile)
    cdef int difference
    cdef Status status = fragment_coords(f, tile, 0, access, &pins[0])
    if status != OK:
        return status
    status = fragment_coords(f, tile, 1, access, &pins[1])
    if status != OK:
        unpin(f, &pins[0])
        return status
    for j in range(n):
        status = fragment_key(f, tile, j, access, &span, &key)
        if status != OK:
            break
        deletes[0] += (key.type & TOMBSTONE) != 0
        key.type &= ~TOMBSTONE
        c[0] = load64(pins[0].data + 8 * j)
        c[1] = load64(pins[1].data + 8 * j)
        digest_keys(fragment.layout.digest, &key, 1, &d[0], &d[1])
        if c[0] != d[0] or c[1] != d[1]:
            wrong[0] = MISPLACED
        elif not (f.leaves[4 * tile] <= c[0] <= f.leaves[4 * tile + 1]
                  and f.leaves[4 * tile + 2] <= c[1] <= f.leaves[4 * tile + 3]):
            wrong[0] = BOUNDS
        elif last[2]:
            difference = (c[0] > last[0]) - (c[0] < last[0])
            if difference == 0:
                difference = (c[1] > last[1]) - (c[1] < last[1])
            if difference == 0:
                earlier.data = before.data
                earlier.size = before.size
                earlier.type = <uint8_t>(last[2] - 1)
                difference = compare_keys(&key, &earlier)
            if difference <= 0:
                wrong[0] = DISORDER
        last[0] = c[0]
        last[1] = c[1]
        last[2] = <uint64_t>key.type + 1
        before.size = 0
        if out_bytes(before, key.data, key.size) < 0:
            status = NO_MEMORY
        unpin(f, &span.pin)
        if status != OK or wrong[0] != NULL:
            cell[0] = j
            break
    unpin(f, &pins[0])
    unpin(f, &pins[1])
    return status
