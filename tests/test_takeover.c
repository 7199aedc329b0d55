/* takeover - the table as a memory file, the hand-over between two beacons, and what the service
 * manager keeps. Sockets on loopback; the two beacons are threads or processes of this program. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/rig.h"
#include "cmd/notify.h"
#include "cmd/table.h"
#include "cmd/takeover.h"
#include "shard/shard.h"

enum { LANES = 3, WAIT_MS = 5000, HEAD = 32, FRONT = 64, ROW = 76 };

/* --- the table --- */

static int memfd_of(const uint8_t *bytes, size_t len, bool sealed)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    if (sealed)
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

struct seen {
    unsigned count;
    struct route last;
    bool has_key;
    uint8_t key[MSG_KEY_LEN];
    struct server *server; /* restored into, if not NULL */
    unsigned restored;
};

static void see(void *arg, const struct route *route, const uint8_t *key)
{
    struct seen *s = arg;
    s->count++;
    s->last = *route;
    s->has_key = key;
    if (key)
        memcpy(s->key, key, MSG_KEY_LEN);
    if (s->server)
        s->restored += server_restore(s->server, route, key);
}

static uint8_t key_byte(uint32_t id)
{
    return (uint8_t)(id * 7);
}

/* Half with a key, all classes, both families, two of our addresses. */
static void fill(struct server *s, uint32_t nodes, uint32_t seen_s)
{
    static const uint8_t ours[2][16] = {{0x20, 1, [15] = 1}, {0x20, 1, [15] = 2}};
    static const uint8_t classes[] = {ROUTE_UNVERIFIED, ROUTE_SIGNED, ROUTE_KEYED};
    uint8_t local[2] = {service_index(&s->service, ours[0]), service_index(&s->service, ours[1])};
    for (uint32_t id = 1; id <= nodes; id++) {
        uint8_t key[MSG_KEY_LEN], ip[16] = {0x26, 0x20, [14] = (uint8_t)(id >> 8), (uint8_t)id};
        struct route r = {.id = id, .seen_s = seen_s - id % 100, .class_ = classes[id % 3]};
        memset(key, key_byte(id), sizeof key);
        r.at = endpoint_of(ip + (id & 4 ? 0 : 12), id & 4 ? 16 : 4, (uint16_t)(1000 + id % 60000));
        if (!(id & 4))
            r.at.ip[12] = 203;
        r.local = id % 3 ? local[id % 3 - 1] : 0;
        r.flags = id & 8 ? ROUTE_WANTS_DEST : 0;
        unsigned owner = route_owner(s->owner_key, id, s->lane_count);
        assert_int_equal(route_put(s->lane[owner]->routes, &r, id & 1 ? key : NULL),
                         ROUTE_INSERTED);
    }
}

static void assert_same_node(const struct server *a, const struct server *b, uint32_t id)
{
    struct route of_a, of_b;
    uint8_t key_a[MSG_KEY_LEN], key_b[MSG_KEY_LEN];
    assert_true(server_find(a, id, &of_a));
    assert_true(server_find(b, id, &of_b));
    assert_true(endpoint_equal(&of_a.at, &of_b.at));
    assert_int_equal(of_a.class_, of_b.class_);
    assert_int_equal(of_a.flags, of_b.flags);
    assert_memory_equal(a->service.ip[of_a.local], b->service.ip[of_b.local], 16);
    assert_int_equal(!of_a.local, !of_b.local);
    const struct routes *in_a = a->lane[route_owner(a->owner_key, id, a->lane_count)]->routes;
    const struct routes *in_b = b->lane[route_owner(b->owner_key, id, b->lane_count)]->routes;
    bool has = route_find_key(in_a, id, key_a);
    assert_int_equal(route_find_key(in_b, id, key_b), has);
    if (has)
        assert_memory_equal(key_a, key_b, MSG_KEY_LEN);
}

static struct server *server_of(const struct config *c, unsigned lanes, uint8_t seed_byte)
{
    uint8_t seed[64];
    size_t size = server_size(c, lanes);
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    memset(seed, seed_byte, sizeof seed);
    return server_init(memory, c, lanes, &c->rules, seed);
}

