cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport realloc

from tilekv.kvcore.base.bare cimport tkv_refuse_bare

cdef extern from "base/memory_pool.h" nogil:
    void* tkv_pool_alloc(size_t n, size_t* room)
    void tkv_pool_free(void* at, size_t room)

cdef enum:
    WASTE = 8                   # an eighth more than what is used may stay: less is not worth a move


@cython.final
cdef class PooledMemory:
    def __dealloc__(self):
        tkv_pool_free(self.at, self.room)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.at, self.size, 1, flags)

    cdef int shrink(self, size_t n) except -1:
        cdef void* at
        if n < self.room - self.room // WASTE:
            at = realloc(self.at, n + (n == 0))
            if at != NULL:
                self.at = <uint8_t*>at
                self.room = n
        self.size = n
        return 0


cdef PooledMemory new_memory(size_t n):
    cdef PooledMemory memory = PooledMemory.__new__(PooledMemory)
    memory.at = <uint8_t*>tkv_pool_alloc(n, &memory.room)
    if memory.at == NULL:
        raise MemoryError
    memory.size = n
    return memory


tkv_refuse_bare(PooledMemory)
