/* discover - a thread that finds other beacons: peers as configured, a peers file (watched), DNS
 * (SRV or addresses), a registry. It may block, nobody waits for it.
 *
 * Every source keeps its last good answer: what fails, or answers oddly, changes nothing and is
 * said once. The result is the union. Names are resolved again every DISCOVER_RESOLVE_S; one lookup
 * never holds the others up for longer than DISCOVER_WAIT_S. */
#ifndef BEACON_GOSSIP_DISCOVER_H
#define BEACON_GOSSIP_DISCOVER_H

#include "gossip/gossip.h"
#include "gossip/registry.h"

enum {
    DISCOVER_PERIOD_S = 30, /* registry and DNS */
    DISCOVER_RESOLVE_S = 60,
    DISCOVER_WAIT_S = 10,
    DISCOVER_CONNECT_S = 5,
    DISCOVER_FILE_MS = 1000, /* how often the peers file is looked at */
};

struct discover_config {
    const char *peers;      /* comma-separated names, "" none */
    const char *peers_file; /* "" none */
    const char *peers_dns;  /* a name with SRV records _beacon._udp, else A and AAAA; "" none */
    const char *registry;   /* host:port, "" none */
    bool registry_tls;
    const char *registry_ca;    /* file with CAs, "" the host's */
    const char *registry_token; /* "" none */
    uint32_t beacon_id;         /* 0: the registry is not asked */
    const char *advertise;      /* host:port; "" the bound one, a wildcard replaced by the local
                                   address of the connection to the registry */
    struct endpoint bound;
    bool pilot_default; /* without keys every peer is spoken to as an original beacon */
    /* Any thread: a line for the log. `what` is one of "registry", "dns", "peers". Repeats of the
     * same text are left out. */
    void (*say)(void *arg, bool bad, const char *what, const char *text);
    void *arg;
    int wake;           /* eventfd: written to when the result changed */
    unsigned period_ms; /* of the registry, and of lookups; 0: as above */
};

struct discover;
/* Copies the config. NULL with the reason: a malformed option. Starts the thread. */
struct discover *discover_open(const struct discover_config *c,
                               char error[static REGISTRY_ERROR_MAX]);
void discover_close(struct discover *d); /* within a second, whatever is under way */

/* The result, if it changed since the last call. Returns how many, or -1: no change. */
int discover_take(struct discover *d, struct gossip_seed ret[static GOSSIP_SEEDS_MAX]);

/* For status; any thread. */
struct discover_status {
    bool registry_used, registry_ok; /* the last cycle */
    int64_t registry_ok_unix_s;      /* of the last good one, 0: never */
    unsigned listed;                 /* beacons in the registry's last good list */
    char error[REGISTRY_ERROR_MAX];  /* of the last bad cycle, "" it was good */
};
void discover_status(struct discover *d, struct discover_status *ret);

#endif
