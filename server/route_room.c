#include "server/route_part.h"

enum {
    PREFIX_MIN = 1024,      /* cells a sketch row, at least */
    EVICT_LOOK = 64,        /* nodes compared for one eviction: a few microseconds */
    EVICT_WALK = 1024,      /* rows looked at for them, at most: most may be other beacons' */
    EVICT_WALK_MAX = 8192,  /* rows looked at to find one at all: under 100 microseconds */
    EXPIRE_MAX = 65536,     /* rows looked at in one turn, at most: under a millisecond */
    EXPIRE_GONE_MAX = 2048, /* rows removed in one turn, at most: the rest waits for the next */
};

uint32_t prefix_cells_for(uint32_t nodes)
{
    uint32_t cells = PREFIX_MIN;
    while (cells < nodes / 2)
        cells *= 2;
    return cells;
}

/* --- how full each prefix is --- */

struct prefix_cells {
    uint32_t *cell[2];
};

static struct prefix_cells prefix_cells(const struct routes *r, const struct endpoint *at,
                                        unsigned bits)
{
    struct endpoint prefix = endpoint_prefix(at, bits);
    prefix.port = (uint16_t)bits; /* a /24 and a /32 of the same address are two keys */
    uint64_t hash = siphash(&r->key, &prefix, sizeof prefix);
    return (struct prefix_cells){{&r->prefix[hash & r->prefix_mask],
                                  &r->prefix[r->prefix_mask + 1 + (hash >> 32 & r->prefix_mask)]}};
}

uint32_t route_prefix_count(const struct routes *r, const struct endpoint *at, unsigned bits)
{
    struct prefix_cells p = prefix_cells(r, at, bits);
    return *p.cell[0] < *p.cell[1] ? *p.cell[0] : *p.cell[1];
}

void prefix_add(struct routes *r, const struct endpoint *at, int change)
{
    const unsigned widths[2] = {endpoint_host_bits(at), endpoint_network_bits(at)};
    for (int i = 0; i < 2; i++) {
        struct prefix_cells p = prefix_cells(r, at, widths[i]);
        *p.cell[0] += (uint32_t)change;
        *p.cell[1] += (uint32_t)change;
    }
}

/* --- ageing and room --- */

/* Row `i` if it holds a node of ours. */
static bool row_of_ours(const struct routes *r, uint32_t i, struct route *ret)
{
    return row_at(r, i, ret) && ret->class_ != ROUTE_BEACON;
}

static uint32_t silent_s(const struct route *route, uint32_t now_s)
{
    int32_t silent = (int32_t)(now_s - route->seen_s);
    return silent > 0 ? (uint32_t)silent : 0;
}

static bool is_expired(const struct route *route, uint32_t now_s, struct route_ttl ttl)
{
    uint32_t ttl_s = ttl.silent_s;
    if (route->claimed && ttl.claimed_s < ttl_s)
        ttl_s = ttl.claimed_s;
    if (route->flags & ROUTE_STREAM && ttl_s < ROUTE_STREAM_TTL_S)
        ttl_s = ROUTE_STREAM_TTL_S;
    return silent_s(route, now_s) > ttl_s;
}

uint32_t route_expire(struct routes *r, uint32_t now_s, struct route_ttl ttl, uint32_t rows)
{
    uint32_t removed = 0;
    for (uint32_t n = 0; n < rows && removed < EXPIRE_GONE_MAX; n++) {
        struct route route;
        if (row_of_ours(r, r->expire_hand, &route) && is_expired(&route, now_s, ttl)) {
            row_remove(r, r->expire_hand, &route);
            removed++; /* the hand stays: another row may have moved up */
        } else {
            r->expire_hand = row_next(r, r->expire_hand);
        }
    }
    return removed;
}

uint32_t route_rows_due(const struct routes *r, uint64_t elapsed_ns, uint32_t period_s)
{
    uint64_t elapsed_us = elapsed_ns / 1000;
    uint64_t rows = (uint64_t)r->row_count * elapsed_us / (period_s * 1000000ull);
    return rows > EXPIRE_MAX ? EXPIRE_MAX : (uint32_t)rows;
}

/* A row that may be evicted, and how full its prefix is. */
struct candidate {
    struct route route;
    uint32_t crowd;
};

static uint32_t crowd_at(const struct routes *r, const struct endpoint *at)
{
    return route_prefix_count(r, at, endpoint_network_bits(at));
}

/* Whether `a` should leave before `b`. */
static bool leaves_first(const struct candidate *a, const struct candidate *b)
{
    if (a->route.class_ != b->route.class_)
        return a->route.class_ < b->route.class_;
    if ((a->route.flags & ROUTE_AGE) != (b->route.flags & ROUTE_AGE))
        return (a->route.flags & ROUTE_AGE) < (b->route.flags & ROUTE_AGE);
    if (a->crowd != b->crowd)
        return a->crowd > b->crowd;
    return (int32_t)(a->route.seen_s - b->route.seen_s) < 0;
}

/* Within a class the newcomer's prefix must not end up fuller than the victim's was. */
static bool may_push_out(const struct routes *r, const struct endpoint *newcomer,
                         enum route_class class_, const struct candidate *victim)
{
    if (class_ != victim->route.class_)
        return class_ > victim->route.class_;
    return crowd_at(r, newcomer) + 1 <= victim->crowd ||
           endpoint_same_prefix(newcomer, &victim->route.at, endpoint_network_bits(newcomer));
}

/* Whether the hand has gone far enough: over `walked` rows, where it met `ours` of our nodes. */
static bool walk_is_over(const struct routes *r, uint32_t walked, uint32_t ours)
{
    if (walked >= r->row_count || ours >= EVICT_LOOK)
        return true;
    return walked >= (ours > 0 ? EVICT_WALK : EVICT_WALK_MAX);
}

bool route_evict(struct routes *r, const struct endpoint *newcomer, enum route_class class_)
{
    struct candidate victim = {.crowd = 0}, next;
    uint32_t ours = 0;
    for (uint32_t n = 0; !walk_is_over(r, n, ours); n++) {
        r->evict_hand = row_next(r, r->evict_hand);
        if (!row_of_ours(r, r->evict_hand, &next.route))
            continue;
        ours++;
        next.crowd = crowd_at(r, &next.route.at);
        if (victim.route.id == 0 || leaves_first(&next, &victim))
            victim = next;
    }
    if (victim.route.id == 0 || !may_push_out(r, newcomer, class_, &victim))
        return false;
    return route_remove(r, victim.route.id);
}
