#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <sodium.h>

#include "proto/gossipmsg.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* 203.0.113.7:40000 and its msgpack bin. */
#define AT "c41200000000000000000000ffffcb0071079c40"
#define CHALLENGE "c410000102030405060708090a0b0c0d0e0f"
#define ECHO "c410f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"

/* The state record has no kind of its own; 0 is free. */
enum { BODY_STATE = 0 };

static const uint8_t challenge[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t echo_bytes[16] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7,
                                       0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
static const struct endpoint at = {
    .ip = {[10] = 0xff, [11] = 0xff, 203, 0, 113, 7},
    .port = 40000,
};

/* xorshift64*: the same sequence everywhere. */
static uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* Of random length, so that every encoding comes up. */
static uint64_t random_number(uint64_t *state, unsigned bits)
{
    uint64_t length = random_next(state) % (bits + 1);
    return length == 0 ? 0 : random_next(state) >> (64 - length);
}

/* A body in memory of exactly its size, so that a sanitizer sees a read beyond it. */
struct body {
    uint8_t *bytes;
    size_t len;
};

static struct body body_copy(const uint8_t *bytes, size_t len)
{
    struct body b = {.bytes = test_malloc(len + (len == 0)), .len = len};
    memcpy(b.bytes, bytes, len);
    return b;
}

static struct body body_of(const char *hex)
{
    size_t cap = strlen(hex) / 2, len;
    uint8_t *all = test_malloc(cap + 1);
    assert_int_equal(sodium_hex2bin(all, cap, hex, strlen(hex), " ", &len, NULL), 0);
    struct body b = body_copy(all, len);
    test_free(all);
    return b;
}

static bool read_as(int kind, const uint8_t *bytes, size_t len)
{
    static struct gossip_delta delta;
    struct member_fact facts[GOSSIP_MEMBERS_MAX];
    struct digest_entry entries[GOSSIP_DIGEST_MAX];
    struct gossip_hello hello;
    struct gossip_ping ping;
    struct beacon_state says;
    unsigned count, flags;
    switch (kind) {
    case BODY_STATE:
        return read_beacon_state(bytes, len, &says);
    case GOSSIP_HELLO:
        return read_gossip_hello(bytes, len, &hello);
    case GOSSIP_PING:
    case GOSSIP_ACK:
    case GOSSIP_PROBE:
        return read_gossip_ping(bytes, len, (enum gossip_kind)kind, &ping);
    case GOSSIP_MEMBERS:
        return read_gossip_members(bytes, len, facts, &count);
    case GOSSIP_DIGEST:
        return read_gossip_digest(bytes, len, &flags, entries, &count);
    case GOSSIP_DELTA:
        return read_gossip_delta(bytes, len, &delta);
    default:
        fail_msg("no body of kind %d", kind);
        return false;
    }
}

static void assert_hex(const uint8_t *bytes, size_t len, const char *hex)
{
    struct body want = body_of(hex);
    assert_int_equal(len, want.len);
    assert_memory_equal(bytes, want.bytes, len);
    test_free(want.bytes);
}

/* --- the header --- */

static void test_head(void **state)
{
    (void)state;
    const struct gossip_head h = {
        .key_id = 7,
        .kind = GOSSIP_DELTA,
        .sender = 0x01020304,
        .receiver = 0xa1a2a3a4,
        .boot = 0x1112131415161718,
        .sequence = 0x2122232425262728,
    };
    uint8_t frame[GOSSIP_SEAL_LEN] = {0};
    write_gossip_head(frame, &h);
    assert_hex(frame, GOSSIP_HEAD_LEN,
               "20010707 01020304 a1a2a3a4 1112131415161718 2122232425262728");
    struct gossip_head got;
    assert_true(read_gossip_head(frame, sizeof frame, &got));
    assert_int_equal(got.key_id, h.key_id);
    assert_int_equal(got.kind, h.kind);
    assert_int_equal(got.sender, h.sender);
    assert_int_equal(got.receiver, h.receiver);
    assert_true(got.boot == h.boot);
    assert_true(got.sequence == h.sequence);
}

static void test_head_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t len;
        unsigned place;
        uint8_t value;
        bool want;
    } rows[] = {
        {"shortest", GOSSIP_SEAL_LEN, 3, GOSSIP_HELLO, true},
        {"longest", GOSSIP_FRAME_MAX, 3, GOSSIP_HELLO, true},
        {"any kind", GOSSIP_SEAL_LEN, 3, 0xff, true},
        {"any key", GOSSIP_SEAL_LEN, 2, 0xff, true},
        {"sender 2 << 24", GOSSIP_SEAL_LEN, 4, 2, true},
        {"nothing", 0, 3, 1, false},
        {"a header alone", GOSSIP_HEAD_LEN, 3, 1, false},
        {"a byte short", GOSSIP_SEAL_LEN - 1, 3, 1, false},
        {"a byte long", GOSSIP_FRAME_MAX + 1, 3, 1, false},
        {"another type", GOSSIP_SEAL_LEN, 0, 0x21, false},
        {"version 0", GOSSIP_SEAL_LEN, 1, 0, false},
        {"version 2", GOSSIP_SEAL_LEN, 1, 2, false},
        {"sender 0", GOSSIP_SEAL_LEN, 4, 0, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t *frame = test_calloc(rows[i].len + 64, 1);
        const struct gossip_head h = {.kind = 1, .sender = 1u << 24};
        write_gossip_head(frame, &h);
        frame[rows[i].place] = rows[i].value;
        struct body b = body_copy(frame, rows[i].len);
        struct gossip_head got = {.sender = 99};
        if (read_gossip_head(b.bytes, b.len, &got) != rows[i].want)
            fail_msg("%s", rows[i].name);
        assert_true(rows[i].want || got.sender == 99);
        test_free(b.bytes);
        test_free(frame);
    }
}

