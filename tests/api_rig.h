/* api_rig - the admin interface without a socket: requests and connections are made up, the main
 * thread and the bridge are the test's own. Includes the sources, so that their statics are in
 * reach and nothing of theirs is linked twice. One test program includes it. */
#ifndef BEACON_TESTS_API_RIG_H
#define BEACON_TESTS_API_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The connections and the bridge are the test's own. */
#define conn_say test_conn_say
#define conn_end test_conn_end
#define conn_set_deadline test_conn_set_deadline
#define bridge_each test_bridge_each
#define bridge_stats test_bridge_stats
#define talkers_read test_talkers_read
#include "wss/sse.c"
#include "wss/api_pages.c"
#include "wss/api_events.c"
#include "wss/api.c"
#include "tests/rig.h"

enum { LANES = 3, CONNS = 4, HEARD_MAX = 65536, SESSIONS = 250 };

static struct rig rig;
static struct admin admin;
static struct events events;
static struct api api;

/* --- what stands around it --- */

static struct {
    struct conn conn;
    char heard[HEARD_MAX];
    unsigned says;
} conns[CONNS];
static struct edge_stats edge_counts;
static struct conn_turn turn;

void conn_say(struct conn *c, const struct conn_turn *t, const void *head, size_t head_len,
              const void *body, size_t body_len)
{
    for (unsigned i = 0; i < CONNS; i++) {
        if (&conns[i].conn != c)
            continue;
        size_t len = strlen(conns[i].heard);
        assert_true(len + head_len < HEARD_MAX);
        memcpy(conns[i].heard + len, head, head_len);
        conns[i].says++;
    }
    assert_null(body);
    (void)t, (void)body_len;
}

void conn_end(struct conn *c, const struct conn_turn *t)
{
    (void)c, (void)t;
}

void conn_set_deadline(struct conn *c, uint64_t at_ns)
{
    (void)c, (void)at_ns;
}

static struct bridge_stats bridge_counts;
/* An address that stands for one. */
static inline struct bridge *a_bridge(void)
{
    static int there;
    return (struct bridge *)&there;
}

const struct bridge_stats *bridge_stats(const struct bridge *b)
{
    (void)b;
    return &bridge_counts;
}

bool bridge_each(const struct bridge *b, unsigned *place, unsigned count, uint64_t now_ns,
                 void (*each)(const struct bridge_session *, void *), void *arg)
{
    (void)b, (void)now_ns;
    for (; count > 0 && *place < SESSIONS; count--, ++*place) {
        struct bridge_session s = {.node_id = 1000 + *place,
                                   .from = endpoint_at(AT_A),
                                   .class_ = ROUTE_KEYED,
                                   .tls = true};
        each(&s, arg);
    }
    return *place < SESSIONS;
}

/* By lane: how many, and of whom. */
static struct {
    unsigned count;
    struct talker of[TALKERS_MAX];
} talks[LANES];

unsigned talkers_read(const struct talkers *t, struct talker ret[static TALKERS_MAX])
{
    for (unsigned i = 0; i < LANES; i++) {
        if (rig.server->lane[i]->talkers != t)
            continue;
        memcpy(ret, talks[i].of, talks[i].count * sizeof *ret);
        return talks[i].count;
    }
    return 0;
}

/* The main thread: what it was told. */
static struct {
    unsigned reloads, drains, levels, wakes, lane;
    bool on;
    enum log_level level;
} told;

static inline void on_reload(void *arg)
{
    assert_ptr_equal(arg, &told);
    told.reloads++;
}

static inline void on_drain(void *arg, bool on)
{
    assert_ptr_equal(arg, &told);
    told.drains++;
    told.on = on;
}

static inline void on_level(void *arg, enum log_level level)
{
    assert_ptr_equal(arg, &told);
    told.levels++;
    told.level = level;
}

static inline void on_wake(void *arg, unsigned lane)
{
    assert_ptr_equal(arg, &told);
    told.wakes++;
    told.lane = lane;
}

