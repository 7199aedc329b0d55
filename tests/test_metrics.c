/* metrics - the text that Prometheus reads: complete from the start, exact, and clean for
 * promtool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "wss/bridge.h"
#include "wss/keys.h"
#include "wss/metrics.h"

#define NOT_AFTER "beacon_tls_certificate_not_after_timestamp_seconds"

enum { LANES = 2, NODES = 1000, LINES_MAX = 1000 };

static void *memory;
static struct config config;
static struct rules rules;
static struct admin admin;

static int set_up(void **state)
{
    (void)state;
    static const uint8_t seed[64] = {1, 2, 3};
    memset(&admin, 0, sizeof admin);
    config.max_nodes = NODES;
    size_t size = (server_size(&config, LANES) + 63) / 64 * 64;
    memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    admin.server = server_init(memory, &config, LANES, &rules, seed);
    admin.version = "1.2.3";
    admin.revision = "abcdef";
    admin.compiler = "gcc 12.2.0";
    admin.io = "mmsg";
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(memory);
    return 0;
}

static struct lane_stats *stats(unsigned lane)
{
    return &admin.server->lane[lane]->stats;
}

/* The page, cut into lines. */
struct page {
    char *text;
    unsigned count;
    const char *line[LINES_MAX];
};

static char *page_text(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    metrics_write(out, &admin);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(text[len - 1], '\n');
    return text;
}

static struct page page_read(void)
{
    struct page p = {.text = page_text()};
    char *rest = p.text;
    for (char *line; (line = strtok_r(rest, "\n", &rest));) {
        assert_true(p.count < LINES_MAX);
        p.line[p.count++] = line;
    }
    return p;
}

static unsigned count_lines(const struct page *p, const char *line)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->count; i++)
        n += strcmp(p->line[i], line) == 0;
    return n;
}