/* --- every shape, good and bad --- */

static const struct {
    const char *name;
    int kind;
    bool want;
    const char *hex;
} bodies[] = {
    {"hello, both", GOSSIP_HELLO, true, "92" CHALLENGE ECHO},
    {"hello, neither", GOSSIP_HELLO, true, "92 c0 c0"},
    {"hello, bin 16", GOSSIP_HELLO, true, "92 c0 c50010000102030405060708090a0b0c0d0e0f"},
    {"hello, array 16", GOSSIP_HELLO, true, "dc0002 c0 c0"},
    {"hello, array 32", GOSSIP_HELLO, true, "dd00000002 c0 c0"},
    {"hello, more elements", GOSSIP_HELLO, true, "94 c0 c0 01 a568656c6c6f"},
    {"hello, empty", GOSSIP_HELLO, false, ""},
    {"hello, no array", GOSSIP_HELLO, false, "c0"},
    {"hello, a map", GOSSIP_HELLO, false, "82 c0 c0 c0 c0"},
    {"hello, one element", GOSSIP_HELLO, false, "91 c0"},
    {"hello, two in words, one in bytes", GOSSIP_HELLO, false, "92 c0"},
    {"hello, bytes behind", GOSSIP_HELLO, false, "92 c0 c0 c0"},
    {"hello, 15 bytes", GOSSIP_HELLO, false, "92 c0 c40f000102030405060708090a0b0c0d0e"},
    {"hello, 17 bytes", GOSSIP_HELLO, false, "92 c0 c411000102030405060708090a0b0c0d0e0f10"},
    {"hello, a str", GOSSIP_HELLO, false, "92 c0 b0000102030405060708090a0b0c0d0e0f"},
    {"hello, bin 32", GOSSIP_HELLO, false, "92 c0 c600000010000102030405060708090a0b0c0d0e0f"},
    {"hello, a number", GOSSIP_HELLO, false, "92 00 00"},
    {"hello, array 32 without end", GOSSIP_HELLO, false, "ddffffffff c0 c0 c0"},

    {"ping", GOSSIP_PING, true, "94 01 02 03 04"},
    {"ping, with what a probe has", GOSSIP_PING, true, "95 01 02 03 04" AT},
    {"ping, zeros", GOSSIP_PING, true, "94 00 00 00 00"},
    {"ack", GOSSIP_ACK, true, "94 01 02 03 04"},
    {"probe", GOSSIP_PROBE, true, "95 01 02 03 04" AT},
    {"ping, three elements", GOSSIP_PING, false, "93 01 02 03"},
    {"probe without endpoint", GOSSIP_PROBE, false, "94 01 02 03 04"},
    {"probe, endpoint nil", GOSSIP_PROBE, false, "95 01 02 03 04 c0"},
    {"probe, endpoint of 17", GOSSIP_PROBE, false,
     "95 01 02 03 04 c41100000000000000000000ffffcb0071079c"},
    {"probe, endpoint of 19", GOSSIP_PROBE, false,
     "95 01 02 03 04 c41300000000000000000000ffffcb0071079c4000"},
    {"ping, negative", GOSSIP_PING, false, "94 ff 02 03 04"},
    {"ping, nil", GOSSIP_PING, false, "94 c0 02 03 04"},
    {"ping, true", GOSSIP_PING, false, "94 c3 02 03 04"},
    {"ping, float", GOSSIP_PING, false, "94 ca3f800000 02 03 04"},

    {"members, none", GOSSIP_MEMBERS, true, "90"},
    {"members, one", GOSSIP_MEMBERS, true, "91 95 01 02 03 00" AT},
    {"members, last state", GOSSIP_MEMBERS, true, "91 95 01 02 03 03" AT},
    {"members, more elements", GOSSIP_MEMBERS, true, "91 97 01 02 03 00" AT "c0 91c0"},
    {"members, empty", GOSSIP_MEMBERS, false, ""},
    {"members, unknown state", GOSSIP_MEMBERS, false, "91 95 01 02 03 04" AT},
    {"members, state 256", GOSSIP_MEMBERS, false, "91 95 01 02 03 cd0100" AT},
    {"members, id 0", GOSSIP_MEMBERS, false, "91 95 00 02 03 00" AT},
    {"members, flat", GOSSIP_MEMBERS, false, "95 01 02 03 00" AT},
    {"members, four elements", GOSSIP_MEMBERS, false, "91 94 01 02 03 00"},
    {"members, two in words", GOSSIP_MEMBERS, false, "92 95 01 02 03 00" AT},
    {"members, 33", GOSSIP_MEMBERS, false, "dc0021 95 01 02 03 00" AT},
    {"members, 2^32 - 1", GOSSIP_MEMBERS, false, "ddffffffff 95 01 02 03 00" AT},

    {"digest, none", GOSSIP_DIGEST, true, "92 00 90"},
    {"digest, one", GOSSIP_DIGEST, true, "92 03 93 01 02 03"},
    {"digest, flags of later versions", GOSSIP_DIGEST, true, "92 7f 90"},
    {"digest, more elements", GOSSIP_DIGEST, true, "93 03 93 01 02 03 80"},
    {"digest, flags of 8 bits", GOSSIP_DIGEST, false, "92 cc80 90"},
    {"digest, owner 0", GOSSIP_DIGEST, false, "92 03 93 00 02 03"},
    {"digest, two of three", GOSSIP_DIGEST, false, "92 03 92 01 02"},
    {"digest, four of three", GOSSIP_DIGEST, false, "92 03 94 01 02 03 04"},
    {"digest, one of three and one more", GOSSIP_DIGEST, false, "93 03 91 01"},
    {"digest, no list", GOSSIP_DIGEST, false, "92 03 c0"},
    {"digest, one element", GOSSIP_DIGEST, false, "91 03"},
    {"digest, 65 entries", GOSSIP_DIGEST, false, "92 03 dc00c3 01 02 03"},
    {"digest, 2^32 - 1 numbers", GOSSIP_DIGEST, false, "92 03 ddffffffff 01 02 03"},

    {"delta, no rows", GOSSIP_DELTA, true, "96 01 02 05 05 09 90"},
    {"delta, a gap without rows", GOSSIP_DELTA, true, "96 01 02 05 08 09 90"},
    {"delta, one row", GOSSIP_DELTA, true, "96 01 02 00 05 09 93 07 01 05"},
    {"delta, ends before `to`", GOSSIP_DELTA, true, "96 01 02 00 05 09 93 07 01 01"},
    {"delta, a state", GOSSIP_DELTA, true, "96 01 02 00 05 09 94 00 00 05 c403aabbcc"},
    {"delta, a state of nothing", GOSSIP_DELTA, true, "96 01 02 00 05 09 94 00 00 05 c400"},
    {"delta, a proof", GOSSIP_DELTA, true, "96 01 02 00 05 09 97 07 21 01 c403aabbcc 08 01 04"},
    {"delta, more elements", GOSSIP_DELTA, true, "97 01 02 00 05 09 93 07 01 05 c2"},
    {"delta, all meta bits", GOSSIP_DELTA, true, "96 01 02 00 05 09 94 07 ccff 05 c400"},
    {"delta, versions to the end", GOSSIP_DELTA, true,
     "96 01 02 cffffffffffffffffe cfffffffffffffffff cfffffffffffffffff 93 07 01 01"},
    {"delta, owner 0", GOSSIP_DELTA, false, "96 00 02 00 05 09 90"},
    {"delta, five elements", GOSSIP_DELTA, false, "95 01 02 00 05 90"},
    {"delta, from beyond to", GOSSIP_DELTA, false, "96 01 02 06 05 09 90"},
    {"delta, gap 0", GOSSIP_DELTA, false, "96 01 02 00 05 09 93 07 01 00"},
    {"delta, beyond to", GOSSIP_DELTA, false, "96 01 02 00 05 09 93 07 01 06"},
    {"delta, the second beyond to", GOSSIP_DELTA, false, "96 01 02 00 05 09 96 07 01 04 08 01 02"},
    {"delta, a gap that wraps", GOSSIP_DELTA, false,
     "96 01 02 05 09 09 96 07 01 01 08 01 cfffffffffffffffff"},
    {"delta, meta of 9 bits", GOSSIP_DELTA, false, "96 01 02 00 05 09 93 07 cd0100 05"},
    {"delta, two of three", GOSSIP_DELTA, false, "96 01 02 00 05 09 92 07 01"},
    {"delta, a state missing", GOSSIP_DELTA, false, "96 01 02 00 05 09 93 00 00 05"},
    {"delta, a state outside the list", GOSSIP_DELTA, false, "97 01 02 00 05 09 93 00 00 05 c400"},
    {"delta, a proof missing", GOSSIP_DELTA, false, "96 01 02 00 05 09 93 07 21 05"},
    {"delta, a proof not wanted", GOSSIP_DELTA, false, "96 01 02 00 05 09 94 07 01 05 c400"},
    {"delta, two states", GOSSIP_DELTA, false,
     "96 01 02 00 05 09 98 00 00 01 c401aa 00 00 01 c401aa"},
    {"delta, a state that is no bin", GOSSIP_DELTA, false, "96 01 02 00 05 09 94 00 00 05 a1aa"},
    {"delta, 2^32 - 1 elements", GOSSIP_DELTA, false, "96 01 02 00 05 09 ddffffffff 07 01 05"},

    {"state", BODY_STATE, true, "96 01 02 03 04 91" AT "a5302e312e30"},
    {"state, nothing much", BODY_STATE, true, "96 00 00 00 00 90 a0"},
    {"state, str 8", BODY_STATE, true, "96 00 00 00 00 90 d901 31"},
    {"state, str 16", BODY_STATE, true, "96 00 00 00 00 90 da0001 31"},
    {"state, flags of later versions", BODY_STATE, true, "96 ceffffffff 00 00 00 90 a0"},
    {"state, more elements", BODY_STATE, true, "97 00 00 00 00 90 a0 81a16101"},
    {"state, longest version", BODY_STATE, true,
     "96 00 00 00 00 90 bf 31323334353637383930313233343536373839303132333435363738393031"},
    {"state, version too long", BODY_STATE, false,
     "96 00 00 00 00 90 d920 3132333435363738393031323334353637383930313233343536373839303132"},
    {"state, four endpoints", BODY_STATE, true, "96 00 00 00 00 94" AT AT AT AT "a0"},
    {"state, five endpoints", BODY_STATE, false, "96 00 00 00 00 95" AT AT AT AT AT "a0"},
    {"state, 2^32 - 1 endpoints", BODY_STATE, false, "96 00 00 00 00 ddffffffff" AT "a0"},
    {"state, level of 9 bits", BODY_STATE, false, "96 00 00 00 cd0100 90 a0"},
    {"state, blank and tilde", BODY_STATE, true, "96 00 00 00 00 90 a2207e"},
    {"state, below the blank", BODY_STATE, false, "96 00 00 00 00 90 a11f"},
    {"state, above the tilde", BODY_STATE, false, "96 00 00 00 00 90 a17f"},
    {"state, NUL in the version", BODY_STATE, false, "96 00 00 00 00 90 a100"},
    {"state, version in bin", BODY_STATE, false, "96 00 00 00 00 90 c40131"},
    {"state, five elements", BODY_STATE, false, "95 00 00 00 00 90"},
};

