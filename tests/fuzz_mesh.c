/* A beacon among members that it knows, strangers that hold the key and original beacons. The input
 * is a script of records, each an action, a pause, a count and so many bytes. Frames are sealed by
 * us, so that what fuzzing makes of a body gets past the gate.
 *
 * Whatever comes: nothing that is sent is too long, what an input causes at once is bounded, no way
 * leads to a beacon without an address, and the clockwork comes to rest. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/gossip.h"
#include "proto/wire.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

enum {
    SELF = 1,
    MEMBERS = 4,    /* senders, ids 2 .. */
    STEPS_MAX = 96, /* of a script */
    OUT_MAX = 1200, /* frames at once: all windows of as many links, digests, all about members */
    TURNS_MAX = 600,
    ROWS = 600,
    OWNER_ROWS = 300,
    NODES = 64,
};
#define MS UINT64_C(1000000)

enum action {
    ACT_HELLO, /* proves itself */
    ACT_PING,
    ACT_ACK,
    ACT_PROBE,
    ACT_MEMBERS,
    ACT_DIGEST,
    ACT_DELTA,
    ACT_RAW,  /* as it is */
    ACT_SYNC, /* behind a 0x07 */
    ACT_NODES,
    ACT_SEEDS,
    ACT_KEYS,
    ACT_FACT,  /* well-formed, of numbers near the limits */
    ACT_PIECE, /* well-formed, likewise */
    ACT_TAKE,  /* of what it has to say, some */
    ACT_LEAVE,
    ACT_COUNT
};

struct sender {
    uint32_t id;
    uint64_t boot, sequence;
    struct endpoint at;
    uint8_t challenge[GOSSIP_CHALLENGE_LEN]; /* the last it was asked */
};

struct mesh {
    struct gossip *g;
    struct seal_ring ring;
    struct seal_random random;
    uint64_t now_ns;
    struct sender sender[MEMBERS];
    struct gossip_beacon beacons[STORE_OWNERS_MAX];
    unsigned beacon_count;
};

static void *memory; /* of one gossip; cleared for each script */
static size_t memory_size;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct gossip_config config(void)
{
    struct gossip_config c = {.beacon_id = SELF,
                              .boot = UINT64_C(1700000000000),
                              .rows = ROWS,
                              .owner_rows = OWNER_ROWS,
                              .seed = {1}};
    return c;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    struct gossip_config c = config();
    memory_size = gossip_size(&c);
    memory = malloc(memory_size);
    return sodium_init() < 0 || !memory ? -1 : 0;
}

static struct endpoint place(unsigned i)
{
    uint8_t ip[4] = {192, 0, 2, (uint8_t)i};
    return endpoint_of(ip, 4, 9001);
}

/* --- out --- */

/* A HELLO of ours to one of the senders: it can echo that now. */
static void sender_reads(struct mesh *m, const struct gossip_out *out)
{
    struct gossip_head head;
    struct gossip_hello hello;
    uint8_t body[GOSSIP_BODY_MAX];
    size_t len;
    if (seal_open(&m->ring, out->bytes, out->len, &head, body, &len) != SEAL_OK)
        return;
    CHECK(head.sender == SELF);
    if (head.kind != GOSSIP_HELLO)
        return;
    CHECK(read_gossip_hello(body, len, &hello));
    for (unsigned i = 0; i < MEMBERS && hello.challenge; i++)
        if (m->sender[i].id == head.receiver)
            memcpy(m->sender[i].challenge, hello.challenge, sizeof m->sender[i].challenge);
}

static unsigned frames_take(struct mesh *m, unsigned max)
{
    struct gossip_out out;
    unsigned count = 0;
    for (; count < max && gossip_send(m->g, m->now_ns, &out); count++) {
        CHECK(out.to.port != 0 && out.len > 0);
        CHECK(out.slice <= gossip_slices(m->g));
        CHECK(out.bytes[0] != GOSSIP_TYPE || out.len <= GOSSIP_FRAME_MAX);
        CHECK(out.bytes[0] == GOSSIP_TYPE || out.bytes[0] == 7);
        if (out.bytes[0] == GOSSIP_TYPE)
            sender_reads(m, &out);
    }
    return count;
}

static void routes_take(struct mesh *m)
{
    struct gossip_route route;
    struct endpoint none = {.port = 0};
    if (gossip_beacons(m->g, m->beacons, &m->beacon_count))
        CHECK(m->beacon_count <= STORE_OWNERS_MAX);
    while (gossip_route(m->g, &route)) {
        CHECK(route.id != 0);
        if (route.beacon == STORE_NONE)
            continue;
        CHECK(route.beacon > 0 && route.beacon < STORE_OWNERS_MAX);
        /* A beacon that came since is in the table that is to be taken. */
        if (route.beacon < m->beacon_count && m->beacons[route.beacon].usable)
            CHECK(!endpoint_equal(&m->beacons[route.beacon].at, &none) &&
                  m->beacons[route.beacon].at.port != 0);
    }
}

