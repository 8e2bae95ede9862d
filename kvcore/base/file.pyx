cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetInterrupt
from libc.errno cimport EBADF, EINTR, ENOENT, errno
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy
from posix.unistd cimport close

import os

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.base.wire cimport out_free, out_room


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void* at, size_t n, int advice)
    int MADV_DONTNEED
    int MADV_RANDOM
    int MADV_WILLNEED
    int mincore(void* at, size_t n, unsigned char* pages)

cdef extern from "base/atomic.h" nogil:
    uint64_t tkv_load_relaxed(const uint64_t* at)
    void tkv_store_relaxed(uint64_t* at, uint64_t value)


cdef extern from "base/descriptors.h" nogil:
    void tkv_file_begin(tkv_file* file, int fd, const char* folder, const char* name)
    void tkv_file_end(tkv_file* file)
    bint tkv_file_cached(tkv_file* file, uint64_t offset)
    void tkv_file_fetch(tkv_file* file, uint64_t offset, uint64_t n)
    int tkv_file_read(tkv_file* file, uint8_t* into, size_t n, uint64_t offset)
    int tkv_read_all(int fd, uint8_t* into, size_t n, uint64_t offset, size_t* done)
    int64_t tkv_descriptors_back()
    const uint8_t* tkv_map(int fd, size_t n)
    bint tkv_is_own(int fd)
    void tkv_unmap(const uint8_t* at, size_t n)
    int tkv_copied_count(int64_t n)
    int tkv_descriptors_setup()
    int64_t tkv_descriptors, tkv_maps, tkv_copied, tkv_most_maps


cdef enum:
    PAGE = 4096                 # the least that systems have: where pages are larger, hints may be refused
    FEW_PAGES = 64              # of a range whose presence is looked up
    # Bytes that are read one after the other before more is asked for, and how much of it then: the system's own reading ahead is
    # off, since it brings megabytes for each look-up.
    STREAM = 128 << 10
    READS = 4                   # at least; of a file elsewhere, where each is a round, that is enough
    AHEAD = 8 << 20


if tkv_descriptors_setup() != 0:
    raise MemoryError


def give_back_descriptors():
    """Close half of the descriptors that files are read through: how many. They are opened again when they are needed."""
    return tkv_descriptors_back()


@cython.final
cdef class Holding:
    """A list of descriptors, which are closed at the end of its context: all of them, whatever one of them says, and before a
    signal's handler can run. OSError of the first that failed."""
    cdef list fds

    def __cinit__(self):
        self.fds = []

    def __enter__(self):
        return self.fds

    def __exit__(self, *exception):
        cdef int fd, error = 0
        for fd in self.fds:
            with nogil:
                if close(fd) != 0 and errno != EINTR and error == 0:    # after EINTR it is closed, or nobody knows
                    error = errno
        self.fds.clear()
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
    if file.remote != NULL:
        at[0] = into
        return remote_bytes(file, offset, n, into)
    if tkv_file_read(file.file, into, n, offset) < 0:
        return FILE_GONE if errno == ENOENT else FILE_BEYOND if errno == EBADF else FILE_IO
    at[0] = into
    return FILE_OK


