/* streams - readers of the admin listener's event stream, GET /v1/events, over plain HTTP.
 *
 * The lag of a "status" event at a stream is the time from its first arrival at any stream to its
 * arrival at this one: all get the same bytes, named by their "uptime_ms". One thread. */
#ifndef BEACON_BENCH_STREAMS_H
#define BEACON_BENCH_STREAMS_H

#include <stdint.h>

enum { STREAMS_IPS = 0x7f020000, STREAMS_PER_SOURCE = 50 };

struct streams_run {
    uint16_t port;
    unsigned count;
    unsigned stuck_percent; /* stop reading behind their first event */
    double seconds;         /* from when all are open */
};

/* Prints one line of JSON. */
void streams_read(const struct streams_run *run);

#endif
