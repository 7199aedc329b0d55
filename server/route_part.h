/* route_part - the inside of a part of the node table, for route.c (rows: finding and writing) and
 * route_room.c (ageing, eviction, how full each prefix is) only. */
#ifndef BEACON_SERVER_ROUTE_PART_H
#define BEACON_SERVER_ROUTE_PART_H

#include "server/route.h"

/* A hot row. All words are atomics so that other lanes may read while the owner writes:
 *
 *   word 0   sequence (32) | id (32)        odd sequence: the owner is writing this row
 *   word 1-2 address, 16 bytes
 *   word 3   port (16) | local (8) | class code (3) | flags (5) | seen (32)
 *
 * The owner makes the sequence odd, stores the rest with release, then the next even sequence with
 * release. A reader loads word 0, the rest with acquire, and word 0 again: had it seen any new
 * word, it would also see the odd sequence before it. No fence is needed, which TSan could not
 * follow. */
struct row {
    _Atomic uint64_t word[4];
};
static_assert(sizeof(struct row) == 32, "two rows to a cache line");

/* The cold row of the same index, written under the hot row's sequence. */
struct key_row {
    _Atomic uint64_t word[MSG_KEY_LEN / 8];
};

struct routes {
    struct siphash_key key;
    uint32_t nodes_max, remote_max, row_count, prefix_mask;
    struct row *row;
    struct key_row *key_row;
    uint32_t *prefix; /* count-min sketch, 2 rows of prefix_mask + 1 */
    struct journal *journal;
    bool *wake; /* set with each entry of the journal */

    /* The owner writes, anyone reads. */
    _Atomic uint32_t count, count_v4, count_stream, count_beacon;
    _Atomic uint32_t moves; /* odd while rows are being shifted: a miss in between is uncertain */

    /* The owner's alone. */
    uint32_t expire_hand, evict_hand;
};

static inline uint32_t row_next(const struct routes *r, uint32_t i)
{
    return i + 1 == r->row_count ? 0 : i + 1;
}

/* --- route.c --- */

/* Row `i` if it holds a node, of ours or not. */
bool row_at(const struct routes *r, uint32_t i, struct route *ret);
/* Owner only. Removes a node of ours, which is `route` in row `i`. */
void row_remove(struct routes *r, uint32_t i, const struct route *route);

/* --- route_room.c --- */

/* Cells in a row of the sketch for so many nodes: a power of two. */
uint32_t prefix_cells_for(uint32_t nodes);
/* Owner only. A node at `at` comes (+1) or goes (-1). */
void prefix_add(struct routes *r, const struct endpoint *at, int change);

#endif
