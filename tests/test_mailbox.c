#include <pthread.h>
#include <sched.h>
#include "tests/rig.h"
#include "server/mailbox.h"

static struct mailbox box;

static struct mail letter(uint32_t node_id)
{
    struct mail m = {.kind = MAIL_NOTIFY, .node_id = node_id, .len = MAIL_BYTES_MAX};
    memset(m.bytes, (int)(node_id & 0xff), sizeof m.bytes);
    return m;
}

static void assert_next(uint32_t node_id)
{
    struct mail got, want = letter(node_id);
    assert_true(mailbox_take(&box, &got));
    assert_int_equal(got.node_id, want.node_id);
    assert_memory_equal(got.bytes, want.bytes, sizeof want.bytes);
}

static void test_empty_and_full(void **state)
{
    (void)state;
    struct mail got = {.node_id = 42};
    mailbox_init(&box);
    assert_false(mailbox_take(&box, &got));
    assert_int_equal(got.node_id, 42);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < MAIL_SLOTS; i++)
            assert_true(mailbox_put(&box, &(struct mail){.node_id = i}));
        for (uint32_t i = 0; i < 10; i++)
            assert_false(mailbox_put(&box, &(struct mail){.node_id = 7777}));
        for (uint32_t i = 0; i < MAIL_SLOTS; i++) {
            assert_true(mailbox_take(&box, &got));
            assert_int_equal(got.node_id, i);
        }
        assert_false(mailbox_take(&box, &got));
    }
}

/* One place free is one place free, wherever the ring stands, and when positions pass 2^32. */
static void test_wraps(void **state)
{
    (void)state;
    static const uint32_t starts[] = {0, 1, MAIL_SLOTS - 1, UINT32_MAX - MAIL_SLOTS / 2 + 1};
    for (size_t s = 0; s < COUNT(starts); s++) {
        mailbox_init(&box);
        box.head = starts[s];
        atomic_store(&box.tail, starts[s]);
        for (uint32_t i = 0; i < MAIL_SLOTS; i++) {
            uint32_t at = starts[s] + i;
            atomic_store(&box.slot[at % MAIL_SLOTS].turn, at);
        }
        uint32_t put = 0, taken = 0;
        while (put < MAIL_SLOTS) {
            struct mail m = letter(put++);
            assert_true(mailbox_put(&box, &m));
        }
        while (taken < 3 * MAIL_SLOTS) {
            struct mail m = letter(put);
            assert_false(mailbox_put(&box, &m));
            assert_next(taken++);
            assert_true(mailbox_put(&box, &m));
            put++;
        }
    }
}

/* Ids go in until the letter is full, and come out as they went in. */
static void test_ids(void **state)
{
    (void)state;
    struct mail m = {.kind = MAIL_ROUTES_SET};
    assert_int_equal(mail_ids(&m), 0);
    for (uint32_t i = 0; i < MAIL_IDS_MAX; i++)
        assert_true(mail_add_id(&m, UINT32_MAX - i * 0x01010101u));
    assert_false(mail_add_id(&m, 7));
    assert_int_equal(mail_ids(&m), MAIL_IDS_MAX);
    assert_true(m.len <= MAIL_BYTES_MAX);
    for (unsigned i = 0; i < MAIL_IDS_MAX; i++)
        assert_int_equal(mail_id(&m, i), UINT32_MAX - i * 0x01010101u);
}

enum { PRODUCERS = 3, LETTERS = 20000 };

/* node_id: which producer, which letter of it. */
static void *produce(void *arg)
{
    uint32_t who = *(const uint32_t *)arg;
    for (uint32_t n = 0; n < LETTERS; n++) {
        struct mail m = letter(who << 24 | n);
        while (!mailbox_put(&box, &m))
            sched_yield();
    }
    return NULL;
}

static void test_producers(void **state)
{
    (void)state;
    pthread_t thread[PRODUCERS];
    uint32_t who[PRODUCERS], next[PRODUCERS] = {0};
    mailbox_init(&box);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        who[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, produce, &who[i]), 0);
    }
    for (uint32_t n = 0; n < PRODUCERS * LETTERS;) {
        struct mail m;
        if (!mailbox_take(&box, &m)) {
            sched_yield();
            continue;
        }
        struct mail want = letter(m.node_id);
        assert_true(m.node_id >> 24 < PRODUCERS);
        assert_int_equal(m.node_id & 0xffffff, next[m.node_id >> 24]++); /* order of a producer */
        assert_memory_equal(m.bytes, want.bytes, sizeof want.bytes);
        n++;
    }
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(thread[i], NULL);
    struct mail m;
    assert_false(mailbox_take(&box, &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_and_full),
        cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_producers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
