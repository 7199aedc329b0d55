/* api - what the admin interface says of other beacons: the mesh in the status, the list of
 * beacons, who has a node; and what a drain tells sessions. */
#include "tests/api_rig.h"
#include "tests/rig_mesh.h"

static struct mesh_view view;

static int set_up_mesh(void **state)
{
    (void)state;
    open_with(1000);
    rig_close(&rig);
    rig_open_mesh(&rig, LANES, 1000, 100, false);
    admin.server = rig.server;
    memset(&view, 0, sizeof view);
    admin.mesh = &view;
    return 0;
}

/* --- status --- */

static void test_standalone(void **state)
{
    (void)state;
    admin.mesh = NULL;
    json_t *s = get_json("/v1/status");
    const json_t *m = json_object_get(s, "mesh");
    assert_string_equal(text(m, "mode"), "standalone");
    assert_true(json_is_null(json_object_get(m, "beacon_id")));
    assert_int_equal(number(json_object_get(m, "peers"), "alive"), 0);
    assert_int_equal(json_object_size(json_object_get(m, "peers")), MESH_PEER_STATES);
    assert_int_equal(json_array_size(json_object_get(m, "successors")), 0);
    json_decref(s);
    assert_string_equal(get("/v1/peers").body, "{\"peers\":[]}\n");
}

static void test_status(void **state)
{
    (void)state;
    view.totals = (struct mesh_view_totals){
        .id = 4000000000,
        .peers = {1, 2, 3, 4, 5, 6},
        .rows = 10,
        .rows_max = 11,
        .own_rows = 12,
        .refused_rows = 13,
        .frames_in = 14,
        .bytes_in = 15,
        .frames_out = 16,
        .bytes_out = 17,
        .deltas_sent = 18,
        .deltas_again = 19,
        .deltas_taken = 20,
        .deltas_held = 21,
        .send_errors = 22,
        .kernel_drops = 23,
        .journal_lost = 24,
        .health = 25,
        .sealed = true,
        .unsettled_s = 26.9,
        .duplicate_id = true,
        .duplicate_at = endpoint_at(AT_A),
        .registry_used = true,
        .registry_ok_unix_s = 27,
        .registry_listed = 28,
        .registry_error = "no </script> answer",
    };
    count_set(&rig.server->lane[0]->stats.nodes_beacon, 29);
    count_set(&rig.server->lane[1]->stats.nodes_beacon, 1);
    view.successor[0] = endpoint_at(AT_PEER_1);
    view.successor[1] = endpoint_at(AT_PEER_3);
    view.successor_count = 2;
    json_t *s = get_json("/v1/status");
    assert_null(strstr(last_body, "</script>"));
    const json_t *m = json_object_get(s, "mesh");
    static const struct {
        const char *in, *name;
        json_int_t want;
    } numbers[] = {
        {NULL, "beacon_id", 4000000000},
        {NULL, "unsettled_s", 26},
        {NULL, "health", 25},
        {NULL, "routes", 30},
        {"peers", "alive", 1},
        {"peers", "suspect", 2},
        {"peers", "dead", 3},
        {"peers", "left", 4},
        {"peers", "pilot", 5},
        {"peers", "silent", 6},
        {"rows", "used", 10},
        {"rows", "max", 11},
        {"rows", "own", 12},
        {"rows", "refused", 13},
        {"in", "frames", 14},
        {"in", "bytes", 15},
        {"out", "frames", 16},
        {"out", "bytes", 17},
        {"deltas", "sent", 18},
        {"deltas", "again", 19},
        {"deltas", "taken", 20},
        {"deltas", "held", 21},
        {NULL, "send_errors", 22},
        {NULL, "kernel_drops", 23},
        {NULL, "journal_lost", 24},
        {"registry", "ok_unix_s", 27},
        {"registry", "listed", 28},
    };
    for (size_t i = 0; i < COUNT(numbers); i++) {
        const json_t *of = numbers[i].in ? json_object_get(m, numbers[i].in) : m;
        if (number(of, numbers[i].name) != numbers[i].want)
            fail_msg("%s is %lld", numbers[i].name, (long long)number(of, numbers[i].name));
    }
    assert_string_equal(text(m, "mode"), "mesh");
    assert_true(json_is_true(json_object_get(m, "sealed")));
    assert_true(json_is_false(json_object_get(m, "settled")));
    assert_string_equal(text(m, "duplicate_id_at"), AT_A);
    const json_t *registry = json_object_get(m, "registry");
    assert_true(json_is_true(json_object_get(registry, "used")));
    assert_true(json_is_false(json_object_get(registry, "ok")));
    assert_string_equal(text(registry, "error"), "no </script> answer");
    const json_t *successors = json_object_get(m, "successors");
    assert_int_equal(json_array_size(successors), 2);
    assert_string_equal(json_string_value(json_array_get(successors, 1)), AT_PEER_3);
    json_decref(s);
}

