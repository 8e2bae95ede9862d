"""What a look-up is going to read, said before it reads: the disk is waited for once, not once for each of a dozen pages.

Digests are uniform, so where a key must be is known before anything is read: its tile by the leaves, which are in memory, and
its cell by interpolation, off by sqrt(n) / 2 of the n cells of a tile. So the coordinates, and the chunks where the key and its
value must be, are asked for together. Nothing here waits, and nothing has to be right: what was not asked for is read when it
is needed.
"""

from libc.stdint cimport uint64_t

from tilekv.kvcore.read.chunk_reader cimport FragmentData, ReadContext

cdef enum:
    RANGES = 64                 # more, of a store of many attributes, are read when they are needed

cdef struct Range:
    int slot
    uint64_t offset
    uint64_t n

cdef struct Plan:
    FragmentData* f
    uint64_t tile
    uint64_t lo, hi             # cells
    int n
    Range ranges[RANGES]


# What a look-up of c0 will read of a tile whose first coordinates are not in memory, but for what is: those, and the cells where
# it must be of the key and of context.wanted.
cdef void search_plan(Plan* plan, FragmentData* f, uint64_t tile, uint64_t c0, const ReadContext* context) noexcept nogil
# The same for a cell that has been found: of its key, and of context.wanted.
cdef void cell_plan(Plan* plan, FragmentData* f, uint64_t tile, uint64_t cell, const ReadContext* context) noexcept nogil

# For these: when may_be_cold(), or they cost what they save.
# Ask for search_plan(), or, where the coordinates are at hand, for cell_plan().
cdef void plan_search(FragmentData* f, uint64_t tile, uint64_t c0, const ReadContext* context) noexcept nogil
# Ask for cell_plan().
cdef void plan_cell(FragmentData* f, uint64_t tile, uint64_t cell, const ReadContext* context) noexcept nogil
# Ask for the chunks of n bytes of a tile of a bytes slot from byte `start` on.
cdef void plan_bytes(FragmentData* f, int slot, uint64_t tile, uint64_t start, uint64_t n) noexcept nogil
