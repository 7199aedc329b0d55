#include "tests/rig.h"

/* Memory, refused when a test says so. */
static bool no_memory;
static void *scarce_malloc(size_t size)
{
    return no_memory ? NULL : malloc(size);
}
#define malloc scarce_malloc
#include "wss/outqueue.c"
#undef malloc

enum { KIB = 1024, MIB = 1024 * KIB, FRAME_MAX = 70000 };

static struct outqueue_pool pool;

/* A frame says its number and length, and all its bytes follow from the number. */
static uint8_t frame_byte(uint32_t number, size_t i)
{
    return (uint8_t)(number * 37 + i * 11 + i / 251);
}

static int put(struct outqueue *q, uint32_t number, uint32_t len)
{
    static uint8_t frame[FRAME_MAX];
    struct writer w = writer_of(frame, sizeof frame);
    assert_true(len >= 8 && len <= FRAME_MAX);
    write_u32(&w, number);
    write_u32(&w, len);
    for (size_t i = 8; i < len; i++)
        frame[i] = frame_byte(number, i);
    size_t head_len = len % 11 < 8 ? len % 11 : 8; /* cut anywhere: the two parts are one frame */
    return outqueue_put(q, &pool, frame, head_len, frame + head_len, len - head_len);
}

/* What a reader gets, put together to frames again. */
struct sink {
    uint8_t frame[FRAME_MAX];
    size_t len;
    uint32_t frames, last; /* read; the number of the last one */
};

static void sink_take(struct sink *s, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        assert_true(s->len < FRAME_MAX);
        s->frame[s->len++] = bytes[i];
        struct reader r = reader_of(s->frame, s->len);
        uint32_t number = read_u32(&r), frame_len = read_u32(&r);
        if (r.bad || s->len < frame_len)
            continue;
        assert_int_equal(s->len, frame_len);
        for (size_t k = 8; k < frame_len; k++)
            assert_int_equal(s->frame[k], frame_byte(number, k));
        assert_true(s->frames == 0 || number > s->last);
        s->last = number;
        s->frames++;
        s->len = 0;
    }
}

/* Sends at most `len` bytes. Returns how many. */
static size_t send_some(struct outqueue *q, struct sink *s, size_t len)
{
    const uint8_t *bytes;
    size_t n, sent = 0;
    while (sent < len && outqueue_peek(q, &bytes, &n)) {
        assert_true(n > 0);
        n = n < len - sent ? n : len - sent;
        sink_take(s, bytes, n);
        outqueue_sent(q, &pool, n);
        sent += n;
    }
    return sent;
}

/* By walking: what the queue says it holds. */
static void check(const struct outqueue *q)
{
    size_t held = 0;
    unsigned frames = 0;
    for (const struct outqueue_piece *x = q->first; x; x = x->next) {
        held += x->size;
        frames += frame_count(x);
        assert_true(x->at < x->end);
        assert_true(x->end + x->frame_next * NOTE <= x->size - sizeof *x);
        assert_true(x == q->first || piece_may_go(x));
        assert_true(x->next || x == q->last);
    }
    assert_int_equal(held, q->held);
    assert_int_equal(frames, q->frames);
    assert_int_equal(outqueue_is_empty(q), held == 0);
}

static void pool_is_clean(void)
{
    assert_int_equal(pool.used, 0);
    assert_true(pool.spare_count <= OUTQUEUE_SPARES);
    outqueue_pool_close(&pool);
    assert_null(pool.spare);
}

static void test_order_and_bytes(void **state)
{
    (void)state;
    static const uint32_t lens[] = {8, 9, 100, 1400, 2000, 16000, 16320, 16321, 65546, 70000};
    struct outqueue q = {0};
    struct sink s = {0};
    outqueue_pool_init(&pool, MIB, 64 * MIB);
    for (uint32_t i = 0; i < 2 * COUNT(lens); i++) {
        assert_int_equal(put(&q, i + 1, lens[i % COUNT(lens)]), 0);
        assert_int_equal(q.frames, i + 1);
        check(&q);
    }
    while (send_some(&q, &s, 777) > 0)
        check(&q);
    assert_int_equal(s.frames, 2 * COUNT(lens));
    assert_int_equal(s.len, 0);
    pool_is_clean();
}

