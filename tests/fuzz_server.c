/* A sequence of datagrams from a few sources, with time passing, against a small server of two
 * lanes. Whatever comes: one verdict each, answers as few and as short as documented, and books
 * that balance.
 *
 * Input: a byte of rules; then for each datagram a byte of what happens (below), its length, and
 * its bytes. */
#include <stdlib.h>
#include "proto/stun.h"
#include "server/server.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { LANES = 2, NODES_MAX = 24 };
enum { RULES_STRICT = 1, RULES_TOKEN = 2, RULES_LIMITS = 4, RULES_NURSERY = 8, RULES_GLOBAL = 16 };
enum {
    STEP_SOURCE = 7,    /* which source */
    STEP_LANE = 8,      /* which lane gets it */
    STEP_TIME = 0x30,   /* how much time passes first */
    STEP_DRAIN = 0x40,  /* letters are read and a tick follows */
    STEP_SMALL_ID = 128 /* ids are cut to their last byte, so that they meet */
};

static const char *const sources[8] = {
    "8.8.8.8:40000",       "8.8.8.8:40001",   "9.9.9.9:4000", "[2606:4700::1]:5555",
    "[2606:4700::2]:5555", "127.0.0.1:40000", "224.0.0.1:9",  "10.0.0.1:9001",
};
static const uint64_t steps_ns[4] = {0, 1000000, 1000000000, 91000000000};

struct world {
    struct config config;
    struct rules rules;
    struct server *server;
    struct moment now;
    struct outbox out;
    uint64_t received;
    bool local_is_global;
};

static struct world w;
static uint8_t *memory;

static void world_new(uint8_t choice)
{
    static const uint8_t seed[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    config_init(&w.config);
    w.config.max_nodes = NODES_MAX;
    size_t size = server_size(&w.config, LANES);
    if (!memory)
        memory = aligned_alloc(64, size);
    CHECK(memory);
    memset(memory, 0, size);
    w.rules = w.config.rules;
    w.rules.strict_relay_source = choice & RULES_STRICT;
    w.rules.require_punch_token = choice & RULES_TOKEN;
    if (!(choice & RULES_LIMITS)) {
        const struct rate off = {0, 1};
        w.rules.relay_rate = w.rules.relay_ip_rate = w.rules.reply_rate = off;
        w.rules.punch_rate = w.rules.punch_pair_rate = w.rules.punch_victim_rate = off;
    }
    w.rules.nursery_percent = choice & RULES_NURSERY ? 50 : 0;
    w.local_is_global = choice & RULES_GLOBAL;
    w.now = (struct moment){.ns = 1000000000000, .unix_s = 1800000000};
    w.received = 0;
    w.server = server_init(memory, &w.config, LANES, &w.rules, seed);
}

static unsigned owner_of(uint32_t id)
{
    return route_owner(w.server->owner_key, id, LANES);
}

/* --- what must hold after every step --- */

struct census {
    unsigned lane;
    uint32_t count, count_v4;
};

static void census_take(const struct route *route, void *arg)
{
    struct census *c = arg;
    enum ip_scope scope = ip_scope(route->at.ip);
    struct route found;
    CHECK(route->id != 0 && owner_of(route->id) == c->lane);
    CHECK(route->at.port != 0 && scope != SCOPE_NEVER && scope != SCOPE_LINK);
    CHECK(!w.local_is_global || scope == SCOPE_GLOBAL);
    CHECK(server_find(w.server, route->id, &found) && endpoint_equal(&found.at, &route->at));
    c->count++;
    c->count_v4 += endpoint_is_v4(&route->at);
}

static void check_books(void)
{
    uint64_t decided = 0, passed = 0, taken = 0;
    for (unsigned i = 0; i < LANES; i++) {
        const struct lane *l = w.server->lane[i];
        struct census c = {.lane = i};
        for (int v = 0; v < VERDICT_COUNT; v++)
            decided += count_read(&l->stats.verdict[v]);
        passed += count_read(&l->stats.mail_passed);
        taken += count_read(&l->stats.mail_taken);
        route_each(l->routes, census_take, &c);
        CHECK(c.count == route_count(l->routes) && c.count_v4 == route_count_v4(l->routes));
        CHECK(c.count <= route_capacity(l->routes));
    }
    CHECK(taken <= passed && decided + (passed - taken) == w.received);
}

static void check_answers(enum verdict v, const struct datagram *d)
{
    const struct verdict_row *row = &verdict_rows[v];
    bool punch = strcmp(row->type, "punch") == 0, stun = strcmp(row->type, "stun") == 0;
    if (strcmp(row->outcome, "dropped") == 0) {
        CHECK(w.out.count == 0);
    } else if (strcmp(row->outcome, "forwarded") == 0) {
        CHECK(w.out.count == 1 && w.out.out[0].len <= d->len);
        CHECK(w.out.out[0].bytes >= d->bytes);
        CHECK(w.out.out[0].bytes + w.out.out[0].len == d->bytes + d->len);
    } else {
        CHECK(w.out.count == (punch ? 2 : 1));
        for (unsigned i = 0; i < w.out.count; i++) {
            CHECK(punch || endpoint_equal(&w.out.out[i].to, &d->from));
            CHECK(w.out.out[i].len <= (stun ? (uint32_t)STUN_ANSWER_MAX : MSG_REPLY_MAX));
            CHECK(stun || w.out.out[i].len == 8 || w.out.out[i].len == 20);
        }
    }
}

/* --- one step --- */

static void drain(void)
{
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *l = w.server->lane[i];
        bool more;
        server_begin(l);
        do {
            uint64_t taken = count_read(&l->stats.mail_taken);
            w.out.count = 0;
            more = server_mail(l, &w.now, &w.out);
            CHECK(w.out.count <= 2 * (count_read(&l->stats.mail_taken) - taken));
        } while (more);
        server_tick(l, &w.now);
        l->wake = 0;
    }
}

