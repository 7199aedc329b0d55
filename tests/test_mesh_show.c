/* mesh_show - what the log says of other beacons: who comes and goes at once, who is silent when it
 * has been for a while. The view is filled by hand, as the mesh's thread would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define log_line test_log_line
#include "cmd/mesh_show.c"

static struct mesh mesh;
static struct {
    unsigned count;
    enum log_level level;
    char text[512];
} said;

void log_line(enum log_level level, const char *component, const char *message, const char *pairs,
              ...)
{
    va_list args;
    assert_string_equal(component, "mesh");
    said.count++;
    said.level = level;
    int len = snprintf(said.text, sizeof said.text, "%s ", message);
    va_start(args, pairs);
    vsnprintf(said.text + len, sizeof said.text - (size_t)len, pairs, args);
    va_end(args);
}

static int set_up(void **state)
{
    (void)state;
    memset(&mesh, 0, sizeof mesh);
    memset(&said, 0, sizeof said);
    pthread_mutex_init(&mesh.view.lock, NULL);
    mesh.view.peer_count = 1;
    mesh.view.peer[0] = (struct mesh_view_peer){.id = 1, .is_self = true};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pthread_mutex_destroy(&mesh.view.lock);
    return 0;
}

static struct mesh_view_peer *peer_add(uint32_t id, const char *at, enum mesh_view_state s)
{
    struct mesh_view_peer *p = &mesh.view.peer[mesh.view.peer_count++];
    *p = (struct mesh_view_peer){.id = id, .state = s, .boot = 5, .version = "1.0"};
    assert_true(endpoint_parse(at, &p->at));
    return p;
}

/* Seconds until something is said, at most `max`; 0: nothing was. */
static unsigned watch(unsigned max)
{
    said.count = 0;
    for (unsigned s = 1; s <= max; s++) {
        mesh_watch(&mesh);
        if (said.count > 0)
            return s;
    }
    return 0;
}

static void expect(enum log_level level, const char *text)
{
    assert_int_equal(said.count, 1);
    assert_int_equal(said.level, level);
    if (!strstr(said.text, text))
        fail_msg("%s, not %s", said.text, text);
}

static void test_states_are_said_once_and_at_once(void **state)
{
    (void)state;
    static const struct {
        enum mesh_view_state state;
        enum log_level level;
        const char *text;
    } steps[] = {
        {MESH_PEER_ALIVE, LOG_INFO, "beacon_id=2 addr=192.0.2.2:9001 state=alive version=1.0"},
        {MESH_PEER_SUSPECT, LOG_DEBUG, "state=suspect"},
        {MESH_PEER_ALIVE, LOG_DEBUG, "state=alive"},
        {MESH_PEER_DEAD, LOG_WARN, "state=dead"},
        {MESH_PEER_ALIVE, LOG_INFO, "state=alive"},
        {MESH_PEER_LEFT, LOG_INFO, "state=left"},
        {MESH_PEER_PILOT, LOG_INFO, "state=\"original beacon\""},
    };
    struct mesh_view_peer *p = peer_add(2, "192.0.2.2:9001", MESH_PEER_ALIVE);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        p->state = steps[i].state;
        assert_int_equal(watch(20), 1);
        expect(steps[i].level, steps[i].text);
        assert_int_equal(watch(20), 0);
    }
}

static void test_a_restart_is_said(void **state)
{
    (void)state;
    struct mesh_view_peer *p = peer_add(2, "192.0.2.2:9001", MESH_PEER_ALIVE);
    assert_int_equal(watch(1), 1);
    p->boot++;
    assert_int_equal(watch(20), 1);
    expect(LOG_INFO, "state=alive");
    assert_int_equal(watch(20), 0);
}

static void test_silence_is_said_when_it_lasts(void **state)
{
    (void)state;
    peer_add(0, "192.0.2.2:9001", MESH_PEER_SILENT);
    assert_int_equal(watch(100), SILENT_WARN_S);
    expect(LOG_WARN, "beacon_id=0 addr=192.0.2.2:9001 state=silent");
    assert_int_equal(watch(100), 0); /* not again */
}

/* At the start nobody has answered yet. */
static void test_short_silence_is_no_news(void **state)
{
    (void)state;
    struct mesh_view_peer *p = peer_add(2, "192.0.2.2:9001", MESH_PEER_SILENT);
    assert_int_equal(watch(SILENT_WARN_S - 1), 0);
    p->state = MESH_PEER_ALIVE;
    assert_int_equal(watch(20), 1);
    expect(LOG_INFO, "state=alive");
    p->state = MESH_PEER_SILENT; /* the seconds of before do not count */
    assert_int_equal(watch(SILENT_WARN_S - 1), 0);
    assert_int_equal(watch(20), 1);
    expect(LOG_WARN, "state=silent");
}

