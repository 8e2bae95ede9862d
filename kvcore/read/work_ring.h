/* A few jobs that stand in a ring, and a second thread that does some of them while the first does what only it may.
 *
 * The jobs need no GIL. Whoever waits for one does another meanwhile that nobody has begun, so that neither thread is idle, and
 * without the second thread all of this still works.
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
    int oldest;                 /* where to look for a job that is ready first */
} tkv_ring;

/* The lock is held. Does one job that is ready, without the lock; 0 when there is none. */
static int tkv_ring_one(tkv_ring *ring)
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
        if (!tkv_ring_one(ring))
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
        pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are the program's own threads' business */
        ring->threaded = pthread_create(&ring->thread, NULL, tkv_ring_main, ring) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return ring;
}

/* Job i, idle or done, may be done from now on. */
static void tkv_ring_ready(tkv_ring *ring, int i)
{
    pthread_mutex_lock(&ring->lock);
    ring->states[i] = TKV_READY;
    pthread_cond_broadcast(&ring->change);
    pthread_mutex_unlock(&ring->lock);
}

/* Returns when job i, which was ready, is done. */
static void tkv_ring_await(tkv_ring *ring, int i)
{
    pthread_mutex_lock(&ring->lock);
    ring->oldest = i;
    while (ring->states[i] != TKV_DONE) {
        if (!tkv_ring_one(ring))
            pthread_cond_wait(&ring->change, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
}

/* Waits for what is being done, and ends. NULL does nothing. */
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