static void test_bodies(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct body b = body_of(bodies[i].hex);
        if (read_as(bodies[i].kind, b.bytes, b.len) != bodies[i].want)
            fail_msg("%s", bodies[i].name);
        test_free(b.bytes);
    }
}

/* No beginning of a body is one, and nothing may stand behind it. */
static void test_cut_and_longer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct body b = body_of(bodies[i].hex);
        for (size_t len = 0; bodies[i].want && len < b.len; len++) {
            struct body cut = body_copy(b.bytes, len);
            if (read_as(bodies[i].kind, cut.bytes, len))
                fail_msg("%s: cut to %zu", bodies[i].name, len);
            test_free(cut.bytes);
        }
        struct body longer = {.bytes = test_calloc(b.len + 1, 1), .len = b.len + 1};
        memcpy(longer.bytes, b.bytes, b.len);
        if (read_as(bodies[i].kind, longer.bytes, longer.len) && bodies[i].want)
            fail_msg("%s: a byte behind", bodies[i].name);
        test_free(longer.bytes);
        test_free(b.bytes);
    }
}

/* --- numbers --- */

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        bool want64, want32;
        uint64_t value;
    } rows[] = {
        {"00", true, true, 0},
        {"7f", true, true, 127},
        {"cc05", true, true, 5},
        {"ccff", true, true, 255},
        {"cd0005", true, true, 5},
        {"cdffff", true, true, 65535},
        {"ce00000005", true, true, 5},
        {"ceffffffff", true, true, UINT32_MAX},
        {"cf0000000000000005", true, true, 5},
        {"cf00000000ffffffff", true, true, UINT32_MAX},
        {"cf0000000100000000", true, false, UINT64_C(1) << 32},
        {"cfffffffffffffffff", true, false, UINT64_MAX},
        {"d07f", true, true, 127},
        {"d080", false, false, 0},
        {"d0ff", false, false, 0},
        {"d17fff", true, true, 32767},
        {"d18000", false, false, 0},
        {"d27fffffff", true, true, INT32_MAX},
        {"d280000000", false, false, 0},
        {"d300000000ffffffff", true, true, UINT32_MAX},
        {"d37fffffffffffffff", true, false, INT64_MAX},
        {"d38000000000000000", false, false, 0},
        {"e0", false, false, 0},
        {"ff", false, false, 0},
        {"80", false, false, 0},
        {"90", false, false, 0},
        {"a0", false, false, 0},
        {"c0", false, false, 0},
        {"c1", false, false, 0},
        {"c2", false, false, 0},
        {"c401 05", false, false, 0},
        {"ca40a00000", false, false, 0},
        {"cb4014000000000000", false, false, 0},
        {"d40005", false, false, 0},
        {"d90105", false, false, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char hex[64];
        struct gossip_ping p = {.number = 0};
        snprintf(hex, sizeof hex, "94 %s 01 01 01", rows[i].hex);
        struct body b = body_of(hex);
        if (read_gossip_ping(b.bytes, b.len, GOSSIP_PING, &p) != rows[i].want64 ||
            p.number != rows[i].value)
            fail_msg("%s, 64 bits", rows[i].hex);
        test_free(b.bytes);
        snprintf(hex, sizeof hex, "94 01 01 01 %s", rows[i].hex);
        b = body_of(hex);
        p.lag_ms = 0;
        if (read_gossip_ping(b.bytes, b.len, GOSSIP_PING, &p) != rows[i].want32 ||
            p.lag_ms != (rows[i].want32 ? rows[i].value : 0))
            fail_msg("%s, 32 bits", rows[i].hex);
        test_free(b.bytes);
    }
}

