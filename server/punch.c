#include <assert.h>
#include <sodium/crypto_sign.h>
#include "server/answer.h"
#include "server/policy.h"
#include "server/punch.h"
#include "server/register.h"

/* A grant is known by what it says (requester, target, expiry), not by its signature: a signer can
 * make many signatures of one text. */
struct grant_used {
    uint64_t grant_hash, source_hash;
    int64_t expiry; /* Unix seconds; 0: free */
};

enum {
    GRANT_WAYS = 4,
    GRANT_SETS = 1024,
    NAMED_TIMES = 32, /* a /24 (IPv6: /48) may be named so many times as often as one address */
};

struct grant_memory {
    struct grant_used set[GRANT_SETS][GRANT_WAYS];
};

size_t grant_memory_size(void)
{
    return sizeof(struct grant_memory);
}

struct grant_memory *grant_memory_init(void *memory)
{
    return memory;
}

static uint64_t grant_hash(const struct lane *l, const struct msg_punch *m)
{
    const uint64_t said[2] = {(uint64_t)m->requester << 32 | m->target, (uint64_t)m->grant_expiry};
    return siphash(&l->server->limit_key, said, sizeof said);
}

static struct grant_used *grant_find(struct grant_memory *g, uint64_t hash)
{
    struct grant_used *set = g->set[hash % GRANT_SETS];
    for (int i = 0; i < GRANT_WAYS; i++)
        if (set[i].expiry != 0 && set[i].grant_hash == hash)
            return &set[i];
    return NULL;
}

static void grant_remember(struct grant_memory *g, const struct grant_used *used)
{
    struct grant_used *set = g->set[used->grant_hash % GRANT_SETS], *place = &set[0];
    if (grant_find(g, used->grant_hash))
        return;
    for (int i = 1; i < GRANT_WAYS; i++)
        if (set[i].expiry < place->expiry)
            place = &set[i];
    if (place->expiry <= used->expiry)
        *place = *used; /* else `used` is the one that expires first */
}

static bool grant_signed(const struct msg_punch *m, const uint8_t key[static MSG_KEY_LEN])
{
    char text[MSG_GRANT_TEXT_MAX];
    size_t len = punch_grant_text(m, text);
    return crypto_sign_verify_detached(m->grant_signature, (const uint8_t *)text, len, key) == 0;
}

static bool grant_in_time(const struct msg_punch *m, const struct rules *rules, int64_t unix_s)
{
    if (m->grant_expiry < unix_s)
        return false;
    /* No overflow: both are at least unix_s, which is not negative. */
    return rules->grant_lifetime_s == 0 || m->grant_expiry - unix_s <= rules->grant_lifetime_s;
}

/* VERDICT_PUNCH_COMMANDED when the grant is good. The signature comes last: it costs as much as
 * twenty relays. */
static enum verdict grant_check(struct lane *l, const struct datagram *d, const struct msg_punch *m,
                                const struct moment *now, struct grant_used *ret_used)
{
    uint8_t key[MSG_KEY_LEN];
    if (!m->grant_signature)
        return VERDICT_PUNCH_GRANT_MISSING;
    if (!grant_in_time(m, l->rules, now->unix_s))
        return VERDICT_PUNCH_GRANT_BAD;
    const struct server *s = l->server;
    unsigned owner = route_owner(s->owner_key, m->target, s->lane_count);
    if (!route_find_key(s->lane[owner]->routes, m->target, key))
        return VERDICT_PUNCH_GRANT_NO_KEY;
    uint64_t source_hash = limit_hash_source(l, &d->from, LIMIT_SENDS);
    struct grant_used used = {grant_hash(l, m), source_hash, m->grant_expiry};
    const struct grant_used *known = grant_find(l->grants, used.grant_hash);
    if (known && known->source_hash != source_hash)
        return VERDICT_PUNCH_GRANT_REPLAYED;
    if (!limit_take(&l->verify, source_hash, l->rules->verify_rate, now->ns))
        return VERDICT_PUNCH_VERIFY_LIMITED;
    if (!grant_signed(m, key))
        return VERDICT_PUNCH_GRANT_BAD;
    *ret_used = used;
    return VERDICT_PUNCH_COMMANDED;
}

/* The addresses of a punch that could be a third party's: all but loopback. */
static bool can_be_forged(const struct endpoint *e)
{
    return ip_scope(e->ip) != SCOPE_LOOPBACK;
}

/* The rate at which two at a time may be taken: a punch between two nodes behind one address names
 * it twice. (A rate of 1/s cannot be halved: there the pair is named once a second, in two
 * commands.) */
static struct rate rate_of_pairs(struct rate rate)
{
    if (rate.per_s > 1)
        rate.per_s /= 2;
    if (rate.burst > 1)
        rate.burst /= 2;
    return rate;
}

/* The budgets that one punch spends. */
struct spending {
    unsigned count;
    struct {
        uint64_t hash;
        struct rate rate;
        enum verdict refusal;
    } of[6];
};

static void spend(struct spending *s, uint64_t hash, struct rate rate, enum verdict refusal)
{
    assert(s->count < sizeof s->of / sizeof *s->of);
    s->of[s->count].hash = hash;
    s->of[s->count].rate = rate;
    s->of[s->count++].refusal = refusal;
}

