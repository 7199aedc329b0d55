#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/sockaddr.h"
#include "wss/probe.h"

/* What a question over TCP needs while it lasts. */
struct asking {
    int fd;
    SSL *ssl; /* NULL: plain */
    int64_t until_ns;
    bool connected;
};

static int asking_wait(const struct asking *a, short events)
{
    int64_t left_ns = a->until_ns - probe_clock_ns();
    struct pollfd p = {.fd = a->fd, .events = events};
    if (left_ns <= 0)
        return -ETIMEDOUT;
    int n = poll(&p, 1, (int)(left_ns / 1000000) + 1);
    return n > 0 || (n < 0 && errno == EINTR) ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

static int connect_to(struct asking *a, const struct endpoint *at)
{
    union name name;
    int family = endpoint_is_v4(at) ? AF_INET : AF_INET6, err = 0;
    socklen_t len = name_of_endpoint(&name, at, family, 0), size = sizeof err;
    a->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0)
        return -errno;
    if (connect(a->fd, &name.any, len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    int waited = asking_wait(a, POLLOUT);
    if (waited < 0)
        return waited;
    if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
        return -errno;
    return -err;
}

/* What a call of OpenSSL that did not succeed waits for. 0: try again. */
static int tls_wait(struct asking *a, int result)
{
    switch (SSL_get_error(a->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return asking_wait(a, POLLIN);
    case SSL_ERROR_WANT_WRITE:
        return asking_wait(a, POLLOUT);
    default:
        return -EPROTO;
    }
}

static int tls_start(struct asking *a, SSL_CTX *context)
{
    a->ssl = SSL_new(context);
    if (!a->ssl || SSL_set_fd(a->ssl, a->fd) != 1)
        return -ENOMEM;
    for (int n; (n = SSL_connect(a->ssl)) != 1;) {
        int err = tls_wait(a, n);
        if (err < 0)
            return err;
    }
    return 0;
}

/* All of a short text: it fits the socket's buffer, or something is wrong. */
static int asking_write(struct asking *a, const char *text)
{
    int len = (int)strlen(text);
    if (!a->ssl)
        return send(a->fd, text, (size_t)len, MSG_NOSIGNAL) == len ? 0 : -EPIPE;
    return SSL_write(a->ssl, text, len) == len ? 0 : -EPROTO;
}

static int asking_read(struct asking *a, char *text, size_t capacity)
{
    for (;;) {
        int err;
        ssize_t n = a->ssl ? SSL_read(a->ssl, text, (int)capacity) : recv(a->fd, text, capacity, 0);
        if (n > 0)
            return (int)n;
        if (a->ssl)
            err = tls_wait(a, (int)n);
        else
            err = n < 0 && errno == EAGAIN ? asking_wait(a, POLLIN) : -ECONNRESET;
        if (err < 0)
            return err;
    }
}

/* Taken, then closed or reset before a byte came: the listener lives and has no place or no budget
 * for us, which is overload and not a fault. */
static bool turned_away(const struct asking *a)
{
    char byte;
    ssize_t n = recv(a->fd, &byte, 1, MSG_PEEK);
    bool ended = n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE));
    uint64_t heard = a->ssl ? BIO_number_read(SSL_get_rbio(a->ssl)) : 0;
    return a->connected && heard == 0 && ended;
}

static int ask(struct asking *a, const struct probe_target *t, SSL_CTX *context)
{
    static const char expected[] = "HTTP/1.1 200 ";
    char answer[64] = "";
    int err = connect_to(a, &t->at);
    a->connected = err == 0;
    if (err == 0 && t->behind_proxy && send(a->fd, "PROXY UNKNOWN\r\n", 15, MSG_NOSIGNAL) != 15)
        err = -EPIPE;
    if (err == 0 && t->how == PROBE_HTTPS)
        err = tls_start(a, context);
    if (err == 0)
        err =
            asking_write(a, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if (err == 0)
        err = asking_read(a, answer, sizeof answer - 1);
    if (err < 0)
        return err != -ETIMEDOUT && turned_away(a) ? 0 : err;
    return strncmp(answer, expected, sizeof expected - 1) == 0 ? 0 : -EPROTO;
}

int64_t http_probe(const struct probe_target *t, struct ssl_ctx_st *context, unsigned wait_ms)
{
    int64_t start_ns = probe_clock_ns();
    struct asking a = {.fd = -1, .until_ns = start_ns + wait_ms * INT64_C(1000000)};
    int err = ask(&a, t, context);
    if (a.ssl)
        SSL_free(a.ssl);
    if (a.fd >= 0)
        close(a.fd);
    return err < 0 ? err : probe_clock_ns() - start_ns;
}
