/* api - what the admin interface shows: status, lists in pages, the status page, the event stream.
 */
#include "tests/api_rig.h"

/* --- pages --- */

static void test_status(void **state)
{
    (void)state;
    count_set(&rig.server->lane[0]->stats.received, 5);
    count_set(&rig.server->lane[2]->stats.received, 6);
    count_set(&rig.server->lane[1]->stats.sent_bytes, 77);
    count_set(&rig.server->lane[1]->stats.nodes_v4, 3);
    count_set(&rig.server->lane[2]->stats.nodes_v6, 4);
    count_set(&rig.server->lane[0]->stats.verdict[VERDICT_RELAY_FORWARDED], 10);
    count_set(&rig.server->lane[1]->stats.verdict[VERDICT_RELAY_FORWARDED_UNPROVEN], 1);
    count_set(&rig.server->lane[1]->stats.verdict[VERDICT_RELAY_NO_ROUTE], 9);
    atomic_store(&bridge_counts.sessions, 12);
    admin.certificate_count = 1;
    strcpy(admin.certificate[0].name, "beacon.example");
    admin.certificate[0].not_after_unix_s = (int64_t)time(NULL) + 10 * 86400 + 3600;
    api.bridge = a_bridge();
    json_t *s = get_json("/v1/status");
    assert_string_equal(text(s, "version"), "1.2.3");
    assert_string_equal(text(s, "revision"), "abcdef");
    assert_string_equal(text(s, "io"), "mmsg");
    assert_string_equal(text(s, "state"), "not_ready");
    assert_true(json_is_false(json_object_get(s, "ready")));
    assert_string_equal(text(json_object_get(s, "checks"), "udp4"), "starting");
    assert_string_equal(text(s, "log_level"), "warn");
    assert_int_equal(number(s, "shards"), LANES);
    assert_int_equal(number(json_object_get(s, "nodes"), "udp4"), 3);
    assert_int_equal(number(json_object_get(s, "nodes"), "udp6"), 4);
    assert_true(number(json_object_get(s, "nodes"), "capacity") >= 1000);
    assert_int_equal(number(s, "sessions"), 12);
    assert_int_equal(number(json_object_get(s, "received"), "packets"), 11);
    assert_int_equal(number(json_object_get(s, "sent"), "bytes"), 77);
    assert_int_equal(number(s, "relayed"), 11);
    const json_t *verdicts = json_object_get(s, "verdicts");
    assert_int_equal(json_array_size(verdicts), 3); /* only what has happened */
    assert_string_equal(text(json_array_get(verdicts, 2), "reason"), "no_route");
    assert_int_equal(number(json_array_get(verdicts, 2), "count"), 9);
    const json_t *c = json_array_get(json_object_get(s, "certificates"), 0);
    assert_string_equal(text(c, "name"), "beacon.example");
    assert_int_equal(number(c, "days_left"), 10);
    assert_true(json_is_null(json_object_get(json_object_get(s, "reload"), "error")));
    json_decref(s);
}

static void test_days_left(void **state)
{
    (void)state;
    assert_int_equal(days_left(86400, 0), 1);
    assert_int_equal(days_left(86399, 0), 0);
    assert_int_equal(days_left(0, 0), 0);
    assert_int_equal(days_left(0, 1), -1);
    assert_int_equal(days_left(0, 86400), -1);
    assert_int_equal(days_left(0, 86401), -2);
}

static void test_draining_shows(void **state)
{
    (void)state;
    atomic_store(&admin.draining, true);
    json_t *s = get_json("/v1/status");
    assert_string_equal(text(s, "state"), "draining");
    assert_true(json_is_true(json_object_get(s, "draining")));
    json_decref(s);
}

/* Follows "next" to the end. Each node of `base` + 0.. is seen once; returns the pages taken. */
static unsigned read_pages(const char *path, const char *name, unsigned limit, unsigned base,
                           unsigned want)
{
    char at[128], after[64] = "";
    uint8_t *seen = calloc(want, 1);
    unsigned pages = 0, found = 0;
    assert_non_null(seen);
    do {
        snprintf(at, sizeof at, "%s?limit=%u%s%s", path, limit, *after ? "&after=" : "", after);
        json_t *page = get_json(at);
        const json_t *list = json_object_get(page, name), *row;
        size_t i;
        assert_true(json_array_size(list) <= limit);
        json_array_foreach(list, i, row)
        {
            json_int_t id = number(row, "node_id");
            assert_true(id >= base && id < base + want);
            assert_int_equal(seen[id - base]++, 0);
            found++;
        }
        const char *next = json_string_value(json_object_get(page, "next"));
        snprintf(after, sizeof after, "%s", next ? next : "");
        json_decref(page);
        assert_true(++pages < 10000);
    } while (*after);
    free(seen);
    assert_int_equal(found, want);
    return pages;
}

