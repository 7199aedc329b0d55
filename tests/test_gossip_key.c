/* gossip_key - the file of the mesh's keys: what may be changed in it, and that a change is whole
 * or none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "cmd/gossip_key.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* 32 bytes of 1, 2, ... */
#define KEY_1 "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
#define KEY_2 "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
#define KEY_3 "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
#define KEY_4 "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ="
#define KEY_5 "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU="

static char folder[64], path[96], new_path[112];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/beacon-keys-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/keys", folder);
    snprintf(new_path, sizeof new_path, "%s.new", path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)unlink(new_path);
    return rmdir(folder); /* nothing else is left */
}

static void file_write(const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void file_is(const char *want)
{
    char text[1024] = "";
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    size_t len = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[len] = '\0';
    assert_string_equal(text, want);
}

static struct stat file_stat(void)
{
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return s;
}

static char error[GOSSIP_KEY_ERROR_MAX];
static struct seal_ring ring;

static bool edit(enum gossip_key_action action, int id)
{
    struct gossip_key_wish wish = {.action = action, .has_id = id >= 0, .id = (uint8_t)id};
    error[0] = '\0';
    bool good = gossip_key_edit(path, &wish, &ring, error);
    assert_int_equal(access(new_path, F_OK), -1);
    assert_int_equal(good, error[0] == '\0');
    return good;
}

static bool take(const char *line)
{
    char text[256];
    snprintf(text, sizeof text, "%s", line);
    FILE *from = fmemopen(text, strlen(text), "r");
    assert_non_null(from);
    struct gossip_key_wish wish = {.action = GOSSIP_KEY_TAKE, .from = from};
    error[0] = '\0';
    bool good = gossip_key_edit(path, &wish, &ring, error);
    fclose(from);
    return good;
}

/* --- what may be changed --- */

static const struct {
    const char *name, *before;
    enum gossip_key_action action;
    int id;
    const char *after; /* NULL: refused, and nothing changes */
    const char *why;
} cases[] = {
    {"use another", "1 use " KEY_1 "\n2 accept " KEY_2 "\n", GOSSIP_KEY_USE, 2,
     "1 accept " KEY_1 "\n2 use " KEY_2 "\n", NULL},
    {"use the one in use", "1 use " KEY_1 "\n", GOSSIP_KEY_USE, 1, "1 use " KEY_1 "\n", NULL},
    {"use id 0", "0 accept " KEY_1 "\n255 use " KEY_2 "\n", GOSSIP_KEY_USE, 0,
     "0 use " KEY_1 "\n255 accept " KEY_2 "\n", NULL},
    {"use an unknown one", "1 use " KEY_1 "\n", GOSSIP_KEY_USE, 2, NULL, "there is no key 2"},
    {"remove one behind that in use", "1 use " KEY_1 "\n2 accept " KEY_2 "\n", GOSSIP_KEY_REMOVE, 2,
     "1 use " KEY_1 "\n", NULL},
    {"remove one in front of it", "1 accept " KEY_1 "\n2 use " KEY_2 "\n3 accept " KEY_3 "\n",
     GOSSIP_KEY_REMOVE, 1, "2 use " KEY_2 "\n3 accept " KEY_3 "\n", NULL},
    {"remove from between", "1 accept " KEY_1 "\n2 accept " KEY_2 "\n3 use " KEY_3 "\n",
     GOSSIP_KEY_REMOVE, 2, "1 accept " KEY_1 "\n3 use " KEY_3 "\n", NULL},
    {"remove the one in use", "1 use " KEY_1 "\n2 accept " KEY_2 "\n", GOSSIP_KEY_REMOVE, 1, NULL,
     "key 1 is in use"},
    {"remove the only one", "1 use " KEY_1 "\n", GOSSIP_KEY_REMOVE, 1, NULL, "key 1 is in use"},
    {"remove an unknown one", "1 use " KEY_1 "\n", GOSSIP_KEY_REMOVE, 9, NULL, "there is no key 9"},
    {"add one that is there", "1 use " KEY_1 "\n", GOSSIP_KEY_ADD, 1, NULL,
     "key 1 is there already"},
    {"add a fifth", "1 use " KEY_1 "\n2 accept " KEY_2 "\n3 accept " KEY_3 "\n4 accept " KEY_4 "\n",
     GOSSIP_KEY_ADD, -1, NULL, "no more may be"},
    {"generate where there is one", "1 use " KEY_1 "\n", GOSSIP_KEY_GENERATE, -1, NULL,
     "is there already"},
    {"a file without a key", "# none\n", GOSSIP_KEY_ADD, -1, NULL, "keys"},
    {"a file with an error", "1 use " KEY_1 "\n2 bad " KEY_2 "\n", GOSSIP_KEY_USE, 1, NULL, ":2: "},
};

static void test_changes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        file_write(cases[i].before);
        bool good = edit(cases[i].action, cases[i].id);
        if (good != (cases[i].after != NULL))
            fail_msg("%s: %s", cases[i].name, error);
        if (!good && !strstr(error, cases[i].why))
            fail_msg("%s: %s", cases[i].name, error);
        assert_null(strstr(error, "AgICAg")); /* never shows a key */
        file_is(good ? cases[i].after : cases[i].before);
        if (!good)
            assert_int_equal(ring.count, 0);
    }
}

