/* rig_mesh - the rig with a mesh: a server that knows other beacons and has room for their nodes.
 */
#ifndef BEACON_TESTS_RIG_MESH_H
#define BEACON_TESTS_RIG_MESH_H

#include "tests/rig.h"

#define AT_PEER_1 "192.0.2.1:9001"
#define AT_PEER_2 "192.0.2.2:9001"
#define AT_PEER_3 "[2001:db8:b::3]:9001"

static inline void rig_open_mesh(struct rig *r, unsigned lanes, uint32_t max_nodes,
                                 uint32_t max_routes, bool sessions)
{
    uint8_t seed[64];
    rig_open_with(r, lanes, max_nodes, sessions);
    free(r->server);
    for (unsigned i = 0; i < sizeof seed; i++)
        seed[i] = (uint8_t)(37 * i + 11);
    snprintf(r->config.peers, sizeof r->config.peers, "192.0.2.1");
    r->config.max_routes = max_routes;
    size_t size = server_size(&r->config, lanes);
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    r->server = server_init(memory, &r->config, lanes, &r->rules, seed);
}

/* Beacons at the three addresses above, with the indices 1 to 3; the third is not usable. */
static inline void rig_peers(struct rig *r, struct peers *p)
{
    memset(p, 0, sizeof *p);
    p->count = 4;
    p->of[1] = (struct peer){endpoint_at(AT_PEER_1), true};
    p->of[2] = (struct peer){endpoint_at(AT_PEER_2), true};
    p->of[3] = (struct peer){endpoint_at(AT_PEER_3), false};
    peers_index(p);
    server_set_peers(r->server, p);
    for (unsigned i = 0; i < server_lanes(r->server); i++)
        server_begin(server_lane(r->server, i)); /* as before each batch, of letters too */
}

/* A letter about one node, which is read at once. */
static inline void rig_route(struct rig *r, enum mail_kind kind, uint32_t id, unsigned beacon)
{
    struct mail mail = {.kind = kind, .node_id = beacon, .class_ = ROUTE_SIGNED, .stream = true};
    assert_true(mail_add_id(&mail, id));
    assert_true(mailbox_put(r->server->lane[rig_owner(r, id)]->mailbox, &mail));
    rig_mail(r);
}

/* The beacon that a relay to `id` would go to, PEERS_NONE: none. */
static inline unsigned rig_beacon_of(const struct rig *r, uint32_t id)
{
    struct route route;
    return server_find_way(r->server, id, &route) && route.class_ == ROUTE_BEACON
               ? route_beacon(&route)
               : PEERS_NONE;
}

#endif