/* A command names where the other side hears UDP, so nobody is told of one behind a stream. */
static bool is_named(const struct route *r)
{
    return !(r->flags & ROUTE_STREAM);
}

/* A command names an address; what is spent is the budget of its host or of its network. */
static void spend_named(const struct lane *l, struct spending *s, const struct route *a,
                        const struct route *b, unsigned (*bits)(const struct endpoint *),
                        struct rate rate)
{
    uint64_t hash_a = limit_hash_prefix(l, &a->at, bits(&a->at), LIMIT_IS_NAMED);
    uint64_t hash_b = limit_hash_prefix(l, &b->at, bits(&b->at), LIMIT_IS_NAMED);
    bool spends_a = is_named(a) && can_be_forged(&a->at);
    bool spends_b = is_named(b) && can_be_forged(&b->at);
    bool same = spends_a && spends_b && hash_a == hash_b;
    if (spends_a)
        spend(s, hash_a, same ? rate_of_pairs(rate) : rate, VERDICT_PUNCH_VICTIM_LIMITED);
    if (spends_b && !same)
        spend(s, hash_b, rate, VERDICT_PUNCH_VICTIM_LIMITED);
}

/* All budgets are asked before any is taken. */
static enum verdict punch_budget(struct lane *l, const struct datagram *d,
                                 const struct route *requester, const struct route *target,
                                 const struct moment *now)
{
    const struct rules *rules = l->rules;
    struct spending s = {.count = 0};
    if (can_be_forged(&d->from))
        spend(&s, limit_hash_source(l, &d->from, LIMIT_SENDS), rules->punch_rate,
              VERDICT_PUNCH_LIMITED);
    spend(&s, limit_hash_pair(l, requester->id, target->id), rules->punch_pair_rate,
          VERDICT_PUNCH_PAIR_LIMITED);
    spend_named(l, &s, requester, target, endpoint_host_bits, rules->punch_victim_rate);
    spend_named(l, &s, requester, target, endpoint_network_bits,
                rate_times(rules->punch_victim_rate, NAMED_TIMES));
    for (unsigned i = 0; i < s.count; i++)
        if (!limit_allows(&l->punch, s.of[i].hash, s.of[i].rate, now->ns))
            return s.of[i].refusal;
    if (!limit_take(&l->total, TOTAL_PUNCH, rules->punch_total, now->ns))
        return VERDICT_PUNCH_TOTAL_LIMITED;
    for (unsigned i = 0; i < s.count; i++)
        limit_take(&l->punch, s.of[i].hash, s.of[i].rate, now->ns);
    return VERDICT_PUNCH_COMMANDED;
}

static void command(struct lane *l, struct outbox *out, const struct route *to,
                    const struct route *peer)
{
    if (!is_named(peer))
        return;
    struct writer w = answer_begin(out);
    write_address(&w, MSG_PUNCH_COMMAND, &peer->at);
    answer_send_route(l, out, &w, to); /* a full handoff is counted there: the side asks again */
}

/* A datagram's source is registered by the request. A session was registered before, and only the
 * one that holds the row may ask. */
static bool requester_row(struct lane *l, const struct datagram *d, const struct msg_punch *m,
                          const struct moment *now, struct route *ret)
{
    if (d->session_id) {
        assert(d->session_id == m->requester); /* checked when the frame came */
        return server_find(l->server, m->requester, ret) && ret->flags & ROUTE_STREAM &&
               endpoint_equal(&ret->at, &d->from);
    }
    struct claim claim = {.node_id = m->requester, .dest = CLAIM_DEST_KEEP};
    return registration_ok(register_node(l, d, &claim, now)) &&
           server_find(l->server, m->requester, ret);
}

enum verdict punch_input(struct lane *l, struct datagram *d, const struct moment *now,
                         struct outbox *out)
{
    struct msg_punch m;
    struct route requester, target;
    if (!read_punch(d->bytes, d->len, &m))
        return VERDICT_DROPPED_SHORT;
    if (!requester_row(l, d, &m, now, &requester))
        return VERDICT_PUNCH_NOT_STORED;
    if (!server_find(l->server, m.target, &target))
        return VERDICT_PUNCH_UNKNOWN_TARGET;
    if (!is_named(&requester) && !is_named(&target))
        return VERDICT_PUNCH_NO_ENDPOINT;
    struct grant_used used = {.expiry = 0};
    if (l->rules->require_punch_token) {
        enum verdict v = grant_check(l, d, &m, now, &used);
        if (v != VERDICT_PUNCH_COMMANDED)
            return v;
    }
    if (!whitelisted(&l->rules->punch_whitelist, &d->from)) {
        enum verdict v = punch_budget(l, d, &requester, &target, now);
        if (v != VERDICT_PUNCH_COMMANDED)
            return v;
    }
    if (used.expiry != 0) /* only now: what the budgets refuse must not fill the memory */
        grant_remember(l->grants, &used);
    command(l, out, &requester, &target);
    command(l, out, &target, &requester);
    return VERDICT_PUNCH_COMMANDED;
}
