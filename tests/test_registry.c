/* What is said to a registry, what of its answers is taken, and names of peers as people write
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "gossip/registry.h"
#include "proto/wire.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define REGISTER_FRAME                                                                             \
    "0000005a7b2261646472223a223230332e302e3131332e373a39303031222c2261646d696e5f746f6b656e223a22" \
    "68756e74657232222c22626561636f6e5f6964223a372c2274797065223a22626561636f6e5f7265676973746572" \
    "227d"
#define LIST_FRAME "000000167b2274797065223a22626561636f6e5f6c697374227d"
#define LISTED_FRAME                                                                               \
    "0000006d7b22626561636f6e73223a5b7b2261646472223a223230332e302e3131332e373a39303031222c226964" \
    "223a377d2c7b2261646472223a223139382e35312e3130302e32303a39303031222c226964223a387d5d2c227479" \
    "7065223a22626561636f6e5f6c6973745f6f6b227d"

static size_t unhex(const char *hex, uint8_t *bytes)
{
    size_t len = 0;
    unsigned byte;
    for (; sscanf(hex + 2 * len, "%2x", &byte) == 1; len++)
        bytes[len] = (uint8_t)byte;
    return len;
}

/* --- messages --- */

static void test_messages(void **state)
{
    (void)state;
    char text[REGISTRY_MESSAGE_MAX];
    uint8_t want[256];
    size_t len = unhex(REGISTER_FRAME, want);
    assert_int_equal(registry_register_message(text, sizeof text, 7, "203.0.113.7:9001", "hunter2"),
                     len);
    assert_memory_equal(text, want, len);
    assert_int_equal(registry_register_message(text, len, 7, "203.0.113.7:9001", "hunter2"), len);
    assert_int_equal(registry_register_message(text, len - 1, 7, "203.0.113.7:9001", "hunter2"), 0);
    len = unhex(LIST_FRAME, want);
    assert_int_equal(registry_list_message(text, sizeof text), len);
    assert_memory_equal(text, want, len);
    for (size_t room = 0; room < len; room++)
        assert_int_equal(registry_list_message(text, room), 0);
}

static void test_register_texts(void **state)
{
    (void)state;
    static const char none[] = "{\"addr\":\"[2001:db8::1]:9001\",\"beacon_id\":4294967295,"
                               "\"type\":\"beacon_register\"}";
    static const char odd[] = "{\"addr\":\"a:1\",\"admin_token\":\"\\\"\\\\ /\",\"beacon_id\":1,"
                              "\"type\":\"beacon_register\"}";
    char text[REGISTRY_MESSAGE_MAX], big[REGISTRY_MESSAGE_MAX];
    for (unsigned i = 0; i < 2; i++) {
        size_t len = registry_register_message(text, sizeof text, UINT32_MAX, "[2001:db8::1]:9001",
                                               i ? "" : NULL);
        assert_int_equal(len, 4 + sizeof none - 1);
        assert_memory_equal(text + 4, none, sizeof none - 1);
    }
    size_t len = registry_register_message(text, sizeof text, 1, "a:1", "\"\\ /");
    assert_int_equal(len, 4 + sizeof odd - 1);
    assert_memory_equal(text + 4, odd, sizeof odd - 1);
    assert_int_equal(registry_register_message(text, sizeof text, 1, "a:1", "\xff\xfe"), 0);
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    assert_int_equal(registry_register_message(text, sizeof text, 1, "a:1", big), 0);
}

static void test_frame_len(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[5];
        size_t len, want;
    } cases[] = {
        {{0}, 0, 0},
        {{0, 0, 0}, 3, 0},
        {{0, 0, 0, 0}, 4, 4},
        {{0, 0, 0, 1}, 4, 5},
        {{0, 0, 1, 2, 9}, 5, 4 + 258},
        {{0, 0x10, 0, 0}, 4, 4 + REGISTRY_ANSWER_MAX},
        {{0, 0x10, 0, 1}, 4, SIZE_MAX},
        {{0xff, 0xff, 0xff, 0xff}, 4, SIZE_MAX},
        {{'H', 'T', 'T', 'P'}, 4, SIZE_MAX},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_true(registry_frame_len(cases[i].bytes, cases[i].len) == cases[i].want);
}

