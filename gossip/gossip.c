#include "gossip/gossip_state.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

/* --- memory --- */

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

size_t gossip_size(const struct gossip_config *c)
{
    return align64(sizeof(struct gossip)) + align64(store_size(c->rows)) + align64(members_size()) +
           align64(sync_size()) + align64(pilot_size());
}

static void *take(uint8_t **at, size_t size)
{
    void *memory = *at;
    *at += align64(size);
    return memory;
}

/* A row changed, or an owner's rank did and its rows are walked. In a walk only what several claim
 * can have got another way, unless the walk is to tell of all. */
static void on_change(void *arg, uint32_t id)
{
    struct gossip *g = arg;
    if (g->own_news)
        return;
    if (g->route_tail - g->route_head == ROUTE_QUEUE) {
        g->routes_lost = true;
        return;
    }
    if (g->rechecking && !store_contested(g->store, id))
        return;
    g->routes[g->route_tail++ % ROUTE_QUEUE] = id;
}

struct gossip *gossip_init(void *memory, const struct gossip_config *c, uint64_t now_ns)
{
    uint8_t *at = memory;
    struct gossip *g = take(&at, sizeof *g);
    struct siphash_key key;
    uint64_t order;
    /* Without keys nobody asks for our id, and there need be none. */
    uint32_t self = c->beacon_id ? c->beacon_id : UINT32_MAX;
    g->config = *c;
    g->boot = c->boot;
    g->now_ns = now_ns;
    memcpy(g->random.seed, c->seed, sizeof g->random.seed);
    seal_random(&g->random, g->challenge_secret, sizeof g->challenge_secret);
    seal_random(&g->random, &g->place_key, sizeof g->place_key);
    seal_random(&g->random, &key, sizeof key);
    seal_random(&g->random, &order, sizeof order);
    sodium_memzero(g->config.seed, sizeof g->config.seed);
    g->store = store_init(take(&at, store_size(c->rows)), c->rows, c->owner_rows, key);
    g->members = members_init(take(&at, members_size()), self, c->boot, order);
    g->sync = sync_init(take(&at, sync_size()), g->store, g->members);
    g->pilot = pilot_init(take(&at, pilot_size()), g->store, c->beacon_id, c->strict);
    store_reserve(g->store, c->own_rows);
    store_on_change(g->store, on_change, g);
    store_owner_begin(g->store, STORE_SELF, self, c->boot);
    store_owner_rank(g->store, STORE_SELF, STORE_OWN);
    assert(at == (uint8_t *)memory + gossip_size(c));
    return g;
}

/* --- what the embedding program says --- */

void gossip_set_keys(struct gossip *g, const struct seal_ring *ring)
{
    g->has_keys = ring && ring->count > 0;
    if (g->has_keys)
        g->ring = *ring;
    else
        sodium_memzero(&g->ring, sizeof g->ring);
    if (!g->has_keys)
        g->out_head = g->out_tail; /* nobody would take them */
    pilots_choose(g);
}

/* Without keys every named beacon is spoken to as an original one. */
void pilots_choose(struct gossip *g)
{
    struct endpoint at[PILOT_PEERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < g->seed_count && count < PILOT_PEERS_MAX; i++) {
        const struct seed_state *s = &g->seed[i];
        if (!s->is_us && (s->seed.is_pilot || s->learned_pilot || !g->has_keys))
            at[count++] = s->seed.at;
    }
    pilot_set_peers(g->pilot, at, count, g->now_ns);
}

static const struct seed_state *seed_known(const struct seed_state *old, unsigned count,
                                           const struct gossip_seed *seed)
{
    for (unsigned i = 0; i < count; i++)
        if (endpoint_equal(&old[i].seed.at, &seed->at))
            return &old[i];
    return NULL;
}

void gossip_set_seeds(struct gossip *g, const struct gossip_seed *seeds, unsigned count,
                      uint64_t now_ns)
{
    struct seed_state next[GOSSIP_SEEDS_MAX];
    g->now_ns = now_ns;
    if (count > GOSSIP_SEEDS_MAX)
        count = GOSSIP_SEEDS_MAX;
    for (unsigned i = 0; i < count; i++) {
        const struct seed_state *known = seed_known(g->seed, g->seed_count, &seeds[i]);
        next[i] = known ? *known : (struct seed_state){.next_ns = now_ns, .pause_ns = SEED_MIN_NS};
        next[i].seed = seeds[i];
    }
    memcpy(g->seed, next, count * sizeof *next);
    g->seed_count = count;
    g->seeds_ns = now_ns;
    pilots_choose(g);
}

void gossip_set_state(struct gossip *g, const struct beacon_state *state, uint64_t now_ns)
{
    uint8_t bytes[GOSSIP_STATE_MAX];
    size_t len = write_beacon_state(bytes, sizeof bytes, state);
    assert(len > 0);
    store_state(g->store, bytes, len, now_ns);
}

