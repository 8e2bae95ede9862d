/* A mutex behind a void pointer, so that .pxd files need no pthread types. Taken and given back without the GIL. */

#ifndef TKV_LOCK_H
#define TKV_LOCK_H

#include <pthread.h>
#include <stdlib.h>

/* NULL when memory is out. */
static inline void *tkv_lock_alloc(void)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)malloc(sizeof *mutex);
    if (mutex != NULL && pthread_mutex_init(mutex, NULL) != 0) {
        free(mutex);
        mutex = NULL;
    }
    return mutex;
}

/* The lock is free, and nobody waits for it. NULL does nothing. */
static inline void tkv_lock_free(void *lock)
{
    if (lock != NULL) {
        pthread_mutex_destroy((pthread_mutex_t *)lock);
        free(lock);
    }
}

static inline void tkv_lock_acquire(void *lock)
{
    pthread_mutex_lock((pthread_mutex_t *)lock);
}

static inline void tkv_lock_release(void *lock)
{
    pthread_mutex_unlock((pthread_mutex_t *)lock);
}

#endif
