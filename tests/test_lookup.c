/* The lookup thread against a registry that the test plays. */
#include <netdb.h>
#include <time.h>
#include "tests/registry.h"

/* Names are resolved by the test: "localhost" leads to a registry, others as the tests say. */
static int resolve_here(const char *host, const char *port, const struct addrinfo *hints,
                        struct addrinfo **ret);
#define getaddrinfo resolve_here
#include "wss/lookup.c"
#undef getaddrinfo

static int wake;

static uint64_t now_ms(void)
{
    return dialogue_now_ns() / 1000000;
}

/* --- names --- */

static struct {
    pthread_mutex_t lock; /* held: "hangs" hangs */
    _Atomic unsigned hanging, gone;
} names = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int resolve_here(const char *host, const char *port, const struct addrinfo *hints,
                        struct addrinfo **ret)
{
    static const char *const two[] = {"127.0.0.2", "127.0.0.1"};
    struct addrinfo *first;
    if (strcmp(host, "nowhere") == 0)
        return EAI_NONAME;
    if (strcmp(host, "hangs") == 0) {
        atomic_fetch_add(&names.hanging, 1);
        pthread_mutex_lock(&names.lock);
        pthread_mutex_unlock(&names.lock);
        atomic_fetch_add(&names.gone, 1);
    }
    if (strcmp(host, "two") != 0)
        return getaddrinfo("127.0.0.1", port, hints, ret);
    if (getaddrinfo(two[0], port, hints, &first) != 0 ||
        getaddrinfo(two[1], port, hints, &first->ai_next) != 0)
        return EAI_FAIL;
    *ret = first;
    return 0;
}

/* --- the one who asks --- */

static struct lookup *open_lookup(const char *host, uint16_t port)
{
    char at[64], error[KEYS_ERROR_MAX];
    snprintf(at, sizeof at, "%s:%u", host, port);
    struct lookup *l = lookup_open(
        &(struct keys_config){.lookup = registry.dialect, .registry = at, .wake = wake}, error);
    if (!l)
        fail_msg("%s", error);
    return l;
}

static enum keys_verdict ask_for(struct lookup *l, uint32_t node_id)
{
    bool asked;
    return lookup_ask(l, node_id, &asked);
}

/* The next answer; waits as the edge does. */
static struct lookup_answer take(struct lookup *l)
{
    struct lookup_answer a;
    while (make_unreadable(wake), !lookup_take(l, &a)) {
        struct pollfd p = {.fd = wake, .events = POLLIN};
        if (poll(&p, 1, 10000) != 1)
            fail_msg("no answer within 10 s");
    }
    return a;
}

static void assert_answer(struct lookup_answer a, uint32_t node_id, enum keys_verdict verdict)
{
    uint8_t key[MSG_KEY_LEN];
    if (a.node_id != node_id || a.verdict != verdict)
        fail_msg("node %u: %d, not node %u: %d", a.node_id, a.verdict, node_id, verdict);
    key_for(node_id, key);
    if (verdict == KEYS_FOUND)
        assert_memory_equal(a.key, key, sizeof key);
}

static void assert_asked(struct lookup *l, uint32_t node_id, enum keys_verdict verdict)
{
    assert_int_equal(ask_for(l, node_id), KEYS_WAIT);
    assert_answer(take(l), node_id, verdict);
}

/* Asks until it is no longer refused at once. Returns when that was. */
static uint64_t ask_after_pause(struct lookup *l, uint32_t node_id)
{
    uint64_t start_ms = now_ms();
    for (;;) {
        uint64_t ms = now_ms();
        if (ask_for(l, node_id) == KEYS_WAIT)
            return ms;
        assert_true(ms - start_ms < 10000);
        poll(NULL, 0, 1);
    }
}

/* --- the tests --- */

/* A queue full of ids, one connection, answers in the order of the questions. */
static void test_many(void **state)
{
    (void)state;
    static const enum registry_lookup dialects[] = {LOOKUP_BINARY, LOOKUP_JSON};
    for (size_t d = 0; d < COUNT(dialects); d++) {
        registry_open(dialects[d], ANSWERS, 0);
        struct lookup *l = open_lookup("localhost", registry.port);
        for (uint32_t round = 0; round < 2; round++) {
            uint32_t first = UINT32_MAX - 2000 * round;
            for (uint32_t i = 0; i < KEYS_WAITING_MAX; i++) {
                assert_int_equal(ask_for(l, first - i), KEYS_WAIT);
                assert_int_equal(ask_for(l, first - i / 2), KEYS_WAIT);
            }
            assert_int_equal(ask_for(l, 1), KEYS_FAILED);
            for (uint32_t i = 0; i < KEYS_WAITING_MAX; i++)
                assert_answer(take(l), first - i,
                              (first - i) % 10 == 0 ? KEYS_UNKNOWN : KEYS_FOUND);
        }
        assert_int_equal(atomic_load(&registry.connections), 1);
        assert_int_equal(atomic_load(&registry.requests), 2 * KEYS_WAITING_MAX);
        assert_false(lookup_take(l, &(struct lookup_answer){.node_id = 0}));
        lookup_close(l);
        registry_close();
    }
}

