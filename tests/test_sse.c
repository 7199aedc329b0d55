/* sse - the frames, byte for byte, and streams that are slow, quiet, many or gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The connection is the test's own. */
#define conn_say test_conn_say
#define conn_end test_conn_end
#define conn_set_deadline test_conn_set_deadline
#include "wss/sse.c"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { CONNS = 8 };

static struct {
    struct conn conn;
    char heard[4096];
    unsigned ended;
    uint64_t deadline_ns;
    bool loses; /* the next frame pushes an older one out */
} conns[CONNS];

static struct edge_stats stats;
static struct conn_turn turn;
static struct sse_streams streams;

static unsigned index_of(const struct conn *c)
{
    for (unsigned i = 0; i < CONNS; i++)
        if (&conns[i].conn == c)
            return i;
    fail_msg("no connection of ours");
    return 0;
}

void conn_say(struct conn *c, const struct conn_turn *t, const void *head, size_t head_len,
              const void *body, size_t body_len)
{
    unsigned i = index_of(c);
    size_t len = strlen(conns[i].heard);
    assert_ptr_equal(t, &turn);
    assert_int_equal(conns[i].ended, 0);
    assert_true(len + head_len + body_len < sizeof conns[i].heard);
    memcpy(conns[i].heard + len, head, head_len);
    if (body_len > 0)
        memcpy(conns[i].heard + len + head_len, body, body_len);
    c->out.frames++;
    if (conns[i].loses)
        atomic_fetch_add(&stats.frames_dropped, 1);
    conns[i].loses = false;
}

void conn_end(struct conn *c, const struct conn_turn *t)
{
    assert_ptr_equal(t, &turn);
    conns[index_of(c)].ended++;
}

void conn_set_deadline(struct conn *c, uint64_t at_ns)
{
    conns[index_of(c)].deadline_ns = at_ns;
}

static int set_up(void **state)
{
    (void)state;
    memset(conns, 0, sizeof conns);
    streams = (struct sse_streams){.max = CONNS};
    turn = (struct conn_turn){.stats = &stats, .now_ns = 1000000000};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    while (streams.first)
        sse_protocol.closed(streams.first);
    assert_int_equal(streams.count, 0);
    assert_int_equal(streams.fresh, 0);
    return 0;
}

static struct sse_stream *open_stream(unsigned i)
{
    struct sse_stream *s = sse_stream_new(&streams, 0);
    assert_non_null(s);
    assert_true(sse_protocol.opened(&conns[i].conn, s, &turn));
    return s;
}

static struct sse_stream *open_fed(unsigned i)
{
    struct sse_stream *s = open_stream(i);
    assert_ptr_equal(sse_take_fresh(&streams), s);
    return s;
}

static const struct {
    const char *name, *event, *id, *data, *want;
} frames[] = {
    {"all three", "status", "7", "{}", "event: status\nid: 7\ndata: {}\n\n"},
    {"no id", "resync", NULL, "{}", "event: resync\ndata: {}\n\n"},
    {"no event", NULL, "a-9", "x", "id: a-9\ndata: x\n\n"},
    {"empty id takes the last one back", NULL, "", "x", "id: \ndata: x\n\n"},
    {"no data", "e", NULL, "", "event: e\ndata: \n\n"},
    {"two lines", NULL, NULL, "a\nb", "data: a\ndata: b\n\n"},
    {"line end at the end", NULL, NULL, "a\n", "data: a\ndata: \n\n"},
    {"CR LF is one end", NULL, NULL, "a\r\nb", "data: a\ndata: b\n\n"},
    {"CR alone ends", NULL, NULL, "a\rb", "data: a\ndata: b\n\n"},
    {"LF CR are two", NULL, NULL, "a\n\rb", "data: a\ndata: \ndata: b\n\n"},
    {"no frame can be forged", NULL, NULL, "a\n\nevent: x\ndata: y",
     "data: a\ndata: \ndata: event: x\ndata: data: y\n\n"},
    {"blank in front stays", NULL, NULL, " a", "data:  a\n\n"},
};

static void test_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(frames); i++) {
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        assert_non_null(out);
        sse_write(out, frames[i].event, frames[i].id, frames[i].data, strlen(frames[i].data));
        assert_int_equal(fclose(out), 0);
        if (strcmp(text, frames[i].want) != 0)
            fail_msg("%s: %s", frames[i].name, text);
        free(text);
    }
}

static void test_last_event_id(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        bool want;
    } cases[] = {{0, true}, {1, true}, {SSE_ID_MAX - 1, true}, {SSE_ID_MAX, false}, {500, false}};
    char value[512], id[SSE_ID_MAX];
    memset(value, '7', sizeof value);
    struct http_request q = {.field_count = 0};
    assert_false(sse_last_id(&q, id));
    for (size_t i = 0; i < COUNT(cases); i++) {
        q.field_count = 1;
        q.field[0] = (struct http_field){{"last-event-id", 13}, {value, cases[i].len}};
        assert_int_equal(sse_last_id(&q, id), cases[i].want);
        if (cases[i].want)
            assert_int_equal(strlen(id), cases[i].len);
    }
}

