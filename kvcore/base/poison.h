/* Memory that is given back, in a debug build (TILEKV_DEBUG=1): filled, so that who still reads it reads nonsense, every time. */

#ifndef TKV_SPOIL_H
#define TKV_SPOIL_H

#include <stddef.h>
#include <string.h>

#ifdef TILEKV_DEBUG
static inline void tkv_spoil(void *at, size_t n)
{
    if (at != NULL && n > 0)
        memset(at, 0xDB, n);
    /* What a free() follows is dead to the compiler, which would leave it out. */
    __asm__ volatile("" : : "r"(at) : "memory");
}
#else
static inline void tkv_spoil(void *at, size_t n)
{
    (void)at;
    (void)n;
}
#endif

#endif
