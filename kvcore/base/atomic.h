/* Publication of data that is written once and then only read: what was stored before a release is seen after an acquire. */
#ifndef TKV_ATOMIC_H
#define TKV_ATOMIC_H

#include <stddef.h>
#include <stdint.h>

static inline void* tkv_load_acquire(void* const* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void tkv_store_release(void** at, void* value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

/* Counts and pointers of epoch-based reclamation (base/cache.pxd). A reader adds itself to a count, then loads a pointer.
 * Whoever frees clears the pointer, then loads the count. Both are sequentially consistent, so either the reader finds NULL, or
 * it is found in the count. On x86-64 an atomic add is a full fence; elsewhere a load after it could be done before the add is
 * seen. */
static inline void tkv_count(int64_t* at, int64_t n)
{
    __atomic_fetch_add(at, n, __ATOMIC_SEQ_CST);
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
static inline int64_t tkv_counted(const int64_t* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
static inline void tkv_clear_pointer(void** at) { __atomic_store_n(at, NULL, __ATOMIC_SEQ_CST); }

/* Flags that order no other memory: set and cleared by any thread, and seen by the others at some later time. */
static inline uint8_t tkv_flag(const uint8_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void tkv_set_flag(uint8_t* at, uint8_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }

/* The same for numbers. */
static inline uint64_t tkv_load_relaxed(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void tkv_store_relaxed(uint64_t* at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }

#endif
