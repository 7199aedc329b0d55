/* bridge - nodes over WebSocket: /v1/compat on the public listeners.
 *
 * A connection authenticates (auth.h, keys.h) and becomes a session: binary frames are beacon
 * messages, decided by the edge's lane (server/session.h) as if they were datagrams; what shards
 * have for a session comes through their handoffs. One session an id: a newer one replaces the
 * older, which closes with 1000 "replaced". Every WEBSOCKET ping is answered; after
 * BRIDGE_PING_SECONDS without a frame we ping, and after BRIDGE_SILENCE_SECONDS more the session is
 * over: a half-open connection is found within 45 s. A slow reader loses its own oldest frames. The
 * edge's thread, but for bridge_stats. */
#ifndef BEACON_WSS_BRIDGE_H
#define BEACON_WSS_BRIDGE_H

#include "server/server.h"
#include "server/session.h"
#include "wss/conn.h"
#include "wss/events.h"
#include "wss/keys.h"
#include "wss/mesh_view.h"

enum {
    BRIDGE_AUTH_SECONDS = 10, /* so no challenge is ever older */
    BRIDGE_PING_SECONDS = 30,
    BRIDGE_SILENCE_SECONDS = 15,
    BRIDGE_PARTS_MAX = 32 << 20, /* bytes of messages that come in parts, of all sessions */
    BRIDGE_WAITING_MIN = 64,     /* so many, or a tenth of all places, may be unauthenticated */
};

/* How the edge's lane reaches UDP and the shards: shard/ and wss/ do not know each other. */
struct bridge_udp {
    void *arg;
    void (*send)(void *arg, struct outbox *out); /* sends and empties it */
    void (*wake)(void *arg, unsigned lane);
};

struct bridge_config {
    struct server *server; /* has an edge lane */
    struct events *events;
    struct mesh_view *mesh; /* where sessions may go in a drain; NULL: nowhere to name */
    struct bridge_udp udp;
    uint32_t beacon_id;
    unsigned sessions_max;
    bool legacy_auth; /* version 1 is taken too */
};

struct bridge;
int bridge_open(struct bridge **ret, const struct bridge_config *c); /* 0 or -ENOMEM */
/* Before the edge starts. */
void bridge_set_keys(struct bridge *b, struct keys *keys);
void bridge_close(struct bridge *b); /* after the edge has closed */

edge_handler bridge_http; /* arg is the bridge: /v1/compat, /health, 404 for all else */
/* Each turn of the edge: takes what shards handed over, ended lookups, a drain. Returns when it
 * wants to be called again. */
uint64_t bridge_turn(struct bridge *b, const struct conn_turn *turn);
/* Any thread. On: new sessions get 503, those that are there are closed with 1001 "beacon shutting
 * down", and the addresses of beacons that take them, spread over `spread_ms`. Off: takes it back
 * for those that are still there. */
void bridge_drain(struct bridge *b, bool on, unsigned spread_ms);

struct bridge_session {
    uint32_t node_id;
    struct endpoint from;
    enum route_class class_;
    unsigned auth_version;
    bool tls;
    uint64_t age_s, frames_in, frames_out, frames_dropped, queued_bytes;
};
/* Calls `each` for at most `count` sessions from place `*place` on, which moves on; the edge's
 * thread. False when there are no more behind. */
bool bridge_each(const struct bridge *b, unsigned *place, unsigned count, uint64_t now_ns,
                 void (*each)(const struct bridge_session *, void *), void *arg);

struct bridge_stats {                            /* any thread */
    _Atomic uint64_t sessions, waiting;          /* gauges: authenticated; in authentication */
    _Atomic uint64_t upgraded, upgrade_failures; /* /v1/compat requests; plain GET is a probe */
    _Atomic uint64_t probes;
    _Atomic uint64_t auth_ok, auth_failures, auth_timeouts, auth_unavailable;
    _Atomic uint64_t frames_in, frames_in_bytes, frames_out, frames_out_bytes;
    _Atomic uint64_t no_session; /* handed over for an id that has no session any more */
    /* Why sessions ended: a newer one, silence, protocol, the keys file has another key or none. */
    _Atomic uint64_t replaced, idle, closed_bad, withdrawn;
};
const struct bridge_stats *bridge_stats(const struct bridge *b);

#endif
