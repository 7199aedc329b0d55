/* nursery - ids seen once, while the node table is filling: a new id must come twice.
 *
 * Bloom filters of what came in this second and in the last two periods. Fixed memory: about 8.5
 * bytes a node, 24 MiB at most. Filled up by a flood they answer "seen" more often, so the nursery
 * then lets more in; it never keeps an honest node out for good. Owned by one lane. */
#ifndef BEACON_SERVER_NURSERY_H
#define BEACON_SERVER_NURSERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NURSERY_PERIOD_S = 90 }; /* an id is remembered for one to two of these */

struct nursery;

size_t nursery_size(uint32_t nodes);
/* `memory`: nursery_size(nodes) zeroed bytes, 64-aligned. */
struct nursery *nursery_init(void *memory, uint32_t nodes);

/* True when the id (and source) hashed to `hash` came before, and not in this same second. Notes it
 * otherwise. */
bool nursery_admits(struct nursery *n, uint64_t hash, uint32_t now_s);

/* The id was admitted and found no room: not again in this second, so that asking for an eviction
 * costs the asker time too. */
void nursery_defer(struct nursery *n, uint64_t hash, uint32_t now_s);

#endif
