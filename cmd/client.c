#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include "cmd/client.h"
#include "proto/endpoint.h"

/* --- the address --- */

static bool copy(char *to, size_t size, const char *from, size_t len)
{
    if (len >= size)
        return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

static bool read_port(struct client *c, const char *text, size_t len)
{
    return len > 0 && len <= 5 && strspn(text, "0123456789") >= len &&
           copy(c->port, sizeof c->port, text, len);
}

/* "host:port", "[v6]:port", ":port" (here), and without a port where there is a default. */
static bool read_host(struct client *c, const char *text, size_t len, const char *port)
{
    const char *end = text + len, *host_end;
    if (len > 0 && text[0] == '[') {
        host_end = memchr(++text, ']', len - 1);
        if (!host_end)
            return false;
    } else {
        const char *colon = memchr(text, ':', len);
        host_end = colon ? colon : end;
    }
    const char *rest = host_end + (host_end < end && *host_end == ']');
    if (rest < end && *rest != ':')
        return false;
    bool good = rest < end ? read_port(c, rest + 1, (size_t)(end - rest - 1))
                           : read_port(c, port, strlen(port));
    size_t host_len = (size_t)(host_end - text);
    if (host_len == 0)
        return good && copy(c->host, sizeof c->host, "localhost", 9);
    return good && copy(c->host, sizeof c->host, text, host_len);
}

static bool read_url(struct client *c, const char *text, const char *port)
{
    size_t len = strcspn(text, "/?#");
    size_t prefix_len = strlen(text + len);
    while (prefix_len > 0 && text[len + prefix_len - 1] == '/')
        prefix_len--;
    return len > 0 && !strpbrk(text, "?#@ ") && read_host(c, text, len, port) &&
           copy(c->prefix, sizeof c->prefix, text + len, prefix_len);
}

bool client_set_address(struct client *c, const char *text)
{
    bool good = false;
    c->is_unix = c->tls = false;
    c->prefix[0] = '\0';
    if (strncmp(text, "unix:", 5) == 0) {
        struct sockaddr_un name;
        c->is_unix = true;
        good = text[5] && strlen(text + 5) < sizeof name.sun_path &&
               copy(c->host, sizeof c->host, text + 5, strlen(text + 5));
    } else if (strncasecmp(text, "http://", 7) == 0) {
        good = read_url(c, text + 7, "80");
    } else if (strncasecmp(text, "https://", 8) == 0) {
        c->tls = true;
        good = read_url(c, text + 8, "443");
    } else {
        good = strchr(text, ':') && !strpbrk(text, "/?#@ ") && read_host(c, text, strlen(text), "");
    }
    if (!good)
        snprintf(c->error, sizeof c->error,
                 "%s is no address: unix:PATH, HOST:PORT, http://HOST:PORT or https://HOST:PORT",
                 text);
    return good;
}

/* --- one connection --- */

struct link {
    struct client *client;
    int fd;
    SSL *ssl; /* NULL: plain */
    int64_t until_ms;
};

static int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0 or -errno. */
static int link_wait(const struct link *l, short events)
{
    struct pollfd p = {.fd = l->fd, .events = events};
    int64_t left_ms = l->until_ms - clock_ms();
    int n = left_ms > 0 ? poll(&p, 1, (int)left_ms) : 0;
    return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

static int link_connect(struct link *l, const struct sockaddr *to, socklen_t len)
{
    socklen_t size = sizeof(int);
    int err = 0;
    l->fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return -errno;
    if (connect(l->fd, to, len) == 0)
        return 0;
    if (errno != EINPROGRESS && errno != EAGAIN)
        err = -errno;
    if (err == 0)
        err = link_wait(l, POLLOUT);
    if (err == 0 && getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0)
        err = -err;
    if (err < 0) {
        close(l->fd);
        l->fd = -1;
    }
    return err;
}

static int connect_unix(struct link *l, const char *path)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
    } name = {.un.sun_family = AF_UNIX};
    memcpy(name.un.sun_path, path, strlen(path) + 1); /* its length was checked */
    return link_connect(l, &name.any, sizeof name.un);
}

/* The first address that takes us. */
static int connect_tcp(struct link *l, const struct client *c, const char **ret_why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int code = getaddrinfo(c->host, c->port, &hints, &found), err = -EHOSTUNREACH;
    if (code != 0) {
        *ret_why = gai_strerror(code);
        return err;
    }
    for (const struct addrinfo *i = found; i; i = i->ai_next) {
        err = link_connect(l, i->ai_addr, i->ai_addrlen);
        if (err == 0)
            break;
    }
    freeaddrinfo(found);
    return err;
}

