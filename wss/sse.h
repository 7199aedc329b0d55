/* sse - server-sent events (HTML Living Standard, 9.2): the frames, and what a connection speaks
 * that carries them.
 *
 * A stream never holds others up: it may have SSE_QUEUE_MAX frames waiting, then it gets a last
 * event "resync", which tells the client to fetch everything anew, and ends; likewise when the
 * connection had to drop a frame. A stream that was quiet for SSE_COMMENT_SECONDS says a comment,
 * so that proxies keep it and dead ones are found. Knows nothing of what the events mean. The
 * edge's thread. */
#ifndef BEACON_WSS_SSE_H
#define BEACON_WSS_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "wss/conn.h"

enum { SSE_QUEUE_MAX = 64, SSE_COMMENT_SECONDS = 15, SSE_ID_MAX = 64 };

#define SSE_CONTENT_TYPE "text/event-stream"

/* One frame. `event` NULL: "message"; `id` NULL: none; neither holds a line end. The bytes of
 * `data` may hold any: each of its lines gets a field of its own. */
void sse_write(FILE *out, const char *event, const char *id, const char *data, size_t len);

/* The Last-Event-ID of a request. False: none, or longer than any of ours. */
bool sse_last_id(const struct http_request *q, char ret[static SSE_ID_MAX]);

/* Streams that are fed together. All zero but `max` at first. */
struct sse_streams {
    unsigned max; /* fixed */
    unsigned count;
    unsigned fresh; /* how many have got nothing yet */
    struct sse_stream *first;
};

struct sse_stream {
    struct sse_streams *among;
    struct sse_stream *previous, *next; /* linked from its first moment to `closed` */
    struct conn *conn;                  /* NULL until the answer's head is queued */
    bool fresh;                         /* nothing but what the feeder owes it from before */
    bool ended;                         /* says no more */
    uint64_t after;                     /* the feeder's: what the client has already */
};

/* A place among the streams, to be edge_response.state beside sse_protocol, which frees it. NULL:
 * there are `max`, or no memory. */
struct sse_stream *sse_stream_new(struct sse_streams *among, uint64_t after);
extern const struct edge_protocol sse_protocol;

/* To one, or to all that are not fresh any more. */
void sse_say(struct sse_stream *s, const struct conn_turn *turn, const char *frames, size_t len);
void sse_say_all(struct sse_streams *all, const struct conn_turn *turn, const char *frames,
                 size_t len);
/* The next stream that is open and fresh, which it then no longer is; NULL: none. */
struct sse_stream *sse_take_fresh(struct sse_streams *all);

#endif
