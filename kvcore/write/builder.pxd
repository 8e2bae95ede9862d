"""The maker of a fragment: plans the chunks of its files, notes where each was written, and makes the metadata file at the end.

Of cells that are written it keeps what the metadata needs: 16 bytes a chunk, and of each tile its MBR and where it begins.
"""

from libc.stdint cimport uint32_t, uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.format.bloom cimport Bloom
from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.format.tile cimport CellSource


cdef struct SlotState:
    uint64_t size               # bytes of the file so far
    uint64_t tile_start         # where the open tile begins
    uint64_t nchunks
    bint many                   # a tile has other than one chunk: a directory is needed
    Out tile_at                 # u64 a tile
    Out raw_size                # u64 a tile (bytes slots)
    Out first_chunk             # u32 a tile
    Out chunks                  # u64 start, u64 position, a chunk
    Out uniform                 # u32 a tile (bytes slots, key types): what its cells have in common, or NOT_UNIFORM


cdef class FragmentBuilder:
    """Takes portions of sorted cells, each but the last a whole number of tiles.

    Use: for each portion, add(source) gives the ChunkPlan of every slot; write what encode() makes of their runs to the files in
    order and call written(plan). Then end every file with its trailer() (format/footer); metadata() is the last file. One thread
    at a time.
    """
    cdef readonly Layout layout
    cdef SlotState* states
    cdef Out mbrs               # 4 u64 a tile: lo0, hi0, lo1, hi1
    cdef readonly uint64_t cells
    cdef readonly uint64_t tombstones
    cdef uint64_t _tiles
    cdef uint64_t _expected     # cells, for the filter
    cdef Bloom _bloom
    cdef Out _pages             # of the filter
    cdef int _add_boxes(self, CellSource source, uint64_t capacity, uint64_t* c0, uint64_t* c1) noexcept nogil
