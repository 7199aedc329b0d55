#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cmd/mesh_state.h"
#include "cmd/version.h"

/* Verdicts of the mesh stand in both lists in the same order. */
static_assert(VERDICT_GOSSIP_TAKEN + (int)GOSSIP_OWN_ID == VERDICT_GOSSIP_OWN_ID, "same order");
static_assert(VERDICT_GOSSIP_TAKEN + (int)SYNC_LIMITED == VERDICT_SYNC_LIMITED, "same order");
static_assert((int)PEERS_MAX == (int)STORE_OWNERS_MAX && (int)PEERS_NONE == (int)STORE_NONE,
              "one index");
static_assert((int)DELTA_CLASS >= (int)ROUTE_KEYED, "a class fits");

/* --- datagrams that came to the mesh's thread --- */

static void on_verdict(void *arg, enum gossip_verdict v, size_t len)
{
    struct mesh *m = arg;
    struct lane_stats *stats = &m->lane->stats;
    count_add(&stats->received, 1);
    count_add(&stats->received_bytes, len);
    count_add(&stats->verdict[VERDICT_GOSSIP_TAKEN + (int)v], 1);
}

static void others_wake(struct mesh *m)
{
    if (m->lane->wake_edge)
        m->config.wake_edge(m->config.arg);
    m->lane->wake_edge = false;
    for (uint64_t wake = m->lane->wake; wake; wake &= wake - 1)
        shards_wake(m->config.shards, (unsigned)__builtin_ctzll(wake));
    m->lane->wake = 0;
}

static void on_flush(void *arg)
{
    struct mesh *m = arg;
    shards_sender_send(m->sender, &m->out);
    others_wake(m);
}

static struct moment moment_at(uint64_t ns)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct moment){.ns = ns, .unix_s = wall.tv_sec};
}

/* A relay to a slice's port, or what the kernel had glued to gossip of the same source. */
static void on_other(void *arg, uint8_t *bytes, size_t len, const struct endpoint *from)
{
    struct mesh *m = arg;
    struct moment now = moment_at(clock_ns());
    struct datagram d = {.bytes = bytes,
                         .len = (uint32_t)len,
                         .from = *from,
                         .local_is_global = ip_scope(m->config.bound.ip) == SCOPE_GLOBAL};
    if (m->out.count + OUTBOX_ROOM > OUTBOX_MAX)
        on_flush(m);
    count_add(&m->lane->stats.received, 1);
    count_add(&m->lane->stats.received_bytes, len);
    server_begin(m->lane);
    server_prefetch(m->lane, &d);
    enum verdict v = server_input(m->lane, &d, &now, &m->out);
    if (v != VERDICT_PASSED)
        count_add(&m->lane->stats.verdict[v], 1);
    /* The bytes lie in a buffer that the next datagram takes. */
    on_flush(m);
}

/* --- what lanes have left --- */

static uint8_t meta_of(uint8_t class_, bool stream)
{
    return (uint8_t)((class_ & DELTA_CLASS) | (stream ? DELTA_STREAM : 0));
}

struct scan {
    struct gossip *gossip;
    uint64_t now_ns;
};

static void scan_row(const struct route *r, void *arg)
{
    struct scan *scan = arg;
    gossip_node_up(scan->gossip, r->id, meta_of(r->class_, r->flags & ROUTE_STREAM), scan->now_ns);
}

/* Entries of a journal were lost, or the table was there before us: its rows are read, and then
 * those that we claim are looked for in it. */
static bool scan_go_on(struct mesh *m, struct gossip *g, uint64_t now_ns)
{
    struct server *s = m->config.server;
    struct scan scan = {g, now_ns};
    if (m->scan_lane < s->lane_count) {
        struct lane *l = s->lane[m->scan_lane];
        m->scan_row = route_page(l->routes, m->scan_row, SCAN_ROWS, scan_row, &scan);
        m->scan_lane += m->scan_row == 0;
        m->scan_cursor = STORE_CURSOR_START;
        return true;
    }
    uint32_t id, gone[SCAN_GONE];
    unsigned count = 0;
    bool more = true;
    struct route route;
    int64_t cursor = m->scan_cursor;
    for (int n = 0; n < SCAN_ROWS && count < SCAN_GONE && more; n++) {
        more = store_own_next(gossip_store(g), &cursor, &id);
        if (more && !server_find(s, id, &route))
            gone[count++] = id;
        else if (more)
            m->scan_cursor = cursor; /* one that is removed would cost it its place */
    }
    for (unsigned i = 0; i < count; i++)
        gossip_node_gone(g, gone[i], now_ns);
    m->scanning = more;
    return more;
}

void mesh_scan(struct mesh *m)
{
    m->scanning = true;
    m->scan_lane = m->scan_row = 0;
}

