#include "tests/sim/sim.h"

/* Kinds of faults, as often as they stand here. */
enum fault {
    FAULT_HEAL,
    FAULT_HEAL_AGAIN,
    FAULT_HALVES,
    FAULT_RING,
    FAULT_BRIDGE,
    FAULT_ONE_WAY,
    FAULT_LOSS,
    FAULT_PAUSE,
    FAULT_PAUSE_AGAIN,
    FAULT_KILL,
    FAULT_KILL_AGAIN,
    FAULT_LEAVE,
    FAULT_CLOCK,
    FAULT_REPLAY,
    FAULT_COUNT
};

/* It comes back after a while, mostly with the nodes it had. */
static void end_and_return(struct world *w, bool politely)
{
    int victim = beacon_any(w);
    if (victim < 0)
        return;
    if (politely)
        beacon_leave(w, (unsigned)victim);
    else
        beacon_kill(w, (unsigned)victim);
    uint64_t away_ns = sim_below(&w->random, 2) ? 2 * SIM_S : 40 * SIM_S;
    away_ns = 10 * SIM_MS + sim_below(&w->random, away_ns);
    bool with_nodes = sim_percent(&w->random, 70);
    world_put(w, away_ns, EVENT_START, (unsigned)victim, with_nodes);
}

static void cut_one_way(struct world *w)
{
    unsigned from = (unsigned)sim_below(&w->random, w->beacons);
    unsigned to = (unsigned)sim_below(&w->random, w->beacons);
    network_cut(w, from, to, true);
}

static void pause(struct world *w)
{
    unsigned beacon = (unsigned)sim_below(&w->random, w->beacons);
    uint32_t ms = 100 + (uint32_t)sim_below(&w->random, 9000);
    world_put(w, 0, EVENT_PAUSE, beacon, ms);
}

/* Up to an hour forward or back: the boot numbers of later starts tell of it. */
static void clock_steps(struct world *w)
{
    unsigned beacon = (unsigned)sim_below(&w->random, w->beacons);
    w->beacon[beacon].wall_ms = (int64_t)sim_below(&w->random, 7200000) - 3600000;
}

static void loss_changes(struct world *w)
{
    static const uint8_t loss[] = {0, 1, 5, 20, 50};
    w->net.loss = loss[sim_below(&w->random, sizeof loss)];
    w->net.dup = (unsigned)sim_below(&w->random, 6);
}

void fault_happens(struct world *w)
{
    switch ((enum fault)sim_below(&w->random, FAULT_COUNT)) {
    case FAULT_HEAL:
    case FAULT_HEAL_AGAIN:
        network_heal(w);
        break;
    case FAULT_HALVES:
        network_halves(w);
        break;
    case FAULT_RING:
        network_ring(w);
        break;
    case FAULT_BRIDGE:
        network_bridge(w);
        break;
    case FAULT_ONE_WAY:
        cut_one_way(w);
        break;
    case FAULT_LOSS:
        loss_changes(w);
        break;
    case FAULT_PAUSE:
    case FAULT_PAUSE_AGAIN:
        pause(w);
        break;
    case FAULT_KILL:
    case FAULT_KILL_AGAIN:
        end_and_return(w, false);
        break;
    case FAULT_LEAVE:
        end_and_return(w, true);
        break;
    case FAULT_CLOCK:
        clock_steps(w);
        break;
    case FAULT_REPLAY:
        network_replay(w);
        break;
    case FAULT_COUNT:
        break;
    }
}

void faults_end(struct world *w)
{
    w->fault_ns = 0;
    w->churn_ns = 0;
    network_heal(w);
    w->net.loss = w->options.loss;
    w->net.dup = w->options.dup;
    for (unsigned i = 0; i < w->beacons; i++) {
        w->beacon[i].paused_ns = 0;
        if (!beacon_runs(w, i))
            world_put(w, 0, EVENT_START, i, true);
    }
}
