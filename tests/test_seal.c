#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sodium.h>

#include "gossip/seal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Bytes 0 to 31, 40 to 71, 80 to 111, ... */
#define KEY_0 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY_1 "KCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/QEFCQ0RFRkc="
#define KEY_2 "UFFSU1RVVldYWVpbXF1eX2BhYmNkZWZnaGlqa2xtbm8="
#define KEY_3 "eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpc="
#define KEY_4 "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8="
#define KEY_ZERO "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

/* xorshift64*: the same sequence everywhere. */
static uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static void counting(uint8_t *bytes, size_t len, unsigned from, unsigned step)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(from + step * i);
}

static struct seal_ring ring_of(const char *text)
{
    struct seal_ring ring;
    char error[SEAL_ERROR_MAX] = "";
    if (!seal_ring_read(&ring, "ring", text, strlen(text), error))
        fail_msg("%s", error);
    return ring;
}

static struct seal_random random_of(unsigned from)
{
    struct seal_random r = {.counter = 9};
    counting(r.seed, sizeof r.seed, from, 1);
    return r;
}

static struct gossip_head head_of(void)
{
    return (struct gossip_head){
        .kind = GOSSIP_DELTA,
        .sender = 0x01020304,
        .receiver = 0xa1a2a3a4,
        .boot = 0x1112131415161718,
        .sequence = 5,
    };
}

/* --- the keys file --- */

static void test_ring_good(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        unsigned count, in_use;
        uint8_t id; /* of the last */
    } rows[] = {
        {"one", "7 use " KEY_0 "\n", 1, 0, 7},
        {"no newline at the end", "7 use " KEY_0, 1, 0, 7},
        {"CR at the end", "7 use " KEY_0 "\r", 1, 0, 7},
        {"smallest id", "0 use " KEY_0, 1, 0, 0},
        {"largest id", "255 use " KEY_0, 1, 0, 255},
        {"two", "1 accept " KEY_0 "\n2 use " KEY_1 "\n", 2, 1, 2},
        {"CRLF", "1 use " KEY_0 "\r\n\r\n2 accept " KEY_1 "\r\n", 2, 0, 2},
        {"tabs and blanks", " \t1 \t use\t" KEY_0 "  \n", 1, 0, 1},
        {"comments", "# a\n  # b\n1 use " KEY_0 " # c\n#2 use " KEY_1 "\n\n", 1, 0, 1},
        {"a comment hard behind a blank", "1 use " KEY_0 " #c", 1, 0, 1},
        {"four", "4 accept " KEY_0 "\n3 accept " KEY_1 "\n2 use " KEY_2 "\n1 accept " KEY_3 "\n", 4,
         2, 1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct seal_ring ring = {.count = 0};
        char error[SEAL_ERROR_MAX] = "";
        if (!seal_ring_read(&ring, "f", rows[i].text, strlen(rows[i].text), error))
            fail_msg("%s: %s", rows[i].name, error);
        if (ring.count != rows[i].count || ring.in_use != rows[i].in_use ||
            ring.of[ring.count - 1].id != rows[i].id)
            fail_msg("%s", rows[i].name);
        uint8_t first[SEAL_KEY_LEN];
        counting(first, sizeof first, 0, 1);
        assert_memory_equal(ring.of[0].key, first, sizeof first);
    }
}

/* Any eight characters of a key would help who reads over a shoulder. */
static bool shows_key(const char *error)
{
    static const char *const keys[] = {KEY_0, KEY_1, KEY_2, KEY_3, KEY_4};
    for (size_t i = 0; i < COUNT(keys); i++)
        for (size_t at = 0; at + 8 <= strlen(keys[i]); at++) {
            char piece[9] = "";
            memcpy(piece, keys[i] + at, 8);
            if (strstr(error, piece))
                return true;
        }
    return false;
}

