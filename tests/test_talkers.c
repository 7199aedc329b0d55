#include <pthread.h>
#include "tests/rig.h"
#include "server/talkers.h"

enum { WINDOW_NS = 1000000000 }; /* times TALKERS_WINDOW_S */

static struct talkers *talkers_new(void)
{
    size_t size = (talkers_size() + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    return talkers_init(memory);
}

static void assert_near(uint64_t got, double want, double share, const char *what)
{
    if ((double)got < want * (1 - share) || (double)got > want * (1 + share))
        fail_msg("%s: %llu, not about %.0f", what, (unsigned long long)got, want);
}

static const struct talker *talker_find(const struct talker *of, unsigned count, uint32_t id)
{
    for (unsigned i = 0; i < count; i++)
        if (of[i].node_id == id)
            return &of[i];
    return NULL;
}

/* Three who matter among many who do not. */
static void test_heavy_ones_are_right(void **state)
{
    (void)state;
    enum { PACKETS = 4000000 };
    static const struct {
        uint32_t id;
        const char *from;
        unsigned per_100;
        uint32_t len;
    } heavy[] = {{1, AT_A, 40, 1200}, {2, AT_B, 20, 100}, {3, "[2001:db8::1]:7", 10, 600}};
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    struct endpoint from[3], noise = endpoint_at("192.0.2.1:1");
    uint64_t seed = 3;
    for (int i = 0; i < 3; i++)
        from[i] = endpoint_at(heavy[i].from);
    talkers_tick(t, 1);
    for (uint32_t n = 0; n < PACKETS; n++) {
        uint64_t dice = rig_random(&seed);
        unsigned share = dice >> 32 & 127;
        while (share >= 100)
            share = (dice = rig_random(&seed)) >> 32 & 127;
        int who = share < 40 ? 0 : share < 60 ? 1 : share < 70 ? 2 : 3;
        if (who < 3)
            talkers_note(t, heavy[who].id, &from[who], heavy[who].len);
        else
            talkers_note(t, 1000 + (uint32_t)(dice & 0xffff), &noise, 1472);
    }
    talkers_tick(t, 1 + (uint64_t)TALKERS_WINDOW_S * WINDOW_NS);
    unsigned count = talkers_read(t, got);
    assert_int_equal(count, TALKERS_MAX);
    for (int i = 0; i < 3; i++) {
        const struct talker *it = talker_find(got, count, heavy[i].id);
        assert_non_null(it);
        assert_true(endpoint_equal(&it->from, &from[i]));
        double packets = PACKETS / 100.0 * heavy[i].per_100;
        assert_near(it->packets, packets, 0.05, heavy[i].from);
        assert_near(it->bytes, packets * heavy[i].len, 0.05, heavy[i].from);
    }
    for (unsigned i = 0; i < count; i++) /* nobody else looks heavy */
        if (got[i].node_id >= 1000)
            assert_true(got[i].packets < PACKETS / 100);
    free(t);
}

/* Who begins when the table is full of others is found all the same. */
static void test_latecomer(void **state)
{
    (void)state;
    enum { PACKETS = 600000 };
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    struct endpoint at = endpoint_at(AT_A);
    uint64_t seed = 21;
    talkers_tick(t, 1);
    for (uint32_t n = 0; n < PACKETS; n++)
        talkers_note(t, 100 + (uint32_t)(rig_random(&seed) >> 40) % TALKERS_MAX, &at, 10);
    for (uint32_t n = 0; n < PACKETS; n++) {
        uint64_t dice = rig_random(&seed);
        talkers_note(t, dice >> 63 ? 1 : 1000 + (uint32_t)(dice >> 32 & 0xffff), &at, 10);
    }
    talkers_tick(t, 1 + (uint64_t)TALKERS_WINDOW_S * WINDOW_NS);
    const struct talker *it = talker_find(got, talkers_read(t, got), 1);
    assert_non_null(it);
    assert_near(it->packets, PACKETS / 2.0, 0.1, "latecomer");
    free(t);
}

/* Flows that come in step with the sampling are seen as what they are. */
static void test_in_step(void **state)
{
    (void)state;
    enum { PACKETS = 3000000 };
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    struct endpoint a = endpoint_at(AT_A), b = endpoint_at(AT_B);
    talkers_tick(t, 1);
    for (uint32_t n = 0; n < PACKETS; n++)
        talkers_note(t, n % TALKERS_SAMPLE == TALKERS_SAMPLE - 1 ? 1 : 2,
                     n % TALKERS_SAMPLE == TALKERS_SAMPLE - 1 ? &a : &b, 10);
    talkers_tick(t, 1 + (uint64_t)TALKERS_WINDOW_S * WINDOW_NS);
    assert_int_equal(talkers_read(t, got), 2);
    assert_near(talker_find(got, 2, 1)->packets, PACKETS / 64.0, 0.2, "one in 64");
    assert_near(talker_find(got, 2, 2)->packets, PACKETS / 64.0 * 63, 0.02, "the others");
    free(t);
}

/* The same id at two places is two talkers: the id is a claim. */
static void test_claims_apart(void **state)
{
    (void)state;
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    struct endpoint a = endpoint_at(AT_A), b = endpoint_at(AT_B);
    uint64_t seed = 8;
    talkers_tick(t, 1);
    for (int n = 0; n < 100000; n++)
        talkers_note(t, NODE_A, rig_random(&seed) >> 40 & 1 ? &a : &b, 10);
    talkers_tick(t, 1 + (uint64_t)TALKERS_WINDOW_S * WINDOW_NS);
    assert_int_equal(talkers_read(t, got), 2);
    assert_int_equal(got[0].node_id, NODE_A);
    assert_int_equal(got[1].node_id, NODE_A);
    assert_false(endpoint_equal(&got[0].from, &got[1].from));
    free(t);
}

static void test_windows(void **state)
{
    (void)state;
    const uint64_t start = 77, window = (uint64_t)TALKERS_WINDOW_S * WINDOW_NS;
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    struct endpoint a = endpoint_at(AT_A);
    assert_int_equal(talkers_read(t, got), 0);
    talkers_tick(t, start);
    for (int n = 0; n < 10000; n++)
        talkers_note(t, 5, &a, 10);
    talkers_tick(t, start + window - 1);
    assert_int_equal(talkers_read(t, got), 0); /* not whole yet */
    talkers_tick(t, start + window);
    assert_int_equal(talkers_read(t, got), 1);
    assert_int_equal(got[0].node_id, 5);
    assert_near(got[0].packets, 10000, 0.3, "first window");
    for (int n = 0; n < 10000; n++)
        talkers_note(t, 6, &a, 10);
    talkers_tick(t, start + 2 * window - 1);
    assert_int_equal(talkers_read(t, got), 1);
    assert_int_equal(got[0].node_id, 5); /* still the last whole one */
    talkers_tick(t, start + 2 * window);
    assert_int_equal(talkers_read(t, got), 1);
    assert_int_equal(got[0].node_id, 6); /* and nothing of the first is left */
    talkers_tick(t, start + 3 * window);
    assert_int_equal(talkers_read(t, got), 0);
    free(t);
}

/* --- a reader beside the writer --- */

enum { RACE_WINDOWS = 20000 };

static _Atomic bool race_over;

/* In a window all entries say the same number, at both ends of an entry. */
static void *race_write(void *arg)
{
    struct talkers *t = arg;
    uint64_t now_ns = 1;
    talkers_tick(t, now_ns);
    for (uint32_t w = 1; w <= RACE_WINDOWS; w++) {
        struct endpoint from = {.port = (uint16_t)w};
        memset(from.ip, (int)(w & 0xff), sizeof from.ip);
        for (uint32_t n = 0; n < 400; n++)
            talkers_note(t, w << 8 | n % 4, &from, w);
        talkers_tick(t, now_ns += (uint64_t)TALKERS_WINDOW_S * WINDOW_NS);
    }
    atomic_store(&race_over, true);
    return NULL;
}

static void test_reader_races(void **state)
{
    (void)state;
    struct talkers *t = talkers_new();
    struct talker got[TALKERS_MAX];
    pthread_t writer;
    uint32_t last = 0;
    unsigned seen = 0;
    atomic_store(&race_over, false);
    assert_int_equal(pthread_create(&writer, NULL, race_write, t), 0);
    while (!atomic_load(&race_over)) {
        unsigned count = talkers_read(t, got);
        for (unsigned i = 0; i < count; i++) {
            uint32_t w = got[i].node_id >> 8;
            assert_int_equal(w, got[0].node_id >> 8);
            assert_int_equal(got[i].from.port, (uint16_t)w);
            assert_int_equal(got[i].from.ip[0], (uint8_t)w);
            assert_int_equal(got[i].from.ip[15], (uint8_t)w);
            assert_int_equal(got[i].bytes, got[i].packets * w);
        }
        if (count > 0) {
            uint32_t w = got[0].node_id >> 8;
            assert_true(w >= last);
            seen += w != last;
            last = w;
        }
    }
    pthread_join(writer, NULL);
    assert_true(seen > 0);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heavy_ones_are_right),
        cmocka_unit_test(test_in_step),
        cmocka_unit_test(test_latecomer),
        cmocka_unit_test(test_claims_apart),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_reader_races),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
