#include "tests/member_rig.h"

/* --- questions --- */

static void test_round(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    uint64_t t = quiet(m, 1);
    assert_int_equal(member_tick(m, t - 1, p, PINGS), 0);
    assert_int_equal(tick(m, t, p), 1);
    assert_int_equal(p[0].to, 1);
    assert_int_equal(p[0].subject, 1);
    uint64_t first = p[0].number;
    assert_int_equal(member_next_ns(m), t + MEMBER_WAIT_NS);
    assert_int_equal(member_tick(m, t + MEMBER_WAIT_NS - 1, p, PINGS), 0);
    assert_int_equal(tick(m, t + MEMBER_WAIT_NS, p), 1); /* nobody could help */
    assert_int_not_equal(p[0].number, first);
    assert_int_equal(tick(m, t + 2 * MEMBER_WAIT_NS, p), 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_ALIVE);
    uint64_t suspect_ns = t + 3 * MEMBER_WAIT_NS;
    run_until(m, suspect_ns);
    assert_int_equal(known(m, 1000)->state, MEMBER_ALIVE);
    assert_int_equal(member_health(m), 0);
    run_until(m, suspect_ns + 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    assert_int_equal(member_health(m), 1);
    uint64_t dead_ns = suspect_ns + MEMBER_SUSPECT_NS + MEMBER_SUSPECT_NS / 32;
    unsigned last = 0;
    run_until(m, dead_ns - 2 * SECOND_NS);
    while (member_next_ns(m) < dead_ns)
        last += tick(m, member_next_ns(m), p);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    assert_true(last >= 10); /* questions in the last two seconds */
    run_until(m, dead_ns + 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_DEAD);
    assert_int_equal(members_usable(m), 0);
    /* The dead are asked on, once a period. */
    unsigned asked = 0;
    for (uint64_t at = member_next_ns(m); at < dead_ns + 20 * SECOND_NS; at = member_next_ns(m))
        asked += tick(m, at, p);
    assert_in_range(asked, 19, 22);
    free(m);
}

static void test_helpers(void **state)
{
    (void)state;
    for (unsigned others = 2; others <= 9; others++) {
        struct members *m = open_one();
        struct member_ping p[PINGS];
        uint64_t t = quiet(m, others);
        unsigned want = others < MEMBER_PINGS ? others : MEMBER_PINGS;
        assert_int_equal(tick(m, t, p), want);
        unsigned victim = p[0].to;
        for (unsigned i = 1; i < want; i++) /* all others answer */
            hear(m, member_at(m, p[i].to)->fact.id, 5, t + 1);
        unsigned n = tick(m, t + MEMBER_WAIT_NS, p), probes = 0;
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(p[i].subject, victim);
            probes += p[i].to != victim;
            for (unsigned k = 0; k < i; k++)
                assert_int_not_equal(p[i].to, p[k].to);
        }
        unsigned can = others - 1 < MEMBER_HELPERS ? others - 1 : MEMBER_HELPERS;
        assert_int_equal(probes, can);
        assert_int_equal(n, can + 1);
        uint32_t id = member_at(m, victim)->fact.id;
        member_acked(m, p[0].number, id, false, t + MEMBER_WAIT_NS + 1);
        assert_int_equal(member_at(m, victim)->heard_ns, NOW); /* a helper's word */
        run_until(m, t + 3 * MEMBER_WAIT_NS + 1);
        assert_int_equal(known(m, id)->state, MEMBER_ALIVE);
        free(m);
    }
}

/* Each once before any twice. */
static void test_each_in_turn(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 3, 4, 5, 8, 21, 100};
    for (size_t c = 0; c < COUNT(counts); c++) {
        struct members *m = open_one();
        struct member_ping p[PINGS];
        unsigned asked[128] = {0}, periods = counts[c] * 6 / MEMBER_PINGS;
        quiet(m, counts[c]);
        if (counts[c] <= MEMBER_PINGS)
            periods = 6;
        for (unsigned k = 0; k < periods; k++) {
            unsigned n;
            uint64_t at = next_questions(m, p, &n);
            assert_int_equal(n, counts[c] < MEMBER_PINGS ? counts[c] : MEMBER_PINGS);
            for (unsigned i = 0; i < n; i++) {
                asked[p[i].to]++;
                hear(m, member_at(m, p[i].to)->fact.id, 5, at + 1);
            }
        }
        for (unsigned i = 1; i <= counts[c]; i++)
            assert_in_range(asked[i], 4, 8); /* 6, but for whose turns follow each other at once */
        free(m);
    }
}