static struct config *config_of(void)
{
    struct config *c = malloc(sizeof *c);
    assert_non_null(c);
    config_init(c);
    c->addr = endpoint_at("127.0.0.1:0");
    c->max_nodes = c->max_routes = 20000;
    c->rules.allow_private = PRIVATE_YES;
    return c;
}

static void test_table_round_trip(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 511, 512, 513, 9000};
    struct config *c = config_of();
    uint64_t now_ns = 5000 * SECOND_NS;
    for (size_t i = 0; i < COUNT(counts); i++) {
        struct server *a = server_of(c, LANES, 1), *b = server_of(c, LANES - 1, 2);
        static const uint8_t mine[16] = {0xfd};
        service_index(&b->service, mine); /* its own indices differ */
        fill(a, counts[i], 5000);
        int fd = table_write(a, 0, now_ns);
        assert_true(fd >= 0);
        struct seen seen = {.server = b};
        /* Read 7 seconds later: ages go on. */
        assert_int_equal(table_read(fd, &b->service, now_ns + 7 * SECOND_NS, see, &seen), 0);
        assert_int_equal(seen.count, counts[i]);
        assert_int_equal(seen.restored, counts[i]);
        for (uint32_t id = 1; id <= counts[i]; id++) {
            struct route r;
            assert_same_node(a, b, id);
            assert_true(server_find(b, id, &r));
            assert_int_equal(r.seen_s, 5000 - id % 100);
        }
        assert_int_equal(write(fd, "x", 1), -1); /* sealed */
        assert_int_equal(ftruncate(fd, 0), -1);
        close(fd);
        free(a);
        free(b);
    }
    free(c);
}

