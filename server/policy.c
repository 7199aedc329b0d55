#include "server/peers.h"
#include "server/policy.h"

bool source_is_bad(const struct server *s, const struct datagram *d)
{
    if (d->from.port == 0 || ip_scope(d->from.ip) == SCOPE_NEVER)
        return true;
    return d->from.port == s->bound.port &&
           (endpoint_same_ip(&d->from, &s->bound) || service_has(&s->service, d->from.ip));
}

bool source_is_beacon(const struct lane *l, const struct datagram *d)
{
    return l->peers && peers_find(l->peers, &d->from) != PEERS_NONE;
}

bool source_may_register(const struct lane *l, const struct datagram *d)
{
    enum ip_scope scope = ip_scope(d->from.ip);
    if (source_is_beacon(l, d))
        return false;
    if (scope == SCOPE_GLOBAL)
        return true;
    if (scope == SCOPE_LINK || scope == SCOPE_NEVER)
        return false;
    switch (l->rules->allow_private) {
    case PRIVATE_YES:
        return true;
    case PRIVATE_NO:
        return false;
    case PRIVATE_AUTO:
        break;
    }
    return !d->local_is_global;
}

uint64_t limit_hash_endpoint(const struct lane *l, const struct endpoint *e)
{
    return siphash(&l->server->limit_key, e, sizeof *e);
}

uint64_t limit_hash_prefix(const struct lane *l, const struct endpoint *e, unsigned bits,
                           enum limit_kind kind)
{
    struct endpoint prefix = endpoint_prefix(e, bits);
    prefix.port = (uint16_t)(kind << 8 | bits); /* a /24 and a /32 of one address are two keys */
    return siphash(&l->server->limit_key, &prefix, sizeof prefix);
}

uint64_t limit_hash_pair(const struct lane *l, uint32_t a, uint32_t b)
{
    const uint32_t pair[2] = {a, b};
    return siphash(&l->server->limit_key, pair, sizeof pair);
}

struct prefix_share {
    uint8_t bits;
    uint16_t times; /* of the rate of one address */
};
static const struct prefix_share shares_v4[] = {{32, 1}, {24, 32}, {20, 256}, {18, 768}};
static const struct prefix_share shares_v6[] = {{128, 1}, {64, 2}, {56, 3}, {48, 4}, {32, 64}};

struct rate rate_times(struct rate rate, uint32_t times)
{
    uint64_t per_s = (uint64_t)rate.per_s * times, burst = (uint64_t)rate.burst * times;
    rate.per_s = per_s > 1000000000 ? 1000000000 : (uint32_t)per_s;
    rate.burst = burst > UINT32_MAX ? UINT32_MAX : (uint32_t)burst;
    return rate;
}

enum reply_budget reply_take(struct lane *l, const struct endpoint *to, const struct moment *now)
{
    if (ip_scope(to->ip) == SCOPE_LOOPBACK || endpoint_same_ip(to, &l->server->bound))
        return REPLY_ALLOWED;
    bool v4 = endpoint_is_v4(to);
    const struct prefix_share *share = v4 ? shares_v4 : shares_v6;
    unsigned count = v4 ? sizeof shares_v4 / sizeof *share : sizeof shares_v6 / sizeof *share;
    uint64_t hash[sizeof shares_v6 / sizeof *shares_v6];
    if (l->rules->reply_rate.per_s == 0)
        count = 0;
    for (unsigned i = 0; i < count; i++) {
        hash[i] = limit_hash_prefix(l, to, share[i].bits, LIMIT_IS_NAMED);
        if (!limit_allows(&l->reply, hash[i], rate_times(l->rules->reply_rate, share[i].times),
                          now->ns))
            return REPLY_PREFIX_SPENT;
    }
    if (!limit_take(&l->total, TOTAL_REPLY, l->rules->reply_total, now->ns))
        return REPLY_TOTAL_SPENT;
    for (unsigned i = 0; i < count; i++)
        limit_take(&l->reply, hash[i], rate_times(l->rules->reply_rate, share[i].times), now->ns);
    return REPLY_ALLOWED;
}

uint64_t limit_hash_source(const struct lane *l, const struct endpoint *from, enum limit_kind kind)
{
    return limit_hash_prefix(l, from, endpoint_host_bits(from), kind);
}

bool whitelisted(const struct whitelist *w, const struct endpoint *from)
{
    for (unsigned i = 0; i < w->count; i++)
        if (endpoint_same_ip(&w->ip[i], from))
            return true;
    return w->all;
}
