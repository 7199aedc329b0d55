#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>

#include "proto/stun.h"

#define ID "000102030405060708090a0b"
#define COOKIE_ID "2112a442" ID
#define LEGACY_ID "deadbeef" ID
#define CHANGE_NONE "0003000400000000"
#define CHANGE_IP "0003000400000004"
#define INTEGRITY "000800140000000000000000000000000000000000000000"

/* RFC 5769, 2.1 to 2.4. */
#define RFC5769_REQUEST                                                                            \
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e00" \
    "01ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5" \
    "b2d3f249c1b571a280280004e57a3bcf"
#define RFC5769_RESPONSE4                                                                          \
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112" \
    "a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
#define RFC5769_RESPONSE6                                                                          \
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113" \
    "a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4"  \
    "c"
#define RFC5769_LONG_TERM                                                                          \
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015" \
    "001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700" \
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"

struct message {
    uint8_t *bytes;
    size_t len;
};

/* In memory of exactly its size, so that a sanitizer sees a read beyond it. */
static struct message message_of(const char *hex)
{
    size_t cap = strlen(hex) / 2;
    uint8_t *all = test_malloc(cap + 1);
    struct message m;
    assert_int_equal(sodium_hex2bin(all, cap, hex, strlen(hex), " ", &m.len, NULL), 0);
    m.bytes = test_malloc(m.len + (m.len == 0));
    memcpy(m.bytes, all, m.len);
    test_free(all);
    return m;
}

static struct endpoint endpoint_of_text(const char *text)
{
    struct endpoint e;
    assert_true(endpoint_parse(text, &e));
    return e;
}

static void test_crc32(void **state)
{
    (void)state;
    assert_int_equal(stun_crc32((const uint8_t *)"123456789", 9), 0xcbf43926);
    assert_int_equal(stun_crc32((const uint8_t *)"", 0), 0);
}

/* Every entry of the table, against the definition of the code. */
static void test_crc32_of_every_byte(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        uint32_t crc = ~(uint32_t)0 ^ b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        assert_int_equal(stun_crc32(&byte, 1), ~crc);
    }
}

