/* conn_http - the requests and answers of a connection: CONN_HEAD, CONN_IDLE, CONN_BODY,
 * CONN_ANSWER.
 *
 * Private to wss/conn.c and wss/conn_http.c, which share the connection. */
#ifndef BEACON_WSS_CONN_HTTP_H
#define BEACON_WSS_CONN_HTTP_H

#include "wss/conn.h"

/* The client is about to send its first request. */
void conn_http_begin(struct conn *c, const struct conn_turn *turn);
bool conn_http_ready(struct conn *c, const struct conn_turn *turn);
void conn_http_free(struct conn *c);

/* --- of conn.c, for requests --- */

static inline uint64_t conn_deadline(const struct conn_turn *turn, unsigned ms)
{
    return turn->now_ns + ms * UINT64_C(1000000);
}

/* Shuts our side and drains the client's. */
void conn_linger(struct conn *c, const struct conn_turn *turn);

/* The answer has no end: its head is queued, then the connection is the protocol's. The first
 * `input_len` bytes of turn->input came behind the request. */
struct conn_upgrade {
    const struct edge_protocol *protocol;
    void *state;
    const uint8_t *head;
    size_t head_len, input_len;
};
bool conn_protocol_begin(struct conn *c, const struct conn_turn *turn,
                         const struct conn_upgrade *upgrade);

#endif
