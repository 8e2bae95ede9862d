/* Memory that is refused to kvcore, and reads of files that fail: preloaded by tests/crash/test_memory.py. For glibc. */

#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *at, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

#define MOST_RANGES 256

/* Where the code is whose requests are counted: the modules of kvcore, and the compressors that they call. */
static const char *const COUNTED[] = {"/kvcore/", "/libzstd", "/liblz4", "/libbz2"};
static struct {
    uintptr_t start, end;
} ranges[MOST_RANGES];
static int nranges;

static int armed;
static long asked, refused_at, refused;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *data)
{
    size_t i;
    int k, counted = 0;
    (void)size;
    (void)data;
    for (i = 0; i < sizeof COUNTED / sizeof *COUNTED; i++)
        counted |= strstr(info->dlpi_name, COUNTED[i]) != NULL;
    for (k = 0; counted && k < info->dlpi_phnum && nranges < MOST_RANGES; k++)
        if (info->dlpi_phdr[k].p_type == PT_LOAD && info->dlpi_phdr[k].p_flags & PF_X) {
            ranges[nranges].start = info->dlpi_addr + info->dlpi_phdr[k].p_vaddr;
            ranges[nranges].end = ranges[nranges].start + info->dlpi_phdr[k].p_memsz;
            nranges++;
        }
    return 0;
}

/* From now on request number `nth` is refused, and no other. The first call finds the modules: all are loaded by then. */
void refuse_nth(long nth)
{
    if (nranges == 0)
        dl_iterate_phdr(add_ranges, NULL);
    refused = 0;
    refused_at = nth;
    __atomic_store_n(&asked, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&armed, 1, __ATOMIC_SEQ_CST);
}

/* No more. Returns whether one was refused. */
long refuse_none(void)
{
    __atomic_store_n(&armed, 0, __ATOMIC_SEQ_CST);
    return refused;
}

static int refuse(const void *caller, int error)
{
    uintptr_t at = (uintptr_t)caller;
    int i;
    if (!__atomic_load_n(&armed, __ATOMIC_RELAXED))
        return 0;
    for (i = 0; i < nranges; i++)
        if (ranges[i].start <= at && at < ranges[i].end) {
            if (__atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST) != refused_at)
                return 0;
            refused = 1;
            errno = error;
            return 1;
        }
    return 0;
}

void *malloc(size_t n)
{
    return refuse(__builtin_return_address(0), ENOMEM) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return refuse(__builtin_return_address(0), ENOMEM) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *at, size_t n)
{
    return refuse(__builtin_return_address(0), ENOMEM) ? NULL : __libc_realloc(at, n);
}

int posix_memalign(void **at, size_t alignment, size_t n)
{
    if (refuse(__builtin_return_address(0), ENOMEM))
        return ENOMEM;
    *at = __libc_memalign(alignment, n);
    return *at == NULL ? ENOMEM : 0;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return refuse(__builtin_return_address(0), ENOMEM) ? MAP_FAILED
                                               : (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

ssize_t pread64(int fd, void *into, size_t n, off64_t offset)
{
    if (refuse(__builtin_return_address(0), EIO))
        return -1;
    return syscall(SYS_pread64, fd, into, n, offset);
}

ssize_t pread(int fd, void *into, size_t n, off_t offset)
{
    if (refuse(__builtin_return_address(0), EIO))
        return -1;
    return syscall(SYS_pread64, fd, into, n, offset);
}
