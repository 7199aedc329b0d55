/* edge - a real edge on the loopback interface, driven over real sockets: what is served, what is
 * refused, and that no client can hold what belongs to others. The .c is included to take its spare
 * descriptor away. */
#include "wss/edge.c"
#include "tests/edge_rig.h"

enum { BIG = 16 << 20 };

/* --- the server's side --- */

static void handler(void *arg, const struct edge_request *request, struct edge_response *response)
{
    const struct http_request *q = request->http;
    (void)arg;
    if (q->method != HTTP_GET && q->method != HTTP_HEAD) {
        response->status = 405;
        response->allow = "GET, HEAD";
        return;
    }
    if (http_text_is(q->path, "/nothing")) {
        response->status = 404;
        return;
    }
    size_t len = http_text_is(q->path, "/big") ? BIG : q->path.len;
    response->status = 200;
    response->content_type = "text/plain";
    response->body = malloc(len);
    response->body_len = len;
    assert_non_null(response->body);
    if (len == BIG)
        memset(response->body, 'x', len);
    else
        memcpy(response->body, q->path.at, len); /* an echo: answers can be told apart */
}

static void edge_up_at(const char *at, const struct edge_limits *limits)
{
    edge_open_at(at, (struct edge_listener){.handler = handler, .is_public = true}, limits);
    assert_int_not_equal(port, 0);
}

static void edge_up(const struct edge_limits *limits)
{
    edge_up_at("127.0.0.1:0", limits);
    assert_int_equal(edge_start(edge), 0);
}

/* --- what is served --- */

static void test_request_is_answered(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    struct answer a = ask(fd, HELLO);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "/hello");
    assert_non_null(strstr(a.head, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(a.head, "\r\nContent-Type: text/plain\r\n"));
    expect_count(&edge_stats(edge)->connections, 1);
    close(fd);
    expect_count(&edge_stats(edge)->connections, 0);
    assert_int_equal(count_read(&edge_stats(edge)->accepted), 1);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 1);
    assert_int_equal(count_read(&edge_stats(edge)->bad_requests), 0);
}

static void test_head_has_no_body(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    struct answer a;
    say(fd, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(hear_head(fd, &a));
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_len, 6); /* what GET would send */
    /* A body would stand before the next answer. */
    assert_string_equal(ask(fd, HELLO).body, "/hello");
    close(fd);
}