static void test_comments_and_long_files(void **state)
{
    (void)state;
    file_write("# of the west\n 1\tuse " KEY_1 " # since May\n\n2 accept " KEY_2);
    assert_true(edit(GOSSIP_KEY_USE, 2));
    file_is("1 accept " KEY_1 "\n2 use " KEY_2 "\n");
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f, "1 use " KEY_1 "\n%*s", GOSSIP_KEY_FILE_MAX, ""); /* the beacon reads no more */
    fclose(f);
    assert_false(edit(GOSSIP_KEY_ADD, -1));
    assert_non_null(strstr(error, "too long"));
}

static void test_generate(void **state)
{
    (void)state;
    struct seal_ring first;
    assert_false(edit(GOSSIP_KEY_LIST, -1));
    assert_non_null(strstr(error, "No such file"));
    assert_false(edit(GOSSIP_KEY_ADD, -1));
    assert_true(edit(GOSSIP_KEY_GENERATE, -1));
    first = ring;
    assert_int_equal(ring.count, 1);
    assert_int_equal(ring.of[0].id, 1);
    assert_int_equal(ring.in_use, 0);
    assert_false(sodium_is_zero(ring.of[0].key, SEAL_KEY_LEN));
    assert_int_equal(file_stat().st_mode & 07777, 0600);
    assert_true(edit(GOSSIP_KEY_LIST, -1));
    assert_memory_equal(&ring, &first, sizeof ring); /* what was written is what was said */
    unlink(path);
    assert_true(edit(GOSSIP_KEY_GENERATE, 200));
    assert_int_equal(ring.of[0].id, 200);
    assert_memory_not_equal(ring.of[0].key, first.of[0].key, SEAL_KEY_LEN);
}

static void test_ids_are_chosen_behind_the_one_in_use(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        uint8_t want;
    } ids[] = {
        {"1 use " KEY_1 "\n", 2},
        {"1 use " KEY_1 "\n2 accept " KEY_2 "\n", 3},
        {"1 accept " KEY_1 "\n7 use " KEY_2 "\n", 8},
        {"255 use " KEY_1 "\n", 0},
        {"255 use " KEY_1 "\n0 accept " KEY_2 "\n1 accept " KEY_3 "\n", 2},
    };
    for (size_t i = 0; i < COUNT(ids); i++) {
        file_write(ids[i].before);
        assert_true(edit(GOSSIP_KEY_ADD, -1));
        assert_int_equal(ring.of[ring.count - 1].id, ids[i].want);
        assert_int_not_equal(ring.in_use, ring.count - 1);
    }
}

/* A whole rotation on two hosts: at no time is there a key in use that the other does not take. */
static void test_rotation(void **state)
{
    (void)state;
    char line[128];
    assert_true(edit(GOSSIP_KEY_GENERATE, -1));
    assert_true(edit(GOSSIP_KEY_ADD, -1));
    assert_int_equal(ring.count, 2);
    struct seal_ring there = ring;
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_true(edit(GOSSIP_KEY_REMOVE, 2)); /* as if this were the other host */
    assert_true(take(line));
    assert_memory_equal(&ring, &there, sizeof ring);
    assert_true(edit(GOSSIP_KEY_USE, 2));
    assert_true(edit(GOSSIP_KEY_REMOVE, 1));
    assert_int_equal(ring.count, 1);
    assert_int_equal(ring.of[0].id, 2);
    assert_memory_equal(ring.of[0].key, there.of[1].key, SEAL_KEY_LEN);
}

static const struct {
    const char *name, *line, *why; /* why NULL: taken */
} lines[] = {
    {"accept", "2 accept " KEY_2 "\n", NULL},
    {"in use there", "2 use " KEY_2 "\n", NULL}, /* not in use here by that */
    {"without its end", "2 accept " KEY_2, NULL},
    {"with a comment", "2 accept " KEY_2 " # new\n", NULL},
    {"empty", "\n", "a line of a keys file"},
    {"a comment", "# 2 accept " KEY_2 "\n", "a line of a keys file"},
    {"no state", "2 " KEY_2 "\n", "a line of a keys file"},
    {"another state", "2 maybe " KEY_2 "\n", "a line of a keys file"},
    {"bad id", "256 accept " KEY_2 "\n", "id"},
    {"bad key", "2 accept AgICAgIC\n", "base64"},
    {"an id that is there", "1 accept " KEY_2 "\n", "key 1 is there already"},
    {"a key that is there", "2 accept " KEY_1 "\n", "as 1"},
};

static void test_lines_of_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        file_write("1 use " KEY_1 "\n");
        bool good = take(lines[i].line);
        if (good != (lines[i].why == NULL) || (!good && !strstr(error, lines[i].why)))
            fail_msg("%s: %s", lines[i].name, error);
        file_is(good ? "1 use " KEY_1 "\n2 accept " KEY_2 "\n" : "1 use " KEY_1 "\n");
        assert_null(strstr(error, "AgICAg"));
    }
    file_write("1 use " KEY_1 "\n2 accept " KEY_2 "\n3 accept " KEY_3 "\n4 accept " KEY_4 "\n");
    assert_false(take("5 accept " KEY_5 "\n"));
    assert_non_null(strstr(error, "no more may be"));
}

