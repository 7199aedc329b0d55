#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "wss/bridge.h"
#include "wss/keys.h"
#include "wss/metrics.h"
#include "wss/metrics_text.h"
#include "wss/totals.h"

/* X(field): the counters that are a row per shard, because a single bad shard is what they show. */
#define PER_SHARD(X) X(kernel_drops) X(batches) X(arrivals) X(send_messages) X(rearms) X(ticks)

/* --- the text format --- */

/* Values are divided by `scale` to come out in base units. Buckets are cumulative in the text. */
static void write_histogram(FILE *out, const char *name, const char *help,
                            const struct totals_histogram *h,
                            const uint64_t bounds[static STATS_BUCKETS], double scale)
{
    uint64_t count = 0;
    write_head(out, name, "histogram", help);
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        count += h->bucket[i];
        fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, (double)bounds[i] / scale, count);
    }
    count += h->bucket[STATS_BUCKETS];
    fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, count);
    fprintf(out, "%s_sum %.15g\n", name, (double)h->sum / scale);
    fprintf(out, "%s_count %" PRIu64 "\n", name, count);
}

/* --- groups of series --- */

static void write_state(FILE *out, struct admin *a)
{
    struct admin_reload reload;
    admin_last_reload(a, &reload);
    write_head(out, "beacon_build_info", "gauge", "What is running; always 1");
    fprintf(out, "beacon_build_info{version=\"%s\",revision=\"%s\",compiler=\"%s\",io=\"%s\"} 1\n",
            a->version, a->revision, a->compiler, a->io);
    write_gauge(out, "beacon_ready", "1 when /readyz answers 200", admin_is_ready(a));
    write_gauge(out, "beacon_draining", "1 while the beacon drains before it ends",
                atomic_load_explicit(&a->draining, memory_order_relaxed));
    write_gauge(out, "beacon_config_last_reload_successful",
                "1 when the newest configuration was taken", reload.ok);
    write_gauge(out, "beacon_config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken", (uint64_t)reload.taken_unix_s);
    write_gauge(out, "beacon_private_addresses_allowed",
                "1 when nodes at private addresses may be stored", a->private_allowed);
    write_gauge(out, "beacon_shards", "Threads that serve UDP", a->server->lane_count);
    write_gauge(out, "beacon_receive_buffer_bytes", "Receive buffer granted to each UDP socket",
                a->receive_buffer);
    write_counter(out, "beacon_log_suppressed_lines_total", "Log lines held back as repetitions",
                  atomic_load_explicit(&a->log_suppressed, memory_order_relaxed));
}

static void write_nodes(FILE *out, const struct totals *t)
{
    write_head(out, "beacon_nodes", "gauge", "Nodes registered");
    fprintf(out, "beacon_nodes{transport=\"udp4\"} %" PRIu64 "\n", t->nodes_v4);
    fprintf(out, "beacon_nodes{transport=\"udp6\"} %" PRIu64 "\n", t->nodes_v6);
    fprintf(out, "beacon_nodes{transport=\"wss\"} %" PRIu64 "\n", t->nodes_stream);
    write_gauge(out, "beacon_nodes_capacity", "Nodes that the tables can hold", t->capacity);
}

static void write_verdicts(FILE *out, const struct totals *t)
{
    static const char name[] = "beacon_verdicts_total";
    write_head(out, name, "counter",
               "Datagrams by what was decided; they add up to the datagrams received");
    for (unsigned i = 0; i < VERDICT_COUNT; i++) {
        const struct verdict_row *row = &verdict_rows[i];
        fprintf(out, "%s{outcome=\"%s\",type=\"%s\",reason=\"%s\"} %" PRIu64 "\n", name,
                row->outcome, row->type, row->reason, t->verdict[i]);
    }
}

static bool is_per_shard(size_t field)
{
    static const size_t fields[] = {
#define X(field) offsetof(struct lane_stats, field),
        PER_SHARD(X)
#undef X
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i] == field)
            return true;
    return false;
}

static void write_per_shard(FILE *out, const char *name, const char *help, const struct server *s,
                            size_t field)
{
    write_head(out, name, "counter", help);
    for (unsigned i = 0; i < s->lane_count; i++) {
        const void *at = (const char *)&s->lane[i]->stats + field;
        fprintf(out, "%s{shard=\"%u\"} %" PRIu64 "\n", name, i, count_read(at));
    }
    for (unsigned i = s->lane_count; i < server_lanes(s); i++) {
        const struct lane *l = server_lane(s, i);
        const void *at = (const char *)&l->stats + field;
        fprintf(out, "%s{shard=\"%s\"} %" PRIu64 "\n", name, l == s->edge ? "edge" : "mesh",
                count_read(at));
    }
}

