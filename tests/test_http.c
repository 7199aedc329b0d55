#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "proto/http.h"

#define GET "GET / HTTP/1.1\r\n"
#define HOST "Host: a\r\n"
#define END "\r\n"

static const struct {
    const char *name, *head;
    int want; /* 0: accepted */
} cases[] = {
    {"smallest", GET HOST END, 0},
    {"1.0 needs no host", "GET / HTTP/1.0\r\n\r\n", 0},
    {"one empty line in front", "\r\n" GET HOST END, 0},
    {"host with a port", GET "Host: example.org:8080\r\n" END, 0},
    {"host of IPv6", GET "Host: [2001:db8::1]:8080\r\n" END, 0},
    {"no blank behind the colon", GET "Host:a\r\n" END, 0},
    {"blanks around a value", GET "Host: \t a \t\r\n" END, 0},
    {"empty value", GET HOST "X:\r\n" END, 0},
    {"value of blanks", GET HOST "X: \t \r\n" END, 0},
    {"value with bytes above 0x7f", GET HOST "X: \xc3\xa9\r\n" END, 0},
    {"name of all token characters", GET HOST "!#$%&'*+-.^_`|~09azAZ: x\r\n" END, 0},
    {"colon in a value", GET HOST "X: a:b\r\n" END, 0},
    {"length 0", GET HOST "Content-Length: 0\r\n" END, 0},
    {"length with zeros in front", GET HOST "Content-Length: 0005\r\n" END, 0},
    {"length 1 MiB", GET HOST "Content-Length: 1048576\r\n" END, 0},
    {"expect 100", GET HOST "Expect: 100-continue\r\n" END, 0},
    {"expect anything of 1.0", "GET / HTTP/1.0\r\nExpect: x\r\n" END, 0},
    {"other method", "PROPFIND /x HTTP/1.1\r\n" HOST END, 0},
    {"method in lower case is another", "get / HTTP/1.1\r\n" HOST END, 0},

    /* Six that a packaged server took, and three that it refused. */
    {"two lengths that differ", GET HOST "Content-Length: 5\r\nContent-Length: 6\r\n" END, 400},
    {"bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400},
    {"no host", GET END, 400},
    {"blank before the colon", GET "Host : a\r\n" END, 400},
    {"length +5", GET HOST "Content-Length: +5\r\n" END, 400},
    {"folded field", GET HOST "X: a\r\n b\r\n" END, 400},
    {"length and coding", GET HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END, 501},
    {"negative length", GET HOST "Content-Length: -5\r\n" END, 400},
    {"unknown coding", GET HOST "Transfer-Encoding: cow\r\n" END, 501},

    {"coding and length", GET HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END, 501},
    {"coding in other case", GET HOST "tRANSFER-eNCODING: identity\r\n" END, 501},
    {"coding in 1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" END, 501},
    {"two equal lengths", GET HOST "Content-Length: 5\r\nContent-Length: 5\r\n" END, 400},
    {"a list of lengths", GET HOST "Content-Length: 5, 5\r\n" END, 400},
    {"empty length", GET HOST "Content-Length:\r\n" END, 400},
    {"hexadecimal length", GET HOST "Content-Length: 0x5\r\n" END, 400},
    {"length with a blank", GET HOST "Content-Length: 1 0\r\n" END, 400},
    {"length above 1 MiB", GET HOST "Content-Length: 1048577\r\n" END, 413},
    {"length 10 MiB", GET HOST "Content-Length: 10485760\r\n" END, 413},
    {"length of 2^64 + 5", GET HOST "Content-Length: 18446744073709551621\r\n" END, 413},
    {"huge length, not a number", GET HOST "Content-Length: 99999999999999999999x\r\n" END, 400},
    {"two hosts", GET HOST HOST END, 400},
    {"two hosts in other case", GET HOST "hOST: b\r\n" END, 400},
    {"two hosts in 1.0", "GET / HTTP/1.0\r\n" HOST HOST END, 400},
    {"empty host", GET "Host:\r\n" END, 400},
    {"list of hosts", GET "Host: a, b\r\n" END, 400},
    {"host with a path", GET "Host: a/b\r\n" END, 400},
    {"host with a user", GET "Host: u@a\r\n" END, 400},
    {"tab before the colon", GET "Host\t: a\r\n" END, 400},
    {"no colon", GET HOST "X\r\n" END, 400},
    {"no name", GET HOST ": x\r\n" END, 400},
    {"name with a blank", GET HOST "X Y: x\r\n" END, 400},
    {"name with a byte above 0x7f", GET HOST "\xc3\xa9: x\r\n" END, 400},
    {"blank before the first field", GET " Host: a\r\n" END, 400},
    {"folded with a tab", GET HOST "X: a\r\n\tb\r\n" END, 400},
    {"bare CR in a value", GET HOST "X: a\rb\r\n" END, 400},
    {"bare LF in a value", GET HOST "X: a\nY: b\r\n" END, 400},
    {"bare LF at the end", GET HOST "\n", 400},
    {"CR CR LF", GET HOST "\r\r\n", 400},
    {"delete character", GET HOST "X: \x7f\r\n" END, 400},
    {"escape character", GET HOST "X: \x1b\r\n" END, 400},
    {"two empty lines in front", "\r\n\r\n" GET HOST END, 400},
    {"bare LF in front", "\n" GET HOST END, 400},
    {"expect anything else", GET HOST "Expect: 200-ok\r\n" END, 417},
    {"empty expect", GET HOST "Expect:\r\n" END, 417},
    {"absolute form", "GET http://a/ HTTP/1.1\r\n" HOST END, 400},
    {"asterisk form", "OPTIONS * HTTP/1.1\r\n" HOST END, 400},
    {"authority form", "CONNECT a:80 HTTP/1.1\r\n" HOST END, 400},
    {"fragment", "GET /#x HTTP/1.1\r\n" HOST END, 400},
    {"target with a byte above 0x7f", "GET /\xc3\xa9 HTTP/1.1\r\n" HOST END, 400},
    {"target with a tab", "GET /\t HTTP/1.1\r\n" HOST END, 400},
    {"method not a token", "GE(T / HTTP/1.1\r\n" HOST END, 400},
    {"no method", " / HTTP/1.1\r\n" HOST END, 400},
    {"no target", "GET HTTP/1.1\r\n" HOST END, 400},
    {"empty target", "GET  HTTP/1.1\r\n" HOST END, 400},
    {"no version", "GET /\r\n" HOST END, 400},
    {"blank behind the target", "GET / \r\n" HOST END, 400},
    {"two blanks before the version", "GET /  HTTP/1.1\r\n" HOST END, 400},
    {"blank behind the version", "GET / HTTP/1.1 \r\n" HOST END, 400},
    {"four words", "GET / x HTTP/1.1\r\n" HOST END, 400},
    {"version in lower case", "GET / http/1.1\r\n" HOST END, 400},
    {"version without a number", "GET / HTTP/\r\n" HOST END, 400},
    {"other protocol", "GET / ICY/1.1\r\n" HOST END, 400},
    {"HTTP/0.9", "GET / HTTP/0.9\r\n" HOST END, 505},
    {"HTTP/1.2", "GET / HTTP/1.2\r\n" HOST END, 505},
    {"HTTP/1.10", "GET / HTTP/1.10\r\n" HOST END, 505},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n" HOST END, 505},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    {"TLS hello", "\x16\x03\x01\x02", 400},

    {"nothing", "", HTTP_MORE},
    {"one letter", "G", HTTP_MORE},
    {"request line", GET, HTTP_MORE},
    {"half a line end", "GET / HTTP/1.1\r", HTTP_MORE},
    {"no empty line", GET HOST, HTTP_MORE},
    {"half an empty line", GET HOST "\r", HTTP_MORE},
    {"one empty line alone", "\r\n", HTTP_MORE},
};
enum { CASES = sizeof cases / sizeof *cases };

/* What http_read_head says of bytes that lie in memory of exactly their size. */
static int read_exactly(const char *head, size_t len, struct http_request *q)
{
    char *bytes = test_malloc(len + (len == 0));
    memcpy(bytes, head, len);
    int status = http_read_head(bytes, len, q);
    test_free(bytes);
    return status;
}

static void test_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        struct http_request q;
        int got = read_exactly(cases[i].head, strlen(cases[i].head), &q);
        if (got != cases[i].want)
            fail_msg("%s: %d, not %d", cases[i].name, got, cases[i].want);
        if (got == 0)
            assert_int_equal(q.head_len, strlen(cases[i].head));
    }
}

