/* edge - the TCP thread: one epoll loop, its listeners, its HTTP/1.1 connections.
 *
 * Never touches a shard's state but to read counters. Connections are a fixed pool; every
 * connection has one absolute deadline for the whole request head and an idle limit between
 * requests; sources are capped; when the pool is full, the one that has waited longest goes. A slow
 * reader keeps its own answer only. What one connection does is in conn.h. */
#ifndef BEACON_WSS_EDGE_H
#define BEACON_WSS_EDGE_H

#include <stdatomic.h>
#include "proto/http.h"
#include "server/config.h"

enum {
    EDGE_LISTENERS_MAX = 4,
    EDGE_CONNECTIONS_MAX = 1024,
    EDGE_PER_IPV4 = 64, /* connections of one address; IPv6: EDGE_PER_IPV6_64 of a /64 */
    EDGE_PER_IPV6_64 = 16,
    EDGE_IPV6_48_TIMES = 4, /* and so many times that of a /48 */
    EDGE_HEAD_SECONDS = 5,  /* from accept or from the first byte after idling */
    EDGE_IDLE_SECONDS = 15,
    EDGE_WRITE_SECONDS = 10, /* for the whole answer */
};

/* An answer to build. The body is malloc'ed by the handler and freed by the edge. */
struct edge_response {
    int status;
    const char *content_type;
    char *body;
    size_t body_len;
    const char *allow; /* with 405 */
};

/* Called on the edge's thread; must not block. Sets the status; all else may stay zero. */
typedef void edge_handler(void *arg, const struct http_request *request,
                          struct edge_response *response);

struct edge;

struct edge_listener {
    const char *name; /* "health": for logs and errors */
    struct endpoint at;
    edge_handler *handler;
    void *arg;
};

/* Binds and listens, no thread yet. On error `failed` is the listener's name. 0 or -errno. The port
 * that the kernel gave is written back to listener[i].at. An IPv6 wildcard takes IPv4 too, and is
 * an IPv4 wildcard where the host has no IPv6. */
int edge_open(struct edge **ret, struct edge_listener *listeners, unsigned count,
              const char **failed);

/* The constants above, for a test that cannot wait so long or open so much. */
struct edge_limits {
    unsigned head_ms, idle_ms, write_ms;
    unsigned connections; /* at most EDGE_CONNECTIONS_MAX */
    unsigned per_ipv4, per_ipv6_64;
};
/* Before edge_start. */
void edge_set_limits(struct edge *e, const struct edge_limits *limits);

int edge_start(struct edge *e);
/* Ends and joins the thread, closes everything, frees. */
void edge_close(struct edge *e);

/* Counters for /metrics, any thread. */
struct edge_stats {
    _Atomic uint64_t accepted;     /* connections that got a place */
    _Atomic uint64_t refused;      /* no place: source or pool full, no descriptor left */
    _Atomic uint64_t requests;     /* given to a handler */
    _Atomic uint64_t bad_requests; /* refused by the parser, or with a body */
    _Atomic uint64_t timeouts;    /* head too slow or answer not taken; not: idle after a request */
    _Atomic uint64_t connections; /* gauge */
};
const struct edge_stats *edge_stats(const struct edge *e);
/* When the loop last turned, in edge_clock_ns. */
uint64_t edge_tick_ns(const struct edge *e);

uint64_t edge_clock_ns(void); /* CLOCK_BOOTTIME, as the shards count */

#endif
