#include "tests/member_rig.h"

/* --- facts --- */

static void test_fact_order(void **state)
{
    (void)state;
    enum { A = MEMBER_ALIVE, S = MEMBER_SUSPECT, D = MEMBER_DEAD, L = MEMBER_LEFT };
    static const struct {
        const char *name;
        struct {
            uint64_t boot;
            uint32_t incarnation;
            int state;
        } had, told;
        bool wins;
    } cases[] = {
        {"the same", {5, 2, A}, {5, 2, A}, false},
        {"suspect beats alive", {5, 2, A}, {5, 2, S}, true},
        {"dead beats alive", {5, 2, A}, {5, 2, D}, true},
        {"left beats alive", {5, 2, A}, {5, 2, L}, true},
        {"dead beats suspect", {5, 2, S}, {5, 2, D}, true},
        {"left beats suspect", {5, 2, S}, {5, 2, L}, true},
        {"alive does not beat suspect", {5, 2, S}, {5, 2, A}, false},
        {"suspect again", {5, 2, S}, {5, 2, S}, false},
        {"higher incarnation, alive", {5, 2, S}, {5, 3, A}, true},
        {"higher incarnation, suspect", {5, 2, S}, {5, 3, S}, true},
        {"lower incarnation, suspect", {5, 2, A}, {5, 1, S}, false},
        {"lower incarnation, left", {5, 2, A}, {5, 1, L}, false},
        {"later boot, alive", {5, 9, S}, {6, 0, A}, true},
        {"later boot, dead", {5, 9, A}, {6, 0, D}, true},
        {"earlier boot, dead", {5, 0, A}, {4, 9, D}, false},
        {"earlier boot, left", {5, 0, A}, {4, 9, L}, false},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        assert_true(tell(m,
                         fact_of(9, cases[c].had.boot, cases[c].had.incarnation,
                                 (enum member_state)cases[c].had.state),
                         NOW));
        bool news = tell(m,
                         fact_of(9, cases[c].told.boot, cases[c].told.incarnation,
                                 (enum member_state)cases[c].told.state),
                         NOW + 1);
        const struct member_fact *f = known(m, 9);
        bool took = f->boot == cases[c].told.boot && f->incarnation == cases[c].told.incarnation &&
                    f->state == cases[c].told.state;
        bool kept = f->boot == cases[c].had.boot && f->incarnation == cases[c].had.incarnation &&
                    f->state == cases[c].had.state;
        if (news != cases[c].wins || (news ? !took : !kept))
            fail_msg("%s: news %d, took %d, kept %d", cases[c].name, news, took, kept);
        free(m);
    }
}

/* A dead one against everything. */
static void test_dead_and_left(void **state)
{
    (void)state;
    static const struct {
        uint32_t incarnation;
        enum member_state state;
        bool wins;
    } cases[] = {
        {1, MEMBER_ALIVE, false},   {2, MEMBER_ALIVE, false},  {3, MEMBER_ALIVE, true},
        {2, MEMBER_SUSPECT, false}, {3, MEMBER_SUSPECT, true}, {2, MEMBER_DEAD, false},
        {3, MEMBER_DEAD, true},     {2, MEMBER_LEFT, true},    {1, MEMBER_LEFT, false},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        assert_true(tell(m, fact_of(9, 5, 2, MEMBER_ALIVE), NOW));
        assert_true(tell(m, fact_of(9, 5, 2, MEMBER_DEAD), NOW));
        bool news = tell(m, fact_of(9, 5, cases[c].incarnation, cases[c].state), NOW);
        assert_int_equal(news, cases[c].wins);
        assert_int_equal(known(m, 9)->state, news ? cases[c].state : MEMBER_DEAD);
        assert_int_equal(members_usable(m), known(m, 9)->state <= MEMBER_SUSPECT);
        free(m);
    }
}

