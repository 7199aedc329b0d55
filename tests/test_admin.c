/* admin - what load balancers read, and the probe behind it: against a STUN service of the test's
 * own that answers, stays silent, loses the first question or answers somebody else's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "proto/stun.h"
#include "wss/admin.h"

/* --- the STUN service --- */

enum manner { ANSWERS, SILENT, LOSES_FIRST, ANSWERS_WRONG_ID, ECHOES };

static struct service_thread {
    int fd;
    struct endpoint at;
    enum manner manner;
    pthread_t thread;
    unsigned asked; /* read after the thread has ended */
} stun;

static void *stun_run(void *arg)
{
    (void)arg;
    for (;;) {
        uint8_t in[512], out[STUN_ANSWER_MAX];
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(stun.fd, in, sizeof in, 0, (struct sockaddr *)&from, &len);
        if (n <= 1)
            return NULL; /* one byte asks us to end */
        stun.asked++;
        if (stun.manner == SILENT || (stun.manner == LOSES_FIRST && stun.asked == 1))
            continue;
        if (stun.manner == ANSWERS_WRONG_ID)
            in[19] ^= 1;
        struct stun_request q;
        struct endpoint source =
            endpoint_of((const uint8_t *)&from.sin_addr, 4, ntohs(from.sin_port));
        struct writer w = writer_of(out, sizeof out);
        if (stun_read(in, (size_t)n, &q) != STUN_REQUEST)
            return NULL;
        if (stun.manner == ECHOES)
            write_bytes(&w, in, (size_t)n);
        else
            stun_answer(&w, &q, &source);
        sendto(stun.fd, out, written(&w), 0, (struct sockaddr *)&from, len);
    }
}

static int stun_socket(struct endpoint *ret)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof name;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
    *ret = endpoint_of((const uint8_t *)&name.sin_addr, 4, ntohs(name.sin_port));
    return fd;
}

static void stun_up(enum manner manner)
{
    stun = (struct service_thread){.manner = manner};
    stun.fd = stun_socket(&stun.at);
    assert_int_equal(pthread_create(&stun.thread, NULL, stun_run, NULL), 0);
}

static void stun_down(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(stun.at.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(sendto(stun.fd, "", 1, 0, (struct sockaddr *)&to, sizeof to), 1);
    pthread_join(stun.thread, NULL);
    close(stun.fd);
}

/* --- the probe --- */

static const struct {
    const char *name;
    enum manner manner;
    int64_t want; /* 0: a round trip */
    unsigned asked;
} probes[] = {
    {"answers", ANSWERS, 0, 1},
    {"loses the first", LOSES_FIRST, 0, 2},
    {"silent", SILENT, -ETIMEDOUT, 2},
    {"answers another id", ANSWERS_WRONG_ID, -ETIMEDOUT, 2},
    {"sends the request back", ECHOES, -ETIMEDOUT, 2},
};

static void test_probe_believes_only_its_own_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        stun_up(probes[i].manner);
        uint64_t start_ns = edge_clock_ns();
        int64_t got = stun_probe(&stun.at, 200);
        int64_t took_ns = (int64_t)(edge_clock_ns() - start_ns);
        stun_down();
        if (probes[i].want == 0 ? got <= 0 : got != probes[i].want)
            fail_msg("%s: %lld", probes[i].name, (long long)got);
        assert_int_equal(stun.asked, probes[i].asked);
        if (got > 0)
            assert_true(got <= took_ns);
        if (got == -ETIMEDOUT)
            assert_true(took_ns >= 199000000 && took_ns < 1000000000);
        if (probes[i].manner == LOSES_FIRST)
            assert_true(got >= 99000000);
    }
}

static void test_probe_of_a_closed_port_is_refused(void **state)
{
    (void)state;
    struct endpoint at;
    close(stun_socket(&at));
    assert_int_equal(stun_probe(&at, 200), -ECONNREFUSED);
}

/* --- the pages --- */

enum { LANES = 2 };
static struct lane *lanes;
static struct server server;
static struct admin admin;

static int set_up(void **state)
{
    (void)state;
    lanes = calloc(LANES, sizeof *lanes);
    assert_non_null(lanes);
    memset(&admin, 0, sizeof admin);
    server.lane_count = LANES;
    for (unsigned i = 0; i < LANES; i++)
        server.lane[i] = &lanes[i];
    admin.server = &server;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    admin_stop(&admin);
    free(lanes);
    return 0;
}

