/* shard - the way between shards and the edge, on real sockets on loopback: a relay to a session
 * wakes the edge, the edge's sender reaches UDP from the service's address, letters are answered.
 * And sockets that outlive the shards: under steady traffic nothing is lost. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/rig.h"
#include "shard/shard.h"
#include "shard/sockets.h"
#include "shard/steer.h"

enum { WAIT_MS = 5000, UDP_NODE = 1, SESSION_NODE = 2 };

struct bench {
    struct config config;
    struct server *server;
    struct shards *shards;
    struct shards_sender *sender;
    struct shards_report report;
    int edge_wake; /* the edge's end of the eventfd */
    int udp;       /* a node, connected to the service */
    struct endpoint udp_at;
    struct session session;
    struct outbox out;
};

static int udp_open(const struct endpoint *service, struct endpoint *ret_at)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(service->port)}, at;
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0); /* takes no other's */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_at = endpoint_of((const uint8_t *)&at.sin_addr, 4, ntohs(at.sin_port));
    return fd;
}

static void bench_open(struct bench *b, enum io_choice io, bool sessions)
{
    static const uint8_t seed[64] = {5, 6, 7};
    const char *failed = "";
    memset(b, 0, sizeof *b);
    config_init(&b->config);
    b->config.addr = endpoint_at("127.0.0.1:0");
    b->config.io = io;
    b->config.max_nodes = 1000;
    b->config.has_wss_plain = sessions;
    size_t size = server_size(&b->config, 2);
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    b->server = server_init(memory, &b->config, 2, &b->config.rules, seed);
    if (shards_open(&b->shards, b->server, &b->config, &b->report, &failed) < 0)
        fail_msg("%s", failed);
    b->udp = udp_open(&b->report.bound, &b->udp_at);
}

static void bench_start(struct bench *b)
{
    const char *failed = "";
    if (shards_start(b->shards, &b->report, &failed) < 0)
        fail_msg("%s", failed);
}

static void bench_close(struct bench *b)
{
    shards_close(b->shards);
    close(b->udp);
    free(b->server);
}

static bool readable(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, wait_ms) == 1;
}

static void udp_expect(const struct bench *b, const char *hex)
{
    uint8_t bytes[256];
    char text[2 * sizeof bytes + 1];
    assert_true(readable(b->udp, WAIT_MS));
    ssize_t len = recv(b->udp, bytes, sizeof bytes, 0);
    assert_true(len >= 0);
    assert_string_equal(sodium_bin2hex(text, sizeof text, bytes, (size_t)len), hex);
}

static void udp_send(const struct bench *b, const void *bytes, size_t len)
{
    assert_int_equal(send(b->udp, bytes, len, 0), len);
}

static void wake_lanes(struct bench *b)
{
    struct lane *edge = b->server->edge;
    for (unsigned i = 0; i < b->server->lane_count; i++)
        if (edge->wake >> i & 1)
            shards_wake(b->shards, i);
    edge->wake = 0;
}

static struct moment moment_now(void)
{
    return (struct moment){.ns = clock_ns(), .unix_s = 1800000000};
}

/* What a shard has for the session: the edge is woken for it. */
static void handed_expect(struct bench *b, const char *hex)
{
    uint64_t woken;
    struct handoff_message m;
    assert_true(readable(b->edge_wake, WAIT_MS));
    assert_int_equal(read(b->edge_wake, &woken, sizeof woken), sizeof woken);
    for (unsigned i = 0; i < b->server->lane_count; i++)
        if (handoff_peek(b->server->lane[i]->handoff, &m)) {
            assert_handed(b->server->lane[i], SESSION_NODE, hex);
            return;
        }
    fail_msg("woken for nothing");
}

static void session_register(struct bench *b)
{
    struct route route;
    b->session = rig_session(SESSION_NODE, "203.0.113.7:4000", ROUTE_KEYED, 1);
    assert_true(session_here(b->server->edge, &b->session));
    wake_lanes(b);
    for (int n = 0; !server_find(b->server, SESSION_NODE, &route); n++) {
        assert_true(n < WAIT_MS);
        usleep(1000);
    }
    assert_int_equal(route.flags & ROUTE_STREAM, ROUTE_STREAM);
}

