/* conn - one HTTP/1.1 connection of the edge: reads a head, asks the handler, writes the answer.
 *
 * Serves one request a turn, so a pipelining client waits in line like everyone else. Holds at most
 * one head and one answer; while an answer is being written nothing is read. After a refusal, and
 * whenever the connection ends by our decision, the write side is shut first and some input
 * drained: a plain close with unread input would be a reset that destroys the answer on its way.
 * The edge's thread only. */
#ifndef BEACON_WSS_CONN_H
#define BEACON_WSS_CONN_H

#include "wss/edge.h"

enum {
    CONN_ANSWER_HEAD_MAX = 512,
    CONN_LINGER_MS = 1000,
    CONN_DRAIN_MAX = 65536,
};

enum conn_state {
    CONN_HEAD,   /* a head is awaited; the deadline is for all of it */
    CONN_IDLE,   /* kept alive, no byte of the next head yet */
    CONN_ANSWER, /* an answer is being written */
    CONN_LINGER, /* answered and shut; draining until the client closes */
};

struct conn {
    /* The edge's. */
    int fd;
    uint32_t events; /* registered with epoll */
    unsigned slot;   /* its place in the edge's list */

    const struct edge_listener *listener;
    enum conn_state state;
    uint64_t deadline_ns;

    /* The answer, valid in CONN_ANSWER. `sent` counts over head and body. */
    size_t head_len, body_len, sent;
    char *body; /* ours to free */
    bool keep_alive;

    size_t drained;
    bool pipelined; /* `in` holds bytes nobody has looked at yet */
    size_t in_len;
    uint8_t head[CONN_ANSWER_HEAD_MAX];
    char in[HTTP_HEAD_MAX];
};

/* What a turn needs and counts; the same for all connections. */
struct conn_turn {
    const struct edge_limits *limits;
    struct edge_stats *stats;
    uint64_t now_ns;
};

/* Makes `c` the connection `fd`, nonblocking. */
void conn_open(struct conn *c, int fd, const struct edge_listener *listener,
               const struct conn_turn *turn);
/* Called when epoll reports anything. False: it is over, close it. */
bool conn_ready(struct conn *c, const struct conn_turn *turn);
/* The deadline has passed: counts it; what was not taken is discarded by the close that follows. */
void conn_expired(struct conn *c, const struct conn_turn *turn);
/* What to wait for, as an epoll mask. */
uint32_t conn_events(const struct conn *c);
void conn_close(struct conn *c);

#endif
