#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <stdio.h>

#include "proto/endpoint.h"

/* The special IPv4 blocks as ranges of numbers: the slow, obvious form of the module's table. */
static const struct {
    const char *first, *last;
    enum ip_scope scope;
} ranges4[] = {
    {"0.0.0.0", "0.255.255.255", SCOPE_NEVER},
    {"10.0.0.0", "10.255.255.255", SCOPE_PRIVATE},
    {"100.64.0.0", "100.127.255.255", SCOPE_PRIVATE},
    {"127.0.0.0", "127.255.255.255", SCOPE_LOOPBACK},
    {"169.254.0.0", "169.254.255.255", SCOPE_LINK},
    {"172.16.0.0", "172.31.255.255", SCOPE_PRIVATE},
    {"192.0.0.0", "192.0.0.255", SCOPE_PRIVATE},
    {"192.0.2.0", "192.0.2.255", SCOPE_PRIVATE},
    {"192.168.0.0", "192.168.255.255", SCOPE_PRIVATE},
    {"198.18.0.0", "198.19.255.255", SCOPE_PRIVATE},
    {"198.51.100.0", "198.51.100.255", SCOPE_PRIVATE},
    {"203.0.113.0", "203.0.113.255", SCOPE_PRIVATE},
    {"224.0.0.0", "239.255.255.255", SCOPE_NEVER},
    {"240.0.0.0", "255.255.255.255", SCOPE_NEVER},
};
enum { RANGES4 = sizeof ranges4 / sizeof *ranges4 };

static uint32_t number4(const char *text)
{
    struct in_addr in;
    assert_int_equal(inet_pton(AF_INET, text, &in), 1);
    return ntohl(in.s_addr);
}

static enum ip_scope slow_scope4(uint32_t ip)
{
    for (size_t i = 0; i < RANGES4; i++) {
        if (ip >= number4(ranges4[i].first) && ip <= number4(ranges4[i].last))
            return ranges4[i].scope;
    }
    return SCOPE_GLOBAL;
}

/* Every way to write an IPv4 address as an IPv6 one: `frame` with the address put in at `at`. */
static const struct {
    const char *name, *frame;
    size_t at;
    uint32_t flip;
    enum ip_scope own; /* of the form itself */
} encodings[] = {
    {"mapped", "::ffff:0:0", 12, 0, SCOPE_GLOBAL},
    {"compatible", "::", 12, 0, SCOPE_NEVER},
    {"nat64", "64:ff9b::", 12, 0, SCOPE_GLOBAL},
    {"nat64 local", "64:ff9b:1::", 12, 0, SCOPE_PRIVATE},
    {"nat64 local, subnet", "64:ff9b:1:ffff:abcd:1:0:0", 12, 0, SCOPE_PRIVATE},
    {"6to4", "2002::", 2, 0, SCOPE_GLOBAL},
    {"6to4, subnet and host", "2002:0:0:ffff:1:2:3:4", 2, 0, SCOPE_GLOBAL},
    {"teredo client", "2001:0:808:808:8000:63bf::", 12, UINT32_MAX, SCOPE_GLOBAL},
    {"teredo server", "2001::8000:63bf:f7f7:f7f7", 4, 0, SCOPE_GLOBAL},
};

static enum ip_scope scope_of(const char *text)
{
    uint8_t ip[16];
    assert_int_equal(inet_pton(AF_INET6, text, ip), 1);
    return ip_scope(ip);
}

static void check_encodings(uint32_t ip4)
{
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
        uint8_t ip[16];
        uint32_t stored = htonl(ip4 ^ encodings[i].flip);
        enum ip_scope want = slow_scope4(ip4);
        if (encodings[i].own > want)
            want = encodings[i].own;
        if (ip4 == 1 && strcmp(encodings[i].frame, "::") == 0)
            want = SCOPE_LOOPBACK; /* a block of its own, no 0.0.0.1 */
        assert_int_equal(inet_pton(AF_INET6, encodings[i].frame, ip), 1);
        memcpy(ip + encodings[i].at, &stored, sizeof stored);
        if (ip_scope(ip) != want)
            fail_msg("%s of %08x: scope %d, not %d", encodings[i].name, ip4, (int)ip_scope(ip),
                     (int)want);
    }
}

static void test_scope_of_every_block_in_every_encoding(void **state)
{
    (void)state;
    for (size_t i = 0; i < RANGES4; i++) {
        uint32_t first = number4(ranges4[i].first), last = number4(ranges4[i].last);
        const uint32_t edges[] = {first - 1, first, first + 1, last - 1, last, last + 1};
        for (size_t k = 0; k < sizeof edges / sizeof *edges; k++)
            check_encodings(edges[k]);
    }
    check_encodings(number4("8.8.8.8"));
    check_encodings(number4("1.0.0.0"));
}

