#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/sim/sim.h"

enum {
    FIRST_ID = 1000,
    PORT = 9001,
    SEEDS = 5,
    GUARD = 0x5a, /* behind the memory that gossip_size asked for */
    SPINS_MAX = 20000,
};
static const uint64_t turn_ns = 50000; /* a thread that comes back at once needs so long */
static const uint64_t wall_start_ms = UINT64_C(1790000000000);

struct endpoint beacon_at(unsigned beacon)
{
    uint8_t ip[4] = {10, 0, (uint8_t)(beacon >> 8), (uint8_t)beacon};
    return endpoint_of(ip, 4, PORT);
}

int beacon_of(const struct world *w, const struct endpoint *at)
{
    unsigned beacon = (unsigned)(at->ip[14] << 8 | at->ip[15]);
    struct endpoint want = beacon_at(beacon);
    return beacon < w->beacons && endpoint_equal(&want, at) ? (int)beacon : -1;
}

uint32_t beacon_id(unsigned beacon)
{
    return FIRST_ID + beacon;
}

int beacon_of_id(const struct world *w, uint32_t id)
{
    return id >= FIRST_ID && id < FIRST_ID + w->beacons ? (int)(id - FIRST_ID) : -1;
}

int beacon_any(struct world *w)
{
    unsigned running = beacons_running(w);
    if (running == 0)
        return -1;
    unsigned nth = (unsigned)sim_below(&w->random, running), i = 0;
    for (;; i++)
        if (beacon_runs(w, i) && nth-- == 0)
            return (int)i;
}

unsigned beacons_running(const struct world *w)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->beacons; i++)
        count += beacon_runs(w, i);
    return count;
}

int beacon_route(const struct world *w, unsigned beacon, uint32_t node)
{
    const struct sim_beacon *b = &w->beacon[beacon];
    unsigned index = b->route[node];
    if (index >= b->table_count || !b->table[index].usable)
        return -1;
    return beacon_of(w, &b->table[index].at);
}

/* --- start and end --- */

static void seeds_named(struct world *w, unsigned beacon)
{
    struct gossip_seed seeds[SEEDS];
    unsigned count = w->beacons < SEEDS ? w->beacons : SEEDS;
    for (unsigned i = 0; i < count; i++)
        seeds[i] = (struct gossip_seed){.at = beacon_at(i)};
    struct sim_beacon *b = &w->beacon[beacon];
    gossip_set_seeds(b->gossip, seeds, count, w->now_ns + b->clock_ns);
}

static void state_said(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    struct beacon_state state = {.nodes_max = w->nodes,
                                 .endpoint_count = 1,
                                 .endpoint = {beacon_at(beacon)},
                                 .version = "0.0.0"};
    gossip_set_state(b->gossip, &state, w->now_ns + b->clock_ns);
}

static void nodes_return(struct world *w, unsigned beacon, bool with_nodes)
{
    struct sim_beacon *b = &w->beacon[beacon];
    for (uint32_t node = 0; node < w->nodes; node++) {
        if (b->node[node] & NODE_LEFT && with_nodes)
            world_put(w, sim_below(&w->random, 3 * SIM_S), EVENT_UP, beacon, node);
        b->node[node] &= (uint8_t)~NODE_LEFT;
    }
}

void beacon_start(struct world *w, unsigned beacon, bool with_nodes)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (b->gossip)
        return;
    struct gossip_config config = w->config;
    config.beacon_id = beacon_id(beacon);
    config.boot = wall_start_ms + w->now_ns / SIM_MS + (uint64_t)b->wall_ms;
    config.boot += config.boot == b->boot; /* no two starts are in one millisecond */
    b->boot = config.boot;
    b->clock_ns = sim_below(&w->random, 1000) * SIM_S + SIM_S;
    for (size_t i = 0; i < sizeof config.seed; i++)
        config.seed[i] = (uint8_t)sim_random(&w->random);
    /* As from calloc; pages that were never touched cost nothing. */
    madvise(b->memory, w->memory_size, MADV_DONTNEED);
    memset(b->memory + w->memory_size - 64, GUARD, 64);
    memset(b->known, 0, sizeof b->known);
    memset(b->table, 0, sizeof b->table);
    b->table_count = 0;
    b->paused_ns = 0;
    memset(&w->believed_dead[beacon * w->beacons], 0, w->beacons);
    for (uint32_t node = 0; node < w->nodes; node++)
        b->route[node] = STORE_NONE;
    b->gossip = gossip_init(b->memory, &config, w->now_ns + b->clock_ns);
    w->killed_ns[beacon] = 0;
    gossip_set_keys(b->gossip, &w->ring);
    seeds_named(w, beacon);
    state_said(w, beacon);
    nodes_return(w, beacon, with_nodes);
    beacon_turn(w, beacon);
}

void beacon_kill(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (!b->gossip)
        return;
    for (uint32_t node = 0; node < w->nodes; node++)
        if (b->node[node] & NODE_HERE)
            b->node[node] = NODE_EVER | NODE_LEFT;
    b->own = 0;
    b->gossip = NULL;
    b->wake_ns = UINT64_MAX;
    w->killed_ns[beacon] = w->now_ns;
}

void beacon_leave(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    if (!b->gossip)
        return;
    gossip_leave(b->gossip, w->now_ns + b->clock_ns);
    beacon_settle(w, beacon);
    beacon_kill(w, beacon);
}

/* --- what comes out --- */