struct got {
    int status;
    char type[64], body[512], allow[32];
};

static struct got ask(edge_handler *handler, const char *method, const char *path)
{
    char head[256];
    struct http_request q;
    struct edge_response r = {.status = 0};
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, path);
    assert_int_equal(http_read_head(head, (size_t)n, &q), 0);
    handler(&admin, &(struct edge_request){.http = &q}, &r);
    struct got got = {.status = r.status};
    snprintf(got.type, sizeof got.type, "%s", r.content_type ? r.content_type : "");
    snprintf(got.allow, sizeof got.allow, "%s", r.allow ? r.allow : "");
    snprintf(got.body, sizeof got.body, "%.*s", (int)r.body_len, r.body ? r.body : "");
    free(r.body);
    return got;
}

static void expect(const char *path, int status, const char *body)
{
    struct got got = ask(admin_health, "GET", path);
    if (strcmp(got.body, body) != 0)
        fail_msg("%s: %s", path, got.body);
    assert_int_equal(got.status, status);
}

static void lanes_turned(uint64_t ago_ns)
{
    for (unsigned i = 0; i < LANES; i++)
        count_set(&lanes[i].stats.tick_ns, edge_clock_ns() - ago_ns);
}

/* Waits for the first result of the prober. */
static void start_and_wait(void)
{
    assert_int_equal(admin_start(&admin), 0);
    for (unsigned i = 0; i < PROBE_TARGETS; i++)
        for (int ms = 0; ms < 3000 && prober_state(&admin.prober, i) == PROBE_STARTING; ms += 5)
            poll(NULL, 0, 5);
}

static void test_starting_is_not_ready(void **state)
{
    (void)state;
    stun_up(SILENT); /* the first result takes ADMIN_PROBE_WAIT_MS */
    admin.probe4 = stun.at;
    assert_int_equal(admin_start(&admin), 0);
    lanes_turned(0);
    expect("/healthz", 503, "not ready: starting\n");
    expect("/livez", 200, "ok\n");
    expect("/readyz", 503,
           "{\"status\":\"not_ready\",\"checks\":{\"udp4\":\"starting\",\"udp6\":\"off\",\"wss\":"
           "\"off\","
           "\"shards\":\"ok\"},\"allow_private\":false}\n");
    admin_stop(&admin);
    stun_down();
}

static void test_ready_when_the_service_answers(void **state)
{
    (void)state;
    stun_up(ANSWERS);
    admin.probe4 = stun.at;
    admin.private_allowed = true;
    start_and_wait();
    lanes_turned(0);
    expect("/healthz", 200, "ok\n");
    expect("/readyz", 200,
           "{\"status\":\"ready\",\"checks\":{\"udp4\":\"ok\",\"udp6\":\"off\",\"wss\":\"off\","
           "\"shards\":\"ok\"},"
           "\"allow_private\":true}\n");
    assert_true(admin_is_ready(&admin));

    atomic_store(&admin.draining, true);
    expect("/healthz", 503, "draining\n");
    expect("/livez", 200, "ok\n"); /* no reason to kill us */
    expect("/readyz", 503,
           "{\"status\":\"draining\",\"checks\":{\"udp4\":\"ok\",\"udp6\":\"off\",\"wss\":\"off\","
           "\"shards\":\"ok\"},\"allow_private\":true}\n");
    assert_false(admin_is_ready(&admin));
    admin_stop(&admin);
    stun_down();
}

/* One configured family does not make up for the other. */
static void test_each_family_must_answer(void **state)
{
    (void)state;
    struct endpoint closed;
    stun_up(ANSWERS);
    close(stun_socket(&closed));
    admin.probe4 = stun.at;
    admin.probe6 = closed;
    start_and_wait();
    lanes_turned(0);
    expect("/healthz", 503, "not ready: no STUN answer over IPv6\n");
    expect(
        "/readyz", 503,
        "{\"status\":\"not_ready\",\"checks\":{\"udp4\":\"ok\",\"udp6\":\"failed\",\"wss\":\"off\","
        "\"shards\":\"ok\"},\"allow_private\":false}\n");
    admin_stop(&admin);

    admin.probe4 = closed;
    admin.probe6 = stun.at;
    start_and_wait();
    expect("/healthz", 503, "not ready: no STUN answer over IPv4\n");
    admin_stop(&admin);
    stun_down();
}

