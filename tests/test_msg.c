#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>

#include "proto/msg.h"

#define KEY_1 "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define SIGNATURE                                                                                  \
    "b3bef5238f1eb5123be4c14bd33e9dd989fe369c0dfb47d3f1c2d67bfea022c0"                             \
    "650918aa3ace1a8ec33e94e7b72eef2659d614ad300db310c9079acb93dd1807"
enum { NODE_A = 123456, NODE_B = 654321 };

/* A message in memory of exactly its size, so that a sanitizer sees a read beyond it. */
struct message {
    uint8_t *bytes;
    size_t len;
};

static struct message message_of(const char *hex)
{
    size_t cap = strlen(hex) / 2;
    struct message m = {.bytes = test_malloc(cap + 1)};
    uint8_t *all = m.bytes;
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

static void assert_written(struct writer *w, const char *hex)
{
    struct message want = message_of(hex);
    assert_int_equal(written(w), want.len);
    assert_memory_equal(w->start, want.bytes, want.len);
    test_free(want.bytes);
}

static void test_kind(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hex;
        enum msg_kind want;
    } cases[] = {
        {"empty", "", MSG_KIND_EMPTY},
        {"discover", "010001e240", MSG_KIND_DISCOVER},
        {"discover of node 0", "0100000000", MSG_KIND_DISCOVER},
        {"discover, stray bytes", "010001e240cb0071071f90", MSG_KIND_DISCOVER},
        {"discover with key", "010009fbf1" KEY_1, MSG_KIND_DISCOVER},
        {"discover, 3-byte id", "010001e2", MSG_KIND_SHORT},
        {"discover, type alone", "01", MSG_KIND_SHORT},
        {"discover ex", "080009fbf1", MSG_KIND_DISCOVER},
        {"discover ex, 3-byte id", "080009fb", MSG_KIND_SHORT},
        {"punch", "030001e2400009fbf1", MSG_KIND_PUNCH},
        {"punch, a byte short", "030001e2400009fb", MSG_KIND_SHORT},
        {"relay", "050001e2400009fbf150494c5068656c6c6f", MSG_KIND_RELAY},
        {"relay, no payload", "050001e2400009fbf1", MSG_KIND_RELAY},
        {"relay, a byte short", "050001e2400009fb", MSG_KIND_SHORT},
        {"sync", "07000000070000", MSG_KIND_SYNC},
        {"sync, lying about its length", "0700000001ffff00000064000000c8", MSG_KIND_SYNC},
        {"gossip, a header and a seal", "20" SIGNATURE "000000", MSG_KIND_GOSSIP},
        {"gossip with a body",
         "20" SIGNATURE "000000"
         "00",
         MSG_KIND_GOSSIP},
        {"gossip, a byte short", "20" SIGNATURE "0000", MSG_KIND_SHORT},
        {"gossip, type alone", "20", MSG_KIND_SHORT},
        {"a type below", "1f" SIGNATURE "000000", MSG_KIND_UNKNOWN},
        {"a type above", "21" SIGNATURE "000000", MSG_KIND_UNKNOWN},
        {"discover reply", "0204cb0071079c40", MSG_KIND_FOR_NODES},
        {"punch command", "0404c63364090fa0", MSG_KIND_FOR_NODES},
        {"relay deliver", "060001e24050494c50", MSG_KIND_FOR_NODES},
        {"relay deliver dest", "090001e2400009fbf1", MSG_KIND_FOR_NODES},
        {"notify", "0a01", MSG_KIND_FOR_NODES},
        {"notify, type alone", "0a", MSG_KIND_FOR_NODES},
        {"first free type", "0b00000000", MSG_KIND_UNKNOWN},
        {"tunnel frame", "50494c50", MSG_KIND_UNKNOWN},
        {"0xff", "ff", MSG_KIND_UNKNOWN},
        {"stun request", "000100002112a442000102030405060708090a0b", MSG_KIND_STUN},
        {"zero byte", "00", MSG_KIND_STUN},
        {"stun success", "010100002112a442000102030405060708090a0b", MSG_KIND_STUN_REFLECTED},
        {"stun error", "011100002112a442000102030405060708090a0b", MSG_KIND_STUN_REFLECTED},
        {"stun success with address",
         "0101000c2112a442000102030405060708090a0b002000080001a147e112a643",
         MSG_KIND_STUN_REFLECTED},
        {"stun success, a byte cut", "010100002112a442000102030405060708090a", MSG_KIND_DISCOVER},
        {"stun success, other length", "010100042112a442000102030405060708090a0b",
         MSG_KIND_DISCOVER},
        {"stun success, length not of 4", "010100012112a442000102030405060708090a0bff",
         MSG_KIND_DISCOVER},
        {"stun success, no cookie", "010100002112a443000102030405060708090a0b", MSG_KIND_DISCOVER},
        {"other stun class", "011000002112a442000102030405060708090a0b", MSG_KIND_DISCOVER},
        {"discover ex is never stun", "080100002112a442000102030405060708090a0b",
         MSG_KIND_DISCOVER},
        {"discover with key like stun",
         "010100112112a442000102030405060708090a0b0000000000000000000000000000000000",
         MSG_KIND_DISCOVER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        enum msg_kind kind = msg_kind(m.bytes, m.len);
        if (kind != cases[i].want)
            fail_msg("%s: kind %d, not %d", cases[i].name, (int)kind, (int)cases[i].want);
        test_free(m.bytes);
    }
}

static void test_discover(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        bool accepted, wants_dest, has_key;
        uint32_t node_id;
        const char *canonical; /* what write_discover makes of it */
    } cases[] = {
        {"010001e240", true, false, false, NODE_A, "010001e240"},
        {"0100000000", true, false, false, 0, "0100000000"},
        {"080009fbf1", true, true, false, NODE_B, "080009fbf1"},
        {"01ffffffff", true, false, false, UINT32_MAX, "01ffffffff"},
        {"010001e240cb0071071f90", true, false, false, NODE_A, "010001e240"},
        {"010009fbf1" KEY_1, true, false, true, NODE_B, "010009fbf1" KEY_1},
        {"080009fbf1" KEY_1, true, true, true, NODE_B, "080009fbf1" KEY_1},
        {"010009fbf1" KEY_1 "ee", true, false, true, NODE_B, "010009fbf1" KEY_1},
        {"010009fbf1d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f70751", true, false,
         false, NODE_B, "010009fbf1"}, /* 36 bytes: no key */
        {.hex = ""},
        {.hex = "01"},
        {.hex = "010001e2"},
        {.hex = "080009fb"},
        {.hex = "020001e240"},
        {.hex = "050001e2400009fbf1"},
        {.hex = "010100002112a442000102030405060708090a0b"}, /* a STUN success */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        struct msg_discover d = {.node_id = 7};
        assert_int_equal(read_discover(m.bytes, m.len, &d), cases[i].accepted);
        assert_int_equal(d.node_id, cases[i].accepted ? cases[i].node_id : 7);
        if (cases[i].accepted) {
            assert_int_equal(d.wants_dest, cases[i].wants_dest);
            assert_ptr_equal(d.key, cases[i].has_key ? m.bytes + 5 : NULL);
            uint8_t out[MSG_DISCOVER_KEY_LEN];
            struct writer w = writer_of(out, sizeof out);
            write_discover(&w, &d);
            assert_written(&w, cases[i].canonical);
        }
        test_free(m.bytes);
    }
}

