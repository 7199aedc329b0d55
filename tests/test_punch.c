#include "tests/rig.h"
#include "server/punch.h"

#define KEY_1 "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define V6 "030001e2400009fbf1"
#define V7                                                                                         \
    "030001e2400009fbf100000000713fb300b3bef5238f1eb5123be4c14bd33e9dd989fe369c0dfb47d3f1c2d67bfe" \
    "a022c0650918aa3ace1a8ec33e94e7b72eef2659d614ad300db310c9079acb93dd1807"
#define V8 "0404c63364090fa0"
#define TO_B "0404cb0071079c40"

enum { NOW_S = 1800000000, V7_EXPIRY = 1900000000 };

struct keys {
    uint8_t public_[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
};

static struct keys keys_of(uint8_t n)
{
    struct keys k;
    uint8_t seed[crypto_sign_SEEDBYTES];
    memset(seed, n, sizeof seed);
    assert_int_equal(crypto_sign_seed_keypair(k.public_, k.secret, seed), 0);
    return k;
}

/* A and B registered, B with the key that signs grants for it. */
static struct keys open_with_both(struct rig *r, unsigned lanes)
{
    struct keys k = keys_of(1);
    rig_open(r, lanes, 100);
    assert_verdict(rig_node(r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "A");
    assert_verdict(
        rig_discover(r, AT_B, &(struct msg_discover){.node_id = NODE_B, .key = k.public_}),
        VERDICT_DISCOVER_NEW, "B");
    return k;
}

struct grant {
    uint32_t requester, target; /* what the text says */
    int64_t expiry;
};

/* A PunchRequest A -> B with a grant, cut to `len` bytes. */
static enum verdict ask(struct rig *r, const char *from, const struct msg_punch *m,
                        const struct grant *g, const struct keys *k, size_t len)
{
    uint8_t signature[crypto_sign_BYTES], bytes[MSG_PUNCH_GRANT_LEN + 16] = {0};
    char text[MSG_GRANT_TEXT_MAX];
    struct msg_punch said = {g->requester, g->target, NULL, g->expiry}, sent = *m;
    size_t text_len = punch_grant_text(&said, text);
    crypto_sign_detached(signature, NULL, (const uint8_t *)text, text_len, k->secret);
    sent.grant_signature = signature;
    struct writer w = writer_of(bytes, sizeof bytes);
    write_punch(&w, &sent);
    assert_true(len <= sizeof bytes);
    return rig_input(r, rig_owner(r, m->requester), from, bytes, len);
}

static enum verdict ask_plainly(struct rig *r, const char *from, int64_t expiry,
                                const struct keys *k)
{
    return ask(r, from, &(struct msg_punch){NODE_A, NODE_B, NULL, expiry},
               &(struct grant){NODE_A, NODE_B, expiry}, k, MSG_PUNCH_GRANT_LEN);
}

static void test_golden(void **state)
{
    (void)state;
    struct rig r;
    for (unsigned lanes = 1; lanes <= 4; lanes++) {
        open_with_both(&r, lanes);
        unsigned owner = rig_owner(&r, NODE_A);
        assert_verdict(rig_hex(&r, owner, AT_A, V6), VERDICT_PUNCH_COMMANDED, "V6");
        assert_int_equal(r.out.count, 2);
        assert_sent(&r, 0, AT_A, V8);
        assert_sent(&r, 1, AT_B, TO_B);
        assert_verdict(rig_hex(&r, owner, AT_A, V7), VERDICT_PUNCH_COMMANDED, "V7, not asked for");
        rig_close(&r);
    }
    rig_open(&r, 1, 100);
    rig_node(&r, "[2001:db8::1]:5555", NODE_B);
    assert_verdict(rig_hex(&r, 0, AT_A, V6), VERDICT_PUNCH_COMMANDED, "to IPv6");
    assert_sent(&r, 0, AT_A, "041020010db800000000000000000000000115b3"); /* V9 */
    assert_sent(&r, 1, "[2001:db8::1]:5555", TO_B);
    rig_close(&r);
}

static void test_golden_grant(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t now_s;
        enum verdict want;
    } cases[] = {
        {"long before", 1800000000, VERDICT_PUNCH_COMMANDED},
        {"in the last second", V7_EXPIRY, VERDICT_PUNCH_COMMANDED},
        {"a second too late", V7_EXPIRY + 1, VERDICT_PUNCH_GRANT_BAD},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 100);
        r.rules.require_punch_token = true;
        r.rules.grant_lifetime_s = 0;
        r.now.unix_s = cases[i].now_s;
        rig_hex(&r, 0, AT_B, "010009fbf1" KEY_1); /* V3 */
        assert_verdict(rig_hex(&r, 0, AT_A, V7), cases[i].want, cases[i].name);
        rig_close(&r);
    }
}

