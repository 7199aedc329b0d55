/* gossip - the mesh without its sockets: frames and the time in; frames, routes and beacons out.
 *
 * Puts together seal (who may speak), member (who is alive), store (who claims which node) and sync
 * (who knows what). A sender's boot counts only after it has echoed a challenge of ours; until then
 * its frames do nothing but cause that challenge.
 *
 * Outputs are pulled: after each input and tick, take gossip_send, gossip_route and gossip_beacon
 * until they are empty, as far as there is room to put them. Nothing is lost by taking them later.
 *
 * Pure, one thread, fixed memory of the caller. The simulator in tests/sim runs many of these. */
#ifndef BEACON_GOSSIP_GOSSIP_H
#define BEACON_GOSSIP_GOSSIP_H

#include "gossip/member.h"
#include "gossip/pilot.h"
#include "gossip/seal.h"
#include "gossip/store.h"
#include "gossip/sync.h"

struct gossip;

enum { GOSSIP_SEEDS_MAX = 256, GOSSIP_VERSION_TEXT_MAX = STATE_VERSION_MAX };

struct gossip_config {
    uint32_t beacon_id; /* 0 only without keys: then Pilot's gossip alone */
    uint64_t boot;      /* Unix milliseconds at start: larger at each start but for clock steps */
    uint32_t rows;      /* of the store */
    uint32_t own_rows;  /* of these, for nodes of our own alone */
    uint32_t owner_rows;
    bool strict; /* Pilot syncs only from peers that were named */
    uint8_t seed[64];
};

/* Why a frame counted or not; each has a verdict in server/stats.h. */
enum gossip_verdict {
    GOSSIP_TAKEN,
    GOSSIP_CHALLENGED,  /* an unknown boot: asked to prove itself */
    GOSSIP_MALFORMED,   /* not a frame, or a body of the wrong shape */
    GOSSIP_UNKNOWN_KEY, /* none of our keys */
    GOSSIP_FORGED,
    GOSSIP_REPLAYED,
    GOSSIP_NOT_OURS, /* for another beacon */
    GOSSIP_OWN_ID,   /* another beacon uses our id */
    GOSSIP_LIMITED,  /* a peer's budget of frames, or that of bad ones */
    SYNC_TAKEN,
    SYNC_HELD,     /* a surprise: waits for the next one to say the same */
    SYNC_STRANGER, /* strict, and not from a named peer; or a peer that seals */
    SYNC_SHORT,
    SYNC_LIMITED, /* too many of one source, or too many sources */
    GOSSIP_VERDICT_COUNT
};

size_t gossip_size(const struct gossip_config *c);
struct gossip *gossip_init(void *memory, const struct gossip_config *c, uint64_t now_ns);

/* --- inputs --- */

/* Keys; NULL or none: nothing is sealed or opened. Copied. */
void gossip_set_keys(struct gossip *g, const struct seal_ring *ring);

/* Where other beacons may be: from the configuration, a peers file, DNS, the registry. The whole
 * set; our own addresses in it do no harm. */
struct gossip_seed {
    struct endpoint at;
    uint32_t id;   /* 0: not known */
    bool is_pilot; /* an original beacon: 0x07 only */
};
void gossip_set_seeds(struct gossip *g, const struct gossip_seed *seeds, unsigned count,
                      uint64_t now_ns);
/* What we say of ourselves. */
void gossip_set_state(struct gossip *g, const struct beacon_state *state, uint64_t now_ns);

/* A node of ours. meta: DELTA_CLASS and DELTA_STREAM bits. */
void gossip_node_up(struct gossip *g, uint32_t id, uint8_t meta, uint64_t now_ns);
void gossip_node_gone(struct gossip *g, uint32_t id, uint64_t now_ns);

/* A datagram of type 0x20 or 0x07. */
enum gossip_verdict gossip_input(struct gossip *g, const uint8_t *bytes, size_t len,
                                 const struct endpoint *from, uint64_t now_ns);
