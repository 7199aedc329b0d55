/* edge, answers without an end: a tiny protocol on "/echo" says back what it hears, a stream on
 * "/stream" gets numbered frames from another thread. Slow, stuck and dead readers hurt nobody but
 * themselves. */
#include <stdatomic.h>
#include <sys/eventfd.h>
#include "tests/edge_client.h"

enum { FRAME_MAX = 65536, STREAMS_MAX = 16 };

/* --- the server's side --- */

struct talk {
    struct conn *conn;
    unsigned stream; /* its place in the list */
};

static _Atomic uint64_t opened, closed;

/* Only the edge's thread. */
static struct conn *streams[STREAMS_MAX];
static uint32_t sequence;

/* What the test wants of all streams; taken by the hook. */
static _Atomic unsigned want_frames, want_len, want_a_turn;
static _Atomic bool want_end;
static _Atomic uint64_t hook_calls;

static void talk_closed(void *state)
{
    struct talk *t = state;
    if (t->stream < STREAMS_MAX)
        streams[t->stream] = NULL;
    free(t);
    atomic_fetch_add(&closed, 1);
}

static bool echo_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct talk *t = state;
    t->conn = c;
    atomic_fetch_add(&opened, 1);
    conn_say(c, turn, "hi", 2, "!", 1);
    return true;
}

static bool is_word(const uint8_t *bytes, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(bytes, word, len) == 0;
}

static bool echo_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                       const struct conn_turn *turn)
{
    const struct talk *t = state;
    assert(t->conn == c);
    assert(len <= CONN_INPUT_A_TURN);
    if (is_word(bytes, len, "soon"))
        conn_set_deadline(c, turn->now_ns + 100000000);
    else
        conn_say(c, turn, NULL, 0, bytes, len);
    memset(bytes, 0, len); /* they are ours to change */
    return true;
}

static bool quit_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                       const struct conn_turn *turn)
{
    static char many[FRAME_MAX];
    (void)state;
    if (!is_word(bytes, len, "quit"))
        return true;
    conn_say(c, turn, many, sizeof many, many, sizeof many);
    conn_say(c, turn, "bye", 3, NULL, 0);
    return false;
}

static bool echo_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    conn_say(c, turn, "time", 4, NULL, 0);
    return true;
}

static bool quit_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    conn_say(c, turn, "late", 4, NULL, 0);
    return false;
}

static bool quit_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    atomic_fetch_add(&opened, 1);
    conn_set_deadline(c, turn->now_ns + 300000000);
    return true;
}

static bool flood_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    static const char words[1000];
    (void)state;
    atomic_fetch_add(&opened, 1);
    for (int i = 0; i < 20; i++)
        conn_say(c, turn, words, sizeof words, NULL, 0);
    conn_say(c, turn, "end", 4, NULL, 0);
    return true;
}

static bool never_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    atomic_fetch_add(&opened, 1);
    conn_say(c, turn, "no", 2, NULL, 0);
    return false;
}

static bool stream_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct talk *t = state;
    (void)turn;
    for (t->stream = 0; streams[t->stream]; t->stream++)
        assert(t->stream < STREAMS_MAX);
    streams[t->stream] = c;
    atomic_fetch_add(&opened, 1);
    return true;
}

static bool stream_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                         const struct conn_turn *turn)
{
    (void)c, (void)state, (void)bytes, (void)len, (void)turn;
    return true;
}

static const struct edge_protocol echo = {echo_opened, echo_input, echo_expired, talk_closed},
                                  quit = {quit_opened, quit_input, quit_expired, talk_closed},
                                  flood = {flood_opened, echo_input, echo_expired, talk_closed},
                                  never = {never_opened, echo_input, echo_expired, talk_closed},
                                  stream = {stream_opened, stream_input, echo_expired, talk_closed};

static void handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    static const struct {
        const char *path;
        const struct edge_protocol *protocol;
        int status;
    } paths[] = {{"/echo", &echo, 101},
                 {"/quit", &quit, 101},
                 {"/flood", &flood, 101},
                 {"/never", &never, 101},
                 {"/stream", &stream, 200}};
    (void)arg;
    response->status = 404;
    for (size_t i = 0; i < COUNT(paths); i++) {
        if (!http_text_is(q->http->path, paths[i].path))
            continue;
        struct talk *t = calloc(1, sizeof *t);
        assert_non_null(t);
        t->stream = UINT_MAX;
        response->status = paths[i].status;
        response->fields = "X-Test: yes\r\n";
        response->content_type = response->status == 200 ? "text/event-stream" : NULL;
        response->protocol = paths[i].protocol;
        response->state = t;
    }
}

