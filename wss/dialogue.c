#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wss/dialogue.h"

enum { KEEPALIVE_S = 60 };

uint64_t dialogue_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int dialogue_wait(int stop, int fd, short events, uint64_t until_ns)
{
    struct pollfd p[] = {{.fd = stop, .events = POLLIN}, {.fd = fd, .events = events}};
    for (;;) {
        uint64_t now_ns = dialogue_now_ns();
        uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000),
                                .tv_nsec = (long)(left_ns % 1000000000)};
        int n = ppoll(p, 2, &left, NULL);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            return p[0].revents ? -ECANCELED : 0;
        if (n == 0 && left_ns == 0)
            return -ETIMEDOUT;
    }
}

int dialogue_open(struct dialogue *d, enum registry_lookup dialect, int stop)
{
    *d = (struct dialogue){.dialect = dialect, .stop = stop, .fd = -1};
    d->frame = malloc(DIALECT_FRAME_MAX);
    return d->frame ? 0 : -ENOMEM;
}

void dialogue_close(struct dialogue *d)
{
    dialogue_hang_up(d);
    free(d->frame);
}

void dialogue_hang_up(struct dialogue *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
    d->asked = false;
}

bool dialogue_is_ready(struct dialogue *d)
{
    uint8_t byte;
    if (d->fd < 0)
        return false;
    if (recv(d->fd, &byte, sizeof byte, MSG_PEEK) < 0 && errno == EAGAIN)
        return true;
    dialogue_hang_up(d);
    return false;
}

/* --- connect --- */

static int finish_connect(const struct dialogue *d, int fd, uint64_t until_ns)
{
    int err = dialogue_wait(d->stop, fd, POLLOUT, until_ns), failed = 0;
    socklen_t len = sizeof failed;
    if (err == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0)
        err = -errno;
    return err < 0 ? err : -failed;
}

/* Best effort: without them a dead registry is found by the next question only. */
static void set_options(int fd)
{
    static const int on = 1, idle_s = KEEPALIVE_S;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
}

static int connect_one(struct dialogue *d, const struct addrinfo *at, uint64_t until_ns)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int err = connect(fd, at->ai_addr, at->ai_addrlen) < 0 ? -errno : 0;
    if (err == -EINPROGRESS || err == -EINTR)
        err = finish_connect(d, fd, until_ns);
    if (err < 0) {
        close(fd);
        return err;
    }
    set_options(fd);
    d->fd = fd;
    return 0;
}

int dialogue_connect(struct dialogue *d, const struct addrinfo *list, uint64_t until_ns)
{
    int err = -EADDRNOTAVAIL;
    uint64_t left = 0;
    dialogue_hang_up(d);
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = list; a; a = a->ai_next, left--) {
        uint64_t now_ns = dialogue_now_ns();
        uint64_t share_ns = until_ns > now_ns ? (until_ns - now_ns) / left : 0;
        err = connect_one(d, a, now_ns + share_ns);
        if (err == 0 || err == -ECANCELED)
            return err;
    }
    return err;
}

/* --- ask --- */

static int send_all(const struct dialogue *d, const uint8_t *bytes, size_t len, uint64_t until_ns)
{
    while (len > 0) {
        ssize_t n = send(d->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            int err = dialogue_wait(d->stop, d->fd, POLLOUT, until_ns);
            if (err < 0)
                return err;
        } else if (n < 0 && errno != EINTR) {
            return errno == EPIPE ? -ECONNRESET : -errno;
        } else if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* Waits before each read, so that a registry that never pauses meets the deadline, too. */
static int receive_all(const struct dialogue *d, uint8_t *bytes, size_t len, uint64_t until_ns)
{
    while (len > 0) {
        int err = dialogue_wait(d->stop, d->fd, POLLIN, until_ns);
        if (err < 0)
            return err;
        ssize_t n = recv(d->fd, bytes, len, 0);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int receive_frame(struct dialogue *d, uint64_t until_ns, size_t *ret_len)
{
    uint8_t head[4];
    int err = receive_all(d, head, sizeof head, until_ns);
    if (err < 0)
        return err;
    struct reader r = reader_of(head, sizeof head);
    uint32_t len = read_u32(&r);
    if (len == 0 || len > DIALECT_FRAME_MAX)
        return -EPROTO;
    err = receive_all(d, d->frame, len, until_ns);
    if (err < 0)
        return err;
    *ret_len = len;
    return 0;
}

int dialogue_ask(struct dialogue *d, uint32_t node_id, uint64_t until_ns,
                 enum keys_verdict *ret_verdict, uint8_t ret_key[static MSG_KEY_LEN])
{
    uint8_t request[DIALECT_REQUEST_MAX];
    struct writer w = writer_of(request, sizeof request);
    size_t len = 0;
    dialect_write_request(&w, d->dialect, !d->asked, node_id);
    d->asked = true;
    int err = send_all(d, request, written(&w), until_ns);
    if (err == 0)
        err = receive_frame(d, until_ns, &len);
    if (err < 0)
        return err;
    *ret_verdict = dialect_read_answer(d->dialect, d->frame, len, node_id, ret_key);
    return 0;
}
