/* Some gossips joined in memory, and whoever else has a socket: a stranger who records and sends
 * again, from wherever he likes, and a holder of the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sodium.h>
#include <time.h>
#include "gossip/gossip_state.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    HOSTS = 4,
    TAPE = 8192,  /* frames that are recorded */
    SPINS = 1000, /* turns a second: more is a loop */
    ROWS = 200000,
    OWNER_ROWS = 150000,
    THIEF = 66, /* an id of who holds the key */
};
#define VICTIM "198.51.100.66:6666"

struct host {
    void *memory;
    struct gossip *gossip;
    uint32_t id;
    struct endpoint at;
    uint64_t boot;
    uint64_t turns; /* of this second */
    bool keeps_routes;
};

struct taped {
    unsigned from;
    struct endpoint to;
    size_t len;
    uint8_t bytes[GOSSIP_FRAME_MAX];
};

struct rig {
    uint64_t now_ns, second, starts;
    struct host host[HOSTS];
    bool cut[HOSTS]; /* nothing goes there or comes from it */
    struct seal_ring ring;
    struct seal_random random;
    unsigned tape_len;
    struct taped tape[TAPE];
    uint64_t victim_frames, victim_bytes; /* to VICTIM */
};

static struct endpoint at(const char *text)
{
    struct endpoint e;
    assert_true(endpoint_parse(text, &e));
    return e;
}

static struct endpoint host_at(unsigned i)
{
    struct endpoint e = at("192.0.2.1:9001");
    e.ip[15] = (uint8_t)(e.ip[15] + i);
    return e;
}

/* Each start is a second later than all before it. */
static void start_with(struct rig *r, unsigned i, uint32_t id, uint64_t boot)
{
    struct host *h = &r->host[i];
    struct gossip_config c = {
        .beacon_id = id, .boot = boot, .rows = ROWS, .owner_rows = OWNER_ROWS, .strict = true};
    memset(c.seed, (int)(i + 1), sizeof c.seed);
    memcpy(c.seed + 8, &r->starts, sizeof r->starts);
    r->starts++;
    free(h->memory);
    *h = (struct host){.memory = calloc(1, gossip_size(&c)), .id = id, .at = host_at(i)};
    assert_non_null(h->memory);
    h->boot = boot;
    h->gossip = gossip_init(h->memory, &c, r->now_ns);
    if (r->ring.count)
        gossip_set_keys(h->gossip, &r->ring);
    gossip_set_state(h->gossip, &(struct beacon_state){.nodes_max = 1000, .version = "0"},
                     r->now_ns);
}

static void start(struct rig *r, unsigned i)
{
    start_with(r, i, i + 1, 1000000 + r->now_ns / MS);
}

static void know(struct rig *r, unsigned i, const char *const *seeds, unsigned count)
{
    struct gossip_seed seed[8] = {{.id = 0}};
    for (unsigned n = 0; n < count; n++)
        seed[n].at = at(seeds[n]);
    gossip_set_seeds(r->host[i].gossip, seed, count, r->now_ns);
}

static struct rig *rig_open(unsigned hosts)
{
    struct rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->now_ns = 1000 * SECOND;
    r->ring = (struct seal_ring){.count = 1, .of = {{.id = 7, .key = {1, 2, 3}}}};
    r->random.seed[0] = 9;
    for (unsigned i = 0; i < hosts; i++)
        start(r, i);
    return r;
}

static void rig_close(struct rig *r)
{
    for (unsigned i = 0; i < HOSTS; i++)
        free(r->host[i].memory);
    free(r);
}

static int host_of(const struct rig *r, const struct endpoint *e)
{
    for (unsigned i = 0; i < HOSTS; i++)
        if (r->host[i].gossip && endpoint_equal(&r->host[i].at, e))
            return (int)i;
    return -1;
}

static void record(struct rig *r, unsigned from, const struct gossip_out *out)
{
    struct endpoint victim = at(VICTIM);
    if (endpoint_equal(&out->to, &victim)) {
        r->victim_frames++;
        r->victim_bytes += out->len;
    }
    if (out->len > GOSSIP_FRAME_MAX)
        return;
    struct taped *t = &r->tape[r->tape_len++ % TAPE];
    *t = (struct taped){.from = from, .to = out->to, .len = out->len};
    memcpy(t->bytes, out->bytes, out->len);
}

/* What one has to send, to whom it is for. */
static void send_all(struct rig *r, unsigned i)
{
    struct gossip_out out;
    uint8_t bytes[65536];
    while (gossip_send(r->host[i].gossip, r->now_ns, &out)) {
        assert_true(out.bytes[0] != GOSSIP_TYPE || out.len <= GOSSIP_FRAME_MAX);
        record(r, i, &out);
        int to = host_of(r, &out.to);
        if (to < 0 || r->cut[i] || r->cut[to])
            continue;
        size_t len = out.len;
        memcpy(bytes, out.bytes, len);
        gossip_input(r->host[to].gossip, bytes, len, &r->host[i].at, r->now_ns);
    }
}

static void turn(struct rig *r, unsigned i)
{
    struct host *h = &r->host[i];
    struct gossip_route route;
    gossip_tick(h->gossip, r->now_ns);
    send_all(r, i);
    while (!h->keeps_routes && gossip_route(h->gossip, &route))
        continue;
    assert_true(++h->turns < SPINS);
}

static void run(struct rig *r, uint64_t ns)
{
    for (uint64_t end_ns = r->now_ns + ns; r->now_ns < end_ns; r->now_ns += MS / 2)
        for (unsigned i = 0; i < HOSTS; i++) {
            if (r->second != r->now_ns / SECOND)
                for (unsigned n = 0; n < HOSTS; n++)
                    r->host[n].turns = 0;
            r->second = r->now_ns / SECOND;
            if (r->host[i].gossip && gossip_next_ns(r->host[i].gossip) <= r->now_ns)
                turn(r, i);
        }
}

