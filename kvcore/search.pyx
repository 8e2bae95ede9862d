cimport cython
from libc.stdlib cimport calloc, free

from tilekv.kvcore.codec cimport NO_MEMORY, OK
from tilekv.kvcore.coords cimport compare_keys, lower_bound
from tilekv.kvcore.fragment cimport Pin, Span, fragment_coords, fragment_key, tile_cells, unpin
from tilekv.kvcore.layout cimport TOMBSTONE

cdef enum:
    FEW = 4                     # cells of one digest that are compared one after another; more are searched by halves


cdef Found compare_cell(FragmentData* fragment, uint64_t tile, uint64_t cell, const KeyRef* key, Access* access, int* difference,
                        bint* delete) noexcept nogil:
    """*difference: the stored key against `key`. PRESENT, or FAULT."""
    cdef Span span
    cdef KeyRef stored
    if fragment_key(fragment, tile, cell, access, &span, &stored) != OK:
        return FAULT
    difference[0] = compare_keys(&stored, key)
    delete[0] = (stored.type & TOMBSTONE) != 0
    unpin(fragment, &span.pin)
    return PRESENT


cdef Found find_key(FragmentData* fragment, uint64_t tile, uint64_t lo, uint64_t hi, const KeyRef* key, Access* access,
                    Place* place) noexcept nogil:
    """Among cells [lo, hi) of a tile, whose coordinates are all equal and whose keys ascend."""
    cdef uint64_t middle
    cdef int difference = 0
    cdef bint delete = False
    cdef bint linear = hi - lo <= FEW
    while lo < hi:
        middle = lo if linear else lo + (hi - lo) // 2
        if compare_cell(fragment, tile, middle, key, access, &difference, &delete) == FAULT:
            return FAULT
        if difference == 0:
            place.tile = tile
            place.cell = middle
            return DELETED if delete else PRESENT
        if linear or difference < 0:
            lo = middle + 1
        else:
            hi = middle
    return MISSING


cdef Found first_cell_after(FragmentData* fragment, uint64_t tile, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access,
                            bint* after) noexcept nogil:
    """*after: whether the first cell of a tile comes after (c0, c1, key). PRESENT, or FAULT."""
    cdef Pin pin
    cdef uint64_t first
    cdef int difference = 0
    cdef bint delete = False
    if fragment.leaves[4 * tile] != c0:
        after[0] = fragment.leaves[4 * tile] > c0
        return PRESENT
    if fragment_coords(fragment, tile, 1, access, &pin) != OK:
        return FAULT
    first = (<const uint64_t*>pin.data)[0]
    unpin(fragment, &pin)
    if first != c1:
        after[0] = first > c1
        return PRESENT
    if compare_cell(fragment, tile, 0, key, access, &difference, &delete) == FAULT:
        return FAULT
    after[0] = difference > 0
    return PRESENT


cdef Found find_in(FragmentData* fragment, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access,
                   Place* place) noexcept nogil:
    """Tile by the leaves of the R-tree, cell by interpolation among its first coordinates, then the stored key.

    The leaves are 32 bytes a tile and stay in cache; a tile's first coordinates are 8 KB, of which a search touches two
    or three lines (sqrt(1024) / 2 = 16 cells is the expected miss of the first guess). Cells with equal coordinates may
    cross tiles; every step among them is a search by halves, so that keys made to collide cost a logarithm each.
    """
    cdef const uint64_t* leaves = fragment.leaves
    cdef uint64_t tile = lower_bound(leaves + 1, 4, 0, fragment.ntiles, c0)     # the first that ends at c0 or later
    cdef uint64_t last = tile, middle, n, lo, hi
    cdef const uint64_t* words
    cdef Pin pin
    cdef bint after = False
    if tile == fragment.ntiles or leaves[4 * tile] > c0:
        return MISSING
    if leaves[4 * tile + 1] == c0 and tile + 1 < fragment.ntiles and leaves[4 * tile + 4] == c0:
        last = lower_bound(leaves, 4, tile, fragment.ntiles, c0 + 1) - 1        # c0 is at most 2^64-2
    while tile < last:                          # the last tile whose first cell does not come after the key
        middle = tile + (last - tile + 1) // 2
        if first_cell_after(fragment, middle, key, c0, c1, access, &after) == FAULT:
            return FAULT
        if after:
            last = middle - 1
        else:
            tile = middle
    n = tile_cells(fragment, tile)
    if fragment_coords(fragment, tile, 0, access, &pin) != OK:
        return FAULT
    words = <const uint64_t*>pin.data
    lo = lower_bound(words, 1, 0, n, c0)
    hi = equal_end(words, lo, n, c0)
    unpin(fragment, &pin)
    if lo == hi:
        return MISSING
    if fragment_coords(fragment, tile, 1, access, &pin) != OK:
        return FAULT
    words = <const uint64_t*>pin.data
    lo = lower_bound(words, 1, lo, hi, c1)
    hi = equal_end(words, lo, hi, c1)
    unpin(fragment, &pin)
    return find_key(fragment, tile, lo, hi, key, access, place)


