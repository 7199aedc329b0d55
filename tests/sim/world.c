#include <assert.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/sim/sim.h"

enum { SWEEP_S = 5, ASK_MS = 50 };

static const char *const event_names[EVENT_KIND_COUNT] = {
    [EVENT_FRAME] = "frame", [EVENT_TURN] = "turn",   [EVENT_UP] = "up",
    [EVENT_GONE] = "gone",   [EVENT_CHURN] = "churn", [EVENT_FAULT] = "fault",
    [EVENT_START] = "start", [EVENT_PAUSE] = "pause"};

/* --- begin and end --- */

static void *pages(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    assert(p != MAP_FAILED);
    return p;
}

/* A node may be known from several beacons at once, and a tombstone is a row, too. */
static uint32_t rows_wanted(const struct world *w)
{
    if (w->options.rows)
        return w->options.rows;
    if (w->nodes >= 200000)
        return w->nodes + w->nodes / 8;
    return w->nodes * (w->beacons < 8 ? w->beacons : 8) + 4096;
}

static void beacons_open(struct world *w)
{
    w->config.rows = w->config.owner_rows = rows_wanted(w);
    w->memory_size = (gossip_size(&w->config) + 63) / 64 * 64 + 64;
    w->beacon = calloc(w->beacons, sizeof *w->beacon);
    w->believed_dead = calloc(w->beacons, w->beacons);
    w->killed_ns = calloc(w->beacons, sizeof *w->killed_ns);
    assert(w->beacon && w->believed_dead && w->killed_ns);
    for (unsigned i = 0; i < w->beacons; i++) {
        struct sim_beacon *b = &w->beacon[i];
        b->memory = pages(w->memory_size);
        b->node = pages(w->nodes);
        b->route = pages(w->nodes * sizeof *b->route);
        b->wake_ns = UINT64_MAX;
        w->killed_ns[i] = 1;
    }
}

void world_open(struct world *w, const struct sim_options *o, const char *name)
{
    *w = (struct world){.options = *o, .name = name, .beacons = o->beacons, .nodes = o->nodes};
    w->now_ns = SIM_S;
    w->random.state = sim_mix(o->seed + 1);
    w->link_random.state = sim_mix(o->seed + 2);
    w->ring.count = 1;
    w->ring.of[0].id = 7;
    memset(w->ring.of[0].key, 0x42, sizeof w->ring.of[0].key);
    uint32_t buffers = 1 << 15;
    if (w->beacons > 16)
        buffers = w->beacons * 4096;
    network_open(&w->net, buffers);
    w->net.loss = o->loss;
    w->net.dup = o->dup;
    w->net.late = 2;
    w->net.jitter_ns = 10 * SIM_MS;
    heap_open(&w->heap, (size_t)buffers + 2 * (size_t)o->nodes + 65536);
    beacons_open(w);
}

void world_close(struct world *w)
{
    for (unsigned i = 0; i < w->beacons; i++) {
        munmap(w->beacon[i].memory, w->memory_size);
        munmap(w->beacon[i].node, w->nodes);
        munmap(w->beacon[i].route, w->nodes * sizeof *w->beacon[i].route);
    }
    free(w->beacon);
    free(w->believed_dead);
    free(w->killed_ns);
    heap_close(&w->heap);
    network_close(&w->net);
}

/* --- what is said of a run --- */

/* The first reason counts: what follows from it is of no interest. */
void world_fail(struct world *w, const char *format, ...)
{
    va_list list;
    if (w->failed)
        return;
    w->failed = true;
    int len = snprintf(w->reason, sizeof w->reason,
                       "at %llu.%03llu s: ", (unsigned long long)(w->now_ns / SIM_S),
                       (unsigned long long)(w->now_ns % SIM_S / SIM_MS));
    va_start(list, format);
    vsnprintf(w->reason + len, sizeof w->reason - (size_t)len, format, list);
    va_end(list);
}

void world_figure(struct world *w, const char *format, ...)
{
    va_list list;
    size_t len = strlen(w->figures);
    va_start(list, format);
    vsnprintf(w->figures + len, sizeof w->figures - len, format, list);
    va_end(list);
}

/* --- events --- */