/* What a registry may do without being taken for a failure. */
static void test_forgiven(void **state)
{
    (void)state;
    static const struct {
        enum manner manner;
        unsigned connections;
    } rows[] = {{SLOW, 1}, {CLOSES, 8}, {ONCE, 8}, {REPEATS, 8}};
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        registry_open(i % 2 ? LOOKUP_JSON : LOOKUP_BINARY, rows[i / 2].manner, 0);
        struct lookup *l = open_lookup("localhost", registry.port);
        for (uint32_t id = 1; id <= 4; id++) {
            assert_asked(l, id, KEYS_FOUND);
            poll(NULL, 0, 5); /* its end, or its second word, has arrived */
        }
        for (uint32_t id = 5; id <= 8; id++)
            assert_int_equal(ask_for(l, id), KEYS_WAIT);
        for (uint32_t id = 5; id <= 8; id++)
            assert_answer(take(l), id, KEYS_FOUND);
        assert_int_equal(atomic_load(&registry.connections), rows[i / 2].connections);
        lookup_close(l);
        registry_close();
    }
}

/* Waiting for nothing costs nothing, also when the registry has gone meanwhile. */
static void test_idle(void **state)
{
    (void)state;
    struct timespec before, after;
    registry_open(LOOKUP_BINARY, CLOSES, 0);
    struct lookup *l = open_lookup("localhost", registry.port);
    assert_asked(l, 1, KEYS_FOUND);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    poll(NULL, 0, 500);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    assert_true((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 <
                100);
    lookup_close(l);
    registry_close();
}

/* Closing as the next question comes: whenever that is noticed, it costs no answer. */
static void test_closing_while_asked(void **state)
{
    (void)state;
    registry_open(LOOKUP_BINARY, CLOSES, 0);
    struct lookup *l = open_lookup("localhost", registry.port);
    for (uint32_t id = 1; id <= 200; id++)
        assert_asked(l, 10 * id + 1, KEYS_FOUND);
    lookup_close(l);
    registry_close();
}

/* An answer to another question fails its own and no other. */
static void test_other_id(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        registry_open(json ? LOOKUP_JSON : LOOKUP_BINARY, OTHER_ID, 0);
        struct lookup *l = open_lookup("localhost", registry.port);
        for (uint32_t id = 1; id <= 20; id++)
            assert_int_equal(ask_for(l, id), KEYS_WAIT);
        for (uint32_t id = 1; id <= 20; id++)
            assert_answer(take(l), id,
                          id % 10 == 5   ? KEYS_FAILED
                          : id % 10 == 0 ? KEYS_UNKNOWN
                                         : KEYS_FOUND);
        assert_int_equal(atomic_load(&registry.connections), 3);
        lookup_close(l);
        registry_close();
    }
}

/* Failures: the one that asked and all that wait fail at once, and so does who comes in the pause.
 * Afterwards the registry is asked again. */
static void test_failures(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum manner manner;
        uint64_t after_ms;
    } rows[] = {
        {"cuts", CUTS, 0},
        {"HTTP", SPEAKS_HTTP, 0},
        {"length 0", SAYS_NOTHING, 0},
        {"too long", TALKS_LONG, 0},
        {"silent", SILENT, KEYS_LOOKUP_MS},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        registry_open(i % 2 ? LOOKUP_JSON : LOOKUP_BINARY, rows[i].manner, 0);
        struct lookup *l = open_lookup("localhost", registry.port);
        uint64_t start_ms = now_ms();
        for (uint32_t id = 1; id <= 10; id++)
            assert_int_equal(ask_for(l, id), KEYS_WAIT);
        for (uint32_t id = 1; id <= 10; id++)
            assert_answer(take(l), id, KEYS_FAILED);
        uint64_t took_ms = now_ms() - start_ms;
        if (took_ms < rows[i].after_ms || took_ms > rows[i].after_ms + 2000)
            fail_msg("%s: after %u ms", rows[i].name, (unsigned)took_ms);
        assert_int_equal(atomic_load(&registry.requests), 1);

        atomic_store(&registry.manner, ANSWERS);
        assert_int_equal(ask_for(l, 11), KEYS_FAILED);
        ask_after_pause(l, 11);
        assert_answer(take(l), 11, KEYS_FOUND);
        lookup_close(l);
        registry_close();
    }
}

