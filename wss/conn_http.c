#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "server/stats.h"
#include "wss/conn_http.h"

static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

struct conn_http {
    /* What came in: in[0..in_len), the request's head first. */
    size_t in_len;
    bool unread;     /* bytes of `in` that nobody has looked at yet */
    size_t request;  /* bytes of `in` that belong to the request under way */
    char *body;      /* NULL: it has none */
    size_t body_len; /* as announced; body_got of them are there */
    size_t body_got;

    /* The answer. `sent` counts over head and content. */
    size_t head_len, content_len, sent;
    char *content;
    bool is_interim; /* it is only "100 Continue" */
    uint8_t head[CONN_ANSWER_HEAD_MAX];
    char in[HTTP_HEAD_MAX];
};
static_assert((int)CONN_INPUT_A_TURN >= (int)HTTP_HEAD_MAX,
              "what came behind a request fits turn->input");

void conn_http_free(struct conn *c)
{
    if (!c->http)
        return;
    free(c->http->body);
    free(c->http->content);
    free(c->http);
    c->http = NULL;
}

void conn_http_begin(struct conn *c, const struct conn_turn *turn)
{
    c->state = CONN_HEAD;
    c->deadline_ns = conn_deadline(turn, turn->limits->head_ms);
    c->pipelined = stream_has_input(&c->stream);
}

static void conn_await_request(struct conn *c, const struct conn_turn *turn)
{
    struct conn_http *h = c->http;
    h->unread = h->in_len > 0;
    c->state = h->unread ? CONN_HEAD : CONN_IDLE;
    c->deadline_ns = conn_deadline(turn, h->unread ? turn->limits->head_ms : turn->limits->idle_ms);
    if (!h->unread)
        conn_http_free(c);
}

/* --- answers --- */

/* Writes what the stream takes. */
static bool conn_send(struct conn *c, const struct conn_turn *turn)
{
    struct conn_http *h = c->http;
    size_t total = h->head_len + h->content_len;
    while (h->sent < total) {
        bool in_head = h->sent < h->head_len;
        const void *at = in_head ? (const void *)(h->head + h->sent)
                                 : (const void *)(h->content + (h->sent - h->head_len));
        size_t len = in_head ? h->head_len - h->sent : total - h->sent;
        ssize_t n = stream_write(&c->stream, at, len, in_head && h->content_len > 0);
        if (n <= 0)
            return n == -EAGAIN;
        h->sent += (size_t)n;
    }
    free(h->content);
    h->content = NULL;
    if (h->is_interim)
        c->state = CONN_BODY; /* under the same deadline */
    else if (c->keep_alive)
        conn_await_request(c, turn);
    else
        conn_linger(c, turn);
    return true;
}

/* Writes the head of `response`. */
static size_t write_head(uint8_t head[static CONN_ANSWER_HEAD_MAX], const struct conn *c,
                         const struct edge_response *response)
{
    bool upgrade = response->status == 101 || response->status == 426;
    struct writer w = writer_of(head, CONN_ANSWER_HEAD_MAX);
    http_write_head(&w, &(struct http_answer){
                            .status = response->status,
                            .content_type = response->content_type,
                            .body_len = response->body_len,
                            .keep_alive = c->keep_alive,
                            .allow = response->allow,
                            .fields = response->fields,
                            .endless = response->protocol && response->status != 101,
                            .upgrade = upgrade,
                            .secure = c->listener->tls && c->listener->is_public,
                        });
    assert(written(&w) > 0); /* types, methods and fields are short and ours: they fit */
    return written(&w);
}

/* Takes over the body of `response`. */
static bool conn_answer(struct conn *c, const struct conn_turn *turn,
                        const struct edge_response *response, bool with_body)
{
    struct conn_http *h = c->http;
    h->head_len = write_head(h->head, c, response);
    h->content = response->body;
    h->content_len = with_body ? response->body_len : 0;
    h->sent = 0;
    h->is_interim = false;
    c->state = CONN_ANSWER;
    c->deadline_ns = conn_deadline(turn, turn->limits->write_ms);
    return conn_send(c, turn);
}

/* Where the next request begins is unknown now, so the connection ends with this answer. */
static bool conn_refuse(struct conn *c, const struct conn_turn *turn, int status)
{
    count_add(&turn->stats->bad_requests, 1);
    c->keep_alive = false;
    return conn_answer(c, turn, &(struct edge_response){.status = status}, true);
}

static bool conn_upgrade(struct conn *c, const struct conn_turn *turn,
                         const struct edge_response *response)
{
    struct conn_http *h = c->http;
    uint8_t head[CONN_ANSWER_HEAD_MAX];
    struct conn_upgrade upgrade = {.protocol = response->protocol, .state = response->state};
    upgrade.head = head;
    upgrade.head_len = write_head(head, c, response);
    upgrade.input_len = h->in_len;
    memcpy(turn->input, h->in, h->in_len);
    free(response->body);
    conn_http_free(c);
    return conn_protocol_begin(c, turn, &upgrade);
}

/* --- requests --- */

/* The request is complete: asks the handler. */
static bool conn_serve(struct conn *c, const struct conn_turn *turn, const struct http_request *q)
{
    struct conn_http *h = c->http;
    struct edge_response response = {.status = 0};
    bool with_body = q->method != HTTP_HEAD;
    struct edge_request request = {
        .http = q, .body = h->body, .body_len = h->body_len, .from = c->from, .conn = c};

    count_add(&turn->stats->requests, 1);
    c->keep_alive = q->keep_alive;
    c->listener->handler(c->listener->arg, &request, &response);
    assert(response.status >= 200 || (response.status == 101 && response.protocol));

    assert(h->request <= h->in_len);
    h->in_len -= h->request;
    memmove(h->in, h->in + h->request, h->in_len); /* the request's texts end here */
    free(h->body);
    h->body = NULL;
    h->body_len = 0;
    if (response.protocol && with_body)
        return conn_upgrade(c, turn, &response);
    if (response.protocol) { /* HEAD: what would have no end does not begin */
        response.protocol->closed(response.state);
        c->keep_alive = false;
    }
    return conn_answer(c, turn, &response, with_body);
}