/* --- the file --- */

static void test_modes(void **state)
{
    (void)state;
    static const struct {
        mode_t before, after;
    } modes[] = {{0600, 0600}, {0400, 0600}, {0640, 0640}, {0660, 0640},
                 {0666, 0640}, {0644, 0640}, {0604, 0600}};
    for (size_t i = 0; i < COUNT(modes); i++) {
        file_write("1 use " KEY_1 "\n");
        assert_int_equal(chmod(path, modes[i].before), 0);
        assert_true(edit(GOSSIP_KEY_ADD, -1));
        if ((file_stat().st_mode & 07777) != modes[i].after)
            fail_msg("%o became %o", modes[i].before, file_stat().st_mode & 07777);
        assert_int_equal(chmod(path, 0600), 0);
    }
}

static void test_the_owner_stays(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    file_write("1 use " KEY_1 "\n");
    assert_int_equal(chown(path, 12345, 54321), 0);
    assert_int_equal(chmod(path, 0640), 0);
    assert_true(edit(GOSSIP_KEY_ADD, -1));
    assert_int_equal(file_stat().st_uid, 12345);
    assert_int_equal(file_stat().st_gid, 54321);
    assert_int_equal(file_stat().st_mode & 07777, 0640);
}

/* Who reads it sees the old file or the new one: it is another file, not the same one rewritten. */
static void test_it_is_replaced(void **state)
{
    (void)state;
    char text[256] = "";
    file_write("1 use " KEY_1 "\n");
    FILE *reader = fopen(path, "re");
    assert_non_null(reader);
    assert_true(edit(GOSSIP_KEY_ADD, -1));
    size_t len = fread(text, 1, sizeof text - 1, reader);
    fclose(reader);
    assert_int_equal(len, strlen("1 use " KEY_1 "\n"));
    assert_string_equal(text, "1 use " KEY_1 "\n");
}

static void test_one_editor_at_a_time(void **state)
{
    (void)state;
    struct gossip_key_wish wish = {.action = GOSSIP_KEY_ADD};
    file_write("1 use " KEY_1 "\n");
    int fd = open(new_path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_false(gossip_key_edit(path, &wish, &ring, error));
    assert_non_null(strstr(error, new_path));
    assert_int_equal(access(new_path, F_OK), 0); /* the other's stays */
    file_is("1 use " KEY_1 "\n");
    wish.action = GOSSIP_KEY_LIST; /* changes nothing: waits for nobody */
    assert_true(gossip_key_edit(path, &wish, &ring, error));
    close(fd);
    unlink(new_path);
    assert_true(edit(GOSSIP_KEY_ADD, -1));
}

static void test_links_are_followed(void **state)
{
    (void)state;
    char link_path[112];
    struct stat s;
    struct gossip_key_wish wish = {.action = GOSSIP_KEY_ADD};
    snprintf(link_path, sizeof link_path, "%s/link", folder);
    file_write("1 use " KEY_1 "\n");
    assert_int_equal(symlink("keys", link_path), 0);
    assert_true(gossip_key_edit(link_path, &wish, &ring, error));
    assert_int_equal(lstat(link_path, &s), 0);
    assert_true(S_ISLNK(s.st_mode));
    assert_true(edit(GOSSIP_KEY_LIST, -1));
    assert_int_equal(ring.count, 2);
    unlink(path);
    wish.action = GOSSIP_KEY_GENERATE; /* a link to nothing is not written through */
    assert_false(gossip_key_edit(link_path, &wish, &ring, error));
    assert_int_equal(access(path, F_OK), -1);
    unlink(link_path);
}

/* `base64 -d | b2sum -l 256` says the same of 32 bytes of 1. */
static void test_mark(void **state)
{
    (void)state;
    uint8_t key[SEAL_KEY_LEN], hash[32];
    char mark[GOSSIP_KEY_MARK_MAX], hex[65];
    memset(key, 1, sizeof key);
    gossip_key_mark(key, mark);
    assert_string_equal(mark, "f40ceaf8");
    crypto_generichash(hash, sizeof hash, key, sizeof key, NULL, 0);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    assert_int_equal(strlen(mark), 8);
    assert_memory_equal(hex, mark, 8);
    key[31] = 2;
    gossip_key_mark(key, hex);
    assert_string_not_equal(hex, mark);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_changes),
        TEST(test_comments_and_long_files),
        TEST(test_generate),
        TEST(test_ids_are_chosen_behind_the_one_in_use),
        TEST(test_rotation),
        TEST(test_lines_of_others),
        TEST(test_modes),
        TEST(test_the_owner_stays),
        TEST(test_it_is_replaced),
        TEST(test_one_editor_at_a_time),
        TEST(test_links_are_followed),
        TEST(test_mark),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
