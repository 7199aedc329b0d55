#include "gossip/seeds.h"

#include <assert.h>

/* --- the places of one source --- */

static bool is_same_name(const struct place *p, const struct peer_name *name, bool is_service)
{
    return p->is_service == is_service && p->name.port == name->port &&
           strcmp(p->name.host, name->host) == 0;
}

void seeds_begin(struct seeds *s, enum seeds_source source)
{
    memset(s->before, 0, sizeof s->before);
    memcpy(s->before, s->of[source], s->count[source] * sizeof s->before[0]);
    s->count[source] = 0;
}

void seeds_add(struct seeds *s, enum seeds_source source, const struct peer_name *name, uint32_t id,
               bool is_service)
{
    assert(s->count[source] < GOSSIP_SEEDS_MAX);
    struct place *p = &s->of[source][s->count[source]++];
    *p = (struct place){.name = *name, .id = id, .is_service = is_service};
    if (endpoint_parse_ip(name->host, &p->at[0])) {
        p->is_numeric = true;
        p->at[0].port = name->port;
        p->count = 1;
        return;
    }
    for (unsigned i = 0; i < GOSSIP_SEEDS_MAX; i++) {
        const struct place *b = &s->before[i];
        if (!is_same_name(b, name, is_service))
            continue;
        p->was_service = b->was_service;
        p->next_ns = b->next_ns;
        p->said = b->said;
        p->count = b->count;
        memcpy(p->at, b->at, sizeof p->at);
        return;
    }
}

void seeds_end(struct seeds *s, enum seeds_source source)
{
    /* Nobody finds what is behind the count; wiped so that no stale place is taken for one. */
    unsigned count = s->count[source];
    memset(&s->of[source][count], 0, (GOSSIP_SEEDS_MAX - count) * sizeof s->of[source][0]);
}

/* --- lookups --- */

struct place *seeds_due(struct seeds *s, uint64_t now_ns)
{
    struct place *due = NULL;
    for (unsigned source = 0; source < SEEDS_SOURCES; source++) {
        for (unsigned i = 0; i < s->count[source]; i++) {
            struct place *p = &s->of[source][i];
            if (!p->is_numeric && p->next_ns <= now_ns && (!due || p->next_ns < due->next_ns))
                due = p;
        }
    }
    return due;
}

struct place *seeds_next(struct seeds *s, struct place *after, const struct peer_name *name,
                         bool is_service)
{
    size_t from = after ? (size_t)(after - s->of[0]) + 1 : 0;
    for (size_t i = from; i < (size_t)SEEDS_SOURCES * GOSSIP_SEEDS_MAX; i++) {
        struct place *p = &s->of[i / GOSSIP_SEEDS_MAX][i % GOSSIP_SEEDS_MAX];
        if (i % GOSSIP_SEEDS_MAX < s->count[i / GOSSIP_SEEDS_MAX] &&
            is_same_name(p, name, is_service))
            return p;
    }
    return NULL;
}

/* --- the union --- */

bool seeds_is_plausible(const struct endpoint *e, enum ip_scope own)
{
    switch (ip_scope(e->ip)) {
    case SCOPE_GLOBAL:
        return true;
    case SCOPE_PRIVATE:
        return own != SCOPE_GLOBAL;
    case SCOPE_LOOPBACK:
        return own == SCOPE_LOOPBACK;
    case SCOPE_LINK:  /* useless without an interface, which no list names */
    case SCOPE_NEVER: /* no beacon can be there */
        break;
    }
    return false;
}

static bool may_be_meant(const struct endpoint *e, enum seeds_source source, enum ip_scope own)
{
    if (source == SEEDS_REGISTRY)
        return seeds_is_plausible(e, own);
    return source != SEEDS_DNS || ip_scope(e->ip) != SCOPE_NEVER;
}

/* False: no room. */
static bool unite(struct gossip_seed *seeds, unsigned *count, const struct gossip_seed *seed)
{
    for (unsigned i = 0; i < *count; i++) {
        if (!endpoint_equal(&seeds[i].at, &seed->at))
            continue;
        seeds[i].id = seeds[i].id ? seeds[i].id : seed->id;
        seeds[i].is_pilot = seeds[i].is_pilot || seed->is_pilot;
        return true;
    }
    if (*count == GOSSIP_SEEDS_MAX)
        return false;
    seeds[(*count)++] = *seed;
    return true;
}

unsigned seeds_union(const struct seeds *s, enum ip_scope own, bool all_pilot,
                     struct gossip_seed ret[static GOSSIP_SEEDS_MAX], unsigned *ret_left)
{
    unsigned count = 0;
    *ret_left = 0;
    for (unsigned source = 0; source < SEEDS_SOURCES; source++) {
        for (unsigned i = 0; i < s->count[source]; i++) {
            const struct place *p = &s->of[source][i];
            struct gossip_seed seed = {.id = p->id, .is_pilot = p->name.is_pilot || all_pilot};
            for (unsigned a = 0; a < p->count; a++) {
                seed.at = p->at[a];
                if (may_be_meant(&seed.at, (enum seeds_source)source, own))
                    *ret_left += !unite(ret, &count, &seed);
            }
        }
    }
    return count;
}