/* The places in the list move as others come and go. */
static void test_each_has_a_time_of_its_own(void **state)
{
    (void)state;
    peer_add(0, "192.0.2.2:9001", MESH_PEER_SILENT);
    assert_int_equal(watch(4), 0);
    peer_add(0, "192.0.2.3:9001", MESH_PEER_SILENT);
    struct mesh_view_peer swap = mesh.view.peer[1];
    mesh.view.peer[1] = mesh.view.peer[2];
    mesh.view.peer[2] = swap;
    assert_int_equal(watch(20), SILENT_WARN_S - 4);
    expect(LOG_WARN, "addr=192.0.2.2:9001");
    assert_int_equal(watch(20), 4);
    expect(LOG_WARN, "addr=192.0.2.3:9001");
}

static void test_who_becomes_known_by_id_is_new(void **state)
{
    (void)state;
    struct mesh_view_peer *p = peer_add(0, "192.0.2.2:9001", MESH_PEER_SILENT);
    assert_int_equal(watch(5), 0);
    p->id = 2;
    p->state = MESH_PEER_ALIVE;
    assert_int_equal(watch(5), 1);
    expect(LOG_INFO, "beacon_id=2 addr=192.0.2.2:9001 state=alive");
}

static void test_totals_are_said_when_they_begin(void **state)
{
    (void)state;
    mesh.view.totals.duplicate_id = true;
    assert_true(endpoint_parse("192.0.2.9:1", &mesh.view.totals.duplicate_at));
    assert_int_equal(watch(9), 1);
    expect(LOG_ERROR, "another beacon uses our id");
    assert_int_equal(watch(9), 0);
    mesh.view.totals.refused_rows = 1;
    assert_int_equal(watch(9), 1);
    expect(LOG_WARN, "max-routes");
    mesh.view.totals.refused_rows = 2;
    assert_int_equal(watch(9), 0);
}

/* --- sums --- */

static void test_sums(void **state)
{
    (void)state;
    const uint64_t now_ns = 100 * UINT64_C(1000000000);
    const struct gossip_peer peer[] = {
        {.id = 1, .state = PEER_ALIVE, .rtt_ns = 9000000000}, /* ourselves: not counted */
        {.id = 2, .state = PEER_ALIVE, .rtt_ns = 20000000, .heard_ns = 99 * UINT64_C(1000000000)},
        {.id = 3, .state = PEER_SUSPECT, .rtt_ns = 10000000, .heard_ns = 97 * UINT64_C(1000000000)},
        {.id = 4, .state = PEER_DEAD, .rtt_ns = 90000000, .heard_ns = 1},
        {.id = 5, .state = PEER_ALIVE},                         /* never heard */
        {.id = 6, .state = PEER_ALIVE, .heard_ns = now_ns + 5}, /* after we looked at the clock */
        {.state = PEER_SILENT},
        {.state = PEER_SILENT},
    };
    struct mesh_view_totals t = {.peers = {[MESH_PEER_SILENT] = 1}};
    sum_peers(peer, sizeof peer / sizeof *peer, now_ns, &t);
    assert_true(t.silent_max_s > 2.999 && t.silent_max_s < 3.001);
    assert_true(t.rtt_max_s > 0.0199 && t.rtt_max_s < 0.0201);
    assert_int_equal(t.peers[MESH_PEER_SILENT], 2);
    t = (struct mesh_view_totals){.peers = {[MESH_PEER_SILENT] = 7}}; /* the list was too short */
    sum_peers(peer, sizeof peer / sizeof *peer, now_ns, &t);
    assert_int_equal(t.peers[MESH_PEER_SILENT], 7);
}

static void test_who_has_ended_drains_no_more(void **state)
{
    (void)state;
    struct mesh_view_peer shown;
    for (int s = 0; s < PEER_STATE_COUNT; s++) {
        struct gossip_peer p = {.id = 2, .state = (enum gossip_peer_state)s};
        show_peer(&p, 5, &shown);
        assert_false(shown.draining);
        assert_true(shown.rtt_s < 0 && shown.silent_s < 0); /* unknown, not 0 */
        p.says.draining = true;
        show_peer(&p, 5, &shown);
        assert_int_equal(shown.draining, s == PEER_ALIVE || s == PEER_SUSPECT);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_states_are_said_once_and_at_once), TEST(test_a_restart_is_said),
        TEST(test_silence_is_said_when_it_lasts),    TEST(test_short_silence_is_no_news),
        TEST(test_each_has_a_time_of_its_own),       TEST(test_who_becomes_known_by_id_is_new),
        TEST(test_totals_are_said_when_they_begin),  TEST(test_sums),
        TEST(test_who_has_ended_drains_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
