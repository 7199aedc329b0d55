/* conn - one connection of the edge: PROXY header, TLS handshake, HTTP/1.1 requests, and what an
 * endless answer makes of it.
 *
 * Serves one request a turn, so a pipelining client waits in line like everyone else. Holds at most
 * one head and one body, in memory that exists only while a request is coming in or being answered:
 * an idle WebSocket has none. While an answer is being written nothing is read. After a refusal,
 * and whenever the connection ends by our decision, the write side is shut first and some input
 * drained: a plain close with unread input would be a reset that destroys the answer on its way.
 * The edge's thread only. */
#ifndef BEACON_WSS_CONN_H
#define BEACON_WSS_CONN_H

#include "wss/edge.h"
#include "wss/gate.h"
#include "wss/outqueue.h"
#include "wss/stream.h"

enum {
    CONN_ANSWER_HEAD_MAX = 1024,
    CONN_LINGER_MS = 1000,
    CONN_DRAIN_MAX = 65536,
    CONN_INPUT_A_TURN = 65536, /* bytes given to a protocol in one turn */
};

enum conn_state {
    CONN_PROXY,     /* a PROXY header must come first */
    CONN_HANDSHAKE, /* of TLS */
    CONN_HEAD,      /* a head is awaited; the deadline is for all of it */
    CONN_BODY,      /* the body of a POST */
    CONN_IDLE,      /* kept alive, no byte of the next head yet */
    CONN_ANSWER,    /* an answer is being written */
    CONN_PROTOCOL,  /* speaks c->protocol */
    CONN_FLUSH,     /* the protocol has ended; what is queued is written, then LINGER */
    CONN_LINGER,    /* answered and shut; draining until the client closes */
};

/* What a request needs while it lasts. */
struct conn_http;

struct conn {
    /* The edge's. */
    uint32_t events; /* registered with epoll */
    unsigned slot;   /* its place in the edge's list */
    struct conn *next_dirty, **dirty_list;
    bool
        dirty; /* in the edge's list of connections that are to be flushed at the end of the turn */

    struct stream stream;
    const struct edge_listener *listener;
    struct endpoint from;
    bool entered; /* counted by the gate */
    enum conn_state state;
    uint64_t deadline_ns;   /* UINT64_MAX: none */
    struct conn_http *http; /* NULL when no request is under way */

    /* In CONN_PROTOCOL and after. `protocol` is NULL again once it has heard `closed`. */
    const struct edge_protocol *protocol;
    void *protocol_state;
    struct outqueue out;
    uint64_t protocol_deadline_ns; /* what conn_set_deadline said */
    uint64_t stuck_since_ns;       /* nothing of `out` was taken since; 0: it is empty */
    uint64_t frames_dropped;       /* that `out` had no room for */

    bool blocked; /* the stream takes no more of `out` until epoll says so */
    bool broken;  /* writing failed: over at the end of the turn */

    size_t drained;
    bool keep_alive;
    bool pipelined; /* bytes wait in our memory, where epoll cannot see them */
    bool reset;     /* what the client did not take dies with the connection */
};

/* What a turn needs and counts; the same for all connections. */
struct conn_turn {
    const struct edge_limits *limits;
    struct edge_stats *stats;
    struct outqueue_pool *pool;
    struct tls *tls;
    struct gate *gate;
    uint8_t *input; /* CONN_INPUT_A_TURN bytes that all connections share: nothing stays here */
    struct conn **dirty; /* head of the list */
    uint64_t now_ns;
};

/* --- for protocols and handlers --- */

/* Queues one frame made of two parts; it leaves at the end of this turn, or sooner when much waits.
 * When the queue is full the oldest frames go, and are counted. Nothing is said by a connection
 * that has ended. */
void conn_say(struct conn *c, const struct conn_turn *turn, const void *head, size_t head_len,
              const void *body, size_t body_len);
/* From outside of the protocol's own callbacks: ends it as if one of them had returned false. What
 * is queued is still written. `closed` is called at the end of the turn, not from here, and nothing
 * else before it: who walks a list of connections may end any of them. */
void conn_end(struct conn *c, const struct conn_turn *turn);
/* When edge_protocol.expired is to be called; UINT64_MAX: never. */
void conn_set_deadline(struct conn *c, uint64_t at_ns);
/* The channel binding of the connection's TLS (RFC 9266). False: no TLS here, or none to be had. */
bool conn_exporter(const struct conn *c, uint8_t ret[static TLS_EXPORTER_LEN]);

/* --- for the edge --- */

/* Makes `c` the connection `fd`, nonblocking. False: the gate is closed to it, or no memory
 * (counted); conn_close is still to be called. */
bool conn_open(struct conn *c, int fd, const struct edge_listener *listener,
               const struct endpoint *from, bool behind_proxy, const struct conn_turn *turn);
/* Called when epoll reports anything. False: it is over, close it. */
bool conn_ready(struct conn *c, const struct conn_turn *turn);
/* The end of a turn, for those in the dirty list: writes what is queued. False: it is over. */
bool conn_flush(struct conn *c, const struct conn_turn *turn);
/* A deadline has passed. False: it is over (counted); what was not taken is discarded by the close.
 */
bool conn_expired(struct conn *c, const struct conn_turn *turn);
/* What to wait for, as an epoll mask. */
uint32_t conn_events(const struct conn *c);
void conn_close(struct conn *c, const struct conn_turn *turn);

#endif
