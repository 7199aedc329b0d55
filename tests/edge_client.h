/* edge_client - a blocking client of edge_rig's edge, with TLS or without. */
#ifndef BEACON_TESTS_EDGE_CLIENT_H
#define BEACON_TESTS_EDGE_CLIENT_H

#include <openssl/ssl.h>
#include <signal.h>
#include "tests/edge_rig.h"

struct client {
    int fd;
    SSL *ssl; /* NULL: plain */
};

static SSL_CTX *client_context;

/* A group's setup and teardown. OpenSSL writes to sockets that the edge has closed. */
static inline int clients_begin(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    client_context = SSL_CTX_new(TLS_client_method());
    return client_context ? 0 : -1;
}

static inline int clients_end(void **state)
{
    (void)state;
    SSL_CTX_free(client_context);
    return 0;
}

static inline struct tls *tls_new(void)
{
    char error[TLS_ERROR_MAX];
    struct tls *t = tls_open_self_made(error);
    if (!t)
        fail_msg("%s", error);
    return t;
}

/* Whether the edge shook hands; the descriptor is open in any case. */
static inline bool client_shakes_hands(struct client *c)
{
    c->ssl = SSL_new(client_context);
    assert_non_null(c->ssl);
    assert_int_equal(SSL_set_fd(c->ssl, c->fd), 1);
    return SSL_connect(c->ssl) == 1;
}

static inline struct client client_of(int fd, bool tls)
{
    struct client c = {.fd = fd};
    if (tls)
        assert_true(client_shakes_hands(&c));
    return c;
}

static inline struct client client_new(bool tls)
{
    return client_of(dial(), tls);
}

static inline void client_close(struct client *c)
{
    SSL_free(c->ssl);
    close(c->fd);
}

static inline void client_say_bytes(struct client *c, const void *bytes, size_t len)
{
    if (c->ssl)
        assert_int_equal(SSL_write(c->ssl, bytes, (int)len), len);
    else
        say_bytes(c->fd, bytes, len);
}

static inline void client_say(struct client *c, const char *text)
{
    client_say_bytes(c, text, strlen(text));
}

/* 0: the end; negative: an error, a reset among them. */
static inline ssize_t client_hear_some(struct client *c, void *bytes, size_t len)
{
    if (!c->ssl)
        return recv(c->fd, bytes, len, 0);
    int n = SSL_read(c->ssl, bytes, (int)len);
    if (n > 0)
        return n;
    return SSL_get_error(c->ssl, n) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

/* Exactly so many. */
static inline void client_hear_bytes(struct client *c, void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = client_hear_some(c, (uint8_t *)bytes + at, len - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
}

static inline void client_expect(struct client *c, const char *text)
{
    char heard[256] = "";
    assert_true(strlen(text) < sizeof heard);
    client_hear_bytes(c, heard, strlen(text));
    assert_string_equal(heard, text);
}

/* The head of an answer. Returns its status. */
static inline int client_hear_head(struct client *c, char head[static 1024])
{
    size_t len = 0;
    memset(head, 0, 1024);
    while (!strstr(head, "\r\n\r\n")) {
        assert_true(len < 1023);
        client_hear_bytes(c, head + len++, 1);
    }
    assert_memory_equal(head, "HTTP/1.1 ", 9);
    return atoi(head + 9);
}

/* Status of an answer with a short body, which is put in `body`. */
static inline int client_hear(struct client *c, char body[static 256])
{
    char head[1024];
    int status = client_hear_head(c, head);
    const char *field = strstr(head, "\r\nContent-Length: ");
    size_t len = field ? strtoul(field + 18, NULL, 10) : 0;
    assert_true(len < 256);
    memset(body, 0, 256);
    client_hear_bytes(c, body, len);
    return status;
}

/* The stream ends in order (with TLS: by close_notify); closes. */
static inline void client_expect_end(struct client *c)
{
    char byte;
    assert_int_equal(client_hear_some(c, &byte, 1), 0);
    client_close(c);
}

/* Cut: an end or a reset, with nothing before; closes. */
static inline void client_expect_cut(struct client *c)
{
    char byte;
    assert_true(client_hear_some(c, &byte, 1) <= 0);
    client_close(c);
}

#endif
