#include "gossip/registry_link.h"

#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gossip/discover.h"
#include "gossip/resolve.h"
#include "proto/sockaddr.h"

enum { HEAD_LEN = 4 };
#define NS_PER_S UINT64_C(1000000000)

struct link {
    int fd, stop;
    SSL *ssl; /* NULL: plain */
    uint64_t until_ns;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Only the first reason counts: the others follow from it. */
static void explain(struct registry_cycle *c, const char *doing, const char *reason)
{
    if (c->error[0] == '\0')
        snprintf(c->error, sizeof c->error, "%s: %.180s", doing, reason);
}

static const char *tls_reason(const struct link *l)
{
    long verdict = SSL_get_verify_result(l->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    if (verdict != X509_V_OK)
        return X509_verify_cert_error_string(verdict);
    return reason ? reason : "no TLS";
}

/* --- bytes --- */

/* 0: it is ready. */
static int link_wait(const struct link *l, short events, uint64_t until_ns)
{
    struct pollfd p[] = {{.fd = l->stop, .events = POLLIN}, {.fd = l->fd, .events = events}};
    for (;;) {
        uint64_t now = now_ns(), left_ns = until_ns > now ? until_ns - now : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / NS_PER_S),
                                .tv_nsec = (long)(left_ns % NS_PER_S)};
        int n = ppoll(p, 2, &left, NULL);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            return p[0].revents ? -ECANCELED : 0;
        if (n == 0 && left_ns == 0)
            return -ETIMEDOUT;
    }
}

/* What a call of OpenSSL that did not end well waits for, or why it never will. */
static int tls_wait(const struct link *l, int result)
{
    switch (SSL_get_error(l->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return link_wait(l, POLLIN, l->until_ns);
    case SSL_ERROR_WANT_WRITE:
        return link_wait(l, POLLOUT, l->until_ns);
    case SSL_ERROR_ZERO_RETURN:
        return -ECONNRESET;
    default:
        return -EPROTO;
    }
}

static int send_some(const struct link *l, const uint8_t *bytes, size_t len, size_t *ret_len)
{
    if (l->ssl) {
        ERR_clear_error();
        int result = SSL_write_ex(l->ssl, bytes, len, ret_len);
        return result == 1 ? 0 : tls_wait(l, result);
    }
    ssize_t n = send(l->fd, bytes, len, MSG_NOSIGNAL);
    if (n >= 0)
        *ret_len = (size_t)n;
    else if (errno == EAGAIN)
        return link_wait(l, POLLOUT, l->until_ns);
    return n < 0 && errno != EINTR ? -errno : 0;
}

static int receive_some(const struct link *l, uint8_t *bytes, size_t len, size_t *ret_len)
{
    if (l->ssl) {
        ERR_clear_error();
        int result = SSL_read_ex(l->ssl, bytes, len, ret_len);
        return result == 1 ? 0 : tls_wait(l, result);
    }
    ssize_t n = recv(l->fd, bytes, len, 0);
    if (n > 0)
        *ret_len = (size_t)n;
    else if (n == 0)
        return -ECONNRESET;
    else if (errno == EAGAIN)
        return link_wait(l, POLLIN, l->until_ns);
    return n < 0 && errno != EINTR ? -errno : 0;
}

static int send_all(const struct link *l, const uint8_t *bytes, size_t len)
{
    int err = 0;
    while (len > 0 && err == 0) {
        size_t n = 0;
        err = send_some(l, bytes, len, &n);
        bytes += n;
        len -= n;
    }
    return err;
}

static int receive_all(const struct link *l, uint8_t *bytes, size_t len)
{
    int err = 0;
    while (len > 0 && err == 0) {
        size_t n = 0;
        err = receive_some(l, bytes, len, &n);
        bytes += n;
        len -= n;
    }
    return err;
}

/* --- connect --- */

static int finish_connect(const struct link *l, uint64_t until_ns)
{
    int failed = 0, err = link_wait(l, POLLOUT, until_ns);
    socklen_t len = sizeof failed;
    if (err == 0 && getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0)
        err = -errno;
    return err < 0 ? err : -failed;
}

static int connect_one(struct link *l, const struct addrinfo *a, uint64_t until_ns)
{
    l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return -errno;
    int err = connect(l->fd, a->ai_addr, a->ai_addrlen) < 0 ? -errno : 0;
    if (err == -EINPROGRESS || err == -EINTR)
        err = finish_connect(l, until_ns);
    if (err < 0) {
        close(l->fd);
        l->fd = -1;
    }
    return err;
}

/* Each address gets its share of the time, so that a silent one does not take it from the next. */
static int connect_any(struct link *l, const struct addrinfo *list)
{
    uint64_t until_ns = now_ns() + DISCOVER_CONNECT_S * NS_PER_S, left = 0;
    int err = -EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = list; a; a = a->ai_next, left--) {
        uint64_t now = now_ns(), share_ns = until_ns > now ? (until_ns - now) / left : 0;
        err = connect_one(l, a, now + share_ns);
        if (err == 0 || err == -ECANCELED)
            break;
    }
    return err;
}

static bool tls_expect(SSL *ssl, char *host)
{
    struct endpoint e;
    if (endpoint_parse_ip(host, &e))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    size_t len = strlen(host);
    if (host[len - 1] == '.') /* the root's dot, which no certificate has */
        host[len - 1] = '\0';
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 &&
           SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host) == 1;
}

