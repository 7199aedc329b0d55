/* mesh_view - what the admin interface shows of the mesh: a copy that the mesh's thread renews once
 * a second, under a lock that is held for a copy.
 *
 * Filled by cmd; wss only reads. */
#ifndef BEACON_WSS_MESH_VIEW_H
#define BEACON_WSS_MESH_VIEW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "proto/endpoint.h"

enum {
    MESH_VIEW_PEERS_MAX = 512,
    MESH_VIEW_SUCCESSORS_MAX = 4,
    MESH_VIEW_BEACONS_MAX = 1280, /* as many as a route may name */
    MESH_FAREWELL_MAX = 123 + 1,  /* a close frame's reason, with the NUL */
};

enum mesh_view_state {
    MESH_PEER_ALIVE,
    MESH_PEER_SUSPECT,
    MESH_PEER_DEAD,
    MESH_PEER_LEFT,
    MESH_PEER_PILOT,  /* a socket of an original beacon */
    MESH_PEER_SILENT, /* named, and nobody has answered there */
    MESH_PEER_STATES
};

struct mesh_view_peer {
    uint32_t id; /* 0: not known */
    struct endpoint at;
    enum mesh_view_state state;
    bool is_self, draining;
    uint64_t boot;                   /* Unix milliseconds, about */
    double rtt_s, silent_s;          /* negative: unknown */
    uint32_t rows, nodes, nodes_max; /* routes through it; what it says of itself */
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    char version[32];
    char error[96]; /* the last one, "" none */
};

struct mesh_view_totals {
    uint32_t id;
    uint32_t peers[MESH_PEER_STATES];
    uint32_t rows, rows_max, own_rows, refused_rows;
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    uint64_t deltas_sent, deltas_again, deltas_taken, deltas_held;
    uint64_t send_errors, kernel_drops, journal_lost;
    unsigned health;   /* Lifeguard's, 0: well */
    bool sealed;       /* there are keys */
    bool settled;      /* all neighbours know what we know */
    bool duplicate_id; /* another beacon uses our id */
    struct endpoint duplicate_at;
    bool registry_used, registry_ok;
    int64_t registry_ok_unix_s;
    unsigned registry_listed; /* beacons in its last good list */
    char registry_error[256];
    uint64_t shown_ns;   /* when this was written, by the monotonic clock */
    double unsettled_s;  /* since `settled` was last seen, 0: it is */
    double silent_max_s; /* the longest that a beacon in state alive or suspect is silent */
    double rtt_max_s;    /* the longest way to one of them and back */
};

/* What a route calls a beacon by, see server/peers.h. */
struct mesh_view_beacon {
    uint32_t id;        /* 0: not known */
    struct endpoint at; /* port 0: this index is not in use */
    bool usable;        /* relays go there; else a node that it has had is not reached */
};

struct mesh_view {
    pthread_mutex_t lock; /* protects the rest */
    struct mesh_view_totals totals;
    unsigned peer_count;
    struct mesh_view_peer peer[MESH_VIEW_PEERS_MAX]; /* ourselves first */
    unsigned successor_count;                        /* where nodes may go when we leave */
    struct endpoint successor[MESH_VIEW_SUCCESSORS_MAX];
    struct mesh_view_beacon beacon[MESH_VIEW_BEACONS_MAX];
};

/* "alive" and so on: for /metrics and for programs. */
const char *mesh_state_text(enum mesh_view_state state);
/* A copy; all 0 without a mesh (`v` NULL). Any thread. */
void mesh_totals(struct mesh_view *v, struct mesh_view_totals *ret);
/* Copies where nodes may go; returns how many, none without a mesh (`v` NULL). Any thread. */
unsigned mesh_successors(struct mesh_view *v, struct endpoint ret[static MESH_VIEW_SUCCESSORS_MAX]);
/* What a session is told that must go: "beacon shutting down; try HOST:PORT HOST:PORT", as many
 * whole addresses as fit. Any thread; `v` may be NULL. */
void mesh_farewell(struct mesh_view *v, char ret[static MESH_FAREWELL_MAX]);

#endif