cdef inline uint64_t equal_end(const uint64_t* words, uint64_t lo, uint64_t hi, uint64_t value) noexcept nogil:
    """The end of the run of `value` that begins at lo, if it does: nearly always one cell."""
    if lo == hi or words[lo] != value:
        return lo
    if lo + 1 == hi or words[lo + 1] != value:
        return lo + 1
    return lower_bound(words, 1, lo, hi, value + 1)


@cython.final
@cython.no_gc                   # in no cycle; the collector would empty the list that keeps its fragments
cdef class View:
    def __cinit__(self, Layout layout not None, ChunkCache cache not None, CodecPool codecs not None, fragments, open=None):
        """fragments: newest first, each a Fragment, or a name of which `open` makes one when it is first needed."""
        cdef Fragment fragment
        cdef size_t i
        self.layout = layout
        self.cache = cache
        self.codecs = codecs
        self._open = open
        self._fragments = list(fragments)
        self.n = len(self._fragments)
        self.at = <FragmentData**>calloc(self.n + 1, sizeof(void*))
        if self.at == NULL:
            raise MemoryError
        for i in range(self.n):
            item = self._fragments[i]
            if not isinstance(item, str):
                fragment = item
                self.at[i] = &fragment.data

    def __dealloc__(self):
        free(self.at)

    @property
    def names(self):
        """The names of the fragments, newest first."""
        return [item if isinstance(item, str) else item.name for item in self._fragments]

    @property
    def fragments(self):
        """The fragments, newest first, all of them open."""
        cdef size_t i
        for i in range(self.n):
            self.open_fragment(<uint32_t>i)
        return tuple(self._fragments)

    @property
    def opened(self):
        """The fragments that are open, by name."""
        return {item.name: item for item in self._fragments if not isinstance(item, str)}

    cdef int open_fragment(self, uint32_t i) except -1:
        cdef Fragment fragment
        if self.at[i] == NULL:
            fragment = self._open(self._fragments[i])
            if self.at[i] == NULL:                              # another thread may have been faster: its pointers are in use
                self._fragments[i] = fragment
                self.at[i] = &fragment.data
        return 0

    cdef Found find(self, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access, Place* place) noexcept nogil:
        cdef size_t i
        cdef Found found
        for i in range(self.n):
            place.fragment = <uint32_t>i
            if self.at[i] == NULL:
                return UNOPENED
            found = find_in(self.at[i], key, c0, c1, access, place)
            if found != MISSING:
                return found
        return MISSING

    cdef Found look_up(self, const KeyRef* key, uint64_t c0, uint64_t c1, Access* access, Place* place) except *:
        cdef Found found = self.find(key, c0, c1, access, place)
        while found == UNOPENED:
            self.open_fragment(place.fragment)
            found = self.find(key, c0, c1, access, place)
        if found == FAULT:
            self.raise_fault(access, place.fragment)
        return found

    cdef raise_fault(self, const Access* access, uint32_t fragment):
        cdef Fragment failed
        if access.status == NO_MEMORY:
            raise MemoryError
        failed = self._fragments[fragment]
        failed.raise_fault(access)