/* However the bytes are cut: MORE until the head is whole, or the same refusal at once. */
static void test_read_growing(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        int got = HTTP_MORE;
        for (size_t len = 0; len <= strlen(cases[i].head) && got == HTTP_MORE; len++) {
            struct http_request q;
            got = read_exactly(cases[i].head, len, &q);
            if (got == 0)
                assert_int_equal(len, strlen(cases[i].head));
        }
        if (got != cases[i].want)
            fail_msg("%s, growing: %d, not %d", cases[i].name, got, cases[i].want);
    }
}

/* A NUL anywhere is refused: everything before it is fine, so nothing else can be the reason. */
static void test_nul(void **state)
{
    (void)state;
    const char head[] = "\r\n" GET HOST "X: y\r\n" END;
    for (size_t at = 0; at < sizeof head - 1; at++) {
        char spoiled[sizeof head];
        struct http_request q;
        memcpy(spoiled, head, sizeof head);
        spoiled[at] = '\0';
        assert_int_equal(http_read_head(spoiled, sizeof head - 1, &q), 400);
    }
}

static void test_facts(void **state)
{
    (void)state;
    static const char head[] = "POST /v1/x%20y?a=1&b=?2 HTTP/1.1\r\n"
                               "Host: example.org\r\n"
                               "content-LENGTH: 12\r\n"
                               "Expect: 100-Continue\r\n"
                               "X-Twice: \t one \t\r\n"
                               "x-twice: two\r\n"
                               "\r\n"
                               "GET /next HTTP/1.1\r\n\r\n";
    struct http_request q;
    assert_int_equal(http_read_head(head, sizeof head - 1, &q), 0);
    assert_int_equal(q.method, HTTP_POST);
    assert_true(http_text_is(q.path, "/v1/x%20y"));
    assert_true(http_text_is(q.query, "a=1&b=?2"));
    assert_int_equal(q.version_minor, 1);
    assert_true(q.keep_alive);
    assert_true(q.body_len == 12);
    assert_true(q.expects_continue);
    assert_int_equal(q.field_count, 5);
    assert_true(http_text_is(q.field[4].name, "x-twice"));
    assert_ptr_equal(head + q.head_len, strstr(head, "GET /next"));
    assert_true(http_text_is(*http_field(&q, "X-TWICE"), "one"));
    assert_true(http_text_is(*http_field(&q, "host"), "example.org"));
    assert_null(http_field(&q, "hos"));
    assert_null(http_field(&q, "hosts"));
    assert_null(http_field(&q, ""));
}

