"""One immutable file, seen through a map, a descriptor or bytes in memory."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tilekv.kvcore.base.wire cimport Out

cdef enum:
    STREAMS = 4                 # of one file that are told apart

cdef enum FileStatus:
    FILE_OK = 0
    FILE_BEYOND = -1            # the range is not inside the file
    FILE_NO_MEMORY = -2
    FILE_IO = -3                # the read failed: errno says why; 0: the file has become shorter
    FILE_GONE = -4              # the file had been given back, and its folder is gone
    FILE_UNFETCHED = -5         # a file elsewhere could not be read: File.failure says why


cdef extern from "base/descriptors.h" nogil:
    ctypedef struct tkv_file:
        pass


# Bytes of a file, from `start` up to `end`.
cdef struct Extent:
    uint64_t start
    uint64_t end


# What a File shows, for code that runs without the GIL. Borrowed: valid while the File lives.
cdef struct FileRef:
    const uint8_t* base         # the whole file, or NULL when it is read by pread
    uint64_t size
    tkv_file* file              # NULL unless read by pread
    bint distant                # it may lie on a disk, so that reading may have to wait
    void* remote                # NULL unless it is elsewhere: the File, through whose reader its bytes are had
    Extent* here                # of one elsewhere: what its reader has, a hint, since that may have gone meanwhile
    bint told                   # a map of which the system tells what is cached: it says "all" of files that are not the user's


# How far somebody reads along a file.
cdef struct Stream:
    uint64_t end                # of what was read last
    uint64_t n                  # bytes read, one after the other
    uint64_t reads              # by so many
    uint64_t fetched            # where what was asked for ends

# *at = n bytes from offset: in place, or read into scratch (which they then fill from its start).
cdef FileStatus file_bytes(const FileRef* file, uint64_t offset, uint64_t n, Out* scratch, const uint8_t** at) noexcept nogil
# Told that n bytes from offset, which file_bytes() has given, are damaged. FILE_OK: they had come from elsewhere, perhaps damaged
# on their way, and were asked for again, past whatever keeps them: file_bytes() gives what has come now. FILE_UNFETCHED: nothing
# came. FILE_BEYOND: they are what is stored.
cdef FileStatus file_renew(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil
# Ask the system for n bytes from offset, all at once, and do not wait. A hint; it costs a system call.
cdef void file_fetch(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil
# Whether n bytes from offset are in memory, as far as the system tells; it costs a system call.
cdef bint file_cached(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil
# n bytes from offset are about to be read: if they follow what was read before, ask for more of the file. streams: STREAMS of
# them, zeroed at first. Any number of threads: they may spoil each other's guesses, which are hints.
cdef void file_follow(const FileRef* file, Stream* streams, uint64_t offset, uint64_t n) noexcept nogil


# Ranges of files that are elsewhere, gathered so that one round brings them all. Zeroed at first.
cdef struct Wanted:
    const FileRef** files
    uint64_t* offsets
    uint64_t* sizes
    size_t n
    size_t room

# What is here is not noted; without memory nor is one elsewhere: whoever reads it waits.
cdef void wanted_add(Wanted* wanted, const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil
# Has all of them brought, and forgets them.
cdef void wanted_fetch(Wanted* wanted) noexcept nogil
cdef void wanted_free(Wanted* wanted) noexcept nogil


cdef class File:
    """Owns what it shows. Immutable after construction; any number of threads may read."""
    cdef FileRef ref
    cdef tkv_file _file         # read by pread
    cdef object _owner          # the bytes in memory that it shows; or the folder and the name of a file that is read by pread
    cdef object _reader         # of a file elsewhere: a RangeReader, and what names the file to it
    cdef object _where
    cdef object failure         # the last exception of the reader
    cdef bint _mapped
    cdef int note_here(self) except -1
    cdef void scatter(self) noexcept
    cdef int64_t _copied        # bytes of a file that were read into memory
