#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "cmd/log.h"
#include "cmd/mesh_state.h"
#include "cmd/say.h"

_Static_assert((int)MESH_PEER_SILENT == (int)PEER_SILENT &&
                   (int)MESH_PEER_STATES == (int)PEER_STATE_COUNT,
               "the same states");
_Static_assert((int)MESH_VIEW_BEACONS_MAX == (int)PEERS_MAX, "a place for each");

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* It may have been heard after `now_ns` was taken. */
static double silent_s(const struct gossip_peer *p, uint64_t now_ns)
{
    return p->heard_ns < now_ns ? seconds(now_ns - p->heard_ns) : 0;
}

/* Who has ended drains no more. */
static bool is_draining(const struct gossip_peer *p)
{
    return p->says.draining && (p->state == PEER_ALIVE || p->state == PEER_SUSPECT);
}

static void show_peer(const struct gossip_peer *p, uint64_t now_ns, struct mesh_view_peer *ret)
{
    *ret = (struct mesh_view_peer){
        .id = p->id,
        .at = p->at,
        .state = (enum mesh_view_state)p->state,
        .draining = is_draining(p),
        .boot = p->boot,
        .rtt_s = p->rtt_ns ? seconds(p->rtt_ns) : -1,
        .silent_s = p->heard_ns ? silent_s(p, now_ns) : -1,
        .rows = p->rows,
        .nodes = p->says.nodes,
        .nodes_max = p->says.nodes_max,
        .frames_in = p->frames_in,
        .bytes_in = p->bytes_in,
        .frames_out = p->frames_out,
        .bytes_out = p->bytes_out,
    };
    memcpy(ret->version, p->says.version, sizeof ret->version);
    memcpy(ret->error, p->error, sizeof ret->error);
}

static void show_totals(struct mesh *m, const struct gossip *g, uint64_t now_ns,
                        struct mesh_view_totals *ret)
{
    struct gossip_totals t;
    struct mesh_thread_stats stats;
    struct discover_status found = {.registry_used = false};
    gossip_totals(g, &t);
    mesh_thread_stats(m->thread, &stats);
    if (m->discover)
        discover_status(m->discover, &found);
    *ret = (struct mesh_view_totals){
        .id = m->config.config->beacon_id,
        .rows = t.rows,
        .rows_max = t.rows_max,
        .own_rows = t.own_rows,
        .refused_rows = t.refused_rows,
        .frames_in = t.frames_in,
        .bytes_in = t.bytes_in,
        .frames_out = t.frames_out,
        .bytes_out = t.bytes_out,
        .deltas_sent = t.sync.deltas_sent,
        .deltas_again = t.sync.deltas_again,
        .deltas_taken = t.sync.deltas_taken,
        .deltas_held = t.sync.deltas_held,
        .send_errors = stats.send_errors,
        .kernel_drops = stats.kernel_drops,
        .journal_lost = m->journal_lost,
        .health = t.health,
        .sealed = m->config.config->gossip_keys[0] != '\0',
        .settled = gossip_settled(g),
        .duplicate_id = t.duplicate_id,
        .duplicate_at = t.duplicate_at,
        .registry_used = found.registry_used,
        .registry_ok = found.registry_ok,
        .registry_ok_unix_s = found.registry_ok_unix_s,
        .registry_listed = found.listed,
        .shown_ns = now_ns,
    };
    if (ret->settled)
        m->settled_ns = now_ns;
    ret->unsettled_s = seconds(now_ns - m->settled_ns);
    memcpy(ret->peers, t.peers, sizeof ret->peers);
    snprintf(ret->registry_error, sizeof ret->registry_error, "%s", found.error);
}

/* What the list of beacons says in sum. Addresses that are named and where nobody has answered
 * stand in it alone, at its end. */
static void sum_peers(const struct gossip_peer *peer, unsigned count, uint64_t now_ns,
                      struct mesh_view_totals *t)
{
    uint32_t silent = 0;
    for (unsigned i = 1; i < count; i++) {
        const struct gossip_peer *p = &peer[i];
        silent += p->state == PEER_SILENT;
        if (p->state != PEER_ALIVE && p->state != PEER_SUSPECT)
            continue;
        if (p->heard_ns && silent_s(p, now_ns) > t->silent_max_s)
            t->silent_max_s = silent_s(p, now_ns);
        if (seconds(p->rtt_ns) > t->rtt_max_s)
            t->rtt_max_s = seconds(p->rtt_ns);
    }
    if (silent > t->peers[MESH_PEER_SILENT])
        t->peers[MESH_PEER_SILENT] = silent;
}

/* Whom the original beacon at this address says to be. */
static uint32_t pilot_id(const struct mesh *m, unsigned count, const struct endpoint *at)
{
    for (unsigned i = 0; i < count; i++)
        if (m->peer[i].state == PEER_PILOT && endpoint_equal(&m->peer[i].at, at))
            return m->peer[i].id;
    return 0;
}

