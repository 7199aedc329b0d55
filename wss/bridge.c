#include <assert.h>
#include <errno.h>
#include <sodium/randombytes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "wss/member.h"

enum {
    HANDED_A_TURN = 512, /* messages of one lane: client connections come in between */
    ANSWERS_A_TURN =
        64,        /* of the registry: each is for whoever claims its id, among all who wait */
    LOOK_AT = 256, /* members, for one who gives way */
    STALE_A_TURN =
        16, /* letters about sessions that are no more: they share mailboxes with others */
};

static const char *const subprotocols[] = {"beacon.v2", "pilot.v1", NULL};

const struct bridge_stats *bridge_stats(const struct bridge *b)
{
    return &b->stats;
}

static struct moment moment_of(const struct conn_turn *turn)
{
    return (struct moment){.ns = turn->now_ns, .unix_s = (int64_t)time(NULL)};
}

/* --- the map of sessions --- */

static struct member **chain_of(const struct bridge *b, uint32_t node_id)
{
    return &b->map[siphash_u32(&b->key, node_id) & b->map_mask];
}

struct member *bridge_member(const struct bridge *b, uint32_t node_id)
{
    struct member *p = *chain_of(b, node_id);
    while (p && p->session.node_id != node_id)
        p = p->next;
    return p;
}

void bridge_map_add(struct bridge *b, struct member *p)
{
    struct member **chain = chain_of(b, p->session.node_id);
    p->next = *chain;
    *chain = p;
    count_add(&b->stats.sessions, 1);
}

void bridge_map_remove(struct bridge *b, struct member *p)
{
    struct member **at = chain_of(b, p->session.node_id);
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    count_add(&b->stats.sessions, UINT64_MAX); /* one less */
}

/* --- the shards --- */

void bridge_wake(struct bridge *b)
{
    struct lane *l = b->config.server->edge;
    for (uint64_t wake = l->wake; wake; wake &= wake - 1)
        b->config.udp.wake(b->config.udp.arg, (unsigned)__builtin_ctzll(wake));
    l->wake = 0;
}

static void udp_flush(struct bridge *b)
{
    if (b->out.count > 0)
        b->config.udp.send(b->config.udp.arg, &b->out);
    assert(b->out.count == 0);
}

/* A row says that the id is reached through a session, and there is none: its end was not heard
 * when the owner's mailbox was full. */
static void row_is_stale(struct bridge *b, uint32_t node_id)
{
    struct route route;
    if (b->stale_left == 0)
        return;
    b->stale_left--;
    if (!server_find(b->config.server, node_id, &route) || !(route.flags & ROUTE_STREAM))
        return;
    session_gone(b->config.server->edge, &(struct session){.node_id = node_id, .from = route.at});
}

/* What a lane has for sessions. True: there is more. */
static bool handed_over(struct bridge *b, struct lane *l, const struct conn_turn *turn)
{
    struct handoff_message m;
    for (int n = 0; n < HANDED_A_TURN; n++) {
        if (!handoff_peek(l->handoff, &m))
            return false;
        struct member *p = bridge_member(b, m.node_id);
        if (p && p->state == MEMBER_OPEN) {
            member_say(p, turn, WEBSOCKET_BINARY, m.bytes, m.len);
            p->frames_out++;
            count_add(&b->stats.frames_out, 1);
            count_add(&b->stats.frames_out_bytes, m.len);
        } else {
            count_add(&b->stats.no_session, 1);
            if (!p) /* else it is about to end, and says so itself */
                row_is_stale(b, m.node_id);
        }
        handoff_drop(l->handoff);
    }
    return true;
}

/* The registry has answered for all who claim that id. */
static void key_arrived(struct bridge *b, const struct conn_turn *turn,
                        const struct keys_answer *answer)
{
    for (struct member *p = b->oldest, *newer; p; p = newer) {
        newer = p->newer; /* it may leave the list */
        member_key_arrived(p, turn, answer);
    }
}

void bridge_flush(struct bridge *b, const struct conn_turn *turn)
{
    udp_flush(b);
    handed_over(b, b->config.server->edge, turn);
    bridge_wake(b);
}

/* --- those that are not authenticated yet --- */

void bridge_waiting_add(struct bridge *b, struct member *p)
{
    p->older = b->newest;
    p->newer = NULL;
    *(p->older ? &p->older->newer : &b->oldest) = p;
    b->newest = p;
    count_add(&b->stats.waiting, 1);
}

