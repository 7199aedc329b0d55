#include "tests/rig.h"

/* The reader's memory, counted, and refused from the call on that a test says. */
static unsigned memory_calls, memory_calls_max = UINT32_MAX;
static void *counted_realloc(void *memory, size_t size)
{
    return memory_calls++ < memory_calls_max ? realloc(memory, size) : NULL;
}
#define realloc counted_realloc
#include "wss/websocket.c"
#undef realloc

static struct websocket_memory parts = {.max = 8 << 20};

enum { STREAM_MAX = 1 << 20, TRANSCRIPT_MAX = 4096 };

/* --- frames of a client, from a script ---
 *
 * "HH:N" is a frame with first byte HH and N letters, "HH=6869" one with these bytes. Behind it: u
 * unmasked, w and x a length of 16 and 64 bits although fewer would do, h only the head and one
 * byte of payload, *N so many times. "raw=..." is bytes as they are. */

struct stream_text {
    uint8_t *bytes;
    size_t len;
};

static unsigned hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c == '\0' ? NULL : strchr(digits, c);
    if (!found)
        fail_msg("'%c' is not hexadecimal", c);
    return (unsigned)(found - digits);
}

static size_t read_hex(const char **at, uint8_t *ret)
{
    size_t len = 0;
    for (; **at != '\0' && **at != ' ' && !strchr("uwxh*", **at); *at += 2)
        ret[len++] = (uint8_t)(hex_digit((*at)[0]) << 4 | hex_digit((*at)[1]));
    return len;
}

static void write_frame(struct writer *w, unsigned first, const uint8_t *payload, size_t len,
                        const char *flags)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    bool masked = !strchr(flags, 'u');
    unsigned mask_bit = masked ? 0x80 : 0;
    write_u8(w, (uint8_t)first);
    if (strchr(flags, 'x') || len > 65535) {
        write_u8(w, (uint8_t)(mask_bit | 127));
        write_u64(w, len);
    } else if (strchr(flags, 'w') || len > 125) {
        write_u8(w, (uint8_t)(mask_bit | 126));
        write_u16(w, (uint16_t)len);
    } else {
        write_u8(w, (uint8_t)(mask_bit | len));
    }
    if (masked)
        write_bytes(w, key, 4);
    for (size_t i = 0; i < len && (i == 0 || !strchr(flags, 'h')); i++)
        write_u8(w, masked ? payload[i] ^ key[i % 4] : payload[i]);
}

static struct stream_text stream_of(const char *script)
{
    static uint8_t payload[STREAM_MAX];
    struct stream_text s = {.bytes = malloc(STREAM_MAX)};
    struct writer w = writer_of(s.bytes, STREAM_MAX);
    const char *at = script;
    while (*at != '\0') {
        unsigned first = 0, times = 1;
        bool raw = strncmp(at, "raw=", 4) == 0;
        size_t len = 0;
        if (!raw)
            first = hex_digit(at[0]) << 4 | hex_digit(at[1]);
        at += raw ? 3 : 2;
        if (*at++ == '=') {
            len = read_hex(&at, payload);
        } else {
            char *end;
            len = strtoul(at, &end, 10);
            at = end;
            for (size_t i = 0; i < len && i < STREAM_MAX; i++)
                payload[i] = (uint8_t)('a' + i % 26);
        }
        char flags[4] = "";
        for (size_t i = 0; *at != '\0' && strchr("uwxh", *at); i++)
            flags[i] = *at++;
        if (*at == '*') {
            char *end;
            times = (unsigned)strtoul(at + 1, &end, 10);
            at = end;
        }
        while (times-- > 0 && !raw)
            write_frame(&w, first, payload, len, flags);
        if (raw)
            write_bytes(&w, payload, len);
        at += *at == ' ';
    }
    assert_false(w.bad);
    s.len = written(&w);
    return s;
}

/* --- what was read, as text ---
 *
 * t b c p o and the length for each message, c with its status; ! and the status for a refusal. */

struct transcript {
    struct websocket *w;
    char text[TRANSCRIPT_MAX];
    size_t len;
    uint64_t hash; /* of all bytes */
    bool bad;
};

