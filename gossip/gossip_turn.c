#include <assert.h>
#include <string.h>
#include "gossip/gossip_state.h"

/* --- owners whose worth has changed --- */

/* Rows of an owner that is not usable any more stay where they are: the table of beacons already
 * says that nothing goes there, and most of such owners come back. Only nodes that others claim too
 * get another way. When it comes back unchanged, the same; else all its rows are told of. */
static void owner_rank(struct gossip *g, unsigned owner, enum store_rank rank)
{
    struct owner_walk *w = &g->walk[owner];
    const struct store_owner *o = store_owner(g->store, owner);
    if (w->rank == rank)
        return;
    if (rank == STORE_UNUSABLE) {
        w->left_boot = o->boot;
        w->left_version = o->version;
    } else if (w->rank == STORE_UNUSABLE) {
        w->all = w->all || o->boot != w->left_boot || o->version != w->left_version;
    }
    w->rank = (uint8_t)rank;
    store_owner_rank(g->store, owner, rank);
    if (!w->walking)
        g->walks++;
    w->walking = true;
    w->cursor = STORE_CURSOR_START;
}

static void owner_forget(struct gossip *g, unsigned owner)
{
    struct owner_walk *w = &g->walk[owner];
    owner_rank(g, owner, STORE_UNUSABLE);
    if (!w->forgetting)
        g->walks++;
    w->forgetting = true;
}

/* The index serves another beacon: what is still to be forgotten of the one before goes at once. */
static void owner_begin(struct gossip *g, unsigned owner, uint32_t beacon)
{
    struct owner_walk *w = &g->walk[owner];
    g->walks -= (unsigned)w->forgetting + w->walking;
    *w = (struct owner_walk){.rank = STORE_UNUSABLE};
    store_owner_begin(g->store, owner, beacon, 0);
}

static void owner_walk(struct gossip *g, unsigned owner)
{
    struct owner_walk *w = &g->walk[owner];
    if (w->walking) {
        g->rechecking = !w->all;
        if (!store_recheck(g->store, owner, &w->cursor, RECHECK_ROWS)) {
            w->walking = w->all = false;
            g->walks--;
        }
        g->rechecking = false;
    }
    if (w->forgetting && !store_owner_forget(g->store, owner, RECHECK_ROWS)) {
        g->walks -= 1u + w->walking;
        *w = (struct owner_walk){.rank = STORE_UNUSABLE};
    }
}

/* A node whose news found no room in the queue: all are told of again, once there is room. */
static void routes_recover(struct gossip *g)
{
    if (!g->routes_lost || g->route_tail - g->route_head > ROUTE_QUEUE / 2)
        return;
    g->routes_lost = false;
    for (unsigned i = 1; i < STORE_OWNERS_MAX; i++) {
        struct owner_walk *w = &g->walk[i];
        if (store_owner(g->store, i)->beacon == 0 || w->rank == STORE_UNUSABLE)
            continue;
        g->walks += !w->walking;
        w->walking = w->all = true;
        w->cursor = STORE_CURSOR_START;
    }
}

static void walks_go_on(struct gossip *g)
{
    routes_recover(g);
    for (unsigned i = 1; i < STORE_OWNERS_MAX && g->walks > 0; i++) {
        if (g->route_tail - g->route_head > ROUTE_QUEUE - RECHECK_ROWS)
            return; /* until the queue has been taken */
        if (g->walk[i].walking || g->walk[i].forgetting)
            owner_walk(g, i);
    }
}

/* --- members --- */