static void test_no_news(void **state)
{
    (void)state;
    struct members *m = open_one();
    int index = 5;
    struct endpoint at = at_of(1);
    assert_false(tell(m, fact_of(0, 5, 0, MEMBER_ALIVE), NOW));
    assert_false(tell(m, fact_of(9, 5, 0, MEMBER_STATE_COUNT), NOW));
    assert_false(tell(m, fact_of(9, 5, 0, MEMBER_DEAD), NOW));
    assert_false(tell(m, fact_of(9, 5, 0, MEMBER_LEFT), NOW));
    assert_int_equal(member_find(m, 9), -1);
    assert_false(member_heard(m, 0, 5, &at, NOW, &index));
    assert_int_equal(index, -1);
    assert_false(member_heard(m, SELF, BOOT, &at, NOW, &index));
    assert_int_equal(index, 0);
    assert_int_equal(members_count(m), 1);
    assert_int_equal(member_find(m, 0), -1);
    assert_int_equal(member_find(m, SELF), 0);
    free(m);
}

static void test_self(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct member_fact told;
        bool news;
        uint32_t incarnation; /* afterwards; it begins with 3 */
        uint64_t reboot;
    } cases[] = {
        {"alive, as it is", {SELF, BOOT, 3, MEMBER_ALIVE, {{0}, 0}}, false, 3, 0},
        {"suspect", {SELF, BOOT, 3, MEMBER_SUSPECT, {{0}, 0}}, true, 4, 0},
        {"dead", {SELF, BOOT, 3, MEMBER_DEAD, {{0}, 0}}, true, 4, 0},
        {"left", {SELF, BOOT, 3, MEMBER_LEFT, {{0}, 0}}, true, 4, 0},
        {"suspect, refuted before", {SELF, BOOT, 2, MEMBER_SUSPECT, {{0}, 0}}, false, 3, 0},
        {"dead, never said so high", {SELF, BOOT, 8, MEMBER_DEAD, {{0}, 0}}, true, 9, 0},
        {"alive, never said so high", {SELF, BOOT, 8, MEMBER_ALIVE, {{0}, 0}}, true, 9, 0},
        {"no incarnation left",
         {SELF, BOOT, UINT32_MAX, MEMBER_DEAD, {{0}, 0}},
         false,
         3,
         BOOT + 1},
        {"the last incarnation",
         {SELF, BOOT, UINT32_MAX - 1, MEMBER_DEAD, {{0}, 0}},
         true,
         UINT32_MAX,
         0},
        {"earlier boot", {SELF, BOOT - 1, 9, MEMBER_DEAD, {{0}, 0}}, false, 3, 0},
        {"later boot", {SELF, BOOT + 1, 0, MEMBER_DEAD, {{0}, 0}}, false, 3, BOOT + 2},
        {"later boot, alive", {SELF, 5 * BOOT, 0, MEMBER_ALIVE, {{0}, 0}}, false, 3, 5 * BOOT + 1},
        {"the last but one",
         {SELF, UINT64_MAX - 1, 0, MEMBER_DEAD, {{0}, 0}},
         false,
         3,
         UINT64_MAX},
        {"nothing is later", {SELF, UINT64_MAX, 0, MEMBER_DEAD, {{0}, 0}}, false, 3, 0},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        uint64_t reboot = 1, view = member_view(m);
        assert_true(tell(m, fact_of(SELF, BOOT, 2, MEMBER_SUSPECT), NOW));
        bool news = member_told(m, &cases[c].told, NOW, &reboot);
        const struct member_fact *me = known(m, SELF);
        if (news != cases[c].news || me->incarnation != cases[c].incarnation ||
            reboot != cases[c].reboot || me->state != MEMBER_ALIVE)
            fail_msg("%s: news %d incarnation %u reboot %llu", cases[c].name, news, me->incarnation,
                     (unsigned long long)reboot);
        assert_int_equal(member_view(m), view);
        if (reboot != 0) {
            member_reboot(m, reboot);
            assert_int_equal(me->boot, reboot);
            assert_int_equal(me->incarnation, 0);
            assert_int_not_equal(member_view(m), view);
        }
        free(m);
    }
}

