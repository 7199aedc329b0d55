/* registry_link - one cycle with a registry: connects (with TLS or without), registers, takes the
 * list, hangs up. Blocks, for DISCOVER_WAIT_S at most once the registry's name is resolved, and
 * ends at once when `stop` becomes readable. Any thread; all it knows is in the cycle. */
#ifndef BEACON_GOSSIP_REGISTRY_LINK_H
#define BEACON_GOSSIP_REGISTRY_LINK_H

#include <openssl/ssl.h>
#include "gossip/registry.h"
#include "proto/endpoint.h"

enum { REGISTRY_TOKEN_MAX = 1024 };

struct registry_cycle {
    /* Set by who runs it. */
    struct peer_name at;
    SSL_CTX *tls; /* NULL: plain */
    uint32_t beacon_id;
    struct endpoint bound;
    char advertise[PEER_TEXT_MAX]; /* host and port, "": the bound ones */
    char token[REGISTRY_TOKEN_MAX];
    bool looks_first; /* take the list before, too: who registered our id since the last time? */
    int stop;

    /* The result. */
    bool registered, listed, looked;
    char addr[PEER_TEXT_MAX];       /* how we have registered */
    enum ip_scope scope;            /* of that address; of the local one, if it is a name */
    struct registry_list list;      /* when `listed` */
    struct registry_list before;    /* when `looked` */
    char error[REGISTRY_ERROR_MAX]; /* the first one, "" none */
};
void registry_cycle_run(struct registry_cycle *c);

/* Verifies by the CAs in the file, "": by the host's. NULL with the reason. */
SSL_CTX *registry_tls_open(const char *ca, char error[static REGISTRY_ERROR_MAX]);

#endif