static void test_empty(void **state)
{
    (void)state;
    struct outqueue q = {0};
    const uint8_t *bytes = NULL;
    size_t len = 5;
    outqueue_pool_init(&pool, MIB, 64 * MIB);
    assert_true(outqueue_is_empty(&q));
    assert_false(outqueue_peek(&q, &bytes, &len));
    assert_int_equal(len, 5);
    assert_int_equal(outqueue_put(&q, &pool, NULL, 0, NULL, 0), 0);
    assert_true(outqueue_is_empty(&q));
    outqueue_hold(&q);
    outqueue_sent(&q, &pool, 0);
    assert_int_equal(outqueue_put(&q, &pool, "ab", 2, NULL, 0), 0);
    assert_int_equal(outqueue_put(&q, &pool, NULL, 0, "cd", 2), 0);
    assert_true(outqueue_peek(&q, &bytes, &len));
    assert_int_equal(len, 4);
    assert_memory_equal(bytes, "abcd", 4);
    assert_int_equal(q.frames, 2);
    outqueue_clear(&q, &pool);
    pool_is_clean();
}

/* Many small frames: after the small first piece, they leave by whole TLS records. */
static void test_few_writes(void **state)
{
    (void)state;
    struct outqueue q = {0};
    const uint8_t *bytes;
    size_t len, total = 0;
    unsigned writes = 0;
    outqueue_pool_init(&pool, 256 * KIB, 64 * MIB);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(put(&q, i + 1, 100), 0);
    for (; outqueue_peek(&q, &bytes, &len); writes++) {
        total += len;
        outqueue_sent(&q, &pool, len);
    }
    assert_int_equal(total, 100000);
    assert_in_range(writes, 1, 8);
    pool_is_clean();
}

/* --- dropping --- */

/* A queue that nobody reads keeps the newest frames, and says of each that is missing. */
static void test_oldest_go(void **state)
{
    (void)state;
    struct outqueue q = {0};
    struct sink s = {0};
    uint32_t lost = 0;
    outqueue_pool_init(&pool, 100 * KIB, 64 * MIB);
    for (uint32_t i = 1; i <= 1000; i++) {
        int n = put(&q, i, 1000);
        assert_true(n >= 0);
        lost += (uint32_t)n;
        assert_int_equal(q.frames, i - lost);
        assert_true(q.held <= 100 * KIB);
        assert_int_equal(pool.used, q.held);
        check(&q);
    }
    assert_in_range(q.frames, 70, 100);
    send_some(&q, &s, SIZE_MAX);
    assert_int_equal(s.frames, 1000 - lost);
    assert_int_equal(s.last, 1000);
    pool_is_clean();
}

/* One frame, begun or held, then many: the first must come out whole. */
static void test_begun_stays(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t sent;
        bool hold, stays;
    } rows[] = {
        {"untouched", 0, false, false},
        {"a byte sent", 1, false, true},
        {"all but a byte", 499, false, true},
        {"sent to its end", 500, false, false},
        {"one and a byte", 501, false, true},
        {"held", 0, true, true},
        {"held at a frame's end", 500, true, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct outqueue q = {0};
        struct sink s = {0};
        outqueue_pool_init(&pool, 100 * KIB, 64 * MIB);
        put(&q, 1, 500);
        put(&q, 2, 500);
        assert_int_equal(send_some(&q, &s, rows[i].sent), rows[i].sent);
        if (rows[i].hold)
            outqueue_hold(&q);
        const struct outqueue_piece *first = q.first;
        const uint8_t *bytes = NULL, *bytes_after = NULL;
        size_t len = 0, len_after = 0;
        assert_true(outqueue_peek(&q, &bytes, &len));
        for (uint32_t k = 3; k < 1000; k++)
            assert_true(put(&q, k, 1000) >= 0);
        if ((q.first == first && q.first->end >= 1000 && q.first->size == FIRST_SIZE) !=
            rows[i].stays)
            fail_msg("%s", rows[i].name);
        assert_true(outqueue_peek(&q, &bytes_after, &len_after));
        if (rows[i].stays)
            assert_true(bytes_after == bytes && len_after >= len);
        check(&q);
        send_some(&q, &s, SIZE_MAX);
        assert_int_equal(s.len, 0);
        assert_int_equal(s.last, 999);
        pool_is_clean();
    }
}