static void test_self_at_and_leave(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_fact f[MEMBER_RUMOURS];
    struct endpoint at = at_of(SELF);
    unsigned other = (unsigned)hear(m, 9, 5, NOW);
    member_self_at(m, &at);
    assert_int_equal(known(m, SELF)->incarnation, 1);
    member_self_at(m, &at);
    assert_int_equal(known(m, SELF)->incarnation, 1);
    member_leave(m, NOW);
    for (int i = 0; i < 20; i++) { /* more often than any budget */
        assert_true(member_rumours(m, other, f, MEMBER_RUMOURS) > 0);
        assert_int_equal(f[0].id, SELF);
        assert_int_equal(f[0].state, MEMBER_LEFT);
    }
    assert_false(tell(m, fact_of(SELF, BOOT, 5, MEMBER_DEAD), NOW));
    assert_int_equal(member_tick(m, NOW + 9 * SECOND_NS, (struct member_ping[4]){{0}}, 4), 0);
    unsigned neighbours[MEMBER_NEIGHBOURS_MAX]; /* to be told */
    assert_int_equal(member_neighbours(m, neighbours), 1);
    assert_int_equal(neighbours[0], other);
    assert_int_equal(members_usable(m), 1);
    free(m);
}

/* A sign of life against hearsay: both sides of both spans. */
static void test_hearsay(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t after_ns;
        enum member_state told, becomes;
    } cases[] = {
        {"suspect at once", 0, MEMBER_SUSPECT, MEMBER_ALIVE},
        {"suspect, fresh", MEMBER_PERIOD_NS - 1, MEMBER_SUSPECT, MEMBER_ALIVE},
        {"suspect, stale", MEMBER_PERIOD_NS, MEMBER_SUSPECT, MEMBER_SUSPECT},
        {"dead, fresh", MEMBER_SUSPECT_NS - 1, MEMBER_DEAD, MEMBER_ALIVE},
        {"dead, stale", MEMBER_SUSPECT_NS, MEMBER_DEAD, MEMBER_DEAD},
        {"left, fresh", 0, MEMBER_LEFT, MEMBER_LEFT},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        struct member_fact f[4];
        uint64_t then_ns = NOW + cases[c].after_ns;
        unsigned i = (unsigned)hear(m, 9, 5, NOW);
        bool news = tell(m, fact_of(9, 5, 0, cases[c].told), then_ns);
        if (known(m, 9)->state != cases[c].becomes || news != (cases[c].becomes != MEMBER_ALIVE))
            fail_msg("%s: state %d", cases[c].name, known(m, 9)->state);
        /* Believed or not, the member is told, until it refutes. */
        for (int n = 0; n < 30; n++) {
            assert_true(member_rumours(m, i, f, 4) >= 1);
            assert_int_equal(f[0].id, 9);
            assert_int_equal(f[0].state, cases[c].told);
        }
        assert_true(tell(m, fact_of(9, 5, 1, MEMBER_ALIVE), then_ns));
        assert_int_equal(known(m, 9)->state, MEMBER_ALIVE);
        unsigned n = member_rumours(m, i, f, 4);
        assert_true(n == 0 || f[0].id != 9);
        free(m);
    }
}

