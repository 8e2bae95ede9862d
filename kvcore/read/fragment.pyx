cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

import os

from tilekv.errors import CorruptionError, SnapshotGone

from tilekv.kvcore.base.cache cimport Chunk, ChunkCache, cache_drop, cache_owner
from tilekv.kvcore.base.file cimport File, file_fetch
from tilekv.kvcore.codec.pipeline cimport CORRUPT, FILTER_BIT_WIDTH, NO_MEMORY, UNSUPPORTED, CodecPool, Status, Windows
from tilekv.kvcore.format.bloom cimport bloom_pages
from tilekv.kvcore.format.footer cimport NOT_UNIFORM, TRAILER, FileTable, Metadata, parse_metadata
from tilekv.kvcore.format.layout cimport SLOT_COORDS, SLOT_OFFSETS, Layout, Slot
from tilekv.kvcore.read.chunk_reader cimport READ_FAILED, READ_GONE, READ_UNFETCHED, ReadContext, SlotView, tile_cells, uniform_of


@cython.final
@cython.no_gc_clear             # __dealloc__ needs the cache
cdef class Fragment:
    def __cinit__(self, Layout layout not None, str name not None, File metadata not None, files, ChunkCache cache not None,
                  CodecPool codecs not None, bint partial=False):
        """files: a File for each of `layout.files`, in that order. CorruptionError when the metadata is not what tilekv wrote
        or a file is shorter than it says; with `partial` such a file is read as far as it goes."""
        cdef int slot
        cdef Metadata said
        cdef const FileTable* table
        cdef SlotView* s
        cdef const Slot* kind
        cdef File file
        cdef uint64_t nchunks
        cdef bint known
        self.layout = layout
        self.name = name
        self._cache = cache
        self._codecs = codecs
        names = [None] * layout.nslots
        self._files = [None] * layout.nslots
        for (slot, stem, is_bytes), file in zip(layout.files, files, strict=True):
            names[slot] = f"{stem}_var.tdb" if is_bytes else f"{stem}.tdb"
            self._files[slot] = file
        self.files = tuple(names)
        self._metadata = metadata
        self._meta_size = metadata.ref.size
        self._meta = metadata.ref.base
        if self._meta == NULL:
            self._metadata = metadata.read(0, metadata.ref.size)
            self._meta = <const uint8_t*><const char*>self._metadata
        self.data.slots = <SlotView*>calloc(layout.nslots, sizeof(SlotView))
        if self.data.slots == NULL:
            raise MemoryError
        self.data.nf = layout.nf
        self.data.key_type = layout.key_type
        self.data.capacity = layout.capacity
        self.data.kinds = layout.slots
        self.data.cache = &cache.cache
        self.data.owner = cache_owner(&cache.cache) << 32
        self.data.codecs = &codecs.pool
        file_fetch(&metadata.ref, 0, metadata.ref.size)             # all of it is read, and the filter kept
        said = parse_metadata(layout, name, self._meta, self._meta_size)
        self.data.ntiles = said.ntiles
        self.data.last_tile_cells = said.last_tile_cells
        self.data.cells = self.cells = said.cells
        self.data.uuid = said.uuid
        self.data.leaves = said.boxes
        self.tombstones = said.tombstones
        self.t1 = said.t1
        self.t2 = said.t2
        self.uuid = said.uuid[:16]
        self.sources = said.sources
        self.first_output = said.first_output
        self.expired = said.expired
        self.trailer = TRAILER if said.bound else 0
        self._set_bloom(said)
        for slot in range(layout.nslots):
            self.data.slots[slot].uniform = said.files[slot].uniform
            self.data.slots[slot].nuniform = said.files[slot].nuniform
        for slot in range(layout.nslots):
            file = self._files[slot]
            if file is None:
                continue
            s = &self.data.slots[slot]
            table = &said.files[slot]
            kind = &layout.slots[slot]
            s.file = file.ref
            self.data.distant |= file.ref.distant
            self.data.remote |= file.ref.remote != NULL
            file.scatter()
            s.size = table.size
            s.tile_at = table.tile_at
            s.raw_size = table.raw_size
            s.first_chunk = table.first_chunk
            s.chunks = table.chunks
            s.width = table.width
            s.nchunks = table.nchunks
            s.bound = self.trailer == 0
            if file.ref.size < s.size + self.trailer and not partial:
                raise CorruptionError(f"{name}/{self.files[slot]}", file.ref.size,
                                      f"the file has {file.ref.size} bytes and the metadata says {s.size + self.trailer}")
            # What the metadata says of every tile is read nowhere.
            known = self._is_known(slot)
            s.in_place = known or (file.ref.base != NULL and (kind.pipeline.n == 0 or (
                kind.kind == SLOT_OFFSETS and kind.pipeline.n == 1 and kind.pipeline.filters[0].type == FILTER_BIT_WIDTH)))
            if kind.kind == SLOT_COORDS:
                s.nchunks = 2 * self.data.ntiles
            elif s.first_chunk == NULL:
                s.nchunks = self.data.ntiles
            nchunks = s.nchunks + 1
            # Zeroed pages cost nothing until they are touched: opening stays independent of the number of chunks.
            if not s.in_place:
                s.homes = <Chunk**>calloc(nchunks, sizeof(Chunk*))
                s.recent = <uint8_t*>calloc(nchunks, 1)
                if s.recent == NULL:
                    raise MemoryError
            elif kind.kind == SLOT_OFFSETS:
                s.windows = <Windows*>calloc(nchunks, sizeof(Windows))
            else:
                s.ready = <void**>calloc(nchunks, sizeof(void*))
            if s.homes == NULL and s.windows == NULL and s.ready == NULL:
                raise MemoryError

    cdef int _set_bloom(self, Metadata said) except -1:
        self.data.bloom = said.bloom
        if said.bloom.blocks == 0:
            return 0
        self.data.bloom.checked = <uint8_t*>calloc(bloom_pages(said.bloom.blocks), 1)
        if self.data.bloom.checked == NULL:
            raise MemoryError
        return 0

    cdef bint _is_known(self, int slot) except -1:
        """Whether the metadata tells all of the offsets, or of the key types. Of these it makes the tile that is read instead."""
        cdef SlotView* s = &self.data.slots[slot]
        cdef uint64_t n = tile_cells(&self.data, 0), tile
        if slot == self.data.key_type:
            if s.nuniform == 0 or s.first_chunk != NULL or uniform_of(s, 0) == NOT_UNIFORM:
                return False
            self._types = <uint8_t*>malloc(n)
            if self._types == NULL:
                raise MemoryError
            memset(self._types, <int>uniform_of(s, 0), n)
            self.data.same_types = self._types
            return s.nuniform == 1
        if self.layout.slots[slot].kind != SLOT_OFFSETS:
            return False
        s = &self.data.slots[self.layout.nf + 1 + slot]
        if s.nuniform == 0:
            return False
        for tile in range(s.nuniform):
            if s.uniform[tile] == NOT_UNIFORM:
                return False
        return True

    def __dealloc__(self):
        cdef int slot
        free(self._types)
        free(self.data.bloom.checked)
        if self.data.slots != NULL:
            for slot in range(self.layout.nslots):
                if self.data.slots[slot].homes != NULL:
                    cache_drop(&self._cache.cache, self.data.slots[slot].homes, self.data.slots[slot].nchunks)
                free(self.data.slots[slot].homes)
                free(self.data.slots[slot].recent)
                free(self.data.slots[slot].windows)
                free(self.data.slots[slot].ready)
        free(self.data.slots)

    def __repr__(self):
        return f"<tilekv fragment {self.name}: {self.cells} cells, {self.tombstones} of them deletes>"

    def drop_pages(self):
        """See File.drop_pages, for all files."""
        for file in self._files:
            if file is not None:
                file.drop_pages()

    @property
    def stored_bytes(self):
        """Bytes of all its files."""
        return self._meta_size + sum(file.size for file in self._files if file is not None)

    def size_of(self, int slot):
        """Bytes of the file of a slot."""
        return self._files[slot].size

    cdef int demand(self, const ReadContext* context, Status status) except -1:
        if status == NO_MEMORY:
            raise MemoryError
        if status in (<Status>READ_GONE, <Status>READ_UNFETCHED) or (status == <Status>READ_FAILED and context.error):
            self.raise_fault(context)
        return 0

    cdef raise_fault(self, const ReadContext* context):
        """The exception for what `context` met: CorruptionError, OSError (SnapshotGone is one) or MemoryError."""
        cdef File failed = self._files[context.slot]
        file = f"{self.name}/{self.files[context.slot]}"
        if context.status == <Status>READ_UNFETCHED:
            raise failed.failure
        if context.status == CORRUPT:
            raise CorruptionError(file, context.offset, "the stored bytes are damaged")
        if context.status == NO_MEMORY:
            raise MemoryError(f"{file}: no memory for a chunk at {context.offset}")
        if context.status == UNSUPPORTED:
            raise CorruptionError(file, context.offset, "a filter that this build of tilekv cannot decode")
        if context.status == <Status>READ_GONE:
            raise SnapshotGone(f"{file} was vacuumed while this handle had given it back to the system: reopen()")
        if context.error:
            raise OSError(context.error, f"reading at {context.offset} failed: {os.strerror(context.error)}", file)
        raise OSError(f"{file}: the file has become shorter than {context.offset}")
