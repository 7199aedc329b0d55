/* The exchanges of load.h: what each datagram says, and what must come back for it.
 *
 * The payload of a relayed datagram:
 * | run (32) | node (32) | sequence (64) | filler to the end | */
#include <stdlib.h>
#include "bench/load.h"
#include "bench/turn.h"
#include "proto/msg.h"

enum {
    STAMP_LEN = 16,
    FILLER_SAMPLE = 64, /* one datagram in so many has its filler compared */
    RUN_LEN = 4,
    STUN_MAGIC = 0x2112A442,
    STUN_XOR_MAPPED = 0x0020,
};

static uint8_t filler(size_t i)
{
    return (uint8_t)(i * 31 + 7);
}

static size_t head_len(const struct load *l)
{
    return l->target == TARGET_TURN ? TURN_HEAD_LEN : MSG_RELAY_HEAD_LEN;
}

static void relay_lay_out(struct load *l)
{
    for (unsigned i = 0; i < UDP_BATCH; i++) {
        uint8_t *payload = udp_at(&l->send, l->len, i) + head_len(l);
        for (size_t k = STAMP_LEN; k < l->len - head_len(l); k++)
            payload[k] = filler(k);
    }
    l->node = load_random(l, l->nodes);
}

static uint32_t next_node(struct load *l, unsigned i)
{
    bool other = l->pattern == PATTERN_RANDOM || (l->pattern == PATTERN_RUNS && i % RUN_LEN == 0);
    if (other)
        l->node = load_random(l, l->nodes);
    return l->node;
}

/* A flow in bulk has one sender. Random datagrams stand for many flows, so each claims its own. */
static uint32_t sender_of(const struct load *l, uint64_t seq)
{
    return l->pattern == PATTERN_RANDOM ? (uint32_t)seq : node_id(0);
}

static void relay_fill(struct load *l, unsigned i)
{
    uint32_t node = next_node(l, i);
    uint8_t *at = udp_at(&l->send, l->len, i);
    struct writer w = writer_of(at, l->len);
    if (l->target == TARGET_TURN) {
        turn_write_head(write_room(&w, TURN_HEAD_LEN), l->len - TURN_HEAD_LEN);
        if (i % l->segments == 0) /* a message has one source */
            udp_source(&l->send, i / l->segments,
                       turn_client(l->pattern == PATTERN_BULK ? 0 : load_random(l, TURN_CLIENTS)));
    } else {
        write_u8(&w, MSG_RELAY);
        write_u32(&w, sender_of(l, l->seq));
        write_u32(&w, node_id(node));
    }
    write_u32(&w, l->run);
    write_u32(&w, node);
    write_u64(&w, l->seq);
}

/* Consumes what the server puts before the payload. False: not what it should be. */
static bool head_is_right(const struct load *l, struct reader *r, uint32_t *ret_sender)
{
    if (l->target == TARGET_TURN)
        return true;
    uint8_t type = read_u8(r);
    *ret_sender = read_u32(r);
    if (l->target == TARGET_ECHO)
        read_u32(r);
    return type == (l->target == TARGET_ECHO ? MSG_RELAY : MSG_RELAY_DELIVER);
}

static bool filler_is_right(const struct reader *r)
{
    for (size_t i = 0; i < read_left(r); i++) {
        if (r->at[i] != filler(STAMP_LEN + i))
            return false;
    }
    return true;
}

/* The beacon delivers to the node's own address, the echo to any node's, coturn to its one peer. */
static bool address_is_right(const struct load *l, const struct udp_datagram *d, uint32_t node)
{
    switch (l->target) {
    case TARGET_BEACON:
        return d->came_to == node_ip(node);
    case TARGET_ECHO:
        return d->came_to - node_ip(0) < l->nodes;
    case TARGET_TURN:
        break;
    }
    return d->came_to == (uint32_t)UDP_LOOPBACK;
}

