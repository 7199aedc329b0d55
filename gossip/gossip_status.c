#include <stdio.h>
#include <string.h>
#include "gossip/gossip_state.h"

static enum gossip_peer_state state_of(const struct gossip *g, unsigned member)
{
    const struct member *m = member_at(g->members, member);
    if (member != 0 && m->fact.state <= MEMBER_SUSPECT && g->session[member].boot == 0)
        return PEER_SILENT; /* known by hearsay */
    switch ((enum member_state)m->fact.state) {
    case MEMBER_ALIVE:
        return PEER_ALIVE;
    case MEMBER_SUSPECT:
        return PEER_SUSPECT;
    case MEMBER_LEFT:
        return PEER_LEFT;
    case MEMBER_DEAD:
    case MEMBER_STATE_COUNT:
        break;
    }
    return PEER_DEAD;
}

static void say_refused(struct gossip_peer *p, uint32_t refused)
{
    if (refused)
        snprintf(p->error, sizeof p->error, "%u nodes not taken: no room for more", refused);
}

static void fill_member(const struct gossip *g, unsigned member, struct gossip_peer *ret)
{
    const struct member *m = member_at(g->members, member);
    const struct store_owner *o = store_owner(g->store, member);
    const struct peer_session *s = &g->session[member];
    *ret = (struct gossip_peer){.id = member ? m->fact.id : g->config.beacon_id,
                                .at = m->fact.at,
                                .state = state_of(g, member),
                                .boot = m->fact.boot,
                                .rtt_ns = m->rtt_ns,
                                .heard_ns = m->heard_ns,
                                .rows = o->rows,
                                .frames_in = s->frames_in,
                                .bytes_in = s->bytes_in,
                                .frames_out = s->frames_out,
                                .bytes_out = s->bytes_out};
    if (!o->state_len || !read_beacon_state(o->state, o->state_len, &ret->says))
        ret->says = (struct beacon_state){.draining = false};
    snprintf(ret->error, sizeof ret->error, "%s", s->error ? s->error : "");
    say_refused(ret, o->refused);
}

static void fill_pilot(const struct gossip *g, unsigned index, const struct endpoint *at,
                       uint64_t heard_ns, uint32_t beacon, struct gossip_peer *ret)
{
    const struct store_owner *o = store_owner(g->store, STORE_MEMBERS_MAX + index);
    *ret = (struct gossip_peer){
        .id = beacon, .at = *at, .state = PEER_PILOT, .heard_ns = heard_ns, .rows = o->rows};
    say_refused(ret, o->refused);
}

/* A seed where nobody has answered. */
static bool fill_seed(const struct gossip *g, const struct seed_state *s, struct gossip_peer *ret)
{
    struct endpoint at;
    uint64_t heard_ns;
    uint32_t beacon;
    if (s->is_us)
        return false;
    for (unsigned i = 1; i < members_count(g->members); i++) {
        const struct member_fact *f = &member_at(g->members, i)->fact;
        if (f->id && (endpoint_equal(&f->at, &s->seed.at) || f->id == s->seed.id))
            return false;
    }
    for (unsigned i = 0; i < pilot_source_count(g->pilot); i++)
        if (pilot_source(g->pilot, i, &at, &heard_ns, &beacon) &&
            endpoint_same_ip(&at, &s->seed.at))
            return false;
    *ret = (struct gossip_peer){.id = s->seed.id, .at = s->seed.at, .state = PEER_SILENT};
    snprintf(ret->error, sizeof ret->error, "%s",
             s->seed.is_pilot || !g->has_keys ? "has sent no nodes yet"
                                              : "does not answer, or has none of our keys");
    return true;
}

unsigned gossip_peers(const struct gossip *g, struct gossip_peer *ret, unsigned max)
{
    unsigned count = 0;
    for (unsigned i = 0; i < members_count(g->members) && count < max; i++)
        if (member_at(g->members, i)->fact.id != 0 || i == 0)
            fill_member(g, i, &ret[count++]);
    for (unsigned i = 0; i < pilot_source_count(g->pilot) && count < max; i++) {
        struct endpoint at;
        uint64_t heard_ns;
        uint32_t beacon;
        if (pilot_source(g->pilot, i, &at, &heard_ns, &beacon))
            fill_pilot(g, i, &at, heard_ns, beacon, &ret[count++]);
    }
    for (unsigned i = 0; i < g->seed_count && count < max; i++)
        count += fill_seed(g, &g->seed[i], &ret[count]);
    return count;
}

void gossip_totals(const struct gossip *g, struct gossip_totals *ret)
{
    *ret = (struct gossip_totals){
        .rows = store_rows(g->store),
        .rows_max = store_capacity(g->store),
        .own_rows = store_owner(g->store, STORE_SELF)->rows,
        .frames_in = g->frames_in,
        .bytes_in = g->bytes_in,
        .frames_out = g->frames_out,
        .bytes_out = g->bytes_out,
        .health = member_health(g->members),
        .boot = g->boot,
        .duplicate_id = gossip_muted(g),
        .duplicate_at = g->duplicate_at,
        .sync = *sync_stats(g->sync),
    };
    memcpy(ret->verdict, g->verdict, sizeof ret->verdict);
    for (unsigned i = 0; i < members_count(g->members); i++) {
        ret->refused_rows += store_owner(g->store, i)->refused;
        if (i > 0 && member_at(g->members, i)->fact.id != 0)
            ret->peers[state_of(g, i)]++;
    }
    for (unsigned i = 0; i < pilot_source_count(g->pilot); i++) {
        const struct store_owner *o = store_owner(g->store, STORE_MEMBERS_MAX + i);
        ret->peers[PEER_PILOT] += o->beacon != 0;
        ret->refused_rows += o->refused;
    }
}

bool gossip_settled(const struct gossip *g)
{
    return sync_settled(g->sync);
}

unsigned gossip_successors(const struct gossip *g, struct endpoint *ret, unsigned max)
{
    unsigned count = 0;
    for (unsigned i = 1; i < members_count(g->members) && count < max; i++) {
        const struct store_owner *o = store_owner(g->store, i);
        const struct member_fact *f = &member_at(g->members, i)->fact;
        struct beacon_state says;
        if (f->id == 0 || f->state != MEMBER_ALIVE || !o->state_len ||
            !read_beacon_state(o->state, o->state_len, &says) || says.draining)
            continue;
        ret[count++] = says.endpoint_count ? says.endpoint[0] : f->at;
    }
    return count;
}
