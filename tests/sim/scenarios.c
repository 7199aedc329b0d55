#include <sys/resource.h>
#include "tests/sim/sim.h"

#define SETTLE_NS (90 * SIM_S)
#define MS(ns) ((unsigned long long)((ns) / SIM_MS))

/* --- parts of scenarios --- */

static bool all_start(struct world *w)
{
    for (unsigned i = 0; i < w->beacons; i++)
        world_put(w, sim_below(&w->random, 2 * SIM_S), EVENT_START, i, 0);
    world_run(w, 2 * SIM_S);
    if (world_until(w, SETTLE_NS, members_know))
        return true;
    truth_explain(w);
    world_fail(w, "the beacons did not find each other");
    return false;
}

static bool must_reach_truth(struct world *w, uint64_t ns, const char *after)
{
    if (world_until(w, ns, truth_reached))
        return true;
    truth_explain(w);
    world_fail(w, "not all is known %llu s after %s", (unsigned long long)(ns / SIM_S), after);
    return false;
}

static bool begun(struct world *w)
{
    if (!all_start(w))
        return false;
    nodes_spread(w);
    return must_reach_truth(w, SETTLE_NS, "the start");
}

static void at_most(struct world *w, const char *what, uint64_t got, uint64_t most,
                    const char *unit)
{
    world_figure(w, " %s=%llu%s", what, (unsigned long long)got, unit);
    if (got > most)
        world_fail(w, "%s: %llu %s, at most %llu", what, (unsigned long long)got, unit,
                   (unsigned long long)most);
}

static void wan_begins(struct world *w)
{
    w->net.loss = w->options.loss;
    w->net.dup = w->options.dup;
    w->net.late = 10;
    w->net.jitter_ns = 40 * SIM_MS;
}

static void repeatedly(struct world *w, enum event_kind kind, uint64_t *mean_ns, uint64_t ns)
{
    *mean_ns = ns;
    world_put(w, ns, kind, 0, 0);
}

/* --- everything goes wrong, then right --- */

static void chaos(struct world *w)
{
    w->checks = true;
    w->put_back = 2;
    if (!begun(w))
        return;
    repeatedly(w, EVENT_CHURN, &w->churn_ns, 50 * SIM_MS);
    repeatedly(w, EVENT_FAULT, &w->fault_ns, 3 * SIM_S);
    world_run(w, w->options.hours ? w->options.hours * 3600 * SIM_S : 240 * SIM_S);
    faults_end(w);
    uint64_t healed_ns = w->now_ns;
    if (!must_reach_truth(w, 60 * SIM_S, "the end of all faults"))
        return;
    world_figure(w, " truth=%llums", MS(w->now_ns - healed_ns));
    world_run(w, 35 * SIM_S); /* registrations that end late */
    if (must_reach_truth(w, 10 * SIM_S, "the last change"))
        check_sweep(w);
}

/* Far too few rows for all that is claimed: much is refused, nothing goes wrong. */
static void cramped(struct world *w)
{
    w->checks = true;
    w->put_back = 2;
    if (!all_start(w))
        return;
    repeatedly(w, EVENT_CHURN, &w->churn_ns, 20 * SIM_MS);
    repeatedly(w, EVENT_FAULT, &w->fault_ns, 3 * SIM_S);
    world_run(w, w->options.hours ? w->options.hours * 3600 * SIM_S : 120 * SIM_S);
    faults_end(w);
    if (!world_until(w, 60 * SIM_S, members_know))
        truth_explain(w);
    world_run(w, 35 * SIM_S);
    if (!w->failed && !world_until(w, 30 * SIM_S, logs_equal))
        world_fail(w, "logs do not end");
    check_sweep(w);
}

/* --- how long a change takes --- */

static void update(struct world *w)
{
    uint64_t most_ms = w->beacons <= 3 ? 3000 : w->beacons <= 5 ? 4000 : 7000;
    if (!all_start(w))
        return;
    wan_begins(w);
    world_run(w, 20 * SIM_S);
    w->deaths = w->false_deaths = 0;
    for (unsigned i = 0; i < 400 && !w->failed; i++) {
        node_probe(w);
        world_run(w, 100 * SIM_MS + sim_below(&w->random, 200 * SIM_MS));
    }
    for (unsigned s = 0; s < 60 && probes_open(w) > 0; s++)
        world_run(w, SIM_S);
    if (probes_open(w) > 0)
        world_fail(w, "%u changes never got everywhere", probes_open(w));
    at_most(w, "p50", MS(samples_percentile(&w->updates, 50)), most_ms, "ms");
    at_most(w, "p99", MS(samples_percentile(&w->updates, 99)), most_ms, "ms");
    world_figure(w, " max=%llums changes=%u false-deaths=%u",
                 MS(samples_percentile(&w->updates, 100)), w->updates.count, w->false_deaths);
}

/* --- partitions --- */

static void cut_in_two(struct world *w)
{
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < w->beacons; b++)
            network_cut(w, a, b, (a ^ b) & 1);
}

