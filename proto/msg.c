#include "proto/msg.h"

#include <inttypes.h>
#include <stdio.h>

#include "proto/gossipmsg.h"
#include "proto/stun.h"

enum { GRANT_LEN = 8 + MSG_SIGNATURE_LEN };
static_assert(MSG_DISCOVER_KEY_LEN == MSG_DISCOVER_LEN + MSG_KEY_LEN, "Discover with key");
static_assert(MSG_PUNCH_GRANT_LEN == MSG_PUNCH_LEN + GRANT_LEN, "PunchRequest with grant");
static_assert(MSG_REPLY_MAX == 2 + 16 + 2, "type, length, IPv6 address, port");

/* Somebody made a STUN server answer us: read as a Discover it would register a junk id. A header
 * that fits to the last bit is no accident, and no Discover that nodes send (5 or 37 bytes) has a
 * length that fits. */
static bool stun_reflected(const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    uint16_t type = read_u16(&r);
    size_t attrs_len = read_u16(&r);
    uint32_t cookie = read_u32(&r);
    return len >= STUN_HEAD_LEN && (type == STUN_BINDING_SUCCESS || type == STUN_BINDING_ERROR) &&
           attrs_len == len - STUN_HEAD_LEN && attrs_len % 4 == 0 && cookie == STUN_COOKIE;
}

static enum msg_kind at_least(size_t len, size_t len_min, enum msg_kind kind)
{
    return len >= len_min ? kind : MSG_KIND_SHORT;
}

enum msg_kind msg_kind(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return MSG_KIND_EMPTY;
    switch (bytes[0]) {
    case 0x00:
        return MSG_KIND_STUN;
    case MSG_RELAY:
        return at_least(len, MSG_RELAY_HEAD_LEN, MSG_KIND_RELAY);
    case MSG_DISCOVER:
        if (stun_reflected(bytes, len))
            return MSG_KIND_STUN_REFLECTED;
        return at_least(len, MSG_DISCOVER_LEN, MSG_KIND_DISCOVER);
    case MSG_DISCOVER_EX:
        return at_least(len, MSG_DISCOVER_LEN, MSG_KIND_DISCOVER);
    case MSG_PUNCH_REQUEST:
        return at_least(len, MSG_PUNCH_LEN, MSG_KIND_PUNCH);
    case MSG_SYNC:
        return MSG_KIND_SYNC;
    case GOSSIP_TYPE:
        return at_least(len, GOSSIP_SEAL_LEN, MSG_KIND_GOSSIP);
    case MSG_DISCOVER_REPLY:
    case MSG_PUNCH_COMMAND:
    case MSG_RELAY_DELIVER:
    case MSG_RELAY_DELIVER_DEST:
    case MSG_NOTIFY:
        return MSG_KIND_FOR_NODES;
    default:
        return MSG_KIND_UNKNOWN;
    }
}

/* 0x01 or 0x08, node id, and a key if the tail is long enough for one; a shorter or longer tail is
 * ignored.
 *
 * | type 1 | node id 4 | key 32 (optional) | */
bool read_discover(const uint8_t *bytes, size_t len, struct msg_discover *ret)
{
    if (msg_kind(bytes, len) != MSG_KIND_DISCOVER)
        return false;
    struct reader r = reader_of(bytes, len);
    struct msg_discover m = {.wants_dest = read_u8(&r) == MSG_DISCOVER_EX};
    m.node_id = read_u32(&r);
    if (read_left(&r) >= MSG_KEY_LEN)
        m.key = read_bytes(&r, MSG_KEY_LEN);
    *ret = m;
    return true;
}

void write_discover(struct writer *w, const struct msg_discover *m)
{
    write_u8(w, m->wants_dest ? MSG_DISCOVER_EX : MSG_DISCOVER);
    write_u32(w, m->node_id);
    if (m->key)
        write_bytes(w, m->key, MSG_KEY_LEN);
}

/* The grant is there or not as a whole.
 *
 * | 03 | requester 4 | target 4 | expiry 8 | signature 64 | */