static void test_nodes_in_pages(void **state)
{
    (void)state;
    for (uint32_t id = 1; id <= 700; id++)
        node_put(id, id % 2 ? AT_A : "[2001:db8::7]:9", 0, 0);
    assert_int_equal(read_pages("/v1/nodes", "nodes", 1000, 1, 700), 1);
    assert_true(read_pages("/v1/nodes", "nodes", 100, 1, 700) >= 7);
    assert_true(read_pages("/v1/nodes", "nodes", 1, 1, 700) >= 700);
}

static void test_no_nodes(void **state)
{
    (void)state;
    assert_string_equal(get("/v1/nodes").body, "{\"nodes\":[],\"next\":null}\n");
}

/* A table that is almost empty is not walked in one go. */
static void test_a_large_table_takes_several_requests(void **state)
{
    (void)state;
    rig_close(&rig);
    open_with(400000);
    for (uint32_t id = 1; id <= 5; id++)
        node_put(id, AT_A, 0, 0);
    assert_true(read_pages("/v1/nodes", "nodes", 1000, 1, 5) >= 400000 / API_ROWS_A_TURN);
}

static void test_sessions_in_pages(void **state)
{
    (void)state;
    assert_string_equal(get("/v1/sessions").body, "{\"sessions\":[],\"next\":null}\n");
    api.bridge = a_bridge();
    assert_int_equal(read_pages("/v1/sessions", "sessions", 100, 1000, SESSIONS), 3);
    json_t *page = get_json("/v1/sessions"); /* the default limit */
    const json_t *list = json_object_get(page, "sessions");
    assert_int_equal(json_array_size(list), API_PAGE_DEFAULT);
    assert_string_equal(text(json_array_get(list, 0), "class"), "keyed");
    assert_string_equal(text(json_array_get(list, 0), "endpoint"), AT_A);
    json_decref(page);
}

static const struct {
    const char *query;
    int nodes, sessions;
} queries[] = {
    {"limit=1", 200, 200},
    {"limit=1000", 200, 200},
    {"limit=0001", 200, 200},
    {"limit=0", 400, 400},
    {"limit=1001", 400, 400},
    {"limit=-1", 400, 400},
    {"limit=", 400, 400},
    {"limit", 400, 400},
    {"limit=1x", 400, 400},
    {"limit=18446744073709551617", 400, 400},
    {"after=0-0", 200, 400},
    {"after=0-4294967295", 200, 400},
    {"after=0-4294967296", 400, 400},
    {"after=2-5&limit=3", 200, 400},
    {"after=64-5", 200, 400},
    {"after=65-5", 400, 400},
    {"after=5", 400, 200},
    {"after=4294967295", 400, 200},
    {"after=4294967296", 400, 400},
    {"after=", 400, 400},
    {"after=-", 400, 400},
    {"after=1-", 400, 400},
    {"after=1-2-3", 400, 400},
    {"", 200, 200},
    {"&&", 200, 200},
    {"other=1", 200, 200},
};

static void test_ranges(void **state)
{
    (void)state;
    api.bridge = a_bridge();
    for (size_t i = 0; i < COUNT(queries); i++) {
        char path[128];
        snprintf(path, sizeof path, "/v1/nodes?%s", queries[i].query);
        int nodes = get(path).status;
        snprintf(path, sizeof path, "/v1/sessions?%s", queries[i].query);
        int sessions = get(path).status;
        if (nodes != queries[i].nodes || sessions != queries[i].sessions)
            fail_msg("%s: %d, %d", queries[i].query, nodes, sessions);
    }
}

static void test_one_node(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        int status;
    } cases[] = {{"7", 200}, {"4294967295", 200}, {"007", 200}, {"8", 404},
                 {"0", 404}, {"4294967296", 400}, {"-7", 400},  {"7/", 400},
                 {"", 400},  {"7x", 400},         {"%37", 400}};
    node_put(7, AT_A, 0, ROUTE_KEYED);
    node_put(UINT32_MAX, "[2001:db8::7]:9", 0, ROUTE_SIGNED);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[64];
        snprintf(path, sizeof path, "/v1/nodes/%s", cases[i].id);
        if (get(path).status != cases[i].status)
            fail_msg("%s: %d", path, get(path).status);
    }
    json_t *node = get_json("/v1/nodes/7");
    assert_int_equal(number(node, "node_id"), 7);
    assert_string_equal(text(node, "endpoint"), AT_A);
    assert_string_equal(text(node, "transport"), "udp4");
    assert_string_equal(text(node, "class"), "keyed");
    assert_true(number(node, "silent_s") <= 1);
    json_decref(node);
    node = get_json("/v1/nodes/4294967295");
    assert_string_equal(text(node, "transport"), "udp6");
    assert_string_equal(text(node, "class"), "signed");
    json_decref(node);
}

