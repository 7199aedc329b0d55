/* resources - what the host gives: descriptors, cores, memory. Called once, at the start. */
#ifndef BEACON_CMD_RESOURCES_H
#define BEACON_CMD_RESOURCES_H

#include <stddef.h>
#include "server/config.h"

/* Descriptors for `shards` shards and `connections` connections. -EMFILE, having logged, when they
 * do not even suffice for the first; fewer connections only warn. */
int limits_raise(unsigned shards, unsigned connections);

/* As configured, or one a core. */
unsigned shards_wanted(const struct config *c);

/* `size` bytes, touched and zero: no page fault on a packet's way. NULL, having logged. */
void *memory_take(size_t size, uint32_t max_nodes);

#endif
