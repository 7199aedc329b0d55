/* mesh - everything of the gossip between beacons: opens it, carries what goes in and out between
 * the lanes and the mesh's thread, shows it.
 *
 * Main thread, but for the callbacks inside. */
#ifndef BEACON_CMD_MESH_H
#define BEACON_CMD_MESH_H

#include <stdatomic.h>
#include "gossip/discover.h"
#include "gossip/thread.h"
#include "server/server.h"
#include "shard/shard.h"
#include "wss/mesh_view.h"

struct mesh;

struct mesh_config {
    const struct config *config;
    struct server *server;
    struct shards *shards;
    struct endpoint bound;
    void *arg;
    void (*wake_edge)(void *arg); /* any thread */
};

/* 0, -errno, or an exit code of sysexits.h; what is wrong has been logged. Call before the shards
 * start, where config_has_mesh. */
int mesh_open(struct mesh **ret, const struct mesh_config *c);
int mesh_start(struct mesh *m);
/* Ends the threads, having said goodbye to the other beacons; relays go to none of them any more.
 * `quietly`, for a successor: without a word, and relays still go. NULL is fine. */
void mesh_stop(struct mesh *m, bool quietly);
/* Behind mesh_stop, and when the edge, which reads the view, has ended; after a quiet one only when
 * the shards have stopped too. NULL is fine. */
void mesh_close(struct mesh *m);

/* Between mesh_stop and mesh_close: what is known of others, as a memory file for the successor; an
 * empty one for NULL. -errno: no memory. */
int mesh_save(const struct mesh *m);
/* Before the shards start, with the predecessor's file. */
void mesh_load(struct mesh *m, int fd);

/* Reads the keys again. False, with the reason: the old ones stay. */
bool mesh_reload(struct mesh *m, char *error, size_t capacity);
void mesh_drain(struct mesh *m, bool on);
/* The thread turns. */
bool mesh_alive(const struct mesh *m, uint64_t now_ns, unsigned stuck_s);
/* Once a second: logs what has changed. */
void mesh_watch(struct mesh *m);
/* For the admin interface; lives as long as the mesh. */
struct mesh_view *mesh_view(struct mesh *m);
void mesh_wake(const struct mesh *m);

/* Are keys and peers of this configuration good? Logs nothing; for --check-config. */
bool mesh_check(const struct config *c, char *error, size_t capacity);

#endif
