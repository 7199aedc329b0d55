#include "tests/rig.h"
#include "wss/auth.h"

#define NONCE "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
#define SIG                                                                                        \
    "ETThHImOd0DN4z1LD3gR998h0Dk94opa8Nr7yXzBbh/AKZLHS8cDlnAmFMi/2J1Qkx2d/SbNFweoTKuTCNrBAw=="
#define OLD_SIG                                                                                    \
    "UAWyuDFnn1Sy4knuIFDHD5dpTR5aBzzDzVYLA8InD5ylZFI9S9+SpdSg1Krw0DsefBWAWBKBPQwLpODyvhQRBw=="
#define REPLY(id, sig)                                                                             \
    "{\"type\":\"auth_reply\",\"node_id\":" id ",\"public_key\":\"" KEY "\",\"sig\":\"" sig "\"}"

/* RFC 8032, 7.1, test 2. */
static const char secret_hex[] = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
static const char key_hex[] = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

static void unhex(const char *hex, uint8_t *ret, size_t len)
{
    assert_int_equal(sodium_hex2bin(ret, len, hex, strlen(hex), NULL, &len, NULL), 0);
}

static struct auth_challenge challenge1(void)
{
    struct auth_challenge c = {.version = 1, .unix_s = 1800000000};
    unhex(NONCE, c.nonce, sizeof c.nonce);
    return c;
}

static struct auth_challenge challenge2(void)
{
    struct auth_challenge c = challenge1();
    c.version = 2;
    c.beacon_id = 7;
    strcpy(c.host, "beacon.example:8443");
    c.has_exporter = true;
    memset(c.exporter, 0xab, sizeof c.exporter);
    return c;
}

/* --- the challenge --- */

static void test_challenge(void **state)
{
    (void)state;
    char text[AUTH_CHALLENGE_MAX];
    struct auth_challenge c = challenge1();
    static const char want1[] =
        "{\"type\":\"auth_challenge\",\"nonce\":\"" NONCE "\",\"ts\":1800000000}";
    assert_int_equal(auth_write_challenge(&c, text), strlen(want1));
    assert_string_equal(text, want1);

    c = challenge2();
    static const char want2[] = "{\"type\":\"auth_challenge\",\"nonce\":\"" NONCE
                                "\",\"ts\":1800000000,\"version\":2,\"beacon_id\":7,"
                                "\"exporter\":true}";
    assert_int_equal(auth_write_challenge(&c, text), strlen(want2));
    assert_string_equal(text, want2);

    c.unix_s = INT64_MIN;
    c.beacon_id = UINT32_MAX;
    size_t len = auth_write_challenge(&c, text);
    assert_int_equal(len, strlen(text));
    assert_int_equal(text[len - 1], '}');
}

static void test_text2(void **state)
{
    (void)state;
    char text[AUTH_TEXT_MAX];
    struct auth_challenge c = challenge2();
    size_t len = auth_text2(&c, NODE_A, text);
    assert_int_equal(len, strlen(text));
    assert_string_equal(text, "compat_auth2:7:beacon.example:8443:123456:1800000000:" NONCE
                              ":abababababababababababababababababababababababababababababababab");
    c.has_exporter = false;
    strcpy(c.host, "BEACON.Example");
    auth_text2(&c, 1, text);
    assert_string_equal(text, "compat_auth2:7:beacon.example:1:1800000000:" NONCE ":");

    /* The longest there is. */
    c = challenge2();
    c.unix_s = INT64_MIN;
    c.beacon_id = UINT32_MAX;
    memset(c.host, 'h', AUTH_HOST_MAX);
    c.host[AUTH_HOST_MAX] = '\0';
    len = auth_text2(&c, UINT32_MAX, text);
    assert_int_equal(len, strlen(text));
    assert_int_equal(len, strlen("compat_auth2::::::") + 2 * 10 + AUTH_HOST_MAX + 20 + 64 + 64);
}

/* --- the reply --- */

