/* sockets - the reuseport group of the service address: a narrow and a wide socket a shard.
 *
 * The narrow ones come first, so that steering's results 0 .. shards-1 name them; the wide ones
 * behind them never receive. Opened and closed as a whole. Main thread only. */
#ifndef BEACON_SHARD_SOCKETS_H
#define BEACON_SHARD_SOCKETS_H

#include "server/config.h"
#include "server/route.h"
#include "shard/io.h"

struct socket_set {
    unsigned count;
    struct io_sockets of[CONFIG_SHARDS_MAX];
    struct endpoint bound;
    bool any_address; /* bound to the wildcard: packet info tells where a datagram was sent to */
    bool dual_stack;
    int steer_error;
    uint64_t receive_buffer, send_buffer; /* granted, bytes */
};

/* 0 or -errno; `failed` names the step. */
int sockets_open(struct socket_set *ret, const struct config *c, unsigned shards,
                 struct owner_key key, const char **failed);
void sockets_close(struct socket_set *s);

/* Datagrams that the kernel dropped because the socket's buffer was full. */
uint64_t socket_drops(int fd);

#endif