static void test_acked(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    uint64_t t = quiet(m, 1);
    tick(m, t, p);
    uint64_t number = p[0].number;
    const struct member *x = member_at(m, 1);
    tell(m, fact_of(1000, 5, 0, MEMBER_SUSPECT), t + MEMBER_PERIOD_NS);
    /* Neither another's number nor one of two rounds before or to come. */
    const uint64_t wrong[] = {number + (1 << 16), number - (2 << 16), ~number, UINT64_MAX,
                              number ^ UINT64_C(1) << 48};
    for (size_t i = 0; i < COUNT(wrong); i++)
        member_acked(m, wrong[i], 1000, true, t + 50);
    member_acked(m, number, 1001, true, t + 50);
    member_acked(m, number, SELF, true, t + 50);
    assert_int_equal(x->fact.state, MEMBER_SUSPECT);
    assert_int_equal(x->rtt_ns, 0);
    member_acked(m, number, 1000, true, t + 80 * MS_NS);
    assert_int_equal(x->fact.state, MEMBER_ALIVE);
    assert_int_equal(x->rtt_ns, 80 * MS_NS);
    member_acked(m, number, 1000, true, t + 90 * MS_NS); /* measured once */
    assert_int_equal(x->rtt_ns, 80 * MS_NS);
    member_acked(m, number + 1, 1000, true, t + 90 * MS_NS); /* not sent yet */
    assert_int_equal(x->rtt_ns, 80 * MS_NS);
    /* A long way is waited for. */
    uint64_t at = 0;
    for (int k = 0; k < 100; k++) {
        unsigned n;
        at = next_questions(m, p, &n);
        if (k < 99)
            member_acked(m, p[0].number, 1000, true, at + 250 * MS_NS);
    }
    assert_in_range(member_next_ns(m) - at, 480 * MS_NS, 500 * MS_NS);
    free(m);
}

static void test_help(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p, q;
    int asker = -5;
    uint64_t number = 5;
    quiet(m, 3);
    assert_false(member_help(m, 0, 11, 2, NOW, &p));
    assert_false(member_help(m, 1, 11, 0, NOW, &p));
    assert_false(member_help(m, 1, 11, 1, NOW, &p));
    assert_false(member_help(m, 1, 11, 4, NOW, &p));
    assert_false(member_help(m, 4, 11, 1, NOW, &p));
    assert_true(member_help(m, 1, 11, 2, NOW, &p));
    assert_true(member_help(m, 3, 11, 2, NOW, &q));
    assert_int_equal(p.to, 2);
    assert_int_equal(p.subject, 2);
    assert_int_not_equal(p.number, q.number);
    assert_false(member_helped(m, 0, &asker, &number));
    assert_false(member_helped(m, 11, &asker, &number));
    assert_false(member_helped(m, p.number + 256, &asker, &number));
    assert_int_equal(asker, -5);
    assert_true(member_helped(m, p.number, &asker, &number));
    assert_int_equal(asker, 1);
    assert_int_equal(number, 11);
    assert_false(member_helped(m, p.number, &asker, &number)); /* once */
    assert_true(member_helped(m, q.number, &asker, &number));
    assert_int_equal(asker, 3);
    for (unsigned i = 0; i < 256; i++)
        assert_true(member_help(m, 1, 100 + i, 2, NOW, &p));
    assert_false(member_help(m, 1, 999, 2, NOW + 2 * SECOND_NS - 1, &p));
    assert_true(member_help(m, 1, 999, 2, NOW + 2 * SECOND_NS, &p));
    assert_true(member_helped(m, p.number, &asker, &number));
    assert_int_equal(number, 999);
    free(m);
}

/* --- lateness --- */

static void test_slept(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t sleep_ns;
        bool wakes; /* raises its incarnation */
        unsigned health;
    } cases[] = {
        {"a moment", 10 * MS_NS, false, 1},     {"a little", 100 * MS_NS, false, 1},
        {"ill", 300 * MS_NS, false, 2},         {"less than a period", SECOND_NS - 1, false, 2},
        {"a period", SECOND_NS, true, 2},       {"five seconds", 5 * SECOND_NS, true, 2},
        {"an hour", 3600 * SECOND_NS, true, 2},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        struct member_ping p[PINGS];
        uint64_t t = quiet(m, 1), suspect_ns = t + 3 * MEMBER_WAIT_NS;
        run_until(m, suspect_ns + 1);
        assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
        uint64_t dead_ns = suspect_ns + MEMBER_SUSPECT_NS + MEMBER_SUSPECT_NS / 32;
        run_until(m, dead_ns - SECOND_NS);
        uint64_t wake_ns = member_next_ns(m) + cases[c].sleep_ns;
        uint32_t incarnation = known(m, SELF)->incarnation;
        tick(m, wake_ns, p);
        assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
        assert_int_equal(member_lag_ms(m) >= cases[c].sleep_ns / MS_NS * 3 / 4, true);
        assert_int_equal(member_health(m), cases[c].health);
        assert_int_equal(known(m, SELF)->incarnation, incarnation + cases[c].wakes);
        if (cases[c].sleep_ns >= 20 * MS_NS)
            dead_ns += cases[c].sleep_ns;
        run_until(m, dead_ns);
        if (known(m, 1000)->state != MEMBER_SUSPECT)
            fail_msg("%s: dead too early", cases[c].name);
        run_until(m, dead_ns + 1);
        if (known(m, 1000)->state != MEMBER_DEAD)
            fail_msg("%s: not dead", cases[c].name);
        free(m);
    }
}

