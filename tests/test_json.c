#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <jansson.h>

#include "proto/json.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A writer into memory. */
struct page {
    struct json j;
    char *text;
    size_t len;
};

static void page_open(struct page *p)
{
    FILE *out = open_memstream(&p->text, &p->len);
    assert_non_null(out);
    p->j = json_of(out);
}

/* Ends the page, which must be whole, and compares it. */
static void page_is(struct page *p, const char *want)
{
    assert_true(json_whole(&p->j));
    assert_int_equal(fclose(p->j.out), 0);
    assert_string_equal(p->text, want);
    json_t *root = json_loadb(p->text, p->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    json_decref(root);
    free(p->text);
}

static void test_nesting(void **state)
{
    (void)state;
    struct page p;
    page_open(&p);
    json_open_object(&p.j, NULL);
    json_text(&p.j, "a", "b");
    json_open_array(&p.j, "list");
    json_uint(&p.j, NULL, 1);
    json_open_object(&p.j, NULL);
    json_end(&p.j);
    json_open_array(&p.j, NULL);
    json_end(&p.j);
    json_open_object(&p.j, NULL);
    json_bool(&p.j, "yes", true);
    json_bool(&p.j, "no", false);
    json_end(&p.j);
    json_text(&p.j, NULL, NULL);
    json_end(&p.j);
    assert_false(json_whole(&p.j));
    json_text(&p.j, "", "");
    json_int(&p.j, "a\"b", -1);
    json_end(&p.j);
    page_is(&p, "{\"a\":\"b\",\"list\":[1,{},[],{\"yes\":true,\"no\":false},null],"
                "\"\":\"\",\"a\\\"b\":-1}");
}

static void test_outermost(void **state)
{
    (void)state;
    struct page p;
    page_open(&p);
    assert_false(json_whole(&p.j));
    json_text(&p.j, NULL, "x");
    page_is(&p, "\"x\"");
    page_open(&p);
    json_open_array(&p.j, NULL);
    json_end(&p.j);
    page_is(&p, "[]");
}

static void test_deepest(void **state)
{
    (void)state;
    struct page p;
    page_open(&p);
    for (unsigned i = 0; i < JSON_DEPTH_MAX; i++)
        json_open_array(&p.j, NULL);
    json_bool(&p.j, NULL, true);
    json_bool(&p.j, NULL, true);
    for (unsigned i = 0; i < JSON_DEPTH_MAX; i++)
        json_end(&p.j);
    page_is(&p, "[[[[[[[[true,true]]]]]]]]");
}

#define BAD "\xef\xbf\xbd"

static void test_texts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        size_t len;
        const char *want; /* without the quotes */
    } rows[] = {
#define ROW(name, text, want) {name, text, sizeof(text) - 1, want}
        ROW("empty", "", ""),
        ROW("plain", "abc ~", "abc ~"),
        ROW("quote and backslash", "\"\\", "\\\"\\\\"),
        ROW("slash", "/", "/"),
        ROW("controls", "\x01\t\n\r\x1f", "\\u0001\\u0009\\u000a\\u000d\\u001f"),
        ROW("NUL", "a\0b", "a\\u0000b"),
        ROW("blank and delete", " \x7f", " \\u007f"),
        ROW("HTML", "<&>", "\\u003c\\u0026\\u003e"),
        ROW("two bytes", "\xc2\x80\xdf\xbf", "\xc2\x80\xdf\xbf"),
        ROW("three bytes", "\xe0\xa0\x80\xef\xbf\xbf", "\xe0\xa0\x80\xef\xbf\xbf"),
        ROW("around surrogates", "\xed\x9f\xbf\xee\x80\x80", "\xed\x9f\xbf\xee\x80\x80"),
        ROW("four bytes", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"),
        ROW("line separators", "\xe2\x80\xa8\xe2\x80\xa9", "\\u2028\\u2029"),
        ROW("beside the separators", "\xe2\x80\xa7\xe2\x80\xaa", "\xe2\x80\xa7\xe2\x80\xaa"),

        ROW("stray continuation", "a\x80z", "a" BAD "z"),
        ROW("two strays", "\xbf\x80", BAD BAD),
        ROW("overlong of two", "\xc0\xaf\xc1\xbf", BAD BAD BAD BAD),
        ROW("overlong of three", "\xe0\x9f\xbf", BAD BAD BAD),
        ROW("overlong of four", "\xf0\x8f\xbf\xbf", BAD BAD BAD BAD),
        ROW("surrogate", "\xed\xa0\x80", BAD BAD BAD),
        ROW("last surrogate", "\xed\xbf\xbf", BAD BAD BAD),
        ROW("above U+10FFFF", "\xf4\x90\x80\x80", BAD BAD BAD BAD),
        ROW("never", "\xf5\xfe\xff", BAD BAD BAD),
        ROW("cut after one of two", "\xc3", BAD),
        ROW("cut after two of three", "\xe2\x82", BAD),
        ROW("cut after three of four", "\xf0\x9f\x98", BAD),
        ROW("cut by a letter", "\xe2\x82z", BAD "z"),
        ROW("cut by a quote", "\xf0\x9f\"", BAD "\\\""),
        ROW("cut by a character", "\xe2\x82\xc3\xa9", BAD "\xc3\xa9"),
#undef ROW
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct page p;
        char want[128], *exactly = test_malloc(rows[i].len + (rows[i].len == 0));
        memcpy(exactly, rows[i].text, rows[i].len);
        page_open(&p);
        json_bytes(&p.j, NULL, exactly, rows[i].len);
        snprintf(want, sizeof want, "\"%s\"", rows[i].want);
        fflush(p.j.out);
        if (strcmp(p.text, want) != 0)
            fail_msg("%s: %s, not %s", rows[i].name, p.text, want);
        page_is(&p, want);
        test_free(exactly);
    }
}

