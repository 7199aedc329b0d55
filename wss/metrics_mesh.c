/* The series of the mesh. Standalone all of them are there, and 0. */
#include "wss/metrics.h"
#include "wss/metrics_text.h"

static void write_value(FILE *out, const char *name, const char *label, const char *value,
                        uint64_t count)
{
    fprintf(out, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, value, count);
}

static void write_peers(FILE *out, const struct mesh_view_totals *t)
{
    static const char name[] = "beacon_mesh_peers";
    write_head(out, name, "gauge", "Other beacons, by what is known of them");
    for (unsigned i = 0; i < MESH_PEER_STATES; i++)
        write_value(out, name, "state", mesh_state_text((enum mesh_view_state)i), t->peers[i]);
}

static void write_rows(FILE *out, const struct mesh_view_totals *t, uint64_t routes)
{
    write_gauge(out, "beacon_mesh_routes", "Nodes of other beacons that relays find", routes);
    write_gauge(out, "beacon_mesh_rows",
                "Claims of nodes that the mesh's store holds, those of this beacon included",
                t->rows);
    write_gauge(out, "beacon_mesh_rows_max", "Claims that the mesh's store can hold", t->rows_max);
    write_gauge(out, "beacon_mesh_own_rows", "Nodes that this beacon claims", t->own_rows);
    write_gauge(out, "beacon_mesh_refused_rows",
                "Nodes of other beacons for which the mesh's store has no room", t->refused_rows);
}

static void write_traffic(FILE *out, const struct mesh_view_totals *t)
{
    static const char frames[] = "beacon_mesh_frames_total", bytes[] = "beacon_mesh_bytes_total";
    static const char deltas[] = "beacon_mesh_deltas_total";
    write_head(out, frames, "counter", "Gossip frames of and to other beacons");
    write_value(out, frames, "direction", "in", t->frames_in);
    write_value(out, frames, "direction", "out", t->frames_out);
    write_head(out, bytes, "counter", "Bytes of gossip frames of and to other beacons");
    write_value(out, bytes, "direction", "in", t->bytes_in);
    write_value(out, bytes, "direction", "out", t->bytes_out);
    write_head(out, deltas, "counter",
               "Pieces of logs: sent first, sent again, taken, and held because they came early");
    write_value(out, deltas, "kind", "sent", t->deltas_sent);
    write_value(out, deltas, "kind", "again", t->deltas_again);
    write_value(out, deltas, "kind", "taken", t->deltas_taken);
    write_value(out, deltas, "kind", "held", t->deltas_held);
    write_counter(out, "beacon_mesh_send_errors_total",
                  "Gossip frames that the kernel refused to send", t->send_errors);
    write_counter(out, "beacon_mesh_kernel_dropped_packets_total",
                  "Gossip that the kernel dropped because a receive buffer was full",
                  t->kernel_drops);
    write_counter(out, "beacon_mesh_journal_lost_total",
                  "Changes of nodes that found the journal full: the table was read instead",
                  t->journal_lost);
}

/* How far behind it may be. */
static void write_lag(FILE *out, const struct mesh_view_totals *t, uint64_t now_ns)
{
    bool shown = t->shown_ns != 0 && now_ns > t->shown_ns;
    write_gauge(out, "beacon_mesh_settled", "1 when all neighbours know what this beacon knows",
                t->settled);
    write_seconds(out, "beacon_mesh_unsettled_seconds",
                  "For how long some neighbour has not known all that this beacon knows",
                  t->unsettled_s);
    write_seconds(out, "beacon_mesh_silence_max_seconds",
                  "The longest silence of another beacon that counts as alive", t->silent_max_s);
    write_seconds(out, "beacon_mesh_round_trip_max_seconds",
                  "The longest round trip to another beacon that counts as alive", t->rtt_max_s);
    write_seconds(out, "beacon_mesh_age_seconds",
                  "How old the figures of the mesh are: more than a few seconds is a stuck thread",
                  shown ? (double)(now_ns - t->shown_ns) / 1e9 : 0);
}

static void write_state(FILE *out, const struct mesh_view_totals *t, bool enabled)
{
    write_gauge(out, "beacon_mesh_enabled", "1 when there may be other beacons", enabled);
    write_gauge(out, "beacon_mesh_sealed", "1 when there are keys that gossip is sealed with",
                t->sealed);
    write_gauge(out, "beacon_mesh_health",
                "How slow this beacon itself looks, by missed answers; 0 is well", t->health);
    write_gauge(out, "beacon_mesh_duplicate_id", "1 while another beacon uses the id of this one",
                t->duplicate_id);
    write_gauge(out, "beacon_mesh_registry_up",
                "1 when the last turn with the registry of beacons was good", t->registry_ok);
    write_gauge(out, "beacon_mesh_registry_last_success_timestamp_seconds",
                "When the registry of beacons was last reached, 0: never",
                (uint64_t)t->registry_ok_unix_s);
    write_gauge(out, "beacon_mesh_registry_listed", "Beacons in the registry's last good list",
                t->registry_listed);
}

void metrics_write_mesh(FILE *out, const struct admin *a, uint64_t routes)
{
    struct mesh_view_totals t;
    mesh_totals(a->mesh, &t);
    write_state(out, &t, a->mesh != NULL);
    write_peers(out, &t);
    write_rows(out, &t, routes);
    write_traffic(out, &t);
    write_lag(out, &t, edge_clock_ns());
}