static void test_ring_bad(void **state)
{
    (void)state;
    static const char no_id[] = "not a key id", no_word[] = "neither \"use\" nor \"accept\"";
    static const char no_key[] = "not the base64 of 32 bytes";
    static const struct {
        const char *text, *where, *why;
    } rows[] = {
        {"", "f:1: ", "no key"},
        {"# 1 use " KEY_0 "\n\n", "f:2: ", "no key"},
        {"1 accept " KEY_0, "f:1: ", "in use"},
        {"1 accept " KEY_0 "\n2 accept " KEY_1 "\n#\n", "f:3: ", "in use"},
        {"1 use " KEY_0 "\n2 use " KEY_1, "f:2: ", "the key of line 1 is already in use"},
        {"1 accept " KEY_2 "\n\n2 use " KEY_0 "\n3 use " KEY_1,
         "f:4: ", "the key of line 3 is already in use"},
        {"1 use " KEY_0 "\n\n1 accept " KEY_1, "f:3: ", "key id 1 is already on line 1"},
        {"1 use " KEY_0 "\n2 accept " KEY_0, "f:2: ", "the same key as on line 1"},
        {"1 use " KEY_0 "\n2 accept " KEY_1 "\n3 accept " KEY_2 "\n4 accept " KEY_3
         "\n5 accept " KEY_4,
         "f:5: ", "more than 4 keys"},
        {"256 use " KEY_0, "f:1: ", no_id},
        {"1000 use " KEY_0, "f:1: ", no_id},
        {"4294967297 use " KEY_0, "f:1: ", no_id},
        {"-1 use " KEY_0, "f:1: ", no_id},
        {"+1 use " KEY_0, "f:1: ", no_id},
        {"01 use " KEY_0, "f:1: ", no_id},
        {"00 use " KEY_0, "f:1: ", no_id},
        {"0x1 use " KEY_0, "f:1: ", no_id},
        {"1: use " KEY_0, "f:1: ", no_id},
        {"use 1 " KEY_0, "f:1: ", no_id},
        {KEY_0 " use 1", "f:1: ", no_id},
        {"\xef\xbb\xbf"
         "1 use " KEY_0,
         "f:1: ", no_id},
        {"\r1 use " KEY_0, "f:1: ", no_id},
        {"1 use " KEY_0 "\n\n\nx", "f:4: ", no_id},
        {"1", "f:1: ", no_word},
        {"1 # use " KEY_0, "f:1: ", no_word},
        {"1 " KEY_0, "f:1: ", no_word},
        {"1 Use " KEY_0, "f:1: ", no_word},
        {"1 uses " KEY_0, "f:1: ", no_word},
        {"1 us " KEY_0, "f:1: ", no_word},
        {"1 accepts " KEY_0, "f:1: ", no_word},
        {"1\ruse " KEY_0, "f:1: ", no_id},
        {"1 use", "f:1: ", "the key is missing"},
        {"1 use \r\n", "f:1: ", "the key is missing"},
        {"1 use # " KEY_0, "f:1: ", "the key is missing"},
        {"1 use " KEY_ZERO, "f:1: ", "the key is all zero"},
        {"1 use x", "f:1: ", no_key},
        {"1 use AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "f:1: ", no_key},
        {"1 use AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", "f:1: ", no_key},
        {"1 use AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g", "f:1: ", no_key},
        {"1 use AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", "f:1: ", no_key}, /* stray bits */
        {"1 use KCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4_QEFCQ0RFRkc=", "f:1: ", no_key}, /* URL alphabet */
        {"1 use " KEY_0 "=", "f:1: ", no_key},
        {"1 use " KEY_0 "#c", "f:1: ", no_key},
        {"1 use " KEY_0 "\r\r\n", "f:1: ", no_key},
        {"1 use " KEY_0 " x", "f:1: ", "text behind the key"},
        {"1 use " KEY_0 " 2 use " KEY_1, "f:1: ", "text behind the key"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct seal_ring ring = {.count = 77};
        char error[SEAL_ERROR_MAX] = "";
        if (seal_ring_read(&ring, "f", rows[i].text, strlen(rows[i].text), error))
            fail_msg("taken: %s", rows[i].text);
        if (strncmp(error, rows[i].where, strlen(rows[i].where)) != 0 ||
            !strstr(error, rows[i].why) || shows_key(error))
            fail_msg("%s: %s", rows[i].text, error);
        assert_int_equal(ring.count, 77);
    }
}

static void test_ring_bytes(void **state)
{
    (void)state;
    static const char with_nul[] = "1\0use " KEY_0;
    struct seal_ring ring;
    char error[SEAL_ERROR_MAX], path[1024];
    assert_false(seal_ring_read(&ring, "f", with_nul, sizeof with_nul - 1, error));
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_false(seal_ring_read(&ring, path, "1 use x", 7, error));
    assert_non_null(strstr(error, ":1: not the base64 of 32 bytes"));
}

static void test_ring_write(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0 use " KEY_4 "\n",
        "255 accept " KEY_0 "\n254 accept " KEY_1 "\n253 accept " KEY_2 "\n252 use " KEY_3 "\n",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct seal_ring ring = ring_of(texts[i]);
        size_t want = strlen(texts[i]);
        char text[SEAL_TEXT_MAX];
        assert_int_equal(seal_ring_write(&ring, text, sizeof text), want);
        assert_string_equal(text, texts[i]);
        assert_int_equal(seal_ring_write(&ring, text, want + 1), want);
        for (size_t room = 0; room <= want; room++)
            assert_int_equal(seal_ring_write(&ring, text, room), 0);
    }
}

/* --- randomness --- */

static void assert_hex(const uint8_t *bytes, size_t len, const char *want)
{
    char *hex = test_malloc(2 * len + 1);
    sodium_bin2hex(hex, 2 * len + 1, bytes, len);
    assert_string_equal(hex, want);
    test_free(hex);
}

/* Computed without libsodium, from RFC 8439's block function with a 64-bit counter. */
static void test_random_known(void **state)
{
    (void)state;
    struct seal_random r = random_of(100);
    uint8_t bytes[40];
    r.counter = 0;
    seal_random(&r, bytes, 40);
    assert_hex(bytes, 40,
               "cb4a8eff9a7d6cdd0e92e9ba827b0aafa9a73c5d53f26e2be18dfeb92622a270e0092c7b62040cb2");
    seal_random(&r, bytes, 8);
    assert_hex(bytes, 8, "28e9d52b90c4a5d9");
    assert_int_equal(r.counter, 2);
}

static int compare_nonces(const void *a, const void *b)
{
    return memcmp(a, b, GOSSIP_NONCE_LEN);
}

static void test_random_does_not_repeat(void **state)
{
    (void)state;
    enum { MANY = 50000 };
    struct seal_random r = random_of(1), other = random_of(2);
    uint8_t(*nonce)[GOSSIP_NONCE_LEN] = test_malloc(MANY * sizeof *nonce);
    for (size_t i = 0; i < MANY; i++)
        seal_random(i % 2 ? &r : &other, nonce[i], sizeof *nonce);
    qsort(nonce, MANY, sizeof *nonce, compare_nonces);
    for (size_t i = 1; i < MANY; i++)
        assert_memory_not_equal(nonce[i - 1], nonce[i], sizeof *nonce);
    test_free(nonce);
}

/* --- frames --- */

/* Computed without libsodium: the wire must not change unnoticed. */
static void test_frame_known(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        const char *hash;
    } rows[] = {
        {0, "d4430b447c3f95634da29f19b417f946"},
        {1, "27af91d834996f6a2091ff78542426de"},
        {63, "02185c712ab101ada2fd10bbba51bdec"},
        {GOSSIP_BODY_MAX, "0ce69b0ba790bfc53e2afd87770936b9"},
    };
    struct seal_ring ring = ring_of("7 use " KEY_0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t body[GOSSIP_BODY_MAX], frame[GOSSIP_FRAME_MAX], hash[16];
        struct seal_random random = random_of(100);
        struct gossip_head head = head_of();
        counting(body, rows[i].len, 0, 31);
        size_t len = seal_frame(&ring, &random, &head, body, rows[i].len, frame);
        assert_int_equal(len, GOSSIP_SEAL_LEN + rows[i].len);
        crypto_generichash(hash, sizeof hash, frame, len, NULL, 0);
        assert_hex(hash, sizeof hash, rows[i].hash);
        if (rows[i].len == 1)
            assert_hex(frame, len,
                       "2001070701020304a1a2a3a411121314151617180000000000000005"
                       "b1a47fe735dd0895fa9ccddf87d1f7a34428a3105fcb29b6"
                       "03ae0efcde8c13aded324186de39ec832c");
    }
}

