/* A connection hears and serves the same however its bytes are cut, keeps no request's memory while
 * it waits, never spins, and tells a protocol exactly once that it is over. The .c files are
 * included: what needs certificates is left out. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "wss/conn.c"
#include "wss/conn_http.c"
#include "wss/gate.c"
#include "wss/outqueue.c"
#include "wss/sources.c"
#include "wss/stream.c"

#define CHECK(fact) ((fact) ? (void)0 : abort())

enum { INPUT_MAX = 32768, STEPS_MAX = 200000 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

SSL *tls_accept(struct tls *t, int fd)
{
    (void)t, (void)fd;
    return NULL;
}

bool tls_exporter(SSL *ssl, uint8_t ret[static TLS_EXPORTER_LEN])
{
    (void)ssl, (void)ret;
    return false;
}

/* What handlers and protocols heard, of one run. */
struct heard {
    uint64_t hash;
    unsigned requests, opened, closed;
};

static struct heard heard;

static void hear(const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        heard.hash = (heard.hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static bool talk_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    CHECK(state == &heard);
    CHECK(!c->http);
    heard.opened++;
    conn_say(c, turn, "hello", 5, NULL, 0);
    conn_set_deadline(c, turn->now_ns + 1);
    return true;
}

static bool talk_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                       const struct conn_turn *turn)
{
    CHECK(state == &heard && heard.opened > heard.closed && len > 0);
    hear(bytes, len);
    conn_say(c, turn, bytes, len / 2, bytes + len / 2, len - len / 2);
    memset(bytes, 0xaa, len);
    return true;
}

static bool talk_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)c, (void)turn;
    CHECK(state == &heard && heard.opened > heard.closed);
    return false;
}

static void talk_closed(void *state)
{
    CHECK(state == &heard);
    heard.closed++;
}

static const struct edge_protocol talk = {talk_opened, talk_input, talk_expired, talk_closed};

static void handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    (void)arg;
    CHECK(q->body_len <= EDGE_BODY_MAX);
    CHECK(q->body_len == 0 || q->http->method == HTTP_POST);
    CHECK(q->body_len == q->http->body_len);
    heard.requests++;
    hear(q->http->path.at, q->http->path.len);
    hear(&q->body_len, sizeof q->body_len);
    hear(q->body, q->body_len);
    hear(&q->from, sizeof q->from);
    response->status = 200;
    if (q->http->method == HTTP_HEAD || !http_text_is(q->http->path, "/talk")) {
        response->body = calloc(1, q->body_len + 100);
        response->body_len = q->body_len + 100;
        return;
    }
    response->status = 101;
    response->protocol = &talk;
    response->state = &heard;
}

/* One connection and its client's end. */
struct run {
    struct conn conn;
    int client;
    bool over;
};

static void run_drain_client(const struct run *r)
{
    char bytes[4096];
    while (recv(r->client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void run_after(struct run *r, const struct conn_turn *turn, bool alive)
{
    struct conn *c = &r->conn;
    while (*turn->dirty) {
        CHECK(*turn->dirty == c && c->dirty);
        *turn->dirty = NULL;
        c->dirty = false;
        alive = alive && conn_flush(c, turn);
    }
    r->over = !alive;
    if (alive && (c->state == CONN_IDLE || c->state == CONN_PROTOCOL || c->state == CONN_LINGER))
        CHECK(!c->http);
    run_drain_client(r);
}

/* As the edge does: as long as there is something that the connection waits for. */
static void run_turns(struct run *r, const struct conn_turn *turn)
{
    for (int n = 0; !r->over; n++) {
        uint32_t events = conn_events(&r->conn);
        struct pollfd p = {.fd = r->conn.stream.fd,
                           .events = (short)(events & (EPOLLIN | EPOLLOUT))};
        if (((events & EPOLLET) && n > 0) || poll(&p, 1, 0) <= 0)
            return;
        CHECK(n < STEPS_MAX);
        run_after(r, turn, conn_ready(&r->conn, turn));
    }
}

static struct heard run(const uint8_t *bytes, size_t len, unsigned piece, bool behind_proxy)
{
    static uint8_t input[CONN_INPUT_A_TURN];
    static const struct edge_limits limits = {.head_ms = 1000,
                                              .body_ms = 1000,
                                              .idle_ms = 1000,
                                              .write_ms = 1000,
                                              .stuck_ms = 1000,
                                              .per_ipv4 = 1,
                                              .per_ipv6_64 = 1};
    static const struct edge_listener listener = {.is_public = true, .handler = handler};
    struct edge_stats stats = {.accepted = 0};
    struct outqueue_pool pool;
    struct conn *dirty = NULL;
    struct conn_turn turn = {.limits = &limits,
                             .stats = &stats,
                             .pool = &pool,
                             .gate = gate_new(1),
                             .input = input,
                             .dirty = &dirty,
                             .now_ns = 1000000000};
    struct endpoint from = {.ip = {0x20, 0x01, [15] = 1}, .port = 1};
    struct run r = {.over = false};
    int fd[2];
    heard = (struct heard){.hash = 0};
    CHECK(turn.gate);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
    outqueue_pool_init(&pool, 256 << 10, 8 << 20);
    r.client = fd[1];
    CHECK(conn_open(&r.conn, fd[0], &listener, &from, behind_proxy, &turn));

    for (size_t at = 0; at < len && !r.over; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        if (send(r.client, bytes + at, n, MSG_NOSIGNAL) != (ssize_t)n)
            break; /* our side is shut */
        run_turns(&r, &turn);
    }
    (void)shutdown(r.client, SHUT_WR);
    run_turns(&r, &turn);
    for (int i = 0; i < 4 && !r.over; i++) {
        turn.now_ns += UINT64_C(2000000000);
        CHECK(r.conn.deadline_ns <= turn.now_ns);
        run_after(&r, &turn, conn_expired(&r.conn, &turn));
    }
    CHECK(r.over);
    conn_close(&r.conn, &turn);
    CHECK(heard.opened == heard.closed);
    CHECK(heard.requests == count_read(&stats.requests));
    CHECK(sources_count(turn.gate->strangers, &from) == 0);
    CHECK(pool.used == 0);
    outqueue_pool_close(&pool);
    gate_free(turn.gate);
    close(r.client);
    return heard;
}

/* The first byte says who listens, the second how the rest is cut. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2 || len > INPUT_MAX)
        return 0;
    bool behind_proxy = bytes[0] & 1;
    unsigned piece = 1 + bytes[1];
    struct heard whole = run(bytes + 2, len - 2, INPUT_MAX, behind_proxy);
    if (len / piece > 512)
        piece = (unsigned)(len / 512);
    struct heard pieces = run(bytes + 2, len - 2, piece, behind_proxy);
    CHECK(whole.hash == pieces.hash);
    CHECK(whole.requests == pieces.requests);
    return 0;
}
