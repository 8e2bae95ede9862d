/* The time, as moments of expiry are compared with it. */
#ifndef TKV_CLOCK_H
#define TKV_CLOCK_H

#include <stdint.h>
#include <time.h>

/* ms since 1970. The system's coarse clock where there is one: it is a few ms late, and takes 5 ns where the other takes 20. */
static inline int64_t tkv_now_ms(void)
{
    struct timespec now;
#ifdef CLOCK_REALTIME_COARSE
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
#else
    clock_gettime(CLOCK_REALTIME, &now);
#endif
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
