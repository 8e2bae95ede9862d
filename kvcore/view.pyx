cimport cython
from libc.errno cimport EINTR, errno

from tilekv.kvcore.wire cimport out_free, out_room


cdef extern from "<sys/types.h>" nogil:
    ctypedef long long off_t


cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* at, size_t n, int protection, int flags, int fd, off_t offset)
    int munmap(void* at, size_t n)
    int madvise(void* at, size_t n, int advice)
    int MADV_DONTNEED
    int PROT_READ
    int MAP_SHARED
    void* MAP_FAILED


cdef extern from "<unistd.h>" nogil:
    int dup(int fd)
    int c_close "close"(int fd)
    ssize_t pread(int fd, void* into, size_t n, off_t offset)


cdef ViewStatus file_bytes(const FileRef* file, uint64_t offset, uint64_t n, Out* scratch, const uint8_t** at) noexcept nogil:
    cdef uint8_t* into
    cdef size_t done = 0
    cdef ssize_t got
    if offset > file.size or n > file.size - offset:
        return VIEW_BEYOND
    if file.base != NULL:
        at[0] = file.base + offset
        return VIEW_OK
    scratch.size = 0
    into = out_room(scratch, n)
    if into == NULL:
        return VIEW_NO_MEMORY
    while done < n:
        got = pread(file.fd, into + done, n - done, <off_t>(offset + done))
        if got > 0:
            done += got
        elif got == 0 or errno != EINTR:
            return VIEW_IO
    at[0] = into
    return VIEW_OK


@cython.final
cdef class FileView:
    def __cinit__(self):
        self.ref.fd = -1

    @staticmethod
    def map(int fd, uint64_t size):
        """Map the first `size` bytes of an open file, read-only. The map keeps no descriptor: close `fd` at will.

        Python's own mmap duplicates the descriptor until 3.13, and a store of a hundred fragments has seven hundred files.
        """
        cdef FileView view = FileView.__new__(FileView)
        cdef void* at
        view.ref.size = size
        if size == 0:                           # mmap refuses an empty range
            view._owner = b""
            view.ref.base = <const uint8_t*><const char*>view._owner
            return view
        with nogil:
            at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            raise OSError(errno, "cannot map the file")
        view.ref.base = <const uint8_t*>at
        view._mapped = True
        return view

    @staticmethod
    def pread(int fd, uint64_t size):
        """Read from a descriptor on demand, for file systems where a map is not safe. Keeps a duplicate of `fd`."""
        cdef FileView view = FileView.__new__(FileView)
        view.ref.size = size
        view.ref.fd = dup(fd)
        if view.ref.fd < 0:
            raise OSError(errno, "cannot duplicate the descriptor")
        return view

    @staticmethod
    def memory(bytes data not None):
        """Show bytes that are in memory already."""
        cdef FileView view = FileView.__new__(FileView)
        view._owner = data
        view.ref.size = len(data)
        view.ref.base = <const uint8_t*><const char*>data
        return view

    def relax(self):
        """Forget which pages of the map were touched: they count as memory of this process. The next touch brings them back."""
        if self._mapped:
            madvise(<void*>self.ref.base, self.ref.size, MADV_DONTNEED)

    def __dealloc__(self):
        if self._mapped:
            munmap(<void*>self.ref.base, self.ref.size)
        if self.ref.fd >= 0:
            c_close(self.ref.fd)

    @property
    def size(self):
        """Bytes of the file."""
        return self.ref.size

    def read(self, uint64_t offset, uint64_t n):
        """`n` bytes from `offset`, as bytes. ValueError when they are not all inside the file, OSError when reading fails."""
        cdef Out scratch
        cdef const uint8_t* at = NULL
        cdef ViewStatus status
        scratch.data = NULL
        scratch.size = scratch.capacity = 0
        with nogil:
            status = file_bytes(&self.ref, offset, n, &scratch, &at)
        try:
            if status == VIEW_OK:
                return at[:n]
            if status == VIEW_BEYOND:
                raise ValueError(f"bytes {offset} to {offset + n} of a file of {self.ref.size} bytes")
            if status == VIEW_NO_MEMORY:
                raise MemoryError
            raise OSError("reading failed, or the file has become shorter")
        finally:
            out_free(&scratch)
