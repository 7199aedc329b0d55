#include "tests/rig_mesh.h"
#include "server/relay.h"

#define V10 "050001e2400009fbf150494c5068656c6c6f"
#define V11 "060001e24050494c5068656c6c6f"
#define V12 "090001e2400009fbf150494c5068656c6c6f"
#define M4 "050001e2400009fbf1"

static void open_with_both(struct rig *r, unsigned lanes)
{
    rig_open(r, lanes, 100);
    assert_verdict(rig_node(r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "A");
    assert_verdict(rig_node(r, AT_B, NODE_B), VERDICT_DISCOVER_NEW, "B");
}

static void test_golden(void **state)
{
    (void)state;
    static const struct {
        const char *name, *relay, *plain, *dest; /* delivered to a node of 0x01, of 0x08 */
    } cases[] = {
        {"V10", V10, V11, V12},
        {"M4, no payload", M4, "060001e240", "090001e2400009fbf1"},
        {"from node 0", "05000000000009fbf1aa", "0600000000aa", "09000000000009fbf1aa"},
        {"from the highest id", "05ffffffff0009fbf1aa", "06ffffffffaa", "09ffffffff0009fbf1aa"},
        {"payload that looks like a header", "050001e2400009fbf1050001e2400009fbf1",
         "060001e240050001e2400009fbf1", "090001e2400009fbf1050001e2400009fbf1"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        open_with_both(&r, 1);
        rig_hex(&r, 0, AT_A, cases[i].relay);
        assert_int_equal(r.out.count, 1);
        assert_sent(&r, 0, AT_B, cases[i].plain);
        assert_verdict(
            rig_discover(&r, AT_B, &(struct msg_discover){.wants_dest = true, .node_id = NODE_B}),
            VERDICT_DISCOVER_REFRESHED, cases[i].name);
        rig_hex(&r, 0, AT_A, cases[i].relay);
        assert_int_equal(r.out.count, 1);
        assert_sent(&r, 0, AT_B, cases[i].dest);
        rig_close(&r);
    }
}

/* The payload stays where it was received. */
static void test_in_place(void **state)
{
    (void)state;
    uint8_t bytes[32] = {5, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1, 'x', 'y'};
    struct datagram d = {.bytes = bytes, .len = 11};
    struct route to = {.at = endpoint_at(AT_B), .local = 4};
    struct outgoing o = relay_rewrite(&d, &to);
    assert_ptr_equal(o.bytes, bytes + 4);
    assert_int_equal(o.len, 7);
    assert_int_equal(o.local, 4);
    assert_memory_equal(bytes + 9, "xy", 2);
    memcpy(bytes, (uint8_t[]){5, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1}, 9);
    to.flags = ROUTE_WANTS_DEST;
    o = relay_rewrite(&d, &to);
    assert_ptr_equal(o.bytes, bytes);
    assert_int_equal(o.len, 11);
    assert_memory_equal(bytes + 9, "xy", 2);
}

static void test_sender(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from;
        uint32_t sender, dest;
        enum verdict lax, strict;
    } cases[] = {
        {"its own id", AT_A, NODE_A, NODE_B, VERDICT_RELAY_FORWARDED, VERDICT_RELAY_FORWARDED},
        {"from another port", "203.0.113.7:40001", NODE_A, NODE_B, VERDICT_RELAY_FORWARDED_UNPROVEN,
         VERDICT_RELAY_SENDER_MISMATCH},
        {"from another address", "192.0.2.1:40000", NODE_A, NODE_B,
         VERDICT_RELAY_FORWARDED_UNPROVEN, VERDICT_RELAY_SENDER_MISMATCH},
        {"another's id", AT_A, NODE_B, NODE_A, VERDICT_RELAY_FORWARDED_UNPROVEN,
         VERDICT_RELAY_SENDER_MISMATCH},
        {"an id nobody has", AT_A, 42, NODE_B, VERDICT_RELAY_FORWARDED_UNPROVEN,
         VERDICT_RELAY_SENDER_MISMATCH},
        {"id 0", AT_A, 0, NODE_B, VERDICT_RELAY_FORWARDED_UNPROVEN, VERDICT_RELAY_SENDER_MISMATCH},
        {"to itself", AT_A, NODE_A, NODE_A, VERDICT_RELAY_FORWARDED, VERDICT_RELAY_FORWARDED},
        {"to nobody", AT_A, NODE_A, 42, VERDICT_RELAY_NO_ROUTE, VERDICT_RELAY_NO_ROUTE},
        {"to id 0", AT_A, NODE_A, 0, VERDICT_RELAY_NO_ROUTE, VERDICT_RELAY_NO_ROUTE},
        {"to nobody from nobody", AT_A, 42, 43, VERDICT_RELAY_NO_ROUTE, VERDICT_RELAY_NO_ROUTE},
    };
    for (unsigned lanes = 1; lanes <= 4; lanes++)
        for (size_t i = 0; i < COUNT(cases) * 2; i++) {
            struct rig r;
            size_t k = i / 2;
            open_with_both(&r, lanes);
            r.rules.strict_relay_source = i & 1;
            enum verdict want = i & 1 ? cases[k].strict : cases[k].lax;
            for (unsigned lane = 0; lane < lanes; lane++) { /* any lane may get it */
                enum verdict v = rig_relay(&r, lane, cases[k].from, cases[k].sender, cases[k].dest);
                assert_verdict(v, want, cases[k].name);
                bool forwarded =
                    want == VERDICT_RELAY_FORWARDED || want == VERDICT_RELAY_FORWARDED_UNPROVEN;
                assert_int_equal(r.out.count, forwarded);
            }
            rig_close(&r);
        }
}

/* One source, one moment, two claims in turn: each is judged for itself. */
static void test_claims_in_turn(void **state)
{
    (void)state;
    struct rig r;
    open_with_both(&r, 2);
    for (int i = 0; i < 6; i++) {
        bool own = i % 3 != 1;
        assert_verdict(rig_relay(&r, 0, AT_A, own ? NODE_A : NODE_B, NODE_B),
                       own ? VERDICT_RELAY_FORWARDED : VERDICT_RELAY_FORWARDED_UNPROVEN, "claim");
    }
    rig_close(&r);
}

/* Relaying is no registration: it neither stores nor refreshes. */
static void test_refreshes_nobody(void **state)
{
    (void)state;
    struct rig r;
    struct route before, after;
    open_with_both(&r, 1);
    assert_true(server_find(r.server, NODE_A, &before));
    rig_step(&r, 10 * SECOND_NS);
    rig_relay(&r, 0, AT_A, NODE_A, NODE_B);
    rig_relay(&r, 0, AT_A, 42, NODE_B);
    assert_true(server_find(r.server, NODE_A, &after));
    assert_int_equal(before.seen_s, after.seen_s);
    assert_string_equal(rig_where(&r, 42), "");
    rig_close(&r);
}

static void test_limits(void **state)
{
    (void)state;
    /* Ten relays from each of the sources in turn. */
    static const struct {
        const char *name;
        struct rate endpoint, ip;
        const char *from[2];
        unsigned forwarded, limited, ip_limited;
    } cases[] = {
        {"off", {0, 1}, {0, 1}, {AT_A, AT_B}, 20, 0, 0},
        {"each endpoint its own", {10, 4}, {0, 1}, {AT_A, "203.0.113.7:5"}, 8, 12, 0},
        {"one address", {0, 1}, {10, 5}, {AT_A, "203.0.113.7:5"}, 5, 0, 15},
        {"two addresses", {0, 1}, {10, 5}, {AT_A, "203.0.113.8:5"}, 10, 0, 10},
        {"both", {10, 4}, {10, 6}, {AT_A, "203.0.113.7:5"}, 6, 6, 8}, /* a refusal spends nothing */
        {"one /64", {0, 1}, {10, 5}, {"[2001:db8::1]:1", "[2001:db8::2]:2"}, 5, 0, 15},
        {"two /64", {0, 1}, {10, 5}, {"[2001:db8::1]:1", "[2001:db8:0:1::2]:2"}, 10, 0, 10},
        {"a whole burst", {10, 10}, {10, 20}, {AT_A, AT_B}, 20, 0, 0},
        {"one less", {10, 9}, {10, 20}, {AT_A, AT_B}, 18, 2, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        open_with_both(&r, 1);
        r.rules.relay_rate = cases[i].endpoint;
        r.rules.relay_ip_rate = cases[i].ip;
        for (unsigned n = 0; n < 20; n++)
            rig_relay(&r, 0, cases[i].from[n / 10], NODE_A, NODE_B);
        uint64_t forwarded = rig_count(&r, VERDICT_RELAY_FORWARDED) +
                             rig_count(&r, VERDICT_RELAY_FORWARDED_UNPROVEN);
        if (forwarded != cases[i].forwarded ||
            rig_count(&r, VERDICT_RELAY_LIMITED) != cases[i].limited ||
            rig_count(&r, VERDICT_RELAY_IP_LIMITED) != cases[i].ip_limited)
            fail_msg("%s: %u forwarded", cases[i].name, (unsigned)forwarded);
        rig_close(&r);
    }
}

/* What cannot be delivered uses no budget. */
static void test_no_route_is_free(void **state)
{
    (void)state;
    struct rig r;
    open_with_both(&r, 1);
    r.rules.relay_rate = r.rules.relay_ip_rate = (struct rate){1, 1};
    for (int i = 0; i < 100; i++)
        assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, 42), VERDICT_RELAY_NO_ROUTE, "to nobody");
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_B), VERDICT_RELAY_FORWARDED, "first");
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_B), VERDICT_RELAY_LIMITED, "second");
    rig_step(&r, SECOND_NS - 1);
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_B), VERDICT_RELAY_LIMITED, "too early");
    rig_step(&r, 1);
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_B), VERDICT_RELAY_FORWARDED, "in time");
    rig_close(&r);
}

