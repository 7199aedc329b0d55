/* mesh_state - the inside of struct mesh, for mesh*.c only. */
#ifndef BEACON_CMD_MESH_STATE_H
#define BEACON_CMD_MESH_STATE_H

#include "cmd/mesh.h"
#include "server/peers.h"

enum {
    SCAN_ROWS = 8192, /* rows of the table a turn, when it is read as a whole */
    SCAN_GONE = 256,
    JOURNAL_TURN = 4096, /* entries a lane and turn */
    FRAMES_TURN = 256,
    ROUTES_TURN = 8192,
    WITHDRAW_MS = 5000, /* a shard takes a new table within a second */
    SILENT_WARN_S = 10, /* a beacon that is known may be silent so long without a warning */
};
#define SAY_NS UINT64_C(30000000000)

struct mesh {
    struct mesh_config config;
    struct lane *lane;
    void *memory;
    struct gossip *gossip;
    struct mesh_thread *thread;
    struct discover *discover;
    struct shards_sender *sender;
    _Atomic(struct seal_ring *) ring; /* to be taken by the thread */
    _Atomic bool draining;

    /* The mesh's thread. */
    struct endpoint from[CONFIG_SHARDS_MAX]; /* of the frame that follows in each handoff */
    bool scanning, said_draining, waits;
    unsigned scan_lane, peers_turn;
    uint32_t scan_row, journal_lost;
    int64_t scan_cursor;
    uint64_t said_nodes, said_ns;
    struct gossip_beacon beacons[STORE_OWNERS_MAX];
    struct peers peers[2];                 /* one is read by the lanes, the other is free */
    struct mail letter[CONFIG_SHARDS_MAX]; /* nodes of one lane whose way is the same */
    struct gossip_peer peer[MESH_VIEW_PEERS_MAX];
    struct outbox out;

    struct mesh_thread_stats counted; /* what stands in the lane's figures by now */

    uint64_t settled_ns; /* when the mesh was last seen to be settled */

    struct mesh_view view;

    /* The main thread. */
    bool in_use;                 /* a lane may still read `peers`, though we have ended */
    struct mesh_view copy, seen; /* seen: what has been logged */
    unsigned silent_s[MESH_VIEW_PEERS_MAX]; /* of `seen`: for how long each has been silent */
};

/* What the mesh's thread calls, all of it in mesh_lanes.c. */
void mesh_callbacks(struct mesh_thread_config *t);
/* The whole node table will be read: what was there before us, or what no journal told. */
void mesh_scan(struct mesh *m);
/* Tells the others of us. */
void mesh_say_state(struct mesh *m, struct gossip *g, uint64_t now_ns);
/* Publishes the table of other beacons. True: not yet, the lanes still read the one before. */
bool mesh_beacons_give(struct mesh *m, struct gossip *g);
/* Renews the view. */
void mesh_show(struct mesh *m, const struct gossip *g, uint64_t now_ns);

#endif
