#include <pthread.h>
#include <sched.h>
#include "tests/rig.h"
#include "server/handoff.h"

static struct handoff *handoff_new(void)
{
    size_t size = (handoff_size() + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    return handoff_init(memory);
}

/* What message `n` says: its length and each byte follow from n. */
static void fill(uint8_t *bytes, uint32_t n, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(n * 31 + i * 7);
}

static bool put(struct handoff *h, uint32_t n, uint32_t len)
{
    static _Thread_local uint8_t bytes[HANDOFF_MESSAGE_MAX + 16];
    assert_true(len <= sizeof bytes);
    fill(bytes, n, len);
    return handoff_put(h, n, bytes, len);
}

static void take(struct handoff *h, uint32_t n, uint32_t len)
{
    static uint8_t want[HANDOFF_MESSAGE_MAX];
    struct handoff_message m;
    assert_true(handoff_peek(h, &m));
    assert_int_equal(m.node_id, n);
    assert_int_equal(m.len, len);
    fill(want, n, len);
    assert_memory_equal(m.bytes, want, len);
    handoff_drop(h);
}

static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t len;
        bool fits;
    } cases[] = {{0, true},     {1, true},      {7, true},     {8, true},
                 {9, true},     {1472, true},   {65528, true}, {65535, true},
                 {65536, true}, {65537, false}, {65544, false}};
    struct handoff *h = handoff_new();
    for (unsigned round = 0; round < 50; round++) /* at every place of the ring */
        for (uint32_t i = 0; i < COUNT(cases); i++) {
            struct handoff_message m;
            if (put(h, i, cases[i].len) != cases[i].fits)
                fail_msg("%u bytes", cases[i].len);
            if (cases[i].fits)
                take(h, i, cases[i].len);
            assert_false(handoff_peek(h, &m));
        }
    assert_false(handoff_put(h, 1, NULL, UINT32_MAX));
    assert_false(handoff_put(h, 1, NULL, UINT32_MAX - 7));
    free(h);
}

static void test_peek_keeps(void **state)
{
    (void)state;
    struct handoff *h = handoff_new();
    struct handoff_message a, b, untouched = {.node_id = 77};
    assert_false(handoff_peek(h, &untouched));
    assert_int_equal(untouched.node_id, 77);
    assert_true(put(h, 1, 20));
    assert_true(put(h, 2, 30));
    assert_true(handoff_peek(h, &a) && handoff_peek(h, &b));
    assert_ptr_equal(a.bytes, b.bytes);
    take(h, 1, 20);
    take(h, 2, 30);
    free(h);
}

/* Full to the byte: a record is its length rounded up to 8 and a head of 8. */
static void test_full(void **state)
{
    (void)state;
    enum { RECORD = 1024, FITS = HANDOFF_BYTES / RECORD };
    struct handoff *h = handoff_new();
    uint32_t next = 0, taken = 0;
    for (int round = 0; round < 5; round++) {
        while (put(h, next, RECORD - 8))
            next++;
        assert_int_equal(next - taken, FITS);
        assert_false(put(h, next, 0)); /* not even an empty one */
        take(h, taken++, RECORD - 8);
        assert_false(put(h, next, RECORD - 7)); /* a byte more than is free */
        assert_true(put(h, next, RECORD - 8));
        next++;
        for (int i = 0; i < 300; i++)
            take(h, taken++, RECORD - 8);
    }
    free(h);
}

/* Against a list: any lengths, any order of putting and taking, across the end of the ring and
 * across 2^32 positions. */
static void test_against_list(void **state)
{
    (void)state;
    enum { LIST = 1 << 16 };
    static uint32_t list[LIST];
    struct handoff *h = handoff_new();
    uint64_t seed = 5;
    uint32_t in = 0, out = 0, full = 0;
    uint64_t bytes = 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const uint64_t bytes_max = 500000000;
#else
    const uint64_t bytes_max = 5000000000; /* positions have 32 bits */
#endif
    while (bytes < bytes_max) {
        uint64_t n = rig_random(&seed);
        if (n % 100 < (n >> 20 & 64 ? 55u : 45u)) {
            uint32_t len = n >> 32 & 3 ? (uint32_t)(n >> 40) % 1500 : (uint32_t)(n >> 40) % 65537;
            struct handoff_message m;
            if (in - out < LIST - 1 && put(h, in, len)) {
                list[in++ % LIST] = len;
                bytes += len;
            } else {
                full++;
                assert_true(handoff_peek(h, &m)); /* an empty ring takes anything */
            }
        } else if (in != out) {
            take(h, out, list[out % LIST]);
            out++;
        }
    }
    assert_true(full > 0 && in > 1000);
    for (; out != in; out++)
        take(h, out, list[out % LIST]);
    free(h);
}

enum { RACE_MESSAGES = 200000 };

static uint32_t race_len(uint32_t n)
{
    return n % 997 == 0 ? HANDOFF_MESSAGE_MAX - n % 9 : n * 2654435761u >> 22;
}

static void *produce(void *arg)
{
    for (uint32_t n = 0; n < RACE_MESSAGES; n++)
        while (!put(arg, n, race_len(n)))
            sched_yield();
    return NULL;
}

static void test_two_threads(void **state)
{
    (void)state;
    struct handoff *h = handoff_new();
    struct handoff_message m;
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, h), 0);
    for (uint32_t n = 0; n < RACE_MESSAGES; n++) {
        while (!handoff_peek(h, &m))
            sched_yield();
        take(h, n, race_len(n));
    }
    pthread_join(producer, NULL);
    assert_false(handoff_peek(h, &m));
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),     cmocka_unit_test(test_peek_keeps),
        cmocka_unit_test(test_full),        cmocka_unit_test(test_against_list),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
