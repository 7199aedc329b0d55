#include "tests/rig.h"
#include "wss/keys_file.h"
#include "wss/keys_table.h"

#define KEY1 "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
#define KEY2 "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="

static uint8_t key1[MSG_KEY_LEN], key2[MSG_KEY_LEN];

/* --- the file --- */

static void test_file_good(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        int count;
    } rows[] = {
        {"empty", "", 0},
        {"no newline at the end", "1 " KEY1, 1},
        {"newline at the end", "1 " KEY1 "\n", 1},
        {"tabs and blanks", " \t1\t \t" KEY1 " \t\n", 1},
        {"CRLF", "1 " KEY1 "\r\n2 " KEY2 "\r\n\r\n", 2},
        {"comments", "# one\n  # two\n1 " KEY1 " # three\n2 " KEY2 "\t#four\n#", 2},
        {"empty lines", "\n\n \n\t\n1 " KEY1 "\n\n", 1},
        {"last id", "4294967295 " KEY1 "\n", 1},
        {"not in order", "3 " KEY1 "\n1 " KEY2 "\n2 " KEY1 "\n", 3},
        {"one key, two ids", "1 " KEY1 "\n2 " KEY1 "\n", 2},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char error[KEYS_ERROR_MAX] = "";
        int count = keys_check_file("f", rows[i].text, strlen(rows[i].text), error);
        if (count != rows[i].count)
            fail_msg("%s: %d, %s", rows[i].name, count, error);
    }
}

