#include "tests/rig_mesh.h"
#include "server/register.h"

#define STUN "000100002112a442000102030405060708090a0b"
#define STUN_A "0101000c2112a442000102030405060708090a0b002000080001bd52ea12d545"
#define V10 "050001e2400009fbf150494c5068656c6c6f"
#define V11 "060001e24050494c5068656c6c6f"
#define V12 "090001e2400009fbf150494c5068656c6c6f"
#define PUNCH "030001e2400009fbf1"
#define TO_A "0404cb0071079c40" /* the command that names A */
#define TO_B "0404c63364090fa0"
#define ELSEWHERE "192.0.2.66:7"

enum { KEY_1 = 1, KEY_2 = 2 };

static uint64_t edge_and_lanes(const struct rig *r, size_t offset)
{
    uint64_t n = 0;
    for (unsigned i = 0; i <= r->server->lane_count; i++) {
        const struct lane *l = i < r->server->lane_count ? r->server->lane[i] : r->server->edge;
        const uint8_t *stats = (const uint8_t *)&l->stats;
        n += count_read((const counter *)(const void *)(stats + offset));
    }
    return n;
}
#define SUM(r, field) edge_and_lanes((r), offsetof(struct lane_stats, field))

static struct route route_of(const struct rig *r, uint32_t id)
{
    struct route route = {.id = 0};
    server_find(r->server, id, &route);
    return route;
}

static bool same_route(const struct route *a, const struct route *b)
{
    return a->id == b->id && a->seen_s == b->seen_s && endpoint_equal(&a->at, &b->at) &&
           a->local == b->local && a->class_ == b->class_ && a->flags == b->flags;
}

/* The first byte of the stored key, -1 for none: test keys are one byte repeated. */
static int key_of(const struct rig *r, uint32_t id)
{
    uint8_t key[MSG_KEY_LEN];
    if (!route_find_key(r->server->lane[rig_owner(r, id)]->routes, id, key))
        return -1;
    for (int i = 1; i < MSG_KEY_LEN; i++)
        assert_int_equal(key[i], key[0]);
    return key[0];
}

static enum verdict discover_with_key(struct rig *r, const char *from, uint32_t id, int key)
{
    uint8_t bytes[MSG_KEY_LEN];
    memset(bytes, key, sizeof bytes);
    return rig_discover(r, from, &(struct msg_discover){.node_id = id, .key = bytes});
}

static void assert_books(const struct rig *r)
{
    assert_int_equal(rig_verdicts(r), r->received);
}

/* --- registration --- */

enum holder {
    NOBODY,
    UDP,
    UDP_KEY_1,
    UDP_KEY_2,
    SIGNED_KEY_1,
    SIGNED_KEY_2,
    KEYED_KEY_1,
    KEYED_KEY_2
};

static void hold(struct rig *r, enum holder holder, const char *at)
{
    if (holder == NOBODY)
        return;
    if (holder == UDP)
        assert_verdict(rig_node(r, at, NODE_A), VERDICT_DISCOVER_NEW, at);
    if (holder == UDP_KEY_1 || holder == UDP_KEY_2)
        discover_with_key(r, at, NODE_A, holder == UDP_KEY_1 ? KEY_1 : KEY_2);
    if (holder >= SIGNED_KEY_1) {
        struct session s =
            rig_session(NODE_A, at, holder >= KEYED_KEY_1 ? ROUTE_KEYED : ROUTE_SIGNED,
                        holder == SIGNED_KEY_1 || holder == KEYED_KEY_1 ? KEY_1 : KEY_2);
        assert_true(rig_here(r, &s));
    }
}

/* Sessions with key 1 at A's address ask for the id; who gives way. */
static void test_who_gives_way(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum holder held;
        const char *at;
        uint64_t after_ns;
        bool signed_takes, keyed_takes;
    } cases[] = {
        {"a free id", NOBODY, "", 0, true, true},
        {"UDP, same endpoint", UDP, AT_A, 0, true, true},
        {"UDP, same address", UDP, "203.0.113.7:9", 0, true, true},
        {"UDP, same address, a planted key", UDP_KEY_2, "203.0.113.7:9", 0, true, true},
        {"UDP, elsewhere", UDP, AT_B, 0, false, true},
        {"UDP, elsewhere, the same key", UDP_KEY_1, AT_B, 0, false, true},
        {"UDP, elsewhere, 90 s less 1 ns", UDP, AT_B, 90 * SECOND_NS - 1, false, true},
        {"UDP, elsewhere, 90 s", UDP, AT_B, 90 * SECOND_NS, true, true},
        {"UDP, elsewhere, 90 s, another key", UDP_KEY_2, AT_B, 90 * SECOND_NS, true, true},
        {"its own session, same endpoint", SIGNED_KEY_1, AT_A, 0, true, true},
        {"its own session, elsewhere", SIGNED_KEY_1, AT_B, 0, true, true},
        {"another's session, same endpoint", SIGNED_KEY_2, AT_A, 0, false, true},
        {"another's session, elsewhere", SIGNED_KEY_2, AT_B, 0, false, true},
        {"another's session, long silent", SIGNED_KEY_2, AT_B, 500 * SECOND_NS, false, true},
        {"the key's own session", KEYED_KEY_1, AT_B, 0, true, true},
        {"a key that was replaced", KEYED_KEY_2, AT_B, 0, false, true},
        {"a key that was replaced, same address", KEYED_KEY_2, AT_A, 0, false, true},
    };
    for (unsigned lanes = 1; lanes <= 3; lanes++)
        for (size_t i = 0; i < 2 * COUNT(cases); i++) {
            struct rig r;
            size_t k = i / 2;
            bool takes = i & 1 ? cases[k].keyed_takes : cases[k].signed_takes;
            enum route_class class_ = i & 1 ? ROUTE_KEYED : ROUTE_SIGNED;
            rig_open_sessions(&r, lanes, 100);
            hold(&r, cases[k].held, cases[k].at);
            rig_step(&r, cases[k].after_ns);
            struct route before = route_of(&r, NODE_A);
            int key_before = key_of(&r, NODE_A);
            uint64_t stored = SUM(&r, sessions_stored);
            struct session s = rig_session(NODE_A, AT_A, class_, KEY_1);
            rig_here(&r, &s);
            struct route after = route_of(&r, NODE_A);
            if (takes) {
                if (!(after.flags & ROUTE_STREAM) || after.class_ != class_ ||
                    !endpoint_equal(&after.at, &s.from) || key_of(&r, NODE_A) != KEY_1)
                    fail_msg("%s, class %d: was not taken", cases[k].name, (int)class_);
                assert_int_equal(after.seen_s, moment_s(&r.now));
            } else if (!same_route(&before, &after) || key_of(&r, NODE_A) != key_before) {
                fail_msg("%s, class %d: was touched", cases[k].name, (int)class_);
            }
            assert_int_equal(SUM(&r, sessions_stored), stored + takes);
            assert_int_equal(SUM(&r, sessions_refused), !takes);
            assert_books(&r);
            rig_close(&r);
        }
}

