#include "wss/totals.h"

static void histogram_sum(struct totals_histogram *t, const struct histogram *h)
{
    for (unsigned i = 0; i <= STATS_BUCKETS; i++)
        t->bucket[i] += count_read(&h->bucket[i]);
    t->sum += count_read(&h->sum);
}

static void lane_add(struct totals *t, const struct lane *l)
{
    const struct lane_stats *s = &l->stats;
    for (unsigned i = 0; i < VERDICT_COUNT; i++)
        t->verdict[i] += count_read(&s->verdict[i]);
#define X(field, metric, help) t->field += count_read(&s->field);
    LANE_COUNTERS(X)
#undef X
    histogram_sum(&t->batch_packets, &s->batch_packets);
    histogram_sum(&t->batch_seconds, &s->batch_seconds);
}

/* The lanes of the edge and the mesh own no node: they have counters only. */
void totals_read(const struct server *s, struct totals *ret)
{
    *ret = (struct totals){.nodes_v4 = 0};
    for (unsigned i = 0; i < s->lane_count; i++) {
        const struct lane *l = s->lane[i];
        lane_add(ret, l);
        ret->nodes_v4 += count_read(&l->stats.nodes_v4);
        ret->nodes_v6 += count_read(&l->stats.nodes_v6);
        ret->nodes_stream += count_read(&l->stats.nodes_stream);
        ret->nodes_beacon += count_read(&l->stats.nodes_beacon);
        ret->capacity += route_capacity(l->routes); /* fixed at start: safe from any thread */
    }
    for (unsigned i = s->lane_count; i < server_lanes(s); i++)
        lane_add(ret, server_lane(s, i));
}
