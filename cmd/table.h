/* table - the node table as a memory file, for the beacon that comes after this one.
 *
 * Written whole, then sealed: who reads it knows that it does not change under its eyes. A file is
 * taken whole or not at all: a checksum covers all of it, and each row is looked at. What other
 * beacons have is left out: gossip brings it anew.
 *
 *   "BEACNTAB" | version (4) | row length (4) | rows (8) | written at (8) | checksum (32)
 *   row: id (4) | age in seconds (4) | address (16) | port (2) | our address (16) | class | flags |
 *        key (32)
 *
 * Ages count from `written at` in CLOCK_BOOTTIME: a memory file does not outlive the boot. */
#ifndef BEACON_CMD_TABLE_H
#define BEACON_CMD_TABLE_H

#include "server/server.h"

/* The nodes heard of since second `since_s` (0: all). Any thread, while the shards run: not a
 * snapshot. The descriptor or -errno. */
int table_write(const struct server *s, uint32_t since_s, uint64_t now_ns);

/* `key` is NULL where the row has none. route->local is an index in this server's own list. */
typedef void table_row(void *arg, const struct route *route, const uint8_t *key);

/* Calls `each` for all rows; registers our own addresses in `service`. 0 or -errno: -EBADMSG when
 * it is no table, not a whole one, or not sealed; then `each` was not called. Leaves `fd` open. */
int table_read(int fd, struct service *service, uint64_t now_ns, table_row *each, void *arg);

#endif
