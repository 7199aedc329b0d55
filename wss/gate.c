#include <sodium/randombytes.h>
#include <stdlib.h>
#include "proto/siphash.h"
#include "server/limit.h"
#include "server/policy.h"
#include "wss/gate.h"
#include "wss/sources.h"

struct gate {
    struct sources *strangers; /* on public listeners */
    struct sources *others;
    struct siphash_key key;
    struct limiter handshakes; /* by source */
    struct limiter total;      /* one cell: of all */
    uint64_t total_cells[2];
    uint64_t cells[]; /* of `handshakes` */
};

struct gate *gate_new(unsigned connections)
{
    struct gate *g = calloc(1, sizeof *g + limiter_size(GATE_CELLS));
    if (!g)
        return NULL;
    static_assert(sizeof g->total_cells == 2 * sizeof(uint64_t), "limiter_size(1)");
    randombytes_buf(&g->key, sizeof g->key);
    limiter_init(&g->handshakes, g->cells, GATE_CELLS);
    limiter_init(&g->total, g->total_cells, 1);
    g->strangers = sources_new(connections, g->key);
    g->others = sources_new(connections, g->key);
    if (!g->strangers || !g->others) {
        gate_free(g);
        return NULL;
    }
    return g;
}

void gate_free(struct gate *g)
{
    if (g->strangers)
        sources_free(g->strangers);
    if (g->others)
        sources_free(g->others);
    free(g);
}

static bool is_local(const struct edge_listener *listener)
{
    return listener->unix_path != NULL;
}

static bool place_taken(struct gate *g, const struct edge_limits *limits,
                        const struct edge_listener *listener, const struct endpoint *from)
{
    if (is_local(listener))
        return true;
    if (listener->is_public)
        return sources_take(g->strangers, from, limits->per_ipv4, limits->per_ipv6_64,
                            limits->per_ipv6_64 * EDGE_IPV6_48_TIMES);
    return sources_take(g->others, from, GATE_PER_IPV4, GATE_PER_IPV6_64,
                        GATE_PER_IPV6_64 * EDGE_IPV6_48_TIMES);
}

/* A source and the networks that it stands in: wider ones may have multiples, so that a flood that
 * keeps each address within its own budget cannot spend everyone's. */
struct level {
    unsigned bits_v4, bits_v6;
    uint32_t times;
};
static const struct level levels[] = {{32, 64, 1}, {24, 48, 8}, {16, 32, 64}};
enum { LEVELS = sizeof levels / sizeof *levels };

static uint64_t level_hash(const struct gate *g, const struct endpoint *from, unsigned i)
{
    unsigned bits = endpoint_is_v4(from) ? levels[i].bits_v4 : levels[i].bits_v6;
    struct endpoint prefix = endpoint_prefix(from, bits);
    prefix.port = (uint16_t)bits; /* a /24 and a /32 of the same address are two keys */
    return siphash(&g->key, &prefix, sizeof prefix);
}

/* All budgets are asked before any is taken: who has spent its own must not spend everyone's. */
static bool handshake_taken(struct gate *g, const struct edge_limits *limits,
                            const struct endpoint *from, uint64_t now_ns)
{
    uint64_t hash[LEVELS];
    struct rate rate[LEVELS];
    for (unsigned i = 0; i < LEVELS; i++) {
        hash[i] = level_hash(g, from, i);
        rate[i] = rate_times(limits->handshakes, levels[i].times);
        if (!limit_allows(&g->handshakes, hash[i], rate[i], now_ns))
            return false;
    }
    if (!limit_take(&g->total, 0, limits->handshakes_total, now_ns))
        return false;
    for (unsigned i = 0; i < LEVELS; i++)
        (void)limit_take(&g->handshakes, hash[i], rate[i], now_ns); /* allowed just now */
    return true;
}

enum gate_verdict gate_enter(struct gate *g, const struct edge_limits *limits,
                             const struct edge_listener *listener, const struct endpoint *from,
                             uint64_t now_ns)
{
    if (!place_taken(g, limits, listener, from))
        return GATE_SOURCE_FULL;
    if (listener->tls && listener->is_public && !handshake_taken(g, limits, from, now_ns)) {
        gate_leave(g, listener, from);
        return GATE_HANDSHAKES_SPENT;
    }
    return GATE_ENTERED;
}

void gate_leave(struct gate *g, const struct edge_listener *listener, const struct endpoint *from)
{
    if (!is_local(listener))
        sources_give(listener->is_public ? g->strangers : g->others, from);
}
