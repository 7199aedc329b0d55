#include "server/stats.h"

const struct verdict_row verdict_rows[VERDICT_COUNT] = {
#define X(name, outcome, type, reason, help) [VERDICT_##name] = {outcome, type, reason, help},
    VERDICTS(X)
#undef X
};

const uint64_t batch_bounds[STATS_BUCKETS] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};

/* 1 microsecond to 300 milliseconds: from one cached answer to a loop that was not scheduled. */
const uint64_t seconds_bounds[STATS_BUCKETS] = {
    1000,    3000,    10000,    30000,    100000,    300000,
    1000000, 3000000, 10000000, 30000000, 100000000, 300000000,
};

/* A bound belongs to its own bucket: Prometheus' "le" means less or equal. */
void histogram_add(struct histogram *h, const uint64_t bounds[static STATS_BUCKETS], uint64_t value)
{
    unsigned i = 0;
    while (i < STATS_BUCKETS && value > bounds[i])
        i++;
    count_add(&h->bucket[i], 1);
    count_add(&h->sum, value);
}