void bridge_waiting_remove(struct bridge *b, struct member *p)
{
    *(p->older ? &p->older->newer : &b->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &b->newest) = p->older;
    count_add(&b->stats.waiting, UINT64_MAX); /* one less */
}

/* --- places --- */

void bridge_place_take(struct bridge *b, struct member *p)
{
    p->place = b->first_free;
    b->first_free = b->places[p->place].next_free;
    b->places[p->place].member = p;
    b->members++;
}

void bridge_place_give(struct bridge *b, unsigned place)
{
    b->places[place] = (struct place){.member = NULL, .next_free = b->first_free};
    b->first_free = place;
    b->members--;
}

/* --- HTTP --- */

bool bridge_host(const struct http_request *q, char host[static AUTH_HOST_MAX + 1])
{
    const struct http_text *t = http_field(q, "host");
    if (!t || t->len == 0 || t->len > AUTH_HOST_MAX)
        return false;
    memcpy(host, t->at, t->len);
    host[t->len] = '\0';
    return true;
}

/* Who has been asked for its proof for longest is asked no longer: strangers that say nothing must
 * not keep out one who would. False: nobody waits for longer than a moment. */
static bool waiting_made(struct bridge *b, uint64_t now_ns)
{
    struct member *p = b->oldest;
    for (unsigned n = 0; p && n < LOOK_AT && p->state != MEMBER_CHALLENGED; n++)
        p = p->newer; /* the registry is asked about it, or it is about to end */
    if (!p || p->state != MEMBER_CHALLENGED || !p->conn || now_ns - p->opened_ns < NS_PER_S)
        return false;
    conn_set_deadline(p->conn, now_ns);
    return true;
}

static bool has_capacity(struct bridge *b)
{
    unsigned waiting_max = b->config.sessions_max / 10;
    if (waiting_max < BRIDGE_WAITING_MIN)
        waiting_max = BRIDGE_WAITING_MIN;
    return b->members < b->config.sessions_max &&
           (count_read(&b->stats.waiting) < waiting_max || waiting_made(b, edge_clock_ns()));
}

static void answer_text(struct edge_response *r, int status, const char *text)
{
    r->status = status;
    r->content_type = "text/plain; charset=utf-8";
    r->body = strdup(text);
    r->body_len = r->body ? strlen(text) : 0;
}

static void compat(struct bridge *b, const struct edge_request *q, struct edge_response *r)
{
    static _Thread_local struct websocket_upgrade upgrade; /* the fields outlive this call */
    char host[AUTH_HOST_MAX + 1];
    websocket_upgrade(q->http, subprotocols, &upgrade);
    r->status = upgrade.status;
    r->fields = upgrade.fields;
    if (upgrade.status == 405)
        r->allow = "GET";
    if (upgrade.status == 426 && !http_field(q->http, "upgrade")) {
        count_add(&b->stats.probes, 1); /* so daemons find out that there is a bridge */
        return;
    }
    bool version2 = upgrade.subprotocol == 0;
    if (upgrade.status == 101 && !version2 && !b->config.legacy_auth)
        r->status = 403; /* its proof would not be taken */
    if (upgrade.status == 101 && version2 && !bridge_host(q->http, host))
        r->status = 400;
    if (r->status != 101) {
        r->fields = upgrade.status == 101 ? NULL : r->fields;
        count_add(&b->stats.upgrade_failures, 1);
        return;
    }
    r->fields = NULL;
    if (b->drains || !has_capacity(b)) {
        count_add(&b->stats.upgrade_failures, 1);
        answer_text(r, 503, b->drains ? "wss: draining\n" : "wss: at capacity\n");
        return;
    }
    r->state = member_new(b, q, version2 ? 2 : 1);
    if (!r->state) {
        count_add(&b->stats.upgrade_failures, 1);
        answer_text(r, 503, "wss: no memory\n");
        return;
    }
    r->status = 101;
    r->fields = upgrade.fields;
    r->protocol = &member_protocol;
    count_add(&b->stats.upgraded, 1);
}

void bridge_http(void *arg, const struct edge_request *q, struct edge_response *r)
{
    if (http_text_is(q->http->path, "/v1/compat"))
        compat(arg, q, r);
    else
        r->status = http_text_is(q->http->path, "/health") ? 200 : 404;
}