static void test_punch(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        bool accepted, has_grant;
        int64_t expiry;
        const char *canonical;
    } cases[] = {
        {"030001e2400009fbf1", true, false, 0, "030001e2400009fbf1"},
        {"030001e2400009fbf100000000713fb300" SIGNATURE, true, true, 1900000000,
         "030001e2400009fbf100000000713fb300" SIGNATURE},
        {"030001e2400009fbf100000000713fb300" SIGNATURE "ee", true, true, 1900000000,
         "030001e2400009fbf100000000713fb300" SIGNATURE},
        {"030001e2400009fbf1ffffffffffffffff" SIGNATURE, true, true, -1,
         "030001e2400009fbf1ffffffffffffffff" SIGNATURE},
        {"030001e2400009fbf100000000713fb3", true, false, 0, "030001e2400009fbf1"},
        {.hex = "030001e2400009fb"},
        {.hex = "03"},
        {.hex = "040001e2400009fbf1"},
        {.hex = ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        struct msg_punch p = {.target = 7};
        assert_int_equal(read_punch(m.bytes, m.len, &p), cases[i].accepted);
        assert_int_equal(p.target, cases[i].accepted ? NODE_B : 7);
        if (cases[i].accepted) {
            assert_int_equal(p.requester, NODE_A);
            assert_true(p.grant_expiry == cases[i].expiry);
            assert_ptr_equal(p.grant_signature, cases[i].has_grant ? m.bytes + 17 : NULL);
            uint8_t out[MSG_PUNCH_GRANT_LEN];
            struct writer w = writer_of(out, sizeof out);
            write_punch(&w, &p);
            assert_written(&w, cases[i].canonical);
        }
        test_free(m.bytes);
    }
}