/* Only what was heard of since; and not what another beacon has. */
static void test_table_since(void **state)
{
    (void)state;
    struct config *c = config_of();
    snprintf(c->peers, sizeof c->peers, "192.0.2.1:9001");
    struct server *a = server_of(c, LANES, 1);
    fill(a, 1000, 5000);
    unsigned owner = route_owner(a->owner_key, 77777, LANES);
    assert_true(route_put_beacon(a->lane[owner]->routes, 77777, 3, ROUTE_SIGNED, false));
    static const struct {
        uint32_t since_s;
        unsigned rows;
    } cases[] = {{0, 1000}, {4901, 1000}, {4902, 990}, {4999, 20}, {5000, 10}, {5001, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct seen seen = {.count = 0};
        int fd = table_write(a, cases[i].since_s, 5000 * SECOND_NS);
        assert_int_equal(table_read(fd, &a->service, 5000 * SECOND_NS, see, &seen), 0);
        assert_int_equal(seen.count, cases[i].rows);
        close(fd);
    }
    free(a);
    free(c);
}

/* One table of two rows as bytes, to be spoiled. */
static size_t table_bytes(uint8_t *bytes, size_t capacity)
{
    struct config *c = config_of();
    struct server *a = server_of(c, 1, 1);
    fill(a, 2, 4990);
    int fd = table_write(a, 0, 5000 * SECOND_NS);
    ssize_t n = pread(fd, bytes, capacity, 0);
    assert_int_equal(n, FRONT + 2 * ROW);
    close(fd);
    free(a);
    free(c);
    return (size_t)n;
}

static void sum_again(uint8_t *bytes, size_t len)
{
    crypto_generichash_state sum;
    crypto_generichash_init(&sum, NULL, 0, 32);
    crypto_generichash_update(&sum, bytes + FRONT, len - FRONT);
    crypto_generichash_update(&sum, bytes, HEAD);
    crypto_generichash_final(&sum, bytes + HEAD, 32);
}

static int read_bytes_as_table(const uint8_t *bytes, size_t len, bool sealed, struct seen *seen)
{
    static struct service service;
    int fd = memfd_of(bytes, len, sealed);
    memset(seen, 0, sizeof *seen);
    int err = table_read(fd, &service, 6000 * SECOND_NS, see, seen);
    close(fd);
    return err;
}

/* Each byte matters: with the checksum as it was, none may differ. */
static void test_table_spoiled(void **state)
{
    (void)state;
    uint8_t bytes[FRONT + 4 * ROW] = {0};
    struct seen seen;
    size_t len = table_bytes(bytes, sizeof bytes);
    assert_int_equal(read_bytes_as_table(bytes, len, true, &seen), 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(read_bytes_as_table(bytes, len, false, &seen), -EBADMSG); /* not sealed */
    for (size_t at = 0; at < len; at++) {
        bytes[at] ^= 0x10;
        if (read_bytes_as_table(bytes, len, true, &seen) != -EBADMSG || seen.count != 0)
            fail_msg("byte %zu may differ", at);
        bytes[at] ^= 0x10;
    }
    for (size_t n = 0; n < sizeof bytes; n++)
        if (n != len && read_bytes_as_table(bytes, n, true, &seen) != -EBADMSG)
            fail_msg("%zu bytes for %zu", n, len);
    int file = open("/dev/null", O_RDONLY);
    assert_int_equal(table_read(file, NULL, 0, see, &seen), -EBADMSG); /* no memory file */
    assert_int_equal(table_read(-1, NULL, 0, see, &seen), -EBADMSG);
    close(file);
}

/* With a checksum that is right: fields that no beacon writes. Offsets as in cmd/table.h. */
static void test_table_fields(void **state)
{
    (void)state;
    enum { IN_ROW = FRONT + ROW, ADDRESS = 8, PORT = 24, CLASS = 42, FLAGS = 43 };
    static const struct {
        const char *name;
        size_t at, len;
        uint8_t bytes[16];
        bool good;
    } cases[] = {
        {"mark", 0, 1, {'b'}, false},
        {"version 0", 8, 4, {0, 0, 0, 0}, false},
        {"version 2", 8, 4, {0, 0, 0, 2}, false},
        {"row length", 12, 4, {0, 0, 0, ROW + 1}, false},
        {"fewer rows", 16, 8, {0, 0, 0, 0, 0, 0, 0, 1}, false},
        {"more rows", 16, 8, {0, 0, 0, 0, 0, 0, 0, 3}, false},
        {"rows that wrap", 16, 8, {0x80, 0, 0, 0, 0, 0, 0, 2}, false},
        {"written later than now", 24, 8, {0xff}, false},
        {"written now", 24, 8, {0, 0, 0x05, 0x74, 0xfb, 0xde, 0x60, 0}, true},
        {"id 0", IN_ROW, 4, {0}, false},
        {"an age of ages", IN_ROW + 4, 4, {0xff, 0xff, 0xff, 0xff}, true},
        {"no address", IN_ROW + ADDRESS, 16, {0}, false},
        {"no IPv4 address", IN_ROW + ADDRESS, 16, {[10] = 0xff, 0xff}, false},
        {"port 0", IN_ROW + PORT, 2, {0}, false},
        {"class 1", IN_ROW + CLASS, 1, {1}, false},
        {"class of beacons", IN_ROW + CLASS, 1, {ROUTE_BEACON}, false},
        {"class of the future", IN_ROW + CLASS, 1, {ROUTE_BEACON + 1}, false},
        {"class keyed", IN_ROW + CLASS, 1, {ROUTE_KEYED}, true},
        {"all known flags", IN_ROW + FLAGS, 1, {31}, true},
        {"an unknown flag", IN_ROW + FLAGS, 1, {32}, false},
        {"the last flag", IN_ROW + FLAGS, 1, {128}, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t bytes[FRONT + 2 * ROW];
        struct seen seen;
        size_t len = table_bytes(bytes, sizeof bytes);
        memcpy(bytes + cases[i].at, cases[i].bytes, cases[i].len);
        sum_again(bytes, len);
        int err = read_bytes_as_table(bytes, len, true, &seen);
        if (err != (cases[i].good ? 0 : -EBADMSG) || seen.count != (cases[i].good ? 2 : 0))
            fail_msg("%s: %d, %u rows", cases[i].name, err, seen.count);
        if (seen.count && seen.last.seen_s > 6000)
            fail_msg("%s: seen at %u", cases[i].name, seen.last.seen_s);
    }
}

/* --- the hand-over --- */

struct predecessor {
    char path[64];
    struct config *config;
    struct server *server;
    struct shards *shards;
    struct shards_report report;
    struct takeover *takeover;
    _Atomic int cleared, stopped;
    sigset_t signals;
};

static void path_make(char path[static 64])
{
    snprintf(path, 64, "/tmp/beacon-takeover-%d", getpid());
    unlink(path);
}

static void predecessor_open(struct predecessor *p)
{
    const char *failed = "";
    memset(p, 0, sizeof *p);
    path_make(p->path);
    p->config = config_of();
    p->server = server_of(p->config, 2, 1);
    if (shards_open(&p->shards, p->server, p->config, &p->report, &failed) < 0 ||
        shards_start(p->shards, &p->report, &failed) < 0)
        fail_msg("%s", failed);
    sigemptyset(&p->signals);
    sigaddset(&p->signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &p->signals, NULL);
}

static void predecessor_listen(struct predecessor *p)
{
    struct takeover_serve serve = {p->path, p->server, p->shards, pthread_self()};
    assert_int_equal(takeover_serve_start(&p->takeover, &serve), 0);
}

static void predecessor_close(struct predecessor *p)
{
    takeover_serve_stop(p->takeover);
    assert_int_equal(access(p->path, F_OK), -1);
    shards_close(p->shards);
    free(p->server);
    free(p->config);
}

static int clear(void *arg)
{
    ((struct predecessor *)arg)->cleared++;
    return memfd_create("known", MFD_CLOEXEC);
}

static void stop(void *arg)
{
    struct predecessor *p = arg;
    p->stopped++;
    shards_stop(p->shards);
}

/* The main thread of the predecessor: waits to be told, hands over, starts again if it must. */
static int predecessor_main(struct predecessor *p)
{
    const char *failed = "";
    struct takeover_steps steps = {p, clear, stop};
    struct timespec wait = {.tv_sec = WAIT_MS / 1000};
    while (!takeover_wanted(p->takeover))
        if (sigtimedwait(&p->signals, NULL, &wait) < 0)
            return -ETIMEDOUT;
    int err = takeover_hand_over(p->takeover, &steps);
    if (err < 0 && p->stopped)
        assert_int_equal(shards_start(p->shards, &p->report, &failed), 0);
    return err;
}

static int node_open(const struct endpoint *service)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(service->port)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* True when somebody serves: a Discover is answered. */
static bool served(int node, uint32_t id)
{
    uint8_t bytes[64];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct pollfd p = {.fd = node, .events = POLLIN};
    write_u8(&w, MSG_DISCOVER);
    write_u32(&w, id);
    assert_int_equal(send(node, bytes, 5, 0), 5);
    return poll(&p, 1, WAIT_MS) == 1 && recv(node, bytes, sizeof bytes, 0) > 0 && bytes[0] == 2;
}

/* How the successor of a case behaves, and what the predecessor makes of it. */
enum gives_up { NEVER, AFTER_ASK, AFTER_CLEAR, AFTER_GO, SILENT_AFTER_GO };

struct successor {
    const char *path;
    enum gives_up gives_up;
    unsigned rows, changed_rows;
    struct server *server;
    struct config *config;
    struct shards *shards;
    int ask, done;
    pthread_t thread;
};

static void *successor_main(void *arg)
{
    struct successor *s = arg;
    struct takeover_heir h;
    struct shards_report report;
    const char *failed = "";
    struct seen seen = {.server = s->server};
    s->ask = takeover_ask(&h, s->path);
    if (s->ask < 0)
        return NULL;
    assert_int_equal(table_read(h.table, &s->server->service, clock_ns(), see, &seen), 0);
    s->rows = seen.count;
    if (s->gives_up == AFTER_ASK)
        goto leave;
    if (shards_adopt(&s->shards, s->server, s->config, h.fds, h.count, &report, &failed) < 0)
        fail_msg("%s", failed);
    h.count = 0;
    assert_int_equal(takeover_clear(&h), 0);
    if (s->gives_up == AFTER_CLEAR)
        goto leave;
    assert_int_equal(takeover_go(&h), 0);
    seen.count = 0;
    assert_int_equal(table_read(h.table, &s->server->service, clock_ns(), see, &seen), 0);
    s->changed_rows = seen.count;
    if (s->gives_up == AFTER_GO)
        goto leave;
    if (s->gives_up == SILENT_AFTER_GO)
        usleep((TAKEOVER_SILENCE_MS + 500) * 1000);
    else
        assert_int_equal(shards_start(s->shards, &report, &failed), 0);
    s->done = takeover_done(&h);
leave:
    takeover_leave(&h);
    return NULL;
}

static void successor_open(struct successor *s, const struct predecessor *p, enum gives_up gives_up)
{
    *s = (struct successor){.path = p->path, .gives_up = gives_up, .config = config_of()};
    s->server = server_of(s->config, 2, 2);
    assert_int_equal(pthread_create(&s->thread, NULL, successor_main, s), 0);
}

static void successor_close(struct successor *s)
{
    if (s->shards)
        shards_close(s->shards);
    free(s->server);
    free(s->config);
}

static void test_hand_over(void **state)
{
    (void)state;
    struct predecessor p;
    struct successor s;
    struct stat st;
    predecessor_open(&p);
    predecessor_listen(&p);
    assert_int_equal(stat(p.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    int a = node_open(&p.report.bound), b = node_open(&p.report.bound);
    /* Rows are of a second: what follows shall be of one. */
    uint64_t second_ns = clock_ns() % 1000000000;
    if (second_ns > 500000000)
        usleep((useconds_t)((1000000000 - second_ns) / 1000) + 1000);
    assert_true(served(a, 11));
    assert_true(served(b, 12));
    successor_open(&s, &p, NEVER);
    assert_int_equal(predecessor_main(&p), 0);
    pthread_join(s.thread, NULL);
    assert_int_equal(s.ask, 0);
    assert_int_equal(s.done, 0);
    assert_int_equal(p.cleared, 1);
    assert_int_equal(p.stopped, 1);
    assert_int_equal(s.rows, 2);
    assert_int_equal(s.changed_rows, 2); /* within the same second */
    assert_false(takeover_wanted(p.takeover));
    /* The path is the next one's, and the old one's end does not take it away. */
    struct takeover *next;
    struct takeover_serve serve = {p.path, s.server, s.shards, pthread_self()};
    assert_int_equal(takeover_serve_start(&next, &serve), 0);
    takeover_serve_stop(p.takeover);
    assert_int_equal(access(p.path, F_OK), 0);
    shards_close(p.shards); /* the predecessor's process ends */
    /* The successor knows both nodes: a relay arrives without another word from them. */
    uint8_t relay[10] = {5, 0, 0, 0, 11, 0, 0, 0, 12, 0xee}, got[64];
    assert_int_equal(send(a, relay, sizeof relay, 0), sizeof relay);
    assert_int_equal(poll(&(struct pollfd){.fd = b, .events = POLLIN}, 1, WAIT_MS), 1);
    assert_int_equal(recv(b, got, sizeof got, 0), 6);
    assert_memory_equal(got, ((uint8_t[]){6, 0, 0, 0, 11, 0xee}), 6);
    assert_true(served(a, 11));
    takeover_serve_stop(next);
    successor_close(&s);
    close(a);
    close(b);
    free(p.server);
    free(p.config);
}

static void test_successor_gives_up(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum gives_up gives_up;
        int stopped;
        int result; /* of takeover_hand_over; 1: it is never asked */
        int done;
    } cases[] = {
        {"after ask", AFTER_ASK, 0, 1, 0},
        {"after clear", AFTER_CLEAR, 0, -ECONNRESET, 0},
        {"after go", AFTER_GO, 1, -ECONNRESET, 0},
        {"silent after go", SILENT_AFTER_GO, 1, -ETIMEDOUT, -ECANCELED},
    };
    struct predecessor p;
    predecessor_open(&p);
    predecessor_listen(&p);
    int node = node_open(&p.report.bound);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct successor s;
        p.stopped = 0;
        successor_open(&s, &p, cases[i].gives_up);
        int result = cases[i].result == 1 ? 1 : predecessor_main(&p);
        if (result != cases[i].result)
            fail_msg("%s: %d", cases[i].name, result);
        pthread_join(s.thread, NULL);
        assert_int_equal(s.ask, 0);
        assert_int_equal(s.done, cases[i].done);
        assert_int_equal(p.stopped, cases[i].stopped);
        successor_close(&s);
        for (uint32_t id = 1; id < 9; id++) /* it serves on, by its own key */
            assert_true(served(node, id));
        assert_int_equal(count_read(&p.server->lane[0]->stats.mail_passed) +
                             count_read(&p.server->lane[1]->stats.mail_passed),
                         0);
    }
    /* And is still there to be asked. */
    struct successor last;
    successor_open(&last, &p, NEVER);
    assert_int_equal(predecessor_main(&p), 0);
    pthread_join(last.thread, NULL);
    assert_int_equal(last.done, 0);
    assert_true(served(node, 3));
    successor_close(&last);
    predecessor_close(&p);
    close(node);
}

static int connected(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* What is no question of a beacon is refused, and the next one is heard. */
static void test_strange_questions(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint8_t bytes[16];
        size_t len;
        uint8_t error; /* in the answer */
    } cases[] = {
        {"version 0", {'B', 'C', 'N', 'T', 0, 0, 0, 1}, 16, EPROTONOSUPPORT},
        {"version 2", {'B', 'C', 'N', 'T', 0, 2, 0, 1}, 16, EPROTONOSUPPORT},
        {"another magic", {'B', 'C', 'N', 'X', 0, 1, 0, 1}, 16, EBADMSG},
        {"another kind", {'B', 'C', 'N', 'T', 0, 1, 0, 2}, 16, EBADMSG},
        {"kind of the future", {'B', 'C', 'N', 'T', 0, 1, 0, 99}, 16, EBADMSG},
        {"half a message", {'B', 'C', 'N', 'T', 0, 1, 0, 1}, 15, ECONNRESET},
        {"nothing", {0}, 0, ECONNRESET},
    };
    struct predecessor p;
    predecessor_open(&p);
    predecessor_listen(&p);
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t answer[16] = {0};
        int fd = connected(p.path);
        if (cases[i].len > 0)
            assert_int_equal(write(fd, cases[i].bytes, cases[i].len), cases[i].len);
        shutdown(fd, SHUT_WR);
        assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
        if (answer[5] != 1 || answer[7] != 10 || answer[11] != cases[i].error)
            fail_msg("%s: kind %u, error %u", cases[i].name, answer[7], answer[11]);
        close(fd);
    }
    assert_false(takeover_wanted(p.takeover));
    /* One that says nothing does not keep the beacon from ending. */
    int fd = connected(p.path);
    usleep(20000);
    uint64_t before_ns = clock_ns();
    predecessor_close(&p);
    assert_true(clock_ns() - before_ns < SECOND_NS * 2);
    close(fd);
}

/* A predecessor of another version, or one that talks nonsense, as the successor hears it. */
static void test_strange_answers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint8_t bytes[16];
        int ask;
    } cases[] = {
        {"version 2 refuses", {'B', 'C', 'N', 'T', 0, 2, 0, 10, 0, 0, 0, 93}, -EPROTONOSUPPORT},
        {"our version was refused",
         {'B', 'C', 'N', 'T', 0, 1, 0, 10, 0, 0, 0, EPROTONOSUPPORT},
         -EPROTONOSUPPORT},
        {"refused", {'B', 'C', 'N', 'T', 0, 1, 0, 10, 0, 0, 0, 1}, -ECANCELED},
        {"offer without a table", {'B', 'C', 'N', 'T', 0, 1, 0, 2, 0, 0, 0, 4}, -EBADMSG},
        {"nonsense", {'H', 'T', 'T', 'P'}, -EBADMSG},
    };
    char path[64];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    path_make(path);
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 5), 0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct takeover_heir h;
        pid_t child = fork();
        if (child == 0) {
            int fd = accept(listener, NULL, NULL);
            bool ok = write(fd, cases[i].bytes, 16) == 16 && read(fd, (uint8_t[16]){0}, 16) == 16;
            _exit(ok ? 0 : 1);
        }
        int status, ask = takeover_ask(&h, path);
        if (ask != cases[i].ask)
            fail_msg("%s: %d", cases[i].name, ask);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(h.connection, -1);
    }
    close(listener);
    struct takeover_heir h;
    assert_int_equal(takeover_ask(&h, path), -ENOENT); /* a file that nobody listens on */
    struct predecessor p;
    predecessor_open(&p);
    predecessor_listen(&p); /* replaces it */
    struct takeover *second;
    struct takeover_serve serve = {p.path, p.server, p.shards, pthread_self()};
    assert_int_equal(takeover_serve_start(&second, &serve), -EADDRINUSE);
    predecessor_close(&p);
    assert_int_equal(takeover_ask(&h, path), -ENOENT);
    char long_path[200] = {0};
    memset(long_path, 'x', sizeof long_path - 1);
    assert_int_equal(takeover_ask(&h, long_path), -ENAMETOOLONG);
}

