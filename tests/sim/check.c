#include <string.h>
#include "tests/sim/sim.h"

/* --- after each event --- */

/* What is known of one owner never goes back, and is never ahead of the owner itself. */
static void check_owner(struct world *w, unsigned beacon, unsigned index)
{
    struct sim_beacon *b = &w->beacon[beacon];
    const struct store_owner *o = store_owner(gossip_store(b->gossip), index);
    bool same = b->known[index].beacon == o->beacon;
    int of = beacon_of_id(w, o->beacon);
    if (of < 0) {
        world_fail(w, "beacon %u: owner %u is %u, which is no beacon", beacon, index, o->beacon);
        return;
    }
    if (same && o->boot < b->known[index].boot)
        world_fail(w, "beacon %u: boot of %d went back from %llu to %llu", beacon, of,
                   (unsigned long long)b->known[index].boot, (unsigned long long)o->boot);
    if (same && o->boot == b->known[index].boot && !o->rebuilding &&
        o->version < b->known[index].version)
        world_fail(w, "beacon %u: version of %d went back from %llu to %llu", beacon, of,
                   (unsigned long long)b->known[index].version, (unsigned long long)o->version);
    if (beacon_runs(w, (unsigned)of)) {
        const struct store_owner *own = store_owner(gossip_store(w->beacon[of].gossip), STORE_SELF);
        if (own->boot == o->boot && o->version > own->version)
            world_fail(w, "beacon %u knows version %llu of %d, which is at %llu", beacon,
                       (unsigned long long)o->version, of, (unsigned long long)own->version);
    }
    if (!o->rebuilding) {
        b->known[index].beacon = o->beacon;
        b->known[index].boot = o->boot;
        b->known[index].version = o->version;
    }
}

void check_beacon(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (!b->gossip || w->failed)
        return;
    const struct store *store = gossip_store(b->gossip);
    unsigned count = members_count(gossip_members(b->gossip));
    uint64_t rows = 0;
    for (unsigned i = 0; i < count; i++) {
        rows += store_owner(store, i)->rows;
        if (i > 0 && store_owner(store, i)->beacon != 0)
            check_owner(w, beacon, i);
    }
    if (rows > store_rows(store) || store_rows(store) > store_capacity(store))
        world_fail(w, "beacon %u: owners have %llu rows, the store %u of %u", beacon,
                   (unsigned long long)rows, store_rows(store), store_capacity(store));
    /* With too few rows some nodes are refused, and no more than that. */
    if (store_owner(store, STORE_SELF)->rows != b->own &&
        !(w->options.rows && store_owner(store, STORE_SELF)->rows < b->own))
        world_fail(w, "beacon %u has %u own rows for %u own nodes", beacon,
                   store_owner(store, STORE_SELF)->rows, b->own);
}

void check_route(struct world *w, unsigned beacon, const struct gossip_route *route)
{
    const struct members *members = gossip_members(w->beacon[beacon].gossip);
    uint32_t node = node_of(route->id);
    if (route->beacon == STORE_NONE)
        return;
    if (route->beacon == STORE_SELF || route->beacon >= members_count(members)) {
        world_fail(w, "beacon %u routes node %u to index %u", beacon, node, route->beacon);
        return;
    }
    int to = beacon_of_id(w, member_at(members, route->beacon)->fact.id);
    if (to < 0 || to == (int)beacon)
        world_fail(w, "beacon %u routes node %u to id %u", beacon, node,
                   member_at(members, route->beacon)->fact.id);
    else if (!(w->beacon[to].node[node] & NODE_EVER))
        world_fail(w, "beacon %u routes node %u to %d, which never had it", beacon, node, to);
}

/* --- now and then --- */

static void sweep_node(struct world *w, unsigned beacon, uint32_t node)
{
    const struct sim_beacon *b = &w->beacon[beacon];
    const struct store *store = gossip_store(b->gossip);
    bool here = b->node[node] & NODE_HERE;
    bool known = store_has(store, STORE_SELF, node_id(node));
    if (known != here && !(w->options.rows && here))
        world_fail(w, "beacon %u: node %u is %s, the store says otherwise", beacon, node,
                   here ? "here" : "not here");
    if (known && store_best(store, node_id(node), false).owner != STORE_SELF)
        world_fail(w, "beacon %u: its own node %u is better elsewhere", beacon, node);
    int to = beacon_route(w, beacon, node);
    if (to >= 0 && (to == (int)beacon || !(w->beacon[to].node[node] & NODE_EVER)))
        world_fail(w, "beacon %u: its shards have node %u at %d", beacon, node, to);
}