static const struct {
    const char *name, *request;
    int status;
    bool stays;
} good[] = {
    {"1.1 stays open", HELLO, 200, true},
    {"1.1 with close", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, false},
    {"1.0", "GET /x HTTP/1.0\r\n\r\n", 200, false},
    {"1.0 with keep-alive", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, true},
    {"not found", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, true},
    {"empty body", "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, true},
    {"post", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405, true},
    {"delete", "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405, true},
};

static void test_connection_stays_or_ends(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int fd = dial();
        struct answer a = ask(fd, good[i].request);
        if (a.status != good[i].status)
            fail_msg("%s: %d", good[i].name, a.status);
        assert_int_equal(a.status == 405, strstr(a.head, "\r\nAllow: GET, HEAD\r\n") != NULL);
        if (!good[i].stays) {
            expect_end_now(fd);
            continue;
        }
        assert_string_equal(ask(fd, HELLO).body, "/hello");
        close(fd);
    }
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    edge_up(&relaxed);
    enum { N = 200 }; /* more than one buffer of ours */
    char *text = calloc(N, 64), path[32];
    assert_non_null(text);
    size_t len = 0;
    for (int i = 0; i < N; i++)
        len +=
            (size_t)sprintf(text + len, "GET /%d HTTP/1.1\r\nHost: pipelined.example\r\n\r\n", i);
    assert_true(len > HTTP_HEAD_MAX);
    int fd = dial();
    say_bytes(fd, text, len);
    for (int i = 0; i < N; i++) {
        snprintf(path, sizeof path, "/%d", i);
        assert_string_equal(hear(fd).body, path);
    }
    free(text);
    close(fd);
    assert_int_equal(count_read(&edge_stats(edge)->requests), N);
}

static void test_head_may_come_in_single_bytes(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    for (const char *at = HELLO; *at; at++) {
        say_bytes(fd, at, 1);
        poll(NULL, 0, 1);
    }
    assert_string_equal(hear(fd).body, "/hello");
    close(fd);
}

static void test_half_closed_client_gets_its_answer(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    say(fd, HELLO HELLO);
    shutdown(fd, SHUT_WR);
    assert_string_equal(hear(fd).body, "/hello");
    assert_string_equal(hear(fd).body, "/hello");
    expect_end(fd);
}

static void test_big_answer_arrives_whole(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    struct answer a = ask(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(a.body_len, BIG);
    assert_string_equal(ask(fd, HELLO).body, "/hello");
    close(fd);
}

/* --- what is refused --- */

#define GET "GET /x HTTP/1.1\r\n"
#define POST "POST /x HTTP/1.1\r\nHost: a\r\n"

static const struct {
    const char *name, *request;
    int status;
} bad[] = {
    {"two lengths", POST "Content-Length: 1\r\nContent-Length: 40\r\n\r\n", 400},
    {"two equal lengths", POST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400},
    {"length list", POST "Content-Length: 0, 0\r\n\r\n", 400},
    {"signed length", POST "Content-Length: +5\r\n\r\n", 400},
    {"negative length", POST "Content-Length: -1\r\n\r\n", 400},
    {"empty length", POST "Content-Length:\r\n\r\n", 400},
    {"bare LF", "GET /x HTTP/1.1\nHost: a\n\n", 400},
    {"bare LF after a field", GET "Host: a\n\r\n", 400},
    {"no Host", GET "\r\n", 400},
    {"two Hosts", GET "Host: a\r\nHost: b\r\n\r\n", 400},
    {"blank before the colon", GET "Host : a\r\n\r\n", 400},
    {"folded field", GET "Host: a\r\nX: 1\r\n 2\r\n\r\n", 400},
    {"field without a name", GET "Host: a\r\n: 1\r\n\r\n", 400},
    {"control byte", GET "Host: a\r\nX: \x01\r\n\r\n", 400},
    {"not HTTP", "\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n", 400},
    {"old HTTP", "GET /x\r\n\r\n", 400},
    {"other version", "GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"chunked", POST "Transfer-Encoding: chunked\r\n\r\n", 501},
    {"unknown coding", POST "Transfer-Encoding: magic\r\n\r\n", 501},
    {"a body that is too long", POST "Content-Length: 16385\r\n\r\n", 413},
    {"a body with PUT", "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n", 413},
    {"a body with HEAD", "HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n", 413},
    {"a body with GET", GET "Host: a\r\nContent-Length: 36\r\n\r\n", 413},
};

/* Behind each stands a request that must not be seen as one. */
static void test_bad_request_ends_the_connection(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = dial();
        say(fd, bad[i].request);
        say(fd, HELLO);
        struct answer a = hear(fd);
        if (a.status != bad[i].status)
            fail_msg("%s: %d", bad[i].name, a.status);
        assert_non_null(strstr(a.head, "\r\nConnection: close\r\n"));
        expect_end_now(fd);
    }
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
    assert_int_equal(count_read(&edge_stats(edge)->bad_requests), sizeof bad / sizeof *bad);
}

static void test_length_and_coding_together_are_refused(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    int status =
        ask(fd, POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HELLO)
            .status;
    assert_true(status == 400 || status == 501);
    expect_end(fd);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
}

/* The answer must not be lost to a reset because the body was never read. */
static void test_refusal_reaches_a_client_that_is_sending(void **state)
{
    (void)state;
    edge_up(&relaxed);
    static char body[CONN_DRAIN_MAX / 2];
    memset(body, 'b', sizeof body);
    int fd = dial();
    say(fd, POST "Content-Length: 32768\r\n\r\n");
    poll(NULL, 0, 50); /* the refusal is out before the body comes */
    say_bytes(fd, body, sizeof body);
    assert_int_equal(hear(fd).status, 413);
    expect_end(fd);
}

static void say_head_of(int fd, size_t len)
{
    static char head[HTTP_HEAD_MAX + 64];
    int n = sprintf(head, "GET /long HTTP/1.1\r\nHost: a\r\nX: ");
    memset(head + n, 'x', len - (size_t)n - 4);
    memcpy(head + len - 4, "\r\n\r\n", 4);
    say_bytes(fd, head, len);
}

static void test_head_is_at_most_8_kib(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    say_head_of(fd, HTTP_HEAD_MAX);
    assert_string_equal(hear(fd).body, "/long");
    say_head_of(fd, HTTP_HEAD_MAX + 1);
    assert_int_equal(hear(fd).status, 431);
    expect_end(fd);
}

/* --- time --- */

static void test_dripping_head_is_cut_at_the_deadline(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 300;
    edge_up(&limits);
    int fd = dial();
    int64_t start_ms = now_ms();
    char byte;
    say(fd, "GET / HTTP/1.1\r\nHost: ");
    while (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
        (void)send(fd, "a", 1, MSG_NOSIGNAL); /* fails once we are cut */
        poll(NULL, 0, 20);
        assert_true(now_ms() - start_ms < 2000);
    }
    expect_between(now_ms() - start_ms, 290, 1000);
    close(fd);
    expect_count(&edge_stats(edge)->timeouts, 1);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
}

static void test_silent_client_is_cut(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 200;
    edge_up(&limits);
    int64_t start_ms = now_ms();
    expect_cut(dial());
    expect_between(now_ms() - start_ms, 190, 1000);
    expect_count(&edge_stats(edge)->timeouts, 1);
}

static void test_idle_connection_ends(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 300;
    limits.idle_ms = 600;
    edge_up(&limits);
    int fd = dial();
    ask(fd, HELLO);
    poll(NULL, 0, 450); /* longer than a head may take, shorter than idling may */
    ask(fd, HELLO);
    int64_t start_ms = now_ms();
    expect_end(fd);
    expect_between(now_ms() - start_ms, 590, 1500);
    assert_int_equal(count_read(&edge_stats(edge)->timeouts), 0);
}

static void test_head_after_idling_has_its_own_deadline(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 200;
    edge_up(&limits);
    int fd = dial();
    ask(fd, HELLO);
    int64_t start_ms = now_ms();
    say(fd, "GET");
    expect_cut(fd);
    expect_between(now_ms() - start_ms, 190, 1000);
    expect_count(&edge_stats(edge)->timeouts, 1);
}

static void test_slow_reader_delays_nobody_and_is_cut(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.write_ms = 500;
    edge_up(&limits);
    int slow = dial();
    int64_t start_ms = now_ms();
    struct answer a;
    say(slow, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(hear_head(slow, &a)); /* building it was the handler's time */
    for (int i = 0; i < 10; i++) {
        int fd = dial();
        int64_t asked_ms = now_ms();
        assert_string_equal(ask(fd, HELLO).body, "/hello");
        expect_between(now_ms() - asked_ms, 0, 200);
        close(fd);
    }
    expect_count(&edge_stats(edge)->timeouts, 1);
    expect_between(now_ms() - start_ms, 490, 1500);
    expect_count(&edge_stats(edge)->connections, 0);
    close(slow);
}

static void test_client_may_leave_during_an_answer(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct linger reset = {.l_onoff = 1};
    for (int i = 0; i < 4; i++) {
        int fd = dial();
        struct answer a;
        say(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(hear_head(fd, &a));
        if (i % 2)
            assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
        close(fd);
    }
    expect_count(&edge_stats(edge)->connections, 0);
    int fd = dial();
    assert_string_equal(ask(fd, HELLO).body, "/hello");
    close(fd);
}

static void test_loop_turns_when_idle(void **state)
{
    (void)state;
    edge_up(&relaxed);
    uint64_t first_ns = edge_tick_ns(edge);
    poll(NULL, 0, 1200);
    uint64_t then_ns = edge_tick_ns(edge);
    assert_true(then_ns > first_ns);
    assert_true(edge_clock_ns() - then_ns < 1100000000);
}

/* --- places --- */

static void test_source_has_its_cap(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.per_ipv4 = 3;
    edge_up(&limits);
    int fd[3], other = client_socket(AF_INET);
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        ask(fd[i], HELLO);
    }
    expect_cut(dial());
    expect_count(&edge_stats(edge)->refused, 1);
    client_connect(other, "127.0.0.2"); /* someone else is served */
    assert_int_equal(ask(other, HELLO).status, 200);
    close(fd[1]);
    expect_count(&edge_stats(edge)->connections, 3);
    fd[1] = dial();
    assert_int_equal(ask(fd[1], HELLO).status, 200);
    assert_int_equal(ask(fd[0], HELLO).status, 200);
    assert_int_equal(ask(fd[2], HELLO).status, 200);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    close(other);
}

/* What only operators reach has caps of its own, which clients of the public do not use up. */
static void test_caps_of_a_private_listener_are_apart(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    struct edge_listener listeners[] = {
        {.name = "public", .handler = handler, .is_public = true},
        {.name = "private", .handler = handler},
    };
    const char *failed;
    int fd[GATE_PER_IPV4], one;
    limits.per_ipv4 = 1;
    for (int i = 0; i < 2; i++)
        assert_true(endpoint_parse("127.0.0.1:0", &listeners[i].at));
    assert_int_equal(edge_open(&edge, listeners, 2, 0, &failed), 0);
    edge_set_limits(edge, &limits);
    assert_int_equal(edge_start(edge), 0);
    port = listeners[0].at.port;
    one = dial();
    assert_int_equal(ask(one, HELLO).status, 200);
    expect_cut(dial());
    port = listeners[1].at.port;
    for (int i = 0; i < GATE_PER_IPV4; i++) {
        fd[i] = dial();
        assert_int_equal(ask(fd[i], HELLO).status, 200);
    }
    expect_cut(dial());
    expect_count(&edge_stats(edge)->refused, 2);
    for (int i = 0; i < GATE_PER_IPV4; i++)
        close(fd[i]);
    close(one);
}

static void test_ipv6_prefix_has_its_cap(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.per_ipv6_64 = 1;
    edge_up_at(":0", &limits);
    assert_int_equal(edge_start(edge), 0);
    int fd = dial6(), v4 = dial();
    assert_int_equal(ask(v4, HELLO).status, 200); /* the wildcard takes both families */
    close(v4);
    if (fd < 0)
        skip();
    assert_int_equal(ask(fd, HELLO).status, 200);
    expect_cut(dial6());
    expect_count(&edge_stats(edge)->refused, 1);
    close(fd);
}

/* The connection that has been idle for longest makes room; who waits for an answer never does. */
static void test_full_pool_makes_room(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.connections = 4;
    edge_up(&limits);
    int fd[4];
    for (int i = 0; i < 4; i++) {
        fd[i] = dial();
        assert_int_equal(ask(fd[i], HELLO).status, 200);
        poll(NULL, 0, 3); /* their ages differ */
    }
    int newcomer = dial();
    assert_int_equal(ask(newcomer, HELLO).status, 200);
    expect_cut(fd[0]);
    expect_count(&edge_stats(edge)->refused, 1);
    expect_count(&edge_stats(edge)->connections, 4);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(ask(fd[i], HELLO).status, 200);
        close(fd[i]);
    }
    close(newcomer);
    assert_int_equal(count_read(&edge_stats(edge)->accepted), 5);
}

/* From here on no descriptor can be opened. Returns what to restore. */
static struct rlimit descriptors_end(void)
{
    struct rlimit before, now;
    int lowest = dup(0);
    assert_true(lowest >= 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    now = before;
    now.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(dup(0), -1);
    return before;
}

static void test_without_descriptors_clients_are_turned_away(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd[3];
    for (int i = 0; i < 3; i++)
        fd[i] = client_socket(AF_INET);
    struct rlimit before = descriptors_end();
    client_connect(fd[0], NULL);
    client_connect(fd[1], NULL);
    expect_count(&edge_stats(edge)->refused, 2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    expect_cut(fd[0]);
    expect_cut(fd[1]);
    client_connect(fd[2], NULL);
    assert_int_equal(ask(fd[2], HELLO).status, 200);
    close(fd[2]);
}

static int64_t cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void test_without_the_spare_the_loop_does_not_spin(void **state)
{
    (void)state;
    edge_up_at("127.0.0.1:0", &relaxed);
    int fd = client_socket(AF_INET);
    close(edge->spare);
    edge->spare = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the number is taken again ... */
    int stolen = edge->spare;
    edge->spare = -1; /* ... but not by the edge */
    struct rlimit before = descriptors_end();
    int err = edge_start(edge);
    client_connect(fd, NULL);
    say(fd, HELLO);
    int64_t start_ms = cpu_ms();
    poll(NULL, 0, 500);
    int64_t used_ms = cpu_ms() - start_ms;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(err, 0);
    expect_between(used_ms, 0, 100);
    assert_string_equal(hear(fd).body, "/hello"); /* it waited in the backlog */
    close(fd);
    close(stolen);
}

/* --- opening and closing --- */

static void test_taken_port_is_an_error_with_a_name(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct edge *second = NULL;
    const char *failed;
    struct edge_listener listeners[] = {
        {.name = "first", .handler = handler},
        {.name = "second", .handler = handler},
    };
    assert_true(endpoint_parse("127.0.0.1:0", &listeners[0].at));
    assert_true(endpoint_parse("127.0.0.1:0", &listeners[1].at));
    listeners[1].at.port = port;
    assert_int_equal(edge_open(&second, listeners, 2, 0, &failed), -EADDRINUSE);
    assert_string_equal(failed, "second");
    assert_null(second);
}

static void test_port_can_be_taken_again_at_once(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    ask(fd, HELLO);
    edge_down(NULL); /* we close first: the connection stays in TIME_WAIT */
    expect_end(fd);
    char at[32];
    snprintf(at, sizeof at, "127.0.0.1:%u", port);
    edge_up_at(at, &relaxed);
}

static void test_close_ends_whatever_is_open(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int idle = dial(), half = dial(), writing = dial(), lingering = dial();
    struct answer a;
    ask(idle, HELLO);
    say(half, "GET /");
    say(writing, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(hear_head(writing, &a));
    ask(lingering, "nonsense\r\n\r\n");
    edge_down(NULL);
    expect_cut(idle);
    expect_cut(half);
    close(writing);
    expect_end(lingering);
}

static void test_open_and_close_without_a_thread(void **state)
{
    (void)state;
    edge_up_at("127.0.0.1:0", &relaxed);
}

/* They stand in two places: an edge can be opened without a configuration. */
static void test_defaults_are_those_of_the_options(void **state)
{
    (void)state;
    static struct config c;
    const char *failed;
    struct edge_listener none = {.name = "test"};
    config_init(&c);
    assert_int_equal(edge_open(&edge, &none, 0, c.wss_sessions, &failed), 0);
    const struct edge_limits *l = edge_limits(edge);
    assert_int_equal(l->connections, EDGE_HTTP_CONNECTIONS + c.wss_sessions);
    assert_int_equal(l->per_ipv4, c.wss_per_ipv4);
    assert_int_equal(l->per_ipv6_64, c.wss_per_ipv6_64);
    assert_int_equal(l->handshakes.per_s, c.wss_handshakes.per_s);
    assert_int_equal(l->handshakes.burst, c.wss_handshakes.burst);
    assert_int_equal(l->handshakes_total.per_s, c.wss_handshakes_total.per_s);
    assert_int_equal(l->handshakes_total.burst, c.wss_handshakes_total.burst);
    assert_int_equal(l->queue_each, c.wss_queue);
    assert_int_equal(l->queue_total, c.wss_queue_total);
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_is_answered),
        TEST(test_head_has_no_body),
        TEST(test_connection_stays_or_ends),
        TEST(test_pipelined_requests_are_answered_in_order),
        TEST(test_head_may_come_in_single_bytes),
        TEST(test_half_closed_client_gets_its_answer),
        TEST(test_big_answer_arrives_whole),
        TEST(test_bad_request_ends_the_connection),
        TEST(test_length_and_coding_together_are_refused),
        TEST(test_refusal_reaches_a_client_that_is_sending),
        TEST(test_head_is_at_most_8_kib),
        TEST(test_dripping_head_is_cut_at_the_deadline),
        TEST(test_silent_client_is_cut),
        TEST(test_idle_connection_ends),
        TEST(test_head_after_idling_has_its_own_deadline),
        TEST(test_slow_reader_delays_nobody_and_is_cut),
        TEST(test_client_may_leave_during_an_answer),
        TEST(test_loop_turns_when_idle),
        TEST(test_source_has_its_cap),
        TEST(test_caps_of_a_private_listener_are_apart),
        TEST(test_ipv6_prefix_has_its_cap),
        TEST(test_full_pool_makes_room),
        TEST(test_without_descriptors_clients_are_turned_away),
        TEST(test_without_the_spare_the_loop_does_not_spin),
        TEST(test_taken_port_is_an_error_with_a_name),
        TEST(test_port_can_be_taken_again_at_once),
        TEST(test_close_ends_whatever_is_open),
        TEST(test_open_and_close_without_a_thread),
        TEST(test_defaults_are_those_of_the_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
