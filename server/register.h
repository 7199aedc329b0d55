/* register - who owns a node id: the one place that writes the node table.
 *
 * An id belongs to the address that holds it. From the same IP address another port is taken at
 * once (NATs rebind). Another IP address waits until the old endpoint has been silent for
 * takeover-silence, and then starts anew: without the old holder's key. Id 0 is nobody's. New ids
 * pass the address policy, the prefix quotas and, when the table fills, the nursery (come twice, in
 * different seconds).
 *
 * A session has proved to hold a key, so its row yields to no datagram until it is silent, wherever
 * the datagram comes from, and what takes it over starts anew as unverified. Which rows a session
 * takes depends on how its key came to be trusted:
 *
 *   held by                             ROUTE_SIGNED session           ROUTE_KEYED session
 *   UDP, at the session's IP address    at once                        at once
 *   UDP, elsewhere                      after takeover-silence         at once
 *   a session with the same key         at once                        at once
 *   a session with another key          never: until it ends           at once
 *
 * It passes the quotas, but no address policy (nothing is sent there by UDP) and no nursery. */
#ifndef BEACON_SERVER_REGISTER_H
#define BEACON_SERVER_REGISTER_H

#include "server/server.h"
#include "server/session.h"

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

/* Owner only. The same for a session: its row is marked ROUTE_STREAM and has its key, in place of
 * any other. Called again it refreshes. */
enum registration register_session(struct lane *l, const struct session *s,
                                   const struct moment *now);
/* Owner only. Removes the session's row. False: it holds none, another session or UDP does. */
bool register_session_end(struct lane *l, uint32_t node_id, const struct endpoint *from);

#endif