static bool tls_begin(struct link *l, struct registry_cycle *c)
{
    ERR_clear_error();
    l->ssl = SSL_new(c->tls);
    if (!l->ssl || !tls_expect(l->ssl, c->at.host) || SSL_set_fd(l->ssl, l->fd) != 1) {
        explain(c, "cannot begin TLS", "no memory");
        return false;
    }
    for (;;) {
        ERR_clear_error();
        int result = SSL_connect(l->ssl);
        int err = result == 1 ? 0 : tls_wait(l, result);
        if (result == 1)
            return true;
        if (err < 0) {
            explain(c, "cannot begin TLS", err == -EPROTO ? tls_reason(l) : strerror(-err));
            return false;
        }
    }
}

static bool link_open(struct link *l, struct registry_cycle *c)
{
    struct addrinfo *list;
    int err = resolve_list(c->at.host, c->at.port, &list);
    if (err != 0) {
        explain(c, "cannot find it", gai_strerror(err));
        return false;
    }
    l->until_ns = now_ns() + DISCOVER_WAIT_S * NS_PER_S;
    err = connect_any(l, list);
    freeaddrinfo(list);
    if (err < 0) {
        explain(c, "cannot connect", strerror(-err));
        return false;
    }
    return !c->tls || tls_begin(l, c);
}

static void link_close(struct link *l)
{
    if (l->ssl)
        (void)SSL_shutdown(l->ssl); /* a courtesy; whether it arrives does not matter */
    SSL_free(l->ssl);
    if (l->fd >= 0)
        close(l->fd);
}

/* --- talk --- */

/* The body of the answer, to be freed; NULL with the reason. */
static char *ask(const struct link *l, struct registry_cycle *c, const char *doing,
                 const char *message, size_t len, size_t *ret_len)
{
    uint8_t head[HEAD_LEN];
    char *body = NULL;
    int err = len > 0 ? send_all(l, (const uint8_t *)message, len) : -EMSGSIZE;
    if (err == 0)
        err = receive_all(l, head, sizeof head);
    size_t whole = err == 0 ? registry_frame_len(head, sizeof head) : 0;
    if (whole == SIZE_MAX)
        err = -EPROTO;
    if (err == 0 && !(body = malloc(whole)))
        err = -ENOMEM;
    if (err == 0)
        err = receive_all(l, (uint8_t *)body, whole - HEAD_LEN);
    if (err == 0) {
        *ret_len = whole - HEAD_LEN;
        return body;
    }
    explain(c, doing, whole == SIZE_MAX ? "the answer is no frame, or too long" : strerror(-err));
    free(body);
    return NULL;
}

static bool ask_list(const struct link *l, struct registry_cycle *c, struct registry_list *ret)
{
    char message[REGISTRY_MESSAGE_MAX], reason[REGISTRY_ERROR_MAX] = "";
    size_t body_len, len = registry_list_message(message, sizeof message);
    char *body = ask(l, c, "cannot list", message, len, &body_len);
    bool good = body && registry_listed(body, body_len, ret, reason);
    if (body && !good)
        explain(c, "cannot list", reason);
    free(body);
    return good;
}

static bool ask_registration(const struct link *l, struct registry_cycle *c)
{
    char message[REGISTRY_MESSAGE_MAX], reason[REGISTRY_ERROR_MAX] = "";
    size_t body_len,
        len = registry_register_message(message, sizeof message, c->beacon_id, c->addr, c->token);
    char *body = ask(l, c, "cannot register", message, len, &body_len);
    bool good = body && registry_registered(body, body_len, c->beacon_id, reason);
    if (body && !good)
        explain(c, "cannot register", reason);
    free(body);
    explicit_bzero(message, sizeof message); /* the token */
    return good;
}

/* The bound address; a wildcard is replaced by that of this connection. */
static struct endpoint local_endpoint(const struct link *l, const struct registry_cycle *c)
{
    union name name = {0};
    socklen_t len = sizeof name;
    struct endpoint at = c->bound;
    if (endpoint_is_any(&at) && getsockname(l->fd, &name.any, &len) == 0) {
        at = endpoint_of_name(&name, NULL);
        at.port = c->bound.port;
    }
    return at;
}

static void choose_address(const struct link *l, struct registry_cycle *c)
{
    char text[ENDPOINT_TEXT_MAX];
    struct endpoint local = local_endpoint(l, c), at;
    const char *own = c->advertise[0] ? c->advertise : endpoint_format(&local, text);
    snprintf(c->addr, sizeof c->addr, "%s", own);
    c->scope = ip_scope(endpoint_parse(own, &at) ? at.ip : local.ip);
}

void registry_cycle_run(struct registry_cycle *c)
{
    struct link l = {.fd = -1, .stop = c->stop};
    if (link_open(&l, c)) {
        choose_address(&l, c);
        c->looked = c->looks_first && ask_list(&l, c, &c->before);
        c->registered = ask_registration(&l, c);
        c->listed = ask_list(&l, c, &c->list);
    }
    link_close(&l);
}

SSL_CTX *registry_tls_open(const char *ca, char error[static REGISTRY_ERROR_MAX])
{
    ERR_clear_error();
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (tls && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1 &&
        (ca[0] ? SSL_CTX_load_verify_file(tls, ca) : SSL_CTX_set_default_verify_paths(tls)) == 1) {
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
        return tls;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(error, REGISTRY_ERROR_MAX, "%.140s: cannot take the authorities: %.60s", ca,
             reason ? reason : "no memory");
    SSL_CTX_free(tls);
    ERR_clear_error();
    return NULL;
}