/* The first `hosts` have found each other. */
static struct rig *rig_joined(unsigned hosts)
{
    static const char *const first[] = {"192.0.2.1:9001"};
    struct rig *r = rig_open(hosts);
    for (unsigned i = 1; i < hosts; i++)
        know(r, i, first, 1);
    run(r, 15 * SECOND);
    for (unsigned i = 0; i < hosts; i++) {
        struct gossip_totals t;
        gossip_totals(r->host[i].gossip, &t);
        assert_int_equal(t.peers[PEER_ALIVE], hosts - 1);
        assert_true(gossip_settled(r->host[i].gossip));
    }
    return r;
}

static enum gossip_verdict input(struct rig *r, unsigned i, const uint8_t *bytes, size_t len,
                                 const char *from)
{
    struct endpoint e = at(from);
    return gossip_input(r->host[i].gossip, bytes, len, &e, r->now_ns);
}

static struct gossip_peer peer_of(const struct rig *r, unsigned i, uint32_t id)
{
    static struct gossip_peer peer[64];
    unsigned count = gossip_peers(r->host[i].gossip, peer, COUNT(peer));
    for (unsigned n = 0; n < count; n++)
        if (peer[n].id == id)
            return peer[n];
    return (struct gossip_peer){.state = PEER_STATE_COUNT};
}

static bool is_at(const struct rig *r, unsigned i, uint32_t id, const char *where)
{
    struct gossip_peer p = peer_of(r, i, id);
    struct endpoint e = at(where);
    return endpoint_equal(&p.at, &e);
}

static uint64_t verdicts(const struct rig *r, unsigned i, enum gossip_verdict v)
{
    struct gossip_totals t;
    gossip_totals(r->host[i].gossip, &t);
    return t.verdict[v];
}

/* --- the holder of the key --- */

struct forged {
    uint32_t sender, receiver;
    uint64_t boot, sequence;
    enum gossip_kind kind;
    const uint8_t *body;
    size_t len;
};

static size_t forge(struct rig *r, const struct forged *f, uint8_t bytes[static GOSSIP_FRAME_MAX])
{
    struct gossip_head head = {.kind = (uint8_t)f->kind,
                               .sender = f->sender,
                               .receiver = f->receiver,
                               .boot = f->boot,
                               .sequence = f->sequence};
    return seal_frame(&r->ring, &r->random, &head, f->body, f->len, bytes);
}

static enum gossip_verdict forged_input(struct rig *r, unsigned i, const struct forged *f,
                                        const char *from)
{
    uint8_t bytes[GOSSIP_FRAME_MAX];
    size_t len = forge(r, f, bytes);
    return input(r, i, bytes, len, from);
}

/* The latest frame of a kind that went to an address; NULL: none did. */
static const struct taped *taped_to(const struct rig *r, const struct endpoint *to,
                                    enum gossip_kind kind)
{
    for (unsigned n = r->tape_len; n > 0 && n + TAPE > r->tape_len; n--) {
        const struct taped *t = &r->tape[(n - 1) % TAPE];
        if (t->bytes[0] == GOSSIP_TYPE && t->bytes[3] == kind && endpoint_equal(&t->to, to))
            return t;
    }
    return NULL;
}

/* Proves itself to host i as `sender`, as anybody with the key can. */
static void thief_joins(struct rig *r, unsigned i, uint32_t sender, const char *from)
{
    struct endpoint e = at(from);
    struct gossip_hello hello = {.padded = true};
    struct gossip_head head;
    uint8_t body[64], opened[GOSSIP_BODY_MAX];
    size_t len = write_gossip_hello(body, sizeof body, &hello), opened_len;
    struct forged f = {sender, i + 1, 5, 1, GOSSIP_HELLO, body, len};
    assert_int_equal(forged_input(r, i, &f, from), GOSSIP_CHALLENGED);
    turn(r, i);
    const struct taped *t = taped_to(r, &e, GOSSIP_HELLO);
    assert_non_null(t);
    assert_int_equal(seal_open(&r->ring, t->bytes, t->len, &head, opened, &opened_len), SEAL_OK);
    assert_true(read_gossip_hello(opened, opened_len, &hello));
    struct gossip_hello echo = {.echo = hello.challenge};
    f.len = write_gossip_hello(body, sizeof body, &echo);
    f.sequence = 2;
    assert_int_equal(forged_input(r, i, &f, from), GOSSIP_TAKEN);
}

static void thief_says(struct rig *r, unsigned i, const struct member_fact *fact)
{
    static uint64_t sequence = 10;
    uint8_t body[128];
    unsigned written;
    size_t len = write_gossip_members(body, sizeof body, fact, 1, &written);
    struct forged f = {THIEF, i + 1, 5, sequence++, GOSSIP_MEMBERS, body, len};
    assert_int_equal(forged_input(r, i, &f, "203.0.113.66:66"), GOSSIP_TAKEN);
}

/* --- joining --- */

static void test_join(void **state)
{
    (void)state;
    struct rig *r = rig_joined(3);
    struct gossip_route route;
    r->host[1].keeps_routes = true;
    gossip_node_up(r->host[0].gossip, 4711, 2, r->now_ns);
    run(r, SECOND);
    assert_true(gossip_route(r->host[1].gossip, &route));
    assert_int_equal(route.id, 4711);
    assert_int_equal(route.meta, 2);
    assert_int_equal(member_at(gossip_members(r->host[1].gossip), route.beacon)->fact.id, 1);
    assert_false(gossip_route(r->host[1].gossip, &route));
    gossip_node_gone(r->host[0].gossip, 4711, r->now_ns);
    run(r, SECOND);
    assert_true(gossip_route(r->host[1].gossip, &route));
    assert_int_equal(route.beacon, STORE_NONE);
    rig_close(r);
}

