/* group - outgoing datagrams -> send messages: neighbours that go to the same endpoint from the
 * same service address and have equal size become one UDP_SEGMENT message.
 *
 * Pure but for the kernel's structs. Only neighbours are joined, so no destination is reordered. */
#ifndef BEACON_SHARD_GROUP_H
#define BEACON_SHARD_GROUP_H

#include "proto/sockaddr.h"
#include "server/server.h"
#include "shard/io.h"

enum {
    GROUP_SEGMENTS_MAX = 64, /* every kernel with UDP_SEGMENT takes so many */
    GROUP_BYTES_MAX = 65000,
};

struct group {
    struct io_messages messages;
    union name name[IO_SEND_MAX];
    struct iovec piece[OUTBOX_MAX];
    _Alignas(8) uint8_t control[IO_SEND_MAX][64]; /* segment size and packet info */
};

/* Turns the outbox into g->messages, which point into `g` and into the outbox's datagrams. Larger
 * datagrams than `segment_max` are not joined (they would not fit the device). */
void group_build(struct group *g, const struct outbox *out, const struct service *service,
                 int family, uint32_t segment_max);

#endif
