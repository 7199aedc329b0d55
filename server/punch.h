/* punch - PunchRequest: two nodes are told each other's endpoints at the same moment.
 *
 * Order: register the requester, find the target, check the grant, then spend budgets (source,
 * pair, each address named, shard total), then send. Nothing is spent on requests that could not
 * succeed, except the signature budget. Silence on every refusal.
 *
 * A node behind a stream has no endpoint to name: it is told of the other side, and the other side
 * is told nothing. Two of them get nothing. A session's request registers nobody. */
#ifndef BEACON_SERVER_PUNCH_H
#define BEACON_SERVER_PUNCH_H

#include "server/server.h"

enum verdict punch_input(struct lane *l, struct datagram *d, const struct moment *now,
                         struct outbox *out);

/* Grants that were used, until they expire: a used grant works again only from the same IP address
 * (a lost command is asked for again), so who overhears one cannot use it. Full: the one that
 * expires first is forgotten. */
struct grant_memory;
size_t grant_memory_size(void);
struct grant_memory *grant_memory_init(void *memory);

#endif
