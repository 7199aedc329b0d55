/* policy - may we send to this address at all, and how often.
 *
 * Pure decisions over a lane's budgets. An address that was never proven to receive gets few and
 * small datagrams, wherever they are caused from. */
#ifndef BEACON_SERVER_POLICY_H
#define BEACON_SERVER_POLICY_H

#include "server/server.h"

/* Can come from nowhere honest: port 0, unspecified, multicast, reserved, or our own service
 * address and port (a loop). */
bool source_is_bad(const struct server *s, const struct datagram *d);

/* May a node be stored at this source? Special-purpose addresses only when allow-private is yes, or
 * auto and the datagram came to a service address that is itself not global (a private network, a
 * lab). Link-local never: it means nothing without its interface. */
bool source_may_register(const struct lane *l, const struct datagram *d);

/* Takes one answer to an unproven source from the budgets of its prefixes (IPv4 /32, /24, /20, /18
 * in the ratio 1, 32, 256, 768; IPv6 /128, /64, /56, /48, /32 in the ratio 1, 2, 3, 4, 64) and from
 * the shard's total. Loopback is free: nothing outside this host can forge it. */
bool reply_take(struct lane *l, const struct endpoint *to, const struct moment *now);

/* Takes one from the budget that `limiter` keeps for the source address (IPv6: its /64). */
bool source_take(struct lane *l, struct limiter *limiter, const struct endpoint *from,
                 struct rate rate, const struct moment *now);

bool whitelisted(const struct whitelist *w, const struct endpoint *from);

/* Hash of an endpoint, of its address prefix, of two ids, under the server's key; `kind` keeps
 * budgets of different meaning apart in one limiter. */
uint64_t limit_hash_endpoint(const struct lane *l, const struct endpoint *e);
uint64_t limit_hash_prefix(const struct lane *l, const struct endpoint *e, unsigned bits);
uint64_t limit_hash_pair(const struct lane *l, uint32_t a, uint32_t b);

#endif