static void test_every_length(void **state)
{
    (void)state;
    struct seal_ring ring = ring_of("7 use " KEY_0);
    struct seal_random random = random_of(1);
    uint8_t body[GOSSIP_BODY_MAX], frame[GOSSIP_FRAME_MAX], opened[GOSSIP_BODY_MAX];
    counting(body, sizeof body, 3, 7);
    for (size_t n = 0; n <= GOSSIP_BODY_MAX; n++) {
        struct gossip_head head = head_of(), got;
        size_t len = seal_frame(&ring, &random, &head, body, n, frame), got_len;
        assert_int_equal(len, GOSSIP_SEAL_LEN + n);
        uint8_t *exact = test_malloc(len); /* a sanitizer sees a read beyond it */
        memcpy(exact, frame, len);
        assert_int_equal(seal_open(&ring, exact, len, &got, opened, &got_len), SEAL_OK);
        assert_int_equal(got_len, n);
        assert_memory_equal(opened, body, n);
        assert_int_equal(got.key_id, 7);
        assert_int_equal(got.kind, head.kind);
        assert_int_equal(got.sender, head.sender);
        assert_int_equal(got.receiver, head.receiver);
        assert_true(got.boot == head.boot);
        assert_true(got.sequence == head.sequence);
        test_free(exact);
    }
}

