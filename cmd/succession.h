/* succession - where a starting beacon's sockets and nodes come from: a predecessor that still runs
 * (--takeover), the service manager's store, or nowhere; and what is left to the next one.
 *
 * Main thread. Calls come in this order: begin, open, clear, go, done; each logs what went wrong.
 */
#ifndef BEACON_CMD_SUCCESSION_H
#define BEACON_CMD_SUCCESSION_H

#include "cmd/notify.h"
#include "cmd/takeover.h"

struct succession {
    const struct config *config;
    struct server *server;
    bool has_predecessor, has_inherited;
    struct takeover_heir heir;
    struct notify_inherited inherited;
    uint32_t nodes; /* taken over */
};

/* Asks the predecessor, looks for what the manager kept. 0 or -errno. */
int succession_begin(struct succession *s, const struct config *c);
/* The sockets: taken over, or opened; and the table as it was. 0 or -errno. */
int succession_open(struct succession *s, struct server *server, struct shards **ret,
                    struct shards_report *report);
/* The predecessor closes its TCP listeners and its mesh. */
int succession_clear(struct succession *s);
/* It stops its shards; ours must start at once. */
int succession_go(struct succession *s);
/* Ours run. An error: it serves on, and we must stop. */
int succession_done(struct succession *s);
/* At any point: lets go of what was not taken. */
void succession_end(struct succession *s);

/* What the manager shall keep: the sockets, from the start on; and the table, when the shards have
 * stopped. */
void succession_store_sockets(const struct shards *shards);
void succession_store_table(const struct server *server);

#endif
