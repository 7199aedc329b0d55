/* admin - /healthz, /livez, /readyz and /metrics: what load balancers and Prometheus read.
 *
 * /livez says a loop is stuck; /readyz and /healthz say whether to send us traffic: not while
 * draining, and only if a STUN request through the real socket is answered. Overload is never
 * "not ready". */
#ifndef BEACON_WSS_ADMIN_H
#define BEACON_WSS_ADMIN_H

#include "server/server.h"
#include "wss/edge.h"

enum { ADMIN_STUCK_SECONDS = 5, ADMIN_PROBE_CACHE_MS = 3000, ADMIN_PROBE_WAIT_MS = 500 };

/* Set by the main thread, read by the edge's. */
struct admin {
    /* Fixed before the edge starts. */
    struct server *server;
    const char *version, *revision, *compiler, *io;
    struct endpoint probe4, probe6; /* where to probe; port 0: no such family */
    bool private_allowed;           /* allow-private is not "no": shown in /readyz */
    bool metrics_on_health;         /* the health listener serves /metrics too */
    uint64_t receive_buffer;        /* granted, bytes */
    const struct edge *edge;        /* for its counters; may be set after edge_open */

    /* The main thread writes, the edge reads. */
    _Atomic bool draining;
    _Atomic bool reload_ok;
    _Atomic uint64_t reload_unix_s;
    _Atomic uint64_t log_suppressed;

    /* The prober's thread writes, the edge reads. */
    struct admin_probe *probe;
};

/* Sends one STUN Binding request to `at` from a socket of its own and waits for the answer. Blocks up
 * to `wait_ms`. Returns the round trip in ns, or -errno (-ETIMEDOUT). */
int64_t stun_probe(const struct endpoint *at, unsigned wait_ms);

/* Starts the thread that probes every ADMIN_PROBE_CACHE_MS; 0 or -errno. */
int admin_start(struct admin *a);
void admin_stop(struct admin *a);

/* Handlers for edge_listener; arg is the struct admin. */
edge_handler admin_health;  /* /healthz /livez /readyz, and /metrics if metrics_on_health */
edge_handler admin_metrics; /* /metrics */

#endif