static void test_heard(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum member_state had;
        uint64_t boot; /* heard; 5 is known */
        bool news;
        enum member_state becomes;
        int told_itself; /* as what, -1: nothing */
    } cases[] = {
        {"alive", MEMBER_ALIVE, 5, false, MEMBER_ALIVE, -1},
        {"suspect", MEMBER_SUSPECT, 5, true, MEMBER_ALIVE, MEMBER_SUSPECT},
        {"dead", MEMBER_DEAD, 5, true, MEMBER_ALIVE, MEMBER_DEAD},
        {"left", MEMBER_LEFT, 5, false, MEMBER_LEFT, MEMBER_LEFT},
        {"alive, later boot", MEMBER_ALIVE, 6, true, MEMBER_ALIVE, -1},
        {"suspect, later boot", MEMBER_SUSPECT, 6, true, MEMBER_ALIVE, -1},
        {"dead, later boot", MEMBER_DEAD, 6, true, MEMBER_ALIVE, -1},
        {"left, later boot", MEMBER_LEFT, 6, true, MEMBER_ALIVE, -1},
        {"alive, earlier boot", MEMBER_ALIVE, 4, false, MEMBER_ALIVE, MEMBER_ALIVE},
        {"dead, earlier boot", MEMBER_DEAD, 4, false, MEMBER_DEAD, MEMBER_DEAD},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        struct member_fact f[4];
        struct endpoint at = at_of(9);
        int i;
        tell(m, fact_of(9, 5, 2, MEMBER_ALIVE), NOW);
        tell(m, fact_of(9, 5, 2, cases[c].had), NOW);
        bool news = member_heard(m, 9, cases[c].boot, &at, NOW + 1, &i);
        const struct member *p = member_at(m, (unsigned)i);
        if (news != cases[c].news || p->fact.state != cases[c].becomes ||
            p->fact.boot != (cases[c].boot > 5 ? cases[c].boot : 5))
            fail_msg("%s: news %d state %d", cases[c].name, news, p->fact.state);
        unsigned n = member_rumours(m, (unsigned)i, f, 4);
        int told = n > 0 && f[0].id == 9 ? f[0].state : -1;
        if (told != cases[c].told_itself)
            fail_msg("%s: told itself %d", cases[c].name, told);
        assert_int_equal(p->heard_ns,
                         cases[c].boot < 5 || cases[c].becomes == MEMBER_LEFT ? 0 : NOW + 1);
        free(m);
    }
}

static void test_addresses(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_fact f = fact_of(9, 5, 0, MEMBER_ALIVE);
    struct endpoint none = {{0}, 0}, one = at_of(1), two = at_of(2), three = at_of(3);
    int i;
    f.at = none;
    assert_true(tell(m, f, NOW));
    f.at = one;
    assert_true(tell(m, f, NOW)); /* none was known */
    f.at = two;
    assert_false(tell(m, f, NOW));
    f.incarnation = 1; /* the member itself has moved */
    assert_true(tell(m, f, NOW));
    assert_true(endpoint_equal(&known(m, 9)->at, &two));
    assert_true(member_heard(m, 9, 5, &three, NOW, &i)); /* seen with own eyes */
    f.incarnation = 2;
    assert_true(tell(m, f, NOW + MEMBER_SUSPECT_NS - 1));
    assert_true(endpoint_equal(&known(m, 9)->at, &three));
    f.incarnation = 3;
    assert_true(tell(m, f, NOW + MEMBER_SUSPECT_NS));
    assert_true(endpoint_equal(&known(m, 9)->at, &two));
    f.boot = 6;
    f.at = none;
    assert_true(tell(m, f, NOW + MEMBER_SUSPECT_NS));
    assert_true(endpoint_equal(&known(m, 9)->at, &two)); /* better than none */
    assert_false(member_heard(m, 9, 6, &none, NOW, &i));
    assert_true(endpoint_equal(&known(m, 9)->at, &two));
    free(m);
}

/* --- table --- */

static void test_full(void **state)
{
    (void)state;
    struct members *m = open_one();
    unsigned changed[MEMBERS_MAX];
    int index;
    struct endpoint at = at_of(1);
    /* By hearsay, whose ids may be invented, not all places are to be had. */
    for (uint32_t id = 1000; id < 1000 + MEMBERS_MAX - 1; id++)
        assert_int_equal(tell(m, fact_of(id, 5, 0, MEMBER_ALIVE), NOW),
                         id < 1000 + MEMBERS_MAX / 4 * 3 - 1);
    assert_int_equal(members_count(m), MEMBERS_MAX / 4 * 3);
    for (uint32_t id = 1000; id < 1000 + MEMBERS_MAX - 1; id++)
        assert_true(hear(m, id, 5, NOW) > 0);
    assert_int_equal(members_count(m), MEMBERS_MAX);
    assert_int_equal(members_usable(m), MEMBERS_MAX - 1);
    assert_false(tell(m, fact_of(1, 5, 0, MEMBER_ALIVE), NOW));
    assert_false(member_heard(m, 1, 5, &at, NOW, &index));
    assert_int_equal(index, -1);
    assert_int_equal(member_changes(m, changed, MEMBERS_MAX), MEMBERS_MAX);
    assert_int_equal(member_changes(m, changed, MEMBERS_MAX), 0);
    free(m);
}