static void test_reply_good(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        uint32_t node_id;
        bool has_key;
    } rows[] = {
        {"golden", REPLY("123456", SIG), NODE_A, true},
        {"old signature", REPLY("123456", OLD_SIG), NODE_A, true},
        {"blanks", " { \"type\" : \"auth_reply\" ,\r\n\t\"node_id\":1, \"sig\" :\"" SIG "\" } ", 1,
         false},
        {"spelled otherwise", "{\"Type\":\"auth_reply\",\"Node_ID\":5,\"SIG\":\"" SIG "\"}", 5,
         false},
        {"key spelled otherwise",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"Public_Key\":\"" KEY "\",\"sig\":\"" SIG "\"}",
         5, true},
        {"unknown members",
         "{\"x\":null,\"y\":1.5,\"type\":\"auth_reply\",\"node_id\":5,\"z\":\"\","
         "\"w\":true,\"sig\":\"" SIG "\"}",
         5, false},
        {"last id", REPLY("4294967295", SIG), UINT32_MAX, true},
        {"key of 31 bytes",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"public_key\":"
         "\"PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zg==\",\"sig\":\"" SIG "\"}",
         5, false},
        {"key that is no base64",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"public_key\":\"?\",\"sig\":\"" SIG "\"}", 5,
         false},
        {"empty key",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"public_key\":\"\",\"sig\":\"" SIG "\"}", 5,
         false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct auth_reply r;
        if (!auth_read_reply(rows[i].text, strlen(rows[i].text), &r))
            fail_msg("%s: refused", rows[i].name);
        if (r.node_id != rows[i].node_id || r.has_key != rows[i].has_key)
            fail_msg("%s: node %u", rows[i].name, r.node_id);
    }
}