static bool journals_take(struct mesh *m, struct gossip *g, uint64_t now_ns)
{
    struct server *s = m->config.server;
    bool more = false;
    uint32_t lost = 0;
    for (unsigned i = 0; i < s->lane_count; i++) {
        struct journal_entry e;
        int n = 0;
        while (n < JOURNAL_TURN && journal_take(s->lane[i]->journal, &e)) {
            if (e.gone)
                gossip_node_gone(g, e.id, now_ns);
            else
                gossip_node_up(g, e.id, meta_of(e.class_, e.stream), now_ns);
            n++;
        }
        more |= n == JOURNAL_TURN;
        lost += journal_lost(s->lane[i]->journal);
    }
    if (lost != m->journal_lost && !more) { /* only once they are empty: the table is newer */
        m->journal_lost = lost;
        mesh_scan(m);
    }
    return more;
}

/* Frames that came to shards. */
static bool frames_take(struct mesh *m, struct gossip *g, uint64_t now_ns)
{
    struct server *s = m->config.server;
    bool more = false;
    for (unsigned i = 0; i < s->lane_count; i++) {
        struct handoff *h = s->lane[i]->to_mesh;
        struct endpoint *from = &m->from[i]; /* the frame itself may come with the next turn */
        struct handoff_message message;
        int n = 0;
        while (n < FRAMES_TURN && handoff_peek(h, &message)) {
            if (message.node_id == TO_MESH_FROM) {
                memcpy(from, message.bytes, sizeof *from);
            } else {
                enum gossip_verdict v = gossip_input(g, message.bytes, message.len, from, now_ns);
                count_add(&m->lane->stats.verdict[VERDICT_GOSSIP_TAKEN + (int)v], 1);
            }
            handoff_drop(h);
            n++;
        }
        more |= n == FRAMES_TURN;
    }
    return more;
}

static void keys_take(struct mesh *m, struct gossip *g)
{
    struct seal_ring *ring = atomic_exchange(&m->ring, NULL);
    if (!ring)
        return;
    gossip_set_keys(g, ring);
    sodium_memzero(ring, sizeof *ring);
    free(ring);
}

static bool on_inbox(void *arg, struct gossip *g, uint64_t now_ns)
{
    struct mesh *m = arg;
    struct gossip_seed seeds[GOSSIP_SEEDS_MAX];
    keys_take(m, g);
    int count = m->discover ? discover_take(m->discover, seeds) : -1;
    if (count >= 0)
        gossip_set_seeds(g, seeds, (unsigned)count, now_ns);
    if (atomic_load(&m->draining) != m->said_draining)
        mesh_say_state(m, g, now_ns);
    server_begin(m->lane);
    bool more = journals_take(m, g, now_ns);
    more |= frames_take(m, g, now_ns);
    if (m->scanning && !more)
        more = scan_go_on(m, g, now_ns);
    return more;
}

/* --- what the lanes are told --- */

/* Other beacons as relays see them. Our own address among them would be a loop. */
bool mesh_beacons_give(struct mesh *m, struct gossip *g)
{
    struct server *s = m->config.server;
    if (!server_peers_settled(s))
        return true; /* a lane may still read the table that is next to be written */
    struct peers *next = &m->peers[m->peers_turn];
    unsigned count;
    if (!gossip_beacons(g, m->beacons, &count))
        return false;
    memset(next, 0, sizeof *next);
    next->count = count;
    for (unsigned i = 0; i < count; i++) {
        const struct endpoint *at = &m->beacons[i].at;
        bool ours = at->port == m->config.bound.port &&
                    (endpoint_same_ip(at, &m->config.bound) || service_has(&s->service, at->ip));
        next->of[i] = (struct peer){*at, m->beacons[i].usable && !ours};
    }
    peers_index(next);
    server_set_peers(s, next);
    m->peers_turn = !m->peers_turn;
    for (unsigned i = 0; i < s->lane_count; i++)
        shards_wake(m->config.shards, i); /* an idle one takes it within a second else */
    m->config.wake_edge(m->config.arg);
    return false;
}

static bool letter_post(struct mesh *m, struct gossip *g, unsigned lane)
{
    struct mail *letter = &m->letter[lane];
    if (letter->len == 0)
        return true;
    m->lane->wake |= UINT64_C(1) << lane;
    bool room = mailbox_put(m->config.server->lane[lane]->mailbox, letter);
    for (unsigned i = mail_ids(letter); !room && i-- > 0;)
        gossip_route_again(g, mail_id(letter, i));
    letter->len = 0;
    return room;
}

static struct mail letter_about(const struct gossip_route *r)
{
    return (struct mail){.kind = r->beacon == STORE_NONE ? MAIL_ROUTES_GONE : MAIL_ROUTES_SET,
                         .node_id = r->beacon,
                         .class_ = r->meta & DELTA_CLASS,
                         .stream = r->meta & DELTA_STREAM};
}