static inline void open_with(uint32_t max_nodes)
{
    rig_open(&rig, LANES, max_nodes);
    memset(&told, 0, sizeof told);
    memset(talks, 0, sizeof talks);
    memset(conns, 0, sizeof conns);
    memset(&admin, 0, sizeof admin);
    memset(&bridge_counts, 0, sizeof bridge_counts);
    events_init(&events);
    turn = (struct conn_turn){.stats = &edge_counts, .now_ns = 100 * SECOND_NS};
    admin.server = rig.server;
    admin.version = "1.2.3";
    admin.revision = "abcdef";
    admin.compiler = "cc";
    admin.io = "mmsg";
    admin.started_ns = edge_clock_ns();
    admin.started_unix_s = 0x1234;
    admin.log_level = LOG_WARN;
    admin_reloaded(&admin, true, NULL);
    api = (struct api){.admin = &admin,
                       .events = &events,
                       .commands = {&told, on_reload, on_drain, on_level, on_wake}};
}

static inline int set_up(void **state)
{
    (void)state;
    open_with(1000);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    while (api.streams.first)
        sse_protocol.closed(api.streams.first);
    assert_int_equal(api.streams.count, 0);
    rig_close(&rig);
    return 0;
}

/* --- asking --- */

struct got {
    int status;
    const char *type, *allow, *fields;
    char *body; /* freed by the next question */
    size_t len;
    void *state;
};

static char *last_body;

/* `fields`: with their CRLF; a Host is added unless it begins with one. */
static inline struct got ask_from(const char *from, const char *method, const char *path,
                                  const char *fields, const char *body)
{
    char head[4096];
    struct http_request q;
    struct edge_response r = {.status = 0};
    int len = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\n%s%s\r\n", method, path,
                       strstr(fields, "Host:") ? "" : "Host: 127.0.0.1:8081\r\n", fields);
    assert_true(len > 0 && (size_t)len < sizeof head);
    assert_int_equal(http_read_head(head, (size_t)len, &q), 0);
    struct edge_request request = {.http = &q, .body = body, .body_len = body ? strlen(body) : 0};
    if (from)
        request.from = endpoint_at(from);
    api_http(&api, &request, &r);
    free(last_body);
    last_body = calloc(1, r.body_len + 1);
    assert_non_null(last_body);
    if (r.body)
        memcpy(last_body, r.body, r.body_len);
    free(r.body);
    assert_true(!r.protocol || r.protocol == &sse_protocol);
    return (struct got){.status = r.status,
                        .type = r.content_type ? r.content_type : "",
                        .allow = r.allow ? r.allow : "",
                        .fields = r.fields ? r.fields : "",
                        .body = last_body,
                        .len = r.body_len,
                        .state = r.state};
}

static inline struct got get(const char *path)
{
    return ask_from("127.0.0.1:5000", "GET", path, "", NULL);
}

static inline struct got post(const char *path, const char *body)
{
    return ask_from("127.0.0.1:5000", "POST", path, "Content-Type: application/json\r\n", body);
}

/* The JSON of a good answer; to be released. */
static inline json_t *get_json(const char *path)
{
    struct got got = get(path);
    if (got.status != 200)
        fail_msg("%s: %d %s", path, got.status, got.body);
    assert_string_equal(got.type, "application/json");
    assert_int_equal(got.body[got.len - 1], '\n');
    json_t *value = json_loads(got.body, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(value);
    return value;
}

static inline json_int_t number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value))
        fail_msg("%s is no number", name);
    return json_integer_value(value);
}

static inline const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    if (!value)
        fail_msg("%s is no text", name);
    return value;
}

static inline void node_put(uint32_t id, const char *at, uint8_t flags, uint8_t class_)
{
    struct route r = {.id = id, .at = endpoint_at(at), .flags = flags, .class_ = class_};
    r.seen_s = (uint32_t)(edge_clock_ns() / SECOND_NS);
    assert_int_equal(route_put(rig.server->lane[rig_owner(&rig, id)]->routes, &r, NULL),
                     ROUTE_INSERTED);
}

#define LOCAL "127.0.0.1:5000"
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
