/* watch - what a person should know, read once a second from the counters.
 *
 * The data path only counts. This turns counters that moved into log lines: kernel drops, full
 * mailboxes, failed sends and receives. Main thread only. */
#ifndef BEACON_CMD_WATCH_H
#define BEACON_CMD_WATCH_H

#include "server/server.h"

struct watch {
    uint64_t seen[CONFIG_SHARDS_MAX + 2][8]; /* the last lanes are the edge's and the mesh's */
};

void watch_tick(struct watch *w, const struct server *s);

/* False when a shard's loop has not turned for `stuck_s`. */
bool watch_alive(const struct server *s, uint64_t now_ns, unsigned stuck_s);

#endif
