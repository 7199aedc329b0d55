#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "wss/events.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct events events;

/* Not time(), which may be a tick behind the clock that events read. */
static int64_t now_second(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    return now.tv_sec;
}

static void assert_next(uint64_t behind, uint64_t sequence, const char *text)
{
    struct event got;
    assert_true(events_next(&events, behind, &got));
    assert_true(got.sequence == sequence);
    assert_string_equal(got.text, text);
}

static void test_in_order(void **state)
{
    (void)state;
    struct event got = {.sequence = 42};
    events_init(&events);
    assert_false(events_next(&events, 0, &got));
    assert_true(got.sequence == 42);
    int64_t before = now_second();
    events_add(&events, false, "reload", "%s %d", "number", 1);
    events_add(&events, false, "drain", "on");
    int64_t after = now_second();
    assert_next(0, 1, "number 1");
    assert_next(1, 2, "on");
    assert_false(events_next(&events, 2, &got));
    assert_false(events_next(&events, UINT64_MAX, &got));
    assert_true(events_next(&events, 1, &got));
    assert_string_equal(got.kind, "drain");
    assert_true(got.unix_ms >= before * 1000 && got.unix_ms < (after + 1) * 1000);
}

static void test_the_oldest_goes(void **state)
{
    (void)state;
    char text[16];
    events_init(&events);
    for (unsigned i = 1; i <= 3 * EVENTS_KEPT + 5; i++) {
        uint64_t oldest = i <= EVENTS_KEPT ? 1 : i - EVENTS_KEPT + 1;
        events_add(&events, false, "session", "%u", i);
        snprintf(text, sizeof text, "%ju", (uintmax_t)oldest);
        assert_next(0, oldest, text);
        assert_next(oldest - 1, oldest, text);
        snprintf(text, sizeof text, "%u", i);
        assert_next(i - 1, i, text);
    }
}

static void test_harmless(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},
        {"plain ~", "plain ~"},
        {"a\nb\tc\x1b[0m\x7f", "a?b?c?[0m?"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", "???\xc2\xa0"},
        {"\x80\xff\xc0\xaf", "????"},
        {"\xed\xa0\x80.", "???."},
        {"a\xe2\x82", "a?"},
        {"\xf0\x9f\x98z", "?z"},
        {"%s%n", "%s%n"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        events_init(&events);
        events_add(&events, false, "auth", "%s", rows[i].text);
        assert_next(0, 1, rows[i].want);
    }
}

/* `before` letters, then `text`, then letters beyond the end. */
static void test_cut(void **state)
{
    (void)state;
    static const struct {
        unsigned before;
        const char *text;
        size_t kept; /* bytes in all */
    } rows[] = {
        {EVENTS_TEXT_MAX - 2, "", EVENTS_TEXT_MAX - 1},
        {EVENTS_TEXT_MAX - 3, "\xc3\xa9", EVENTS_TEXT_MAX - 1},
        {EVENTS_TEXT_MAX - 2, "\xc3\xa9", EVENTS_TEXT_MAX - 2},
        {EVENTS_TEXT_MAX - 4, "\xe2\x82\xac", EVENTS_TEXT_MAX - 1},
        {EVENTS_TEXT_MAX - 3, "\xe2\x82\xac", EVENTS_TEXT_MAX - 3},
        {EVENTS_TEXT_MAX - 2, "\xe2\x82\xac", EVENTS_TEXT_MAX - 2},
        {EVENTS_TEXT_MAX - 5, "\xf0\x9f\x98\x80", EVENTS_TEXT_MAX - 1},
        {EVENTS_TEXT_MAX - 4, "\xf0\x9f\x98\x80", EVENTS_TEXT_MAX - 4},
        {EVENTS_TEXT_MAX - 2, "\xf0\x9f\x98\x80", EVENTS_TEXT_MAX - 2},
        {EVENTS_TEXT_MAX - 1, "\xf0\x9f\x98\x80", EVENTS_TEXT_MAX - 1},
    };
    char letters[2 * EVENTS_TEXT_MAX + 1];
    memset(letters, 'a', sizeof letters);
    letters[2 * EVENTS_TEXT_MAX] = '\0';
    for (size_t i = 0; i < COUNT(rows); i++) {
        char all[4 * EVENTS_TEXT_MAX];
        snprintf(all, sizeof all, "%.*s%s%s", (int)rows[i].before, letters, rows[i].text, letters);
        events_init(&events);
        events_add(&events, false, "auth", "%s", all);
        all[rows[i].kept] = '\0';
        assert_next(0, 1, all);
    }
}

/* The test may run over the end of a second, or of several on a busy machine: as many budgets. */
static void test_strangers_are_limited(void **state)
{
    (void)state;
    enum { TRIES = 1000 };
    events_init(&events);
    int64_t begun = now_second();
    for (unsigned i = 0; i < TRIES; i++)
        events_add(&events, true, "auth", "%u", i);
    uint64_t seconds = (uint64_t)(now_second() - begun) + 1;
    uint64_t first = events.sequence;
    assert_true(first >= EVENTS_STRANGER_PER_S);
    assert_true(first <= seconds * EVENTS_STRANGER_PER_S);
    assert_true(first + events.held_back == TRIES);
    for (unsigned i = 0; i < 2 * EVENTS_STRANGER_PER_S; i++)
        events_add(&events, false, "reload", "ours");
    assert_true(events.sequence == first + 2 * EVENTS_STRANGER_PER_S);
}

/* The budget comes back with another second, also with one of the past. */
static void test_strangers_come_again(void **state)
{
    (void)state;
    static const int64_t seconds[] = {0, 1, INT64_MAX};
    for (size_t i = 0; i < COUNT(seconds); i++) {
        events_init(&events);
        events.second = seconds[i];
        events.in_second = EVENTS_STRANGER_PER_S;
        events_add(&events, true, "auth", "x");
        assert_true(events.sequence == 1);
        assert_true(events.held_back == 0);
    }
}

/* --- threads --- */

enum { WRITERS = 3, EACH = 20000 };
static atomic_uint running;

static void *add_many(void *arg)
{
    const unsigned *writer = arg;
    for (unsigned i = 0; i < EACH; i++)
        events_add(&events, *writer == 0, "session", "%u %u %u", *writer, i, *writer + i);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* Sequences only grow, and no text is half of one and half of another. */
static uint64_t read_some(uint64_t sequence)
{
    struct event got;
    while (events_next(&events, sequence, &got)) {
        unsigned writer, i, sum;
        assert_true(got.sequence > sequence);
        assert_int_equal(sscanf(got.text, "%u %u %u", &writer, &i, &sum), 3);
        assert_int_equal(writer + i, sum);
        assert_string_equal(got.kind, "session");
        sequence = got.sequence;
    }
    return sequence;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t thread[WRITERS];
    unsigned number[WRITERS];
    uint64_t sequence = 0;
    events_init(&events);
    atomic_store(&running, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, add_many, &number[i]), 0);
    }
    while (atomic_load(&running) > 0)
        sequence = read_some(sequence);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    sequence = read_some(sequence);
    assert_true(sequence == events.sequence);
    assert_true(sequence + events.held_back == (uint64_t)WRITERS * EACH);
    assert_true(sequence >= (uint64_t)(WRITERS - 1) * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_the_oldest_goes),
        cmocka_unit_test(test_harmless),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_strangers_are_limited),
        cmocka_unit_test(test_strangers_come_again),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
