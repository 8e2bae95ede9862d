"""How sorted cells become tiles and chunks, and how these are encoded.

A file of a fragment is a row of tiles, a tile is {u64 nchunks, chunks}, and a chunk is whole cells; only a cell longer than
MAX_CHUNK is divided, into chunks of its own. The chunks of a file are planned from lengths alone (ChunkPlan), so that runs of
them can be encoded in any order by any number of threads, with only the bytes of the run in memory.
"""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.base.wire cimport Out
from tilekv.kvcore.codec.pipeline cimport CodecPool
from tilekv.kvcore.format.layout cimport Layout

cdef enum:
    SOURCE_FAILED = -100                # beside codec's Status: source.fault() raises


cdef class CellSource:
    """Sorted cells, column by column: what a fragment is written from.

    The methods are virtual and cost about 2 ns a call: they are called per chunk, never per cell. Each returns 0, or a
    negative number after which `fault()` raises. Safe to call from several threads at once unless a subclass says otherwise.
    """
    cdef size_t n                       # cells
    cdef size_t tombstones              # how many of them are deletes
    # c0 and c1 of cells [lo, hi); either may be NULL
    cdef int coords(self, size_t lo, size_t hi, uint64_t* c0, uint64_t* c1) noexcept nogil
    # (hi - lo) * width bytes of a fixed field
    cdef int fixed(self, int field, size_t lo, size_t hi, uint8_t* out) noexcept nogil
    # lengths in bytes of cells [lo, hi) of a var field
    cdef int lengths(self, int field, size_t lo, size_t hi, uint64_t* out) noexcept nogil
    # n bytes of a var field, from byte `skip` of cell `cell` on through the cells after it
    cdef int bytes(self, int field, size_t cell, uint64_t skip, uint64_t n, uint8_t* out) noexcept nogil
    cdef fault(self)


cdef struct PlannedChunk:               # one chunk to be written
    uint64_t cell                       # its first cell in the source
    uint64_t skip                       # bytes of that cell that stand in earlier chunks (bytes); the dimension (coordinates)
    uint64_t start                      # its first cell (fixed) or byte (bytes) in its tile
    uint64_t raw                        # raw bytes
    uint64_t stored                     # bytes in the file, the tile's chunk count included: set by encode()
    uint64_t tile                       # number of its tile in the fragment
    uint64_t opens                      # chunks of the tile, if it is the first of them, else 0
    bint empty                          # stands for a tile without bytes: only the count 0 is written
    # One more than what all cells that begin in it have in common: bytes, their size; key types, the type. 0: nothing. Of bytes
    # the first chunk of a tile says it for the tile. Of key types it is set by encode().
    uint64_t uniform


cdef class ChunkPlan:
    """The chunks of one slot for one CellSource."""
    cdef readonly int slot
    cdef PlannedChunk* chunks
    cdef size_t n
    cdef size_t capacity
    cdef PlannedChunk* add(self) except NULL nogil


cdef class StreamedBytes(CellSource):
    """A part of the only cell of a fragment, a long one of bytes: what comes from a stream, in the order that it comes. `plan` is
    of whole chunks but at the stream's end."""
    cdef bytes held
    cdef const uint8_t* data            # of it
    cdef uint64_t start                 # of the part in the cell
    cdef readonly ChunkPlan plan

cdef ChunkPlan plan_chunks(Layout layout, int slot, CellSource source, uint64_t first_tile)


cdef class Encoded:
    """The stored bytes of a run of chunks; offers them as a buffer."""
    cdef Out out
