/* keys without a registry: lookup.h is played by the test, so that time is an argument only. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "tests/rig.h"
#include "wss/lookup.h"

#define KEY1 "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
#define KEY2 "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="

static uint8_t key1[MSG_KEY_LEN], key2[MSG_KEY_LEN];

/* --- a registry in memory --- */

static struct {
    bool down;
    unsigned asks, asked_count, answer_count;
    uint32_t asked[KEYS_WAITING_MAX];
    struct lookup_answer answer[KEYS_WAITING_MAX];
} registry;

struct lookup *lookup_open(const struct keys_config *c, char error[static KEYS_ERROR_MAX])
{
    memset(&registry, 0, sizeof registry);
    if (strcmp(c->registry, "registry:9000") == 0)
        return malloc(1);
    strcpy(error, "registry: the test refuses");
    return NULL;
}

void lookup_close(struct lookup *l)
{
    free(l);
}

enum keys_verdict lookup_ask(struct lookup *l, uint32_t node_id, bool *ret_asked)
{
    (void)l;
    *ret_asked = false;
    for (unsigned i = 0; i < registry.asked_count; i++)
        if (registry.asked[i] == node_id)
            return KEYS_WAIT;
    if (registry.down || registry.asked_count == KEYS_WAITING_MAX)
        return KEYS_FAILED;
    registry.asked[registry.asked_count++] = node_id;
    registry.asks++;
    *ret_asked = true;
    return KEYS_WAIT;
}

bool lookup_take(struct lookup *l, struct lookup_answer *ret)
{
    (void)l;
    if (registry.answer_count == 0)
        return false;
    *ret = registry.answer[--registry.answer_count];
    return true;
}

/* Answers the only question there is. */
static void registry_says(enum keys_verdict verdict, const uint8_t *key)
{
    assert_int_equal(registry.asked_count, 1);
    struct lookup_answer a = {.verdict = verdict, .node_id = registry.asked[0]};
    if (key)
        memcpy(a.key, key, sizeof a.key);
    registry.asked_count = 0;
    registry.answer[registry.answer_count++] = a;
}

/* --- keys_open, keys_reload --- */

static char directory[64];

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = path_of(name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
    return path;
}

static struct keys *open_keys(const char *file, bool lookup, bool first_use)
{
    char error[KEYS_ERROR_MAX] = "";
    struct keys *k = keys_open(&(struct keys_config){.file = file,
                                                     .lookup = lookup ? LOOKUP_JSON : LOOKUP_NONE,
                                                     .registry = lookup ? "registry:9000" : "",
                                                     .first_use = first_use,
                                                     .wake = -1},
                               error);
    if (!k)
        fail_msg("%s", error);
    return k;
}

static void assert_answer(struct keys_answer a, enum keys_verdict verdict, uint32_t node_id,
                          enum route_class class_, const uint8_t *key)
{
    assert_int_equal(a.verdict, verdict);
    assert_int_equal(a.node_id, node_id);
    assert_int_equal(a.class_, class_);
    if (key)
        assert_memory_equal(a.key, key, MSG_KEY_LEN);
}

static void test_open(void **state)
{
    (void)state;
    struct keys *k = open_keys(write_file("good", "5 " KEY1 "\n9 " KEY2 "\n"), false, false);
    assert_int_equal(keys_file_count(k), 2);
    assert_answer(keys_find(k, 5, 0), KEYS_FOUND, 5, ROUTE_KEYED, key1);
    assert_answer(keys_find(k, 9, 0), KEYS_FOUND, 9, ROUTE_KEYED, key2);
    assert_answer(keys_find(k, 6, 0), KEYS_UNKNOWN, 6, ROUTE_UNVERIFIED, NULL);
    assert_false(keys_take(k, 0, &(struct keys_answer){.verdict = KEYS_WAIT}));
    assert_false(keys_pin(k, 6, key1, 0));
    keys_close(k);
    k = open_keys("", false, false);
    assert_int_equal(keys_file_count(k), 0);
    assert_answer(keys_find(k, 5, 0), KEYS_UNKNOWN, 5, ROUTE_UNVERIFIED, NULL);
    keys_close(k);
}