/* A node registered over one of our addresses hears us from that address. */
static void test_leaves_from_local(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.local = 2;
    rig_node(&r, AT_B, NODE_B);
    r.local = 1;
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_B), VERDICT_RELAY_FORWARDED_UNPROVEN, "");
    assert_int_equal(r.out.out[0].local, 2);
    rig_close(&r);
}

static void batch(struct rig *r, const char *from, const uint8_t *const *msg, const size_t *len,
                  unsigned n, enum verdict *ret)
{
    static uint8_t copy[8][64];
    struct lane *l = r->server->lane[0];
    struct datagram d[8];
    server_begin(l);
    for (unsigned i = 0; i < n; i++) {
        memcpy(copy[i], msg[i], len[i]);
        d[i] =
            (struct datagram){.bytes = copy[i], .len = (uint32_t)len[i], .from = endpoint_at(from)};
        server_prefetch(l, &d[i]);
    }
    r->out.count = 0;
    for (unsigned i = 0; i < n; i++)
        ret[i] = server_input(l, &d[i], &r->now, &r->out);
}

/* A Discover between two relays of one batch must count for the second relay. */
static void strict_sender_is_known_from_its_discover_on(void **state)
{
    (void)state;
    static const uint8_t relay[9] = {5, 0, 0, 0, 1, 0, 0, 0, 2}, discover[5] = {1, 0, 0, 0, 1};
    struct rig r;
    enum verdict v[3];
    rig_open(&r, 1, 100);
    r.rules.strict_relay_source = true;
    rig_node(&r, AT_B, 2);
    batch(&r, AT_A, (const uint8_t *const[]){relay, discover, relay}, (size_t[]){9, 5, 9}, 3, v);
    assert_verdict(v[0], VERDICT_RELAY_SENDER_MISMATCH, "before");
    assert_verdict(v[1], VERDICT_DISCOVER_NEW, "Discover");
    assert_verdict(v[2], VERDICT_RELAY_FORWARDED, "after");
    rig_close(&r);
}

