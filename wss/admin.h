/* admin - /healthz, /livez, /readyz and /metrics: what load balancers and Prometheus read.
 *
 * /livez says a loop is stuck; /readyz and /healthz say whether to send us traffic: not while
 * draining, and only if a STUN request through the real socket is answered. Overload is never
 * "not ready". */
#ifndef BEACON_WSS_ADMIN_H
#define BEACON_WSS_ADMIN_H

#include "server/server.h"
#include "wss/edge.h"
#include "wss/probe.h"

enum { ADMIN_STUCK_SECONDS = 5 };

/* Set by the main thread, read by the edge's. */
struct admin {
    /* Fixed before the edge starts. */
    struct server *server;
    const char *version, *revision, *compiler, *io;
    struct endpoint probe4, probe6; /* where to probe; port 0: no such family */
    bool metrics_on_health;         /* the health listener serves /metrics too */
    uint64_t receive_buffer;        /* granted, bytes */
    const struct edge *edge;        /* for its counters; may be set after edge_open */

    /* The main thread writes, the edge reads. */
    _Atomic bool private_allowed; /* allow-private is not "no": shown in /readyz */
    _Atomic bool draining;
    _Atomic bool reload_ok;
    _Atomic uint64_t reload_unix_s;
    _Atomic uint64_t log_suppressed;

    /* Filled by admin_start. */
    struct prober prober;
    uint64_t started_ns; /* a loop that has not turned yet is late only ADMIN_STUCK_SECONDS after */
    int64_t started_unix_s;
};

/* Call before edge_start. Starts the thread that probes every ADMIN_PROBE_CACHE_MS; 0 or -errno. */
int admin_start(struct admin *a);
/* Ends the thread; the pages then show its last results. Nothing when it did not start. */
void admin_stop(struct admin *a);

/* What /readyz says: traffic is welcome. Any thread. */
bool admin_is_ready(const struct admin *a);

/* Handlers for edge_listener; arg is the struct admin. */
edge_handler admin_health;  /* /healthz /livez /readyz, and /metrics if metrics_on_health */
edge_handler admin_metrics; /* /metrics */

#endif