static void test_row_of_a_session(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 2, 100);
    r.local = 5; /* of UDP; a session has none */
    assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "UDP");
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    s.wants_dest = true;
    assert_true(rig_here(&r, &s));
    struct route route = route_of(&r, NODE_A);
    assert_int_equal(route.flags, ROUTE_STREAM | ROUTE_HAS_KEY | ROUTE_WANTS_DEST);
    assert_int_equal(route.local, 0);
    /* A refresh: the time, the age. */
    rig_step(&r, 20 * SECOND_NS);
    for (int i = 0; i < 10; i++) {
        rig_step(&r, 20 * SECOND_NS);
        assert_true(rig_here(&r, &s));
        assert_int_equal(route_of(&r, NODE_A).seen_s, moment_s(&r.now));
    }
    assert_int_equal(route_of(&r, NODE_A).flags & ROUTE_AGE, ROUTE_AGE);
    /* Each thing that may change, and age stays through all: it is the same node. */
    s.wants_dest = false;
    assert_true(rig_here(&r, &s));
    assert_int_equal(route_of(&r, NODE_A).flags, ROUTE_STREAM | ROUTE_HAS_KEY | ROUTE_AGE);
    s.class_ = ROUTE_KEYED;
    assert_true(rig_here(&r, &s));
    assert_int_equal(route_of(&r, NODE_A).class_, ROUTE_KEYED);
    s.from = endpoint_at(AT_B);
    assert_true(rig_here(&r, &s));
    assert_string_equal(rig_where(&r, NODE_A), AT_B);
    assert_int_equal(route_of(&r, NODE_A).flags & ROUTE_AGE, ROUTE_AGE);
    assert_int_equal(SUM(&r, sessions_refused), 0);
    /* Another key is another holder. */
    memset(s.key, KEY_2, sizeof s.key);
    assert_true(rig_here(&r, &s));
    assert_int_equal(key_of(&r, NODE_A), KEY_2);
    assert_int_equal(route_of(&r, NODE_A).flags & ROUTE_AGE, 0);
    rig_close(&r);
}

static void test_gone(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 2, 100);
    struct session first = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1), next = first;
    next.from = endpoint_at("203.0.113.7:40001");
    rig_gone(&r, &first); /* nobody there */
    assert_true(rig_here(&r, &first));
    assert_true(rig_here(&r, &next));
    rig_gone(&r, &first); /* it was replaced */
    assert_string_equal(rig_where(&r, NODE_A), "203.0.113.7:40001");
    rig_gone(&r, &next);
    assert_string_equal(rig_where(&r, NODE_A), "");
    /* A node that is back on UDP, even at the same endpoint, is not removed by the news. */
    assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "back on UDP");
    rig_gone(&r, &first);
    assert_string_equal(rig_where(&r, NODE_A), AT_A);
    rig_close(&r);
}

/* What UDP may do to a row of a session: nothing, until it is silent. */
static void test_udp_claims(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from;
        uint32_t silence_s; /* takeover-silence */
        uint64_t after_ns;
        bool takes;
    } cases[] = {
        {"elsewhere", ELSEWHERE, 90, 0, false},
        {"same address", "203.0.113.7:9", 90, 0, false},
        {"same endpoint", AT_A, 90, 0, false},
        {"same endpoint, 90 s less 1 ns", AT_A, 90, 90 * SECOND_NS - 1, false},
        {"same endpoint, 90 s", AT_A, 90, 90 * SECOND_NS, true},
        {"same address, 90 s", "203.0.113.7:9", 90, 90 * SECOND_NS, true},
        {"elsewhere, 90 s", ELSEWHERE, 90, 90 * SECOND_NS, true},
        {"elsewhere, between two letters", ELSEWHERE, 0, 39 * SECOND_NS, false},
        {"same endpoint, between two letters", AT_A, 0, 39 * SECOND_NS, false},
        {"elsewhere, two letters missing", ELSEWHERE, 0, 40 * SECOND_NS, true},
    };
    for (size_t i = 0; i < 4 * COUNT(cases); i++) {
        struct rig r;
        size_t k = i / 4;
        bool punch = i & 1;
        rig_open_sessions(&r, 2, 100);
        r.rules.takeover_silence_s = cases[k].silence_s;
        rig_node(&r, AT_B, NODE_B);
        struct session s = rig_session(NODE_A, AT_A, i & 2 ? ROUTE_KEYED : ROUTE_SIGNED, KEY_1);
        s.wants_dest = true;
        assert_true(rig_here(&r, &s));
        rig_step(&r, cases[k].after_ns);
        struct route before = route_of(&r, NODE_A);
        enum verdict v = punch ? rig_punch(&r, cases[k].from, NODE_A, NODE_B)
                               : discover_with_key(&r, cases[k].from, NODE_A, KEY_2);
        struct route after = route_of(&r, NODE_A);
        if (cases[k].takes) {
            assert_verdict(v, punch ? VERDICT_PUNCH_COMMANDED : VERDICT_DISCOVER_MOVED,
                           cases[k].name);
            assert_string_equal(rig_where(&r, NODE_A), cases[k].from);
            assert_int_equal(after.class_, ROUTE_UNVERIFIED);
            assert_int_equal(after.flags, punch ? 0 : ROUTE_HAS_KEY);
            assert_int_equal(key_of(&r, NODE_A), punch ? -1 : KEY_2);
        } else {
            assert_verdict(v, punch ? VERDICT_PUNCH_NOT_STORED : VERDICT_DISCOVER_CONFLICT,
                           cases[k].name);
            assert_true(same_route(&before, &after));
            assert_int_equal(key_of(&r, NODE_A), KEY_1);
            assert_int_equal(r.out.count, !punch); /* whoever asks learns its address */
        }
        assert_nothing_handed(&r);
        rig_close(&r);
    }
}