static void member_news(struct gossip *g)
{
    static const enum store_rank rank[MEMBER_STATE_COUNT] = {[MEMBER_ALIVE] = STORE_USABLE,
                                                             [MEMBER_SUSPECT] = STORE_DOUBTED,
                                                             [MEMBER_DEAD] = STORE_UNUSABLE,
                                                             [MEMBER_LEFT] = STORE_UNUSABLE};
    unsigned changed[64], count;
    do {
        count = member_changes(g->members, changed, 64);
        for (unsigned i = 0; i < count; i++) {
            const struct member_fact *f = &member_at(g->members, changed[i])->fact;
            if (changed[i] == 0)
                continue;
            if (f->id == 0) {
                owner_forget(g, changed[i]);
                g->session[changed[i]] = (struct peer_session){.boot = 0};
                continue;
            }
            if (store_owner(g->store, changed[i])->beacon != f->id)
                owner_begin(g, changed[i], f->id);
            owner_rank(g, changed[i], f->at.port ? rank[f->state] : STORE_UNUSABLE);
            if (f->state >= MEMBER_DEAD)
                sync_reset(g->sync, changed[i]);
        }
        g->beacons_changed |= count > 0;
        g->links_changed |= count > 0;
    } while (count == 64);
}

static void links_choose(struct gossip *g)
{
    unsigned neighbours[MEMBER_NEIGHBOURS_MAX];
    if (!g->links_changed)
        return;
    g->links_changed = false;
    unsigned count = 0, all = member_neighbours(g->members, neighbours);
    for (unsigned i = 0; i < all; i++) /* one without an address cannot be sent anything */
        if (member_at(g->members, neighbours[i])->fact.at.port != 0)
            neighbours[count++] = neighbours[i];
    bool relays = members_usable(g->members) > MEMBER_FULL_MESH;
    sync_links(g->sync, neighbours, count, relays, g->now_ns);
}

static void rumours_to(struct gossip *g, unsigned to)
{
    struct member_fact facts[MEMBER_RUMOURS];
    uint8_t body[GOSSIP_BODY_MAX];
    unsigned written, count = member_rumours(g->members, to, facts, MEMBER_RUMOURS);
    const struct member *m = member_at(g->members, to);
    if (count == 0)
        return;
    size_t len = write_gossip_members(body, sizeof body, facts, count, &written);
    assert(written == count);
    out_put(g, (int)to, &m->fact.at, m->fact.id, GOSSIP_MEMBERS, body, len);
}

void gossip_ping(struct gossip *g, const struct member_ping *ping)
{
    const struct member *to = member_at(g->members, ping->to);
    const struct member *subject = member_at(g->members, ping->subject);
    enum gossip_kind kind = ping->to == ping->subject ? GOSSIP_PING : GOSSIP_PROBE;
    struct gossip_ping p = {.number = ping->number,
                            .subject = subject->fact.id,
                            .view = gossip_view(g),
                            .lag_ms = member_lag_ms(g->members),
                            .at = subject->fact.at};
    uint8_t body[96];
    /* A suspect hears of it before it answers. Who is known by hearsay alone is nobody yet, and the
     * address may be a victim's. */
    if (g->session[ping->to].boot)
        rumours_to(g, ping->to);
    size_t len = write_gossip_ping(body, sizeof body, kind, &p);
    out_put(g, (int)ping->to, &to->fact.at, to->fact.id, kind, body, len);
}

static void pings_send(struct gossip *g)
{
    struct member_ping ping[16];
    unsigned count;
    do {
        count = member_tick(g->members, g->now_ns, ping, 16);
        for (unsigned i = 0; i < count; i++)
            gossip_ping(g, &ping[i]);
    } while (count == 16);
}

/* News of members go to the neighbours at once, in pings to the others. */
static void rumours_spread(struct gossip *g)
{
    unsigned neighbours[MEMBER_NEIGHBOURS_MAX];
    if (g->now_ns < g->rumours_ns)
        return;
    g->rumours_ns = UINT64_MAX;
    unsigned count = member_neighbours(g->members, neighbours);
    for (unsigned i = 0; i < count; i++)
        rumours_to(g, neighbours[i]);
}

/* --- seeds --- */

