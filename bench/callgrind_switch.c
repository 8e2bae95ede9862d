/* Callgrind's switches, for bench.one_build: what is called between the two is counted, in all threads, and has a profile of its own. */
#include <valgrind/callgrind.h>

void counting_begins(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void counting_ends(const char *operation) {
    CALLGRIND_DUMP_STATS_AT(operation);
    CALLGRIND_STOP_INSTRUMENTATION;
}