/* --- what a later version may add --- */

static void test_skipped(void **state)
{
    (void)state;
    static const struct {
        const char *hex; /* one value more */
        bool want;
    } rows[] = {
        {"00", true},
        {"7f", true},
        {"e0", true},
        {"ff", true},
        {"c0", true},
        {"c1", false}, /* never used */
        {"c2", true},
        {"c3", true},
        {"c400", true},
        {"c402 0102", true},
        {"c402 01", false},
        {"c50002 0102", true},
        {"c50003 0102", false},
        {"c600000002 0102", true},
        {"c6ffffffff 0102", false},
        {"c702 05 0102", true},
        {"c702 05 01", false},
        {"c80002 05 0102", true},
        {"c8ffff 05 0102", false},
        {"c900000002 05 0102", true},
        {"c9ffffffff 05 0102", false},
        {"ca 00000000", true},
        {"cb 0000000000000000", true},
        {"cb 00000000000000", false},
        {"cc 00", true},
        {"cd 0000", true},
        {"ce 00000000", true},
        {"cf 0000000000000000", true},
        {"d0 00", true},
        {"d1 0000", true},
        {"d2 00000000", true},
        {"d3 0000000000000000", true},
        {"d4 05 00", true},
        {"d5 05 0000", true},
        {"d6 05 00000000", true},
        {"d7 05 0000000000000000", true},
        {"d8 05 00000000000000000000000000000000", true},
        {"d8 05 000000000000000000000000000000", false},
        {"a0", true},
        {"a2 6161", true},
        {"bf 31323334353637383930313233343536373839303132333435363738393031", true},
        {"d902 6161", true},
        {"da0002 6161", true},
        {"db00000002 6161", true},
        {"dbffffffff 6161", false},
        {"80", true},
        {"81 01 02", true},
        {"81 01", false},
        {"82 01 02 03 04", true},
        {"8f", false},
        {"90", true},
        {"92 01 02", true},
        {"92 01", false},
        {"dc0002 01 02", true},
        {"dc0003 01 02", false},
        {"dd00000002 01 02", true},
        {"ddffffffff 01 02", false},
        {"de0001 01 02", true},
        {"de0002 01 02", false},
        {"df00000001 01 02", true},
        {"dfffffffff 01 02", false},
        {"91 91 91 01", true},        /* three deep */
        {"91 91 91 91 01", false},    /* four */
        {"91 81 01 91 01", true},     /* three, with a map */
        {"81 91 91 91 01 02", false}, /* four, with a map */
        {"93 91 91 01 92 01 91 01 91 91 01", true},
        {"92 91 91 91", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char hex[160];
        snprintf(hex, sizeof hex, "93 c0 c0 %s", rows[i].hex);
        struct body b = body_of(hex);
        if (read_as(GOSSIP_HELLO, b.bytes, b.len) != rows[i].want)
            fail_msg("%s", rows[i].hex);
        test_free(b.bytes);
        /* And its end is found: one more behind it. */
        snprintf(hex, sizeof hex, "94 c0 c0 %s 05", rows[i].hex);
        b = body_of(hex);
        if (rows[i].want && !read_as(GOSSIP_HELLO, b.bytes, b.len))
            fail_msg("%s, and one more", rows[i].hex);
        test_free(b.bytes);
    }
}

/* Nothing but openings of arrays, as many as a body holds. */
static void test_bottomless(void **state)
{
    (void)state;
    static const uint8_t openings[] = {0x91, 0x9f, 0x81, 0x8f, 0xdd};
    uint8_t body[GOSSIP_BODY_MAX];
    for (size_t i = 0; i < COUNT(openings); i++) {
        memset(body, openings[i], sizeof body);
        memcpy(body, "\x93\xc0\xc0", 3);
        assert_false(read_as(GOSSIP_HELLO, body, sizeof body));
    }
}

/* --- written and read --- */

static void test_hello(void **state)
{
    (void)state;
    static const struct {
        const uint8_t *challenge, *echo;
        const char *hex;
    } rows[] = {
        {NULL, NULL, "92 c0 c0"},
        {challenge, NULL, "92" CHALLENGE "c0"},
        {NULL, echo_bytes, "92 c0" ECHO},
        {challenge, echo_bytes, "92" CHALLENGE ECHO},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gossip_hello m = {.challenge = rows[i].challenge, .echo = rows[i].echo}, got;
        uint8_t body[GOSSIP_BODY_MAX];
        size_t len = write_gossip_hello(body, sizeof body, &m);
        assert_hex(body, len, rows[i].hex);
        assert_true(read_gossip_hello(body, len, &got));
        assert_int_equal(got.challenge != NULL, m.challenge != NULL);
        assert_int_equal(got.echo != NULL, m.echo != NULL);
        if (m.challenge)
            assert_memory_equal(got.challenge, m.challenge, 16);
        if (m.echo)
            assert_memory_equal(got.echo, m.echo, 16);
        assert_int_equal(write_gossip_hello(body, len, &m), len);
        assert_int_equal(write_gossip_hello(body, len - 1, &m), 0);
        assert_int_equal(write_gossip_hello(body, 0, &m), 0);
    }
}

static void test_ping(void **state)
{
    (void)state;
    const struct {
        enum gossip_kind kind;
        struct gossip_ping m;
        const char *hex;
    } rows[] = {
        {GOSSIP_PING, {.number = 1, .subject = 2, .view = 3, .lag_ms = 4}, "94 01 02 03 04"},
        {GOSSIP_ACK,
         {.number = UINT64_MAX, .subject = UINT32_MAX, .view = 128, .lag_ms = 256},
         "94 cfffffffffffffffff ceffffffff cc80 cd0100"},
        {GOSSIP_PROBE,
         {.number = 65536, .subject = 255, .view = UINT64_C(1) << 32, .lag_ms = 0, .at = at},
         "95 ce00010000 ccff cf0000000100000000 00" AT},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t body[GOSSIP_BODY_MAX];
        struct gossip_ping got;
        size_t len = write_gossip_ping(body, sizeof body, rows[i].kind, &rows[i].m);
        assert_hex(body, len, rows[i].hex);
        assert_true(read_gossip_ping(body, len, rows[i].kind, &got));
        assert_true(got.number == rows[i].m.number);
        assert_int_equal(got.subject, rows[i].m.subject);
        assert_true(got.view == rows[i].m.view);
        assert_int_equal(got.lag_ms, rows[i].m.lag_ms);
        assert_true(endpoint_equal(&got.at, &rows[i].m.at));
        assert_int_equal(write_gossip_ping(body, len, rows[i].kind, &rows[i].m), len);
        assert_int_equal(write_gossip_ping(body, len - 1, rows[i].kind, &rows[i].m), 0);
    }
}

static struct member_fact random_fact(uint64_t *seed)
{
    struct member_fact f = {
        .id = (uint32_t)random_number(seed, 32) | 1,
        .boot = random_number(seed, 64),
        .incarnation = (uint32_t)random_number(seed, 32),
        .state = (uint8_t)(random_next(seed) % MEMBER_STATE_COUNT),
        .at = at,
    };
    f.at.port = (uint16_t)random_next(seed);
    return f;
}

static void assert_fact(const struct member_fact *got, const struct member_fact *want)
{
    assert_int_equal(got->id, want->id);
    assert_true(got->boot == want->boot);
    assert_int_equal(got->incarnation, want->incarnation);
    assert_int_equal(got->state, want->state);
    assert_true(endpoint_equal(&got->at, &want->at));
}

/* With every room: what is written is the longest beginning of the facts that fits. */
static void test_members_fit(void **state)
{
    (void)state;
    enum { FACTS = GOSSIP_MEMBERS_MAX + 3 };
    struct member_fact facts[FACTS], got[GOSSIP_MEMBERS_MAX];
    uint64_t seed = 4711;
    uint8_t body[2048];
    size_t len_of[GOSSIP_MEMBERS_MAX + 1];
    unsigned count, again;
    for (unsigned i = 0; i < FACTS; i++)
        facts[i] = random_fact(&seed);
    for (unsigned n = 0; n <= GOSSIP_MEMBERS_MAX; n++) {
        len_of[n] = write_gossip_members(body, sizeof body, facts, n, &count);
        assert_int_equal(count, n);
        assert_true(len_of[n] > 0);
    }
    assert_int_equal(len_of[0], 1);
    for (size_t room = 0; room <= len_of[GOSSIP_MEMBERS_MAX] + 4; room++) {
        unsigned want = 0;
        while (want < GOSSIP_MEMBERS_MAX && len_of[want + 1] <= room)
            want++;
        size_t len = write_gossip_members(body, room, facts, FACTS, &count);
        assert_int_equal(count, want);
        assert_int_equal(len, want == 0 ? 0 : len_of[want]);
        if (want == 0)
            continue;
        struct body b = body_copy(body, len);
        assert_true(read_gossip_members(b.bytes, len, got, &again));
        assert_int_equal(again, want);
        for (unsigned i = 0; i < want; i++)
            assert_fact(&got[i], &facts[i]);
        test_free(b.bytes);
    }
    assert_int_equal(write_gossip_members(body, 0, facts, 0, &count), 0);
}

static void test_members_bytes(void **state)
{
    (void)state;
    const struct member_fact facts[] = {
        {.id = 1, .boot = UINT64_MAX, .incarnation = 300, .state = MEMBER_LEFT, .at = at},
        {.id = UINT32_MAX,
         .boot = 1700000000000,
         .incarnation = 0,
         .state = MEMBER_ALIVE,
         .at = at},
    };
    uint8_t body[256];
    unsigned count;
    size_t len = write_gossip_members(body, sizeof body, facts, 2, &count);
    assert_hex(body, len,
               "92 95 01 cfffffffffffffffff cd012c 03" AT
               "95 ceffffffff cf0000018bcfe56800 00 00" AT);
}

static void test_digest_fit(void **state)
{
    (void)state;
    enum { ENTRIES = GOSSIP_DIGEST_MAX + 3 };
    struct digest_entry entries[ENTRIES], got[GOSSIP_DIGEST_MAX];
    uint64_t seed = 4712;
    uint8_t body[2048];
    size_t len_of[GOSSIP_DIGEST_MAX + 1];
    unsigned count, again, flags;
    for (unsigned i = 0; i < ENTRIES; i++)
        entries[i] = (struct digest_entry){.owner = (uint32_t)random_number(&seed, 32) | 1,
                                           .boot = random_number(&seed, 64),
                                           .version = random_number(&seed, 64)};
    for (unsigned n = 0; n <= GOSSIP_DIGEST_MAX; n++) {
        len_of[n] = write_gossip_digest(body, sizeof body, 3, entries, n, &count);
        assert_int_equal(count, n);
        assert_true(len_of[n] > 0);
    }
    assert_int_equal(len_of[0], 3);
    for (size_t room = 0; room <= len_of[GOSSIP_DIGEST_MAX] + 4; room++) {
        unsigned want = 0;
        while (want < GOSSIP_DIGEST_MAX && len_of[want + 1] <= room)
            want++;
        size_t len = write_gossip_digest(body, room, 3, entries, ENTRIES, &count);
        assert_int_equal(count, want);
        assert_int_equal(len, want == 0 ? 0 : len_of[want]);
        if (want == 0)
            continue;
        struct body b = body_copy(body, len);
        assert_true(read_gossip_digest(b.bytes, len, &flags, got, &again));
        assert_int_equal(again, want);
        assert_int_equal(flags, DIGEST_ASKS); /* not complete: some did not fit */
        for (unsigned i = 0; i < want; i++) {
            assert_int_equal(got[i].owner, entries[i].owner);
            assert_true(got[i].boot == entries[i].boot);
            assert_true(got[i].version == entries[i].version);
        }
        test_free(b.bytes);
    }
    assert_int_equal(write_gossip_digest(body, 2, 0, entries, 0, &count), 0);
}

static void test_digest_bytes(void **state)
{
    (void)state;
    static const struct digest_entry entries[] = {{1, 2, 3}, {256, 65536, UINT64_C(1) << 32}};
    uint8_t body[256];
    unsigned count;
    size_t len =
        write_gossip_digest(body, sizeof body, DIGEST_ASKS | DIGEST_COMPLETE, entries, 2, &count);
    assert_hex(body, len, "92 03 96 01 02 03 cd0100 ce00010000 cf0000000100000000");
    len = write_gossip_digest(body, sizeof body, DIGEST_COMPLETE, entries, 0, &count);
    assert_hex(body, len, "92 02 90");
}

/* Lists as long as the caller's array, and one longer. */
static void test_list_limits(void **state)
{
    (void)state;
    struct body fact = body_of("95 01 02 03 00" AT);
    for (unsigned n = GOSSIP_MEMBERS_MAX; n <= GOSSIP_MEMBERS_MAX + 1; n++) {
        uint8_t body[2048] = {0xdc, 0, (uint8_t)n};
        for (unsigned i = 0; i < n; i++)
            memcpy(body + 3 + i * fact.len, fact.bytes, fact.len);
        assert_int_equal(read_as(GOSSIP_MEMBERS, body, 3 + n * fact.len), n == GOSSIP_MEMBERS_MAX);
    }
    for (unsigned n = GOSSIP_DIGEST_MAX; n <= GOSSIP_DIGEST_MAX + 1; n++) {
        uint8_t body[2048] = {0x92, 0, 0xdc, 0, (uint8_t)(3 * n)};
        memset(body + 5, 1, (size_t)3 * n);
        assert_int_equal(read_as(GOSSIP_DIGEST, body, 5 + (size_t)3 * n), n == GOSSIP_DIGEST_MAX);
    }
    test_free(fact.bytes);
}

/* --- deltas --- */

static void assert_delta(const struct gossip_delta *got, const struct gossip_delta *want)
{
    assert_int_equal(got->owner, want->owner);
    assert_true(got->boot == want->boot);
    assert_true(got->from == want->from);
    assert_true(got->to == want->to);
    assert_true(got->top == want->top);
    assert_int_equal(got->state != NULL, want->state != NULL);
    if (want->state) {
        assert_int_equal(got->state_len, want->state_len);
        assert_memory_equal(got->state, want->state, want->state_len);
    }
    assert_int_equal(got->row_count, want->row_count);
    for (unsigned i = 0; i < want->row_count; i++) {
        assert_int_equal(got->row[i].id, want->row[i].id);
        assert_int_equal(got->row[i].meta, want->row[i].meta & ~DELTA_PROOF);
        assert_true(got->row[i].version == want->row[i].version);
    }
}

static void test_delta_bytes(void **state)
{
    (void)state;
    static struct gossip_delta m = {
        .owner = 300,
        .boot = 1700000000000,
        .from = 5,
        .to = 400,
        .top = 70000,
        .state = challenge,
        .state_len = 3,
        .row_count = 3,
        .row =
            {
                {.id = 123456, .meta = 1 | DELTA_STREAM, .version = 6},
                {.id = 0, .meta = 0, .version = 10},
                {.id = 7, .meta = DELTA_GONE | DELTA_PROOF, .version = 400},
            },
    };
    static struct gossip_delta got;
    uint8_t body[GOSSIP_BODY_MAX];
    size_t len = write_gossip_delta(body, sizeof body, &m);
    assert_hex(body, len,
               "96 cd012c cf0000018bcfe56800 05 cd0190 ce00011170"
               "9a ce0001e240 09 01  00 00 04 c403000102  07 10 cd0186");
    assert_true(read_gossip_delta(body, len, &got));
    assert_delta(&got, &m);
    assert_int_equal(write_gossip_delta(body, len, &m), len);
    assert_int_equal(write_gossip_delta(body, len - 1, &m), 0);
}

/* A proof is skipped, and the row says that it has none. */
static void test_delta_proof(void **state)
{
    (void)state;
    static struct gossip_delta got;
    struct body b = body_of("96 01 02 00 05 09 97 07 21 01 c403aabbcc 08 01 04");
    assert_true(read_gossip_delta(b.bytes, b.len, &got));
    assert_int_equal(got.row_count, 2);
    assert_int_equal(got.row[0].meta, 1);
    assert_int_equal(got.row[1].id, 8);
    assert_int_equal(got.row[1].version, 5);
    assert_null(got.state);
    test_free(b.bytes);
}

static void test_delta_state_limit(void **state)
{
    (void)state;
    static const struct {
        unsigned len;
        bool want;
    } rows[] = {{GOSSIP_STATE_MAX, true}, {GOSSIP_STATE_MAX + 1, false}};
    static struct gossip_delta got;
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t bytes[512] = {0x96, 1, 2, 0, 5, 9, 0x94, 0, 0, 5, 0xc4, (uint8_t)rows[i].len};
        assert_int_equal(read_gossip_delta(bytes, 12 + rows[i].len, &got), rows[i].want);
    }
}

