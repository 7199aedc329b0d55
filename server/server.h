/* server - the beacon without its sockets: a datagram and the time in, a verdict and datagrams out.
 *
 * A server is a set of lanes, one a shard, one more for the edge's thread where nodes may come over
 * a stream (session.h), and one for the mesh's where there may be other beacons. A lane is owned by
 * its thread: budgets, its part of the node table and its counters are private; what crosses lanes
 * is reading the other parts of the table, mailboxes, handoffs, journals, the service-address table
 * and the pointers to rules and peers. No system call, no clock, no malloc after server_init. The
 * same code runs under both I/O ports, in fuzzers and in tests. */
#ifndef BEACON_SERVER_SERVER_H
#define BEACON_SERVER_SERVER_H

#include <stdatomic.h>
#include "proto/msg.h"
#include "server/config.h"
#include "server/handoff.h"
#include "server/journal.h"
#include "server/limit.h"
#include "server/mailbox.h"
#include "server/peers.h"
#include "server/route.h"
#include "server/stats.h"
#include "server/talkers.h"

struct moment {
    uint64_t ns;    /* monotonic, counts suspend */
    int64_t unix_s; /* wall clock: grant expiry only */
};

static inline uint32_t moment_s(const struct moment *now)
{
    return (uint32_t)(now->ns / 1000000000u);
}

/* One datagram as received, or one segment of a GRO batch. */
struct datagram {
    uint8_t *bytes; /* writable: a relay is rewritten in place */
    uint32_t len;
    uint32_t scope; /* interface of a link-local source, else 0 */
    struct endpoint from;
    uint8_t local;        /* service address it was sent to, see struct service */
    bool local_is_global; /* whether that address is SCOPE_GLOBAL */
    uint32_t session_id;  /* of a frame: the node that proved to be its source; 0: it is UDP */
    enum msg_kind kind;   /* filled by server_prefetch, with the hashes of a relay */
    uint64_t dest_hash, sender_hash;
};

/* One datagram to send. The bytes stay valid until the outbox is cleared: they lie in the
 * receive buffer (relays) or in the outbox (answers). */
struct outgoing {
    const uint8_t *bytes;
    uint32_t len;
    uint32_t scope;
    struct endpoint to;
    uint8_t local; /* send from this service address; 0: the kernel chooses */
};

enum {
    OUTBOX_MAX = 256,
    OUTBOX_ROOM = 2,      /* no datagram causes more than two */
    OUTBOX_SCRATCH = 128, /* bytes of one answer */
};
struct outbox {
    unsigned count;
    struct outgoing out[OUTBOX_MAX];
    uint8_t scratch[OUTBOX_MAX][OUTBOX_SCRATCH];
};

/* Addresses of this host that datagrams came to. Appended under `claim`, never changed after. */
enum { SERVICE_MAX = 255 };
struct service {
    atomic_flag claim;
    _Atomic uint32_t count; /* entries 1..count are valid; 0 means "unknown" */
    uint8_t ip[SERVICE_MAX + 1][16];
};

/* The source of the last datagram and what was found out about it. The datagrams of a flow come in
 * runs, and in a run these are the same: kept, they cost one comparison. */
struct source {
    struct endpoint from;
    uint8_t local;
    bool bad;                             /* source_is_bad */
    bool is_beacon;                       /* source_is_beacon */
    bool has_hashes;                      /* the next two are filled */
    uint64_t endpoint_hash, address_hash; /* the first is of the id when it is a session */
    uint64_t proven_at_ns;                /* batch in which `proven` was looked up, 0: not */
    uint32_t sender;                      /* the id that it claimed */
    bool proven;                          /* and whether it is registered at `from` */
};

struct lane {
    /* Fixed at start. */
    struct server *server;
    unsigned index;
    struct routes *routes;

    /* The lane's thread only. */
    const struct rules *rules; /* taken once a batch from server->rules */
    const struct peers *peers; /* the same; NULL: no other beacons */
    struct limiter relay, relay_ip, reply, punch, verify, notify;
    struct limiter total; /* cells of per-shard totals */
    struct grant_memory *grants;
    struct nursery *nursery;
    uint64_t expired_at_ns;
    struct source source;
    uint32_t hashed_id; /* the last sender's id and hash, for server_prefetch */
    uint64_t hashed_as;
    uint64_t wake;  /* bit i: lane i got mail from this batch and must be woken */
    bool wake_edge; /* the handoff got something from this batch: wake the edge */
    bool wake_mesh; /* to_mesh or the journal did: wake the mesh */
    struct talkers *talkers;