/* A fresh id in someone's hands stays there, whatever another address says. */
static bool must_stay(const struct datagram *d, uint32_t id, struct route *ret)
{
    return server_find(w.server, id, ret) && !endpoint_same_ip(&ret->at, &d->from) &&
           moment_s(&w.now) - ret->seen_s < w.rules.takeover_silence_s;
}

static void input(uint8_t how, uint8_t *bytes, uint32_t len)
{
    struct lane *l = w.server->lane[how & STEP_LANE ? 1 : 0];
    struct datagram d = {.bytes = bytes, .len = len, .local_is_global = w.local_is_global};
    struct route before, after;
    CHECK(endpoint_parse(sources[how & STEP_SOURCE], &d.from));
    w.now.ns += steps_ns[(how & STEP_TIME) >> 4];
    w.out.count = 0;
    server_begin(l);
    server_prefetch(l, &d);
    enum msg_kind kind = d.kind;
    bool writes = kind == MSG_KIND_DISCOVER || kind == MSG_KIND_PUNCH;
    struct reader r = reader_of(bytes + 1, writes ? 4 : 0);
    uint32_t id = read_u32(&r);
    bool stays = writes && must_stay(&d, id, &before);
    enum verdict v = server_input(l, &d, &w.now, &w.out);
    w.received++;
    if (v == VERDICT_PASSED) {
        CHECK(writes && owner_of(id) != l->index && w.out.count == 0);
        CHECK(l->wake >> owner_of(id) & 1);
    } else {
        CHECK(v < VERDICT_COUNT);
        count_add(&l->stats.verdict[v], 1);
        CHECK(!writes || owner_of(id) == l->index || v == VERDICT_DROPPED_BAD_SOURCE ||
              v == VERDICT_DROPPED_MAILBOX_FULL);
        check_answers(v, &d);
    }
    if (stays)
        CHECK(server_find(w.server, id, &after) && endpoint_equal(&before.at, &after.at));
    if (how & STEP_DRAIN)
        drain();
    check_books();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    world_new(read_u8(&r));
    while (read_left(&r) >= 2) {
        uint8_t how = read_u8(&r), want = read_u8(&r);
        uint32_t n = want < read_left(&r) ? want : (uint32_t)read_left(&r);
        uint8_t *copy = malloc(n + 1); /* of its own size: a sanitizer sees a step too far */
        CHECK(copy);
        memcpy(copy, read_bytes(&r, n), n);
        if (how & STEP_SMALL_ID && n >= 5)
            memset(copy + 1, 0, 3);
        if (how & STEP_SMALL_ID && n >= 9 && (copy[0] == MSG_PUNCH_REQUEST || copy[0] == MSG_RELAY))
            memset(copy + 5, 0, 3);
        input(how, copy, n);
        free(copy);
    }
    drain();
    check_books();
    return 0;
}
