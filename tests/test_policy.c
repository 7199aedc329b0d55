#include "tests/rig.h"
#include "server/policy.h"

static void test_bad_sources(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        const char *local; /* address it came to, NULL: unknown */
        bool bad;
    } cases[] = {
        {"203.0.113.7:1", NULL, false},
        {"203.0.113.7:65535", NULL, false},
        {"127.0.0.1:1", NULL, false},
        {"[2001:db8::1]:1", NULL, false},
        {"[fe80::1]:1", NULL, false},
        {"203.0.113.7:0", NULL, true},
        {"[2001:db8::1]:0", NULL, true},
        {"0.0.0.0:1", NULL, true},
        {"0.1.2.3:1", NULL, true},
        {"[::]:1", NULL, true},
        {"224.0.0.1:1", NULL, true},
        {"239.255.255.255:1", NULL, true},
        {"255.255.255.255:1", NULL, true},
        {"240.0.0.1:1", NULL, true},
        {"[ff02::1]:1", NULL, true},
        {"[::ffff:0.0.0.0]:1", NULL, true},
        {"[::192.0.2.1]:1", NULL, true},
        {"192.0.2.1:9001", "192.0.2.1", true}, /* ourselves */
        {"192.0.2.1:9002", "192.0.2.1", false},
        {"192.0.2.2:9001", "192.0.2.1", false},
        {"192.0.2.1:9001", NULL, true}, /* wherever it came to */
        {"192.0.2.1:9001", "192.0.2.7", true},
        {"192.0.2.8:9001", "192.0.2.7", false},
        {"198.18.0.1:9001", NULL, true}, /* the address we are bound to */
        {"198.18.0.1:9002", NULL, false},
        {"[2001:db8::9]:9001", "2001:db8::9", true},
        {"[2001:db8::9]:9000", "2001:db8::9", false},
    };
    struct rig r;
    rig_open(&r, 1, 100);
    r.server->bound = endpoint_at("198.18.0.1:9001");
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint local;
        r.local = 0;
        if (cases[i].local) {
            assert_true(endpoint_parse_ip(cases[i].local, &local));
            r.local = service_index(&r.server->service, local.ip);
            assert_int_not_equal(r.local, 0);
        }
        struct datagram d = rig_datagram(&r, cases[i].from, 5);
        if (source_is_bad(r.server, &d) != cases[i].bad)
            fail_msg("%s at %s", cases[i].from, cases[i].local ? cases[i].local : "unknown");
    }
    rig_close(&r);
}

static void test_may_register(void **state)
{
    (void)state;
    /* One column for each of: yes, no, auto at a private address, auto at a global one. */
    static const struct {
        const char *from, *may;
    } cases[] = {
        {"8.8.8.8:1", "1111"},
        {"[2606:4700::1]:1", "1111"},
        {"10.0.0.1:1", "1010"},
        {"172.16.0.1:1", "1010"},
        {"172.32.0.1:1", "1111"},
        {"192.168.0.1:1", "1010"},
        {"100.64.0.1:1", "1010"},
        {"100.128.0.1:1", "1111"},
        {"203.0.113.7:1", "1010"},
        {"127.0.0.1:1", "1010"},
        {"[::1]:1", "1010"},
        {"[fc00::1]:1", "1010"},
        {"[2001:db8::1]:1", "1010"},
        {"169.254.1.1:1", "0000"},
        {"169.254.169.254:1", "0000"},
        {"[fe80::1]:1", "0000"},
        {"224.0.0.1:1", "0000"},
        {"0.0.0.0:1", "0000"},
        {"[::]:1", "0000"},
        {"[ff02::1]:1", "0000"},
        {"[64:ff9b::a00:1]:1", "1010"},
        {"[2002:7f00:1::1]:1", "1010"},
        {"[2002:a9fe:1::1]:1", "0000"},
    };
    static const struct {
        enum private_choice allow;
        bool local_is_global;
    } columns[] = {
        {PRIVATE_YES, true}, {PRIVATE_NO, false}, {PRIVATE_AUTO, false}, {PRIVATE_AUTO, true}};
    struct rig r;
    rig_open(&r, 1, 100);
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t c = 0; c < COUNT(columns); c++) {
            r.rules.allow_private = columns[c].allow;
            r.local_is_global = columns[c].local_is_global;
            struct datagram d = rig_datagram(&r, cases[i].from, 5);
            if (source_may_register(r.server->lane[0], &d) != (cases[i].may[c] == '1'))
                fail_msg("%s, column %zu", cases[i].from, c);
        }
    rig_close(&r);
}

/* Address `n` inside a prefix of a family: v4 203.0.0.0, v6 2001:db8::. The sources differ only in
 * the bits between `bits` and the next narrower level, so that this level is what runs out. */