static void talk(unsigned lane, uint32_t node_id, uint64_t packets, uint64_t bytes)
{
    talks[lane].of[talks[lane].count++] = (struct talker){
        .node_id = node_id, .from = endpoint_at(AT_A), .packets = packets, .bytes = bytes};
}

static void test_talkers_are_merged(void **state)
{
    (void)state;
    assert_string_equal(get("/v1/talkers").body, "{\"window_s\":10,\"talkers\":[]}\n");
    for (uint32_t i = 0; i < TALKERS_MAX; i++) {
        talk(0, 100 + i, 1, 1000 + i);
        talk(1, 200 + i, 1, 1100 + i);
    }
    talk(2, 100, 5, 5000); /* smallest on lane 0, but not in all */
    talk(2, 7, 1, 5999);
    json_t *all = get_json("/v1/talkers");
    const json_t *list = json_object_get(all, "talkers"), *row;
    size_t i;
    assert_int_equal(json_array_size(list), API_TALKERS_MAX);
    assert_int_equal(number(json_array_get(list, 0), "node_id"), 100);
    assert_int_equal(number(json_array_get(list, 0), "bytes"), 6000);
    assert_int_equal(number(json_array_get(list, 0), "packets"), 6);
    assert_int_equal(number(json_array_get(list, 1), "node_id"), 7);
    json_array_foreach(list, i, row)
    {
        if (i >= 2)
            assert_int_equal(number(row, "node_id"), 231 - (i - 2));
    }
    json_decref(all);
}

/* --- the status page --- */

static void expect_hash(const char *fields, const char *from, const char *to)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    char want[80] = "'sha256-";
    const char *begin = strstr(status_page, from) + strlen(from), *end = strstr(begin, to);
    crypto_hash_sha256(hash, (const uint8_t *)begin, (unsigned long long)(end - begin));
    sodium_bin2base64(want + 8, 64, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
    assert_non_null(strstr(fields, strcat(want, "'")));
    assert_null(strstr(end, from)); /* there is one only */
}

static void test_page(void **state)
{
    (void)state;
    static const char *const ids[] = {"state",  "nodes",   "sessions", "relays",
                                      "events", "talkers", "live"};
    struct got got = get("/");
    assert_string_equal(got.type, "text/html; charset=utf-8");
    assert_true(got.len > 5000 && got.len <= 24 * 1024);
    assert_int_equal(strlen(got.body), got.len);
    assert_null(strstr(got.body, "http:"));
    assert_null(strstr(got.body, "https:"));
    assert_null(strstr(got.body, "innerHTML"));
    assert_null(strstr(got.body, " style="));
    for (size_t i = 0; i < COUNT(ids); i++) {
        char id[32];
        snprintf(id, sizeof id, " id=\"%s\"", ids[i]);
        if (!strstr(got.body, id))
            fail_msg("no %s", ids[i]);
    }
    assert_non_null(strstr(got.fields, "Content-Security-Policy: default-src 'none';"));
    assert_non_null(strstr(got.fields, "X-Frame-Options: DENY\r\n"));
    assert_non_null(strstr(got.fields, "Referrer-Policy: no-referrer\r\n"));
    assert_null(strstr(got.fields, "unsafe"));
    expect_hash(got.fields, "<style>", "</style>");
    expect_hash(got.fields, "<script>", "</script>");
    const char *fields = got.fields;
    assert_ptr_equal(get("/").fields, fields);
    assert_true(strlen(fields) < 900); /* CONN_ANSWER_HEAD_MAX holds it and the rest */
}

/* --- the event stream --- */

static struct sse_stream *listen_on(unsigned i, const char *fields)
{
    struct got got = ask_from(LOCAL, "GET", "/v1/events", fields, NULL);
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "text/event-stream");
    assert_non_null(got.state);
    assert_true(sse_protocol.opened(&conns[i].conn, got.state, &turn));
    return got.state;
}

static unsigned count_of(const char *in, const char *what)
{
    unsigned n = 0;
    for (; (in = strstr(in, what)); in++)
        n++;
    return n;
}

static void turn_after_ms(uint64_t ms)
{
    turn.now_ns += ms * 1000000;
    api_turn(&api, &turn);
}