static enum verdict frame(struct bench *b, uint8_t *bytes, uint32_t len)
{
    struct moment now = moment_now();
    struct datagram d = {.bytes = bytes, .len = len};
    server_begin(b->server->edge);
    return session_input(b->server->edge, &b->session, &d, &now, &b->out);
}

static void check_books(const struct bench *b)
{
    uint64_t received = 0, decided = 0;
    for (unsigned i = 0; i <= b->server->lane_count; i++) {
        const struct lane *l = i < b->server->lane_count ? b->server->lane[i] : b->server->edge;
        received += count_read(&l->stats.received);
        for (int v = 0; v < VERDICT_COUNT; v++)
            decided += count_read(&l->stats.verdict[v]);
    }
    assert_int_equal(received, decided);
    assert_int_equal(received, 7);
}

static void test_both_ways(void **state)
{
    (void)state;
    static const enum io_choice ports[] = {IO_MMSG, IO_AUTO};
    for (size_t i = 0; i < COUNT(ports); i++) {
        struct bench b;
        char reply[17], command[17];
        bench_open(&b, ports[i], true);
        int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        b.edge_wake = dup(wake);
        assert_int_equal(shards_set_edge(b.shards, wake), 0);
        close(wake); /* the shards have their own */
        b.sender = shards_sender_new(b.shards, b.server->edge);
        assert_non_null(b.sender);
        bench_start(&b);
        session_register(&b);
        snprintf(reply, sizeof reply, "02047f000001%04x", b.udp_at.port);
        snprintf(command, sizeof command, "04047f000001%04x", b.udp_at.port);
        udp_send(&b, (uint8_t[]){1, 0, 0, 0, UDP_NODE}, 5);
        udp_expect(&b, reply);
        /* UDP to the session, twice: each wakes. */
        for (int n = 0; n < 2; n++) {
            udp_send(&b, (uint8_t[]){5, 0, 0, 0, UDP_NODE, 0, 0, 0, SESSION_NODE, 0xab}, 10);
            handed_expect(&b, "0600000001ab");
            assert_false(readable(b.edge_wake, 0));
        }
        /* The session to UDP: two datagrams, joined or not, come from the service's endpoint. */
        uint8_t relay[2][10] = {{5, 0, 0, 0, SESSION_NODE, 0, 0, 0, UDP_NODE, 0xcd},
                                {5, 0, 0, 0, SESSION_NODE, 0, 0, 0, UDP_NODE, 0xce}};
        assert_verdict(frame(&b, relay[0], 10), VERDICT_RELAY_FORWARDED, "relay");
        assert_verdict(frame(&b, relay[1], 10), VERDICT_RELAY_FORWARDED, "relay");
        shards_sender_send(b.sender, &b.out);
        assert_int_equal(b.out.count, 0);
        udp_expect(&b, "0600000002cd");
        udp_expect(&b, "0600000002ce");
        assert_int_equal(count_read(&b.server->edge->stats.sent), 2);
        assert_int_equal(count_read(&b.server->edge->stats.sent_bytes), 12);
        assert_int_equal(count_read(&b.server->edge->stats.send_messages), 1);
        shards_sender_send(b.sender, &b.out); /* of nothing: nothing */
        assert_int_equal(count_read(&b.server->edge->stats.send_messages), 1);
        /* A letter that is answered through the handoff wakes too. */
        uint8_t punch[9] = {3, 0, 0, 0, SESSION_NODE, 0, 0, 0, UDP_NODE};
        assert_verdict(frame(&b, punch, 9), VERDICT_PASSED, "punch");
        wake_lanes(&b);
        handed_expect(&b, command);
        assert_verdict(frame(&b, (uint8_t[]){0x0b}, 1), VERDICT_DROPPED_UNKNOWN_TYPE, "unknown");
        shards_sender_free(b.sender);
        bench_close(&b);
        close(b.edge_wake);
    }
}