static bool seed_is_known(const struct gossip *g, const struct gossip_seed *seed)
{
    unsigned count = members_count(g->members);
    for (unsigned i = 1; i < count; i++) {
        const struct member_fact *f = &member_at(g->members, i)->fact;
        if (f->id && f->state <= MEMBER_SUSPECT && g->session[i].boot &&
            (endpoint_equal(&f->at, &seed->at) || (seed->id && seed->id == f->id)))
            return true;
    }
    return false;
}

/* Knocks at the addresses where nobody is known yet, ever more slowly. */
static void seeds_knock(struct gossip *g)
{
    if (g->now_ns < g->seeds_ns)
        return;
    g->seeds_ns = g->now_ns + SEED_MAX_NS;
    for (unsigned i = 0; i < g->seed_count; i++) {
        struct seed_state *s = &g->seed[i];
        if (s->seed.is_pilot || s->is_us || !g->has_keys)
            continue;
        if (g->now_ns >= s->next_ns) {
            bool known = seed_is_known(g, &s->seed);
            s->pause_ns = known ? SEED_MIN_NS : s->pause_ns * 2;
            s->pause_ns = s->pause_ns > SEED_MAX_NS ? SEED_MAX_NS : s->pause_ns;
            s->next_ns = g->now_ns + s->pause_ns;
            if (!known)
                knock_put(g, &s->seed.at);
        }
        g->seeds_ns = s->next_ns < g->seeds_ns ? s->next_ns : g->seeds_ns;
    }
}

/* --- time passes --- */

static void second_passed(struct gossip *g)
{
    if (g->now_ns < g->second_ns)
        return;
    g->second_ns = g->now_ns + GOSSIP_SECOND_NS;
    store_tick(g->store, g->now_ns);
}

static bool queue_has_room(const struct gossip *g)
{
    return g->route_tail - g->route_head <= ROUTE_QUEUE - RECHECK_ROWS;
}

/* Sources expire, and what they leave goes a piece at a time, as fast as the shards are told. */
static void pilots_go_on(struct gossip *g)
{
    if (g->now_ns >= pilot_next_ns(g->pilot) && queue_has_room(g))
        pilot_tick(g->pilot, g->now_ns);
    g->beacons_changed |= pilot_sources_changed(g->pilot); /* one that is new, too */
}

