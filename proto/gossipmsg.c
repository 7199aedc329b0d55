#include <assert.h>
#include <msgpack/pack.h>

#include "proto/gossipmsg.h"
#include "proto/wire.h"

enum { ENDPOINT_LEN = 18, STATE_DRAINING = 1 };

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

/* --- msgpack, written: the writer remembers what did not fit, so what msgpack_pack_* return is
 * not looked at --- */

static int pack_bytes(void *writer, const char *bytes, size_t len)
{
    struct writer *w = writer;
    write_bytes(w, bytes, len);
    return w->bad ? -1 : 0;
}

static msgpack_packer packer_of(struct writer *w)
{
    msgpack_packer p;
    msgpack_packer_init(&p, w, pack_bytes);
    return p;
}

static void pack_bin(msgpack_packer *p, const void *bytes, size_t len)
{
    msgpack_pack_bin(p, len);
    msgpack_pack_bin_body(p, bytes, len);
}

static void pack_endpoint(msgpack_packer *p, const struct endpoint *e)
{
    uint8_t bytes[ENDPOINT_LEN];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_bytes(&w, e->ip, sizeof e->ip);
    write_u16(&w, e->port);
    pack_bin(p, bytes, sizeof bytes);
}

/* Bytes that the head of an array takes. */
static size_t array_head_len(size_t count)
{
    assert(count <= UINT16_MAX);
    return count <= 15 ? 1 : 3;
}

/* --- msgpack, read: every function sets `bad` when the next value is not what it wants --- */

/* An unsigned number up to `max`, in whichever of the encodings that can hold it: writers differ in
 * which they choose. */
static uint64_t read_number(struct reader *r, uint64_t max)
{
    uint8_t type = read_u8(r);
    uint64_t value = type;
    if (type >= 0xcc && type <= 0xcf) { /* uint 8, 16, 32, 64 */
        value = read_big_endian(r, (size_t)1 << (type - 0xcc));
    } else if (type >= 0xd0 && type <= 0xd3) { /* int 8, 16, 32, 64 */
        size_t len = (size_t)1 << (type - 0xd0);
        value = read_big_endian(r, len);
        r->bad |= value >> (8 * len - 1) != 0; /* negative */
    } else if (type > 0x7f) {
        r->bad = true;
    }
    r->bad |= value > max;
    return r->bad ? 0 : value;
}

static uint32_t read_number32(struct reader *r)
{
    return (uint32_t)read_number(r, UINT32_MAX);
}

static uint64_t read_number64(struct reader *r)
{
    return read_number(r, UINT64_MAX);
}

/* The id of a beacon: never 0. */
static uint32_t read_beacon_id(struct reader *r)
{
    uint32_t id = read_number32(r);
    r->bad |= id == 0;
    return id;
}

/* The bytes lie in what is read. NULL only when `bad`. */
static const uint8_t *read_bin(struct reader *r, size_t *ret_len)
{
    uint8_t type = read_u8(r);
    r->bad |= type != 0xc4 && type != 0xc5;
    *ret_len = read_big_endian(r, type == 0xc4 ? 1 : 2);
    return read_bytes(r, *ret_len);
}

static const uint8_t *read_bin_of(struct reader *r, size_t len)
{
    size_t got;
    const uint8_t *bytes = read_bin(r, &got);
    r->bad |= got != len;
    return r->bad ? NULL : bytes;
}

static bool read_nil(struct reader *r)
{
    if (read_left(r) == 0 || *r->at != 0xc0)
        return false;
    r->at++;
    return true;
}

static struct endpoint read_endpoint(struct reader *r)
{
    struct endpoint e = {.port = 0};
    const uint8_t *bytes = read_bin_of(r, ENDPOINT_LEN);
    if (!bytes)
        return e;
    struct reader b = reader_of(bytes, ENDPOINT_LEN);
    memcpy(e.ip, read_bytes(&b, sizeof e.ip), sizeof e.ip);
    e.port = read_u16(&b);
    return e;
}

