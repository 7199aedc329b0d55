#include <assert.h>
#include "server/memory.h"
#include "server/nursery.h"
#include "server/punch.h"
#include "server/server.h"

enum {
    RELAY_CELLS = 1 << 14, /* sources per limiter row; 16 bytes each */
    RELAY_IP_CELLS = 1 << 13,
    REPLY_CELLS = 1 << 16, /* four or five prefixes a source */
    PUNCH_CELLS = 1 << 14,
    VERIFY_CELLS = 1 << 12,
    NOTIFY_CELLS = 1 << 12,
    TOTAL_CELLS = 2,
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

/* Of the routes to other beacons' nodes likewise; without a mesh there is room for none. */
static uint32_t lane_remote(const struct config *c, unsigned lanes)
{
    return config_has_mesh(c) ? lane_nodes(c->max_routes, lanes) : 0;
}

static size_t lane_size(uint32_t nodes, uint32_t remote, bool sessions)
{
    size_t n = 0;
    n += align64(sizeof(struct lane));
    n += align64(routes_size(nodes, remote));
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
    bool sessions = config_has_sessions(c), mesh = config_has_mesh(c);
    size_t n = align64(sizeof(struct server));
    n += lanes * lane_size(lane_nodes(c->max_nodes, lanes), lane_remote(c, lanes), sessions);
    n += mesh ? lanes * (align64(handoff_size()) + align64(sizeof(struct journal))) : 0;
    n += sessions ? lane_size(0, 0, true) : 0;
    n += mesh ? lane_size(0, 0, sessions) : 0;
    return n;
}

static void *take(uint8_t **at, size_t size)
{
    void *memory = *at;
    *at += align64(size);
    return memory;
}

/* How many rows a lane has. */
struct room {
    uint32_t nodes, remote;
};

/* Gives a lane its parts, all but what leads to other threads. */
static struct lane *lane_init(uint8_t **at, struct server *s, unsigned index, struct room room,
                              struct siphash_key key)
{
    struct lane *l = take(at, sizeof *l);
    l->server = s;
    l->index = index;
    void *routes = take(at, routes_size(room.nodes, room.remote));
    l->routes = routes_init(routes, room.nodes, room.remote, key);
    l->mailbox = take(at, sizeof *l->mailbox);
    mailbox_init(l->mailbox);
    l->grants = grant_memory_init(take(at, grant_memory_size()));
    l->nursery = nursery_init(take(at, nursery_size(room.nodes)), room.nodes);
    l->talkers = talkers_init(take(at, talkers_size()));
    struct limiter *limiter[LIMITERS] = {&l->relay,  &l->relay_ip, &l->reply, &l->punch,
                                         &l->verify, &l->notify,   &l->total};
    l->source.bad = true; /* of endpoint [::]:0 with local 0, which is what the zeros say */
    l->hashed_as = route_hash(l->routes, 0);
    for (int i = 0; i < LIMITERS; i++)
        limiter_init(limiter[i], take(at, limiter_size(limiter_cells[i])), limiter_cells[i]);
    return l;
}

/* What leads from the lanes to the edge's and the mesh's threads. */
static void lanes_connect(uint8_t **at, struct server *s)
{
    for (unsigned i = 0; s->edge && i < server_lanes(s); i++)
        server_lane(s, i)->handoff = handoff_init(take(at, handoff_size()));
    for (unsigned i = 0; s->mesh && i < s->lane_count; i++) {
        struct lane *l = s->lane[i];
        l->to_mesh = handoff_init(take(at, handoff_size()));
        l->journal = take(at, sizeof *l->journal);
        routes_set_journal(l->routes, l->journal, &l->wake_mesh);
    }
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
    const struct room none = {0}, share = {lane_nodes(c->max_nodes, lanes), lane_remote(c, lanes)};
    for (unsigned i = 0; i < lanes; i++)
        s->lane[i] = lane_init(&at, s, i, share, route_key);
    if (config_has_sessions(c))
        s->edge = lane_init(&at, s, lanes, none, route_key);
    if (config_has_mesh(c))
        s->mesh = lane_init(&at, s, server_lanes(s), none, route_key);
    lanes_connect(&at, s);
    server_set_rules(s, rules);
    for (unsigned i = 0; i < server_lanes(s); i++)
        server_begin(server_lane(s, i));
    assert(at == (uint8_t *)memory + server_size(c, lanes));
    return s;
}

bool server_restore(struct server *s, const struct route *r, const uint8_t *key)
{
    if (r->id == 0 || r->at.port == 0 || r->class_ == ROUTE_BEACON || r->flags & ROUTE_STREAM)
        return false;
    struct routes *routes = s->lane[route_owner(s->owner_key, r->id, s->lane_count)]->routes;
    return route_put(routes, r, key) != ROUTE_FULL;
}