/* No address policy, no nursery; quotas and a full table as for all. */
static void test_admission(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 1, 4);
    r.rules.allow_private = PRIVATE_NO;
    r.rules.nursery_percent = 1;
    r.rules.nodes_per_ipv4 = 2;
    r.rules.nodes_per_ipv4_24 = 3;
    struct session s[6];
    static const char *const from[] = {"10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3",
                                       "10.0.0.2:1", "10.0.0.3:1", "127.0.0.1:1"};
    static const bool stored[] = {true, true, false, true, false, true};
    for (uint32_t i = 0; i < COUNT(from); i++) {
        s[i] = rig_session(1 + i, from[i], ROUTE_SIGNED, KEY_1);
        assert_int_equal(rig_here(&r, &s[i]), stored[i]);
        assert_int_equal(rig_here(&r, &s[i]), stored[i]); /* a refresh takes no place */
    }
    assert_int_equal(SUM(&r, sessions_refused), 4);
    rig_gone(&r, &s[0]);
    assert_true(rig_here(&r, &s[2])); /* and the place is given back */
    rig_close(&r);
}

/* A full table: sessions push out what UDP claimed, never the other way round. */
static void test_full_table(void **state)
{
    (void)state;
    struct rig r;
    char from[ENDPOINT_TEXT_MAX];
    rig_open_sessions(&r, 1, 10);
    for (uint32_t n = 0; n < 10; n++) {
        snprintf(from, sizeof from, "203.0.%u.1:1", n);
        assert_verdict(rig_node(&r, from, 100 + n), VERDICT_DISCOVER_NEW, from);
    }
    for (uint32_t n = 0; n < 10; n++) { /* all of one crowd */
        struct session s = rig_session(200 + n, "198.51.100.1:1", ROUTE_SIGNED, KEY_1);
        assert_true(rig_here(&r, &s));
    }
    assert_int_equal(SUM(&r, evicted), 10);
    assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_FULL, "UDP");
    struct session loner = rig_session(300, AT_A, ROUTE_SIGNED, KEY_1);
    assert_true(rig_here(&r, &loner));
    assert_int_equal(route_count(r.server->lane[0]->routes), 10);
    for (uint32_t n = 0; n < 10; n++)
        assert_string_equal(rig_where(&r, 100 + n), "");
    rig_close(&r);
}

/* --- frames --- */

static void test_frames(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hex;
        enum verdict want;
        const char *handed; /* to the session; NULL: nothing */
    } cases[] = {
        {"empty", "", VERDICT_DROPPED_EMPTY, NULL},
        {"V1", "010001e240", VERDICT_PASSED, "0204cb0071079c40"},
        {"with a key", "010001e240" STUN "000102030405060708090a0b", VERDICT_PASSED,
         "0204cb0071079c40"},
        {"0x08", "080001e240", VERDICT_PASSED, "0204cb0071079c40"},
        {"Discover of another", "010001e241", VERDICT_DROPPED_FORGED_ID, NULL},
        {"0x08 of another", "080009fbf1", VERDICT_DROPPED_FORGED_ID, NULL},
        {"Discover of id 0", "0100000000", VERDICT_DROPPED_FORGED_ID, NULL},
        {"M1", "010001e2", VERDICT_DROPPED_SHORT, NULL},
        {"a reply", "0204cb0071079c40", VERDICT_DROPPED_FOR_NODES, NULL},
        {"punch of another", "030009fbf10001e240", VERDICT_DROPPED_FORGED_ID, NULL},
        {"short punch", "030001e240", VERDICT_DROPPED_SHORT, NULL},
        {"a command", "0404c63364090fa0", VERDICT_DROPPED_FOR_NODES, NULL},
        {"relay to nobody", "050001e240000000aaff", VERDICT_RELAY_NO_ROUTE, NULL},
        {"relay of another", "050001e2410009fbf1ff", VERDICT_DROPPED_FORGED_ID, NULL},
        {"relay from id 0", "05000000000009fbf1ff", VERDICT_DROPPED_FORGED_ID, NULL},
        {"relay to itself", "050001e2400001e240ff", VERDICT_RELAY_FORWARDED, "060001e240ff"},
        {"M2", "050001e2400009fb", VERDICT_DROPPED_SHORT, NULL},
        {"delivery", "060001e240", VERDICT_DROPPED_FOR_NODES, NULL},
        {"V14", "07000000070000", VERDICT_SYNC_UNSUPPORTED, NULL},
        {"V16", "0a01", VERDICT_DROPPED_FOR_NODES, NULL},
        {"unknown", "0b", VERDICT_DROPPED_UNKNOWN_TYPE, NULL},
        {"STUN", STUN, VERDICT_STUN_ANSWERED, STUN_A},
        {"bad STUN", "00", VERDICT_STUN_DROPPED_MALFORMED, NULL},
        {"STUN indication", "001100002112a442000102030405060708090a0b",
         VERDICT_STUN_DROPPED_INDICATION, NULL},
        {"STUN response", "010100002112a442000102030405060708090a0b",
         VERDICT_STUN_DROPPED_REFLECTED, NULL},
    };
    for (unsigned lanes = 1; lanes <= 4; lanes++)
        for (size_t i = 0; i < COUNT(cases); i++) {
            struct rig r;
            rig_open_sessions(&r, lanes, 100);
            /* A session pays from its own budget only. */
            r.rules.reply_total = (struct rate){1, 1};
            r.rules.reply_rate = (struct rate){1, 2};
            rig_node(&r, AT_B, NODE_B);
            struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
            assert_true(rig_here(&r, &s));
            assert_verdict(rig_frame_hex(&r, &s, cases[i].hex), cases[i].want, cases[i].name);
            assert_int_equal(r.out.count, 0);
            struct lane *answers = r.server->edge;
            if (cases[i].want == VERDICT_PASSED) { /* the owner's, when it has registered */
                answers = r.server->lane[rig_owner(&r, NODE_A)];
                assert_nothing_handed(&r);
                rig_mail(&r);
                assert_int_equal(rig_count(&r, VERDICT_DISCOVER_REFRESHED), 1);
            }
            if (cases[i].handed) {
                assert_true(answers->wake_edge);
                assert_handed(answers, NODE_A, cases[i].handed);
            }
            assert_nothing_handed(&r);
            rig_mail(&r);
            assert_books(&r);
            assert_int_equal(count_read(&r.server->edge->stats.received), 1);
            assert_int_equal(count_read(&r.server->edge->stats.received_bytes),
                             strlen(cases[i].hex) / 2);
            rig_close(&r);
        }
}

