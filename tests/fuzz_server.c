/* A sequence of datagrams from a few sources and of frames of a few sessions, with time passing and
 * other beacons' nodes coming and going, against a small server of two lanes, the edge's and the
 * mesh's. Whatever comes: one verdict each, answers as
 * few and as short as documented, books that balance, and nobody but a session itself speaks for
 * its node.
 *
 * Input: a byte of rules; then for each datagram a byte of what happens (below), its length, and
 * its bytes. With RULES_SESSIONS, a length with its highest bit set makes it a frame, or the news
 * that a session is there or gone. With RULES_MESH, two first bytes of no protocol make it a letter
 * about the nodes of a beacon, and another one a change of who is a beacon. */
#include <stdlib.h>
#include "proto/gossipmsg.h"
#include "proto/stun.h"
#include "server/server.h"
#include "server/session.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { LANES = 2, NODES_MAX = 24, REMOTE_MAX = 8 };
enum {
    RULES_STRICT = 1,
    RULES_TOKEN = 2,
    RULES_LIMITS = 4,
    RULES_NURSERY = 8,
    RULES_GLOBAL = 16,
    RULES_SESSIONS = 32,
    RULES_MESH = 64,
};
enum {
    STEP_SOURCE = 7,     /* which source */
    STEP_LANE = 8,       /* which lane gets it */
    STEP_TIME = 0x30,    /* how much time passes first */
    STEP_DRAIN = 0x40,   /* letters are read and a tick follows */
    STEP_SMALL_ID = 128, /* ids are cut to their last byte, so that they meet */

    /* Instead of the first two, of a session: */
    STEP_SESSION = 3, /* which one */
    STEP_NEWS = 4,    /* not a frame: it is there, or with STEP_LANE gone */
};
enum { LEN_SESSION = 128 };
enum { MESH_SET = 0xf0, MESH_GONE = 0xf1, MESH_PEERS = 0xf2 };

static const char *const sources[8] = {
    "8.8.8.8:40000",       "8.8.8.8:40001",   "9.9.9.9:4000", "[2606:4700::1]:5555",
    "[2606:4700::2]:5555", "127.0.0.1:40000", "224.0.0.1:9",  "10.0.0.1:9001",
};
/* Two speak for one id, one sits where a datagram may come from, one where none may. */
static const struct {
    uint32_t node_id;
    const char *from;
    enum route_class class_;
} sessions[4] = {
    {1, "8.8.8.8:40000", ROUTE_SIGNED},
    {1, "9.9.9.9:4001", ROUTE_KEYED},
    {2, "[2606:4700::9]:5555", ROUTE_SIGNED},
    {0x01000003, "169.254.0.1:7", ROUTE_KEYED},
};
static const uint64_t steps_ns[4] = {0, 1000000, 1000000000, 91000000000};

struct world {
    struct config config;
    struct rules rules;
    struct server *server;
    struct moment now;
    struct outbox out;
    uint64_t received, passed; /* passed on and not yet read */
    bool local_is_global;
    struct session session[4];
    bool heard[256]; /* by the journals: which of the lowest ids are here */
    uint64_t gossip; /* passed on to the mesh and not yet taken */
    struct peers peers[2];
    unsigned peers_turn;
};

static struct world w;
static uint8_t *memory[4]; /* without and with sessions, without and with a mesh */