/* The books of the above need the shards to have ended. */
static void test_books(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, IO_MMSG, true);
    bench_start(&b);
    session_register(&b);
    for (int n = 0; n < 5; n++) {
        uint8_t punch[9] = {3, 0, 0, 0, SESSION_NODE, 0, 0, 0, UDP_NODE};
        assert_verdict(frame(&b, punch, 9), VERDICT_PASSED, "punch");
    }
    assert_verdict(frame(&b, (uint8_t[]){0x0b}, 1), VERDICT_DROPPED_UNKNOWN_TYPE, "unknown");
    udp_send(&b, (uint8_t[]){5, 0, 0, 0, 9, 0, 0, 0, SESSION_NODE}, 9); /* no edge to wake */
    wake_lanes(&b);
    uint64_t taken = 0;
    for (int n = 0; taken < 6 + 1; n++) { /* letters, and the relay */
        assert_true(n < WAIT_MS);
        usleep(1000);
        taken = 0;
        for (unsigned i = 0; i < 2; i++)
            taken += count_read(&b.server->lane[i]->stats.mail_taken) +
                     count_read(&b.server->lane[i]->stats.received);
    }
    struct server *server = b.server;
    shards_close(b.shards);
    check_books(&b);
    close(b.udp);
    free(server);
}

/* Without sessions there is nothing to wake, and no edge. */
static void test_without_sessions(void **state)
{
    (void)state;
    struct bench b;
    char reply[17];
    bench_open(&b, IO_MMSG, false);
    assert_null(b.server->edge);
    bench_start(&b);
    snprintf(reply, sizeof reply, "02047f000001%04x", b.udp_at.port);
    udp_send(&b, (uint8_t[]){1, 0, 0, 0, UDP_NODE}, 5);
    udp_expect(&b, reply);
    bench_close(&b);
}

static void test_bad_wake(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, IO_MMSG, true);
    assert_int_equal(shards_set_edge(b.shards, -1), -EBADF);
    bench_start(&b);
    bench_close(&b);
}

/* --- the mesh's socket --- */

/* A server of `lanes` with the configuration, and its memory, which is to be freed. */
static struct server *server_for(const struct config *c, unsigned lanes)
{
    static const uint8_t seed[64] = {5, 6, 7};
    size_t size = server_size(c, lanes);
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    return server_init(memory, c, lanes, &c->rules, seed);
}

static void config_for(struct config *c, const char *addr, const char *peers)
{
    config_init(c);
    c->addr = endpoint_at(addr);
    c->max_nodes = c->max_routes = 1000;
    c->io = IO_MMSG;
    snprintf(c->peers, sizeof c->peers, "%s", peers);
}

static void test_mesh_socket(void **state)
{
    (void)state;
    struct config *c = malloc(sizeof *c);
    assert_non_null(c);
    for (int mesh = 0; mesh < 2; mesh++) {
        struct shards *shards;
        struct shards_report report;
        struct endpoint at;
        const char *failed = "";
        uint8_t got[2048];
        config_for(c, "127.0.0.1:0", mesh ? "192.0.2.1:9001" : "");
        struct server *server = server_for(c, 2);
        assert_int_equal(shards_open(&shards, server, c, &report, &failed), 0);
        int fd = shards_mesh_socket(shards);
        assert_int_equal(fd >= 0, mesh);
        assert_int_equal(shards_family(shards), AF_INET6);
        assert_int_equal(shards_start(shards, &report, &failed), 0);
        int udp = udp_open(&report.bound, &at);
        uint8_t frame[1200] = {0x20, 1};
        assert_int_equal(send(udp, frame, sizeof frame, 0), sizeof frame);
        if (mesh) {
            assert_true(readable(fd, WAIT_MS));
            assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), sizeof frame);
        }
        assert_int_equal(send(udp, (uint8_t[]){1, 0, 0, 0, 9}, 5, 0), 5); /* shards serve */
        assert_true(readable(udp, WAIT_MS));
        struct lane *l0 = server->lane[0], *l1 = server->lane[1];
        shards_close(shards);
        assert_int_equal(count_read(&l0->stats.received) + count_read(&l1->stats.received),
                         mesh ? 1 : 2);
        close(udp);
        free(server);
    }
    free(c);
}

/* --- handing over --- */

enum { GENERATIONS = 8, GENERATION_MS = 120, BURST = 20 };

/* Sends numbered datagrams, half of them for an owner, half by flow, from a few sources. */
struct traffic {
    struct endpoint service;
    unsigned burst; /* datagrams a millisecond */
    _Atomic bool stop;
    uint64_t sent;
};

