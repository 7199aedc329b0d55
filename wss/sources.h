/* sources - how many connections each source holds, exactly, in fixed memory.
 *
 * Keys are an IPv4 address, an IPv6 /64 and its /48. Open addressing with twice as many places as
 * `connections` connections can need (more are refused); a key with count 0 is gone. The edge's
 * thread only. */
#ifndef BEACON_WSS_SOURCES_H
#define BEACON_WSS_SOURCES_H

#include <stdbool.h>
#include "proto/endpoint.h"
#include "proto/siphash.h"

struct sources;
struct sources *sources_new(unsigned connections, struct siphash_key key); /* NULL: no memory */
void sources_free(struct sources *s);

/* Takes one connection for `from` if its prefixes have room (`per_ipv6_48` too). */
bool sources_take(struct sources *s, const struct endpoint *from, unsigned per_ipv4,
                  unsigned per_ipv6_64, unsigned per_ipv6_48);
/* Gives it back. Must have been taken. */
void sources_give(struct sources *s, const struct endpoint *from);
unsigned sources_count(const struct sources *s,
                       const struct endpoint *from); /* of its /32 or /64 */

#endif
