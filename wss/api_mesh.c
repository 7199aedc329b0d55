#include "wss/api_mesh.h"
#include <stdlib.h>
#include <string.h>
#include "wss/api_pages.h"

void mesh_write_endpoint(struct json *j, const char *name, const struct endpoint *e)
{
    char text[ENDPOINT_TEXT_MAX];
    json_text(j, name, e->port != 0 ? endpoint_format(e, text) : NULL);
}

/* Negative is unknown. */
static void write_scaled(struct json *j, const char *name, double seconds, double scale)
{
    if (seconds < 0)
        json_text(j, name, NULL);
    else
        json_uint(j, name, (uint64_t)(seconds * scale));
}

static void write_id(struct json *j, const char *name, uint32_t id)
{
    if (id == 0)
        json_text(j, name, NULL);
    else
        json_uint(j, name, id);
}

static void write_traffic(struct json *j, const char *name, uint64_t frames, uint64_t bytes)
{
    json_open_object(j, name);
    json_uint(j, "frames", frames);
    json_uint(j, "bytes", bytes);
    json_end(j);
}

/* --- status --- */

static void write_rows(struct json *j, const struct mesh_view_totals *t)
{
    json_open_object(j, "rows");
    json_uint(j, "used", t->rows);
    json_uint(j, "max", t->rows_max);
    json_uint(j, "own", t->own_rows);
    json_uint(j, "refused", t->refused_rows);
    json_end(j);
}

static void write_deltas(struct json *j, const struct mesh_view_totals *t)
{
    json_open_object(j, "deltas");
    json_uint(j, "sent", t->deltas_sent);
    json_uint(j, "again", t->deltas_again);
    json_uint(j, "taken", t->deltas_taken);
    json_uint(j, "held", t->deltas_held);
    json_end(j);
}

static void write_registry(struct json *j, const struct mesh_view_totals *t)
{
    json_open_object(j, "registry");
    json_bool(j, "used", t->registry_used);
    json_bool(j, "ok", t->registry_ok);
    json_int(j, "ok_unix_s", t->registry_ok_unix_s);
    json_uint(j, "listed", t->registry_listed);
    json_text(j, "error", t->registry_error[0] ? t->registry_error : NULL);
    json_end(j);
}

static void write_successors(struct json *j, struct mesh_view *v)
{
    struct endpoint to[MESH_VIEW_SUCCESSORS_MAX];
    unsigned count = mesh_successors(v, to);
    json_open_array(j, "successors");
    for (unsigned i = 0; i < count; i++)
        mesh_write_endpoint(j, NULL, &to[i]);
    json_end(j);
}

void mesh_write_status(struct json *j, struct mesh_view *v, uint64_t routes)
{
    static const struct endpoint nowhere;
    struct mesh_view_totals t;
    mesh_totals(v, &t);
    json_open_object(j, "mesh");
    json_text(j, "mode", v ? "mesh" : "standalone");
    write_id(j, "beacon_id", t.id);
    json_bool(j, "sealed", t.sealed);
    json_bool(j, "settled", t.settled);
    json_uint(j, "unsettled_s", (uint64_t)t.unsettled_s);
    json_uint(j, "health", t.health);
    mesh_write_endpoint(j, "duplicate_id_at", t.duplicate_id ? &t.duplicate_at : &nowhere);
    json_open_object(j, "peers");
    for (unsigned i = 0; i < MESH_PEER_STATES; i++)
        json_uint(j, mesh_state_text((enum mesh_view_state)i), t.peers[i]);
    json_end(j);
    json_uint(j, "routes", routes);
    write_rows(j, &t);
    write_traffic(j, "in", t.frames_in, t.bytes_in);
    write_traffic(j, "out", t.frames_out, t.bytes_out);
    write_deltas(j, &t);
    json_uint(j, "send_errors", t.send_errors);
    json_uint(j, "kernel_drops", t.kernel_drops);
    json_uint(j, "journal_lost", t.journal_lost);
    write_registry(j, &t);
    write_successors(j, v);
    json_end(j);
}

/* --- peers --- */

static void write_peer(struct json *j, const struct mesh_view_peer *p)
{
    json_open_object(j, NULL);
    write_id(j, "beacon_id", p->id);
    mesh_write_endpoint(j, "addr", &p->at);
    json_text(j, "state", mesh_state_text(p->state));
    json_bool(j, "self", p->is_self);
    json_bool(j, "draining", p->draining);
    json_uint(j, "boot_unix_ms", p->boot);
    write_scaled(j, "rtt_us", p->rtt_s, 1e6);
    write_scaled(j, "silent_ms", p->is_self ? -1 : p->silent_s, 1e3);
    json_uint(j, "rows", p->rows);
    json_uint(j, "nodes", p->nodes);
    json_uint(j, "nodes_max", p->nodes_max);
    json_text(j, "version", p->version[0] ? p->version : NULL);
    write_traffic(j, "in", p->frames_in, p->bytes_in);
    write_traffic(j, "out", p->frames_out, p->bytes_out);
    json_text(j, "error", p->error[0] ? p->error : NULL);
    json_end(j);
}

/* Written from a copy: the mesh's thread must not wait for our memory. */
int api_peers(FILE *out, struct api *a, const struct http_request *q)
{
    (void)q;
    struct mesh_view *v = a->admin->mesh;
    struct mesh_view_peer *peer = v ? malloc(sizeof v->peer) : NULL;
    unsigned count = 0;
    if (v && !peer)
        return 500;
    if (v) {
        pthread_mutex_lock(&v->lock);
        count = v->peer_count;
        memcpy(peer, v->peer, count * sizeof *peer);
        pthread_mutex_unlock(&v->lock);
    }
    struct json j = json_of(out);
    json_open_object(&j, NULL);
    json_open_array(&j, "peers");
    for (unsigned i = 0; i < count; i++)
        write_peer(&j, &peer[i]);
    json_end(&j);
    json_end(&j);
    free(peer);
    return 200;
}

/* --- nodes --- */

void mesh_write_beacon(struct json *j, struct mesh_view *v, const struct route *r)
{
    struct mesh_view_beacon beacon = {.id = 0};
    if (r->class_ != ROUTE_BEACON) {
        json_text(j, "beacon", NULL);
        return;
    }
    if (v && route_beacon(r) < MESH_VIEW_BEACONS_MAX) {
        pthread_mutex_lock(&v->lock);
        beacon = v->beacon[route_beacon(r)];
        pthread_mutex_unlock(&v->lock);
    }
    json_open_object(j, "beacon");
    write_id(j, "beacon_id", beacon.id);
    mesh_write_endpoint(j, "addr", &beacon.at);
    json_bool(j, "usable", beacon.usable);
    json_text(j, "transport", route_beacon_stream(r) ? "wss" : "udp");
    json_end(j);
}