/* A silent UDP service is what people see first; the WSS listener comes after it. */
static void test_wss_must_answer_where_it_is_served(void **state)
{
    (void)state;
    struct endpoint closed;
    stun_up(ANSWERS);
    admin.probe4 = stun.at;
    close(stun_socket(&closed));
    admin.probe_wss = (struct probe_target){.at = closed, .how = PROBE_HTTP};
    start_and_wait();
    lanes_turned(0);
    expect("/healthz", 503, "not ready: no answer from the WSS listener\n");
    expect("/readyz", 503,
           "{\"status\":\"not_ready\",\"checks\":{\"udp4\":\"ok\",\"udp6\":\"off\","
           "\"wss\":\"failed\",\"shards\":\"ok\"},\"allow_private\":false}\n");
    assert_false(admin_is_ready(&admin));
    admin_stop(&admin);
    stun_down();
}

static void test_probing_goes_on(void **state)
{
    (void)state;
    stun_up(ANSWERS);
    admin.probe4 = stun.at;
    start_and_wait();
    assert_int_equal(prober_state(&admin.prober, 0), PROBE_OK);
    stun_down();
    for (int ms = 0; ms < ADMIN_PROBE_CACHE_MS + 2000 && prober_state(&admin.prober, 0) == PROBE_OK;
         ms += 20)
        poll(NULL, 0, 20);
    assert_int_equal(prober_state(&admin.prober, 0), PROBE_FAILED);
    uint64_t start_ns = edge_clock_ns();
    admin_stop(&admin);
    assert_true(edge_clock_ns() - start_ns < 1000000000); /* does not sleep its period out */
}

/* admin.started_ns stays 0 here: as if the process were old. */
static void test_stuck_loop_is_not_alive(void **state)
{
    (void)state;
    lanes_turned(4900000000);
    expect("/livez", 200, "ok\n");
    lanes_turned(0);
    count_set(&lanes[1].stats.tick_ns, edge_clock_ns() - 5100000000);
    expect("/livez", 503, "stuck: a shard's loop does not turn\n");
    expect("/healthz", 503, "not ready: a shard's loop does not turn\n");
    assert_false(admin_is_ready(&admin));
    count_set(&lanes[1].stats.tick_ns, edge_clock_ns() + 1000000000); /* turned just now */
    expect("/livez", 200, "ok\n");
}

static void test_loop_may_take_its_time_to_start(void **state)
{
    (void)state;
    admin.started_ns = edge_clock_ns();
    expect("/livez", 200, "ok\n");
    admin.started_ns = edge_clock_ns() - 5100000000;
    expect("/livez", 503, "stuck: a shard's loop does not turn\n");
}

/* --- what the main thread leaves --- */

static struct admin_reload last_reload(void)
{
    struct admin_reload r;
    admin_last_reload(&admin, &r);
    return r;
}

static void test_reloads_are_told_apart(void **state)
{
    (void)state;
    admin_reloaded(&admin, true, NULL); /* the start */
    assert_true(last_reload().ok);
    assert_true(last_reload().taken_unix_s > 1600000000);
    assert_int_equal(last_reload().sequence, 0);

    assert_int_equal(admin_ask_reload(&admin), 1);
    admin_reloading(&admin);
    assert_int_equal(admin_ask_reload(&admin), 2); /* too late for this one */
    admin_reloaded(&admin, true, "");
    assert_int_equal(last_reload().sequence, 1);
    admin_reloading(&admin);
    admin_reloaded(&admin, true, "");
    assert_int_equal(last_reload().sequence, 2);
    admin_reloading(&admin); /* by SIGHUP */
    admin_reloaded(&admin, true, "");
    assert_int_equal(last_reload().sequence, 2);
}

