#include "proto/gossipmsg.h"

#include <assert.h>
#include "proto/mp.h"
#include "proto/wire.h"

enum { STATE_DRAINING = 1 };

static_assert(GOSSIP_KIND_COUNT <= UINT8_MAX, "a kind is one byte");
static_assert(MEMBER_STATE_COUNT <= UINT8_MAX, "a state is one byte");

/* --- the header --- */

/*  0                   1                   2                   3
 * |     0x20      |  version 1    |    key id     |     kind      |
 * |                           sender id                           |
 * |                     receiver id, 0: anybody                   |
 * |                        boot (8 bytes)                         |
 * |                      sequence (8 bytes)                       | */
bool read_gossip_head(const uint8_t *frame, size_t len, struct gossip_head *ret)
{
    if (len < GOSSIP_SEAL_LEN || len > GOSSIP_FRAME_MAX)
        return false;
    struct reader r = reader_of(frame, GOSSIP_HEAD_LEN);
    if (read_u8(&r) != GOSSIP_TYPE || read_u8(&r) != GOSSIP_VERSION)
        return false;
    struct gossip_head h = {.key_id = read_u8(&r)};
    h.kind = read_u8(&r);
    h.sender = read_u32(&r);
    h.receiver = read_u32(&r);
    h.boot = read_u64(&r);
    h.sequence = read_u64(&r);
    if (h.sender == 0)
        return false;
    *ret = h;
    return true;
}

void write_gossip_head(uint8_t frame[static GOSSIP_HEAD_LEN], const struct gossip_head *h)
{
    assert(h->sender != 0);
    struct writer w = writer_of(frame, GOSSIP_HEAD_LEN);
    write_u8(&w, GOSSIP_TYPE);
    write_u8(&w, GOSSIP_VERSION);
    write_u8(&w, h->key_id);
    write_u8(&w, h->kind);
    write_u32(&w, h->sender);
    write_u32(&w, h->receiver);
    write_u64(&w, h->boot);
    write_u64(&w, h->sequence);
    assert(written(&w) == GOSSIP_HEAD_LEN);
}

/* --- HELLO --- */

static void pack_challenge(msgpack_packer *p, const uint8_t *challenge)
{
    if (challenge)
        mp_pack_bin(p, challenge, GOSSIP_CHALLENGE_LEN);
    else
        msgpack_pack_nil(p);
}

static const uint8_t *read_challenge(struct reader *r)
{
    return mp_nil(r) ? NULL : mp_bin_of(r, GOSSIP_CHALLENGE_LEN);
}

size_t write_gossip_hello(uint8_t *body, size_t room, const struct gossip_hello *m)
{
    struct writer w = writer_of(body, room);
    msgpack_packer p = mp_packer(&w);
    msgpack_pack_array(&p, m->padded ? 3 : 2);
    pack_challenge(&p, m->challenge);
    pack_challenge(&p, m->echo);
    if (m->padded) {
        static const uint8_t zeros[2 * (1 + GOSSIP_CHALLENGE_LEN)];
        size_t missing = (size_t)(!m->challenge + !m->echo) * (1 + GOSSIP_CHALLENGE_LEN);
        mp_pack_bin(&p, zeros, missing);
    }
    return written(&w);
}

bool read_gossip_hello(const uint8_t *body, size_t len, struct gossip_hello *ret)
{
    struct reader r = reader_of(body, len);
    uint32_t more = mp_open(&r, 2);
    struct gossip_hello m = {.challenge = read_challenge(&r)};
    m.echo = read_challenge(&r);
    mp_close(&r, more);
    if (!mp_all_read(&r))
        return false;
    *ret = m;
    return true;
}

/* --- PING, ACK, PROBE --- */

static bool has_endpoint(enum gossip_kind kind)
{
    assert(kind == GOSSIP_PING || kind == GOSSIP_ACK || kind == GOSSIP_PROBE);
    return kind == GOSSIP_PROBE;
}

size_t write_gossip_ping(uint8_t *body, size_t room, enum gossip_kind kind,
                         const struct gossip_ping *m)
{
    struct writer w = writer_of(body, room);
    msgpack_packer p = mp_packer(&w);
    msgpack_pack_array(&p, has_endpoint(kind) ? 5 : 4);
    msgpack_pack_uint64(&p, m->number);
    msgpack_pack_uint32(&p, m->subject);
    msgpack_pack_uint64(&p, m->view);
    msgpack_pack_uint32(&p, m->lag_ms);
    if (has_endpoint(kind))
        mp_pack_endpoint(&p, &m->at);
    return written(&w);
}

