#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/proxy.c"

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define V4_FROM "203.0.113.7:40000"
#define V6_FROM "[2001:db8::1]:40000"
#define V4_WORDS "203.0.113.7 198.51.100.9 40000 443"

static const struct {
    const char *name, *text;
    enum proxy_verdict want;
    const char *from;
} lines[] = {
    {"TCP4", "PROXY TCP4 " V4_WORDS "\r\n", PROXY_FROM, V4_FROM},
    {"TCP4, smallest", "PROXY TCP4 1.1.1.1 0.0.0.0 1 0\r\n", PROXY_FROM, "1.1.1.1:1"},
    {"TCP4, longest", "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", PROXY_FROM,
     "255.255.255.255:65535"},
    {"TCP4, below multicast", "PROXY TCP4 223.255.255.255 1.1.1.1 1 1\r\n", PROXY_FROM,
     "223.255.255.255:1"},
    {"TCP4, loopback", "PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n", PROXY_FROM, "127.0.0.1:1"},
    {"TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n", PROXY_FROM, V6_FROM},
    {"TCP6, upper case", "PROXY TCP6 2001:DB8::1 2001:DB8::2 40000 443\r\n", PROXY_FROM, V6_FROM},
    {"TCP6, all groups",
     "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 "
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 40000 65535\r\n",
     PROXY_FROM, V6_FROM},
    {"TCP6, zeros at the end", "PROXY TCP6 1:2:3:4:5:6:7:: :: 1 1\r\n", PROXY_FROM,
     "[1:2:3:4:5:6:7:0]:1"},
    {"TCP6, zeros in front", "PROXY TCP6 ::1 1:: 1 1\r\n", PROXY_FROM, "[::1]:1"},
    {"TCP6, mapped is IPv4", "PROXY TCP6 ::ffff:203.0.113.7 ::ffff:1.1.1.1 40000 443\r\n",
     PROXY_FROM, V4_FROM},
    {"TCP6, mapped in hexadecimal", "PROXY TCP6 ::ffff:cb00:7107 ::1 40000 443\r\n", PROXY_FROM,
     V4_FROM},
    {"TCP6, 107 bytes",
     "PROXY TCP6 0000:0000:0000:0000:0000:ffff:203.0.113.7 "
     "0000:0000:0000:0000:0000:0000:100.100.100.10 1 65535\r\n",
     PROXY_FROM, "203.0.113.7:1"},
    {"UNKNOWN", "PROXY UNKNOWN\r\n", PROXY_LOCAL, NULL},
    {"UNKNOWN with addresses", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", PROXY_LOCAL, NULL},
    {"UNKNOWN with nonsense", "PROXY UNKNOWN  \r\t\n \x80\r\n", PROXY_LOCAL, NULL},
    {"UNKNOWN, 107 bytes",
     "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     PROXY_LOCAL, NULL},

    {"nothing", "", PROXY_MORE, NULL},
    {"one letter", "P", PROXY_MORE, NULL},
    {"no protocol", "PROXY ", PROXY_MORE, NULL},
    {"no end", "PROXY TCP4 " V4_WORDS, PROXY_MORE, NULL},
    {"half an end", "PROXY TCP4 " V4_WORDS "\r", PROXY_MORE, NULL},
    {"half an UNKNOWN", "PROXY UNKNOWN\r", PROXY_MORE, NULL},
    {"address begun", "PROXY TCP4 22", PROXY_MORE, NULL},
    {"zeros begun", "PROXY TCP4 0.0.0.", PROXY_MORE, NULL},

    {"other protocol", "GET / HTTP/1.1\r\n", PROXY_BAD, NULL},
    {"TLS hello", "\x16\x03\x01\x02", PROXY_BAD, NULL},
    {"lower case", "proxy TCP4 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"no protocol name", "PROXY\r\n", PROXY_BAD, NULL},
    {"other protocol name", "PROXY TCP5 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"protocol in lower case", "PROXY tcp4 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"UDP4", "PROXY UDP4 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"two blanks first", "PROXY  TCP4 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"two blanks", "PROXY TCP4  " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"two blanks before a port", "PROXY TCP4 1.1.1.1 1.1.1.1  1 1\r\n", PROXY_BAD, NULL},
    {"tab", "PROXY TCP4\t" V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"blank in front", " PROXY TCP4 " V4_WORDS "\r\n", PROXY_BAD, NULL},
    {"blank at the end", "PROXY TCP4 " V4_WORDS " \r\n", PROXY_BAD, NULL},
    {"a word more", "PROXY TCP4 " V4_WORDS " 1\r\n", PROXY_BAD, NULL},
    {"a word less", "PROXY TCP4 203.0.113.7 198.51.100.9 40000\r\n", PROXY_BAD, NULL},
    {"no words", "PROXY TCP4\r\n", PROXY_BAD, NULL},
    {"no words, a blank", "PROXY TCP4 \r\n", PROXY_BAD, NULL},
    {"LF", "PROXY TCP4 " V4_WORDS "\n", PROXY_BAD, NULL},
    {"CR", "PROXY TCP4 " V4_WORDS "\rX", PROXY_BAD, NULL},
    {"CR CR LF", "PROXY TCP4 " V4_WORDS "\r\r\n", PROXY_BAD, NULL},
    {"port 0", "PROXY TCP4 1.1.1.1 1.1.1.1 0 1\r\n", PROXY_BAD, NULL},
    {"port 65536", "PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", PROXY_BAD, NULL},
    {"destination port 65536", "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", PROXY_BAD, NULL},
    {"port with a zero in front", "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", PROXY_BAD, NULL},
    {"destination port 00", "PROXY TCP4 1.1.1.1 1.1.1.1 1 00\r\n", PROXY_BAD, NULL},
    {"port with a sign", "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", PROXY_BAD, NULL},
    {"negative port", "PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n", PROXY_BAD, NULL},
    {"hexadecimal port", "PROXY TCP4 1.1.1.1 1.1.1.1 0x1 1\r\n", PROXY_BAD, NULL},
    {"no port", "PROXY TCP4 1.1.1.1 1.1.1.1  1\r\n", PROXY_BAD, NULL},
    {"no destination port", "PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n", PROXY_BAD, NULL},
    {"port with a colon", "PROXY TCP4 1.1.1.1 1.1.1.1 1:1 1\r\n", PROXY_BAD, NULL},
    {"unspecified", "PROXY TCP4 0.0.0.0 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"unspecified IPv6", "PROXY TCP6 :: ::1 1 1\r\n", PROXY_BAD, NULL},
    {"unspecified, all groups", "PROXY TCP6 0:0:0:0:0:0:0:0 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"unspecified, mapped", "PROXY TCP6 ::ffff:0.0.0.0 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"multicast", "PROXY TCP4 224.0.0.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"last multicast", "PROXY TCP4 239.255.255.255 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"multicast IPv6", "PROXY TCP6 ff02::1 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"multicast, mapped", "PROXY TCP6 ::ffff:224.0.0.1 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"IPv6 in TCP4", "PROXY TCP4 ::1 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"IPv4 in TCP6", "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"mixed", "PROXY TCP6 ::1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"brackets", "PROXY TCP6 [::1] ::1 1 1\r\n", PROXY_BAD, NULL},
    {"brackets inside out", "PROXY TCP6 ::1]:1 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"interface", "PROXY TCP6 fe80::1%lo ::1 1 1\r\n", PROXY_BAD, NULL},
    {"name", "PROXY TCP4 localhost 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"three numbers", "PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"five numbers", "PROXY TCP4 1.1.1.1.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"number with a zero in front", "PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"number 256", "PROXY TCP4 256.1.1.1 1.1.1.1 1 1\r\n", PROXY_BAD, NULL},
    {"two double colons", "PROXY TCP6 1::2::3 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"three colons", "PROXY TCP6 1:::2 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"nine groups", "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"seven groups", "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"five digits", "PROXY TCP6 12345::1 ::1 1 1\r\n", PROXY_BAD, NULL},
    {"bad destination", "PROXY TCP4 1.1.1.1 1.1.1.256 1 1\r\n", PROXY_BAD, NULL},
    {"no destination", "PROXY TCP4 1.1.1.1  1 1\r\n", PROXY_BAD, NULL},
    {"UNKNOWNS", "PROXY UNKNOWNS\r\n", PROXY_BAD, NULL},
    {"UNKNOWN, tab", "PROXY UNKNOWN\t\r\n", PROXY_BAD, NULL},
    {"UNKNOWN, LF", "PROXY UNKNOWN\n", PROXY_BAD, NULL},
    {"UNKNOWN, CR alone", "PROXY UNKNOWN\rX\r\n", PROXY_BAD, NULL},
    {"UNKNOWN, 108 bytes",
     "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n",
     PROXY_BAD, NULL},
    {"TCP6, 108 bytes",
     "PROXY TCP6 0000:0000:0000:0000:0000:ffff:203.0.113.7 "
     "0000:0000:0000:0000:0000:0000:100.100.100.10 10 65535\r\n",
     PROXY_BAD, NULL},
};

#define SIGN "0d0a0d0a 000d0a51 5549540a "
#define V4 "cb007107 c6336409 9c40 01bb "
#define DB8 "20010db8000000000000000000000001 "
#define V6 DB8 "20010db8000000000000000000000002 9c40 01bb "

static const struct {
    const char *name, *hex;
    enum proxy_verdict want;
    const char *from;
} headers[] = {
    {"TCP4", SIGN "21 11 000c" V4, PROXY_FROM, V4_FROM},
    {"TCP4, port 1", SIGN "21 11 000c 01010101 00000000 0001 0000", PROXY_FROM, "1.1.1.1:1"},
    {"TCP6", SIGN "21 21 0024" V6, PROXY_FROM, V6_FROM},
    {"TCP6, mapped is IPv4", SIGN "21 21 0024 00000000000000000000ffffcb007107" DB8 "9c40 01bb",
     PROXY_FROM, V4_FROM},
    {"TLV", SIGN "21 11 0011" V4 "04 0002 7878", PROXY_FROM, V4_FROM},
    {"empty TLV", SIGN "21 11 000f" V4 "04 0000", PROXY_FROM, V4_FROM},
    {"two TLVs", SIGN "21 21 002b" V6 "04 0001 78 fe 0000", PROXY_FROM, V6_FROM},
    {"checksum", SIGN "21 11 0013" V4 "03 0004 cd824643", PROXY_FROM, V4_FROM},
    {"checksum between TLVs", SIGN "21 21 0035" V6 "04 0001 78 03 0004 4088f049 02 0003 616263",
     PROXY_FROM, V6_FROM},
    {"LOCAL", SIGN "20 00 0000", PROXY_LOCAL, NULL},
    {"LOCAL with addresses", SIGN "20 11 000c" V4, PROXY_LOCAL, NULL},
    {"LOCAL, any family, anything", SIGN "20 ff 0003 030004", PROXY_LOCAL, NULL},
    {"unspecified", SIGN "21 00 0000", PROXY_LOCAL, NULL},
    {"unspecified with bytes", SIGN "21 00 0002 ffff", PROXY_LOCAL, NULL},
    {"UDP4", SIGN "21 12 000c" V4, PROXY_LOCAL, NULL},
    {"UDP6", SIGN "21 22 0024" V6, PROXY_LOCAL, NULL},
    {"IPv4 without a protocol", SIGN "21 10 0000", PROXY_LOCAL, NULL},
    {"UNIX stream", SIGN "21 31 0001 00", PROXY_LOCAL, NULL},
    {"UNIX datagram", SIGN "21 32 0000", PROXY_LOCAL, NULL},

    {"half a signature", "0d0a0d0a 000d", PROXY_MORE, NULL},
    {"a signature", SIGN, PROXY_MORE, NULL},
    {"half a length", SIGN "21 11 03", PROXY_MORE, NULL},
    {"largest length", SIGN "21 11 03f0", PROXY_MORE, NULL},
    {"largest length, LOCAL", SIGN "20 00 03f0", PROXY_MORE, NULL},
    {"half an address", SIGN "21 11 000c 0000", PROXY_MORE, NULL},
    {"half a port", SIGN "21 11 000c cb007107 c6336409 00", PROXY_MORE, NULL},
    {"half a TLV", SIGN "21 11 0011" V4 "04 00", PROXY_MORE, NULL},
    {"half a value", SIGN "21 11 0011" V4 "04 0002 78", PROXY_MORE, NULL},
    {"half a checksum", SIGN "21 11 0013" V4 "03 0004 cd8246", PROXY_MORE, NULL},

    {"other signature", "0d0a0d0a 000d0a51 5549540b", PROXY_BAD, NULL},
    {"HTTP's empty lines", "0d0a0d0a 47", PROXY_BAD, NULL},
    {"version 1", SIGN "11", PROXY_BAD, NULL},
    {"version 3", SIGN "31", PROXY_BAD, NULL},
    {"command 2", SIGN "22", PROXY_BAD, NULL},
    {"command 15", SIGN "2f", PROXY_BAD, NULL},
    {"family 4", SIGN "21 41", PROXY_BAD, NULL},
    {"family 15", SIGN "21 f1", PROXY_BAD, NULL},
    {"protocol 3", SIGN "21 13", PROXY_BAD, NULL},
    {"length above the largest", SIGN "21 11 03f1", PROXY_BAD, NULL},
    {"length above the largest, LOCAL", SIGN "20 00 03f1", PROXY_BAD, NULL},
    {"half a length, too large already", SIGN "20 00 04", PROXY_BAD, NULL},
    {"length 65535", SIGN "21 11 ffff", PROXY_BAD, NULL},
    {"TCP4, length 11", SIGN "21 11 000b", PROXY_BAD, NULL},
    {"TCP4, length 0", SIGN "21 11 0000", PROXY_BAD, NULL},
    {"TCP6, length 35", SIGN "21 21 0023", PROXY_BAD, NULL},
    {"TCP6 with IPv4's length", SIGN "21 21 000c" V4, PROXY_BAD, NULL},
    {"port 0", SIGN "21 11 000c cb007107 c6336409 0000", PROXY_BAD, NULL},
    {"unspecified source", SIGN "21 11 000c 00000000", PROXY_BAD, NULL},
    {"unspecified IPv6 source", SIGN "21 21 0024 00000000000000000000000000000000", PROXY_BAD,
     NULL},
    {"unspecified mapped source", SIGN "21 21 0024 00000000000000000000ffff00000000", PROXY_BAD,
     NULL},
    {"multicast source", SIGN "21 11 000c e0", PROXY_BAD, NULL},
    {"last multicast source", SIGN "21 11 000c ef", PROXY_BAD, NULL},
    {"multicast IPv6 source", SIGN "21 21 0024 ff", PROXY_BAD, NULL},
    {"one byte of a TLV", SIGN "21 11 000d" V4, PROXY_BAD, NULL},
    {"two bytes of a TLV", SIGN "21 11 000e" V4, PROXY_BAD, NULL},
    {"TLV longer than the header", SIGN "21 11 0011" V4 "04 0003", PROXY_BAD, NULL},
    {"TLV that leaves one byte", SIGN "21 11 0011" V4 "04 0001 78", PROXY_BAD, NULL},
    {"TLV of 65535", SIGN "21 11 0011" V4 "04 ffff", PROXY_BAD, NULL},
    {"wrong checksum", SIGN "21 11 0013" V4 "03 0004 cd824642", PROXY_BAD, NULL},
    {"checksum of another port", SIGN "21 11 0013 cb007107 c6336409 9c41 01bb 03 0004 cd824643",
     PROXY_BAD, NULL},
    {"checksum of three bytes", SIGN "21 11 0012" V4 "03 0003", PROXY_BAD, NULL},
    {"checksum of five bytes", SIGN "21 11 0014" V4 "03 0005", PROXY_BAD, NULL},
    {"two checksums", SIGN "21 11 001a" V4 "03 0004 cd824643 03 0004", PROXY_BAD, NULL},
};

static unsigned digit_of(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

static size_t bytes_of_hex(const char *hex, uint8_t *ret)
{
    size_t len = 0;
    for (; *hex; hex++) {
        if (*hex == ' ')
            continue;
        ret[len++] = (uint8_t)(digit_of(hex[0]) << 4 | digit_of(hex[1]));
        hex++;
    }
    return len;
}

/* In memory of exactly their size. */
static enum proxy_verdict read_exactly(const uint8_t *bytes, size_t len, struct proxy_header *ret)
{
    uint8_t *copy = test_malloc(len + (len == 0));
    memcpy(copy, bytes, len);
    enum proxy_verdict v = proxy_read(copy, len, ret);
    test_free(copy);
    return v;
}

static void check_header(const char *name, const struct proxy_header *got, size_t len,
                         const char *from)
{
    char text[ENDPOINT_TEXT_MAX];
    if (got->len != len)
        fail_msg("%s: %zu bytes, not %zu", name, got->len, len);
    if (from)
        assert_string_equal(endpoint_format(&got->from, text), from);
}

/* Whole; byte by byte; and with bytes behind it, none of which may matter. */
static void check(const char *name, const uint8_t *bytes, size_t len, enum proxy_verdict want,
                  const char *from)
{
    struct proxy_header got = {.len = 4711};
    enum proxy_verdict v = read_exactly(bytes, len, &got);
    bool decided = want == PROXY_FROM || want == PROXY_LOCAL;
    if (v != want)
        fail_msg("%s: %d, not %d", name, v, want);
    check_header(name, &got, decided ? len : 4711, from);

    v = PROXY_MORE;
    size_t n = 0;
    for (; v == PROXY_MORE && n <= len; n++)
        v = read_exactly(bytes, n, &got);
    if (v != want || (decided && n != len + 1))
        fail_msg("%s, growing: %d after %zu bytes, not %d", name, v, n - 1, want);

    uint8_t longer[4 * PROXY_MAX];
    memset(longer, '\n', sizeof longer);
    memcpy(longer, bytes, len);
    if (want == PROXY_MORE)
        return;
    assert_int_equal(read_exactly(longer, sizeof longer, &got), want);
    check_header(name, &got, decided ? len : 4711, from);
}

static void test_version_1(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++)
        check(lines[i].name, (const uint8_t *)lines[i].text, strlen(lines[i].text), lines[i].want,
              lines[i].from);
}

static void test_version_2(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(headers); i++) {
        uint8_t bytes[256];
        size_t len = bytes_of_hex(headers[i].hex, bytes);
        check(headers[i].name, bytes, len, headers[i].want, headers[i].from);
    }
}

/* A NUL hides nothing in a line that is read, and is ignored where all is. */
static void test_nul(void **state)
{
    (void)state;
    static const char line[] = "PROXY TCP4 " V4_WORDS "\r\n";
    for (size_t at = 0; at < sizeof line - 1; at++) {
        uint8_t spoiled[sizeof line];
        memcpy(spoiled, line, sizeof line);
        spoiled[at] = '\0';
        check("NUL", spoiled, sizeof line - 1, PROXY_BAD, NULL);
    }
    check("NUL of UNKNOWN", (const uint8_t *)"PROXY UNKNOWN \0\r\n", 17, PROXY_LOCAL, NULL);
}

/* The refusal comes with the first byte that no good header has there. */
static void test_refused_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t first_bad; /* its offset */
    } rows[] = {
        {"QROXY", 0},
        {"PROXY\t", 5},
        {"PROXY TCP5", 9},
        {"PROXY TCP4 a", 11},
        {"PROXY TCP4 224", 13},
        {"PROXY TCP4 2230", 14},
        {"PROXY TCP4 256", 13},
        {"PROXY TCP4 1.1.1.1.", 18},
        {"PROXY TCP4 0.0.0.0", 17},
        {"PROXY TCP4 1.1.1.1 1.1.1.1 0", 27},
        {"PROXY TCP4 1.1.1.1 1.1.1.1 65536", 31},
        {"PROXY TCP4 1.1.1.1 1.1.1.1 1 00", 30},
        {"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 ", 30},
        {"PROXY TCP6 1:2:3:4:5:6:7:8:", 26},
        {"PROXY TCP6 ff00", 14},
        {"PROXY TCP6 1::2::", 16},
        {"PROXY UNKNOWN\n", 13},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const uint8_t *bytes = (const uint8_t *)rows[i].text;
        struct proxy_header got;
        size_t n = 0;
        while (n <= strlen(rows[i].text) && read_exactly(bytes, n, &got) == PROXY_MORE)
            n++;
        if (n != rows[i].first_bad + 1)
            fail_msg("\"%s\": refused after %zu bytes, not %zu", rows[i].text, n,
                     rows[i].first_bad + 1);
    }
}

/* One TLV fills the header up to PROXY_MAX; with PROXY_MAX bytes the answer is never MORE. */
static void test_longest(void **state)
{
    (void)state;
    uint8_t bytes[PROXY_MAX + 1] = {0};
    size_t block = PROXY_MAX - V2_HEAD_LEN, value = block - 12 - TLV_HEAD_LEN;
    size_t len = bytes_of_hex(SIGN "21 11 0000" V4 "04", bytes);
    bytes[14] = (uint8_t)(block >> 8);
    bytes[15] = (uint8_t)block;
    bytes[len] = (uint8_t)(value >> 8);
    bytes[len + 1] = (uint8_t)value;
    check("longest", bytes, PROXY_MAX, PROXY_FROM, V4_FROM);
    bytes[15]++;
    check("longer", bytes, PROXY_MAX + 1, PROXY_BAD, NULL);
}

static void test_crc32c(void **state)
{
    (void)state;
    const uint8_t digits[] = "123456789";
    const uint8_t zeros[32] = {0}; /* RFC 3720, B.4 */
    assert_true(~crc32c(UINT32_MAX, digits, 9) == 0xe3069283);
    assert_true(~crc32c(crc32c(UINT32_MAX, digits, 4), digits + 4, 5) == 0xe3069283);
    assert_true(~crc32c(UINT32_MAX, zeros, sizeof zeros) == 0x8a9136aa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_1), cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_nul),       cmocka_unit_test(test_refused_at_once),
        cmocka_unit_test(test_longest),   cmocka_unit_test(test_crc32c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