/* The sizes that writers of deltas count with. */
static void test_delta_bounds(void **state)
{
    (void)state;
    static struct gossip_delta m, got;
    uint8_t body[8192];
    m = (struct gossip_delta){.owner = UINT32_MAX,
                              .boot = UINT64_MAX,
                              .from = UINT64_C(1) << 32,
                              .to = UINT64_MAX,
                              .top = UINT64_MAX};
    size_t head_len = write_gossip_delta(body, sizeof body, &m);
    assert_true(head_len > 0 && head_len + 2 <= DELTA_HEAD_MAX); /* 2: a longer list */
    m.row_count = GOSSIP_ROWS_MAX;
    for (unsigned i = 0; i < m.row_count; i++)
        m.row[i] = (struct delta_row){UINT32_MAX - i, 0xdf, m.from + (i + 1) * (UINT64_C(1) << 33)};
    size_t len = write_gossip_delta(body, sizeof body, &m);
    assert_int_equal(len, head_len + 2 + GOSSIP_ROWS_MAX * DELTA_ROW_MAX);
    assert_true(read_gossip_delta(body, len, &got));
    assert_delta(&got, &m);

    uint8_t says[GOSSIP_STATE_MAX] = {1};
    m.state = says;
    m.state_len = sizeof says;
    m.row[0].id = 0;
    len = write_gossip_delta(body, sizeof body, &m);
    assert_true(len <= DELTA_HEAD_MAX + GOSSIP_ROWS_MAX * DELTA_ROW_MAX + sizeof says);
    assert_true(read_gossip_delta(body, len, &got));
    assert_delta(&got, &m);
}

