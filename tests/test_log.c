/* log - what comes out of stderr: the three formats, journald's prefix, what is quoted, what is
 * held back, and that no line is lost or broken. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cmd/log.h"

/* stderr goes through a pipe while a line is logged; asserts print to the real one. */
static int pipe_ends[2], real_stderr;

static void capture(void)
{
    fflush(stderr);
    real_stderr = dup(STDERR_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
}

/* What was written since capture, as a string. */
static const char *captured(void)
{
    static char text[1 << 16];
    ssize_t n;

    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    n = read(pipe_ends[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static int open_pipe(void **state)
{
    (void)state;
    if (pipe2(pipe_ends, O_NONBLOCK) != 0)
        return -1;
    return fcntl(pipe_ends[1], F_SETPIPE_SZ, 1 << 16) < 0 ? -1 : 0;
}

static int close_pipe(void **state)
{
    (void)state;
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;

    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

/* "2026-01-02T03:04:05.678Z" */
static bool is_time(const char *text)
{
    static const char shape[] = "0000-00-00T00:00:00.000Z";

    for (unsigned i = 0; shape[i] != '\0'; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == '0' ? !digit : text[i] != shape[i])
            return false;
    }
    return true;
}

static void test_formats(void **state)
{
    static const struct {
        const char *name;
        enum log_format format;
        enum log_level level;
        const char *message, *value, *before, *after; /* around the time stamp */
    } cases[] = {
        {"text", LOG_TEXT, LOG_WARN, "full a", "x", "", " warn shard full a shard=3 v=x\n"},
        {"text, quoted", LOG_TEXT, LOG_ERROR, "full b", "x y", "",
         " error shard full b shard=3 v=\"x y\"\n"},
        {"text, a value that would be a line", LOG_TEXT, LOG_INFO, "full c", "x\nINFO all good", "",
         " info shard full c shard=3 v=\"x\\nINFO all good\"\n"},
        {"text, escape sequence", LOG_TEXT, LOG_INFO, "full d", "\x1b[2J", "",
         " info shard full d shard=3 v=\"\\x1b[2J\"\n"},
        {"logfmt", LOG_LOGFMT, LOG_DEBUG, "full e", "x",
         "ts=", " level=debug component=shard msg=\"full e\" shard=3 v=x\n"},
        {"logfmt, one word", LOG_LOGFMT, LOG_DEBUG, "full", "",
         "ts=", " level=debug component=shard msg=full shard=3 v=\"\"\n"},
        {"json", LOG_JSON, LOG_WARN, "full f", "x", "{\"ts\":\"",
         "\",\"level\":\"warn\",\"component\":\"shard\",\"msg\":\"full f\",\"shard\":3,"
         "\"v\":\"x\"}\n"},
        {"json, integers and what looks like them", LOG_JSON, LOG_WARN, "full g", "-7 a=007 b=-",
         "{\"ts\":\"",
         "\",\"level\":\"warn\",\"component\":\"shard\",\"msg\":\"full g\",\"shard\":3,"
         "\"v\":\"-7 a=007 b=-\"}\n"},
        {"json, quotes", LOG_JSON, LOG_WARN, "full h", "a\"b\\c\n", "{\"ts\":\"",
         "\",\"level\":\"warn\",\"component\":\"shard\",\"msg\":\"full h\",\"shard\":3,"
         "\"v\":\"a\\\"b\\\\c\\n\"}\n"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t before = strlen(cases[i].before);
        print_message("case: %s\n", cases[i].name);
        capture();
        log_open(LOG_DEBUG, cases[i].format);
        log_line(cases[i].level, "shard", cases[i].message, "shard=%d v=%s", 3,
                 log_quote(cases[i].value));
        const char *text = captured();
        assert_memory_equal(text, cases[i].before, before);
        assert_true(is_time(text + before));
        assert_string_equal(text + before + 24, cases[i].after);
    }
}

/* The time is UTC and now. */
static void test_time_is_utc(void **state)
{
    struct tm utc = {0};
    time_t before = time(NULL);

    (void)state;
    setenv("TZ", "Asia/Kolkata", 1);
    tzset();
    capture();
    log_open(LOG_INFO, LOG_TEXT);
    log_line(LOG_INFO, "main", "what time is it", NULL);
    const char *text = captured();
    assert_non_null(strptime(text, "%Y-%m-%dT%H:%M:%S", &utc));
    assert_in_range(timegm(&utc), (uintmax_t)before, (uintmax_t)before + 2);
    assert_non_null(strstr(text, "Z info main what time is it\n"));
    unsetenv("TZ");
    tzset();
}

static void test_json_members(void **state)
{
    json_error_t e;

    (void)state;
    capture();
    log_open(LOG_INFO, LOG_JSON);
    log_line(LOG_INFO, "main", "members",
             "a=18446744073709551615x n=-7 zero=0 octal=007 minus=- "
             "raw=%s empty= bare q=%s",
             "\xff\x01\"", log_quote("\xc3\xa9 \x7f"));
    json_t *o = json_loads(captured(), 0, &e);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "a")), "18446744073709551615x");
    assert_int_equal(json_integer_value(json_object_get(o, "n")), -7);
    assert_true(json_is_integer(json_object_get(o, "zero")));
    assert_string_equal(json_string_value(json_object_get(o, "octal")), "007");
    assert_string_equal(json_string_value(json_object_get(o, "minus")), "-");
    assert_string_equal(json_string_value(json_object_get(o, "raw")), "\xef\xbf\xbd\x01\"");
    assert_string_equal(json_string_value(json_object_get(o, "empty")), "");
    assert_string_equal(json_string_value(json_object_get(o, "bare")), "");
    assert_string_equal(json_string_value(json_object_get(o, "q")), "\\xc3\\xa9 \\x7f");
    json_decref(o);
}

static void test_levels(void **state)
{
    (void)state;
    for (int least = LOG_DEBUG; least <= LOG_ERROR; least++) {
        char message[4][32];
        capture();
        log_open((enum log_level)least, LOG_TEXT);
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
            snprintf(message[level], sizeof message[level], "level %d of %d", level, least);
            log_line((enum log_level)level, "main", message[level], NULL);
        }
        const char *text = captured();
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++)
            assert_int_equal(strstr(text, message[level]) != NULL, level >= least);
    }
    capture();
    log_set(LOG_DEBUG, LOG_LOGFMT);
    log_line(LOG_DEBUG, "main", "set anew", NULL);
    assert_non_null(strstr(captured(), "level=debug component=main msg=\"set anew\"\n"));
}

