#include "tests/member_rig.h"
#include "tests/member_sim.h"

/* --- neighbours --- */

static unsigned index_in(const unsigned *list, unsigned count, unsigned wanted)
{
    for (unsigned i = 0; i < count; i++)
        if (list[i] == wanted)
            return i;
    return count;
}

static void neighbours_of(unsigned count, unsigned max_hops)
{
    static unsigned list[400][MEMBER_NEIGHBOURS_MAX], n[400];
    for (unsigned b = 0; b < count; b++) {
        struct members *m = malloc(members_size());
        assert_non_null(m);
        members_init(m, 5000 + b, 5, b + 1);
        for (unsigned c = 0; c < count; c++) { /* everybody learns in another order */
            unsigned id = (c * 7 + b) % count;
            if (id != b && count % 7 != 0)
                tell(m, fact_of(5000 + id, 5, 0, MEMBER_ALIVE), NOW);
            else if (c != b)
                tell(m, fact_of(5000 + c, 5, 0, MEMBER_ALIVE), NOW);
        }
        for (unsigned c = 0; c < count; c++)
            if (c != b)
                tell(m, fact_of(5000 + c, 5, 0, MEMBER_ALIVE), NOW);
        assert_int_equal(members_usable(m), count - 1);
        n[b] = member_neighbours(m, list[b]);
        assert_in_range(n[b], count <= 25 ? count - 1 : 1, MEMBER_NEIGHBOURS_MAX);
        for (unsigned k = 0; k < n[b]; k++)
            list[b][k] = member_at(m, list[b][k])->fact.id - 5000;
        int random = member_random(m);
        assert_in_range(random, 1, count - 1);
        free(m);
    }
    for (unsigned b = 0; b < count; b++)
        for (unsigned k = 0; k < n[b]; k++) {
            unsigned c = list[b][k];
            assert_int_not_equal(c, b);
            assert_true(index_in(list[c], n[c], b) < n[c]);  /* both ends */
            assert_int_equal(index_in(list[b], n[b], c), k); /* once */
        }
    unsigned hops[400] = {1}, queue[400] = {0}, reached = 1;
    for (unsigned at = 0; at < reached; at++)
        for (unsigned k = 0; k < n[queue[at]]; k++) {
            unsigned c = list[queue[at]][k];
            if (hops[c] != 0)
                continue;
            hops[c] = hops[queue[at]] + 1;
            assert_true(hops[c] - 1 <= max_hops);
            queue[reached++] = c;
        }
    assert_int_equal(reached, count);
}

static void test_neighbours(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= 400; count += count < 70 || count > 390 ? 1 : 9)
        neighbours_of(count, count <= 25 ? 1 : 5);
    struct members *m = open_one();
    unsigned list[MEMBER_NEIGHBOURS_MAX];
    assert_int_equal(member_neighbours(m, list), 0);
    assert_int_equal(member_random(m), -1);
    free(m);
}

/* --- simulated --- */

/* How much longer than usual to simulate: for measuring. */
static unsigned longer(void)
{
    const char *times = getenv("MEMBER_SIM_TIMES");
    return times ? (unsigned)atoi(times) : 1;
}

static void pauses(unsigned count, unsigned minutes, bool drops)
{
    struct sim *s = sim_open(count, 20, 31 * count + drops);
    assert_true(sim_agrees(s));
    s->pause_drops = drops;
    minutes *= longer();
    for (unsigned k = 0; k < minutes; k++) {
        unsigned b = (unsigned)(rig_random(&s->random) % count);
        s->of[b].pause_ns = s->now_ns + 5 * SECOND_NS;
        sim_run(s, 60 * SECOND_NS);
    }
    double hours = count * minutes / 60.0;
    print_message("%u beacons, %.0f beacon-hours: %llu suspicions, %llu false deaths, %.1f "
                  "frames/s each\n",
                  count, hours, (unsigned long long)s->suspicions,
                  (unsigned long long)s->false_deaths,
                  (double)s->frames / (60.0 * minutes * count));
    assert_true((double)s->false_deaths <= hours / 10000);
    assert_true(s->suspicions > 0);
    assert_true(sim_agrees(s));
    sim_close(s);
}

