/* edge, requests with a body: only as long as announced, only as long as allowed, only as slow. */
#include "tests/edge_rig.h"

static size_t longest; /* body that the handler has seen; read once the edge is closed */

/* Says the path and the body back. */
static void handler(void *arg, const struct edge_request *request, struct edge_response *response)
{
    (void)arg;
    const struct http_text *path = &request->http->path;
    size_t len = path->len + 1 + request->body_len;
    response->status = 200;
    response->body = malloc(len);
    response->body_len = len;
    assert_non_null(response->body);
    memcpy(response->body, path->at, path->len);
    response->body[path->len] = ' ';
    if (request->body_len > 0)
        memcpy(response->body + path->len + 1, request->body, request->body_len);
    if (request->body_len > longest)
        longest = request->body_len;
}

static void edge_up(const struct edge_limits *limits)
{
    edge_open_at("127.0.0.1:0", (struct edge_listener){.handler = handler}, limits);
    assert_int_equal(edge_start(edge), 0);
}

#define POST(len) "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: " #len "\r\n"

static const struct {
    const char *name, *pieces[4], *body;
} whole[] = {
    {"with its head", {POST(3) "\r\nabc"}, "/post abc"},
    {"behind its head", {POST(3) "\r\n", "abc"}, "/post abc"},
    {"in pieces", {POST(6) "\r\nab", "cd", "ef"}, "/post abcdef"},
    {"cut in the head", {POST(3) "\r", "\nab", "c"}, "/post abc"},
    {"looks like a request", {POST(32) "\r\n", HELLO}, "/post " HELLO},
    {"empty", {POST(0) "\r\n"}, "/post "},
    {"no length", {"POST /post HTTP/1.1\r\nHost: a\r\n\r\n"}, "/post "},
    {"leading zeros", {POST(003) "\r\nabc"}, "/post abc"},
};

/* Whatever came as a body is no request, and what came behind it is one. */
static void test_body_arrives_whole(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (size_t i = 0; i < COUNT(whole); i++) {
        int fd = dial();
        for (int n = 0; n < 4 && whole[i].pieces[n]; n++) {
            if (n > 0)
                poll(NULL, 0, 10);
            say(fd, whole[i].pieces[n]);
        }
        struct answer a = hear(fd);
        if (a.status != 200 || strcmp(a.body, whole[i].body) != 0)
            fail_msg("%s: %d '%s'", whole[i].name, a.status, a.body);
        assert_string_equal(ask(fd, HELLO).body, "/hello ");
        close(fd);
    }
    assert_int_equal(count_read(&edge_stats(edge)->requests), 2 * COUNT(whole));
    assert_int_equal(count_read(&edge_stats(edge)->bad_requests), 0);
}

static void test_request_behind_a_body_is_the_next(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    say(fd, POST(3) "\r\nabc" POST(2) "\r\nde" HELLO POST(1) "\r\nf" HELLO);
    assert_string_equal(hear(fd).body, "/post abc");
    assert_string_equal(hear(fd).body, "/post de");
    assert_string_equal(hear(fd).body, "/hello ");
    assert_string_equal(hear(fd).body, "/post f");
    assert_string_equal(hear(fd).body, "/hello ");
    close(fd);
}

static void post_of(int fd, size_t len)
{
    static char body[EDGE_BODY_MAX + 1];
    char head[128];
    memset(body, 'b', sizeof body);
    snprintf(head, sizeof head, "POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
             len);
    say(fd, head);
    say_bytes(fd, body, len);
}

static void test_body_is_at_most_16_kib(void **state)
{
    (void)state;
    longest = 0;
    edge_up(&relaxed);
    int fd = dial();
    post_of(fd, EDGE_BODY_MAX);
    struct answer a = hear(fd);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_len, strlen("/long ") + EDGE_BODY_MAX);
    post_of(fd, EDGE_BODY_MAX + 1);
    assert_int_equal(hear(fd).status, 413);
    expect_end(fd);
    assert_int_equal(count_read(&edge_stats(edge)->bad_requests), 1);
    edge_down(NULL);
    assert_int_equal(longest, EDGE_BODY_MAX);
}