static void test_discover_refreshes(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 2, 100);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    assert_true(rig_here(&r, &s));
    rig_step(&r, 60 * SECOND_NS);
    assert_verdict(rig_frame_hex(&r, &s, "080001e240"), VERDICT_PASSED, "0x08");
    assert_true(s.wants_dest);
    assert_int_equal(r.server->edge->wake, 1ull << rig_owner(&r, NODE_A));
    rig_mail(&r);
    assert_int_equal(route_of(&r, NODE_A).seen_s, moment_s(&r.now));
    assert_int_equal(route_of(&r, NODE_A).flags & ROUTE_WANTS_DEST, ROUTE_WANTS_DEST);
    /* A key in it says nothing: the session's own stays. */
    uint8_t bytes[MSG_DISCOVER_KEY_LEN] = {1, 0, 1, 0xe2, 0x40};
    memset(bytes + 5, KEY_2, MSG_KEY_LEN);
    assert_verdict(rig_frame(&r, &s, bytes, sizeof bytes), VERDICT_PASSED, "0x01");
    assert_false(s.wants_dest);
    rig_mail(&r);
    assert_int_equal(route_of(&r, NODE_A).flags & ROUTE_WANTS_DEST, 0);
    assert_int_equal(key_of(&r, NODE_A), KEY_1);
    rig_close(&r);
}

/* Questions are limited by the session's id, relays are not questions. */
static void test_question_budget(void **state)
{
    (void)state;
    static const char *const frames[] = {"010001e240", STUN, PUNCH, "0b", "0a01", ""};
    for (size_t i = 0; i < COUNT(frames); i++) {
        struct rig r;
        rig_open_sessions(&r, 2, 100);
        r.rules.reply_rate = (struct rate){1, 3};
        struct session a = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
        struct session b = rig_session(NODE_B, AT_A, ROUTE_SIGNED, KEY_2); /* the same address */
        assert_true(rig_here(&r, &a) && rig_here(&r, &b));
        for (int n = 0; n < 6; n++) {
            enum verdict v = rig_frame_hex(&r, &a, frames[i]);
            if ((v == VERDICT_DROPPED_SESSION_LIMITED) != (n >= 3))
                fail_msg("frame %s, number %d", frames[i], n);
            assert_verdict(rig_frame_hex(&r, &a, "010009fbf1"), VERDICT_DROPPED_FORGED_ID, "");
            assert_verdict(rig_frame_hex(&r, &a, V10), VERDICT_RELAY_FORWARDED, "relay");
        }
        assert_verdict(rig_frame_hex(&r, &b, "010009fbf1"), VERDICT_PASSED, "other");
        rig_step(&r, SECOND_NS);
        assert_true(rig_frame_hex(&r, &a, frames[i]) != VERDICT_DROPPED_SESSION_LIMITED);
        assert_verdict(rig_frame_hex(&r, &a, frames[i]), VERDICT_DROPPED_SESSION_LIMITED, "again");
        rig_mail(&r);
        assert_books(&r);
        rig_close(&r);
    }
}

/* The budgets of unproven sources are not asked: sessions behind one address, and the shard's total
 * of answers, are nothing to each other. */
static void test_unproven_budgets_are_not_asked(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 1, 100);
    r.rules.reply_rate = r.rules.reply_total = (struct rate){1, 1};
    for (uint32_t id = 1; id <= 20; id++) {
        struct session s = rig_session(id, AT_A, ROUTE_SIGNED, KEY_1);
        if (id & 1) {
            assert_verdict(rig_frame_hex(&r, &s, STUN), VERDICT_STUN_ANSWERED, "STUN");
        } else {
            uint8_t discover[5] = {1, 0, 0, 0, (uint8_t)id};
            assert_verdict(rig_frame(&r, &s, discover, 5), VERDICT_PASSED, "Discover");
        }
    }
    assert_verdict(rig_node(&r, AT_A, 77), VERDICT_DISCOVER_NEW, "nor are theirs spent");
    rig_close(&r);
}

static void test_mailbox_full(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 1, 100);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    for (int i = 0; i < MAIL_SLOTS; i++)
        assert_true(session_here(r.server->edge, &s));
    r.server->edge->wake = 0;
    assert_false(session_here(r.server->edge, &s));
    assert_false(session_gone(r.server->edge, &s));
    assert_verdict(rig_frame_hex(&r, &s, "010001e240"), VERDICT_DROPPED_MAILBOX_FULL, "Discover");
    assert_verdict(rig_frame_hex(&r, &s, PUNCH), VERDICT_DROPPED_MAILBOX_FULL, "punch");
    assert_int_equal(r.server->edge->wake, 0);
    assert_nothing_handed(&r);
    assert_books(&r);
    rig_mail(&r);
    assert_int_equal(SUM(&r, sessions_stored), MAIL_SLOTS);
    assert_int_equal(SUM(&r, mail_taken), MAIL_SLOTS);
    assert_verdict(rig_frame_hex(&r, &s, "010001e240"), VERDICT_PASSED, "later");
    rig_close(&r);
}

/* --- relays --- */

