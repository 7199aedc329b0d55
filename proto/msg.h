/* msg - the Pilot beacon protocol, types 0x01 to 0x0A: bytes <-> structs.
 *
 * One datagram is one message; byte 0 is its type; integers are big-endian. Readers accept what a
 * deployed beacon accepts (trailing bytes are ignored where docs/PROTOCOL.md says so) and writers
 * make the one canonical form. Pure; borrows the bytes. */
#ifndef BEACON_PROTO_MSG_H
#define BEACON_PROTO_MSG_H

#include "proto/endpoint.h"
#include "proto/wire.h"

enum msg_type {
    MSG_DISCOVER = 0x01,
    MSG_DISCOVER_REPLY = 0x02,
    MSG_PUNCH_REQUEST = 0x03,
    MSG_PUNCH_COMMAND = 0x04,
    MSG_RELAY = 0x05,
    MSG_RELAY_DELIVER = 0x06,
    MSG_SYNC = 0x07,
    MSG_DISCOVER_EX = 0x08,
    MSG_RELAY_DELIVER_DEST = 0x09,
    MSG_NOTIFY = 0x0A,
};

enum {
    MSG_KEY_LEN = 32,       /* Ed25519 public key */
    MSG_SIGNATURE_LEN = 64, /* Ed25519 signature */
    MSG_DISCOVER_LEN = 5,
    MSG_DISCOVER_KEY_LEN = 37,
    MSG_PUNCH_LEN = 9,
    MSG_PUNCH_GRANT_LEN = 81,
    MSG_RELAY_HEAD_LEN = 9,   /* 0x05 and 0x09: type, sender, destination */
    MSG_DELIVER_HEAD_LEN = 5, /* 0x06: type, sender */
    MSG_REPLY_MAX = 20,       /* DiscoverReply and PunchCommand with an IPv6 address */
    MSG_NOTIFY_HANDSHAKE = 0x01,
};

/* What a datagram that reached a beacon is, judged by its first bytes and its length alone. */
enum msg_kind {
    MSG_KIND_EMPTY,
    MSG_KIND_DISCOVER,       /* 0x01 or 0x08, long enough */
    MSG_KIND_PUNCH,          /* 0x03, long enough */
    MSG_KIND_RELAY,          /* 0x05, long enough */
    MSG_KIND_SYNC,           /* 0x07 */
    MSG_KIND_STUN,           /* first byte 0x00: no Pilot type, so STUN or nothing */
    MSG_KIND_STUN_REFLECTED, /* a STUN response: type 0x01xx would else read as a Discover */
    MSG_KIND_GOSSIP,         /* 0x20, long enough: sealed, from another beacon; see gossipmsg.h */
    MSG_KIND_FOR_NODES,      /* 0x02, 0x04, 0x06, 0x09, 0x0A: only beacons send these */
    MSG_KIND_SHORT,          /* a known type, too short for its fixed part */
    MSG_KIND_UNKNOWN,        /* any other first byte */
};

enum msg_kind msg_kind(const uint8_t *bytes, size_t len);

struct msg_discover {
    bool wants_dest; /* 0x08: deliver with the destination id (0x09) */
    uint32_t node_id;
    const uint8_t *key; /* MSG_KEY_LEN bytes inside the message, or NULL */
};

struct msg_punch {
    uint32_t requester, target;
    const uint8_t *grant_signature; /* MSG_SIGNATURE_LEN bytes inside the message, or NULL */
    int64_t grant_expiry;           /* Unix seconds, read as signed */
};

struct msg_relay {
    uint32_t sender, dest;
    const uint8_t *payload;
    size_t payload_len;
};

/* False: not that message. The struct is untouched then. */
bool read_discover(const uint8_t *bytes, size_t len, struct msg_discover *ret);
bool read_punch(const uint8_t *bytes, size_t len, struct msg_punch *ret);
bool read_relay(const uint8_t *bytes, size_t len, struct msg_relay *ret);
/* DiscoverReply or PunchCommand: the address in it. Type must match; length 4 or 16 only. */
bool read_address(const uint8_t *bytes, size_t len, enum msg_type type, struct endpoint *ret);

void write_discover(struct writer *w, const struct msg_discover *m);
void write_punch(struct writer *w, const struct msg_punch *m);
void write_relay(struct writer *w, const struct msg_relay *m);
void write_address(struct writer *w, enum msg_type type, const struct endpoint *e);
void write_notify(struct writer *w, uint8_t kind);

/* The text that a punch grant signs: "punch-grant:<requester>:<target>:<expiry>", decimal.
 * Returns its length. */
enum { MSG_GRANT_TEXT_MAX = 64 };
size_t punch_grant_text(const struct msg_punch *m, char text[static MSG_GRANT_TEXT_MAX]);

/* The two header rewrites of a relay, in place: the payload does not move. `relay` holds a whole
 * 0x05 message. msg_deliver_dest makes it 0x09 (same length, returns `relay`); msg_deliver makes it
 * 0x06, which starts 4 bytes later (returns relay + 4). Pure functions of the header. */
uint8_t *msg_deliver_dest(uint8_t *relay);
uint8_t *msg_deliver(uint8_t *relay);

#endif