/* Every bit of a frame changed, and every shorter length. */
static void test_every_bit(void **state)
{
    (void)state;
    struct seal_ring ring = ring_of("7 use " KEY_0 "\n8 accept " KEY_1), none = {.count = 0};
    struct seal_random random = random_of(1);
    uint8_t body[40] = "forty bytes of a body", frame[GOSSIP_FRAME_MAX], opened[GOSSIP_BODY_MAX];
    struct gossip_head head = head_of(), got = {.sender = 99};
    size_t len = seal_frame(&ring, &random, &head, body, sizeof body, frame), got_len = 12345;
    for (size_t bit = 0; bit < 8 * len; bit++) {
        enum seal_opened want = SEAL_FORGED;
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bit / 8 < 2)
            want = SEAL_MALFORMED;
        else if (bit / 8 == 2 && frame[2] != 8)
            want = SEAL_UNKNOWN_KEY;
        if (seal_open(&ring, frame, len, &got, opened, &got_len) != want)
            fail_msg("bit %zu", bit);
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < len; n++)
        assert_int_equal(seal_open(&ring, frame, n, &got, opened, &got_len),
                         n < GOSSIP_SEAL_LEN ? SEAL_MALFORMED : SEAL_FORGED);
    assert_int_equal(seal_open(&ring, frame, len + 1, &got, opened, &got_len), SEAL_FORGED);
    assert_int_equal(seal_open(&none, frame, len, &got, opened, &got_len), SEAL_UNKNOWN_KEY);
    assert_int_equal(got.sender, 99);
    assert_int_equal(got_len, 12345);
    assert_int_equal(seal_open(&ring, frame, len, &got, opened, &got_len), SEAL_OK);
}