static void transcript_say(struct transcript *t, const char *kind, size_t number)
{
    int n = snprintf(t->text + t->len, TRANSCRIPT_MAX - t->len, "%s%s%zu", t->len > 0 ? " " : "",
                     kind, number);
    assert_true(n > 0 && (size_t)n < TRANSCRIPT_MAX - t->len);
    t->len += (size_t)n;
}

static void transcript_add(struct transcript *t, const struct websocket_message *m)
{
    static const char *const kinds[] = {
        [WEBSOCKET_TEXT] = "t", [WEBSOCKET_BINARY] = "b", [WEBSOCKET_CLOSE] = "c",
        [WEBSOCKET_PING] = "p", [WEBSOCKET_PONG] = "o",
    };
    assert_non_null(m->bytes);
    for (size_t i = 0; i < m->len; i++)
        t->hash = (t->hash ^ m->bytes[i]) * 0x100000001b3u;
    transcript_say(t, kinds[m->opcode], m->opcode == WEBSOCKET_CLOSE ? m->close_status : m->len);
}

static void transcript_read(struct transcript *t, uint8_t *bytes, size_t len, uint64_t now_ns)
{
    struct websocket_message m;
    uint16_t status = 0;
    enum websocket_read got;
    while ((got = websocket_read(t->w, &bytes, &len, now_ns, &m, &status)) == WEBSOCKET_MESSAGE)
        transcript_add(t, &m);
    if (got == WEBSOCKET_BAD && !t->bad)
        transcript_say(t, "!", status);
    if (got == WEBSOCKET_MORE)
        assert_int_equal(len, 0);
    t->bad = got == WEBSOCKET_BAD;
}

/* The stream in pieces of at most `piece` bytes, each in memory of exactly its size. */
static struct transcript read_in_pieces(const struct stream_text *s, size_t piece, uint64_t *seed)
{
    struct transcript t = {.w = websocket_new(&parts), .hash = 1};
    for (size_t at = 0, n; at < s->len; at += n) {
        n = seed ? rig_random(seed) % piece + 1 : piece;
        n = n < s->len - at ? n : s->len - at;
        uint8_t *bytes = malloc(n);
        memcpy(bytes, s->bytes + at, n);
        transcript_read(&t, bytes, n, SECOND_NS);
        free(bytes);
    }
    websocket_free(t.w);
    return t;
}