/* "Budgets that are spent together: ask all, then take all" (limit.h): what the address budget
 * refuses is not charged to the endpoint. */
static void relay_refused_by_address_keeps_its_own_budget(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    rig_node(&r, AT_A, NODE_A);
    r.rules.relay_rate = (struct rate){1, 3};
    r.rules.relay_ip_rate = (struct rate){1000, 1};
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_A), VERDICT_RELAY_FORWARDED, "1");
    for (int i = 0; i < 5; i++)
        rig_relay(&r, 0, AT_A, NODE_A, NODE_A);
    rig_step(&r, 1000000);
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_A), VERDICT_RELAY_FORWARDED, "2 of 3");
    rig_close(&r);
}

/* --- between beacons --- */

enum { NODE_1 = 1001, NODE_2 = 1002, NODE_3 = 1003, NODE_9 = 1009 };
#define HELLO "50494c5068656c6c6f"

/* A is here; the beacons 1, 2 and 3 have a node each; one says that beacon 9 has it. */
static void open_mesh(struct rig *r, struct peers *p, unsigned lanes)
{
    rig_open_mesh(r, lanes, 100, 100, false);
    rig_peers(r, p);
    assert_verdict(rig_node(r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "A");
    rig_route(r, MAIL_ROUTES_SET, NODE_1, 1);
    rig_route(r, MAIL_ROUTES_SET, NODE_2, 2);
    rig_route(r, MAIL_ROUTES_SET, NODE_3, 3);
    rig_route(r, MAIL_ROUTES_SET, NODE_9, 9);
}

static void test_between_beacons(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from;
        uint32_t sender, dest;
        enum verdict lax, strict;
        const char *to;
    } cases[] = {
        {"to a beacon's node", AT_A, NODE_A, NODE_1, VERDICT_RELAY_TO_BEACON,
         VERDICT_RELAY_TO_BEACON, AT_PEER_1},
        {"to the other's", AT_A, NODE_A, NODE_2, VERDICT_RELAY_TO_BEACON, VERDICT_RELAY_TO_BEACON,
         AT_PEER_2},
        {"of a beacon that is not usable", AT_A, NODE_A, NODE_3, VERDICT_RELAY_NO_ROUTE,
         VERDICT_RELAY_NO_ROUTE, NULL},
        {"of a beacon that is not known", AT_A, NODE_A, NODE_9, VERDICT_RELAY_NO_ROUTE,
         VERDICT_RELAY_NO_ROUTE, NULL},
        {"from a stranger", "198.51.100.77:1", NODE_A, NODE_1, VERDICT_RELAY_TO_BEACON,
         VERDICT_RELAY_SENDER_MISMATCH, AT_PEER_1},
        {"from a beacon to a node here", AT_PEER_1, NODE_1, NODE_A, VERDICT_RELAY_FROM_BEACON,
         VERDICT_RELAY_FROM_BEACON, AT_A},
        {"whoever it says it is from", AT_PEER_1, NODE_A, NODE_A, VERDICT_RELAY_FROM_BEACON,
         VERDICT_RELAY_FROM_BEACON, AT_A},
        {"from one that is not usable", AT_PEER_3, NODE_3, NODE_A, VERDICT_RELAY_FROM_BEACON,
         VERDICT_RELAY_FROM_BEACON, AT_A},
        {"from a beacon's address, but not its port", "192.0.2.1:9002", NODE_1, NODE_A,
         VERDICT_RELAY_FORWARDED_UNPROVEN, VERDICT_RELAY_SENDER_MISMATCH, AT_A},
        {"from beacon to beacon", AT_PEER_1, NODE_1, NODE_2, VERDICT_RELAY_SECOND_HOP,
         VERDICT_RELAY_SECOND_HOP, NULL},
        {"back to where it came from", AT_PEER_1, NODE_A, NODE_1, VERDICT_RELAY_SECOND_HOP,
         VERDICT_RELAY_SECOND_HOP, NULL},
        {"from a beacon to one that is not usable", AT_PEER_1, NODE_1, NODE_3,
         VERDICT_RELAY_SECOND_HOP, VERDICT_RELAY_SECOND_HOP, NULL},
        {"from a beacon to nobody", AT_PEER_1, NODE_1, 42, VERDICT_RELAY_NO_ROUTE,
         VERDICT_RELAY_NO_ROUTE, NULL},
    };
    static struct peers p;
    for (unsigned lanes = 1; lanes <= 3; lanes++)
        for (size_t i = 0; i < COUNT(cases) * 2; i++) {
            struct rig r;
            size_t k = i / 2;
            open_mesh(&r, &p, lanes);
            r.rules.strict_relay_source = i & 1;
            for (unsigned lane = 0; lane < lanes; lane++) {
                enum verdict v = rig_relay(&r, lane, cases[k].from, cases[k].sender, cases[k].dest);
                assert_verdict(v, i & 1 ? cases[k].strict : cases[k].lax, cases[k].name);
                bool sent = strcmp(verdict_rows[v].outcome, "forwarded") == 0;
                assert_int_equal(r.out.count, sent);
                if (!sent)
                    continue;
                char hex[64];
                if (v == VERDICT_RELAY_TO_BEACON) /* byte for byte */
                    snprintf(hex, sizeof hex, "05%08x%08x" HELLO, cases[k].sender, cases[k].dest);
                else
                    snprintf(hex, sizeof hex, "06%08x" HELLO, cases[k].sender);
                assert_sent(&r, 0, cases[k].to, hex);
                assert_int_equal(r.out.out[0].scope, 0);
            }
            rig_close(&r);
        }
}

