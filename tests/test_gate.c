/* gate - what is spent and what is given back, both sides of each limit, without a socket. */
#include "tests/edge_rig.h"
#include "wss/gate.h"

static const uint64_t second_ns = 1000000000;

static const struct edge_listener tls_public = {.tls = true, .is_public = true},
                                  plain_public = {.is_public = true}, tls_private = {.tls = true},
                                  local = {.unix_path = "/run/x", .tls = true, .is_public = true};

static struct endpoint at(const char *text)
{
    struct endpoint e;
    assert_true(endpoint_parse(text, &e));
    return e;
}

/* How many of 1000 enter, the last one's verdict in *ret_last. */
static unsigned enter_all(struct gate *g, const struct edge_limits *limits,
                          const struct edge_listener *l, const char *from, uint64_t now_ns,
                          enum gate_verdict *ret_last)
{
    struct endpoint e = at(from);
    unsigned n = 0;
    *ret_last = GATE_ENTERED;
    while (n < 1000 && *ret_last == GATE_ENTERED) {
        *ret_last = gate_enter(g, limits, l, &e, now_ns);
        n += *ret_last == GATE_ENTERED;
    }
    return n;
}

static const struct {
    const char *name, *from;
    const struct edge_listener *listener;
    unsigned count;
    enum gate_verdict last;
} cases[] = {
    {"IPv4, public", "203.0.113.7:1", &plain_public, 10, GATE_SOURCE_FULL},
    {"IPv6, public", "[2001:db8::1]:1", &plain_public, 5, GATE_SOURCE_FULL},
    {"IPv4, public with TLS", "203.0.113.7:1", &tls_public, 4, GATE_HANDSHAKES_SPENT},
    {"IPv6, public with TLS", "[2001:db8::1]:1", &tls_public, 4, GATE_HANDSHAKES_SPENT},
    {"loopback is a source like others", "127.0.0.1:1", &tls_public, 4, GATE_HANDSHAKES_SPENT},
    {"IPv4, private", "203.0.113.7:1", &tls_private, GATE_PER_IPV4, GATE_SOURCE_FULL},
    {"IPv6, private", "[2001:db8::1]:1", &tls_private, GATE_PER_IPV6_64, GATE_SOURCE_FULL},
};

static const struct edge_limits narrow = {.per_ipv4 = 10,
                                          .per_ipv6_64 = 5,
                                          .handshakes = {.per_s = 1, .burst = 4},
                                          .handshakes_total = {.per_s = 1000, .burst = 1000}};

static void test_each_limit_is_met_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gate *g = gate_new(2000);
        enum gate_verdict last;
        unsigned n = enter_all(g, &narrow, cases[i].listener, cases[i].from, second_ns, &last);
        if (n != cases[i].count || last != cases[i].last)
            fail_msg("%s: %u, then %d", cases[i].name, n, last);
        gate_free(g);
    }
}

static void test_unix_sockets_have_no_source(void **state)
{
    (void)state;
    struct gate *g = gate_new(16);
    enum gate_verdict last;
    struct edge_limits limits = narrow;
    limits.handshakes.per_s = 0;
    limits.handshakes_total.per_s = 0;
    assert_int_equal(enter_all(g, &limits, &local, "[::]:0", second_ns, &last), 1000);
    assert_int_equal(last, GATE_ENTERED);
    gate_free(g);
}