static int fail(struct client *c, int code, const char *doing, const char *why)
{
    snprintf(c->error, sizeof c->error, "%s %s%s%s: %s", doing, c->host, c->is_unix ? "" : " port ",
             c->is_unix ? "" : c->port, why);
    return code;
}

static int link_open(struct link *l, struct client *c)
{
    const char *why = NULL;
    l->fd = -1;
    int err = c->is_unix ? connect_unix(l, c->host) : connect_tcp(l, c, &why);
    if (err == 0)
        return 0;
    bool denied = err == -EACCES || err == -EPERM;
    return fail(c, denied ? EX_NOPERM : EX_UNAVAILABLE, "cannot reach", why ? why : strerror(-err));
}

static void link_close(struct link *l)
{
    SSL_free(l->ssl);
    if (l->fd >= 0)
        close(l->fd);
}

/* --- TLS --- */

static const char *tls_reason(const SSL *ssl)
{
    long verdict = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;
    if (verdict != X509_V_OK)
        return X509_verify_cert_error_string(verdict);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "the connection was closed";
}

static SSL_CTX *context_new(const struct client *c)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context)
        return NULL;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, c->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    int good = c->ca ? SSL_CTX_load_verify_locations(context, c->ca, NULL)
                     : SSL_CTX_set_default_verify_paths(context);
    if (good != 1) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