static void test_relay_directions(void **state)
{
    (void)state;
    for (unsigned lanes = 1; lanes <= 4; lanes++) {
        struct rig r;
        rig_open_sessions(&r, lanes, 100);
        r.rules.strict_relay_source = true;
        r.local = 3;
        rig_node(&r, AT_B, NODE_B);
        r.local = 0;
        struct session a = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
        struct session c = rig_session(77, ELSEWHERE, ROUTE_KEYED, KEY_2);
        assert_true(rig_here(&r, &a) && rig_here(&r, &c));
        /* Session to UDP: the outbox, from the address that the node knows. */
        assert_verdict(rig_frame_hex(&r, &a, V10), VERDICT_RELAY_FORWARDED, "to UDP");
        assert_int_equal(r.out.count, 1);
        assert_sent(&r, 0, AT_B, V11);
        assert_int_equal(r.out.out[0].local, 3);
        assert_nothing_handed(&r);
        /* UDP to session: the handoff of the lane that got it. */
        for (unsigned lane = 0; lane < lanes; lane++) {
            struct lane *l = r.server->lane[lane];
            assert_false(l->wake_edge);
            assert_verdict(rig_hex(&r, lane, AT_B, "050009fbf10001e240aabb"),
                           VERDICT_RELAY_FORWARDED, "to a session");
            assert_int_equal(r.out.count, 0);
            assert_true(l->wake_edge);
            assert_handed(l, NODE_A, "060009fbf1aabb");
        }
        /* Session to session: the edge's own. */
        assert_verdict(rig_frame_hex(&r, &c, "050000004d0001e240cc"), VERDICT_RELAY_FORWARDED, "");
        assert_handed(r.server->edge, NODE_A, "060000004dcc");
        /* Who asked for the destination gets it. */
        rig_frame_hex(&r, &a, "080001e240");
        rig_mail(&r);
        assert_handed(r.server->lane[rig_owner(&r, NODE_A)], NODE_A, "0204cb0071079c40");
        rig_hex(&r, 0, AT_B, "050009fbf10001e240aabb");
        assert_handed(r.server->lane[0], NODE_A, "090009fbf10001e240aabb");
        rig_discover(&r, AT_B, &(struct msg_discover){.wants_dest = true, .node_id = NODE_B});
        rig_frame_hex(&r, &a, V10);
        assert_sent(&r, 0, AT_B, V12);
        /* No payload, the largest payload. */
        rig_frame_hex(&r, &c, "050000004d0000004d");
        assert_handed(r.server->edge, 77, "060000004d");
        assert_nothing_handed(&r);
        assert_books(&r);
        rig_close(&r);
    }
}

static void test_largest_relay(void **state)
{
    (void)state;
    static uint8_t bytes[MSG_RELAY_HEAD_LEN + 65535] = {5, 0, 0, 0, 1, 0, 0, 0, 1};
    struct rig r;
    struct handoff_message m;
    rig_open_sessions(&r, 1, 100);
    struct session s = rig_session(1, AT_A, ROUTE_SIGNED, KEY_1);
    assert_true(rig_here(&r, &s));
    for (uint32_t len = HANDOFF_MESSAGE_MAX + 3; len <= HANDOFF_MESSAGE_MAX + 5; len++) {
        struct datagram d = {.bytes = bytes, .len = len};
        bytes[0] = 5;
        memcpy(bytes + 1, (uint8_t[]){0, 0, 0, 1, 0, 0, 0, 1}, 8);
        memset(bytes + 9, 0x5a, len - 9);
        server_begin(r.server->edge);
        enum verdict v = session_input(r.server->edge, &s, &d, &r.now, &r.out);
        bool fits = len - 4 <= HANDOFF_MESSAGE_MAX; /* 0x06 is 4 shorter than 0x05 */
        assert_verdict(v, fits ? VERDICT_RELAY_FORWARDED : VERDICT_RELAY_STREAM_FULL, "");
        assert_int_equal(handoff_peek(r.server->edge->handoff, &m), fits);
        if (!fits)
            continue;
        assert_int_equal(m.len, len - 4);
        for (uint32_t i = 5; i < m.len; i++)
            assert_int_equal(m.bytes[i], 0x5a);
        handoff_drop(r.server->edge->handoff);
    }
    rig_close(&r);
}

/* A datagram never speaks for a session, even from its very endpoint, and a frame always does. */
static void test_proof(void **state)
{
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        struct rig r;
        rig_open_sessions(&r, 2, 100);
        r.rules.strict_relay_source = strict;
        rig_node(&r, AT_B, NODE_B);
        rig_node(&r, AT_A, NODE_A);
        struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
        assert_verdict(rig_hex(&r, 0, AT_A, V10), VERDICT_RELAY_FORWARDED, "before");
        assert_true(rig_here(&r, &s)); /* at the same moment: nothing is remembered wrongly */
        for (unsigned lane = 0; lane < 2; lane++) {
            rig_step(&r, 1);
            assert_verdict(rig_hex(&r, lane, AT_A, V10),
                           strict ? VERDICT_RELAY_SENDER_MISMATCH
                                  : VERDICT_RELAY_FORWARDED_UNPROVEN,
                           "by UDP from its endpoint");
        }
        assert_verdict(rig_frame_hex(&r, &s, V10), VERDICT_RELAY_FORWARDED, "by its session");
        rig_gone(&r, &s); /* its last frames may come after: proven all the same */
        assert_verdict(rig_frame_hex(&r, &s, V10), VERDICT_RELAY_FORWARDED, "not registered");
        rig_close(&r);
    }
}

/* The owner's lane, one moment: what the last relay was told about its sender is forgotten. */
static void test_proof_in_one_batch(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 1, 100);
    r.rules.strict_relay_source = true;
    rig_node(&r, AT_B, NODE_B);
    rig_node(&r, AT_A, NODE_A);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    assert_verdict(rig_hex(&r, 0, AT_A, V10), VERDICT_RELAY_FORWARDED, "as UDP");
    assert_true(rig_here(&r, &s));
    assert_verdict(rig_hex(&r, 0, AT_A, V10), VERDICT_RELAY_SENDER_MISMATCH, "as a session");
    rig_gone(&r, &s);
    rig_node(&r, AT_A, NODE_A);
    assert_verdict(rig_hex(&r, 0, AT_A, V10), VERDICT_RELAY_FORWARDED, "as UDP again");
    rig_close(&r);
}

