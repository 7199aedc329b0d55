/* stun - STUN Binding (RFC 8489; RFC 3489 clients too): what a request asks, and its answers.
 *
 * Pure: a request is bytes plus the source they came from; the answer is bytes. Stateless.
 *
 *  0                   1                   2                   3
 * |0 0|  message type (14)    |       length of attributes        |
 * |                 magic cookie 0x2112A442                       |
 * |                 transaction id (96 bits)                      |
 */
#ifndef BEACON_PROTO_STUN_H
#define BEACON_PROTO_STUN_H

#include "proto/endpoint.h"
#include "proto/wire.h"

enum {
    STUN_HEAD_LEN = 20,
    STUN_COOKIE = 0x2112A442,
    STUN_FINGERPRINT_XOR = 0x5354554E,
    STUN_UNKNOWN_MAX = 32, /* UNKNOWN-ATTRIBUTES names at most so many: keeps the answer small */
    STUN_ANSWER_MAX = 20 + 8 + 4 + 2 * STUN_UNKNOWN_MAX + 8, /* the 420 answer with FINGERPRINT */
};

enum stun_type {
    STUN_BINDING_REQUEST = 0x0001,
    STUN_BINDING_INDICATION = 0x0011,
    STUN_BINDING_SUCCESS = 0x0101,
    STUN_BINDING_ERROR = 0x0111,
};

enum stun_attr_type {
    STUN_MAPPED_ADDRESS = 0x0001,
    STUN_CHANGE_REQUEST = 0x0003,
    STUN_USERNAME = 0x0006,
    STUN_MESSAGE_INTEGRITY = 0x0008,
    STUN_ERROR_CODE = 0x0009,
    STUN_UNKNOWN_ATTRIBUTES = 0x000A,
    STUN_XOR_MAPPED_ADDRESS = 0x0020,
    STUN_FINGERPRINT = 0x8028,
};

/* What a datagram whose first byte is 0x00 turned out to be. */
enum stun_verdict {
    STUN_REQUEST,          /* a Binding request to answer with stun_answer */
    STUN_UNKNOWN_REQUIRED, /* the same, with attributes we must understand and do not: 420 */
    STUN_INDICATION,       /* no answer (RFC 8489, 6.3.2) */
    STUN_RESPONSE,         /* no answer */
    STUN_BAD_FINGERPRINT,  /* FINGERPRINT present and wrong: not STUN, no answer */
    STUN_MALFORMED,        /* header, lengths or method wrong: no answer */
};

struct stun_request {
    const uint8_t *id; /* 16 bytes of the message: cookie and transaction id; RFC 3489: all id */
    bool legacy;       /* no magic cookie: an RFC 3489 client */
    bool fingerprint;  /* asked with FINGERPRINT: answer with it */
    uint8_t unknown_count;
    uint16_t unknown[STUN_UNKNOWN_MAX]; /* comprehension-required types we do not know */
};

/* Checks the header, every attribute header and FINGERPRINT. Fills `ret` for the first two verdicts
 * only. Attributes that are known but not ours (USERNAME, MESSAGE-INTEGRITY, ICE) are ignored; a
 * CHANGE-REQUEST with all flags 0 counts as absent, with a flag set as unknown (one address). */
enum stun_verdict stun_read(const uint8_t *bytes, size_t len, struct stun_request *ret);

/* Writes the answer to `q` from `source`: success with XOR-MAPPED-ADDRESS (MAPPED-ADDRESS for a
 * legacy client), or 420 with UNKNOWN-ATTRIBUTES when q->unknown_count > 0. Adds FINGERPRINT when
 * it was asked with. At most STUN_ANSWER_MAX bytes. */
void stun_answer(struct writer *w, const struct stun_request *q, const struct endpoint *source);

/* Client side: a bare Binding request; and the mapped address in a success response to `id`
 * (XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS). False: no such response. */
void stun_write_request(struct writer *w, const uint8_t id[static 12], bool fingerprint);
bool stun_read_mapped(const uint8_t *bytes, size_t len, const uint8_t id[static 12],
                      struct endpoint *ret);

/* CRC-32 (ISO 3309) as FINGERPRINT uses it, before the XOR. */
uint32_t stun_crc32(const uint8_t *bytes, size_t len);

#endif
