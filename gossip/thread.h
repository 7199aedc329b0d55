/* thread - runs a struct gossip: one thread, its sockets and clock.
 *
 * It knows nothing of shards and node tables: who starts it gives functions for what goes in and
 * out. Datagrams that are no gossip (relays to a slice's port, what GRO has glued together) go to
 * `other`. */
#ifndef BEACON_GOSSIP_THREAD_H
#define BEACON_GOSSIP_THREAD_H

#include "gossip/gossip.h"

struct mesh_thread;

struct mesh_thread_config {
    struct gossip *gossip; /* the thread's alone from start to close, but for the lock below */
    int socket;            /* gossip's own of the service's group, or -1: frames come by `inbox` */
    int sender;            /* where frames leave: any of the service's sockets that may fragment */
    int family;            /* of the service's sockets */
    struct endpoint bound;
    void *arg;
    /* All on the mesh thread. */
    /* Before each turn: hand over what others have left (gossip_node_up, _input, ...). True: there
     * may be more, come back at once. */
    bool (*inbox)(void *arg, struct gossip *g, uint64_t now_ns);
    /* A datagram that is not gossip. */
    void (*other)(void *arg, uint8_t *bytes, size_t len, const struct endpoint *from);
    /* After the datagrams of a turn: what `other` caused may be sent now. */
    void (*flush)(void *arg);
    /* Every verdict on a datagram that came by our sockets. */
    void (*verdict)(void *arg, enum gossip_verdict v, size_t len);
    /* After each turn: takes gossip_route and gossip_beacons. True: could not place all, soon
     * again. */
    bool (*outbox)(void *arg, struct gossip *g, uint64_t now_ns);
    /* Once a second. */
    void (*second)(void *arg, struct gossip *g, uint64_t now_ns);
};

/* 0 or -errno. Does not start the thread. */
int mesh_thread_open(struct mesh_thread **ret, const struct mesh_thread_config *c);
int mesh_thread_start(struct mesh_thread *t);
/* Any thread: makes it turn. */
void mesh_thread_wake(const struct mesh_thread *t);
int mesh_thread_wake_fd(const struct mesh_thread *t);
/* Any thread: when it last turned, for the watchdog. */
uint64_t mesh_thread_tick_ns(const struct mesh_thread *t);
/* Says goodbye to the others (unless `quietly`) and ends the thread; it may be started again. */
void mesh_thread_stop(struct mesh_thread *t, bool quietly);
void mesh_thread_close(struct mesh_thread *t); /* stops it quietly first */

/* Counters of the socket: any thread. */
struct mesh_thread_stats {
    uint64_t sent, sent_bytes, send_errors, kernel_drops; /* the last since mesh_thread_open */
};
void mesh_thread_stats(const struct mesh_thread *t, struct mesh_thread_stats *ret);

#endif
