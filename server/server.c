#include <assert.h>
#include <errno.h>
#include "server/answer.h"
#include "server/memory.h"
#include "server/nursery.h"
#include "server/policy.h"
#include "server/punch.h"
#include "server/register.h"
#include "server/relay.h"
#include "server/server.h"
#include "server/session.h"

enum {
    EXPIRE_PERIOD_S = 30,  /* the whole table is looked at so often, or in a quarter of node-ttl */
    RELAY_CELLS = 1 << 14, /* sources per limiter row; 16 bytes each */
    RELAY_IP_CELLS = 1 << 13,
    REPLY_CELLS = 1 << 16, /* four or five prefixes a source */
    PUNCH_CELLS = 1 << 14,
    VERIFY_CELLS = 1 << 12,
    NOTIFY_CELLS = 1 << 12,
    TOTAL_CELLS = 2,
    MAIL_BATCH = 256, /* letters a turn: datagrams come in between */
};

/* --- memory, all of it --- */

static uint32_t square_root(uint32_t n)
{
    uint32_t root = 0;
    for (uint32_t bit = 1u << 15; bit; bit >>= 1)
        if ((uint64_t)(root + bit) * (root + bit) <= n)
            root += bit;
    return root;
}

/* Nodes of one lane. Ids spread over the lanes at random, so each gets four standard deviations
 * more than its share: max-nodes ids fit whatever they are. */
static uint32_t lane_nodes(uint32_t max_nodes, unsigned lanes)
{
    if (lanes == 1)
        return max_nodes;
    uint32_t share = (max_nodes + lanes - 1) / lanes;
    return share + 4 * square_root(share) + 16;
}

static const uint32_t limiter_cells[] = {RELAY_CELLS,  RELAY_IP_CELLS, REPLY_CELLS, PUNCH_CELLS,
                                         VERIFY_CELLS, NOTIFY_CELLS,   TOTAL_CELLS};
enum { LIMITERS = sizeof limiter_cells / sizeof *limiter_cells };

static size_t lane_size(uint32_t nodes, bool sessions)
{
    size_t n = 0;
    n += align64(sizeof(struct lane));
    n += align64(routes_size(nodes));
    n += align64(sizeof(struct mailbox));
    n += align64(grant_memory_size());
    n += align64(nursery_size(nodes));
    n += align64(talkers_size());
    n += sessions ? align64(handoff_size()) : 0;
    for (int i = 0; i < LIMITERS; i++)
        n += align64(limiter_size(limiter_cells[i]));
    return n;
}

size_t server_size(const struct config *c, unsigned lanes)
{
    size_t n = align64(sizeof(struct server));
    n += lanes * lane_size(lane_nodes(c->max_nodes, lanes), config_has_sessions(c));
    n += config_has_sessions(c) ? lane_size(0, true) : 0;
    return n;
}

static void *take(uint8_t **at, size_t size)
{
    void *memory = *at;
    *at += align64(size);
    return memory;
}

/* Gives a lane its parts, all but the handoff. */
static struct lane *lane_init(uint8_t **at, struct server *s, unsigned index, uint32_t nodes,
                              struct siphash_key key)
{
    struct lane *l = take(at, sizeof *l);
    l->server = s;
    l->index = index;
    l->routes = routes_init(take(at, routes_size(nodes)), nodes, key);
    l->mailbox = take(at, sizeof *l->mailbox);
    mailbox_init(l->mailbox);
    l->grants = grant_memory_init(take(at, grant_memory_size()));
    l->nursery = nursery_init(take(at, nursery_size(nodes)), nodes);
    l->talkers = talkers_init(take(at, talkers_size()));
    struct limiter *limiter[LIMITERS] = {&l->relay,  &l->relay_ip, &l->reply, &l->punch,
                                         &l->verify, &l->notify,   &l->total};
    l->source.bad = true; /* of endpoint [::]:0 with local 0, which is what the zeros say */
    l->hashed_as = route_hash(l->routes, 0);
    for (int i = 0; i < LIMITERS; i++)
        limiter_init(limiter[i], take(at, limiter_size(limiter_cells[i])), limiter_cells[i]);
    return l;
}

/* By index, the edge's included. */
static struct lane *lane_at(const struct server *s, unsigned index)
{
    return index < s->lane_count ? s->lane[index] : s->edge;
}

struct server *server_init(void *memory, const struct config *c, unsigned lanes,
                           const struct rules *rules, const uint8_t seed[static 64])
{
    assert(lanes >= 1 && lanes <= CONFIG_SHARDS_MAX);
    uint8_t *at = memory;
    struct server *s = take(&at, sizeof *s);
    struct siphash_key route_key;
    memcpy(&s->owner_key, seed, sizeof s->owner_key);
    s->owner_key.multiply |= 1;
    memcpy(&s->limit_key, seed + 16, sizeof s->limit_key);
    memcpy(&route_key, seed + 32, sizeof route_key);
    s->lane_count = lanes;
    s->bound = c->addr;
    atomic_flag_clear(&s->service.claim);
    for (unsigned i = 0; i < lanes; i++)
        s->lane[i] = lane_init(&at, s, i, lane_nodes(c->max_nodes, lanes), route_key);
    if (config_has_sessions(c)) {
        s->edge = lane_init(&at, s, lanes, 0, route_key);
        for (unsigned i = 0; i <= lanes; i++)
            lane_at(s, i)->handoff = handoff_init(take(&at, handoff_size()));
    }
    server_set_rules(s, rules);
    for (unsigned i = 0; i < lanes + (s->edge != NULL); i++)
        server_begin(lane_at(s, i));
    assert(at == (uint8_t *)memory + server_size(c, lanes));
    return s;
}

/* --- rules --- */

void server_set_rules(struct server *s, const struct rules *rules)
{
    atomic_store_explicit(&s->rules, rules, memory_order_release); /* publishes what it points to */
}

bool server_rules_settled(const struct server *s)
{
    const struct rules *wanted = atomic_load_explicit(&s->rules, memory_order_relaxed);
    for (unsigned i = 0; i < s->lane_count + (s->edge != NULL); i++)
        /* Pairs with server_begin: that lane reads the old rules no more. */
        if (atomic_load_explicit(&lane_at(s, i)->rules_seen, memory_order_acquire) != wanted)
            return false;
    return true;
}

void server_begin(struct lane *l)
{
    const struct rules *rules = atomic_load_explicit(&l->server->rules, memory_order_acquire);
    if (rules == l->rules)
        return;
    l->rules = rules;
    atomic_store_explicit(&l->rules_seen, rules, memory_order_release);
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
    l->source =
        (struct source){.from = d->from, .local = d->local, .bad = source_is_bad(l->server, d)};
}

enum verdict server_refuse(enum msg_kind kind)
{
    switch (kind) {
    case MSG_KIND_STUN_REFLECTED:
        return VERDICT_STUN_DROPPED_REFLECTED;
    case MSG_KIND_SYNC:
        return VERDICT_SYNC_UNSUPPORTED;
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
        uint32_t gone = route_expire(l->routes, moment_s(now), ttl_s, rows);
        count_add(&l->stats.expired, gone);
    }
    uint32_t v4 = route_count_v4(l->routes), stream = route_count_stream(l->routes);
    count_set(&l->stats.nodes_v4, v4);
    count_set(&l->stats.nodes_v6, route_count(l->routes) - v4 - stream);
    count_set(&l->stats.nodes_stream, stream);
    talkers_tick(l->talkers, now->ns);
    count_set(&l->stats.tick_ns, now->ns);
    count_add(&l->stats.ticks, 1);
}