/* --- the service manager --- */

static void test_store(void **state)
{
    (void)state;
    char path[] = "/tmp/beacon-notify-XXXXXX";
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    unlink(path);
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_store(&(int){0}, 1, NOTIFY_UDP, true), -ENOTCONN);
    int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), pair[2];
    assert_int_equal(bind(manager, (struct sockaddr *)&at, sizeof at), 0);
    setenv("NOTIFY_SOCKET", path, 1);
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(notify_store(pair, 2, NOTIFY_UDP, true), 0);
    assert_int_equal(notify_store(pair, 1, NOTIFY_TABLE, false), 0);
    notify_forget(NOTIFY_UDP, 2);
    notify_forget(NOTIFY_TABLE, 0);
    notify_send("READY=1");
    static const struct {
        const char *text;
        int with; /* which descriptor came along, -1: none */
    } wanted[] = {
        {"FDSTORE=1\nFDNAME=beacon-udp-0\nFDPOLL=0", 0},
        {"FDSTORE=1\nFDNAME=beacon-udp-1\nFDPOLL=0", 1},
        {"FDSTORE=1\nFDNAME=beacon-table\nFDPOLL=0", 0},
        {"FDSTOREREMOVE=1\nFDNAME=beacon-udp-0", -1},
        {"FDSTOREREMOVE=1\nFDNAME=beacon-udp-1", -1},
        {"FDSTOREREMOVE=1\nFDNAME=beacon-table", -1},
        {"READY=1", -1},
    };
    for (size_t i = 0; i < COUNT(wanted); i++) {
        char text[256] = {0};
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(4 * sizeof(int))];
        struct iovec piece = {text, sizeof text - 1};
        struct msghdr m = {.msg_iov = &piece,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof control};
        struct stat sent, got;
        int fd = -1;
        assert_true(recvmsg(manager, &m, MSG_DONTWAIT) > 0);
        assert_string_equal(text, wanted[i].text);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        assert_int_equal(!!c, wanted[i].with >= 0);
        if (!c)
            continue;
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
        assert_int_equal(fstat(fd, &got), 0);
        assert_int_equal(fstat(pair[wanted[i].with], &sent), 0);
        assert_int_equal(got.st_ino, sent.st_ino);
        assert_int_equal(fcntl(fd, F_GETFL), fcntl(pair[wanted[i].with], F_GETFL)); /* which end */
        close(fd);
    }
    unsetenv("NOTIFY_SOCKET");
    close(manager);
    close(pair[0]);
    close(pair[1]);
    unlink(path);
}

