/* notify - the service manager's notification socket (sd_notify), without its library, and what the
 * manager keeps for us between two processes: the descriptor store. */
#ifndef BEACON_CMD_NOTIFY_H
#define BEACON_CMD_NOTIFY_H

#include <stdint.h>
#include "shard/shard.h"

/* Sends e.g. "READY=1" to $NOTIFY_SOCKET. Does nothing where there is none. */
void notify_send(const char *state);
/* RELOADING=1 with the time stamp that systemd 253 and later asks for. */
void notify_reloading(void);
/* $WATCHDOG_USEC when it is meant for this process, else 0. */
uint64_t notify_watchdog_us(void);

/* The descriptors that the manager keeps, by name. The service's sockets are numbered, for the
 * manager gives them back in an order of its own and their order is what they mean. */
#define NOTIFY_UDP "beacon-udp" /* beacon-udp-0, ... in the order of shards_descriptors */
#define NOTIFY_TABLE "beacon-table"

/* Gives the manager copies to keep: `name`, or with `numbered` name-0 and so on. It does if the
 * unit has FileDescriptorStoreMax. 0 or -errno; -ENOTCONN: there is no manager. */
int notify_store(const int *fds, unsigned count, const char *name, bool numbered);
/* The manager closes what it keeps under this name, or under `count` numbered ones. */
void notify_forget(const char *name, unsigned count);

struct notify_inherited {
    unsigned udp_count;
    int udp[SHARDS_DESCRIPTORS_MAX]; /* in order */
    int table;                       /* -1: none */
};
/* What the manager has given back ($LISTEN_FDS, $LISTEN_FDNAMES, $LISTEN_PID, which are taken out
 * of the environment). Once, before any descriptor is opened. 0, also for nothing; -EINVAL when it
 * is not to be understood: all of it is closed then. Descriptors of other names are closed. */
int notify_inherited(struct notify_inherited *ret);

#endif
