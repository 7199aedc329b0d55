#include <netinet/udp.h>
#include "tests/rig.h"
#include "shard/group.h"

static struct outbox out;
static struct group group;
static struct service service;
static uint8_t bytes[OUTBOX_MAX][2048];

enum { ANY_SIZE = 65535 };

/* Appends a datagram: its bytes say which one it is. */
static struct outgoing *add(const char *to, uint32_t len)
{
    assert_true(out.count < OUTBOX_MAX && len <= sizeof bytes[0]);
    memset(bytes[out.count], (int)(out.count & 0xff), len);
    struct outgoing *o = &out.out[out.count];
    *o = (struct outgoing){.bytes = bytes[out.count], .len = len, .to = endpoint_at(to)};
    out.count++;
    return o;
}

static void build(int family, uint32_t segment_max)
{
    memset(&group, 0xee, sizeof group);
    group_build(&group, &out, &service, family, segment_max);
}

/* What went in comes out, in order, to the right place: no datagram lost, cut or moved. */
static void check_content(int family)
{
    unsigned at = 0;
    for (unsigned m = 0; m < group.messages.count; m++) {
        const struct msghdr *h = &group.messages.header[m].msg_hdr;
        assert_int_equal(h->msg_iovlen, group.messages.of[m].packets);
        assert_int_equal(h->msg_flags, 0);
        for (size_t k = 0; k < h->msg_iovlen; k++, at++) {
            const struct outgoing *o = &out.out[at];
            assert_ptr_equal(h->msg_iov[k].iov_base, o->bytes);
            assert_int_equal(h->msg_iov[k].iov_len, o->len);
            if (family == AF_INET) {
                struct sockaddr_in name;
                assert_int_equal(h->msg_namelen, sizeof name);
                memcpy(&name, h->msg_name, sizeof name);
                assert_int_equal(name.sin_family, AF_INET);
                assert_int_equal(ntohs(name.sin_port), o->to.port);
                assert_memory_equal(&name.sin_addr, o->to.ip + 12, 4);
            } else {
                struct sockaddr_in6 name;
                assert_int_equal(h->msg_namelen, sizeof name);
                memcpy(&name, h->msg_name, sizeof name);
                assert_int_equal(name.sin6_family, AF_INET6);
                assert_int_equal(ntohs(name.sin6_port), o->to.port);
                assert_int_equal(name.sin6_scope_id, o->scope);
                assert_memory_equal(&name.sin6_addr, o->to.ip, 16);
            }
        }
    }
    assert_int_equal(at, out.count);
}

/* Lengths of the datagrams, and how they are cut into messages. */
static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t segment_max;
        uint32_t len[8];
        uint16_t packets[8];
    } cases[] = {
        {"one", ANY_SIZE, {100}, {1}},
        {"two equal", ANY_SIZE, {100, 100}, {2}},
        {"the last is shorter", ANY_SIZE, {100, 100, 50}, {3}},
        {"the second is the last", ANY_SIZE, {100, 99}, {2}},
        {"nothing joins behind a shorter one", ANY_SIZE, {100, 50, 50}, {2, 1}},
        {"not even an equal one", ANY_SIZE, {100, 50, 100, 100}, {2, 2}},
        {"a longer one", ANY_SIZE, {50, 100}, {1, 1}},
        {"a longer one behind equals", ANY_SIZE, {50, 50, 51, 51}, {2, 2}},
        {"by turns", ANY_SIZE, {5, 6, 5, 6, 5, 6}, {1, 2, 2, 1}},
        {"as long as the device takes", 100, {100, 100}, {2}},
        {"longer than the device takes", 99, {100, 100}, {1, 1}},
        {"the long one alone", 99, {100, 99, 99}, {1, 2}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        out.count = 0;
        for (int k = 0; k < 8 && cases[i].len[k]; k++)
            add(AT_A, cases[i].len[k]);
        build(AF_INET6, cases[i].segment_max);
        check_content(AF_INET6);
        unsigned want = 0;
        while (want < 8 && cases[i].packets[want])
            want++;
        if (group.messages.count != want)
            fail_msg("%s: %u messages", cases[i].name, group.messages.count);
        for (unsigned m = 0, at = 0; m < want; at += cases[i].packets[m++]) {
            uint16_t n = cases[i].packets[m];
            assert_int_equal(group.messages.of[m].packets, n);
            assert_int_equal(group.messages.of[m].segment, n > 1 ? cases[i].len[at] : 0);
        }
    }
}