/* Registers the requester, whatever comes of the request. */
static void test_registers(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from;
        uint32_t requester, target;
        enum verdict want;
        const char *where; /* the requester is afterwards */
    } cases[] = {
        {"a new requester", "192.0.2.1:7", 42, NODE_B, VERDICT_PUNCH_COMMANDED, "192.0.2.1:7"},
        {"an unknown target", "192.0.2.1:7", 42, 43, VERDICT_PUNCH_UNKNOWN_TARGET, "192.0.2.1:7"},
        {"target 0", "192.0.2.1:7", 42, 0, VERDICT_PUNCH_UNKNOWN_TARGET, "192.0.2.1:7"},
        {"requester 0", "192.0.2.1:7", 0, NODE_B, VERDICT_PUNCH_NOT_STORED, ""},
        {"another port", "203.0.113.7:5", NODE_A, NODE_B, VERDICT_PUNCH_COMMANDED, "203.0.113.7:5"},
        {"hijack", "192.0.2.1:7", NODE_A, NODE_B, VERDICT_PUNCH_NOT_STORED, AT_A},
        {"link-local", "169.254.1.1:7", 42, NODE_B, VERDICT_PUNCH_NOT_STORED, ""},
        {"itself", AT_A, NODE_A, NODE_A, VERDICT_PUNCH_COMMANDED, AT_A},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        open_with_both(&r, 2);
        enum verdict v = rig_punch(&r, cases[i].from, cases[i].requester, cases[i].target);
        assert_verdict(v, cases[i].want, cases[i].name);
        assert_int_equal(r.out.count, v == VERDICT_PUNCH_COMMANDED ? 2 : 0);
        assert_string_equal(rig_where(&r, cases[i].requester), cases[i].where);
        rig_close(&r);
    }
}

static void test_new_requester_is_named(void **state)
{
    (void)state;
    struct rig r;
    open_with_both(&r, 1);
    rig_discover(&r, AT_A, &(struct msg_discover){.wants_dest = true, .node_id = NODE_A});
    rig_punch(&r, "203.0.113.7:5", NODE_A, NODE_B);
    assert_sent(&r, 0, "203.0.113.7:5", V8);
    assert_sent(&r, 1, AT_B, "0404cb0071070005");
    struct route a;
    assert_true(server_find(r.server, NODE_A, &a));
    assert_int_equal(a.flags & ROUTE_WANTS_DEST, ROUTE_WANTS_DEST); /* kept */
    rig_close(&r);
}

