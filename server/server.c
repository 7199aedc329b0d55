#include <assert.h>
#include <errno.h>
#include "server/answer.h"
#include "server/policy.h"
#include "server/punch.h"
#include "server/register.h"
#include "server/relay.h"
#include "server/server.h"
#include "server/session.h"

enum {
    EXPIRE_PERIOD_S = 30, /* the whole table is looked at so often, or in a quarter of node-ttl */
    MAIL_BATCH = 256,     /* letters a turn: datagrams come in between */
};

/* --- rules and peers --- */

void server_set_rules(struct server *s, const struct rules *rules)
{
    atomic_store_explicit(&s->rules, rules, memory_order_release); /* publishes what it points to */
}

bool server_rules_settled(const struct server *s)
{
    const struct rules *wanted = atomic_load_explicit(&s->rules, memory_order_relaxed);
    for (unsigned i = 0; i < server_lanes(s); i++)
        /* Pairs with server_begin: that lane reads the old rules no more. */
        if (atomic_load_explicit(&server_lane(s, i)->rules_seen, memory_order_acquire) != wanted)
            return false;
    return true;
}

void server_set_peers(struct server *s, const struct peers *peers)
{
    atomic_store_explicit(&s->peers, peers, memory_order_release); /* publishes what it points to */
}

bool server_peers_settled(const struct server *s)
{
    const struct peers *wanted = atomic_load_explicit(&s->peers, memory_order_relaxed);
    for (unsigned i = 0; i < server_lanes(s); i++)
        /* Pairs with server_begin, as above. */
        if (atomic_load_explicit(&server_lane(s, i)->peers_seen, memory_order_acquire) != wanted)
            return false;
    return true;
}

static void source_forget(struct lane *l)
{
    /* Of endpoint [::]:0 with local 0, which is what the zeros say. */
    l->source = (struct source){.bad = true};
}

void server_begin(struct lane *l)
{
    const struct rules *rules = atomic_load_explicit(&l->server->rules, memory_order_acquire);
    const struct peers *peers = atomic_load_explicit(&l->server->peers, memory_order_acquire);
    if (rules != l->rules) {
        l->rules = rules;
        atomic_store_explicit(&l->rules_seen, rules, memory_order_release);
    }
    if (peers != l->peers) {
        l->peers = peers;
        source_forget(l); /* what it is said to be followed from the old ones */
        atomic_store_explicit(&l->peers_seen, peers, memory_order_release);
    }
}

/* --- service addresses --- */

static uint8_t service_find(const struct service *s, const uint8_t ip[static 16], uint32_t count)
{
    for (uint32_t i = 1; i <= count; i++)
        if (memcmp(s->ip[i], ip, 16) == 0)
            return (uint8_t)i;
    return 0;
}

bool service_has(const struct service *s, const uint8_t ip[static 16])
{
    return service_find(s, ip, atomic_load_explicit(&s->count, memory_order_acquire)) != 0;
}

uint8_t service_index(struct service *s, const uint8_t ip[static 16])
{
    /* Pairs with the release below: entries up to count are whole. */
    uint32_t count = atomic_load_explicit(&s->count, memory_order_acquire);
    uint8_t index = service_find(s, ip, count);
    if (index || count == SERVICE_MAX ||
        atomic_flag_test_and_set_explicit(&s->claim, memory_order_acquire))
        return index;
    count = atomic_load_explicit(&s->count, memory_order_relaxed); /* the claim is ours */
    index = service_find(s, ip, count);
    if (!index && count < SERVICE_MAX) {
        index = (uint8_t)(count + 1);
        memcpy(s->ip[index], ip, 16);
        atomic_store_explicit(&s->count, index, memory_order_release);
    }
    atomic_flag_clear_explicit(&s->claim, memory_order_release);
    return index;
}

/* --- one datagram --- */

static uint32_t id_at(const uint8_t *bytes)
{
    struct reader r = reader_of(bytes, 4);
    return read_u32(&r);
}

static unsigned owner_of(const struct server *s, uint32_t id)
{
    return route_owner(s->owner_key, id, s->lane_count);
}

static uint64_t prefetch_id(const struct server *s, uint32_t id)
{
    const struct routes *routes = s->lane[owner_of(s, id)]->routes;
    uint64_t hash = route_hash(routes, id);
    route_prefetch(routes, hash);
    return hash;
}

void server_prefetch(struct lane *l, struct datagram *d)
{
    d->kind = msg_kind(d->bytes, d->len);
    if (d->kind == MSG_KIND_RELAY) {
        uint32_t sender = id_at(d->bytes + 1);
        if (sender != l->hashed_id) {
            l->hashed_id = sender;
            l->hashed_as = prefetch_id(l->server, sender);
        }
        d->sender_hash = l->hashed_as;
        d->dest_hash = prefetch_id(l->server, id_at(d->bytes + 5));
    } else if (d->kind == MSG_KIND_DISCOVER) {
        prefetch_id(l->server, id_at(d->bytes + 1));
    }
}