static void change_all(struct world *w, uint64_t within_ns)
{
    for (uint32_t node = 0; node < w->nodes; node++) {
        int from = -1, to = beacon_any(w);
        for (unsigned i = 0; i < w->beacons && from < 0; i++)
            if (w->beacon[i].node[node] & NODE_HERE)
                from = (int)i;
        if (from == to)
            to = (to + 1) % (int)w->beacons;
        uint64_t at_ns = sim_below(&w->random, within_ns);
        world_put(w, at_ns, EVENT_GONE, (unsigned)from, node);
        world_put(w, at_ns, EVENT_UP, (unsigned)to, node);
    }
}

/* Ten minutes apart, in which every node moves; then all must be known at once. */
static void heal(struct world *w)
{
    if (!begun(w))
        return;
    wan_begins(w);
    cut_in_two(w);
    change_all(w, 590 * SIM_S);
    world_run(w, 600 * SIM_S);
    network_heal(w);
    uint64_t healed_ns = w->now_ns;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < w->beacons; i++)
        bytes -= w->beacon[i].bytes;
    must_reach_truth(w, 60 * SIM_S, "the partition");
    for (unsigned i = 0; i < w->beacons; i++)
        bytes += w->beacon[i].bytes;
    at_most(w, "healed", MS(w->now_ns - healed_ns), 8000, "ms");
    world_figure(w, " sent=%llukB", (unsigned long long)(bytes / 1000));
}

/* Nobody sees everybody, but there is a way round: what changes gets everywhere all the same. */
static void round_about(struct world *w, void cuts(struct world *w), uint64_t most_ns)
{
    w->checks = true;
    if (!begun(w))
        return;
    wan_begins(w);
    cuts(w);
    world_run(w, 60 * SIM_S);
    change_all(w, 20 * SIM_S);
    world_run(w, 20 * SIM_S);
    uint64_t changed_ns = w->now_ns;
    if (!world_until(w, most_ns, logs_equal))
        world_fail(w, "logs do not get round");
    world_figure(w, " round=%llums", MS(w->now_ns - changed_ns));
    for (uint32_t node = 0; node < w->nodes / 4; node++)
        for (unsigned i = 0; i < w->beacons; i++)
            node_gone(w, i, node);
    world_run(w, 60 * SIM_S);
    for (unsigned i = 0; i < 100 && !w->failed; i++) {
        node_probe(w);
        world_run(w, SIM_S);
    }
    world_run(w, 30 * SIM_S);
    world_figure(w, " p50=%llums p99=%llums", MS(samples_percentile(&w->updates, 50)),
                 MS(samples_percentile(&w->updates, 99)));
    network_heal(w);
    must_reach_truth(w, 30 * SIM_S, "all links are whole");
}

static void bridge(struct world *w)
{
    round_about(w, network_bridge, 20 * SIM_S);
}

static void ring(struct world *w)
{
    round_about(w, network_ring, 5 * SIM_S * w->beacons);
}

/* --- life and death --- */

/* The time until everybody knows, for each of many deaths. */
static void dead(struct world *w)
{
    static struct samples found;
    unsigned rounds = w->beacons > 16 ? 10 : 40;
    found.count = 0;
    if (!begun(w))
        return;
    wan_begins(w);
    for (unsigned i = 0; i < rounds && !w->failed; i++) {
        int victim = beacon_any(w);
        world_run(w, 5 * SIM_S + sim_below(&w->random, 2 * SIM_S));
        beacon_kill(w, (unsigned)victim);
        uint64_t killed_ns = w->now_ns;
        if (!world_until(w, 60 * SIM_S, members_know))
            world_fail(w, "not everybody knows that %d is dead", victim);
        found.of[found.count++] = w->now_ns - killed_ns;
        beacon_start(w, (unsigned)victim, true);
        world_run(w, 4 * SIM_S);
        must_reach_truth(w, 60 * SIM_S, "a restart");
    }
    world_figure(w, " p50=%llums", MS(samples_percentile(&found, 50)));
    at_most(w, "p99", MS(samples_percentile(&found, 99)), 10000, "ms");
}

static void leave(struct world *w)
{
    static struct samples found;
    found.count = 0;
    if (!begun(w))
        return;
    wan_begins(w);
    for (unsigned i = 0; i < 20 && !w->failed; i++) {
        int victim = beacon_any(w);
        world_run(w, 5 * SIM_S);
        beacon_leave(w, (unsigned)victim);
        uint64_t left_ns = w->now_ns;
        if (!world_until(w, 60 * SIM_S, members_know))
            world_fail(w, "not everybody knows that %d has left", victim);
        found.of[found.count++] = w->now_ns - left_ns;
        beacon_start(w, (unsigned)victim, true);
        world_run(w, 4 * SIM_S);
        must_reach_truth(w, 60 * SIM_S, "a restart");
    }
    world_figure(w, " p50=%llums", MS(samples_percentile(&found, 50)));
    at_most(w, "p90", MS(samples_percentile(&found, 90)), 3000, "ms");
}