static void expect_lines(const char *const *lines, size_t count)
{
    struct page p = page_read();
    for (size_t i = 0; i < count; i++)
        if (count_lines(&p, lines[i]) != 1)
            fail_msg("not there once: %s", lines[i]);
    free(p.text);
}
#define EXPECT(...)                                                                                \
    expect_lines((const char *const[]){__VA_ARGS__},                                               \
                 sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* The value behind "name " or "name{...} "; fails when there is not one such line. */
static double value_of(const char *series)
{
    struct page p = page_read();
    size_t len = strlen(series);
    double value = 0;
    unsigned found = 0;
    for (unsigned i = 0; i < p.count; i++) {
        if (strncmp(p.line[i], series, len) == 0 && p.line[i][len] == ' ') {
            value = strtod(p.line[i] + len, NULL);
            found++;
        }
    }
    free(p.text);
    assert_int_equal(found, 1);
    return value;
}

static void test_every_verdict_is_one_series_from_the_start(void **state)
{
    (void)state;
    struct page p = page_read();
    unsigned series = 0;
    for (unsigned i = 0; i < p.count; i++)
        series += strncmp(p.line[i], "beacon_verdicts_total{", 22) == 0;
    assert_int_equal(series, VERDICT_COUNT);
    for (unsigned i = 0; i < VERDICT_COUNT; i++) {
        const struct verdict_row *row = &verdict_rows[i];
        char line[256];
        snprintf(line, sizeof line,
                 "beacon_verdicts_total{outcome=\"%s\",type=\"%s\",reason=\"%s\"} 0", row->outcome,
                 row->type, row->reason);
        assert_int_equal(count_lines(&p, line), 1);
    }
    free(p.text);
}

static void test_fresh_page_has_every_series(void **state)
{
    (void)state;
    EXPECT("beacon_build_info{version=\"1.2.3\",revision=\"abcdef\",compiler=\"gcc "
           "12.2.0\",io=\"mmsg\"} 1",
           "beacon_ready 0", "beacon_draining 0", "beacon_config_last_reload_successful 0",
           "beacon_config_last_reload_success_timestamp_seconds 0",
           "beacon_private_addresses_allowed 0", "beacon_shards 2",
           "beacon_nodes{transport=\"udp4\"} 0", "beacon_nodes{transport=\"udp6\"} 0",
           "beacon_receive_buffer_bytes 0", "beacon_log_suppressed_lines_total 0",
           "beacon_received_packets_total 0", "beacon_received_bytes_total 0",
           "beacon_sent_packets_total 0", "beacon_sent_bytes_total 0", "beacon_send_errors_total 0",
           "beacon_receive_errors_total 0", "beacon_kernel_dropped_packets_total{shard=\"0\"} 0",
           "beacon_kernel_dropped_packets_total{shard=\"1\"} 0",
           "beacon_io_batches_total{shard=\"0\"} 0", "beacon_io_arrivals_total{shard=\"1\"} 0",
           "beacon_io_send_messages_total{shard=\"1\"} 0", "beacon_io_rearms_total{shard=\"1\"} 0",
           "beacon_shard_ticks_total{shard=\"1\"} 0", "beacon_mail_passed_total 0",
           "beacon_mail_taken_total 0", "beacon_notify_sent_total 0",
           "beacon_notify_skipped_total 0", "beacon_nodes_expired_total 0",
           "beacon_nodes_evicted_total 0", "beacon_io_batch_packets_bucket{le=\"1\"} 0",
           "beacon_io_batch_packets_bucket{le=\"+Inf\"} 0", "beacon_io_batch_packets_sum 0",
           "beacon_io_batch_packets_count 0", "beacon_io_batch_duration_seconds_sum 0",
           "beacon_http_connections 0", "beacon_http_connections_accepted_total 0",
           "beacon_http_connections_refused_total 0", "beacon_http_requests_total 0",
           "beacon_http_bad_requests_total 0", "beacon_http_timeouts_total 0",
           "beacon_tls_handshakes_total{result=\"ok\"} 0", "beacon_wss_sessions 0",
           "beacon_wss_frames_total{direction=\"out\"} 0",
           "beacon_wss_closed_total{reason=\"idle\"} 0", "beacon_keys_lookups_total 0",
           "beacon_proxy_bad_total 0", "# TYPE " NOT_AFTER " gauge");
    assert_true(value_of("beacon_nodes_capacity") >= NODES);
}

static void test_lanes_are_summed(void **state)
{
    (void)state;
    count_set(&stats(0)->verdict[VERDICT_RELAY_FORWARDED], 40);
    count_set(&stats(1)->verdict[VERDICT_RELAY_FORWARDED], 2);
    count_set(&stats(1)->verdict[VERDICT_RELAY_NO_ROUTE], 7);
    count_set(&stats(0)->received, UINT64_C(18000000000000000000));
    count_set(&stats(1)->received, 5);
    count_set(&stats(0)->nodes_v4, 3);
    count_set(&stats(1)->nodes_v4, 4);
    count_set(&stats(1)->nodes_v6, 9);
    count_set(&stats(1)->expired, 6);
    EXPECT("beacon_verdicts_total{outcome=\"forwarded\",type=\"relay\",reason=\"\"} 42",
           "beacon_verdicts_total{outcome=\"dropped\",type=\"relay\",reason=\"no_route\"} 7",
           "beacon_received_packets_total 18000000000000000005",
           "beacon_nodes{transport=\"udp4\"} 7", "beacon_nodes{transport=\"udp6\"} 9",
           "beacon_nodes_expired_total 6");
}

static void test_shards_can_be_told_apart(void **state)
{
    (void)state;
    count_set(&stats(0)->kernel_drops, 11);
    count_set(&stats(1)->kernel_drops, 22);
    count_set(&stats(0)->ticks, 33);
    count_set(&stats(1)->batches, 44);
    EXPECT("beacon_kernel_dropped_packets_total{shard=\"0\"} 11",
           "beacon_kernel_dropped_packets_total{shard=\"1\"} 22",
           "beacon_shard_ticks_total{shard=\"0\"} 33", "beacon_shard_ticks_total{shard=\"1\"} 0",
           "beacon_io_batches_total{shard=\"0\"} 0", "beacon_io_batches_total{shard=\"1\"} 44");
}

static void test_histograms_are_cumulative_and_in_base_units(void **state)
{
    (void)state;
    histogram_add(&stats(0)->batch_packets, batch_bounds, 1);
    histogram_add(&stats(0)->batch_packets, batch_bounds, 2);
    histogram_add(&stats(1)->batch_packets, batch_bounds, 2);
    histogram_add(&stats(1)->batch_packets, batch_bounds, 5000);
    histogram_add(&stats(0)->batch_seconds, seconds_bounds, 1000);
    histogram_add(&stats(1)->batch_seconds, seconds_bounds, 2500);
    histogram_add(&stats(1)->batch_seconds, seconds_bounds, 2000000000);
    EXPECT("beacon_io_batch_packets_bucket{le=\"1\"} 1",
           "beacon_io_batch_packets_bucket{le=\"2\"} 3",
           "beacon_io_batch_packets_bucket{le=\"2048\"} 3",
           "beacon_io_batch_packets_bucket{le=\"+Inf\"} 4", "beacon_io_batch_packets_sum 5005",
           "beacon_io_batch_packets_count 4",
           "beacon_io_batch_duration_seconds_bucket{le=\"1e-06\"} 1",
           "beacon_io_batch_duration_seconds_bucket{le=\"3e-06\"} 2",
           "beacon_io_batch_duration_seconds_bucket{le=\"0.3\"} 2",
           "beacon_io_batch_duration_seconds_bucket{le=\"+Inf\"} 3",
           "beacon_io_batch_duration_seconds_sum 2.0000035",
           "beacon_io_batch_duration_seconds_count 3");
}

static void test_state_of_the_beacon(void **state)
{
    (void)state;
    admin.private_allowed = true;
    admin.receive_buffer = 8388608;
    admin.started_unix_s = 1700000000;
    atomic_store(&admin.draining, true);
    admin_reloaded(&admin, true, NULL);
    admin.reload.taken_unix_s = 1700000001;
    atomic_store(&admin.log_suppressed, 12);
    EXPECT("beacon_private_addresses_allowed 1", "beacon_receive_buffer_bytes 8388608",
           "beacon_draining 1", "beacon_config_last_reload_successful 1",
           "beacon_config_last_reload_success_timestamp_seconds 1700000001",
           "beacon_log_suppressed_lines_total 12", "process_start_time_seconds 1700000000");
}

static void no_handler(void *arg, const struct edge_request *q, struct edge_response *response)
{
    (void)arg, (void)q, (void)response;
}

static void test_edge_counters_are_shown(void **state)
{
    (void)state;
    struct edge *e;
    struct edge_listener listener = {.name = "test", .handler = no_handler};
    const char *failed;
    assert_true(endpoint_parse("127.0.0.1:0", &listener.at));
    assert_int_equal(edge_open(&e, &listener, 1, 0, &failed), 0);
    /* The object is not const, only this view of it. */
    struct edge_stats *s = (struct edge_stats *)(uintptr_t)edge_stats(e);
    count_set(&s->accepted, 1);
    count_set(&s->refused, 2);
    count_set(&s->requests, 3);
    count_set(&s->bad_requests, 4);
    count_set(&s->timeouts, 5);
    count_set(&s->connections, 6);
    count_set(&s->handshakes, 7);
    count_set(&s->handshake_failures, 8);
    count_set(&s->handshakes_limited, 9);
    count_set(&s->proxy_bad, 10);
    count_set(&s->frames_dropped, 11);
    count_set(&s->stuck, 12);
    count_set(&s->queued_bytes, 13);
    admin.edge = e;
    EXPECT("beacon_http_connections_accepted_total 1", "beacon_http_connections_refused_total 2",
           "beacon_http_requests_total 3", "beacon_http_bad_requests_total 4",
           "beacon_http_timeouts_total 5", "beacon_http_connections 6",
           "beacon_tls_handshakes_total{result=\"ok\"} 7",
           "beacon_tls_handshakes_total{result=\"failed\"} 8",
           "beacon_tls_handshakes_total{result=\"limited\"} 9", "beacon_proxy_bad_total 10",
           "beacon_wss_frames_dropped_total 11", "beacon_wss_closed_total{reason=\"stuck\"} 12",
           "beacon_wss_queued_bytes 13");
    edge_close(e);
}

static void test_bridge_and_keys_are_shown(void **state)
{
    (void)state;
    char error[KEYS_ERROR_MAX];
    struct bridge *b;
    struct events events;
    events_init(&events);
    struct keys *k =
        keys_open(&(struct keys_config){.file = "", .registry = "", .wake = -1}, error);
    assert_non_null(k);
    assert_int_equal(bridge_open(&b, &(struct bridge_config){.server = admin.server,
                                                             .events = &events,
                                                             .sessions_max = 4}),
                     0);
    struct bridge_stats *s = (struct bridge_stats *)(uintptr_t)bridge_stats(b);
    struct keys_stats *ks = (struct keys_stats *)(uintptr_t)keys_stats(k);
    _Atomic uint64_t *const counters[] = {&s->sessions,
                                          &s->waiting,
                                          &s->upgraded,
                                          &s->upgrade_failures,
                                          &s->probes,
                                          &s->auth_ok,
                                          &s->auth_failures,
                                          &s->auth_timeouts,
                                          &s->auth_unavailable,
                                          &s->frames_in,
                                          &s->frames_in_bytes,
                                          &s->frames_out,
                                          &s->frames_out_bytes,
                                          &s->no_session,
                                          &s->replaced,
                                          &s->idle,
                                          &s->closed_bad,
                                          &ks->lookups,
                                          &ks->lookup_failures,
                                          &ks->cache_hits,
                                          &ks->pins,
                                          &ks->cached,
                                          &s->withdrawn};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        count_set(counters[i], 1 + i);
    admin.bridge = b;
    admin.keys = k;
    EXPECT("beacon_wss_sessions 1", "beacon_wss_connections_waiting 2",
           "beacon_wss_upgrades_total{result=\"ok\"} 3",
           "beacon_wss_upgrades_total{result=\"failed\"} 4",
           "beacon_wss_upgrades_total{result=\"probe\"} 5",
           "beacon_wss_authentications_total{result=\"ok\"} 6",
           "beacon_wss_authentications_total{result=\"failed\"} 7",
           "beacon_wss_authentications_total{result=\"timeout\"} 8",
           "beacon_wss_authentications_total{result=\"unavailable\"} 9",
           "beacon_wss_frames_total{direction=\"in\"} 10",
           "beacon_wss_frame_bytes_total{direction=\"in\"} 11",
           "beacon_wss_frames_total{direction=\"out\"} 12",
           "beacon_wss_frame_bytes_total{direction=\"out\"} 13", "beacon_wss_no_session_total 14",
           "beacon_wss_closed_total{reason=\"replaced\"} 15",
           "beacon_wss_closed_total{reason=\"idle\"} 16",
           "beacon_wss_closed_total{reason=\"protocol\"} 17", "beacon_keys_lookups_total 18",
           "beacon_keys_lookup_failures_total 19", "beacon_keys_cache_hits_total 20",
           "beacon_keys_pinned 21", "beacon_keys_cached 22",
           "beacon_wss_closed_total{reason=\"key_withdrawn\"} 23", "beacon_keys_file_keys 0");
    bridge_close(b);
    keys_close(k);
}

/* The edge decides frames with a lane of its own: its counters are in the sums, its table not. */
static void test_edge_lane_is_counted(void **state)
{
    (void)state;
    struct lane *edge = calloc(1, sizeof *edge);
    assert_non_null(edge);
    double capacity = value_of("beacon_nodes_capacity");
    admin.server->edge = edge;
    count_set(&edge->stats.received, 5);
    count_set(&stats(0)->received, 7);
    count_set(&edge->stats.verdict[VERDICT_RELAY_FORWARDED], 3);
    count_set(&edge->stats.batches, 4);
    EXPECT("beacon_received_packets_total 12",
           "beacon_verdicts_total{outcome=\"forwarded\",type=\"relay\",reason=\"\"} 3",
           "beacon_io_batches_total{shard=\"edge\"} 4", "beacon_io_batches_total{shard=\"0\"} 0",
           "beacon_shard_ticks_total{shard=\"edge\"} 0", "beacon_shards 2");
    assert_true(value_of("beacon_nodes_capacity") == capacity);
    admin.server->edge = NULL;
    free(edge);
}

#define MESH(name) "beacon_mesh_" name

/* Standalone, too: an alert must not depend on a series that comes later. */
static void test_series_of_the_mesh_exist_without_it(void **state)
{
    (void)state;
    EXPECT(MESH("enabled 0"), MESH("sealed 0"), MESH("health 0"), MESH("duplicate_id 0"),
           MESH("registry_up 0"), MESH("registry_last_success_timestamp_seconds 0"),
           MESH("registry_listed 0"), MESH("peers{state=\"alive\"} 0"),
           MESH("peers{state=\"suspect\"} 0"), MESH("peers{state=\"dead\"} 0"),
           MESH("peers{state=\"left\"} 0"), MESH("peers{state=\"pilot\"} 0"),
           MESH("peers{state=\"silent\"} 0"), MESH("routes 0"), MESH("rows 0"), MESH("rows_max 0"),
           MESH("own_rows 0"), MESH("refused_rows 0"), MESH("frames_total{direction=\"in\"} 0"),
           MESH("frames_total{direction=\"out\"} 0"), MESH("bytes_total{direction=\"in\"} 0"),
           MESH("bytes_total{direction=\"out\"} 0"), MESH("deltas_total{kind=\"sent\"} 0"),
           MESH("deltas_total{kind=\"again\"} 0"), MESH("deltas_total{kind=\"taken\"} 0"),
           MESH("deltas_total{kind=\"held\"} 0"), MESH("send_errors_total 0"),
           MESH("kernel_dropped_packets_total 0"), MESH("journal_lost_total 0"), MESH("settled 0"),
           MESH("unsettled_seconds 0"), MESH("silence_max_seconds 0"),
           MESH("round_trip_max_seconds 0"), MESH("age_seconds 0"));
}

static void test_mesh_is_shown(void **state)
{
    (void)state;
    static struct mesh_view view;
    view.totals = (struct mesh_view_totals){
        .peers = {1, 2, 3, 4, 5, 6},
        .rows = 10,
        .rows_max = 11,
        .own_rows = 12,
        .refused_rows = 13,
        .frames_in = 14,
        .bytes_in = UINT64_C(18000000000000000000),
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
        .settled = true,
        .unsettled_s = 26.5,
        .silent_max_s = 0.125,
        .rtt_max_s = 0.0005,
        .duplicate_id = true,
        .registry_ok = true,
        .registry_ok_unix_s = 1700000001,
        .registry_listed = 28,
        .shown_ns = edge_clock_ns() - UINT64_C(7500000000),
    };
    admin.mesh = &view;
    count_set(&stats(0)->nodes_beacon, 30);
    count_set(&stats(1)->nodes_beacon, 1);
    EXPECT(MESH("enabled 1"), MESH("sealed 1"), MESH("health 25"), MESH("duplicate_id 1"),
           MESH("registry_up 1"), MESH("registry_last_success_timestamp_seconds 1700000001"),
           MESH("registry_listed 28"), MESH("peers{state=\"alive\"} 1"),
           MESH("peers{state=\"suspect\"} 2"), MESH("peers{state=\"dead\"} 3"),
           MESH("peers{state=\"left\"} 4"), MESH("peers{state=\"pilot\"} 5"),
           MESH("peers{state=\"silent\"} 6"), MESH("routes 31"), MESH("rows 10"),
           MESH("rows_max 11"), MESH("own_rows 12"), MESH("refused_rows 13"),
           MESH("frames_total{direction=\"in\"} 14"), MESH("frames_total{direction=\"out\"} 16"),
           MESH("bytes_total{direction=\"in\"} 18000000000000000000"),
           MESH("bytes_total{direction=\"out\"} 17"), MESH("deltas_total{kind=\"sent\"} 18"),
           MESH("deltas_total{kind=\"again\"} 19"), MESH("deltas_total{kind=\"taken\"} 20"),
           MESH("deltas_total{kind=\"held\"} 21"), MESH("send_errors_total 22"),
           MESH("kernel_dropped_packets_total 23"), MESH("journal_lost_total 24"),
           MESH("settled 1"), MESH("unsettled_seconds 26.5"), MESH("silence_max_seconds 0.125"),
           MESH("round_trip_max_seconds 0.0005"));
    double age_s = value_of("beacon_mesh_age_seconds");
    assert_true(age_s >= 7.5 && age_s < 30);
    view.totals.shown_ns = edge_clock_ns() + UINT64_C(60000000000); /* renewed while we write */
    EXPECT(MESH("age_seconds 0"));
}

/* What the mesh decides has verdicts like all else: what was for us is taken, not dropped. */
static void test_verdicts_of_the_mesh(void **state)
{
    (void)state;
    static const struct {
        enum verdict verdict;
        const char *labels;
    } rows[] = {
        {VERDICT_GOSSIP_TAKEN, "outcome=\"taken\",type=\"gossip\",reason=\"\""},
        {VERDICT_GOSSIP_CHALLENGED, "outcome=\"answered\",type=\"gossip\",reason=\"challenged\""},
        {VERDICT_GOSSIP_FORGED, "outcome=\"dropped\",type=\"gossip\",reason=\"forged\""},
        {VERDICT_SYNC_TAKEN, "outcome=\"taken\",type=\"sync\",reason=\"\""},
        {VERDICT_SYNC_HELD, "outcome=\"taken\",type=\"sync\",reason=\"held\""},
        {VERDICT_SYNC_STRANGER, "outcome=\"dropped\",type=\"sync\",reason=\"stranger\""},
        {VERDICT_RELAY_TO_BEACON, "outcome=\"forwarded\",type=\"relay\",reason=\"to_beacon\""},
        {VERDICT_RELAY_FROM_BEACON, "outcome=\"forwarded\",type=\"relay\",reason=\"from_beacon\""},
        {VERDICT_RELAY_SECOND_HOP, "outcome=\"dropped\",type=\"relay\",reason=\"second_hop\""},
        {VERDICT_RELAY_PEER_LIMITED,
         "outcome=\"dropped\",type=\"relay\",reason=\"beacon_rate_limited\""},
    };
    struct lane *mesh = calloc(1, sizeof *mesh);
    assert_non_null(mesh);
    admin.server->mesh = mesh;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        count_set(&mesh->stats.verdict[rows[i].verdict], 100 + i);
        count_set(&stats(1)->verdict[rows[i].verdict], 1000);
    }
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char line[256];
        snprintf(line, sizeof line, "beacon_verdicts_total{%s} %u", rows[i].labels, 1100 + i);
        EXPECT(line);
    }
    EXPECT("beacon_io_batches_total{shard=\"mesh\"} 0");
    admin.server->mesh = NULL;
    free(mesh);
}

