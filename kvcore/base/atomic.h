/* Publication of data that is written once and then only read: what was stored before a release is seen after an acquire. */
#ifndef TILEKV_ATOMIC_H
#define TILEKV_ATOMIC_H

#include <stddef.h>
#include <stdint.h>

static inline void* tkv_load_acquire(void* const* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void tkv_store_release(void** at, void* value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

/* Counters and pointers whose order matters across variables: who was counted before a pointer was taken away may still use what
 * it led to; who is counted later finds it gone. x86 adds behind a full fence; elsewhere a load that follows could come first. */
static inline void tkv_count(int64_t* at, int64_t n)
{
    __atomic_fetch_add(at, n, __ATOMIC_SEQ_CST);
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
static inline int64_t tkv_counted(const int64_t* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
static inline void tkv_take_away(void** at) { __atomic_store_n(at, NULL, __ATOMIC_SEQ_CST); }

/* Flags that say nothing of other memory: set and cleared by any thread, seen by the others some time. */
static inline uint8_t tkv_flag(const uint8_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void tkv_set_flag(uint8_t* at, uint8_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }

#endif
