/* sockets - the reuseport group of the service address: a narrow and a wide socket a shard.
 *
 * The narrow ones come first, so that steering's results 0 .. shards-1 name them; then, where there
 * may be other beacons, the mesh's, which result `shards` names; the wide ones behind them never
 * receive. Opened, adopted and closed as a whole. Main thread only. */
#ifndef BEACON_SHARD_SOCKETS_H
#define BEACON_SHARD_SOCKETS_H

#include "server/config.h"
#include "server/route.h"
#include "shard/io.h"

struct socket_set {
    unsigned count;
    struct io_sockets of[CONFIG_SHARDS_MAX];
    int mesh; /* receives gossip, one datagram at a time; -1: none, and gossip comes to the narrow
               */
    struct endpoint bound;
    bool any_address; /* bound to the wildcard: packet info tells where a datagram was sent to */
    bool dual_stack;
    int steer_error;
    uint64_t receive_buffer, send_buffer; /* granted, bytes */
};

/* The descriptors of a whole set, from another process that has it or had it: in the order of the
 * group, narrow, mesh, wide. */
struct inherited {
    const int *fds;
    unsigned count;
};

/* Opens a set, or adopts the one that `inherited` (may be NULL) names. 0 or -errno; `failed` names
 * the step.
 *
 * A set is adopted only when it is what this configuration would open: number, address, family,
 * type, order. Otherwise -ESTALE, and `failed` says what does not fit: nothing is opened instead,
 * since the port is not free as long as anybody has the old set. On success the descriptors are the
 * set's, on failure they stay the caller's. An adopted set is steered as before until
 * sockets_steer: its former owner may still be reading. */
int sockets_open(struct socket_set *ret, const struct config *c, unsigned shards,
                 struct owner_key key, const struct inherited *inherited, const char **failed);
/* Steers with this key from now on. 0 or -errno. Nothing to do for a set without steering. */
int sockets_steer(const struct socket_set *s, struct owner_key key);
/* The ordered list of a set: as many as were written, 0 when they do not fit or the set is not
 * steered: without, indices mean nothing, and another process could not know that. */
unsigned sockets_list(const struct socket_set *s, int *fds, unsigned max);
void sockets_close(struct socket_set *s);

/* Datagrams that the kernel dropped because the socket's buffer was full. */
uint64_t socket_drops(int fd);

#endif
