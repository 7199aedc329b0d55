#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/stat.h>
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

/* What a narrow socket or the mesh's needs. The mesh's takes no GRO batches: one frame, one seal.
 */
static int narrow_set(struct socket_set *s, const struct config *c, int fd, int family, bool gro)
{
    int err = discovery_set(fd, family, IP_PMTUDISC_PROBE, IPV6_PMTUDISC_PROBE);
    if (err == 0 && gro)
        err = option_set(fd, SOL_UDP, UDP_GRO, 1);
    if (err == 0 && s->any_address)
        err = family == AF_INET6 ? option_set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                                 : option_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
    if (err < 0)
        return err;
    s->receive_buffer = buffer_set(fd, SO_RCVBUFFORCE, SO_RCVBUF, c->receive_buffer);
    s->send_buffer = buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF, c->send_buffer);
    return 0;
}

static int wide_set(const struct config *c, int fd, int family)
{
    int err = discovery_set(fd, family, IP_PMTUDISC_WANT, IPV6_PMTUDISC_WANT);
    if (err == 0)
        buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF, c->send_buffer);
    return err;
}

static int narrow_open(struct socket_set *s, const struct config *c, int family, bool gro,
                       const char **failed)
{
    *failed = "bind";
    int fd = member_open(s, family);
    if (fd < 0)
        return fd;
    *failed = "options";
    int err = narrow_set(s, c, fd, family, gro);
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

static int wide_open(const struct socket_set *s, const struct config *c, int family)
{
    int fd = member_open(s, family);
    if (fd < 0)
        return fd;
    int err = wide_set(c, fd, family);
    if (err < 0) {
        close(fd);
        return err;
    }
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
    descriptor_close(&s->mesh);
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

/* What comes behind the narrow ones. Steered before, as it decides what there is: a datagram for an
 * index that is not there yet goes by the kernel's hash, to a narrow one. */
static int others_open(struct socket_set *s, const struct config *c, int family,
                       struct owner_key key, const char **failed)
{
    bool mesh = config_has_mesh(c);
    s->steer_error = -steer_attach(s->of[0].narrow, key, s->count, mesh);
    if (mesh && s->steer_error == 0) {
        int fd = narrow_open(s, c, family, false, failed);
        if (fd < 0)
            return fd;
        s->mesh = fd;
    }
    *failed = "wide sockets";
    return wides_open(s, c, family);
}

static int set_open(struct socket_set *s, const struct config *c, unsigned shards,
                    struct owner_key key, const char **failed)
{
    int family;
    *failed = "bind";
    int err = claim_any_family(s, &c->addr, &family);
    s->dual_stack = family == AF_INET6;
    for (unsigned i = 0; err == 0 && i < shards; i++) {
        int fd = narrow_open(s, c, family, true, failed);
        if (fd < 0)
            err = fd;
        else
            s->of[s->count++] = (struct io_sockets){.family = family, .narrow = fd, .wide = -1};
    }
    if (err == 0)
        err = others_open(s, c, family, key, failed);
    if (err < 0)
        sockets_close(s);
    return err;
}

/* --- adopting --- */

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

/* Whether the descriptor is a member of the group at s->bound that sends as `discovery` says, which
 * tells a narrow from a wide one. */
static bool member_fits(const struct socket_set *s, int fd, int family, int discovery)
{
    union name name;
    socklen_t len = sizeof name;
    if (option_of(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM ||
        option_of(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP ||
        option_of(fd, SOL_SOCKET, SO_DOMAIN) != family ||
        option_of(fd, SOL_SOCKET, SO_REUSEPORT) != 1 ||
        option_of(fd, IPPROTO_IP, IP_MTU_DISCOVER) != discovery ||
        getsockname(fd, &name.any, &len) < 0)
        return false;
    struct endpoint at = endpoint_of_name(&name, NULL);
    return endpoint_equal(&at, &s->bound);
}

static bool same_socket(int a, int b)
{
    struct stat of_a, of_b;
    return fstat(a, &of_a) < 0 || fstat(b, &of_b) < 0 || of_a.st_ino == of_b.st_ino;
}

/* The address that all must have: the configured one, on the port that the first has if the
 * configuration leaves it open. */
static bool bound_of_first(struct socket_set *s, const struct config *c, int fd, int family)
{
    union name name, wanted;
    socklen_t len = sizeof name;
    if (getsockname(fd, &name.any, &len) < 0)
        return false;
    name_of_endpoint(&wanted, &c->addr, family, 0);
    s->bound = endpoint_of_name(&name, NULL);
    struct endpoint at = endpoint_of_name(&wanted, NULL);
    if (at.port == 0)
        at.port = s->bound.port;
    return endpoint_equal(&at, &s->bound);
}

/* NULL, or what is wrong with the list. */
static const char *list_misfit(struct socket_set *s, const struct config *c, unsigned shards,
                               const struct inherited *list, int family)
{
    unsigned receiving = shards + config_has_mesh(c);
    if (list->count != receiving + shards)
        return "inherited sockets: another number of shards, or mesh";
    if (family != AF_INET6 && family != AF_INET)
        return "inherited sockets: not of IP";
    if (!bound_of_first(s, c, list->fds[0], family))
        return "inherited sockets: another address";
    for (unsigned i = 0; i < list->count; i++) {
        int discovery = i < receiving ? IP_PMTUDISC_PROBE : IP_PMTUDISC_WANT;
        if (!member_fits(s, list->fds[i], family, discovery))
            return "inherited sockets: not the sockets of a beacon";
        for (unsigned k = 0; k < i; k++)
            if (same_socket(list->fds[k], list->fds[i]))
                return "inherited sockets: one of them twice";
    }
    return NULL;
}

/* A descriptor that came through another process has lost this one's flags. */
static int flags_set(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

/* Options and buffers may be configured otherwise than the former owner's. */
static int list_set(struct socket_set *s, const struct config *c, unsigned shards,
                    const struct inherited *list, int family)
{
    int err = 0;
    unsigned receiving = shards + config_has_mesh(c);
    for (unsigned i = 0; err == 0 && i < list->count; i++) {
        err = flags_set(list->fds[i]);
        if (err == 0)
            err = i < receiving ? narrow_set(s, c, list->fds[i], family, i < shards)
                                : wide_set(c, list->fds[i], family);
    }
    return err;
}

static int set_adopt(struct socket_set *s, const struct config *c, unsigned shards,
                     const struct inherited *list, const char **failed)
{
    int family = list->count > 0 ? option_of(list->fds[0], SOL_SOCKET, SO_DOMAIN) : -1;
    const char *misfit = list_misfit(s, c, shards, list, family);
    *failed = misfit ? misfit : "inherited sockets: options";
    int err = misfit ? -ESTALE : list_set(s, c, shards, list, family);
    if (err < 0)
        return err;
    bool mesh = config_has_mesh(c);
    s->dual_stack = family == AF_INET6;
    s->mesh = mesh ? list->fds[shards] : -1;
    for (unsigned i = 0; i < shards; i++)
        s->of[s->count++] = (struct io_sockets){
            .family = family, .narrow = list->fds[i], .wide = list->fds[shards + mesh + i]};
    return 0;
}

int sockets_open(struct socket_set *ret, const struct config *c, unsigned shards,
                 struct owner_key key, const struct inherited *inherited, const char **failed)
{
    struct socket_set s = {.any_address = endpoint_is_any(&c->addr), .mesh = -1};
    int err = inherited ? set_adopt(&s, c, shards, inherited, failed)
                        : set_open(&s, c, shards, key, failed);
    if (err == 0)
        *ret = s;
    return err;
}

int sockets_steer(const struct socket_set *s, struct owner_key key)
{
    if (s->steer_error)
        return 0;
    return steer_attach(s->of[0].narrow, key, s->count, s->mesh >= 0);
}

unsigned sockets_list(const struct socket_set *s, int *fds, unsigned max)
{
    unsigned n = 0;
    if (s->steer_error || 2 * s->count + (s->mesh >= 0) > max)
        return 0;
    for (unsigned i = 0; i < s->count; i++)
        fds[n++] = s->of[i].narrow;
    if (s->mesh >= 0)
        fds[n++] = s->mesh;
    for (unsigned i = 0; i < s->count; i++)
        fds[n++] = s->of[i].wide;
    return n;
}

uint64_t socket_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS];
    socklen_t len = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 || len <= SK_MEMINFO_DROPS * 4)
        return 0;
    return info[SK_MEMINFO_DROPS];
}