static void write_lanes(FILE *out, const struct totals *t, const struct server *s)
{
#define X(field, metric, help)                                                                     \
    if (is_per_shard(offsetof(struct lane_stats, field)))                                          \
        write_per_shard(out, metric, help, s, offsetof(struct lane_stats, field));                 \
    else                                                                                           \
        write_counter(out, metric, help, t->field);
    LANE_COUNTERS(X)
#undef X
    write_histogram(out, "beacon_io_batch_packets", "Datagrams a wake-up brought",
                    &t->batch_packets, batch_bounds, 1);
    write_histogram(out, "beacon_io_batch_duration_seconds",
                    "Time from a wake-up to the last send of its batch", &t->batch_seconds,
                    seconds_bounds, 1e9);
}

static void write_http(FILE *out, const struct edge *e)
{
    static const struct edge_stats none;
    const struct edge_stats *s = e ? edge_stats(e) : &none;
    write_gauge(out, "beacon_http_connections", "Open HTTP connections",
                count_read(&s->connections));
    write_counter(out, "beacon_http_connections_accepted_total", "HTTP connections taken",
                  count_read(&s->accepted));
    write_counter(out, "beacon_http_connections_refused_total",
                  "HTTP connections closed at once: all places or those of the source were taken",
                  count_read(&s->refused));
    write_counter(out, "beacon_http_requests_total", "HTTP requests given to a handler",
                  count_read(&s->requests));
    write_counter(out, "beacon_http_bad_requests_total",
                  "HTTP requests refused: malformed, too large or with a body",
                  count_read(&s->bad_requests));
    write_counter(out, "beacon_http_timeouts_total",
                  "HTTP connections cut: request too slow or answer not taken",
                  count_read(&s->timeouts));
}

/* --- TLS and WebSocket --- */

/* A name is what a certificate says: all that could end the label or is not ASCII is made a '?'. */
static void write_label(FILE *out, const char *value)
{
    for (; *value; value++)
        fputc(*value < 0x20 || *value > 0x7e || *value == '"' || *value == '\\' ? '?' : *value,
              out);
}

/* Of several certificates of one name (ECDSA and RSA) the one that ends first is the series. */
static bool is_first_to_end(const struct admin_certificate *c, unsigned count, unsigned i)
{
    for (unsigned j = 0; j < count; j++) {
        bool sooner = c[j].not_after_unix_s < c[i].not_after_unix_s ||
                      (c[j].not_after_unix_s == c[i].not_after_unix_s && j < i);
        if (sooner && strcmp(c[j].name, c[i].name) == 0)
            return false;
    }
    return true;
}

static void write_certificates(FILE *out, struct admin *a)
{
    static const char name[] = "beacon_tls_certificate_not_after_timestamp_seconds";
    struct admin_certificate c[TLS_PAIRS_MAX];
    unsigned count = admin_read_certificates(a, c);
    write_head(out, name, "gauge", "When the certificate of this name ends");
    for (unsigned i = 0; i < count; i++) {
        if (!is_first_to_end(c, count, i))
            continue;
        fprintf(out, "%s{name=\"", name);
        write_label(out, c[i].name);
        fprintf(out, "\"} %" PRId64 "\n", c[i].not_after_unix_s);
    }
}

static void write_row(FILE *out, const char *name, const char *label, const char *value,
                      const counter *c)
{
    fprintf(out, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, value, count_read(c));
}

static void write_tls(FILE *out, const struct edge *e)
{
    static const char name[] = "beacon_tls_handshakes_total";
    static const struct edge_stats none;
    const struct edge_stats *s = e ? edge_stats(e) : &none;
    write_head(out, name, "counter", "TLS handshakes by how they ended");
    write_row(out, name, "result", "ok", &s->handshakes);
    write_row(out, name, "result", "failed", &s->handshake_failures);
    write_row(out, name, "result", "limited", &s->handshakes_limited);
    write_counter(out, "beacon_proxy_bad_total",
                  "Connections of trusted proxies without a good PROXY header",
                  count_read(&s->proxy_bad));
}

static void write_sessions(FILE *out, const struct bridge_stats *b)
{
    static const char upgrades[] = "beacon_wss_upgrades_total";
    static const char proofs[] = "beacon_wss_authentications_total";
    write_gauge(out, "beacon_wss_sessions", "Nodes connected over WebSocket",
                count_read(&b->sessions));
    write_gauge(out, "beacon_wss_connections_waiting",
                "WebSocket connections that have not authenticated yet", count_read(&b->waiting));
    write_head(out, upgrades, "counter", "Requests for a WebSocket by how they ended");
    write_row(out, upgrades, "result", "ok", &b->upgraded);
    write_row(out, upgrades, "result", "failed", &b->upgrade_failures);
    write_row(out, upgrades, "result", "probe", &b->probes);
    write_head(out, proofs, "counter", "Authentications of nodes by how they ended");
    write_row(out, proofs, "result", "ok", &b->auth_ok);
    write_row(out, proofs, "result", "failed", &b->auth_failures);
    write_row(out, proofs, "result", "timeout", &b->auth_timeouts);
    write_row(out, proofs, "result", "unavailable", &b->auth_unavailable);
}