/* Adds a node to the letter of its lane. False: the lane's mailbox is full. */
static bool route_give(struct mesh *m, struct gossip *g, const struct gossip_route *r)
{
    const struct server *s = m->config.server;
    unsigned lane = route_owner(s->owner_key, r->id, s->lane_count);
    struct mail *letter = &m->letter[lane], wanted = letter_about(r);
    bool same = letter->kind == wanted.kind && letter->node_id == wanted.node_id &&
                letter->class_ == wanted.class_ && letter->stream == wanted.stream;
    if (letter->len > 0 && (!same || mail_ids(letter) == MAIL_IDS_MAX) && !letter_post(m, g, lane))
        return false;
    if (letter->len == 0)
        *letter = wanted;
    mail_add_id(letter, r->id);
    return true;
}

/* True: there is more, and room for it. */
static bool routes_give(struct mesh *m, struct gossip *g)
{
    struct gossip_route r;
    bool room = true;
    int n = 0;
    for (; n < ROUTES_TURN && room && gossip_route(g, &r); n++) {
        room = route_give(m, g, &r);
        if (!room)
            gossip_route_again(g, r.id);
    }
    for (unsigned i = 0; i < m->config.server->lane_count; i++)
        room &= letter_post(m, g, i);
    m->waits = !room;
    return room && n == ROUTES_TURN;
}

static bool on_outbox(void *arg, struct gossip *g, uint64_t now_ns)
{
    struct mesh *m = arg;
    bool unsettled = mesh_beacons_give(m, g), more = routes_give(m, g);
    (void)now_ns;
    if (m->waits || unsettled) { /* for a lane to take letters or table: a little, not in circles */
        others_wake(m);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        more = true;
    }
    return more;
}

/* --- what others are told of us --- */

void mesh_say_state(struct mesh *m, struct gossip *g, uint64_t now_ns)
{
    const struct config *c = m->config.config;
    const struct server *s = m->config.server;
    struct beacon_state state = {.draining = atomic_load(&m->draining), .nodes_max = c->max_nodes};
    struct endpoint at;
    for (unsigned i = 0; i < s->lane_count; i++)
        state.nodes += route_count(s->lane[i]->routes);
    if (endpoint_parse(c->advertise_addr, &at))
        state.endpoint[state.endpoint_count++] = at;
    else if (endpoint_parse_ip(c->advertise_addr, &at)) {
        at.port = m->config.bound.port;
        state.endpoint[state.endpoint_count++] = at;
    } else if (!endpoint_is_any(&m->config.bound))
        state.endpoint[state.endpoint_count++] = m->config.bound;
    snprintf(state.version, sizeof state.version, "%s", beacon_version);
    m->said_nodes = state.nodes;
    m->said_ns = now_ns;
    m->said_draining = state.draining;
    gossip_set_state(g, &state, now_ns);
}

/* How many nodes we have is of interest when it has changed much, and not all the time. */
static bool state_is_old(const struct mesh *m, uint64_t now_ns)
{
    const struct server *s = m->config.server;
    uint64_t nodes = 0;
    for (unsigned i = 0; i < s->lane_count; i++)
        nodes += route_count(s->lane[i]->routes);
    uint64_t difference = nodes > m->said_nodes ? nodes - m->said_nodes : m->said_nodes - nodes;
    return now_ns - m->said_ns > SAY_NS && difference > m->said_nodes / 8;
}

/* What the thread sent and lost itself, into the figures of its lane, where it is watched. */
static void sends_count(struct mesh *m)
{
    struct lane_stats *stats = &m->lane->stats;
    struct mesh_thread_stats now, before = m->counted;
    mesh_thread_stats(m->thread, &now);
    count_add(&stats->sent, now.sent - before.sent);
    count_add(&stats->sent_bytes, now.sent_bytes - before.sent_bytes);
    count_add(&stats->send_errors, now.send_errors - before.send_errors);
    count_add(&stats->kernel_drops, now.kernel_drops - before.kernel_drops);
    m->counted = now;
}

static void on_second(void *arg, struct gossip *g, uint64_t now_ns)
{
    struct mesh *m = arg;
    struct moment now = {.ns = now_ns};
    sends_count(m);
    server_tick(m->lane, &now);
    if (state_is_old(m, now_ns))
        mesh_say_state(m, g, now_ns);
    mesh_show(m, g, now_ns);
}

void mesh_callbacks(struct mesh_thread_config *t)
{
    t->inbox = on_inbox;
    t->other = on_other;
    t->flush = on_flush;
    t->verdict = on_verdict;
    t->outbox = on_outbox;
    t->second = on_second;
}