bool read_gossip_ping(const uint8_t *body, size_t len, enum gossip_kind kind,
                      struct gossip_ping *ret)
{
    struct reader r = reader_of(body, len);
    uint32_t more = mp_open(&r, has_endpoint(kind) ? 5 : 4);
    struct gossip_ping m = {.number = mp_number64(&r)};
    m.subject = mp_number32(&r);
    m.view = mp_number64(&r);
    m.lag_ms = mp_number32(&r);
    if (has_endpoint(kind))
        m.at = mp_endpoint(&r);
    mp_close(&r, more);
    if (!mp_all_read(&r))
        return false;
    *ret = m;
    return true;
}

/* --- MEMBERS --- */

static void pack_fact(msgpack_packer *p, const struct member_fact *f)
{
    assert(f->id != 0);
    assert(f->state < MEMBER_STATE_COUNT);
    msgpack_pack_array(p, 5);
    msgpack_pack_uint32(p, f->id);
    msgpack_pack_uint64(p, f->boot);
    msgpack_pack_uint32(p, f->incarnation);
    msgpack_pack_uint8(p, f->state);
    mp_pack_endpoint(p, &f->at);
}

static struct member_fact read_fact(struct reader *r)
{
    uint32_t more = mp_open(r, 5);
    struct member_fact f = {.id = mp_id(r)};
    f.boot = mp_number64(r);
    f.incarnation = mp_number32(r);
    f.state = (uint8_t)mp_number(r, MEMBER_STATE_COUNT - 1);
    f.at = mp_endpoint(r);
    mp_close(r, more);
    return f;
}

/* How many of the facts fit, the array's head included. */
static unsigned facts_that_fit(const struct member_fact *facts, unsigned count, size_t room)
{
    unsigned n = 0;
    for (size_t sum = 0; n < count && n < GOSSIP_MEMBERS_MAX; n++) {
        uint8_t one[64];
        struct writer w = writer_of(one, sizeof one);
        msgpack_packer p = mp_packer(&w);
        pack_fact(&p, &facts[n]);
        sum += written(&w);
        if (mp_array_head_len(n + 1) + sum > room)
            break;
    }
    return n;
}

size_t write_gossip_members(uint8_t *body, size_t room, const struct member_fact *facts,
                            unsigned count, unsigned *ret_written)
{
    struct writer w = writer_of(body, room);
    msgpack_packer p = mp_packer(&w);
    unsigned n = facts_that_fit(facts, count, room);
    *ret_written = n;
    if (n == 0 && count > 0)
        return 0;
    msgpack_pack_array(&p, n);
    for (unsigned i = 0; i < n; i++)
        pack_fact(&p, &facts[i]);
    return written(&w);
}

bool read_gossip_members(const uint8_t *body, size_t len,
                         struct member_fact ret[static GOSSIP_MEMBERS_MAX], unsigned *ret_count)
{
    struct reader r = reader_of(body, len);
    uint32_t count = mp_array(&r);
    if (r.bad || count > GOSSIP_MEMBERS_MAX)
        return false;
    for (uint32_t i = 0; i < count && !r.bad; i++)
        ret[i] = read_fact(&r);
    if (!mp_all_read(&r))
        return false;
    *ret_count = count;
    return true;
}

/* --- DIGEST --- */

static void pack_entry(msgpack_packer *p, const struct digest_entry *e)
{
    assert(e->owner != 0);
    msgpack_pack_uint32(p, e->owner);
    msgpack_pack_uint64(p, e->boot);
    msgpack_pack_uint64(p, e->version);
}

/* How many of the entries fit behind the record's head and the flags, their array's head
 * included. */
static unsigned entries_that_fit(const struct digest_entry *entries, unsigned count, size_t room)
{
    unsigned n = 0;
    for (size_t sum = 0; n < count && n < GOSSIP_DIGEST_MAX; n++) {
        uint8_t one[32];
        struct writer w = writer_of(one, sizeof one);
        msgpack_packer p = mp_packer(&w);
        pack_entry(&p, &entries[n]);
        sum += written(&w);
        if (mp_array_head_len(3 * (n + 1)) + sum > room)
            break;
    }
    return n;
}

