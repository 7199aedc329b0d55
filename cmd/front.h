/* front - everything of the TCP edge that needs the configuration: listeners, certificates, keys,
 * the WebSocket bridge, the admin interface, and what operators ask of a running beacon.
 *
 * The main thread only, but for the notes that the admin interface leaves (struct front_notes). */
#ifndef BEACON_CMD_FRONT_H
#define BEACON_CMD_FRONT_H

#include <pthread.h>
#include "server/config.h"
#include "shard/shard.h"
#include "wss/admin.h"
#include "wss/api.h"
#include "wss/bridge.h"
#include "wss/edge.h"
#include "wss/events.h"
#include "wss/keys.h"
#include "wss/tls.h"

/* What the edge's thread asks of the main thread, which it wakes with SIGUSR2. */
struct front_notes {
    pthread_t main;
    _Atomic bool reload;
    _Atomic int drain; /* FRONT_DRAIN_... */
    _Atomic int level; /* enum log_level, or -1: nothing is asked */
};
enum { FRONT_DRAIN_SAME, FRONT_DRAIN_ON, FRONT_DRAIN_OFF };

struct front {
    const struct config *config; /* of the start */
    struct shards *shards;
    struct shards_sender *sender;
    struct admin *admin;
    struct edge *edge; /* NULL: no listener at all */
    struct keys *keys; /* NULL without WSS, as the bridge */
    struct bridge *bridge;
    struct events events;
    uint64_t logged; /* sequence of the last event that was looked at for the log */
    struct api api;
    struct edge_listener listener[EDGE_LISTENERS_MAX];
    unsigned listener_count;
    struct front_notes notes;
    /* Certificate files: as loaded, and as last seen; a change counts when it has lasted a second.
     */
    struct tls_stamp loaded, seen, refused;
    unsigned refused_s; /* seconds since */
};

/* What --check-config and a start both must find good: certificates and keys. False: `error`. */
bool front_check(const struct config *c, char *error, size_t capacity);

/* Connections beyond EDGE_HTTP_CONNECTIONS that may be open: sessions and event streams. */
unsigned front_places(const struct config *c);

/* Opens listeners; before shards_start. 0 or -errno, EX_CONFIG positive for a bad file; has
 * logged. */
int front_open(struct front *f, const struct config *c, struct server *server,
               struct shards *shards, struct admin *admin);
int front_start(struct front *f); /* 0 or -errno */
/* Ends the thread and closes everything; shards must still run, or never have run. All else but
 * front_reload and front_start may be called behind it, and does nothing. */
void front_close(struct front *f);

/* SIGHUP, all or nothing: certificates and keys are read again. False: `error` says why. */
bool front_reload(struct front *f, char *error, size_t capacity);
/* Once a second: certificate files that have changed; events for the debug log. */
void front_watch(struct front *f);
/* Something that people who watch should see. */
void front_event(struct front *f, const char *kind, const char *text);
/* Makes the edge's loop turn. */
void front_wake(const struct front *f);
/* Says "not ready" and sends sessions away, spread over `spread_ms`; or takes both back. */
void front_drain(struct front *f, bool on, unsigned spread_ms);

/* False when the edge's loop has not turned for `stuck_s`. */
bool front_alive(const struct front *f, uint64_t now_ns, unsigned stuck_s);

/* Sessions there are. */
uint64_t front_sessions(const struct front *f);

#endif