static void test_refused_reload_keeps_its_reason(void **state)
{
    (void)state;
    char longer[ADMIN_ERROR_MAX + 50];
    admin_reloaded(&admin, true, NULL);
    int64_t taken = last_reload().taken_unix_s;
    admin.reload.taken_unix_s -= 100;
    admin_reloaded(&admin, false, "line 3");
    assert_false(last_reload().ok);
    assert_string_equal(last_reload().error, "line 3");
    assert_int_equal(last_reload().taken_unix_s, taken - 100);
    assert_true(last_reload().unix_s >= taken);
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    admin_reloaded(&admin, false, longer);
    assert_int_equal(strlen(last_reload().error), ADMIN_ERROR_MAX - 1);
    admin_reloaded(&admin, true, "left over");
    assert_string_equal(last_reload().error, "");
}

static void test_certificates_are_copied(void **state)
{
    (void)state;
    char error[TLS_ERROR_MAX];
    struct admin_certificate c[TLS_PAIRS_MAX];
    assert_int_equal(admin_read_certificates(&admin, c), 0);
    struct tls *t = tls_open_self_made(error);
    assert_non_null(t);
    admin_certificates(&admin, t);
    time_t not_after = tls_not_after(t, 0);
    tls_close(t);
    assert_int_equal(admin_read_certificates(&admin, c), 1);
    assert_string_equal(c[0].name, "localhost");
    assert_int_equal(c[0].not_after_unix_s, not_after);
    admin_certificates(&admin, NULL);
    assert_int_equal(admin_read_certificates(&admin, c), 0);
}

static const struct {
    const char *method, *path;
    bool on_health; /* else on the metrics listener */
    int status;
} routes[] = {
    {"GET", "/livez", true, 200},
    {"HEAD", "/livez", true, 200},
    {"GET", "/livez?verbose", true, 200},
    {"POST", "/livez", true, 405},
    {"DELETE", "/readyz", true, 405},
    {"OPTIONS", "/healthz", true, 405},
    {"GET", "/", true, 404},
    {"GET", "/livez/", true, 404},
    {"GET", "/LIVEZ", true, 404},
    {"GET", "/live%7a", true, 404},
    {"GET", "/metrics", true, 404},
    {"POST", "/nothing", true, 404},
    {"GET", "/livez", false, 404},
    {"GET", "/", false, 404},
    {"POST", "/metrics", false, 405},
};

static void test_paths_and_methods(void **state)
{
    (void)state;
    lanes_turned(0);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        struct got got = ask(routes[i].on_health ? admin_health : admin_metrics, routes[i].method,
                             routes[i].path);
        if (got.status != routes[i].status)
            fail_msg("%s %s: %d", routes[i].method, routes[i].path, got.status);
        assert_string_equal(got.allow, got.status == 405 ? "GET, HEAD" : "");
        assert_int_equal(got.body[0] != '\0', got.status == 200);
        assert_string_equal(got.type, got.status == 200 ? "text/plain; charset=utf-8" : "");
    }
    assert_string_equal(ask(admin_health, "GET", "/readyz").type, "application/json");
}

static void test_metrics_on_their_listener_or_on_both(void **state)
{
    (void)state;
    server.lane_count = 0; /* what the page says is tested elsewhere */
    admin.version = admin.revision = admin.compiler = admin.io = "";
    struct got got = ask(admin_metrics, "GET", "/metrics");
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "text/plain; version=0.0.4; charset=utf-8");
    assert_memory_equal(got.body, "# HELP beacon_build_info ", 25);
    assert_int_equal(ask(admin_health, "GET", "/metrics").status, 404);
    admin.metrics_on_health = true;
    assert_int_equal(ask(admin_health, "GET", "/metrics").status, 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe_believes_only_its_own_answer),
        cmocka_unit_test(test_probe_of_a_closed_port_is_refused),
        TEST(test_starting_is_not_ready),
        TEST(test_ready_when_the_service_answers),
        TEST(test_each_family_must_answer),
        TEST(test_wss_must_answer_where_it_is_served),
        TEST(test_probing_goes_on),
        TEST(test_stuck_loop_is_not_alive),
        TEST(test_loop_may_take_its_time_to_start),
        TEST(test_reloads_are_told_apart),
        TEST(test_refused_reload_keeps_its_reason),
        TEST(test_certificates_are_copied),
        TEST(test_paths_and_methods),
        TEST(test_metrics_on_their_listener_or_on_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
