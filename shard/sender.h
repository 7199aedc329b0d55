/* sender - an outbox out of the service's sockets: grouped into messages, sent, counted.
 *
 * For the shards, which have their own, and for threads that are none (struct shards_sender in
 * shard.h). One thread at a time. */
#ifndef BEACON_SHARD_SENDER_H
#define BEACON_SHARD_SENDER_H

#include "shard/group.h"
#include "shard/io.h"

enum {
    SEGMENT_MAX_BYTES = 1472, /* GSO segments start at what fits Ethernet, the kernel lowers it */
    SEGMENT_RETRY_S = 60, /* ... and so often it is tried again: a route may have been to blame */
};

/* Sends what is in the outbox and empties it. */
void outbox_send(struct io_sender *sender, struct group *group, const struct server *server,
                 struct outbox *out);

/* What shards_sender_new makes, of these sockets. NULL: no memory. */
struct shards_sender *sender_new(const struct io_sockets *sockets, struct lane *lane);

#endif