/* --- answers --- */

static const struct {
    const char *json, *error; /* NULL: it is good; else part of what is said */
} registrations[] = {
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":7}", NULL},
    {" {\"beacon_id\": 7 , \"type\":\"beacon_register_ok\",\"more\":[{\"x\":null}]}\n", NULL},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":8}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":7.0}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":\"7\"}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":4294967303}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":-7}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\"}", "another beacon id"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":8,\"beacon_id\":7}", "not a JSON object"},
    {"{\"type\":\"beacon_register\",\"beacon_id\":7}", "not of type beacon_register_ok"},
    {"{\"type\":7,\"beacon_id\":7}", "of none"},
    {"{\"beacon_id\":7}", "of none"},
    {"{\"type\":\"error\",\"error\":\"bad admin token\"}", "the registry says: bad admin token"},
    {"{\"error\":\"no\"}", "the registry says: no"},
    {"{\"error\":\"a\\nb\\u001b[31m\\u00e9\"}", "the registry says: a?b?[31m??"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":7,\"error\":\"but no\"}", "but no"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":7}x", "not a JSON object"},
    {"{\"type\":\"beacon_register_ok\",\"beacon_id\":7", "not a JSON object"},
    {"{\"type\":\"beacon_register_ok\\u0000\",\"beacon_id\":7}", "not a JSON object"},
    {"[\"beacon_register_ok\",7]", "not a JSON object"},
    {"7", "not a JSON object"},
    {"null", "not a JSON object"},
    {"", "not a JSON object"},
    {"{\"x\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]],\"type\":\"beacon_register_ok\",\"beacon_id\":7}",
     NULL},
    {"{\"x\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],\"type\":\"beacon_register_ok\",\"beacon_id\":7}",
     "not a JSON object"},
    {"{\"x\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[[\",\"type\":\"beacon_register_ok\",\"beacon_id\":7}",
     NULL},
};

static void test_registrations(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(registrations); i++) {
        char error[REGISTRY_ERROR_MAX] = "";
        const char *json = registrations[i].json, *want = registrations[i].error;
        bool good = registry_registered(json, strlen(json), 7, error);
        if (good != !want || (want && !strstr(error, want)) || (good && error[0]))
            fail_msg("%s: %d, %s", json, good, error);
    }
}

