/* api - the admin interface: who may ask, what paths and types there are, what commands reach the
 * main thread. */
#include "tests/api_rig.h"

/* --- who may ask --- */

static const struct {
    const char *name, *from, *host, *more;
    int plain, with_token; /* statuses of /v1/status; with_token: the token is sent, too */
} hosts[] = {
    {"IPv4", LOCAL, "127.0.0.1:8081", "", 200, 200},
    {"IPv4 without a port", LOCAL, "127.0.0.1", "", 200, 200},
    {"another IPv4", LOCAL, "192.0.2.1:80", "", 200, 200},
    {"IPv6", LOCAL, "[::1]:8081", "", 200, 200},
    {"IPv6 without a port", LOCAL, "[::1]", "", 200, 200},
    {"localhost", LOCAL, "localhost:8081", "", 200, 200},
    {"localhost without a port", LOCAL, "localhost", "", 200, 200},
    {"localhost in capitals", LOCAL, "LocalHost:1", "", 200, 200},
    {"a name", LOCAL, "beacon.example", "", 403, 200},
    {"a name with a port", LOCAL, "beacon.example:8081", "", 403, 200},
    {"a name that begins like localhost", LOCAL, "localhost.example:8081", "", 403, 200},
    {"a name that begins like an address", LOCAL, "127.0.0.1.example", "", 403, 200},
    {"a port only", LOCAL, ":8081", "", 403, 200},
    {"IPv6 without brackets", LOCAL, "::1", "", 403, 200},
    {"a long name", LOCAL, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "", 403, 200},
    {"a name, over a unix socket", NULL, "beacon.example", "", 403, 200},
    {"localhost, over a unix socket", NULL, "localhost:8081", "", 200, 200},
    {"same origin", LOCAL, "127.0.0.1:8081", "Origin: http://127.0.0.1:8081\r\n", 200, 200},
    {"same origin, TLS in front", LOCAL, "[::1]:8081", "Origin: https://[::1]:8081\r\n", 200, 200},
    {"same origin, port 80 not named", LOCAL, "127.0.0.1:80", "Origin: http://127.0.0.1\r\n", 200,
     200},
    {"same origin, port 443 not named", LOCAL, "127.0.0.1", "Origin: https://127.0.0.1\r\n", 200,
     200},
    {"same origin in other letters", LOCAL, "localhost:1", "Origin: http://LOCALHOST:1\r\n", 200,
     200},
    {"another port", LOCAL, "127.0.0.1:8081", "Origin: http://127.0.0.1:8080\r\n", 403, 403},
    {"another host", LOCAL, "127.0.0.1:8081", "Origin: http://evil.example\r\n", 403, 403},
    {"one that ends like us", LOCAL, "127.0.0.1:8081", "Origin: http://x127.0.0.1:8081\r\n", 403,
     403},
    {"one that begins like us", LOCAL, "127.0.0.1:8081", "Origin: http://127.0.0.1:80810\r\n", 403,
     403},
    {"no origin to speak of", LOCAL, "127.0.0.1:8081", "Origin: null\r\n", 403, 403},
    {"empty origin", LOCAL, "127.0.0.1:8081", "Origin:\r\n", 403, 403},
    {"an extension", LOCAL, "127.0.0.1:8081", "Origin: moz-extension://127.0.0.1:8081\r\n", 403,
     403},
    {"another origin, over a unix socket", NULL, "localhost", "Origin: http://evil.example\r\n",
     403, 403},
};

static void test_names_and_origins(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hosts); i++) {
        char fields[512];
        snprintf(fields, sizeof fields, "Host: %s\r\n%s", hosts[i].host, hosts[i].more);
        api.token = "";
        struct got got = ask_from(hosts[i].from, "GET", "/v1/status", fields, NULL);
        if (got.status != hosts[i].plain)
            fail_msg("%s: %d", hosts[i].name, got.status);
        api.token = "sixteen letters.";
        strcat(fields, "Authorization: Bearer sixteen letters.\r\n");
        got = ask_from(hosts[i].from, "GET", "/v1/status", fields, NULL);
        if (got.status != hosts[i].with_token)
            fail_msg("%s, with a token: %d", hosts[i].name, got.status);
        /* Load balancers come under any name. */
        assert_int_not_equal(ask_from(hosts[i].from, "GET", "/livez", fields, NULL).status, 403);
    }
}