/* As many of the shortest rows as an array may have, and one more. */
static void test_delta_rows_max(void **state)
{
    (void)state;
    static struct gossip_delta got;
    for (unsigned rows = GOSSIP_ROWS_MAX; rows <= GOSSIP_ROWS_MAX + 1; rows++) {
        uint8_t body[2048] = {0x96, 1, 2, 0, 0xcd, 0x7f, 0xff, 9, 0xdc};
        size_t len = 9;
        body[len++] = (uint8_t)(3 * rows >> 8);
        body[len++] = (uint8_t)(3 * rows);
        for (unsigned i = 0; i < rows; i++) {
            memcpy(body + len, "\x07\x01\x01", 3);
            len += 3;
        }
        assert_int_equal(read_gossip_delta(body, len, &got), rows == GOSSIP_ROWS_MAX);
    }
}

static void random_delta(uint64_t *seed, struct gossip_delta *m, const uint8_t *says)
{
    *m = (struct gossip_delta){.owner = (uint32_t)random_number(seed, 32) | 1,
                               .boot = random_number(seed, 64),
                               .from = random_number(seed, 62),
                               .top = random_number(seed, 64)};
    m->row_count = (unsigned)(random_next(seed) % 60);
    unsigned state_row = (unsigned)(random_next(seed) % 120);
    uint64_t version = m->from;
    for (unsigned i = 0; i < m->row_count; i++) {
        version += 1 + random_number(seed, 40);
        m->row[i] = (struct delta_row){.id = (uint32_t)random_number(seed, 32) | 1,
                                       .meta = (uint8_t)random_next(seed),
                                       .version = version};
        if (i != state_row)
            continue;
        m->row[i].id = 0;
        m->state = says;
        m->state_len = (unsigned)(random_next(seed) % (GOSSIP_STATE_MAX + 1));
    }
    m->to = version + random_number(seed, 10);
}

