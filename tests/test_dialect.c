#include "tests/rig.h"
#include "wss/dialect.h"

#define KEY_HEX "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define KEY "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
#define A "0001e240"

static uint8_t key[MSG_KEY_LEN];

static void test_requests(void **state)
{
    (void)state;
    static const struct {
        enum registry_lookup dialect;
        bool first;
        uint32_t node_id;
        const char *want;
        size_t len;
    } rows[] = {
        {LOOKUP_BINARY, true, NODE_A, "PILT\1\0\0\0\5\2\0\1\xe2\x40", 14},
        {LOOKUP_BINARY, false, UINT32_MAX, "\0\0\0\5\2\xff\xff\xff\xff", 9},
        {LOOKUP_JSON, true, 7, "\0\0\0\x1d{\"type\":\"lookup\",\"node_id\":7}", 4 + 29},
        {LOOKUP_JSON, false, UINT32_MAX, "\0\0\0\x26{\"type\":\"lookup\",\"node_id\":4294967295}",
         4 + 38},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t bytes[DIALECT_REQUEST_MAX];
        struct writer w = writer_of(bytes, sizeof bytes);
        dialect_write_request(&w, rows[i].dialect, rows[i].first, rows[i].node_id);
        assert_int_equal(written(&w), rows[i].len);
        assert_memory_equal(bytes, rows[i].want, rows[i].len);
    }
}

/* Reads in memory of exactly the size. A key is written only when it was found. */
static enum keys_verdict read_exact(enum registry_lookup dialect, const void *bytes, size_t len,
                                    uint32_t node_id)
{
    uint8_t got[MSG_KEY_LEN], before[MSG_KEY_LEN], *exact = malloc(len + (len == 0));
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    memset(got, 42, sizeof got);
    memset(before, 42, sizeof before);
    enum keys_verdict v = dialect_read_answer(dialect, exact, len, node_id, got);
    free(exact);
    assert_memory_equal(got, v == KEYS_FOUND ? key : before, sizeof got);
    return v;
}

static void test_binary(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hex;
        enum keys_verdict want;
    } rows[] = {
        {"no networks", "82" A "00 00000000 0000 20" KEY_HEX, KEYS_FOUND},
        {"with more behind", "82" A "ff 00000000 0000 20" KEY_HEX "04 686f7374 00", KEYS_FOUND},
        {"three networks", "82" A "00 00000000 0003 000100020003 20" KEY_HEX, KEYS_FOUND},
        {"no key", "82" A "00 00000000 0000 00", KEYS_UNKNOWN},
        {"no key, more behind", "82" A "00 00000000 0001 0007 00 04", KEYS_UNKNOWN},
        {"error", "ff", KEYS_UNKNOWN},
        {"error with a text", "ff 6e6f", KEYS_UNKNOWN},

        {"empty", "", KEYS_FAILED},
        {"type only", "82", KEYS_FAILED},
        {"other type", "83" A "00 00000000 0000 20" KEY_HEX, KEYS_FAILED},
        {"the request", "02" A, KEYS_FAILED},
        {"other id", "82 0001e241 00 00000000 0000 20" KEY_HEX, KEYS_FAILED},
        {"other id without key", "82 0001e241 00 00000000 0000 00", KEYS_FAILED},
        {"no key length", "82" A "00 00000000 0000", KEYS_FAILED},
        {"key cut", "82" A "00 00000000 0000 20 d75a98", KEYS_FAILED},
        {"31 bytes", "82" A "00 00000000 0000 1f" KEY_HEX, KEYS_FAILED},
        {"33 bytes", "82" A "00 00000000 0000 21" KEY_HEX "00", KEYS_FAILED},
        {"networks behind the end", "82" A "00 00000000 ffff 20" KEY_HEX, KEYS_FAILED},
        {"one network too many", "82" A "00 00000000 0001 20" KEY_HEX, KEYS_FAILED},
        {"zero key",
         "82" A "00 00000000 0000 20"
         "0000000000000000000000000000000000000000000000000000000000000000",
         KEYS_FAILED},
        {"key of order 1",
         "82" A "00 00000000 0000 20"
         "0100000000000000000000000000000000000000000000000000000000000000",
         KEYS_FAILED},
        {"key off the curve",
         "82" A "00 00000000 0000 20"
         "0200000000000000000000000000000000000000000000000000000000000000",
         KEYS_FAILED},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t bytes[256];
        size_t len;
        assert_int_equal(
            sodium_hex2bin(bytes, sizeof bytes, rows[i].hex, strlen(rows[i].hex), " ", &len, NULL),
            0);
        enum keys_verdict v = read_exact(LOOKUP_BINARY, bytes, len, NODE_A);
        if (v != rows[i].want)
            fail_msg("%s: %d", rows[i].name, v);
    }
}