/* Turns until nothing is due: soon, whatever came. */
static void rest(struct mesh *m)
{
    unsigned turns = 0, frames = 0;
    do {
        gossip_tick(m->g, m->now_ns);
        frames += frames_take(m, OUT_MAX);
        CHECK(frames < OUT_MAX);
        routes_take(m);
        CHECK(++turns < TURNS_MAX);
    } while (gossip_next_ns(m->g) <= m->now_ns);
}

/* --- in --- */

static void put_sealed(struct mesh *m, struct sender *s, enum gossip_kind kind, const uint8_t *body,
                       size_t len)
{
    uint8_t frame[GOSSIP_FRAME_MAX];
    struct gossip_head head = {.kind = (uint8_t)kind,
                               .sender = s->id,
                               .receiver = SELF,
                               .boot = s->boot,
                               .sequence = ++s->sequence};
    len = len < GOSSIP_BODY_MAX ? len : GOSSIP_BODY_MAX;
    size_t frame_len = seal_frame(&m->ring, &m->random, &head, body, len, frame);
    CHECK(gossip_input(m->g, frame, frame_len, &s->at, m->now_ns) < GOSSIP_VERDICT_COUNT);
}

static void put_hello(struct mesh *m, struct sender *s, uint8_t how)
{
    uint8_t body[64];
    struct gossip_hello hello = {.echo = how & 1 ? s->challenge : NULL,
                                 .challenge = how & 2 ? s->challenge : NULL,
                                 .padded = how & 4};
    if (how & 8)
        s->boot++;
    if (how & 16)
        s->at.port ^= 1;
    put_sealed(m, s, GOSSIP_HELLO, body, write_gossip_hello(body, sizeof body, &hello));
}

/* Numbers that have a limit close by. */
static uint64_t number_near(struct reader *r)
{
    uint8_t what = read_u8(r);
    static const uint64_t near[] = {
        0,          2,   UINT64_C(1700000000000), UINT32_MAX, UINT64_C(1) << 48, UINT64_C(1) << 63,
        UINT64_MAX, 1000};
    return near[what & 7] + (uint64_t)(what >> 3) - 8;
}

static void put_fact(struct mesh *m, struct sender *s, struct reader *r)
{
    struct member_fact facts[4];
    uint8_t body[GOSSIP_BODY_MAX];
    unsigned count = 0, written;
    while (count < 4 && read_left(r) >= 5) {
        struct member_fact *f = &facts[count++];
        uint8_t id = read_u8(r);
        *f = (struct member_fact){.id = id ? id % 16 + 1u : 1 + read_u8(r) * 4u};
        f->boot = number_near(r);
        f->incarnation = (uint32_t)number_near(r);
        f->state = read_u8(r) % MEMBER_STATE_COUNT;
        f->at = place(read_u8(r));
        f->at.port = id & 128 ? 0 : f->at.port;
    }
    if (count > 0)
        put_sealed(m, s, GOSSIP_MEMBERS, body,
                   write_gossip_members(body, sizeof body, facts, count, &written));
}

static void put_piece(struct mesh *m, struct sender *s, struct reader *r)
{
    static struct gossip_delta d;
    uint8_t body[GOSSIP_BODY_MAX];
    uint8_t how = read_u8(r);
    d = (struct gossip_delta){.owner = how % 16 + 1u, .boot = s->boot};
    if (how & 16)
        d.boot = number_near(r);
    d.from = how & 32 ? number_near(r) : 0;
    d.to = d.from;
    while (read_left(r) >= 2 && d.row_count < 32) {
        uint8_t id = read_u8(r), meta = read_u8(r);
        d.to += 1 + (meta >> 6);
        if (id % NODES)
            d.row[d.row_count++] = (struct delta_row){
                .id = id % NODES, .meta = meta & (DELTA_CLASS | DELTA_GONE), .version = d.to};
    }
    d.top = how & 64 ? number_near(r) : d.to;
    if (d.to >= d.from)
        put_sealed(m, s, GOSSIP_DELTA, body, write_gossip_delta(body, sizeof body, &d));
}

static void put_sync(struct mesh *m, const struct sender *s, const uint8_t *bytes, size_t len)
{
    uint8_t sync[1024] = {7};
    size_t n = len < sizeof sync - 1 ? len : sizeof sync - 1;
    memcpy(sync + 1, bytes, n);
    CHECK(gossip_input(m->g, sync, n + 1, &s->at, m->now_ns) >= SYNC_TAKEN);
}