/* Whatever differs but the length keeps neighbours apart. */
static void test_differences(void **state)
{
    (void)state;
    for (int what = 0; what < 5; what++) {
        out.count = 0;
        struct outgoing *a = add("[fe80::1]:5", 100), *b = add("[fe80::1]:5", 100);
        a->scope = b->scope = 2;
        a->local = b->local = 1;
        b->scope += what == 1;
        b->local = (uint8_t)(b->local + (what == 2));
        b->to.port = (uint16_t)(b->to.port + (what == 3));
        b->to.ip[15] = (uint8_t)(b->to.ip[15] + (what == 4));
        build(AF_INET6, ANY_SIZE);
        check_content(AF_INET6);
        assert_int_equal(group.messages.count, what == 0 ? 1 : 2);
    }
}

/* Only neighbours: the order to no destination changes. */
static void test_neighbours_only(void **state)
{
    (void)state;
    out.count = 0;
    for (int i = 0; i < 10; i++)
        add(i % 2 ? AT_A : AT_B, 100);
    build(AF_INET6, ANY_SIZE);
    check_content(AF_INET6);
    assert_int_equal(group.messages.count, 10);
}

static void test_limits(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned count;
        uint32_t len;
        uint16_t first; /* packets of the first message */
        unsigned messages;
    } cases[] = {
        {"63 segments", 63, 100, 63, 1},  {"64 segments", 64, 100, 64, 1},
        {"65 segments", 65, 100, 64, 2},  {"a full outbox", OUTBOX_MAX, 100, 64, 4},
        {"65000 bytes", 50, 1300, 50, 1}, {"more than 65000", 51, 1300, 50, 2},
        {"just below", 64, 1015, 64, 1},  {"just above", 64, 1016, 63, 2},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        out.count = 0;
        for (unsigned n = 0; n < cases[i].count; n++)
            add(AT_A, cases[i].len);
        build(AF_INET6, ANY_SIZE);
        check_content(AF_INET6);
        if (group.messages.of[0].packets != cases[i].first)
            fail_msg("%s: %u", cases[i].name, group.messages.of[0].packets);
        assert_int_equal(group.messages.count, cases[i].messages);
    }
    out.count = 0;
    for (unsigned n = 0; n < OUTBOX_MAX; n++)
        add(n % 2 ? AT_A : AT_B, 5);
    build(AF_INET, ANY_SIZE); /* nothing joins: as many messages as datagrams */
    check_content(AF_INET);
    assert_int_equal(group.messages.count, OUTBOX_MAX);
    out.count = 0;
    build(AF_INET, ANY_SIZE);
    assert_int_equal(group.messages.count, 0);
}

static void test_wide(void **state)
{
    (void)state;
    static const struct {
        uint32_t len[2];
        bool wide[2];
        unsigned messages;
    } cases[] = {
        {{1231, 0}, {false}, 1},          {{1232, 0}, {false}, 1},   {{1233, 0}, {true}, 1},
        {{1232, 1233}, {false, true}, 2}, {{1233, 1232}, {true}, 1}, /* the shorter one rides along
                                                                      */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        out.count = 0;
        for (int k = 0; k < 2 && cases[i].len[k]; k++)
            add(AT_A, cases[i].len[k]);
        build(AF_INET6, ANY_SIZE);
        assert_int_equal(group.messages.count, cases[i].messages);
        for (unsigned m = 0; m < cases[i].messages; m++)
            assert_int_equal(group.messages.of[m].wide, cases[i].wide[m]);
    }
}

