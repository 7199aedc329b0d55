/* sync - brings logs from beacon to beacon: a link a neighbour, deltas with a window, digests as
 * acknowledgements.
 *
 * A link remembers how far its peer knows each owner's log. What the peer lacks is sent in pieces,
 * up to SYNC_WINDOW unacknowledged ones a link, the next as soon as one is acknowledged; what stays
 * unacknowledged for a round trip's time (SYNC_RETRY_MIN_NS at least) is sent again. The receiver
 * applies pieces in order, keeps those that came too early (SYNC_HOLD_MAX in all) and answers with
 * a digest of the owners concerned. A delta from a peer also tells that the peer has it: nothing
 * goes back.
 *
 * A digest entry with boot 0 and a version says something about the owner of the entry before it:
 * that a piece is held which ends there, so that only holes are sent again; or, with the highest
 * bit set, where the log stood when the receiver began to take it from the start. A log with purged
 * tombstones behind its first piece waits for that before the second: a piece must not join what is
 * left of an earlier start. An entry with boot and version 0: nothing is known.
 *
 * Who lags is asked first, before others than the owner bring it a log, so that one does it. A
 * question is answered about the owners that it names, and about all when it is complete.
 *
 * Our own changes go to every link at once (changes of SYNC_COALESCE_NS together). Those of others
 * are passed on at once where the mesh is sparse (`relays`), and only after SYNC_LAZY_NS where the
 * owner itself reaches everybody (four times that while it is usable): then only what got lost is
 * sent twice. Whole logs wait up to SYNC_LAZY_NS in a sparse mesh too.
 *
 * Pure: it changes the store, and gives bodies to send. One thread. */
#ifndef BEACON_GOSSIP_SYNC_H
#define BEACON_GOSSIP_SYNC_H

#include "gossip/member.h"
#include "gossip/store.h"

enum {
    SYNC_LINKS_MAX = 40, /* neighbours, and some for a while with others */
    SYNC_WINDOW = 64,
    SYNC_HOLD_MAX = 256, /* bodies that came too early, of all links */
};
#define SYNC_COALESCE_NS UINT64_C(100000000)
#define SYNC_ACK_NS UINT64_C(20000000) /* acknowledged no later than this */
#define SYNC_RETRY_MIN_NS UINT64_C(200000000)
#define SYNC_LAZY_NS UINT64_C(1000000000)
#define SYNC_DIGEST_NS UINT64_C(1000000000) /* a digest that was not answered is sent again */

struct sync;
size_t sync_size(void);
struct sync *sync_init(void *memory, struct store *store, const struct members *members);

/* The links that there should be; others end when they are idle. `relays`: see above. */
void sync_links(struct sync *s, const unsigned *neighbours, unsigned count, bool relays,
                uint64_t now_ns);
/* The peer has another view of the world than we (its ping said so): exchange digests, though it
 * may be no neighbour. */
void sync_differs(struct sync *s, unsigned member, uint64_t now_ns);
/* The member has a new boot, or is gone: what it knew is forgotten. */
void sync_reset(struct sync *s, unsigned member);

/* Bodies that came from a member. False: malformed. An owner that is no member yet is ignored. */
bool sync_digest(struct sync *s, unsigned member, const uint8_t *body, size_t len, uint64_t now_ns);
bool sync_delta(struct sync *s, unsigned member, const uint8_t *body, size_t len, uint64_t now_ns);

/* The next body to send now; false: none before sync_next_ns. */
struct sync_out {
    unsigned member;
    enum gossip_kind kind;
    size_t len;
    uint8_t body[GOSSIP_BODY_MAX];
};
bool sync_next(struct sync *s, uint64_t now_ns, struct sync_out *ret);
uint64_t sync_next_ns(const struct sync *s);

/* For status: pieces sent (those sent again included), sent again; pieces that came: applied, known
 * already, kept for later, not kept for want of room. */
struct sync_stats {
    uint64_t deltas_sent, deltas_again, deltas_taken, deltas_known, deltas_held, held_full;
};
const struct sync_stats *sync_stats(const struct sync *s);
/* Does every neighbour's last digest equal ours? */
bool sync_settled(const struct sync *s);

#endif