/* How many elements the array says it has: a claim, until they have been read. */
static uint32_t read_array(struct reader *r)
{
    uint8_t type = read_u8(r);
    if (type >= 0x90 && type <= 0x9f)
        return type & 15;
    r->bad |= type != 0xdc && type != 0xdd;
    return (uint32_t)read_big_endian(r, type == 0xdc ? 2 : 4);
}

/* One value, but only the head of an array or map: returns how many values it says are inside. */
static uint64_t skip_head(struct reader *r)
{
    /* 0xc0 to 0xdf: bytes of its length field, bytes besides those that the field counts. */
    static const struct {
        uint8_t length_len, fixed;
    } shape[] = {
        {0, 0}, {0, 0}, {0, 0}, {0, 0},          /* nil, (never used), false, true */
        {1, 0}, {2, 0}, {4, 0},                  /* bin */
        {1, 1}, {2, 1}, {4, 1},                  /* ext, with its type */
        {0, 4}, {0, 8},                          /* float */
        {0, 1}, {0, 2}, {0, 4}, {0, 8},          /* uint */
        {0, 1}, {0, 2}, {0, 4}, {0, 8},          /* int */
        {0, 2}, {0, 3}, {0, 5}, {0, 9}, {0, 17}, /* fixext, with its type */
        {1, 0}, {2, 0}, {4, 0},                  /* str */
        {2, 0}, {4, 0}, {2, 0}, {4, 0},          /* array, map: the field counts values */
    };
    static_assert(sizeof shape == 32 * sizeof *shape, "a row for each of 0xc0 to 0xdf");
    uint8_t type = read_u8(r);
    if (type <= 0x7f || type >= 0xe0) /* small numbers */
        return 0;
    if (type <= 0x8f)
        return 2 * (type & 15u);
    if (type <= 0x9f)
        return type & 15;
    if (type <= 0xbf) {
        read_bytes(r, type & 31);
        return 0;
    }
    r->bad |= type == 0xc1;
    uint64_t length = read_big_endian(r, shape[type - 0xc0].length_len);
    if (type >= 0xdc)
        return type >= 0xde ? 2 * length : length;
    read_bytes(r, length + shape[type - 0xc0].fixed);
    return 0;
}

/* One value with all that is in it, by a stack of fixed depth. Each value inside takes a byte at
 * least, so a count that lies meets the end of the bytes. */
static void skip_value(struct reader *r)
{
    uint64_t left[GOSSIP_SKIP_DEPTH + 1] = {1};
    unsigned depth = 0;
    while (!r->bad) {
        if (left[depth] == 0) {
            if (depth-- == 0)
                return;
            continue;
        }
        left[depth]--;
        uint64_t inside = skip_head(r);
        if (inside == 0)
            continue;
        if (depth == GOSSIP_SKIP_DEPTH)
            r->bad = true;
        else
            left[++depth] = inside;
    }
}

/* A record is an array of at least `count` elements: opens it, and tells how many more there are;
 * closing it skips them. */
static uint32_t open_record(struct reader *r, uint32_t count)
{
    uint32_t got = read_array(r);
    r->bad |= got < count;
    return r->bad ? 0 : got - count;
}

static void close_record(struct reader *r, uint32_t more)
{
    for (; more > 0 && !r->bad; more--)
        skip_value(r);
}

/* Read to its last byte, and nothing was wrong. */
static bool read_all(const struct reader *r)
{
    return !r->bad && read_left(r) == 0;
}

/* --- HELLO --- */

static void pack_challenge(msgpack_packer *p, const uint8_t *challenge)
{
    if (challenge)
        pack_bin(p, challenge, GOSSIP_CHALLENGE_LEN);
    else
        msgpack_pack_nil(p);
}

static const uint8_t *read_challenge(struct reader *r)
{
    return read_nil(r) ? NULL : read_bin_of(r, GOSSIP_CHALLENGE_LEN);
}

