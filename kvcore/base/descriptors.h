/* What the process may hold of the system to read files: descriptors, maps and copies in memory. One budget for all handles.
 *
 * A file that is read by pread has a descriptor while there is room; that of the file which was not read for longest is given
 * back when another needs one, and the file is opened again when it is next read. A map is never taken from under its readers:
 * beyond the budget files are read by pread.
 */
#ifndef TKV_DESCRIPTORS_H
#define TKV_DESCRIPTORS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define TKV_MOST_DESCRIPTORS 4096   /* and half of what the process may have */
#define TKV_MOST_COPIED ((int64_t)64 << 20)
#define TKV_USUAL_MAPS 65530        /* a process, unless the system says otherwise */

typedef struct tkv_file {
    const char *folder;             /* where its folder is looked for again: paths, each ended by NUL, and a NUL; borrowed */
    const char *name;
    int fd;                         /* -1: given back */
    int readers;                    /* in pread with it */
    struct tkv_file *newer, *older; /* among those with a descriptor */
} tkv_file;

/* Guarded by the lock. */
static pthread_mutex_t tkv_descriptors_lock = PTHREAD_MUTEX_INITIALIZER;
static tkv_file *tkv_newest, *tkv_oldest;
static int64_t tkv_descriptors, tkv_maps, tkv_copied, tkv_most_maps;

/* --- the lock is held --- */

static void tkv_file_unlink(tkv_file *file)
{
    *(file->newer ? &file->newer->older : &tkv_newest) = file->older;
    *(file->older ? &file->older->newer : &tkv_oldest) = file->newer;
    file->newer = file->older = NULL;
}

static void tkv_file_link(tkv_file *file)
{
    file->older = tkv_newest;
    *(tkv_newest ? &tkv_newest->newer : &tkv_oldest) = file;
    tkv_newest = file;
}

/* Takes a descriptor from the file that nobody reads and that was not read for longest: 0 when there is none. */
static int tkv_descriptor_back(void)
{
    tkv_file *file = tkv_oldest;
    while (file != NULL && file->readers)
        file = file->newer;
    if (file == NULL)
        return 0;
    tkv_file_unlink(file);
    close(file->fd);
    file->fd = -1;
    tkv_descriptors--;
    return 1;
}

static int64_t tkv_most_descriptors(void)
{
    struct rlimit limit;
    int64_t most = TKV_MOST_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && (int64_t)(limit.rlim_cur / 2) < most)
        most = (int64_t)(limit.rlim_cur / 2);
    return most > 1 ? most : 1;
}

/* Gives a file a descriptor, which is its own from here on, unless another thread was faster. */
static void tkv_file_adopt(tkv_file *file, int fd)
{
    if (file->fd >= 0) {
        close(fd);
        return;
    }
    while (tkv_descriptors >= tkv_most_descriptors() && tkv_descriptor_back())
        ;
    file->fd = fd;
    tkv_descriptors++;
    tkv_file_link(file);
}

/* --- the lock is not held --- */

/* As open() and openat(), for which others give their descriptors back. */
static int tkv_open(int folder, const char *path, int flags)
{
    for (;;) {
        int fd = openat(folder, path, flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC), error = errno, freed;
        if (fd >= 0 || (error != EMFILE && error != ENFILE))
            return fd;
        pthread_mutex_lock(&tkv_descriptors_lock);
        freed = tkv_descriptor_back();
        pthread_mutex_unlock(&tkv_descriptors_lock);
        errno = error;
        if (!freed)
            return -1;
    }
}