static const struct {
    const char *json, *error;
    unsigned count, skipped;
} lists[] = {
    {"{\"type\":\"beacon_list_ok\",\"beacons\":[]}", NULL, 0, 0},
    {"{\"beacons\":[{\"id\":1,\"addr\":\"a:1\"}],\"type\":\"beacon_list_ok\"}", NULL, 1, 0},
    {"{\"type\":\"beacon_list_ok\",\"beacons\":[{\"id\":4294967295,\"addr\":\"[2001:db8::1]:"
     "65535\","
     "\"more\":1}]}",
     NULL, 1, 0},
    {"{\"type\":\"beacon_list_ok\",\"beacons\":null}", "no array", 0, 0},
    {"{\"type\":\"beacon_list_ok\",\"beacons\":{}}", "no array", 0, 0},
    {"{\"type\":\"beacon_list_ok\"}", "no array", 0, 0},
    {"{\"type\":\"beacon_list\",\"beacons\":[]}", "not of type", 0, 0},
    {"{\"type\":\"error\",\"error\":\"busy\",\"beacons\":[]}", "the registry says: busy", 0, 0},
    {"{\"type\":\"beacon_list_ok\",\"beacons\":[]", "not a JSON object", 0, 0},
    {"[]", "not a JSON object", 0, 0},
/* One odd entry does not make the list bad. */
#define WITH(entry)                                                                                \
    "{\"type\":\"beacon_list_ok\",\"beacons\":[" entry ",{\"id\":2,\"addr\":\"b.test:2\"}]}",      \
        NULL, 1, 1
    {WITH("{\"id\":0,\"addr\":\"a:1\"}")},
    {WITH("{\"id\":4294967296,\"addr\":\"a:1\"}")},
    {WITH("{\"id\":-1,\"addr\":\"a:1\"}")},
    {WITH("{\"id\":1.0,\"addr\":\"a:1\"}")},
    {WITH("{\"id\":\"1\",\"addr\":\"a:1\"}")},
    {WITH("{\"addr\":\"a:1\"}")},
    {WITH("{\"id\":1}")},
    {WITH("{\"id\":1,\"addr\":\"\"}")},
    {WITH("{\"id\":1,\"addr\":\"a\"}")},
    {WITH("{\"id\":1,\"addr\":\"a:\"}")},
    {WITH("{\"id\":1,\"addr\":\"a:0\"}")},
    {WITH("{\"id\":1,\"addr\":\"a:65536\"}")},
    {WITH("{\"id\":1,\"addr\":\"a:+1\"}")},
    {WITH("{\"id\":1,\"addr\":\"a b:1\"}")},
    {WITH("{\"id\":1,\"addr\":\"2001:db8::1:9001\"}")},
    {WITH("{\"id\":1,\"addr\":\"pilot:a:1\"}")},
    {WITH("{\"id\":1,\"addr\":null}")},
    {WITH("[1,\"a:1\"]")},
    {WITH("null")},
    {WITH("7")},
};

static void test_lists(void **state)
{
    (void)state;
    struct registry_list *list = malloc(sizeof *list);
    for (size_t i = 0; i < COUNT(lists); i++) {
        char error[REGISTRY_ERROR_MAX] = "";
        const char *json = lists[i].json, *want = lists[i].error;
        list->count = list->skipped = 99;
        bool good = registry_listed(json, strlen(json), list, error);
        unsigned count = good ? lists[i].count : 99, skipped = good ? lists[i].skipped : 99;
        if (good != !want || (want && !strstr(error, want)) || list->count != count ||
            list->skipped != skipped)
            fail_msg("%s: %d, %u and %u, %s", json, good, list->count, list->skipped, error);
        if (count == 1 && skipped == 1)
            assert_true(list->of[0].id == 2 && list->of[0].port == 2 &&
                        strcmp(list->of[0].host, "b.test") == 0);
    }
    free(list);
}

static void test_list_vector(void **state)
{
    (void)state;
    struct registry_list *list = malloc(sizeof *list);
    uint8_t frame[256];
    char error[REGISTRY_ERROR_MAX];
    size_t len = unhex(LISTED_FRAME, frame);
    assert_int_equal(registry_frame_len(frame, len), len);
    assert_true(registry_listed((char *)frame + 4, len - 4, list, error));
    assert_int_equal(list->count, 2);
    assert_true(list->of[0].id == 7 && list->of[0].port == 9001 && list->of[1].id == 8);
    assert_string_equal(list->of[0].host, "203.0.113.7");
    assert_string_equal(list->of[1].host, "198.51.100.20");
    for (size_t cut = 4; cut < len; cut++)
        assert_false(registry_listed((char *)frame + 4, cut - 4, list, error));
    assert_int_equal(list->count, 2); /* untouched */
    free(list);
}

