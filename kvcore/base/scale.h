/* What Cython cannot say: the upper half of a product of 64-bit numbers. */
#ifndef TKV_SCALE_H
#define TKV_SCALE_H

#include <stdint.h>

static inline uint64_t tkv_scale(uint64_t a, uint64_t n)
{
    return (uint64_t)((unsigned __int128)a * n >> 64);
}

#endif
