#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "wss/api_pages.h"

static const uint64_t status_every_ns = 1000000000;

/* An id names the run of the beacon, too: after a restart the numbers begin anew. */
static void event_id(char ret[static SSE_ID_MAX], const struct api *a, uint64_t sequence)
{
    snprintf(ret, SSE_ID_MAX, "%" PRIx64 "-%" PRIu64, (uint64_t)a->admin->started_unix_s, sequence);
}

/* What a client that comes back has seen; 0 when that was in another run. */
static uint64_t last_sequence(const struct api *a, const struct http_request *q)
{
    char id[SSE_ID_MAX], again[SSE_ID_MAX];
    const char *number = sse_last_id(q, id) ? strchr(id, '-') : NULL;
    uint64_t sequence = number ? strtoull(number + 1, NULL, 10) : 0;
    event_id(again, a, sequence);
    return number && strcmp(id, again) == 0 && sequence <= a->event_sequence ? sequence : 0;
}

void api_events(struct api *a, const struct http_request *q, struct edge_response *r)
{
    if (q->method != HTTP_GET) {
        api_refuse(r, 405, "not for this page");
        r->allow = "GET";
        return;
    }
    a->streams.max = API_STREAMS_MAX;
    struct sse_stream *s = sse_stream_new(&a->streams, last_sequence(a, q));
    if (!s) {
        api_refuse(r, 503, "too many event streams");
        return;
    }
    *r = (struct edge_response){.status = 200,
                                .content_type = SSE_CONTENT_TYPE,
                                .fields = API_SAFE_FIELDS,
                                .protocol = &sse_protocol,
                                .state = s};
}

static void write_event(FILE *out, const struct api *a, const struct event *e)
{
    char *text = NULL, id[SSE_ID_MAX];
    size_t len = 0;
    FILE *data = open_memstream(&text, &len);
    if (!data)
        return; /* no memory: the ids show the gap */
    api_event_json(data, e);
    if (fclose(data) == 0) {
        event_id(id, a, e->sequence);
        sse_write(out, "event", id, text, len);
    }
    free(text);
}

static void write_status(FILE *out, struct api *a)
{
    char *text = NULL;
    size_t len = 0;
    FILE *data = open_memstream(&text, &len);
    if (!data)
        return; /* no memory: the next one comes in a second */
    api_status(data, a, NULL);
    if (fclose(data) == 0)
        sse_write(out, "status", NULL, text, len);
    free(text);
}

/* Frames for one or many. */
struct frames {
    FILE *out; /* NULL: no memory */
    char *text;
    size_t len;
};

static bool frames_end(struct frames *f)
{
    return f->out && fclose(f->out) == 0 && f->len > 0;
}

/* What has happened since the last turn, to all. Without streams it is only counted. */
static void feed_events(struct api *a, const struct conn_turn *turn)
{
    struct frames f = {.len = 0};
    struct event e;
    while (events_next(a->events, a->event_sequence, &e)) {
        a->event_sequence = e.sequence;
        if (a->streams.count > a->streams.fresh && !f.out)
            f.out = open_memstream(&f.text, &f.len);
        if (f.out)
            write_event(f.out, a, &e);
    }
    if (frames_end(&f))
        sse_say_all(&a->streams, turn, f.text, f.len);
    free(f.text);
}

static void feed_status(struct api *a, const struct conn_turn *turn)
{
    struct frames f = {.len = 0};
    a->status_at_ns = turn->now_ns;
    f.out = open_memstream(&f.text, &f.len);
    if (f.out)
        write_status(f.out, a);
    if (frames_end(&f))
        sse_say_all(&a->streams, turn, f.text, f.len);
    free(f.text);
}

/* The first words to a stream: the status, and the events that it has not seen, as one frame. */
static void welcome(struct api *a, struct sse_stream *s, const struct conn_turn *turn,
                    const struct frames *status)
{
    struct frames f = {.len = 0};
    struct event e;
    f.out = open_memstream(&f.text, &f.len);
    if (f.out)
        fwrite(status->text, 1, status->len, f.out);
    while (f.out && s->after < a->event_sequence && events_next(a->events, s->after, &e)) {
        s->after = e.sequence;
        write_event(f.out, a, &e);
    }
    if (frames_end(&f))
        sse_say(s, turn, f.text, f.len);
    free(f.text);
}

static void feed_fresh(struct api *a, const struct conn_turn *turn)
{
    struct frames status = {.len = 0};
    struct sse_stream *s = sse_take_fresh(&a->streams);
    if (!s)
        return;
    status.out = open_memstream(&status.text, &status.len);
    if (status.out)
        write_status(status.out, a);
    if (frames_end(&status))
        for (; s; s = sse_take_fresh(&a->streams))
            welcome(a, s, turn, &status);
    free(status.text);
}

uint64_t api_turn(struct api *a, const struct conn_turn *turn)
{
    feed_events(a, turn);
    if (a->streams.count > 0 && turn->now_ns - a->status_at_ns >= status_every_ns)
        feed_status(a, turn);
    feed_fresh(a, turn);
    return a->streams.count > 0 ? a->status_at_ns + status_every_ns : UINT64_MAX;
}
