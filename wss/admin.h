/* admin - /healthz, /livez, /readyz and /metrics: what load balancers and Prometheus read; and what
 * the main thread leaves for them and for the admin interface (api.h).
 *
 * /livez says a loop is stuck; /readyz and /healthz say whether to send us traffic: not while
 * draining, and only if our own STUN over UDP and, where it is served, HTTP over the WSS listener
 * answer. Overload is never "not ready". */
#ifndef BEACON_WSS_ADMIN_H
#define BEACON_WSS_ADMIN_H

#include <pthread.h>
#include "server/server.h"
#include "wss/edge.h"
#include "wss/mesh_view.h"
#include "wss/probe.h"
#include "wss/tls.h"

enum { ADMIN_STUCK_SECONDS = 5, ADMIN_ERROR_MAX = 512 };

struct bridge;
struct keys;

struct admin_certificate {
    char name[TLS_NAME_MAX];
    int64_t not_after_unix_s;
};

/* The last reload that has ended. */
struct admin_reload {
    bool ok;
    int64_t unix_s;              /* when it ended */
    int64_t taken_unix_s;        /* when a configuration was last taken */
    uint64_t sequence;           /* it has seen what this call of admin_ask_reload wanted seen */
    char error[ADMIN_ERROR_MAX]; /* "" when ok */
};

/* All zero before it is filled. */
struct admin {
    /* Fixed before the edge starts. */
    struct server *server;
    const char *version, *revision, *compiler, *io;
    struct endpoint probe4, probe6; /* where to probe; port 0: no such family */
    struct probe_target probe_wss;  /* port 0: no WSS listener */
    bool metrics_on_health;         /* the health listener serves /metrics too */
    uint64_t receive_buffer;        /* granted, bytes */
    const struct edge *edge;        /* for their counters, and may be set after edge_open; */
    const struct bridge *bridge;    /* NULL where there is none */
    const struct keys *keys;
    struct mesh_view *mesh; /* NULL: standalone */

    /* The main thread writes, the edge reads. */
    _Atomic bool private_allowed; /* allow-private is not "no": shown in /readyz */
    _Atomic bool draining;
    _Atomic bool stopping; /* the drain is the last: nothing takes it back */
    _Atomic enum log_level log_level;
    _Atomic uint64_t log_suppressed;

    /* The edge writes, the main thread reads: how often it was asked to reload. */
    _Atomic uint64_t reload_asked;

    /* The main thread writes through admin_reload* and admin_certificates, the edge reads. */
    pthread_mutex_t lock; /* protects this group; all zero is an unlocked one on Linux */
    bool reloading;
    uint64_t reload_begun; /* what reload_asked was when the reload under way began */
    struct admin_reload reload;
    unsigned certificate_count;
    struct admin_certificate certificate[TLS_PAIRS_MAX];

    /* Filled by admin_start. */
    struct prober prober;
    uint64_t started_ns; /* a loop that has not turned yet is late only ADMIN_STUCK_SECONDS after */
    int64_t started_unix_s;
};

/* Call before edge_start. Starts the thread that probes every ADMIN_PROBE_CACHE_MS; 0 or -errno. */
int admin_start(struct admin *a);
/* Ends the thread; the pages then show its last results. Nothing when it did not start. */
void admin_stop(struct admin *a);

/* --- the main thread --- */

/* A reload begins: what is asked for from now on is for the next one. */
void admin_reloading(struct admin *a);
/* It has ended. `error` only when not `ok`. admin_start does it for the start itself. */
void admin_reloaded(struct admin *a, bool ok, const char *error);
/* What is served from now on. NULL: no TLS. */
void admin_certificates(struct admin *a, const struct tls *t);

/* --- any thread --- */

/* Counts a wish for a reload; returns the number that admin_reload.sequence will have reached once
 * a reload that began after this call has ended. Somebody must then tell the main thread. */
uint64_t admin_ask_reload(struct admin *a);
void admin_last_reload(struct admin *a, struct admin_reload *ret);
/* Returns how many. */
unsigned admin_read_certificates(struct admin *a,
                                 struct admin_certificate ret[static TLS_PAIRS_MAX]);

/* What stands between us and traffic. */
struct admin_checks {
    enum probe_state udp4, udp6, wss;
    bool shards_turn;
    bool draining;
};
struct admin_checks admin_check(const struct admin *a);
bool admin_checks_pass(const struct admin_checks *c); /* draining aside */
/* "ready", "draining" or "not_ready". */
const char *admin_state_text(const struct admin_checks *c);
const char *admin_probe_text(enum probe_state state);

/* What /readyz says: traffic is welcome. */
bool admin_is_ready(const struct admin *a);

/* Handlers for edge_listener; arg is the struct admin. */
edge_handler admin_health;  /* /healthz /livez /readyz, and /metrics if metrics_on_health */
edge_handler admin_metrics; /* /metrics */

#endif