/* An address that is left over from an old quarrel is none of now. */
static void test_no_duplicate(void **state)
{
    (void)state;
    view.totals.duplicate_at = endpoint_at(AT_A);
    json_t *s = get_json("/v1/status");
    assert_true(json_is_null(json_object_get(json_object_get(s, "mesh"), "duplicate_id_at")));
    json_decref(s);
}

/* --- peers --- */

static void test_peers(void **state)
{
    (void)state;
    view.peer_count = 3;
    view.peer[0] = (struct mesh_view_peer){
        .id = 7, .state = MESH_PEER_ALIVE, .is_self = true, .rtt_s = -1, .silent_s = 3};
    view.peer[1] = (struct mesh_view_peer){.id = 8,
                                           .at = endpoint_at(AT_PEER_3),
                                           .state = MESH_PEER_SUSPECT,
                                           .draining = true,
                                           .boot = 1234567890123,
                                           .rtt_s = 0.0125,
                                           .silent_s = 2.5,
                                           .rows = 9,
                                           .nodes = 10,
                                           .nodes_max = 11,
                                           .frames_in = 12,
                                           .bytes_in = 13,
                                           .frames_out = 14,
                                           .bytes_out = 15,
                                           .version = "<b>1\"\n",
                                           .error = "bad \x1b[31m words"};
    view.peer[2] = (struct mesh_view_peer){
        .at = endpoint_at(AT_PEER_1), .state = MESH_PEER_SILENT, .rtt_s = -1, .silent_s = -1};
    json_t *all = get_json("/v1/peers");
    const json_t *list = json_object_get(all, "peers");
    assert_int_equal(json_array_size(list), 3);
    const json_t *self = json_array_get(list, 0), *other = json_array_get(list, 1),
                 *silent = json_array_get(list, 2);
    assert_true(json_is_true(json_object_get(self, "self")));
    assert_true(json_is_null(json_object_get(self, "addr")));
    assert_true(json_is_null(json_object_get(self, "silent_ms"))); /* we do not hear ourselves */
    static const struct {
        const char *name;
        json_int_t want;
    } numbers[] = {{"beacon_id", 8},  {"boot_unix_ms", 1234567890123},
                   {"rtt_us", 12500}, {"silent_ms", 2500},
                   {"rows", 9},       {"nodes", 10},
                   {"nodes_max", 11}};
    for (size_t i = 0; i < COUNT(numbers); i++)
        assert_int_equal(number(other, numbers[i].name), numbers[i].want);
    assert_string_equal(text(other, "addr"), AT_PEER_3);
    assert_string_equal(text(other, "state"), "suspect");
    assert_true(json_is_true(json_object_get(other, "draining")));
    assert_true(json_is_false(json_object_get(other, "self")));
    assert_string_equal(text(other, "version"), "<b>1\"\n");
    assert_string_equal(text(other, "error"), "bad \x1b[31m words");
    assert_int_equal(number(json_object_get(other, "in"), "bytes"), 13);
    assert_int_equal(number(json_object_get(other, "out"), "frames"), 14);
    assert_null(strstr(last_body, "<b>"));
    assert_string_equal(text(silent, "state"), "silent");
    static const char *const nulls[] = {"beacon_id", "rtt_us", "silent_ms", "version", "error"};
    for (size_t i = 0; i < COUNT(nulls); i++)
        assert_true(json_is_null(json_object_get(silent, nulls[i])));
    json_decref(all);
}

static void test_as_many_peers_as_there_may_be(void **state)
{
    (void)state;
    view.peer_count = MESH_VIEW_PEERS_MAX;
    for (uint32_t i = 0; i < MESH_VIEW_PEERS_MAX; i++) {
        view.peer[i] = (struct mesh_view_peer){.id = i + 1, .at = endpoint_at(AT_PEER_3)};
        memset(view.peer[i].error, 1, sizeof view.peer[i].error - 1); /* escaped, the longest */
    }
    json_t *all = get_json("/v1/peers");
    const json_t *list = json_object_get(all, "peers");
    assert_int_equal(json_array_size(list), MESH_VIEW_PEERS_MAX);
    assert_int_equal(number(json_array_get(list, MESH_VIEW_PEERS_MAX - 1), "beacon_id"),
                     MESH_VIEW_PEERS_MAX);
    json_decref(all);
}

static void test_peers_are_read_only(void **state)
{
    (void)state;
    struct got got = post("/v1/peers", "{}");
    assert_int_equal(got.status, 405);
    assert_string_equal(got.allow, "GET, HEAD");
    assert_int_equal(get("/v1/peers/1").status, 404);
}

/* --- nodes --- */

static json_t *node(uint32_t id)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/nodes/%u", id);
    return get_json(path);
}

static void test_a_node_of_ours(void **state)
{
    (void)state;
    node_put(7, AT_A, 0, ROUTE_KEYED);
    json_t *n = node(7);
    assert_true(json_is_null(json_object_get(n, "beacon")));
    assert_string_equal(text(n, "endpoint"), AT_A);
    json_decref(n);
}