static void test_pauses(void **state)
{
    (void)state;
    pauses(3, 60 * 40, false);
    pauses(3, 60 * 40, true);
    pauses(5, 60 * 10, true);
    pauses(50, 15, false);
    pauses(50, 15, true);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void kills(unsigned count, unsigned times, uint64_t suspect_max_ns)
{
    struct sim *s = sim_open(count, 20, 77 * count);
    static uint64_t found[20000];
    unsigned n = 0;
    uint64_t suspect_ns = 0;
    for (unsigned k = 0; k < times * longer() && n + count <= COUNT(found); k++) {
        unsigned b = (unsigned)(rig_random(&s->random) % count);
        sim_run(s, rig_random(&s->random) % (3 * SECOND_NS));
        sim_kill(s, b);
        sim_run(s, 15 * SECOND_NS);
        uint64_t first_ns = s->of[b].suspect_ns - s->of[b].killed_ns;
        suspect_ns = first_ns > suspect_ns ? first_ns : suspect_ns;
        for (unsigned c = 0; c < count; c++)
            if (c != b) {
                assert_true(s->of[b].dead_ns[c] > s->of[b].killed_ns);
                found[n++] = s->of[b].dead_ns[c] - s->of[b].killed_ns;
            }
        sim_start(s, b, (b + 1) % count);
        sim_run(s, 12 * SECOND_NS);
        assert_true(sim_agrees(s));
    }
    qsort(found, n, sizeof found[0], by_size);
    print_message("%u beacons, %u killed: suspect after %.2f s at worst; found by each after %.2f "
                  "s, p99 %.2f s, at worst %.2f s\n",
                  count, n / (count - 1), (double)suspect_ns / 1e9, (double)found[n / 2] / 1e9,
                  (double)found[n * 99 / 100] / 1e9, (double)found[n - 1] / 1e9);
    assert_true(found[n * 99 / 100] <= 10 * SECOND_NS);
    assert_true(suspect_ns <= suspect_max_ns);
    assert_int_equal(s->false_deaths, 0);
    sim_close(s);
}

static void test_kills(void **state)
{
    (void)state;
    kills(2, 100, 2500 * SIM_MS);
    kills(3, 300, 2500 * SIM_MS);
    kills(5, 200, 2500 * SIM_MS);
    kills(50, 40, 4000 * SIM_MS);
}

/* One that slept too long is dead; awake it is alive again everywhere, with the same boot. */
static void test_long_sleep(void **state)
{
    (void)state;
    static const unsigned counts[] = {2, 3, 5, 50};
    for (size_t c = 0; c < COUNT(counts); c++)
        for (int drops = 0; drops < 2; drops++) {
            struct sim *s = sim_open(counts[c], 20, 5 + c);
            s->pause_drops = drops;
            uint64_t boot = s->of[1].boot;
            s->of[1].pause_ns = s->now_ns + 30 * SECOND_NS;
            sim_run(s, 29 * SECOND_NS);
            for (unsigned b = 0; b < counts[c]; b++)
                if (b != 1)
                    assert_int_equal(known(s->of[b].m, SIM_ID + 1)->state, MEMBER_DEAD);
            sim_run(s, 11 * SECOND_NS);
            assert_true(sim_agrees(s));
            assert_int_equal(s->of[1].boot, boot);
            assert_int_equal(s->false_deaths, counts[c] - 1); /* only those just seen */
            sim_close(s);
        }
}

/* Two halves that lost each other find each other again without anybody's help. */
static void test_split(void **state)
{
    (void)state;
    enum { N = 12, LEFT = 5 };
    struct sim *s = sim_open(N, 20, 9);
    for (unsigned a = 0; a < LEFT; a++)
        for (unsigned b = LEFT; b < N; b++)
            s->deaf[a][b] = s->deaf[b][a] = true;
    sim_run(s, 25 * SECOND_NS);
    for (unsigned b = 0; b < N; b++)
        assert_int_equal(members_usable(s->of[b].m), b < LEFT ? LEFT - 1 : N - LEFT - 1);
    memset(s->deaf, 0, sizeof s->deaf);
    sim_run(s, 10 * SECOND_NS);
    assert_true(sim_agrees(s));
    sim_close(s);
}

/* A pair without a way between them holds each other for alive through the others. */
static void test_broken_link(void **state)
{
    (void)state;
    static const struct {
        bool there, back;
    } cases[] = {{true, false}, {false, true}, {true, true}};
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct sim *s = sim_open(5, 5, 3 + c);
        s->deaf[0][1] = cases[c].there;
        s->deaf[1][0] = cases[c].back;
        sim_run(s, 3600 * SECOND_NS);
        assert_int_equal(s->false_deaths, 0);
        assert_true(sim_agrees(s));
        sim_close(s);
    }
}

/* A beacon whose clock went back starts with an earlier boot: the others tell it the later one. */
static void test_clock_went_back(void **state)
{
    (void)state;
    struct sim *s = sim_open(5, 20, 12);
    sim_kill(s, 2);
    s->of[2].boot = 90;
    sim_start(s, 2, 0);
    sim_run(s, 10 * SECOND_NS);
    assert_true(sim_agrees(s));
    sim_kill(s, 2);
    s->of[2].boot = 10;
    sim_start(s, 2, 0);
    sim_run(s, 10 * SECOND_NS);
    assert_int_equal(s->of[2].boot, 92);
    for (unsigned b = 0; b < 5; b++)
        assert_int_equal(known(s->of[b].m, SIM_ID + 2)->boot, 92);
    assert_true(sim_agrees(s));
    sim_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours),      cmocka_unit_test(test_pauses),
        cmocka_unit_test(test_kills),           cmocka_unit_test(test_long_sleep),
        cmocka_unit_test(test_split),           cmocka_unit_test(test_broken_link),
        cmocka_unit_test(test_clock_went_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