cdef void file_fetch(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil:
    cdef size_t before
    cdef Wanted wanted
    if not file.distant or n == 0 or offset > file.size or n > file.size - offset:
        return
    if file.remote != NULL:
        if is_here(file, offset, n):
            return
        wanted.files = &file
        wanted.offsets = &offset
        wanted.sizes = &n
        wanted.n = wanted.room = 1
        bring(&wanted)
        return
    if file.base == NULL:
        tkv_file_fetch(file.file, offset, n)
        return
    before = <size_t>(file.base + offset) & (PAGE - 1)
    madvise(<void*>(file.base + offset - before), n + before, MADV_WILLNEED)


cdef FileStatus remote_bytes(const FileRef* file, uint64_t offset, uint64_t n, uint8_t* into) noexcept with gil:
    """A round, unless it was brought. It needs the GIL, which costs nothing beside it."""
    cdef File self = <File>file.remote
    cdef const uint8_t[::1] data
    if n == 0:
        return FILE_OK
    try:
        data = self._reader.read(self._where, offset, n)
        memcpy(into, &data[0], n)
        if not is_here(file, offset, n):
            self.note_here()
        return FILE_OK
    except BaseException as error:              # whoever looked up raises it
        self.failure = error
        return FILE_UNFETCHED


cdef FileStatus file_renew(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil:
    return FILE_BEYOND if file.remote == NULL else renew(file, offset, n)


cdef FileStatus renew(const FileRef* file, uint64_t offset, uint64_t n) noexcept with gil:
    cdef File self = <File>file.remote
    try:
        self._reader.renew(self._where, offset, n)
        self.note_here()
        return FILE_OK
    except BaseException as error:              # whoever looked up raises it
        self.failure = error
        return FILE_UNFETCHED


cdef inline bint is_here(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil:
    """Whether a file elsewhere need not be asked, as far as is known. Of a batch of which all has come that is each key, and
    asking the reader would cost more than finding it."""
    return (file.here != NULL and tkv_load_relaxed(&file.here.start) <= offset
            and offset + n <= tkv_load_relaxed(&file.here.end))


cdef void wanted_add(Wanted* wanted, const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil:
    cdef size_t room = max(2 * wanted.room, <size_t>64)
    cdef void* grown
    if file.remote == NULL or n == 0 or offset > file.size or n > file.size - offset or is_here(file, offset, n):
        return
    if wanted.n == wanted.room:
        grown = realloc(<void*>wanted.files, room * sizeof(void*))
        if grown == NULL:
            return
        wanted.files = <const FileRef**>grown
        grown = realloc(wanted.offsets, room * sizeof(uint64_t))
        if grown == NULL:
            return
        wanted.offsets = <uint64_t*>grown
        grown = realloc(wanted.sizes, room * sizeof(uint64_t))
        if grown == NULL:
            return
        wanted.sizes = <uint64_t*>grown
        wanted.room = room
    wanted.files[wanted.n] = file
    wanted.offsets[wanted.n] = offset
    wanted.sizes[wanted.n] = n
    wanted.n += 1


cdef void wanted_fetch(Wanted* wanted) noexcept nogil:
    if wanted.n:
        bring(wanted)
    wanted.n = 0


cdef void wanted_free(Wanted* wanted) noexcept nogil:
    free(<void*>wanted.files)
    free(wanted.offsets)
    free(wanted.sizes)


cdef void bring(const Wanted* wanted) noexcept with gil:
    cdef size_t i
    cdef File file
    readers = {}
    files = set()
    try:
        for i in range(wanted.n):
            file = <File>wanted.files[i].remote
            files.add(file)
            readers.setdefault(id(file._reader), (file._reader, []))[1].append(
                (file._where, wanted.offsets[i], wanted.sizes[i]))
        for reader, ranges in readers.values():
            reader.bring(ranges)
        for file in files:
            file.note_here()
    except KeyboardInterrupt:                   # raised at the next look for signals
        PyErr_SetInterrupt()
    except Exception:                           # whoever reads it meets it again, and raises it
        pass


cdef bint file_cached(const FileRef* file, uint64_t offset, uint64_t n) noexcept nogil:
    cdef unsigned char pages[FEW_PAGES]
    cdef size_t before, i
    if not file.distant or n == 0 or offset > file.size or n > file.size - offset:
        return True
    if file.remote != NULL:
        return False                            # its reader knows what it has
    if file.base == NULL:
        return tkv_file_cached(file.file, offset)
    if not file.told:
        return False
    before = <size_t>(file.base + offset) & (PAGE - 1)
    n = min(n + before, <uint64_t>FEW_PAGES * PAGE)
    if mincore(<void*>(file.base + offset - before), n, pages) != 0:
        return True
    for i in range((n + PAGE - 1) // PAGE):
        if not pages[i] & 1:
            return False
    return True


cdef void file_follow(const FileRef* file, Stream* streams, uint64_t offset, uint64_t n) noexcept nogil:
    cdef Stream* stream
    cdef uint64_t read, reads, ahead, end = offset + n
    cdef int i
    for i in range(STREAMS):
        stream = &streams[i]
        if not 0 <= <int64_t>(offset - tkv_load_relaxed(&stream.end)) < PAGE:       # a tile's count of chunks lies between
            continue
        read = tkv_load_relaxed(&stream.n) + n
        tkv_store_relaxed(&stream.end, end)
        tkv_store_relaxed(&stream.n, read)
        reads = tkv_load_relaxed(&stream.reads) + 1
        tkv_store_relaxed(&stream.reads, reads)
        ahead = tkv_load_relaxed(&stream.fetched)
        if reads >= READS and (read >= STREAM or file.remote != NULL) and ahead < min(end + AHEAD // 2, file.size):
            ahead = max(ahead, end)
            end = min(end + AHEAD, file.size)
            tkv_store_relaxed(&stream.fetched, end)
            file_fetch(file, ahead, end - ahead)
        return
    stream = &streams[end // PAGE % STREAMS]
    tkv_store_relaxed(&stream.end, end)
    tkv_store_relaxed(&stream.n, n)
    tkv_store_relaxed(&stream.reads, 1)
    tkv_store_relaxed(&stream.fetched, 0)


@cython.final
cdef class File:
    @staticmethod
    def open(int fd, uint64_t size, bytes folder not None, bytes name not None, bint map, bint copy):
        """Show the first `size` bytes of an open file; close `fd` at will.

        Parameters
        ----------
        folder, name : bytes
            Where it can be opened again: the paths that its folder may have by then, with NUL between them. Whoever reads it then
            sees an OSError, or SnapshotGone when the folder is gone.
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
        file.ref.distant = True
        if map:
            file.ref.told = tkv_is_own(fd)
            file.ref.base = tkv_map(fd, size)
            file._mapped = file.ref.base != NULL
            if file._mapped:
                return file
        folder += b"\0"                         # the second NUL is CPython's
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

    @staticmethod
    def remote(uint64_t size, reader not None, where):
        """Show a file that is elsewhere.

        Parameters
        ----------
        reader : RangeReader
            read(where, offset, n) gives n bytes, bring([(where, offset, n), ...]) has them here in one round, longest(where)
            tells from where to where it has most of it, and renew(where, offset, n) asks again for bytes that came damaged.
        where : hashable
            What the file is to the reader.
        """
        cdef File file = File.__new__(File)
        if size == 0:
            return File.memory(b"")
        file.ref.size = size
        file.ref.distant = True
        file.ref.here = <Extent*>calloc(1, sizeof(Extent))
        if file.ref.here == NULL:
            raise MemoryError
        file.ref.remote = <void*>file
        file._reader = reader
        file._where = where
        return file

    cdef int note_here(self) except -1:
        """Ask the reader what it has."""
        cdef uint64_t start, end
        start, end = self._reader.longest(self._where)
        tkv_store_relaxed(&self.ref.here.end, 0)        # no thread finds more than there is
        tkv_store_relaxed(&self.ref.here.start, start)
        tkv_store_relaxed(&self.ref.here.end, end)
        return 0

    cdef void scatter(self) noexcept:
        """It will be read here and there: the system is not to read ahead by itself."""
        if self._mapped:
            madvise(<void*>self.ref.base, self.ref.size, MADV_RANDOM)

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
        free(self.ref.here)

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
            if status == FILE_UNFETCHED:
                raise self.failure
            if status == FILE_GONE:
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), os.fsdecode(self._owner[0].partition(b"\0")[0]))
            if error == 0:
                raise OSError("the file has become shorter")
            raise OSError(error, os.strerror(error))
        finally:
            out_free(&scratch)


tkv_refuse_bare(File)
