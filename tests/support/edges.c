/* Which edges of instrumented code (-fsanitize-coverage=trace-pc) ran: preloaded by `make sanitize` and `make fuzz`. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EDGES ((size_t)1 << 20)

static uint8_t now[EDGES]; /* since tkv_new_edges() was last called */
static uint8_t ever[EDGES];
static uint32_t touched[EDGES];
static size_t count;

/* An edge is a pair of places, so that two ways to one place count as two. */
void __sanitizer_cov_trace_pc(void)
{
    static __thread uintptr_t before;
    uintptr_t place = (uintptr_t)__builtin_return_address(0) * (uintptr_t)0x9E3779B97F4A7C15;
    uint32_t edge = (uint32_t)(((place >> 40) ^ before) & (EDGES - 1));
    before = (place >> 41) & (EDGES - 1);
    if (!now[edge]) {
        now[edge] = 1;
        /* Threads may race here: one of two edges found at the same moment is then found later. */
        if (count < EDGES)
            touched[count++] = edge;
    }
}

/* How many edges ran since the last call that had never run before. */
size_t tkv_new_edges(void)
{
    size_t fresh = 0, i, n = count;
    for (i = 0; i < n; i++) {
        uint32_t edge = touched[i];
        now[edge] = 0;
        if (!ever[edge]) {
            ever[edge] = 1;
            fresh++;
        }
    }
    count = 0;
    return fresh;
}
