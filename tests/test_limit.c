#include "tests/rig.h"
#include "server/limit.h"

enum { CELLS = 64 };
static uint64_t cells[2 * CELLS];

static struct limiter limiter_new(void)
{
    struct limiter l;
    memset(cells, 0, sizeof cells);
    assert_int_equal(limiter_size(CELLS), sizeof cells);
    limiter_init(&l, cells, CELLS);
    return l;
}

/* A step: wait so long, take, expect. Both sides of the burst and of the interval are rows. */
static void test_steps(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct rate rate;
        uint64_t wait_ns;
        unsigned takes; /* how many of them ... */
        unsigned taken; /* ... are granted at that time */
    } cases[] = {
        {"burst of 1", {10, 1}, 0, 3, 1},
        {"burst of 3", {10, 3}, 0, 5, 3},
        {"a nanosecond before the interval", {10, 3}, 99999999, 3, 0},
        {"at the interval", {10, 3}, 1, 3, 1},
        {"two intervals", {10, 3}, 200000000, 3, 2},
        {"whole again but for a nanosecond", {10, 3}, 299999999, 5, 2},
        {"whole again", {10, 3}, 300000001, 5, 3},
        {"never more than the burst", {10, 3}, 3600 * SECOND_NS, 5, 3},
        {"off", {0, 1}, 0, 1000, 1000},
        {"once a nanosecond", {1000000000, 1}, 3600 * SECOND_NS, 3, 1},
        {"the next nanosecond", {1000000000, 1}, 1, 3, 1},
    };
    struct limiter l = limiter_new();
    uint64_t now_ns = 7 * SECOND_NS;
    for (size_t i = 0; i < COUNT(cases); i++) {
        unsigned taken = 0;
        if (i == 1)
            now_ns += 3600 * SECOND_NS; /* the case before spent this key's budget */
        now_ns += cases[i].wait_ns;
        for (unsigned n = 0; n < cases[i].takes; n++) {
            bool allowed = limit_allows(&l, 0x500000003, cases[i].rate, now_ns);
            bool took = limit_take(&l, 0x500000003, cases[i].rate, now_ns);
            assert_int_equal(allowed, took);
            taken += took;
        }
        if (taken != cases[i].taken)
            fail_msg("%s: %u taken, not %u", cases[i].name, taken, cases[i].taken);
    }
}

static void test_allows_takes_nothing(void **state)
{
    (void)state;
    struct limiter l = limiter_new();
    const struct rate rate = {1, 1};
    for (int i = 0; i < 100; i++)
        assert_true(limit_allows(&l, 9, rate, 5));
    for (size_t i = 0; i < COUNT(cells); i++)
        assert_int_equal(cells[i], 0);
    assert_true(limit_take(&l, 9, rate, 5));
    assert_false(limit_allows(&l, 9, rate, 5));
}

/* The slow, obvious one: tokens, counted in billionths so that nothing is rounded. */
struct bucket {
    uint64_t tokens_e9, at_ns;
};

static bool bucket_take(struct bucket *b, struct rate rate, uint64_t now_ns)
{
    uint64_t room = rate.burst * SECOND_NS - b->tokens_e9, passed = now_ns - b->at_ns;
    uint64_t grown = passed > 100 * SECOND_NS ? room : passed * rate.per_s;
    b->tokens_e9 += grown < room ? grown : room;
    b->at_ns = now_ns;
    if (b->tokens_e9 < SECOND_NS)
        return false;
    b->tokens_e9 -= SECOND_NS;
    return true;
}

