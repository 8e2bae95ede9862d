/* Memory for decoded chunks: pieces of a few sizes, cut out of slabs, so that they share large pages.
 *
 * Chunks are read in random order. In a heap each stands on small pages of its own: a get of a store of 125 MB missed the
 * translation of every address it touched, and took 10 % longer. A piece is at most an eighth larger than what was asked for. A
 * slab whose pieces have all come back goes back to the system, but for one. What is too small or too large comes from malloc.
 */
#ifndef TKV_SLABS_H
#define TKV_SLABS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/pages.h"

#define TKV_SLAB_LEAST ((size_t)64 << 10)
#define TKV_SLAB_MOST TKV_LARGE_PAGE
#define TKV_PIECE_LEAST ((size_t)128)
#define TKV_PIECE_SIZES 112     /* eight for each power of two: enough for pieces of 128 bytes to a sixteenth of a slab */

typedef struct tkv_slab {
    struct tkv_slab *next;      /* of those of one size that have room; or NULL */
    struct tkv_slab *previous;
    void *given_back;           /* a chain of pieces through their first words */
    uint32_t live;              /* pieces in use */
    uint32_t carved;            /* bytes that have been cut into pieces so far */
    int listed;
} tkv_slab;

typedef struct {
    pthread_mutex_t lock;
    size_t slab;                /* bytes of a slab, which is aligned to as many */
    tkv_slab *roomy[TKV_PIECE_SIZES];
    uint32_t count[TKV_PIECE_SIZES];    /* of slabs with pieces in use */
    tkv_slab *spare;
    uint64_t beyond;            /* bytes of slabs with pieces in use, but for one of each size */
} tkv_slabs;

#define TKV_SLAB_HEAD ((sizeof(tkv_slab) + 63) & ~(size_t)63)

/* budget: bytes that all pieces together may take. A slab is a small part of that, for every size in use has one that is not full. */
static inline tkv_slabs *tkv_slabs_new(uint64_t budget)
{
    tkv_slabs *s = (tkv_slabs *)calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return NULL;
    }
    s->slab = TKV_SLAB_LEAST;
    while (s->slab < TKV_SLAB_MOST && s->slab < budget / 64)
        s->slab *= 2;
    return s;
}

static inline void *tkv_slab_alloc(const tkv_slabs *s)
{
    void *at = NULL;
    if (s->slab == TKV_LARGE_PAGE)
        return tkv_pages_alloc(s->slab);
    return posix_memalign(&at, s->slab, s->slab) == 0 ? at : NULL;
}

static inline void tkv_slab_free(const tkv_slabs *s, tkv_slab *slab)
{
    if (s->slab == TKV_LARGE_PAGE)
        tkv_pages_free(slab, s->slab);
    else
        free(slab);
}

/* All pieces have come back. NULL does nothing. */
static inline void tkv_slabs_free(tkv_slabs *s)
{
    if (s == NULL)
        return;
    if (s->spare != NULL)
        tkv_slab_free(s, s->spare);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* The number and, in *n, the bytes of the size of piece for *n bytes; -1 when that is malloc's. */
static inline int tkv_piece_size(const tkv_slabs *s, size_t *n)
{
    int top;
    size_t step;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return -1;                  /* which sees who uses what has been given back */
#endif
    if (*n < TKV_PIECE_LEAST || *n > s->slab / 16)
        return -1;
    top = 63 - __builtin_clzll((unsigned long long)(*n - 1));       /* 2^top < n <= 2^(top + 1) */
    step = (size_t)1 << (top - 3);
    *n = (*n + step - 1) & ~(step - 1);
    return (top - 6) * 8 + (int)((*n - 1) / step & 7);
}

static inline void tkv_slab_list(tkv_slabs *s, int size, tkv_slab *slab)
{
    slab->previous = NULL;
    slab->next = s->roomy[size];
    if (slab->next != NULL)
        slab->next->previous = slab;
    s->roomy[size] = slab;
    slab->listed = 1;
}

static inline void tkv_slab_unlist(tkv_slabs *s, int size, tkv_slab *slab)
{
    if (slab->previous != NULL)
        slab->previous->next = slab->next;
    else
        s->roomy[size] = slab->next;
    if (slab->next != NULL)
        slab->next->previous = slab->previous;
    slab->listed = 0;
}

/* NULL when memory is out. */
static inline void *tkv_piece_alloc(tkv_slabs *s, size_t n)
{
    int size = tkv_piece_size(s, &n);
    tkv_slab *slab;
    void *piece;
    if (size < 0)
        return malloc(n);
    pthread_mutex_lock(&s->lock);
    slab = s->roomy[size];
    if (slab == NULL) {
        slab = s->spare;
        s->spare = NULL;
        if (slab == NULL)
            slab = (tkv_slab *)tkv_slab_alloc(s);
        if (slab == NULL) {
            pthread_mutex_unlock(&s->lock);
            return NULL;
        }
        slab->given_back = NULL;
        slab->live = 0;
        slab->carved = TKV_SLAB_HEAD;
        tkv_slab_list(s, size, slab);
        if (s->count[size]++ > 0)
            __atomic_fetch_add(&s->beyond, s->slab, __ATOMIC_RELAXED);
    }
    piece = slab->given_back;
    if (piece != NULL) {
        slab->given_back = *(void **)piece;
    } else {
        piece = (char *)slab + slab->carved;
        slab->carved += (uint32_t)n;
    }
    slab->live++;
    if (slab->given_back == NULL && slab->carved + n > s->slab)
        tkv_slab_unlist(s, size, slab);
    pthread_mutex_unlock(&s->lock);
    return piece;
}

/* Bytes that slabs take; the last one of each size, which may be nearly empty, does not count. */
static inline uint64_t tkv_slabs_bytes(const tkv_slabs *s)
{
    return __atomic_load_n(&s->beyond, __ATOMIC_RELAXED);
}

/* n as it was asked for. */
static inline void tkv_piece_free(tkv_slabs *s, void *piece, size_t n)
{
    int size;
    tkv_slab *slab, *idle = NULL;
    tkv_poison(piece, n);
    size = tkv_piece_size(s, &n);
    if (size < 0) {
        free(piece);
        return;
    }
    slab = (tkv_slab *)((uintptr_t)piece & ~(uintptr_t)(s->slab - 1));
    pthread_mutex_lock(&s->lock);
    *(void **)piece = slab->given_back;
    slab->given_back = piece;
    if (!slab->listed)
        tkv_slab_list(s, size, slab);
    if (--slab->live == 0) {
        tkv_slab_unlist(s, size, slab);
        idle = s->spare;
        s->spare = slab;
        if (--s->count[size] > 0)
            __atomic_fetch_sub(&s->beyond, s->slab, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&s->lock);
    if (idle != NULL)
        tkv_slab_free(s, idle);
}

#endif
