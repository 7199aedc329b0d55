#include <assert.h>
#include <stdlib.h>
#include "tests/sim/sim.h"

/* --- random numbers --- */

uint64_t sim_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t sim_random(struct sim_random *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return sim_mix(r->state);
}

uint64_t sim_below(struct sim_random *r, uint64_t limit)
{
    assert(limit > 0);
    return sim_random(r) % limit;
}

bool sim_percent(struct sim_random *r, unsigned percent)
{
    return sim_below(r, 100) < percent;
}

/* --- percentiles --- */

static int by_size(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

uint64_t samples_percentile(struct samples *s, unsigned percent)
{
    if (s->count == 0)
        return 0;
    qsort(s->of, s->count, sizeof s->of[0], by_size);
    unsigned at = (s->count * percent + 99) / 100;
    return s->of[at > 0 ? at - 1 : 0];
}

/* --- events in order of time --- */

void heap_open(struct heap *h, size_t room)
{
    *h = (struct heap){.of = calloc(room, sizeof *h->of), .room = room};
    assert(h->of);
}

void heap_close(struct heap *h)
{
    free(h->of);
}

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void heap_put(struct heap *h, struct event e)
{
    assert(h->count < h->room);
    e.order = h->order++;
    size_t at = h->count++;
    while (at > 0 && sooner(&e, &h->of[(at - 1) / 2])) {
        h->of[at] = h->of[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->of[at] = e;
}

bool heap_take(struct heap *h, struct event *ret)
{
    if (h->count == 0)
        return false;
    *ret = h->of[0];
    struct event last = h->of[--h->count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < h->count) {
        if (child + 1 < h->count && sooner(&h->of[child + 1], &h->of[child]))
            child++;
        if (!sooner(&h->of[child], &last))
            break;
        h->of[at] = h->of[child];
        at = child;
    }
    h->of[at] = last;
    return true;
}