/* HTTP/1.0 may come without a Host. */
static void test_no_host_is_no_name(void **state)
{
    (void)state;
    static const char head[] = "GET /v1/status HTTP/1.0\r\n\r\n";
    struct http_request q;
    struct edge_response r = {.status = 0};
    assert_int_equal(http_read_head(head, sizeof head - 1, &q), 0);
    api_http(&api, &(struct edge_request){.http = &q, .from = endpoint_at(LOCAL)}, &r);
    assert_int_equal(r.status, 403);
    free(r.body);
}

static const struct {
    const char *name, *fields;
    int status;
} tokens[] = {
    {"right", "Authorization: Bearer sixteen-letters.\r\n", 200},
    {"scheme in other letters", "Authorization: bearer sixteen-letters.\r\n", 200},
    {"none", "", 401},
    {"wrong", "Authorization: Bearer sixteen-letters,\r\n", 401},
    {"short", "Authorization: Bearer sixteen-letters\r\n", 401},
    {"long", "Authorization: Bearer sixteen-letters..\r\n", 401},
    {"empty", "Authorization: Bearer\r\n", 401},
    {"another scheme", "Authorization: Basic sixteen-letters.\r\n", 401},
    {"no scheme", "Authorization: sixteen-letters.\r\n", 401},
};

static void test_tokens(void **state)
{
    (void)state;
    struct event e;
    api.token = "sixteen-letters.";
    for (size_t i = 0; i < COUNT(tokens); i++) {
        struct got got = ask_from(LOCAL, "GET", "/v1/status", tokens[i].fields, NULL);
        if (got.status != tokens[i].status)
            fail_msg("%s: %d", tokens[i].name, got.status);
        if (got.status == 401)
            assert_non_null(strstr(got.fields, "WWW-Authenticate: Bearer\r\n"));
        assert_int_equal(ask_from(LOCAL, "GET", "/metrics", tokens[i].fields, NULL).status,
                         tokens[i].status);
        assert_int_equal(ask_from(LOCAL, "GET", "/v1/none", tokens[i].fields, NULL).status,
                         tokens[i].status == 200 ? 404 : 401);
        assert_int_equal(ask_from(LOCAL, "GET", "/", tokens[i].fields, NULL).status, 200);
        assert_int_equal(ask_from(LOCAL, "GET", "/livez", tokens[i].fields, NULL).status, 200);
    }
    assert_true(events_next(&events, 0, &e));
    assert_string_equal(e.kind, "auth");
    assert_non_null(strstr(e.text, LOCAL));
}

/* --- paths, methods, types --- */

static const struct {
    const char *method, *path, *type;
    int status;
    const char *allow;
} routes[] = {
    {"GET", "/v1/status", "", 200, ""},
    {"HEAD", "/v1/status", "", 200, ""},
    {"POST", "/v1/status", "application/json", 405, "GET, HEAD"},
    {"PUT", "/v1/status", "", 405, "GET, HEAD"},
    {"GET", "/v1/status/", "", 404, ""},
    {"GET", "/v1/statu", "", 404, ""},
    {"GET", "/v1", "", 404, ""},
    {"GET", "//v1/status", "", 404, ""},
    {"GET", "/v1/nodes", "", 200, ""},
    {"GET", "/v1/nodes/", "", 400, ""},
    {"GET", "/v1/talkers", "", 200, ""},
    {"GET", "/v1/sessions", "", 200, ""},
    {"GET", "/", "", 200, ""},
    {"HEAD", "/", "", 200, ""},
    {"POST", "/", "application/json", 405, "GET, HEAD"},
    {"GET", "/index.html", "", 404, ""},
    {"GET", "/metrics", "", 200, ""},
    {"POST", "/metrics", "application/json", 405, "GET, HEAD"},
    {"GET", "/livez", "", 200, ""},
    {"GET", "/healthz", "", 503, ""},
    {"GET", "/readyz", "", 503, ""},
    {"POST", "/v1/events", "application/json", 405, "GET"},
    {"HEAD", "/v1/events", "", 405, "GET"},
    {"GET", "/v1/reload", "", 405, "POST"},
    {"HEAD", "/v1/drain", "", 405, "POST"},
    {"DELETE", "/v1/notify", "", 405, "POST"},
    {"POST", "/v1/reload", "application/json", 202, ""},
    {"POST", "/v1/reload", "Application/JSON; charset=utf-8", 202, ""},
    {"POST", "/v1/reload", "application/json;charset=utf-8", 202, ""},
    {"POST", "/v1/reload", "", 415, ""},
    {"POST", "/v1/reload", "text/plain", 415, ""},
    {"POST", "/v1/reload", "application/x-www-form-urlencoded", 415, ""},
    {"POST", "/v1/reload", "multipart/form-data; boundary=x", 415, ""},
    {"POST", "/v1/reload", "application/jsonp", 415, ""},
    {"POST", "/v1/reload", "text/plain, application/json", 415, ""},
};

