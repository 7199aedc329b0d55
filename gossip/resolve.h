/* resolve - names to endpoints, by the host's resolver: blocks, for seconds when name servers are
 * silent. Any thread; no state. */
#ifndef BEACON_GOSSIP_RESOLVE_H
#define BEACON_GOSSIP_RESOLVE_H

#include "proto/endpoint.h"

struct addrinfo;

enum { RESOLVE_MAX = 64, RESOLVE_ERROR_MAX = 128 };

struct resolved {
    bool good;
    bool is_service; /* found by SRV records */
    unsigned count;
    struct endpoint at[RESOLVE_MAX];
    char error[RESOLVE_ERROR_MAX]; /* "" when good */
};

/* For connecting: each address once. 0 or an EAI_ error; the list is the caller's to free. */
int resolve_list(const char *host, uint16_t port, struct addrinfo **ret);
/* Addresses of a host. */
void resolve_host(const char *host, uint16_t port, struct resolved *ret);
/* What the SRV records _beacon._udp of the name point at; if there are none, the name's own
 * addresses, with `port`. When it was a service the last time (`was_service`) a failure to ask for
 * them does not make a host of it. Good only when all of it was found: what is still open at
 * `until_ns` of the monotonic clock is a failure. */
void resolve_service(const char *name, uint16_t port, bool was_service, uint64_t until_ns,
                     struct resolved *ret);

#endif