static const struct {
    const char *name, *script, *want;
} cases[] = {
    /* RFC 6455, 5.7 */
    {"masked Hello", "raw=818537fa213d7f9f4d5158", "t5"},
    {"unmasked Hello", "raw=810548656c6c6f", "!1002"},
    {"masked pong", "raw=8a8537fa213d7f9f4d5158", "o5"},
    {"unmasked ping", "raw=890548656c6c6f", "!1002"},

    {"nothing", "", ""},
    {"half a head", "raw=82", ""},
    {"a head without its key", "raw=8285", ""},
    {"empty text", "81:0", "t0"},
    {"empty binary", "82:0", "b0"},
    {"one byte", "82:1", "b1"},
    {"longest 7-bit length", "82:125", "b125"},
    {"shortest 16-bit length", "82:126", "b126"},
    {"above wslay's buffer", "82:4097", "b4097"},
    {"longest 16-bit length", "82:65535", "b65535"},
    {"longest message", "82:65536", "b65536"},
    {"three in a row", "82:5 81:300 82:0", "b5 t300 b0"},

    {"one byte too long", "82:65537", "!1009"},
    {"one byte too long, refused at its first", "82:65537h", "!1009"},
    {"length 2^31", "raw=82ff0000000080000000 raw=0000000000", "!1009"},
    {"length 2^63 - 1", "raw=82ff7fffffffffffffff raw=0000000000", "!1009"},
    {"length 2^63", "raw=82ff8000000000000000 raw=0000000000", "!1002"},
    {"16-bit length for 125", "82:125w", "!1002"},
    {"16-bit length for 0", "82:0w", "!1002"},
    {"64-bit length for 65535", "82:65535x", "!1002"},
    {"64-bit length for 5", "82:5x", "!1002"},
    {"unmasked", "82:5u", "!1002"},
    {"unmasked and empty", "82:0u", "!1002"},
    {"unmasked after a good one", "82:5 82:5u", "b5 !1002"},
    {"RSV1: compressed", "c2:5", "!1002"},
    {"RSV2", "a2:5", "!1002"},
    {"RSV3", "92:5", "!1002"},
    {"RSV1 of a ping", "c9:5", "!1002"},
    {"RSV1 of a fragment", "02:5 c0:5", "!1002"},
    {"opcode 3", "83:0", "!1002"},
    {"opcode 7", "87:0", "!1002"},
    {"opcode 11", "8b:0", "!1002"},
    {"opcode 15", "8f:0", "!1002"},

    {"two fragments", "02:3 80:4", "b7"},
    {"text in fragments", "01:3 00:3 80:3", "t9"},
    {"empty last fragment", "02:3 80:0", "b3"},
    {"16 empty fragments", "02:0 00:0*14 80:0", "b0"},
    {"17 empty fragments", "02:0 00:0*15 80:0", "!1008"},
    {"16 fragments of a byte", "02:1 00:1*14 80:1", "b16"},
    {"17 fragments of a byte", "02:1 00:1*15 80:1", "!1008"},
    {"the count begins anew", "02:0 00:0*14 80:0 02:0 00:0*14 80:0", "b0 b0"},
    {"longest message in fragments", "02:40000 80:25536", "b65536"},
    {"one byte too long in fragments", "02:40000 80:25537h", "!1009"},
    {"longest and an empty fragment", "02:65536 80:0", "b65536"},
    {"longest and one more", "02:65536 80:1", "!1009"},
    {"the sum begins anew", "02:40000 80:25536 02:40000 80:25536", "b65536 b65536"},
    {"continuation of nothing", "80:5", "!1002"},
    {"continuation of nothing, not the last", "00:5", "!1002"},
    {"continuation of a whole message", "82:5 80:5", "b5 !1002"},
    {"new message inside of one", "02:5 82:5", "!1002"},
    {"new text inside of a text", "01:5 01:5", "!1002"},
    {"ping between fragments", "02:3 89:2 80:3", "p2 b6"},
    {"close between fragments", "02:3 88:0 80:3", "c0"},
    {"unfinished", "02:3 00:3", ""},

    {"empty ping", "89:0", "p0"},
    {"longest ping", "89:125", "p125"},
    {"ping too long", "89:126", "!1002"},
    {"ping not whole", "09:1", "!1002"},
    {"pong not whole", "0a:0", "!1002"},
    {"close not whole", "08:0", "!1002"},
    {"20 pings at once", "89:0*20", "p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0"},
    {"21 pings at once", "89:0*21",
     "p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 !1008"},
    {"20 pings and a pong", "89:0*20 8a:0",
     "p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 !1008"},
    {"20 pings, then close", "89:0*20 88:0",
     "p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 c0"},

    {"close without a status", "88:0", "c0"},
    {"close 1000", "88=03e8", "c1000"},
    {"close 1000 with a reason", "88=03e8627965", "c1000"},
    {"close, then what does not count", "88=03e8 82:5 82:5u raw=ffff", "c1000"},
    {"close of one byte", "88=03", "!1002"},
    {"close 0", "88=0000", "!1002"},
    {"close 999", "88=03e7", "!1002"},
    {"close 1003", "88=03eb", "c1003"},
    {"close 1004", "88=03ec", "!1002"},
    {"close 1005", "88=03ed", "!1002"},
    {"close 1006", "88=03ee", "!1002"},
    {"close 1007", "88=03ef", "c1007"},
    {"close 1014", "88=03f6", "c1014"},
    {"close 1015", "88=03f7", "!1002"},
    {"close 2999", "88=0bb7", "!1002"},
    {"close 3000", "88=0bb8", "c3000"},
    {"close 4999", "88=1387", "c4999"},
    {"close 5000", "88=1388", "!1002"},
    {"close 65535", "88=ffff", "!1002"},
    {"close reason not UTF-8", "88=03e8ff", "!1007"},
    {"close reason cut in a character", "88=03e8c3", "!1007"},

    {"text of all lengths of characters", "81=24c2a2e282acf09f9a80", "t10"},
    {"text that is not UTF-8", "81=ff", "!1007"},
    {"text cut in a character", "81=c3", "!1007"},
    {"overlong text", "81=c080", "!1007"},
    {"surrogate in a text", "81=eda080", "!1007"},
    {"beyond U+10FFFF", "81=f4908080", "!1007"},
    {"character across fragments", "01=c3 80=a9", "t2"},
    {"character lost between fragments", "01=c3 80=28", "!1007"},
    {"binary need not be UTF-8", "82=ff", "b1"},
};

