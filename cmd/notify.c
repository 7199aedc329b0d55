#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "cmd/notify.h"

enum {
    FIRST_INHERITED = 3, /* sd_listen_fds(3) */
    INHERITED_MAX = 1024,
    STATE_MAX = 128,
};

/* A datagram to the manager, with a copy of `fd` unless that is -1. 0 or -errno. */
static int state_send(const char *state, int fd)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path)
        return -ENOTCONN;
    size_t len = strlen(path);
    memcpy(to.sun_path, path, len);
    if (path[0] == '@')
        to.sun_path[0] = '\0'; /* abstract name */
    int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -errno;
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof fd)] = {0};
    char text[STATE_MAX];
    snprintf(text, sizeof text, "%s", state);
    struct iovec piece = {text, strlen(text)};
    struct msghdr m = {.msg_name = &to,
                       .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len),
                       .msg_iov = &piece,
                       .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    /* What is to be kept is worth waiting for; anything else is not. */
    int err = sendmsg(s, &m, MSG_NOSIGNAL | (fd >= 0 ? 0 : MSG_DONTWAIT)) < 0 ? -errno : 0;
    close(s);
    return err;
}

void notify_send(const char *state)
{
    /* The manager going away is its own business: a service runs on without it. */
    (void)state_send(state, -1);
}

void notify_reloading(void)
{
    char state[64];
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
    notify_send(state);
}

uint64_t notify_watchdog_us(void)
{
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!us || (pid && strtol(pid, NULL, 10) != getpid()))
        return 0;
    return strtoull(us, NULL, 10);
}

/* --- the store --- */

int notify_store(const int *fds, unsigned count, const char *name, bool numbered)
{
    int err = 0;
    for (unsigned i = 0; err == 0 && i < count; i++) {
        char state[STATE_MAX], number[16] = "";
        if (numbered)
            snprintf(number, sizeof number, "-%u", i);
        /* Not polled: an error on a socket must not make the manager drop one of an ordered set. */
        snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s%s\nFDPOLL=0", name, number);
        err = state_send(state, fds[i]);
    }
    return err;
}

void notify_forget(const char *name, unsigned count)
{
    char state[STATE_MAX];
    if (count == 0) {
        snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);
        notify_send(state);
    }
    for (unsigned i = 0; i < count; i++) {
        snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s-%u", name, i);
        notify_send(state);
    }
}

/* The number behind "beacon-udp-": the name is one of ours, in its one spelling. */
static bool udp_index(const char *name, size_t len, unsigned *ret)
{
    char wanted[32];
    for (unsigned i = 0; i < SHARDS_DESCRIPTORS_MAX; i++) {
        int n = snprintf(wanted, sizeof wanted, NOTIFY_UDP "-%u", i);
        if ((size_t)n == len && memcmp(name, wanted, len) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/* Takes one over, by its name. False: there is one of that name already, or it is not open. */
static bool inherited_take(struct notify_inherited *in, int fd, const char *name, size_t len)
{
    unsigned i;
    int *place = NULL;
    if (len == strlen(NOTIFY_TABLE) && memcmp(name, NOTIFY_TABLE, len) == 0)
        place = &in->table;
    else if (udp_index(name, len, &i))
        place = &in->udp[i];
    if (!place) {
        close(fd);
        return true;
    }
    if (*place >= 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return false;
    *place = fd;
    in->udp_count += place != &in->table;
    return true;
}

/* The names, one for each descriptor. Takes none when there are more or fewer. */
static bool names_take(struct notify_inherited *in, unsigned count, const char *names)
{
    unsigned fields = 1;
    for (const char *at = names; *at; at++)
        fields += *at == ':';
    if (fields != count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        size_t len = strcspn(names, ":");
        if (!inherited_take(in, FIRST_INHERITED + (int)i, names, len))
            return false;
        names += len + 1;
    }
    return true;
}

/* Numbers without a gap: a set that lacks one is of no use. */
static bool is_whole(const struct notify_inherited *in)
{
    for (unsigned i = 0; i < in->udp_count; i++)
        if (in->udp[i] < 0)
            return false;
    return true;
}

int notify_inherited(struct notify_inherited *ret)
{
    struct notify_inherited in = {.table = -1};
    const char *pid = getenv("LISTEN_PID"), *text = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    long count = text && pid && strtol(pid, NULL, 10) == getpid() ? strtol(text, NULL, 10) : 0;
    bool good = count == 0;
    for (unsigned i = 0; i < SHARDS_DESCRIPTORS_MAX; i++)
        in.udp[i] = -1;
    if (count > 0 && count <= INHERITED_MAX)
        good = names && names_take(&in, (unsigned)count, names) && is_whole(&in);
    for (int i = 0; !good && i < count && i < INHERITED_MAX; i++)
        close(FIRST_INHERITED + i);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (!good)
        in = (struct notify_inherited){.table = -1};
    *ret = in;
    return good ? 0 : -EINVAL;
}
