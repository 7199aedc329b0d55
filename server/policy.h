/* policy - may we send to this address at all, and how often.
 *
 * Pure decisions over a lane's budgets. An address that was never proven to receive gets few and
 * small answers and commands, whoever causes them. (Relays have their sender's budget only.) */
#ifndef BEACON_SERVER_POLICY_H
#define BEACON_SERVER_POLICY_H

#include "server/server.h"

/* Can come from nowhere honest: port 0, unspecified, multicast, reserved, or our own service
 * address and port (a loop). */
bool source_is_bad(const struct server *s, const struct datagram *d);

/* Does another beacon send from there? */
bool source_is_beacon(const struct lane *l, const struct datagram *d);

/* May a node be stored at this source? Special-purpose addresses only when allow-private is yes, or
 * auto and the datagram came to a service address that is itself not global (a private network, a
 * lab). Link-local never: it means nothing without its interface. Another beacon neither: relays
 * that are sent to a node there would come back as its own. */
bool source_may_register(const struct lane *l, const struct datagram *d);

enum reply_budget { REPLY_ALLOWED, REPLY_PREFIX_SPENT, REPLY_TOTAL_SPENT };

/* Takes one answer to an unproven source from the budgets of its prefixes (IPv4 /32, /24, /20, /18
 * in the ratio 1, 32, 256, 768; IPv6 /128, /64, /56, /48, /32 in the ratio 1, 2, 3, 4, 64) and from
 * the shard's total. Loopback and our own address are free: nothing outside this host can forge
 * them, and our own health probe comes from there. */
enum reply_budget reply_take(struct lane *l, const struct endpoint *to, const struct moment *now);

/* `times` as much. */
struct rate rate_times(struct rate rate, uint32_t times);

bool whitelisted(const struct whitelist *w, const struct endpoint *from);

/* What a budget is about: keeps keys apart that are made of the same address. */
enum limit_kind { LIMIT_SENDS, LIMIT_IS_NAMED };

/* Hashes under the server's key, for limiters: of an endpoint, of an address prefix, of the prefix
 * that counts as one source (IPv4 address, IPv6 /64), of two ids. */
uint64_t limit_hash_endpoint(const struct lane *l, const struct endpoint *e);
uint64_t limit_hash_prefix(const struct lane *l, const struct endpoint *e, unsigned bits,
                           enum limit_kind kind);
uint64_t limit_hash_source(const struct lane *l, const struct endpoint *from, enum limit_kind kind);
uint64_t limit_hash_pair(const struct lane *l, uint32_t a, uint32_t b);

/* Keys of the shard-wide budgets in lane.total: each a cell of its own in both rows. */
#define TOTAL_REPLY 0x0000000000000000u
#define TOTAL_PUNCH 0x0000000100000001u

#endif