static void test_read(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hex;
        enum stun_verdict want;
    } cases[] = {
        {"bare request", "00010000" COOKIE_ID, STUN_REQUEST},
        {"rfc 5769 request", RFC5769_REQUEST, STUN_REQUEST},
        {"rfc 5769 long-term request", RFC5769_LONG_TERM, STUN_REQUEST},
        {"fingerprint alone", "00010008" COOKIE_ID "802800045b0ff6fc", STUN_REQUEST},
        {"legacy", "00010000" LEGACY_ID, STUN_REQUEST},
        {"legacy, change-request 0", "00010008" LEGACY_ID CHANGE_NONE, STUN_REQUEST},
        {"legacy, fingerprint is nothing to it", "00010008" LEGACY_ID "8028000400000000",
         STUN_REQUEST},
        {"legacy, fingerprint of no length", "00010004" LEGACY_ID "80280000", STUN_REQUEST},
        {"change-request 0", "00010008" COOKIE_ID CHANGE_NONE, STUN_REQUEST},
        {"unknown optional", "00010008" COOKIE_ID "fff00004aabbccdd", STUN_REQUEST},
        {"lowest optional", "00010004" COOKIE_ID "80000000", STUN_REQUEST},
        {"padding of any content", "00010008" COOKIE_ID "80220001aabbccdd", STUN_REQUEST},
        {"only the first change-request", "00010010" COOKIE_ID CHANGE_NONE CHANGE_IP, STUN_REQUEST},
        {"nothing counts behind integrity", "00010020" COOKIE_ID INTEGRITY CHANGE_IP, STUN_REQUEST},

        {"change ip", "00010008" COOKIE_ID CHANGE_IP, STUN_UNKNOWN_REQUIRED},
        {"change port", "00010008" COOKIE_ID "0003000400000002", STUN_UNKNOWN_REQUIRED},
        {"change ip, legacy", "00010008" LEGACY_ID CHANGE_IP, STUN_UNKNOWN_REQUIRED},
        {"change ip, then not", "00010010" COOKIE_ID CHANGE_IP CHANGE_NONE, STUN_UNKNOWN_REQUIRED},
        {"change ip, then integrity", "00010020" COOKIE_ID CHANGE_IP INTEGRITY,
         STUN_UNKNOWN_REQUIRED},
        {"padding attribute", "00010004" COOKIE_ID "00260000", STUN_UNKNOWN_REQUIRED},
        {"response-port", "00010008" COOKIE_ID "00270004 13880000", STUN_UNKNOWN_REQUIRED},
        {"response-address, legacy", "0001000c" LEGACY_ID "00020008 00011388 cb007107",
         STUN_UNKNOWN_REQUIRED},
        {"highest required", "00010004" COOKIE_ID "7fff0000", STUN_UNKNOWN_REQUIRED},
        {"type 0", "00010004" COOKIE_ID "00000000", STUN_UNKNOWN_REQUIRED},

        {"indication", "00110000" COOKIE_ID, STUN_INDICATION},
        {"indication with unknowns", "00110004" COOKIE_ID "7fff0000", STUN_INDICATION},
        {"success", "01010000" COOKIE_ID, STUN_RESPONSE},
        {"error", "01110000" COOKIE_ID, STUN_RESPONSE},
        {"rfc 5769 response", RFC5769_RESPONSE4, STUN_RESPONSE},

        {"fingerprint wrong", "00010008" COOKIE_ID "802800045b0ff6fd", STUN_BAD_FINGERPRINT},
        {"fingerprint of the id, id changed",
         "00010008 2112a442 000102030405060708090a0c"
         "802800045b0ff6fc",
         STUN_BAD_FINGERPRINT},
        {"fingerprint too short", "00010004" COOKIE_ID "80280000", STUN_BAD_FINGERPRINT},
        {"fingerprint right but too long", "0001000c" COOKIE_ID "80280008 2807d13300000000",
         STUN_BAD_FINGERPRINT},
        {"fingerprint right but not last", "00010010" COOKIE_ID "80280004aa4e201f fff00004aabbccdd",
         STUN_BAD_FINGERPRINT},
        {"fingerprint wrong, indication", "00110008" COOKIE_ID "8028000400000000",
         STUN_BAD_FINGERPRINT},

        {"empty", "", STUN_MALFORMED},
        {"zero byte", "00", STUN_MALFORMED},
        {"a byte short of a head", "00010000 2112a442 000102030405060708090a", STUN_MALFORMED},
        {"length beyond the datagram", "00010004" COOKIE_ID, STUN_MALFORMED},
        {"length short of the datagram", "00010000" COOKIE_ID "fff00000", STUN_MALFORMED},
        {"length not of 4", "00010005" COOKIE_ID "fff0000100", STUN_MALFORMED},
        {"length 0xffff", "0001ffff" COOKIE_ID, STUN_MALFORMED},
        {"top bit", "80010000" COOKIE_ID, STUN_MALFORMED},
        {"second bit", "40010000" COOKIE_ID, STUN_MALFORMED},
        {"method 0", "00000000" COOKIE_ID, STUN_MALFORMED},
        {"shared secret", "00020000" LEGACY_ID, STUN_MALFORMED},
        {"allocate", "00030000" COOKIE_ID, STUN_MALFORMED},
        {"attribute beyond the message", "00010004" COOKIE_ID "fff00001", STUN_MALFORMED},
        {"attribute beyond by its padding", "00010008" COOKIE_ID "fff00005aabbccdd",
         STUN_MALFORMED},
        {"attribute of 0xffff", "00010008" COOKIE_ID "fff0ffffaabbccdd", STUN_MALFORMED},
        {"second attribute beyond", "00010008" COOKIE_ID "fff00000 fff00004", STUN_MALFORMED},
        {"change-request too short", "00010004" COOKIE_ID "00030000", STUN_MALFORMED},
        {"change-request too long", "0001000c" COOKIE_ID "000300080000000000000000",
         STUN_MALFORMED},
        {"attribute beyond, legacy", "00010008" LEGACY_ID "00030008 00000000", STUN_MALFORMED},
        {"attribute beyond, indication", "00110004" COOKIE_ID "fff00004", STUN_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        struct stun_request q = {.unknown_count = 99};
        enum stun_verdict v = stun_read(m.bytes, m.len, &q);
        if (v != cases[i].want)
            fail_msg("%s: verdict %d, not %d", cases[i].name, (int)v, (int)cases[i].want);
        if (v == STUN_REQUEST)
            assert_int_equal(q.unknown_count, 0);
        else if (v != STUN_UNKNOWN_REQUIRED)
            assert_int_equal(q.unknown_count, 99);
        test_free(m.bytes);
    }
}

