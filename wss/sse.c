#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "wss/sse.h"

/* --- frames --- */

static bool is_one_line(const char *text)
{
    return !strpbrk(text, "\r\n");
}

/* A line ends with CR LF, LF or CR. */
static size_t line_len(const char *at, size_t len)
{
    size_t n = 0;
    while (n < len && at[n] != '\r' && at[n] != '\n')
        n++;
    return n;
}

static size_t line_end_len(const char *at, size_t len)
{
    if (len == 0)
        return 0;
    return len > 1 && at[0] == '\r' && at[1] == '\n' ? 2 : 1;
}

void sse_write(FILE *out, const char *event, const char *id, const char *data, size_t len)
{
    assert(!event || is_one_line(event));
    assert(!id || is_one_line(id));
    if (event)
        fprintf(out, "event: %s\n", event);
    if (id)
        fprintf(out, "id: %s\n", id);
    bool more = true; /* no data at all is one empty line: without it nothing is dispatched */
    while (more) {
        size_t line = line_len(data, len), end = line_end_len(data + line, len - line);
        fputs("data: ", out);
        fwrite(data, 1, line, out);
        fputc('\n', out);
        data += line + end;
        len -= line + end;
        more = end > 0;
    }
    fputc('\n', out);
}

bool sse_last_id(const struct http_request *q, char ret[static SSE_ID_MAX])
{
    const struct http_text *id = http_field(q, "Last-Event-ID");
    if (!id || id->len >= SSE_ID_MAX)
        return false;
    memcpy(ret, id->at, id->len);
    ret[id->len] = '\0';
    return true;
}

/* --- streams --- */

static const char resync[] = "event: resync\ndata: {}\n\n";
static const char comment[] = ": quiet\n\n";

struct sse_stream *sse_stream_new(struct sse_streams *among, uint64_t after)
{
    struct sse_stream *s = among->count < among->max ? malloc(sizeof *s) : NULL;
    if (!s)
        return NULL;
    *s = (struct sse_stream){.among = among, .next = among->first, .fresh = true, .after = after};
    if (s->next)
        s->next->previous = s;
    among->first = s;
    among->count++;
    among->fresh++;
    return s;
}

static void not_fresh(struct sse_stream *s)
{
    if (!s->fresh)
        return;
    assert(s->among->fresh > 0);
    s->among->fresh--;
    s->fresh = false;
}

static void quiet_until(struct conn *c, const struct conn_turn *turn)
{
    conn_set_deadline(c, turn->now_ns + SSE_COMMENT_SECONDS * UINT64_C(1000000000));
}

static bool stream_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct sse_stream *s = state;
    s->conn = c;
    quiet_until(c, turn);
    return true;
}

/* Nothing is due to be said by a client, and what it says changes nothing. */
static bool stream_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                         const struct conn_turn *turn)
{
    (void)c, (void)state, (void)bytes, (void)len, (void)turn;
    return true;
}

/* False: that was the last it hears, the connection is to end. */
static bool say(struct sse_stream *s, const struct conn_turn *turn, const char *frames, size_t len)
{
    const _Atomic uint64_t *dropped = &turn->stats->frames_dropped; /* only this thread adds */
    uint64_t before = atomic_load_explicit(dropped, memory_order_relaxed);
    bool room = s->conn->out.frames < SSE_QUEUE_MAX;
    if (room)
        conn_say(s->conn, turn, frames, len, NULL, 0);
    if (room && atomic_load_explicit(dropped, memory_order_relaxed) == before) {
        quiet_until(s->conn, turn);
        return true;
    }
    s->ended = true;
    conn_say(s->conn, turn, resync, sizeof resync - 1, NULL, 0);
    return false;
}

static bool stream_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct sse_stream *s = state;
    assert(s->conn == c);
    return !s->ended && say(s, turn, comment, sizeof comment - 1);
}

static void stream_closed(void *state)
{
    struct sse_stream *s = state;
    not_fresh(s);
    if (s->next)
        s->next->previous = s->previous;
    if (s->previous)
        s->previous->next = s->next;
    else
        s->among->first = s->next;
    assert(s->among->count > 0);
    s->among->count--;
    free(s);
}

const struct edge_protocol sse_protocol = {
    .opened = stream_opened,
    .input = stream_input,
    .expired = stream_expired,
    .closed = stream_closed,
};

void sse_say(struct sse_stream *s, const struct conn_turn *turn, const char *frames, size_t len)
{
    if (s->conn && !s->ended && !say(s, turn, frames, len))
        conn_end(s->conn, turn); /* `closed` comes at the end of the turn */
}

void sse_say_all(struct sse_streams *all, const struct conn_turn *turn, const char *frames,
                 size_t len)
{
    for (struct sse_stream *s = all->first; s; s = s->next)
        if (!s->fresh)
            sse_say(s, turn, frames, len);
}

struct sse_stream *sse_take_fresh(struct sse_streams *all)
{
    for (struct sse_stream *s = all->fresh ? all->first : NULL; s; s = s->next) {
        if (s->fresh && s->conn) {
            not_fresh(s);
            return s;
        }
    }
    return NULL;
}