/* Nobody listens. Each pause is twice the last; a registry that comes up is found. */
static void test_refused(void **state)
{
    (void)state;
    registry_open(LOOKUP_JSON, ANSWERS, 0);
    uint16_t port = registry.port;
    registry_close();
    struct lookup *l = open_lookup("localhost", port);
    uint64_t asked_ms[3] = {now_ms()};
    assert_asked(l, 1, KEYS_FAILED);
    asked_ms[1] = ask_after_pause(l, 2);
    assert_answer(take(l), 2, KEYS_FAILED);
    asked_ms[2] = ask_after_pause(l, 3);
    assert_answer(take(l), 3, KEYS_FAILED);
    assert_true(asked_ms[1] - asked_ms[0] >= 250);
    assert_true(asked_ms[2] - asked_ms[1] >= 500);

    registry_open(LOOKUP_JSON, ANSWERS, port);
    ask_after_pause(l, 4);
    assert_answer(take(l), 4, KEYS_FOUND);

    /* It goes and comes again while we are connected; the first pause is short once more, where
     * one that goes on doubling would be at 2 s. */
    registry_close();
    asked_ms[0] = now_ms();
    assert_asked(l, 5, KEYS_FAILED);
    registry_open(LOOKUP_JSON, ANSWERS, port);
    assert_true(ask_after_pause(l, 6) - asked_ms[0] < 1500);
    assert_answer(take(l), 6, KEYS_FOUND);
    registry_close();
    registry_open(LOOKUP_JSON, ANSWERS, port);
    assert_asked(l, 7, KEYS_FOUND);
    lookup_close(l);
    registry_close();
}

static void test_names(void **state)
{
    (void)state;
    registry_open(LOOKUP_BINARY, ANSWERS, 0);
    struct lookup *l = open_lookup("two", registry.port); /* nobody is at the first */
    assert_asked(l, 1, KEYS_FOUND);
    lookup_close(l);
    l = open_lookup("nowhere", registry.port);
    assert_asked(l, 1, KEYS_FAILED);
    lookup_close(l);
    registry_close();
}

static void test_registry_text(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *port; /* NULL: refused */
    } rows[] = {
        {"registry.example:9000", "registry.example", "9000"},
        {"127.0.0.1:1", "127.0.0.1", "1"},
        {"[::1]:65535", "::1", "65535"},
        {"[fe80::1%lo]:9000", "fe80::1%lo", "9000"},
        {"", NULL, NULL},
        {"registry", NULL, NULL},
        {":9000", NULL, NULL},
        {"[]:9000", NULL, NULL},
        {"::1:9000", NULL, NULL},
        {"[::1]", NULL, NULL},
        {"r:", NULL, NULL},
        {"r:0", NULL, NULL},
        {"r:65536", NULL, NULL},
        {"r:655360", NULL, NULL},
        {"r:http", NULL, NULL},
        {"r:90 ", NULL, NULL},
        {"r:-1", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char error[KEYS_ERROR_MAX] = "";
        struct keys_config c = {.lookup = LOOKUP_JSON, .registry = rows[i].text, .wake = wake};
        struct lookup *l = lookup_open(&c, error);
        if ((l != NULL) != (rows[i].host != NULL))
            fail_msg("%s: %s", rows[i].text, error);
        if (l) {
            assert_string_equal(l->host, rows[i].host);
            assert_string_equal(l->port, rows[i].port);
            lookup_close(l);
        } else {
            assert_non_null(strstr(error, "not host:port"));
        }
    }
    char text[HOST_MAX + 8], error[KEYS_ERROR_MAX];
    struct keys_config c = {.lookup = LOOKUP_JSON, .registry = text, .wake = wake};
    memset(text, 'h', sizeof text);
    strcpy(text + HOST_MAX, ":9000");
    struct lookup *l = lookup_open(&c, error);
    assert_non_null(l);
    lookup_close(l);
    strcpy(text + HOST_MAX, "h:9000");
    assert_null(lookup_open(&c, error));
}

