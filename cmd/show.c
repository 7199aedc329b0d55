#include <inttypes.h>
#include <string.h>
#include "cmd/show.h"

const char *show_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

int64_t show_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* C0 and C1 control characters; jansson lets only UTF-8 in. */
static bool is_control(const unsigned char *at)
{
    return at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
}

void show_clean(FILE *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        bool control = is_control(at);
        fputc(control ? '?' : *at, out);
        at += control && *at == 0xc2;
    }
}

/* Left-aligned; what is too long is not cut. */
static void column(FILE *out, const char *text, size_t width)
{
    size_t len = 0;
    show_clean(out, text);
    for (const char *at = text; *at; at++)
        len += (*at & 0xc0) != 0x80; /* a character is one place */
    for (; len < width; len++)
        fputc(' ', out);
    fputc(' ', out);
}

static void column_number(FILE *out, int64_t value, int width)
{
    fprintf(out, "%*" PRId64 " ", width, value);
}

static void duration(FILE *out, int64_t s)
{
    if (s >= 86400)
        fprintf(out, "%" PRId64 " d %" PRId64 " h", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        fprintf(out, "%" PRId64 " h %" PRId64 " min", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        fprintf(out, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
    else
        fprintf(out, "%" PRId64 " s", s);
}

/* --- status --- */

static void show_title(FILE *out, const json_t *s)
{
    fputs("beacon     ", out);
    show_clean(out, show_text(s, "version"));
    fputs(" (", out);
    show_clean(out, show_text(s, "revision"));
    fputs("), ", out);
    show_clean(out, show_text(s, "state"));
    fputs(", up ", out);
    duration(out, show_number(s, "uptime_s"));
    fprintf(out, ", %" PRId64 " shards, io ", show_number(s, "shards"));
    show_clean(out, show_text(s, "io"));
    fputc('\n', out);
}

static void show_checks(FILE *out, const json_t *s)
{
    json_t *checks = json_object_get(s, "checks"), *value;
    const char *name;
    fputs("checks    ", out);
    json_object_foreach(checks, name, value)
    {
        const char *text = json_string_value(value);
        fputc(' ', out);
        show_clean(out, name);
        fputc('=', out);
        show_clean(out, text ? text : "");
    }
    fputc('\n', out);
}

static void show_traffic(FILE *out, const json_t *s, const char *name)
{
    const json_t *t = json_object_get(s, name);
    fprintf(out, "%-10s %" PRId64 " datagrams, %" PRId64 " bytes\n", name,
            show_number(t, "packets"), show_number(t, "bytes"));
}

static void show_reload(FILE *out, const json_t *s)
{
    const json_t *reload = json_object_get(s, "reload");
    bool ok = json_is_true(json_object_get(reload, "ok"));
    fputs("config     ", out);
    show_clean(out, ok ? "ok" : "refused, the old one stays: ");
    if (!ok)
        show_clean(out, show_text(reload, "error"));
    fputs(", log level ", out);
    show_clean(out, show_text(s, "log_level"));
    fputc('\n', out);
}

static void show_certificates(FILE *out, const json_t *s)
{
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(s, "certificates"), i, c)
    {
        int64_t days = show_number(c, "days_left");
        fputs("cert       ", out);
        show_clean(out, show_text(c, "name"));
        if (days < 0)
            fputs(", expired\n", out);
        else
            fprintf(out, ", %" PRId64 " days left\n", days);
    }
}

static void show_drops(FILE *out, const json_t *s)
{
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(s, "verdicts"), i, v)
    {
        if (strcmp(show_text(v, "outcome"), "dropped") != 0)
            continue;
        fputs("dropped    ", out);
        column_number(out, show_number(v, "count"), 12);
        show_clean(out, show_text(v, "type"));
        fputs(": ", out);
        show_clean(out, show_text(v, "reason"));
        fputc('\n', out);
    }
    if (show_number(s, "kernel_drops") > 0)
        fprintf(out, "dropped    %12" PRId64 " by the kernel: receive buffer full\n",
                show_number(s, "kernel_drops"));
}

static bool is_true(const json_t *object, const char *name)
{
    return json_is_true(json_object_get(object, name));
}

/* "3 alive, 1 silent". */
static void show_peer_counts(FILE *out, json_t *peers)
{
    const char *state, *mark = "";
    json_t *count;
    json_object_foreach(peers, state, count)
    {
        if (json_integer_value(count) == 0)
            continue;
        fprintf(out, "%s%" JSON_INTEGER_FORMAT " ", mark, json_integer_value(count));
        show_clean(out, state);
        mark = ", ";
    }
    if (!*mark)
        fputs("none", out);
}

/* A line for each thing about other beacons that somebody should look at. */
static void show_mesh_troubles(FILE *out, const json_t *mesh)
{
    const json_t *registry = json_object_get(mesh, "registry");
    const char *elsewhere = show_text(mesh, "duplicate_id_at");
    int64_t refused = show_number(json_object_get(mesh, "rows"), "refused");
    if (*elsewhere) {
        fputs("mesh       another beacon uses this one's id, at ", out);
        show_clean(out, elsewhere);
        fputc('\n', out);
    }
    if (refused > 0)
        fprintf(out, "mesh       no room for %" PRId64 " nodes of others: raise max-routes\n",
                refused);
    if (is_true(registry, "used") && !is_true(registry, "ok")) {
        fputs("mesh       registry: ", out);
        show_clean(out, show_text(registry, "error"));
        fputc('\n', out);
    }
}

static void show_mesh(FILE *out, const json_t *s)
{
    const json_t *mesh = json_object_get(s, "mesh");
    if (strcmp(show_text(mesh, "mode"), "mesh") != 0) {
        fputs("mesh       standalone\n", out);
        return;
    }
    fprintf(out, "mesh       beacon %" PRId64 " and others: ", show_number(mesh, "beacon_id"));
    show_peer_counts(out, json_object_get(mesh, "peers"));
    fprintf(out, "; %" PRId64 " nodes of others; ", show_number(mesh, "routes"));
    fputs(is_true(mesh, "sealed") ? "sealed" : "not sealed", out);
    if (is_true(mesh, "settled"))
        fputs(", settled\n", out);
    else
        fprintf(out, ", not settled for %" PRId64 " s\n", show_number(mesh, "unsettled_s"));
    show_mesh_troubles(out, mesh);
}

void show_status(FILE *out, const json_t *s)
{
    const json_t *nodes = json_object_get(s, "nodes");
    int64_t udp4 = show_number(nodes, "udp4"), udp6 = show_number(nodes, "udp6"),
            wss = show_number(nodes, "wss");
    show_title(out, s);
    show_checks(out, s);
    fprintf(out,
            "nodes      %" PRId64 " (IPv4 %" PRId64 ", IPv6 %" PRId64 ", WSS %" PRId64
            "), room for %" PRId64 "\n",
            udp4 + udp6 + wss, udp4, udp6, wss, show_number(nodes, "capacity"));
    fprintf(out, "sessions   %" PRId64 "\n", show_number(s, "sessions"));
    show_traffic(out, s, "received");
    show_traffic(out, s, "sent");
    fprintf(out, "relayed    %" PRId64 " datagrams\n", show_number(s, "relayed"));
    show_mesh(out, s);
    show_reload(out, s);
    show_certificates(out, s);
    show_drops(out, s);
}

/* --- tables --- */

void show_talkers(FILE *out, const json_t *talkers)
{
    int64_t window_s = show_number(talkers, "window_s");
    size_t i;
    const json_t *t;
    if (window_s < 1)
        window_s = 1;
    fprintf(out, "%10s %-47s %10s %12s\n", "NODE", "ENDPOINT", "RELAYS/S", "BYTES/S");
    json_array_foreach(json_object_get(talkers, "talkers"), i, t)
    {
        column_number(out, show_number(t, "node_id"), 10);
        column(out, show_text(t, "endpoint"), 47);
        column_number(out, show_number(t, "packets") / window_s, 10);
        fprintf(out, "%12" PRId64 "\n", show_number(t, "bytes") / window_s);
    }
}

void show_nodes_head(FILE *out)
{
    fprintf(out, "%10s %-47s %-5s %-10s %8s\n", "NODE", "ENDPOINT", "BY", "CLASS", "SILENT");
}

void show_nodes_row(FILE *out, const json_t *node)
{
    column_number(out, show_number(node, "node_id"), 10);
    column(out, show_text(node, "endpoint"), 47);
    column(out, show_text(node, "transport"), 5);
    column(out, show_text(node, "class"), 10);
    fprintf(out, "%6" PRId64 " s\n", show_number(node, "silent_s"));
}

void show_node(FILE *out, const json_t *node)
{
    const json_t *beacon = json_object_get(node, "beacon");
    if (!json_is_object(beacon)) {
        show_nodes_head(out);
        show_nodes_row(out, node);
        return;
    }
    fprintf(out, "%" PRId64 " is registered at beacon ", show_number(node, "node_id"));
    if (show_number(beacon, "beacon_id") > 0)
        fprintf(out, "%" PRId64 ", ", show_number(beacon, "beacon_id"));
    show_clean(out, show_text(beacon, "addr"));
    fputs(", by ", out);
    show_clean(out, show_text(beacon, "transport"));
    fputs(", ", out);
    show_clean(out, show_text(node, "class"));
    fputs(is_true(beacon, "usable") ? "\n" : "; that beacon is gone\n", out);
}

void show_sessions_head(FILE *out)
{
    fprintf(out, "%10s %-47s %-10s %9s %10s %10s %8s\n", "NODE", "ENDPOINT", "CLASS", "AGE", "IN",
            "OUT", "DROPPED");
}

void show_sessions_row(FILE *out, const json_t *session)
{
    column_number(out, show_number(session, "node_id"), 10);
    column(out, show_text(session, "endpoint"), 47);
    column(out, show_text(session, "class"), 10);
    fprintf(out, "%7" PRId64 " s ", show_number(session, "age_s"));
    column_number(out, show_number(session, "frames_in"), 10);
    column_number(out, show_number(session, "frames_out"), 10);
    fprintf(out, "%8" PRId64 "\n", show_number(session, "frames_dropped"));
}

/* --- other beacons --- */

void show_peers_head(FILE *out)
{
    fprintf(out, "%10s %-21s %-9s %9s %9s %9s %-10s %s\n", "BEACON", "ADDRESS", "STATE", "RTT",
            "SILENT", "NODES", "VERSION", "ERROR");
}

/* A number that may be null, over `divisor`. */
static void column_scaled(FILE *out, const json_t *value, double divisor, const char *unit)
{
    if (json_is_integer(value))
        fprintf(out, "%6.1f %-2s ", (double)json_integer_value(value) / divisor, unit);
    else
        fprintf(out, "%9s ", "-");
}

void show_peers_row(FILE *out, const json_t *peer)
{
    bool self = is_true(peer, "self");
    const char *state = is_true(peer, "draining") ? "draining" : show_text(peer, "state");
    if (show_number(peer, "beacon_id") > 0)
        column_number(out, show_number(peer, "beacon_id"), 10);
    else
        fprintf(out, "%10s ", "-");
    column(out, self && !*show_text(peer, "addr") ? "here" : show_text(peer, "addr"), 21);
    column(out, self ? "self" : state, 9);
    column_scaled(out, json_object_get(peer, "rtt_us"), 1e3, "ms");
    column_scaled(out, json_object_get(peer, "silent_ms"), 1e3, "s");
    column_number(out, show_number(peer, "rows"), 9);
    column(out, show_text(peer, "version"), 10);
    show_clean(out, show_text(peer, "error"));
    fputc('\n', out);
}

void show_peers(FILE *out, const json_t *answer)
{
    const json_t *peers = json_object_get(answer, "peers"), *peer;
    size_t i;
    if (json_array_size(peers) == 0) {
        fputs("standalone\n", out);
        return;
    }
    show_peers_head(out);
    json_array_foreach(peers, i, peer) show_peers_row(out, peer);
}
