#include <string.h>
#include "gossip/gossip_state.h"

/* --- out --- */

static size_t members_pass(const struct gossip *g, struct gossip_passed *at,
                           uint8_t body[static GOSSIP_BODY_MAX])
{
    struct member_fact facts[MEMBER_RUMOURS];
    unsigned count = 0, written;
    for (; at->member < members_count(g->members) && count < MEMBER_RUMOURS; at->member++) {
        const struct member_fact *f = &member_at(g->members, at->member)->fact;
        if (at->member > 0 && f->id != 0 && f->state <= MEMBER_SUSPECT)
            facts[count++] = *f;
    }
    return count ? write_gossip_members(body, GOSSIP_BODY_MAX, facts, count, &written) : 0;
}

static size_t log_pass(const struct gossip *g, struct gossip_passed *at,
                       uint8_t body[static GOSSIP_BODY_MAX])
{
    struct gossip_delta delta;
    bool restart;
    for (; at->owner < members_count(g->members); at->owner++) {
        const struct member_fact *f = &member_at(g->members, at->owner)->fact;
        const struct store_owner *o = store_owner(g->store, at->owner);
        if (at->owner > 0 && f->id != 0 && f->state <= MEMBER_SUSPECT && o->boot == f->boot &&
            store_read(g->store, at->owner, &at->place, GOSSIP_BODY_MAX, &delta, &restart))
            return write_gossip_delta(body, GOSSIP_BODY_MAX, &delta);
        at->place = (struct store_place){.version = 0};
    }
    return 0;
}

size_t gossip_pass(const struct gossip *g, struct gossip_passed *at, enum gossip_kind *ret_kind,
                   uint8_t body[static GOSSIP_BODY_MAX])
{
    size_t len = members_pass(g, at, body);
    *ret_kind = GOSSIP_MEMBERS;
    if (len > 0)
        return len;
    *ret_kind = GOSSIP_DELTA;
    return log_pass(g, at, body);
}

/* --- in --- */

static bool members_inherit(struct gossip *g, const uint8_t *body, size_t len)
{
    struct member_fact facts[GOSSIP_MEMBERS_MAX];
    unsigned count;
    uint64_t reboot;
    if (!read_gossip_members(body, len, facts, &count))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (facts[i].id != g->config.beacon_id)
            member_told(g->members, &facts[i], g->now_ns, &reboot);
    gossip_tick(g, g->now_ns); /* makes them owners in the store */
    return true;
}

bool gossip_inherit(struct gossip *g, enum gossip_kind kind, const uint8_t *body, size_t len,
                    uint64_t now_ns)
{
    struct gossip_delta delta;
    g->now_ns = now_ns;
    if (kind == GOSSIP_MEMBERS)
        return members_inherit(g, body, len);
    if (kind != GOSSIP_DELTA || !read_gossip_delta(body, len, &delta))
        return false;
    int owner = member_find(g->members, delta.owner);
    if (owner > 0)
        store_apply(g->store, (unsigned)owner, &delta, now_ns);
    return true;
}