/* Closing does not wait for the registry, whatever the thread waits for. */
static void test_close(void **state)
{
    (void)state;
    registry_open(LOOKUP_BINARY, SILENT, 0);
    struct lookup *l = open_lookup("localhost", registry.port);
    uint64_t start_ms = now_ms();
    for (uint32_t id = 1; id <= 10; id++)
        assert_int_equal(ask_for(l, id), KEYS_WAIT);
    while (atomic_load(&registry.requests) == 0)
        poll(NULL, 0, 1);
    lookup_close(l); /* in the middle of a question */
    l = open_lookup("nowhere", registry.port);
    assert_asked(l, 1, KEYS_FAILED);
    lookup_close(l); /* in a pause */
    l = open_lookup("localhost", registry.port);
    assert_int_equal(ask_for(l, 1), KEYS_WAIT);
    lookup_close(l); /* at once */
    assert_true(now_ms() - start_ms < 2000);
    registry_close();
}

/* A thread in getaddrinfo cannot be woken: it is left behind, and cleans up after itself. */
static void test_close_resolving(void **state)
{
    (void)state;
    registry_open(LOOKUP_BINARY, ANSWERS, 0);
    pthread_mutex_lock(&names.lock);
    struct lookup *l = open_lookup("hangs", registry.port);
    assert_int_equal(ask_for(l, 1), KEYS_WAIT);
    while (atomic_load(&names.hanging) == 0)
        poll(NULL, 0, 1);
    uint64_t start_ms = now_ms();
    lookup_close(l);
    assert_true(now_ms() - start_ms < 2000);
    pthread_mutex_unlock(&names.lock);
    while (atomic_load(&names.gone) == 0)
        poll(NULL, 0, 1);
    poll(NULL, 0, 100);
    assert_int_equal(atomic_load(&registry.connections), 0);
    registry_close();
}

/* --- all of keys --- */

static struct keys_answer find(struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    struct keys_answer a = keys_find(k, node_id, now_ns);
    while (a.verdict == KEYS_WAIT) {
        struct pollfd p = {.fd = wake, .events = POLLIN};
        if (poll(&p, 1, 10000) != 1)
            fail_msg("no answer within 10 s");
        make_unreadable(wake);
        if (!keys_take(k, now_ns, &a))
            a.verdict = KEYS_WAIT;
    }
    assert_int_equal(a.node_id, node_id);
    return a;
}

/* A registry that goes away: what it has said still counts, for a while. */
static void test_keys(void **state)
{
    (void)state;
    char at[32], error[KEYS_ERROR_MAX];
    uint8_t key[MSG_KEY_LEN];
    uint64_t now_ns = SECOND_NS;
    registry_open(LOOKUP_BINARY, ANSWERS, 0);
    snprintf(at, sizeof at, "localhost:%u", registry.port);
    struct keys_config c = {
        .file = "", .lookup = LOOKUP_BINARY, .registry = at, .wake = wake, .first_use = true};
    struct keys *k = keys_open(&c, error);
    assert_non_null(k);
    key_for(1, key);
    struct keys_answer a = find(k, 1, now_ns);
    assert_int_equal(a.verdict, KEYS_FOUND);
    assert_int_equal(a.class_, ROUTE_KEYED);
    assert_memory_equal(a.key, key, sizeof key);
    assert_int_equal(find(k, 10, now_ns).verdict, KEYS_FIRST_USE);
    assert_int_equal(find(k, 1, now_ns).verdict, KEYS_FOUND);
    assert_int_equal(find(k, 10, now_ns).verdict, KEYS_FIRST_USE);
    assert_int_equal(atomic_load(&registry.requests), 2);

    registry_close();
    now_ns += 3599 * SECOND_NS;
    assert_int_equal(find(k, 10, now_ns).verdict, KEYS_FAILED);
    a = find(k, 1, now_ns);
    assert_int_equal(a.verdict, KEYS_FOUND);
    assert_memory_equal(a.key, key, sizeof key);
    assert_int_equal(find(k, 1, now_ns + SECOND_NS).verdict, KEYS_FAILED);
    assert_int_equal(atomic_load(&keys_stats(k)->lookups), 5);
    assert_int_equal(atomic_load(&keys_stats(k)->lookup_failures), 3);
    keys_close(k);
}

static int set_up(void **state)
{
    (void)state;
    wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return wake < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return close(wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_forgiven),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_closing_while_asked),
        cmocka_unit_test(test_other_id),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_registry_text),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_close_resolving),
        cmocka_unit_test(test_keys),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, set_up, tear_down);
}