size_t write_gossip_hello(uint8_t *body, size_t room, const struct gossip_hello *m)
{
    struct writer w = writer_of(body, room);
    msgpack_packer p = packer_of(&w);
    msgpack_pack_array(&p, 2);
    pack_challenge(&p, m->challenge);
    pack_challenge(&p, m->echo);
    return written(&w);
}

bool read_gossip_hello(const uint8_t *body, size_t len, struct gossip_hello *ret)
{
    struct reader r = reader_of(body, len);
    uint32_t more = open_record(&r, 2);
    struct gossip_hello m = {.challenge = read_challenge(&r)};
    m.echo = read_challenge(&r);
    close_record(&r, more);
    if (!read_all(&r))
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
    msgpack_packer p = packer_of(&w);
    msgpack_pack_array(&p, has_endpoint(kind) ? 5 : 4);
    msgpack_pack_uint64(&p, m->number);
    msgpack_pack_uint32(&p, m->subject);
    msgpack_pack_uint64(&p, m->view);
    msgpack_pack_uint32(&p, m->lag_ms);
    if (has_endpoint(kind))
        pack_endpoint(&p, &m->at);
    return written(&w);
}

bool read_gossip_ping(const uint8_t *body, size_t len, enum gossip_kind kind,
                      struct gossip_ping *ret)
{
    struct reader r = reader_of(body, len);
    uint32_t more = open_record(&r, has_endpoint(kind) ? 5 : 4);
    struct gossip_ping m = {.number = read_number64(&r)};
    m.subject = read_number32(&r);
    m.view = read_number64(&r);
    m.lag_ms = read_number32(&r);
    if (has_endpoint(kind))
        m.at = read_endpoint(&r);
    close_record(&r, more);
    if (!read_all(&r))
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
    pack_endpoint(p, &f->at);
}

static struct member_fact read_fact(struct reader *r)
{
    uint32_t more = open_record(r, 5);
    struct member_fact f = {.id = read_beacon_id(r)};
    f.boot = read_number64(r);
    f.incarnation = read_number32(r);
    f.state = (uint8_t)read_number(r, MEMBER_STATE_COUNT - 1);
    f.at = read_endpoint(r);
    close_record(r, more);
    return f;
}

/* How many of the facts fit, the array's head included. */
static unsigned facts_that_fit(const struct member_fact *facts, unsigned count, size_t room)
{
    unsigned n = 0;
    for (size_t sum = 0; n < count && n < GOSSIP_MEMBERS_MAX; n++) {
        uint8_t one[64];
        struct writer w = writer_of(one, sizeof one);
        msgpack_packer p = packer_of(&w);
        pack_fact(&p, &facts[n]);
        sum += written(&w);
        if (array_head_len(n + 1) + sum > room)
            break;
    }
    return n;
}

size_t write_gossip_members(uint8_t *body, size_t room, const struct member_fact *facts,
                            unsigned count, unsigned *ret_written)
{
    struct writer w = writer_of(body, room);
    msgpack_packer p = packer_of(&w);
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
    uint32_t count = read_array(&r);
    if (r.bad || count > GOSSIP_MEMBERS_MAX)
        return false;
    for (uint32_t i = 0; i < count && !r.bad; i++)
        ret[i] = read_fact(&r);
    if (!read_all(&r))
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
        msgpack_packer p = packer_of(&w);
        pack_entry(&p, &entries[n]);
        sum += written(&w);
        if (array_head_len(3 * (n + 1)) + sum > room)
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
    msgpack_packer p = packer_of(&w);
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
    uint32_t more = open_record(&r, 2);
    unsigned flags = (unsigned)read_number(&r, 0x7f);
    uint32_t elements = read_array(&r);
    if (r.bad || elements % 3 != 0 || elements / 3 > GOSSIP_DIGEST_MAX)
        return false;
    for (uint32_t i = 0; i < elements / 3 && !r.bad; i++) {
        ret[i].owner = read_beacon_id(&r);
        ret[i].boot = read_number64(&r);
        ret[i].version = read_number64(&r);
    }
    close_record(&r, more);
    if (!read_all(&r))
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
            pack_bin(p, m->state, m->state_len);
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
    msgpack_packer p = packer_of(&w);
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
    const uint8_t *state = read_bin(r, &len);
    r->bad |= ret->state || len > GOSSIP_STATE_MAX;
    if (r->bad)
        return;
    ret->state = state;
    ret->state_len = (unsigned)len;
}