/* The three steps of changing keys; at each, all open what all seal. */
static void test_change_of_keys(void **state)
{
    (void)state;
    static const struct {
        const char *sealer, *opener;
        enum seal_opened want;
    } rows[] = {
        {"1 use " KEY_0, "1 use " KEY_0, SEAL_OK},
        {"1 use " KEY_0, "1 use " KEY_0 "\n2 accept " KEY_1, SEAL_OK},
        {"1 use " KEY_0 "\n2 accept " KEY_1, "1 use " KEY_0, SEAL_OK},
        {"2 use " KEY_1 "\n1 accept " KEY_0, "1 use " KEY_0 "\n2 accept " KEY_1, SEAL_OK},
        {"1 use " KEY_0 "\n2 accept " KEY_1, "2 use " KEY_1 "\n1 accept " KEY_0, SEAL_OK},
        {"2 use " KEY_1, "2 use " KEY_1 "\n1 accept " KEY_0, SEAL_OK},
        {"2 use " KEY_1, "1 use " KEY_0, SEAL_UNKNOWN_KEY},
        {"1 use " KEY_1, "1 use " KEY_0, SEAL_FORGED},
        {"1 use " KEY_1, "1 use " KEY_0 "\n2 accept " KEY_1, SEAL_FORGED},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct seal_ring sealer = ring_of(rows[i].sealer), opener = ring_of(rows[i].opener);
        struct seal_random random = random_of(1);
        struct gossip_head head = head_of(), got;
        uint8_t frame[GOSSIP_FRAME_MAX], opened[GOSSIP_BODY_MAX];
        size_t len = seal_frame(&sealer, &random, &head, (const uint8_t *)"body", 4, frame), n;
        assert_int_equal(head.key_id, sealer.of[sealer.in_use].id);
        if (seal_open(&opener, frame, len, &got, opened, &n) != rows[i].want)
            fail_msg("%s read by %s", rows[i].sealer, rows[i].opener);
    }
}

/* --- replays --- */

