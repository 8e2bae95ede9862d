"""What the compiled core knows of a schema: fields, slots, pipelines, capacity."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tilekv.kvcore.codec.chunk cimport PLAIN_HEADER
from tilekv.kvcore.codec.pipeline cimport Pipeline
from tilekv.kvcore.hashing.digest cimport DigestKind

cdef enum:
    VAR = 0xFFFFFFFF            # cell_val_num of a var-size field, on disk
    TOMBSTONE = 0x80            # bit of __key_type that marks a deleted key
    KEY_FIELD = 0               # __key comes first, __key_type last
    # a longer cell is cut into chunks of this many bytes, so that neither side ever holds it twice
    MAX_CHUNK = 1 << 20
    TILE_COUNT = 8              # bytes of the number of its chunks, which begins a tile
    # of a tile of coordinates, beside 16 a cell: its two chunks have no filters
    COORDS_TILE = TILE_COUNT + 2 * PLAIN_HEADER

cdef extern from *:
    """
    #define TKV_NEVER INT64_MAX
    """
    const int64_t NEVER "TKV_NEVER"     # a moment of expiry, in ms since 1970, that does not come

cdef enum SlotKind:
    SLOT_FIXED = 0              # cells of one width
    SLOT_OFFSETS = 1            # u64 starts of a var field's cells in their tile's bytes
    SLOT_BYTES = 2              # the bytes of a var field
    SLOT_COORDS = 3             # all c0 of a tile, then all c1

cdef struct Slot:
    SlotKind kind
    int field                   # -1 for the coordinates
    uint32_t width              # bytes of a cell (fixed), 8 (offsets, coordinates), 1 (bytes)
    uint64_t chunk_bytes        # raw bytes a writer aims at
    uint32_t ratio              # raw bytes that one stored byte can mean at most
    Pipeline pipeline


cdef inline bint chunk_fits(const Slot* slot, uint64_t raw, uint64_t stored) noexcept nogil:
    """Whether a chunk can have so many raw and stored bytes: a writer proves it of each, a reader before it asks for memory.

    Only a wide cell, as wide as the schema says, and the offsets and coordinates of a tile, whose cells are as many as there are
    coordinates, are longer than MAX_CHUNK; and none is longer than what its filters can make of what is stored.
    """
    if raw <= MAX_CHUNK:
        return True
    return (raw <= slot.width or slot.kind == SLOT_OFFSETS or slot.kind == SLOT_COORDS) and raw // slot.ratio <= stored


@cython.final
cdef class Layout:
    """Immutable. Slot numbers: field f -> f, coordinates -> nf, bytes of var field f -> nf + 1 + f (unused for fixed f)."""
    cdef readonly int nf                # fields: __key, the attributes, __key_type
    cdef readonly uint64_t capacity     # cells a tile
    cdef DigestKind digest
    cdef readonly bint numbers          # as keys: equal integers are one key whatever their width, and equal floats
    cdef int coords                     # slot of the coordinates
    cdef int key_type                   # field of __key_type
    cdef readonly int expires           # field of __expires, which a look-up reads of every cell it finds; -1: there is none
    cdef readonly int nullable          # how many attributes have a field that says which values are null
    cdef int first_valid                # of these fields, which stand together
    cdef int nslots
    cdef Slot* slots
    cdef readonly tuple fields
    cdef inline bint is_var(self, int field) noexcept nogil:
        return self.slots[field].kind == SLOT_OFFSETS
    cdef int bytes_slot(self, int field) noexcept nogil
    cdef int _set(self, Slot* slot, bytes pipeline, uint8_t datatype, uint32_t width) except -1
