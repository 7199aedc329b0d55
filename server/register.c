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

/* A free row, or one that a node of `class_` at `at` may push out. */
static bool make_room(struct lane *l, const struct endpoint *at, enum route_class class_)
{
    if (route_count(l->routes) < route_capacity(l->routes))
        return true;
    if (!route_evict(l->routes, at, class_))
        return false;
    count_add(&l->stats.evicted, 1);
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
    if (!make_room(l, &d->from, ROUTE_UNVERIFIED)) {
        nursery_defer(l->nursery, hash, now_s);
        return REFUSED_FULL;
    }
    return REGISTERED_NEW;
}

/* Long enough for another address to take the row. A session's row is refreshed by the edge, whose
 * letters may be late: two of them missing is the least that counts as silence. */
static bool is_silent(const struct lane *l, const struct route *held, uint32_t now_s)
{
    uint32_t least_s = held->flags & ROUTE_STREAM ? 2 * SESSION_HERE_SECONDS : 0;
    uint32_t wanted_s = l->rules->takeover_silence_s;
    return (int32_t)(now_s - held->seen_s) >= (int32_t)(wanted_s > least_s ? wanted_s : least_s);
}

/* May the source take over or keep the row that holds this id? Who proved to hold a key is not
 * moved by what anyone may claim, from its own address neither. */
static enum registration admit_known(const struct lane *l, const struct datagram *d,
                                     const struct route *held, uint32_t now_s)
{
    bool proven = held->class_ > ROUTE_UNVERIFIED;
    if (!proven && endpoint_equal(&held->at, &d->from))
        return REGISTERED_SAME;
    if (!proven && endpoint_same_ip(&held->at, &d->from))
        return REGISTERED_MOVED;
    if (!is_silent(l, held, now_s))
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
    /* A new holder starts anew: the old one's key and age are not its own. */
    if (known && (held.class_ > ROUTE_UNVERIFIED || !endpoint_same_ip(&held.at, &d->from))) {
        route_remove(l->routes, claim->node_id);
        held = (struct route){.id = 0};
    }
    struct route wanted = {
        .id = claim->node_id,
        .seen_s = now_s,
        .at = d->from,
        .local = d->local,
        .class_ = ROUTE_UNVERIFIED,
        .flags = flags_wanted(&held, d, claim),
    };
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

/* --- by session --- */

/* What stands under a session's id, compared with the session. */
struct standing {
    bool known, same_key, other_key;
    struct route held;
};

static struct standing session_standing(const struct lane *l, const struct session *s)
{
    struct standing st = {.held = {.id = 0}};
    uint8_t key[MSG_KEY_LEN];
    st.known = route_find(l->routes, route_hash(l->routes, s->node_id), s->node_id, &st.held);
    if (!st.known || !route_find_key(l->routes, s->node_id, key))
        return st;
    st.same_key = memcmp(key, s->key, sizeof key) == 0;
    st.other_key = !st.same_key;
    return st;
}

/* Who holds a key that others name for this id is its owner. A key of first use is worth no more
 * than the one of before, and no less than a datagram's claim. */
static bool session_may_take(const struct lane *l, const struct session *s,
                             const struct standing *st, uint32_t now_s)
{
    if (s->class_ == ROUTE_KEYED)
        return true;
    if (st->held.class_ > ROUTE_UNVERIFIED)
        return st->same_key;
    return endpoint_same_ip(&st->held.at, &s->from) || is_silent(l, &st->held, now_s);
}

static enum registration session_admit(struct lane *l, const struct session *s,
                                       const struct standing *st, uint32_t now_s)
{
    if (st->known && !session_may_take(l, s, st, now_s))
        return REFUSED_CONFLICT;
    if (!quota_left(l, &s->from, st->known ? &st->held.at : NULL))
        return REFUSED_QUOTA;
    if (st->known)
        return endpoint_equal(&st->held.at, &s->from) ? REGISTERED_SAME : REGISTERED_MOVED;
    return make_room(l, &s->from, s->class_) ? REGISTERED_NEW : REFUSED_FULL;
}

enum registration register_session(struct lane *l, const struct session *s,
                                   const struct moment *now)
{
    assert(s->node_id != 0 && s->class_ > ROUTE_UNVERIFIED);
    uint32_t now_s = moment_s(now);
    struct standing st = session_standing(l, s);
    enum registration as = session_admit(l, s, &st, now_s);
    if (!registration_ok(as))
        return as;
    struct route wanted = {
        .id = s->node_id,
        .seen_s = now_s,
        .at = s->from,
        .class_ = (uint8_t)s->class_,
        .flags = ROUTE_STREAM | (s->wants_dest ? ROUTE_WANTS_DEST : 0),
    };
    const uint8_t compared = ROUTE_STREAM | ROUTE_WANTS_DEST;
    if (as == REGISTERED_SAME && st.same_key && st.held.class_ == wanted.class_ &&
        (st.held.flags & compared) == wanted.flags) {
        route_touch(l->routes, route_hash(l->routes, s->node_id), s->node_id, now_s);
        return as;
    }
    /* The table keeps a row's first key: another key is another holder, and so is another address
     * without the same key. */
    if (st.other_key || (st.known && !st.same_key && !endpoint_same_ip(&st.held.at, &s->from)))
        route_remove(l->routes, s->node_id);
    enum route_put put = route_put(l->routes, &wanted, s->key);
    assert(put != ROUTE_FULL);  /* make_room did */
    l->source.proven_at_ns = 0; /* as above: who was proven may be a stranger now */
    return as;
}

bool register_session_end(struct lane *l, uint32_t node_id, const struct endpoint *from)
{
    struct route held;
    if (!route_find(l->routes, route_hash(l->routes, node_id), node_id, &held) ||
        !(held.flags & ROUTE_STREAM) || !endpoint_equal(&held.at, from))
        return false;
    return route_remove(l->routes, node_id); /* no datagram was proven by it: none is to forget */
}