static void test_grants(void **state)
{
    (void)state;
    enum { WHOLE = MSG_PUNCH_GRANT_LEN, LIFE = 86400 };
    static const struct {
        const char *name;
        struct grant grant;
        int64_t sent_expiry;
        uint8_t signer;
        size_t len;
        enum verdict want;
    } cases[] = {
        {"good", {NODE_A, NODE_B, NOW_S + 60}, NOW_S + 60, 1, WHOLE, VERDICT_PUNCH_COMMANDED},
        {"more bytes",
         {NODE_A, NODE_B, NOW_S + 60},
         NOW_S + 60,
         1,
         WHOLE + 5,
         VERDICT_PUNCH_COMMANDED},
        {"none",
         {NODE_A, NODE_B, NOW_S + 60},
         NOW_S + 60,
         1,
         MSG_PUNCH_LEN,
         VERDICT_PUNCH_GRANT_MISSING},
        {"a byte short",
         {NODE_A, NODE_B, NOW_S + 60},
         NOW_S + 60,
         1,
         WHOLE - 1,
         VERDICT_PUNCH_GRANT_MISSING},
        {"a byte of it",
         {NODE_A, NODE_B, NOW_S + 60},
         NOW_S + 60,
         1,
         MSG_PUNCH_LEN + 1,
         VERDICT_PUNCH_GRANT_MISSING},
        {"expires now", {NODE_A, NODE_B, NOW_S}, NOW_S, 1, WHOLE, VERDICT_PUNCH_COMMANDED},
        {"expired by a second",
         {NODE_A, NODE_B, NOW_S - 1},
         NOW_S - 1,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"expiry 0", {NODE_A, NODE_B, 0}, 0, 1, WHOLE, VERDICT_PUNCH_GRANT_BAD},
        {"expiry -1", {NODE_A, NODE_B, -1}, -1, 1, WHOLE, VERDICT_PUNCH_GRANT_BAD},
        {"lowest expiry",
         {NODE_A, NODE_B, INT64_MIN},
         INT64_MIN,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"highest expiry",
         {NODE_A, NODE_B, INT64_MAX},
         INT64_MAX,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"the whole lifetime",
         {NODE_A, NODE_B, NOW_S + LIFE},
         NOW_S + LIFE,
         1,
         WHOLE,
         VERDICT_PUNCH_COMMANDED},
        {"a second more",
         {NODE_A, NODE_B, NOW_S + LIFE + 1},
         NOW_S + LIFE + 1,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"wrong key", {NODE_A, NODE_B, NOW_S + 60}, NOW_S + 60, 2, WHOLE, VERDICT_PUNCH_GRANT_BAD},
        {"another requester",
         {NODE_A + 1, NODE_B, NOW_S + 60},
         NOW_S + 60,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"another target",
         {NODE_A, NODE_B + 1, NOW_S + 60},
         NOW_S + 60,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"the other way round",
         {NODE_B, NODE_A, NOW_S + 60},
         NOW_S + 60,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
        {"another expiry",
         {NODE_A, NODE_B, NOW_S + 60},
         NOW_S + 61,
         1,
         WHOLE,
         VERDICT_PUNCH_GRANT_BAD},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (unsigned lanes = 1; lanes <= 2; lanes++) {
            struct rig r;
            struct keys k = keys_of(cases[i].signer);
            open_with_both(&r, lanes);
            r.rules.require_punch_token = true;
            enum verdict v =
                ask(&r, AT_A, &(struct msg_punch){NODE_A, NODE_B, NULL, cases[i].sent_expiry},
                    &cases[i].grant, &k, cases[i].len);
            assert_verdict(v, cases[i].want, cases[i].name);
            assert_int_equal(r.out.count, v == VERDICT_PUNCH_COMMANDED ? 2 : 0);
            rig_close(&r);
        }
}

static void test_any_lifetime(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1);
    r.rules.require_punch_token = true;
    r.rules.grant_lifetime_s = 0;
    assert_verdict(ask_plainly(&r, AT_A, INT64_MAX, &k), VERDICT_PUNCH_COMMANDED, "for ever");
    rig_close(&r);
}

static void test_no_key(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = keys_of(1);
    rig_open(&r, 1, 100);
    r.rules.require_punch_token = true;
    rig_node(&r, AT_B, NODE_B);
    assert_verdict(ask_plainly(&r, AT_A, NOW_S + 60, &k), VERDICT_PUNCH_GRANT_NO_KEY, "no key");
    rig_discover(&r, AT_B, &(struct msg_discover){.node_id = NODE_B, .key = k.public_});
    assert_verdict(ask_plainly(&r, AT_A, NOW_S + 60, &k), VERDICT_PUNCH_COMMANDED, "with it");
    rig_close(&r);
}

/* A used grant is good for its user alone. */
static void test_replay(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1);
    r.rules.require_punch_token = true;
    assert_verdict(ask_plainly(&r, AT_A, NOW_S + 300, &k), VERDICT_PUNCH_COMMANDED, "first");
    assert_verdict(ask_plainly(&r, AT_A, NOW_S + 300, &k), VERDICT_PUNCH_COMMANDED, "again");
    assert_verdict(ask_plainly(&r, "203.0.113.7:9", NOW_S + 300, &k), VERDICT_PUNCH_COMMANDED,
                   "another port");
    rig_step(&r, 90 * SECOND_NS); /* the id itself may change hands now */
    r.now.unix_s += 90;
    assert_verdict(ask_plainly(&r, AT_B, NOW_S + 300, &k), VERDICT_PUNCH_GRANT_REPLAYED, "stolen");
    assert_int_equal(r.out.count, 0);
    assert_verdict(ask_plainly(&r, AT_B, NOW_S + 301, &k), VERDICT_PUNCH_COMMANDED, "a new one");
    rig_close(&r);
}