static void show_beacons(const struct mesh *m, const struct gossip *g, unsigned count,
                         struct mesh_view_beacon ret[static MESH_VIEW_BEACONS_MAX])
{
    const struct members *members = gossip_members(g);
    memset(ret, 0, MESH_VIEW_BEACONS_MAX * sizeof *ret);
    for (unsigned i = 1; i < MESH_VIEW_BEACONS_MAX; i++) {
        const struct endpoint *at = &m->beacons[i].at;
        if (at->port == 0)
            continue;
        uint32_t id = i >= STORE_MEMBERS_MAX       ? pilot_id(m, count, at)
                      : i < members_count(members) ? member_at(members, i)->fact.id
                                                   : 0;
        ret[i] = (struct mesh_view_beacon){.id = id, .at = *at, .usable = m->beacons[i].usable};
    }
}

void mesh_show(struct mesh *m, const struct gossip *g, uint64_t now_ns)
{
    struct mesh_view *v = &m->view;
    struct mesh_view_totals totals;
    unsigned count = gossip_peers(g, m->peer, MESH_VIEW_PEERS_MAX);
    if (m->settled_ns == 0)
        m->settled_ns = now_ns; /* the start */
    show_totals(m, g, now_ns, &totals);
    sum_peers(m->peer, count, now_ns, &totals);
    pthread_mutex_lock(&v->lock);
    v->totals = totals;
    v->peer_count = count;
    for (unsigned i = 0; i < count; i++)
        show_peer(&m->peer[i], now_ns, &v->peer[i]);
    if (count > 0)
        v->peer[0].is_self = true;
    v->successor_count = gossip_successors(g, v->successor, MESH_VIEW_SUCCESSORS_MAX);
    show_beacons(m, g, count, v->beacon);
    pthread_mutex_unlock(&v->lock);
}

struct mesh_view *mesh_view(struct mesh *m)
{
    return &m->view;
}

/* --- the log --- */

static const char *const state_text[MESH_PEER_STATES] = {"alive", "suspect",         "dead",
                                                         "left",  "original beacon", "silent"};

/* Its place in the list of a second ago, -1: it was not in it. */
static int peer_seen(const struct mesh_view *v, const struct mesh_view_peer *p)
{
    for (unsigned i = 0; i < v->peer_count; i++)
        if (v->peer[i].id == p->id && (p->id != 0 || endpoint_equal(&v->peer[i].at, &p->at)))
            return (int)i;
    return -1;
}

/* One that is silent is worth a warning only when it was for a while: at its own start, and at
 * ours, each is. Other states are said when they come. */
static void log_peer(const struct mesh_view_peer *p, const struct mesh_view_peer *before,
                     unsigned for_s)
{
    bool quiet = p->state == MESH_PEER_SUSPECT ||
                 (before && before->state == MESH_PEER_SUSPECT && p->state == MESH_PEER_ALIVE);
    bool bad = p->state == MESH_PEER_DEAD || p->state == MESH_PEER_SILENT;
    bool same = before && before->state == p->state && before->boot == p->boot;
    if (p->is_self || (p->state == MESH_PEER_SILENT ? for_s != SILENT_WARN_S : same))
        return;
    log_line(quiet ? LOG_DEBUG
             : bad ? LOG_WARN
                   : LOG_INFO,
             "mesh", "beacon", "beacon_id=%" PRIu32 " addr=%s state=%s version=%s", p->id,
             endpoint_text(&p->at), log_quote(state_text[p->state]), log_quote(p->version));
}

static void log_peers(struct mesh *m)
{
    unsigned silent[MESH_VIEW_PEERS_MAX];
    for (unsigned i = 0; i < m->copy.peer_count; i++) {
        const struct mesh_view_peer *p = &m->copy.peer[i];
        int at = peer_seen(&m->seen, p);
        silent[i] = p->state != MESH_PEER_SILENT ? 0 : 1 + (at < 0 ? 0 : m->silent_s[at]);
        log_peer(p, at < 0 ? NULL : &m->seen.peer[at], silent[i]);
    }
    memcpy(m->silent_s, silent, m->copy.peer_count * sizeof *silent);
}

void mesh_watch(struct mesh *m)
{
    struct mesh_view *v = &m->view, *now = &m->copy;
    pthread_mutex_lock(&v->lock);
    memcpy(&now->totals, &v->totals, sizeof now->totals);
    memcpy(now->peer, v->peer, v->peer_count * sizeof *v->peer);
    now->peer_count = v->peer_count;
    pthread_mutex_unlock(&v->lock);
    log_peers(m);
    if (now->totals.duplicate_id && !m->seen.totals.duplicate_id)
        log_line(LOG_ERROR, "mesh", "another beacon uses our id: silent towards others",
                 "beacon_id=%" PRIu32 " addr=%s", now->totals.id,
                 endpoint_text(&now->totals.duplicate_at));
    if (now->totals.refused_rows > 0 && m->seen.totals.refused_rows == 0)
        log_line(LOG_WARN, "mesh", "nodes of other beacons find no room", "hint=%s",
                 log_quote("raise max-routes or max-routes-each"));
    m->seen.totals = now->totals;
    memcpy(m->seen.peer, now->peer, now->peer_count * sizeof *now->peer);
    m->seen.peer_count = now->peer_count;
}
