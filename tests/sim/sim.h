/* sim - many beacons' gossip in one process: virtual time, a network that loses, delays, repeats
 * and cuts, beacons that pause, die and come back, nodes that move.
 *
 * One run is a struct world. Everything that happens in it follows from its seed: no clock, no
 * address and no floating-point number decides anything, so each compiler's program has the same
 * trace, and a failure is replayed by its seed.
 *
 * The model of the truth is flags a beacon and node; that of a beacon's shards is the index that
 * gossip_route gave last, and the table of gossip_beacons. A relay would go where both point. */
#ifndef BEACON_TESTS_SIM_SIM_H
#define BEACON_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "gossip/gossip.h"

enum {
    SIM_BEACONS_MAX = 512,
    SIM_OLD_FRAMES = 64, /* kept, to be sent again long after */
    SIM_PROBES_MAX = 64, /* updates that are watched at one time */
    SIM_SAMPLES_MAX = 4096,
    SIM_REASON_MAX = 512,
};
#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)

struct sim_options {
    const char *scenario;
    uint64_t seed;
    unsigned beacons;
    uint32_t nodes;
    unsigned loss, dup; /* percent of frames */
    uint32_t rows;      /* of each store, 0: as many as are needed */
    unsigned hours;
    bool trace;
};

/* --- random numbers --- */

struct sim_random {
    uint64_t state;
};
uint64_t sim_random(struct sim_random *r); /* splitmix64 */
/* 0 .. limit - 1; limit is not 0. */
uint64_t sim_below(struct sim_random *r, uint64_t limit);
bool sim_percent(struct sim_random *r, unsigned percent);
uint64_t sim_mix(uint64_t x);

/* --- events --- */

enum event_kind {
    EVENT_FRAME, /* arrives; arg: its buffer */
    EVENT_TURN,  /* a beacon's own time has come */
    EVENT_UP,    /* a node registers; arg: node */
    EVENT_GONE,  /* and is forgotten by that beacon */
    EVENT_CHURN, /* something happens to some node */
    EVENT_FAULT, /* something happens to some beacon or link */
    EVENT_START, /* a beacon starts; arg: 1 with its nodes of before */
    EVENT_PAUSE, /* a beacon stands still for a while */
    EVENT_KIND_COUNT
};
struct event {
    uint64_t at_ns, order; /* those of one time in the order they were put */
    uint32_t arg;
    uint16_t kind, from, to, len;
};
/* A binary heap; memory of its own, which grows before a run only. */
struct heap {
    struct event *of;
    size_t count, room;
    uint64_t order;
};
void heap_open(struct heap *h, size_t room);
void heap_close(struct heap *h);
void heap_put(struct heap *h, struct event e);
bool heap_take(struct heap *h, struct event *ret);

/* --- the network --- */

struct network {
    unsigned loss, dup; /* percent */
    unsigned late;      /* percent that are overtaken by others */
    uint64_t jitter_ns;
    uint8_t *cut; /* [from * SIM_BEACONS_MAX + to] */
    uint8_t (*buffer)[GOSSIP_FRAME_MAX];
    uint32_t *free, free_count, buffers;
    struct {
        uint16_t from, to, len;
        uint8_t bytes[GOSSIP_FRAME_MAX];
    } old[SIM_OLD_FRAMES];
    unsigned old_count;
};

/* --- beacons and nodes --- */

enum {
    NODE_HERE = 1, /* registered at this beacon */
    NODE_EVER = 2, /* it has been, some time */
    NODE_LEFT = 4, /* was when the beacon died */
};

struct sim_beacon {
    struct gossip *gossip; /* NULL: it does not run */
    uint8_t *memory;       /* as much as gossip_size says, and a guard behind it */
    uint64_t clock_ns;     /* its monotonic clock less ours */
    int64_t wall_ms;       /* its wall clock less the right one */
    uint64_t boot;         /* the last one it started with */
    uint64_t boot_now;     /* and what has become of it */
    uint64_t paused_ns;    /* until then */
    uint64_t wake_ns;      /* of the one EVENT_TURN that counts */
    uint64_t spin_second;  /* turns of one second: more than a few thousand is a loop */
    unsigned spins;
    uint64_t bytes, frames; /* sent */

    uint32_t own;                                 /* nodes here */
    uint8_t *node;                                /* NODE_ flags */
    uint16_t *route;                              /* [node] index of a beacon, as the shards know */
    struct gossip_beacon table[STORE_OWNERS_MAX]; /* what an index stands for */
    unsigned table_count;
    struct {
        uint32_t beacon;
        uint64_t boot, version;
    } known[MEMBERS_MAX]; /* the newest seen, which must not go back */
};

/* A change whose way to all beacons is timed. */
struct probe {
    bool used;
    uint32_t node;
    uint16_t at; /* beacon */
    uint64_t since_ns;
    unsigned missing;
    uint64_t seen[SIM_BEACONS_MAX / 64];
};

struct samples {
    unsigned count;
    uint64_t of[SIM_SAMPLES_MAX];
};
uint64_t samples_percentile(struct samples *s, unsigned percent); /* sorts; 0 without any */