static void test_all_hear_but_the_fresh(void **state)
{
    (void)state;
    open_fed(0);
    open_fed(1);
    struct sse_stream *fresh = open_stream(2);
    assert_int_equal(streams.fresh, 1);
    sse_say_all(&streams, &turn, "x", 1);
    assert_string_equal(conns[0].heard, "x");
    assert_string_equal(conns[1].heard, "x");
    assert_string_equal(conns[2].heard, "");
    assert_ptr_equal(sse_take_fresh(&streams), fresh);
    assert_null(sse_take_fresh(&streams));
    sse_say_all(&streams, &turn, "y", 1);
    assert_string_equal(conns[2].heard, "y");
}

static void test_nothing_is_said_before_the_head(void **state)
{
    (void)state;
    struct sse_stream *s = sse_stream_new(&streams, 5);
    assert_non_null(s);
    assert_int_equal(s->after, 5);
    assert_null(sse_take_fresh(&streams));
    sse_say(s, &turn, "x", 1);
    assert_true(sse_protocol.opened(&conns[0].conn, s, &turn));
    assert_string_equal(conns[0].heard, "");
    assert_ptr_equal(sse_take_fresh(&streams), s);
}

static void test_places_are_counted(void **state)
{
    (void)state;
    streams.max = 2;
    struct sse_stream *s = open_stream(0);
    open_stream(1);
    assert_null(sse_stream_new(&streams, 0));
    sse_protocol.closed(s);
    assert_non_null(sse_stream_new(&streams, 0));
    assert_null(sse_stream_new(&streams, 0));
}

static void test_streams_go_in_any_order(void **state)
{
    (void)state;
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t i = 0; i < COUNT(orders); i++) {
        set_up(NULL);
        struct sse_stream *s[3] = {open_fed(0), open_fed(1), open_fed(2)};
        for (unsigned gone = 0; gone < 3; gone++) {
            sse_protocol.closed(s[orders[i][gone]]);
            sse_say_all(&streams, &turn, "x", 1);
            assert_int_equal(streams.count, 2 - gone);
        }
        for (unsigned at = 0; at < 3; at++)
            assert_int_equal(strlen(conns[orders[i][at]].heard), at);
    }
}

static void test_slow_reader_is_told_and_ended(void **state)
{
    (void)state;
    struct sse_stream *s = open_fed(0);
    open_fed(1);
    conns[0].conn.out.frames = SSE_QUEUE_MAX - 1;
    sse_say_all(&streams, &turn, "x", 1);
    assert_string_equal(conns[0].heard, "x");
    assert_int_equal(conns[0].ended, 0);
    sse_say_all(&streams, &turn, "y", 1);
    assert_string_equal(conns[0].heard, "xevent: resync\ndata: {}\n\n");
    assert_int_equal(conns[0].ended, 1);
    sse_say_all(&streams, &turn, "z", 1);
    assert_int_equal(conns[0].ended, 1);
    assert_string_equal(conns[0].heard, "xevent: resync\ndata: {}\n\n");
    assert_false(sse_protocol.expired(&conns[0].conn, s, &turn));
    assert_string_equal(conns[1].heard, "xyz");
}

static void test_a_lost_frame_is_a_resync(void **state)
{
    (void)state;
    open_fed(0);
    open_fed(1);
    conns[0].loses = true;
    sse_say_all(&streams, &turn, "x", 1);
    assert_string_equal(conns[0].heard, "xevent: resync\ndata: {}\n\n");
    assert_int_equal(conns[0].ended, 1);
    assert_string_equal(conns[1].heard, "x");
    assert_int_equal(conns[1].ended, 0);
}

static void test_quiet_streams_say_a_comment(void **state)
{
    (void)state;
    struct sse_stream *s = open_fed(0);
    assert_int_equal(conns[0].deadline_ns, 16000000000);
    turn.now_ns = 5000000000;
    sse_say(s, &turn, "x", 1);
    assert_int_equal(conns[0].deadline_ns, 20000000000);
    turn.now_ns = 20000000000;
    assert_true(sse_protocol.expired(&conns[0].conn, s, &turn));
    assert_string_equal(conns[0].heard, "x: quiet\n\n");
    assert_int_equal(conns[0].deadline_ns, 35000000000);
}

/* From within the connection's own callback: it ends by the answer, not by conn_end. */
static void test_a_comment_that_does_not_fit_ends_the_stream(void **state)
{
    (void)state;
    struct sse_stream *s = open_fed(0);
    conns[0].conn.out.frames = SSE_QUEUE_MAX;
    assert_false(sse_protocol.expired(&conns[0].conn, s, &turn));
    assert_string_equal(conns[0].heard, "event: resync\ndata: {}\n\n");
    assert_int_equal(conns[0].ended, 0);
}

static void test_what_a_client_says_changes_nothing(void **state)
{
    (void)state;
    uint8_t bytes[] = "GET / HTTP/1.1\r\n";
    struct sse_stream *s = open_fed(0);
    assert_true(sse_protocol.input(&conns[0].conn, s, bytes, sizeof bytes, &turn));
    assert_string_equal(conns[0].heard, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frames),
        TEST(test_last_event_id),
        TEST(test_all_hear_but_the_fresh),
        TEST(test_nothing_is_said_before_the_head),
        TEST(test_places_are_counted),
        TEST(test_streams_go_in_any_order),
        TEST(test_slow_reader_is_told_and_ended),
        TEST(test_a_lost_frame_is_a_resync),
        TEST(test_quiet_streams_say_a_comment),
        TEST(test_a_comment_that_does_not_fit_ends_the_stream),
        TEST(test_what_a_client_says_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
