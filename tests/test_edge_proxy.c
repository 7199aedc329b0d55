/* edge, behind a balancer: who is believed, what is taken of the stream, and whose limits apply. */
#include "tests/edge_client.h"

static struct prefixes trusted; /* 127.0.0.1 and nobody else */

static void handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    char text[ENDPOINT_TEXT_MAX];
    (void)arg;
    response->status = 200;
    response->body = strdup(endpoint_format(&q->from, text));
    assert_non_null(response->body);
    response->body_len = strlen(text);
}

static void edge_up_as(struct edge_listener l, const struct edge_limits *limits)
{
    struct edge_limits with = *limits;
    trusted.count = 1;
    trusted.of[0].bits = 32;
    assert_true(endpoint_parse_ip("127.0.0.1", &trusted.of[0].at));
    with.proxies = &trusted;
    l.handler = handler;
    edge_open_at("127.0.0.1:0", l, &with);
    if (l.tls)
        edge_set_tls(edge, tls_new());
    assert_int_equal(edge_start(edge), 0);
}

static void edge_up(const struct edge_limits *limits, bool tls)
{
    edge_up_as((struct edge_listener){.tls = tls, .is_public = true}, limits);
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define V2_IPV4 V2 "\x21\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x9c\x40\x01\xbb"
#define V2_IPV6                                                                                    \
    V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"                                  \
       "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x9c\x40\x01\xbb"
#define V2_TLV V2 "\x21\x11\0\x11\xcb\0\x71\x07\x7f\0\0\x01\x9c\x40\x01\xbb\x01\0\x02h2"
#define V2_LOCAL V2 "\x20\0\0\0"
#define TEXT(x) x, sizeof x - 1

static const struct {
    const char *name, *bytes;
    size_t len;
    const char *from; /* NULL: the proxy's own */
} headers[] = {
    {"1, IPv4", TEXT("PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n"), "203.0.113.7:40000"},
    {"1, IPv6", TEXT("PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n"), "[2001:db8::7]:40000"},
    {"1, unknown", TEXT("PROXY UNKNOWN\r\n"), NULL},
    {"2, IPv4", TEXT(V2_IPV4), "203.0.113.7:40000"},
    {"2, IPv6", TEXT(V2_IPV6), "[2001:db8::7]:40000"},
    {"2, with a TLV", TEXT(V2_TLV), "203.0.113.7:40000"},
    {"2, local", TEXT(V2_LOCAL), NULL},
};

static void expect_from(struct client *c, const char *from, const char *name)
{
    char body[256];
    client_say(c, HELLO);
    if (client_hear(c, body) != 200 ||
        (from ? strcmp(body, from) != 0 : strncmp(body, "127.0.0.1:", 10) != 0))
        fail_msg("%s: '%s'", name, body);
}

/* In one piece and in pieces, and nothing behind the header is taken with it. */
static void test_header_says_who_the_client_is(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        edge_up(&relaxed, tls);
        for (size_t i = 0; i < 2 * COUNT(headers); i++) {
            size_t n = i % COUNT(headers), piece = i < COUNT(headers) ? headers[n].len : 5;
            int fd = dial();
            for (size_t at = 0; at < headers[n].len; at += piece) {
                size_t left = headers[n].len - at;
                say_bytes(fd, headers[n].bytes + at, left < piece ? left : piece);
                if (piece < left)
                    poll(NULL, 0, 3);
            }
            struct client c = client_of(fd, tls);
            expect_from(&c, headers[n].from, headers[n].name);
            expect_from(&c, headers[n].from, headers[n].name); /* for each request */
            client_close(&c);
        }
        expect_count(&edge_stats(edge)->connections, 0);
        assert_int_equal(count_read(&edge_stats(edge)->proxy_bad), 0);
        edge_down(NULL);
    }
}

static void test_request_may_come_with_the_header(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    for (size_t i = 0; i < COUNT(headers); i++) {
        char bytes[256];
        memcpy(bytes, headers[i].bytes, headers[i].len);
        memcpy(bytes + headers[i].len, HELLO, sizeof HELLO - 1);
        int fd = dial();
        say_bytes(fd, bytes, headers[i].len + sizeof HELLO - 1);
        struct answer a = hear(fd);
        assert_int_equal(a.status, 200);
        if (headers[i].from)
            assert_string_equal(a.body, headers[i].from);
        close(fd);
    }
}

static const struct {
    const char *name, *bytes;
    size_t len;
} bad[] = {
    {"none", TEXT(HELLO)},
    {"TLS", TEXT("\x16\x03\x01\x01\x00\x01\0\0\0\0\0\0\0\0\0\0")},
    {"no such protocol", TEXT("PROXY UDP4 203.0.113.7 198.51.100.1 40000 443\r\n")},
    {"no address", TEXT("PROXY TCP4 host 198.51.100.1 40000 443\r\n")},
    {"no port", TEXT("PROXY TCP4 203.0.113.7 198.51.100.1 65536 443\r\n")},
    {"no end", TEXT("PROXY TCP4 203.0.113.7 198.51.100.1 40000 443                              "
                    "                                                                  ")},
    {"version 3", TEXT(V2 "\x31\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x9c\x40\x01\xbb")},
    {"too short for IPv4", TEXT(V2 "\x21\x11\0\x04\xcb\0\x71\x07")},
    {"two of them", TEXT("PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\nPROXY UNKNOWN\r\n")},
};