/* What failed is not remembered: a forger cannot use up a grant before its owner. */
static void test_failure_uses_nothing_up(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1), forger = keys_of(9);
    r.rules.require_punch_token = true;
    rig_step(&r, 90 * SECOND_NS);
    assert_verdict(ask_plainly(&r, "192.0.2.66:1", NOW_S + 60, &forger), VERDICT_PUNCH_GRANT_BAD,
                   "forged");
    rig_step(&r, 90 * SECOND_NS);
    assert_verdict(ask_plainly(&r, AT_A, NOW_S + 60, &k), VERDICT_PUNCH_COMMANDED, "real");
    rig_close(&r);
}

/* Thousands of grants: the memory is bounded and the newest is always in it. */
static void test_many_grants(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1);
    r.rules.require_punch_token = true;
    for (int64_t n = 1; n <= 6000; n++)
        assert_int_equal(ask_plainly(&r, AT_A, NOW_S + n, &k), VERDICT_PUNCH_COMMANDED);
    rig_step(&r, 90 * SECOND_NS);
    assert_verdict(ask_plainly(&r, AT_B, NOW_S + 6000, &k), VERDICT_PUNCH_GRANT_REPLAYED, "newest");
    rig_close(&r);
}

static void test_verify_rate(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1), forger = keys_of(9);
    r.rules.require_punch_token = true;
    r.rules.verify_rate = (struct rate){1, 2};
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S - 1, &k), VERDICT_PUNCH_GRANT_BAD); /* is free */
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S + 60, &forger), VERDICT_PUNCH_GRANT_BAD);
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S + 60, &forger), VERDICT_PUNCH_GRANT_BAD);
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S + 60, &k), VERDICT_PUNCH_VERIFY_LIMITED);
    assert_int_equal(r.out.count, 0);
    rig_step(&r, SECOND_NS);
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S + 60, &k), VERDICT_PUNCH_COMMANDED);
    rig_close(&r);
}

