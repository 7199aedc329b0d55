/* steer - the reuseport group's classic BPF program: which socket gets a datagram.
 *
 * Discover, DiscoverEx and PunchRequest go to the owner of the sender's id (route_owner, computed
 * by the program itself), gossip of other beacons to the mesh's socket where there is one,
 * everything else by a hash of the source address and port. Every result is a receiving socket's
 * index, so the sockets behind them in the group (send-only) get nothing. */
#ifndef BEACON_SHARD_STEER_H
#define BEACON_SHARD_STEER_H

#include "server/route.h"

/* Attaches to the group of `fd`, whose first `shards` members receive and, with `mesh`, the one
 * behind them: it gets what begins with 0x20 or 0x07. Replaces the group's program, if it has one.
 * 0 or -errno. */
int steer_attach(int fd, struct owner_key key, unsigned shards, bool mesh);

#endif