/* One row, of an array that has `left` elements left. Returns how many remain. */
static uint32_t read_row(struct reader *r, uint32_t left, uint64_t before, struct gossip_delta *ret)
{
    struct delta_row row = {.id = read_number32(r)};
    row.meta = (uint8_t)read_number(r, UINT8_MAX);
    uint64_t gap = read_number64(r);
    bool proof = row.meta & DELTA_PROOF;
    uint32_t takes = row.id == 0 || proof ? 4 : 3;
    if (takes > left || gap == 0 || gap > ret->to - before || ret->row_count == GOSSIP_ROWS_MAX)
        r->bad = true;
    if (row.id == 0) {
        read_state(r, ret);
    } else if (proof) {
        size_t len;
        read_bin(r, &len);
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
    uint32_t more = open_record(&r, 6);
    ret->owner = read_beacon_id(&r);
    ret->boot = read_number64(&r);
    ret->from = read_number64(&r);
    ret->to = read_number64(&r);
    ret->top = read_number64(&r);
    ret->state = NULL;
    ret->state_len = 0;
    ret->row_count = 0;
    r.bad |= ret->from > ret->to;
    uint32_t left = read_array(&r);
    for (uint64_t version = ret->from; left > 0 && !r.bad;) {
        left = read_row(&r, left, version, ret);
        if (!r.bad)
            version = ret->row[ret->row_count - 1].version;
    }
    close_record(&r, more);
    return read_all(&r);
}

/* --- the state record --- */

size_t write_beacon_state(uint8_t *bytes, size_t room, const struct beacon_state *s)
{
    assert(s->endpoint_count <= STATE_ENDPOINTS_MAX);
    size_t text_len = strnlen(s->version, STATE_VERSION_MAX);
    assert(text_len < STATE_VERSION_MAX);
    struct writer w = writer_of(bytes, room);
    msgpack_packer p = packer_of(&w);
    msgpack_pack_array(&p, 6);
    msgpack_pack_uint8(&p, s->draining ? STATE_DRAINING : 0);
    msgpack_pack_uint32(&p, s->nodes);
    msgpack_pack_uint32(&p, s->nodes_max);
    msgpack_pack_uint8(&p, s->level);
    msgpack_pack_array(&p, s->endpoint_count);
    for (unsigned i = 0; i < s->endpoint_count; i++)
        pack_endpoint(&p, &s->endpoint[i]);
    msgpack_pack_str(&p, text_len);
    msgpack_pack_str_body(&p, s->version, text_len);
    return written(&w);
}

static void read_endpoints(struct reader *r, struct beacon_state *ret)
{
    uint32_t count = read_array(r);
    r->bad |= count > STATE_ENDPOINTS_MAX;
    for (uint32_t i = 0; i < count && !r->bad; i++)
        ret->endpoint[i] = read_endpoint(r);
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
    uint32_t more = open_record(&r, 6);
    s.draining = read_number32(&r) & STATE_DRAINING;
    s.nodes = read_number32(&r);
    s.nodes_max = read_number32(&r);
    s.level = (uint8_t)read_number(&r, UINT8_MAX);
    read_endpoints(&r, &s);
    read_version(&r, &s);
    close_record(&r, more);
    if (!read_all(&r))
        return false;
    *ret = s;
    return true;
}