static void test_budgets(void **state)
{
    (void)state;
    /* Twenty requests; requester and target n of each are at the addresses given. */
    static const struct {
        const char *name;
        struct rate source, pair, victim, total;
        const char *requester, *target; /* # is the number of the request */
        unsigned commanded;
        enum verdict then;
    } cases[] = {
        {"off",
         {0, 1},
         {0, 1},
         {0, 1},
         {0, 1},
         "203.0.113.7:1",
         "198.51.100.9:1",
         20,
         VERDICT_PUNCH_COMMANDED},
        {"source",
         {1, 4},
         {0, 1},
         {0, 1},
         {0, 1},
         "203.0.113.7:#",
         "198.51.100.#:1",
         4,
         VERDICT_PUNCH_LIMITED},
        {"sources",
         {1, 4},
         {0, 1},
         {0, 1},
         {0, 1},
         "203.0.113.#:1",
         "198.51.100.#:1",
         20,
         VERDICT_PUNCH_COMMANDED},
        {"source, one /64",
         {1, 4},
         {0, 1},
         {0, 1},
         {0, 1},
         "[2001:db8::#]:1",
         "198.51.100.#:1",
         4,
         VERDICT_PUNCH_LIMITED},
        {"pair",
         {0, 1},
         {1, 3},
         {0, 1},
         {0, 1},
         "203.0.113.7:1",
         "198.51.100.9:1",
         3,
         VERDICT_PUNCH_PAIR_LIMITED},
        {"victim is the target",
         {0, 1},
         {0, 1},
         {1, 5},
         {0, 1},
         "203.0.113.#:1",
         "198.51.100.9:#",
         5,
         VERDICT_PUNCH_VICTIM_LIMITED},
        {"victim is the source",
         {0, 1},
         {0, 1},
         {1, 5},
         {0, 1},
         "203.0.113.7:#",
         "198.51.100.#:1",
         5,
         VERDICT_PUNCH_VICTIM_LIMITED},
        {"both at one address",
         {0, 1},
         {0, 1},
         {1, 6},
         {0, 1},
         "203.0.113.7:#",
         "203.0.113.7:#",
         3,
         VERDICT_PUNCH_VICTIM_LIMITED},
        {"total",
         {0, 1},
         {0, 1},
         {0, 1},
         {1, 7},
         "203.0.113.#:1",
         "198.51.100.#:1",
         7,
         VERDICT_PUNCH_TOTAL_LIMITED},
        {"loopback source and victim",
         {1, 1},
         {0, 1},
         {1, 1},
         {0, 1},
         "127.0.0.1:#",
         "127.0.0.1:#",
         20,
         VERDICT_PUNCH_COMMANDED},
        {"loopback, total",
         {1, 1},
         {0, 1},
         {1, 1},
         {1, 9},
         "127.0.0.1:#",
         "127.0.0.1:#",
         9,
         VERDICT_PUNCH_TOTAL_LIMITED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 1000);
        r.rules.punch_rate = cases[i].source;
        r.rules.punch_pair_rate = cases[i].pair;
        r.rules.punch_victim_rate = cases[i].victim;
        r.rules.punch_total = cases[i].total;
        bool one_pair = !strchr(cases[i].requester, '#') && !strchr(cases[i].target, '#');
        for (unsigned n = 0; n < 20; n++) {
            char at[2][ENDPOINT_TEXT_MAX];
            const char *const form[2] = {cases[i].requester, cases[i].target};
            for (int k = 0; k < 2; k++) {
                const char *mark = strchr(form[k], '#');
                int head = mark ? (int)(mark - form[k]) : (int)strlen(form[k]);
                snprintf(at[k], sizeof at[k], mark ? "%.*s%u%s" : "%.*s", head, form[k], 10 + n,
                         mark ? mark + 1 : "");
            }
            uint32_t requester = one_pair ? 1000 : 1000 + n, target = requester + 5000;
            rig_node(&r, at[1], target);
            enum verdict v = rig_punch(&r, at[0], requester, target);
            assert_verdict(v, n < cases[i].commanded ? VERDICT_PUNCH_COMMANDED : cases[i].then,
                           cases[i].name);
            assert_int_equal(r.out.count, v == VERDICT_PUNCH_COMMANDED ? 2 : 0);
        }
        rig_close(&r);
    }
}

/* A refused punch spends none of the budgets that would have allowed it. */
static void test_refusal_spends_nothing(void **state)
{
    (void)state;
    struct rig r;
    open_with_both(&r, 1);
    rig_node(&r, "192.0.2.1:1", 42);
    r.rules.punch_rate = (struct rate){1, 3};
    r.rules.punch_pair_rate = (struct rate){1, 1};
    r.rules.punch_total = (struct rate){1, 3};
    assert_int_equal(rig_punch(&r, AT_A, NODE_A, NODE_B), VERDICT_PUNCH_COMMANDED);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(rig_punch(&r, AT_A, NODE_A, NODE_B), VERDICT_PUNCH_PAIR_LIMITED);
        assert_int_equal(rig_punch(&r, AT_A, NODE_A, 77), VERDICT_PUNCH_UNKNOWN_TARGET);
    }
    assert_int_equal(rig_punch(&r, AT_A, NODE_A, 42), VERDICT_PUNCH_COMMANDED);
    assert_int_equal(rig_punch(&r, AT_A, NODE_A, NODE_A), VERDICT_PUNCH_COMMANDED);
    assert_int_equal(rig_punch(&r, AT_A, NODE_A, 42), VERDICT_PUNCH_LIMITED);
    rig_close(&r);
}