static void test_long_list(void **state)
{
    (void)state;
    static char json[64 * 1024];
    struct registry_list *list = malloc(sizeof *list);
    char error[REGISTRY_ERROR_MAX];
    for (unsigned count = REGISTRY_BEACONS_MAX; count <= REGISTRY_BEACONS_MAX + 44; count += 44) {
        size_t len =
            (size_t)snprintf(json, sizeof json, "{\"type\":\"beacon_list_ok\",\"beacons\":[");
        for (unsigned i = 0; i < count; i++)
            len += (size_t)snprintf(json + len, sizeof json - len,
                                    "%s{\"id\":%u,\"addr\":\"192.0.2.1:%u\"}", i ? "," : "", i + 1,
                                    i + 1);
        len += (size_t)snprintf(json + len, sizeof json - len, "]}");
        assert_true(registry_listed(json, len, list, error));
        assert_int_equal(list->count, REGISTRY_BEACONS_MAX);
        assert_int_equal(list->skipped, count - REGISTRY_BEACONS_MAX);
        assert_int_equal(list->of[255].port, 256);
    }
    free(list);
}

/* --- names --- */

#define LABEL_63 "abcdefghijklmnopqrstuvwxyz0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static const struct {
    const char *text, *host; /* NULL: it is none */
    unsigned port;
    bool is_pilot;
} names[] = {
    {"beacon.example.org:9001", "beacon.example.org", 9001, false},
    {"beacon.example.org", "beacon.example.org", 9001, false},
    {"beacon.example.org.:7", "beacon.example.org.", 7, false},
    {"b", "b", 9001, false},
    {"_x-1.test:1", "_x-1.test", 1, false},
    {"203.0.113.7:65535", "203.0.113.7", 65535, false},
    {"203.0.113.7", "203.0.113.7", 9001, false},
    {"[2001:db8::1]:40000", "2001:db8::1", 40000, false},
    {"[2001:db8::1]", "2001:db8::1", 9001, false},
    {"[::ffff:192.0.2.1]:1", "::ffff:192.0.2.1", 1, false},
    {"pilot:203.0.113.7:9001", "203.0.113.7", 9001, true},
    {"pilot:203.0.113.7", "203.0.113.7", 9001, true},
    {"pilot:[2001:db8::1]:7", "2001:db8::1", 7, true},
    {"pilot:b", "b", 9001, true},
    {"pilot:pilot:7", "pilot", 7, true},
    {"pilot:7", "pilot", 7, false},
    {"pilot", "pilot", 9001, false},
    {LABEL_63 ".x", LABEL_63 ".x", 9001, false},
    {"x" LABEL_63 ".x", NULL, 0, false},
    {"", NULL, 0, false},
    {":9001", NULL, 0, false},
    {"a:", NULL, 0, false},
    {"a:0", NULL, 0, false},
    {"a:65536", NULL, 0, false},
    {"a:000001", NULL, 0, false},
    {"a:-1", NULL, 0, false},
    {"a:1x", NULL, 0, false},
    {"a:1:2", NULL, 0, false},
    {"a..b", NULL, 0, false},
    {".a", NULL, 0, false},
    {".", NULL, 0, false},
    {"a b", NULL, 0, false},
    {"a/b", NULL, 0, false},
    {"a%1", NULL, 0, false},
    {"\xc3\xa9.test", NULL, 0, false},
    {"9001", NULL, 0, false},
    {"1.2.3", NULL, 0, false},
    {"1.2.3.256", NULL, 0, false},
    {"1.2.3.4.5", NULL, 0, false},
    {"2001:db8::1", NULL, 0, false},
    {"[2001:db8::1", NULL, 0, false},
    {"[2001:db8::1]9001", NULL, 0, false},
    {"[2001:db8::1]:", NULL, 0, false},
    {"[2001:db8::x]:1", NULL, 0, false},
    {"[203.0.113.7]:1", NULL, 0, false},
    {"[a.test]:1", NULL, 0, false},
    {"[]:1", NULL, 0, false},
    {"pilot:", NULL, 0, false},
    {"pilot::1", NULL, 0, false},
    {"PILOT:a:1", NULL, 0, false},
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct peer_name n = {.port = 4242};
        bool good = peer_name_read(names[i].text, strlen(names[i].text), &n);
        if (good != (names[i].host != NULL))
            fail_msg("%s: %d", names[i].text, good);
        assert_int_equal(n.port, good ? names[i].port : 4242);
        if (!good)
            continue;
        assert_string_equal(n.host, names[i].host);
        assert_int_equal(n.is_pilot, names[i].is_pilot);
        /* And it comes back when it is written. */
        struct peer_name again;
        char text[PEER_TEXT_MAX];
        size_t len = peer_name_write(text, n.host, n.port);
        assert_true(len > 0 && peer_host_read(text, len, 0, &again));
        assert_string_equal(again.host, n.host);
        assert_int_equal(again.port, n.port);
    }
    struct peer_name n;
    assert_false(peer_name_read("a\0b", 3, &n));
    assert_true(peer_name_read("a:12", 3, &n) && n.port == 1); /* not a byte more */
    assert_false(peer_host_read("a", 1, 0, &n));
    assert_true(peer_host_read("a", 1, 5, &n) && n.port == 5);
    assert_false(peer_host_read("pilot:a:1", 9, 5, &n));
}

