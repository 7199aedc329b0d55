/* talkers - which senders relay most: a small table of heavy hitters, sampled.
 *
 * Space-saving over TALKERS_MAX entries; one relay of TALKERS_SAMPLE is looked at, so a figure is
 * an estimate that is right within a few per cent for whoever matters. Counts run for a window of
 * TALKERS_WINDOW_S (longer when nobody ticks); readers get the last whole window. The lane's thread
 * writes; any thread reads. For people who look for the noisy one, never for decisions. */
#ifndef BEACON_SERVER_TALKERS_H
#define BEACON_SERVER_TALKERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/endpoint.h"

enum {
    TALKERS_MAX = 32, /* a lane */
    TALKERS_SAMPLE = 64,
    TALKERS_WINDOW_S = 10,
};

struct talker {
    uint32_t node_id; /* as the sender claimed */
    struct endpoint from;
    uint64_t packets, bytes; /* estimates, of the window */
};

/* The memory begins with this; what follows is the .c's. */
struct talkers {
    uint32_t left; /* relays until the next sample; the lane's thread only */
};
size_t talkers_size(void);
struct talkers *talkers_init(void *memory); /* zeroed, 64-aligned */

/* The lane's thread: a relay was forwarded. Inline: nearly all of them are only counted. */
void talkers_sample(struct talkers *t, uint32_t node_id, const struct endpoint *from, uint32_t len);
static inline void talkers_note(struct talkers *t, uint32_t node_id, const struct endpoint *from,
                                uint32_t len)
{
    if (--t->left == 0)
        talkers_sample(t, node_id, from, len);
}
/* The lane's thread, now and then: closes the window when its time is over. */
void talkers_tick(struct talkers *t, uint64_t now_ns);
/* Any thread: the last whole window, at most TALKERS_MAX, in no order. Returns how many. */
unsigned talkers_read(const struct talkers *t, struct talker ret[static TALKERS_MAX]);

#endif