/* Only the owner may write a node's row. Steering in the kernel sends nearly all such messages
 * there; a GRO batch may mix, and what is left goes by mail. */
enum verdict server_pass_on(struct lane *l, const struct datagram *d, unsigned owner)
{
    struct mail mail = {
        .kind = MAIL_DATAGRAM,
        .node_id = d->session_id,
        .scope = d->scope,
        .from = d->from,
        .local = d->local,
        .local_is_global = d->local_is_global,
        .len = (uint8_t)(d->len < MAIL_BYTES_MAX ? d->len : MAIL_BYTES_MAX),
    };
    memcpy(mail.bytes, d->bytes, mail.len);
    if (!mailbox_put(l->server->lane[owner]->mailbox, &mail))
        return VERDICT_DROPPED_MAILBOX_FULL;
    count_add(&l->stats.mail_passed, 1);
    l->wake |= 1ull << owner;
    return VERDICT_PASSED;
}

static void source_note(struct lane *l, const struct datagram *d)
{
    if (l->source.local == d->local && endpoint_equal(&l->source.from, &d->from))
        return;
    l->source = (struct source){
        .from = d->from,
        .local = d->local,
        .bad = source_is_bad(l->server, d),
        .is_beacon = source_is_beacon(l, d),
    };
}

/* Gossip that the kernel gave to a shard, for the mesh's thread. */
static enum verdict gossip_pass_on(struct lane *l, const struct datagram *d)
{
    uint8_t from[sizeof d->from];
    if (!l->to_mesh)
        return server_refuse(d->kind);
    memcpy(from, &d->from, sizeof from);
    if (!handoff_put(l->to_mesh, TO_MESH_FROM, from, sizeof from) ||
        !handoff_put(l->to_mesh, TO_MESH_BYTES, d->bytes, d->len))
        return VERDICT_GOSSIP_QUEUE_FULL;
    l->wake_mesh = true;
    return VERDICT_PASSED;
}

enum verdict server_refuse(enum msg_kind kind)
{
    switch (kind) {
    case MSG_KIND_STUN_REFLECTED:
        return VERDICT_STUN_DROPPED_REFLECTED;
    case MSG_KIND_SYNC:
        return VERDICT_SYNC_UNSUPPORTED;
    case MSG_KIND_GOSSIP:
        return VERDICT_GOSSIP_UNSUPPORTED;
    case MSG_KIND_FOR_NODES:
        return VERDICT_DROPPED_FOR_NODES;
    case MSG_KIND_EMPTY:
        return VERDICT_DROPPED_EMPTY;
    case MSG_KIND_SHORT:
        return VERDICT_DROPPED_SHORT;
    case MSG_KIND_UNKNOWN:
    case MSG_KIND_DISCOVER:
    case MSG_KIND_PUNCH:
    case MSG_KIND_RELAY:
    case MSG_KIND_STUN:
        break; /* the last four are never refused for their kind */
    }
    return VERDICT_DROPPED_UNKNOWN_TYPE;
}

enum verdict server_input(struct lane *l, struct datagram *d, const struct moment *now,
                          struct outbox *out)
{
    assert(out->count + OUTBOX_ROOM <= OUTBOX_MAX);
    assert(d->session_id == 0);
    source_note(l, d);
    if (l->source.bad)
        return VERDICT_DROPPED_BAD_SOURCE;
    switch (d->kind) {
    case MSG_KIND_RELAY:
        return relay_input(l, d, now, out);
    case MSG_KIND_STUN:
        return stun_input(l, d, now, out);
    case MSG_KIND_DISCOVER:
    case MSG_KIND_PUNCH: {
        unsigned owner = owner_of(l->server, id_at(d->bytes + 1));
        if (owner != l->index)
            return server_pass_on(l, d, owner);
        return d->kind == MSG_KIND_PUNCH ? punch_input(l, d, now, out)
                                         : discover_input(l, d, now, out);
    }
    case MSG_KIND_GOSSIP:
    case MSG_KIND_SYNC:
        return gossip_pass_on(l, d);
    default:
        return server_refuse(d->kind);
    }
}

/* --- mail --- */

static void mail_datagram(struct lane *l, struct mail *mail, const struct moment *now,
                          struct outbox *out)
{
    struct datagram d = {
        .bytes = mail->bytes,
        .len = mail->len,
        .scope = mail->scope,
        .from = mail->from,
        .local = mail->local,
        .local_is_global = mail->local_is_global,
        .session_id = mail->node_id,
    };
    server_prefetch(l, &d);
    /* Of a session's frames only this kind goes by mail. */
    assert(!d.session_id || d.kind == MSG_KIND_PUNCH);
    enum verdict v = d.session_id ? punch_input(l, &d, now, out) : server_input(l, &d, now, out);
    assert(v < VERDICT_COUNT); /* it is ours, so it is not passed on again */
    count_add(&l->stats.verdict[v], 1);
}