/* A stream that took something has nothing that it must see again. */
static void test_sent_ends_hold(void **state)
{
    (void)state;
    struct outqueue q = {0};
    outqueue_pool_init(&pool, MIB, 64 * MIB);
    put(&q, 1, 500);
    put(&q, 2, 500);
    outqueue_hold(&q);
    assert_false(piece_may_go(q.first));
    outqueue_sent(&q, &pool, 500);
    assert_true(piece_may_go(q.first));
    outqueue_clear(&q, &pool);
    pool_is_clean();
}

static void test_refused(void **state)
{
    (void)state;
    struct outqueue q = {0};
    struct sink s = {0};
    outqueue_pool_init(&pool, 40 * KIB, 64 * MIB);
    /* Both sides of the largest frame that an empty queue takes. */
    uint32_t most = 40 * KIB - sizeof(struct outqueue_piece) - NOTE;
    assert_int_equal(put(&q, 1, most + 1), OUTQUEUE_REFUSED);
    assert_true(outqueue_is_empty(&q));
    assert_int_equal(put(&q, 1, most), 0);
    assert_int_equal(pool.used, 40 * KIB);
    /* Whole, it gives way; begun, it does not, and nothing is dropped for a frame that is refused.
     */
    assert_int_equal(put(&q, 2, most), 1);
    send_some(&q, &s, 1);
    assert_int_equal(put(&q, 3, 100), OUTQUEUE_REFUSED);
    assert_int_equal(q.frames, 1);
    send_some(&q, &s, SIZE_MAX);
    assert_int_equal(s.last, 2);
    put(&q, 4, 1000);
    put(&q, 5, 20000);
    outqueue_hold(&q);
    assert_int_equal(put(&q, 6, most), OUTQUEUE_REFUSED);
    assert_int_equal(q.frames, 2);
    check(&q);
    outqueue_clear(&q, &pool);
    pool_is_clean();
}

static void test_no_memory(void **state)
{
    (void)state;
    struct outqueue q = {0};
    outqueue_pool_init(&pool, 40 * KIB, 64 * MIB);
    no_memory = true;
    assert_int_equal(put(&q, 1, 100), OUTQUEUE_REFUSED);
    no_memory = false;
    assert_int_equal(put(&q, 1, 1000), 0);
    assert_int_equal(put(&q, 2, 30000), 0);
    no_memory = true;
    assert_int_equal(put(&q, 3, 30000), OUTQUEUE_REFUSED); /* 1 and 2 stay */
    assert_int_equal(q.frames, 2);
    assert_int_equal(put(&q, 4, 100), OUTQUEUE_REFUSED); /* the last piece is full */
    no_memory = false;
    outqueue_clear(&q, &pool);
    pool_is_clean();
}

/* --- the shared pool --- */

enum { STUCK = 10000 };
static struct outqueue stuck[STUCK];

/* Nobody reads; each has a frame that was begun. */
static void fill_stuck(unsigned count, unsigned rounds, uint32_t len)
{
    uint32_t number = 1;
    memset(stuck, 0, sizeof stuck);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < count; i++) {
            bool was_empty = outqueue_is_empty(&stuck[i]);
            put(&stuck[i], number++, len);
            if (was_empty && !outqueue_is_empty(&stuck[i]))
                outqueue_sent(&stuck[i], &pool, 1);
            assert_true(pool.used <= pool.total);
        }
    }
}

static void assert_used_is_exact(unsigned count)
{
    size_t held = 0;
    for (unsigned i = 0; i < count; i++) {
        check(&stuck[i]);
        held += stuck[i].held;
    }
    assert_int_equal(held, pool.used);
}

