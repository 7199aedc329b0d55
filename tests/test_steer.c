/* The steering program in the kernel, against route_owner: a reuseport group on loopback. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/rig.h"
#include "shard/steer.h"

enum { SHARDS = 4, EXTRAS = 2, MEMBERS = SHARDS + EXTRAS, MESH = SHARDS };

static const struct owner_key key = {.add = 0x5bd1e995, .multiply = 0x1b873593};

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
    socklen_t len;
};

/* The group: the first SHARDS receive, and with a mesh the one behind them; the others only send.
 */
struct members {
    int fd[MEMBERS];
    uint16_t port;
    bool mesh;
};

static struct address loopback(int family, bool any, uint16_t port)
{
    struct address a = {.len = family == AF_INET ? sizeof a.v4 : sizeof a.v6};
    a.any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        a.v4.sin_port = htons(port);
        a.v4.sin_addr.s_addr = any ? 0 : htonl(INADDR_LOOPBACK);
    } else {
        a.v6.sin6_port = htons(port);
        a.v6.sin6_addr = any ? in6addr_any : in6addr_loopback;
    }
    return a;
}

static int socket_at(int family, bool shared, struct address *a)
{
    int on = 1, off = 0, room = 4 << 20, fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail_msg("socket: %s", strerror(errno));
    if (family == AF_INET6)
        assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), 0);
    if (shared)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    if (bind(fd, &a->any, a->len) < 0)
        fail_msg("bind: %s", strerror(errno));
    assert_int_equal(getsockname(fd, &a->any, &a->len), 0);
    return fd;
}

