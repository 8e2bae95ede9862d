/* The upper half of the product of two 64-bit numbers, for which Cython has no type. */
#ifndef TKV_SCALE_H
#define TKV_SCALE_H

#include <stdint.h>

static inline uint64_t tkv_scale(uint64_t a, uint64_t n)
{
    return (uint64_t)((unsigned __int128)a * n >> 64);
}

#endif