static void test_longest_host(void **state)
{
    (void)state;
    struct peer_name n;
    char text[300] = "";
    for (unsigned i = 0; i < 126; i++)
        strcat(text, "a.");
    strcat(text, "b"); /* 253 characters, the most that DNS has */
    assert_int_equal(strlen(text), REGISTRY_HOST_MAX - 1);
    assert_true(peer_name_read(text, strlen(text), &n));
    strcat(text, "b");
    assert_false(peer_name_read(text, strlen(text), &n));
}

/* --- files --- */

static const struct {
    const char *text;
    int count;
    const char *error; /* of a bad one */
} files[] = {
    {"", 0, NULL},
    {"\n\n", 0, NULL},
    {"# nobody", 0, NULL},
    {"a", 1, NULL},
    {"a\n", 1, NULL},
    {"a,b\nc", 3, NULL},
    {" a , b # , c\r\n\tc:7\t\n", 3, NULL},
    {",,a,,", 1, NULL},
    {"pilot:a:1\n[2001:db8::1]:2\n# x\nb\n", 3, NULL},
    {"a,b,c,d", 4, NULL},
    {"a,b,c,d,e", -1, "file:1: too many peers"},
    {"a\nb\nc\nd\n\n# e\ne", -1, "file:7: too many peers"},
    {"a b", -1, "file:1: not a peer, like beacon.example.org:9001: a b"},
    {"a\n\nb:0\nc", -1, "file:3: not a peer, like beacon.example.org:9001: b:0"},
    {"a;b", -1, "file:1: not a peer, like beacon.example.org:9001: a;b"},
    {"\x1b[2J\xff", -1, "file:1: not a peer, like beacon.example.org:9001: ?[2J?"},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(files); i++) {
        struct peer_name n[4];
        char error[REGISTRY_ERROR_MAX] = "";
        int got = peer_names_read("file", files[i].text, strlen(files[i].text), n, 4, error);
        if (got != files[i].count)
            fail_msg("%s: %d, %s", files[i].text, got, error);
        assert_string_equal(error, files[i].error ? files[i].error : "");
    }
    struct peer_name n[4];
    char error[REGISTRY_ERROR_MAX], text[2000], path[400];
    assert_int_equal(peer_names_read("file", "a,b\0,c", 6, n, 4, error), -1);
    memset(text, 'x', sizeof text);
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(peer_names_read(path, text, sizeof text, n, 4, error), -1);
    assert_true(strlen(error) < REGISTRY_ERROR_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),     cmocka_unit_test(test_register_texts),
        cmocka_unit_test(test_frame_len),    cmocka_unit_test(test_registrations),
        cmocka_unit_test(test_lists),        cmocka_unit_test(test_list_vector),
        cmocka_unit_test(test_long_list),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_longest_host), cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