/* -1 with errno: ENOENT when all of the folder is gone, EBADF when the file alone is gone, or no file any more. */
static int tkv_file_open_in(const char *path, const char *name)
{
    struct stat status;
    int fd, error, folder = tkv_open(AT_FDCWD, path, O_DIRECTORY);
    if (folder < 0) {
        if (errno == ESTALE)
            errno = ENOENT;
        return -1;
    }
    fd = tkv_open(folder, name, O_NONBLOCK);
    error = errno;
    close(folder);
    if (fd >= 0) {
        if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
            return fd;
        close(fd);
        error = ELOOP;
    }
    /* A vacuum gives the folder another name, then empties it; so does who moves it. */
    if (error == ENOENT || error == ESTALE)
        error = lstat(path, &status) == 0 ? EBADF : ENOENT;
    errno = error == ELOOP || error == ENXIO ? EBADF : error;
    return -1;
}

/* The same wherever the folder may be by now. */
static int tkv_file_open(const tkv_file *file)
{
    const char *path;
    int fd = -1;
    errno = ENOENT;
    for (path = file->folder; *path && fd < 0 && errno == ENOENT; path += strlen(path) + 1)
        fd = tkv_file_open_in(path, file->name);
    return fd;
}

/* A descriptor to read the file with until tkv_file_leave(), or -1 with errno as above. */
static int tkv_file_enter(tkv_file *file)
{
    int fd;
    pthread_mutex_lock(&tkv_descriptors_lock);
    while (file->fd < 0) {
        pthread_mutex_unlock(&tkv_descriptors_lock);
        fd = tkv_file_open(file);
        if (fd < 0)
            return -1;
        pthread_mutex_lock(&tkv_descriptors_lock);
        tkv_file_adopt(file, fd);
    }
    file->readers++;
    fd = file->fd;
    if (file != tkv_newest) {
        tkv_file_unlink(file);
        tkv_file_link(file);
    }
    pthread_mutex_unlock(&tkv_descriptors_lock);
    return fd;
}

static void tkv_file_leave(tkv_file *file)
{
    pthread_mutex_lock(&tkv_descriptors_lock);
    file->readers--;
    pthread_mutex_unlock(&tkv_descriptors_lock);
}

/* n bytes from an open file; *done: how many there were. -1 with errno; 0: the file ends before. */
static int tkv_read_all(int fd, uint8_t *into, size_t n, uint64_t offset, size_t *done)
{
    ssize_t got;
    for (*done = 0; *done < n; *done += (size_t)got) {
        got = pread(fd, into + *done, n - *done, (off_t)(offset + *done));
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0) {
            if (got == 0)
                errno = 0;
            return -1;
        }
    }
    return 0;
}

/* The same of a file that may have been given back: errno also as in tkv_file_open(). */
static int tkv_file_read(tkv_file *file, uint8_t *into, size_t n, uint64_t offset)
{
    size_t done;
    int status, error, fd = tkv_file_enter(file);
    if (fd < 0)
        return -1;
    status = tkv_read_all(fd, into, n, offset, &done);
    error = errno;
    tkv_file_leave(file);
    errno = error;
    return status;
}

/* Whether a byte of the file can be read without a wait for the disk, as far as the system tells. */
static int tkv_file_cached(tkv_file *file, uint64_t offset)
{
#ifdef RWF_NOWAIT
    uint8_t byte;
    struct iovec into = {&byte, 1};
    int cached, fd = tkv_file_enter(file);
    if (fd < 0)
        return 1;
    cached = preadv2(fd, &into, 1, (off_t)offset, RWF_NOWAIT) >= 0 || errno != EAGAIN;
    tkv_file_leave(file);
    return cached;
#else
    (void)file, (void)offset;
    return 1;
#endif
}

/* Asks for n bytes, without a wait: errors are of no account. */
static void tkv_file_fetch(tkv_file *file, uint64_t offset, uint64_t n)
{
#ifdef POSIX_FADV_WILLNEED
    int fd = tkv_file_enter(file);
    if (fd < 0)
        return;
    posix_fadvise(fd, (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED);
    tkv_file_leave(file);
#else
    (void)file, (void)offset, (void)n;
#endif
}

/* Begins a file that is open as `fd`, of which it keeps a duplicate if there is one to be had. folder, name: borrowed. */
static void tkv_file_begin(tkv_file *file, int fd, const char *folder, const char *name)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    file->folder = folder;
    file->name = name;
    file->fd = -1;
    file->readers = 0;
    file->newer = file->older = NULL;
    if (own >= 0) {
        pthread_mutex_lock(&tkv_descriptors_lock);
        tkv_file_adopt(file, own);
        pthread_mutex_unlock(&tkv_descriptors_lock);
    }
}

