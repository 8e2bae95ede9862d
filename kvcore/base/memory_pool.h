/* Memory that results were in, kept for the next ones.
 *
 * malloc gives back to the system what is as large as a column, and takes it anew for the next result: every 4 KiB of it is then
 * found, zeroed and mapped again. Of 100,000 rows of five columns that was a sixth of the time. What is kept is bounded, as malloc
 * itself bounds what it keeps.
 */
#ifndef TKV_MEMORY_POOL_H
#define TKV_MEMORY_POOL_H

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/poison.h"

#define TKV_POOL_LEAST ((size_t)64 << 10)   /* what is smaller, malloc keeps itself */
#define TKV_POOL_PIECES 32

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TKV_POOL_BYTES ((size_t)0)          /* they are to see each free */
#else
#define TKV_POOL_BYTES ((size_t)32 << 20)   /* that are kept together */
#endif

typedef struct {
    void *at;
    size_t room;
} tkv_pool_piece;

/* Of the process. Nobody waits for the lock: after a fork it may be held for ever by a thread that is not there. */
static pthread_mutex_t tkv_pool_lock = PTHREAD_MUTEX_INITIALIZER;
static tkv_pool_piece tkv_pool[TKV_POOL_PIECES];    /* the oldest first */
static int tkv_pool_pieces;
static size_t tkv_pool_bytes;

/* REQUIRES: the lock. */
static inline tkv_pool_piece tkv_pool_out(int i)
{
    tkv_pool_piece piece = tkv_pool[i];
    tkv_pool_pieces--;
    tkv_pool_bytes -= piece.room;
    memmove(&tkv_pool[i], &tkv_pool[i + 1], (size_t)(tkv_pool_pieces - i) * sizeof piece);
    return piece;
}

/* n bytes, and in *room how many there are. NULL when memory is out. */
static inline void *tkv_pool_alloc(size_t n, size_t *room)
{
    tkv_pool_piece piece = {NULL, n};
    int i, best = -1;
    if (n >= TKV_POOL_LEAST && pthread_mutex_trylock(&tkv_pool_lock) == 0) {
        for (i = 0; i < tkv_pool_pieces; i++)
            if (tkv_pool[i].room >= n && tkv_pool[i].room / 2 <= n && (best < 0 || tkv_pool[i].room < tkv_pool[best].room))
                best = i;
        if (best >= 0)
            piece = tkv_pool_out(best);
        pthread_mutex_unlock(&tkv_pool_lock);
    }
    *room = piece.room;
    return piece.at != NULL ? piece.at : malloc(n + (n == 0));
}

/* What tkv_pool_alloc() gave, of that room. */
static inline void tkv_pool_free(void *at, size_t room)
{
    tkv_pool_piece old = {NULL, 0};
    if (at == NULL)
        return;
    tkv_poison(at, room);
    if (room < TKV_POOL_LEAST || room > TKV_POOL_BYTES || pthread_mutex_trylock(&tkv_pool_lock) != 0) {
        free(at);
        return;
    }
    while (tkv_pool_pieces == TKV_POOL_PIECES || tkv_pool_bytes + room > TKV_POOL_BYTES) {
        old = tkv_pool_out(0);
        free(old.at);
    }
    tkv_pool[tkv_pool_pieces].at = at;
    tkv_pool[tkv_pool_pieces].room = room;
    tkv_pool_pieces++;
    tkv_pool_bytes += room;
    pthread_mutex_unlock(&tkv_pool_lock);
}

#endif
