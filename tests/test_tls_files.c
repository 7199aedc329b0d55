#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tls_certs.h"

/* The good files again, with something wrong. */
static void spoiled_make(void)
{
    char text[16384];
    char *one = file_text(path("one", ".crt"));
    size_t len = strlen(one);
    write_file(path("public", ".key"), one, len, 0600);
    write_file(path("empty", ".crt"), "", 0, 0644);
    write_file(path("cut", ".crt"), one, len / 2, 0644);
    write_file(path("text", ".crt"), "no certificate\n", 15, 0644);
    int n = snprintf(text, sizeof text,
                     "%s-----BEGIN CERTIFICATE-----\nAAAA\n"
                     "-----END CERTIFICATE-----\n",
                     one);
    write_file(path("badchain", ".crt"), text, (size_t)n, 0644);
    n = snprintf(text, sizeof text, "a comment\n%s\nand another\n", one);
    n += snprintf(text + n, sizeof text - (size_t)n, "%s", file_text(path("two", ".crt")));
    write_file(path("chain", ".crt"), text, (size_t)n, 0644);
    char *key = file_text(path("one", ".key"));
    len = strlen(key);
    write_file(path("empty", ".key"), "", 0, 0600);
    write_file(path("cut", ".key"), key, len / 2, 0600);
    write_file(path("open", ".key"), key, len, 0604);
    write_file(path("writable", ".key"), key, len, 0602);
    write_file(path("group", ".key"), key, len, 0640);
    write_file(path("closed", ".key"), key, len, 0);
    assert_int_equal(mkdir(path("folder", ".key"), 0700), 0);
    assert_int_equal(mkfifo(path("fifo", ".key"), 0600), 0);
    assert_int_equal(symlink("folder.key/inside", path("link", ".key")), 0);
    write_file(path("folder", ".key/inside"), key, len, 0644);
    write_file(path("huge", ".key"), key, len, 0600);
    assert_int_equal(truncate(path("huge", ".key"), (1 << 20) + 1), 0);
}

static int set_up(void **state)
{
    if (certs_make(state) != 0)
        return -1;
    spoiled_make();
    return 0;
}

/* --- loading --- */

static const struct {
    const char *name, *cert, *key;
    const char *want[3]; /* stand in the error; none: it loads */
} loads[] = {
    {"good", "one.crt", "one.key", {NULL}},
    {"rsa 2048", "rsa.crt", "rsa.key", {NULL}},
    {"chain, with comments", "chain.crt", "one.key", {NULL}},
    {"group may read the key", "one.crt", "group.key", {NULL}},
    {"no certificate file", "none.crt", "one.key", {"none.crt", "No such file"}},
    {"no key file", "one.crt", "none.key", {"none.key", "No such file"}},
    {"key is a folder", "one.crt", "folder.key", {"folder.key", "not a regular file"}},
    {"key is a fifo", "one.crt", "fifo.key", {"fifo.key", "not a regular file"}},
    {"key is huge", "one.crt", "huge.key", {"huge.key", "larger than 1 MiB"}},
    {"empty certificate", "empty.crt", "one.key", {"empty.crt", "no certificate in PEM"}},
    {"text", "text.crt", "one.key", {"text.crt", "no certificate in PEM"}},
    {"der", "der.crt", "one.key", {"der.crt", "no certificate in PEM"}},
    {"certificate cut", "cut.crt", "one.key", {"cut.crt", "number 1", "bad end line"}},
    {"second certificate bad", "badchain.crt", "one.key", {"badchain.crt", "number 2"}},
    {"key as certificate", "one.key", "one.key", {"one.key", "no certificate in PEM"}},
    {"empty key", "one.crt", "empty.key", {"empty.key", "no private key in PEM"}},
    {"key cut", "one.crt", "cut.key", {"cut.key", "no private key in PEM"}},
    {"certificate as key", "one.crt", "public.key", {"public.key", "no private key in PEM"}},
    {"key of another", "one.crt", "two.key", {"two.key", "one.crt", "does not belong"}},
    {"key of another kind", "one.crt", "rsa.key", {"rsa.key", "one.crt", "does not belong"}},
    {"everyone reads", "one.crt", "open.key", {"open.key", "0604", "everyone"}},
    {"everyone writes", "one.crt", "writable.key", {"writable.key", "0602", "everyone"}},
    {"passphrase", "one.crt", "locked.key", {"locked.key", "passphrase"}},
    {"passphrase, old form", "one.crt", "lockedold.key", {"lockedold.key", "passphrase"}},
    {"rsa 1024", "small.crt", "small.key", {"small.key", "RSA of 1024 bits"}},
};