/* Reads the control messages with the kernel's own macros. */
static void check_control(int family, bool segmented, bool from_local, uint16_t segment)
{
    struct msghdr *h = &group.messages.header[0].msg_hdr;
    bool saw_segment = false, saw_local = false;
    assert_int_equal((uintptr_t)h->msg_control % _Alignof(struct cmsghdr), 0);
    assert_int_equal(h->msg_control != NULL, h->msg_controllen > 0);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_SEGMENT) {
            uint16_t got;
            assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof got));
            memcpy(&got, CMSG_DATA(c), sizeof got);
            assert_int_equal(got, segment);
            assert_false(saw_segment);
            saw_segment = true;
        } else if (family == AF_INET6) {
            struct in6_pktinfo info;
            assert_int_equal(c->cmsg_level, IPPROTO_IPV6);
            assert_int_equal(c->cmsg_type, IPV6_PKTINFO);
            assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof info));
            memcpy(&info, CMSG_DATA(c), sizeof info);
            assert_int_equal(info.ipi6_ifindex, 0);
            assert_memory_equal(&info.ipi6_addr, service.ip[2], 16);
            saw_local = true;
        } else {
            struct in_pktinfo info;
            assert_int_equal(c->cmsg_level, IPPROTO_IP);
            assert_int_equal(c->cmsg_type, IP_PKTINFO);
            assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof info));
            memcpy(&info, CMSG_DATA(c), sizeof info);
            assert_int_equal(info.ipi_ifindex, 0);
            assert_memory_equal(&info.ipi_spec_dst, service.ip[2] + 12, 4);
            saw_local = true;
        }
    }
    assert_int_equal(saw_segment, segmented);
    assert_int_equal(saw_local, from_local);
    size_t space = segmented ? CMSG_SPACE(sizeof(uint16_t)) : 0;
    if (from_local)
        space += family == AF_INET6 ? CMSG_SPACE(sizeof(struct in6_pktinfo))
                                    : CMSG_SPACE(sizeof(struct in_pktinfo));
    assert_int_equal(h->msg_controllen, space); /* nothing behind that the kernel would read */
}

static void test_control(void **state)
{
    (void)state;
    static const int families[] = {AF_INET, AF_INET6};
    struct endpoint local = endpoint_at("192.0.2.33:0");
    memcpy(service.ip[2], local.ip, 16);
    atomic_store(&service.count, 2);
    for (int f = 0; f < 2; f++)
        for (unsigned n = 1; n <= 2; n++)
            for (uint8_t from = 0; from <= 2; from = (uint8_t)(from + 2)) {
                out.count = 0;
                for (unsigned k = 0; k < n; k++)
                    add(AT_A, 77)->local = from;
                build(families[f], ANY_SIZE);
                check_content(families[f]);
                assert_int_equal(group.messages.count, 1);
                check_control(families[f], n == 2, from != 0, 77);
            }
}

/* Random outboxes: everything comes out, in order, within every limit. */
static void test_random(void **state)
{
    (void)state;
    static const char *const to[] = {AT_A, AT_B, "[2001:db8::1]:7"};
    uint64_t seed = 0xc0ffee;
    for (int round = 0; round < 2000; round++) {
        out.count = 0;
        unsigned count = (unsigned)(rig_random(&seed) % (OUTBOX_MAX + 1));
        uint32_t segment_max = rig_random(&seed) & 1 ? ANY_SIZE : 1472;
        while (out.count < count) {
            uint64_t dice = rig_random(&seed);
            uint32_t len = dice & 1 ? 1200 : 5 + (uint32_t)(dice >> 8) % 2000;
            add(to[(dice >> 40) % 16 ? 0 : (dice >> 44) % 3], len);
        }
        build(AF_INET6, segment_max);
        check_content(AF_INET6);
        for (unsigned m = 0; m < group.messages.count; m++) {
            const struct msghdr *h = &group.messages.header[m].msg_hdr;
            size_t total = 0;
            for (size_t k = 0; k < h->msg_iovlen; k++) {
                bool last = k + 1 == h->msg_iovlen;
                assert_true(h->msg_iov[k].iov_len <= h->msg_iov[0].iov_len);
                assert_true(last || h->msg_iov[k].iov_len == h->msg_iov[0].iov_len);
                total += h->msg_iov[k].iov_len;
            }
            assert_true(h->msg_iovlen <= GROUP_SEGMENTS_MAX && total <= GROUP_BYTES_MAX);
            assert_true(h->msg_iovlen == 1 || h->msg_iov[0].iov_len <= segment_max);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_neighbours_only),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_control),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
