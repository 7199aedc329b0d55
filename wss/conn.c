#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "proto/proxy.h"
#include "server/stats.h"
#include "wss/conn_http.h"

enum {
    PUSH_FROM = 2 * OUTQUEUE_PIECE, /* bytes that need not wait for the end of the turn */
    READS_A_TURN = 8,               /* of TLS, each of up to STREAM_RECORDS_A_READ records */
};

static_assert(sizeof(struct conn) <= 400, "an idle session costs little");
static_assert((int)CONN_INPUT_A_TURN >= (int)PROXY_MAX,
              "a PROXY header is looked at in turn->input");

/* --- the end --- */

void conn_linger(struct conn *c, const struct conn_turn *turn)
{
    conn_http_free(c);
    stream_shut(&c->stream);
    c->state = CONN_LINGER;
    c->pipelined = false;
    c->drained = 0;
    c->deadline_ns = conn_deadline(turn, CONN_LINGER_MS);
}

static bool conn_drain(struct conn *c)
{
    ssize_t n = stream_discard(&c->stream);
    if (n <= 0)
        return n == -EAGAIN;
    c->drained += (size_t)n;
    return c->drained <= CONN_DRAIN_MAX;
}

void conn_close(struct conn *c, const struct conn_turn *turn)
{
    if (c->protocol)
        c->protocol->closed(c->protocol_state);
    c->protocol = NULL;
    outqueue_clear(&c->out, turn->pool);
    conn_http_free(c);
    if (c->entered)
        gate_leave(turn->gate, c->listener, &c->from);
    c->entered = false;
    stream_close(&c->stream, c->reset);
}

/* --- the beginning --- */

/* It is known who the client is: may it stay? */
static bool conn_enter(struct conn *c, const struct conn_turn *turn)
{
    switch (gate_enter(turn->gate, turn->limits, c->listener, &c->from, turn->now_ns)) {
    case GATE_ENTERED:
        c->entered = true;
        break;
    case GATE_SOURCE_FULL:
        count_add(&turn->stats->refused, 1);
        return false;
    case GATE_HANDSHAKES_SPENT:
        count_add(&turn->stats->handshakes_limited, 1);
        c->reset = true; /* leaves nothing behind, not even a TIME_WAIT */
        return false;
    }
    conn_http_begin(c, turn);
    if (!c->listener->tls)
        return true;
    c->state = CONN_HANDSHAKE;
    if (stream_start_tls(&c->stream, turn->tls) == 0)
        return true;
    count_add(&turn->stats->refused, 1); /* no memory */
    return false;
}