static void test_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        char error[TLS_ERROR_MAX] = "";
        struct tls *t = tls_open(path(loads[i].cert, ""), path(loads[i].key, ""), error);
        if (!t != !!loads[i].want[0])
            fail_msg("%s: %s", loads[i].name, t ? "was taken" : error);
        for (size_t w = 0; w < 3 && loads[i].want[w]; w++)
            if (!strstr(error, loads[i].want[w]))
                fail_msg("%s: not \"%s\" in: %s", loads[i].name, loads[i].want[w], error);
        assert_int_equal(ERR_peek_error(), 0);
        tls_close(t);
    }
}

static const struct {
    const char *name, *certs, *keys, *want;
} lists[] = {
    {"none", "", "", "name 1"},
    {"fewer keys", "one,two", "one", "more certificate files than key"},
    {"fewer certificates", "one", "one,two", "more key files than certificate"},
    {"empty key name", "one", "", "name 1 of the key"},
    {"empty name at the end", "one,", "one,", "name 2 of the certificate"},
    {"keys swapped", "one,two", "two,one", "does not belong"},
    {"second is bad", "one,none", "one,none", "No such file"},
    {"nine", "one,one,one,one,one,one,one,one,one", "one,one,one,one,one,one,one,one,one",
     "more than 8"},
};

static void test_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        char certs[TEXT_MAX], keys[TEXT_MAX], error[TLS_ERROR_MAX] = "";
        size_t dir_len = strlen(dir);
        paths(lists[i].certs, ".crt", certs);
        paths(lists[i].keys, ".key", keys);
        /* An empty name is one, not our directory. */
        char *lone[] = {certs, keys};
        for (int l = 0; l < 2; l++) {
            size_t len = strlen(lone[l]);
            if (len >= dir_len && strcmp(lone[l] + len - dir_len, dir) == 0)
                lone[l][len - dir_len] = '\0';
        }
        struct tls *t = tls_open(certs, keys, error);
        if (t || !strstr(error, lists[i].want))
            fail_msg("%s: %s", lists[i].name, t ? "was taken" : error);
    }
    struct tls *t = open_pairs("one,two,one,two,one,two,one,two");
    assert_int_equal(tls_count(t), 8);
    tls_close(t);
    tls_close(NULL);
}

/* Becomes a user who may not read the key; ends with 0 when the error says all of that. */
static void denied_child(const char *key, const char *place, const char *mode)
{
    char error[TLS_ERROR_MAX] = "", user[32];
    uid_t uid = geteuid() == 0 ? 65534 : geteuid();
    if (geteuid() == 0 && seteuid(uid) != 0)
        _exit(2);
    snprintf(user, sizeof user, "uid %u", (unsigned)uid);
    if (tls_open(path("one", ".crt"), key, error))
        _exit(3);
    bool good = strstr(error, key) && strstr(error, "Permission denied") && strstr(error, user) &&
                strstr(error, place) && strstr(error, mode) && strstr(error, "owner");
    if (!good)
        fprintf(stderr, "error was: %s\n", error);
    _exit(good ? 0 : 4);
}

