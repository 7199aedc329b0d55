#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim.h"

void network_open(struct network *n, uint32_t buffers)
{
    *n = (struct network){.buffers = buffers, .free_count = buffers};
    n->cut = calloc(SIM_BEACONS_MAX, SIM_BEACONS_MAX);
    n->buffer = calloc(buffers, sizeof *n->buffer);
    n->free = calloc(buffers, sizeof *n->free);
    assert(n->cut && n->buffer && n->free);
    for (uint32_t i = 0; i < buffers; i++)
        n->free[i] = buffers - 1 - i;
}

void network_close(struct network *n)
{
    free(n->cut);
    free(n->buffer);
    free(n->free);
}

/* --- who does not reach whom --- */

void network_cut(struct world *w, unsigned from, unsigned to, bool cut)
{
    w->net.cut[from * SIM_BEACONS_MAX + to] = cut;
}

void network_heal(struct world *w)
{
    memset(w->net.cut, 0, (size_t)SIM_BEACONS_MAX * SIM_BEACONS_MAX);
}

static void cut_both(struct world *w, unsigned a, unsigned b)
{
    network_cut(w, a, b, true);
    network_cut(w, b, a, true);
}

void network_halves(struct world *w)
{
    uint64_t salt = sim_random(&w->random);
    network_heal(w);
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < a; b++)
            if ((sim_mix(salt + a) ^ sim_mix(salt + b)) & 1)
                cut_both(w, a, b);
}

void network_ring(struct world *w)
{
    network_heal(w);
    for (unsigned a = 0; a < w->beacons; a++)
        for (unsigned b = 0; b < a; b++)
            if ((a + 1) % w->beacons != b && (b + 1) % w->beacons != a)
                cut_both(w, a, b);
}

void network_bridge(struct world *w)
{
    network_heal(w);
    for (unsigned a = 1; a < w->beacons; a++)
        for (unsigned b = 1; b < a; b++)
            if ((a ^ b) & 1)
                cut_both(w, a, b);
}

/* --- frames under way --- */

/* One way between two hosts takes 1 to 80 ms, always the same for two. */
static uint64_t distance_ns(unsigned a, unsigned b)
{
    unsigned low = a < b ? a : b, high = a < b ? b : a;
    return SIM_MS + sim_mix(low * UINT64_C(1000003) + high) % (79 * SIM_MS);
}

static void carry(struct world *w, unsigned from, unsigned to, const uint8_t *bytes, size_t len)
{
    struct network *n = &w->net;
    uint64_t delay_ns = distance_ns(from, to) + sim_below(&w->link_random, n->jitter_ns + 1);
    if (sim_percent(&w->link_random, n->late))
        delay_ns += sim_below(&w->link_random, 300 * SIM_MS);
    if (n->free_count == 0) {
        world_fail(w, "more frames under way than there are buffers");
        return;
    }
    uint32_t buffer = n->free[--n->free_count];
    memcpy(n->buffer[buffer], bytes, len);
    heap_put(&w->heap, (struct event){.at_ns = w->now_ns + delay_ns,
                                      .kind = EVENT_FRAME,
                                      .from = (uint16_t)from,
                                      .to = (uint16_t)to,
                                      .len = (uint16_t)len,
                                      .arg = buffer});
}

static void remember(struct world *w, unsigned from, unsigned to, const uint8_t *bytes, size_t len)
{
    struct network *n = &w->net;
    unsigned at = n->old_count++ % SIM_OLD_FRAMES;
    n->old[at].from = (uint16_t)from;
    n->old[at].to = (uint16_t)to;
    n->old[at].len = (uint16_t)len;
    memcpy(n->old[at].bytes, bytes, len);
}

void network_send(struct world *w, unsigned from, unsigned to, const uint8_t *bytes, size_t len)
{
    struct network *n = &w->net;
    if (sim_below(&w->link_random, 200) == 0)
        remember(w, from, to, bytes, len);
    if (n->cut[from * SIM_BEACONS_MAX + to] || sim_percent(&w->link_random, n->loss))
        return;
    carry(w, from, to, bytes, len);
    if (sim_percent(&w->link_random, n->dup))
        carry(w, from, to, bytes, len);
}

void network_replay(struct world *w)
{
    struct network *n = &w->net;
    unsigned count = n->old_count < SIM_OLD_FRAMES ? n->old_count : SIM_OLD_FRAMES;
    for (unsigned i = 0; i < count; i++)
        carry(w, n->old[i].from, n->old[i].to, n->old[i].bytes, n->old[i].len);
}

void network_taken(struct world *w, const struct event *e)
{
    struct network *n = &w->net;
    assert(e->kind == EVENT_FRAME && n->free_count < n->buffers);
    n->free[n->free_count++] = e->arg;
}
