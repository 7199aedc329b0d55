#include <assert.h>
#include "server/limit.h"

size_t limiter_size(uint32_t cells)
{
    return 2 * (size_t)cells * sizeof(uint64_t);
}

void limiter_init(struct limiter *l, void *memory, uint32_t cells)
{
    assert(cells > 0 && (cells & (cells - 1)) == 0);
    *l = (struct limiter){.cell = memory, .mask = cells - 1};
}

/* GCRA (ITU-T I.371): a cell holds the time at which the key's budget would be whole again. One
 * more is within the rate while that time is less than a burst away. */
static bool conforms(uint64_t whole_ns, struct rate rate, uint64_t now_ns, uint64_t *ret_whole_ns)
{
    uint64_t interval_ns = 1000000000u / rate.per_s;
    uint64_t start_ns = whole_ns > now_ns ? whole_ns : now_ns;
    if (start_ns - now_ns > interval_ns * (rate.burst - 1))
        return false;
    *ret_whole_ns = start_ns + interval_ns;
    return true;
}

static uint64_t *cell_at(const struct limiter *l, uint64_t hash, unsigned row)
{
    uint32_t column = (uint32_t)(row ? hash >> 32 : hash) & l->mask;
    return &l->cell[row * ((size_t)l->mask + 1) + column];
}

bool limit_allows(const struct limiter *l, uint64_t hash, struct rate rate, uint64_t now_ns)
{
    if (rate.per_s == 0)
        return true;
    uint64_t a = *cell_at(l, hash, 0), b = *cell_at(l, hash, 1), whole_ns;
    return conforms(a < b ? a : b, rate, now_ns, &whole_ns);
}

bool limit_take(struct limiter *l, uint64_t hash, struct rate rate, uint64_t now_ns)
{
    if (rate.per_s == 0)
        return true;
    uint64_t *a = cell_at(l, hash, 0), *b = cell_at(l, hash, 1), whole_ns;
    if (!conforms(*a < *b ? *a : *b, rate, now_ns, &whole_ns))
        return false;
    if (*a < whole_ns) /* a cell that is already fuller belongs to another key as well */
        *a = whole_ns;
    if (*b < whole_ns)
        *b = whole_ns;
    return true;
}