static void mail_notify(struct lane *l, uint32_t node_id, const struct moment *now,
                        struct outbox *out)
{
    struct route route;
    if (!server_find(l->server, node_id, &route) ||
        !limit_take(&l->notify, limit_hash_pair(l, node_id, 0), l->rules->notify_rate, now->ns)) {
        count_add(&l->stats.notify_skipped, 1);
        return;
    }
    struct writer w = answer_begin(out);
    write_notify(&w, MSG_NOTIFY_HANDSHAKE);
    if (answer_send_route(l, out, &w, &route))
        count_add(&l->stats.notified, 1);
}

/* What another beacon has. Where the node is ours, it stays so for as long as it is heard. */
static void mail_routes(struct lane *l, const struct mail *mail)
{
    struct routes *routes = l->routes;
    unsigned beacon = mail->node_id, set = 0, refused = 0;
    for (unsigned i = 0; i < mail_ids(mail); i++)
        route_prefetch(routes, route_hash(routes, mail_id(mail, i)));
    for (unsigned i = 0; i < mail_ids(mail); i++) {
        uint32_t id = mail_id(mail, i);
        if (id == 0) /* nobody's, whoever says so */
            continue;
        if (mail->kind == MAIL_ROUTES_GONE)
            route_remove_beacon(routes, id, beacon); /* false: another has it by now */
        else if (route_put_beacon(routes, id, beacon, mail->class_, mail->stream))
            set++;
        else if (!route_claim(routes, id))
            refused++;
    }
    count_add(&l->stats.routes_set, set);
    count_add(&l->stats.routes_refused, refused);
}

static void letter(struct lane *l, struct mail *mail, const struct moment *now, struct outbox *out)
{
    switch (mail->kind) {
    case MAIL_DATAGRAM:
        mail_datagram(l, mail, now, out);
        break;
    case MAIL_NOTIFY:
        mail_notify(l, mail->node_id, now, out);
        break;
    case MAIL_SESSION_HERE:
    case MAIL_SESSION_GONE:
        session_mail(l, mail, now, out);
        break;
    case MAIL_ROUTES_SET:
    case MAIL_ROUTES_GONE:
        mail_routes(l, mail);
        break;
    }
}

bool server_mail(struct lane *l, const struct moment *now, struct outbox *out)
{
    struct mail mail;
    for (int n = 0; n < MAIL_BATCH && out->count + OUTBOX_ROOM <= OUTBOX_MAX; n++) {
        if (!mailbox_take(l->mailbox, &mail))
            return false;
        count_add(&l->stats.mail_taken, 1);
        letter(l, &mail, now, out);
    }
    return true;
}

int server_notify(struct server *s, uint32_t node_id, unsigned *ret_lane)
{
    struct route route;
    unsigned owner = owner_of(s, node_id);
    if (!server_find(s, node_id, &route))
        return -ENOENT;
    if (!mailbox_put(s->lane[owner]->mailbox,
                     &(struct mail){.kind = MAIL_NOTIFY, .node_id = node_id}))
        return -ENOBUFS;
    *ret_lane = owner;
    return 0;
}

bool server_find(const struct server *s, uint32_t node_id, struct route *ret)
{
    const struct routes *routes = s->lane[owner_of(s, node_id)]->routes;
    return route_find(routes, route_hash(routes, node_id), node_id, ret);
}

bool server_find_way(const struct server *s, uint32_t node_id, struct route *ret)
{
    const struct routes *routes = s->lane[owner_of(s, node_id)]->routes;
    return route_find_way(routes, route_hash(routes, node_id), node_id, ret);
}

/* --- time passes --- */

void server_tick(struct lane *l, const struct moment *now)
{
    if (l->expired_at_ns == 0)
        l->expired_at_ns = now->ns;
    uint32_t ttl_s = l->rules->node_ttl_s;
    uint32_t period_s = ttl_s / 4 < EXPIRE_PERIOD_S ? ttl_s / 4 + 1 : EXPIRE_PERIOD_S;
    uint32_t rows = route_rows_due(l->routes, now->ns - l->expired_at_ns, period_s);
    if (rows > 0) {
        l->expired_at_ns = now->ns;
        struct route_ttl ttl = {.silent_s = ttl_s, .claimed_s = l->rules->takeover_silence_s};
        uint32_t gone = route_expire(l->routes, moment_s(now), ttl, rows);
        count_add(&l->stats.expired, gone);
    }
    uint32_t v4 = route_count_v4(l->routes), stream = route_count_stream(l->routes);
    count_set(&l->stats.nodes_v4, v4);
    count_set(&l->stats.nodes_v6, route_count(l->routes) - v4 - stream);
    count_set(&l->stats.nodes_stream, stream);
    count_set(&l->stats.nodes_beacon, route_count_beacon(l->routes));
    talkers_tick(l->talkers, now->ns);
    count_set(&l->stats.tick_ns, now->ns);
    count_add(&l->stats.ticks, 1);
}
