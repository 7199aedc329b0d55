/* edge - the TCP thread: one epoll loop, its listeners, its connections.
 *
 * Never touches a shard's state but to read counters and through mailboxes. Connections are a fixed
 * pool; each has one absolute deadline for what it is doing (PROXY header, TLS handshake, request
 * head, body, answer) and an idle limit between requests; sources are capped, on public listeners
 * also in TLS handshakes a second, spent when the connection is accepted. When the pool is full,
 * the one that has waited longest goes; one that speaks another protocol (WebSocket, event stream)
 * never does. A slow reader keeps its own answer only. What one connection does is in conn.h. */
#ifndef BEACON_WSS_EDGE_H
#define BEACON_WSS_EDGE_H

#include <stdatomic.h>
#include "proto/http.h"
#include "server/config.h"
#include "wss/tls.h"

enum {
    EDGE_LISTENERS_MAX = 8,
    EDGE_HTTP_CONNECTIONS = 1024, /* places beyond those for WebSocket sessions */
    EDGE_HEAD_SECONDS = 5, /* PROXY header, TLS handshake and request head: for each, all of it */
    EDGE_BODY_SECONDS = 5,
    EDGE_BODY_MAX = 16384,
    EDGE_IDLE_SECONDS = 15,
    EDGE_WRITE_SECONDS = 10, /* for the whole answer */
    EDGE_STUCK_SECONDS = 30, /* a stream that takes nothing for so long is cut */
    EDGE_IPV6_48_TIMES = 4,  /* a /48 may have so many times the connections of a /64 */
};

struct conn;
struct conn_turn;

/* What a handler is asked. Borrowed until it returns. */
struct edge_request {
    const struct http_request *http;
    const char *body;
    size_t body_len;
    struct endpoint from; /* the client, as PROXY said or as TCP knows; [::]:0 of a unix socket */
    struct conn *conn;    /* for conn_exporter, and to remember it if a protocol is the answer */
};

/* What a connection speaks after an answer that does not end: WebSocket, an event stream. */
struct edge_protocol {
    /* The head of the answer is queued; the first words may be. False: end. */
    bool (*opened)(struct conn *c, void *state, const struct conn_turn *turn);
    /* Bytes of the client, writable. False: end. */
    bool (*input)(struct conn *c, void *state, uint8_t *bytes, size_t len,
                  const struct conn_turn *turn);
    /* The deadline that conn_set_deadline gave has passed. False: end. */
    bool (*expired)(struct conn *c, void *state, const struct conn_turn *turn);
    /* The last call, whoever ended it: `state` is the protocol's to free. What was queued may still
     * be on its way, but the connection must not be named any more. Called even if `opened` never
     * was: then there was no memory. */
    void (*closed)(void *state);
};

/* An answer to build. The body is malloc'ed by the handler and freed by the edge. */
struct edge_response {
    int status;
    const char *content_type;
    char *body;
    size_t body_len;
    const char *allow;  /* with 405 */
    const char *fields; /* more header fields, each with its CRLF; read before the next request */
    /* Set: the answer has no end (101, or 200 with an endless body) and the connection is the
     * protocol's from now on. */
    const struct edge_protocol *protocol;
    void *state;
};

/* Called on the edge's thread; must not block. Sets the status; all else may stay zero. Bodies come
 * only with POST. */
typedef void edge_handler(void *arg, const struct edge_request *request,
                          struct edge_response *response);

struct edge;

struct edge_listener {
    const char *name; /* "health": for logs and errors */
    struct endpoint at;
    const char *unix_path; /* a unix socket instead, mode 0660; removed at the end. Else NULL */
    bool tls;              /* the first bytes are a ClientHello */
    bool is_public;        /* strangers come here: handshake budgets, and proxies are believed */
    edge_handler *handler;
    void *arg;
};

/* Binds and listens, no thread yet. `sessions`: places for WebSocket sessions. On error `failed` is
 * the listener's name. 0 or -errno. The port that the kernel gave is written back to
 * listener[i].at. An IPv6 wildcard takes IPv4 too, and is an IPv4 wildcard where the host has no
 * IPv6. A unix socket that nobody listens on is replaced; one that is in use is -EADDRINUSE. */
int edge_open(struct edge **ret, struct edge_listener *listeners, unsigned count, unsigned sessions,
              const char **failed);

/* Before edge_start; the defaults are the constants above and the options' defaults. */
struct edge_limits {
    unsigned head_ms, body_ms, idle_ms, write_ms, stuck_ms;
    unsigned connections;           /* at most what edge_open took places for */
    unsigned per_ipv4, per_ipv6_64; /* connections of one source */
    struct rate handshakes,
        handshakes_total;           /* TLS handshakes: of an IPv4 or an IPv6 /64; of all */
    size_t queue_each, queue_total; /* bytes that wait for slow readers */
    const struct prefixes *proxies; /* who must begin with a PROXY header, on public listeners */
};
void edge_set_limits(struct edge *e, const struct edge_limits *limits);
const struct edge_limits *edge_limits(const struct edge *e);

/* Called each turn, after all events: what came from other threads is sent now. Returns when it
 * wants to be called at the latest, UINT64_MAX for whenever. Before edge_start. */
void edge_set_turn(struct edge *e, uint64_t (*turn)(void *arg, const struct conn_turn *turn),
                   void *arg);

/* Before edge_start for the first; later any thread, to replace it: the edge takes it over, and
 * frees the one before at its next turn. */
void edge_set_tls(struct edge *e, struct tls *t);

/* The eventfd that makes the loop turn. Any thread may write to it. */
int edge_wake_fd(const struct edge *e);

int edge_start(struct edge *e);
/* Ends and joins the thread, closes everything (protocols hear `closed`), frees. */
void edge_close(struct edge *e);

/* Counters for /metrics, any thread. */
struct edge_stats {
    _Atomic uint64_t accepted;     /* connections that got a place */
    _Atomic uint64_t refused;      /* no place: source or pool full, no descriptor left */
    _Atomic uint64_t requests;     /* given to a handler */
    _Atomic uint64_t bad_requests; /* refused by the parser, or with a body where none may be */
    _Atomic uint64_t timeouts;     /* too slow, or answer not taken; not: idle after a request */
    _Atomic uint64_t connections;  /* gauge */
    _Atomic uint64_t handshakes, handshake_failures; /* of TLS */
    _Atomic uint64_t handshakes_limited;             /* closed at accept: the budget was spent */
    _Atomic uint64_t proxy_bad;                      /* no good PROXY header from a trusted proxy */
    _Atomic uint64_t frames_dropped;                 /* to slow readers */
    _Atomic uint64_t stuck;        /* streams cut because nothing was taken for too long */
    _Atomic uint64_t queued_bytes; /* gauge: waiting for slow readers */
};
const struct edge_stats *edge_stats(const struct edge *e);
/* When the loop last turned (at first: when it was started), in edge_clock_ns. */
uint64_t edge_tick_ns(const struct edge *e);

uint64_t edge_clock_ns(void); /* CLOCK_BOOTTIME, as the shards count */

#endif
