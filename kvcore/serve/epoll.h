/* Linux's epoll, and on systems without it calls that say so: `serve` needs it, the rest of the package does not. */
#ifndef TKV_EPOLL_H
#define TKV_EPOLL_H

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __linux__
#include <sys/epoll.h>
#else
enum { EPOLLIN = 1, EPOLLOUT = 4, EPOLLERR = 8, EPOLLHUP = 16, EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 };
typedef union epoll_data { int fd; } epoll_data_t;
struct epoll_event { uint32_t events; epoll_data_t data; };

static inline int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    (void)epoll, (void)what, (void)fd, (void)event;
    errno = ENOSYS;
    return -1;
}

static inline int epoll_wait(int epoll, struct epoll_event *events, int most, int milliseconds)
{
    (void)epoll, (void)events, (void)most, (void)milliseconds;
    errno = ENOSYS;
    return -1;
}
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#endif