static bool conn_serve_body(struct conn *c, const struct conn_turn *turn)
{
    struct http_request q;
    int status = http_read_head(c->http->in, c->http->in_len, &q);
    assert(status == 0); /* read once before; keeping it for so long would cost memory */
    (void)status;
    return conn_serve(c, turn, &q);
}

/* The head of a POST is complete, its body is yet to come or has come in part. */
static bool conn_begin_body(struct conn *c, const struct conn_turn *turn,
                            const struct http_request *q)
{
    struct conn_http *h = c->http;
    size_t behind = h->in_len - q->head_len;
    h->body_len = (size_t)q->body_len;
    h->body_got = behind < h->body_len ? behind : h->body_len;
    h->body = malloc(h->body_len);
    if (!h->body)
        return false;
    memcpy(h->body, h->in + q->head_len, h->body_got);
    h->request += h->body_got;
    if (h->body_got == h->body_len)
        return conn_serve_body(c, turn);

    c->state = CONN_BODY;
    c->deadline_ns = conn_deadline(turn, turn->limits->body_ms);
    if (!q->expects_continue || h->body_got > 0)
        return true;
    memcpy(h->head, go_on, sizeof go_on - 1);
    h->head_len = sizeof go_on - 1;
    h->content_len = h->sent = 0;
    h->is_interim = true;
    c->state = CONN_ANSWER;
    return conn_send(c, turn);
}

static bool conn_read_body(struct conn *c, const struct conn_turn *turn)
{
    struct conn_http *h = c->http;
    ssize_t n = stream_read(&c->stream, h->body + h->body_got, h->body_len - h->body_got);
    if (n <= 0)
        return n == -EAGAIN;
    h->body_got += (size_t)n;
    return h->body_got < h->body_len || conn_serve_body(c, turn);
}

/* Reads into the shared memory first: only bytes are worth memory of our own. */
static ssize_t conn_receive_first(struct conn *c, const struct conn_turn *turn)
{
    ssize_t n = stream_read(&c->stream, turn->input, HTTP_HEAD_MAX);
    if (n <= 0)
        return n;
    c->http = malloc(sizeof *c->http);
    if (!c->http)
        return -ENOMEM;
    *c->http = (struct conn_http){.in_len = (size_t)n};
    memcpy(c->http->in, turn->input, (size_t)n);
    return n;
}

static ssize_t conn_receive_more(struct conn *c)
{
    struct conn_http *h = c->http;
    assert(h->in_len < sizeof h->in);
    ssize_t n = stream_read(&c->stream, h->in + h->in_len, sizeof h->in - h->in_len);
    if (n > 0)
        h->in_len += (size_t)n;
    return n;
}

/* Reads what has arrived. True: there may be a head to parse; else *ret_alive says how it goes on.
 * Without a line end in the new bytes the head cannot have become complete, and a client that sends
 * single bytes must not make us parse eight kilobytes for each. The first bytes are parsed anyway:
 * what is not HTTP at all should hear so at once. */
static bool conn_receive(struct conn *c, const struct conn_turn *turn, bool *ret_alive)
{
    bool first = !c->http;
    ssize_t n = first ? conn_receive_first(c, turn) : conn_receive_more(c);
    *ret_alive = n > 0 || n == -EAGAIN;
    if (n <= 0)
        return false;
    if (c->state == CONN_IDLE) {
        c->state = CONN_HEAD;
        c->deadline_ns = conn_deadline(turn, turn->limits->head_ms);
    }
    const struct conn_http *h = c->http;
    return first || h->in_len == sizeof h->in || memchr(h->in + h->in_len - n, '\n', (size_t)n);
}

static bool conn_request(struct conn *c, const struct conn_turn *turn)
{
    bool alive;
    if (!(c->http && c->http->unread) && !conn_receive(c, turn, &alive))
        return alive;

    struct conn_http *h = c->http;
    struct http_request q;
    int status = http_read_head(h->in, h->in_len, &q);
    h->unread = false;
    if (status == HTTP_MORE)
        return true; /* never with a full buffer: that is refused as too large */
    if (status != 0)
        return conn_refuse(c, turn, status);
    h->request = q.head_len;
    if (q.body_len == 0)
        return conn_serve(c, turn, &q);
    if (q.method != HTTP_POST || q.body_len > EDGE_BODY_MAX)
        return conn_refuse(c, turn, 413);
    return conn_begin_body(c, turn, &q);
}

static bool conn_http_step(struct conn *c, const struct conn_turn *turn)
{
    switch (c->state) {
    case CONN_HEAD:
    case CONN_IDLE:
        return conn_request(c, turn);
    case CONN_BODY:
        return conn_read_body(c, turn);
    case CONN_ANSWER:
        return conn_send(c, turn);
    default:
        return false;
    }
}

bool conn_http_ready(struct conn *c, const struct conn_turn *turn)
{
    if (!conn_http_step(c, turn))
        return false;
    bool reads = c->state == CONN_HEAD || c->state == CONN_IDLE || c->state == CONN_BODY;
    if (c->state != CONN_PROTOCOL) /* there it has been set */
        c->pipelined = reads && ((c->http && c->http->unread) || stream_has_input(&c->stream));
    return true;
}
