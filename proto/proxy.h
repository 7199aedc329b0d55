/* proxy - the PROXY protocol header (haproxy.org, version 1 text and version 2 binary): what a
 * balancer in front of us says about who the client really is.
 *
 * Pure, borrows the bytes, reads nothing behind the header. Only for connections from addresses
 * that the operator trusts: a stranger could claim any address. */
#ifndef BEACON_PROTO_PROXY_H
#define BEACON_PROTO_PROXY_H

#include "proto/endpoint.h"
#include "proto/wire.h"

enum {
    PROXY_V1_MAX = 107, /* the longest line, its CRLF included */
    PROXY_MAX = 1024,   /* a version 2 header with its TLVs; longer ones are refused */
};

enum proxy_verdict {
    PROXY_MORE,  /* not complete yet; never with PROXY_MAX bytes */
    PROXY_FROM,  /* ret->from is the client */
    PROXY_LOCAL, /* "LOCAL", "UNKNOWN" or another family: the connection is the proxy's own */
    PROXY_BAD,   /* not a PROXY header, and more bytes will not make it one */
};

struct proxy_header {
    struct endpoint from;
    size_t len; /* bytes of the header, for PROXY_FROM and PROXY_LOCAL */
};

/* *ret is filled for PROXY_FROM and PROXY_LOCAL. Version 2: TCP over IPv4 and IPv6; TLVs are
 * skipped, their lengths checked. IPv4-mapped addresses are IPv4. */
enum proxy_verdict proxy_read(const uint8_t *bytes, size_t len, struct proxy_header *ret);

#endif