static void test_reply_bad(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"id 0", REPLY("0", SIG)},
        {"id 2^32", REPLY("4294967296", SIG)},
        {"id -1", REPLY("-1", SIG)},
        {"id beyond 64 bits", REPLY("99999999999999999999", SIG)},
        {"id as real", REPLY("123456.0", SIG)},
        {"id with exponent", REPLY("1e3", SIG)},
        {"id as string", REPLY("\"123456\"", SIG)},
        {"id null", REPLY("null", SIG)},
        {"id with a zero in front", REPLY("0123", SIG)},
        {"no id", "{\"type\":\"auth_reply\",\"sig\":\"" SIG "\"}"},
        {"no type", "{\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"other type", "{\"type\":\"auth_ok\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"type in capitals", "{\"type\":\"AUTH_REPLY\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"type as number", "{\"type\":1,\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"no signature", "{\"type\":\"auth_reply\",\"node_id\":5}"},
        {"signature null", "{\"type\":\"auth_reply\",\"node_id\":5,\"sig\":null}"},
        {"signature as number", "{\"type\":\"auth_reply\",\"node_id\":5,\"sig\":1}"},
        {"empty signature", REPLY("5", "")},
        {"signature of 32 bytes", REPLY("5", KEY)},
        {"signature of 65 bytes", REPLY("5", "ETThHImOd0DN4z1LD3gR998h0Dk94opa8Nr7yXzBbh/"
                                             "AKZLHS8cDlnAmFMi/2J1Qkx2d/SbNFweoTKuTCNrBA3g=")},
        {"signature without padding", REPLY("5", "ETThHImOd0DN4z1LD3gR998h0Dk94opa8Nr7yXzBbh/"
                                                 "AKZLHS8cDlnAmFMi/2J1Qkx2d/SbNFweoTKuTCNrBAw")},
        {"signature with stray bits", REPLY("5", "ETThHImOd0DN4z1LD3gR998h0Dk94opa8Nr7yXzBbh/"
                                                 "AKZLHS8cDlnAmFMi/2J1Qkx2d/SbNFweoTKuTCNrBAx==")},
        {"signature in the URL alphabet",
         REPLY("5", "ETThHImOd0DN4z1LD3gR998h0Dk94opa8Nr7yXzBbh_"
                    "AKZLHS8cDlnAmFMi_2J1Qkx2d_SbNFweoTKuTCNrBAw==")},
        {"signature with a blank behind", REPLY("5", SIG " ")},
        {"signature with a newline", REPLY("5", SIG "\\n")},
        {"key as number",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"public_key\":1,\"sig\":\"" SIG "\"}"},
        {"key null",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"public_key\":null,\"sig\":\"" SIG "\"}"},
        {"id twice", "{\"type\":\"auth_reply\",\"node_id\":5,\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"id in two spellings",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"Node_Id\":5,\"sig\":\"" SIG "\"}"},
        {"signature in two spellings",
         "{\"type\":\"auth_reply\",\"node_id\":5,\"Sig\":\"\",\"sig\":\"" SIG "\"}"},
        {"unknown member twice",
         "{\"x\":1,\"x\":1,\"type\":\"auth_reply\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"nested object", "{\"x\":{},\"type\":\"auth_reply\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"nested array", "{\"x\":[],\"type\":\"auth_reply\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"text behind", REPLY("5", SIG) "x"},
        {"two objects", REPLY("5", SIG) REPLY("5", SIG)},
        {"array", "[" REPLY("5", SIG) "]"},
        {"string", "\"auth_reply\""},
        {"comma at the end", "{\"type\":\"auth_reply\",\"node_id\":5,\"sig\":\"" SIG "\",}"},
        {"byte order mark", "\xef\xbb\xbf" REPLY("5", SIG)},
        {"not UTF-8", "{\"\xff\":1,\"type\":\"auth_reply\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"escaped NUL", "{\"type\":\"auth_reply\\u0000\",\"node_id\":5,\"sig\":\"" SIG "\"}"},
        {"empty", ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct auth_reply r, before;
        memset(&r, 42, sizeof r);
        before = r;
        if (auth_read_reply(rows[i].text, strlen(rows[i].text), &r))
            fail_msg("%s: taken", rows[i].name);
        assert_memory_equal(&r, &before, sizeof r);
    }
}

static void test_reply_fields(void **state)
{
    (void)state;
    struct auth_reply r;
    uint8_t key[MSG_KEY_LEN], signature[AUTH_SIGNATURE_LEN];
    size_t len;
    unhex(key_hex, key, sizeof key);
    assert_int_equal(sodium_base642bin(signature, sizeof signature, SIG, strlen(SIG), NULL, &len,
                                       NULL, sodium_base64_VARIANT_ORIGINAL),
                     0);
    assert_true(auth_read_reply(REPLY("123456", SIG), strlen(REPLY("123456", SIG)), &r));
    assert_memory_equal(r.key, key, sizeof key);
    assert_memory_equal(r.signature, signature, sizeof signature);
}

/* No beginning of a reply is one, and each is read in memory of exactly its size. */
static void test_reply_cut(void **state)
{
    (void)state;
    static const char whole[] = REPLY("123456", SIG);
    struct auth_reply r;
    for (size_t len = 0; len < strlen(whole); len++) {
        char *text = malloc(len + (len == 0));
        assert_non_null(text);
        memcpy(text, whole, len);
        assert_false(auth_read_reply(text, len, &r));
        free(text);
    }
    assert_false(auth_read_reply(whole, sizeof whole, &r)); /* with its NUL */
}

static void test_reply_sizes(void **state)
{
    (void)state;
    static const char reply[] = REPLY("123456", SIG);
    char text[AUTH_REPLY_MAX + 1];
    struct auth_reply r;
    memset(text, ' ', sizeof text);
    memcpy(text, reply, strlen(reply));
    assert_true(auth_read_reply(text, AUTH_REPLY_MAX, &r));
    assert_false(auth_read_reply(text, AUTH_REPLY_MAX + 1, &r));
    memset(text, '[', sizeof text);
    assert_false(auth_read_reply(text, AUTH_REPLY_MAX, &r));
}

/* --- the signature --- */

static void test_golden(void **state)
{
    (void)state;
    static const char *const replies[] = {REPLY("123456", SIG), REPLY("123456", OLD_SIG)};
    struct auth_challenge c = challenge1(), other = challenge1();
    other.nonce[31] ^= 1;
    for (size_t i = 0; i < COUNT(replies); i++) {
        struct auth_reply r;
        assert_true(auth_read_reply(replies[i], strlen(replies[i]), &r));
        assert_true(r.has_key);
        assert_true(auth_verify(&c, &r, r.key));
        assert_false(auth_verify(&other, &r, r.key));
        c.version = 2;
        assert_false(auth_verify(&c, &r, r.key));
        c.version = 3;
        assert_false(auth_verify(&c, &r, r.key));
        c.version = 1;
        r.node_id++;
        assert_false(auth_verify(&c, &r, r.key));
        r.node_id--;
        r.key[0] ^= 1;
        assert_false(auth_verify(&c, &r, r.key));
        r.key[0] ^= 1;
        r.signature[63] ^= 1;
        assert_false(auth_verify(&c, &r, r.key));
    }
}

/* A key of small order verifies nothing, whatever was sent. */
static void test_weak_key(void **state)
{
    (void)state;
    struct auth_challenge c = challenge1();
    struct auth_reply r = {.node_id = NODE_A};
    uint8_t key[MSG_KEY_LEN] = {0};
    assert_false(auth_verify(&c, &r, key));
    key[0] = 1;
    r.signature[0] = 1;
    assert_false(auth_verify(&c, &r, key));
}

static struct auth_reply sign(const char *text, size_t len, uint32_t node_id,
                              uint8_t key[static MSG_KEY_LEN])
{
    struct auth_reply r = {.node_id = node_id};
    uint8_t seed[32], secret[64];
    unhex(secret_hex, seed, sizeof seed);
    crypto_sign_seed_keypair(key, secret, seed);
    crypto_sign_detached(r.signature, NULL, (const uint8_t *)text, len, secret);
    return r;
}

/* Everything that version 2 signs counts. */
static void test_version2(void **state)
{
    (void)state;
    enum { NOTHING, CASE, NODE, VERSION, NONCE_BIT, TIME, BEACON, HOST, EXPORTER, NO_EXPORTER };
    uint8_t key[MSG_KEY_LEN];
    char text[AUTH_TEXT_MAX];
    struct auth_challenge signed_one = challenge2();
    struct auth_reply good = sign(text, auth_text2(&signed_one, NODE_A, text), NODE_A, key);
    for (int changed = NOTHING; changed <= NO_EXPORTER; changed++) {
        struct auth_challenge c = challenge2();
        struct auth_reply r = good;
        r.node_id += changed == NODE;
        c.version = changed == VERSION ? 1 : 2;
        c.nonce[0] ^= changed == NONCE_BIT;
        c.unix_s += changed == TIME;
        c.beacon_id += changed == BEACON;
        c.host[0] = changed == HOST ? 'c' : changed == CASE ? 'B' : 'b';
        c.exporter[31] ^= changed == EXPORTER;
        c.has_exporter = changed != NO_EXPORTER;
        if (auth_verify(&c, &r, key) != (changed <= CASE))
            fail_msg("change %d", changed);
    }
}

/* What a rogue beacon of version 1 was given is of no use at one of version 2. */
static void test_versions_do_not_mix(void **state)
{
    (void)state;
    static const char *const texts[] = {"compat_auth:123456:1800000000:" NONCE,
                                        "compat_auth:123456:" NONCE};
    uint8_t key[MSG_KEY_LEN];
    struct auth_challenge one = challenge1(), two = challenge2();
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct auth_reply r = sign(texts[i], strlen(texts[i]), NODE_A, key);
        assert_true(auth_verify(&one, &r, key));
        assert_false(auth_verify(&two, &r, key));
    }
    static const char near[] = "compat_auth:123456:1800000001:" NONCE;
    struct auth_reply r = sign(near, strlen(near), NODE_A, key);
    assert_false(auth_verify(&one, &r, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_challenge),
        cmocka_unit_test(test_text2),
        cmocka_unit_test(test_reply_good),
        cmocka_unit_test(test_reply_bad),
        cmocka_unit_test(test_reply_fields),
        cmocka_unit_test(test_reply_cut),
        cmocka_unit_test(test_reply_sizes),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_weak_key),
        cmocka_unit_test(test_version2),
        cmocka_unit_test(test_versions_do_not_mix),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
