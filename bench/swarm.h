/* swarm - many wsclients in one epoll.
 *
 * Client i has the node id SWARM_FIRST_ID + i and shares its source address with few others, since
 * a beacon bounds what one address may hold. Those that fail before they are open are tried again;
 * those that fail later are counted and stay away. One thread. */
#ifndef BEACON_BENCH_SWARM_H
#define BEACON_BENCH_SWARM_H

#include "bench/reasons.h"
#include "bench/wsclient.h"

enum {
    SWARM_FIRST_ID = 1,
    SWARM_SOURCES = 0x7f100000, /* 127.16.0.0 to 127.31.255.255 */
    SWARM_AT_ONCE = 256,        /* so many may be on their way to being open */
    SWARM_SMALL_RCVBUF = 4096,
    SWARM_OTHERS_MAX = 2,
};

struct swarm {
    /* Fixed. */
    struct wsclient_target target;
    int epoll;
    unsigned count, per_source;
    unsigned small_every; /* every so manieth has a small receive buffer; 0: none */
    struct wsclient *client;
    wsclient_message *message;
    void *arg;

    unsigned next; /* the first that was never begun */
    unsigned under_way, up;
    unsigned *again; /* failed, to be begun anew: a stack */
    unsigned again_count;
    uint64_t failures; /* before they were open */
    uint64_t lost;     /* after */
    struct reasons reasons;
    bool ready[SWARM_OTHERS_MAX]; /* by the last turn: the other descriptors have input */
};

/* Ends the process when it cannot. */
void swarm_open(struct swarm *s);
/* Another descriptor to wait for; its input is told in ready[which]. */
void swarm_watch(struct swarm *s, unsigned which, int fd);
/* True: all are open. False: they are not after so many seconds. */
bool swarm_bring_up(struct swarm *s, double seconds);
/* Waits for anything, at most so long, and deals with it. */
void swarm_turn(struct swarm *s, uint64_t timeout_ns);
/* Call after wsclient_put and wsclient_flush, and after setting `paused`. */
void swarm_changed(struct swarm *s, struct wsclient *c);

#endif