static void test_methods(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        enum http_method want;
    } rows[] = {
        {"GET / HTTP/1.0\r\n\r\n", HTTP_GET},      {"HEAD / HTTP/1.0\r\n\r\n", HTTP_HEAD},
        {"POST / HTTP/1.0\r\n\r\n", HTTP_POST},    {"PUT / HTTP/1.0\r\n\r\n", HTTP_OTHER},
        {"DELETE / HTTP/1.0\r\n\r\n", HTTP_OTHER}, {"GETS / HTTP/1.0\r\n\r\n", HTTP_OTHER},
        {"GE / HTTP/1.0\r\n\r\n", HTTP_OTHER},     {"OPTIONS / HTTP/1.0\r\n\r\n", HTTP_OTHER},
        {"Get / HTTP/1.0\r\n\r\n", HTTP_OTHER},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http_request q;
        assert_int_equal(http_read_head(rows[i].head, strlen(rows[i].head), &q), 0);
        assert_int_equal(q.method, rows[i].want);
        assert_int_equal(q.query.len, 0);
        assert_true(q.body_len == 0);
        assert_false(q.expects_continue);
    }
}

static void test_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool want;
    } rows[] = {
        {GET HOST END, true},
        {GET HOST "Connection: keep-alive\r\n" END, true},
        {GET HOST "Connection: Upgrade\r\n" END, true},
        {GET HOST "Connection: closed\r\n" END, true},
        {GET HOST "Connection: close\r\n" END, false},
        {GET HOST "Connection: CLOSE\r\n" END, false},
        {GET HOST "Connection: upgrade ,\tclose\r\n" END, false},
        {GET HOST "Connection: keep-alive, close\r\n" END, false},
        {GET HOST "Connection: keep-alive\r\nConnection: close\r\n" END, false},
        {"GET / HTTP/1.0\r\n" END, false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n" END, true},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n" END, true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n" END, false},
        {"GET / HTTP/1.0\r\nConnection:\r\n" END, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http_request q;
        assert_int_equal(http_read_head(rows[i].head, strlen(rows[i].head), &q), 0);
        if (q.keep_alive != rows[i].want)
            fail_msg("keep_alive is wrong for %s", rows[i].head);
    }
}

/* `before`, then `count` times 'a', then `after`. */
static int read_padded(const char *before, size_t count, const char *after)
{
    static char head[3 * HTTP_HEAD_MAX];
    struct http_request q;
    size_t at = strlen(before);
    assert_true(at + count + strlen(after) < sizeof head);
    memcpy(head, before, at);
    memset(head + at, 'a', count);
    memcpy(head + at + count, after, strlen(after));
    return read_exactly(head, at + count + strlen(after), &q);
}

static void test_sizes(void **state)
{
    (void)state;
    static const char tail[] = " HTTP/1.1\r\n" HOST END;
    assert_int_equal(read_padded("GET /", 4095, tail), 0);
    assert_int_equal(read_padded("GET /", 4096, tail), 414);
    assert_int_equal(read_padded("GET /?", 4095, tail), 414);
    assert_int_equal(read_padded("GET /", HTTP_HEAD_MAX - 6, ""), HTTP_MORE);
    assert_int_equal(read_padded("GET /", HTTP_HEAD_MAX - 5, ""), 414);
    assert_int_equal(read_padded("GET /", 2 * HTTP_HEAD_MAX, tail), 414);

    static const char front[] = GET HOST "X: ";
    size_t room = HTTP_HEAD_MAX - strlen(front) - 4; /* two line ends */
    assert_int_equal(read_padded(front, room, "\r\n\r\n"), 0);
    assert_int_equal(read_padded(front, room, "\r\n\r\nbody"), 0);
    assert_int_equal(read_padded(front, room, "\r\n\r"), HTTP_MORE);
    assert_int_equal(read_padded(front, room + 1, "\r\n\r\n"), 431);
    assert_int_equal(read_padded(front, room + 1, "\r\n\r"), 431);
    assert_int_equal(read_padded(front, room + 3, ""), HTTP_MORE);
    assert_int_equal(read_padded(front, room + 4, ""), 431);
    assert_int_equal(read_padded(front, 2 * HTTP_HEAD_MAX, "\r\n\r\n"), 431);
}

static void test_field_count(void **state)
{
    (void)state;
    for (unsigned count = HTTP_FIELDS_MAX - 1; count <= HTTP_FIELDS_MAX + 1; count++) {
        char head[HTTP_HEAD_MAX];
        struct http_request q;
        int len = snprintf(head, sizeof head, GET HOST);
        for (unsigned i = 1; i < count; i++)
            len += snprintf(head + len, sizeof head - (size_t)len, "X-%u: y\r\n", i);
        len += snprintf(head + len, sizeof head - (size_t)len, END);
        int want = count <= HTTP_FIELDS_MAX ? 0 : 431;
        assert_int_equal(http_read_head(head, (size_t)len, &q), want);
        if (want == 0)
            assert_int_equal(q.field_count, count);
    }
}

static void test_write(void **state)
{
    (void)state;
    static const struct {
        struct http_answer answer;
        const char *want;
    } rows[] = {
        {{.status = 200, .content_type = "text/plain", .body_len = 3, .keep_alive = true},
         "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
         "Cache-Control: no-store\r\nConnection: keep-alive\r\n\r\n"},
        {{.status = 503},
         "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
         "Cache-Control: no-store\r\nConnection: close\r\n\r\n"},
        {{.status = 405, .allow = "GET, HEAD"},
         "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n"
         "Cache-Control: no-store\r\nConnection: close\r\nAllow: GET, HEAD\r\n\r\n"},
        {{.status = 204, .keep_alive = true},
         "HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\r\n"},
        {{.status = 299, .body_len = SIZE_MAX},
         "HTTP/1.1 299 \r\nContent-Length: 18446744073709551615\r\n"
         "Cache-Control: no-store\r\nConnection: close\r\n\r\n"},
        {{.status = 200, .keep_alive = true, .fields = "A: b\r\nC: d\r\n"},
         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
         "Connection: keep-alive\r\nA: b\r\nC: d\r\n\r\n"},
        {{.status = 405, .allow = "POST", .fields = "A: b\r\n"},
         "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
         "Connection: close\r\nAllow: POST\r\nA: b\r\n\r\n"},
        {{.status = 200, .fields = ""},
         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
         "Connection: close\r\n\r\n"},
        {{.status = 200, .content_type = "text/event-stream", .endless = true},
         "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
         "Connection: close\r\n\r\n"},
        {{.status = 200, .body_len = 5, .keep_alive = true, .endless = true},
         "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"},
        {{.status = 101, .upgrade = true, .fields = "Upgrade: websocket\r\n"},
         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
         "Upgrade: websocket\r\n\r\n"},
        {{.status = 101, .keep_alive = true, .endless = true, .upgrade = true},
         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
        {{.status = 101}, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
        {{.status = 426, .upgrade = true, .fields = "Upgrade: websocket\r\n"},
         "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
         "Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n"},
        {{.status = 426, .upgrade = true, .keep_alive = true},
         "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
         "Connection: keep-alive, Upgrade\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t out[256];
        size_t len = strlen(rows[i].want);
        struct writer w = writer_of(out, len);
        http_write_head(&w, &rows[i].answer);
        assert_int_equal(written(&w), len);
        assert_memory_equal(out, rows[i].want, len);
        for (size_t short_of = 1; short_of <= len; short_of++) {
            w = writer_of(out, len - short_of);
            http_write_head(&w, &rows[i].answer);
            assert_true(w.bad);
            assert_int_equal(written(&w), 0);
        }
    }
}

/* Every refusal of http_read_head has its phrase. */
static void test_reason(void **state)
{
    (void)state;
    static const int statuses[] = {100, 101, 200, 202, 400, 404, 405, 408, 409, 413,
                                   414, 415, 417, 422, 426, 431, 501, 503, 505};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        assert_true(strlen(http_reason(statuses[i])) > 0);
    assert_string_equal(http_reason(202), "Accepted");
    assert_string_equal(http_reason(409), "Conflict");
    assert_string_equal(http_reason(415), "Unsupported Media Type");
    assert_string_equal(http_reason(422), "Unprocessable Content");
    assert_string_equal(http_reason(431), "Request Header Fields Too Large");
    assert_string_equal(http_reason(299), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),    cmocka_unit_test(test_read_growing),
        cmocka_unit_test(test_nul),     cmocka_unit_test(test_facts),
        cmocka_unit_test(test_methods), cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_sizes),   cmocka_unit_test(test_field_count),
        cmocka_unit_test(test_write),   cmocka_unit_test(test_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
