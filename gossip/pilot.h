/* pilot - gossip with original beacons: type 0x07 in and out.
 *
 * The wire has no proof, no increments and no order: a Sync is the whole set of the nodes behind
 * one source address and port, and replaces the one before. So:
 * - In: each source is an owner of its own in the store (indices from STORE_MEMBERS_MAX), with 90 s
 *   to live. Strict: only from the address (any port) of a named peer. A set that lost more than
 *   half of its rows, an empty one above all, is a surprise: what is new is taken, but what is
 *   missing goes only when a Sync PILOT_CONFIRM_NS later, or later still, is such a surprise again
 *   and none between them was not. More than one Sync in PILOT_SPACING_NS from one source counts as
 *   flood and is dropped unread. Of the places for sources one is kept for each named address.
 * - Out: every PILOT_PERIOD_NS, to each original beacon, all own nodes. Up to PILOT_SLICE_NODES
 *   leave from the service port; more are cut into slices by a hash of the id, each from a port of
 *   its own (which must take 0x05), so that none ever exceeds a datagram. When the number of slices
 *   changes, a round sends both ways to cut, so that no id is ever out of all slices.
 *
 * Pure. Writes 0x07 with proto/wire. */
#ifndef BEACON_GOSSIP_PILOT_H
#define BEACON_GOSSIP_PILOT_H

#include "gossip/store.h"

enum {
    PILOT_SLICE_NODES = 4096, /* on average; 16 KiB a datagram */
    PILOT_SLICE_MAX = 16000,  /* never more: 64,007 bytes */
    PILOT_SLICES_MAX = 128,
    PILOT_PEERS_MAX = 64,
    PILOT_SOURCES_PER_PEER = 128, /* ports of one address */
};
#define PILOT_PERIOD_NS UINT64_C(10000000000)
#define PILOT_TTL_NS UINT64_C(90000000000)
/* Longer than the period: between two forged ones there is always one that is not. */
#define PILOT_CONFIRM_NS UINT64_C(11000000000)
#define PILOT_SPACING_NS UINT64_C(1000000000)

struct pilot;
size_t pilot_size(void);
struct pilot *pilot_init(void *memory, struct store *store, uint32_t beacon_id, bool strict);

/* The named original beacons; whole set. One that is not named any more loses its routes. */
void pilot_set_peers(struct pilot *p, const struct endpoint *peers, unsigned count,
                     uint64_t now_ns);
bool pilot_is_peer(const struct pilot *p, const struct endpoint *from); /* by address */

enum pilot_taken { PILOT_TAKEN, PILOT_HELD, PILOT_STRANGER, PILOT_SHORT, PILOT_LIMITED };
enum pilot_taken pilot_sync(struct pilot *p, const uint8_t *bytes, size_t len,
                            const struct endpoint *from, uint64_t now_ns);

/* Expires sources. */
void pilot_tick(struct pilot *p, uint64_t now_ns);

/* The next Sync to send by now; false: none before pilot_next_ns. `bytes` lie in p until the next
 * call. */
bool pilot_send(struct pilot *p, uint64_t now_ns, struct endpoint *ret_to, unsigned *ret_slice,
                const uint8_t **ret_bytes, size_t *ret_len);
uint64_t pilot_next_ns(const struct pilot *p);
unsigned pilot_slices(const struct pilot *p); /* local ports wanted, service port included: >= 1 */

/* Sources, for relays and status: index i is owner STORE_MEMBERS_MAX + i of the store. */
unsigned pilot_source_count(const struct pilot *p);
bool pilot_source(const struct pilot *p, unsigned index, struct endpoint *ret_at,
                  uint64_t *ret_heard_ns, uint32_t *ret_beacon); /* false: not in use */
bool pilot_sources_changed(struct pilot *p);                     /* since the last call */
unsigned pilot_peers(const struct pilot *p, struct endpoint *ret, unsigned max);

#endif