/* An answer that waits in the socket while we sleep: taken in before or after the clockwork. */
static void test_slept_over_answer(void **state)
{
    (void)state;
    for (int order = 0; order < 2; order++) {
        struct members *m = open_one();
        struct member_ping p[PINGS];
        uint64_t t = quiet(m, 2);
        assert_int_equal(tick(m, t, p), 2);
        uint64_t wake_ns = t + 5 * SECOND_NS;
        if (order == 0)
            hear(m, 1000, 5, wake_ns);
        tick(m, wake_ns, p);
        assert_int_equal(known(m, 1000)->state, MEMBER_ALIVE);
        assert_int_equal(known(m, 1001)->state, MEMBER_ALIVE);
        hear(m, 1000, 5, wake_ns);
        hear(m, 1001, 5, wake_ns);
        run_until(m, wake_ns + MEMBER_WAIT_NS);
        assert_int_equal(known(m, 1001)->state, MEMBER_ALIVE);
        assert_int_equal(member_at(m, 1)->rtt_ns, 0); /* a sleep is no way */
        free(m);
    }
}

/* Asleep just before the last moment: what came meanwhile is read first. */
static void test_slept_at_the_end(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    uint64_t t = quiet(m, 2), end_ns = t + 3 * MEMBER_WAIT_NS;
    run_until(m, end_ns);
    assert_int_equal(member_next_ns(m), end_ns);
    uint64_t wake_ns = end_ns + 5 * SECOND_NS;
    tick(m, wake_ns, p);
    assert_int_equal(known(m, 1000)->state, MEMBER_ALIVE);
    run_until(m, wake_ns + MEMBER_WAIT_NS);
    assert_int_equal(known(m, 1000)->state, MEMBER_ALIVE);
    run_until(m, wake_ns + MEMBER_WAIT_NS + 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    free(m);

    m = open_one();
    quiet(m, 1);
    tell(m, fact_of(1000, 5, 0, MEMBER_SUSPECT), NOW + MEMBER_PERIOD_NS);
    run_until(m, NOW + MEMBER_PERIOD_NS + MEMBER_SUSPECT_NS - 1);
    wake_ns = member_next_ns(m) + 3600 * SECOND_NS;
    tick(m, wake_ns, p);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    run_until(m, wake_ns + MEMBER_PERIOD_NS);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    run_until(m, wake_ns + MEMBER_PERIOD_NS + 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_DEAD);
    free(m);
}

/* News that waited in the socket begin when they are read: nothing is added to those. */
static void test_slept_before_news(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    uint64_t wake_ns = quiet(m, 1) + 5 * SECOND_NS;
    tell(m, fact_of(1000, 5, 0, MEMBER_SUSPECT), wake_ns);
    tick(m, wake_ns, p);
    run_until(m, wake_ns + MEMBER_SUSPECT_NS);
    assert_int_equal(known(m, 1000)->state, MEMBER_SUSPECT);
    run_until(m, wake_ns + MEMBER_SUSPECT_NS + 1);
    assert_int_equal(known(m, 1000)->state, MEMBER_DEAD);
    free(m);
}

static void test_clock_stands_still(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    assert_int_equal(member_next_ns(m), 0);
    tick(m, NOW, p);
    assert_int_equal(member_lag_ms(m), 0); /* nothing was late before the first call */
    uint64_t t = quiet(m, 9);
    unsigned n = 0;
    struct member_ping one;
    while (member_tick(m, t, &one, 1) == 1) {
        assert_int_equal(member_next_ns(m), t);
        assert_true(n++ < MEMBER_PINGS);
    }
    assert_int_equal(n, MEMBER_PINGS);
    assert_int_equal(member_tick(m, t, p, PINGS), 0);
    assert_int_equal(member_tick(m, t - 1, p, PINGS), 0);
    assert_int_equal(member_lag_ms(m), 0);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_each_in_turn),
        cmocka_unit_test(test_acked),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_slept),
        cmocka_unit_test(test_slept_over_answer),
        cmocka_unit_test(test_slept_at_the_end),
        cmocka_unit_test(test_slept_before_news),
        cmocka_unit_test(test_clock_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
