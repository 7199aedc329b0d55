/* edge, answers without an end: what protocols say and hear, when they are called, how they end. */
#include "tests/edge_talk.h"

/* --- talking --- */

static void test_head_says_what_comes(void **state)
{
    (void)state;
    char head[1024];
    edge_up(&relaxed, false);
    struct client c = client_new(false);
    client_say(&c, ASK("/echo"));
    assert_int_equal(client_hear_head(&c, head), 101);
    assert_non_null(strstr(head, "\r\nConnection: Upgrade\r\n"));
    client_close(&c);
    c = client_new(false);
    client_say(&c, ASK("/stream"));
    assert_int_equal(client_hear_head(&c, head), 200);
    assert_non_null(strstr(head, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(head, "\r\nContent-Type: text/event-stream\r\n"));
    client_close(&c);
    expect_all_closed(2);
    c = client_new(false); /* the head of what has no end: it does not begin */
    client_say(&c, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(client_hear_head(&c, head), 200);
    client_expect_end(&c);
    expect_count(&closed, 3);
    assert_int_equal(count_read(&opened), 2);
}

static void test_words_are_echoed(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client c = client_echo(tls);
        for (int i = 0; i < 100; i++) {
            client_say(&c, "hello");
            client_expect(&c, "hello");
        }
        client_close(&c);
        expect_all_closed(1);
        edge_down(NULL);
    }
}

/* Said before the answer was there. */
static void test_words_behind_the_request_are_heard(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client c = client_at(ASK("/echo") "early", tls, 101);
        client_expect(&c, "hi!early");
        client_close(&c);
        char many[HTTP_HEAD_MAX + 4096] = ASK("/echo"); /* more than HTTP reads at once */
        size_t len = strlen(many);
        memset(many + len, 'm', sizeof many - len);
        c = client_new(tls);
        char head[1024];
        client_say_bytes(&c, many, sizeof many);
        assert_int_equal(client_hear_head(&c, head), 101);
        client_expect(&c, "hi!");
        for (size_t at = len; at < sizeof many; at++) {
            char byte;
            client_hear_bytes(&c, &byte, 1);
            assert_int_equal(byte, 'm');
        }
        client_close(&c);
        expect_all_closed(2);
        edge_down(NULL);
    }
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void test_big_frames_come_back_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 1000, 16383, 16384, 16385, 65535, 65536, 65537, 200000};
    static uint8_t said[200000], heard[200000];
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client c = client_echo(tls);
        for (unsigned i = 0; i < COUNT(sizes); i++) {
            fill(said, sizes[i], i);
            client_say_bytes(&c, said, sizes[i]);
            client_hear_bytes(&c, heard, sizes[i]);
            assert_memory_equal(said, heard, sizes[i]);
        }
        client_close(&c);
        assert_int_equal(count_read(&edge_stats(edge)->frames_dropped), 0);
        edge_down(NULL);
    }
}

static void test_many_frames_of_a_turn_come_in_order(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client c = client_at(ASK("/stream"), tls, 200);
        say_frames(2000, 100);
        for (uint32_t i = 1; i <= 2000; i++) {
            uint32_t frame[2];
            uint8_t bytes[100];
            client_hear_bytes(&c, frame, sizeof frame);
            assert_int_equal(frame[0], i);
            assert_int_equal(frame[1], sizeof bytes);
            client_hear_bytes(&c, bytes, sizeof bytes);
        }
        client_close(&c);
        expect_all_closed(1);
        edge_down(NULL);
    }
}

/* What a handler says first may be more than there is room for, but never costs the head. */
static void test_head_is_never_dropped(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.queue_total = 128 << 10; /* an eighth is less than the flood */
    edge_up(&limits, false);
    struct client c = client_at(ASK("/flood"), false, 101);
    char byte = 'x';
    while (byte != 'e')
        client_hear_bytes(&c, &byte, 1);
    client_hear_bytes(&c, (char[3]){0}, 3);
    assert_true(count_read(&edge_stats(edge)->frames_dropped) > 0);
    client_close(&c);
    expect_all_closed(1);
}

/* Without memory for so much as the head, there is no protocol. */
static void test_no_memory_for_the_head(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.queue_total = 256;
    edge_up(&limits, false);
    for (int i = 0; i < 3; i++) {
        struct client c = client_new(false);
        client_say(&c, ASK("/echo"));
        client_expect_cut(&c);
    }
    expect_count(&closed, 3);
    assert_int_equal(count_read(&opened), 0);
    expect_count(&edge_stats(edge)->connections, 0);
}

/* More than the queue holds, in one turn, to one who would take it. */
static void test_burst_reaches_a_quick_reader(void **state)
{
    (void)state;
    enum {
        LEN = 10000,
        BURST = 45
    }; /* half as much again as a queue holds: the kernel has the rest */
    static uint8_t bytes[8 + LEN];
    edge_up(&relaxed, false);
    struct client c = client_at(ASK("/stream"), false, 200);
    atomic_store(&want_a_turn, BURST);
    say_frames(BURST, LEN);
    for (uint32_t i = 1; i <= BURST; i++)
        client_hear_bytes(&c, bytes, sizeof bytes);
    assert_int_equal(count_read(&edge_stats(edge)->frames_dropped), 0);
    client_close(&c);
}

/* Says something and is gone: its connection has something to send when it is found dead. */
static void test_dead_while_it_is_spoken_to(void **state)
{
    (void)state;
    struct linger reset = {.l_onoff = 1};
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        for (int i = 0; i < 100; i++) {
            struct client c = client_echo(tls);
            assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
            client_say(&c, "a");
            client_close(&c);
        }
        expect_all_closed(100);
        struct client c[4]; /* each has a place of its own */
        for (int i = 0; i < 4; i++)
            c[i] = client_echo(tls);
        for (int i = 0; i < 4; i++) {
            client_say(&c[i], "still here");
            client_expect(&c[i], "still here");
            client_close(&c[i]);
        }
        expect_all_closed(104);
        edge_down(NULL);
    }
}

