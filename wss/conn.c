#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/stats.h"
#include "wss/conn.h"

static uint64_t deadline(const struct conn_turn *turn, unsigned ms)
{
    return turn->now_ns + ms * UINT64_C(1000000);
}

/* The byte stream below HTTP: these two are all that a TLS connection does differently. Both return
 * the number of bytes or -errno; -EAGAIN waits for epoll, 0 from conn_read is the end. */
static ssize_t conn_read(const struct conn *c, char *bytes, size_t len)
{
    ssize_t n;
    do
        n = recv(c->fd, bytes, len, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* `more` follows at once: no need for a segment of its own. */
static ssize_t conn_write(const struct conn *c, const void *bytes, size_t len, bool more)
{
    ssize_t n;
    do
        n = send(c->fd, bytes, len, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void conn_await_request(struct conn *c, const struct conn_turn *turn)
{
    c->pipelined = c->in_len > 0;
    c->state = c->pipelined ? CONN_HEAD : CONN_IDLE;
    c->deadline_ns = deadline(turn, c->pipelined ? turn->limits->head_ms : turn->limits->idle_ms);
}

static void conn_linger(struct conn *c, const struct conn_turn *turn)
{
    /* Fails only when the client is gone, which the next read tells too. */
    (void)shutdown(c->fd, SHUT_WR);
    c->state = CONN_LINGER;
    c->drained = 0;
    c->deadline_ns = deadline(turn, CONN_LINGER_MS);
}

/* Writes what the socket takes. */
static bool conn_send(struct conn *c, const struct conn_turn *turn)
{
    size_t total = c->head_len + c->body_len;
    while (c->sent < total) {
        bool in_head = c->sent < c->head_len;
        const void *at = in_head ? (const void *)(c->head + c->sent)
                                 : (const void *)(c->body + (c->sent - c->head_len));
        size_t len = in_head ? c->head_len - c->sent : total - c->sent;
        ssize_t n = conn_write(c, at, len, in_head && c->body_len > 0);
        if (n == -EAGAIN)
            return true;
        if (n < 0)
            return false;
        c->sent += (size_t)n;
    }
    free(c->body);
    c->body = NULL;
    if (c->keep_alive)
        conn_await_request(c, turn);
    else
        conn_linger(c, turn);
    return true;
}

/* Takes over the body of `response`. */
static bool conn_answer(struct conn *c, const struct conn_turn *turn,
                        const struct edge_response *response, bool with_body)
{
    struct writer w = writer_of(c->head, sizeof c->head);
    http_write_head(&w, &(struct http_answer){
                            .status = response->status,
                            .content_type = response->content_type,
                            .body_len = response->body_len,
                            .keep_alive = c->keep_alive,
                            .allow = response->allow,
                        });
    assert(written(&w) > 0); /* types and methods are constants of ours: they fit */
    c->head_len = written(&w);
    c->body = response->body;
    c->body_len = with_body ? response->body_len : 0;
    c->sent = 0;
    c->state = CONN_ANSWER;
    c->deadline_ns = deadline(turn, turn->limits->write_ms);
    return conn_send(c, turn);
}

/* Where the next request begins is unknown now, so the connection ends with this answer. */
static bool conn_refuse(struct conn *c, const struct conn_turn *turn, int status)
{
    count_add(&turn->stats->bad_requests, 1);
    c->keep_alive = false;
    return conn_answer(c, turn, &(struct edge_response){.status = status}, true);
}

static bool conn_serve(struct conn *c, const struct conn_turn *turn, const struct http_request *q)
{
    if (q->body_len > 0)
        return conn_refuse(c, turn, 413); /* no handler takes a body */

    struct edge_response response = {.status = 0};
    bool with_body = q->method != HTTP_HEAD;
    size_t used = q->head_len;
    count_add(&turn->stats->requests, 1);
    c->keep_alive = q->keep_alive;
    c->listener->handler(c->listener->arg, q, &response);
    assert(response.status >= 200);

    assert(used <= c->in_len);
    c->in_len -= used;
    memmove(c->in, c->in + used, c->in_len); /* the request's texts end here */
    return conn_answer(c, turn, &response, with_body);
}

/* Reads what has arrived. True: there may be a head to parse; else *ret_alive says how it goes on.
 * Without a line end in the new bytes the head cannot have become complete, and a client that sends
 * single bytes must not make us parse eight kilobytes for each. The first bytes are parsed anyway:
 * what is not HTTP at all should hear so at once. */
static bool conn_receive(struct conn *c, const struct conn_turn *turn, bool *ret_alive)
{
    char *at = c->in + c->in_len;
    assert(c->in_len < sizeof c->in);
    ssize_t n = conn_read(c, at, sizeof c->in - c->in_len);
    if (n <= 0) {
        *ret_alive = n == -EAGAIN;
        return false;
    }
    if (c->state == CONN_IDLE) {
        c->state = CONN_HEAD;
        c->deadline_ns = deadline(turn, turn->limits->head_ms);
    }
    bool first = c->in_len == 0;
    c->in_len += (size_t)n;
    *ret_alive = true;
    return first || c->in_len == sizeof c->in || memchr(at, '\n', (size_t)n);
}

static bool conn_request(struct conn *c, const struct conn_turn *turn)
{
    bool alive;
    if (!c->pipelined && !conn_receive(c, turn, &alive))
        return alive;

    struct http_request q;
    int status = http_read_head(c->in, c->in_len, &q);
    c->pipelined = false;
    if (status == HTTP_MORE)
        return true; /* never with a full buffer: that is refused as too large */
    if (status != 0)
        return conn_refuse(c, turn, status);
    return conn_serve(c, turn, &q);
}

static bool conn_drain(struct conn *c)
{
    ssize_t n = conn_read(c, c->in, sizeof c->in); /* nobody looks at these bytes */
    if (n <= 0)
        return n == -EAGAIN;
    c->drained += (size_t)n;
    return c->drained <= CONN_DRAIN_MAX;
}

void conn_open(struct conn *c, int fd, const struct edge_listener *listener,
               const struct conn_turn *turn)
{
    c->fd = fd;
    c->listener = listener;
    c->state = CONN_HEAD;
    c->deadline_ns = deadline(turn, turn->limits->head_ms);
    c->in_len = 0;
    c->pipelined = false;
    c->body = NULL;
}

bool conn_ready(struct conn *c, const struct conn_turn *turn)
{
    switch (c->state) {
    case CONN_HEAD:
    case CONN_IDLE:
        return conn_request(c, turn);
    case CONN_ANSWER:
        return conn_send(c, turn);
    case CONN_LINGER:
        return conn_drain(c);
    }
    return false;
}

void conn_expired(struct conn *c, const struct conn_turn *turn)
{
    if (c->state == CONN_IDLE || c->state == CONN_LINGER)
        return; /* ends as it should */
    count_add(&turn->stats->timeouts, 1);
    if (c->state == CONN_ANSWER) {
        /* Reset: else the kernel would keep the unread answer for minutes. Should it fail, it
         * does just that. */
        struct linger none = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
}

/* Bytes of a pipelined request wait in our buffer, where epoll cannot see them: a writable socket
 * makes the next turn come, after everyone else's. */
uint32_t conn_events(const struct conn *c)
{
    return c->state == CONN_ANSWER || c->pipelined ? EPOLLOUT : EPOLLIN;
}

void conn_close(struct conn *c)
{
    free(c->body);
    c->body = NULL;
    close(c->fd);
    c->fd = -1;
}