static struct endpoint member(bool v4, unsigned low_bit, uint32_t n)
{
    struct endpoint e = {.port = 7, .ip = {0x20, 0x01, 0x0d, 0xb8}};
    if (v4)
        memcpy(e.ip, (uint8_t[16]){[10] = 0xff, [11] = 0xff, 203, 64}, 16);
    for (unsigned b = 0; b < 32; b++) {
        unsigned at = low_bit + b;
        if (n >> b & 1)
            e.ip[15 - at / 8] |= (uint8_t)(1u << at % 8);
    }
    return e;
}

static uint32_t spend(struct rig *r, bool v4, unsigned low_bit, uint32_t members, uint32_t tries)
{
    uint32_t taken = 0;
    for (uint32_t n = 0; n < tries; n++) {
        struct endpoint e = member(v4, low_bit, n % members);
        taken += (reply_take(r->server->lane[0], &e, &r->now) == REPLY_ALLOWED);
    }
    return taken;
}

static void test_reply_levels(void **state)
{
    (void)state;
    /* With a burst of 2: one source has 2; many sources of one prefix have 2 times its share. */
    static const struct {
        const char *name;
        bool v4;
        unsigned low_bit;
        uint32_t members, share;
    } cases[] = {
        {"an IPv4 address", true, 0, 1, 1},
        {"two addresses", true, 0, 2, 2},
        {"a /24, 31 of it", true, 0, 31, 31},
        {"a /24, 32 of it", true, 0, 32, 32},
        {"a /24, all of it", true, 0, 256, 32},
        {"a /20, below its share", true, 4, 200, 200},
        {"a /20", true, 4, 256, 256},
        {"a /20, all of it", true, 2, 1024, 256},
        {"a /18", true, 3, 2048, 768},
        {"an IPv6 address", false, 0, 1, 1},
        {"a /64", false, 0, 2, 2},
        {"a /64, many of it", false, 0, 100, 2},
        {"a /56", false, 64, 100, 3},
        {"a /48", false, 72, 100, 4},
        {"a /32, below its share", false, 80, 63, 63},
        {"a /32", false, 80, 1000, 64},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 100);
        r.rules.reply_rate = (struct rate){1, 2};
        uint32_t tries = 4 * cases[i].members + 10;
        uint32_t taken = spend(&r, cases[i].v4, cases[i].low_bit, cases[i].members, tries);
        if (taken != 2 * cases[i].share)
            fail_msg("%s: %u, not %u", cases[i].name, taken, 2 * cases[i].share);
        struct endpoint elsewhere = endpoint_at("192.0.2.1:1");
        assert_true((reply_take(r.server->lane[0], &elsewhere, &r.now) == REPLY_ALLOWED));
        rig_close(&r);
    }
}

static void test_reply_comes_back(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.reply_rate = (struct rate){1, 2};
    assert_int_equal(spend(&r, true, 0, 1, 5), 2);
    rig_step(&r, SECOND_NS - 1);
    assert_int_equal(spend(&r, true, 0, 1, 5), 0);
    rig_step(&r, 1);
    assert_int_equal(spend(&r, true, 0, 1, 5), 1);
    rig_close(&r);
}

/* A refused answer is not charged to the wider prefixes: one loud address does not silence its
 * neighbours. */
static void test_reply_neighbours(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.reply_rate = (struct rate){1, 2};
    assert_int_equal(spend(&r, true, 0, 1, 100000), 2);
    for (uint32_t n = 1; n < 32; n++) {
        struct endpoint e = member(true, 0, n);
        assert_true((reply_take(r.server->lane[0], &e, &r.now) == REPLY_ALLOWED));
        assert_true((reply_take(r.server->lane[0], &e, &r.now) == REPLY_ALLOWED));
        assert_false((reply_take(r.server->lane[0], &e, &r.now) == REPLY_ALLOWED));
    }
    rig_close(&r);
}

static void test_reply_total(void **state)
{
    (void)state;
    static const struct {
        const char *name, *to;
        struct rate rate, total;
        uint32_t tries, taken;
    } cases[] = {
        {"total", "203.0.113.7:1", {0, 1}, {10, 5}, 20, 5},
        {"both, the source first", "203.0.113.7:1", {10, 3}, {10, 5}, 20, 3},
        {"both, the total first", "203.0.113.7:1", {10, 7}, {10, 5}, 20, 5},
        {"both off", "203.0.113.7:1", {0, 1}, {0, 1}, 1000, 1000},
        {"loopback", "127.0.0.1:1", {10, 3}, {10, 5}, 1000, 1000},
        {"loopback, another", "127.200.0.1:1", {10, 3}, {10, 5}, 1000, 1000},
        {"loopback v6", "[::1]:1", {10, 3}, {10, 5}, 1000, 1000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 100);
        r.rules.reply_rate = cases[i].rate;
        r.rules.reply_total = cases[i].total;
        struct endpoint to = endpoint_at(cases[i].to);
        uint32_t taken = 0;
        for (uint32_t n = 0; n < cases[i].tries; n++) {
            to.port = (uint16_t)(1 + n); /* another port is no other source */
            taken += (reply_take(r.server->lane[0], &to, &r.now) == REPLY_ALLOWED);
        }
        if (taken != cases[i].taken)
            fail_msg("%s: %u", cases[i].name, taken);
        rig_close(&r);
    }
}