/* The certificate must be for the name, or the address, that was given. */
static bool name_set(SSL *ssl, char *host)
{
    struct endpoint e;
    if (endpoint_parse_ip(host, &e))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

/* What a TLS call that returned `n` waits for; 0 or -errno when it was waited for. */
static int tls_wait(struct link *l, int n)
{
    switch (SSL_get_error(l->ssl, n)) {
    case SSL_ERROR_WANT_READ:
        return link_wait(l, POLLIN);
    case SSL_ERROR_WANT_WRITE:
        return link_wait(l, POLLOUT);
    default:
        return -EPROTO;
    }
}

static int tls_open_link(struct link *l, struct client *c)
{
    int n, err = 0;
    ERR_clear_error();
    if (!c->context)
        c->context = context_new(c);
    if (!c->context)
        return fail(c, EXIT_FAILURE, "no TLS to", c->ca ? c->ca : "no memory");
    l->ssl = SSL_new(c->context);
    if (!l->ssl || SSL_set_fd(l->ssl, l->fd) != 1 || !name_set(l->ssl, c->host))
        return fail(c, EXIT_FAILURE, "no TLS to", "no memory");
    while (err == 0 && (n = SSL_connect(l->ssl)) != 1)
        err = tls_wait(l, n);
    if (err < 0)
        return fail(c, EX_UNAVAILABLE, "no TLS to",
                    err == -EPROTO ? tls_reason(l->ssl) : strerror(-err));
    return 0;
}

/* --- bytes --- */

/* Waits until some were taken. Their number or -errno. */
static ssize_t link_write(struct link *l, const char *bytes, size_t len)
{
    for (;;) {
        int err = 0;
        if (l->ssl) {
            size_t done;
            int n = SSL_write_ex(l->ssl, bytes, len, &done);
            if (n == 1)
                return (ssize_t)done;
            err = tls_wait(l, n);
        } else {
            ssize_t n = send(l->fd, bytes, len, MSG_NOSIGNAL);
            if (n >= 0)
                return n;
            err = errno == EAGAIN ? link_wait(l, POLLOUT) : -errno;
        }
        if (err < 0)
            return err;
    }
}

/* 0 at the end. */
static ssize_t link_read(struct link *l, char *bytes, size_t len)
{
    for (;;) {
        int err = 0;
        if (l->ssl) {
            size_t done;
            int n = SSL_read_ex(l->ssl, bytes, len, &done);
            if (n == 1)
                return (ssize_t)done;
            if (SSL_get_error(l->ssl, n) == SSL_ERROR_ZERO_RETURN)
                return 0;
            err = tls_wait(l, n);
        } else {
            ssize_t n = recv(l->fd, bytes, len, 0);
            if (n >= 0)
                return n;
            err = errno == EAGAIN ? link_wait(l, POLLIN) : -errno;
        }
        if (err < 0)
            return err;
    }
}

static int send_all(struct link *l, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = link_write(l, bytes, len);
        if (n < 0)
            return (int)n;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int send_request(struct link *l, const char *path, const char *body)
{
    const struct client *c = l->client;
    bool v6 = strchr(c->host, ':');
    char *text = NULL;
    int len = asprintf(&text,
                       "%s %s%s HTTP/1.0\r\nHost: %s%s%s%s%s\r\n%s%s%s%s"
                       "Accept: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       body ? "POST" : "GET", c->prefix, path, v6 ? "[" : "",
                       c->is_unix ? "localhost" : c->host, v6 ? "]" : "", c->is_unix ? "" : ":",
                       c->is_unix ? "" : c->port, c->token ? "Authorization: Bearer " : "",
                       c->token ? c->token : "", c->token ? "\r\n" : "",
                       body ? "Content-Type: application/json\r\n" : "", body ? strlen(body) : 0,
                       body ? body : "");
    if (len < 0)
        return -ENOMEM;
    int err = send_all(l, text, (size_t)len);
    free(text);
    return err;
}

/* --- the answer --- */

/* The head of an answer whose first `len` bytes are there. */
struct head {
    int status;
    size_t len;      /* bytes of it; 0: not complete yet */
    size_t body_len; /* SIZE_MAX: until the end */
};

/* False: no HTTP. */
static bool head_read(const char *text, size_t len, struct head *ret)
{
    *ret = (struct head){.body_len = SIZE_MAX};
    const char *end = memmem(text, len, "\r\n\r\n", 4);
    if (!end)
        return len < 65536;
    if (sscanf(text, "HTTP/1.%*1[01] %3d", &ret->status) != 1 || ret->status < 100)
        return false;
    ret->len = (size_t)(end - text) + 4;
    for (const char *line = text; line && line < end;) {
        if (strncasecmp(line, "Content-Length:", 15) == 0)
            ret->body_len = strtoul(line + 15, NULL, 10);
        line = memmem(line, (size_t)(end - line), "\r\n", 2);
        line = line ? line + 2 : NULL;
    }
    return true;
}

/* Reads until `head` and its body are there. 0 or -errno: -EPROTO for what is no HTTP or was cut.
 */
static int receive(struct link *l, char **text, size_t *ret_len, struct head *head)
{
    size_t len = 0, size = 0;
    for (;;) {
        if (size - len < 4096) {
            char *more = size < CLIENT_ANSWER_MAX ? realloc(*text, size + 65536) : NULL;
            if (!more)
                return -EMSGSIZE;
            *text = more;
            size += 65536;
        }
        ssize_t n = link_read(l, *text + len, size - len - 1);
        if (n < 0)
            return (int)n;
        len += (size_t)n;
        (*text)[len] = '\0';
        *ret_len = len;
        if (head->len == 0 && !head_read(*text, len, head))
            return -EPROTO;
        bool whole = head->len && head->body_len <= len - head->len;
        if (whole || (n == 0 && head->len && head->body_len == SIZE_MAX))
            return 0;
        if (n == 0)
            return -EPROTO;
    }
}

static int exchange(struct link *l, const char *path, const char *body, struct answer *ret)
{
    struct client *c = l->client;
    struct head head = {.len = 0};
    char *text = NULL;
    size_t len = 0;
    int err = send_request(l, path, body);
    if (err == 0)
        err = receive(l, &text, &len, &head);
    if (err < 0) {
        free(text);
        return fail(c, EX_UNAVAILABLE, "no answer from",
                    err == -EPROTO ? "what came is no whole HTTP answer" : strerror(-err));
    }
    size_t body_len = head.body_len == SIZE_MAX ? len - head.len : head.body_len;
    memmove(text, text + head.len, body_len);
    text[body_len] = '\0';
    *ret = (struct answer){.status = head.status, .body = text, .len = body_len};
    return 0;
}

int client_ask(struct client *c, const char *path, const char *body, struct answer *ret)
{
    struct link l = {.client = c, .until_ms = clock_ms() + c->timeout_ms};
    int code = link_open(&l, c);
    if (code == 0 && c->tls)
        code = tls_open_link(&l, c);
    if (code == 0)
        code = exchange(&l, path, body, ret);
    link_close(&l);
    return code;
}

void client_close(struct client *c)
{
    SSL_CTX_free(c->context);
    c->context = NULL;
}