bool read_punch(const uint8_t *bytes, size_t len, struct msg_punch *ret)
{
    if (msg_kind(bytes, len) != MSG_KIND_PUNCH)
        return false;
    struct reader r = reader_of(bytes, len);
    read_u8(&r);
    struct msg_punch m = {.requester = read_u32(&r)};
    m.target = read_u32(&r);
    if (read_left(&r) >= GRANT_LEN) {
        m.grant_expiry = (int64_t)read_u64(&r);
        m.grant_signature = read_bytes(&r, MSG_SIGNATURE_LEN);
    }
    *ret = m;
    return true;
}

void write_punch(struct writer *w, const struct msg_punch *m)
{
    write_u8(w, MSG_PUNCH_REQUEST);
    write_u32(w, m->requester);
    write_u32(w, m->target);
    if (m->grant_signature) {
        write_u64(w, (uint64_t)m->grant_expiry);
        write_bytes(w, m->grant_signature, MSG_SIGNATURE_LEN);
    }
}

/* | 05 | sender 4 | destination 4 | payload | */
bool read_relay(const uint8_t *bytes, size_t len, struct msg_relay *ret)
{
    struct reader r = reader_of(bytes, len);
    uint8_t type = read_u8(&r);
    struct msg_relay m = {.sender = read_u32(&r)};
    m.dest = read_u32(&r);
    if (r.bad || type != MSG_RELAY)
        return false;
    m.payload = r.at;
    m.payload_len = read_left(&r);
    *ret = m;
    return true;
}

void write_relay(struct writer *w, const struct msg_relay *m)
{
    write_u8(w, MSG_RELAY);
    write_u32(w, m->sender);
    write_u32(w, m->dest);
    write_bytes(w, m->payload, m->payload_len);
}

/* | 02 or 04 | L | address L | port 2 | */
bool read_address(const uint8_t *bytes, size_t len, enum msg_type type, struct endpoint *ret)
{
    struct reader r = reader_of(bytes, len);
    uint8_t got = read_u8(&r);
    size_t ip_len = read_u8(&r);
    const uint8_t *ip = read_bytes(&r, ip_len);
    uint16_t port = read_u16(&r);
    if (r.bad || got != type || (ip_len != 4 && ip_len != 16))
        return false;
    *ret = endpoint_of(ip, ip_len, port);
    return true;
}

/* IPv4 is always four bytes, never IPv4-mapped: nodes compare it with what their socket shows. */
void write_address(struct writer *w, enum msg_type type, const struct endpoint *e)
{
    uint8_t ip_len = endpoint_is_v4(e) ? 4 : 16;
    write_u8(w, (uint8_t)type);
    write_u8(w, ip_len);
    write_bytes(w, e->ip + sizeof e->ip - ip_len, ip_len);
    write_u16(w, e->port);
}

void write_notify(struct writer *w, uint8_t kind)
{
    write_u8(w, MSG_NOTIFY);
    write_u8(w, kind);
}

size_t punch_grant_text(const struct msg_punch *m, char text[static MSG_GRANT_TEXT_MAX])
{
    int len = snprintf(text, MSG_GRANT_TEXT_MAX, "punch-grant:%" PRIu32 ":%" PRIu32 ":%" PRId64,
                       m->requester, m->target, m->grant_expiry);
    assert(len > 0);
    assert(len < MSG_GRANT_TEXT_MAX);
    return (size_t)len;
}

uint8_t *msg_deliver_dest(uint8_t *relay)
{
    relay[0] = MSG_RELAY_DELIVER_DEST;
    return relay;
}

/* The sender id moves over the destination id, which the node does not get. */
uint8_t *msg_deliver(uint8_t *relay)
{
    uint8_t *deliver = relay + (MSG_RELAY_HEAD_LEN - MSG_DELIVER_HEAD_LEN);
    memcpy(deliver + 1, relay + 1, 4);
    deliver[0] = MSG_RELAY_DELIVER;
    return deliver;
}