/* One key alone, a rate that divides the second: equal at every step. */
static void test_exact(void **state)
{
    (void)state;
    static const struct rate rates[] = {{1, 1}, {1, 4}, {2, 10}, {5, 10}, {20, 50}, {4000, 4000}};
    uint64_t seed = 0x1234567;
    for (size_t i = 0; i < COUNT(rates); i++) {
        struct limiter l = limiter_new();
        uint64_t now_ns = 1000 * SECOND_NS, interval_ns = SECOND_NS / rates[i].per_s;
        struct bucket b = {.tokens_e9 = rates[i].burst * SECOND_NS, .at_ns = now_ns};
        for (int n = 0; n < 200000; n++) {
            uint64_t span = rig_random(&seed) % 64 ? 2 : 2ull * rates[i].burst;
            now_ns += rig_random(&seed) % (interval_ns * span + 1);
            bool want = bucket_take(&b, rates[i], now_ns);
            if (limit_take(&l, 77, rates[i], now_ns) != want)
                fail_msg("rate %u/%u, step %d", rates[i].per_s, rates[i].burst, n);
        }
    }
}

/* A rate that does not divide the second is rounded in the source's favour, by less than a
 * millionth for the rates people write. */
static void test_rounded(void **state)
{
    (void)state;
    static const struct rate rates[] = {{3, 1}, {7, 5}, {999, 100}};
    for (size_t i = 0; i < COUNT(rates); i++) {
        struct limiter l = limiter_new();
        uint64_t start_ns = SECOND_NS, taken = 0, seconds = 20;
        uint64_t step_ns = SECOND_NS / rates[i].per_s / 97;
        for (uint64_t t = start_ns; t < start_ns + seconds * SECOND_NS; t += step_ns)
            taken += limit_take(&l, 5, rates[i], t);
        uint64_t most = rates[i].burst + seconds * rates[i].per_s + 1;
        assert_in_range(taken, seconds * rates[i].per_s * 97 / 98, most);
    }
}

/* Many keys in few cells: no key ever gets more than it would alone. */
static void test_collisions_tighten(void **state)
{
    (void)state;
    enum { KEYS = 200 };
    static struct bucket alone[KEYS];
    uint64_t hash[KEYS], seed = 99, refused = 0, now_ns = 1000 * SECOND_NS;
    const struct rate rate = {10, 5};
    struct limiter l = limiter_new();
    for (int k = 0; k < KEYS; k++) {
        hash[k] = rig_random(&seed);
        alone[k] = (struct bucket){.tokens_e9 = rate.burst * SECOND_NS, .at_ns = now_ns};
    }
    for (int n = 0; n < 300000; n++) {
        now_ns += rig_random(&seed) % 2000000;
        unsigned k = (unsigned)(rig_random(&seed) % KEYS);
        struct bucket before = alone[k];
        bool want = bucket_take(&alone[k], rate, now_ns);
        bool took = limit_take(&l, hash[k], rate, now_ns);
        if (took && !want)
            fail_msg("key %u got more than its budget at step %d", k, n);
        if (want && !took) { /* what was refused was not spent */
            alone[k] = before;
            refused++;
        }
    }
    assert_true(refused > 0); /* 200 keys in 64 cells do collide */
}

/* A key that shares one of its two cells with a spent key keeps its whole budget. */
static void test_one_row_is_not_enough(void **state)
{
    (void)state;
    const struct rate rate = {1, 3};
    static const struct {
        uint64_t other;
        unsigned taken;
    } cases[] = {
        {0x0000000100000002, 0}, /* the same two cells */
        {0x0000004100000042, 0}, /* the same two cells by another hash */
        {0x0000000100000003, 3}, {0x0000000500000002, 3},
        {0x0000000200000001, 3}, /* the same columns, the rows exchanged */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct limiter l = limiter_new();
        unsigned taken = 0;
        while (limit_take(&l, 0x0000000100000002, rate, 10))
            ;
        for (int n = 0; n < 5; n++)
            taken += limit_take(&l, cases[i].other, rate, 10);
        assert_int_equal(taken, cases[i].taken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_allows_takes_nothing),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_rounded),
        cmocka_unit_test(test_collisions_tighten),
        cmocka_unit_test(test_one_row_is_not_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
