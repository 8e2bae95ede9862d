/* Publication of data that is written once and then only read: what was stored before a release is seen after an acquire. */
#ifndef TILEKV_ATOMIC_H
#define TILEKV_ATOMIC_H

static inline void* tkv_load_acquire(void* const* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void tkv_store_release(void** at, void* value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

#endif