static void own_nodes(struct mesh *m, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] & 128)
            gossip_node_gone(m->g, bytes[i] % NODES + 1u, m->now_ns);
        else
            gossip_node_up(m->g, bytes[i] % NODES + 1u, bytes[i] >> 6, m->now_ns);
}

static void seeds(struct mesh *m, const uint8_t *bytes, size_t len)
{
    struct gossip_seed seed[8];
    unsigned count = 0;
    for (; count < len && count < 8; count++)
        seed[count] = (struct gossip_seed){
            .at = place(bytes[count] & 7), .id = bytes[count] >> 5, .is_pilot = bytes[count] & 16};
    gossip_set_seeds(m->g, seed, count, m->now_ns);
}

static void keys(struct mesh *m, uint8_t how)
{
    if (how % 4 == 3) {
        gossip_set_keys(m->g, NULL);
        return;
    }
    m->ring.in_use = how & 1;
    gossip_set_keys(m->g, &m->ring);
}

static void act(struct mesh *m, enum action action, struct sender *s, const uint8_t *bytes,
                size_t len)
{
    struct reader r = reader_of(bytes, len);
    switch (action) {
    case ACT_HELLO:
        put_hello(m, s, len ? bytes[0] : 1);
        break;
    case ACT_PING:
    case ACT_ACK:
    case ACT_PROBE:
    case ACT_MEMBERS:
    case ACT_DIGEST:
    case ACT_DELTA:
        put_sealed(m, s, (enum gossip_kind)(GOSSIP_PING + (action - ACT_PING)), bytes, len);
        break;
    case ACT_RAW:
        if (len > 0)
            gossip_input(m->g, bytes, len, &s->at, m->now_ns);
        break;
    case ACT_SYNC:
        put_sync(m, s, bytes, len);
        break;
    case ACT_NODES:
        own_nodes(m, bytes, len);
        break;
    case ACT_SEEDS:
        seeds(m, bytes, len);
        break;
    case ACT_KEYS:
        keys(m, len ? bytes[0] : 0);
        break;
    case ACT_FACT:
        put_fact(m, s, &r);
        break;
    case ACT_PIECE:
        put_piece(m, s, &r);
        break;
    case ACT_TAKE:
        frames_take(m, len ? bytes[0] : 1);
        break;
    case ACT_LEAVE:
        gossip_leave(m->g, m->now_ns);
        break;
    case ACT_COUNT:
        break;
    }
}

/* None, milliseconds, seconds, a day. */
static uint64_t pause_of(uint8_t b)
{
    static const uint64_t unit[4] = {0, 7 * MS, 700 * MS, UINT64_C(24) * 3600 * 1000 * MS / 64};
    return unit[b >> 6] * (b & 63);
}

static void mesh_open(struct mesh *m)
{
    struct gossip_config c = config();
    struct beacon_state state = {.nodes = 1, .version = "0"};
    memset(memory, 0, memory_size);
    *m = (struct mesh){.ring = {.count = 2, .of = {{1, {1}}, {2, {2}}}},
                       .random = {.seed = {2}},
                       .now_ns = 1000000 * MS};
    m->g = gossip_init(memory, &c, m->now_ns);
    gossip_set_keys(m->g, &m->ring);
    gossip_set_state(m->g, &state, m->now_ns);
    for (unsigned i = 0; i < MEMBERS; i++)
        m->sender[i] = (struct sender){.id = 2 + i, .boot = config().boot + i, .at = place(2 + i)};
    for (unsigned i = 0; i < MEMBERS / 2; i++) {
        put_hello(m, &m->sender[i], 0);
        rest(m);
        put_hello(m, &m->sender[i], 1);
    }
    rest(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct mesh m;
    static struct gossip_peer peers[64];
    struct gossip_totals totals;
    struct reader r = reader_of(bytes, len);
    mesh_open(&m);
    for (int step = 0; step < STEPS_MAX && read_left(&r) > 0; step++) {
        uint8_t what = read_u8(&r);
        m.now_ns += pause_of(read_u8(&r));
        size_t n = read_u8(&r);
        n = n < read_left(&r) ? n : read_left(&r);
        const uint8_t *data = n ? read_bytes(&r, n) : bytes;
        act(&m, what % ACT_COUNT, &m.sender[what >> 4 & 3], data, n);
        if (!(what & 128)) /* else the next comes first */
            rest(&m);
        CHECK(store_rows(gossip_store(m.g)) <= ROWS);
    }
    rest(&m);
    gossip_totals(m.g, &totals);
    CHECK(gossip_peers(m.g, peers, 64) <= 64 && totals.rows <= ROWS);
    return 0;
}
