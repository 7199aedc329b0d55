/* gossipmsg - the sealed gossip between beacons: header of a frame, and the msgpack body behind it.
 *
 * A frame is one UDP datagram of at most GOSSIP_FRAME_MAX bytes:
 *
 *   0x20 | version 1 | key id | kind | sender (4) | receiver (4) | boot (8) | sequence (8)
 *   | nonce (24) | ciphertext | tag (16)                             numbers big-endian
 *
 * The first 28 bytes are authenticated, not hidden; gossip/seal.h seals and opens. The plaintext
 * is one msgpack array of a fixed shape a kind. It is written with msgpack-c and read with a pull
 * reader of our own that allocates nothing and takes no counts on trust: a shape that is not
 * exactly as wanted is a false. Unsigned numbers are taken in every encoding that can hold them.
 * Extra elements at the end of a record are skipped, up to MP_SKIP_DEPTH arrays deep, so that a
 * later version may add some; a list has no extra elements, and bytes behind the record are an
 * error. Ids of beacons are never 0.
 *
 * Pure; every function may be called from any thread. */
#ifndef BEACON_PROTO_GOSSIPMSG_H
#define BEACON_PROTO_GOSSIPMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/endpoint.h"

enum {
    GOSSIP_TYPE = 0x20,
    GOSSIP_VERSION = 1,
    GOSSIP_FRAME_MAX = 1232, /* fits every path: IPv6 minimum MTU less headers */
    GOSSIP_HEAD_LEN = 28,
    GOSSIP_NONCE_LEN = 24,
    GOSSIP_TAG_LEN = 16,
    GOSSIP_SEAL_LEN = GOSSIP_HEAD_LEN + GOSSIP_NONCE_LEN + GOSSIP_TAG_LEN,
    GOSSIP_BODY_MAX = GOSSIP_FRAME_MAX - GOSSIP_SEAL_LEN,
    GOSSIP_CHALLENGE_LEN = 16,
    GOSSIP_STATE_MAX = 200,  /* bytes of a beacon's state record */
    GOSSIP_MEMBERS_MAX = 32, /* in one frame */
    GOSSIP_DIGEST_MAX = 64,
    GOSSIP_ROWS_MAX = 384,
};

enum gossip_kind {
    GOSSIP_HELLO = 1,   /* proves that a boot is alive now: challenge and echo */
    GOSSIP_PING = 2,    /* are you there? */
    GOSSIP_ACK = 3,     /* yes; or, for a GOSSIP_PROBE, the target answered */
    GOSSIP_PROBE = 4,   /* ping this one for me */
    GOSSIP_MEMBERS = 5, /* what is known about beacons */
    GOSSIP_DIGEST = 6,  /* how far the sender knows each owner's log */
    GOSSIP_DELTA = 7,   /* a piece of an owner's log */
    GOSSIP_KIND_COUNT
};

/* --- the header --- */

struct gossip_head {
    uint8_t key_id;
    uint8_t kind;      /* enum gossip_kind, unchecked */
    uint32_t sender;   /* beacon id, never 0 */
    uint32_t receiver; /* 0: whoever is at that address (a HELLO to a seed) */
    uint64_t boot;     /* of the sender: larger after each start */
    uint64_t sequence; /* larger with each frame of this boot */
};

/* False: not a frame of this version, too short or long for one, or from nobody (id 0). */
bool read_gossip_head(const uint8_t *frame, size_t len, struct gossip_head *ret);
void write_gossip_head(uint8_t frame[static GOSSIP_HEAD_LEN], const struct gossip_head *h);

/* --- bodies: each write_ returns the length, 0 when it does not fit `room`; each read_ is false
 * for anything but its shape, and what it returns by array or as a delta then holds nothing of use.
 * Pointers in results point into `body`. --- */

/* [challenge, echo]; each 16 bytes or nil. One that is padded has a third element, and so the
 * length of one that has both: its answer is no longer than itself. */
struct gossip_hello {
    const uint8_t *challenge; /* GOSSIP_CHALLENGE_LEN bytes or NULL: prove yourself */
    const uint8_t *echo;      /* what the receiver had asked */
    bool padded;              /* to be written; a reader does not tell */
};
enum { GOSSIP_HELLO_FULL = 3 + 2 * (1 + GOSSIP_CHALLENGE_LEN) + 2 }; /* bytes of a padded body */
size_t write_gossip_hello(uint8_t *body, size_t room, const struct gossip_hello *m);
bool read_gossip_hello(const uint8_t *body, size_t len, struct gossip_hello *ret);

/* PING and ACK: [number, subject, view, lag]. PROBE: [number, subject, view, lag, endpoint]. */
struct gossip_ping {
    uint64_t number;    /* chosen by who asks, comes back in the ACK */
    uint32_t subject;   /* PING: the receiver's id; PROBE: who to ping; ACK: who answered */
    uint64_t view;      /* hash of what the sender knows: all members and versions, see gossip.c */
    uint32_t lag_ms;    /* how late the sender's own clockwork runs (Lifeguard) */
    struct endpoint at; /* PROBE: where the subject is */
};
size_t write_gossip_ping(uint8_t *body, size_t room, enum gossip_kind kind,
                         const struct gossip_ping *m);