static void members_open(struct members *m, int family, bool mesh)
{
    struct address a = loopback(family, true, 0);
    for (int i = 0; i < MEMBERS; i++)
        m->fd[i] = socket_at(family, true, &a);
    m->port = ntohs(family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    m->mesh = mesh;
    assert_int_equal(steer_attach(m->fd[0], key, SHARDS, mesh), 0);
}

static void members_close(struct members *m)
{
    for (int i = 0; i < MEMBERS; i++)
        close(m->fd[i]);
}

/* Which member got the datagram that was just sent. */
static int receiver(struct members *m)
{
    struct pollfd waiting[MEMBERS];
    uint8_t bytes[256];
    for (int i = 0; i < MEMBERS; i++)
        waiting[i] = (struct pollfd){.fd = m->fd[i], .events = POLLIN};
    int ready = poll(waiting, MEMBERS, 2000);
    if (ready != 1)
        fail_msg("%d sockets are readable", ready);
    for (int i = 0; i < MEMBERS; i++)
        if (waiting[i].revents) {
            assert_true(recv(m->fd[i], bytes, sizeof bytes, MSG_DONTWAIT) >= 0);
            return i;
        }
    return -1;
}

static int deliver(struct members *m, int sender, int family, const void *bytes, size_t len)
{
    struct address to = loopback(family, false, m->port);
    assert_int_equal(sendto(sender, bytes, len, 0, &to.any, to.len), (ssize_t)len);
    return receiver(m);
}

/* A group of each family, and the two kinds of source that a dual-stack one has. */
static const struct {
    const char *name;
    int group, source;
} families[] = {
    {"IPv4", AF_INET, AF_INET},
    {"IPv6", AF_INET6, AF_INET6},
    {"IPv4 to a dual-stack group", AF_INET6, AF_INET},
};

/* A container may have no IPv6: its rows are left out there, the IPv4 rows never. */
static bool has_ipv6(void)
{
    struct address a = loopback(AF_INET6, false, 0);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool can = fd >= 0 && bind(fd, &a.any, a.len) == 0;
    if (fd >= 0)
        close(fd);
    return can;
}

static void each_family(void (*test)(struct members *m, int sender, int family))
{
    bool six = has_ipv6();
    for (size_t n = 0; n < 2 * COUNT(families); n++) {
        struct members m;
        size_t f = n / 2;
        if (families[f].group == AF_INET6 && !six) {
            print_message("%s: this host has no IPv6\n", families[f].name);
            continue;
        }
        struct address from = loopback(families[f].source, false, 0);
        members_open(&m, families[f].group, n & 1);
        int sender = socket_at(families[f].source, false, &from);
        test(&m, sender, families[f].source);
        close(sender);
        members_close(&m);
    }
}

static void owner_gets_it(struct members *m, int sender, int family)
{
    static const size_t lens[3][4] = {{5, 37, 6, 200}, {5, 37, 36, 200}, {9, 81, 80, 200}};
    static const uint8_t types[3] = {MSG_DISCOVER, MSG_DISCOVER_EX, MSG_PUNCH_REQUEST};
    unsigned got[SHARDS] = {0};
    uint64_t seed = 0xdecade;
    for (int n = 0; n < 1000; n++) {
        uint64_t dice = rig_random(&seed);
        uint32_t id = n < 3 ? (uint32_t[]){0, 1, UINT32_MAX}[n] : (uint32_t)(dice >> 32);
        uint8_t bytes[200];
        memset(bytes, (int)(dice & 0xff), sizeof bytes);
        for (unsigned kind = 0; kind < 3; kind++) {
            struct writer w = writer_of(bytes, sizeof bytes);
            write_u8(&w, types[kind]);
            write_u32(&w, id);
            uint32_t want = route_owner(key, id, SHARDS);
            int at = deliver(m, sender, family, bytes, lens[kind][dice >> 8 & 3]);
            if (at != (int)want)
                fail_msg("type %u, id %u: socket %d, not %u", types[kind], id, at, want);
            got[want]++;
        }
    }
    for (int i = 0; i < SHARDS; i++)
        assert_in_range(got[i], 600, 900); /* of 3000: spread evenly */
}

static void test_owner(void **state)
{
    (void)state;
    each_family(owner_gets_it);
}

/* All that is not for an owner goes where its flow goes. */
static void flow_stays(struct members *m, int sender, int family)
{
    static const struct {
        const char *name;
        size_t len;
        uint8_t bytes[12];
    } cases[] = {
        {"relay", 12, {5, 0, 0, 0, 1, 0, 0, 0, 2}},
        {"relay to another", 12, {5, 0, 0, 0, 9, 9, 9, 9, 9}},
        {"empty", 0, {0}},
        {"a lone type", 1, {1}},
        {"short Discover", 4, {1, 1, 2, 3}},
        {"short DiscoverEx", 4, {8, 9, 9, 9}},
        {"short punch", 4, {3, 7, 7, 7}},
        {"STUN", 12, {0, 1}},
        {"relayed", 12, {6}},
        {"for nodes", 12, {2, 4}},
        {"unknown", 12, {0x50, 'I', 'L', 'P'}},
    };
    unsigned got[SHARDS] = {0};
    for (unsigned flow = 0; flow < 200; flow++) {
        struct address from = loopback(family, false, 0);
        if (family == AF_INET) /* all of 127/8 is ours */
            from.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + flow * 257);
        int fd = socket_at(family, false, &from);
        int home = deliver(m, fd, family, cases[0].bytes, cases[0].len);
        assert_in_range(home, 0, SHARDS - 1); /* those behind never receive */
        for (size_t i = 1; i < COUNT(cases); i++) {
            int at = deliver(m, fd, family, cases[i].bytes, cases[i].len);
            if (at != home)
                fail_msg("%s: socket %d, its flow is at %d", cases[i].name, at, home);
        }
        got[home]++;
        close(fd);
    }
    (void)sender;
    for (int i = 0; i < SHARDS; i++)
        assert_in_range(got[i], 20, 80); /* of 200 */
}

static void test_flow(void **state)
{
    (void)state;
    each_family(flow_stays);
}