static void *traffic_main(void *arg)
{
    struct traffic *t = arg;
    int fd[4];
    uint32_t n = 0;
    struct endpoint at;
    for (size_t i = 0; i < COUNT(fd); i++)
        fd[i] = udp_open(&t->service, &at);
    while (!t->stop) {
        for (unsigned i = 0; i < t->burst; i++, n++) {
            uint8_t bytes[16];
            struct writer w = writer_of(bytes, sizeof bytes);
            write_u8(&w, n & 1 ? MSG_DISCOVER : MSG_RELAY);
            write_u32(&w, n / 2 + 1);
            write_u64(&w, 77);
            size_t len = n & 1 ? 5 : 13;
            t->sent += send(fd[n % 4], bytes, len, 0) == (ssize_t)len;
        }
        usleep(1000);
    }
    for (size_t i = 0; i < COUNT(fd); i++)
        close(fd[i]);
    return NULL;
}

/* What the lanes of a stopped set have received; each datagram with a verdict. */
static uint64_t books(const struct server *server)
{
    uint64_t received = 0, decided = 0;
    for (unsigned i = 0; i < server->lane_count; i++) {
        received += count_read(&server->lane[i]->stats.received);
        for (int v = 0; v < VERDICT_COUNT; v++)
            decided += count_read(&server->lane[i]->stats.verdict[v]);
    }
    assert_int_equal(received, decided);
    return received;
}

/* The descriptors as another process would get them: same sockets, other numbers. */
static unsigned descriptors_copy(const struct shards *s, int *fds)
{
    unsigned n = shards_descriptors(s, fds, SHARDS_DESCRIPTORS_MAX);
    assert_true(n > 0);
    for (unsigned i = 0; i < n; i++) {
        fds[i] = dup(fds[i]);
        assert_true(fds[i] >= 0);
    }
    return n;
}

/* One generation takes over from the one before, or opens; serves for a while and stops. */
static struct shards *generation(const struct config *c, struct server *server, struct shards *old,
                                 struct shards_report *report)
{
    struct shards *shards;
    const char *failed = "";
    int fds[SHARDS_DESCRIPTORS_MAX], err;
    if (old) {
        unsigned n = descriptors_copy(old, fds);
        err = shards_adopt(&shards, server, c, fds, n, report, &failed);
    } else {
        err = shards_open(&shards, server, c, report, &failed);
    }
    if (err < 0 || shards_start(shards, report, &failed) < 0)
        fail_msg("%s", failed);
    if (old)
        shards_close(old); /* its process ends: the sockets are ours too, so they stay */
    /* Another key than the shards have: half of what is for an owner goes through a mailbox. */
    assert_int_equal(shards_descriptors(shards, fds, SHARDS_DESCRIPTORS_MAX), 5);
    assert_int_equal(steer_attach(fds[0], (struct owner_key){1, 3}, 2, true), 0);
    /* Else the buffers were too small for this machine: no fair test. */
    assert_int_equal(socket_drops(fds[0]), 0);
    assert_int_equal(socket_drops(fds[1]), 0);
    return shards;
}

static void generations(enum io_choice first, enum io_choice second)
{
    struct config *c = malloc(sizeof *c);
    struct server *server[GENERATIONS];
    struct shards *shards = NULL;
    struct traffic t = {.sent = 0};
    pthread_t thread;
    uint64_t received = 0;
    struct shards_report report;
    assert_non_null(c);
    config_for(c, "127.0.0.1:0", "192.0.2.1:9001");
    for (int g = 0; g < GENERATIONS; g++)
        server[g] = server_for(c, 2);
    for (int g = 0; g < GENERATIONS; g++) {
        c->io = g & 1 ? second : first;
        shards = generation(c, server[g], shards, &report);
        if (g == 0) {
            c->addr.port = report.bound.port;
            t.service = report.bound;
            t.burst = report.receive_buffer >= 4 << 20 ? BURST : 2;
            assert_int_equal(pthread_create(&thread, NULL, traffic_main, &t), 0);
        }
        usleep(GENERATION_MS * 1000);
        if (g == GENERATIONS - 1) {
            t.stop = true;
            pthread_join(thread, NULL);
            usleep(50000);
        }
        shards_stop(shards);
    }
    shards_close(shards);
    for (int g = 0; g < GENERATIONS; g++) {
        uint64_t n = books(server[g]);
        assert_true(n > 0); /* each has served */
        received += n;
        free(server[g]);
    }
    assert_in_range(t.sent, 1000, UINT32_MAX);
    assert_int_equal(received, t.sent);
    free(c);
}