/* Below TLS, which has not begun. */
static ssize_t socket_read(const struct conn *c, const struct conn_turn *turn, size_t len,
                           int flags)
{
    ssize_t n;
    do
        n = recv(c->stream.fd, turn->input, len, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Looks at the header and takes exactly its bytes: what is behind it may be TLS. */
static bool conn_read_proxy(struct conn *c, const struct conn_turn *turn)
{
    struct proxy_header header;
    enum proxy_verdict verdict = PROXY_BAD;
    ssize_t n = socket_read(c, turn, PROXY_MAX, MSG_PEEK);
    if (n == -EAGAIN)
        return true;
    if (n > 0)
        verdict = proxy_read(turn->input, (size_t)n, &header);
    switch (verdict) {
    case PROXY_MORE:
        return true;
    case PROXY_BAD:
        count_add(&turn->stats->proxy_bad, 1);
        return false;
    case PROXY_FROM:
        c->from = header.from;
        break;
    case PROXY_LOCAL:
        break;
    }
    return socket_read(c, turn, header.len, 0) == (ssize_t)header.len && conn_enter(c, turn);
}

static bool conn_shake_hands(struct conn *c, const struct conn_turn *turn)
{
    int err = stream_handshake(&c->stream);
    if (err == -EAGAIN)
        return true;
    if (err < 0) {
        count_add(&turn->stats->handshake_failures, 1);
        return false;
    }
    count_add(&turn->stats->handshakes, 1);
    conn_http_begin(c, turn);
    return true;
}

bool conn_open(struct conn *c, int fd, const struct edge_listener *listener,
               const struct endpoint *from, bool behind_proxy, const struct conn_turn *turn)
{
    *c = (struct conn){
        .slot = c->slot,
        .dirty_list = turn->dirty,
        .listener = listener,
        .from = *from,
        .state = CONN_PROXY,
        .deadline_ns = conn_deadline(turn, turn->limits->head_ms),
    };
    stream_open(&c->stream, fd);
    return behind_proxy || conn_enter(c, turn);
}

/* --- what is said --- */

static void conn_mark(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = *c->dirty_list;
    *c->dirty_list = c;
}

/* Writes as much of the queue as the stream takes. */
static bool conn_push(struct conn *c, const struct conn_turn *turn)
{
    const uint8_t *bytes;
    size_t len;
    bool moved = false;
    c->blocked = false;
    while (!c->blocked && outqueue_peek(&c->out, &bytes, &len)) {
        ssize_t n = stream_write(&c->stream, bytes, len, false);
        if (n == -EAGAIN && c->stream.ssl)
            outqueue_hold(&c->out);
        if (n <= 0 && n != -EAGAIN)
            return false;
        if (n > 0)
            outqueue_sent(&c->out, turn->pool, (size_t)n);
        moved |= n > 0;
        /* TLS takes a record at a time, a socket all that it has room for. */
        c->blocked = n < 0 || (!c->stream.ssl && n < (ssize_t)len);
    }
    if (outqueue_is_empty(&c->out))
        c->stuck_since_ns = 0;
    else if (moved)
        c->stuck_since_ns = turn->now_ns;
    return true;
}

void conn_say(struct conn *c, const struct conn_turn *turn, const void *head, size_t head_len,
              const void *body, size_t body_len)
{
    if (c->state != CONN_PROTOCOL || c->broken)
        return;
    /* In one turn many may speak to one reader: that it is fast must show before its queue is full.
     */
    if (c->out.held > PUSH_FROM && !c->blocked)
        c->broken = !conn_push(c, turn);
    int lost = outqueue_put(&c->out, turn->pool, head, head_len, body, body_len);
    unsigned dropped = lost == OUTQUEUE_REFUSED ? 1 : (unsigned)lost;
    c->frames_dropped += dropped;
    count_add(&turn->stats->frames_dropped, dropped);
    if (c->stuck_since_ns == 0 && !outqueue_is_empty(&c->out))
        c->stuck_since_ns = turn->now_ns;
    conn_mark(c);
}

void conn_set_deadline(struct conn *c, uint64_t at_ns)
{
    c->protocol_deadline_ns = at_ns;
    conn_mark(c); /* the edge looks at it again at the end of the turn */
}

void conn_end(struct conn *c, const struct conn_turn *turn)
{
    if (c->state != CONN_PROTOCOL)
        return;
    c->state = CONN_FLUSH;
    c->pipelined = false;
    c->deadline_ns = conn_deadline(turn, turn->limits->write_ms);
    conn_mark(c);
}

bool conn_exporter(const struct conn *c, uint8_t ret[static TLS_EXPORTER_LEN])
{
    return c->stream.ssl && tls_exporter(c->stream.ssl, ret);
}

/* --- protocols --- */

/* When the connection must be looked at again: the protocol's time or ours. */
static void conn_settle(struct conn *c, const struct conn_turn *turn)
{
    if (c->state != CONN_PROTOCOL)
        return;
    c->deadline_ns = c->protocol_deadline_ns;
    if (c->stuck_since_ns == 0)
        return;
    uint64_t stuck_ns = c->stuck_since_ns + turn->limits->stuck_ms * UINT64_C(1000000);
    if (stuck_ns < c->deadline_ns)
        c->deadline_ns = stuck_ns;
}

/* False ends the protocol: what it has said is still written. */
static void conn_heard(struct conn *c, const struct conn_turn *turn, bool goes_on)
{
    if (!goes_on)
        conn_end(c, turn);
    conn_settle(c, turn);
}

bool conn_protocol_begin(struct conn *c, const struct conn_turn *turn,
                         const struct conn_upgrade *upgrade)
{
    c->state = CONN_PROTOCOL;
    c->protocol = upgrade->protocol;
    c->protocol_state = upgrade->state;
    c->protocol_deadline_ns = UINT64_MAX;
    conn_say(c, turn, upgrade->head, upgrade->head_len, NULL, 0);
    if (outqueue_is_empty(&c->out))
        return false;       /* slow readers have all the memory */
    outqueue_hold(&c->out); /* whatever follows, it is no answer without its head */
    bool goes_on = c->protocol->opened(c, c->protocol_state, turn);
    if (goes_on && c->state == CONN_PROTOCOL && upgrade->input_len > 0)
        goes_on = c->protocol->input(c, c->protocol_state, turn->input, upgrade->input_len, turn);
    c->pipelined = stream_has_input(&c->stream);
    conn_heard(c, turn, goes_on);
    return true;
}

/* Fills turn->input as far as there is something. Returns the last result of the stream. */
static ssize_t conn_fill(struct conn *c, const struct conn_turn *turn, size_t *ret_len)
{
    ssize_t n;
    size_t room;
    unsigned reads = 0;
    *ret_len = 0;
    do {
        room = CONN_INPUT_A_TURN - *ret_len;
        n = stream_read(&c->stream, turn->input + *ret_len, room);
        if (n > 0)
            *ret_len += (size_t)n;
        /* A short read has emptied a socket; TLS gives some records at a time. A client that puts a
         * byte in each must not have the turn for itself. */
    } while (n > 0 && (size_t)n < room && c->stream.ssl && ++reads < READS_A_TURN);
    return n;
}

static bool conn_hear(struct conn *c, const struct conn_turn *turn)
{
    size_t len;
    bool goes_on = true;
    c->blocked = false;
    if (!outqueue_is_empty(&c->out))
        conn_mark(c);
    ssize_t n = conn_fill(c, turn, &len);
    c->pipelined = stream_has_input(&c->stream);
    if (len > 0)
        goes_on = c->protocol->input(c, c->protocol_state, turn->input, len, turn);
    if (n < 0 && n != -EAGAIN)
        return false;
    conn_heard(c, turn, goes_on && n != 0); /* the client has said all: so have we */
    return true;
}

static bool conn_protocol_expired(struct conn *c, const struct conn_turn *turn)
{
    bool goes_on = true;
    if (c->stuck_since_ns != 0 &&
        turn->now_ns >= c->stuck_since_ns + turn->limits->stuck_ms * UINT64_C(1000000)) {
        count_add(&turn->stats->stuck, 1);
        c->reset = true;
        return false;
    }
    if (turn->now_ns >= c->protocol_deadline_ns) {
        c->protocol_deadline_ns = UINT64_MAX;
        goes_on = c->protocol->expired(c, c->protocol_state, turn);
    }
    conn_heard(c, turn, goes_on);
    return true;
}

/* --- for the edge --- */

bool conn_flush(struct conn *c, const struct conn_turn *turn)
{
    if (c->state != CONN_PROTOCOL && c->state != CONN_FLUSH)
        return true;
    if (c->broken || !conn_push(c, turn))
        return false;
    if (c->state == CONN_FLUSH && c->protocol) {
        c->protocol->closed(c->protocol_state);
        c->protocol = NULL;
    }
    if (c->state == CONN_FLUSH && outqueue_is_empty(&c->out))
        conn_linger(c, turn);
    conn_settle(c, turn);
    return true;
}

bool conn_ready(struct conn *c, const struct conn_turn *turn)
{
    switch (c->state) {
    case CONN_PROXY:
        return conn_read_proxy(c, turn);
    case CONN_HANDSHAKE:
        return conn_shake_hands(c, turn);
    case CONN_HEAD:
    case CONN_IDLE:
    case CONN_BODY:
    case CONN_ANSWER:
        return conn_http_ready(c, turn);
    case CONN_PROTOCOL:
        return conn_hear(c, turn);
    case CONN_FLUSH:
        conn_mark(c);
        return true;
    case CONN_LINGER:
        return conn_drain(c);
    }
    return false;
}

bool conn_expired(struct conn *c, const struct conn_turn *turn)
{
    switch (c->state) {
    case CONN_PROTOCOL:
        return conn_protocol_expired(c, turn);
    case CONN_IDLE:
    case CONN_LINGER:
        return false; /* ends as it should */
    case CONN_PROXY:
        count_add(&turn->stats->proxy_bad, 1);
        break;
    case CONN_ANSWER:
    case CONN_FLUSH:
        c->reset = true; /* else the kernel would keep what is unread for minutes */
        break;
    case CONN_HANDSHAKE:
    case CONN_HEAD:
    case CONN_BODY:
        break;
    }
    count_add(&turn->stats->timeouts, 1);
    return false;
}

/* Bytes that wait in our memory are out of epoll's sight: a writable socket makes the next turn
 * come, after everyone else's. */
static uint32_t read_events(const struct conn *c)
{
    return c->stream.read_wants_write || c->pipelined ? EPOLLOUT : EPOLLIN;
}

static uint32_t write_events(const struct conn *c)
{
    return c->stream.write_wants_read ? EPOLLIN : EPOLLOUT;
}

uint32_t conn_events(const struct conn *c)
{
    switch (c->state) {
    case CONN_PROXY: /* the header stays in the socket until it is whole: only news count */
        return EPOLLIN | EPOLLET;
    case CONN_HANDSHAKE:
    case CONN_HEAD:
    case CONN_IDLE:
    case CONN_BODY:
        return read_events(c);
    case CONN_ANSWER:
    case CONN_FLUSH:
        return write_events(c);
    case CONN_PROTOCOL:
        return EPOLLIN | read_events(c) | (outqueue_is_empty(&c->out) ? 0 : write_events(c));
    case CONN_LINGER:
        break;
    }
    return EPOLLIN;
}