/* Gossip by its first byte, whatever its length and source; without a mesh it goes by flow. */
static void mesh_gets_gossip(struct members *m, int sender, int family)
{
    static const struct {
        const char *name;
        size_t len;
        uint8_t bytes[12];
        bool gossip;
    } cases[] = {
        {"sealed", 12, {0x20, 1, 2, 3, 4}, true},
        {"sealed, as long as a Discover", 5, {0x20, 1, 2, 3, 4}, true},
        {"sealed, shorter than a Discover", 4, {0x20, 1, 2, 3}, true},
        {"sealed, the type alone", 1, {0x20}, true},
        {"Sync", 12, {7, 0, 0, 0, 1}, true},
        {"Sync, shorter than a Discover", 4, {7, 0, 0, 0}, true},
        {"Sync, the type alone", 1, {7}, true},
        {"empty", 0, {0}, false},
        {"below sealed", 12, {0x1f, 1, 2, 3, 4}, false},
        {"above sealed", 12, {0x21, 1, 2, 3, 4}, false},
        {"below Sync", 12, {6, 0, 0, 0, 1}, false},
        {"above Sync", 12, {8, 0, 0, 0, 1}, false},
        {"Discover of an id like gossip", 5, {1, 0x20, 0x20, 0x20, 0x20}, false},
        {"Discover of an id like Sync", 5, {1, 7, 7, 7, 7}, false},
        {"relay", 12, {5, 0, 0, 0, 0x20, 0, 0, 0, 7}, false},
        {"STUN", 12, {0, 1}, false},
    };
    uint8_t long_frame[200] = {0x20};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int at = deliver(m, sender, family, cases[i].bytes, cases[i].len);
        if (cases[i].gossip && m->mesh ? at != MESH : at >= SHARDS)
            fail_msg("%s: socket %d, %s mesh", cases[i].name, at, m->mesh ? "with" : "without");
    }
    assert_int_equal(deliver(m, sender, family, long_frame, sizeof long_frame) == MESH, m->mesh);
    for (int n = 0; n < 50; n++) { /* of any source */
        struct address from = loopback(family, false, 0);
        int fd = socket_at(family, false, &from);
        assert_int_equal(deliver(m, fd, family, cases[0].bytes, cases[0].len) == MESH, m->mesh);
        close(fd);
    }
}

static void test_mesh(void **state)
{
    (void)state;
    each_family(mesh_gets_gossip);
}

/* A new program takes the old one's place, and what waits in the sockets stays there. */
static void test_attached_again(void **state)
{
    (void)state;
    struct members m;
    struct owner_key other = {.add = 0x12345678, .multiply = 0x9e3779b1};
    struct address from = loopback(AF_INET, false, 0);
    uint8_t bytes[5] = {MSG_DISCOVER, 0, 0, 0, 0};
    members_open(&m, AF_INET, true);
    int sender = socket_at(AF_INET, false, &from);
    for (unsigned turn = 0; turn < 2; turn++) {
        struct owner_key now = turn ? other : key;
        assert_int_equal(steer_attach(m.fd[MEMBERS - 1], now, SHARDS, true), 0); /* any member */
        for (unsigned n = 0; n < 200; n++) {
            bytes[4] = (uint8_t)n;
            assert_int_equal(deliver(&m, sender, AF_INET, bytes, sizeof bytes),
                             route_owner(now, n, SHARDS));
        }
    }
    close(sender);
    members_close(&m);
}

/* One shard: everything is its own. */
static void test_one_shard(void **state)
{
    (void)state;
    struct address a = loopback(AF_INET, true, 0), from = loopback(AF_INET, false, 0);
    int one = socket_at(AF_INET, true, &a), two = socket_at(AF_INET, true, &a);
    int sender = socket_at(AF_INET, false, &from);
    struct members m = {.port = ntohs(a.v4.sin_port)};
    assert_int_equal(steer_attach(one, key, 1, false), 0);
    m.fd[0] = one;
    for (int i = 1; i < MEMBERS; i++)
        m.fd[i] = i == 1 ? two : -1; /* poll skips negative descriptors */
    for (uint8_t n = 0; n < 200; n++) {
        uint8_t bytes[5] = {n & 1 ? MSG_DISCOVER : MSG_RELAY, n, n, n, n};
        assert_int_equal(deliver(&m, sender, AF_INET, bytes, sizeof bytes), 0);
    }
    close(one);
    close(two);
    close(sender);
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(steer_attach(-1, key, SHARDS, false), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owner),     cmocka_unit_test(test_flow),
        cmocka_unit_test(test_mesh),      cmocka_unit_test(test_attached_again),
        cmocka_unit_test(test_one_shard), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
