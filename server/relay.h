/* relay - 0x05: one lookup of the destination, header rewritten in place, sent on. The hot path.
 * The sender's claim is a second lookup, kept for a run of datagrams from one source.
 *
 * The payload never moves and is never looked at. Order per destination holds because one UDP flow
 * is always received by one shard, which sends in the order it decides. A frame of a session is
 * relayed by the same code: its sender is proven, its budget is the session's. What is for a
 * session goes into the lane's handoff.
 *
 * What is for a node of another beacon goes there as it came. What comes from a beacon ends here:
 * it goes to a node of ours or nowhere, so that no two beacons can send it in a circle. The other
 * beacon has judged the sender, and answers for it with a budget of its own (peer-rate). */
#ifndef BEACON_SERVER_RELAY_H
#define BEACON_SERVER_RELAY_H

#include "server/server.h"

enum verdict relay_input(struct lane *l, struct datagram *d, const struct moment *now,
                         struct outbox *out);

/* The rewrite alone: where and how `d` goes when its destination is `to`. A pure function of
 * (row, header). */
struct outgoing relay_rewrite(struct datagram *d, const struct route *to);

#endif