static void tkv_file_end(tkv_file *file)
{
    pthread_mutex_lock(&tkv_descriptors_lock);
    if (file->fd >= 0) {
        tkv_file_unlink(file);
        close(file->fd);
        tkv_descriptors--;
    }
    pthread_mutex_unlock(&tkv_descriptors_lock);
}

/* Gives back half of the descriptors: how many. */
static int64_t tkv_descriptors_back(void)
{
    int64_t done = 0, n;
    pthread_mutex_lock(&tkv_descriptors_lock);
    for (n = (tkv_descriptors + 1) / 2; done < n && tkv_descriptor_back(); done++)
        ;
    pthread_mutex_unlock(&tkv_descriptors_lock);
    return done;
}

/* Half of the maps that the system lets a process have: the other half is for memory, libraries and whoever else maps. */
static int64_t tkv_map_budget(void)
{
    long most = TKV_USUAL_MAPS;
    FILE *told;
    if (tkv_most_maps)
        return tkv_most_maps;
    told = fopen("/proc/sys/vm/max_map_count", "re");
    if (told != NULL) {
        if (fscanf(told, "%ld", &most) != 1 || most < 2)
            most = TKV_USUAL_MAPS;
        fclose(told);
    }
    return tkv_most_maps = most / 2;
}

/* The first n bytes of an open file, or NULL: beyond the budget, or the system has no more. */
static const uint8_t *tkv_map(int fd, size_t n)
{
    void *at;
    int room;
    pthread_mutex_lock(&tkv_descriptors_lock);
    room = tkv_maps < tkv_map_budget();
    tkv_maps += room;
    pthread_mutex_unlock(&tkv_descriptors_lock);
    if (!room) {
        errno = ENOMEM;
        return NULL;
    }
    at = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        return (const uint8_t *)at;
    pthread_mutex_lock(&tkv_descriptors_lock);
    tkv_maps--;
    pthread_mutex_unlock(&tkv_descriptors_lock);
    return NULL;
}

/* Whether the system tells this user which pages of the file are cached. */
static int tkv_is_own(int fd)
{
    struct stat status;
    return geteuid() == 0 || (fstat(fd, &status) == 0 && status.st_uid == geteuid());
}

static void tkv_unmap(const uint8_t *at, size_t n)
{
    munmap((void *)at, n);
    pthread_mutex_lock(&tkv_descriptors_lock);
    tkv_maps--;
    pthread_mutex_unlock(&tkv_descriptors_lock);
}

/* Counts n bytes in memory, or gives them back: 0 when there is no room for them. */
static int tkv_copied_count(int64_t n)
{
    int room;
    pthread_mutex_lock(&tkv_descriptors_lock);
    room = n < 0 || tkv_copied + n <= TKV_MOST_COPIED;
    tkv_copied += room ? n : 0;
    pthread_mutex_unlock(&tkv_descriptors_lock);
    return room;
}

/* --- fork --- */

static void tkv_descriptors_before(void) { pthread_mutex_lock(&tkv_descriptors_lock); }

static void tkv_descriptors_parent(void) { pthread_mutex_unlock(&tkv_descriptors_lock); }

static void tkv_descriptors_child(void)
{
    tkv_file *file;
    for (file = tkv_newest; file != NULL; file = file->older)
        file->readers = 0;          /* threads that are not here */
    pthread_mutex_unlock(&tkv_descriptors_lock);
}

static inline int tkv_descriptors_setup(void) { return pthread_atfork(tkv_descriptors_before, tkv_descriptors_parent, tkv_descriptors_child); }

#endif