/* One port by itself, told to stop with datagrams on their way: each is handed out or still in the
 * socket, and what comes later stays there. */
static void stop_port(const struct io_port *port)
{
    enum { COUNT_BEFORE = 40, COUNT_AFTER = 5 };
    struct lane_stats *stats = calloc(1, sizeof *stats);
    struct arrival arrivals[IO_ARRIVALS_MAX];
    struct endpoint at;
    struct io *io;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof name;
    uint8_t bytes[8];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_non_null(stats);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
    struct endpoint service = endpoint_of((uint8_t *)&name.sin_addr, 4, ntohs(name.sin_port));
    int node = udp_open(&service, &at);
    struct io_sockets sockets = {.family = AF_INET, .narrow = fd, .wide = fd};
    int err = port->open(&io, &sockets, wake, stats);
    if (err < 0) {
        assert_ptr_equal(port, &io_uring_port); /* a host may refuse this one */
        print_message("%s: %s\n", port->name, strerror(-err));
        skip();
    }
    assert_int_equal(port->wait(io, arrivals, 0), 0); /* armed */
    unsigned handed = 0, left = 0, waits = 0;
    for (unsigned n = 0; n < COUNT_BEFORE; n++) {
        assert_int_equal(send(node, "before", 6, 0), 6);
        if (n == COUNT_BEFORE / 2) {
            handed += port->wait(io, arrivals, 0);
            port->recycle(io);
        }
    }
    assert_true(handed > 0);
    for (; !port->stop(io); waits++) {
        assert_in_range(waits, 0, 10);
        handed += port->wait(io, arrivals, SECOND_NS);
        port->recycle(io);
    }
    assert_int_equal(waits > 0, port == &io_uring_port); /* one receive was armed */
    assert_true(port->stop(io));
    for (unsigned n = 0; n < COUNT_AFTER; n++)
        assert_int_equal(send(node, "after", 5, 0), 5);
    port->close(io);
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        left++;
    assert_in_range(left, COUNT_AFTER, COUNT_BEFORE + COUNT_AFTER);
    assert_int_equal(handed + left, COUNT_BEFORE + COUNT_AFTER);
    assert_int_equal(count_read(&stats->receive_errors), 0);
    close(fd);
    close(wake);
    close(node);
    free(stats);
}

static void test_stop_uring(void **state)
{
    (void)state;
    stop_port(&io_uring_port);
}

static void test_stop_mmsg(void **state)
{
    (void)state;
    stop_port(&io_mmsg_port);
}

static void test_nothing_lost_uring(void **state)
{
    (void)state;
    generations(IO_AUTO, IO_AUTO);
}

static void test_nothing_lost_mmsg(void **state)
{
    (void)state;
    generations(IO_MMSG, IO_MMSG);
}

static void test_nothing_lost_between_ports(void **state)
{
    (void)state;
    generations(IO_AUTO, IO_MMSG);
}

/* A successor that failed: the same shards go on. */
static void test_started_again(void **state)
{
    (void)state;
    static const enum io_choice ports[] = {IO_MMSG, IO_AUTO};
    for (size_t i = 0; i < COUNT(ports); i++) {
        struct bench b;
        char reply[17];
        bench_open(&b, ports[i], false);
        snprintf(reply, sizeof reply, "02047f000001%04x", b.udp_at.port);
        for (int n = 0; n < 3; n++) {
            udp_send(&b, (uint8_t[]){1, 0, 0, 0, UDP_NODE}, 5); /* waits in the socket */
            shards_wake(b.shards, 0);                           /* nobody there, no harm */
            assert_false(readable(b.udp, 20));
            bench_start(&b);
            udp_expect(&b, reply);
            udp_send(&b, (uint8_t[]){1, 0, 0, 0, UDP_NODE}, 5);
            udp_expect(&b, reply);
            shards_stop(b.shards);
        }
        shards_stop(b.shards); /* of stopped ones: nothing */
        assert_int_equal(books(b.server), 6);
        bench_close(&b);
    }
}

/* Discovers of many ids: all answered, and how many of them came to a shard that is not the owner.
 */