static void sweep_counters(struct world *w, unsigned beacon)
{
    const struct store *store = gossip_store(w->beacon[beacon].gossip);
    unsigned count = members_count(gossip_members(w->beacon[beacon].gossip));
    for (unsigned i = 0; i < count; i++) {
        uint32_t rows = 0;
        if (store_owner(store, i)->beacon == 0)
            continue;
        for (uint32_t node = 0; node < w->nodes; node++)
            rows += store_has(store, i, node_id(node));
        if (rows != store_owner(store, i)->rows)
            world_fail(w, "beacon %u: owner %u has %u rows and says %u", beacon, i, rows,
                       store_owner(store, i)->rows);
    }
}

void check_sweep(struct world *w)
{
    for (unsigned i = 0; i < w->beacons && !w->failed; i++) {
        if (!beacon_runs(w, i))
            continue;
        sweep_counters(w, i);
        for (uint32_t node = 0; node < w->nodes; node++)
            sweep_node(w, i, node);
    }
}

/* --- when all should be well --- */

static bool log_equal(const struct world *w, unsigned beacon, unsigned of)
{
    const struct gossip *g = w->beacon[beacon].gossip;
    int index = member_find(gossip_members(g), beacon_id(of));
    if (index <= 0)
        return false;
    const struct store_owner *theirs = store_owner(gossip_store(g), (unsigned)index);
    const struct store_owner *own = store_owner(gossip_store(w->beacon[of].gossip), STORE_SELF);
    return theirs->boot == own->boot && theirs->version == own->version && !theirs->rebuilding;
}

bool logs_equal(struct world *w)
{
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < w->beacons; b++)
            if (a != b && beacon_runs(w, a) && beacon_runs(w, b) && !log_equal(w, a, b))
                return false;
    return true;
}

static bool takes_for_usable(const struct world *w, unsigned beacon, unsigned other)
{
    const struct sim_beacon *b = &w->beacon[beacon];
    int index = member_find(gossip_members(b->gossip), beacon_id(other));
    struct endpoint at = beacon_at(other);
    return index > 0 && (unsigned)index < b->table_count && b->table[index].usable &&
           endpoint_equal(&b->table[index].at, &at);
}

bool members_know(struct world *w)
{
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < w->beacons; b++)
            if (a != b && beacon_runs(w, a) && takes_for_usable(w, a, b) != beacon_runs(w, b))
                return false;
    return true;
}

/* Whoever has the node will do; where nobody else has it there must be no way. */
static bool route_right(const struct world *w, unsigned beacon, uint32_t node, bool held)
{
    int to = beacon_route(w, beacon, node);
    if (to >= 0)
        return beacon_runs(w, (unsigned)to) && w->beacon[to].node[node] & NODE_HERE;
    return !held;
}

static void route_explain(struct world *w, unsigned beacon, uint32_t node, unsigned others)
{
    const struct sim_beacon *b = &w->beacon[beacon];
    const struct store *store = gossip_store(b->gossip);
    struct holder best = store_best(store, node_id(node), true);
    world_fail(w,
               "beacon %u: node %u is at %d for its shards (index %u), index %u for its store; "
               "%u others have it",
               beacon, node, beacon_route(w, beacon, node), b->route[node], best.owner, others);
}

static bool routes_right(struct world *w, bool explain)
{
    for (uint32_t node = 0; node < w->nodes; node++) {
        unsigned holders = 0;
        for (unsigned i = 0; i < w->beacons; i++)
            holders += beacon_runs(w, i) && w->beacon[i].node[node] & NODE_HERE;
        for (unsigned i = 0; i < w->beacons; i++) {
            if (!beacon_runs(w, i))
                continue;
            unsigned others = holders - (w->beacon[i].node[node] & NODE_HERE ? 1 : 0);
            if (route_right(w, i, node, others > 0))
                continue;
            if (explain)
                route_explain(w, i, node, others);
            return false;
        }
    }
    return true;
}

bool truth_reached(struct world *w)
{
    return members_know(w) && logs_equal(w) && routes_right(w, false);
}

bool truth_explain(struct world *w)
{
    if (w->failed)
        return false;
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < w->beacons; b++) {
            if (a == b || !beacon_runs(w, a))
                continue;
            if (takes_for_usable(w, a, b) != beacon_runs(w, b)) {
                world_fail(w, "beacon %u takes %u for %s", a, b,
                           beacon_runs(w, b) ? "dead, or does not know it" : "alive");
                return false;
            }
            if (beacon_runs(w, b) && !log_equal(w, a, b)) {
                world_fail(w, "beacon %u does not have the log of %u", a, b);
                return false;
            }
        }
    return routes_right(w, true);
}
