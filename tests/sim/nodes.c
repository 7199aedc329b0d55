#include <assert.h>
#include "tests/sim/sim.h"

/* Ids that look like those of real nodes: all over the 32 bits, and back again by the inverse. */
#define SPREAD UINT32_C(2654435761)
#define GATHER UINT32_C(244002641)
static_assert(SPREAD * GATHER == 1, "inverse modulo 2^32");

uint32_t node_id(uint32_t node)
{
    return (node + 1) * SPREAD;
}

uint32_t node_of(uint32_t id)
{
    return id * GATHER - 1;
}

void node_up(struct world *w, unsigned beacon, uint32_t node)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (!b->gossip)
        return;
    if (!(b->node[node] & NODE_HERE))
        b->own++;
    b->node[node] |= NODE_HERE | NODE_EVER;
    uint8_t meta = (uint8_t)(sim_random(&w->random) & DELTA_STREAM);
    gossip_node_up(b->gossip, node_id(node), meta, w->now_ns + b->clock_ns);
    beacon_settle(w, beacon);
}

void node_gone(struct world *w, unsigned beacon, uint32_t node)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (!b->gossip || !(b->node[node] & NODE_HERE))
        return;
    b->own--;
    b->node[node] &= (uint8_t)~NODE_HERE;
    gossip_node_gone(b->gossip, node_id(node), w->now_ns + b->clock_ns);
    beacon_settle(w, beacon);
}

static int holder_of(const struct world *w, uint32_t node)
{
    for (unsigned i = 0; i < w->beacons; i++)
        if (w->beacon[i].gossip && w->beacon[i].node[node] & NODE_HERE)
            return (int)i;
    return -1;
}

void nodes_churn(struct world *w)
{
    uint32_t node = (uint32_t)sim_below(&w->random, w->nodes);
    int holder = holder_of(w, node), to = beacon_any(w);
    if (to < 0)
        return;
    unsigned what = (unsigned)sim_below(&w->random, 4);
    if (holder >= 0 && what == 0) {
        node_gone(w, (unsigned)holder, node);
        return;
    }
    node_up(w, (unsigned)to, node); /* what == 1: it is registered at two from now on */
    if (holder >= 0 && holder != to && what == 2)
        node_gone(w, (unsigned)holder, node);
    if (holder >= 0 && holder != to && what == 3) /* the old registration ends with its time */
        world_put(w, sim_below(&w->random, 30 * SIM_S), EVENT_GONE, (unsigned)holder, node);
}

void nodes_spread(struct world *w)
{
    for (uint32_t node = 0; node < w->nodes; node++) {
        int to = beacon_any(w);
        if (to >= 0)
            node_up(w, (unsigned)to, node);
    }
}

/* --- how long a change takes --- */

static void probe_seen(struct world *w, struct probe *p, unsigned beacon)
{
    if (p->seen[beacon / 64] >> beacon % 64 & 1 || beacon_route(w, beacon, p->node) != p->at)
        return;
    p->seen[beacon / 64] |= UINT64_C(1) << beacon % 64;
    if (--p->missing > 0)
        return;
    p->used = false;
    if (w->updates.count < SIM_SAMPLES_MAX)
        w->updates.of[w->updates.count++] = w->now_ns - p->since_ns;
}

void probes_seen(struct world *w, unsigned beacon, uint32_t node)
{
    for (unsigned i = 0; i < SIM_PROBES_MAX; i++)
        if (w->probe[i].used && w->probe[i].node == node)
            probe_seen(w, &w->probe[i], beacon);
}

unsigned probes_open(const struct world *w)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SIM_PROBES_MAX; i++)
        count += w->probe[i].used;
    return count;
}

void node_probe(struct world *w)
{
    uint32_t node = (uint32_t)sim_below(&w->random, w->nodes);
    int at = beacon_any(w);
    if (holder_of(w, node) >= 0 || at < 0)
        return;
    for (unsigned i = 0; i < SIM_PROBES_MAX; i++) {
        struct probe *p = &w->probe[i];
        if (p->used)
            continue;
        *p = (struct probe){.used = true,
                            .node = node,
                            .at = (uint16_t)at,
                            .since_ns = w->now_ns,
                            .missing = beacons_running(w) - 1};
        node_up(w, (unsigned)at, node);
        return;
    }
    world_fail(w, "more changes under way than can be watched");
}