static void test_delta_random(void **state)
{
    (void)state;
    static struct gossip_delta m, got;
    uint64_t seed = 4713;
    uint8_t says[GOSSIP_STATE_MAX], body[GOSSIP_BODY_MAX];
    for (unsigned i = 0; i < sizeof says; i++)
        says[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 3000; i++) {
        random_delta(&seed, &m, says);
        size_t len = write_gossip_delta(body, sizeof body, &m);
        if (len == 0)
            fail_msg("round %u: does not fit", i);
        struct body b = body_copy(body, len);
        if (!read_gossip_delta(b.bytes, len, &got))
            fail_msg("round %u: not read", i);
        assert_delta(&got, &m);
        test_free(b.bytes);
    }
}

/* Any one byte changed: whatever is still read says the same again. */
static void test_delta_changed(void **state)
{
    (void)state;
    static struct gossip_delta m, got, again;
    uint64_t seed = 4714;
    uint8_t says[GOSSIP_STATE_MAX] = {0}, body[GOSSIP_BODY_MAX], rewritten[GOSSIP_BODY_MAX];
    unsigned taken = 0;
    for (unsigned i = 0; i < 20000; i++) {
        if (i % 100 == 0)
            random_delta(&seed, &m, says);
        size_t len = write_gossip_delta(body, sizeof body, &m);
        body[random_next(&seed) % len] = (uint8_t)random_next(&seed);
        struct body b = body_copy(body, len);
        if (read_gossip_delta(b.bytes, len, &got)) {
            size_t again_len = write_gossip_delta(rewritten, sizeof rewritten, &got);
            assert_true(again_len > 0 && again_len <= len);
            assert_true(read_gossip_delta(rewritten, again_len, &again));
            assert_delta(&again, &got);
            taken++;
        }
        test_free(b.bytes);
    }
    assert_true(taken > 0 && taken < 20000);
}