size_t write_gossip_digest(uint8_t *body, size_t room, unsigned flags,
                           const struct digest_entry *entries, unsigned count,
                           unsigned *ret_written)
{
    assert(flags <= 0x7f); /* one byte, whichever of them are left out */
    struct writer w = writer_of(body, room);
    msgpack_packer p = mp_packer(&w);
    unsigned n = entries_that_fit(entries, count, room > 2 ? room - 2 : 0);
    *ret_written = n;
    if (n == 0 && count > 0)
        return 0;
    msgpack_pack_array(&p, 2);
    msgpack_pack_unsigned_int(&p, n < count ? flags & ~(unsigned)DIGEST_COMPLETE : flags);
    msgpack_pack_array(&p, 3 * (size_t)n);
    for (unsigned i = 0; i < n; i++)
        pack_entry(&p, &entries[i]);
    return written(&w);
}

bool read_gossip_digest(const uint8_t *body, size_t len, unsigned *ret_flags,
                        struct digest_entry ret[static GOSSIP_DIGEST_MAX], unsigned *ret_count)
{
    struct reader r = reader_of(body, len);
    uint32_t more = mp_open(&r, 2);
    unsigned flags = (unsigned)mp_number(&r, 0x7f);
    uint32_t elements = mp_array(&r);
    if (r.bad || elements % 3 != 0 || elements / 3 > GOSSIP_DIGEST_MAX)
        return false;
    for (uint32_t i = 0; i < elements / 3 && !r.bad; i++) {
        ret[i].owner = mp_id(&r);
        ret[i].boot = mp_number64(&r);
        ret[i].version = mp_number64(&r);
    }
    mp_close(&r, more);
    if (!mp_all_read(&r))
        return false;
    *ret_flags = flags;
    *ret_count = elements / 3;
    return true;
}

/* --- DELTA --- */

static void pack_rows(msgpack_packer *p, const struct gossip_delta *m)
{
    uint64_t version = m->from;
    for (unsigned i = 0; i < m->row_count; i++) {
        const struct delta_row *row = &m->row[i];
        assert(row->version > version);
        assert(row->version <= m->to);
        msgpack_pack_uint32(p, row->id);
        msgpack_pack_uint8(p, row->meta & (uint8_t)~DELTA_PROOF);
        msgpack_pack_uint64(p, row->version - version);
        if (row->id == 0)
            mp_pack_bin(p, m->state, m->state_len);
        version = row->version;
    }
}

size_t write_gossip_delta(uint8_t *body, size_t room, const struct gossip_delta *m)
{
    assert(m->owner != 0);
    assert(m->row_count <= GOSSIP_ROWS_MAX);
    assert(m->from <= m->to);
    unsigned states = 0;
    for (unsigned i = 0; i < m->row_count; i++)
        states += m->row[i].id == 0;
    assert(states == 0 || (states == 1 && m->state && m->state_len <= GOSSIP_STATE_MAX));

    struct writer w = writer_of(body, room);
    msgpack_packer p = mp_packer(&w);
    msgpack_pack_array(&p, 6);
    msgpack_pack_uint32(&p, m->owner);
    msgpack_pack_uint64(&p, m->boot);
    msgpack_pack_uint64(&p, m->from);
    msgpack_pack_uint64(&p, m->to);
    msgpack_pack_uint64(&p, m->top);
    msgpack_pack_array(&p, 3 * (size_t)m->row_count + states);
    pack_rows(&p, m);
    return written(&w);
}

/* The bin behind a row of id 0: once a delta, as a log has one row of an id. */
static void read_state(struct reader *r, struct gossip_delta *ret)
{
    size_t len;
    const uint8_t *state = mp_bin(r, &len);
    r->bad |= ret->state || len > GOSSIP_STATE_MAX;
    if (r->bad)
        return;
    ret->state = state;
    ret->state_len = (unsigned)len;
}