bool read_gossip_ping(const uint8_t *body, size_t len, enum gossip_kind kind,
                      struct gossip_ping *ret);

/* MEMBERS: [[id, boot, incarnation, state, endpoint], ...]. Written are as many as fit, up to
 * GOSSIP_MEMBERS_MAX, from the first on; when there are some and not one fits the length is 0. */
enum member_state { MEMBER_ALIVE, MEMBER_SUSPECT, MEMBER_DEAD, MEMBER_LEFT, MEMBER_STATE_COUNT };
struct member_fact {
    uint32_t id;
    uint64_t boot;
    uint32_t incarnation; /* raised by the member itself to refute a suspicion */
    uint8_t state;        /* enum member_state, checked */
    struct endpoint at;   /* port 0: unknown */
};
size_t write_gossip_members(uint8_t *body, size_t room, const struct member_fact *facts,
                            unsigned count, unsigned *ret_written);
bool read_gossip_members(const uint8_t *body, size_t len,
                         struct member_fact ret[static GOSSIP_MEMBERS_MAX], unsigned *ret_count);

/* DIGEST: [flags, [owner, boot, version, owner, boot, version, ...]]. Written are as many as fit,
 * as with members; when not all do, DIGEST_COMPLETE is left out of the flags, as it would be a lie.
 * Flags are 7 bits. */
enum {
    DIGEST_ASKS = 1,     /* answer with yours */
    DIGEST_COMPLETE = 2, /* the whole knowledge is in this one frame: of others I know nothing */
};
struct digest_entry {
    uint32_t owner; /* beacon id */
    uint64_t boot, version;
};
size_t write_gossip_digest(uint8_t *body, size_t room, unsigned flags,
                           const struct digest_entry *entries, unsigned count,
                           unsigned *ret_written);
bool read_gossip_digest(const uint8_t *body, size_t len, unsigned *ret_flags,
                        struct digest_entry ret[static GOSSIP_DIGEST_MAX], unsigned *ret_count);

/* DELTA: [owner, boot, from, to, top, [row, row, ...]]: all of the owner's facts whose latest
 * version lies in (from, to], in order of version. A row is id, meta, gap (version less that of the
 * row before, of `from` for the first); then for id 0 the owner's state record as bin, and for
 * others with DELTA_PROOF in meta a proof as bin. Proofs are not used yet: a reader skips them and
 * takes DELTA_PROOF out of meta, a writer leaves it out. All rows are elements of one array.
 * A delta whose `from` is 0 begins a new count: it replaces what is known of that owner. */
enum {
    DELTA_CLASS = 7,  /* of meta: how well the node's holder is proven, as in server/route.h */
    DELTA_STREAM = 8, /* it is reached through a session */
    DELTA_GONE = 16,  /* it is no longer there */
    DELTA_PROOF = 32, /* a signed proof of the node follows */
};
struct delta_row {
    uint32_t id; /* 0: the state of the beacon itself */
    uint8_t meta;
    uint64_t version;
};
struct gossip_delta {
    uint32_t owner;
    uint64_t boot, from, to;
    uint64_t top;         /* the owner's version as the sender knows it */
    const uint8_t *state; /* of row 0, NULL: none in this delta */
    unsigned state_len;
    unsigned row_count;
    struct delta_row row[GOSSIP_ROWS_MAX];
};
/* Bytes that a row takes at most, and all but the rows; the bytes of the state aside. A writer
 * stops in time with these. */
enum { DELTA_ROW_MAX = 16, DELTA_HEAD_MAX = 48 };
size_t write_gossip_delta(uint8_t *body, size_t room, const struct gossip_delta *m);
/* False too when versions do not rise or leave (from, to], when there are two states or one is
 * longer than GOSSIP_STATE_MAX. `top` is as the sender says. */
bool read_gossip_delta(const uint8_t *body, size_t len, struct gossip_delta *ret);

/* A beacon's state record: [flags, nodes, nodes_max, level, [endpoint, ...], version text]. Any
 * fits GOSSIP_STATE_MAX. */
enum { STATE_ENDPOINTS_MAX = 4, STATE_VERSION_MAX = 32 };
struct beacon_state {
    bool draining;
    uint32_t nodes, nodes_max;
    uint8_t level; /* of overload, 0: none */
    unsigned endpoint_count;
    struct endpoint endpoint[STATE_ENDPOINTS_MAX]; /* where nodes reach it */
    char version[STATE_VERSION_MAX];               /* of the program, NUL-ended, printable ASCII */
};
size_t write_beacon_state(uint8_t *bytes, size_t room, const struct beacon_state *s);
bool read_beacon_state(const uint8_t *bytes, size_t len, struct beacon_state *ret);

#endif