static void test_paths_and_methods(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(routes); i++) {
        char fields[256] = "";
        if (routes[i].type[0])
            snprintf(fields, sizeof fields, "Content-Type: %s\r\n", routes[i].type);
        struct got got = ask_from(LOCAL, routes[i].method, routes[i].path, fields, NULL);
        if (got.status != routes[i].status)
            fail_msg("%s %s %s: %d", routes[i].method, routes[i].path, routes[i].type, got.status);
        assert_string_equal(got.allow, routes[i].allow);
        if (got.status >= 400 && got.status != 503 && strcmp(routes[i].path, "/metrics") != 0) {
            json_t *value = json_loads(got.body, 0, NULL);
            assert_true(strlen(text(value, "error")) > 5);
            json_decref(value);
        }
        if (strncmp(routes[i].path, "/v1", 3) == 0)
            assert_non_null(strstr(got.fields, "X-Content-Type-Options: nosniff\r\n"));
    }
    assert_int_equal(told.reloads, 3);
}

/* --- commands --- */

static const struct {
    const char *path, *body;
    int status;
    const char *want; /* what a good one answers */
} commands[] = {
    {"/v1/drain", "{\"on\":true}", 200, "{\"draining\":true}\n"},
    {"/v1/drain", " { \"on\" : false } ", 200, "{\"draining\":false}\n"},
    {"/v1/drain", "{\"on\":1}", 400, NULL},
    {"/v1/drain", "{\"on\":\"true\"}", 400, NULL},
    {"/v1/drain", "{\"on\":null}", 400, NULL},
    {"/v1/drain", "{}", 400, NULL},
    {"/v1/drain", "", 400, NULL},
    {"/v1/drain", "{\"on\":true,\"for\":1}", 400, NULL},
    {"/v1/drain", "{\"on\":true,\"on\":false}", 400, NULL},
    {"/v1/drain", "{\"off\":true}", 400, NULL},
    {"/v1/drain", "[true]", 400, NULL},
    {"/v1/drain", "true", 400, NULL},
    {"/v1/drain", "{\"on\":true", 400, NULL},
    {"/v1/drain", "{\"on\":true} x", 400, NULL},
    {"/v1/drain", "{\"on\":true}{}", 400, NULL},
    {"/v1/log-level", "{\"level\":\"debug\"}", 200, "{\"level\":\"debug\"}\n"},
    {"/v1/log-level", "{\"level\":\"info\"}", 200, "{\"level\":\"info\"}\n"},
    {"/v1/log-level", "{\"level\":\"error\"}", 200, "{\"level\":\"error\"}\n"},
    {"/v1/log-level", "{\"level\":\"DEBUG\"}", 400, NULL},
    {"/v1/log-level", "{\"level\":\"\"}", 400, NULL},
    {"/v1/log-level", "{\"level\":0}", 400, NULL},
    {"/v1/log-level", "{\"level\":\"debug\\u0000\"}", 400, NULL},
    {"/v1/notify", "{\"node_id\":7}", 200, "{\"node_id\":7}\n"},
    {"/v1/notify", "{\"node_id\":4294967295}", 200, "{\"node_id\":4294967295}\n"},
    {"/v1/notify", "{\"node_id\":8}", 404, NULL},
    {"/v1/notify", "{\"node_id\":0}", 400, NULL},
    {"/v1/notify", "{\"node_id\":-1}", 400, NULL},
    {"/v1/notify", "{\"node_id\":4294967296}", 400, NULL},
    {"/v1/notify", "{\"node_id\":7.0}", 400, NULL},
    {"/v1/notify", "{\"node_id\":\"7\"}", 400, NULL},
    {"/v1/notify", "{\"node_id\":99999999999999999999}", 400, NULL},
    {"/v1/reload", "{\"now\":true}", 400, NULL},
    {"/v1/reload", "null", 400, NULL},
    {"/v1/reload", "{}", 202, "{\"accepted\":true,\"sequence\":1}\n"},
    {"/v1/reload", "", 202, "{\"accepted\":true,\"sequence\":2}\n"},
};

