/* server - the beacon without its sockets: a datagram and the time in, a verdict and datagrams out.
 *
 * A server is a set of lanes, one a shard, and one more for the edge's thread where nodes may come
 * over a stream (session.h). A lane is owned by its thread: budgets, its part of the node table and
 * its counters are private; what crosses lanes is reading the other parts of the table, mailboxes,
 * handoffs, the service-address table and the rules pointer. No system call, no clock, no malloc
 * after server_init. The same code runs under both I/O ports, in fuzzers and in tests. */
#ifndef BEACON_SERVER_SERVER_H
#define BEACON_SERVER_SERVER_H

#include <stdatomic.h>
#include "proto/msg.h"
#include "server/config.h"
#include "server/handoff.h"
#include "server/limit.h"
#include "server/mailbox.h"
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
    struct talkers *talkers;

    /* Others write or read. */
    struct mailbox *mailbox;
    struct handoff *handoff; /* to the edge; NULL without sessions */
    struct lane_stats stats;
    _Atomic(const struct rules *) rules_seen; /* what `rules` is: a reload waits for it */
};

struct server {
    unsigned lane_count;
    struct lane *lane[CONFIG_SHARDS_MAX];
    struct lane *edge; /* decides frames of sessions; index lane_count, owns no node. NULL without
                          a listener for them */
    struct owner_key owner_key;
    struct siphash_key limit_key;
    struct service service;
    _Atomic(const struct rules *) rules;
    struct endpoint bound; /* our UDP address: nobody else can send from there */
};

/* Bytes that server_init takes for this config (shards already resolved to a number). */
size_t server_size(const struct config *c, unsigned lanes);
/* `memory`: that many zeroed bytes, 64-aligned; `seed`: 64 random bytes. `rules` outlives the
 * server or its replacement by server_set_rules. */
struct server *server_init(void *memory, const struct config *c, unsigned lanes,
                           const struct rules *rules, const uint8_t seed[static 64]);

/* Main thread. Publishes new rules; the old ones may be freed once server_rules_settled. */
void server_set_rules(struct server *s, const struct rules *rules);
bool server_rules_settled(const struct server *s);

/* Any thread. Whether `ip` is in the table. */
bool service_has(const struct service *s, const uint8_t ip[static 16]);

/* Any thread. Index of one of our own addresses, 0 when the table is full or busy. */
uint8_t service_index(struct service *s, const uint8_t ip[static 16]);

/* --- the lane's thread only --- */

/* Once before each batch: rules. */
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

/* Looks a node up as a relay would. */
bool server_find(const struct server *s, uint32_t node_id, struct route *ret);

#endif
