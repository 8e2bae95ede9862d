"""One immutable fragment, open: the object that owns its files, and what its metadata says. read/chunk_reader reads them."""

from libc.stdint cimport uint8_t, uint64_t

from tilekv.kvcore.base.cache cimport ChunkCache
from tilekv.kvcore.codec.pipeline cimport CodecPool, Status
from tilekv.kvcore.format.footer cimport Metadata
from tilekv.kvcore.format.layout cimport Layout
from tilekv.kvcore.read.chunk_reader cimport FragmentData, ReadContext


cdef class Fragment:
    """Owns the files of a fragment and what has been made of them."""
    cdef FragmentData data
    cdef readonly str name
    cdef readonly uint64_t cells
    cdef readonly uint64_t tombstones
    cdef readonly uint64_t t1, t2           # ms
    cdef readonly bytes uuid
    cdef readonly tuple sources
    cdef readonly str first_output          # of the same consolidation: it lists the sources of both; else empty
    cdef readonly uint64_t expired      # ms: what expired by then is not in it; 0: it was not looked at
    cdef readonly tuple files               # by slot: file name, or None
    cdef readonly int trailer               # bytes of each data file that the footer does not count
    cdef Layout layout
    cdef ChunkCache _cache
    cdef CodecPool _codecs
    cdef object _metadata                   # File or bytes: keeps `_meta` alive
    cdef const uint8_t* _meta
    cdef uint64_t _meta_size
    cdef list _files                        # by slot: File or None
    cdef uint8_t* _types                    # the key type of a uniform tile, as often as the largest tile has cells
    cdef int _set_bloom(self, Metadata said) except -1
    cdef bint _is_known(self, int slot) except -1
    # The exception for what `context` met: CorruptionError, OSError (SnapshotGone is one) or MemoryError.
    cdef raise_fault(self, const ReadContext* context)
    # Raises when a status that `context` met says nothing of what is stored: no memory, or the system could not read.
    cdef int demand(self, const ReadContext* context, Status status) except -1