/* --- time --- */

static void test_deadlines_of_a_protocol(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    struct client c = client_echo(false);
    for (int i = 0; i < 2; i++) { /* again when it is set again */
        int64_t start_ms = now_ms();
        client_say(&c, "soon");
        client_expect(&c, "time");
        expect_between(now_ms() - start_ms, 95, 600);
    }
    struct pollfd quiet = {.fd = c.fd, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 300), 0); /* and not of itself */
    client_close(&c);

    c = client_at(ASK("/quit"), false, 101);
    int64_t start_ms = now_ms();
    client_expect(&c, "late");
    client_expect_end(&c);
    expect_between(now_ms() - start_ms, 250, 900);
    expect_all_closed(2);
    assert_int_equal(count_read(&edge_stats(edge)->timeouts), 0);
}

/* Neither the time of heads nor that of idling is for protocols. */
static void test_quiet_protocol_may_last(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = limits.idle_ms = limits.write_ms = limits.stuck_ms = 100;
    edge_up(&limits, false);
    struct client c = client_echo(false);
    poll(NULL, 0, 500);
    client_say(&c, "still here");
    client_expect(&c, "still here");
    client_close(&c);
}

/* --- ends --- */

static void test_last_words_are_heard(void **state)
{
    (void)state;
    static uint8_t bytes[2 * FRAME_MAX];
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        struct client c = client_at(ASK("/quit"), tls, 101);
        client_say(&c, "quit");
        expect_count(&closed, 1); /* it is over at once, for the protocol */
        poll(NULL, 0, 50);
        client_hear_bytes(&c, bytes, sizeof bytes);
        client_expect(&c, "bye");
        client_expect_end(&c);
        expect_all_closed(1);

        c = client_at(ASK("/never"), tls, 101);
        client_expect(&c, "no");
        client_expect_end(&c);
        expect_all_closed(2);
        edge_down(NULL);
    }
}

static void test_ended_from_outside(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    struct client c[3];
    for (int i = 0; i < 3; i++)
        c[i] = client_at(ASK("/stream"), false, 200);
    say_frames(1, 0);
    atomic_store(&want_end, true);
    wake();
    for (int i = 0; i < 3; i++) {
        uint32_t frame[2];
        client_hear_bytes(&c[i], frame, sizeof frame);
        assert_int_equal(frame[0], 1);
        client_expect_end(&c[i]);
    }
    expect_all_closed(3);
}

/* Last words that nobody takes are not kept for ever. */
static void test_last_words_have_their_time(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.write_ms = 300;
    edge_up(&limits, false);
    struct client c = client_at(ASK("/stream"), false, 200);
    say_frames(4000, 10000); /* more than any socket takes */
    for (int ms = 0; ms < LONG_WAIT_MS && atomic_load(&want_frames) > 0; ms++)
        poll(NULL, 0, 1);
    atomic_store(&want_end, true);
    wake();
    expect_all_closed(1);
    assert_int_equal(count_read(&edge_stats(edge)->timeouts), 1);
    client_close(&c);
}

static void test_client_that_leaves_is_noticed_at_once(void **state)
{
    (void)state;
    struct linger reset = {.l_onoff = 1};
    for (int way = 0; way < 4; way++) {
        bool tls = way == 3;
        edge_up(&relaxed, tls);
        struct client c = client_echo(tls);
        int64_t start_ms = now_ms();
        if (way == 0)
            shutdown(c.fd, SHUT_WR);
        if (way == 1)
            assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
        if (way == 3)
            assert_true(SSL_shutdown(c.ssl) >= 0); /* close_notify without a FIN */
        if (way == 1 || way == 2)
            client_close(&c);
        expect_count(&closed, 1);
        expect_between(now_ms() - start_ms, 0, 300);
        if (way == 0 || way == 3)
            client_expect_end(&c);
        expect_all_closed(1);
        edge_down(NULL);
    }
}

static void test_close_tells_every_protocol(void **state)
{
    (void)state;
    edge_up(&relaxed, true);
    struct client c[3];
    for (int i = 0; i < 3; i++)
        c[i] = client_at(i < 2 ? ASK("/stream") : ASK("/quit"), true, i < 2 ? 200 : 101);
    say_frames(1000, 10000);
    poll(NULL, 0, 50);
    edge_down(NULL);
    assert_int_equal(count_read(&closed), 3);
    for (int i = 0; i < 3; i++)
        client_close(&c[i]);
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_head_says_what_comes),
        TEST(test_words_are_echoed),
        TEST(test_words_behind_the_request_are_heard),
        TEST(test_big_frames_come_back_whole),
        TEST(test_many_frames_of_a_turn_come_in_order),
        TEST(test_head_is_never_dropped),
        TEST(test_no_memory_for_the_head),
        TEST(test_burst_reaches_a_quick_reader),
        TEST(test_dead_while_it_is_spoken_to),
        TEST(test_deadlines_of_a_protocol),
        TEST(test_quiet_protocol_may_last),
        TEST(test_last_words_are_heard),
        TEST(test_ended_from_outside),
        TEST(test_last_words_have_their_time),
        TEST(test_client_that_leaves_is_noticed_at_once),
        TEST(test_close_tells_every_protocol),
    };
    return cmocka_run_group_tests(tests, clients_begin, clients_end);
}
