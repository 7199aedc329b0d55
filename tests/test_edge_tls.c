/* edge, TLS: requests through it, clients that shake hands badly or slowly, what it may cost. */
#include "tests/edge_client.h"

enum { BIG = 4 << 20 };

/* "/exporter" says the channel binding, all else is an echo of path and body. */
static void handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    (void)arg;
    const struct http_text *path = &q->http->path;
    size_t len = path->len + q->body_len;
    if (http_text_is(*path, "/big"))
        len = BIG;
    if (http_text_is(*path, "/exporter"))
        len = TLS_EXPORTER_LEN;
    response->status = 200;
    response->body = calloc(1, len);
    response->body_len = len;
    assert_non_null(response->body);
    if (http_text_is(*path, "/exporter")) {
        if (!conn_exporter(q->conn, (uint8_t *)response->body))
            response->status = 404;
    } else if (len != BIG) {
        memcpy(response->body, path->at, path->len);
        if (q->body_len > 0)
            memcpy(response->body + path->len, q->body, q->body_len);
    }
}

static void edge_up_as(struct edge_listener l, const struct edge_limits *limits)
{
    l.handler = handler;
    edge_open_at("127.0.0.1:0", l, limits);
    if (l.tls)
        edge_set_tls(edge, tls_new());
    assert_int_equal(edge_start(edge), 0);
}

static void edge_up(const struct edge_limits *limits)
{
    edge_up_as((struct edge_listener){.tls = true, .is_public = true}, limits);
}

static void expect_served(struct client *c)
{
    char body[256];
    client_say(c, HELLO);
    assert_int_equal(client_hear(c, body), 200);
    assert_string_equal(body, "/hello");
}

/* --- what is served --- */

static void test_both_versions_are_served(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    edge_up(&relaxed);
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct client c = {.fd = dial()};
        SSL_CTX_set_max_proto_version(client_context, versions[i]);
        assert_true(client_shakes_hands(&c));
        assert_int_equal(SSL_version(c.ssl), versions[i]);
        expect_served(&c);
        expect_served(&c);
        client_close(&c);
    }
    SSL_CTX_set_max_proto_version(client_context, 0);
    expect_count(&edge_stats(edge)->connections, 0);
    assert_int_equal(count_read(&edge_stats(edge)->handshakes), 2);
    assert_int_equal(count_read(&edge_stats(edge)->handshake_failures), 0);
}

/* Requests that lie in one record are in our memory, where epoll cannot see them. */
static void test_requests_in_one_record_are_all_answered(void **state)
{
    (void)state;
    edge_up(&relaxed);
    enum { N = 200 };
    static char text[N * 64];
    char body[256], path[32];
    size_t len = 0;
    for (int i = 0; i < N; i++)
        len +=
            (size_t)sprintf(text + len, "GET /%d HTTP/1.1\r\nHost: pipelined.example\r\n\r\n", i);
    assert_true(len > HTTP_HEAD_MAX && len < 16384);
    struct client c = client_new(true);
    client_say_bytes(&c, text, len);
    for (int i = 0; i < N; i++) {
        snprintf(path, sizeof path, "/%d", i);
        assert_int_equal(client_hear(&c, body), 200);
        assert_string_equal(body, path);
    }
    client_close(&c);
}

static void test_records_of_single_bytes_make_a_request(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct client c = client_new(true);
    char body[256];
    for (const char *at = HELLO; *at; at++)
        client_say_bytes(&c, at, 1);
    assert_int_equal(client_hear(&c, body), 200);
    assert_string_equal(body, "/hello");
    client_close(&c);
}

