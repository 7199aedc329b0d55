/* edge_talk - protocols for edge_rig's edge: "/echo" says back what it hears, "/quit" and others
 * end,
 * "/stream" gets numbered frames when the test asks for them from its own thread. */
#ifndef BEACON_TESTS_EDGE_TALK_H
#define BEACON_TESTS_EDGE_TALK_H

#include <assert.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include "tests/edge_client.h"

enum { FRAME_MAX = 65536, STREAMS_MAX = 16 };

/* --- the server's side --- */

struct talk {
    struct conn *conn;
    unsigned stream; /* its place in the list */
};

static _Atomic uint64_t opened, closed;

/* Only the edge's thread. */
static struct conn *streams[STREAMS_MAX];
static uint32_t sequence;

/* What the test wants of all streams; taken by the hook. */
static _Atomic unsigned want_frames, want_len, want_a_turn;
static _Atomic bool want_end;
static _Atomic uint64_t hook_calls;

static inline void talk_closed(void *state)
{
    struct talk *t = state;
    if (t->stream < STREAMS_MAX)
        streams[t->stream] = NULL;
    free(t);
    atomic_fetch_add(&closed, 1);
}

static inline bool echo_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct talk *t = state;
    t->conn = c;
    atomic_fetch_add(&opened, 1);
    conn_say(c, turn, "hi", 2, "!", 1);
    return true;
}

static inline bool is_word(const uint8_t *bytes, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(bytes, word, len) == 0;
}

static inline bool echo_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                              const struct conn_turn *turn)
{
    const struct talk *t = state;
    assert(t->conn == c);
    assert(len <= CONN_INPUT_A_TURN);
    if (is_word(bytes, len, "soon"))
        conn_set_deadline(c, turn->now_ns + 100000000);
    else
        conn_say(c, turn, NULL, 0, bytes, len);
    memset(bytes, 0, len); /* they are ours to change */
    return true;
}

static inline bool quit_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                              const struct conn_turn *turn)
{
    static char many[FRAME_MAX];
    (void)state;
    if (!is_word(bytes, len, "quit"))
        return true;
    conn_say(c, turn, many, sizeof many, many, sizeof many);
    conn_say(c, turn, "bye", 3, NULL, 0);
    return false;
}

static inline bool echo_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    conn_say(c, turn, "time", 4, NULL, 0);
    return true;
}

static inline bool quit_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    conn_say(c, turn, "late", 4, NULL, 0);
    return false;
}

static inline bool quit_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    atomic_fetch_add(&opened, 1);
    conn_set_deadline(c, turn->now_ns + 300000000);
    return true;
}

static inline bool flood_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    static const char words[1000];
    (void)state;
    atomic_fetch_add(&opened, 1);
    for (int i = 0; i < 20; i++)
        conn_say(c, turn, words, sizeof words, NULL, 0);
    conn_say(c, turn, "end", 4, NULL, 0);
    return true;
}

static inline bool never_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)state;
    atomic_fetch_add(&opened, 1);
    conn_say(c, turn, "no", 2, NULL, 0);
    return false;
}

static inline bool stream_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct talk *t = state;
    (void)turn;
    for (t->stream = 0; streams[t->stream]; t->stream++)
        assert(t->stream < STREAMS_MAX);
    streams[t->stream] = c;
    atomic_fetch_add(&opened, 1);
    return true;
}

static inline bool stream_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                                const struct conn_turn *turn)
{
    (void)c, (void)state, (void)bytes, (void)len, (void)turn;
    return true;
}

static const struct edge_protocol echo = {echo_opened, echo_input, echo_expired, talk_closed},
                                  quit = {quit_opened, quit_input, quit_expired, talk_closed},
                                  flood = {flood_opened, echo_input, echo_expired, talk_closed},
                                  never = {never_opened, echo_input, echo_expired, talk_closed},
                                  stream = {stream_opened, stream_input, echo_expired, talk_closed};