static void test_cases(void **state)
{
    (void)state;
    uint64_t seed = 2463534242;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct stream_text s = stream_of(cases[i].script);
        struct transcript whole = read_in_pieces(&s, STREAM_MAX, NULL);
        if (strcmp(whole.text, cases[i].want) != 0)
            fail_msg("%s: %s", cases[i].name, whole.text);
        for (size_t piece = 1; piece <= 8192; piece = piece < 16 ? piece + 1 : piece * 4) {
            struct transcript t = read_in_pieces(&s, piece, piece % 2 ? NULL : &seed);
            if (strcmp(t.text, cases[i].want) != 0)
                fail_msg("%s, in pieces of %zu: %s", cases[i].name, piece, t.text);
            if (t.hash != whole.hash)
                fail_msg("%s, in pieces of %zu: other bytes", cases[i].name, piece);
        }
        free(s.bytes);
    }
}

/* --- where messages lie --- */

/* Letter i of each fragment is 'a' + i % 26. */
static void assert_letters(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], 'a' + i % 26);
}

/* Feeds a script whole. The last verdict. */
static enum websocket_read feed_all(struct websocket *w, const char *script, uint16_t *ret_status)
{
    struct stream_text s = stream_of(script);
    struct websocket_message m;
    uint8_t *bytes = s.bytes;
    size_t len = s.len;
    enum websocket_read got;
    do
        got = websocket_read(w, &bytes, &len, 0, &m, ret_status);
    while (got == WEBSOCKET_MESSAGE);
    free(s.bytes);
    return got;
}

static void test_parts_share_a_bound(void **state)
{
    (void)state;
    struct websocket_memory shared = {.max = 40000};
    struct websocket *a = websocket_new(&shared), *b = websocket_new(&shared);
    uint16_t status = 0;
    assert_int_equal(feed_all(a, "02:30000", &status), WEBSOCKET_MORE);
    assert_true(shared.used >= 30000);
    assert_int_equal(feed_all(b, "82:60000", &status), WEBSOCKET_MORE); /* whole: needs none */
    assert_int_equal(feed_all(b, "02:30000", &status), WEBSOCKET_BAD);
    assert_int_equal(status, WEBSOCKET_INTERNAL_ERROR);
    websocket_free(b);
    assert_int_equal(feed_all(a, "80:1", &status), WEBSOCKET_MORE);
    assert_int_equal(shared.used, 0); /* given out and done with */
    websocket_free(a);
    struct websocket *c = websocket_new(&shared);
    assert_int_equal(feed_all(c, "02:30000", &status), WEBSOCKET_MORE);
    websocket_free(c);
    assert_int_equal(shared.used, 0);
}

static void test_whole_messages_stay_in_place(void **state)
{
    (void)state;
    struct websocket *w = websocket_new(&parts);
    struct stream_text s = stream_of("82:65536 02:5 89:3 80:0 81:4096 82:0");
    struct websocket_message m[5];
    uint8_t *bytes = s.bytes;
    size_t len = s.len;
    uint16_t status = 0;
    memory_calls = 0;
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m[0], &status), WEBSOCKET_MESSAGE);
    assert_int_equal(memory_calls, 0);
    assert_true(m[0].in_place);
    assert_ptr_equal(m[0].bytes, s.bytes + 14); /* behind the longest head */
    assert_ptr_equal(bytes, m[0].bytes + 65536);
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m[1], &status), WEBSOCKET_MESSAGE);
    assert_int_equal(m[1].opcode, WEBSOCKET_PING);
    assert_false(m[1].in_place);
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m[2], &status), WEBSOCKET_MESSAGE);
    assert_false(m[2].in_place);
    assert_int_equal(m[2].len, 5);
    assert_letters(m[2].bytes, 5);
    assert_int_equal(memory_calls, 1);
    for (unsigned i = 3; i < 5; i++) {
        assert_int_equal(websocket_read(w, &bytes, &len, 0, &m[i], &status), WEBSOCKET_MESSAGE);
        assert_true(m[i].in_place);
    }
    assert_int_equal(memory_calls, 1);
    assert_int_equal(len, 0);
    /* All that lie in place are still whole. */
    assert_letters(m[0].bytes, m[0].len);
    assert_letters(m[3].bytes, m[3].len);
    assert_int_equal(m[3].len, 4096);
    websocket_free(w);
    free(s.bytes);
}