/* A grant is whole or not there: 80 bytes carry none, 81 do. */
static void test_punch_grant_needs_its_last_byte(void **state)
{
    (void)state;
    struct message m = message_of("030001e2400009fbf100000000713fb300" SIGNATURE);
    struct msg_punch p;
    assert_int_equal(m.len, MSG_PUNCH_GRANT_LEN);
    for (size_t len = MSG_PUNCH_LEN; len <= MSG_PUNCH_GRANT_LEN; len++) {
        assert_true(read_punch(m.bytes, len, &p));
        assert_int_equal(p.grant_signature != NULL, len == MSG_PUNCH_GRANT_LEN);
        assert_int_equal(p.grant_expiry != 0, len == MSG_PUNCH_GRANT_LEN);
    }
    test_free(m.bytes);
}

static void test_grant_text(void **state)
{
    (void)state;
    static const struct {
        uint32_t requester, target;
        int64_t expiry;
        const char *want;
    } cases[] = {
        {NODE_A, NODE_B, 1900000000, "punch-grant:123456:654321:1900000000"},
        {0, 0, 0, "punch-grant:0:0:0"},
        {UINT32_MAX, UINT32_MAX, INT64_MIN,
         "punch-grant:4294967295:4294967295:-9223372036854775808"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[MSG_GRANT_TEXT_MAX];
        struct msg_punch m = {.requester = cases[i].requester,
                              .target = cases[i].target,
                              .grant_expiry = cases[i].expiry};
        assert_int_equal(punch_grant_text(&m, text), strlen(cases[i].want));
        assert_string_equal(text, cases[i].want);
    }
}

/* The published grant verifies over our text with the published key. */
static void test_grant_signature(void **state)
{
    (void)state;
    struct message m = message_of("030001e2400009fbf100000000713fb300" SIGNATURE);
    struct message key = message_of(KEY_1);
    struct msg_punch p;
    char text[MSG_GRANT_TEXT_MAX];
    assert_true(read_punch(m.bytes, m.len, &p));
    size_t len = punch_grant_text(&p, text);
    assert_int_equal(
        crypto_sign_verify_detached(p.grant_signature, (const uint8_t *)text, len, key.bytes), 0);
    test_free(m.bytes);
    test_free(key.bytes);
}

static void test_relay(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        bool accepted;
        size_t payload_len;
    } cases[] = {
        {"050001e2400009fbf150494c5068656c6c6f", true, 9},
        {"050001e2400009fbf1", true, 0},
        {"050001e2400009fbf1ff", true, 1},
        {"050001e2400009fb", false, 0},
        {"05", false, 0},
        {"060001e2400009fbf1", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        struct msg_relay r = {.dest = 7};
        assert_int_equal(read_relay(m.bytes, m.len, &r), cases[i].accepted);
        assert_int_equal(r.dest, cases[i].accepted ? NODE_B : 7);
        if (cases[i].accepted) {
            assert_int_equal(r.sender, NODE_A);
            assert_int_equal(r.payload_len, cases[i].payload_len);
            assert_ptr_equal(r.payload, m.bytes + 9);
            uint8_t out[32];
            struct writer w = writer_of(out, sizeof out);
            write_relay(&w, &r);
            assert_written(&w, cases[i].hex);
        }
        test_free(m.bytes);
    }
}

static void test_deliver_rewrites_the_head_only(void **state)
{
    (void)state;
    static const struct {
        const char *relay, *deliver, *deliver_dest;
    } cases[] = {
        {"050001e2400009fbf150494c5068656c6c6f", "060001e24050494c5068656c6c6f",
         "090001e2400009fbf150494c5068656c6c6f"},
        {"050001e2400009fbf1", "060001e240", "090001e2400009fbf1"},
        {"05ffffffff00000000aa", "06ffffffffaa", "09ffffffff00000000aa"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].relay);
        struct message want = message_of(cases[i].deliver);
        assert_ptr_equal(msg_deliver(m.bytes), m.bytes + 4);
        assert_int_equal(m.len - 4, want.len);
        assert_memory_equal(m.bytes + 4, want.bytes, want.len);
        test_free(m.bytes);
        test_free(want.bytes);

        m = message_of(cases[i].relay);
        want = message_of(cases[i].deliver_dest);
        assert_ptr_equal(msg_deliver_dest(m.bytes), m.bytes);
        assert_memory_equal(m.bytes, want.bytes, want.len);
        test_free(m.bytes);
        test_free(want.bytes);
    }
}