static void test_a_stream_begins_with_the_status(void **state)
{
    (void)state;
    assert_int_equal(api_turn(&api, &turn), UINT64_MAX);
    events_add(&events, false, "reload", "taken");
    events_add(&events, false, "drain", "on");
    listen_on(0, "");
    turn_after_ms(0);
    assert_int_equal(conns[0].says, 1); /* in one piece: a backlog is not a slow reader */
    assert_memory_equal(conns[0].heard, "event: status\ndata: {\"version\":\"1.2.3\"", 37);
    const char *first = strstr(conns[0].heard, "event: event\nid: 1234-1\ndata: {\"sequence\":1,");
    const char *second = strstr(conns[0].heard, "event: event\nid: 1234-2\ndata: {\"sequence\":2,");
    assert_non_null(first);
    assert_true(second > first);
    assert_int_equal(count_of(conns[0].heard, "\n\n"), 3);
    json_t *e = json_loads(strstr(second, "data: ") + 6, JSON_DISABLE_EOF_CHECK, NULL);
    assert_string_equal(text(e, "kind"), "drain");
    assert_string_equal(text(e, "text"), "on");
    assert_true(number(e, "unix_ms") > 0);
    json_decref(e);
}

static void test_status_each_second_and_events_at_once(void **state)
{
    (void)state;
    listen_on(0, "");
    listen_on(1, "");
    uint64_t begin_ns = turn.now_ns;
    assert_true(api_turn(&api, &turn) <= begin_ns + SECOND_NS);
    turn_after_ms(500);
    assert_int_equal(count_of(conns[0].heard, "event: status"), 1);
    events_add(&events, false, "reload", "taken");
    turn_after_ms(0);
    turn_after_ms(0);
    assert_int_equal(count_of(conns[0].heard, "event: event"), 1);
    turn_after_ms(499);
    assert_int_equal(count_of(conns[0].heard, "event: status"), 1);
    turn_after_ms(1);
    turn_after_ms(1);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(count_of(conns[i].heard, "event: status"), 2);
        assert_int_equal(count_of(conns[i].heard, "event: event"), 1);
    }
    listen_on(2, "");
    turn_after_ms(1);
    assert_int_equal(count_of(conns[2].heard, "event: status"), 1);
    assert_int_equal(count_of(conns[2].heard, "event: event"), 1);
    assert_int_equal(count_of(conns[0].heard, "event: status"), 2);
}

static const struct {
    const char *name, *id;
    unsigned want; /* events heard of the three there are */
} resumes[] = {
    {"all seen", "1234-3", 0},
    {"one missed", "1234-2", 1},
    {"none seen", "1234-0", 3},
    {"of another run", "1233-2", 3},
    {"from the future", "1234-4", 3},
    {"no number", "1234-", 3},
    {"no run", "2", 3},
    {"words", "x-y", 3},
    {"more behind", "1234-2x", 3},
    {"zeros in front", "1234-02", 3},
    {"too large", "1234-99999999999999999999999", 3},
};

static void test_last_event_id(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        events_add(&events, false, "reload", "taken");
    turn_after_ms(0);
    for (size_t i = 0; i < COUNT(resumes); i++) {
        char fields[128];
        memset(conns, 0, sizeof conns);
        snprintf(fields, sizeof fields, "Last-Event-ID: %s\r\n", resumes[i].id);
        struct sse_stream *s = listen_on(0, fields);
        turn_after_ms(0);
        unsigned got = count_of(conns[0].heard, "event: event");
        if (got != resumes[i].want)
            fail_msg("%s: %u", resumes[i].name, got);
        sse_protocol.closed(s);
    }
}

static void test_streams_are_capped(void **state)
{
    (void)state;
    struct got got = {.status = 0};
    for (unsigned i = 0; i < API_STREAMS_MAX; i++) {
        got = get("/v1/events");
        assert_int_equal(got.status, 200);
    }
    assert_int_equal(get("/v1/events").status, 503);
    sse_protocol.closed(got.state);
    assert_int_equal(get("/v1/events").status, 200);
}

/* More events at once than are kept, and the last are told. */
static void test_a_burst_of_events(void **state)
{
    (void)state;
    listen_on(0, "");
    turn_after_ms(0);
    conns[0].heard[0] = '\0';
    for (unsigned i = 0; i < EVENTS_KEPT + 10; i++)
        events_add(&events, false, "session", "number %u", i);
    turn_after_ms(0);
    assert_int_equal(count_of(conns[0].heard, "event: event"), EVENTS_KEPT);
    assert_non_null(strstr(conns[0].heard, "id: 1234-11\n"));
    assert_non_null(strstr(conns[0].heard, "id: 1234-74\n"));
    assert_int_equal(conns[0].says, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_status),
        TEST(test_days_left),
        TEST(test_draining_shows),
        TEST(test_nodes_in_pages),
        TEST(test_no_nodes),
        TEST(test_a_large_table_takes_several_requests),
        TEST(test_sessions_in_pages),
        TEST(test_ranges),
        TEST(test_one_node),
        TEST(test_talkers_are_merged),
        TEST(test_page),
        TEST(test_a_stream_begins_with_the_status),
        TEST(test_status_each_second_and_events_at_once),
        TEST(test_last_event_id),
        TEST(test_streams_are_capped),
        TEST(test_a_burst_of_events),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(last_body);
    return failed;
}