static void test_forgotten(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_ping p[PINGS];
    unsigned changed[MEMBERS_MAX];
    tick(m, NOW, p);
    for (uint32_t id = 1000; id < 1000 + MEMBERS_MAX - 1; id++)
        hear(m, id, 5, NOW);
    int nine = member_find(m, 1009);
    tell(m, fact_of(1009, 5, 0, MEMBER_LEFT), NOW);
    member_changes(m, changed, MEMBERS_MAX);
    /* Everybody else goes on living. */
    for (uint64_t s = 0; s < MEMBER_KEEP_NS; s += SECOND_NS / 2)
        for (uint32_t id = 1000; id < 1000 + MEMBERS_MAX - 1; id++) {
            if (id == 1000)
                run_until(m, NOW + s);
            if (id != 1009)
                hear(m, id, 5, NOW + s);
        }
    run_until(m, NOW + MEMBER_KEEP_NS);
    assert_int_equal(member_find(m, 1009), nine);
    assert_int_equal(member_changes(m, changed, MEMBERS_MAX), 0);
    run_until(m, NOW + MEMBER_KEEP_NS + 1);
    assert_int_equal(member_find(m, 1009), -1);
    assert_int_equal(member_at(m, (unsigned)nine)->fact.id, 0);
    assert_false(tell(m, fact_of(1, 5, 0, MEMBER_ALIVE), NOW)); /* not reported yet */
    assert_int_equal(member_changes(m, changed, MEMBERS_MAX), 1);
    assert_int_equal(changed[0], nine);
    assert_true(tell(m, fact_of(1, 5, 0, MEMBER_ALIVE), NOW));
    assert_int_equal(member_find(m, 1), nine);
    for (uint32_t id = 1000; id < 1000 + MEMBERS_MAX - 1; id++)
        assert_int_equal(member_find(m, id) > 0, id != 1009);
    free(m);
}

/* Two that are told the same in different order end with the same; counts and hashes that are kept
 * in step are those of a table that learns only the result. */
static void test_random_facts(void **state)
{
    (void)state;
    enum { IDS = 40, FACTS = 600 };
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t random = seed * 977;
        static struct member_fact facts[FACTS];
        struct members *a = open_one(), *b = open_one(), *c = open_one();
        for (uint32_t id = 1; id <= IDS; id++) { /* an end of the unknown is no news */
            tell(a, fact_of(100 + id, 1, 0, MEMBER_ALIVE), NOW);
            tell(b, fact_of(100 + id, 1, 0, MEMBER_ALIVE), NOW);
        }
        for (unsigned i = 0; i < FACTS; i++) {
            uint64_t r = rig_random(&random);
            facts[i] = fact_of(101 + (uint32_t)(r % IDS), 1 + (r >> 20) % 3,
                               (uint32_t)(r >> 30) % 4, (enum member_state)((r >> 40) % 4));
            tell(a, facts[i], NOW + i);
        }
        for (unsigned i = FACTS; i > 0; i--) {
            unsigned at = (unsigned)(rig_random(&random) % i);
            tell(b, facts[at], NOW + FACTS - i);
            facts[at] = facts[i - 1];
        }
        unsigned living = 0;
        for (uint32_t id = 101; id <= 100 + IDS; id++) {
            const struct member_fact *x = known(a, id), *y = known(b, id);
            assert_true(x->boot == y->boot && x->incarnation == y->incarnation);
            assert_int_equal(x->state, y->state);
            tell(c, *known(a, id), NOW);
            living += known(a, id)->state <= MEMBER_SUSPECT;
        }
        assert_int_equal(members_usable(a), living);
        assert_int_equal(member_view(a), member_view(b));
        assert_int_equal(member_view(a), member_view(c));
        free(a);
        free(b);
        free(c);
    }
}