/* A frame is a number, its length, and as many bytes as the length says. */
static uint64_t hook(void *arg, const struct conn_turn *turn)
{
    static uint8_t bytes[FRAME_MAX];
    (void)arg;
    atomic_fetch_add(&hook_calls, 1);
    uint32_t frame[2] = {0, atomic_load(&want_len)};
    unsigned left = atomic_load(&want_frames), n = atomic_load(&want_a_turn);
    n = left < n ? left : n;
    for (unsigned i = 0; i < n; i++) {
        frame[0] = ++sequence;
        for (unsigned s = 0; s < STREAMS_MAX; s++)
            if (streams[s])
                conn_say(streams[s], turn, frame, sizeof frame, bytes, frame[1]);
    }
    if (n > 0)
        atomic_fetch_sub(&want_frames, n);
    if (atomic_exchange(&want_end, false)) {
        for (unsigned s = 0; s < STREAMS_MAX; s++) {
            if (!streams[s])
                continue;
            conn_end(streams[s], turn);
            conn_end(streams[s], turn); /* no more than once */
            conn_say(streams[s], turn, "unheard", 7, NULL, 0);
        }
    }
    return left > n ? turn->now_ns + 200000 : UINT64_MAX;
}

static void edge_up(const struct edge_limits *limits, bool tls)
{
    atomic_store(&opened, 0);
    atomic_store(&closed, 0);
    atomic_store(&want_frames, 0);
    atomic_store(&want_a_turn, 8); /* as a network might bring them */
    sequence = 0;
    struct edge_listener l = {.tls = tls, .is_public = true, .handler = handler};
    edge_open_at("127.0.0.1:0", l, limits);
    if (tls)
        edge_set_tls(edge, tls_new());
    edge_set_turn(edge, hook, NULL);
    assert_int_equal(edge_start(edge), 0);
}

static void wake(void)
{
    assert_int_equal(eventfd_write(edge_wake_fd(edge), 1), 0);
}

static void say_frames(unsigned count, unsigned len)
{
    atomic_store(&want_len, len);
    atomic_store(&want_frames, count);
    wake();
}

static void expect_all_closed(uint64_t count)
{
    expect_count(&closed, count);
    assert_int_equal(count_read(&opened), count);
    expect_count(&edge_stats(edge)->connections, 0);
    expect_count(&edge_stats(edge)->queued_bytes, 0);
}

/* --- the client's side --- */

#define ASK(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static struct client client_at(const char *request, bool tls, int status)
{
    char head[1024];
    struct client c = client_new(tls);
    client_say(&c, request);
    assert_int_equal(client_hear_head(&c, head), status);
    assert_non_null(strstr(head, "\r\nX-Test: yes\r\n"));
    assert_null(strstr(head, "Content-Length"));
    return c;
}

static struct client client_echo(bool tls)
{
    struct client c = client_at(ASK("/echo"), tls, 101);
    client_expect(&c, "hi!");
    return c;
}

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
    static uint8_t bytes[8 + 10000];
    edge_up(&relaxed, false);
    struct client c = client_at(ASK("/stream"), false, 200);
    atomic_store(&want_a_turn, 60);
    say_frames(60, 10000);
    for (uint32_t i = 1; i <= 60; i++)
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

/* --- slow readers --- */

static void small_window(int fd)
{
    int size = 65536;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

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
    atomic_store(&want_a_turn, 100);
    say_frames(10000, 4000);
    for (int i = 0; i < 8; i++) {
        poll(NULL, 0, 200);
        client_hear_bytes(&slow, bytes, sizeof bytes);
        printf("queued %lu dropped %lu want %u\n", count_read(&edge_stats(edge)->queued_bytes), count_read(&edge_stats(edge)->frames_dropped), atomic_load(&want_frames));
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
        TEST(test_slow_reader_loses_its_oldest_only),
        TEST(test_stuck_reader_is_cut),
        TEST(test_slow_reader_is_not_stuck),
        TEST(test_full_pool_spares_protocols),
        TEST(test_a_thousand_at_once),
        TEST(test_hook_is_called_when_woken),
    };
    return cmocka_run_group_tests(tests, clients_begin, clients_end);
}