static void test_address(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        enum msg_type type;
        const char *at; /* NULL: refused */
    } cases[] = {
        {"0204cb0071079c40", MSG_DISCOVER_REPLY, "203.0.113.7:40000"},
        {"021020010db80000000000000000000000019c40", MSG_DISCOVER_REPLY, "[2001:db8::1]:40000"},
        {"0404c63364090fa0", MSG_PUNCH_COMMAND, "198.51.100.9:4000"},
        {"041020010db800000000000000000000000115b3", MSG_PUNCH_COMMAND, "[2001:db8::1]:5555"},
        {"0204cb0071079c40ee", MSG_DISCOVER_REPLY, "203.0.113.7:40000"},
        {"0210 00000000000000000000ffffcb007107 9c40", MSG_DISCOVER_REPLY, "203.0.113.7:40000"},
        {"0204cb0071079c40", MSG_PUNCH_COMMAND, NULL},
        {"0404c63364090fa0", MSG_DISCOVER_REPLY, NULL},
        {"0204cb0071079c", MSG_DISCOVER_REPLY, NULL},
        {"021020010db80000000000000000000000019c", MSG_DISCOVER_REPLY, NULL},
        {"0200cb0071079c40", MSG_DISCOVER_REPLY, NULL},
        {"0203cb0071079c40", MSG_DISCOVER_REPLY, NULL},
        {"0205cb00710700009c40", MSG_DISCOVER_REPLY, NULL},
        {"02ffcb0071079c40", MSG_DISCOVER_REPLY, NULL},
        {"02", MSG_DISCOVER_REPLY, NULL},
        {"", MSG_DISCOVER_REPLY, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = message_of(cases[i].hex);
        struct endpoint got = {.port = 7}, want = got;
        bool ok = read_address(m.bytes, m.len, cases[i].type, &got);
        assert_int_equal(ok, cases[i].at != NULL);
        if (ok)
            want = endpoint_of_text(cases[i].at);
        assert_true(endpoint_equal(&got, &want));
        test_free(m.bytes);
    }
}

static void test_write_address(void **state)
{
    (void)state;
    static const struct {
        const char *at;
        enum msg_type type;
        const char *hex;
    } cases[] = {
        {"203.0.113.7:40000", MSG_DISCOVER_REPLY, "0204cb0071079c40"},
        {"[::ffff:203.0.113.7]:40000", MSG_DISCOVER_REPLY, "0204cb0071079c40"},
        {"203.0.113.7:40000", MSG_PUNCH_COMMAND, "0404cb0071079c40"},
        {"[2001:db8::1]:5555", MSG_PUNCH_COMMAND, "041020010db800000000000000000000000115b3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t out[MSG_REPLY_MAX];
        struct endpoint e = endpoint_of_text(cases[i].at);
        struct writer w = writer_of(out, sizeof out);
        write_address(&w, cases[i].type, &e);
        assert_written(&w, cases[i].hex);
    }
}

static void test_notify_and_full_writers(void **state)
{
    (void)state;
    uint8_t out[MSG_REPLY_MAX];
    struct writer w = writer_of(out, 2);
    write_notify(&w, MSG_NOTIFY_HANDSHAKE);
    assert_written(&w, "0a01");
    w = writer_of(out, MSG_REPLY_MAX - 1);
    struct endpoint e = endpoint_of_text("[2001:db8::1]:1");
    write_address(&w, MSG_DISCOVER_REPLY, &e);
    assert_int_equal(written(&w), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kind),
        cmocka_unit_test(test_discover),
        cmocka_unit_test(test_punch),
        cmocka_unit_test(test_punch_grant_needs_its_last_byte),
        cmocka_unit_test(test_grant_text),
        cmocka_unit_test(test_grant_signature),
        cmocka_unit_test(test_relay),
        cmocka_unit_test(test_deliver_rewrites_the_head_only),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_write_address),
        cmocka_unit_test(test_notify_and_full_writers),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
