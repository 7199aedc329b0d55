/* endpoint - an address and port as seen on the wire, and what may be done with it.
 *
 * Holds: IPv4 is stored IPv4-mapped (::ffff:a.b.c.d), so one memcmp compares any two.
 * Pure; every function may be called from any thread. */
#ifndef BEACON_PROTO_ENDPOINT_H
#define BEACON_PROTO_ENDPOINT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct endpoint {
    uint8_t ip[16]; /* network order */
    uint16_t port;  /* host order */
};
static_assert(sizeof(struct endpoint) == 18, "hashed and compared as bytes: no padding");

/* "[" 45 characters "]:65535" and the terminating zero, rounded up. */
enum { ENDPOINT_TEXT_MAX = 64 };

/* What an address means to a stranger on the Internet (IANA special-purpose registries). Transition
 * forms that carry an IPv4 address (::ffff/96, ::/96, 64:ff9b::/96, 64:ff9b:1::/48, 2002::/16,
 * 2001::/32) have the worse of both scopes. */
enum ip_scope {
    SCOPE_GLOBAL,   /* reachable from anywhere */
    SCOPE_PRIVATE,  /* RFC 1918, CGNAT, ULA, benchmark, documentation and other special blocks */
    SCOPE_LINK,     /* 169.254/16, fe80::/10: means nothing without an interface */
    SCOPE_LOOPBACK, /* 127/8, ::1 */
    SCOPE_NEVER,    /* unspecified, multicast, broadcast, reserved: no node can live there */
};

static inline bool endpoint_is_v4(const struct endpoint *e)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(e->ip, mapped, sizeof mapped) == 0;
}

/* The wildcard of either family. */
static inline bool endpoint_is_any(const struct endpoint *e)
{
    static const uint8_t zero[16];
    return memcmp(e->ip, zero, 16) == 0 || (endpoint_is_v4(e) && memcmp(e->ip + 12, zero, 4) == 0);
}

/* Bits of the prefix that counts as one host (an IPv6 host owns its /64), and as one network. */
static inline unsigned endpoint_host_bits(const struct endpoint *e)
{
    return endpoint_is_v4(e) ? 32 : 64;
}

static inline unsigned endpoint_network_bits(const struct endpoint *e)
{
    return endpoint_is_v4(e) ? 24 : 48;
}

static inline bool endpoint_same_ip(const struct endpoint *a, const struct endpoint *b)
{
    return memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

static inline bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* 4 or 16 address bytes in network order; any other length is our own mistake. */
struct endpoint endpoint_of(const uint8_t *ip, size_t ip_len, uint16_t port);

enum ip_scope ip_scope(const uint8_t ip[static 16]);

/* The first `bits` bits of the address, the rest zero. For IPv4 `bits` counts within the 32. */
struct endpoint endpoint_prefix(const struct endpoint *e, unsigned bits);

/* Whether both are of one family and agree in the first `bits` bits, counted as above. */
bool endpoint_same_prefix(const struct endpoint *a, const struct endpoint *b, unsigned bits);

/* "203.0.113.7:40000" or "[2001:db8::1]:40000"; IPv4-mapped is written as IPv4. Returns `text`. */
const char *endpoint_format(const struct endpoint *e, char text[static ENDPOINT_TEXT_MAX]);

/* The same, read: "host:port", "[v6]:port", ":port" (host = ::, that is any address of either
 * family). Host is numeric: no name is ever resolved. Port 0 is accepted (bind to any). */
bool endpoint_parse(const char *text, struct endpoint *ret);

/* The address alone, as in a whitelist: "203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7". */
bool endpoint_parse_ip(const char *text, struct endpoint *ret);

#endif