/* --- the state record --- */

static void test_state(void **state)
{
    (void)state;
    const struct beacon_state s = {
        .draining = true,
        .nodes = 1000000,
        .nodes_max = UINT32_MAX,
        .level = 2,
        .endpoint_count = 2,
        .endpoint = {at, at},
        .version = "0.1.0",
    };
    uint8_t bytes[GOSSIP_STATE_MAX];
    struct beacon_state got;
    size_t len = write_beacon_state(bytes, sizeof bytes, &s);
    assert_hex(bytes, len, "96 01 ce000f4240 ceffffffff 02 92" AT AT "a5302e312e30");
    assert_true(read_beacon_state(bytes, len, &got));
    assert_true(got.draining);
    assert_int_equal(got.nodes, s.nodes);
    assert_int_equal(got.nodes_max, s.nodes_max);
    assert_int_equal(got.level, s.level);
    assert_int_equal(got.endpoint_count, 2);
    assert_true(endpoint_equal(&got.endpoint[1], &at));
    assert_string_equal(got.version, s.version);
    assert_int_equal(write_beacon_state(bytes, len, &s), len);
    assert_int_equal(write_beacon_state(bytes, len - 1, &s), 0);
}

static void test_state_longest(void **state)
{
    (void)state;
    struct beacon_state s = {
        .draining = true,
        .nodes = UINT32_MAX,
        .nodes_max = UINT32_MAX,
        .level = UINT8_MAX,
        .endpoint_count = STATE_ENDPOINTS_MAX,
        .endpoint = {at, at, at, at},
    };
    memset(s.version, 'v', STATE_VERSION_MAX - 1);
    uint8_t bytes[GOSSIP_STATE_MAX];
    struct beacon_state got = {.level = 9};
    size_t len = write_beacon_state(bytes, sizeof bytes, &s);
    assert_true(len > 0);
    assert_true(read_beacon_state(bytes, len, &got));
    assert_string_equal(got.version, s.version);
    assert_int_equal(got.endpoint_count, STATE_ENDPOINTS_MAX);
    got.level = 9;
    assert_false(read_beacon_state(bytes, len - 1, &got));
    assert_int_equal(got.level, 9); /* untouched */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_head_refused),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_cut_and_longer),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_skipped),
        cmocka_unit_test(test_bottomless),
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_members_fit),
        cmocka_unit_test(test_members_bytes),
        cmocka_unit_test(test_digest_fit),
        cmocka_unit_test(test_digest_bytes),
        cmocka_unit_test(test_list_limits),
        cmocka_unit_test(test_delta_bytes),
        cmocka_unit_test(test_delta_proof),
        cmocka_unit_test(test_delta_state_limit),
        cmocka_unit_test(test_delta_bounds),
        cmocka_unit_test(test_delta_rows_max),
        cmocka_unit_test(test_delta_random),
        cmocka_unit_test(test_delta_changed),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_longest),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