static void test_open_bad(void **state)
{
    (void)state;
    char error[KEYS_ERROR_MAX], huge[128];
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    assert_int_equal(truncate(write_file("huge", ""), KEYS_FILE_MAX + 1), 0);
    strcpy(huge, path_of("huge"));
    write_file("locked", "1 " KEY1);
    assert_int_equal(chmod(path_of("locked"), 0), 0);
    write_file("wrong", "1 " KEY1 "\n1 " KEY2 "\n");
    static const struct {
        const char *name, *why;
    } rows[] = {
        {"missing", "No such file"},     {"", "not a regular file"},
        {"fifo", "not a regular file"},  {"huge", "longer than 64 MiB"},
        {"wrong/x", "Not a directory"},  {"wrong", "/wrong:2: 1: already on line 1"},
        {"locked", "Permission denied"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (i == COUNT(rows) - 1 && geteuid() == 0)
            break; /* root may read all */
        struct keys_config c = {.file = path_of(rows[i].name), .registry = ""};
        strcpy(error, "");
        assert_null(keys_open(&c, error));
        if (!strstr(error, rows[i].why) || strncmp(error, c.file, strlen(c.file)) != 0)
            fail_msg("%s: %s", rows[i].name, error);
    }
    struct keys_config c = {.file = "", .lookup = LOOKUP_BINARY, .registry = "no port"};
    assert_null(keys_open(&c, error));
    assert_string_equal(error, "registry: the test refuses");
    /* As long as may be, and nothing in it. */
    assert_int_equal(truncate(huge, KEYS_FILE_MAX), 0);
    c = (struct keys_config){.file = huge, .registry = ""};
    assert_null(keys_open(&c, error));
    assert_non_null(strstr(error, "huge:1: \"\": the line is too long"));
    unlink(huge);
}

static void test_reload(void **state)
{
    (void)state;
    char error[KEYS_ERROR_MAX] = "";
    struct keys *k = open_keys(write_file("one", "5 " KEY1), false, false);
    assert_answer(keys_find(k, 5, 0), KEYS_FOUND, 5, ROUTE_KEYED, key1);

    assert_false(keys_reload(k, write_file("bad", "5 " KEY2 "\nx"), error));
    assert_non_null(strstr(error, "/bad:2: x: not a node id"));
    assert_int_equal(keys_file_count(k), 1);
    assert_answer(keys_find(k, 5, 0), KEYS_FOUND, 5, ROUTE_KEYED, key1);

    assert_true(keys_reload(k, write_file("two", "5 " KEY2 "\n6 " KEY1), error));
    assert_int_equal(keys_file_count(k), 2);
    assert_answer(keys_find(k, 5, 0), KEYS_FOUND, 5, ROUTE_KEYED, key2);
    assert_answer(keys_find(k, 6, 0), KEYS_FOUND, 6, ROUTE_KEYED, key1);

    /* Two before the edge looks: the newest counts. A third that nobody takes is freed. */
    assert_true(keys_reload(k, path_of("one"), error));
    assert_true(keys_reload(k, "", error));
    assert_answer(keys_find(k, 5, 0), KEYS_UNKNOWN, 5, ROUTE_UNVERIFIED, NULL);
    assert_true(keys_reload(k, path_of("one"), error));
    keys_close(k);
}

struct racing {
    struct keys *keys;
    _Atomic bool done;
};

static void *reload_often(void *arg)
{
    struct racing *r = arg;
    char error[KEYS_ERROR_MAX], a[128], b[128];
    strcpy(a, path_of("a"));
    strcpy(b, path_of("b"));
    for (int i = 0; i < 500; i++)
        if (!keys_reload(r->keys, i % 2 ? a : b, error))
            break;
    atomic_store(&r->done, true);
    return NULL;
}

/* Each answer is of one of the sets, never of a mixture or of freed memory. */
static void test_reload_racing(void **state)
{
    (void)state;
    pthread_t thread;
    write_file("b", "1 " KEY2 "\n2 " KEY2 "\n");
    struct racing r = {.keys =
                           open_keys(write_file("a", "1 " KEY1 "\n2 " KEY1 "\n"), false, false)};
    assert_int_equal(pthread_create(&thread, NULL, reload_often, &r), 0);
    unsigned seen[2] = {0};
    while (!atomic_load(&r.done)) {
        struct keys_answer a = keys_find(r.keys, 1 + (seen[0] & 1), 0);
        assert_int_equal(a.verdict, KEYS_FOUND);
        bool second = memcmp(a.key, key2, sizeof key2) == 0;
        assert_true(second || memcmp(a.key, key1, sizeof key1) == 0);
        seen[second]++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(keys_file_count(r.keys), 2);
    assert_answer(keys_find(r.keys, 1, 0), KEYS_FOUND, 1, ROUTE_KEYED, key1);
    keys_close(r.keys);
}

/* --- first use --- */

#define DAY_NS (86400 * SECOND_NS)

static void test_pins(void **state)
{
    (void)state;
    struct keys *k = open_keys(write_file("one", "5 " KEY1), false, true);
    uint64_t now_ns = 1000;
    assert_answer(keys_find(k, 6, now_ns), KEYS_FIRST_USE, 6, ROUTE_UNVERIFIED, NULL);
    assert_true(keys_pin(k, 6, key2, now_ns));
    assert_answer(keys_find(k, 6, now_ns), KEYS_FOUND, 6, ROUTE_SIGNED, key2);
    assert_false(keys_pin(k, 6, key1, now_ns));
    assert_answer(keys_find(k, 5, now_ns), KEYS_FOUND, 5, ROUTE_KEYED, key1);
    assert_int_equal(atomic_load(&keys_stats(k)->pins), 1);

    /* It lives a day from its last use. */
    now_ns += DAY_NS - 1;
    assert_answer(keys_find(k, 6, now_ns), KEYS_FOUND, 6, ROUTE_SIGNED, key2);
    assert_true(keys_pin(k, 6, key2, now_ns));
    now_ns += DAY_NS - 1;
    assert_answer(keys_find(k, 6, now_ns), KEYS_FOUND, 6, ROUTE_SIGNED, key2);
    now_ns += 1;
    assert_answer(keys_find(k, 6, now_ns), KEYS_FIRST_USE, 6, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(atomic_load(&keys_stats(k)->pins), 0);
    assert_true(keys_pin(k, 6, key1, now_ns));
    assert_answer(keys_find(k, 6, now_ns), KEYS_FOUND, 6, ROUTE_SIGNED, key1);

    /* The file comes first. */
    char error[KEYS_ERROR_MAX];
    assert_true(keys_reload(k, write_file("six", "6 " KEY2), error));
    assert_answer(keys_find(k, 6, now_ns), KEYS_FOUND, 6, ROUTE_KEYED, key2);
    keys_close(k);
}

static void test_pins_full(void **state)
{
    (void)state;
    struct keys *k = open_keys("", false, true);
    for (uint32_t id = 1; id <= KEYS_PINS_MAX; id++)
        assert_true(keys_pin(k, id, key1, SECOND_NS + id));
    assert_int_equal(atomic_load(&keys_stats(k)->pins), KEYS_PINS_MAX);
    assert_false(keys_pin(k, KEYS_PINS_MAX + 1, key1, 2 * SECOND_NS));
    assert_true(keys_pin(k, 1, key1, 2 * SECOND_NS));
    assert_answer(keys_find(k, KEYS_PINS_MAX + 1, 2 * SECOND_NS), KEYS_FIRST_USE, KEYS_PINS_MAX + 1,
                  ROUTE_UNVERIFIED, NULL);
    /* The second one is a day old, the first one is not. */
    uint64_t now_ns = SECOND_NS + 2 + DAY_NS;
    assert_false(keys_pin(k, KEYS_PINS_MAX + 1, key1, now_ns - 1));
    assert_true(keys_pin(k, KEYS_PINS_MAX + 1, key2, now_ns));
    assert_answer(keys_find(k, 1, now_ns), KEYS_FOUND, 1, ROUTE_SIGNED, key1);
    assert_answer(keys_find(k, 2, now_ns), KEYS_FIRST_USE, 2, ROUTE_UNVERIFIED, NULL);
    assert_false(keys_pin(k, KEYS_PINS_MAX + 2, key1, now_ns));
    keys_close(k);
}

/* --- the cache --- */

static void assert_taken(struct keys *k, uint64_t now_ns, enum keys_verdict verdict,
                         uint32_t node_id, enum route_class class_, const uint8_t *key)
{
    struct keys_answer a;
    assert_true(keys_take(k, now_ns, &a));
    assert_answer(a, verdict, node_id, class_, key);
    assert_false(keys_take(k, now_ns, &a));
}

static void test_cache_found(void **state)
{
    (void)state;
    struct keys *k = open_keys("", true, false);
    uint64_t now_ns = 77;
    assert_answer(keys_find(k, 8, now_ns), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    assert_answer(keys_find(k, 8, now_ns), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(registry.asks, 1);
    registry_says(KEYS_FOUND, key1);
    assert_taken(k, now_ns, KEYS_FOUND, 8, ROUTE_KEYED, key1);
    assert_answer(keys_find(k, 8, now_ns + 300 * SECOND_NS - 1), KEYS_FOUND, 8, ROUTE_KEYED, key1);
    assert_int_equal(registry.asks, 1);
    assert_int_equal(atomic_load(&keys_stats(k)->cache_hits), 1);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), 1);

    /* Old: asked again. It answers another key, then none. */
    now_ns += 300 * SECOND_NS;
    assert_answer(keys_find(k, 8, now_ns), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_FOUND, key2);
    assert_taken(k, now_ns, KEYS_FOUND, 8, ROUTE_KEYED, key2);
    assert_answer(keys_find(k, 8, now_ns), KEYS_FOUND, 8, ROUTE_KEYED, key2);
    now_ns += 300 * SECOND_NS;
    assert_answer(keys_find(k, 8, now_ns), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_UNKNOWN, NULL);
    assert_taken(k, now_ns, KEYS_UNKNOWN, 8, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), 1);

    /* A key that the registry has taken back does not come back when it fails. */
    now_ns += 30 * SECOND_NS;
    registry.down = true;
    assert_answer(keys_find(k, 8, now_ns), KEYS_FAILED, 8, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(atomic_load(&keys_stats(k)->lookups), 4);
    assert_int_equal(atomic_load(&keys_stats(k)->lookup_failures), 1);
    keys_close(k);
}

static void test_cache_unknown(void **state)
{
    (void)state;
    struct keys *k = open_keys("", true, false);
    uint64_t now_ns = 77;
    keys_find(k, 8, now_ns);
    registry_says(KEYS_UNKNOWN, NULL);
    assert_taken(k, now_ns, KEYS_UNKNOWN, 8, ROUTE_UNVERIFIED, NULL);
    now_ns += 30 * SECOND_NS - 1;
    assert_answer(keys_find(k, 8, now_ns), KEYS_UNKNOWN, 8, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(registry.asks, 1);
    assert_answer(keys_find(k, 8, now_ns + 1), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_FOUND, key1);
    assert_taken(k, now_ns, KEYS_FOUND, 8, ROUTE_KEYED, key1);
    assert_answer(keys_find(k, 8, now_ns + 1), KEYS_FOUND, 8, ROUTE_KEYED, key1);
    keys_close(k);
}

/* What was found serves for an hour while the registry fails, slowly or at once. */
static void test_cache_stale(void **state)
{
    (void)state;
    struct keys *k = open_keys("", true, false);
    uint64_t start_ns = 77, hour_ns = 3600 * SECOND_NS;
    keys_find(k, 8, start_ns);
    registry_says(KEYS_FOUND, key1);
    assert_taken(k, start_ns, KEYS_FOUND, 8, ROUTE_KEYED, key1);

    uint64_t now_ns = start_ns + hour_ns - 1;
    assert_answer(keys_find(k, 8, now_ns), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_FAILED, NULL);
    assert_taken(k, now_ns, KEYS_FOUND, 8, ROUTE_KEYED, key1);
    registry.down = true;
    assert_answer(keys_find(k, 8, now_ns), KEYS_FOUND, 8, ROUTE_KEYED, key1);
    assert_answer(keys_find(k, 9, now_ns), KEYS_FAILED, 9, ROUTE_UNVERIFIED, NULL);
    assert_answer(keys_find(k, 8, now_ns + 1), KEYS_FAILED, 8, ROUTE_UNVERIFIED, NULL);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), 0);
    assert_int_equal(atomic_load(&keys_stats(k)->lookup_failures), 4);

    registry.down = false;
    assert_answer(keys_find(k, 8, now_ns + 2), KEYS_WAIT, 8, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_FAILED, NULL);
    assert_taken(k, now_ns + 2, KEYS_FAILED, 8, ROUTE_UNVERIFIED, NULL);
    keys_close(k);
}

/* The file, then the registry, then first use. */
static void test_order(void **state)
{
    (void)state;
    char error[KEYS_ERROR_MAX];
    struct keys *k = open_keys(write_file("one", "5 " KEY1), true, true);
    assert_answer(keys_find(k, 5, 0), KEYS_FOUND, 5, ROUTE_KEYED, key1);
    assert_int_equal(registry.asks, 0);
    assert_answer(keys_find(k, 6, 0), KEYS_WAIT, 6, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_UNKNOWN, NULL);
    assert_taken(k, 0, KEYS_FIRST_USE, 6, ROUTE_UNVERIFIED, NULL);
    assert_answer(keys_find(k, 6, 0), KEYS_FIRST_USE, 6, ROUTE_UNVERIFIED, NULL);
    assert_true(keys_pin(k, 6, key1, 0));
    assert_answer(keys_find(k, 6, 0), KEYS_FOUND, 6, ROUTE_SIGNED, key1);

    /* A pin does not serve when nobody can say that the registry has none. */
    uint64_t now_ns = 30 * SECOND_NS;
    assert_answer(keys_find(k, 6, now_ns), KEYS_WAIT, 6, ROUTE_UNVERIFIED, NULL);
    registry_says(KEYS_FAILED, NULL);
    assert_taken(k, now_ns, KEYS_FAILED, 6, ROUTE_UNVERIFIED, NULL);
    keys_find(k, 6, now_ns);
    registry_says(KEYS_UNKNOWN, NULL);
    assert_taken(k, now_ns, KEYS_FOUND, 6, ROUTE_SIGNED, key1);
    keys_find(k, 6, now_ns + 30 * SECOND_NS);
    registry_says(KEYS_FOUND, key2);
    assert_taken(k, now_ns + 30 * SECOND_NS, KEYS_FOUND, 6, ROUTE_KEYED, key2);

    /* The file came while the registry was asked. */
    keys_find(k, 7, now_ns);
    assert_true(keys_reload(k, write_file("seven", "7 " KEY2), error));
    registry_says(KEYS_FAILED, NULL);
    assert_taken(k, now_ns, KEYS_FOUND, 7, ROUTE_KEYED, key2);
    keys_close(k);
}

static void ask_and_tell(struct keys *k, uint32_t node_id, uint64_t now_ns,
                         enum keys_verdict verdict)
{
    struct keys_answer a;
    assert_int_equal(keys_find(k, node_id, now_ns).verdict, KEYS_WAIT);
    registry_says(verdict, key1);
    assert_true(keys_take(k, now_ns, &a));
    assert_int_equal(a.verdict, verdict);
}

/* Ids that nobody has never push out one that somebody has. */
static void test_cache_full(void **state)
{
    (void)state;
    enum { UNKNOWN = KEYS_CACHE_MAX / 4, FOUND = KEYS_CACHE_MAX - UNKNOWN };
    struct keys *k = open_keys("", true, false);
    uint32_t strangers = 1u << 30;
    ask_and_tell(k, 1, 0, KEYS_FOUND);
    for (uint32_t i = 0; i <= UNKNOWN; i++)
        ask_and_tell(k, strangers + i, 1, KEYS_UNKNOWN);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), UNKNOWN + 1);
    assert_int_equal(keys_find(k, 1, 2).verdict, KEYS_FOUND);
    assert_int_equal(keys_find(k, strangers + 1, 2).verdict, KEYS_UNKNOWN);
    ask_and_tell(k, strangers, 2, KEYS_UNKNOWN); /* the oldest had gone */

    for (uint32_t i = 2; i <= FOUND; i++)
        ask_and_tell(k, i, 3, KEYS_FOUND);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), KEYS_CACHE_MAX);
    assert_int_equal(keys_find(k, 1, 4).verdict, KEYS_FOUND);
    ask_and_tell(k, FOUND + 1, 4, KEYS_FOUND);
    assert_int_equal(keys_find(k, 2, 4).verdict, KEYS_FOUND);
    ask_and_tell(k, 1, 4, KEYS_FOUND);
    assert_int_equal(atomic_load(&keys_stats(k)->cached), KEYS_CACHE_MAX);
    keys_close(k);
}

/* --- */

static int set_up(void **state)
{
    (void)state;
    size_t len;
    if (sodium_base642bin(key1, 32, KEY1, 44, NULL, &len, NULL, 1) < 0 ||
        sodium_base642bin(key2, 32, KEY2, 44, NULL, &len, NULL, 1) < 0)
        return -1;
    snprintf(directory, sizeof directory, "/tmp/beacon-test-keys-%d", (int)getpid());
    return mkdir(directory, 0700);
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"good", "fifo", "huge",  "locked", "wrong", "one",
                                        "bad",  "two",  "seven", "six",    "a",     "b"};
    for (size_t i = 0; i < COUNT(names); i++)
        unlink(path_of(names[i]));
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),        cmocka_unit_test(test_open_bad),
        cmocka_unit_test(test_reload),      cmocka_unit_test(test_reload_racing),
        cmocka_unit_test(test_pins),        cmocka_unit_test(test_pins_full),
        cmocka_unit_test(test_cache_found), cmocka_unit_test(test_cache_unknown),
        cmocka_unit_test(test_cache_stale), cmocka_unit_test(test_order),
        cmocka_unit_test(test_cache_full),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, set_up, tear_down);
}
