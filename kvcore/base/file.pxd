"""One immutable file, seen through a map, a descriptor or bytes in memory."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tilekv.kvcore.base.wire cimport Out

cdef enum FileStatus:
    FILE_OK = 0
    FILE_BEYOND = -1            # the range is not inside the file
    FILE_NO_MEMORY = -2
    FILE_IO = -3                # the read failed: errno says why; 0: the file has become shorter
    FILE_GONE = -4              # the file had been given back, and its folder is gone


cdef extern from "base/descriptors.h" nogil:
    ctypedef struct tkv_file:
        pass


# What a File shows, for code that runs without the GIL. Borrowed: valid while the File lives.
cdef struct FileRef:
    const uint8_t* base         # the whole file, or NULL when it is read by pread
    uint64_t size
    tkv_file* file              # NULL unless read by pread

# *at = n bytes from offset: in place, or read into scratch (which they then fill from its start).
cdef FileStatus file_bytes(const FileRef* file, uint64_t offset, uint64_t n, Out* scratch, const uint8_t** at) noexcept nogil


cdef class File:
    """Owns what it shows. Immutable after construction; any number of threads may read."""
    cdef FileRef ref
    cdef tkv_file _file         # read by pread
    cdef object _owner          # the bytes in memory that it shows; or the folder and the name of a file that is read by pread
    cdef bint _mapped
    cdef int64_t _copied        # bytes of a file that were read into memory