static void frames_out(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    struct gossip_out out;
    while (!w->failed && gossip_send(b->gossip, w->now_ns + b->clock_ns, &out)) {
        int to = beacon_of(w, &out.to);
        if (out.len > GOSSIP_FRAME_MAX || out.len == 0 || out.bytes[0] != GOSSIP_TYPE)
            world_fail(w, "beacon %u sends %zu bytes of type %02x", beacon, out.len, out.bytes[0]);
        else if (to < 0)
            world_fail(w, "beacon %u sends to an address that is no beacon", beacon);
        else
            network_send(w, beacon, (unsigned)to, out.bytes, out.len);
        b->bytes += out.len;
        b->frames++;
    }
}

/* A death is news of the first who believes in it, a false one if its beacon runs. */
static void death_noticed(struct world *w, unsigned beacon, unsigned of)
{
    bool first = true;
    for (unsigned i = 0; i < w->beacons; i++)
        first &= !w->believed_dead[i * w->beacons + of] || !beacon_runs(w, i);
    w->believed_dead[beacon * w->beacons + of] = 1;
    if (!first)
        return;
    if (w->killed_ns[of])
        w->deaths++;
    else
        w->false_deaths++;
    if (w->options.trace)
        printf("%llu beacon %u takes %u for dead, %s\n", (unsigned long long)w->now_ns, beacon, of,
               w->killed_ns[of] ? "rightly" : "wrongly");
}

static void table_out(struct world *w, unsigned beacon)
{
    static struct gossip_beacon before[STORE_OWNERS_MAX];
    struct sim_beacon *b = &w->beacon[beacon];
    unsigned count;
    memcpy(before, b->table, sizeof before);
    if (!gossip_beacons(b->gossip, b->table, &count))
        return;
    b->table_count = count;
    for (unsigned i = 0; i < STORE_OWNERS_MAX; i++) {
        int was = before[i].usable ? beacon_of(w, &before[i].at) : -1;
        int is = b->table[i].usable ? beacon_of(w, &b->table[i].at) : -1;
        if (is >= 0)
            w->believed_dead[beacon * w->beacons + (unsigned)is] = 0;
        if (was >= 0 && was != is)
            death_noticed(w, beacon, (unsigned)was);
    }
}

static void routes_out(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    struct gossip_route route;
    while (!w->failed && gossip_route(b->gossip, &route)) {
        uint32_t node = node_of(route.id);
        if (node >= w->nodes) {
            world_fail(w, "beacon %u has a route to id %u, which is nobody's", beacon, route.id);
            return;
        }
        check_route(w, beacon, &route);
        if (w->put_back && sim_percent(&w->random, w->put_back)) {
            gossip_route_again(b->gossip, route.id);
            return; /* the mailbox is full: the rest later */
        }
        b->route[node] = route.beacon;
        probes_seen(w, beacon, node);
    }
}

static void turn_planned(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    uint64_t next_ns = gossip_next_ns(b->gossip);
    if (next_ns == UINT64_MAX)
        next_ns = w->now_ns + b->clock_ns + 3600 * SIM_S;
    uint64_t wake_ns = next_ns < b->clock_ns ? 0 : next_ns - b->clock_ns;
    if (wake_ns < w->now_ns + turn_ns)
        wake_ns = w->now_ns + turn_ns;
    if (w->put_back && wake_ns > w->now_ns + 5 * SIM_MS)
        wake_ns = w->now_ns + 5 * SIM_MS;
    if (b->wake_ns <= wake_ns && b->wake_ns > w->now_ns)
        return; /* it turns before, and plans again */
    b->wake_ns = wake_ns;
    heap_put(&w->heap,
             (struct event){.at_ns = wake_ns, .kind = EVENT_TURN, .to = (uint16_t)beacon});
}

static void boot_noticed(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    uint64_t boot = store_owner(gossip_store(b->gossip), STORE_SELF)->boot;
    if (b->boot_now != boot && w->options.trace)
        printf("%llu beacon %u has boot %llu\n", (unsigned long long)w->now_ns, beacon,
               (unsigned long long)boot);
    b->boot_now = boot;
}

void beacon_settle(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    boot_noticed(w, beacon);
    frames_out(w, beacon);
    table_out(w, beacon);
    routes_out(w, beacon);
    if (!w->failed)
        turn_planned(w, beacon);
    for (size_t i = 0; i < 64 && !w->failed; i++)
        if (b->memory[w->memory_size - 64 + i] != GUARD)
            world_fail(w, "beacon %u wrote behind its memory", beacon);
}

/* --- what goes in --- */

void beacon_turn(struct world *w, unsigned beacon)
{
    struct sim_beacon *b = &w->beacon[beacon];
    uint64_t second = w->now_ns / SIM_S;
    if (b->spin_second != second) {
        b->spin_second = second;
        b->spins = 0;
    }
    if (++b->spins > SPINS_MAX && gossip_next_ns(b->gossip) <= w->now_ns + b->clock_ns)
        world_fail(w, "beacon %u turned %u times within a second", beacon, b->spins);
    b->wake_ns = UINT64_MAX;
    gossip_tick(b->gossip, w->now_ns + b->clock_ns);
    beacon_settle(w, beacon);
}

void beacon_input(struct world *w, const struct event *e)
{
    struct sim_beacon *b = &w->beacon[e->to];
    struct endpoint from = beacon_at(e->from);
    gossip_input(b->gossip, w->net.buffer[e->arg], e->len, &from, w->now_ns + b->clock_ns);
    if (gossip_next_ns(b->gossip) <= w->now_ns + b->clock_ns)
        gossip_tick(b->gossip, w->now_ns + b->clock_ns);
    beacon_settle(w, e->to);
}
