/* probes - where our own services are asked, as a stranger would. */
#ifndef BEACON_CMD_PROBES_H
#define BEACON_CMD_PROBES_H

#include "shard/shard.h"
#include "wss/admin.h"

/* Where a probe of our own reaches the UDP port in each family. */
void probes_set(struct admin *a, const struct shards_report *report);

#endif
