#include <assert.h>
#include "server/nursery.h"
#include "server/policy.h"
#include "server/register.h"

/* Room for one more node at `at`; `held` is where the id stands already, or NULL. Loopback shares
 * one address by nature and cannot be forged from outside: no quota. */
static bool quota_left(const struct lane *l, const struct endpoint *at, const struct endpoint *held)
{
    const struct rules *rules = l->rules;
    bool v4 = endpoint_is_v4(at);
    const struct {
        unsigned bits;
        uint32_t max;
    } level[2] = {
        {endpoint_host_bits(at), v4 ? rules->nodes_per_ipv4 : rules->nodes_per_ipv6_64},
        {endpoint_network_bits(at), v4 ? rules->nodes_per_ipv4_24 : rules->nodes_per_ipv6_48}};
    if (ip_scope(at->ip) == SCOPE_LOOPBACK)
        return true;
    for (int i = 0; i < 2; i++) {
        bool counted = held && endpoint_same_prefix(at, held, level[i].bits);
        if (level[i].max && !counted &&
            route_prefix_count(l->routes, at, level[i].bits) >= level[i].max)
            return false;
    }
    return true;
}

static enum registration admit_new(struct lane *l, const struct datagram *d, uint32_t id,
                                   uint32_t now_s)
{
    uint64_t count = route_count(l->routes), capacity = route_capacity(l->routes);
    if (!quota_left(l, &d->from, NULL))
        return REFUSED_QUOTA;
    uint32_t percent = l->rules->nursery_percent;
    uint64_t source = limit_hash_source(l, &d->from, LIMIT_SENDS);
    uint64_t hash = limit_hash_pair(l, id, (uint32_t)source);
    if (percent && count * 100 >= capacity * percent && !nursery_admits(l->nursery, hash, now_s))
        return REFUSED_NURSERY;
    if (count == capacity) {
        if (!route_evict(l->routes, &d->from)) {
            nursery_defer(l->nursery, hash, now_s);
            return REFUSED_FULL;
        }
        count_add(&l->stats.evicted, 1);
    }
    return REGISTERED_NEW;
}

/* May the source take over or keep the row that holds this id? */
static enum registration admit_known(const struct lane *l, const struct datagram *d,
                                     const struct route *held, uint32_t now_s)
{
    if (endpoint_equal(&held->at, &d->from))
        return REGISTERED_SAME;
    if (endpoint_same_ip(&held->at, &d->from))
        return REGISTERED_MOVED;
    int32_t silent_s = (int32_t)(now_s - held->seen_s);
    if (silent_s < (int32_t)l->rules->takeover_silence_s)
        return REFUSED_CONFLICT;
    return quota_left(l, &d->from, &held->at) ? REGISTERED_MOVED : REFUSED_QUOTA;
}

/* The 0x08 mark. A PunchRequest keeps it, but not for another host that takes the id over. */
static uint8_t flags_wanted(const struct route *held, const struct datagram *d,
                            const struct claim *claim)
{
    switch (claim->dest) {
    case CLAIM_DEST_SET:
        return ROUTE_WANTS_DEST;
    case CLAIM_DEST_CLEAR:
        return 0;
    case CLAIM_DEST_KEEP:
        break;
    }
    return endpoint_same_ip(&held->at, &d->from) ? held->flags & ROUTE_WANTS_DEST : 0;
}

enum registration register_node(struct lane *l, const struct datagram *d, const struct claim *claim,
                                const struct moment *now)
{
    if (claim->node_id == 0)
        return REFUSED_ID_ZERO;
    if (!source_may_register(l, d))
        return REFUSED_ADDRESS;
    uint32_t now_s = moment_s(now);
    uint64_t hash = route_hash(l->routes, claim->node_id);
    struct route held = {.id = 0};
    bool known = route_find(l->routes, hash, claim->node_id, &held);
    enum registration as =
        known ? admit_known(l, d, &held, now_s) : admit_new(l, d, claim->node_id, now_s);
    if (!registration_ok(as))
        return as;
    struct route wanted = {
        .id = claim->node_id,
        .seen_s = now_s,
        .at = d->from,
        .local = d->local,
        .class_ = ROUTE_UNVERIFIED,
        .flags = flags_wanted(&held, d, claim),
    };
    /* A new holder starts anew: the old one's key and age are not its own. */
    if (known && !endpoint_same_ip(&held.at, &d->from)) {
        route_remove(l->routes, claim->node_id);
        held = (struct route){.id = 0};
    }
    bool key_is_news = claim->key && !(held.flags & ROUTE_HAS_KEY);
    if (as == REGISTERED_SAME && !key_is_news && wanted.local == held.local &&
        wanted.flags == (held.flags & ROUTE_WANTS_DEST)) {
        route_touch(l->routes, hash, claim->node_id, now_s);
        return as;
    }
    enum route_put put = route_put(l->routes, &wanted, claim->key);
    assert(put != ROUTE_FULL);  /* admit_new made room */
    l->source.proven_at_ns = 0; /* what a relay of this batch was told may be wrong now */
    return as;
}
