#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "shard/sockets.h"
#include "shard/steer.h"

enum {
    BIND_TRIES = 25, /* a ring frees the socket of a dead process up to 50 ms late */
    BIND_PAUSE_MS = 20,
};

static int option_set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* The larger of what a privileged and a plain request get. */
static uint64_t buffer_set(int fd, int force, int plain, uint64_t bytes)
{
    int granted = 0;
    socklen_t len = sizeof granted;
    if (option_set(fd, SOL_SOCKET, force, (int)(bytes / 2)) < 0) /* the kernel doubles it */
        option_set(fd, SOL_SOCKET, plain, (int)(bytes / 2)); /* silently capped at [rw]mem_max */
    if (getsockopt(fd, SOL_SOCKET, plain, &granted, &len) < 0)
        return 0;
    return (uint64_t)granted;
}

static int socket_new(int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = family == AF_INET6 ? option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) : 0;
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

/* Path-MTU discovery of both families on one socket. */
static int discovery_set(int fd, int family, int v4, int v6)
{
    int err = option_set(fd, IPPROTO_IP, IP_MTU_DISCOVER, v4);
    if (err == 0 && family == AF_INET6)
        err = option_set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, v6);
    return err;
}

/* One member of the group, bound. */
static int member_open(const struct socket_set *s, int family)
{
    union name name;
    socklen_t len = name_of_endpoint(&name, &s->bound, family, 0);
    int fd = socket_new(family);
    if (fd < 0)
        return fd;
    int err = option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (err == 0 && bind(fd, &name.any, len) < 0)
        err = -errno;
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

static int narrow_open(struct socket_set *s, const struct config *c, int family,
                       const char **failed)
{
    *failed = "bind";
    int fd = member_open(s, family);
    if (fd < 0)
        return fd;
    *failed = "options";
    int err = discovery_set(fd, family, IP_PMTUDISC_PROBE, IPV6_PMTUDISC_PROBE);
    if (err == 0)
        err = option_set(fd, SOL_UDP, UDP_GRO, 1);
    if (err == 0 && s->any_address)
        err = family == AF_INET6 ? option_set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                                 : option_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
    if (err < 0) {
        close(fd);
        return err;
    }
    s->receive_buffer = buffer_set(fd, SO_RCVBUFFORCE, SO_RCVBUF, c->receive_buffer);
    s->send_buffer = buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF, c->send_buffer);
    return fd;
}

static int wide_open(const struct socket_set *s, const struct config *c, int family)
{
    int fd = member_open(s, family);
    if (fd < 0)
        return fd;
    int err = discovery_set(fd, family, IP_PMTUDISC_WANT, IPV6_PMTUDISC_WANT);
    if (err < 0) {
        close(fd);
        return err;
    }
    buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF, c->send_buffer);
    return fd;
}

/* A socket without SO_REUSEPORT finds out whether the port is free: the group's own would share it
 * with another beacon without a word. Fixes s->bound and the family. */
static int claim_once(struct socket_set *s, const struct endpoint *addr, int family)
{
    int fd = socket_new(family);
    if (fd < 0)
        return fd;
    union name name;
    socklen_t len = name_of_endpoint(&name, addr, family, 0);
    int err = 0;
    if (bind(fd, &name.any, len) < 0 || getsockname(fd, &name.any, &len) < 0)
        err = -errno;
    close(fd);
    s->bound = *addr;
    s->bound.port = endpoint_of_name(&name, NULL).port;
    return err;
}

static int claim(struct socket_set *s, const struct endpoint *addr, int family)
{
    int err = claim_once(s, addr, family);
    for (int i = 0; err == -EADDRINUSE && i < BIND_TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = BIND_PAUSE_MS * 1000000}, NULL);
        err = claim_once(s, addr, family);
    }
    return err;
}

static int claim_any_family(struct socket_set *s, const struct endpoint *addr, int *ret_family)
{
    *ret_family = AF_INET6;
    int err = claim(s, addr, AF_INET6);
    bool v4_serves = endpoint_is_v4(addr) || endpoint_is_any(addr);
    if ((err != -EAFNOSUPPORT && err != -EADDRNOTAVAIL) || !v4_serves)
        return err;
    *ret_family = AF_INET; /* a host without IPv6 */
    return claim(s, addr, AF_INET);
}

static void descriptor_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void sockets_close(struct socket_set *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->of[i].wide != s->of[i].narrow)
            descriptor_close(&s->of[i].wide);
        descriptor_close(&s->of[i].narrow);
    }
    s->count = 0;
}

/* Without steering a wide socket would be given datagrams that nobody reads: the narrow one does
 * both then. */
static int wides_open(struct socket_set *s, const struct config *c, int family)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->steer_error == 0) {
            int fd = wide_open(s, c, family);
            if (fd < 0)
                return fd;
            s->of[i].wide = fd;
            continue;
        }
        s->of[i].wide = s->of[i].narrow;
        int err = discovery_set(s->of[i].narrow, family, IP_PMTUDISC_WANT, IPV6_PMTUDISC_WANT);
        if (err < 0)
            return err;
    }
    return 0;
}

int sockets_open(struct socket_set *ret, const struct config *c, unsigned shards,
                 struct owner_key key, const char **failed)
{
    struct socket_set s = {.any_address = endpoint_is_any(&c->addr)};
    int family;
    *failed = "bind";
    int err = claim_any_family(&s, &c->addr, &family);
    s.dual_stack = family == AF_INET6;
    for (unsigned i = 0; err == 0 && i < shards; i++) {
        int fd = narrow_open(&s, c, family, failed);
        if (fd < 0) {
            err = fd;
            break;
        }
        s.of[s.count++] = (struct io_sockets){.family = family, .narrow = fd, .wide = -1};
    }
    if (err == 0) {
        *failed = "wide sockets";
        s.steer_error = -steer_attach(s.of[0].narrow, key, shards);
        err = wides_open(&s, c, family);
    }
    if (err < 0) {
        sockets_close(&s);
        return err;
    }
    *ret = s;
    return 0;
}

uint64_t socket_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS];
    socklen_t len = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 || len <= SK_MEMINFO_DROPS * 4)
        return 0;
    return info[SK_MEMINFO_DROPS];
}
