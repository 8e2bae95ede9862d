/* Memory for what is large and read in random order: in pages of 2 MiB where the system has them.
 *
 * Of an arena of 128 MB every record is another page of 4 KiB to the processor, and the first touch of each costs a fault.
 * A piece is given back with the size it was asked for.
 */
#ifndef TKV_PAGES_H
#define TKV_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/poison.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define TKV_LARGE_PAGE ((size_t)2 << 20)

/* NULL when memory is out. n > 0. */
static inline void *tkv_pages_alloc(size_t n)
{
#if defined(__linux__)
    if (n > SIZE_MAX / 2)
        return NULL;
    if (n >= TKV_LARGE_PAGE) {
        /* One page more than is needed, to cut an aligned piece out of it: only such pieces get large pages. */
        size_t size = (n + TKV_LARGE_PAGE - 1) & ~(TKV_LARGE_PAGE - 1);
        char *at = (char *)mmap(NULL, size + TKV_LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t before;
        if (at == (char *)MAP_FAILED)
            return NULL;
        before = (size_t)(-(uintptr_t)at & (TKV_LARGE_PAGE - 1));
        if (before)
            munmap(at, before);
        munmap(at + before + size, TKV_LARGE_PAGE - before);
        /* Not the rest of the last large page: its first touch would take all of it. */
        madvise(at + before, n & ~(TKV_LARGE_PAGE - 1), MADV_HUGEPAGE);
        return at + before;
    }
#endif
    return malloc(n);
}

static inline void tkv_pages_free(void *at, size_t n)
{
#if defined(__linux__)
    if (at != NULL && n >= TKV_LARGE_PAGE) {
        munmap(at, (n + TKV_LARGE_PAGE - 1) & ~(TKV_LARGE_PAGE - 1));
        return;
    }
#endif
    tkv_poison(at, n);
    free(at);
}

#endif