/* What is read is exactly one message: the rest of the bytes may be somebody else's. */
static void test_reads_to_the_end_of_one(void **state)
{
    (void)state;
    static const size_t lens[] = {0, 1, 2, 125, 126, 127, 4096, 65535, 65536};
    for (size_t i = 0; i < COUNT(lens); i++) {
        char script[64];
        snprintf(script, sizeof script, "82:%zu 82:1 82:0", lens[i]);
        struct stream_text s = stream_of(script);
        struct websocket *w = websocket_new(&parts);
        struct websocket_message m;
        uint8_t *bytes = s.bytes;
        size_t len = s.len;
        uint16_t status = 0;
        assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MESSAGE);
        assert_int_equal(len, 7 + 6);
        assert_ptr_equal(m.bytes + lens[i], bytes);
        assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MESSAGE);
        assert_int_equal(len, 6);
        assert_ptr_equal(m.bytes + 1, bytes);
        websocket_free(w);
        free(s.bytes);
    }
}

/* Only the payload has to lie together: the head may have come before. */
static void test_head_before_payload(void **state)
{
    (void)state;
    struct websocket *w = websocket_new(&parts);
    struct stream_text s = stream_of("82:1000");
    struct websocket_message m;
    uint8_t *bytes = s.bytes;
    size_t len = 8;
    uint16_t status = 0;
    memory_calls = 0;
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MORE);
    len = s.len - 8;
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MESSAGE);
    assert_true(m.in_place);
    assert_int_equal(m.len, 1000);
    assert_letters(m.bytes, 1000);
    assert_int_equal(memory_calls, 0);
    websocket_free(w);
    free(s.bytes);
}

/* Memory follows the bytes that came, not the length that a head claims, and goes with the message.
 */
static void test_memory(void **state)
{
    (void)state;
    struct websocket *w = websocket_new(&parts);
    struct stream_text s = stream_of("82:65536");
    struct websocket_message m;
    uint8_t *bytes = s.bytes;
    size_t len = 100;
    uint16_t status = 0;
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MORE);
    assert_int_equal(w->capacity, MEMORY_MIN);
    len = s.len - 100;
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MESSAGE);
    assert_int_equal(w->capacity, WEBSOCKET_MESSAGE_MAX);
    assert_letters(m.bytes, m.len);
    assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_MORE);
    assert_null(w->memory);
    websocket_free(w);
    free(s.bytes);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (unsigned calls = 0; calls < 6; calls++) {
        struct stream_text s = stream_of("02:10000 00:10000 80:45536");
        memory_calls = 0;
        memory_calls_max = calls;
        struct transcript t = read_in_pieces(&s, STREAM_MAX, NULL);
        memory_calls_max = UINT32_MAX;
        assert_string_equal(t.text, calls == 5 ? "b65536" : "!1011");
        free(s.bytes);
    }
}

static void test_refusal_stays(void **state)
{
    (void)state;
    struct websocket *w = websocket_new(&parts);
    struct stream_text s = stream_of("82:5u 82:5");
    struct websocket_message m = {.len = 77};
    uint8_t *bytes = s.bytes;
    size_t len = s.len;
    for (unsigned i = 0; i < 3; i++) {
        uint16_t status = 0;
        assert_int_equal(websocket_read(w, &bytes, &len, 0, &m, &status), WEBSOCKET_BAD);
        assert_int_equal(status, WEBSOCKET_PROTOCOL_ERROR);
    }
    assert_int_equal(m.len, 77);
    websocket_free(w);
    free(s.bytes);
}