static void write_frames(FILE *out, const struct bridge_stats *b)
{
    static const char frames[] = "beacon_wss_frames_total";
    static const char bytes[] = "beacon_wss_frame_bytes_total";
    write_head(out, frames, "counter", "Messages to and from nodes over WebSocket");
    write_row(out, frames, "direction", "in", &b->frames_in);
    write_row(out, frames, "direction", "out", &b->frames_out);
    write_head(out, bytes, "counter", "Bytes of messages to and from nodes over WebSocket");
    write_row(out, bytes, "direction", "in", &b->frames_in_bytes);
    write_row(out, bytes, "direction", "out", &b->frames_out_bytes);
    write_counter(out, "beacon_wss_no_session_total",
                  "Messages for a node whose WebSocket session has ended",
                  count_read(&b->no_session));
}

static void write_wss(FILE *out, const struct admin *a)
{
    static const char closed[] = "beacon_wss_closed_total";
    static const struct bridge_stats no_bridge;
    static const struct edge_stats no_edge;
    const struct bridge_stats *b = a->bridge ? bridge_stats(a->bridge) : &no_bridge;
    const struct edge_stats *e = a->edge ? edge_stats(a->edge) : &no_edge;
    write_sessions(out, b);
    write_frames(out, b);
    write_counter(out, "beacon_wss_frames_dropped_total",
                  "Frames dropped because their reader was slow", count_read(&e->frames_dropped));
    write_head(out, closed, "counter", "WebSocket sessions and streams that we ended");
    write_row(out, closed, "reason", "replaced", &b->replaced);
    write_row(out, closed, "reason", "idle", &b->idle);
    write_row(out, closed, "reason", "protocol", &b->closed_bad);
    write_row(out, closed, "reason", "key_withdrawn", &b->withdrawn);
    write_row(out, closed, "reason", "stuck", &e->stuck);
    write_gauge(out, "beacon_wss_queued_bytes", "Bytes that wait for slow readers",
                count_read(&e->queued_bytes));
}

static void write_keys(FILE *out, const struct keys *k)
{
    static const struct keys_stats none;
    const struct keys_stats *s = k ? keys_stats(k) : &none;
    write_gauge(out, "beacon_keys_file_keys", "Keys of the keys file", k ? keys_file_count(k) : 0);
    write_gauge(out, "beacon_keys_cached", "Answers of the registry that are kept",
                count_read(&s->cached));
    write_gauge(out, "beacon_keys_pinned", "Keys kept since their first use", count_read(&s->pins));
    write_counter(out, "beacon_keys_lookups_total", "Questions to the registry",
                  count_read(&s->lookups));
    write_counter(out, "beacon_keys_lookup_failures_total",
                  "Questions that the registry did not answer", count_read(&s->lookup_failures));
    write_counter(out, "beacon_keys_cache_hits_total", "Questions answered by what was kept",
                  count_read(&s->cache_hits));
}

/* --- the process; where /proc is hidden its figures are 0 --- */

static uint64_t resident_bytes(void)
{
    uint64_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%*u %" SCNu64, &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_descriptors(void)
{
    uint64_t count = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    for (const struct dirent *entry; (entry = readdir(d));)
        count += entry->d_name[0] != '.';
    closedir(d);
    return count - 1; /* the one that reads */
}

static void write_process(FILE *out, struct admin *a)
{
    struct timespec cpu = {.tv_sec = 0};
    struct rlimit files = {.rlim_cur = 0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    getrlimit(RLIMIT_NOFILE, &files);

    write_head(out, "process_cpu_seconds_total", "counter", "User and system time spent");
    fprintf(out, "process_cpu_seconds_total %.6f\n",
            (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    write_gauge(out, "process_resident_memory_bytes", "Memory in use", resident_bytes());
    write_gauge(out, "process_open_fds", "Open file descriptors", open_descriptors());
    write_gauge(out, "process_max_fds", "File descriptors that may be open", files.rlim_cur);
    write_gauge(out, "process_start_time_seconds", "When the process started",
                (uint64_t)a->started_unix_s);
}

void metrics_write(FILE *out, struct admin *a)
{
    struct totals t;
    totals_read(a->server, &t);
    write_state(out, a);
    write_certificates(out, a);
    write_nodes(out, &t);
    metrics_write_mesh(out, a, t.nodes_beacon);
    write_verdicts(out, &t);
    write_lanes(out, &t, a->server);
    write_http(out, a->edge);
    write_tls(out, a->edge);
    write_wss(out, a);
    write_keys(out, a->keys);
    write_process(out, a);
}
