#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "wss/metrics.h"

/* X(field): the counters that are a row per shard, because a single bad shard is what they show. */
#define PER_SHARD(X) X(kernel_drops) X(batches) X(arrivals) X(send_messages) X(rearms) X(ticks)

/* Sums over all lanes: first everything is read, then everything is written. */
struct totals {
    uint64_t verdict[VERDICT_COUNT];
#define X(field, metric, help) uint64_t field;
    LANE_COUNTERS(X)
#undef X
    uint64_t nodes_v4, nodes_v6, capacity;
    struct totals_histogram {
        uint64_t bucket[STATS_BUCKETS + 1], sum;
    } batch_packets, batch_seconds;
};

static void histogram_sum(struct totals_histogram *t, const struct histogram *h)
{
    for (unsigned i = 0; i <= STATS_BUCKETS; i++)
        t->bucket[i] += count_read(&h->bucket[i]);
    t->sum += count_read(&h->sum);
}

static void totals_add(struct totals *t, const struct lane *l)
{
    const struct lane_stats *s = &l->stats;
    for (unsigned i = 0; i < VERDICT_COUNT; i++)
        t->verdict[i] += count_read(&s->verdict[i]);
#define X(field, metric, help) t->field += count_read(&s->field);
    LANE_COUNTERS(X)
#undef X
    t->nodes_v4 += count_read(&s->nodes_v4);
    t->nodes_v6 += count_read(&s->nodes_v6);
    t->capacity += route_capacity(l->routes); /* fixed at start: safe from any thread */
    histogram_sum(&t->batch_packets, &s->batch_packets);
    histogram_sum(&t->batch_seconds, &s->batch_seconds);
}

/* --- the text format --- */

static void write_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    write_head(out, name, "gauge", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void write_counter(FILE *out, const char *name, const char *help, uint64_t value)
{
    write_head(out, name, "counter", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

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

static void write_state(FILE *out, const struct admin *a)
{
    write_head(out, "beacon_build_info", "gauge", "What is running; always 1");
    fprintf(out, "beacon_build_info{version=\"%s\",revision=\"%s\",compiler=\"%s\",io=\"%s\"} 1\n",
            a->version, a->revision, a->compiler, a->io);
    write_gauge(out, "beacon_ready", "1 when /readyz answers 200", admin_is_ready(a));
    write_gauge(out, "beacon_draining", "1 while the beacon drains before it ends",
                atomic_load_explicit(&a->draining, memory_order_relaxed));
    write_gauge(out, "beacon_config_last_reload_successful",
                "1 when the newest configuration was taken",
                atomic_load_explicit(&a->reload_ok, memory_order_relaxed));
    write_gauge(out, "beacon_config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken",
                atomic_load_explicit(&a->reload_unix_s, memory_order_relaxed));
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

static void write_process(FILE *out, const struct admin *a)
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

void metrics_write(FILE *out, const struct admin *a)
{
    struct totals t = {.nodes_v4 = 0};
    for (unsigned i = 0; i < a->server->lane_count; i++)
        totals_add(&t, a->server->lane[i]);

    write_state(out, a);
    write_nodes(out, &t);
    write_verdicts(out, &t);
    write_lanes(out, &t, a->server);
    write_http(out, a->edge);
    write_process(out, a);
}