static void wait_for_period(void)
{
    /* A little more than the period, since it is counted in whole seconds. */
    nanosleep(&(struct timespec){.tv_sec = LOG_PERIOD_SECONDS, .tv_nsec = 50000000}, NULL);
}

static void test_suppression(void **state)
{
    uint64_t before = log_suppressed_total();

    (void)state;
    capture();
    log_open(LOG_INFO, LOG_TEXT);
    wait_for_period();
    for (int i = 0; i < 2 * LOG_PER_PERIOD + 5; i++)
        log_line(LOG_WARN, "shard", "flood", "i=%d", i);
    log_line(LOG_DEBUG, "shard", "flood", NULL); /* below the level: nothing was held back */
    log_line(LOG_WARN, "shard", "another event", NULL);
    const char *text = captured();
    unsigned lines = count_lines(text);
    /* The loop may meet the end of one period. */
    assert_in_range(lines, LOG_PER_PERIOD + 1, 2 * LOG_PER_PERIOD + 1);
    assert_non_null(strstr(text, "i=9\n"));
    assert_null(strstr(text, "i=24\n"));
    assert_non_null(strstr(text, "another event\n"));
    assert_int_equal(log_suppressed_total() - before, 2 * LOG_PER_PERIOD + 6 - lines);

    wait_for_period();
    capture();
    log_line(LOG_WARN, "shard", "flood", "i=%d", 99);
    log_line(LOG_WARN, "shard", "flood", "i=%d", 100);
    text = captured();
    assert_non_null(strstr(text, " warn shard flood suppressed="));
    assert_non_null(strstr(text, " i=99\n"));
    assert_non_null(strstr(text, " warn shard flood i=100\n"));
}

/* More events than are remembered: nothing breaks, all are written. */
static void test_many_events(void **state)
{
    char message[32];

    (void)state;
    for (int i = 0; i < 600; i++) {
        snprintf(message, sizeof message, "event number %d.", i);
        capture();
        log_line(LOG_WARN, "main", message, NULL);
        assert_non_null(strstr(captured(), message));
    }
}

static void test_long_lines(void **state)
{
    static const enum log_format all[] = {LOG_TEXT, LOG_LOGFMT, LOG_JSON};
    char value[LOG_LINE_MAX];

    (void)state;
    /* Each length around the limit, since the line is cut between pairs and not at a byte. */
    for (unsigned f = 0; f < 3; f++)
        for (size_t len = LOG_LINE_MAX - 160; len < LOG_LINE_MAX - 1; len++) {
            char message[32];
            json_error_t e;
            memset(value, 'v', len);
            value[len] = '\0';
            snprintf(message, sizeof message, "long %u %zu", f, len);
            capture();
            log_open(LOG_INFO, all[f]);
            log_line(LOG_INFO, "main", message, "a=1 b=%s c=3", value);
            const char *text = captured();
            assert_true(strlen(text) <= LOG_LINE_MAX);
            assert_int_equal(count_lines(text), 1);
            assert_int_equal(text[strlen(text) - 1], '\n');
            assert_true((strstr(text, value) == NULL) <= (strstr(text, "truncated") != NULL));
            if (all[f] == LOG_JSON) {
                json_t *o = json_loads(text, 0, &e);
                assert_non_null(o);
                json_decref(o);
            }
        }
}

