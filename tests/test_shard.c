/* shard - the way between shards and the edge, on real sockets on loopback: a relay to a session
 * wakes the edge, the edge's sender reaches UDP from the service's address, letters are answered.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/rig.h"
#include "shard/shard.h"

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
        b.sender = shards_sender_new(b.shards);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_books),
        cmocka_unit_test(test_without_sessions),
        cmocka_unit_test(test_bad_wake),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