struct world {
    struct sim_options options;
    const char *name; /* of the scenario */
    uint64_t now_ns, hash, events;
    struct sim_random random, link_random; /* what happens; what the network does */
    struct heap heap;
    struct network net;
    struct gossip_config config;
    struct seal_ring ring;
    size_t memory_size;
    unsigned beacons;
    uint32_t nodes;
    struct sim_beacon *beacon;

    uint64_t churn_ns, fault_ns; /* mean distance, 0: none */
    unsigned put_back;           /* percent of routes that find no room at first */
    bool checks;                 /* invariants after each event */
    uint64_t swept_ns;

    struct probe probe[SIM_PROBES_MAX];
    struct samples updates; /* ns until all beacons had a change */
    unsigned deaths, false_deaths;
    uint8_t *believed_dead; /* [by * beacons + beacon] */
    uint64_t *killed_ns;    /* [beacon] 0: runs */

    bool failed;
    char reason[SIM_REASON_MAX];
    char figures[SIM_REASON_MAX];
};

/* --- fault.c --- */

/* Something goes wrong, or right again. */
void fault_happens(struct world *w);
/* All is well: nothing is cut, everybody runs, and little is lost. */
void faults_end(struct world *w);

/* --- net.c --- */

void network_open(struct network *n, uint32_t buffers);
void network_close(struct network *n);
void network_cut(struct world *w, unsigned from, unsigned to, bool cut); /* one way */
void network_heal(struct world *w);
/* Halves by the bits of a random number; a ring; two halves that see each other by one beacon. */
void network_halves(struct world *w);
void network_ring(struct world *w);
void network_bridge(struct world *w);
void network_send(struct world *w, unsigned from, unsigned to, const uint8_t *bytes, size_t len);
void network_replay(struct world *w); /* old frames once more */
/* The event is over: its buffer is free again. */
void network_taken(struct world *w, const struct event *e);

/* --- world.c --- */

void world_open(struct world *w, const struct sim_options *o, const char *name);
void world_close(struct world *w);
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Lets it go on for so long, or until it has failed. */
void world_run(struct world *w, uint64_t ns);
/* Until test says true, asked each 50 ms. False: it did not within `ns`, or something failed. */
bool world_until(struct world *w, uint64_t ns, bool (*test)(struct world *w));
void world_put(struct world *w, uint64_t delay_ns, enum event_kind kind, unsigned to, uint32_t arg);
/* Adds to the line that is printed of the run. */
void world_figure(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- beacon.c --- */

struct endpoint beacon_at(unsigned beacon);
int beacon_of(const struct world *w, const struct endpoint *at); /* -1: none */
uint32_t beacon_id(unsigned beacon);
int beacon_of_id(const struct world *w, uint32_t id);
void beacon_start(struct world *w, unsigned beacon, bool with_nodes);
void beacon_kill(struct world *w, unsigned beacon);
void beacon_leave(struct world *w, unsigned beacon); /* says goodbye first */
void beacon_input(struct world *w, const struct event *e);
void beacon_turn(struct world *w, unsigned beacon);
/* After whatever was done to it: takes its outputs, and plans its next turn. */
void beacon_settle(struct world *w, unsigned beacon);
static inline bool beacon_runs(const struct world *w, unsigned beacon)
{
    return w->beacon[beacon].gossip != NULL;
}
/* One that runs, -1: none does. */
int beacon_any(struct world *w);
unsigned beacons_running(const struct world *w);
/* The beacon that a relay to that node would be passed on to; -1: none. */
int beacon_route(const struct world *w, unsigned beacon, uint32_t node);

/* --- nodes.c --- */

uint32_t node_id(uint32_t node);
uint32_t node_of(uint32_t id);
void node_up(struct world *w, unsigned beacon, uint32_t node);
void node_gone(struct world *w, unsigned beacon, uint32_t node);
void nodes_churn(struct world *w);  /* one thing happens */
void nodes_spread(struct world *w); /* each registers somewhere */
/* A node that is nowhere registers at a random beacon, and its way to all others is timed. */
void node_probe(struct world *w);
void probes_seen(struct world *w, unsigned beacon, uint32_t node);
unsigned probes_open(const struct world *w);

/* --- check.c --- */

/* What holds after each event of that beacon. */
void check_beacon(struct world *w, unsigned beacon);
void check_route(struct world *w, unsigned beacon, const struct gossip_route *route);
/* All nodes at all beacons; slow. */
void check_sweep(struct world *w);
/* Everybody who runs knows everybody else's log. */
bool logs_equal(struct world *w);
/* And each node is reached from everywhere. `explain`: why not, into w->reason. */
bool truth_reached(struct world *w);
bool truth_explain(struct world *w);
bool members_know(struct world *w); /* each takes each other for usable, and only those */

/* --- scenarios.c --- */

struct scenario {
    const char *name, *what;
    struct sim_options usual; /* where the command line says nothing */
    void (*run)(struct world *w);
};
extern const struct scenario scenarios[];
extern const unsigned scenario_count;

#endif