/* relay-rate is the session's, relay-ip-rate its address's: four sessions, ten frames each. */
static void test_relay_budgets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct rate own, ip;
        const char *from[2]; /* of sessions 0 and 1, of 2 and 3 */
        unsigned forwarded, limited, ip_limited;
    } cases[] = {
        {"off", {0, 1}, {0, 1}, {AT_A, AT_B}, 40, 0, 0},
        {"each its own", {10, 4}, {0, 1}, {AT_A, AT_B}, 16, 24, 0},
        {"each its own at one endpoint", {10, 4}, {0, 1}, {AT_A, AT_A}, 16, 24, 0},
        {"one address", {0, 1}, {10, 5}, {AT_A, "203.0.113.7:9"}, 5, 0, 35},
        {"two addresses", {0, 1}, {10, 5}, {AT_A, AT_B}, 10, 0, 30},
        {"one /64", {0, 1}, {10, 5}, {"[2001:db8::1]:1", "[2001:db8::2]:1"}, 5, 0, 35},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open_sessions(&r, 1, 100);
        r.rules.relay_rate = cases[i].own;
        r.rules.relay_ip_rate = cases[i].ip;
        rig_node(&r, "192.0.2.1:1", 9);
        struct session s[4];
        for (uint32_t n = 0; n < 4; n++)
            s[n] = rig_session(1 + n, cases[i].from[n / 2], ROUTE_SIGNED, KEY_1);
        for (unsigned n = 0; n < 40; n++) { /* in turn: nothing is kept from the one before */
            uint8_t relay[] = {5, 0, 0, 0, (uint8_t)(1 + n % 4), 0, 0, 0, 9, 0xff};
            rig_frame(&r, &s[n % 4], relay, sizeof relay);
        }
        if (rig_count(&r, VERDICT_RELAY_FORWARDED) != cases[i].forwarded ||
            rig_count(&r, VERDICT_RELAY_LIMITED) != cases[i].limited ||
            rig_count(&r, VERDICT_RELAY_IP_LIMITED) != cases[i].ip_limited)
            fail_msg("%s: %u forwarded", cases[i].name,
                     (unsigned)rig_count(&r, VERDICT_RELAY_FORWARDED));
        rig_close(&r);
    }
}

static void test_stream_full(void **state)
{
    (void)state;
    struct rig r;
    struct handoff_message m;
    uint8_t relay[1400] = {5, 0, 9, 0xfb, 0xf1, 0, 1, 0xe2, 0x40};
    rig_open_sessions(&r, 1, 100);
    struct lane *l = r.server->lane[0];
    rig_node(&r, AT_B, NODE_B);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    assert_true(rig_here(&r, &s));
    unsigned taken = 0;
    while (rig_input(&r, 0, AT_B, relay, sizeof relay) == VERDICT_RELAY_FORWARDED)
        taken++;
    assert_true(taken > 700);
    assert_int_equal(rig_count(&r, VERDICT_RELAY_STREAM_FULL), 1);
    l->wake_edge = false;
    assert_verdict(rig_input(&r, 0, AT_B, relay, sizeof relay), VERDICT_RELAY_STREAM_FULL, "full");
    assert_false(l->wake_edge);
    /* Others are served: who is reached by UDP, and answers to UDP. */
    assert_verdict(rig_relay(&r, 0, AT_B, NODE_B, NODE_B), VERDICT_RELAY_FORWARDED, "to UDP");
    assert_int_equal(r.out.count, 1);
    /* Fill up the last bytes; a Notify is then lost, counted, and nobody is told it was sent. */
    while (rig_hex(&r, 0, AT_B, "050009fbf10001e240") == VERDICT_RELAY_FORWARDED)
        continue;
    unsigned lane;
    assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    rig_mail(&r);
    assert_int_equal(SUM(&r, handoff_full), 1);
    assert_int_equal(SUM(&r, notified), 0);
    while (handoff_peek(l->handoff, &m))
        handoff_drop(l->handoff);
    assert_verdict(rig_input(&r, 0, AT_B, relay, sizeof relay), VERDICT_RELAY_FORWARDED, "free");
    assert_books(&r);
    rig_close(&r);
}

static void test_notify(void **state)
{
    (void)state;
    struct rig r;
    unsigned lane;
    rig_open_sessions(&r, 3, 100);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
    assert_true(rig_here(&r, &s));
    assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    assert_int_equal(lane, rig_owner(&r, NODE_A));
    rig_mail(&r);
    assert_int_equal(r.out.count, 0);
    assert_true(r.server->lane[lane]->wake_edge);
    assert_handed(r.server->lane[lane], NODE_A, "0a01");
    assert_nothing_handed(&r);
    assert_int_equal(SUM(&r, notified), 1);
    rig_close(&r);
}

/* --- punches --- */

enum side { BY_UDP, BY_SESSION, NOT_THERE };

static void place(struct rig *r, enum side side, uint32_t id, const char *at, struct session *s)
{
    *s = rig_session(id, at, ROUTE_SIGNED, KEY_1);
    if (side == BY_UDP)
        rig_node(r, at, id);
    if (side == BY_SESSION)
        assert_true(rig_here(r, s));
}

/* A asks for B: each is told where the other hears UDP. */
static void test_punch_sides(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum side a, b;
        enum verdict want;
        const char *a_told, *b_told;
    } cases[] = {
        {"both by UDP", BY_UDP, BY_UDP, VERDICT_PUNCH_COMMANDED, TO_B, TO_A},
        {"a session asks", BY_SESSION, BY_UDP, VERDICT_PUNCH_COMMANDED, TO_B, NULL},
        {"a session is asked for", BY_UDP, BY_SESSION, VERDICT_PUNCH_COMMANDED, NULL, TO_A},
        {"both are sessions", BY_SESSION, BY_SESSION, VERDICT_PUNCH_NO_ENDPOINT, NULL, NULL},
        {"session to nobody", BY_SESSION, NOT_THERE, VERDICT_PUNCH_UNKNOWN_TARGET, NULL, NULL},
        {"UDP to nobody", BY_UDP, NOT_THERE, VERDICT_PUNCH_UNKNOWN_TARGET, NULL, NULL},
    };
    for (unsigned lanes = 1; lanes <= 4; lanes++)
        for (size_t i = 0; i < COUNT(cases); i++) {
            struct rig r;
            struct session a, b;
            rig_open_sessions(&r, lanes, 100);
            place(&r, cases[i].a, NODE_A, AT_A, &a);
            place(&r, cases[i].b, NODE_B, AT_B, &b);
            struct lane *owner = r.server->lane[rig_owner(&r, NODE_A)];
            if (cases[i].a == BY_SESSION) {
                assert_verdict(rig_frame_hex(&r, &a, PUNCH), VERDICT_PASSED, cases[i].name);
                assert_int_equal(r.out.count, 0);
                rig_mail(&r);
            } else {
                rig_hex(&r, owner->index, AT_A, PUNCH);
            }
            assert_int_equal(rig_count(&r, cases[i].want), 1);
            assert_books(&r);
            unsigned sent = 0;
            if (cases[i].a_told && cases[i].a == BY_SESSION)
                assert_handed(owner, NODE_A, cases[i].a_told);
            else if (cases[i].a_told)
                assert_sent(&r, sent++, AT_A, cases[i].a_told);
            if (cases[i].b_told && cases[i].b == BY_SESSION)
                assert_handed(owner, NODE_B, cases[i].b_told);
            else if (cases[i].b_told)
                assert_sent(&r, sent++, AT_B, cases[i].b_told);
            assert_int_equal(r.out.count, sent);
            assert_nothing_handed(&r);
            rig_close(&r);
        }
}

