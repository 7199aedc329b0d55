/* register - who owns a node id: the one place that writes the node table.
 *
 * An id belongs to the address that holds it. From the same IP address another port is taken at
 * once (NATs rebind). Another IP address waits until the old endpoint has been silent for
 * takeover-silence, and then starts anew: without the old holder's key. Id 0 is nobody's. New ids
 * pass the address policy, the prefix quotas and, when the table fills, the nursery (come twice, in
 * different seconds). */
#ifndef BEACON_SERVER_REGISTER_H
#define BEACON_SERVER_REGISTER_H

#include "server/server.h"

enum registration {
    REGISTERED_NEW,
    REGISTERED_SAME,  /* same endpoint: refreshed */
    REGISTERED_MOVED, /* other port, or takeover of a silent id */
    REFUSED_ID_ZERO,
    REFUSED_CONFLICT,
    REFUSED_ADDRESS,
    REFUSED_QUOTA,
    REFUSED_NURSERY,
    REFUSED_FULL,
};

/* How a message asks to be registered. */
struct claim {
    uint32_t node_id;
    const uint8_t *key; /* MSG_KEY_LEN bytes or NULL; kept when the holder gave none before */
    enum { CLAIM_DEST_KEEP, CLAIM_DEST_SET, CLAIM_DEST_CLEAR } dest; /* 0x03, 0x08, 0x01 */
};

static inline bool registration_ok(enum registration r)
{
    return r <= REGISTERED_MOVED;
}

/* Owner only. Decides and, if granted, writes. */
enum registration register_node(struct lane *l, const struct datagram *d, const struct claim *claim,
                                const struct moment *now);

#endif
