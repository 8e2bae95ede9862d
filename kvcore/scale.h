/* What Cython cannot say: the upper half of a product of 64-bit numbers, and memory in large pages. */
#ifndef TKV_SCALE_H
#define TKV_SCALE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

static inline uint64_t tkv_scale(uint64_t a, uint64_t n)
{
    return (uint64_t)((unsigned __int128)a * n >> 64);
}

/* n zeroed bytes at the start of a page, NULL when memory is out. Random access to megabytes in 4 KiB pages misses the TLB every
 * time, so large pages are asked for. */
static inline void* tkv_pages_new(size_t n)
{
    void* at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(at, n, MADV_HUGEPAGE);
#endif
    return at;
}

static inline void tkv_pages_free(void* at, size_t n)
{
    if (at != NULL)
        munmap(at, n);
}

#endif