/* What a process sees that the manager gave `count` descriptors: packed into its exit code. */
static int inherited_code(const char *fds, const char *names, bool other_process, unsigned count)
{
    pid_t child = fork();
    if (child == 0) {
        char pid[16];
        struct notify_inherited in;
        for (int fd = 3; fd < 20; fd++)
            close(fd);
        for (unsigned i = 0; i < count; i++)
            if (open("/dev/null", O_RDONLY) != 3 + (int)i)
                _exit(99);
        snprintf(pid, sizeof pid, "%d", other_process ? getppid() : getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", fds, 1);
        if (names)
            setenv("LISTEN_FDNAMES", names, 1);
        else
            unsetenv("LISTEN_FDNAMES");
        int err = notify_inherited(&in);
        unsigned open_count = 0;
        for (int fd = 3; fd < 20; fd++)
            open_count += fcntl(fd, F_GETFD) >= 0;
        if (getenv("LISTEN_FDS") || getenv("LISTEN_PID") || getenv("LISTEN_FDNAMES"))
            _exit(98);
        if (err < 0)
            _exit(open_count == 0 && in.udp_count == 0 && in.table == -1 ? 77 : 97);
        if (in.udp_count > 0 && !(fcntl(in.udp[0], F_GETFD) & FD_CLOEXEC))
            _exit(96);
        if (!other_process && open_count != in.udp_count + (in.table >= 0))
            _exit(95);
        /* Sockets, whether there is a table, and where the first is. */
        _exit((int)in.udp_count + 10 * (in.table >= 0) +
              20 * (in.udp_count > 0 ? in.udp[0] - 3 : 0));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_inherited(void **state)
{
    (void)state;
    static const struct {
        const char *name, *fds, *names;
        bool other_process;
        unsigned count;
        int code;
    } cases[] = {
        {"in order", "2", "beacon-udp-0:beacon-udp-1", false, 2, 2},
        {"in another order", "2", "beacon-udp-1:beacon-udp-0", false, 2, 22},
        {"with a table", "3", "beacon-udp-1:beacon-table:beacon-udp-0", false, 3, 2 + 10 + 40},
        {"the table alone", "1", "beacon-table", false, 1, 10},
        {"a stranger's is closed", "2", "http:beacon-udp-0", false, 2, 1 + 20},
        {"no names of ours", "2", "beacon-udp:beacon-udp-00", false, 2, 0},
        {"one name more than ours can be", "1", "beacon-udp-129", false, 1, 0},
        {"none", "0", "", false, 0, 0},
        {"for another process", "1", "beacon-udp-0", true, 1, 0},
        {"a gap", "2", "beacon-udp-0:beacon-udp-2", false, 2, 77},
        {"without the first", "1", "beacon-udp-1", false, 1, 77},
        {"twice", "2", "beacon-udp-0:beacon-udp-0", false, 2, 77},
        {"two tables", "2", "beacon-table:beacon-table", false, 2, 77},
        {"too few names", "2", "beacon-udp-0", false, 2, 77},
        {"too many names", "1", "beacon-udp-0:beacon-udp-1", false, 1, 77},
        {"no names", "1", NULL, false, 1, 77},
        {"not open", "2", "beacon-udp-0:beacon-udp-1", false, 0, 77},
        {"negative", "-1", "beacon-udp-0", false, 0, 77},
        {"many", "99999", "beacon-udp-0", false, 0, 77},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int code =
            inherited_code(cases[i].fds, cases[i].names, cases[i].other_process, cases[i].count);
        if (code != cases[i].code)
            fail_msg("%s: %d, not %d", cases[i].name, code, cases[i].code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_round_trip),
        cmocka_unit_test(test_table_since),
        cmocka_unit_test(test_table_spoiled),
        cmocka_unit_test(test_table_fields),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_successor_gives_up),
        cmocka_unit_test(test_strange_questions),
        cmocka_unit_test(test_strange_answers),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_inherited),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