/* One row, of an array that has `left` elements left. Returns how many remain. */
static uint32_t read_row(struct reader *r, uint32_t left, uint64_t before, struct gossip_delta *ret)
{
    struct delta_row row = {.id = mp_number32(r)};
    row.meta = (uint8_t)mp_number(r, UINT8_MAX);
    uint64_t gap = mp_number64(r);
    bool proof = row.meta & DELTA_PROOF;
    uint32_t takes = row.id == 0 || proof ? 4 : 3;
    if (takes > left || gap == 0 || gap > ret->to - before || ret->row_count == GOSSIP_ROWS_MAX)
        r->bad = true;
    if (row.id == 0) {
        read_state(r, ret);
    } else if (proof) {
        size_t len;
        mp_bin(r, &len);
    }
    if (r->bad)
        return 0;
    row.version = before + gap;
    row.meta &= (uint8_t)~DELTA_PROOF;
    ret->row[ret->row_count++] = row;
    return left - takes;
}

bool read_gossip_delta(const uint8_t *body, size_t len, struct gossip_delta *ret)
{
    struct reader r = reader_of(body, len);
    uint32_t more = mp_open(&r, 6);
    ret->owner = mp_id(&r);
    ret->boot = mp_number64(&r);
    ret->from = mp_number64(&r);
    ret->to = mp_number64(&r);
    ret->top = mp_number64(&r);
    ret->state = NULL;
    ret->state_len = 0;
    ret->row_count = 0;
    r.bad |= ret->from > ret->to;
    uint32_t left = mp_array(&r);
    for (uint64_t version = ret->from; left > 0 && !r.bad;) {
        left = read_row(&r, left, version, ret);
        if (!r.bad)
            version = ret->row[ret->row_count - 1].version;
    }
    mp_close(&r, more);
    return mp_all_read(&r);
}

/* --- the state record --- */

size_t write_beacon_state(uint8_t *bytes, size_t room, const struct beacon_state *s)
{
    assert(s->endpoint_count <= STATE_ENDPOINTS_MAX);
    size_t text_len = strnlen(s->version, STATE_VERSION_MAX);
    assert(text_len < STATE_VERSION_MAX);
    struct writer w = writer_of(bytes, room);
    msgpack_packer p = mp_packer(&w);
    msgpack_pack_array(&p, 6);
    msgpack_pack_uint8(&p, s->draining ? STATE_DRAINING : 0);
    msgpack_pack_uint32(&p, s->nodes);
    msgpack_pack_uint32(&p, s->nodes_max);
    msgpack_pack_uint8(&p, s->level);
    msgpack_pack_array(&p, s->endpoint_count);
    for (unsigned i = 0; i < s->endpoint_count; i++)
        mp_pack_endpoint(&p, &s->endpoint[i]);
    msgpack_pack_str(&p, text_len);
    msgpack_pack_str_body(&p, s->version, text_len);
    return written(&w);
}

static void read_endpoints(struct reader *r, struct beacon_state *ret)
{
    uint32_t count = mp_array(r);
    r->bad |= count > STATE_ENDPOINTS_MAX;
    for (uint32_t i = 0; i < count && !r->bad; i++)
        ret->endpoint[i] = mp_endpoint(r);
    ret->endpoint_count = count;
}

static void read_version(struct reader *r, struct beacon_state *ret)
{
    uint8_t type = read_u8(r);
    size_t len = type & 31;
    if (type == 0xd9 || type == 0xda)
        len = read_big_endian(r, type == 0xd9 ? 1 : 2);
    else
        r->bad |= type < 0xa0 || type > 0xbf;
    const uint8_t *text = read_bytes(r, len);
    r->bad |= len >= STATE_VERSION_MAX;
    for (size_t i = 0; i < len && !r->bad; i++) {
        r->bad |= text[i] < 0x20 || text[i] > 0x7e; /* it is shown to people */
        ret->version[i] = (char)text[i];
    }
}

bool read_beacon_state(const uint8_t *bytes, size_t len, struct beacon_state *ret)
{
    struct reader r = reader_of(bytes, len);
    struct beacon_state s = {.version = ""};
    uint32_t more = mp_open(&r, 6);
    s.draining = mp_number32(&r) & STATE_DRAINING;
    s.nodes = mp_number32(&r);
    s.nodes_max = mp_number32(&r);
    s.level = (uint8_t)mp_number(&r, UINT8_MAX);
    read_endpoints(&r, &s);
    read_version(&r, &s);
    mp_close(&r, more);
    if (!mp_all_read(&r))
        return false;
    *ret = s;
    return true;
}