/* Refused by its length alone: the client need not send it. */
static void test_long_body_is_refused_unread(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    struct answer a = ask(fd, POST(16385) "Expect: 100-continue\r\n\r\n");
    assert_int_equal(a.status, 413); /* and no "100 Continue" before it */
    expect_end_now(fd);
}

/* --- Expect: 100-continue --- */

#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

static void hear_continue(int fd)
{
    char text[sizeof CONTINUE] = "";
    assert_int_equal(recv(fd, text, sizeof CONTINUE - 1, MSG_WAITALL), sizeof CONTINUE - 1);
    assert_string_equal(text, CONTINUE);
}

static void test_client_that_asks_is_told_to_go_on(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    for (int i = 0; i < 2; i++) { /* as often as it asks */
        say(fd, POST(3) "Expect: 100-continue\r\n\r\n");
        hear_continue(fd);
        say(fd, "abc");
        assert_string_equal(hear(fd).body, "/post abc");
    }
    close(fd);
}

static const struct {
    const char *name, *request, *body;
} untold[] = {
    {"body is there", POST(3) "Expect: 100-continue\r\n\r\nabc", "/post abc"},
    {"body has begun", POST(3) "Expect: 100-continue\r\n\r\na", "/post abc"},
    {"no body", POST(0) "Expect: 100-continue\r\n\r\n", "/post "},
};

static void test_who_does_not_wait_is_told_nothing(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (size_t i = 0; i < COUNT(untold); i++) {
        int fd = dial();
        say(fd, untold[i].request);
        if (i == 1) {
            poll(NULL, 0, 50);
            say(fd, "bc");
        }
        struct answer a = hear(fd);
        if (a.status != 200 || strcmp(a.body, untold[i].body) != 0)
            fail_msg("%s: %d '%s'", untold[i].name, a.status, a.body);
        close(fd);
    }
}

/* --- time --- */

static void test_dripping_body_is_cut_at_the_deadline(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.body_ms = 300;
    edge_up(&limits);
    int fd = dial();
    char byte;
    say(fd, POST(1000) "\r\n");
    int64_t start_ms = now_ms();
    while (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
        (void)send(fd, "a", 1, MSG_NOSIGNAL); /* fails once we are cut */
        poll(NULL, 0, 20);
        assert_true(now_ms() - start_ms < 2000);
    }
    expect_between(now_ms() - start_ms, 280, 1000);
    close(fd);
    expect_count(&edge_stats(edge)->timeouts, 1);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
}

static void test_body_that_never_comes_is_cut(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.body_ms = 300;
    edge_up(&limits);
    int fd = dial();
    int64_t start_ms = now_ms();
    say(fd, POST(3) "Expect: 100-continue\r\n\r\n");
    hear_continue(fd);
    expect_cut(fd);
    expect_between(now_ms() - start_ms, 280, 1000);
    expect_count(&edge_stats(edge)->timeouts, 1);
    expect_count(&edge_stats(edge)->connections, 0);
}

/* The time of the head is not that of the body. */
static void test_slow_body_within_its_time_is_served(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 200;
    edge_up(&limits);
    int fd = dial();
    say(fd, POST(2) "\r\na");
    poll(NULL, 0, 500);
    say(fd, "b");
    assert_string_equal(hear(fd).body, "/post ab");
    close(fd);
}

static void test_client_that_leaves_in_its_body_is_forgotten(void **state)
{
    (void)state;
    edge_up(&relaxed);
    int fd = dial();
    say(fd, POST(3) "\r\na");
    expect_count(&edge_stats(edge)->connections, 1);
    close(fd);
    expect_count(&edge_stats(edge)->connections, 0);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_body_arrives_whole),
        TEST(test_request_behind_a_body_is_the_next),
        TEST(test_body_is_at_most_16_kib),
        TEST(test_long_body_is_refused_unread),
        TEST(test_client_that_asks_is_told_to_go_on),
        TEST(test_who_does_not_wait_is_told_nothing),
        TEST(test_dripping_body_is_cut_at_the_deadline),
        TEST(test_body_that_never_comes_is_cut),
        TEST(test_slow_body_within_its_time_is_served),
        TEST(test_client_that_leaves_in_its_body_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