/* Only the session that holds the row may ask, and asking registers nobody. */
static void test_punch_needs_the_row(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum side held;
        const char *at;
        enum verdict want;
    } cases[] = {
        {"its own row", BY_SESSION, AT_A, VERDICT_PUNCH_COMMANDED},
        {"a newer session's", BY_SESSION, "203.0.113.7:40001", VERDICT_PUNCH_NOT_STORED},
        {"UDP's, same endpoint", BY_UDP, AT_A, VERDICT_PUNCH_NOT_STORED},
        {"UDP's, elsewhere", BY_UDP, ELSEWHERE, VERDICT_PUNCH_NOT_STORED},
        {"no row", NOT_THERE, AT_A, VERDICT_PUNCH_NOT_STORED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        struct session held, b, s = rig_session(NODE_A, AT_A, ROUTE_SIGNED, KEY_1);
        rig_open_sessions(&r, 2, 100);
        place(&r, BY_UDP, NODE_B, AT_B, &b);
        place(&r, cases[i].held, NODE_A, cases[i].at, &held);
        struct route before = route_of(&r, NODE_A);
        rig_step(&r, 200 * SECOND_NS); /* not even one that UDP could take */
        assert_verdict(rig_frame_hex(&r, &s, PUNCH), VERDICT_PASSED, cases[i].name);
        rig_mail(&r);
        if (rig_count(&r, cases[i].want) != 1)
            fail_msg("%s", cases[i].name);
        struct route after = route_of(&r, NODE_A);
        assert_true(same_route(&before, &after));
        assert_int_equal(r.out.count, 0);
        rig_close(&r);
    }
}

/* Only who is named spends the budget of a named address; the source spends its own. */
static void test_punch_budgets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct rate source, pair, victim;
        enum side a, b;
        unsigned commanded; /* of ten */
        enum verdict then;
    } cases[] = {
        {"session asks, UDP is named",
         {0, 1},
         {0, 1},
         {1, 4},
         BY_SESSION,
         BY_UDP,
         4,
         VERDICT_PUNCH_VICTIM_LIMITED},
        {"UDP asks and is named",
         {0, 1},
         {0, 1},
         {1, 4},
         BY_UDP,
         BY_SESSION,
         4,
         VERDICT_PUNCH_VICTIM_LIMITED},
        {"session's source", {1, 3}, {0, 1}, {0, 1}, BY_SESSION, BY_UDP, 3, VERDICT_PUNCH_LIMITED},
        {"pair", {0, 1}, {1, 2}, {0, 1}, BY_SESSION, BY_UDP, 2, VERDICT_PUNCH_PAIR_LIMITED},
        {"nothing is spent",
         {1, 1},
         {1, 1},
         {1, 1},
         BY_SESSION,
         BY_SESSION,
         0,
         VERDICT_PUNCH_NO_ENDPOINT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        struct session a, b;
        rig_open_sessions(&r, 1, 100);
        /* All at one address: only a side that is named twice would halve the rate. */
        place(&r, cases[i].a, NODE_A, "203.0.113.7:1", &a);
        place(&r, cases[i].b, NODE_B, "203.0.113.7:2", &b);
        r.rules.punch_rate = cases[i].source;
        r.rules.punch_pair_rate = cases[i].pair;
        r.rules.punch_victim_rate = cases[i].victim;
        for (unsigned n = 0; n < 10; n++) {
            if (cases[i].a == BY_SESSION)
                assert_verdict(rig_frame_hex(&r, &a, PUNCH), VERDICT_PASSED, "");
            else
                rig_hex(&r, 0, "203.0.113.7:1", PUNCH);
            rig_mail(&r);
        }
        if (rig_count(&r, VERDICT_PUNCH_COMMANDED) != cases[i].commanded ||
            rig_count(&r, cases[i].then) != 10 - cases[i].commanded)
            fail_msg("%s: %u commanded", cases[i].name,
                     (unsigned)rig_count(&r, VERDICT_PUNCH_COMMANDED));
        rig_close(&r);
    }
}

/* A grant is checked with the key in the target's row, and a session's row has its own. */
static void test_punch_grant(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct rig r;
        bool session_asks = i & 1, session_target = i & 2, good = i & 4;
        uint8_t seed[crypto_sign_SEEDBYTES] = {9}, public_[crypto_sign_PUBLICKEYBYTES];
        uint8_t secret[crypto_sign_SECRETKEYBYTES], signature[crypto_sign_BYTES];
        uint8_t bytes[MSG_PUNCH_GRANT_LEN];
        char text[MSG_GRANT_TEXT_MAX];
        struct session a, b;
        if (session_asks && session_target)
            continue; /* neither has an endpoint */
        rig_open_sessions(&r, 2, 100);
        r.rules.require_punch_token = true;
        crypto_sign_seed_keypair(public_, secret, seed);
        place(&r, session_asks ? BY_SESSION : BY_UDP, NODE_A, AT_A, &a);
        b = rig_session(NODE_B, AT_B, ROUTE_KEYED, KEY_2);
        memcpy(b.key, public_, sizeof b.key);
        if (session_target)
            assert_true(rig_here(&r, &b));
        else
            rig_discover(&r, AT_B, &(struct msg_discover){.node_id = NODE_B, .key = public_});
        struct msg_punch m = {NODE_A, NODE_B, signature, r.now.unix_s + 60};
        size_t len = punch_grant_text(&m, text);
        crypto_sign_detached(signature, NULL, (const uint8_t *)text, len, secret);
        signature[0] ^= !good;
        struct writer w = writer_of(bytes, sizeof bytes);
        write_punch(&w, &m);
        if (session_asks)
            assert_verdict(rig_frame(&r, &a, bytes, sizeof bytes), VERDICT_PASSED, "grant");
        else
            rig_input(&r, rig_owner(&r, NODE_A), AT_A, bytes, sizeof bytes);
        rig_mail(&r);
        assert_int_equal(rig_count(&r, VERDICT_PUNCH_COMMANDED), good);
        assert_int_equal(rig_count(&r, VERDICT_PUNCH_GRANT_BAD), !good);
        rig_close(&r);
    }
}