static enum arrival relay_check(struct load *l, const struct udp_datagram *d)
{
    struct reader r = reader_of(d->bytes, d->len);
    uint32_t sender = 0;
    bool head = head_is_right(l, &r, &sender);
    uint32_t run = read_u32(&r), node = read_u32(&r);
    uint64_t seq = read_u64(&r);
    if (!head || r.bad || node >= l->nodes)
        return ARRIVAL_WRONG;
    if (run != l->run)
        return ARRIVAL_LATE;
    if (read_left(&r) != l->len - head_len(l) - STAMP_LEN)
        return ARRIVAL_WRONG;
    if (l->target != TARGET_TURN && sender != sender_of(l, seq))
        return ARRIVAL_WRONG;
    if (!address_is_right(l, d, node))
        return ARRIVAL_WRONG;
    if (seq % FILLER_SAMPLE == 0 && !filler_is_right(&r))
        return ARRIVAL_WRONG;
    if (seq == l->last_seq[node])
        return ARRIVAL_WRONG; /* it came twice */
    l->tally.reordered += seq < l->last_seq[node];
    l->last_seq[node] = seq;
    return ARRIVAL_RIGHT;
}

const struct exchange relay_exchange = {relay_lay_out, relay_fill, relay_check};

static void write_discover_of(struct load *l, unsigned i, uint32_t node)
{
    struct writer w = writer_of(udp_at(&l->send, l->len, i), l->len);
    write_u8(&w, MSG_DISCOVER);
    write_u32(&w, node_id(node));
    udp_source(&l->send, i, node_ip(node));
}

static void discover_lay_out(struct load *l)
{
    l->node = UINT32_MAX; /* registration begins behind it, with node 0 */
}

static void discover_fill(struct load *l, unsigned i)
{
    write_discover_of(l, i, load_random(l, l->nodes));
}

/* The answer must name the very address that it came to. Which run it belongs to cannot be seen. */
static enum arrival discover_check(struct load *l, const struct udp_datagram *d)
{
    struct reader r = reader_of(d->bytes, d->len);
    uint32_t node = d->came_to - node_ip(0);
    bool right = read_u8(&r) == MSG_DISCOVER_REPLY && read_u8(&r) == 4;
    right &= read_u32(&r) == d->came_to;
    right &= read_u16(&r) == l->sink_port;
    if (!right || r.bad || read_left(&r) > 0 || node >= l->nodes)
        return ARRIVAL_WRONG;
    l->registered[node] = true;
    return ARRIVAL_RIGHT;
}

const struct exchange discover_exchange = {discover_lay_out, discover_fill, discover_check};

/* The next node without an answer. The run's count is the number of those, so there is one. */
static void register_fill(struct load *l, unsigned i)
{
    do
        l->node++;
    while (l->registered[l->node]);
    write_discover_of(l, i, l->node);
}

const struct exchange register_exchange = {discover_lay_out, register_fill, discover_check};

static void stun_lay_out(struct load *l)
{
    l->node = 0; /* unused */
}

/* As many sources as there are TURN clients, so that neighbours' answers go different ways. */
static void stun_fill(struct load *l, unsigned i)
{
    udp_source(&l->send, i, turn_client(load_random(l, TURN_CLIENTS)));
    struct writer w = writer_of(udp_at(&l->send, l->len, i), l->len);
    write_u16(&w, 0x0001); /* Binding request */
    write_u16(&w, 0);
    write_u32(&w, STUN_MAGIC);
    write_u32(&w, l->run);
    write_u64(&w, l->seq);
}

/* True when the attributes name the very address that the answer came to. */
static bool mapped_is_right(const struct load *l, struct reader r, uint32_t came_to)
{
    while (!r.bad && read_left(&r) > 0) {
        unsigned type = read_u16(&r);
        size_t len = read_u16(&r);
        struct reader value = read_sub(&r, len);
        read_sub(&r, -len & 3);
        if (type == STUN_XOR_MAPPED && read_u16(&value) == 0x0001)
            return (read_u16(&value) ^ STUN_MAGIC >> 16) == l->sink_port &&
                   (read_u32(&value) ^ STUN_MAGIC) == came_to;
    }
    return false;
}

static enum arrival stun_check(struct load *l, const struct udp_datagram *d)
{
    struct reader r = reader_of(d->bytes, d->len);
    unsigned type = read_u16(&r);
    size_t attributes_len = read_u16(&r);
    uint32_t cookie = read_u32(&r), run = read_u32(&r);
    uint64_t seq = read_u64(&r);
    if (r.bad || type != 0x0101 || cookie != STUN_MAGIC || attributes_len != read_left(&r))
        return ARRIVAL_WRONG;
    if (run != l->run)
        return ARRIVAL_LATE;
    bool right = seq <= l->seq && mapped_is_right(l, r, d->came_to);
    return right ? ARRIVAL_RIGHT : ARRIVAL_WRONG;
}

const struct exchange stun_exchange = {stun_lay_out, stun_fill, stun_check};