/* One stands still for 5 s in each minute. Nobody may take anybody for dead. */
static void pauses(struct world *w)
{
    uint64_t minutes = (w->options.hours ? w->options.hours : 1) * 60;
    if (!begun(w))
        return;
    wan_begins(w);
    world_run(w, 20 * SIM_S);
    w->deaths = w->false_deaths = 0;
    for (uint64_t i = 0; i < minutes && !w->failed; i++) {
        world_put(w, sim_below(&w->random, 20 * SIM_S), EVENT_PAUSE, w->beacons / 2, 5000);
        world_run(w, 60 * SIM_S);
    }
    uint64_t beacon_hours = w->beacons * minutes / 60;
    world_figure(w, " beacon-hours=%llu", (unsigned long long)beacon_hours);
    at_most(w, "false-deaths", w->false_deaths, beacon_hours / 10000, "");
}

/* A clock that was set back: the beacon's boot is of the past, and what is said of it is newer. */
static void clock_back(struct world *w)
{
    if (!begun(w))
        return;
    w->checks = true;
    wan_begins(w);
    for (unsigned i = 0; i < 6 && !w->failed; i++) {
        int victim = beacon_any(w);
        beacon_kill(w, (unsigned)victim);
        world_run(w, 10 * SIM_MS + sim_below(&w->random, 30 * SIM_S));
        w->beacon[victim].wall_ms -= 3600000 + (int64_t)sim_below(&w->random, 86400000);
        beacon_start(w, (unsigned)victim, sim_percent(&w->random, 50));
        world_run(w, 4 * SIM_S);
        must_reach_truth(w, 60 * SIM_S, "a restart in the past");
    }
}

/* --- bytes --- */

static void idle(struct world *w)
{
    uint64_t bytes = 0, frames = 0, seconds = 120;
    if (!begun(w))
        return;
    world_run(w, 30 * SIM_S);
    for (unsigned i = 0; i < w->beacons; i++) {
        bytes -= w->beacon[i].bytes;
        frames -= w->beacon[i].frames;
    }
    world_run(w, seconds * SIM_S);
    for (unsigned i = 0; i < w->beacons; i++) {
        bytes += w->beacon[i].bytes;
        frames += w->beacon[i].frames;
    }
    at_most(w, "each", bytes / seconds / w->beacons, 2000, "B/s");
    world_figure(w, " frames=%llu/s", (unsigned long long)(frames / seconds / w->beacons));
}

static void scale(struct world *w)
{
    struct rusage used;
    uint64_t bytes = 0;
    if (!all_start(w))
        return;
    nodes_spread(w);
    uint64_t spread_ns = w->now_ns;
    must_reach_truth(w, 600 * SIM_S, "a million at once");
    for (unsigned i = 0; i < w->beacons; i++)
        bytes += w->beacon[i].bytes;
    getrusage(RUSAGE_SELF, &used);
    world_figure(w, " known=%llums sent=%lluMB arena=%zuMB resident=%ldMB",
                 MS(w->now_ns - spread_ns), (unsigned long long)(bytes / 1000000),
                 w->memory_size / 1000000, used.ru_maxrss / 1000);
    for (unsigned i = 0; i < 20 && !w->failed; i++) {
        nodes_churn(w);
        world_run(w, 100 * SIM_MS);
    }
    must_reach_truth(w, 60 * SIM_S, "some changes");
}

const struct scenario scenarios[] = {
    {"chaos", "any faults, then none", {.beacons = 5, .nodes = 200, .loss = 5, .dup = 1}, chaos},
    {"cramped",
     "stores that are too small",
     {.beacons = 4, .nodes = 200, .loss = 5, .dup = 1, .rows = 150},
     cramped},
    {"update",
     "how long a change takes",
     {.beacons = 5, .nodes = 2000, .loss = 20, .dup = 1},
     update},
    {"heal", "20,000 rows after ten minutes", {.beacons = 4, .nodes = 20000, .loss = 1}, heal},
    {"bridge", "all but one are apart", {.beacons = 7, .nodes = 300, .loss = 5, .dup = 1}, bridge},
    {"ring", "each sees two", {.beacons = 6, .nodes = 300, .loss = 5, .dup = 1}, ring},
    {"dead", "until a death is known", {.beacons = 5, .nodes = 200, .loss = 20, .dup = 1}, dead},
    {"leave", "until a goodbye is known", {.beacons = 5, .nodes = 200, .loss = 5}, leave},
    {"pauses",
     "nobody dies of standing still",
     {.beacons = 5, .nodes = 50, .loss = 20, .dup = 1},
     pauses},
    {"clock",
     "restarts in the past",
     {.beacons = 4, .nodes = 100, .loss = 5, .dup = 1},
     clock_back},
    {"idle", "bytes when nothing happens", {.beacons = 50, .nodes = 5000, .loss = 1}, idle},
    {"scale", "many beacons and nodes", {.beacons = 5, .nodes = 100000, .loss = 1}, scale},
};
const unsigned scenario_count = sizeof scenarios / sizeof *scenarios;
