/* A ring of a few jobs, done by two threads: a helper, and the caller when it would have to wait.
 *
 * The caller prepares a job with the GIL, says that it is ready, and later waits for it without the GIL. The jobs need no GIL.
 * While the job that it waits for is not done, the caller does another one that is ready. Without a helper (none was asked for,
 * or no thread could be started) the caller does all of them.
 */
#ifndef TKV_WORK_RING_H
#define TKV_WORK_RING_H

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define TKV_RING_JOBS 3

typedef void (*tkv_ring_work)(void *job);

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t change;      /* a job is ready or done, or all are to stop */
    pthread_t thread;
    int threaded;
    int stop;
    tkv_ring_work run;
    int n;
    void *jobs[TKV_RING_JOBS];
    enum { TKV_IDLE, TKV_READY, TKV_RUNNING, TKV_DONE } states[TKV_RING_JOBS];
    int oldest;                 /* the search for a job that is ready begins here */
} tkv_ring;

/* REQUIRES: the lock is held; it is released while the job runs. Does one job that is ready, or returns 0. */
static int tkv_ring_do_one(tkv_ring *ring)
{
    int k, i;
    for (k = 0; k < ring->n; k++) {
        i = (ring->oldest + k) % ring->n;
        if (ring->states[i] == TKV_READY) {
            ring->states[i] = TKV_RUNNING;
            pthread_mutex_unlock(&ring->lock);
            ring->run(ring->jobs[i]);
            pthread_mutex_lock(&ring->lock);
            ring->states[i] = TKV_DONE;
            pthread_cond_broadcast(&ring->change);
            return 1;
        }
    }
    return 0;
}

static void *tkv_ring_main(void *given)
{
    tkv_ring *ring = (tkv_ring *)given;
    pthread_mutex_lock(&ring->lock);
    while (!ring->stop) {
        if (!tkv_ring_do_one(ring))
            pthread_cond_wait(&ring->change, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
    return NULL;
}

/* n jobs, at most TKV_RING_JOBS, all idle. threaded: whether to start a thread; when none is to be had, it goes without.
   NULL when memory is out. */
static tkv_ring *tkv_ring_start(tkv_ring_work run, void *const *jobs, int n, int threaded)
{
    tkv_ring *ring = (tkv_ring *)calloc(1, sizeof *ring);
    int i;
    if (ring == NULL)
        return NULL;
    if (pthread_mutex_init(&ring->lock, NULL) != 0) {
        free(ring);
        return NULL;
    }
    if (pthread_cond_init(&ring->change, NULL) != 0) {
        pthread_mutex_destroy(&ring->lock);
        free(ring);
        return NULL;
    }
    ring->run = run;
    ring->n = n;
    for (i = 0; i < n; i++)
        ring->jobs[i] = jobs[i];
    if (threaded) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);    /* the threads of the program handle signals, not this one */
        ring->threaded = pthread_create(&ring->thread, NULL, tkv_ring_main, ring) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return ring;
}

/* Job i, which is idle or done, is to be done (again). */
static void tkv_ring_ready(tkv_ring *ring, int i)
{
    pthread_mutex_lock(&ring->lock);
    ring->states[i] = TKV_READY;
    pthread_cond_broadcast(&ring->change);
    pthread_mutex_unlock(&ring->lock);
}

/* Waits until job i, which was made ready, is done. */
static void tkv_ring_await(tkv_ring *ring, int i)
{
    pthread_mutex_lock(&ring->lock);
    ring->oldest = i;
    while (ring->states[i] != TKV_DONE) {
        if (!tkv_ring_do_one(ring))
            pthread_cond_wait(&ring->change, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
}

/* Waits for the job that the helper is doing, and frees the ring. NULL does nothing. */
static void tkv_ring_stop(tkv_ring *ring)
{
    if (ring == NULL)
        return;
    if (ring->threaded) {
        pthread_mutex_lock(&ring->lock);
        ring->stop = 1;
        pthread_cond_broadcast(&ring->change);
        pthread_mutex_unlock(&ring->lock);
        pthread_join(ring->thread, NULL);
    }
    pthread_cond_destroy(&ring->change);
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}

#endif