/* Request, source, answer: what a client sees. */
static void test_answer(void **state)
{
    (void)state;
    static const struct {
        const char *name, *request, *from, *answer;
    } cases[] = {
        {"IPv4", "000100002112a442b7e7a701bc34d686fa87dfae", "192.0.2.1:32853",
         "0101000c2112a442b7e7a701bc34d686fa87dfae 002000080001a147e112a643"},
        {"IPv6", "000100002112a442b7e7a701bc34d686fa87dfae",
         "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
         "010100182112a442b7e7a701bc34d686fa87dfae "
         "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"},
        {"IPv4-mapped", "000100002112a442b7e7a701bc34d686fa87dfae", "[::ffff:192.0.2.1]:32853",
         "0101000c2112a442b7e7a701bc34d686fa87dfae 002000080001a147e112a643"},
        {"legacy", "00010008" LEGACY_ID CHANGE_NONE, "192.0.2.1:32853",
         "0101000c" LEGACY_ID "0001000800018055c0000201"},
        {"legacy IPv6", "00010000" LEGACY_ID, "[2001:db8::1]:1",
         "01010018" LEGACY_ID "000100140002000120010db8000000000000000000000001"},
        {"change ip", "00010008" COOKIE_ID CHANGE_IP, "192.0.2.1:1",
         "01110010" COOKIE_ID "0009000400000414 000a000200030000"},
        {"three unknown", "0001000c" COOKIE_ID "7ff10000 7ff20000 00270000", "192.0.2.1:1",
         "01110014" COOKIE_ID "0009000400000414 000a00067ff17ff200270000"},
        {"an unknown twice is listed once", "0001000c" COOKIE_ID "7ff10000 7ff20000 7ff10000",
         "192.0.2.1:1", "01110010" COOKIE_ID "0009000400000414 000a00047ff17ff2"},
        {"legacy, an odd list is filled", "00010004" LEGACY_ID "7ff10000", "192.0.2.1:1",
         "01110010" LEGACY_ID "0009000400000414 000a00047ff17ff1"},
        {"legacy, an even list is not", "00010008" LEGACY_ID "7ff10000 7ff20000", "192.0.2.1:1",
         "01110010" LEGACY_ID "0009000400000414 000a00047ff17ff2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].request), want = message_of(cases[i].answer);
        struct endpoint from = endpoint_of_text(cases[i].from);
        struct stun_request q;
        uint8_t out[STUN_ANSWER_MAX];
        struct writer w = writer_of(out, sizeof out);
        assert_true(stun_read(m.bytes, m.len, &q) <= STUN_UNKNOWN_REQUIRED);
        stun_answer(&w, &q, &from);
        if (written(&w) != want.len || memcmp(out, want.bytes, want.len) != 0)
            fail_msg("%s: another answer", cases[i].name);
        test_free(m.bytes);
        test_free(want.bytes);
    }
}

/* Only who asked with FINGERPRINT gets one, and the client side takes it for right. */
static void test_answer_with_fingerprint(void **state)
{
    (void)state;
    struct message m = message_of("00010008" COOKIE_ID "802800045b0ff6fc");
    struct endpoint from = endpoint_of_text("[2001:db8::1]:9"), got;
    struct stun_request q;
    uint8_t out[STUN_ANSWER_MAX];
    struct writer w = writer_of(out, sizeof out);
    assert_int_equal(stun_read(m.bytes, m.len, &q), STUN_REQUEST);
    stun_answer(&w, &q, &from);
    assert_int_equal(written(&w), 20 + 24 + 8);
    assert_int_equal(stun_read(out, written(&w), &q), STUN_RESPONSE);
    assert_true(stun_read_mapped(out, written(&w), m.bytes + 8, &got));
    assert_true(endpoint_equal(&got, &from));
    out[52 - 1] ^= 1;
    assert_int_equal(stun_read(out, 52, &q), STUN_BAD_FINGERPRINT);
    assert_false(stun_read_mapped(out, 52, m.bytes + 8, &got));
    test_free(m.bytes);
}

/* However many attributes are unknown, the list ends at STUN_UNKNOWN_MAX. */
static void test_answer_is_bounded(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= STUN_UNKNOWN_MAX + 2; count++) {
        uint8_t request[20 + 4 * (STUN_UNKNOWN_MAX + 2) + 8], out[STUN_ANSWER_MAX];
        struct writer w = writer_of(request, sizeof request);
        write_u32(&w, STUN_BINDING_REQUEST << 16 | (4 * count + 8));
        write_u32(&w, STUN_COOKIE);
        write_bytes(&w, "abcdefghijkl", 12);
        for (unsigned i = 0; i < count; i++)
            write_u32(&w, (0x7000 + i) << 16);
        uint32_t crc = stun_crc32(request, written(&w));
        write_u32(&w, (uint32_t)STUN_FINGERPRINT << 16 | 4);
        write_u32(&w, crc ^ STUN_FINGERPRINT_XOR);

        struct stun_request q;
        struct endpoint from = endpoint_of_text("192.0.2.1:1");
        unsigned listed = count < STUN_UNKNOWN_MAX ? count : STUN_UNKNOWN_MAX;
        assert_int_equal(stun_read(request, written(&w), &q), STUN_UNKNOWN_REQUIRED);
        assert_int_equal(q.unknown_count, listed);
        assert_int_equal(q.unknown[listed - 1], 0x7000 + listed - 1);
        struct writer answer = writer_of(out, sizeof out);
        stun_answer(&answer, &q, &from);
        assert_int_equal(written(&answer), 20 + 8 + 4 + (2 * listed + 3) / 4 * 4 + 8);
        assert_int_equal(stun_read(out, written(&answer), &q), STUN_RESPONSE);
    }
}