static uint64_t passed_on(const struct server *server, int udp)
{
    uint8_t reply[64];
    uint64_t before = 0, after = 0;
    for (unsigned i = 0; i < server->lane_count; i++)
        before += count_read(&server->lane[i]->stats.mail_passed);
    for (uint8_t id = 1; id <= 40; id++) {
        assert_int_equal(send(udp, (uint8_t[]){1, 0, 0, 0, id}, 5, 0), 5);
        assert_true(readable(udp, WAIT_MS));
        assert_true(recv(udp, reply, sizeof reply, 0) > 0);
    }
    for (unsigned i = 0; i < server->lane_count; i++)
        after += count_read(&server->lane[i]->stats.mail_passed);
    return after - before;
}

/* Who has started last steers by its own key: a successor, and the first one again after it. An
 * adopted set does not before. */
static void test_steered_by_who_serves(void **state)
{
    (void)state;
    struct config *c = malloc(sizeof *c);
    struct server *server[2];
    struct shards *shards[2];
    struct shards_report report;
    struct endpoint at;
    const char *failed = "";
    int fds[SHARDS_DESCRIPTORS_MAX];
    assert_non_null(c);
    config_for(c, "127.0.0.1:0", "192.0.2.1:9001");
    for (int i = 0; i < 2; i++)
        server[i] = server_for(c, 2);
    server[1]->owner_key = (struct owner_key){.add = 0x1234567, .multiply = 0x9e3779b1};
    assert_int_equal(shards_open(&shards[0], server[0], c, &report, &failed), 0);
    assert_int_equal(shards_start(shards[0], &report, &failed), 0);
    int udp = udp_open(&report.bound, &at);
    assert_int_equal(passed_on(server[0], udp), 0);
    unsigned n = descriptors_copy(shards[0], fds);
    assert_int_equal(shards_adopt(&shards[1], server[1], c, fds, n, &report, &failed), 0);
    assert_int_equal(passed_on(server[0], udp), 0); /* the first one still serves */
    for (int turn = 0; turn < 3; turn++) {
        shards_stop(shards[turn % 2]);
        assert_int_equal(shards_start(shards[1 - turn % 2], &report, &failed), 0);
        assert_int_equal(passed_on(server[1 - turn % 2], udp), 0);
    }
    /* A key that is nobody's shows that the above can fail. */
    assert_int_equal(steer_attach(fds[0], (struct owner_key){1, 3}, 2, true), 0);
    assert_in_range(passed_on(server[1], udp), 5, 35);
    for (int i = 0; i < 2; i++) {
        shards_close(shards[i]);
        free(server[i]);
    }
    close(udp);
    free(c);
}

/* What is not this configuration's set is refused, and stays the caller's. */
enum misfit {
    FITS,
    FITS_WITH_PORT,
    NO_LIST,
    ONE_LESS,
    ONE_MORE,
    OTHER_SHARDS,
    OTHER_ADDRESS,
    OTHER_PORT,
    WITHOUT_MESH,
    SWAPPED,
    TWICE,
    NOT_A_SOCKET,
    A_STREAM,
    OF_A_STRANGER,
};