static void test_body_comes_through(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct client c = client_new(true);
    char body[256];
    client_say(&c, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                   "Expect: 100-continue\r\n\r\n");
    client_expect(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    client_say(&c, "ab");
    client_say(&c, "cd" HELLO);
    assert_int_equal(client_hear(&c, body), 200);
    assert_string_equal(body, "/pabcd");
    assert_int_equal(client_hear(&c, body), 200);
    assert_string_equal(body, "/hello");
    client_close(&c);
}

static void test_big_answer_arrives_whole(void **state)
{
    (void)state;
    edge_up(&relaxed);
    static char bytes[BIG];
    char head[1024];
    struct client c = client_new(true);
    client_say(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(client_hear_head(&c, head), 200);
    poll(NULL, 0, 50); /* until the socket is full */
    client_hear_bytes(&c, bytes, sizeof bytes);
    expect_served(&c);
    client_close(&c);
}

/* With close_notify: whoever listens can tell the end from a cut. */
static void test_connection_ends_in_order(void **state)
{
    (void)state;
    edge_up(&relaxed);
    static const char *const requests[] = {
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "nonsense\r\n\r\n"};
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct client c = client_new(true);
        char body[256];
        client_say(&c, requests[i]);
        assert_int_equal(client_hear(&c, body), i == 0 ? 200 : 400);
        client_expect_end(&c);
    }
    expect_count(&edge_stats(edge)->connections, 0);
}

static void test_channel_binding_is_the_clients(void **state)
{
    (void)state;
    uint8_t ours[TLS_EXPORTER_LEN], theirs[TLS_EXPORTER_LEN];
    char head[1024];
    edge_up(&relaxed);
    struct client c = client_new(true);
    assert_int_equal(SSL_export_keying_material(c.ssl, ours, sizeof ours,
                                                "EXPORTER-Channel-Binding", 24, NULL, 0, 0),
                     1);
    client_say(&c, "GET /exporter HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(client_hear_head(&c, head), 200);
    client_hear_bytes(&c, theirs, sizeof theirs);
    assert_memory_equal(ours, theirs, sizeof ours);
    client_close(&c);
}

static void test_without_tls_there_is_no_channel_binding(void **state)
{
    (void)state;
    char head[1024];
    edge_up_as((struct edge_listener){.is_public = true}, &relaxed);
    struct client c = client_new(false);
    client_say(&c, "GET /exporter HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(client_hear_head(&c, head), 404);
    client_close(&c);
}

/* --- bad hands --- */

#define ZEROS "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

static const struct {
    const char *name, *bytes;
    size_t len;
} garbage[] = {
    {"HTTP", HELLO, sizeof HELLO - 1},
    {"zeros", ZEROS, sizeof ZEROS - 1},
    {"an alert", "\x15\x03\x01\x00\x02\x02\x28", 7},
    {"an application record", "\x17\x03\x03\x00\x04gggg", 9},
    {"a record too long", "\x16\x03\x01\xff\xff\x01\x00\x00\x00", 9},
    {"not a ClientHello", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9},
    {"an empty ClientHello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9},
    {"SSL 2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80" ZEROS,
     17 + 32},
    {"PROXY", "PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n", 38},
    {"an end in the middle", NULL, 0},
};

static void test_garbage_is_cut_at_once(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (size_t i = 0; i < COUNT(garbage); i++) {
        int fd = dial();
        char bytes[64];
        ssize_t n;
        int64_t start_ms = now_ms();
        if (garbage[i].bytes) {
            say_bytes(fd, garbage[i].bytes, garbage[i].len);
        } else {
            say_bytes(fd, "\x16\x03\x01\x01\x00\x01", 6);
            shutdown(fd, SHUT_WR);
        }
        while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
            ; /* an alert */
        if (now_ms() - start_ms > 1000)
            fail_msg("%s: %d ms", garbage[i].name, (int)(now_ms() - start_ms));
        close(fd);
    }
    expect_count(&edge_stats(edge)->connections, 0);
    assert_int_equal(count_read(&edge_stats(edge)->handshake_failures), COUNT(garbage));
    assert_int_equal(count_read(&edge_stats(edge)->handshakes), 0);
    struct client c = client_new(true);
    expect_served(&c);
    client_close(&c);
}

static void test_old_versions_are_refused(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct client c = {.fd = dial()};
    SSL_CTX_set_security_level(client_context, 0);
    SSL_CTX_set_max_proto_version(client_context, TLS1_1_VERSION);
    bool shook = client_shakes_hands(&c);
    SSL_CTX_set_max_proto_version(client_context, 0);
    SSL_CTX_set_security_level(client_context, 1);
    assert_false(shook);
    client_close(&c);
    expect_count(&edge_stats(edge)->handshake_failures, 1);
}

static void test_dripping_handshake_is_cut_at_the_deadline(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 300;
    edge_up(&limits);
    int fd = dial();
    int64_t start_ms = now_ms();
    char byte;
    say_bytes(fd, "\x16\x03\x01\x01\x00", 5); /* a ClientHello of 256 bytes */
    while (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
        (void)send(fd, "\x01", 1, MSG_NOSIGNAL); /* fails once we are cut */
        poll(NULL, 0, 20);
        assert_true(now_ms() - start_ms < 2000);
    }
    expect_between(now_ms() - start_ms, 290, 1000);
    close(fd);
    expect_count(&edge_stats(edge)->timeouts, 1);
}

static void test_silence_before_and_after_the_handshake(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 400;
    edge_up(&limits);
    int64_t start_ms = now_ms();
    expect_cut(dial());
    expect_between(now_ms() - start_ms, 390, 1000);

    start_ms = now_ms();
    int fd = dial();
    poll(NULL, 0, 250);
    struct client c = client_of(fd, true); /* from here on the head has its own time */
    client_expect_cut(&c);
    expect_between(now_ms() - start_ms, 640, 1500);
    expect_count(&edge_stats(edge)->timeouts, 2);
    assert_int_equal(count_read(&edge_stats(edge)->handshakes), 1);
}

/* Those who never say anything hold the places, but not against newcomers. */
static void test_silent_clients_give_way(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.connections = 4;
    edge_up(&limits);
    int silent[8];
    for (size_t i = 0; i < COUNT(silent); i++)
        silent[i] = dial();
    expect_count(&edge_stats(edge)->accepted, COUNT(silent));
    for (int i = 0; i < 4; i++) {
        struct client c = client_new(true);
        expect_served(&c);
        client_close(&c);
    }
    for (size_t i = 0; i < COUNT(silent); i++)
        close(silent[i]);
}

/* --- the budget --- */

static struct client dial_from(const char *from)
{
    struct client c = {.fd = client_socket(AF_INET)};
    client_connect(c.fd, from);
    return c;
}

static void expect_handshakes(const char *from, int good, int bad)
{
    for (int i = 0; i < good + bad; i++) {
        struct client c = dial_from(from);
        int64_t start_ms = now_ms();
        bool shook = client_shakes_hands(&c);
        if (shook != (i < good))
            fail_msg("handshake %d of %s", i, from);
        assert_true(now_ms() - start_ms < 1000);
        client_close(&c);
    }
}

static void test_source_has_its_handshakes(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.handshakes = (struct rate){.per_s = 1, .burst = 3};
    edge_up(&limits);
    expect_handshakes("127.0.0.1", 3, 2);
    expect_handshakes("127.0.0.2", 3, 1); /* others have theirs */
    expect_count(&edge_stats(edge)->handshakes_limited, 3);
    assert_int_equal(count_read(&edge_stats(edge)->handshakes), 6);
    assert_int_equal(count_read(&edge_stats(edge)->accepted), 6);
    assert_int_equal(count_read(&edge_stats(edge)->refused), 0);
    poll(NULL, 0, 1100);
    expect_handshakes("127.0.0.1", 1, 1); /* one a second */
}

/* And who has none left does not take from the budget of all. */
static void test_all_have_their_handshakes(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.handshakes = (struct rate){.per_s = 1, .burst = 3};
    limits.handshakes_total = (struct rate){.per_s = 1, .burst = 5};
    edge_up(&limits);
    expect_handshakes("127.0.0.1", 3, 9);
    expect_handshakes("127.0.0.2", 2, 1);
    expect_handshakes("127.0.0.3", 0, 1);
    expect_count(&edge_stats(edge)->handshakes_limited, 11);
}

static void test_refused_connections_cost_no_handshake(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.per_ipv4 = 1;
    limits.handshakes = (struct rate){.per_s = 1, .burst = 2};
    edge_up(&limits);
    struct client c = client_new(true);
    for (int i = 0; i < 5; i++)
        expect_cut(dial());
    expect_count(&edge_stats(edge)->refused, 5);
    client_close(&c);
    expect_count(&edge_stats(edge)->connections, 0);
    expect_handshakes("127.0.0.1", 1, 1);
}

static void test_only_public_listeners_have_a_budget(void **state)
{
    (void)state;
    static const struct edge_listener free_of_it[] = {{.tls = true}, {.is_public = true}};
    struct edge_limits limits = relaxed;
    limits.handshakes = (struct rate){.per_s = 1, .burst = 1};
    limits.handshakes_total = (struct rate){.per_s = 1, .burst = 1};
    for (size_t i = 0; i < COUNT(free_of_it); i++) {
        edge_up_as(free_of_it[i], &limits);
        for (int n = 0; n < 5; n++) {
            struct client c = client_new(free_of_it[i].tls);
            expect_served(&c);
            client_close(&c);
        }
        assert_int_equal(count_read(&edge_stats(edge)->handshakes_limited), 0);
        edge_down(NULL);
    }
}

/* --- another certificate --- */

static void test_certificate_is_replaced(void **state)
{
    (void)state;
    edge_up(&relaxed);
    struct client old = client_new(true);
    X509 *before = SSL_get1_peer_certificate(old.ssl);
    edge_set_tls(edge, tls_new()); /* perhaps never taken */
    edge_set_tls(edge, tls_new());
    uint64_t tick_ns = edge_tick_ns(edge);
    for (int ms = 0; ms < LONG_WAIT_MS && edge_tick_ns(edge) == tick_ns; ms++)
        poll(NULL, 0, 1);
    struct client new = client_new(true);
    X509 *after = SSL_get1_peer_certificate(new.ssl);
    assert_int_not_equal(X509_cmp(before, after), 0);
    expect_served(&old);
    expect_served(&new);
    X509_free(before);
    X509_free(after);
    client_close(&old);
    client_close(&new);
}

/* While it is replaced over and over, every handshake succeeds. */
static void test_reloads_fail_no_handshake(void **state)
{
    (void)state;
    edge_up(&relaxed);
    for (int i = 0; i < 50; i++) {
        edge_set_tls(edge, tls_new());
        struct client c = client_new(true);
        expect_served(&c);
        client_close(&c);
    }
    assert_int_equal(count_read(&edge_stats(edge)->handshake_failures), 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_both_versions_are_served),
        TEST(test_requests_in_one_record_are_all_answered),
        TEST(test_records_of_single_bytes_make_a_request),
        TEST(test_body_comes_through),
        TEST(test_big_answer_arrives_whole),
        TEST(test_connection_ends_in_order),
        TEST(test_channel_binding_is_the_clients),
        TEST(test_without_tls_there_is_no_channel_binding),
        TEST(test_garbage_is_cut_at_once),
        TEST(test_old_versions_are_refused),
        TEST(test_dripping_handshake_is_cut_at_the_deadline),
        TEST(test_silence_before_and_after_the_handshake),
        TEST(test_silent_clients_give_way),
        TEST(test_source_has_its_handshakes),
        TEST(test_all_have_their_handshakes),
        TEST(test_refused_connections_cost_no_handshake),
        TEST(test_only_public_listeners_have_a_budget),
        TEST(test_certificate_is_replaced),
        TEST(test_reloads_fail_no_handshake),
    };
    return cmocka_run_group_tests(tests, clients_begin, clients_end);
}