void gossip_tick(struct gossip *g, uint64_t now_ns)
{
    g->now_ns = now_ns;
    if (g->has_keys)
        pings_send(g);
    bool news = g->beacons_changed;
    member_news(g);
    if (g->beacons_changed && !news && g->rumours_ns == UINT64_MAX)
        g->rumours_ns = now_ns + RUMOUR_NS;
    links_choose(g);
    rumours_spread(g);
    seeds_knock(g);
    second_passed(g);
    pilots_go_on(g);
    walks_go_on(g);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t gossip_next_ns(const struct gossip *g)
{
    if (g->out_head != g->out_tail || g->links_changed || (g->walks > 0 && queue_has_room(g)))
        return g->now_ns;
    uint64_t next_ns = g->second_ns;
    if (gossip_muted(g)) /* what is due is not sent, and stays due */
        return earlier(next_ns, earlier(g->muted_until_ns, member_next_ns(g->members)));
    if (queue_has_room(g))
        next_ns = earlier(next_ns, pilot_next_ns(g->pilot));
    if (g->has_keys) {
        next_ns = earlier(next_ns, member_next_ns(g->members));
        next_ns = earlier(next_ns, earlier(g->seeds_ns, g->rumours_ns));
        next_ns = earlier(next_ns, sync_next_ns(g->sync));
    }
    return next_ns;
}

/* --- outputs --- */

static void seal_out(struct gossip *g, enum gossip_kind kind, uint32_t receiver, int member,
                     const uint8_t *body, size_t len, struct gossip_out *ret)
{
    struct gossip_head head = {.kind = (uint8_t)kind,
                               .sender = g->config.beacon_id,
                               .receiver = receiver,
                               .boot = g->boot,
                               .sequence = ++g->sequence};
    ret->slice = 0;
    ret->bytes = g->frame;
    ret->len = seal_frame(&g->ring, &g->random, &head, body, len, g->frame);
    if (member >= 0) {
        g->session[member].frames_out++;
        g->session[member].bytes_out += ret->len;
    }
}

static bool sealed_next(struct gossip *g, struct gossip_out *ret)
{
    struct sync_out body;
    if (g->out_head != g->out_tail) {
        const struct out_frame *f = &g->out[g->out_head++ % OUT_QUEUE];
        ret->to = f->to;
        seal_out(g, f->kind, f->receiver, f->member, f->body, f->len, ret);
        return true;
    }
    const struct member *m;
    do {
        if (!sync_next(g->sync, g->now_ns, &body))
            return false;
        m = member_at(g->members, body.member);
    } while (m->fact.at.port == 0);
    ret->to = m->fact.at;
    seal_out(g, body.kind, m->fact.id, (int)body.member, body.body, body.len, ret);
    return true;
}

bool gossip_send(struct gossip *g, uint64_t now_ns, struct gossip_out *ret)
{
    g->now_ns = now_ns;
    bool any = false;
    if (gossip_muted(g)) {
        g->out_head = g->out_tail;
        return false;
    }
    if (g->has_keys)
        any = sealed_next(g, ret);
    if (!any)
        any = pilot_send(g->pilot, now_ns, &ret->to, &ret->slice, &ret->bytes, &ret->len);
    if (!any)
        return false;
    g->frames_out++;
    g->bytes_out += ret->len;
    return true;
}

unsigned gossip_slices(const struct gossip *g)
{
    return pilot_slices(g->pilot) - 1;
}

bool gossip_route(struct gossip *g, struct gossip_route *ret)
{
    if (g->route_head == g->route_tail)
        return false;
    uint32_t id = g->routes[g->route_head++ % ROUTE_QUEUE];
    struct holder best = store_best(g->store, id, true);
    if (best.owner == STORE_NONE) {
        /* Whoever claims it is not usable, and the table forgets that claim now: should the owner
         * come back as it was, its rows are news again. */
        unsigned owner = store_claimant(g->store, id);
        if (owner != STORE_NONE)
            g->walk[owner].all = true;
    }
    *ret = (struct gossip_route){.id = id, .beacon = best.owner, .meta = best.meta};
    return true;
}

void gossip_route_again(struct gossip *g, uint32_t id)
{
    if (g->route_tail - g->route_head < ROUTE_QUEUE)
        g->routes[--g->route_head % ROUTE_QUEUE] = id;
    else
        g->routes_lost = true;
}

bool gossip_beacons(struct gossip *g, struct gossip_beacon ret[static STORE_OWNERS_MAX],
                    unsigned *ret_count)
{
    if (!g->beacons_changed)
        return false;
    g->beacons_changed = false;
    unsigned count = members_count(g->members), sources = pilot_source_count(g->pilot);
    memset(ret, 0, STORE_OWNERS_MAX * sizeof *ret);
    for (unsigned i = 1; i < count; i++) {
        const struct member_fact *f = &member_at(g->members, i)->fact;
        if (f->id != 0)
            ret[i] = (struct gossip_beacon){.at = f->at,
                                            .usable = f->at.port && f->state <= MEMBER_SUSPECT};
    }
    for (unsigned i = 0; i < sources; i++) {
        uint64_t heard_ns;
        uint32_t beacon;
        struct gossip_beacon *b = &ret[STORE_MEMBERS_MAX + i];
        b->usable = pilot_source(g->pilot, i, &b->at, &heard_ns, &beacon);
    }
    *ret_count = sources ? STORE_MEMBERS_MAX + sources : count;
    return true;
}