static void test_journald(void **state)
{
    static const struct {
        enum log_level level;
        const char *message, *want;
    } cases[] = {
        {LOG_DEBUG, "journal d", "<7>debug main journal d a=1\n"},
        {LOG_INFO, "journal i", "<6>info main journal i a=1\n"},
        {LOG_WARN, "journal w", "<4>warn main journal w a=1\n"},
        {LOG_ERROR, "journal e", "<3>error main journal e a=1\n"},
    };
    struct stat st;
    char stream[64];

    (void)state;
    fstat(pipe_ends[1], &st);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        capture();
        log_open(LOG_DEBUG, LOG_TEXT);
        log_line(cases[i].level, "main", cases[i].message, "a=1");
        assert_string_equal(captured(), cases[i].want);
    }
    capture();
    log_open(LOG_DEBUG, LOG_JSON);
    log_line(LOG_INFO, "main", "journal json", "a=1");
    assert_string_equal(captured(), "<6>{\"level\":\"info\",\"component\":\"main\","
                                    "\"msg\":\"journal json\",\"a\":1}\n");
    setenv("JOURNAL_STREAM", "1:1", 1); /* inherited, but stderr was redirected */
    capture();
    log_open(LOG_DEBUG, LOG_TEXT);
    log_line(LOG_INFO, "main", "journal no more", NULL);
    assert_true(is_time(captured()));
    unsetenv("JOURNAL_STREAM");
}

static void test_quoting(void **state)
{
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"plain", "plain"},
        {"203.0.113.7:9001", "203.0.113.7:9001"},
        {"", "\"\""},
        {"a b", "\"a b\""},
        {"a=b", "\"a=b\""},
        {"a\"b", "\"a\\\"b\""},
        {"a\\b", "\"a\\\\b\""},
        {"\r\n\t", "\"\\r\\n\\t\""},
        {"\x01\x1f", "\"\\x01\\x1f\""},
        {"\x7f\x80\xff", "\"\\x7f\\x80\\xff\""},
    };
    char value[256];

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(log_quote(cases[i].value), cases[i].want);
    memset(value, 'a', sizeof value);
    value[200] = '\0';
    assert_string_equal(log_quote(value), value);
    value[200] = 'a';
    value[201] = '\0';
    assert_int_equal(strlen(log_quote(value)), 200 + strlen("\"...\""));
    memset(value, '\x01', 200);
    assert_int_equal(strlen(log_quote(value)), 4 * 200 + strlen("\"...\""));
}

static void test_quotes_last(void **state)
{
    const char *kept[8];
    char value[2] = "a";

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        value[0] = (char)('a' + i);
        kept[i] = log_quote(value);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(kept[i][0], 'a' + (int)i);
}

enum { THREADS = 4, LINES_EACH = 200 };

static void *log_much(void *arg)
{
    char message[32];

    for (int i = 0; i < LINES_EACH; i++) {
        snprintf(message, sizeof message, "thread event %d", i % 20);
        log_line(LOG_INFO, "main", message, "thread=%d i=%d", *(int *)arg, i);
    }
    return NULL;
}

/* Written or counted as suppressed: none is lost, no two lines mix. */
static void test_threads(void **state)
{
    pthread_t thread[THREADS];
    int number[THREADS];
    uint64_t before = log_suppressed_total();
    unsigned lines = 0;

    (void)state;
    capture();
    log_open(LOG_INFO, LOG_TEXT);
    for (int i = 0; i < THREADS; i++) {
        number[i] = i;
        pthread_create(&thread[i], NULL, log_much, &number[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (const char *at = captured(); *at != '\0'; at = strchr(at, '\n') + 1, lines++) {
        assert_true(is_time(at));
        assert_memory_equal(at + 24, " info main thread event ", 24);
    }
    assert_int_equal(lines + log_suppressed_total() - before, THREADS * LINES_EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),      cmocka_unit_test(test_time_is_utc),
        cmocka_unit_test(test_json_members), cmocka_unit_test(test_levels),
        cmocka_unit_test(test_suppression),  cmocka_unit_test(test_many_events),
        cmocka_unit_test(test_long_lines),   cmocka_unit_test(test_journald),
        cmocka_unit_test(test_quoting),      cmocka_unit_test(test_quotes_last),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, open_pipe, close_pipe);
}