static void certificate(const char *name, int64_t not_after_unix_s)
{
    struct admin_certificate *c = &admin.certificate[admin.certificate_count++];
    snprintf(c->name, sizeof c->name, "%s", name);
    c->not_after_unix_s = not_after_unix_s;
}

/* Two certificates may have one name; a name may hold anything. */
static void test_certificates_have_one_series_a_name(void **state)
{
    (void)state;
    certificate("b.example", 200);
    certificate("a.example", 100);
    certificate("b.example", 150);
    certificate("b.example", 150);
    certificate("a\"b\\c\nd\xff", 300);
    EXPECT(NOT_AFTER "{name=\"a.example\"} 100", NOT_AFTER "{name=\"b.example\"} 150",
           NOT_AFTER "{name=\"a?b?c?d?\"} 300");
    struct page p = page_read();
    unsigned series = 0;
    for (unsigned i = 0; i < p.count; i++)
        series += strncmp(p.line[i], NOT_AFTER "{", strlen(NOT_AFTER) + 1) == 0;
    free(p.text);
    assert_int_equal(series, 3);
}

static long count_descriptors(void)
{
    long count = 0;
    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_process_figures_are_measured(void **state)
{
    (void)state;
    assert_true(value_of("process_resident_memory_bytes") > 500000);
    assert_true(value_of("process_max_fds") >= 64);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal((long)value_of("process_open_fds"), count_descriptors());
    close(fd);
    assert_int_equal((long)value_of("process_open_fds"), count_descriptors());
    double cpu = value_of("process_cpu_seconds_total");
    for (volatile unsigned i = 0; i < 20000000; i++)
        continue;
    assert_true(value_of("process_cpu_seconds_total") > cpu);
}

/* Each series stands under its own HELP and TYPE, once. */
static void test_series_have_heads_and_are_unique(void **state)
{
    (void)state;
    struct page p = page_read();
    char name[128] = "";
    for (unsigned i = 0; i < p.count; i++) {
        const char *line = p.line[i];
        if (strncmp(line, "# HELP ", 7) == 0) {
            assert_int_equal(sscanf(line, "# HELP %127s", name), 1);
            assert_true(strlen(line) > 7 + strlen(name) + 3);
            char type[256];
            snprintf(type, sizeof type, "# TYPE %s ", name);
            assert_memory_equal(p.line[++i], type, strlen(type));
            continue;
        }
        assert_memory_equal(line, name, strlen(name));
        size_t series_len = (size_t)(strrchr(line, ' ') - line) + 1;
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(strncmp(p.line[j], line, series_len), 0);
    }
    free(p.text);
}

static void test_promtool_finds_nothing(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0)
        skip();
    certificate("a.example", 100);
    char *text = page_text();
    FILE *tool = popen("promtool check metrics 2>&1", "w");
    assert_non_null(tool);
    fputs(text, tool);
    int status = pclose(tool);
    free(text);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_verdict_is_one_series_from_the_start),
        TEST(test_fresh_page_has_every_series),
        TEST(test_lanes_are_summed),
        TEST(test_shards_can_be_told_apart),
        TEST(test_histograms_are_cumulative_and_in_base_units),
        TEST(test_state_of_the_beacon),
        TEST(test_edge_counters_are_shown),
        TEST(test_bridge_and_keys_are_shown),
        TEST(test_edge_lane_is_counted),
        TEST(test_series_of_the_mesh_exist_without_it),
        TEST(test_mesh_is_shown),
        TEST(test_verdicts_of_the_mesh),
        TEST(test_certificates_have_one_series_a_name),
        TEST(test_process_figures_are_measured),
        TEST(test_series_have_heads_and_are_unique),
        TEST(test_promtool_finds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