static void test_denied(void **state)
{
    (void)state;
    static const struct {
        const char *key, *place, *mode;
    } cases[] = {
        {"closed.key", "closed.key has mode 0000", "mode 0000"},
        {"folder.key/inside", "folder.key has mode 0000", "mode 0000"},
        {"link.key", "it is a link to where this user may not go", "mode 0"},
    };
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chmod(path("folder", ".key"), 0), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status;
        pid_t child = fork();
        assert_return_code(child, errno);
        if (child == 0)
            denied_child(path(cases[i].key, ""), cases[i].place, cases[i].mode);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: status %x", cases[i].key, (unsigned)status);
    }
    assert_int_equal(chmod(path("folder", ".key"), 0700), 0);
}

static void test_facts(void **state)
{
    (void)state;
    static const struct {
        const char *pairs, *name;
        long days;
        const char *warning;
    } cases[] = {
        {"one", "one.test", 90, NULL},
        {"plain", "cn.test", 90, NULL},
        {"address", "?? ?x??", 90, NULL},
        {"expired", "expired.test", -1, "certificate expired.test expired on 2"},
        {"early", "early.test", 90, "certificate early.test is not valid before 2"},
        {"soon", "soon.test", 10, "certificate soon.test expires on 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls *t = open_pairs(cases[i].pairs);
        char name[TLS_NAME_MAX];
        snprintf(name, sizeof name, "%s", cases[i].name);
        for (char *at = name; *at; at++)
            if (*at == ' ')
                *at = '?';
        assert_int_equal(tls_count(t), 1);
        assert_string_equal(tls_name(t, 0), name);
        assert_in_range(tls_not_after(t, 0) - time(NULL) - cases[i].days * DAY + 120, 0, 121);
        if (!cases[i].warning)
            assert_null(tls_warning(t));
        else if (!tls_warning(t) ||
                 strncmp(tls_warning(t), cases[i].warning, strlen(cases[i].warning)) != 0)
            fail_msg("%s: %s", cases[i].name, tls_warning(t) ? tls_warning(t) : "no warning");
        tls_close(t);
    }
    struct tls *t = open_pairs("one,expired,soon");
    assert_string_equal(tls_name(t, 1), "expired.test");
    assert_non_null(strstr(tls_warning(t), "expired.test"));
    assert_non_null(strstr(tls_warning(t), "; certificate soon.test"));
    tls_close(t);
}

/* --- watching --- */

static void test_stamp(void **state)
{
    (void)state;
    char cert[TEXT_MAX], key[TEXT_MAX], more[2 * TEXT_MAX];
    snprintf(cert, sizeof cert, "%s/live.crt", dir);
    snprintf(key, sizeof key, "%s/one.key", dir);
    assert_int_equal(symlink("one.crt", cert), 0);
    uint64_t first = tls_stamp(cert, key).hash;
    assert_int_not_equal(first, 0);
    assert_int_equal(tls_stamp(cert, key).hash, first);

    /* The link is swapped, as certbot does. */
    assert_int_equal(symlink("two.crt", path("next", ".crt")), 0);
    assert_int_equal(rename(path("next", ".crt"), cert), 0);
    uint64_t swapped = tls_stamp(cert, key).hash;
    assert_int_not_equal(swapped, 0);
    assert_int_not_equal(swapped, first);

    /* Written in place, with the same length and the same time. */
    struct stat before;
    assert_int_equal(stat(cert, &before), 0);
    char *text = file_text(cert);
    write_file(cert, text, strlen(text), 0644);
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, cert, times, 0), 0);
    uint64_t written = tls_stamp(cert, key).hash;
    assert_int_not_equal(written, swapped);

    /* Order and number count. */
    snprintf(more, sizeof more, "%s,%s", cert, key);
    assert_int_not_equal(tls_stamp(more, key).hash, written);
    assert_int_not_equal(tls_stamp(key, cert).hash, written);

    assert_int_equal(unlink(cert), 0);
    assert_int_equal(tls_stamp(cert, key).hash, 0);
    assert_int_equal(tls_stamp(key, cert).hash, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),  cmocka_unit_test(test_lists), cmocka_unit_test(test_denied),
        cmocka_unit_test(test_facts), cmocka_unit_test(test_stamp),
    };
    return cmocka_run_group_tests(tests, set_up, certs_remove);
}