static void test_window_limits(void **state)
{
    (void)state;
    static const struct {
        uint64_t first, then;
        bool want;
    } rows[] = {
        {0, 0, false},
        {0, 1, true},
        {1, 0, true},
        {1, 1, false},
        {SEAL_WINDOW - 1, 0, true},
        {SEAL_WINDOW, 0, false},
        {SEAL_WINDOW, 1, true},
        {SEAL_WINDOW + 63, 63, false},
        {SEAL_WINDOW + 63, 64, true},
        {SEAL_WINDOW + 64, 64, false},
        {SEAL_WINDOW + 64, 65, true},
        {100000, 100000 - SEAL_WINDOW, false},
        {100000, 100000 - SEAL_WINDOW + 1, true},
        {100000, 100000 + SEAL_WINDOW, true},
        {5, UINT64_MAX, true},
        {UINT64_MAX, 5, false},
        {UINT64_MAX, UINT64_MAX, false},
        {UINT64_MAX, 0, false},
        {UINT64_MAX, UINT64_MAX - SEAL_WINDOW + 1, true},
        {UINT64_MAX, UINT64_MAX - SEAL_WINDOW, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct seal_window w = {.newest = 0};
        assert_true(seal_window_take(&w, rows[i].first));
        if (seal_window_take(&w, rows[i].then) != rows[i].want)
            fail_msg("%llu then %llu", (unsigned long long)rows[i].first,
                     (unsigned long long)rows[i].then);
        assert_false(seal_window_take(&w, rows[i].then));
    }
}

/* The next number to try: mostly close to the newest, now and then far. */
static uint64_t next_try(uint64_t *seed, uint64_t newest, uint64_t range)
{
    uint64_t kind = random_next(seed) % 100, n = random_next(seed), next;
    if (kind < 45)
        next = newest + n % 4;
    else if (kind < 90)
        next = newest - n % (SEAL_WINDOW + 70);
    else if (kind < 97)
        next = newest + n % 200;
    else
        next = newest + n % (2 * SEAL_WINDOW + 300);
    return next < range ? next : n % range;
}

/* Against a list of all that was ever taken, from several starts, up to the last number there is.
 */
static void test_window_model(void **state)
{
    (void)state;
    enum { RANGE = 1 << 16 };
    static const uint64_t starts[] = {0, UINT32_MAX - 1000u, UINT64_MAX - (RANGE - 1)};
    bool *taken = test_malloc(RANGE * sizeof *taken);
    for (unsigned round = 0; round < 24; round++) {
        uint64_t start = starts[round % COUNT(starts)], seed = 1000 + round, newest = 0;
        struct seal_window w = {.newest = 0};
        memset(taken, 0, RANGE * sizeof *taken);
        unsigned yes = 0, no = 0;
        for (unsigned i = 0; i < 20000; i++) {
            uint64_t n = next_try(&seed, newest, RANGE);
            bool want = !taken[n] && (n > newest || newest - n < SEAL_WINDOW);
            if (seal_window_take(&w, start + n) != want)
                fail_msg("round %u, step %u: %llu, newest %llu", round, i, (unsigned long long)n,
                         (unsigned long long)newest);
            taken[n] |= want;
            newest = want && n > newest ? n : newest;
            yes += want;
            no += !want;
        }
        assert_true(yes > 1000 && no > 1000);
    }
    test_free(taken);
}

/* --- challenges --- */

#define PERIOD_NS (SEAL_CHALLENGE_S * UINT64_C(1000000000))

static void test_challenge_known(void **state)
{
    (void)state;
    uint8_t secret[16], got[GOSSIP_CHALLENGE_LEN];
    counting(secret, sizeof secret, 0, 1);
    seal_challenge(secret, 0x01020304, 0x1112131415161718, 3 * PERIOD_NS, got);
    assert_hex(got, sizeof got, "f2d9ce1b2a5ea2bf699f12b2f5cf99b0");
}

static void test_challenge_periods(void **state)
{
    (void)state;
    static const struct {
        uint64_t asked_ns, echoed_ns;
        bool want;
    } rows[] = {
        {0, 0, true},
        {0, PERIOD_NS - 1, true},
        {0, PERIOD_NS, true},
        {0, 2 * PERIOD_NS - 1, true},
        {0, 2 * PERIOD_NS, false},
        {PERIOD_NS - 1, 2 * PERIOD_NS - 1, true},
        {PERIOD_NS - 1, 2 * PERIOD_NS, false},
        {PERIOD_NS, 3 * PERIOD_NS - 1, true},
        {PERIOD_NS, 3 * PERIOD_NS, false},
        {PERIOD_NS, PERIOD_NS - 1, false}, /* of the future */
        {1000 * PERIOD_NS, 1001 * PERIOD_NS, true},
        {1000 * PERIOD_NS, 1002 * PERIOD_NS, false},
        {1000 * PERIOD_NS, 0, false},
        {UINT64_MAX, UINT64_MAX, true},
        {UINT64_MAX, 0, false}, /* before the first period there is none */
    };
    uint8_t secret[16], echo[GOSSIP_CHALLENGE_LEN];
    counting(secret, sizeof secret, 5, 3);
    for (size_t i = 0; i < COUNT(rows); i++) {
        seal_challenge(secret, 1, 2, rows[i].asked_ns, echo);
        if (seal_challenge_holds(secret, 1, 2, rows[i].echoed_ns, echo) != rows[i].want)
            fail_msg("row %zu", i);
    }
}

static void test_challenge_of_another(void **state)
{
    (void)state;
    uint8_t secret[16], other[16], echo[GOSSIP_CHALLENGE_LEN];
    counting(secret, sizeof secret, 5, 3);
    counting(other, sizeof other, 6, 3);
    seal_challenge(secret, 1, 2, PERIOD_NS, echo);
    assert_true(seal_challenge_holds(secret, 1, 2, PERIOD_NS, echo));
    assert_false(seal_challenge_holds(other, 1, 2, PERIOD_NS, echo));
    assert_false(seal_challenge_holds(secret, 2, 2, PERIOD_NS, echo));
    assert_false(seal_challenge_holds(secret, 1, 3, PERIOD_NS, echo));
    for (size_t bit = 0; bit < 8 * sizeof echo; bit++) {
        echo[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(seal_challenge_holds(secret, 1, 2, PERIOD_NS, echo));
        echo[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_good),
        cmocka_unit_test(test_ring_bad),
        cmocka_unit_test(test_ring_bytes),
        cmocka_unit_test(test_ring_write),
        cmocka_unit_test(test_random_known),
        cmocka_unit_test(test_random_does_not_repeat),
        cmocka_unit_test(test_frame_known),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_change_of_keys),
        cmocka_unit_test(test_window_limits),
        cmocka_unit_test(test_window_model),
        cmocka_unit_test(test_challenge_known),
        cmocka_unit_test(test_challenge_periods),
        cmocka_unit_test(test_challenge_of_another),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
