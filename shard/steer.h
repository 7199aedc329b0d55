/* steer - the reuseport group's classic BPF program: which socket gets a datagram.
 *
 * Discover, DiscoverEx and PunchRequest go to the owner of the sender's id (route_owner, computed
 * by the program itself), everything else by a hash of the source address and port. Every result is
 * a receiving socket's index, so the sockets behind them in the group (send-only) get nothing. */
#ifndef BEACON_SHARD_STEER_H
#define BEACON_SHARD_STEER_H

#include "server/route.h"

/* Attaches to the group of `fd`, whose first `shards` members receive. 0 or -errno. */
int steer_attach(int fd, struct owner_key key, unsigned shards);

#endif