static void test_bad_headers_are_cut_and_counted(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    for (size_t i = 0; i < COUNT(bad) - 1; i++) {
        int fd = dial();
        int64_t start_ms = now_ms();
        say_bytes(fd, bad[i].bytes, bad[i].len);
        expect_cut(fd);
        if (now_ms() - start_ms > 1000)
            fail_msg("%s: %d ms", bad[i].name, (int)(now_ms() - start_ms));
    }
    expect_count(&edge_stats(edge)->proxy_bad, COUNT(bad) - 1);
    int fd = dial(); /* the second header is only a bad request */
    say_bytes(fd, bad[COUNT(bad) - 1].bytes, bad[COUNT(bad) - 1].len);
    assert_int_equal(hear(fd).status, 400);
    close(fd);
    assert_int_equal(count_read(&edge_stats(edge)->requests), 0);
}

static void test_header_has_its_time(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.head_ms = 300;
    edge_up(&limits, false);
    int fd = dial();
    int64_t start_ms = now_ms();
    say(fd, "PROXY TCP4 203");
    expect_cut(fd);
    expect_between(now_ms() - start_ms, 290, 1000);
    expect_count(&edge_stats(edge)->proxy_bad, 1);
    expect_count(&edge_stats(edge)->timeouts, 1);
}

static int64_t cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* It stays in the socket until it is whole, and must not keep us turning meanwhile. */
static void test_half_a_header_does_not_spin(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    int fd = dial();
    say(fd, "PROXY TCP4 203");
    int64_t start_ms = cpu_ms();
    poll(NULL, 0, 500);
    expect_between(cpu_ms() - start_ms, 0, 100);
    say(fd, ".0.113.7 198.51.100.1 40000 443\r\n" HELLO);
    assert_string_equal(hear(fd).body, "203.0.113.7:40000");
    close(fd);
}

static void test_strangers_are_not_believed(void **state)
{
    (void)state;
    edge_up(&relaxed, false);
    for (size_t i = 0; i < COUNT(headers); i++) {
        int fd = client_socket(AF_INET);
        client_connect(fd, "127.0.0.2");
        say_bytes(fd, headers[i].bytes, headers[i].len);
        say(fd, HELLO);
        assert_int_equal(hear(fd).status, 400);
        close(fd);
    }
    int fd = client_socket(AF_INET);
    client_connect(fd, "127.0.0.2");
    struct answer a = ask(fd, HELLO);
    assert_memory_equal(a.body, "127.0.0.2:", 10);
    close(fd);
    assert_int_equal(count_read(&edge_stats(edge)->proxy_bad), 0);
}

static void test_private_listeners_know_no_proxies(void **state)
{
    (void)state;
    edge_up_as((struct edge_listener){.tls = false}, &relaxed);
    int fd = dial();
    assert_memory_equal(ask(fd, HELLO).body, "127.0.0.1:", 10);
    close(fd);
}

static int dial_for(const char *client)
{
    int fd = dial();
    char line[128];
    snprintf(line, sizeof line, "PROXY TCP4 %s 198.51.100.1 40000 443\r\n", client);
    say(fd, line);
    return fd;
}

/* The proxy's connections are those of its clients. */
static void test_caps_are_the_clients(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.per_ipv4 = 2;
    edge_up(&limits, false);
    static const char *const clients[] = {"203.0.113.1", "203.0.113.2", "203.0.113.3"};
    int fd[6];
    for (int i = 0; i < 6; i++) {
        fd[i] = dial_for(clients[i / 2]);
        assert_int_equal(ask(fd[i], HELLO).status, 200);
    }
    for (int i = 0; i < 3; i++)
        expect_cut(dial_for(clients[i]));
    expect_count(&edge_stats(edge)->refused, 3);
    close(fd[0]);
    expect_count(&edge_stats(edge)->connections, 5);
    fd[0] = dial_for(clients[0]);
    assert_int_equal(ask(fd[0], HELLO).status, 200);
    for (int i = 0; i < 6; i++)
        close(fd[i]);
}

static void test_handshakes_are_the_clients(void **state)
{
    (void)state;
    struct edge_limits limits = relaxed;
    limits.handshakes = (struct rate){.per_s = 1, .burst = 2};
    edge_up(&limits, true);
    static const char *const clients[] = {"203.0.113.1", "203.0.113.2"};
    for (int i = 0; i < 6; i++) {
        struct client c = {.fd = dial_for(clients[i / 3])};
        assert_int_equal(client_shakes_hands(&c), i % 3 < 2);
        client_close(&c);
    }
    expect_count(&edge_stats(edge)->handshakes_limited, 2);
    assert_int_equal(count_read(&edge_stats(edge)->handshakes), 4);
}

#define TEST(name) cmocka_unit_test_teardown(name, edge_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_header_says_who_the_client_is),     TEST(test_request_may_come_with_the_header),
        TEST(test_bad_headers_are_cut_and_counted),   TEST(test_header_has_its_time),
        TEST(test_half_a_header_does_not_spin),       TEST(test_strangers_are_not_believed),
        TEST(test_private_listeners_know_no_proxies), TEST(test_caps_are_the_clients),
        TEST(test_handshakes_are_the_clients),
    };
    return cmocka_run_group_tests(tests, clients_begin, clients_end);
}
