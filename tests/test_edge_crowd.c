/* edge, many readers: slow, stuck and idle ones hurt nobody but themselves. */
#include "tests/edge_talk.h"

/* --- slow readers --- */

/* Reads frames up to number `last`; they are in order. Returns how many came. */
static unsigned hear_frames_to(struct client *c, uint32_t last)
{
    static uint8_t bytes[FRAME_MAX];
    uint32_t frame[2] = {0, 0}, before = 0;
    unsigned n = 0;
    while (before != last) {
        client_hear_bytes(c, frame, sizeof frame);
        assert_true(frame[0] > before);
        assert_true(frame[1] <= sizeof bytes);
        client_hear_bytes(c, bytes, frame[1]);
        before = frame[0];
        n++;
    }
    return n;
}

static void test_slow_reader_loses_its_oldest_only(void **state)
{
    (void)state;
    enum { FRAMES = 4000, LEN = 4000 };
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client slow = client_at(ASK("/stream"), tls, 200);
        small_window(slow.fd);
        struct client quick = client_at(ASK("/stream"), tls, 200), other = client_echo(tls);
        int64_t worst_ms = 0;
        for (uint32_t at = 0; at < FRAMES; at += 100) {
            say_frames(100, LEN);
            assert_int_equal(hear_frames_to(&quick, at + 100), 100);
            int64_t start_ms = now_ms();
            client_say(&other, "ping");
            client_expect(&other, "ping");
            if (now_ms() - start_ms > worst_ms)
                worst_ms = now_ms() - start_ms;
        }
        expect_between(worst_ms, 0, 100);
        uint64_t dropped = count_read(&edge_stats(edge)->frames_dropped);
        uint64_t queued = count_read(&edge_stats(edge)->queued_bytes);
        assert_true(dropped > 0);
        assert_true(queued > 0 && queued <= relaxed.queue_each);
        unsigned heard = hear_frames_to(&slow, FRAMES);
        assert_int_equal(heard + dropped, FRAMES);
        expect_count(&edge_stats(edge)->queued_bytes, 0); /* it has caught up */
        client_close(&slow);
        client_close(&quick);
        client_close(&other);
        expect_all_closed(3);
        edge_down(NULL);
    }
}

static void test_stuck_reader_is_cut(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.stuck_ms = 400;
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&limits, tls);
        struct client stuck = client_at(ASK("/stream"), tls, 200), other = client_echo(tls);
        small_window(stuck.fd);
        int64_t start_ms = now_ms();
        say_frames(4000, 4000);
        expect_count(&edge_stats(edge)->stuck, 1);
        expect_between(now_ms() - start_ms, 390, 3000);
        expect_count(&closed, 1);
        expect_count(&edge_stats(edge)->queued_bytes, 0);
        client_say(&other, "ping");
        client_expect(&other, "ping");
        static uint8_t bytes[65536];
        ssize_t n;
        while ((n = recv(stuck.fd, bytes, sizeof bytes, 0)) > 0)
            ;
        assert_true(n < 0 && errno == ECONNRESET); /* the kernel keeps nothing for it */
        client_close(&stuck);
        client_close(&other);
        assert_int_equal(count_read(&edge_stats(edge)->timeouts), 0);
        edge_down(NULL);
    }
}

/* Slow, but it reads, though it never catches up. */
static void test_slow_reader_is_not_stuck(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.stuck_ms = 600;
    limits.queue_each = 16 << 20;
    limits.queue_total = 256 << 20;
    edge_up(&limits, false);
    struct client slow = client_at(ASK("/stream"), false, 200);
    static uint8_t bytes[1 << 20];
    small_window(slow.fd);
    atomic_store(&want_a_turn, 100);
    say_frames(10000, 4000);
    for (int i = 0; i < 8; i++) {
        poll(NULL, 0, 200);
        client_hear_bytes(&slow, bytes, sizeof bytes);
    }
    assert_int_equal(count_read(&edge_stats(edge)->stuck), 0);
    assert_true(count_read(&edge_stats(edge)->queued_bytes) > 0);
    client_close(&slow);
    expect_all_closed(1);
}

/* --- places --- */

static void test_full_pool_spares_protocols(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.connections = 3;
    edge_up(&limits, false);
    struct client a = client_echo(false), b = client_echo(false), idle = client_new(false);
    for (int i = 0; i < 4; i++) {
        struct client newcomer = client_new(false);
        char body[256];
        client_say(&newcomer, HELLO);
        assert_int_equal(client_hear(&newcomer, body), 404);
        client_expect_cut(&idle); /* the place of the one before */
        idle = newcomer;
    }
    struct client c = client_echo(false);
    client_expect_cut(&idle);
    struct client none = client_new(false);
    client_expect_cut(&none); /* now all are protocols */
    struct client *all[] = {&a, &b, &c};
    for (size_t i = 0; i < COUNT(all); i++) {
        client_say(all[i], "still here");
        client_expect(all[i], "still here");
        client_close(all[i]);
    }
    expect_all_closed(3);
}

static int64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void test_a_thousand_at_once(void **state)
{
    (void)state;
    enum { N = 1000 };
    static struct client c[N];
    struct edge_limits limits = relaxed;
    limits.connections = EDGE_HTTP_CONNECTIONS + N;
    limits.per_ipv4 = N;
    edge_up(&limits, false);
    for (int i = 0; i < N; i++)
        c[i] = client_echo(false);
    for (int i = 0; i < N; i++)
        client_say(&c[i], "soon");
    for (int i = 0; i < N; i++)
        client_expect(&c[i], "time");
    for (int i = 0; i < N; i++)
        client_say(&c[i], "all");
    for (int i = 0; i < N; i++)
        client_expect(&c[i], "all");
    int64_t start_us = cpu_us();
    poll(NULL, 0, 1000);
    expect_between(cpu_us() - start_us, 0, 10000); /* quiet ones cost less than a hundredth */
    for (int i = 0; i < N; i++)
        client_close(&c[i]);
    expect_all_closed(N);
}

/* The hook runs with each turn, and when it wants to. */
static void test_hook_is_called_when_woken(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    poll(NULL, 0, 50);
    for (int i = 0; i < 20; i++) {
        uint64_t before = atomic_load(&hook_calls);
        wake();
        int64_t start_ms = now_ms();
        while (atomic_load(&hook_calls) == before && now_ms() - start_ms < 500)
            poll(NULL, 0, 1);
        assert_true(atomic_load(&hook_calls) > before);
        expect_between(now_ms() - start_ms, 0, 100);
    }
    uint64_t before = atomic_load(&hook_calls);
    poll(NULL, 0, 300);
    assert_true(atomic_load(&hook_calls) - before <= 3); /* the wake-ups were taken */
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_slow_reader_loses_its_oldest_only),
        TEST(test_stuck_reader_is_cut),
        TEST(test_slow_reader_is_not_stuck),
        TEST(test_full_pool_spares_protocols),
        TEST(test_a_thousand_at_once),
        TEST(test_hook_is_called_when_woken),
    };
    return cmocka_run_group_tests(tests, clients_begin, clients_end);
}
