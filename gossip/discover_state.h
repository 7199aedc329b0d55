/* discover_state - what discover.c (thread, result, peers file) and discover_ask.c (lookups, the
 * registry) share. All of it is the discover thread's but where it says otherwise. */
#ifndef BEACON_GOSSIP_DISCOVER_STATE_H
#define BEACON_GOSSIP_DISCOVER_STATE_H

#include <pthread.h>
#include <sys/stat.h>
#include "gossip/discover.h"
#include "gossip/errand.h"
#include "gossip/registry_link.h"
#include "gossip/seeds.h"

enum {
    DISCOVER_LOOKUPS_MAX = 4, /* at a time: each takes a thread */
    DISCOVER_TEXTS = 7,
};

struct discover {
    /* Fixed by discover_open. */
    struct discover_config c;   /* its texts are our copies, or "" */
    char *text[DISCOVER_TEXTS]; /* to be freed */
    struct peer_name registry;
    SSL_CTX *tls;
    char advertise[PEER_TEXT_MAX]; /* with a port; "": the bound address */
    int stop;                      /* readable: everything is to end */
    int bell;                      /* readable: an errand is done */
    pthread_t thread;

    /* The thread. */
    struct seeds seeds;
    struct errand *lookup[DISCOVER_LOOKUPS_MAX];
    struct peer_name asked[DISCOVER_LOOKUPS_MAX];
    bool asked_service[DISCOVER_LOOKUPS_MAX], is_slow[DISCOVER_LOOKUPS_MAX];
    uint64_t slow_ns[DISCOVER_LOOKUPS_MAX]; /* when one is said to take long */
    struct errand *cycle;
    uint64_t cycle_ns;        /* when the next one begins */
    char addr[PEER_TEXT_MAX]; /* how we have registered the last time, "": not yet */
    enum ip_scope scope;      /* of our own address */
    uint64_t file_ns;         /* when the peers file is looked at */
    struct stat file;         /* of the peers file that was taken; all zero: none */
    uint64_t said_cycle, said_skipped, said_twice, said_file, said_full; /* hashes, as in say */

    /* Protects all below. Held for a few instructions only. */
    pthread_mutex_t lock;
    bool changed;
    unsigned count;
    struct gossip_seed result[GOSSIP_SEEDS_MAX];
    struct discover_status status;
};

/* FNV-1a, on from `h` (0: from the start). Two texts with one hash would only leave a line out. */
uint64_t discover_hash(uint64_t h, const char *text);
/* Says it unless it is what was said last about the same thing, whose hash is in `*said`. */
__attribute__((format(printf, 5, 6))) void discover_say(const struct discover *d, uint64_t *said,
                                                        bool bad, const char *what,
                                                        const char *format, ...);

/* Takes what lookups have found; begins those that are due. */
void discover_collect_lookups(struct discover *d, uint64_t now_ns);
void discover_start_lookups(struct discover *d, uint64_t now_ns);
/* The same for the cycle with the registry. */
void discover_collect_cycle(struct discover *d);
void discover_start_cycle(struct discover *d, uint64_t now_ns);

#endif