/* --- the rate of control frames --- */

static void test_control_rate(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t wait_ns;
        const char *script, *want;
    } steps[] = {
        {"the burst", 0, "89:0*10 8a:0*10",
         "p0 p0 p0 p0 p0 p0 p0 p0 p0 p0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0"},
        {"one more after an interval", SECOND_NS / 10, "89:0", "p0"},
        {"data costs nothing", 0, "82:1*100 81:0", NULL},
        {"two more after two", SECOND_NS / 5, "8a:0*2", "o0 o0"},
        {"never more than the burst", 3600 * SECOND_NS, "8a:0*20",
         "o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0 o0"},
        {"a nanosecond too early", SECOND_NS / 10 - 1, "89:0", "!1008"},
    };
    struct transcript t = {.w = websocket_new(&parts)};
    uint64_t now_ns = 0;
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct stream_text s = stream_of(steps[i].script);
        now_ns += steps[i].wait_ns;
        t.len = 0;
        transcript_read(&t, s.bytes, s.len, now_ns);
        if (steps[i].want && strcmp(t.text, steps[i].want) != 0)
            fail_msg("%s: %s", steps[i].name, t.text);
        free(s.bytes);
    }
    websocket_free(t.w);
}

/* --- frames out --- */

static void test_head(void **state)
{
    (void)state;
    static const struct {
        enum websocket_opcode opcode;
        size_t len;
        const char *want;
    } heads[] = {
        {WEBSOCKET_TEXT, 5, "8105"},
        {WEBSOCKET_PONG, 5, "8a05"},
        {WEBSOCKET_BINARY, 0, "8200"},
        {WEBSOCKET_BINARY, 125, "827d"},
        {WEBSOCKET_PING, 125, "897d"},
        {WEBSOCKET_CLOSE, 0, "8800"},
        {WEBSOCKET_BINARY, 126, "827e007e"},
        {WEBSOCKET_BINARY, 256, "827e0100"}, /* RFC 6455, 5.7 */
        {WEBSOCKET_BINARY, 65535, "827effff"},
        {WEBSOCKET_BINARY, 65536, "827f0000000000010000"}, /* the same */
    };
    for (size_t i = 0; i < COUNT(heads); i++) {
        uint8_t head[WEBSOCKET_HEAD_MAX], want[WEBSOCKET_HEAD_MAX];
        const char *hex = heads[i].want;
        size_t len = read_hex(&hex, want);
        assert_int_equal(websocket_head(head, heads[i].opcode, heads[i].len), len);
        assert_memory_equal(head, want, len);
    }
}

static void test_close(void **state)
{
    (void)state;
    uint8_t payload[125];
    char reason[130];
    assert_int_equal(websocket_close(payload, WEBSOCKET_NORMAL, ""), 2);
    assert_memory_equal(payload, "\x03\xe8", 2);
    assert_int_equal(websocket_close(payload, WEBSOCKET_POLICY, "auth failed"), 13);
    assert_memory_equal(payload,
                        "\x03\xf0"
                        "auth failed",
                        13);
    memset(reason, 'x', sizeof reason);
    reason[123] = '\0';
    assert_int_equal(websocket_close(payload, WEBSOCKET_NORMAL, reason), 125);
    reason[123] = 'x';
    reason[124] = '\0';
    assert_int_equal(websocket_close(payload, WEBSOCKET_NORMAL, reason), 125);
    memcpy(reason + 121, "\xe2\x82\xac", 4); /* would end at 124 */
    assert_int_equal(websocket_close(payload, WEBSOCKET_NORMAL, reason), 123);
    memcpy(reason + 120, "\xe2\x82\xac", 4); /* ends at 123 */
    assert_int_equal(websocket_close(payload, WEBSOCKET_NORMAL, reason), 125);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_whole_messages_stay_in_place),
        cmocka_unit_test(test_reads_to_the_end_of_one),
        cmocka_unit_test(test_head_before_payload),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_refusal_stays),
        cmocka_unit_test(test_control_rate),
        cmocka_unit_test(test_parts_share_a_bound),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
