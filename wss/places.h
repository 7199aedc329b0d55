/* places - the connections of an edge: a fixed pool, what epoll shall tell of each, their
 * deadlines, and who gives way when the pool is full.
 *
 * A place that was never used costs no memory but address space. Deadlines lie apart from the
 * connections, so that a sweep over ten thousand of them touches 240 KB in one piece; a crowd is
 * swept ten times a second at most. A connection that is removed while it is in the dirty list
 * keeps its place until that has been gone through; a full pool meanwhile turns newcomers away. The
 * edge's thread only. */
#ifndef BEACON_WSS_PLACES_H
#define BEACON_WSS_PLACES_H

#include "wss/conn.h"

enum { PLACES_CROWD = 256 }; /* from so many on, sweeps keep their distance */

struct slot;

struct places {
    /* Fixed by places_open. */
    int epoll;
    uint64_t event_base; /* of epoll's data; the connection's index is added */
    unsigned count;
    struct conn *pool; /* one more than `count`, for who is about to be refused */
    struct slot *slot; /* slot[0..active) are in use */

    unsigned active;
    unsigned untouched; /* pool[untouched..] was never used */
    struct conn *vacant, *dirty;
    uint64_t sweep_ns; /* no deadline ends before */
    uint64_t swept_ns; /* the last sweep */
    struct conn_turn turn;
};

/* The rest of p->turn is the caller's to fill. 0 or -ENOMEM. */
int places_open(struct places *p, int epoll, uint64_t event_base, unsigned count);
/* Closes all connections. */
void places_close(struct places *p);

/* Takes the accepted `fd` over; closes it when there is no place (counted). */
void places_add(struct places *p, int fd, const struct edge_listener *listener,
                const struct endpoint *from);
/* epoll has reported connection `index`. */
void places_event(struct places *p, unsigned index);

/* When places_sweep is to be called. */
uint64_t places_due_ns(const struct places *p);
void places_sweep(struct places *p);
/* The end of a turn: those that have something to say, and those whose deadline was moved. */
void places_flush(struct places *p);

#endif