static void test_place_comes_back_a_handshake_does_not(void **state)
{
    (void)state;
    struct gate *g = gate_new(16);
    struct endpoint from = at("203.0.113.7:1");
    for (int i = 0; i < 100; i++) {
        assert_int_equal(gate_enter(g, &narrow, &plain_public, &from, second_ns), GATE_ENTERED);
        gate_leave(g, &plain_public, &from);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(gate_enter(g, &narrow, &tls_public, &from, second_ns), GATE_ENTERED);
        gate_leave(g, &tls_public, &from);
    }
    /* Refused again and again: the place that was looked at is given back each time. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(gate_enter(g, &narrow, &tls_public, &from, second_ns),
                         GATE_HANDSHAKES_SPENT);
    assert_int_equal(gate_enter(g, &narrow, &tls_public, &from, 2 * second_ns - 1),
                     GATE_HANDSHAKES_SPENT);
    assert_int_equal(gate_enter(g, &narrow, &tls_public, &from, 2 * second_ns), GATE_ENTERED);
    gate_free(g);
}

static void test_source_of_a_handshake_is_a_host(void **state)
{
    (void)state;
    static const struct {
        const char *name, *first, *second;
        bool same;
    } rows[] = {
        {"other port", "203.0.113.7:1", "203.0.113.7:2", true},
        {"next address", "203.0.113.7:1", "203.0.113.8:1", false},
        {"same /64", "[2001:db8::1]:1", "[2001:db8::ffff:1:1:1]:1", true},
        {"next /64", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
    };
    struct edge_limits limits = narrow;
    limits.handshakes.burst = 1;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gate *g = gate_new(16);
        struct endpoint first = at(rows[i].first), second = at(rows[i].second);
        assert_int_equal(gate_enter(g, &limits, &tls_public, &first, second_ns), GATE_ENTERED);
        bool same = gate_enter(g, &limits, &tls_public, &second, second_ns) != GATE_ENTERED;
        if (same != rows[i].same)
            fail_msg("%s", rows[i].name);
        gate_free(g);
    }
}

/* A flood that keeps each address within its own budget is held by its networks. */
static void test_networks_have_multiples(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from;
        unsigned byte; /* of the address, that changes; IPv4 has the last four */
        unsigned count;
    } rows[] = {
        {"one /24", "203.0.113.1:1", 15, 8},     {"one /16", "203.0.113.1:1", 14, 64},
        {"one /48", "[2001:db8:1::1]:1", 7, 8},  {"one /32", "[2001:db8:1::1]:1", 5, 64},
        {"far apart", "203.0.113.1:1", 12, 100},
    };
    struct edge_limits limits = narrow;
    limits.handshakes.burst = 1;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gate *g = gate_new(2000);
        unsigned entered = 0;
        for (unsigned n = 1; n <= 100; n++) {
            struct endpoint from = at(rows[i].from);
            from.ip[rows[i].byte] = (uint8_t)n;
            entered += gate_enter(g, &limits, &tls_public, &from, second_ns) == GATE_ENTERED;
        }
        if (entered != rows[i].count)
            fail_msg("%s: %u entered", rows[i].name, entered);
        gate_free(g);
    }
}

static void test_who_is_over_its_own_budget_leaves_that_of_all(void **state)
{
    (void)state;
    struct edge_limits limits = narrow;
    limits.handshakes_total = (struct rate){.per_s = 1, .burst = 6};
    struct gate *g = gate_new(16);
    enum gate_verdict last;
    assert_int_equal(enter_all(g, &limits, &tls_public, "203.0.113.7:1", second_ns, &last), 4);
    for (int i = 0; i < 100; i++)
        assert_int_equal(enter_all(g, &limits, &tls_public, "203.0.113.7:1", second_ns, &last), 0);
    assert_int_equal(enter_all(g, &limits, &tls_public, "203.0.113.8:1", second_ns, &last), 2);
    assert_int_equal(last, GATE_HANDSHAKES_SPENT);
    gate_free(g);
}

static void test_public_and_private_are_counted_apart(void **state)
{
    (void)state;
    struct gate *g = gate_new(100);
    enum gate_verdict last;
    assert_int_equal(enter_all(g, &narrow, &plain_public, "203.0.113.7:1", second_ns, &last), 10);
    assert_int_equal(enter_all(g, &narrow, &tls_private, "203.0.113.7:1", second_ns, &last),
                     GATE_PER_IPV4);
    gate_free(g);
}

static void test_a_48_has_four_times_a_64(void **state)
{
    (void)state;
    struct gate *g = gate_new(100);
    enum gate_verdict last;
    char text[ENDPOINT_TEXT_MAX];
    unsigned n = 0;
    for (int i = 0; i < 10; i++) {
        snprintf(text, sizeof text, "[2001:db8:0:%x::1]:1", i);
        n += enter_all(g, &narrow, &plain_public, text, second_ns, &last);
    }
    assert_int_equal(n, 5 * EDGE_IPV6_48_TIMES);
    gate_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_limit_is_met_exactly),
        cmocka_unit_test(test_unix_sockets_have_no_source),
        cmocka_unit_test(test_place_comes_back_a_handshake_does_not),
        cmocka_unit_test(test_source_of_a_handshake_is_a_host),
        cmocka_unit_test(test_networks_have_multiples),
        cmocka_unit_test(test_who_is_over_its_own_budget_leaves_that_of_all),
        cmocka_unit_test(test_public_and_private_are_counted_apart),
        cmocka_unit_test(test_a_48_has_four_times_a_64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