static void test_commands(void **state)
{
    (void)state;
    node_put(7, AT_A, 0, 0);
    node_put(UINT32_MAX, AT_B, 0, 0);
    for (size_t i = 0; i < COUNT(commands); i++) {
        unsigned before = told.reloads + told.drains + told.levels + told.wakes;
        struct got got = post(commands[i].path, commands[i].body);
        if (got.status != commands[i].status)
            fail_msg("%s %s: %d", commands[i].path, commands[i].body, got.status);
        if (commands[i].want)
            assert_string_equal(got.body, commands[i].want);
        unsigned after = told.reloads + told.drains + told.levels + told.wakes;
        assert_int_equal(after - before, commands[i].want ? 1 : 0);
    }
    assert_int_equal(told.drains, 2);
    assert_false(told.on);
    assert_int_equal(told.level, LOG_ERROR);
    assert_int_equal(told.lane, rig_owner(&rig, UINT32_MAX));
}

static void test_the_last_drain_stays(void **state)
{
    (void)state;
    atomic_store(&admin.stopping, true);
    assert_int_equal(post("/v1/drain", "{\"on\":false}").status, 409);
    assert_int_equal(told.drains, 0);
    assert_int_equal(post("/v1/drain", "{\"on\":true}").status, 200);
    assert_int_equal(told.drains, 1);
}

static void test_notify_says_when_the_shard_is_busy(void **state)
{
    (void)state;
    node_put(7, AT_A, 0, 0);
    int status = 200;
    for (unsigned i = 0; i < 100000 && status == 200; i++)
        status = post("/v1/notify", "{\"node_id\":7}").status;
    assert_int_equal(status, 503);
}

/* A reload that began before the wish does not fulfil it. */
static void test_reload_sequence(void **state)
{
    (void)state;
    struct admin_reload r;
    admin_reloading(&admin);
    assert_string_equal(post("/v1/reload", "{}").body, "{\"accepted\":true,\"sequence\":1}\n");
    admin_reloaded(&admin, true, NULL);
    admin_last_reload(&admin, &r);
    assert_int_equal(r.sequence, 0);
    admin_reloading(&admin);
    admin_reloaded(&admin, false, "beacon.conf:3: \"x\" is no option");
    json_t *status = get_json("/v1/status");
    const json_t *reload = json_object_get(status, "reload");
    assert_int_equal(number(reload, "sequence"), 1);
    assert_true(json_is_false(json_object_get(reload, "ok")));
    assert_string_equal(text(reload, "error"), "beacon.conf:3: \"x\" is no option");
    json_decref(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names_and_origins),
        TEST(test_no_host_is_no_name),
        TEST(test_tokens),
        TEST(test_paths_and_methods),
        TEST(test_commands),
        TEST(test_the_last_drain_stays),
        TEST(test_notify_says_when_the_shard_is_busy),
        TEST(test_reload_sequence),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(last_body);
    return failed;
}
