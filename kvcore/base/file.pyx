cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBADF, EINTR, ENOENT, errno
from posix.unistd cimport close

import os

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.wire cimport out_free, out_room


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void* at, size_t n, int advice)
    int MADV_DONTNEED


cdef extern from "base/descriptors.h" nogil:
    void tkv_file_begin(tkv_file* file, int fd, const char* folder, const char* name)
    void tkv_file_end(tkv_file* file)
    int tkv_file_read(tkv_file* file, uint8_t* into, size_t n, uint64_t offset)
    int tkv_read_all(int fd, uint8_t* into, size_t n, uint64_t offset, size_t* done)
    int64_t tkv_descriptors_back()
    const uint8_t* tkv_map(int fd, size_t n)
    void tkv_unmap(const uint8_t* at, size_t n)
    int tkv_copied_count(int64_t n)
    int tkv_descriptors_setup()
    int64_t tkv_descriptors, tkv_maps, tkv_copied, tkv_most_maps


if tkv_descriptors_setup() != 0:
    raise MemoryError


def give_back_descriptors():
    """Close half of the descriptors that files are read through: how many. They are opened again when they are needed."""
    return tkv_descriptors_back()


def close_all(list fds):
    """Close descriptors, whatever one of them says, and before a signal's handler can run. OSError of the first that failed."""
    cdef int fd, error = 0
    for fd in fds:
        with nogil:
            if close(fd) != 0 and errno != EINTR and error == 0:    # after EINTR it is closed, or nobody knows
                error = errno
    fds.clear()
    if error:
        raise OSError(error, os.strerror(error))


def held():
    """What the process holds of files: descriptors, maps, and bytes in memory."""
    return tkv_descriptors, tkv_maps, tkv_copied


def limit_maps(int64_t most):
    """Let the process have so many maps of files; 0 for what the system says. Those that are there stay."""
    global tkv_most_maps
    tkv_most_maps = most


cdef FileStatus file_bytes(const FileRef* file, uint64_t offset, uint64_t n, Out* scratch, const uint8_t** at) noexcept nogil:
    cdef uint8_t* into
    if offset > file.size or n > file.size - offset:
        return FILE_BEYOND
    if file.base != NULL:
        at[0] = file.base + offset
        return FILE_OK
    scratch.size = 0
    into = out_room(scratch, n)
    if into == NULL:
        return FILE_NO_MEMORY
    if tkv_file_read(file.file, into, n, offset) < 0:
        return FILE_GONE if errno == ENOENT else FILE_BEYOND if errno == EBADF else FILE_IO
    at[0] = into
    return FILE_OK


@cython.final
cdef class File:
    @staticmethod
    def open(int fd, uint64_t size, bytes folder not None, bytes name not None, bint map, bint copy):
        """Show the first `size` bytes of an open file; close `fd` at will.

        Parameters
        ----------
        folder, name : bytes
            Where it can be opened again. Whoever reads it then sees an OSError, or SnapshotGone when the folder is gone.
        map : bool
            Map it, while the process has maps left. Else it is read by pread, for file systems where a map is not safe.
        copy : bool
            Read it into memory, while there is room for such copies.
        """
        cdef File file = File.__new__(File)
        cdef size_t done = 0
        cdef uint8_t* into
        cdef int status, error
        if size == 0:                           # mmap refuses an empty range
            return File.memory(b"")
        file.ref.size = size
        if copy and tkv_copied_count(<int64_t>size):
            file._copied = <int64_t>size
            file._owner = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            into = <uint8_t*>PyBytes_AS_STRING(file._owner)
            file.ref.base = into
            with nogil:
                status = tkv_read_all(fd, into, size, 0, &done)
                error = errno
            file.ref.size = done
            if status < 0 and error:
                raise OSError(error, os.strerror(error))
            return file
        if map:
            file.ref.base = tkv_map(fd, size)
            file._mapped = file.ref.base != NULL
            if file._mapped:
                return file
        file._owner = (folder, name)
        tkv_file_begin(&file._file, fd, folder, name)
        file.ref.file = &file._file
        return file

    @staticmethod
    def memory(bytes data not None):
        """Show bytes that are in memory already."""
        cdef File file = File.__new__(File)
        file._owner = data
        file.ref.size = len(data)
        file.ref.base = <const uint8_t*><const char*>data
        return file

    def drop_pages(self):
        """Forget which pages of the map were touched: they count as memory of this process. The next touch brings them back."""
        if self._mapped:
            madvise(<void*>self.ref.base, self.ref.size, MADV_DONTNEED)

    def __dealloc__(self):
        if self._mapped:
            tkv_unmap(self.ref.base, self.ref.size)
        if self.ref.file != NULL:
            tkv_file_end(self.ref.file)
        if self._copied:
            tkv_copied_count(-self._copied)

    @property
    def size(self):
        """Bytes of the file."""
        return self.ref.size

    def read(self, uint64_t offset, uint64_t n):
        """`n` bytes from `offset`, as bytes.

        ValueError when they are not all inside the file, OSError when reading fails: FileNotFoundError when its folder is gone.
        """
        cdef Out scratch
        cdef const uint8_t* at = NULL
        cdef FileStatus status
        cdef int error
        scratch.data = NULL
        scratch.size = scratch.capacity = 0
        with nogil:
            status = file_bytes(&self.ref, offset, n, &scratch, &at)
            error = errno
        try:
            if status == FILE_OK:
                return at[:n]
            if status == FILE_BEYOND:
                raise ValueError(f"bytes {offset} to {offset + n} of a file of {self.ref.size} bytes")
            if status == FILE_NO_MEMORY:
                raise MemoryError
            if status == FILE_GONE:
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), os.fsdecode(self._owner[0]))
            if error == 0:
                raise OSError("the file has become shorter")
            raise OSError(error, os.strerror(error))
        finally:
            out_free(&scratch)


tkv_refuse_bare(File)
