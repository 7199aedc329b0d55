/* stats - the counters every lane keeps: buckets at both sides of each bound, and rows that can be
 * told apart in /metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "server/stats.h"

static unsigned bucket_of(const uint64_t bounds[static STATS_BUCKETS], uint64_t value)
{
    struct histogram h = {.sum = 0};
    unsigned found = STATS_BUCKETS + 1, filled = 0;

    histogram_add(&h, bounds, value);
    assert_int_equal(count_read(&h.sum), value);
    for (unsigned i = 0; i <= STATS_BUCKETS; i++) {
        if (count_read(&h.bucket[i]) == 0)
            continue;
        assert_int_equal(count_read(&h.bucket[i]), 1);
        found = i;
        filled++;
    }
    assert_int_equal(filled, 1);
    return found;
}

static void check_bounds(const uint64_t bounds[static STATS_BUCKETS])
{
    assert_int_equal(bucket_of(bounds, 0), 0);
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        assert_int_equal(bucket_of(bounds, bounds[i]), i);
        assert_int_equal(bucket_of(bounds, bounds[i] + 1), i + 1);
    }
    assert_int_equal(bucket_of(bounds, UINT64_MAX), STATS_BUCKETS);
}

static void test_bucket_is_chosen_by_its_inclusive_bound(void **state)
{
    (void)state;
    check_bounds(batch_bounds);
    check_bounds(seconds_bounds);
}

static void test_bounds_rise(void **state)
{
    (void)state;
    for (unsigned i = 1; i < STATS_BUCKETS; i++) {
        assert_int_equal(batch_bounds[i], 2 * batch_bounds[i - 1]);
        assert_true(seconds_bounds[i] > 2 * seconds_bounds[i - 1]);
        assert_true(seconds_bounds[i] < 4 * seconds_bounds[i - 1]);
    }
    assert_int_equal(batch_bounds[0], 1);
    assert_int_equal(seconds_bounds[0], 1000);
}

static void test_histogram_adds_up(void **state)
{
    (void)state;
    static const uint64_t values[] = {1, 1, 2, 3, 64, 65, 4000};
    struct histogram h = {.sum = 0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        histogram_add(&h, batch_bounds, values[i]);
    assert_int_equal(count_read(&h.sum), 4136);
    assert_int_equal(count_read(&h.bucket[0]), 2);             /* 1 1 */
    assert_int_equal(count_read(&h.bucket[1]), 1);             /* 2 */
    assert_int_equal(count_read(&h.bucket[2]), 1);             /* 3 */
    assert_int_equal(count_read(&h.bucket[6]), 1);             /* 64 */
    assert_int_equal(count_read(&h.bucket[7]), 1);             /* 65 */
    assert_int_equal(count_read(&h.bucket[STATS_BUCKETS]), 1); /* 4000 */
}

static void test_counters_add_and_set(void **state)
{
    (void)state;
    counter c = 0;
    count_add(&c, 2);
    count_add(&c, 3);
    assert_int_equal(count_read(&c), 5);
    count_set(&c, 1);
    assert_int_equal(count_read(&c), 1);
}

static bool is_label(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyz_") == strlen(text);
}

static void test_verdict_rows_can_be_told_apart(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VERDICT_COUNT; i++) {
        const struct verdict_row *a = &verdict_rows[i];
        assert_true(strcmp(a->outcome, "answered") == 0 || strcmp(a->outcome, "forwarded") == 0 ||
                    strcmp(a->outcome, "taken") == 0 || strcmp(a->outcome, "dropped") == 0);
        assert_true(is_label(a->type) && *a->type);
        assert_true(is_label(a->reason));
        assert_true(*a->help);
        /* A drop without a reason would be silent. */
        assert_true(strcmp(a->outcome, "dropped") != 0 || *a->reason);
        for (unsigned j = 0; j < i; j++) {
            const struct verdict_row *b = &verdict_rows[j];
            assert_false(strcmp(a->outcome, b->outcome) == 0 && strcmp(a->type, b->type) == 0 &&
                         strcmp(a->reason, b->reason) == 0);
        }
    }
    assert_string_equal(verdict_rows[VERDICT_RELAY_NO_ROUTE].reason, "no_route");
    assert_string_equal(verdict_rows[VERDICT_DROPPED_MAILBOX_FULL].reason, "queue_full");
}

static void test_counter_names_are_unique_and_end_in_total(void **state)
{
    (void)state;
    static const char *const names[] = {
#define X(field, metric, help) metric,
        LANE_COUNTERS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t len = strlen(names[i]);
        assert_memory_equal(names[i], "beacon_", 7);
        assert_string_equal(names[i] + len - 6, "_total");
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(names[i], names[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket_is_chosen_by_its_inclusive_bound),
        cmocka_unit_test(test_bounds_rise),
        cmocka_unit_test(test_histogram_adds_up),
        cmocka_unit_test(test_counters_add_and_set),
        cmocka_unit_test(test_verdict_rows_can_be_told_apart),
        cmocka_unit_test(test_counter_names_are_unique_and_end_in_total),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