static inline void handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    static const struct {
        const char *path;
        const struct edge_protocol *protocol;
        int status;
    } paths[] = {{"/echo", &echo, 101},
                 {"/quit", &quit, 101},
                 {"/flood", &flood, 101},
                 {"/never", &never, 101},
                 {"/stream", &stream, 200}};
    (void)arg;
    response->status = 404;
    for (size_t i = 0; i < COUNT(paths); i++) {
        if (!http_text_is(q->http->path, paths[i].path))
            continue;
        struct talk *t = calloc(1, sizeof *t);
        assert_non_null(t);
        t->stream = UINT_MAX;
        response->status = paths[i].status;
        response->fields = "X-Test: yes\r\n";
        response->content_type = response->status == 200 ? "text/event-stream" : NULL;
        response->protocol = paths[i].protocol;
        response->state = t;
    }
}

/* A frame is a number, its length, and as many bytes as the length says. */
static inline uint64_t hook(void *arg, const struct conn_turn *turn)
{
    static uint8_t bytes[FRAME_MAX];
    (void)arg;
    atomic_fetch_add(&hook_calls, 1);
    uint32_t frame[2] = {0, atomic_load(&want_len)};
    unsigned left = atomic_load(&want_frames), n = atomic_load(&want_a_turn);
    n = left < n ? left : n;
    for (unsigned i = 0; i < n; i++) {
        frame[0] = ++sequence;
        for (unsigned s = 0; s < STREAMS_MAX; s++)
            if (streams[s])
                conn_say(streams[s], turn, frame, sizeof frame, bytes, frame[1]);
    }
    if (n > 0)
        atomic_fetch_sub(&want_frames, n);
    if (atomic_exchange(&want_end, false)) {
        for (unsigned s = 0; s < STREAMS_MAX; s++) {
            if (!streams[s])
                continue;
            conn_end(streams[s], turn);
            conn_end(streams[s], turn); /* no more than once */
            conn_say(streams[s], turn, "unheard", 7, NULL, 0);
        }
    }
    return left > n ? turn->now_ns + 200000 : UINT64_MAX;
}

static inline void edge_up(const struct edge_limits *limits, bool tls)
{
    atomic_store(&opened, 0);
    atomic_store(&closed, 0);
    atomic_store(&want_frames, 0);
    atomic_store(&want_a_turn, 8); /* as a network might bring them */
    sequence = 0;
    struct edge_listener l = {.tls = tls, .is_public = true, .handler = handler};
    edge_open_at("127.0.0.1:0", l, limits);
    if (tls)
        edge_set_tls(edge, tls_new());
    edge_set_turn(edge, hook, NULL);
    assert_int_equal(edge_start(edge), 0);
}

static inline void wake(void)
{
    assert_int_equal(eventfd_write(edge_wake_fd(edge), 1), 0);
}

static inline void say_frames(unsigned count, unsigned len)
{
    atomic_store(&want_len, len);
    atomic_store(&want_frames, count);
    wake();
}

static inline void expect_all_closed(uint64_t count)
{
    expect_count(&closed, count);
    assert_int_equal(count_read(&opened), count);
    expect_count(&edge_stats(edge)->connections, 0);
    expect_count(&edge_stats(edge)->queued_bytes, 0);
}

/* --- the client's side --- */

#define ASK(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static inline struct client client_at(const char *request, bool tls, int status)
{
    char head[1024];
    struct client c = client_new(tls);
    client_say(&c, request);
    assert_int_equal(client_hear_head(&c, head), status);
    assert_non_null(strstr(head, "\r\nX-Test: yes\r\n"));
    assert_null(strstr(head, "Content-Length"));
    return c;
}

static inline struct client client_echo(bool tls)
{
    struct client c = client_at(ASK("/echo"), tls, 101);
    client_expect(&c, "hi!");
    return c;
}

static inline void small_window(int fd)
{
    int size = 65536;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

#endif
