/* sockaddr - an endpoint as the kernel's calls want it, and back. Pure: only the structs' layout.
 *
 * On an AF_INET6 socket IPv4 stays mapped; on an AF_INET socket the last four bytes are the
 * address, which is also right for the wildcard. */
#ifndef BEACON_PROTO_SOCKADDR_H
#define BEACON_PROTO_SOCKADDR_H

#include <netinet/in.h>
#include "proto/endpoint.h"

union name {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Writes the name of `e` for a socket of `family`; `scope` is the interface of a link-local
 * address, else 0. Returns its length. */
socklen_t name_of_endpoint(union name *ret, const struct endpoint *e, int family, uint32_t scope);

/* What the kernel wrote; `ret_scope` may be NULL. */
struct endpoint endpoint_of_name(const union name *name, uint32_t *ret_scope);

#endif
