/* A few jobs that stand in a ring, and a second thread that does some of them while the first does what only it may.
 *
 * The jobs need no GIL. Whoever waits for one does another meanwhile that nobody has begun, so that neither thread is idle, and
 * without the second thread all of this still works.
 */
#ifndef TKV_BESIDE_H
#define TKV_BESIDE_H

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define TKV_BESIDE_JOBS 3

typedef void (*tkv_beside_run)(void *job);

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t change;      /* a job is ready or done, or all are to stop */
    pthread_t thread;
    int threaded;
    int stop;
    tkv_beside_run run;
    int n;
    void *jobs[TKV_BESIDE_JOBS];
    enum { TKV_IDLE, TKV_READY, TKV_RUNNING, TKV_DONE } states[TKV_BESIDE_JOBS];
    int oldest;                 /* where to look for a job that is ready first */
} tkv_beside;

/* The lock is held. Does one job that is ready, without the lock; 0 when there is none. */
static int tkv_beside_one(tkv_beside *b)
{
    int k, i;
    for (k = 0; k < b->n; k++) {
        i = (b->oldest + k) % b->n;
        if (b->states[i] == TKV_READY) {
            b->states[i] = TKV_RUNNING;
            pthread_mutex_unlock(&b->lock);
            b->run(b->jobs[i]);
            pthread_mutex_lock(&b->lock);
            b->states[i] = TKV_DONE;
            pthread_cond_broadcast(&b->change);
            return 1;
        }
    }
    return 0;
}

static void *tkv_beside_main(void *given)
{
    tkv_beside *b = (tkv_beside *)given;
    pthread_mutex_lock(&b->lock);
    while (!b->stop) {
        if (!tkv_beside_one(b))
            pthread_cond_wait(&b->change, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* n jobs, at most TKV_BESIDE_JOBS, all idle. threaded: whether to start a thread; when none is to be had, it goes without. NULL when memory is out. */
static tkv_beside *tkv_beside_start(tkv_beside_run run, void *const *jobs, int n, int threaded)
{
    tkv_beside *b = (tkv_beside *)calloc(1, sizeof *b);
    int i;
    if (b == NULL)
        return NULL;
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b);
        return NULL;
    }
    if (pthread_cond_init(&b->change, NULL) != 0) {
        pthread_mutex_destroy(&b->lock);
        free(b);
        return NULL;
    }
    b->run = run;
    b->n = n;
    for (i = 0; i < n; i++)
        b->jobs[i] = jobs[i];
    if (threaded) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are the program's own threads' business */
        b->threaded = pthread_create(&b->thread, NULL, tkv_beside_main, b) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return b;
}

/* Job i, idle or done, may be done from now on. */
static void tkv_beside_ready(tkv_beside *b, int i)
{
    pthread_mutex_lock(&b->lock);
    b->states[i] = TKV_READY;
    pthread_cond_broadcast(&b->change);
    pthread_mutex_unlock(&b->lock);
}

/* Returns when job i, which was ready, is done. */
static void tkv_beside_await(tkv_beside *b, int i)
{
    pthread_mutex_lock(&b->lock);
    b->oldest = i;
    while (b->states[i] != TKV_DONE) {
        if (!tkv_beside_one(b))
            pthread_cond_wait(&b->change, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
}

/* Waits for what is being done, and ends. NULL does nothing. */
static void tkv_beside_stop(tkv_beside *b)
{
    if (b == NULL)
        return;
    if (b->threaded) {
        pthread_mutex_lock(&b->lock);
        b->stop = 1;
        pthread_cond_broadcast(&b->change);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->thread, NULL);
    }
    pthread_cond_destroy(&b->change);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

#endif
