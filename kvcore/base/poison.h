/* In a debug build (TILEKV_DEBUG=1) memory is overwritten before it is freed: whoever still reads it gets nonsense, every time. */

#ifndef TKV_POISON_H
#define TKV_POISON_H

#include <stddef.h>
#include <string.h>

#ifdef TILEKV_DEBUG
static inline void tkv_poison(void *at, size_t n)
{
    if (at != NULL && n > 0)
        memset(at, 0xDB, n);
    /* A compiler leaves out a store that only free() follows; this keeps it. */
    __asm__ volatile("" : : "r"(at) : "memory");
}
#else
static inline void tkv_poison(void *at, size_t n)
{
    (void)at;
    (void)n;
}
#endif

#endif
