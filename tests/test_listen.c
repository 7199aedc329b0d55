/* listen - unix sockets: whose file it is, who may open it, what is left behind. (TCP listeners are
 * tested with the edge.) */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "tests/edge_rig.h"
#include "wss/listen.h"

static char directory[32], path[64];

static int directory_make(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/beacon-listen-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/socket", directory);
    return 0;
}

static int remove_one(const char *name, const struct stat *st, int type, struct FTW *walk)
{
    (void)st, (void)type, (void)walk;
    return remove(name);
}

static int directory_remove(void **state)
{
    edge_down(state);
    return nftw(directory, remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

static struct sockaddr_un name_of_path(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, path);
    return name;
}

static int dial_unix(void)
{
    struct sockaddr_un name = name_of_path();
    int fd = client_socket(AF_UNIX);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool path_exists(void)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* What a process leaves that was killed. */
static void leave_stale_socket(void)
{
    struct sockaddr_un name = name_of_path();
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(fd, 1), 0);
    close(fd);
}

static void test_mode_does_not_depend_on_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 077, 0777};
    for (size_t i = 0; i < COUNT(masks); i++) {
        struct listen_file file;
        struct stat st;
        mode_t before = umask(masks[i]);
        int fd = listen_unix(path, &file);
        umask(before);
        assert_true(fd >= 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0660);
        close(fd);
        listen_unix_remove(path, &file);
        assert_false(path_exists());
    }
}

static void test_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct listen_file file;
    leave_stale_socket();
    int fd = listen_unix(path, &file);
    assert_true(fd >= 0);
    int client = dial_unix();
    assert_true(client >= 0);
    close(client);
    close(fd);
    listen_unix_remove(path, &file);
}

static void test_socket_in_use_stays(void **state)
{
    (void)state;
    struct listen_file file, other;
    int fd = listen_unix(path, &file);
    assert_true(fd >= 0);
    assert_int_equal(listen_unix(path, &other), -EADDRINUSE);
    int client = dial_unix(); /* the first one still has it */
    assert_true(client >= 0);
    close(client);
    close(fd);
    listen_unix_remove(path, &file);
}

/* Its owner lives, it is only too busy to accept. */
static void test_socket_with_a_full_backlog_is_in_use(void **state)
{
    (void)state;
    struct sockaddr_un name = name_of_path();
    struct listen_file file;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(fd, 0), 0);
    int client = dial_unix(); /* it fills the queue */
    assert_true(client >= 0);
    assert_int_equal(listen_unix(path, &file), -EADDRINUSE);
    close(client);
    close(fd);
}

static void test_other_files_are_not_touched(void **state)
{
    (void)state;
    struct listen_file file;
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(listen_unix(path, &file), -ENOTSOCK);
    assert_true(path_exists());
}

static void test_file_of_another_is_not_removed(void **state)
{
    (void)state;
    struct listen_file file, other;
    char moved[sizeof path + 4];
    int fd = listen_unix(path, &file);
    assert_true(fd >= 0);
    snprintf(moved, sizeof moved, "%s.old", path);
    assert_int_equal(rename(path, moved), 0); /* the inode stays in use: no other can get it */
    int second = listen_unix(path, &other);
    assert_true(second >= 0);
    listen_unix_remove(path, &file);
    assert_true(path_exists());
    listen_unix_remove(path, &other);
    assert_false(path_exists());
    listen_unix_remove(path, &other); /* gone already: nothing happens */
    close(fd);
    close(second);
}

static void test_names_that_cannot_be(void **state)
{
    (void)state;
    static char name[200];
    struct listen_file file;
    size_t max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    memset(name, 'x', sizeof name - 1);
    memcpy(name, directory, strlen(directory));
    name[strlen(directory)] = '/';
    name[max + 1] = '\0';
    assert_int_equal(listen_unix(name, &file), -ENAMETOOLONG);
    name[max] = '\0';
    int fd = listen_unix(name, &file);
    assert_true(fd >= 0);
    close(fd);
    listen_unix_remove(name, &file);
    assert_int_equal(listen_unix("/tmp/beacon-no-such-directory/socket", &file), -ENOENT);
}

/* --- with an edge --- */

static struct endpoint seen_from = {.port = 1};

static void handler(void *arg, const struct edge_request *request, struct edge_response *response)
{
    (void)arg;
    seen_from = request->from;
    response->status = 200;
}

static void test_edge_listens_and_cleans_up(void **state)
{
    (void)state;
    static const struct endpoint nobody;
    struct edge_limits limits = relaxed;
    int fd[GATE_PER_IPV4 + 1]; /* more than an address may have */
    limits.per_ipv4 = limits.per_ipv6_64 = 1;
    struct edge_listener l = {.unix_path = path, .handler = handler, .is_public = true};
    leave_stale_socket();
    edge_open_at("127.0.0.1:0", l, &limits);
    assert_int_equal(edge_start(edge), 0);
    for (size_t i = 0; i < COUNT(fd); i++) {
        fd[i] = dial_unix();
        assert_int_equal(ask(fd[i], HELLO).status, 200);
    }
    for (size_t i = 0; i < COUNT(fd); i++)
        close(fd[i]);
    expect_count(&edge_stats(edge)->connections, 0);
    edge_down(NULL);
    assert_true(endpoint_equal(&seen_from, &nobody));
    assert_false(path_exists());
}

static void test_second_edge_is_refused_by_name(void **state)
{
    (void)state;
    struct edge *second = NULL;
    const char *failed;
    struct edge_listener l = {.name = "admin", .unix_path = path, .handler = handler};
    edge_open_at("127.0.0.1:0", l, &relaxed);
    assert_int_equal(edge_open(&second, &l, 1, 0, &failed), -EADDRINUSE);
    assert_string_equal(failed, "admin");
    assert_null(second);
    assert_true(path_exists());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, directory_make, directory_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mode_does_not_depend_on_the_umask),
        TEST(test_stale_socket_is_replaced),
        TEST(test_socket_in_use_stays),
        TEST(test_socket_with_a_full_backlog_is_in_use),
        TEST(test_other_files_are_not_touched),
        TEST(test_file_of_another_is_not_removed),
        TEST(test_names_that_cannot_be),
        TEST(test_edge_listens_and_cleans_up),
        TEST(test_second_edge_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
