/* totals - the counters of all lanes, added up: the shards', the edge's and the mesh's.
 *
 * Reads the lanes without stopping them, so one reading is not one moment. Any thread. */
#ifndef BEACON_WSS_TOTALS_H
#define BEACON_WSS_TOTALS_H

#include "server/server.h"

struct totals_histogram {
    uint64_t bucket[STATS_BUCKETS + 1], sum;
};

struct totals {
    uint64_t verdict[VERDICT_COUNT];
#define X(field, metric, help) uint64_t field;
    LANE_COUNTERS(X)
#undef X
    uint64_t nodes_v4, nodes_v6, nodes_stream, capacity;
    uint64_t nodes_beacon; /* that other beacons have */
    struct totals_histogram batch_packets, batch_seconds;
};

void totals_read(const struct server *s, struct totals *ret);

/* Relays that were sent on, whoever sent them. */
static inline uint64_t totals_relayed(const struct totals *t)
{
    return t->verdict[VERDICT_RELAY_FORWARDED] + t->verdict[VERDICT_RELAY_FORWARDED_UNPROVEN] +
           t->verdict[VERDICT_RELAY_TO_BEACON] + t->verdict[VERDICT_RELAY_FROM_BEACON];
}

#endif
