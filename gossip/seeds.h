/* seeds - the places where other beacons may be, as each source names them, what their names
 * resolve to, and the union of it all. Pure; memory belongs to the caller, all zero is empty.
 *
 * A place that a source names again keeps what it resolved to; a lookup that fails changes nothing.
 */
#ifndef BEACON_GOSSIP_SEEDS_H
#define BEACON_GOSSIP_SEEDS_H

#include "gossip/gossip.h"
#include "gossip/registry.h"
#include "gossip/resolve.h"

enum seeds_source { SEEDS_OPTION, SEEDS_FILE, SEEDS_DNS, SEEDS_REGISTRY, SEEDS_SOURCES };

struct place {
    struct peer_name name;
    uint32_t id;      /* 0: not known */
    bool is_service;  /* it may have SRV records */
    bool is_numeric;  /* an address: never looked up */
    bool was_service; /* what it resolved to came from SRV records */
    uint64_t next_ns; /* when to look it up */
    uint64_t said;    /* of who uses this: hash of what was said about it last */
    unsigned count;
    struct endpoint at[RESOLVE_MAX];
};

struct seeds {
    unsigned count[SEEDS_SOURCES];
    struct place of[SEEDS_SOURCES][GOSSIP_SEEDS_MAX];
    struct place before[GOSSIP_SEEDS_MAX]; /* while a source is replaced */
};

/* Begins the new set of a source; then each of its places; then none of the old is left. */
void seeds_begin(struct seeds *s, enum seeds_source source);
void seeds_add(struct seeds *s, enum seeds_source source, const struct peer_name *name, uint32_t id,
               bool is_service);
void seeds_end(struct seeds *s, enum seeds_source source);

/* The place that is due for the longest time, NULL: none by now. */
struct place *seeds_due(struct seeds *s, uint64_t now_ns);
/* Places of that name and kind, one after the other: start with NULL. */
struct place *seeds_next(struct seeds *s, struct place *after, const struct peer_name *name,
                         bool is_service);

/* May an address that a registry names be meant, if our own is of scope `own`? */
bool seeds_is_plausible(const struct endpoint *e, enum ip_scope own);

/* The union: each endpoint once. Returns how many; `*ret_left` did not fit. `own`: scope of our own
 * address. */
unsigned seeds_union(const struct seeds *s, enum ip_scope own, bool all_pilot,
                     struct gossip_seed ret[static GOSSIP_SEEDS_MAX], unsigned *ret_left);

#endif
