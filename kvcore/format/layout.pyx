cimport cython
from libc.stdlib cimport calloc, free

from tilekv.kvcore.base.wire cimport Cursor, cursor
from tilekv.kvcore.codec.pipeline cimport parse_pipeline, pipeline_ratio
from tilekv.kvcore.format.datatypes cimport UINT64, element_bytes, is_integer, is_signed

cdef enum:
    # Cells that no filter touches are mapped as they are; the size of their chunks bounds what the first touch must check.
    PLAIN_CHUNK = 1 << 16
    # Offsets are read in place or, under another pipeline, decoded as a whole: one chunk a tile.
    WHOLE_TILE = 0x7FFFFFF8


@cython.final
cdef class Layout:
    def __cinit__(self, fields not None, uint64_t capacity, int digest, bytes offsets not None, bytes coords not None,
                  bint numbers=False):
        """fields: (name, datatype, cell_val_num, pipeline bytes) in the order of the schema file, `__key` first and
        `__key_type` last; offsets and coords: pipeline bytes; numbers: see layout.pxd. ValueError for what no store can have."""
        cdef int f
        cdef Slot* slot
        cdef uint32_t values
        self.fields = tuple(fields)
        self.nf = len(self.fields)
        if self.nf < 2 or capacity == 0 or capacity > 0x7FFFFFF8 // 8 or not 0 <= digest <= 3:
            raise ValueError("a layout needs __key, __key_type, a capacity of 1 to 268,435,455 cells and a known digest")
        self.capacity = capacity
        self.digest = <DigestKind>digest
        self.numbers = numbers
        self.coords = self.nf
        self.key_type = self.nf - 1
        self.expires = self.nf - 2 if self.fields[self.nf - 2][0] == "__expires" else -1
        names = [name for name, *_ in self.fields]
        self.nullable = sum([name.startswith("__valid_") for name in names])
        self.first_valid = self.key_type - (self.expires >= 0) - self.nullable
        self.nslots = 2 * self.nf + 1
        self.slots = <Slot*>calloc(self.nslots, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        for f in range(self.nf):
            name, datatype, count, pipeline = self.fields[f][:4]
            values = count
            slot = &self.slots[f]
            slot.field = f
            if element_bytes(datatype) == 0 or values == 0:
                raise ValueError(f"field {name!r} has no width: datatype {datatype}, {count} values a cell")
            if values != <uint32_t>VAR:
                if values > <uint32_t>0x7FFFFFF8 // element_bytes(datatype):
                    raise ValueError(f"field {name!r}: a cell of {count} values is too wide")
                slot.kind = SLOT_FIXED
                self._set(slot, pipeline, datatype, values * element_bytes(datatype))
                continue
            slot.kind = SLOT_OFFSETS
            self._set(slot, offsets, UINT64, 8)
            slot.chunk_bytes = WHOLE_TILE
            slot = &self.slots[self.nf + 1 + f]
            slot.field = f
            slot.kind = SLOT_BYTES
            self._set(slot, pipeline, datatype, 1)
        if not self.is_var(KEY_FIELD) or self.slots[self.key_type].width != 1:
            raise ValueError("__key must be variable and __key_type one byte")
        slot = &self.slots[self.coords]
        slot.field = -1
        slot.kind = SLOT_COORDS
        self._set(slot, coords, UINT64, 8)
        if slot.pipeline.n:
            raise ValueError("tilekv's coordinates have no filters")
        if self.expires >= 0 and (self.slots[self.expires].width != 8 or self.slots[self.expires].kind != SLOT_FIXED
                                  or self.slots[self.expires].pipeline.n):
            raise ValueError("__expires is one word a cell, without filters")
        for f in range(self.first_valid, self.first_valid + self.nullable):
            if (not names[f].startswith("__valid_") or self.slots[f].width != 1 or self.slots[f].kind != SLOT_FIXED
                    or self.slots[f].pipeline.n):
                raise ValueError("what says which values are null stands behind the attributes, a byte a cell, without filters")

    cdef int _set(self, Slot* slot, bytes pipeline, uint8_t datatype, uint32_t width) except -1:
        cdef Cursor c = cursor(<const uint8_t*><const char*>pipeline, len(pipeline))
        parse_pipeline(&c, &slot.pipeline)
        slot.width = width
        slot.pipeline.element_bytes = element_bytes(datatype)
        slot.pipeline.cell_bytes = element_bytes(datatype) if slot.kind == SLOT_BYTES else width
        slot.pipeline.element_signed = is_signed(datatype)
        slot.pipeline.element_integer = is_integer(datatype)
        slot.ratio = pipeline_ratio(&slot.pipeline)
        slot.chunk_bytes = max(slot.pipeline.max_chunk, 1) if slot.pipeline.n else PLAIN_CHUNK
        return 0

    def __dealloc__(self):
        free(self.slots)

    cdef int bytes_slot(self, int field) noexcept nogil:
        return self.nf + 1 + field

    @property
    def files(self):
        """(slot, file stem, is bytes of a var field) of every data file, in slot order; the coordinates' stem is `__coords`."""
        found = []
        for slot in range(self.nslots):
            if slot == self.coords:
                found.append((slot, "__coords", False))
            elif slot < self.nf:
                found.append((slot, self.fields[slot][0], False))
            elif self.is_var(slot - self.nf - 1):
                found.append((slot, self.fields[slot - self.nf - 1][0], True))
        return found