/* Without peers (not yet, or no more) their nodes are nowhere, and they are strangers. */
static void test_without_peers(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    open_mesh(&r, &p, 1);
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_FROM_BEACON, "with");
    server_set_peers(r.server, NULL);
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_FORWARDED_UNPROVEN,
                   "the same source, without");
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_1), VERDICT_RELAY_NO_ROUTE, "to it");
    server_set_peers(r.server, &p);
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_FROM_BEACON, "again");
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_1), VERDICT_RELAY_TO_BEACON, "to it again");
    rig_close(&r);
}

/* The node's own registration wins, for as long as it stands. */
static void test_local_before_beacon(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    open_mesh(&r, &p, 2);
    assert_verdict(rig_node(&r, AT_B, NODE_1), VERDICT_DISCOVER_NEW, "it comes to us");
    rig_relay(&r, 0, AT_A, NODE_A, NODE_1);
    assert_sent(&r, 0, AT_B, "060001e240" HELLO);
    rig_route(&r, MAIL_ROUTES_SET, NODE_1, 1); /* it does not leave because somebody says so */
    rig_relay(&r, 0, AT_A, NODE_A, NODE_1);
    assert_sent(&r, 0, AT_B, "060001e240" HELLO);
    assert_true(route_remove(r.server->lane[rig_owner(&r, NODE_1)]->routes, NODE_1));
    rig_route(&r, MAIL_ROUTES_SET, NODE_1, 1);
    rig_relay(&r, 0, AT_A, NODE_A, NODE_1);
    assert_sent(&r, 0, AT_PEER_1, "050001e240000003e9" HELLO);
    rig_close(&r);
}

