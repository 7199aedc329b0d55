/* route - the node table: node id -> endpoint, one part a lane.
 *
 * Holds: node id n lives in the part route_owner(n) only. Only that part's lane writes it; any
 * thread may read any part (a sequence number in each row; C11 atomics throughout). Id 0 is never
 * stored: it marks an empty row. Capacity is fixed; rows are removed by expiry (a hand that walks a
 * few rows a turn), by eviction when full, never by a sweep of the whole table. Linear probing at a
 * load of at most 0.8, removal by shifting back.
 *
 * A hot row is 32 bytes, two to a cache line; the key of the same node lies in a cold row of the
 * same index. Memory belongs to the caller.
 *
 * Besides nodes of ours, a part holds which other beacon has a node: rows of class ROUTE_BEACON,
 * with a capacity of their own. They come and go by route_put_beacon and route_remove_beacon alone.
 * All else here is about nodes of ours: it neither sees, counts nor removes the others, but that
 * route_find_way finds both and that a node which registers here replaces such a row. */
#ifndef BEACON_SERVER_ROUTE_H
#define BEACON_SERVER_ROUTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/endpoint.h"
#include "proto/msg.h"
#include "proto/siphash.h"

enum route_flag {
    ROUTE_WANTS_DEST = 1, /* registered with 0x08: deliver as 0x09 */
    ROUTE_HAS_KEY = 2,
    ROUTE_AGE = 12, /* two bits: refreshed in so many steps of ROUTE_AGE_STEP_S, 3 at most */
    ROUTE_AGE_ONE = 4,
    ROUTE_STREAM = 16, /* reached through its session, not by UDP; `at` is its TCP endpoint */
};

/* A flood of new ids pushes out other new ids before nodes that have come back for a while. */
enum { ROUTE_AGE_STEP_S = 32 };

/* A session's row lives at least so long after its last letter, whatever node-ttl says: letters
 * come every SESSION_HERE_SECONDS, and one may be lost. */
enum { ROUTE_STREAM_TTL_S = 60 };

/* How well the row's holder is proven. What the Pilot wire says over UDP proves nothing. */
enum route_class {
    ROUTE_UNVERIFIED = 0,
    ROUTE_SIGNED = 2, /* holds the key that came with its first use */
    ROUTE_KEYED = 3,  /* holds the key that the keys file or the registry names */
    ROUTE_BEACON = 4, /* not the holder's: another beacon has the node, see route_beacon */
};

struct route {
    uint32_t id;
    uint32_t seen_s; /* when its owner was last heard, in seconds of the caller's clock */
    struct endpoint at;
    uint8_t local;  /* service address to send from, 0: the kernel chooses */
    uint8_t class_; /* enum route_class */
    uint8_t flags;
    bool claimed; /* another beacon says that it has the node, and it was not heard here since */
};

/* "Another beacon has the node" as a route, which has no endpoint: in its place stand the beacon's
 * index in peers.h, and the node's own class and whether it is reached through a session there. */
static inline struct route route_of_beacon(uint32_t id, unsigned beacon, enum route_class class_,
                                           bool stream)
{
    return (struct route){.id = id,
                          .at = {.ip = {(uint8_t)class_, stream}, .port = (uint16_t)beacon},
                          .class_ = ROUTE_BEACON};
}
static inline unsigned route_beacon(const struct route *r)
{
    return r->at.port;
}
static inline enum route_class route_beacon_class(const struct route *r)
{
    return (enum route_class)r->at.ip[0];
}
static inline bool route_beacon_stream(const struct route *r)
{
    return r->at.ip[1];
}

/* One part. Opaque on purpose: readers use route_find. */
struct routes;
struct journal;

/* The bytes of a part that holds at most `nodes` of ours and `remote` of other beacons. */
size_t routes_size(uint32_t nodes, uint32_t remote);
/* `memory`: routes_size(nodes, remote) zeroed bytes, 64-aligned. `key` hashes ids and prefixes. */
struct routes *routes_init(void *memory, uint32_t nodes, uint32_t remote, struct siphash_key key);
/* Before the part is used. Every node of ours that comes or goes, or changes class or way, makes an
 * entry in `j` and sets `*wake`, and so does one that is heard again after route_claim. Not what
 * only moves or is only refreshed. */
void routes_set_journal(struct routes *r, struct journal *j, bool *wake);

/* The part that owns `id`, of `parts`. `k` are two random words, the same for every lane and for
 * the steering program in shard/steer.c, which computes this very function in the kernel. */
