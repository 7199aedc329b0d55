/* edge_rig - a real edge on the loopback interface, and its clients on real sockets. */
#ifndef BEACON_TESTS_EDGE_RIG_H
#define BEACON_TESTS_EDGE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "server/stats.h"
#include "wss/conn.h"
#include "wss/edge.h"

enum { LONG_WAIT_MS = 5000 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* --- the server's side --- */

/* Times that no test meets by chance. */
static const struct edge_limits relaxed = {.head_ms = 5000,
                                           .body_ms = 5000,
                                           .idle_ms = 5000,
                                           .write_ms = 5000,
                                           .stuck_ms = 5000,
                                           .connections = EDGE_HTTP_CONNECTIONS,
                                           .per_ipv4 = 64,
                                           .per_ipv6_64 = 16,
                                           .queue_each = 256 << 10,
                                           .queue_total = 64 << 20};

static struct edge *edge;
static uint16_t port;

/* Opened, not started. */
static inline void edge_open_at(const char *at, struct edge_listener listener,
                                const struct edge_limits *limits)
{
    const char *failed;
    unsigned sessions = limits->connections > EDGE_HTTP_CONNECTIONS
                            ? limits->connections - EDGE_HTTP_CONNECTIONS
                            : 0;
    listener.name = "test";
    assert_true(endpoint_parse(at, &listener.at));
    assert_int_equal(edge_open(&edge, &listener, 1, sessions, &failed), 0);
    assert_null(failed);
    port = listener.at.port;
    edge_set_limits(edge, limits);
}

static inline int edge_down(void **state)
{
    (void)state;
    if (edge)
        edge_close(edge);
    edge = NULL;
    return 0;
}

/* Counters move on another thread: they get there soon or not at all. */
static inline void expect_count(const _Atomic uint64_t *count, uint64_t want)
{
    for (int ms = 0; ms < LONG_WAIT_MS && count_read(count) != want; ms += 2)
        poll(NULL, 0, 2);
    assert_int_equal(count_read(count), want);
}

/* --- the client's side --- */

static inline int64_t now_ms(void)
{
    return (int64_t)(edge_clock_ns() / 1000000);
}

static inline int client_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval wait = {.tv_sec = LONG_WAIT_MS / 1000};
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), 0);
    int on = 1; /* what is said in pieces goes in pieces */
    if (family != AF_UNIX)
        assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return fd;
}

static inline void client_connect(int fd, const char *from)
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    if (from) {
        assert_int_equal(inet_pton(AF_INET, from, &name.sin_addr), 1);
        assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    }
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
}

static inline int dial(void)
{
    int fd = client_socket(AF_INET);
    client_connect(fd, NULL);
    return fd;
}

/* -1 when the host has no IPv6. */
static inline int dial6(void)
{
    struct sockaddr_in6 name = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = client_socket(AF_INET6);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0)
        return fd;
    close(fd);
    return -1;
}

static inline void say_bytes(int fd, const char *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, bytes + at, len - at, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += (size_t)n;
    }
}

static inline void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

struct answer {
    int status;
    size_t body_len; /* as Content-Length says */
    char head[1024];
    char body[256]; /* its beginning */
};

/* Reads exactly the head: what follows is for the next call. False: the stream ended before. */
static inline bool hear_head(int fd, struct answer *a)
{
    size_t len = 0;
    memset(a, 0, sizeof *a);
    while (!strstr(a->head, "\r\n\r\n")) {
        assert_true(len < sizeof a->head - 1);
        ssize_t n = recv(fd, a->head + len, 1, 0);
        if (n == 0 && len == 0)
            return false;
        assert_int_equal(n, 1);
        len++;
    }
    assert_memory_equal(a->head, "HTTP/1.1 ", 9);
    a->status = atoi(a->head + 9);
    const char *field = strstr(a->head, "\r\nContent-Length: ");
    assert_non_null(field);
    a->body_len = strtoul(field + 18, NULL, 10);
    return true;
}

static inline void hear_body(int fd, struct answer *a)
{
    static char bytes[65536];
    for (size_t at = 0; at < a->body_len;) {
        size_t left = a->body_len - at;
        ssize_t n = recv(fd, bytes, left < sizeof bytes ? left : sizeof bytes, 0);
        assert_true(n > 0);
        for (ssize_t i = 0; i < n && at + (size_t)i < sizeof a->body - 1; i++)
            a->body[at + (size_t)i] = bytes[i];
        at += (size_t)n;
    }
}

static inline struct answer hear(int fd)
{
    struct answer a;
    assert_true(hear_head(fd, &a));
    hear_body(fd, &a);
    return a;
}

static inline struct answer ask(int fd, const char *request)
{
    say(fd, request);
    return hear(fd);
}

/* The stream ends in order: not with a reset, and with nothing more before. */
static inline void expect_end(int fd)
{
    char byte;
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

/* The same, and the client need not wait for a time limit of ours. */
static inline void expect_end_now(int fd)
{
    int64_t start_ms = now_ms();
    expect_end(fd);
    assert_true(now_ms() - start_ms < CONN_LINGER_MS / 2);
}

/* Cut: an end or a reset, but no answer. */
static inline void expect_cut(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
}

static inline void expect_between(int64_t value, int64_t least, int64_t most)
{
    if (value < least || value > most)
        fail_msg("%d is not within %d and %d", (int)value, (int)least, (int)most);
}

#define HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

#endif