static void test_misfits(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum misfit misfit;
        const char *failed; /* NULL: adopted */
    } cases[] = {
        {"any port", FITS, NULL},
        {"this port", FITS_WITH_PORT, NULL},
        {"nothing", NO_LIST, "inherited sockets: another number of shards, or mesh"},
        {"one less", ONE_LESS, "inherited sockets: another number of shards, or mesh"},
        {"one more", ONE_MORE, "inherited sockets: another number of shards, or mesh"},
        {"other shards", OTHER_SHARDS, "inherited sockets: another number of shards, or mesh"},
        {"no mesh", WITHOUT_MESH, "inherited sockets: another number of shards, or mesh"},
        {"other address", OTHER_ADDRESS, "inherited sockets: another address"},
        {"other port", OTHER_PORT, "inherited sockets: another address"},
        {"narrow for wide", SWAPPED, "inherited sockets: not the sockets of a beacon"},
        {"twice", TWICE, "inherited sockets: one of them twice"},
        {"no socket", NOT_A_SOCKET, "inherited sockets: not the sockets of a beacon"},
        {"TCP", A_STREAM, "inherited sockets: not the sockets of a beacon"},
        {"of a stranger", OF_A_STRANGER, "inherited sockets: not the sockets of a beacon"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct config *c = malloc(sizeof *c);
        struct shards *old, *shards = NULL;
        struct shards_report report;
        const char *failed = "";
        int fds[SHARDS_DESCRIPTORS_MAX + 1], spare;
        enum misfit m = cases[i].misfit;
        assert_non_null(c);
        config_for(c, "127.0.0.1:0", "192.0.2.1:9001");
        struct server *first = server_for(c, 2);
        assert_int_equal(shards_open(&old, first, c, &report, &failed), 0);
        unsigned n = descriptors_copy(old, fds), given = n;
        assert_int_equal(n, 5);
        spare = m == A_STREAM || m == OF_A_STRANGER
                    ? socket(AF_INET6, m == A_STREAM ? SOCK_STREAM : SOCK_DGRAM, 0)
                    : open("/dev/null", O_RDONLY);
        if (m == FITS_WITH_PORT || m == OTHER_PORT)
            c->addr.port = (uint16_t)(report.bound.port ^ (m == OTHER_PORT));
        if (m == OTHER_ADDRESS)
            c->addr = endpoint_at("127.0.0.2:0");
        if (m == WITHOUT_MESH)
            c->peers[0] = '\0';
        if (m == SWAPPED || m == TWICE) {
            int last = fds[4];
            fds[4] = fds[m == SWAPPED ? 0 : 3];
            fds[m == SWAPPED ? 0 : 3] = m == SWAPPED ? last : fds[4];
            if (m == TWICE)
                close(last);
        }
        if (m == NOT_A_SOCKET || m == A_STREAM || m == OF_A_STRANGER)
            dup2(spare, fds[2]);
        if (m == ONE_MORE)
            fds[5] = fds[4];
        given = m == NO_LIST ? 0 : m == ONE_LESS ? 4 : m == ONE_MORE ? 6 : 5;
        struct server *second = server_for(c, m == OTHER_SHARDS ? 3 : 2);
        int err = shards_adopt(&shards, second, c, fds, given, &report, &failed);
        if (cases[i].failed) {
            assert_int_equal(err, -ESTALE);
            assert_string_equal(failed, cases[i].failed);
            for (unsigned k = 0; k < n; k++)
                if (m != TWICE || k != 4)
                    assert_int_equal(close(fds[k]), 0); /* still ours */
        } else {
            if (err < 0)
                fail_msg("%s: %s", cases[i].name, failed);
            shards_close(shards);
            assert_int_equal(close(fds[0]), -1); /* were the set's */
        }
        close(spare);
        shards_close(old);
        free(first);
        free(second);
        free(c);
    }
}

/* All families and both wildcards: what one opens, the next adopts. */
static void test_addresses(void **state)
{
    (void)state;
    static const char *const addresses[] = {"127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::1]:0"};
    struct config *c = malloc(sizeof *c);
    assert_non_null(c);
    for (size_t i = 0; i < COUNT(addresses); i++) {
        struct shards *old, *shards;
        struct shards_report report;
        const char *failed = "";
        int fds[SHARDS_DESCRIPTORS_MAX];
        config_for(c, addresses[i], "");
        struct server *server = server_for(c, 3);
        int err = shards_open(&old, server, c, &report, &failed);
        if (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT) {
            print_message("%s: this host has no IPv6\n", addresses[i]);
            free(server);
            continue;
        }
        assert_int_equal(err, 0);
        unsigned n = descriptors_copy(old, fds);
        assert_int_equal(n, 6);
        assert_int_equal(shards_descriptors(old, fds + n, n - 1), 0); /* all or nothing */
        if (shards_adopt(&shards, server, c, fds, n, &report, &failed) < 0)
            fail_msg("%s: %s", addresses[i], failed);
        shards_close(shards);
        shards_close(old);
        free(server);
    }
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),         cmocka_unit_test(test_books),
        cmocka_unit_test(test_without_sessions),  cmocka_unit_test(test_bad_wake),
        cmocka_unit_test(test_mesh_socket),       cmocka_unit_test(test_stop_uring),
        cmocka_unit_test(test_stop_mmsg),         cmocka_unit_test(test_nothing_lost_uring),
        cmocka_unit_test(test_nothing_lost_mmsg), cmocka_unit_test(test_nothing_lost_between_ports),
        cmocka_unit_test(test_started_again),     cmocka_unit_test(test_steered_by_who_serves),
        cmocka_unit_test(test_misfits),           cmocka_unit_test(test_addresses),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