struct owner_key {
    uint32_t add, multiply; /* multiply is odd */
};
static inline uint32_t route_owner(struct owner_key k, uint32_t id, uint32_t parts)
{
    uint32_t h = (id ^ k.add) * k.multiply;
    h ^= h >> 16;
    h *= 0x7feb352du;
    h ^= h >> 15;
    return h % parts;
}

/* Hash of an id in a part; and a hint that its row will be wanted soon. Any thread. */
uint64_t route_hash(const struct routes *r, uint32_t id);
void route_prefetch(const struct routes *r, uint64_t hash);

/* Any thread. `hash` is route_hash(r, id). False: not there (or, for a thread that is not the
 * owner, being moved at this very moment: rare, and a drop like any other). */
bool route_find(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret);
/* The same, and finds what other beacons have too (ROUTE_BEACON). */
bool route_find_way(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret);
/* The same, with the key. False too when the row has no key. */
bool route_find_key(const struct routes *r, uint32_t id, uint8_t ret_key[static MSG_KEY_LEN]);

/* Owner only, all below. */
enum route_put {
    ROUTE_INSERTED,
    ROUTE_UPDATED,
    ROUTE_FULL, /* no free row */
};
/* Writes `route` under its id, unclaimed. `key` (may be NULL) is stored with a row that has none
 * yet. Of ROUTE_AGE a row keeps its own; a new one has the caller's, which is 0 but for what is
 * restored. */
enum route_put route_put(struct routes *r, const struct route *route, const uint8_t *key);
/* Only the time and the age, and no longer claimed: one store, no sequence change. */
void route_touch(struct routes *r, uint64_t hash, uint32_t id, uint32_t now_s);
bool route_remove(struct routes *r, uint32_t id);

/* Another beacon has the node, whoever had it before. False: no room, or the node is ours. */
bool route_put_beacon(struct routes *r, uint32_t id, unsigned beacon, enum route_class class_,
                      bool stream);
/* `beacon` PEERS_NONE: whichever it is. False: that beacon does not stand there. */
bool route_remove_beacon(struct routes *r, uint32_t id, unsigned beacon);
/* Another beacon says that it has this node of ours: it may live on here only as long as
 * route_ttl.claimed_s, unless it is heard again. False: it is not ours. */
bool route_claim(struct routes *r, uint32_t id);

uint32_t route_count(const struct routes *r);
uint32_t route_count_v4(const struct routes *r);     /* by UDP over IPv4 */
uint32_t route_count_stream(const struct routes *r); /* through a session */
uint32_t route_count_beacon(const struct routes *r); /* that others have: in no other count */
uint32_t route_capacity(const struct routes *r);     /* of ours */
uint32_t route_capacity_beacon(const struct routes *r);

/* How many nodes an address prefix holds (a sketch: never too few). */
uint32_t route_prefix_count(const struct routes *r, const struct endpoint *at, unsigned bits);

struct route_ttl {
    uint32_t silent_s;  /* a node may be silent so long */
    uint32_t claimed_s; /* and so long, if that is less, when it is claimed */
};
/* Looks at the next `rows` rows and removes those silent for longer than `ttl` (sessions: and for
 * more than ROUTE_STREAM_TTL_S). Returns how many. */
uint32_t route_expire(struct routes *r, uint32_t now_s, struct route_ttl ttl, uint32_t rows);
/* How many rows to look at so that the whole table is seen in `period_s`, given the time passed. */
uint32_t route_rows_due(const struct routes *r, uint64_t elapsed_ns, uint32_t period_s);

/* Makes room for a node of `class_` at `newcomer`: of the next rows at the hand, removes the one of
 * the lowest class, then of the least age, then in the fullest prefix (IPv4 /24, IPv6 /48), then
 * silent for longest. False: the newcomer must not push that one out, which is of a higher class,
 * or of the same and in a less full prefix than the newcomer would be; or, where rows of other
 * beacons are many and of ours are few, the hand has found none this time. */
bool route_evict(struct routes *r, const struct endpoint *newcomer, enum route_class class_);

/* Calls `each` for the nodes of `rows` rows from `from_row` on. Returns the next row, 0 at the end
 * of the part. Any thread; not a snapshot. For admin. */
uint32_t route_page(const struct routes *r, uint32_t from_row, uint32_t rows,
                    void (*each)(const struct route *, void *), void *arg);

#endif
