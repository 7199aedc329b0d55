#include <pthread.h>
#include <sched.h>
#include "tests/rig.h"
#include "server/journal.h"

static struct journal journal;

/* All of an entry follows from its number. */
static struct journal_entry entry(uint32_t n)
{
    return (struct journal_entry){.id = n * 2654435761u,
                                  .gone = n & 1,
                                  .class_ = (uint8_t)(n >> 1 & 7),
                                  .stream = n >> 4 & 1};
}

static void assert_entry(const struct journal_entry *got, uint32_t n)
{
    struct journal_entry want = entry(n);
    assert_int_equal(got->id, want.id);
    assert_int_equal(got->gone, want.gone);
    assert_int_equal(got->class_, want.class_);
    assert_int_equal(got->stream, want.stream);
}

static void put(uint32_t n)
{
    struct journal_entry e = entry(n);
    journal_put(&journal, &e);
}

static void test_fields(void **state)
{
    (void)state;
    static const struct journal_entry cases[] = {
        {.id = 0},
        {.id = UINT32_MAX},
        {.id = 1, .gone = true},
        {.id = 1, .class_ = 255},
        {.id = 1, .stream = true},
        {.id = UINT32_MAX, .gone = true, .class_ = 255, .stream = true},
    };
    memset(&journal, 0, sizeof journal);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct journal_entry got = {.id = 99};
        journal_put(&journal, &cases[i]);
        assert_true(journal_take(&journal, &got));
        assert_int_equal(got.id, cases[i].id);
        assert_int_equal(got.gone, cases[i].gone);
        assert_int_equal(got.class_, cases[i].class_);
        assert_int_equal(got.stream, cases[i].stream);
    }
}

/* Full it loses the new ones and says how many; those that it holds stay whole and in order. Also
 * where positions pass 2^32. */
static void test_empty_and_full(void **state)
{
    (void)state;
    static const uint32_t starts[] = {0, 1, JOURNAL_ENTRIES - 1, UINT32_MAX - 5};
    for (size_t s = 0; s < COUNT(starts); s++) {
        struct journal_entry got = {.id = 42};
        memset(&journal, 0, sizeof journal);
        atomic_store(&journal.head, starts[s]);
        atomic_store(&journal.tail, starts[s]);
        assert_false(journal_take(&journal, &got));
        assert_int_equal(got.id, 42);
        for (uint32_t round = 0; round < 2; round++) {
            for (uint32_t n = 0; n < JOURNAL_ENTRIES; n++)
                put(n);
            assert_int_equal(journal_lost(&journal), round * 3);
            for (uint32_t n = 0; n < 3; n++)
                put(7777);
            assert_int_equal(journal_lost(&journal), round * 3 + 3);
            for (uint32_t n = 0; n < JOURNAL_ENTRIES; n++) {
                assert_true(journal_take(&journal, &got));
                assert_entry(&got, n);
            }
            assert_false(journal_take(&journal, &got));
        }
        for (uint32_t n = 0; n < JOURNAL_ENTRIES; n++)
            put(n);
        assert_true(journal_take(&journal, &got)); /* one place is one place */
        put(JOURNAL_ENTRIES);
        assert_int_equal(journal_lost(&journal), 6);
        put(7777);
        assert_int_equal(journal_lost(&journal), 7);
    }
}

enum { ENTRIES = 300000 };

static void *produce(void *arg)
{
    (void)arg;
    for (uint32_t n = 0; n < ENTRIES;) {
        uint32_t lost = journal_lost(&journal);
        put(n);
        if (journal_lost(&journal) == lost)
            n++;
        else
            sched_yield();
    }
    return NULL;
}

static void test_beside_a_producer(void **state)
{
    (void)state;
    pthread_t thread;
    struct journal_entry got;
    memset(&journal, 0, sizeof journal);
    assert_int_equal(pthread_create(&thread, NULL, produce, NULL), 0);
    for (uint32_t n = 0; n < ENTRIES;) {
        if (journal_take(&journal, &got))
            assert_entry(&got, n++);
        else
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_false(journal_take(&journal, &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_empty_and_full),
        cmocka_unit_test(test_beside_a_producer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