static void test_stuck_queues_leave_room(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned count, rounds;
        uint32_t len;         /* of their frames */
        uint32_t healthy_len; /* bytes queued by a healthy one in a turn, as frames of 1400 */
    } rows[] = {
        {"1000 stuck, relays", 1000, 200, 1400, 45000},
        {"1000 stuck, small frames", 1000, 1000, 100, 45000},
        {"1000 stuck, large frames", 1000, 4, 16000, 45000},
        {"300 stuck, at their most", 300, 250, 1400, 150000},
        {"10000 stuck", STUCK, 12, 1400, 2800},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct outqueue q = {0};
        struct sink s = {0};
        outqueue_pool_init(&pool, 256 * KIB, 64 * MIB);
        fill_stuck(rows[i].count, rows[i].rounds, rows[i].len);
        assert_used_is_exact(rows[i].count);
        if (pool.used < 48 * MIB)
            fail_msg("%s: only %zu bytes are stuck", rows[i].name, pool.used);
        size_t used = pool.used;
        uint32_t number = 0;
        for (unsigned turn = 0; turn < 20; turn++) {
            for (uint32_t len = 0; len + 1400 <= rows[i].healthy_len; len += 1400) {
                if (put(&q, ++number, 1400) != 0)
                    fail_msg("%s: frame %u of turn %u lost", rows[i].name, number, turn);
            }
            send_some(&q, &s, SIZE_MAX);
            assert_int_equal(pool.used, used);
        }
        assert_int_equal(s.frames, number);
        for (unsigned k = 0; k < rows[i].count; k++)
            outqueue_clear(&stuck[k], &pool);
        pool_is_clean();
    }
}

/* What few queues took while the pool was empty, they give back as others come. */
static void test_shares_shrink(void **state)
{
    (void)state;
    outqueue_pool_init(&pool, 4 * MIB, 16 * MIB);
    fill_stuck(2, 4000, 1400);
    size_t alone = stuck[0].held;
    for (uint32_t round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < 40; i++)
            put(&stuck[i], 1000000 + round, 1400);
    }
    assert_true(alone > MIB);
    assert_true(stuck[0].held < alone / 2);
    assert_true(stuck[39].held >= stuck[0].held / 2);
    assert_used_is_exact(40);
    for (unsigned k = 0; k < 40; k++)
        outqueue_clear(&stuck[k], &pool);
    pool_is_clean();
}

/* Anything, at random, against a walk through all pieces; every frame is read, dropped or refused.
 */
static void test_random(void **state)
{
    (void)state;
    enum { QUEUES = 8, STEPS = 60000 };
    static struct sink sinks[QUEUES];
    struct outqueue q[QUEUES] = {0};
    uint64_t seed = 88172645463325252;
    uint32_t sent[QUEUES] = {0}, lost[QUEUES] = {0};
    memset(sinks, 0, sizeof sinks);
    outqueue_pool_init(&pool, 100 * KIB, MIB);
    for (uint32_t step = 1; step <= STEPS; step++) {
        uint64_t random = rig_random(&seed);
        unsigned i = random % QUEUES;
        uint32_t len = (uint32_t)(8 + (random >> 8) % (random >> 60 == 0 ? 60000 : 2000));
        if ((random >> 40) % 5 < 3) {
            int n = put(&q[i], step, len);
            sent[i]++;
            lost[i] += n == OUTQUEUE_REFUSED ? 1 : (uint32_t)n;
        } else if ((random >> 44) % 4 == 0) {
            outqueue_hold(&q[i]);
        } else {
            send_some(&q[i], &sinks[i], (random >> 20) % 5000);
        }
        check(&q[i]);
        assert_int_equal(q[i].frames, sent[i] - lost[i] - sinks[i].frames);
        if (step % 64 == 0) {
            size_t held = 0;
            for (unsigned k = 0; k < QUEUES; k++)
                held += q[k].held;
            assert_int_equal(held, pool.used);
        }
    }
    for (unsigned i = 0; i < QUEUES; i++) {
        send_some(&q[i], &sinks[i], SIZE_MAX);
        assert_int_equal(sinks[i].frames, sent[i] - lost[i]);
        assert_int_equal(sinks[i].len, 0);
        assert_true(lost[i] > 0 && sinks[i].frames > 0);
    }
    pool_is_clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_bytes),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_few_writes),
        cmocka_unit_test(test_oldest_go),
        cmocka_unit_test(test_begun_stays),
        cmocka_unit_test(test_sent_ends_hold),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_stuck_queues_leave_room),
        cmocka_unit_test(test_shares_shrink),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