static void test_file_bad(void **state)
{
    (void)state;
    static const char not_32[] = "not the base64 of 32 bytes";
    static const char no_id[] = "not a node id (1 to 4294967295)";
    static const struct {
        const char *text, *where, *why;
    } rows[] = {
        {"0 " KEY1, "f:1: 0: ", no_id},
        {"\n\n4294967296 " KEY1, "f:3: 4294967296: ", no_id},
        {"10000000000 " KEY1, "f:1: 10000000000: ", no_id},
        {"18446744073709551617 " KEY1, "f:1: 18446744073709551617: ", no_id},
        {"01 " KEY1, "f:1: 01: ", no_id},
        {"-1 " KEY1, "f:1: -1: ", no_id},
        {"+1 " KEY1, "f:1: +1: ", no_id},
        {"0x1 " KEY1, "f:1: 0x1: ", no_id},
        {"1: " KEY1, "f:1: 1:: ", no_id},
        {"\xef\xbb\xbf"
         "1 " KEY1,
         "f:1: \xef\xbb\xbf"
         "1: ",
         no_id},
        {KEY1 " 1", "f:1: " KEY1 ": ", no_id},
        {"1\r2 " KEY1, "f:1: 1?2: ", no_id},
        {"1", "f:1: 1: ", "its key is missing"},
        {"1 \r\n", "f:1: 1: ", "its key is missing"},
        {"1 # " KEY1, "f:1: 1: ", "its key is missing"},
        {"1 x", "f:1: x: ", not_32},
        {"1 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
         "f:1: d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a: ", not_32},
        {"1 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo",
         "f:1: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo: ", not_32},
        {"1 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUR==", "f:1: 11q", not_32},
        {"1 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "f:1: 11q", not_32},
        {"1 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURoA", "f:1: 11q", not_32},
        {"1 " KEY1 "=", "f:1: 11q", not_32},
        {"1 " KEY1 "#c", "f:1: 11q", not_32},
        {"1 " KEY1 " 2", "f:1: 2: ", "text behind the key"},
        {"1 " KEY1 " 2 " KEY2, "f:1: 2: ", "text behind the key"},
        {"1 " KEY1 "\n2 " KEY2 "\n\n1 " KEY2, "f:4: 1: ", "already on line 1"},
        {"7 " KEY1 "\n7 " KEY1, "f:2: 7: ", "already on line 1"},
        {"1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "f:1: AAAA", "all zero"},
        {"1 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "f:1: AQAA", "small order"},
        {"1 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=", "f:1: AQAA", "small order"},
        {"1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=", "f:1: AAAA", "small order"},
        {"1 7P///////////////////////////////////////38=", "f:1: 7P//", "small order"},
        {"1 JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=", "f:1: Jui", "small order"},
        {"1 JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/IU=", "f:1: Jui", "small order"},
        {"1 xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o=", "f:1: xxdq", "small order"},
        {"1 7f///////////////////////////////////////38=", "f:1: 7f//", "not canonical"},
        {"1 /////////////////////////////////////////38=", "f:1: ////", "not canonical"},
        {"1 AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "f:1: AgAA", "not an Ed25519"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char error[KEYS_ERROR_MAX] = "";
        int count = keys_check_file("f", rows[i].text, strlen(rows[i].text), error);
        if (count != -1 || strncmp(error, rows[i].where, strlen(rows[i].where)) != 0 ||
            !strstr(error, rows[i].why))
            fail_msg("row %zu: %d, %s", i, count, error);
    }
}

static void test_file_long_lines(void **state)
{
    (void)state;
    char text[KEYS_FILE_LINE_MAX + 2], error[KEYS_ERROR_MAX];
    memset(text, ' ', sizeof text);
    memcpy(text, "1 " KEY1, 2 + strlen(KEY1));
    assert_int_equal(keys_check_file("f", text, KEYS_FILE_LINE_MAX, error), 1);
    assert_int_equal(keys_check_file("f", text, KEYS_FILE_LINE_MAX + 1, error), -1);
    assert_non_null(strstr(error, "f:1: 1 11qY"));
    assert_non_null(strstr(error, "the line is too long"));
    text[KEYS_FILE_LINE_MAX] = '\r';
    text[KEYS_FILE_LINE_MAX + 1] = '\n';
    assert_int_equal(keys_check_file("f", text, sizeof text, error), 1);
    /* A NUL is no blank and ends nothing. */
    assert_int_equal(keys_check_file("f", "1 " KEY1 "\0", 2 + strlen(KEY1) + 1, error), -1);
    assert_int_equal(keys_check_file("f", "\0", 1, error), -1);
}

/* Whether a key is a point is asked of the first ones only; what could be harmful, of all. */
static void test_file_points(void **state)
{
    (void)state;
    static const char off[] = " AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    static const char weak[] = " AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    char error[KEYS_ERROR_MAX], *text = malloc((KEYS_FILE_POINTS + 2) * 64), *at = text;
    assert_non_null(text);
    for (int i = 1; i < KEYS_FILE_POINTS; i++)
        at += sprintf(at, "%d " KEY1 "\n", i);
    for (int i = KEYS_FILE_POINTS; i <= KEYS_FILE_POINTS + 1; i++) {
        size_t len = (size_t)(at - text);
        len += (size_t)sprintf(at, "%d%s", i, off);
        assert_int_equal(keys_check_file("f", text, len, error), i > KEYS_FILE_POINTS ? i : -1);
        len = (size_t)(at - text);
        len += (size_t)sprintf(at, "%d%s", i, weak);
        assert_int_equal(keys_check_file("f", text, len, error), -1);
        at += sprintf(at, "%d " KEY1 "\n", i);
    }
    free(text);
}

/* A fast table against the obvious one: what is in the file is found, in whatever order it was. */
static void test_file_find(void **state)
{
    (void)state;
    enum { KEYS = 2000 };
    static char text[KEYS * 64];
    static uint32_t ids[KEYS];
    char error[KEYS_ERROR_MAX], *at = text;
    uint64_t seed = 42;
    for (uint32_t i = 0; i < KEYS; i++) {
        ids[i] =
            (uint32_t)(rig_random(&seed) % 4000000 * 1000 + i) + 1; /* all different mod 1000 */
        at += sprintf(at, "%u %s\n", ids[i], i % 2 ? KEY1 : KEY2);
    }
    struct keys_file *f = keys_file_parse("f", text, (size_t)(at - text), error);
    if (!f)
        fail_msg("%s", error);
    assert_int_equal(f->count, KEYS);
    for (uint32_t i = 0; i < KEYS; i++) {
        const uint8_t *key = keys_file_find(f, ids[i]);
        assert_non_null(key);
        assert_memory_equal(key, i % 2 ? key1 : key2, MSG_KEY_LEN);
        bool next = false;
        for (uint32_t j = 0; j < KEYS; j++)
            next |= ids[j] == ids[i] + 1;
        assert_int_equal(keys_file_find(f, ids[i] + 1) != NULL, next);
    }
    assert_null(keys_file_find(f, 0));
    free(f);
}

/* --- the table --- */

/* Against an array in which all is searched. */
static void test_table(void **state)
{
    (void)state;
    enum { ROWS = 13, IDS = 40, STEPS = 20000 };
    struct key_table *t = key_table_new(ROWS, (struct siphash_key){1, 2});
    assert_non_null(t);
    uint64_t put_ns[IDS] = {0}, seed = 7;
    unsigned count = 0, full = 0;
    for (uint64_t now_ns = 1; now_ns <= STEPS; now_ns++) {
        uint32_t id = (uint32_t)(rig_random(&seed) % IDS);
        struct key_row *row = key_table_find(t, id);
        assert_int_equal(row != NULL, put_ns[id] != 0);
        if (rig_random(&seed) % 3 == 0) {
            if (row) {
                key_table_remove(t, row);
                put_ns[id] = 0;
                count--;
            }
        } else if (!row && count == ROWS) {
            full++;
            assert_true(key_table_is_full(t));
            assert_null(key_table_put(t, id, now_ns));
        } else {
            count += !row;
            struct key_row *put = key_table_put(t, id, now_ns);
            assert_non_null(put);
            assert_true(!row || put == row);
            assert_int_equal(put->node_id, id);
            put_ns[id] = now_ns;
        }
        assert_int_equal(key_table_count(t), count);
        uint64_t oldest_ns = UINT64_MAX;
        for (unsigned i = 0; i < IDS; i++)
            if (put_ns[i] != 0 && put_ns[i] < oldest_ns)
                oldest_ns = put_ns[i];
        const struct key_row *oldest = key_table_oldest(t);
        assert_int_equal(oldest != NULL, count > 0);
        assert_true(!oldest || oldest->put_ns == oldest_ns);
    }
    assert_true(full > 100);
    key_table_free(t);
    key_table_free(NULL);
}

static int set_up(void **state)
{
    (void)state;
    size_t len;
    if (sodium_base642bin(key1, 32, KEY1, 44, NULL, &len, NULL, 1) < 0 ||
        sodium_base642bin(key2, 32, KEY2, 44, NULL, &len, NULL, 1) < 0)
        return -1;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_good),       cmocka_unit_test(test_file_bad),
        cmocka_unit_test(test_file_long_lines), cmocka_unit_test(test_file_points),
        cmocka_unit_test(test_file_find),       cmocka_unit_test(test_table),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, set_up, NULL);
}