/* --- each turn --- */

static void drain_turn(struct bridge *b, const struct conn_turn *turn)
{
    bool wanted = atomic_load_explicit(&b->drain_wanted, memory_order_acquire);
    if (wanted == b->drains)
        return;
    b->drains = wanted;
    if (wanted)
        mesh_farewell(b->config.mesh, b->farewell);
    uint64_t spread_ns =
        atomic_load_explicit(&b->drain_spread_ms, memory_order_relaxed) * UINT64_C(1000000);
    unsigned nth = 0, all = b->members + 1;
    for (unsigned i = 0; i < b->config.sessions_max; i++) {
        struct member *p = b->places[i].member;
        if (p)
            member_end(p, wanted ? turn->now_ns + spread_ns / all * nth++ + 1 : 0);
    }
}

static void keys_turn(struct bridge *b, const struct conn_turn *turn)
{
    uint64_t version = keys_file_version(b->keys);
    if (version == b->keys_version)
        return;
    b->keys_version = version;
    for (unsigned i = 0; i < b->config.sessions_max; i++)
        if (b->places[i].member)
            member_keys_changed(b->places[i].member, turn);
}

uint64_t bridge_turn(struct bridge *b, const struct conn_turn *turn)
{
    const struct server *s = b->config.server;
    struct keys_answer answer;
    unsigned answers = 0;
    b->stale_left = STALE_A_TURN;
    drain_turn(b, turn);
    keys_turn(b, turn);
    for (; answers < ANSWERS_A_TURN && keys_take(b->keys, turn->now_ns, &answer); answers++)
        key_arrived(b, turn, &answer);
    bool more = answers == ANSWERS_A_TURN;
    for (unsigned i = 0; i < server_lanes(s); i++)
        more |= handed_over(b, server_lane(s, i), turn);
    server_begin(s->edge);
    udp_flush(b);
    bridge_wake(b);
    struct moment now = moment_of(turn);
    server_tick(s->edge, &now);
    return more ? turn->now_ns : UINT64_MAX;
}

void bridge_drain(struct bridge *b, bool on, unsigned spread_ms)
{
    atomic_store_explicit(&b->drain_spread_ms, spread_ms, memory_order_relaxed);
    atomic_store_explicit(&b->drain_wanted, on, memory_order_release); /* publishes the spread */
}

bool bridge_each(const struct bridge *b, unsigned *place, unsigned count, uint64_t now_ns,
                 void (*each)(const struct bridge_session *, void *), void *arg)
{
    for (; *place < b->config.sessions_max && count > 0; ++*place) {
        const struct member *p = b->places[*place].member;
        if (!p || p->state != MEMBER_OPEN)
            continue;
        count--;
        each(&(struct bridge_session){.node_id = p->session.node_id,
                                      .from = p->session.from,
                                      .class_ = p->session.class_,
                                      .auth_version = p->auth_version,
                                      .tls = p->tls,
                                      .age_s = (now_ns - p->opened_ns) / NS_PER_S,
                                      .frames_in = p->frames_in,
                                      .frames_out = p->frames_out,
                                      .frames_dropped = p->conn->frames_dropped,
                                      .queued_bytes = p->conn->out.held},
             arg);
    }
    return *place < b->config.sessions_max;
}

/* --- open and close --- */

int bridge_open(struct bridge **ret, const struct bridge_config *c)
{
    struct bridge *b = calloc(1, sizeof *b);
    unsigned chains = 1024;
    while (chains < c->sessions_max)
        chains *= 2;
    if (b) {
        b->config = *c;
        b->parts.max = BRIDGE_PARTS_MAX;
        b->map_mask = chains - 1;
        b->map = calloc(chains, sizeof(struct member *));
        b->places = calloc(c->sessions_max, sizeof *b->places);
    }
    if (!b || !b->map || !b->places) {
        if (b)
            bridge_close(b);
        return -ENOMEM;
    }
    randombytes_buf(&b->key, sizeof b->key);
    for (unsigned i = 0; i < c->sessions_max; i++)
        b->places[i].next_free = i + 1;
    *ret = b;
    return 0;
}

void bridge_set_keys(struct bridge *b, struct keys *keys)
{
    b->keys = keys;
}

void bridge_close(struct bridge *b)
{
    assert(b->members == 0);
    free(b->map);
    free(b->places);
    free(b);
}