/* A beacon has a budget of its own, each one; that of senders and addresses is not touched by it.
 * What goes to a beacon is the sender's, as any relay. */
static void test_budgets_between_beacons(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    open_mesh(&r, &p, 1);
    r.rules.peer_rate = (struct rate){10, 4};
    r.rules.relay_rate = (struct rate){10, 2};
    r.rules.relay_ip_rate = (struct rate){10, 3};
    for (int i = 0; i < 6; i++) {
        assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A),
                       i < 4 ? VERDICT_RELAY_FROM_BEACON : VERDICT_RELAY_PEER_LIMITED, "one");
        assert_verdict(rig_relay(&r, 0, AT_PEER_2, NODE_2, NODE_A),
                       i < 4 ? VERDICT_RELAY_FROM_BEACON : VERDICT_RELAY_PEER_LIMITED, "other");
        assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_2), VERDICT_RELAY_SECOND_HOP, "");
    }
    for (int i = 0; i < 3; i++)
        assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_1),
                       i < 2 ? VERDICT_RELAY_TO_BEACON : VERDICT_RELAY_LIMITED, "sender");
    assert_verdict(rig_relay(&r, 0, "203.0.113.7:1", 5, NODE_1), VERDICT_RELAY_TO_BEACON, "3rd");
    assert_verdict(rig_relay(&r, 0, "203.0.113.7:1", 5, NODE_1), VERDICT_RELAY_IP_LIMITED, "4th");
    assert_verdict(rig_relay(&r, 0, AT_A, NODE_A, NODE_3), VERDICT_RELAY_NO_ROUTE, "is free");
    rig_step(&r, SECOND_NS / 10);
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_FROM_BEACON, "later");
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_PEER_LIMITED, "one");
    r.rules.peer_rate.per_s = 0; /* no limit */
    assert_verdict(rig_relay(&r, 0, AT_PEER_1, NODE_1, NODE_A), VERDICT_RELAY_FROM_BEACON, "off");
    rig_close(&r);
}

/* Runs of datagrams from a beacon and from a node, in one batch and in turn: what was kept of one
 * source does not stick to the next. */
static void test_runs_in_turn(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    open_mesh(&r, &p, 1);
    for (int i = 0; i < 12; i++) {
        bool beacon = i / 3 & 1;
        assert_verdict(rig_relay(&r, 0, beacon ? AT_PEER_1 : AT_A, NODE_A, NODE_A),
                       beacon ? VERDICT_RELAY_FROM_BEACON : VERDICT_RELAY_FORWARDED, "turn");
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_sender),
        cmocka_unit_test(test_claims_in_turn),
        cmocka_unit_test(strict_sender_is_known_from_its_discover_on),
        cmocka_unit_test(relay_refused_by_address_keeps_its_own_budget),
        cmocka_unit_test(test_refreshes_nobody),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_route_is_free),
        cmocka_unit_test(test_leaves_from_local),
        cmocka_unit_test(test_between_beacons),
        cmocka_unit_test(test_without_peers),
        cmocka_unit_test(test_local_before_beacon),
        cmocka_unit_test(test_budgets_between_beacons),
        cmocka_unit_test(test_runs_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