/* --- the rest of the life --- */

/* Sessions that nobody refreshes expire like nodes. */
static void test_expires(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 1, 100);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_KEYED, KEY_1);
    assert_true(rig_here(&r, &s));
    for (int second = 0; second < 700; second++) {
        server_tick(r.server->lane[0], &r.now);
        if (second == 600)
            assert_string_equal(rig_where(&r, NODE_A), AT_A);
        rig_step(&r, SECOND_NS);
    }
    assert_string_equal(rig_where(&r, NODE_A), "");
    assert_int_equal(SUM(&r, expired), 1);
    rig_close(&r);
}

/* Who relays is seen in the lane that forwarded, with the endpoint it came from. */
static void test_talkers(void **state)
{
    (void)state;
    struct rig r;
    struct talker got[TALKERS_MAX];
    rig_open_sessions(&r, 1, 100);
    struct lane *lane = r.server->lane[0], *edge = r.server->edge;
    rig_node(&r, AT_B, NODE_B);
    struct session s = rig_session(NODE_A, AT_A, ROUTE_KEYED, KEY_1);
    assert_true(rig_here(&r, &s));
    server_tick(lane, &r.now);
    server_tick(edge, &r.now);
    for (int n = 0; n < 20000; n++) {
        assert_verdict(rig_frame_hex(&r, &s, V10), VERDICT_RELAY_FORWARDED, "session");
        rig_hex(&r, 0, AT_B, "050009fbf10001e240aabb");
        struct handoff_message m;
        while (handoff_peek(lane->handoff, &m))
            handoff_drop(lane->handoff);
        rig_hex(&r, 0, ELSEWHERE, "050000004d000000aa"); /* nothing is forwarded */
    }
    rig_step(&r, TALKERS_WINDOW_S * SECOND_NS);
    server_tick(lane, &r.now);
    server_tick(edge, &r.now);
    assert_int_equal(talkers_read(lane->talkers, got), 1);
    assert_int_equal(got[0].node_id, NODE_B);
    assert_true(got[0].packets > 15000 && got[0].packets < 25000);
    assert_int_equal(got[0].bytes, got[0].packets * 11);
    assert_int_equal(talkers_read(edge->talkers, got), 1);
    assert_int_equal(got[0].node_id, NODE_A);
    assert_true(endpoint_equal(&got[0].from, &s.from));
    rig_close(&r);
}

/* A session's relays reach other beacons' nodes; theirs reach the session. Gossip is no business of
 * a session's. */
static void test_sessions_and_beacons(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    rig_open_mesh(&r, 2, 100, 100, true);
    rig_peers(&r, &p);
    struct session s = rig_session(NODE_A, "203.0.113.7:51000", ROUTE_SIGNED, 1);
    assert_true(rig_here(&r, &s));
    rig_route(&r, MAIL_ROUTES_SET, NODE_B, 2);
    assert_verdict(rig_frame_hex(&r, &s, "050001e2400009fbf1aabb"), VERDICT_RELAY_TO_BEACON, "to");
    assert_int_equal(r.out.count, 1);
    assert_sent(&r, 0, AT_PEER_2, "050001e2400009fbf1aabb");
    assert_verdict(rig_hex(&r, 1, AT_PEER_2, "050009fbf10001e240aabb"), VERDICT_RELAY_FROM_BEACON,
                   "from");
    assert_int_equal(r.out.count, 0);
    assert_handed(r.server->lane[1], NODE_A, "060009fbf1aabb");
    assert_verdict(rig_frame_hex(&r, &s, "07000000070000"), VERDICT_SYNC_UNSUPPORTED, "sync");
    char gossip[2 * 68 + 1];
    memset(gossip, '0', sizeof gossip - 1);
    gossip[0] = '2';
    gossip[sizeof gossip - 1] = '\0';
    assert_verdict(rig_frame_hex(&r, &s, gossip), VERDICT_GOSSIP_UNSUPPORTED, "gossip");
    server_set_peers(r.server, NULL);
    assert_verdict(rig_frame_hex(&r, &s, "050001e2400009fbf1aabb"), VERDICT_RELAY_NO_ROUTE, "none");
    rig_close(&r);
}

/* A client that shares a beacon's address and port (its TCP port is not that beacon's UDP port) is
 * still a session. */
static void test_session_at_a_beacons_endpoint(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    rig_open_mesh(&r, 1, 100, 100, true);
    rig_peers(&r, &p);
    rig_route(&r, MAIL_ROUTES_SET, NODE_B, 2);
    struct session s = rig_session(NODE_A, AT_PEER_1, ROUTE_SIGNED, 1);
    assert_true(rig_here(&r, &s));
    assert_verdict(rig_frame_hex(&r, &s, "050001e2400009fbf1aabb"), VERDICT_RELAY_TO_BEACON, "to");
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_gives_way),
        cmocka_unit_test(test_row_of_a_session),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_udp_claims),
        cmocka_unit_test(test_admission),
        cmocka_unit_test(test_full_table),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_discover_refreshes),
        cmocka_unit_test(test_question_budget),
        cmocka_unit_test(test_unproven_budgets_are_not_asked),
        cmocka_unit_test(test_mailbox_full),
        cmocka_unit_test(test_relay_directions),
        cmocka_unit_test(test_largest_relay),
        cmocka_unit_test(test_proof),
        cmocka_unit_test(test_proof_in_one_batch),
        cmocka_unit_test(test_relay_budgets),
        cmocka_unit_test(test_stream_full),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_punch_sides),
        cmocka_unit_test(test_punch_needs_the_row),
        cmocka_unit_test(test_punch_budgets),
        cmocka_unit_test(test_punch_grant),
        cmocka_unit_test(test_expires),
        cmocka_unit_test(test_sessions_and_beacons),
        cmocka_unit_test(test_session_at_a_beacons_endpoint),
        cmocka_unit_test(test_talkers),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