void gossip_node_up(struct gossip *g, uint32_t id, uint8_t meta, uint64_t now_ns)
{
    /* Who else claims it is no news: to the table it would look like a claim that came after. */
    g->own_news = true;
    store_claim(g->store, id, meta, now_ns); /* no room is counted by the store */
    g->own_news = false;
}

void gossip_node_gone(struct gossip *g, uint32_t id, uint64_t now_ns)
{
    g->own_news = store_claimant(g->store, id) == STORE_NONE; /* nobody else has it: no other way */
    store_withdraw(g->store, id, now_ns);
    g->own_news = false;
}

void gossip_leave(struct gossip *g, uint64_t now_ns)
{
    unsigned neighbours[MEMBER_NEIGHBOURS_MAX];
    g->now_ns = now_ns;
    unsigned count = member_neighbours(g->members, neighbours);
    member_leave(g->members, now_ns);
    for (unsigned i = 0; i < count; i++) {
        uint8_t body[GOSSIP_BODY_MAX];
        unsigned written;
        const struct member *to = member_at(g->members, neighbours[i]);
        size_t len =
            write_gossip_members(body, sizeof body, &member_at(g->members, 0)->fact, 1, &written);
        for (int again = 0; again < 3; again++) /* nobody will repeat it */
            out_put(g, (int)neighbours[i], &to->fact.at, to->fact.id, GOSSIP_MEMBERS, body, len);
    }
}

/* --- frames to send --- */

void out_put(struct gossip *g, int member, const struct endpoint *to, uint32_t receiver,
             enum gossip_kind kind, const uint8_t *body, size_t len)
{
    if (g->out_tail - g->out_head == OUT_QUEUE || to->port == 0 || !g->has_keys)
        return;
    struct out_frame *f = &g->out[g->out_tail++ % OUT_QUEUE];
    *f = (struct out_frame){
        .to = *to, .receiver = receiver, .member = member, .kind = kind, .len = (uint16_t)len};
    memcpy(f->body, body, len);
}

/* A challenge is for a boot at an address: an echo from anywhere else is none. */
static uint64_t boot_at(const struct gossip *g, uint64_t boot, const struct endpoint *at)
{
    return boot ^ siphash(&g->place_key, at, sizeof *at);
}

bool echo_holds(const struct gossip *g, const struct gossip_head *head, const uint8_t *echo,
                const struct endpoint *from)
{
    return echo && seal_challenge_holds(g->challenge_secret, head->sender,
                                        boot_at(g, head->boot, from), g->now_ns, echo);
}

void hello_put(struct gossip *g, const struct endpoint *to, uint32_t id, uint64_t boot,
               const uint8_t *echo, size_t room)
{
    uint8_t body[128], challenge[GOSSIP_CHALLENGE_LEN];
    struct gossip_hello hello = {.echo = echo, .padded = room >= HELLO_LEN_MAX};
    if (boot != 0 && (!echo || hello.padded)) {
        seal_challenge(g->challenge_secret, id, boot_at(g, boot, to), g->now_ns, challenge);
        hello.challenge = challenge;
    }
    size_t len = write_gossip_hello(body, sizeof body, &hello);
    if (GOSSIP_SEAL_LEN + len <= room)
        out_put(g, -1, to, id, GOSSIP_HELLO, body, len);
}

void knock_mark(const struct gossip *g, const struct endpoint *to,
                uint8_t ret[static GOSSIP_CHALLENGE_LEN])
{
    uint64_t mark = siphash(&g->place_key, to, sizeof *to);
    memset(ret, 0, GOSSIP_CHALLENGE_LEN);
    memcpy(ret, &mark, sizeof mark);
}

void knock_put(struct gossip *g, const struct endpoint *to)
{
    uint8_t mark[GOSSIP_CHALLENGE_LEN];
    knock_mark(g, to, mark);
    hello_put(g, to, 0, 0, mark, GOSSIP_FRAME_MAX);
}

void members_put(struct gossip *g, unsigned member)
{
    const struct member *to = member_at(g->members, member);
    struct member_fact facts[GOSSIP_MEMBERS_MAX];
    unsigned count = 0, total = members_count(g->members);
    for (unsigned i = 0; i < total; i++) {
        const struct member *m = member_at(g->members, i);
        if (m->fact.id != 0)
            facts[count++] = m->fact;
        if (count < MEMBER_RUMOURS && i + 1 < total)
            continue;
        uint8_t body[GOSSIP_BODY_MAX];
        unsigned written;
        size_t len = write_gossip_members(body, sizeof body, facts, count, &written);
        assert(written == count);
        out_put(g, (int)member, &to->fact.at, to->fact.id, GOSSIP_MEMBERS, body, len);
        count = 0;
    }
}

/* --- for tests --- */

const struct store *gossip_store(const struct gossip *g)
{
    return g->store;
}

const struct members *gossip_members(const struct gossip *g)
{
    return g->members;
}
