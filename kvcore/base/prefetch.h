/* Asking for a line of memory before it is needed. Any address may be given: a wrong one costs nothing and faults nothing. */
#ifndef TKV_PREFETCH_H
#define TKV_PREFETCH_H

static inline void tkv_prefetch(const void *at)
{
    __builtin_prefetch(at, 0, 3);
}

#endif