static void test_integers(void **state)
{
    (void)state;
    struct page p;
    page_open(&p);
    json_open_array(&p.j, NULL);
    json_uint(&p.j, NULL, 0);
    json_uint(&p.j, NULL, 9007199254740993u);
    json_int(&p.j, NULL, 0);
    json_int(&p.j, NULL, INT64_MIN);
    json_int(&p.j, NULL, INT64_MAX);
    json_end(&p.j);
    page_is(&p, "[0,9007199254740993,0,-9223372036854775808,9223372036854775807]");
    char *text = NULL; /* jansson has no integer so large, so this one is only compared */
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    struct json j = json_of(out);
    json_uint(&j, NULL, UINT64_MAX);
    fclose(out);
    assert_string_equal(text, "18446744073709551615");
    free(text);
}

/* --- misuse --- */

static void end_of_nothing(struct json *j)
{
    json_end(j);
}
static void named_outermost(struct json *j)
{
    json_bool(j, "x", true);
}
static void second_outermost(struct json *j)
{
    json_bool(j, NULL, true);
    json_bool(j, NULL, true);
}
static void nameless_member(struct json *j)
{
    json_open_object(j, NULL);
    json_bool(j, NULL, true);
}
static void named_in_array(struct json *j)
{
    json_open_array(j, NULL);
    json_bool(j, "x", true);
}
static void too_deep(struct json *j)
{
    for (unsigned i = 0; i <= JSON_DEPTH_MAX; i++)
        json_open_array(j, NULL);
}

/* In a child, which must abort; one that does not ends with 0. */
static void test_misuse(void **state)
{
    (void)state;
    void (*const misuses[])(struct json *) = {end_of_nothing,  named_outermost, second_outermost,
                                              nameless_member, named_in_array,  too_deep};
    for (size_t i = 0; i < COUNT(misuses); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            signal(SIGABRT, SIG_DFL); /* not cmocka's */
            fclose(stderr);
            FILE *out = fopen("/dev/null", "w");
            struct json j = json_of(out);
            misuses[i](&j);
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("misuse %zu is not noticed: status %x", i, (unsigned)status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nesting),  cmocka_unit_test(test_outermost),
        cmocka_unit_test(test_deepest),  cmocka_unit_test(test_texts),
        cmocka_unit_test(test_integers), cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