/* A source beyond its budget takes nothing from the shard's total. */
static void test_reply_total_is_spared(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.reply_rate = (struct rate){1, 2};
    r.rules.reply_total = (struct rate){1, 5};
    struct endpoint loud = endpoint_at("203.0.113.7:1"), quiet = endpoint_at("8.8.8.8:1");
    for (int i = 0; i < 100; i++)
        assert_int_equal((reply_take(r.server->lane[0], &loud, &r.now) == REPLY_ALLOWED), i < 2);
    assert_true((reply_take(r.server->lane[0], &quiet, &r.now) == REPLY_ALLOWED));
    assert_true((reply_take(r.server->lane[0], &quiet, &r.now) == REPLY_ALLOWED));
    struct endpoint third = endpoint_at("9.9.9.9:1");
    assert_true((reply_take(r.server->lane[0], &third, &r.now) == REPLY_ALLOWED));
    assert_false((reply_take(r.server->lane[0], &third, &r.now) == REPLY_ALLOWED));
    rig_close(&r);
}

static void test_whitelist(void **state)
{
    (void)state;
    struct whitelist w = {.count = 2};
    assert_true(endpoint_parse_ip("203.0.113.7", &w.ip[0]));
    assert_true(endpoint_parse_ip("2001:db8::1", &w.ip[1]));
    static const struct {
        const char *from;
        bool listed;
    } cases[] = {
        {"203.0.113.7:1", true},        {"203.0.113.7:65535", true},
        {"203.0.113.6:1", false},       {"203.0.113.8:1", false},
        {"[2001:db8::1]:5", true},      {"[2001:db8::2]:5", false},
        {"[2001:db8:0:1::1]:5", false}, {"[::ffff:203.0.113.7]:9", true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint from = endpoint_at(cases[i].from);
        assert_int_equal(whitelisted(&w, &from), cases[i].listed);
        assert_true(whitelisted(&(struct whitelist){.all = true}, &from));
        assert_false(whitelisted(&(struct whitelist){.count = 0}, &from));
    }
}

static void test_hashes_differ(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 2, 100);
    const struct lane *l = r.server->lane[0];
    struct endpoint a = endpoint_at("203.0.113.7:1"), port = endpoint_at("203.0.113.7:2");
    struct endpoint neighbour = endpoint_at("203.0.113.8:1");
    struct endpoint v6 = endpoint_at("[2001:db8::1]:1"), same64 = endpoint_at("[2001:db8::2]:9");
    struct endpoint other64 = endpoint_at("[2001:db8:0:1::1]:1");
    assert_true(limit_hash_endpoint(l, &a) != limit_hash_endpoint(l, &port));
    assert_true(limit_hash_source(l, &a, LIMIT_SENDS) == limit_hash_source(l, &port, LIMIT_SENDS));
    assert_true(limit_hash_source(l, &a, LIMIT_SENDS) != limit_hash_source(l, &a, LIMIT_IS_NAMED));
    assert_true(limit_hash_source(l, &a, LIMIT_SENDS) !=
                limit_hash_source(l, &neighbour, LIMIT_SENDS));
    assert_true(limit_hash_prefix(l, &a, 24, LIMIT_SENDS) ==
                limit_hash_prefix(l, &neighbour, 24, LIMIT_SENDS));
    assert_true(limit_hash_source(l, &v6, LIMIT_SENDS) ==
                limit_hash_source(l, &same64, LIMIT_SENDS));
    assert_true(limit_hash_source(l, &v6, LIMIT_SENDS) !=
                limit_hash_source(l, &other64, LIMIT_SENDS));
    assert_true(limit_hash_pair(l, 1, 2) != limit_hash_pair(l, 2, 1));
    /* One key for all lanes: a source has the same hash wherever it comes in. */
    assert_true(limit_hash_endpoint(l, &a) == limit_hash_endpoint(r.server->lane[1], &a));
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_sources),           cmocka_unit_test(test_may_register),
        cmocka_unit_test(test_reply_levels),          cmocka_unit_test(test_reply_comes_back),
        cmocka_unit_test(test_reply_neighbours),      cmocka_unit_test(test_reply_total),
        cmocka_unit_test(test_reply_total_is_spared), cmocka_unit_test(test_whitelist),
        cmocka_unit_test(test_hashes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