static void world_new(uint8_t choice)
{
    static const uint8_t seed[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    config_init(&w.config);
    w.config.max_nodes = NODES_MAX;
    w.config.max_routes = REMOTE_MAX;
    w.config.has_wss = choice & RULES_SESSIONS;
    w.config.peers[0] = choice & RULES_MESH ? 'x' : '\0';
    size_t size = server_size(&w.config, LANES);
    uint8_t **place = &memory[w.config.has_wss + (choice & RULES_MESH ? 2 : 0)];
    if (!*place)
        *place = aligned_alloc(64, size);
    CHECK(*place);
    memset(*place, 0, size);
    w.rules = w.config.rules;
    w.rules.strict_relay_source = choice & RULES_STRICT;
    w.rules.require_punch_token = choice & RULES_TOKEN;
    if (!(choice & RULES_LIMITS)) {
        const struct rate off = {0, 1};
        w.rules.relay_rate = w.rules.relay_ip_rate = w.rules.reply_rate = off;
        w.rules.punch_rate = w.rules.punch_pair_rate = w.rules.punch_victim_rate = off;
        w.rules.peer_rate = off;
    }
    w.rules.nursery_percent = choice & RULES_NURSERY ? 50 : 0;
    w.local_is_global = choice & RULES_GLOBAL;
    w.now = (struct moment){.ns = 1000000000000, .unix_s = 1800000000};
    w.received = w.passed = w.gossip = 0;
    w.peers_turn = 0;
    memset(w.heard, 0, sizeof w.heard);
    w.server = server_init(*place, &w.config, LANES, &w.rules, seed);
    for (uint8_t i = 0; i < 4; i++) {
        struct session *s = &w.session[i];
        *s = (struct session){.node_id = sessions[i].node_id, .class_ = sessions[i].class_};
        CHECK(endpoint_parse(sessions[i].from, &s->from));
        s->key[0] = i;
    }
}

static unsigned owner_of(uint32_t id)
{
    return route_owner(w.server->owner_key, id, LANES);
}

/* --- what must hold after every step --- */

struct census {
    unsigned lane;
    uint32_t count, count_v4, count_stream;
};

static bool is_session(const struct route *route)
{
    uint8_t key[MSG_KEY_LEN];
    const struct routes *routes = w.server->lane[owner_of(route->id)]->routes;
    CHECK(route_find_key(routes, route->id, key));
    for (int i = 0; i < 4; i++)
        if (route->id == sessions[i].node_id && route->class_ == sessions[i].class_ &&
            endpoint_equal(&route->at, &w.session[i].from) &&
            memcmp(key, w.session[i].key, sizeof key) == 0)
            return true;
    return false;
}

static void census_take(const struct route *route, void *arg)
{
    struct census *c = arg;
    enum ip_scope scope = ip_scope(route->at.ip);
    struct route found;
    CHECK(route->id != 0 && owner_of(route->id) == c->lane);
    if (route->flags & ROUTE_STREAM) {
        CHECK(is_session(route) && route->local == 0);
    } else {
        CHECK(route->class_ == ROUTE_UNVERIFIED);
        CHECK(route->at.port != 0 && scope != SCOPE_NEVER && scope != SCOPE_LINK);
        CHECK(!w.local_is_global || scope == SCOPE_GLOBAL);
    }
    CHECK(route->class_ != ROUTE_BEACON);
    CHECK(server_find(w.server, route->id, &found) && endpoint_equal(&found.at, &route->at));
    CHECK(server_find_way(w.server, route->id, &found) && endpoint_equal(&found.at, &route->at));
    c->count++;
    c->count_v4 += endpoint_is_v4(&route->at) && !(route->flags & ROUTE_STREAM);
    c->count_stream += (route->flags & ROUTE_STREAM) != 0;
}

static void check_books(void)
{
    uint64_t decided = 0;
    for (unsigned i = 0; i < server_lanes(w.server); i++) {
        const struct lane *l = server_lane(w.server, i);
        struct census c = {.lane = i};
        for (int v = 0; v < VERDICT_COUNT; v++)
            decided += count_read(&l->stats.verdict[v]);
        route_page(l->routes, 0, UINT32_MAX, census_take, &c);
        CHECK(c.count == route_count(l->routes) && c.count_v4 == route_count_v4(l->routes) &&
              c.count_stream == route_count_stream(l->routes));
        CHECK(c.count <= route_capacity(l->routes));
        CHECK(route_count_beacon(l->routes) <= route_capacity_beacon(l->routes));
    }
    CHECK(decided + w.passed + w.gossip == w.received);
}

/* What was handed over since, for whom, and that it is what the verdict says. */
static unsigned check_handed(struct lane *l, const struct verdict_row *row, uint32_t len)
{
    struct handoff_message m;
    unsigned count = 0;
    bool relay = row && strcmp(row->type, "relay") == 0;
    for (; l->handoff && handoff_peek(l->handoff, &m); handoff_drop(l->handoff), count++) {
        CHECK(m.len > 0 && m.len <= (relay ? len : (uint32_t)STUN_ANSWER_MAX));
        bool known = false;
        for (int i = 0; i < 4; i++)
            known |= m.node_id == sessions[i].node_id;
        CHECK(known && l->wake_edge);
        CHECK(!relay || m.bytes[0] == MSG_RELAY_DELIVER || m.bytes[0] == MSG_RELAY_DELIVER_DEST);
    }
    l->wake_edge = false;
    return count;
}

static void check_answers(struct lane *l, enum verdict v, const struct datagram *d)
{
    const struct verdict_row *row = &verdict_rows[v];
    bool punch = strcmp(row->type, "punch") == 0, stun = strcmp(row->type, "stun") == 0;
    unsigned handed = check_handed(l, row, d->len);
    if (strcmp(row->outcome, "dropped") == 0) {
        CHECK(w.out.count == 0 && handed == 0);
    } else if (strcmp(row->outcome, "forwarded") == 0) {
        CHECK(w.out.count + handed == 1);
        if (handed)
            return;
        CHECK(w.out.out[0].len <= d->len);
        CHECK(w.out.out[0].bytes >= d->bytes);
        CHECK(w.out.out[0].bytes + w.out.out[0].len == d->bytes + d->len);
    } else if (d->session_id) {
        CHECK(w.out.count == 0 && handed == 1);
    } else {
        CHECK(punch ? w.out.count + handed >= 1 && w.out.count + handed <= 2
                    : w.out.count == 1 && handed == 0);
        for (unsigned i = 0; i < w.out.count; i++) {
            CHECK(punch || endpoint_equal(&w.out.out[i].to, &d->from));
            CHECK(w.out.out[i].len <= (stun ? (uint32_t)STUN_ANSWER_MAX : MSG_REPLY_MAX));
            CHECK(stun || w.out.out[i].len == 8 || w.out.out[i].len == 20);
        }
    }
}

/* --- one step --- */

/* What the mesh's thread would take from a shard: the news of each node in its order, and gossip
 * with its source. */
static void mesh_takes(struct lane *l)
{
    struct journal_entry e;
    struct handoff_message m;
    while (l->journal && journal_take(l->journal, &e)) {
        CHECK(l->wake_mesh && e.id != 0 && owner_of(e.id) == l->index);
        CHECK(e.class_ < ROUTE_BEACON && (!e.stream || e.class_ > ROUTE_UNVERIFIED));
        if (e.id >= sizeof w.heard)
            continue;
        CHECK(!e.gone || w.heard[e.id]);
        w.heard[e.id] = !e.gone;
    }
    CHECK(!l->journal || journal_lost(l->journal) == 0);
    for (; l->to_mesh && handoff_peek(l->to_mesh, &m); handoff_drop(l->to_mesh)) {
        CHECK(l->wake_mesh);
        if (m.node_id == TO_MESH_FROM) {
            CHECK(m.len == sizeof(struct endpoint));
            continue;
        }
        CHECK(m.node_id == TO_MESH_BYTES && m.len > 0);
        CHECK(m.bytes[0] == MSG_SYNC || (m.bytes[0] == GOSSIP_TYPE && m.len >= GOSSIP_SEAL_LEN));
        w.received--; /* its verdict is the mesh's */
        w.gossip--;
    }
    l->wake_mesh = false;
}

/* Who has listened knows where every node is. */
static void check_heard(void)
{
    struct route found;
    for (uint32_t id = 0; w.server->mesh && id < sizeof w.heard; id++)
        CHECK(w.heard[id] == server_find(w.server, id, &found));
}

static void drain(void)
{
    for (unsigned i = 0; i < server_lanes(w.server); i++) {
        struct lane *l = server_lane(w.server, i);
        bool more;
        server_begin(l);
        do {
            uint64_t taken = count_read(&l->stats.mail_taken);
            w.out.count = 0;
            more = server_mail(l, &w.now, &w.out);
            CHECK(w.out.count <= 2 * (count_read(&l->stats.mail_taken) - taken));
        } while (more);
        check_handed(l, NULL, 0);
        server_tick(l, &w.now);
        mesh_takes(l);
        l->wake = 0;
    }
    w.passed = 0;
}

/* A fresh id in someone's hands stays there, whatever another address says; in those of a session,
 * whatever UDP says. */
static bool must_stay(const struct datagram *d, uint32_t id, struct route *ret)
{
    return server_find(w.server, id, ret) &&
           (ret->flags & ROUTE_STREAM || !endpoint_same_ip(&ret->at, &d->from)) &&
           moment_s(&w.now) - ret->seen_s < w.rules.takeover_silence_s;
}

static bool same_route(const struct route *a, const struct route *b)
{
    return a->id == b->id && a->seen_s == b->seen_s && endpoint_equal(&a->at, &b->at) &&
           a->local == b->local && a->class_ == b->class_ && a->flags == b->flags;
}

/* Between beacons: where it goes, and that it goes no further than here when it came from one. */
static void check_beacons(const struct lane *l, enum verdict v, const struct datagram *d)
{
    bool is_beacon = l->peers && peers_find(l->peers, &d->from) != PEERS_NONE;
    if (v == VERDICT_RELAY_TO_BEACON) {
        unsigned at = peers_find(l->peers, &w.out.out[0].to);
        CHECK(!is_beacon && at != PEERS_NONE && l->peers->of[at].usable);
        CHECK(w.out.out[0].bytes == d->bytes && d->bytes[0] == MSG_RELAY);
    }
    CHECK(v != VERDICT_RELAY_FROM_BEACON || is_beacon);
    CHECK(v != VERDICT_RELAY_SECOND_HOP || is_beacon);
    CHECK(!is_beacon || (v != VERDICT_DISCOVER_NEW && v != VERDICT_DISCOVER_MOVED &&
                         v != VERDICT_DISCOVER_REFRESHED && v != VERDICT_PUNCH_COMMANDED &&
                         v != VERDICT_RELAY_FORWARDED && v != VERDICT_RELAY_FORWARDED_UNPROVEN));
}

/* A letter about nodes that the beacon `how` has or has no more, in the order of `bytes`. */
static void letter(uint8_t how, enum mail_kind kind, const uint8_t *bytes, uint32_t len)
{
    struct reader r = reader_of(bytes, len);
    while (read_left(&r) >= 4) {
        uint32_t id = read_u32(&r);
        struct route before = {.id = 0}, after = {.id = 0};
        struct mail mail = {.kind = kind,
                            .node_id = how & STEP_SOURCE,
                            .class_ = how & STEP_LANE ? ROUTE_KEYED : ROUTE_UNVERIFIED,
                            .stream = how & STEP_LANE};
        drain(); /* there is a place for it, and who is silent is gone */
        bool ours = server_find(w.server, id, &before);
        CHECK(mail_add_id(&mail, id));
        CHECK(mailbox_put(w.server->lane[owner_of(id)]->mailbox, &mail));
        drain();
        bool way = server_find_way(w.server, id, &after) && after.class_ == ROUTE_BEACON;
        CHECK(!ours || !way);
        CHECK(!way || kind == MAIL_ROUTES_GONE || route_beacon(&after) == mail.node_id);
        CHECK(!way || kind == MAIL_ROUTES_SET || route_beacon(&after) != mail.node_id);
    }
}

/* The sources whose bits are set in `which` are beacons; those in `usable` take relays. */
static void peers_change(uint8_t which, uint8_t usable)
{
    struct peers *p = &w.peers[w.peers_turn];
    w.peers_turn = !w.peers_turn;
    memset(p, 0, sizeof *p);
    p->count = 8;
    for (unsigned i = 0; i < 8; i++)
        if (which >> i & 1) {
            CHECK(endpoint_parse(sources[i], &p->of[i].at));
            p->of[i].usable = usable >> i & 1;
        }
    peers_index(p);
    server_set_peers(w.server, which ? p : NULL);
    for (unsigned i = 0; i < server_lanes(w.server); i++)
        server_begin(server_lane(w.server, i));
    CHECK(server_peers_settled(w.server));
}

static void input(uint8_t how, uint8_t *bytes, uint32_t len)
{
    struct lane *l = w.server->lane[how & STEP_LANE ? 1 : 0];
    struct datagram d = {.bytes = bytes, .len = len, .local_is_global = w.local_is_global};
    struct route before, after;
    CHECK(endpoint_parse(sources[how & STEP_SOURCE], &d.from));
    w.out.count = 0;
    server_begin(l);
    server_prefetch(l, &d);
    enum msg_kind kind = d.kind;
    bool writes = kind == MSG_KIND_DISCOVER || kind == MSG_KIND_PUNCH;
    struct reader r = reader_of(bytes + 1, writes ? 4 : 0);
    uint32_t id = read_u32(&r);
    bool stays = writes && must_stay(&d, id, &before);
    enum verdict v = server_input(l, &d, &w.now, &w.out);
    w.received++;
    if (v == VERDICT_PASSED && (kind == MSG_KIND_GOSSIP || kind == MSG_KIND_SYNC)) {
        CHECK(l->to_mesh && l->wake_mesh && w.out.count == 0);
        w.gossip++;
    } else if (v == VERDICT_PASSED) {
        CHECK(writes && owner_of(id) != l->index && w.out.count == 0);
        CHECK(l->wake >> owner_of(id) & 1);
        w.passed++;
    } else {
        CHECK(v < VERDICT_COUNT);
        count_add(&l->stats.verdict[v], 1);
        CHECK(!writes || owner_of(id) == l->index || v == VERDICT_DROPPED_BAD_SOURCE ||
              v == VERDICT_DROPPED_MAILBOX_FULL);
        check_beacons(l, v, &d);
        check_answers(l, v, &d);
    }
    if (stays)
        CHECK(server_find(w.server, id, &after) && same_route(&before, &after));
}

/* A frame of a session, whether its node is registered or not: it writes no row itself. */
static void frame(uint8_t how, uint8_t *bytes, uint32_t len)
{
    struct session *s = &w.session[how & STEP_SESSION];
    struct lane *l = w.server->edge;
    struct datagram d = {.bytes = bytes, .len = len};
    w.out.count = 0;
    server_begin(l);
    enum msg_kind kind = msg_kind(bytes, len);
    bool speaks = kind == MSG_KIND_DISCOVER || kind == MSG_KIND_PUNCH || kind == MSG_KIND_RELAY;
    struct reader r = reader_of(bytes + 1, speaks ? 4 : 0);
    bool forged = speaks && read_u32(&r) != s->node_id;
    enum verdict v = session_input(l, s, &d, &w.now, &w.out);
    w.received++;
    CHECK((v == VERDICT_DROPPED_FORGED_ID) == forged);
    /* Its own id is unproven only where another holds it. */
    bool unproven = v == VERDICT_RELAY_FORWARDED_UNPROVEN || v == VERDICT_RELAY_SENDER_MISMATCH;
    struct route held;
    CHECK(!unproven || (server_find(w.server, s->node_id, &held) &&
                        !((held.flags & ROUTE_STREAM) && endpoint_equal(&held.at, &s->from))));
    if (v == VERDICT_PASSED) {
        CHECK((kind == MSG_KIND_PUNCH || kind == MSG_KIND_DISCOVER) && w.out.count == 0);
        CHECK(l->wake >> owner_of(s->node_id) & 1);
        w.passed++;
    } else {
        check_answers(l, v, &d);
    }
}

/* A session that begins, is still there, or ends. A key that others name is never kept out: none of
 * these prefixes fills, and what UDP claimed makes room. */
static void news(uint8_t how, const uint8_t *bytes, uint32_t len)
{
    struct session *s = &w.session[how & STEP_SESSION];
    struct lane *l = w.server->edge;
    struct route after;
    if (how & STEP_LANE) {
        CHECK(session_gone(l, s));
        drain();
        CHECK(!server_find(w.server, s->node_id, &after) || !(after.flags & ROUTE_STREAM) ||
              !endpoint_equal(&after.at, &s->from));
        return;
    }
    s->wants_dest = len > 0 && bytes[0] & 1;
    CHECK(session_here(l, s));
    drain();
    if (s->class_ == ROUTE_KEYED)
        CHECK(server_find(w.server, s->node_id, &after) && after.flags & ROUTE_STREAM &&
              endpoint_equal(&after.at, &s->from));
}

static void step(uint8_t how, uint8_t want, uint8_t *bytes, uint32_t len)
{
    w.now.ns += steps_ns[(how & STEP_TIME) >> 4];
    if (w.server->mesh && len > 0 && bytes[0] >= MESH_SET && bytes[0] <= MESH_GONE)
        letter(how, bytes[0] == MESH_SET ? MAIL_ROUTES_SET : MAIL_ROUTES_GONE, bytes + 1, len - 1);
    else if (w.server->mesh && len > 2 && bytes[0] == MESH_PEERS)
        peers_change(bytes[1], bytes[2]);
    else if (!w.server->edge || !(want & LEN_SESSION))
        input(how, bytes, len);
    else if (how & STEP_NEWS)
        news(how, bytes, len);
    else
        frame(how, bytes, len);
    if (how & STEP_DRAIN)
        drain();
    check_books();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    world_new(read_u8(&r));
    while (read_left(&r) >= 2) {
        uint8_t how = read_u8(&r), want = read_u8(&r);
        uint32_t most = w.server->edge ? want & ~(uint32_t)LEN_SESSION : want;
        uint32_t n = most < read_left(&r) ? most : (uint32_t)read_left(&r);
        uint8_t *copy = malloc(n + 1); /* of its own size: a sanitizer sees a step too far */
        CHECK(copy);
        memcpy(copy, read_bytes(&r, n), n);
        if (how & STEP_SMALL_ID && n >= 5)
            memset(copy + 1, 0, 3);
        if (how & STEP_SMALL_ID && n >= 9 && (copy[0] == MSG_PUNCH_REQUEST || copy[0] == MSG_RELAY))
            memset(copy + 5, 0, 3);
        step(how, want, copy, n);
        free(copy);
    }
    drain();
    check_books();
    check_heard();
    return 0;
}
