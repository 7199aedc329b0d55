#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include "proto/json.h"
#include "wss/api_mesh.h"
#include "wss/api_pages.h"
#include "wss/totals.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* --- the query --- */

/* Digits only, at most `max`. */
static bool read_number(struct http_text t, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(t.at[i] - '0');
        if (value > (max - digit) / 10 || digit > max)
            return false;
        value = value * 10 + digit;
    }
    if (t.len == 0)
        return false;
    *ret = value;
    return true;
}

static struct http_text cut(struct http_text *t, char mark)
{
    const char *found = memchr(t->at, mark, t->len);
    size_t len = found ? (size_t)(found - t->at) : t->len;
    struct http_text piece = {.at = t->at, .len = len};
    size_t taken = found ? len + 1 : len;
    *t = (struct http_text){.at = t->at + taken, .len = t->len - taken};
    return piece;
}

/* Which part of a list is wanted: from place `after` (of lane `lane`), `limit` rows. */
struct range {
    uint64_t lane, after, limit;
};

static bool read_after(struct http_text value, bool has_lane, struct range *r)
{
    struct http_text lane = {.at = "0", .len = 1};
    if (has_lane)
        lane = cut(&value, '-');
    return read_number(lane, CONFIG_SHARDS_MAX, &r->lane) &&
           read_number(value, UINT32_MAX, &r->after);
}

static bool read_range(struct http_text query, bool has_lane, struct range *ret)
{
    *ret = (struct range){.limit = API_PAGE_DEFAULT};
    while (query.len > 0) {
        struct http_text value = cut(&query, '&');
        struct http_text name = cut(&value, '=');
        bool ok = true;
        if (http_text_is(name, "limit"))
            ok = read_number(value, API_PAGE_MAX, &ret->limit) && ret->limit > 0;
        else if (http_text_is(name, "after"))
            ok = read_after(value, has_lane, ret);
        if (!ok)
            return false;
    }
    return true;
}

static int range_bad(FILE *out)
{
    fprintf(out, "limit must be 1 to %d, and after what the page before said is next",
            API_PAGE_MAX);
    return 400;
}

/* --- status --- */

static const char *const levels[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};

const char *api_level_text(enum log_level level)
{
    return levels[level];
}