void world_put(struct world *w, uint64_t delay_ns, enum event_kind kind, unsigned to, uint32_t arg)
{
    heap_put(&w->heap, (struct event){.at_ns = w->now_ns + delay_ns,
                                      .kind = (uint16_t)kind,
                                      .to = (uint16_t)to,
                                      .arg = arg});
}

static void noted(struct world *w, const struct event *e)
{
    w->events++;
    w->hash = sim_mix(w->hash ^ e->at_ns);
    w->hash = sim_mix(w->hash ^ ((uint64_t)e->kind << 48 | (uint64_t)e->from << 32 |
                                 (uint64_t)e->to << 16 | e->len));
    if (w->options.trace)
        printf("%llu %s from=%u to=%u len=%u\n", (unsigned long long)e->at_ns, event_names[e->kind],
               e->from, e->to, e->len);
}

/* A beacon that stands still finds all of it when it goes on, in order. */
static bool held_back(struct world *w, struct event *e)
{
    struct sim_beacon *b = &w->beacon[e->to];
    if (e->kind == EVENT_CHURN || e->kind == EVENT_FAULT || !b->gossip || b->paused_ns <= w->now_ns)
        return false;
    if (e->kind == EVENT_TURN && e->at_ns == b->wake_ns)
        b->wake_ns = b->paused_ns;
    e->at_ns = b->paused_ns;
    heap_put(&w->heap, *e);
    return true;
}

static void repeat(struct world *w, enum event_kind kind, uint64_t mean_ns)
{
    if (mean_ns)
        world_put(w, 1 + sim_below(&w->random, 2 * mean_ns), kind, 0, 0);
}

static void happens(struct world *w, const struct event *e)
{
    switch ((enum event_kind)e->kind) {
    case EVENT_FRAME:
        if (beacon_runs(w, e->to))
            beacon_input(w, e);
        network_taken(w, e);
        break;
    case EVENT_TURN:
        beacon_turn(w, e->to);
        break;
    case EVENT_UP:
        node_up(w, e->to, e->arg);
        break;
    case EVENT_GONE:
        node_gone(w, e->to, e->arg);
        break;
    case EVENT_CHURN:
        if (w->churn_ns)
            nodes_churn(w);
        repeat(w, EVENT_CHURN, w->churn_ns);
        break;
    case EVENT_FAULT:
        if (w->fault_ns)
            fault_happens(w);
        repeat(w, EVENT_FAULT, w->fault_ns);
        break;
    case EVENT_START:
        beacon_start(w, e->to, e->arg);
        break;
    case EVENT_PAUSE:
        w->beacon[e->to].paused_ns = w->now_ns + e->arg * SIM_MS;
        break;
    case EVENT_KIND_COUNT:
        break;
    }
}

static void world_step(struct world *w, struct event *e)
{
    w->now_ns = e->at_ns;
    if (held_back(w, e))
        return;
    if (e->kind == EVENT_TURN && (!beacon_runs(w, e->to) || w->beacon[e->to].wake_ns != e->at_ns))
        return; /* planned anew meanwhile */
    noted(w, e);
    happens(w, e);
    if (w->checks) {
        check_beacon(w, e->to);
        if (w->now_ns - w->swept_ns >= SWEEP_S * SIM_S) {
            w->swept_ns = w->now_ns;
            check_sweep(w);
        }
    }
}

void world_run(struct world *w, uint64_t ns)
{
    uint64_t end_ns = w->now_ns + ns;
    size_t taken = mallinfo2().uordblks;
    struct event e;
    while (!w->failed && w->heap.count > 0 && w->heap.of[0].at_ns <= end_ns) {
        heap_take(&w->heap, &e);
        world_step(w, &e);
    }
    if (!w->failed)
        w->now_ns = end_ns;
    if (mallinfo2().uordblks != taken)
        world_fail(w, "memory was taken from the heap: %zu bytes", mallinfo2().uordblks - taken);
}

bool world_until(struct world *w, uint64_t ns, bool (*test)(struct world *w))
{
    uint64_t end_ns = w->now_ns + ns;
    while (!w->failed) {
        if (test(w))
            return true;
        if (w->now_ns >= end_ns)
            return false;
        world_run(w, ASK_MS * SIM_MS);
    }
    return false;
}