static void test_json(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum keys_verdict want;
    } rows[] = {
        {"{\"public_key\":\"" KEY "\"}", KEYS_FOUND},
        {"{\"type\":\"lookup_ok\",\"node_id\":123456,\"public_key\":\"" KEY "\"}", KEYS_FOUND},
        {"{\"node_id\":123456,\"networks\":[{\"id\":1}],\"public_key\":\"" KEY "\"}", KEYS_FOUND},
        {"{\"error\":null,\"public_key\":\"" KEY "\"}", KEYS_FOUND},
        {"{}", KEYS_UNKNOWN},
        {"{\"node_id\":123456}", KEYS_UNKNOWN},
        {"{\"node_id\":123456,\"public_key\":null}", KEYS_UNKNOWN},
        {"{\"node_id\":123456,\"public_key\":\"\"}", KEYS_UNKNOWN},
        {"{\"error\":\"node not found\"}", KEYS_UNKNOWN},
        {"{\"error\":\"\",\"public_key\":\"" KEY "\"}", KEYS_UNKNOWN},
        {"{\"error\":\"no\",\"node_id\":1}", KEYS_UNKNOWN},

        {"", KEYS_FAILED},
        {"null", KEYS_FAILED},
        {"[]", KEYS_FAILED},
        {"\"" KEY "\"", KEYS_FAILED},
        {"{\"public_key\":\"" KEY "\"", KEYS_FAILED},
        {"{\"public_key\":\"" KEY "\"}x", KEYS_FAILED},
        {"{\"node_id\":123457,\"public_key\":\"" KEY "\"}", KEYS_FAILED},
        {"{\"node_id\":123457}", KEYS_FAILED},
        {"{\"node_id\":123456.0,\"public_key\":\"" KEY "\"}", KEYS_FAILED},
        {"{\"node_id\":\"123456\",\"public_key\":\"" KEY "\"}", KEYS_FAILED},
        {"{\"node_id\":4295090752,\"public_key\":\"" KEY "\"}", KEYS_FAILED}, /* 2^32 more */
        {"{\"node_id\":null,\"public_key\":\"" KEY "\"}", KEYS_FAILED},
        {"{\"public_key\":\"" KEY "\",\"public_key\":\"" KEY "\"}", KEYS_FAILED},
        {"{\"public_key\":1}", KEYS_FAILED},
        {"{\"public_key\":[\"" KEY "\"]}", KEYS_FAILED},
        {"{\"public_key\":\"" KEY " \"}", KEYS_FAILED},
        {"{\"public_key\":\"" KEY_HEX "\"}", KEYS_FAILED},
        {"{\"public_key\":\"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUQ==\"}", KEYS_FAILED},
        {"{\"public_key\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}", KEYS_FAILED},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        enum keys_verdict v = read_exact(LOOKUP_JSON, rows[i].text, strlen(rows[i].text), NODE_A);
        if (v != rows[i].want)
            fail_msg("%s: %d", rows[i].text, v);
    }
}

static void test_json_sizes(void **state)
{
    (void)state;
    static const char answer[] = "{\"public_key\":\"" KEY "\"}";
    char *text = malloc(DIALECT_FRAME_MAX + 1);
    assert_non_null(text);
    memset(text, ' ', DIALECT_FRAME_MAX + 1);
    memcpy(text, answer, strlen(answer));
    assert_int_equal(read_exact(LOOKUP_JSON, text, DIALECT_FRAME_MAX, 1), KEYS_FOUND);
    assert_int_equal(read_exact(LOOKUP_JSON, text, DIALECT_FRAME_MAX + 1, 1), KEYS_FAILED);
    memset(text, '[', DIALECT_FRAME_MAX);
    assert_int_equal(read_exact(LOOKUP_JSON, text, DIALECT_FRAME_MAX, 1), KEYS_FAILED);
    free(text);
}

static int set_up(void **state)
{
    (void)state;
    return sodium_hex2bin(key, sizeof key, KEY_HEX, strlen(KEY_HEX), NULL, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_sizes),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, set_up, NULL);
}