bool api_level_read(const char *text, enum log_level *ret)
{
    for (size_t i = 0; i < COUNT(levels); i++) {
        if (strcmp(levels[i], text) == 0) {
            *ret = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static void write_state(struct json *j, struct admin *a)
{
    struct admin_checks c = admin_check(a);
    uint64_t up_ns = edge_clock_ns() - a->started_ns;
    json_text(j, "version", a->version);
    json_text(j, "revision", a->revision);
    json_text(j, "io", a->io);
    json_uint(j, "uptime_s", up_ns / 1000000000);
    json_uint(j, "uptime_ms", up_ns / 1000000); /* rates are differences over this */
    json_text(j, "state", admin_state_text(&c));
    json_bool(j, "ready", admin_checks_pass(&c) && !c.draining);
    json_bool(j, "draining", c.draining);
    json_open_object(j, "checks");
    json_text(j, "udp4", admin_probe_text(c.udp4));
    json_text(j, "udp6", admin_probe_text(c.udp6));
    json_text(j, "wss", admin_probe_text(c.wss));
    json_text(j, "shards", c.shards_turn ? "ok" : "stuck");
    json_end(j);
    json_uint(j, "shards", a->server->lane_count);
    json_bool(j, "allow_private", atomic_load(&a->private_allowed));
    json_text(j, "log_level", api_level_text(atomic_load(&a->log_level)));
}

static void write_traffic(struct json *j, const char *name, uint64_t packets, uint64_t bytes)
{
    json_open_object(j, name);
    json_uint(j, "packets", packets);
    json_uint(j, "bytes", bytes);
    json_end(j);
}

static void write_verdicts(struct json *j, const struct totals *t)
{
    json_open_array(j, "verdicts");
    for (unsigned i = 0; i < VERDICT_COUNT; i++) {
        if (t->verdict[i] == 0)
            continue;
        json_open_object(j, NULL);
        json_text(j, "outcome", verdict_rows[i].outcome);
        json_text(j, "type", verdict_rows[i].type);
        json_text(j, "reason", verdict_rows[i].reason);
        json_uint(j, "count", t->verdict[i]);
        json_end(j);
    }
    json_end(j);
}

static void write_totals(struct json *j, const struct totals *t)
{
    json_open_object(j, "nodes");
    json_uint(j, "udp4", t->nodes_v4);
    json_uint(j, "udp6", t->nodes_v6);
    json_uint(j, "wss", t->nodes_stream);
    json_uint(j, "capacity", t->capacity);
    json_end(j);
    write_traffic(j, "received", t->received, t->received_bytes);
    write_traffic(j, "sent", t->sent, t->sent_bytes);
    json_uint(j, "relayed", totals_relayed(t));
    json_uint(j, "kernel_drops", t->kernel_drops);
    write_verdicts(j, t);
}

static void write_reload(struct json *j, struct admin *a)
{
    struct admin_reload r;
    admin_last_reload(a, &r);
    json_open_object(j, "reload");
    json_bool(j, "ok", r.ok);
    json_int(j, "unix_s", r.unix_s);
    json_text(j, "error", r.ok ? NULL : r.error);
    json_uint(j, "sequence", r.sequence);
    json_end(j);
}

/* Whole days, rounded down: 0 is the last one, below 0 it has ended. */
static int64_t days_left(int64_t not_after_unix_s, int64_t now_unix_s)
{
    int64_t left = not_after_unix_s - now_unix_s;
    return left >= 0 ? left / 86400 : -1 - (-left - 1) / 86400;
}

static void write_certificates(struct json *j, struct admin *a)
{
    struct admin_certificate c[TLS_PAIRS_MAX];
    unsigned count = admin_read_certificates(a, c);
    json_open_array(j, "certificates");
    for (unsigned i = 0; i < count; i++) {
        json_open_object(j, NULL);
        json_text(j, "name", c[i].name);
        json_int(j, "not_after", c[i].not_after_unix_s);
        json_int(j, "days_left", days_left(c[i].not_after_unix_s, (int64_t)time(NULL)));
        json_end(j);
    }
    json_end(j);
}

static void write_wss(struct json *j, const struct bridge *b)
{
    static const struct bridge_stats none;
    const struct bridge_stats *s = b ? bridge_stats(b) : &none;
    json_uint(j, "sessions", count_read(&s->sessions));
    json_open_object(j, "wss");
    json_bool(j, "on", b != NULL);
    json_uint(j, "waiting", count_read(&s->waiting));
    json_uint(j, "upgraded", count_read(&s->upgraded));
    json_uint(j, "upgrade_failures", count_read(&s->upgrade_failures));
    json_uint(j, "authenticated", count_read(&s->auth_ok));
    json_uint(j, "authentication_failures", count_read(&s->auth_failures));
    json_uint(j, "authentication_timeouts", count_read(&s->auth_timeouts));
    json_uint(j, "authentications_unavailable", count_read(&s->auth_unavailable));
    json_uint(j, "frames_in", count_read(&s->frames_in));
    json_uint(j, "frames_out", count_read(&s->frames_out));
    json_uint(j, "replaced", count_read(&s->replaced));
    json_uint(j, "idle", count_read(&s->idle));
    json_uint(j, "protocol_errors", count_read(&s->closed_bad));
    json_end(j);
}

static void write_http(struct json *j, const struct edge *e, unsigned streams)
{
    static const struct edge_stats none;
    const struct edge_stats *s = e ? edge_stats(e) : &none;
    json_open_object(j, "http");
    json_uint(j, "connections", count_read(&s->connections));
    json_uint(j, "streams", streams);
    json_uint(j, "accepted", count_read(&s->accepted));
    json_uint(j, "refused", count_read(&s->refused));
    json_uint(j, "requests", count_read(&s->requests));
    json_uint(j, "bad_requests", count_read(&s->bad_requests));
    json_uint(j, "timeouts", count_read(&s->timeouts));
    json_uint(j, "handshakes", count_read(&s->handshakes));
    json_uint(j, "handshake_failures", count_read(&s->handshake_failures));
    json_uint(j, "handshakes_limited", count_read(&s->handshakes_limited));
    json_uint(j, "frames_dropped", count_read(&s->frames_dropped));
    json_uint(j, "queued_bytes", count_read(&s->queued_bytes));
    json_end(j);
}

static void write_keys(struct json *j, const struct keys *k)
{
    static const struct keys_stats none;
    const struct keys_stats *s = k ? keys_stats(k) : &none;
    json_open_object(j, "keys");
    json_uint(j, "file", k ? keys_file_count(k) : 0);
    json_uint(j, "cached", count_read(&s->cached));
    json_uint(j, "pinned", count_read(&s->pins));
    json_uint(j, "lookups", count_read(&s->lookups));
    json_uint(j, "lookup_failures", count_read(&s->lookup_failures));
    json_end(j);
}

int api_status(FILE *out, struct api *a, const struct http_request *q)
{
    (void)q;
    struct totals t;
    struct json j = json_of(out);
    totals_read(a->admin->server, &t);
    json_open_object(&j, NULL);
    write_state(&j, a->admin);
    write_totals(&j, &t);
    write_reload(&j, a->admin);
    write_certificates(&j, a->admin);
    write_wss(&j, a->bridge);
    write_http(&j, a->admin->edge, a->streams.count);
    write_keys(&j, a->admin->keys);
    mesh_write_status(&j, a->admin->mesh, t.nodes_beacon);
    json_end(&j);
    return 200;
}

/* --- nodes --- */

/* How well a node is proven, here or where it is. */
static const char *class_text(unsigned class_)
{
    return class_ == ROUTE_KEYED ? "keyed" : class_ == ROUTE_SIGNED ? "signed" : "unverified";
}

static const char *transport_text(const struct route *r)
{
    if (r->flags & ROUTE_STREAM)
        return "wss";
    return endpoint_is_v4(&r->at) ? "udp4" : "udp6";
}

/* What a walk over the table writes to. */
struct node_list {
    struct json j;
    struct mesh_view *mesh;
    uint32_t now_s;
    uint64_t count;
};

/* Where a node is, and for how long silent, only the beacon that has it knows. */
static void write_node(const struct route *r, void *arg)
{
    static const struct endpoint unknown;
    struct node_list *l = arg;
    bool here = r->class_ != ROUTE_BEACON;
    json_open_object(&l->j, NULL);
    json_uint(&l->j, "node_id", r->id);
    mesh_write_endpoint(&l->j, "endpoint", here ? &r->at : &unknown);
    json_text(&l->j, "transport", here ? transport_text(r) : "beacon");
    json_text(&l->j, "class", class_text(here ? r->class_ : route_beacon_class(r)));
    json_bool(&l->j, "key", here && r->flags & ROUTE_HAS_KEY);
    if (here) /* its owner may have heard it after we looked at the clock */
        json_uint(&l->j, "silent_s", r->seen_s < l->now_s ? l->now_s - r->seen_s : 0);
    else
        json_text(&l->j, "silent_s", NULL);
    mesh_write_beacon(&l->j, l->mesh, r);
    json_end(&l->j);
    l->count++;
}

static uint32_t clock_s(void)
{
    return (uint32_t)(edge_clock_ns() / 1000000000);
}

/* In steps of as many rows as nodes are still wanted, so that no step finds too many. */
int api_nodes(FILE *out, struct api *a, const struct http_request *q)
{
    const struct server *s = a->admin->server;
    struct range range;
    if (!read_range(q->query, true, &range))
        return range_bad(out);
    struct node_list list = {.j = json_of(out), .mesh = a->admin->mesh, .now_s = clock_s()};
    uint32_t row = (uint32_t)range.after, looked = 0;
    unsigned lane = (unsigned)range.lane;
    json_open_object(&list.j, NULL);
    json_open_array(&list.j, "nodes");
    while (lane < s->lane_count && list.count < range.limit && looked < API_ROWS_A_TURN) {
        uint32_t rows = (uint32_t)(range.limit - list.count);
        row = route_page(s->lane[lane]->routes, row, rows, write_node, &list);
        looked += rows;
        lane += row == 0;
    }
    json_end(&list.j);
    char next[32];
    snprintf(next, sizeof next, "%u-%" PRIu32, lane, row);
    json_text(&list.j, "next", lane < s->lane_count ? next : NULL);
    json_end(&list.j);
    return 200;
}

int api_node(FILE *out, struct api *a, const struct http_request *q)
{
    struct http_text id = q->path;
    uint64_t node_id;
    struct route r;
    for (unsigned i = 0; i < 3; i++) /* "", "v1" and "nodes" */
        (void)cut(&id, '/');
    if (!read_number(id, UINT32_MAX, &node_id)) {
        fputs("a node id is a number up to 4294967295", out);
        return 400;
    }
    if (!server_find_way(a->admin->server, (uint32_t)node_id, &r)) {
        fputs("no such node is registered", out);
        return 404;
    }
    struct node_list one = {.j = json_of(out), .mesh = a->admin->mesh, .now_s = clock_s()};
    write_node(&r, &one);
    return 200;
}

/* --- talkers --- */

enum { TALKERS_ALL = (CONFIG_SHARDS_MAX + 2) * TALKERS_MAX }; /* with the edge's and the mesh's */

struct talker_list {
    unsigned count;
    struct talker of[TALKERS_ALL];
};

static void talkers_add(struct talker_list *l, const struct lane *lane)
{
    if (lane->talkers)
        l->count += talkers_read(lane->talkers, l->of + l->count);
}

static int compare_sender(const void *left, const void *right)
{
    const struct talker *l = left, *r = right;
    if (l->node_id != r->node_id)
        return l->node_id < r->node_id ? -1 : 1;
    return memcmp(&l->from, &r->from, sizeof l->from);
}

static int compare_bytes(const void *left, const void *right)
{
    const struct talker *l = left, *r = right;
    return l->bytes < r->bytes ? 1 : l->bytes > r->bytes ? -1 : compare_sender(left, right);
}

/* One entry a sender, the largest first. */
static void talkers_merge(struct talker_list *l)
{
    unsigned kept = 0;
    qsort(l->of, l->count, sizeof *l->of, compare_sender);
    for (unsigned i = 0; i < l->count; i++) {
        if (kept > 0 && compare_sender(&l->of[kept - 1], &l->of[i]) == 0) {
            l->of[kept - 1].packets += l->of[i].packets;
            l->of[kept - 1].bytes += l->of[i].bytes;
        } else {
            l->of[kept++] = l->of[i];
        }
    }
    l->count = kept;
    qsort(l->of, l->count, sizeof *l->of, compare_bytes);
}

int api_talkers(FILE *out, struct api *a, const struct http_request *q)
{
    (void)q;
    const struct server *s = a->admin->server;
    struct talker_list *l = malloc(sizeof *l);
    if (!l)
        return 500;
    l->count = 0;
    for (unsigned i = 0; i < server_lanes(s); i++)
        talkers_add(l, server_lane(s, i));
    talkers_merge(l);
    struct json j = json_of(out);
    json_open_object(&j, NULL);
    json_uint(&j, "window_s", TALKERS_WINDOW_S);
    json_open_array(&j, "talkers");
    for (unsigned i = 0; i < l->count && i < API_TALKERS_MAX; i++) {
        json_open_object(&j, NULL);
        json_uint(&j, "node_id", l->of[i].node_id);
        mesh_write_endpoint(&j, "endpoint", &l->of[i].from);
        json_uint(&j, "packets", l->of[i].packets);
        json_uint(&j, "bytes", l->of[i].bytes);
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
    free(l);
    return 200;
}

/* --- sessions --- */

static void write_session(const struct bridge_session *s, void *arg)
{
    struct json *j = arg;
    json_open_object(j, NULL);
    json_uint(j, "node_id", s->node_id);
    mesh_write_endpoint(j, "endpoint", &s->from);
    json_text(j, "class", class_text(s->class_));
    json_uint(j, "auth_version", s->auth_version);
    json_bool(j, "tls", s->tls);
    json_uint(j, "age_s", s->age_s);
    json_uint(j, "frames_in", s->frames_in);
    json_uint(j, "frames_out", s->frames_out);
    json_uint(j, "frames_dropped", s->frames_dropped);
    json_uint(j, "queued_bytes", s->queued_bytes);
    json_end(j);
}

int api_sessions(FILE *out, struct api *a, const struct http_request *q)
{
    struct range range;
    if (!read_range(q->query, false, &range))
        return range_bad(out);
    struct json j = json_of(out);
    unsigned place = (unsigned)range.after;
    json_open_object(&j, NULL);
    json_open_array(&j, "sessions");
    bool more = a->bridge && bridge_each(a->bridge, &place, (unsigned)range.limit, edge_clock_ns(),
                                         write_session, &j);
    json_end(&j);
    char next[16];
    snprintf(next, sizeof next, "%u", place);
    json_text(&j, "next", more ? next : NULL);
    json_end(&j);
    return 200;
}

/* --- events --- */

void api_event_json(FILE *out, const struct event *e)
{
    struct json j = json_of(out);
    json_open_object(&j, NULL);
    json_uint(&j, "sequence", e->sequence);
    json_int(&j, "unix_ms", e->unix_ms);
    json_text(&j, "kind", e->kind);
    json_text(&j, "text", e->text);
    json_end(&j);
}