static void test_answer_that_does_not_fit(void **state)
{
    (void)state;
    struct message m = message_of("00010008" COOKIE_ID "802800045b0ff6fc");
    struct endpoint from = endpoint_of_text("192.0.2.1:1");
    struct stun_request q;
    uint8_t out[20 + 12 + 8];
    assert_int_equal(stun_read(m.bytes, m.len, &q), STUN_REQUEST);
    for (size_t cap = 0; cap <= sizeof out; cap++) {
        struct writer w = writer_of(out, cap);
        stun_answer(&w, &q, &from);
        assert_int_equal(written(&w), cap == sizeof out ? cap : 0);
    }
    test_free(m.bytes);
}

static void test_write_request(void **state)
{
    (void)state;
    static const char *const wants[] = {"00010000" COOKIE_ID,
                                        "00010008" COOKIE_ID "802800045b0ff6fc"};
    for (int fingerprint = 0; fingerprint <= 1; fingerprint++) {
        struct message want = message_of(wants[fingerprint]);
        uint8_t out[28];
        struct writer w = writer_of(out, sizeof out);
        stun_write_request(&w, want.bytes + 8, fingerprint);
        assert_int_equal(written(&w), want.len);
        assert_memory_equal(out, want.bytes, want.len);
        test_free(want.bytes);
    }
}

static void test_read_mapped(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hex, *at; /* NULL: no such response */
    } cases[] = {
        {"rfc 5769, IPv4", RFC5769_RESPONSE4, "192.0.2.1:32853"},
        {"rfc 5769, IPv6", RFC5769_RESPONSE6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
        {"mapped only", "0101000c" COOKIE_ID "000100080001 8055 c0000201", "192.0.2.1:32853"},
        {"xor form wins",
         "01010018" COOKIE_ID "000100080001 0001 c0000202 002000080001 a147 e112a643",
         "192.0.2.1:32853"},
        {"first occurrence wins",
         "01010018" COOKIE_ID "002000080001 a147 e112a643 002000080001 a147 e112a644",
         "192.0.2.1:32853"},
        {"legacy attributes beside it",
         "01010018" COOKIE_ID "000400080001 0001 c0000202 000100080001 8055 c0000201",
         "192.0.2.1:32853"},
        {"no address", "01010000" COOKIE_ID, NULL},
        {"request", "0001000c" COOKIE_ID "002000080001 a147 e112a643", NULL},
        {"error", "0111000c" COOKIE_ID "002000080001 a147 e112a643", NULL},
        {"no cookie", "0101000c" LEGACY_ID "002000080001 a147 e112a643", NULL},
        {"other id", "0101000c 2112a442 000102030405060708090a0c 002000080001 a147 e112a643", NULL},
        {"family 0", "0101000c" COOKIE_ID "002000080000 a147 e112a643", NULL},
        {"family 3", "0101000c" COOKIE_ID "002000080003 a147 e112a643", NULL},
        {"IPv6 of 4 bytes", "0101000c" COOKIE_ID "002000080002 a147 e112a643", NULL},
        {"IPv4 of 8 bytes", "01010010" COOKIE_ID "0020000c0001 a147 e112a643 00000000", NULL},
        {"address cut", "01010008" COOKIE_ID "002000040001 a147", NULL},
        {"unknown required", "01010010" COOKIE_ID "7fff0000 002000080001 a147 e112a643", NULL},
        {"cut message", "0101000c" COOKIE_ID "002000080001 a147 e112", NULL},
        {"attribute beyond", "0101000c" COOKIE_ID "0020000a0001 a147 e112a643", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex), id = message_of(ID);
        bool rfc5769 = m.len > 8 && m.bytes[8] == 0xb7;
        struct endpoint got = {.port = 7}, want = got;
        bool ok = stun_read_mapped(m.bytes, m.len, rfc5769 ? m.bytes + 8 : id.bytes, &got);
        if (ok != (cases[i].at != NULL))
            fail_msg("%s: %s", cases[i].name, ok ? "accepted" : "refused");
        if (ok)
            want = endpoint_of_text(cases[i].at);
        assert_true(endpoint_equal(&got, &want));
        test_free(m.bytes);
        test_free(id.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32),
        cmocka_unit_test(test_crc32_of_every_byte),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_answer_with_fingerprint),
        cmocka_unit_test(test_answer_is_bounded),
        cmocka_unit_test(test_answer_that_does_not_fit),
        cmocka_unit_test(test_write_request),
        cmocka_unit_test(test_read_mapped),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