static void test_a_node_of_another(void **state)
{
    (void)state;
    static const struct {
        unsigned index;
        bool stream;
        enum route_class class_;
        bool usable;
        const char *transport, *proven;
        json_int_t id;
        const char *addr;
    } cases[] = {
        {2, true, ROUTE_SIGNED, true, "wss", "signed", 77, AT_PEER_2},
        {2, false, ROUTE_UNVERIFIED, true, "udp", "unverified", 77, AT_PEER_2},
        {MESH_VIEW_BEACONS_MAX - 1, false, ROUTE_KEYED, false, "udp", "keyed", 0, AT_PEER_3},
        {3, false, ROUTE_UNVERIFIED, false, "udp", "unverified", 0, NULL}, /* gone a moment ago */
    };
    view.beacon[2] =
        (struct mesh_view_beacon){.id = 77, .at = endpoint_at(AT_PEER_2), .usable = true};
    view.beacon[MESH_VIEW_BEACONS_MAX - 1].at = endpoint_at(AT_PEER_3);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lane *l = rig.server->lane[rig_owner(&rig, 500)];
        assert_true(
            route_put_beacon(l->routes, 500, cases[i].index, cases[i].class_, cases[i].stream));
        json_t *n = node(500);
        const json_t *b = json_object_get(n, "beacon");
        assert_int_equal(number(n, "node_id"), 500);
        assert_true(json_is_null(json_object_get(n, "endpoint")));
        assert_true(json_is_null(json_object_get(n, "silent_s")));
        assert_string_equal(text(n, "transport"), "beacon");
        assert_string_equal(text(n, "class"), cases[i].proven);
        assert_string_equal(text(b, "transport"), cases[i].transport);
        assert_int_equal(json_is_true(json_object_get(b, "usable")), cases[i].usable);
        assert_int_equal(json_integer_value(json_object_get(b, "beacon_id")), cases[i].id);
        const char *addr = json_string_value(json_object_get(b, "addr"));
        assert_string_equal(addr ? addr : "", cases[i].addr ? cases[i].addr : "");
        json_decref(n);
    }
    json_t *page = get_json("/v1/nodes"); /* the list is of ours */
    assert_int_equal(json_array_size(json_object_get(page, "nodes")), 0);
    json_decref(page);
}

static void test_who_comes_here_is_ours(void **state)
{
    (void)state;
    assert_true(route_put_beacon(rig.server->lane[rig_owner(&rig, 500)]->routes, 500, 2,
                                 ROUTE_SIGNED, false));
    node_put(500, AT_B, 0, ROUTE_UNVERIFIED);
    json_t *n = node(500);
    assert_string_equal(text(n, "endpoint"), AT_B);
    assert_true(json_is_null(json_object_get(n, "beacon")));
    json_decref(n);
}

/* --- what a drain says --- */

#define BYE "beacon shutting down"
#define LONG "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"

static const struct {
    const char *name, *to[MESH_VIEW_SUCCESSORS_MAX], *want;
} farewells[] = {
    {"nobody", {NULL}, BYE},
    {"one", {AT_PEER_1}, BYE "; try " AT_PEER_1},
    {"four",
     {AT_PEER_1, AT_PEER_2, AT_PEER_3, AT_A},
     BYE "; try " AT_PEER_1 " " AT_PEER_2 " " AT_PEER_3 " " AT_A},
    {"whole addresses only", {LONG, LONG, LONG}, BYE "; try " LONG " " LONG},
    {"what is short comes behind what is too long",
     {LONG, LONG, AT_PEER_1, AT_PEER_3},
     BYE "; try " LONG " " LONG},
    {"exactly 123 bytes",
     {LONG, "[2001:db8:1111:2222:3333:4444::]:65535", "2.2.2.2:123"},
     BYE "; try " LONG " [2001:db8:1111:2222:3333:4444::]:65535 2.2.2.2:123"},
    {"124 would be",
     {LONG, "[2001:db8:1111:2222:3333:4444::]:65535", "2.2.2.2:1234"},
     BYE "; try " LONG " [2001:db8:1111:2222:3333:4444::]:65535"},
};

static void test_farewells(void **state)
{
    (void)state;
    char text[MESH_FAREWELL_MAX];
    mesh_farewell(NULL, text);
    assert_string_equal(text, BYE);
    for (size_t i = 0; i < COUNT(farewells); i++) {
        view.successor_count = 0;
        for (unsigned n = 0; n < MESH_VIEW_SUCCESSORS_MAX && farewells[i].to[n]; n++)
            view.successor[view.successor_count++] = endpoint_at(farewells[i].to[n]);
        memset(text, 'x', sizeof text);
        mesh_farewell(&view, text);
        if (strcmp(text, farewells[i].want) != 0)
            fail_msg("%s: %s (%zu)", farewells[i].name, text, strlen(text));
    }
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_mesh, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_standalone),
        TEST(test_status),
        TEST(test_no_duplicate),
        TEST(test_peers),
        TEST(test_as_many_peers_as_there_may_be),
        TEST(test_peers_are_read_only),
        TEST(test_a_node_of_ours),
        TEST(test_a_node_of_another),
        TEST(test_who_comes_here_is_ours),
        TEST(test_farewells),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(last_body);
    return failed;
}
