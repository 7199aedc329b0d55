/* takeover - a beacon hands its sockets and its node table to the one that takes its place.
 *
 * Both are this program. The running one listens on a unix socket (mode 0600; both sides must be of
 * the same user, or root). No datagram is lost: the sockets outlive the process that read them, and
 * what comes between the two waits in them. What passes, S the successor, P the predecessor:
 *
 *   S ask      P offer, with the node table (cmd/table.h) and the sockets; P serves on
 *              S adopts the sockets and restores the table: what does not fit shows now
 *   S clear    P closes what cannot be shared (TCP listeners, the mesh's thread): cleared, with
 *              what it knows of other beacons (mesh_save)
 *              S opens its own
 *   S go       P stops its shards: stopped, with what has changed in the table since
 *              S restores that and starts its shards
 *   S done     P says bye and ends
 *
 * A message is 16 bytes: "BCNT" | version (2) | kind (2) | a number (4) | zero (4); descriptors
 * come with it, TAKEOVER_CHUNK at most. Another version is refused in the first message. Where
 * either falls silent or goes away before the end, P says no, serves on, and S must not (or no
 * longer): both never read the sockets at once for longer than it takes to hear that. */
#ifndef BEACON_CMD_TAKEOVER_H
#define BEACON_CMD_TAKEOVER_H

#include <pthread.h>
#include "server/server.h"
#include "shard/shard.h"

enum {
    TAKEOVER_SILENCE_MS = 5000,   /* one who says nothing for so long is gone */
    TAKEOVER_PATIENCE_MS = 30000, /* ... while nobody waits for it: a large table takes a while */
    TAKEOVER_CHUNK = 250,         /* descriptors in a message: the kernel's limit is 253 */
};

/* --- the predecessor --- */

struct takeover; /* its listener: a thread that answers who asks, and serves one at a time */

struct takeover_serve {
    const char *path;
    const struct server *server;
    const struct shards *shards;
    pthread_t main; /* gets SIGUSR2 when takeover_wanted becomes true */
    /* All of it outlives takeover_serve_stop. */
};
/* 0 or -errno; -EADDRINUSE: another listens there. A file that nobody listens on is replaced. */
int takeover_serve_start(struct takeover **ret, const struct takeover_serve *serve);
/* Ends the thread, removes the file, frees. */
void takeover_serve_stop(struct takeover *t);

/* The main thread, below. A successor has what we have, and is ready to take our place. */
bool takeover_wanted(const struct takeover *t);
/* Gives it: calls both on the way, the first to close all but the shards, the second to stop these
 * (shards_stop). 0: the successor serves, and this process is to end without closing or announcing
 * anything to others. -errno: it does not; what was closed or stopped is to be started again, which
 * the caller knows by its own two functions. */
struct takeover_steps {
    void *arg;
    int (*clear)(void *arg); /* a descriptor that goes to the successor and is closed, or -errno */
    void (*stop)(void *arg);
};
int takeover_hand_over(struct takeover *t, const struct takeover_steps *steps);

/* --- the successor: one thread; ask, clear, go, done, in this order --- */

struct takeover_heir {
    int connection;
    int table; /* the rows to restore now, see table_read; -1 after takeover_clear */
    int mesh;  /* after takeover_clear: for mesh_load; else -1 */
    unsigned count;
    int fds[SHARDS_DESCRIPTORS_MAX]; /* for shards_adopt, whose they are when it succeeds: then set
                                        `count` to 0 */
};
/* 0, -ENOENT: nobody is there; -EPROTONOSUPPORT: the other is of another version; -ECANCELED: it
 * refuses; -EPERM: it is of another user; else -errno. */
int takeover_ask(struct takeover_heir *h, const char *path);
/* 0: its TCP ports are free. */
int takeover_clear(struct takeover_heir *h);
/* 0: its shards have stopped, and `table` is what has changed. Be quick. */
int takeover_go(struct takeover_heir *h);
/* After shards_start. 0: it has gone, and the path of its socket is free. -ECANCELED: it serves
 * again, so stop at once. */
int takeover_done(struct takeover_heir *h);
/* Closes what is left, at any point after a successful takeover_ask: before takeover_done has
 * succeeded it means that the predecessor serves on. */
void takeover_leave(struct takeover_heir *h);

#endif