    /* Others write or read. */
    struct mailbox *mailbox;
    struct handoff *handoff; /* to the edge; NULL without sessions */
    struct handoff *to_mesh; /* gossip that a shard received; NULL in the other lanes and without a
                                mesh. Two messages a datagram, see enum to_mesh */
    struct journal *journal; /* what became of the shard's nodes, for the mesh; NULL likewise */
    struct lane_stats stats;
    _Atomic(const struct rules *) rules_seen; /* what `rules` is: a reload waits for it */
    _Atomic(const struct peers *) peers_seen; /* and `peers` */
};

/* The messages in to_mesh, by node_id. The second may be missing, when it found no room: then the
 * next one is a TO_MESH_FROM again. */
enum to_mesh {
    TO_MESH_FROM = 1,  /* struct endpoint as it is in memory */
    TO_MESH_BYTES = 2, /* the datagram */
};

struct server {
    unsigned lane_count;
    struct lane *lane[CONFIG_SHARDS_MAX];
    struct lane *edge; /* decides frames of sessions; index lane_count, owns no node. NULL without
                          a listener for them */
    struct lane *mesh; /* the mesh's thread: decides what is no gossip of what it receives. Index
                          server_lanes - 1, owns no node. NULL without a mesh */
    struct owner_key owner_key;
    struct siphash_key limit_key;
    struct service service;
    _Atomic(const struct rules *) rules;
    _Atomic(const struct peers *) peers;
    struct endpoint bound; /* our UDP address: nobody else can send from there */
};

/* Bytes that server_init takes for this config (shards already resolved to a number). */
size_t server_size(const struct config *c, unsigned lanes);
/* `memory`: that many zeroed bytes, 64-aligned; `seed`: 64 random bytes. `rules` outlives the
 * server or its replacement by server_set_rules. */
struct server *server_init(void *memory, const struct config *c, unsigned lanes,
                           const struct rules *rules, const uint8_t seed[static 64]);

/* All lanes by index: the shards', the edge's if there is one, the mesh's if there is one. */
static inline unsigned server_lanes(const struct server *s)
{
    return s->lane_count + (s->edge != NULL) + (s->mesh != NULL);
}
static inline struct lane *server_lane(const struct server *s, unsigned index)
{
    if (index < s->lane_count)
        return s->lane[index];
    return index == s->lane_count && s->edge ? s->edge : s->mesh;
}

/* Main thread. Publishes new rules; the old ones may be freed once server_rules_settled. */
void server_set_rules(struct server *s, const struct rules *rules);
bool server_rules_settled(const struct server *s);

/* The mesh's thread. The same for other beacons; NULL: there are none (any more). */
void server_set_peers(struct server *s, const struct peers *peers);
bool server_peers_settled(const struct server *s);

/* Before the threads start. A node as it stood in the table of a beacon that this one follows:
 * `r->local` by this server's table of service addresses, `key` as in route_put. False: it is not
 * taken. Its session does not outlive the other process, or there is no room. */
bool server_restore(struct server *s, const struct route *r, const uint8_t *key);

/* Any thread. Whether `ip` is in the table. */
bool service_has(const struct service *s, const uint8_t ip[static 16]);

/* Any thread. Index of one of our own addresses, 0 when the table is full or busy. */
uint8_t service_index(struct service *s, const uint8_t ip[static 16]);

/* --- the lane's thread only --- */

/* Once before each batch: rules and peers. */
void server_begin(struct lane *l);
/* First pass over a batch: kind, hashes, prefetch. */
void server_prefetch(struct lane *l, struct datagram *d);
/* Second pass, of UDP. Needs OUTBOX_ROOM free. The caller counts the verdict, unless
 * VERDICT_PASSED. */
enum verdict server_input(struct lane *l, struct datagram *d, const struct moment *now,
                          struct outbox *out);
/* Takes some letters, as far as the outbox has room; counts their verdicts. True: there may be
 * more. */
bool server_mail(struct lane *l, const struct moment *now, struct outbox *out);
/* Expiry, windows of talkers and gauges. Call about once a batch and once a second when idle. */
void server_tick(struct lane *l, const struct moment *now);

/* For session.c. By mail to the lane that owns the datagram's node: VERDICT_PASSED, or its mailbox
 * is full. And the verdict on a kind that is never good. */
enum verdict server_pass_on(struct lane *l, const struct datagram *d, unsigned owner);
enum verdict server_refuse(enum msg_kind kind);

/* --- any thread --- */

/* Asks for a Notify to a node (the registry's embedding call and the admin interface). 0, or
 * -ENOENT for a node that is not registered, -ENOBUFS when the owner's mailbox is full. On 0
 * *ret_lane must be woken. Spacing per node (notify-rate) is applied by the owner and is not an
 * error. */
int server_notify(struct server *s, uint32_t node_id, unsigned *ret_lane);

/* Looks up a node that is registered here. */
bool server_find(const struct server *s, uint32_t node_id, struct route *ret);
/* Looks a node up as a relay would: another beacon may have it. */
bool server_find_way(const struct server *s, uint32_t node_id, struct route *ret);

#endif