static void test_view(void **state)
{
    (void)state;
    struct members *m = open_one();
    uint64_t alone = member_view(m);
    tell(m, fact_of(9, 5, 0, MEMBER_ALIVE), NOW);
    uint64_t two = member_view(m);
    assert_int_not_equal(alone, two);
    tell(m, fact_of(9, 5, 4, MEMBER_ALIVE), NOW);
    assert_int_equal(member_view(m), two); /* incarnations do not count */
    tell(m, fact_of(9, 5, 4, MEMBER_SUSPECT), NOW);
    assert_int_equal(member_view(m), two); /* a suspect lives */
    tell(m, fact_of(9, 5, 4, MEMBER_DEAD), NOW);
    assert_int_equal(member_view(m), alone);
    tell(m, fact_of(9, 6, 0, MEMBER_ALIVE), NOW);
    assert_int_not_equal(member_view(m), two); /* boots do */
    free(m);
}

/* --- rumours --- */

static void test_rumour_budget(void **state)
{
    (void)state;
    static const struct {
        unsigned others, times;
    } cases[] = {{1, 3}, {2, 5}, {3, 6}, {4, 7}, {7, 9}, {8, 10}, {50, 18}, {1023, 30}};
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct members *m = open_one();
        struct member_fact f[MEMBER_RUMOURS];
        unsigned to = 1, told[MEMBERS_MAX] = {0}, n, least_told, frames = 0;
        for (unsigned i = 0; i < cases[c].others; i++)
            hear(m, 1000 + i, 5, NOW);
        while ((n = member_rumours(m, to, f, 5)) > 0) {
            assert_true(n <= 5);
            least_told = UINT32_MAX;
            for (unsigned i = 0; i < members_count(m); i++)
                if (i != to && told[i] < least_told)
                    least_told = told[i];
            for (unsigned k = 0; k < n; k++) {
                int i = member_find(m, f[k].id);
                assert_true(i >= 0 && i != (int)to);
                told[i]++;
                /* Nobody is told twice as long as another has not been told as often. */
                assert_true(told[i] <= least_told + 2);
            }
            assert_true(frames++ < 30 * MEMBERS_MAX);
        }
        for (unsigned i = 0; i < members_count(m); i++)
            if (told[i] != (i == to ? 0 : cases[c].times))
                fail_msg("%u others: told %u times, not %u", cases[c].others, told[i],
                         cases[c].times);
        /* Itself told to somebody else, and news told anew. */
        assert_int_equal(member_rumours(m, 0, f, 5), 1);
        assert_int_equal(f[0].id, 1000);
        free(m);
    }
}

static void test_rumours_once_each(void **state)
{
    (void)state;
    struct members *m = open_one();
    struct member_fact f[MEMBER_RUMOURS];
    for (uint32_t id = 1000; id < 1040; id++)
        tell(m, fact_of(id, 5, 0, MEMBER_ALIVE), NOW);
    for (int frame = 0; frame < 50; frame++) {
        unsigned n = member_rumours(m, 1, f, MEMBER_RUMOURS);
        for (unsigned a = 0; a < n; a++)
            for (unsigned b = a + 1; b < n; b++)
                assert_int_not_equal(f[a].id, f[b].id);
    }
    assert_int_equal(member_rumours(m, 1, f, 0), 0);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fact_order),
        cmocka_unit_test(test_dead_and_left),
        cmocka_unit_test(test_no_news),
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_self_at_and_leave),
        cmocka_unit_test(test_hearsay),
        cmocka_unit_test(test_heard),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_random_facts),
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_rumour_budget),
        cmocka_unit_test(test_rumours_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
