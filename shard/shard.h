/* shard - one thread with one lane: receive a batch, decide each, group, send.
 *
 * The set opens and closes as a whole: closing one socket of a reuseport group would renumber the
 * others. The sockets may outlive the process: shards_stop leaves them and what lies in them to
 * another set, of this process or of the next, that adopts shards_descriptors. Main thread only,
 * where nothing else is said. */
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
/* The same with sockets that were opened by another beacon: what its shards_descriptors gave, in
 * that order. All of them, or none and an error: -ESTALE when they are not what this configuration
 * would open, and `failed` says why. On success they belong to the shards, else to the caller.
 * Takes nothing from them, and leaves their steering as it is, until shards_start. */
int shards_adopt(struct shards **ret, struct server *server, const struct config *c, const int *fds,
                 unsigned count, struct shards_report *report, const char **failed);
/* Starts the threads, each with its I/O port; `auto` falls back to mmsg as a whole. 0 or -errno.
 * After shards_stop too. */
int shards_start(struct shards *s, struct shards_report *report, const char **failed);
/* Ends and joins the threads. What they had received is decided and answered, letters among them
 * too; what they had not stays in the sockets, which stay open. */
void shards_stop(struct shards *s);
/* Ends and joins the threads, closes everything, frees. What was received is answered first. */
void shards_close(struct shards *s);

/* The sockets, in the order of the group. How many were written; 0: there are more than `max`, or
 * they cannot be handed over (no steering here, so their order means nothing). They stay ours. */
enum { SHARDS_DESCRIPTORS_MAX = 2 * CONFIG_SHARDS_MAX + 1 };
unsigned shards_descriptors(const struct shards *s, int *fds, unsigned max);

/* Any thread, from open to close: makes shard `index` look at its mailbox, now or when it starts
 * again. */
void shards_wake(struct shards *s, unsigned index);

/* For the edge and the mesh, where the server has a lane for them: sends from the service's
 * sockets, with its own buffers; counts into that lane. One thread at a time, and none once the
 * shards close. */
struct shards_sender;
struct shards_sender *shards_sender_new(struct shards *s, struct lane *lane); /* NULL: no memory */
void shards_sender_send(struct shards_sender *sender, struct outbox *out);    /* and empties it */
void shards_sender_free(struct shards_sender *sender);
/* Before shards_start: the eventfd to write to when a lane's handoff to the edge, or to the mesh,
 * got something. The shards keep a copy, so the other may close its own first; a second call, which
 * may come while they run, takes the place of the first. 0 or -errno. */
int shards_set_edge(struct shards *s, int wake);
int shards_set_mesh(struct shards *s, int wake);

/* The socket that steering gives gossip to, for the mesh's thread to receive from; -1: there is
 * none, and the shards get it. It is closed with the others. */
int shards_mesh_socket(const struct shards *s);
/* One that sends only, datagrams of any size. */
int shards_wide_socket(const struct shards *s);
/* AF_INET6 or AF_INET, of all sockets. */
int shards_family(const struct shards *s);

uint64_t clock_ns(void); /* CLOCK_BOOTTIME */

#endif