static void test_whitelist(void **state)
{
    (void)state;
    struct rig r;
    struct keys k = open_with_both(&r, 1);
    const struct rate one = {1, 1};
    r.rules.punch_rate = r.rules.punch_pair_rate = one;
    r.rules.punch_victim_rate = r.rules.punch_total = one;
    r.rules.punch_whitelist.count = 1;
    assert_true(endpoint_parse_ip("203.0.113.7", &r.rules.punch_whitelist.ip[0]));
    for (int i = 0; i < 50; i++)
        assert_int_equal(rig_punch(&r, AT_A, NODE_A, NODE_B), VERDICT_PUNCH_COMMANDED);
    /* It has spent nothing of the others' either. */
    assert_int_equal(rig_punch(&r, "192.0.2.1:1", 42, NODE_B), VERDICT_PUNCH_COMMANDED);
    assert_int_equal(rig_punch(&r, "192.0.2.1:1", 42, NODE_B), VERDICT_PUNCH_LIMITED);
    r.rules.require_punch_token = true;
    assert_int_equal(rig_punch(&r, AT_A, NODE_A, NODE_B), VERDICT_PUNCH_GRANT_MISSING);
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S - 1, &k), VERDICT_PUNCH_GRANT_BAD);
    assert_int_equal(ask_plainly(&r, AT_A, NOW_S + 1, &k), VERDICT_PUNCH_COMMANDED);
    rig_close(&r);
}

/* Two nodes behind one address: a punch names that address twice, with one token left it must
 * not pass. */
static void punch_never_overspends_the_named_address(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.punch_victim_rate = (struct rate){2, 5};
    rig_node(&r, "203.0.113.7:1", 1);
    unsigned named = 0;
    for (uint32_t n = 0; n < 5; n++)
        named += rig_punch(&r, "203.0.113.7:9", 50 + n, 1) == VERDICT_PUNCH_COMMANDED ? 2 : 0;
    assert_in_range(named, 2, 5);
    rig_close(&r);
}

/* Many addresses of one network are named: the network has its own, 32-fold budget. */
static void named_network_has_a_budget(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        unsigned commanded;
    } cases[] = {
        {"198.51.100.#:1", 2 * 32},      /* a /24 */
        {"198.51.#.1:1", 100},           /* a /24 each */
        {"[2001:db8:1:#::1]:1", 2 * 32}, /* a /48 */
        {"[2001:db8:#::1]:1", 100},      /* a /48 each */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        char target[64], requester[64];
        unsigned commanded = 0;
        rig_open(&r, 1, 1000);
        r.rules.punch_victim_rate = (struct rate){1, 2};
        for (uint32_t n = 1; n <= 100; n++) {
            const char *hash = strchr(cases[i].target, '#');
            snprintf(target, sizeof target, "%.*s%u%s", (int)(hash - cases[i].target),
                     cases[i].target, n, hash + 1);
            snprintf(requester, sizeof requester, "11.%u.0.1:1", n);
            rig_node(&r, target, n);
            commanded += rig_punch(&r, requester, 1000 + n, n) == VERDICT_PUNCH_COMMANDED;
        }
        if (commanded != cases[i].commanded)
            fail_msg("%s: %u commanded", cases[i].target, commanded);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_golden_grant),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_new_requester_is_named),
        cmocka_unit_test(test_grants),
        cmocka_unit_test(test_any_lifetime),
        cmocka_unit_test(test_no_key),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_failure_uses_nothing_up),
        cmocka_unit_test(test_many_grants),
        cmocka_unit_test(test_verify_rate),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_refusal_spends_nothing),
        cmocka_unit_test(test_whitelist),
        cmocka_unit_test(named_network_has_a_budget),
        cmocka_unit_test(punch_never_overspends_the_named_address),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