/* As original beacons do it: no keys, and perhaps no id. */
static void test_without_keys(void **state)
{
    static const char *const seed[] = {"192.0.2.2:9001"}, *const back[] = {"192.0.2.1:9001"};
    (void)state;
    struct rig *r = rig_open(0);
    r->ring.count = 0;
    start_with(r, 0, 0, 1000);
    start_with(r, 1, 9, 1000);
    know(r, 0, seed, 1);
    know(r, 1, back, 1);
    gossip_node_up(r->host[0].gossip, 4711, 0, r->now_ns);
    run(r, 12 * SECOND);
    assert_true(store_has(gossip_store(r->host[1].gossip), STORE_MEMBERS_MAX, 4711));
    struct gossip_peer p[2];
    assert_int_equal(gossip_peers(r->host[0].gossip, p, 2), 2);
    assert_int_equal(p[0].id, 0);
    assert_int_equal(p[1].state, PEER_PILOT);
    rig_close(r);
}

/* --- frames that do not count --- */

static void test_refusals(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    uint8_t bytes[GOSSIP_FRAME_MAX], body[64];
    struct gossip_ping ping = {.number = UINT64_MAX, .subject = 2, .view = UINT64_MAX};
    size_t body_len = write_gossip_ping(body, sizeof body, GOSSIP_PING, &ping);
    const struct {
        const char *name;
        struct forged f;
        int flip; /* a byte; -1: none */
        enum gossip_verdict want;
    } cases[] = {
        {"another's", {1, 3, 9, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_NOT_OURS},
        {"our own", {2, 2, r->host[1].boot, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_NOT_OURS},
        {"our id", {2, 2, 9, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_OWN_ID},
        {"boot 0", {1, 2, 0, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_MALFORMED},
        {"version 2", {1, 2, 9, 1, GOSSIP_PING, body, body_len}, 1, GOSSIP_MALFORMED},
        {"unknown key", {1, 2, 9, 1, GOSSIP_PING, body, body_len}, 2, GOSSIP_UNKNOWN_KEY},
        {"forged", {1, 2, 9, 1, GOSSIP_PING, body, body_len}, 30, GOSSIP_FORGED},
        {"an unknown boot", {1, 2, 9, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_CHALLENGED},
        {"a stranger", {77, 2, 9, 1, GOSSIP_PING, body, body_len}, -1, GOSSIP_CHALLENGED},
        {"no kind", {78, 2, 9, 1, 99, body, body_len}, -1, GOSSIP_CHALLENGED},
        {"bad HELLO", {78, 2, 9, 1, GOSSIP_HELLO, body, body_len - 1}, -1, GOSSIP_MALFORMED},
    };
    for (unsigned c = 0; c < COUNT(cases); c++) {
        size_t len = forge(r, &cases[c].f, bytes);
        if (cases[c].flip >= 0)
            bytes[cases[c].flip] ^= 4;
        enum gossip_verdict v = input(r, 1, bytes, len, "192.0.2.1:9001");
        if (v != cases[c].want)
            print_message("%s: %d\n", cases[c].name, (int)v);
        assert_int_equal(v, cases[c].want);
        run(r, 250 * MS); /* challenges have a budget */
    }
    assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
    rig_close(r);
}

/* Everything once more: nothing is taken that was taken. */
static void test_replays(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    unsigned to_1 = 0;
    r->tape_len = 0; /* what came before the session began is not known to have come */
    gossip_node_up(r->host[0].gossip, 4711, 0, r->now_ns);
    run(r, 10 * SECOND);
    unsigned end = r->tape_len;
    for (unsigned n = 0; n < end; n++) {
        const struct taped *t = &r->tape[n];
        if (!endpoint_equal(&t->to, &r->host[1].at))
            continue;
        enum gossip_verdict v = input(r, 1, t->bytes, t->len, "192.0.2.1:9001");
        assert_int_equal(v, GOSSIP_REPLAYED);
        to_1++;
    }
    assert_true(to_1 > 10);
    rig_close(r);
}

/* A HELLO to a seed is for whoever is there, so a stranger can hand it to anybody. */
static void test_knock_elsewhere(void **state)
{
    static const char *const seeds[] = {"192.0.2.1:9001", "203.0.113.9:9"};
    (void)state;
    struct rig *r = rig_joined(2);
    know(r, 1, seeds, 2);
    struct endpoint nobody = at("203.0.113.9:9");
    run(r, 2 * SECOND);
    const struct taped *t = taped_to(r, &nobody, GOSSIP_HELLO);
    assert_non_null(t);
    assert_int_equal(input(r, 0, t->bytes, t->len, VICTIM), GOSSIP_TAKEN);
    assert_true(is_at(r, 0, 2, "192.0.2.2:9001"));
    run(r, 5 * SECOND);
    assert_true(is_at(r, 0, 2, "192.0.2.2:9001"));
    assert_true(r->victim_bytes <= t->len);
    rig_close(r);
}

/* The same with any fresh frame that did not arrive; and who really moves is followed. */
static void test_moves(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    r->cut[1] = true;
    run(r, 2 * SECOND);
    const struct taped *t = taped_to(r, &r->host[0].at, GOSSIP_PING);
    assert_non_null(t);
    r->cut[1] = false;
    assert_int_equal(input(r, 0, t->bytes, t->len, VICTIM), GOSSIP_TAKEN);
    turn(r, 0);
    assert_true(is_at(r, 0, 2, "192.0.2.2:9001"));
    assert_true(r->victim_bytes <= t->len);
    r->host[1].at = at("192.0.2.77:1234");
    run(r, 3 * SECOND);
    assert_true(is_at(r, 0, 2, "192.0.2.77:1234"));
    assert_int_equal(peer_of(r, 0, 2).state, PEER_ALIVE);
    rig_close(r);
}

/* Whatever was recorded, sent to a beacon that has just started: what it answers to an address that
 * never spoke is no more than what came. */
static void test_reflection(void **state)
{
    (void)state;
    struct rig *r = rig_joined(3);
    unsigned end = r->tape_len, answered = 0;
    for (unsigned n = 0; n < end && n < TAPE; n++) {
        const struct taped *t = &r->tape[n];
        int to = host_of(r, &t->to);
        assert_true(to >= 0);
        r->now_ns += SECOND;
        start(r, (unsigned)to);
        r->victim_bytes = 0;
        input(r, (unsigned)to, t->bytes, t->len, VICTIM);
        turn(r, (unsigned)to);
        assert_true(r->victim_bytes <= t->len);
        answered += r->victim_bytes > 0;
    }
    assert_true(answered > 5);
    rig_close(r);
}

/* An echo that overtakes itself from elsewhere proves nothing. */
static void test_echo_elsewhere(void **state)
{
    static const char *const first[] = {"192.0.2.1:9001"};
    (void)state;
    struct rig *r = rig_open(2);
    know(r, 1, first, 1);
    turn(r, 1);
    turn(r, 0);
    r->cut[1] = true;
    turn(r, 1);
    const struct taped *t = taped_to(r, &r->host[0].at, GOSSIP_HELLO);
    assert_non_null(t);
    struct taped echo = *t;
    assert_int_not_equal(input(r, 0, echo.bytes, echo.len, VICTIM), GOSSIP_TAKEN);
    turn(r, 0);
    assert_true(r->victim_bytes <= echo.len);
    assert_int_equal(input(r, 0, echo.bytes, echo.len, "192.0.2.2:9001"), GOSSIP_TAKEN);
    rig_close(r);
}

/* A HELLO of the boot before, with an echo that still holds, does not end the session. */
static void test_old_boot(void **state)
{
    static const char *const first[] = {"192.0.2.1:9001"};
    (void)state;
    struct rig *r = rig_joined(2);
    run(r, 40 * SECOND - (r->now_ns - 1000 * SECOND)); /* the period of challenges is not near its
                                                           end */
    r->tape_len = 0;
    start(r, 1);
    know(r, 1, first, 1);
    run(r, SECOND);
    uint64_t boot = peer_of(r, 0, 2).boot;
    struct taped old[TAPE / 64];
    unsigned count = 0;
    for (unsigned n = 0; n < r->tape_len && count < COUNT(old); n++)
        if (r->tape[n].from == 1 && r->tape[n].bytes[3] == GOSSIP_HELLO)
            old[count++] = r->tape[n];
    assert_true(count > 0);
    r->now_ns += SECOND;
    start(r, 1);
    know(r, 1, first, 1);
    run(r, SECOND);
    assert_true(peer_of(r, 0, 2).boot > boot);
    uint64_t challenged = verdicts(r, 0, GOSSIP_CHALLENGED);
    for (unsigned n = 0; n < count; n++)
        input(r, 0, old[n].bytes, old[n].len, VICTIM);
    challenged = verdicts(r, 0, GOSSIP_CHALLENGED);
    run(r, 3 * SECOND);
    assert_int_equal(verdicts(r, 0, GOSSIP_CHALLENGED), challenged);
    assert_true(gossip_settled(r->host[0].gossip));
    rig_close(r);
}

/* --- seeds --- */

static unsigned knocks(const struct rig *r, const char *to)
{
    struct endpoint e = at(to);
    unsigned n = 0;
    for (unsigned i = 0; i < r->tape_len; i++)
        n += endpoint_equal(&r->tape[i].to, &e);
    return n;
}

/* A knock of ours that comes back shows a seed to be ourselves; but only that to which it went. */
static void test_seed_is_us(void **state)
{
    static const char *const seeds[] = {"203.0.113.8:8", "203.0.113.9:9"};
    (void)state;
    struct rig *r = rig_open(1);
    know(r, 0, seeds, 2);
    run(r, SECOND);
    struct endpoint one = at(seeds[0]);
    const struct taped *t = taped_to(r, &one, GOSSIP_HELLO);
    assert_non_null(t);
    struct taped knock = *t;
    assert_int_equal(input(r, 0, knock.bytes, knock.len, seeds[0]), GOSSIP_NOT_OURS);
    assert_int_equal(input(r, 0, knock.bytes, knock.len, seeds[1]), GOSSIP_NOT_OURS);
    r->tape_len = 0;
    run(r, 60 * SECOND);
    assert_int_equal(knocks(r, seeds[0]), 0);
    assert_in_range(knocks(r, seeds[1]), 3, 10);
    rig_close(r);
}

static size_t sync_of(uint8_t *bytes, uint32_t first, unsigned count)
{
    bytes[0] = 7;
    memset(bytes + 1, 0, 4);
    bytes[4] = 99;
    bytes[5] = (uint8_t)(count >> 8);
    bytes[6] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = first + i;
        uint8_t *p = bytes + 7 + 4 * i;
        p[0] = (uint8_t)(id >> 24), p[1] = (uint8_t)(id >> 16);
        p[2] = (uint8_t)(id >> 8), p[3] = (uint8_t)id;
    }
    return 7 + 4 * (size_t)count;
}

static unsigned syncs_to(const struct rig *r, const struct endpoint *to)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->tape_len; i++)
        n += r->tape[i].bytes[0] == 7 && endpoint_equal(&r->tape[i].to, to);
    return n;
}

/* A seed without a mark that speaks 0x07 is an original beacon until it shows that it seals. */
static void test_pilot_learnt(void **state)
{
    static const char *const seeds[] = {"192.0.2.2:9001"};
    (void)state;
    struct rig *r = rig_open(1);
    uint8_t sync[64];
    size_t len = sync_of(sync, 4711, 2);
    know(r, 0, seeds, 1);
    assert_int_equal(input(r, 0, sync, len, "203.0.113.1:9001"), SYNC_STRANGER);
    assert_int_equal(input(r, 0, sync, len, "192.0.2.2:33333"), SYNC_TAKEN);
    run(r, 12 * SECOND);
    assert_true(syncs_to(r, &(struct endpoint){.port = 0}) == 0);
    start(r, 1);
    assert_true(syncs_to(r, &r->host[1].at) > 0);
    assert_int_equal(peer_of(r, 0, 99).state, PEER_PILOT);
    run(r, 20 * SECOND);
    assert_int_equal(peer_of(r, 0, 2).state, PEER_ALIVE);
    assert_int_equal(peer_of(r, 0, 99).state, PEER_STATE_COUNT);
    r->tape_len = 0;
    assert_int_equal(input(r, 0, sync, len, "192.0.2.2:9001"), SYNC_STRANGER);
    run(r, 20 * SECOND);
    assert_int_equal(syncs_to(r, &r->host[1].at), 0);
    rig_close(r);
}

/* What an original beacon leaves goes at once, and without turning in circles (see turn). */
static void test_pilot_expires(void **state)
{
    (void)state;
    struct rig *r = rig_open(1);
    struct gossip_seed seed = {.at = at("203.0.113.1:9001"), .is_pilot = true};
    uint8_t *sync = malloc(7 + 4 * 16000);
    assert_non_null(sync);
    size_t len = sync_of(sync, 1, 16000);
    gossip_set_seeds(r->host[0].gossip, &seed, 1, r->now_ns);
    for (uint16_t port = 1; port <= 8; port++) {
        sync_of(sync, port * 20000u, 16000);
        struct endpoint from = seed.at;
        from.port = port;
        assert_int_equal(gossip_input(r->host[0].gossip, sync, len, &from, r->now_ns), SYNC_TAKEN);
        turn(r, 0);
    }
    assert_int_equal(store_rows(gossip_store(r->host[0].gossip)), 8 * 16000);
    run(r, 92 * SECOND);
    assert_int_equal(store_rows(gossip_store(r->host[0].gossip)), 0);
    rig_close(r);
    free(sync);
}

/* --- boots --- */

/* Whoever says that we have a later boot is believed; no number makes us fall over. */
static void test_reboots(void **state)
{
    static const uint64_t boots[] = {2000000000000, UINT64_MAX - (1 << 20), UINT64_MAX - 1000,
                                     UINT64_MAX - 1, UINT64_MAX};
    (void)state;
    for (unsigned c = 0; c < COUNT(boots); c++) {
        struct rig *r = rig_joined(2);
        struct gossip_totals t;
        thief_joins(r, 0, THIEF, "203.0.113.66:66");
        thief_says(r, 0, &(struct member_fact){.id = 1, .boot = boots[c]});
        gossip_totals(r->host[0].gossip, &t);
        assert_true(boots[c] == UINT64_MAX ? t.boot == r->host[0].boot : t.boot > boots[c]);
        run(r, 5 * SECOND);
        assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
        assert_true(peer_of(r, 1, 1).boot == t.boot);
        rig_close(r);
    }
}

/* Again and again: we step back, and neither send nor turn in circles for that while. */
static void test_muted(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    struct gossip_totals t;
    thief_joins(r, 0, THIEF, "203.0.113.66:66");
    for (unsigned n = 0; n <= REBOOTS_MAX; n++) {
        gossip_totals(r->host[0].gossip, &t);
        assert_false(t.duplicate_id);
        thief_says(r, 0, &(struct member_fact){.id = 1, .boot = t.boot + 100, .at = at(VICTIM)});
    }
    gossip_totals(r->host[0].gossip, &t);
    assert_true(t.duplicate_id);
    struct endpoint other = at(VICTIM);
    assert_true(endpoint_equal(&t.duplicate_at, &other));
    uint64_t frames = t.frames_out;
    gossip_node_up(r->host[0].gossip, 4711, 0, r->now_ns);
    run(r, 50 * SECOND);
    gossip_totals(r->host[0].gossip, &t);
    assert_int_equal(t.frames_out, frames);
    assert_int_equal(peer_of(r, 1, 1).state, PEER_DEAD);
    run(r, 70 * SECOND);
    gossip_totals(r->host[0].gossip, &t);
    assert_false(t.duplicate_id);
    assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
    rig_close(r);
}

/* Two with one id: the later one is silent, though only it knows the other. */
static void test_duplicate_id(void **state)
{
    static const char *const first[] = {"192.0.2.1:9001"};
    (void)state;
    struct rig *r = rig_joined(2);
    struct gossip_totals t;
    r->now_ns += SECOND;
    start_with(r, 2, 1, r->host[0].boot + 5000);
    know(r, 2, first, 1);
    run(r, 5 * SECOND);
    gossip_totals(r->host[2].gossip, &t);
    assert_true(t.duplicate_id);
    assert_true(endpoint_equal(&t.duplicate_at, &r->host[0].at));
    gossip_totals(r->host[0].gossip, &t);
    assert_false(t.duplicate_id);
    assert_int_equal(t.boot, r->host[0].boot);
    assert_true(is_at(r, 1, 1, "192.0.2.1:9001"));
    assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
    rig_close(r);
}

/* It has told others of itself, and ends: they believe the first one again, without waiting until
 * the later boot is forgotten. */
static void test_duplicate_ends(void **state)
{
    static const char *const both[] = {"192.0.2.1:9001", "192.0.2.2:9001"};
    (void)state;
    struct rig *r = rig_joined(2);
    r->now_ns += SECOND;
    start_with(r, 2, 1, r->host[0].boot + 5000);
    know(r, 2, &both[1], 1);
    run(r, 5 * SECOND);
    assert_true(is_at(r, 1, 1, "192.0.2.3:9001"));
    know(r, 2, both, 2);
    run(r, 3 * SECOND);
    free(r->host[2].memory);
    r->host[2] = (struct host){.memory = NULL};
    run(r, 75 * SECOND); /* in the duel the first one may have stepped back too */
    assert_true(is_at(r, 1, 1, "192.0.2.1:9001"));
    assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
    assert_int_equal(peer_of(r, 0, 2).state, PEER_ALIVE);
    rig_close(r);
}

/* Incarnations end with a later boot, and others' do no harm. */
static void test_last_incarnation(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    struct gossip_totals t;
    thief_joins(r, 0, THIEF, "203.0.113.66:66");
    struct member_fact fact = {.id = 1,
                               .boot = r->host[0].boot,
                               .incarnation = UINT32_MAX,
                               .state = MEMBER_DEAD,
                               .at = r->host[0].at};
    thief_says(r, 0, &fact);
    gossip_totals(r->host[0].gossip, &t);
    assert_true(t.boot > r->host[0].boot);
    fact.id = 2, fact.boot = r->host[1].boot, fact.at = r->host[1].at;
    thief_says(r, 0, &fact);
    run(r, 10 * SECOND);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(peer_of(r, i, 2 - i).state, PEER_ALIVE);
    rig_close(r);
}

/* A frame with the last number there is: all later ones look old, until a proof begins anew. */
static void test_last_sequence(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    uint8_t body[64];
    struct gossip_ping ping = {.number = 1, .subject = 1};
    struct forged f = {2, 1, r->host[1].boot, UINT64_MAX, GOSSIP_PING, body, 0};
    f.len = write_gossip_ping(body, sizeof body, GOSSIP_PING, &ping);
    assert_int_equal(forged_input(r, 0, &f, "192.0.2.2:9001"), GOSSIP_TAKEN);
    run(r, 20 * SECOND);
    assert_int_equal(peer_of(r, 0, 2).state, PEER_ALIVE);
    uint64_t replayed = verdicts(r, 0, GOSSIP_REPLAYED);
    run(r, 5 * SECOND);
    assert_int_equal(verdicts(r, 0, GOSSIP_REPLAYED), replayed);
    rig_close(r);
}

/* --- facts about others --- */

/* A member that is nowhere is asked for a while; that is not much for whoever lives there. */
static void test_victim(void **state)
{
    (void)state;
    struct rig *r = rig_joined(3);
    thief_joins(r, 0, THIEF, "203.0.113.66:66");
    thief_says(r, 0, &(struct member_fact){.id = 500, .boot = 5, .at = at(VICTIM)});
    run(r, 10 * SECOND);
    print_message("three beacons, to a victim: %llu bytes in 10 s, ",
                  (unsigned long long)r->victim_bytes);
    assert_in_range(r->victim_bytes, 100, 30000);
    r->victim_bytes = 0;
    run(r, 60 * SECOND);
    print_message("%llu in the next 60 s\n", (unsigned long long)r->victim_bytes);
    assert_in_range(r->victim_bytes, 0, 60000);
    rig_close(r);
}

static void test_nowhere(void **state)
{
    static const char *const places[] = {"224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9",
                                         "[ff02::1]:9", "[::]:9"};
    (void)state;
    struct rig *r = rig_joined(2);
    thief_joins(r, 0, THIEF, "203.0.113.66:66");
    for (uint32_t c = 0; c < COUNT(places); c++) {
        thief_says(r, 0, &(struct member_fact){.id = 500 + c, .boot = 5, .at = at(places[c])});
        assert_int_equal(peer_of(r, 0, 500 + c).at.port, 0);
    }
    r->tape_len = 0;
    run(r, 5 * SECOND);
    for (unsigned c = 0; c < COUNT(places); c++)
        assert_int_equal(knocks(r, places[c]), 0);
    rig_close(r);
}

/* --- routes --- */

/* More changes than the queue holds: all are told in the end. */
static void test_routes_lost(void **state)
{
    enum { NODES = 100000 };
    (void)state;
    struct rig *r = rig_joined(2);
    struct gossip_route route;
    uint8_t *told = calloc(1, NODES + 1);
    assert_non_null(told);
    r->host[1].keeps_routes = true;
    for (uint32_t id = 1; id <= NODES; id++)
        gossip_node_up(r->host[0].gossip, id, 0, r->now_ns);
    run(r, 20 * SECOND);
    assert_int_equal(store_rows(gossip_store(r->host[1].gossip)), NODES);
    unsigned count = 0;
    for (unsigned n = 0; n < 1000; n++, run(r, MS))
        while (gossip_route(r->host[1].gossip, &route)) {
            assert_in_range(route.id, 1, NODES);
            assert_int_not_equal(route.beacon, STORE_NONE);
            count += !told[route.id];
            told[route.id] = 1;
        }
    assert_int_equal(count, NODES);
    free(told);
    rig_close(r);
}

static unsigned routes_taken(struct rig *r, unsigned i, unsigned *ret_gone)
{
    struct gossip_route route;
    unsigned n = 0;
    *ret_gone = 0;
    while (gossip_route(r->host[i].gossip, &route)) {
        n++;
        *ret_gone += route.beacon == STORE_NONE;
    }
    return n;
}

/* The end of a beacon costs no letters, but for what another one has too. */
static void test_walks(void **state)
{
    enum { NODES = 9000 }; /* more than one walk goes */
    (void)state;
    struct rig *r = rig_joined(3);
    unsigned gone;
    for (uint32_t id = 1; id <= NODES; id++)
        gossip_node_up(r->host[0].gossip, id, 0, r->now_ns);
    gossip_node_up(r->host[2].gossip, NODES, 0, r->now_ns);
    run(r, 5 * SECOND);
    r->host[1].keeps_routes = true;
    r->cut[0] = true;
    run(r, 15 * SECOND);
    assert_int_equal(peer_of(r, 1, 1).state, PEER_DEAD);
    assert_in_range(routes_taken(r, 1, &gone), 1, 2); /* suspect, then dead */
    assert_int_equal(gone, 0);
    r->cut[0] = false;
    run(r, 15 * SECOND);
    assert_int_equal(peer_of(r, 1, 1).state, PEER_ALIVE);
    assert_in_range(routes_taken(r, 1, &gone), 0, 2);
    r->cut[0] = true;
    run(r, 15 * SECOND);
    routes_taken(r, 1, &gone);
    gossip_node_up(r->host[0].gossip, NODES + 1, 0, r->now_ns);
    r->cut[0] = false;
    run(r, 15 * SECOND);
    assert_in_range(routes_taken(r, 1, &gone), 1, NODES + 2);
    rig_close(r);
}

static void test_route_again(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    struct gossip_route route;
    r->host[1].keeps_routes = true;
    gossip_node_up(r->host[0].gossip, 1, 0, r->now_ns);
    gossip_node_up(r->host[0].gossip, 2, 0, r->now_ns);
    run(r, SECOND);
    assert_true(gossip_route(r->host[1].gossip, &route));
    assert_int_equal(route.id, 1);
    gossip_route_again(r->host[1].gossip, 1);
    for (uint32_t id = 1; id <= 2; id++) {
        assert_true(gossip_route(r->host[1].gossip, &route));
        assert_int_equal(route.id, id);
    }
    assert_false(gossip_route(r->host[1].gossip, &route));
    rig_close(r);
}

/* --- the end --- */

static void test_leave(void **state)
{
    static struct gossip_beacon beacons[STORE_OWNERS_MAX];
    (void)state;
    struct rig *r = rig_joined(3);
    unsigned count;
    gossip_beacons(r->host[1].gossip, beacons, &count);
    gossip_leave(r->host[0].gossip, r->now_ns);
    send_all(r, 0);
    free(r->host[0].memory);
    r->host[0] = (struct host){.memory = NULL};
    run(r, 100 * MS);
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(peer_of(r, i, 1).state, PEER_LEFT);
    assert_true(gossip_beacons(r->host[1].gossip, beacons, &count));
    unsigned usable = 0;
    for (unsigned i = 0; i < count; i++)
        usable += beacons[i].usable;
    assert_int_equal(usable, 1);
    struct endpoint successor[4];
    assert_int_equal(gossip_successors(r->host[1].gossip, successor, 4), 1);
    assert_true(endpoint_equal(&successor[0], &r->host[2].at));
    rig_close(r);
}

/* --- keys --- */

/* New key accepted, then used, then the old one goes: no frame is refused meanwhile. */
static void test_keys_change(void **state)
{
    static const struct seal_ring rings[] = {
        {.count = 1, .of = {{.id = 7, .key = {1, 2, 3}}}},
        {.count = 2, .of = {{.id = 7, .key = {1, 2, 3}}, {.id = 8, .key = {4}}}},
        {.count = 2, .in_use = 1, .of = {{.id = 7, .key = {1, 2, 3}}, {.id = 8, .key = {4}}}},
        {.count = 1, .of = {{.id = 8, .key = {4}}}},
    };
    (void)state;
    struct rig *r = rig_joined(3);
    for (unsigned c = 1; c < COUNT(rings); c++)
        for (unsigned i = 0; i < 3; i++) {
            gossip_node_up(r->host[i].gossip, 100 * c + i, 0, r->now_ns);
            gossip_set_keys(r->host[i].gossip, &rings[c]);
            run(r, 700 * MS);
        }
    run(r, 2 * SECOND);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(verdicts(r, i, GOSSIP_UNKNOWN_KEY) + verdicts(r, i, GOSSIP_FORGED), 0);
        assert_int_equal(store_rows(gossip_store(r->host[i].gossip)), 9);
    }
    gossip_set_keys(r->host[2].gossip, &rings[0]); /* who has not kept up is out */
    run(r, 20 * SECOND);
    assert_true(verdicts(r, 0, GOSSIP_UNKNOWN_KEY) > 0);
    assert_int_equal(peer_of(r, 0, 3).state, PEER_DEAD);
    gossip_set_keys(r->host[2].gossip, NULL);
    run(r, SECOND);
    rig_close(r);
}

/* --- budgets --- */

static void test_budgets(void **state)
{
    (void)state;
    struct rig *r = rig_joined(2);
    uint8_t bytes[GOSSIP_FRAME_MAX], body[1];
    unsigned taken = 0, limited = 0;
    thief_joins(r, 0, THIEF, "203.0.113.66:66");
    r->now_ns = (r->now_ns / SECOND + 1) * SECOND;
    for (uint64_t n = 0; n < FRAMES_PER_S + 500; n++) {
        struct forged f = {THIEF, 1, 5, 100 + n, GOSSIP_DIGEST, body, 0};
        f.len = write_gossip_digest(bytes, sizeof bytes, 0, NULL, 0, &(unsigned){0});
        uint8_t digest[8];
        memcpy(digest, bytes, f.len);
        f.body = digest;
        enum gossip_verdict v = forged_input(r, 0, &f, "203.0.113.66:66");
        taken += v == GOSSIP_TAKEN;
        limited += v == GOSSIP_LIMITED;
    }
    assert_int_equal(taken, FRAMES_PER_S);
    assert_int_equal(limited, 500);
    memset(bytes, 0xaa, sizeof bytes);
    write_gossip_head(bytes, &(struct gossip_head){.key_id = 7, .sender = 900, .boot = 1});
    for (unsigned n = 0; n < BAD_PER_S; n++)
        assert_int_equal(input(r, 0, bytes, 100, VICTIM), GOSSIP_FORGED);
    assert_int_equal(input(r, 0, bytes, 100, VICTIM), GOSSIP_LIMITED);
    run(r, 100 * MS);
    assert_int_equal(peer_of(r, 0, 2).state, PEER_ALIVE);
    uint64_t replayed = verdicts(r, 0, GOSSIP_REPLAYED);
    const struct taped *t = taped_to(r, &r->host[0].at, GOSSIP_PING);
    assert_int_equal(input(r, 0, t->bytes, t->len, "192.0.2.2:9001"), GOSSIP_REPLAYED);
    assert_int_equal(verdicts(r, 0, GOSSIP_REPLAYED), replayed + 1);
    rig_close(r);
}

/* What it costs to refuse a frame of full length: less than two microseconds on a machine of its
 * own; the limit here is one for a busy machine and instrumented code. */
static void test_cost(void **state)
{
    enum { FRAMES = 40000 };
    (void)state;
    struct rig *r = rig_joined(2);
    uint8_t bytes[GOSSIP_FRAME_MAX];
    struct endpoint from = at(VICTIM);
    struct timespec a, b;
    memset(bytes, 0xaa, sizeof bytes);
    write_gossip_head(bytes, &(struct gossip_head){.key_id = 7, .sender = 900, .boot = 1});
    r->now_ns = (r->now_ns / SECOND + 1) * SECOND;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (unsigned n = 0; n < FRAMES; n++)
        assert_int_equal(gossip_input(r->host[0].gossip, bytes, sizeof bytes, &from, r->now_ns),
                         GOSSIP_FORGED);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    double ns = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / FRAMES;
    print_message("a forged frame of %zu bytes: %.0f ns\n", sizeof bytes, ns);
    assert_true(ns < 100000);
    rig_close(r);
}

/* --- status --- */

static void test_status(void **state)
{
    static const char *const seeds[] = {"192.0.2.1:9001", "203.0.113.9:9"};
    (void)state;
    struct rig *r = rig_joined(2);
    struct beacon_state says = {.nodes = 3,
                                .nodes_max = 9,
                                .endpoint_count = 1,
                                .endpoint = {at("203.0.113.200:1")},
                                .version = "1.2.3"};
    struct gossip_totals t;
    struct gossip_peer p;
    struct endpoint successor;
    gossip_set_state(r->host[0].gossip, &says, r->now_ns);
    gossip_node_up(r->host[0].gossip, 4711, 0, r->now_ns);
    know(r, 1, seeds, 2);
    run(r, SECOND);
    p = peer_of(r, 1, 1);
    assert_int_equal(p.rows, 1);
    assert_string_equal(p.says.version, "1.2.3");
    assert_string_equal(p.error, "");
    assert_true(p.rtt_ns > 0 && p.frames_in > 0 && p.bytes_out > 0);
    p = peer_of(r, 1, 0);
    assert_int_equal(p.state, PEER_SILENT);
    assert_true(is_at(r, 1, 0, seeds[1]));
    assert_string_equal(p.error, "does not answer, or has none of our keys");
    assert_int_equal(gossip_successors(r->host[1].gossip, &successor, 1), 1);
    assert_true(endpoint_equal(&successor, &says.endpoint[0]));
    says.draining = true;
    gossip_set_state(r->host[0].gossip, &says, r->now_ns);
    run(r, SECOND);
    assert_int_equal(gossip_successors(r->host[1].gossip, &successor, 1), 0);
    gossip_totals(r->host[1].gossip, &t);
    assert_int_equal(t.peers[PEER_ALIVE], 1);
    assert_int_equal(t.rows, 1);
    assert_int_equal(t.own_rows, 0);
    assert_false(t.duplicate_id);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_without_keys),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_replays),
        cmocka_unit_test(test_knock_elsewhere),
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_reflection),
        cmocka_unit_test(test_echo_elsewhere),
        cmocka_unit_test(test_old_boot),
        cmocka_unit_test(test_seed_is_us),
        cmocka_unit_test(test_pilot_learnt),
        cmocka_unit_test(test_pilot_expires),
        cmocka_unit_test(test_reboots),
        cmocka_unit_test(test_muted),
        cmocka_unit_test(test_duplicate_id),
        cmocka_unit_test(test_duplicate_ends),
        cmocka_unit_test(test_last_incarnation),
        cmocka_unit_test(test_last_sequence),
        cmocka_unit_test(test_victim),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_routes_lost),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_route_again),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_keys_change),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_status),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
