/* shard - one thread with one lane: receive a batch, decide each, group, send.
 *
 * The set opens and closes as a whole: closing one socket of a reuseport group would renumber the
 * others. */
#ifndef BEACON_SHARD_SHARD_H
#define BEACON_SHARD_SHARD_H

#include "server/config.h"
#include "server/server.h"

struct shards; /* all of them */

/* What start-up found out, for the log and for /metrics. */
struct shards_report {
    const char *io;          /* "uring" or "mmsg" */
    int uring_error;         /* errno that made auto fall back, or 0 */
    struct endpoint bound;   /* with the port the kernel gave */
    bool dual_stack;         /* false: the host has no IPv6 */
    int steer_error;         /* errno when steering could not be attached, or 0 */
    uint64_t receive_buffer; /* granted per socket, bytes */
    uint64_t send_buffer;
};

/* Opens the sockets and attaches steering. `failed` names the step on error ("bind", ...).
 * 0 or -errno. Writes the address that the kernel gave to server->bound. */
int shards_open(struct shards **ret, struct server *server, const struct config *c,
                struct shards_report *report, const char **failed);
/* Starts the threads, each with its I/O port; `auto` falls back to mmsg as a whole. 0 or -errno. */
int shards_start(struct shards *s, struct shards_report *report, const char **failed);
/* Ends and joins the threads, closes everything, frees. What was received is answered first. */
void shards_close(struct shards *s);

/* Any thread, while the shards run: makes shard `index` look at its mailbox. */
void shards_wake(struct shards *s, unsigned index);

/* For the edge, where the server has an edge lane: sends from the service's sockets, with its own
 * buffers; counts into the edge's lane. One thread at a time, and none once the shards close. */
struct shards_sender;
struct shards_sender *shards_sender_new(struct shards *s);                 /* NULL: no memory */
void shards_sender_send(struct shards_sender *sender, struct outbox *out); /* and empties it */
void shards_sender_free(struct shards_sender *sender);
/* Before shards_start: the eventfd to write to when a lane's handoff got something. The shards keep
 * a copy, so the edge may close its own first. 0 or -errno. */
int shards_set_edge(struct shards *s, int wake);

uint64_t clock_ns(void); /* CLOCK_BOOTTIME */

#endif
