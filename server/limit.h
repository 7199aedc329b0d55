/* limit - rate budgets for sources that we do not know: GCRA in a fixed sketch.
 *
 * A limiter is two rows of cells; a key's budget is the smaller of its two cells, so a collision
 * can only make a budget tighter, and only when both rows collide. Fixed memory whatever the number
 * of keys; nothing to sweep. Owned by one lane; not thread-safe. */
#ifndef BEACON_SERVER_LIMIT_H
#define BEACON_SERVER_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate {
    uint32_t per_s; /* 0: no limit */
    uint32_t burst; /* at least 1 */
};

struct limiter {
    uint64_t *cell; /* 2 rows of mask + 1: time in ns until which the key's budget is spent */
    uint32_t mask;
};

/* Bytes of memory for 2 x `cells` (a power of two). */
size_t limiter_size(uint32_t cells);
/* `memory`: limiter_size(cells) zeroed bytes, 8-aligned, owned by the caller. */
void limiter_init(struct limiter *l, void *memory, uint32_t cells);

/* True when one more is within `rate` for the key hashed to `hash`; takes it. */
bool limit_take(struct limiter *l, uint64_t hash, struct rate rate, uint64_t now_ns);

/* The same without taking, for budgets that are spent together: ask all, then take all. */
bool limit_allows(const struct limiter *l, uint64_t hash, struct rate rate, uint64_t now_ns);

#endif