static void test_scope_of_ipv6(void **state)
{
    (void)state;
    static const struct {
        const char *ip;
        enum ip_scope want;
    } cases[] = {
        {"::", SCOPE_NEVER},
        {"::1", SCOPE_LOOPBACK},
        {"::2", SCOPE_NEVER},
        {"::8.8.8.8", SCOPE_NEVER},
        {"::fffe:ffff:ffff", SCOPE_NEVER},
        {"::ffff:127.0.0.1", SCOPE_LOOPBACK},
        {"::ffff:8.8.8.8", SCOPE_GLOBAL},
        {"::1:0:0:0", SCOPE_NEVER},
        {"64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
        {"64:ff9b::8.8.8.8", SCOPE_GLOBAL},
        {"64:ff9b::1:808:808", SCOPE_NEVER},
        {"64:ff9b:0:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
        {"64:ff9b:1::808:808", SCOPE_PRIVATE},
        {"64:ff9b:1:ffff:ffff:ffff:808:808", SCOPE_PRIVATE},
        {"64:ff9b:2::808:808", SCOPE_NEVER},
        {"100::1", SCOPE_NEVER},
        {"1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
        {"2000::", SCOPE_GLOBAL},
        {"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_GLOBAL},
        {"2001:0:808:808::f7f7:f7f7", SCOPE_GLOBAL},
        {"2001:0:808:808::80ff:fffe", SCOPE_LOOPBACK},
        {"2001:0:7f00:1::f7f7:f7f7", SCOPE_LOOPBACK},
        {"2001:0:a00:1::80ff:fffe", SCOPE_LOOPBACK},
        {"2001:1::", SCOPE_PRIVATE},
        {"2001:2::1", SCOPE_PRIVATE},
        {"2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_PRIVATE},
        {"2001:200::", SCOPE_GLOBAL},
        {"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_GLOBAL},
        {"2001:db8::", SCOPE_PRIVATE},
        {"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_PRIVATE},
        {"2001:db9::", SCOPE_GLOBAL},
        {"2002:808:808::1", SCOPE_GLOBAL},
        {"2002:a9fe:a9fe::1", SCOPE_LINK},
        {"2003::", SCOPE_GLOBAL},
        {"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_GLOBAL},
        {"3fff::", SCOPE_PRIVATE},
        {"3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_PRIVATE},
        {"3fff:1000::", SCOPE_GLOBAL},
        {"3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_GLOBAL},
        {"4000::", SCOPE_NEVER},
        {"5f00::1", SCOPE_NEVER},
        {"fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
        {"fc00::", SCOPE_PRIVATE},
        {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_PRIVATE},
        {"fe00::", SCOPE_NEVER},
        {"fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
        {"fe80::", SCOPE_LINK},
        {"febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_LINK},
        {"fec0::", SCOPE_PRIVATE},
        {"feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_PRIVATE},
        {"ff00::", SCOPE_NEVER},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_NEVER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (scope_of(cases[i].ip) != cases[i].want)
            fail_msg("%s: scope %d, not %d", cases[i].ip, (int)scope_of(cases[i].ip),
                     (int)cases[i].want);
    }
}

/* What endpoint_parse accepts, and how the same endpoint is written. */
static void test_parse_and_format(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out; /* NULL: refused */
    } cases[] = {
        {"203.0.113.7:40000", "203.0.113.7:40000"},
        {"0.0.0.0:0", "0.0.0.0:0"},
        {"255.255.255.255:65535", "255.255.255.255:65535"},
        {":9001", "[::]:9001"},
        {":0", "[::]:0"},
        {"[::]:9001", "[::]:9001"},
        {"[2001:db8::1]:40000", "[2001:db8::1]:40000"},
        {"[2001:DB8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1"},
        {"[2001:db8:0:1:1:1:1:1]:1", "[2001:db8:0:1:1:1:1:1]:1"},
        {"[::ffff:203.0.113.7]:5", "203.0.113.7:5"},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        {"", NULL},
        {":", NULL},
        {"203.0.113.7", NULL},
        {"203.0.113.7:", NULL},
        {"203.0.113.7:65536", NULL},
        {"203.0.113.7:99999", NULL},
        {"203.0.113.7:100000", NULL},
        {"203.0.113.7:4294967376", NULL}, /* 2^32 + 80 */
        {"203.0.113.7:00080", NULL},
        {"203.0.113.7:+80", NULL},
        {"203.0.113.7:-1", NULL},
        {"203.0.113.7:80 ", NULL},
        {"203.0.113.7: 80", NULL},
        {"203.0.113.7:0x50", NULL},
        {" 203.0.113.7:80", NULL},
        {"203.0.113:80", NULL},
        {"203.0.113.256:80", NULL},
        {"203.0.113.07:80", NULL},
        {"[203.0.113.7]:80", NULL},
        {"localhost:80", NULL},
        {"2001:db8::1:80", NULL},
        {"::1", NULL},
        {"[::1]", NULL},
        {"[::1]80", NULL},
        {"[::1:80", NULL},
        {"::1]:80", NULL},
        {"[]:80", NULL},
        {"[:80", NULL},
        {"[fe80::1%lo]:80", NULL},
        {"[2001:db8::g]:80", NULL},
        {"[0000000000000000000000000000000000000000000000000000000000000000001]:80", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint e = {.port = 7}, untouched = e;
        char text[ENDPOINT_TEXT_MAX];
        bool ok = endpoint_parse(cases[i].in, &e);
        if (ok != (cases[i].out != NULL))
            fail_msg("\"%s\" was %s", cases[i].in, ok ? "accepted" : "refused");
        if (ok)
            assert_string_equal(endpoint_format(&e, text), cases[i].out);
        else
            assert_true(endpoint_equal(&e, &untouched));
    }
}

static void test_parse_ip(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"203.0.113.7", "203.0.113.7:0"},
        {"::ffff:203.0.113.7", "203.0.113.7:0"},
        {"2001:db8::1", "[2001:db8::1]:0"},
        {"::", "[::]:0"},
        {"", NULL},
        {"*", NULL},
        {"203.0.113.7:80", NULL},
        {"203.0.113.7/32", NULL},
        {"203.0.113.7 ", NULL},
        {"[::1]", NULL},
        {"1", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint e;
        char text[ENDPOINT_TEXT_MAX];
        assert_int_equal(endpoint_parse_ip(cases[i].in, &e), cases[i].out != NULL);
        if (cases[i].out)
            assert_string_equal(endpoint_format(&e, text), cases[i].out);
    }
}

static void test_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        unsigned bits;
        const char *out;
    } cases[] = {
        {"203.0.113.255:5", 32, "203.0.113.255:0"},
        {"203.0.113.255:5", 31, "203.0.113.254:0"},
        {"203.0.113.255:5", 24, "203.0.113.0:0"},
        {"203.0.255.255:5", 20, "203.0.240.0:0"},
        {"203.0.113.7:5", 0, "0.0.0.0:0"},
        {"[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:5", 128,
         "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:0"},
        {"[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:5", 127,
         "[2001:db8:ffff:ffff:ffff:ffff:ffff:fffe]:0"},
        {"[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:5", 64, "[2001:db8:ffff:ffff::]:0"},
        {"[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:5", 57, "[2001:db8:ffff:ff80::]:0"},
        {"[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:5", 1, "[::]:0"},
        {"[8001::]:5", 1, "[8000::]:0"},
        {"[2001:db8::1]:5", 0, "[::]:0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint e, prefix;
        char text[ENDPOINT_TEXT_MAX];
        assert_true(endpoint_parse(cases[i].in, &e));
        prefix = endpoint_prefix(&e, cases[i].bits);
        assert_string_equal(endpoint_format(&prefix, text), cases[i].out);
    }
}

static void test_compare(void **state)
{
    (void)state;
    const uint8_t ip4[4] = {203, 0, 113, 7};
    const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, 203, 0, 113, 7};
    struct endpoint a = endpoint_of(ip4, 4, 5), b = endpoint_of(mapped, 16, 5);
    assert_true(endpoint_equal(&a, &b));
    assert_true(endpoint_is_v4(&b));
    b.port = 6;
    assert_false(endpoint_equal(&a, &b));
    assert_true(endpoint_same_ip(&a, &b));
    b.ip[11] = 0xfe;
    assert_false(endpoint_is_v4(&b));
    assert_false(endpoint_same_ip(&a, &b));
}

static void test_same_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        unsigned bits;
        bool same;
    } cases[] = {
        {"203.0.113.1:1", "203.0.113.255:2", 24, true},
        {"203.0.113.1:1", "203.0.112.1:1", 24, false},
        {"203.0.113.1:1", "203.0.112.1:1", 23, true},
        {"[2600::1]:1", "[2600::ffff]:1", 64, true},
        {"[2600:0:0:1::1]:1", "[2600::1]:1", 64, false},
        {"[2600::1]:1", "203.0.113.1:1", 64, false}, /* and no bit count of the other family */
        {"203.0.113.1:1", "[2600::1]:1", 24, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint a, b;
        assert_true(endpoint_parse(cases[i].a, &a) && endpoint_parse(cases[i].b, &b));
        if (endpoint_same_prefix(&a, &b, cases[i].bits) != cases[i].same)
            fail_msg("%s and %s in /%u", cases[i].a, cases[i].b, cases[i].bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scope_of_every_block_in_every_encoding),
        cmocka_unit_test(test_scope_of_ipv6),
        cmocka_unit_test(test_parse_and_format),
        cmocka_unit_test(test_parse_ip),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_same_prefix),
        cmocka_unit_test(test_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
