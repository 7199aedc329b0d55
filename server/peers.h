/* peers - other beacons, as relays need them: by index, and by the address they send from.
 *
 * Immutable once published (server_set_peers); lanes take the pointer once a batch, as they do with
 * the rules. Built by the mesh's thread. */
#ifndef BEACON_SERVER_PEERS_H
#define BEACON_SERVER_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/endpoint.h"

enum { PEERS_MAX = 1280, PEERS_NONE = 0xffff, PEERS_HASH = 4096 };

struct peer {
    struct endpoint at; /* port 0: this index is not in use */
    bool usable;        /* relays may go there */
};
struct peers {
    unsigned count;
    struct peer of[PEERS_MAX];
    uint16_t slot[PEERS_HASH]; /* open addressing by endpoint: index + 1, 0 empty */
};

/* Fills `slot` for what stands in count and of. */
void peers_index(struct peers *p);
/* The beacon that sends from `at`, PEERS_NONE: nobody. */
unsigned peers_find(const struct peers *p, const struct endpoint *at);

#endif