void gossip_tick(struct gossip *g, uint64_t now_ns);
/* When gossip_tick has something to do. */
uint64_t gossip_next_ns(const struct gossip *g);
/* Tells everybody that we go; they drop our routes. */
void gossip_leave(struct gossip *g, uint64_t now_ns);

/* --- outputs --- */

/* The next datagram to send. `slice`: from which local port, 0 is the service port; see pilot.h.
 * `bytes` lie in g until the next call. */
struct gossip_out {
    struct endpoint to;
    unsigned slice;
    const uint8_t *bytes;
    size_t len;
};
bool gossip_send(struct gossip *g, uint64_t now_ns, struct gossip_out *ret);
/* How many local ports are wanted besides the service port. */
unsigned gossip_slices(const struct gossip *g);

/* The next node whose way has changed. `beacon`: the index of the beacon that has it, as in
 * gossip_beacon; STORE_NONE: none. Put back what could not be delivered. */
struct gossip_route {
    uint32_t id;
    uint16_t beacon;
    uint8_t meta; /* of the claim */
};
bool gossip_route(struct gossip *g, struct gossip_route *ret);
void gossip_route_again(struct gossip *g, uint32_t id);

/* Beacons as relays need them: true when something changed since the last call. All indices up to
 * `*ret_count`; unused ones have port 0. */
struct gossip_beacon {
    struct endpoint at;
    bool usable;
};
bool gossip_beacons(struct gossip *g, struct gossip_beacon ret[static STORE_OWNERS_MAX],
                    unsigned *ret_count);

/* --- from one process to the next --- */

/* What is known of others, in pieces for gossip_inherit of a successor: begin with all zero.
 * Returns the length of the next piece, 0: that was all. */
struct gossip_passed {
    unsigned member, owner;
    struct store_place place;
};
size_t gossip_pass(const struct gossip *g, struct gossip_passed *at, enum gossip_kind *ret_kind,
                   uint8_t body[static GOSSIP_BODY_MAX]);
/* Before the first frame. Take gossip_route after each piece. False: it is none. */
bool gossip_inherit(struct gossip *g, enum gossip_kind kind, const uint8_t *body, size_t len,
                    uint64_t now_ns);

/* --- status --- */

enum gossip_peer_state {
    PEER_ALIVE,
    PEER_SUSPECT,
    PEER_DEAD,
    PEER_LEFT,
    PEER_PILOT,
    PEER_SILENT,
    PEER_STATE_COUNT
};
struct gossip_peer {
    uint32_t id;
    struct endpoint at;
    enum gossip_peer_state state;
    uint64_t boot, rtt_ns, heard_ns;
    uint32_t rows;
    struct beacon_state says; /* version "" when it said nothing yet */
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    char error[96]; /* the last one with this peer, "" none */
};
/* Fills up to `max`, ourselves first; returns how many. */
unsigned gossip_peers(const struct gossip *g, struct gossip_peer *ret, unsigned max);

struct gossip_totals {
    uint32_t peers[PEER_STATE_COUNT];
    uint32_t rows, rows_max, own_rows, refused_rows;
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    uint64_t verdict[GOSSIP_VERDICT_COUNT];
    unsigned health; /* Lifeguard's, 0: well */
    uint64_t boot;
    bool duplicate_id;            /* somebody else uses our id, lately */
    struct endpoint duplicate_at; /* where */
    struct sync_stats sync;
};
void gossip_totals(const struct gossip *g, struct gossip_totals *ret);
/* Everybody alive knows what we know. */
bool gossip_settled(const struct gossip *g);
/* Where the beacon says nodes reach it, of those that take newcomers; for who must leave us. */
unsigned gossip_successors(const struct gossip *g, struct endpoint *ret, unsigned max);

/* For tests: what is inside. */
const struct store *gossip_store(const struct gossip *g);
const struct members *gossip_members(const struct gossip *g);

#endif
