#include <assert.h>
#include "server/policy.h"
#include "server/relay.h"

struct outgoing relay_rewrite(struct datagram *d, const struct route *to)
{
    struct outgoing out = {.bytes = d->bytes, .len = d->len, .to = to->at, .local = to->local};
    if (to->flags & ROUTE_WANTS_DEST) {
        msg_deliver_dest(d->bytes);
    } else {
        out.bytes = msg_deliver(d->bytes);
        out.len = d->len - (MSG_RELAY_HEAD_LEN - MSG_DELIVER_HEAD_LEN);
    }
    return out;
}

/* The sender id in a relay is a claim. It is proven when that id is registered at this source; by a
 * datagram never when it is registered by its session, wherever the datagram seems to come from. A
 * session has proved to hold a key, but one of first use is worth nothing against who has the id:
 * without a row it is believed (its last frames may come after its end), against another's not. */
static bool sender_proven(struct lane *l, const struct datagram *d, uint32_t sender,
                          const struct moment *now)
{
    const struct server *s = l->server;
    struct source *from = &l->source;
    struct route route;
    if (from->proven_at_ns == now->ns && from->sender == sender)
        return from->proven;
    const struct lane *owner = s->lane[route_owner(s->owner_key, sender, s->lane_count)];
    bool known = route_find(owner->routes, d->sender_hash, sender, &route);
    bool here = known && endpoint_equal(&route.at, &d->from);
    bool by_session = known && route.flags & ROUTE_STREAM;
    from->proven = d->session_id ? !known || (here && by_session) : here && !by_session;
    from->sender = sender;
    from->proven_at_ns = now->ns;
    return from->proven;
}

/* The budgets of the source, its session or endpoint and its address. VERDICT_RELAY_FORWARDED when
 * both had one left. */
static enum verdict relay_budget(struct lane *l, const struct datagram *d, const struct moment *now)
{
    const struct rules *rules = l->rules;
    struct source *from = &l->source;
    if (!from->has_hashes) {
        from->endpoint_hash =
            d->session_id ? limit_hash_pair(l, d->session_id, 0) : limit_hash_endpoint(l, &d->from);
        from->address_hash = limit_hash_source(l, &d->from, LIMIT_SENDS);
        from->has_hashes = true;
    }
    if (!limit_allows(&l->relay, from->endpoint_hash, rules->relay_rate, now->ns))
        return VERDICT_RELAY_LIMITED;
    if (!limit_take(&l->relay_ip, from->address_hash, rules->relay_ip_rate, now->ns))
        return VERDICT_RELAY_IP_LIMITED;
    limit_take(&l->relay, from->endpoint_hash, rules->relay_rate, now->ns);
    return VERDICT_RELAY_FORWARDED;
}

/* The beacon that has the destination; NULL: none that would take it. */
static const struct peer *next_beacon(const struct lane *l, const struct route *to)
{
    unsigned index = route_beacon(to);
    if (!l->peers || index >= l->peers->count || !l->peers->of[index].usable)
        return NULL;
    return &l->peers->of[index];
}

/* From a beacon, by its own budget. */
static enum verdict relay_admit_beacon(struct lane *l, const struct datagram *d,
                                       const struct route *to, const struct moment *now)
{
    struct source *from = &l->source;
    if (to->class_ == ROUTE_BEACON)
        return VERDICT_RELAY_SECOND_HOP;
    if (!from->has_hashes) {
        from->endpoint_hash = limit_hash_endpoint(l, &d->from);
        from->has_hashes = true; /* the address has no budget here, so its hash is not wanted */
    }
    if (!limit_take(&l->relay, from->endpoint_hash, l->rules->peer_rate, now->ns))
        return VERDICT_RELAY_PEER_LIMITED;
    return VERDICT_RELAY_FROM_BEACON;
}

static bool is_forwarded(enum verdict v)
{
    return v == VERDICT_RELAY_FORWARDED || v == VERDICT_RELAY_FORWARDED_UNPROVEN ||
           v == VERDICT_RELAY_TO_BEACON || v == VERDICT_RELAY_FROM_BEACON;
}

/* May it be sent on: the verdict if so, or why not. */
static enum verdict relay_admit(struct lane *l, const struct datagram *d, uint32_t sender,
                                const struct route *to, const struct moment *now)
{
    if (l->source.is_beacon)
        return relay_admit_beacon(l, d, to, now);
    if (to->class_ == ROUTE_BEACON && !next_beacon(l, to))
        return VERDICT_RELAY_NO_ROUTE;
    bool proven = sender_proven(l, d, sender, now);
    if (!proven && l->rules->strict_relay_source)
        return VERDICT_RELAY_SENDER_MISMATCH;
    enum verdict v = relay_budget(l, d, now);
    if (v != VERDICT_RELAY_FORWARDED)
        return v;
    if (to->class_ == ROUTE_BEACON)
        return VERDICT_RELAY_TO_BEACON;
    return proven ? VERDICT_RELAY_FORWARDED : VERDICT_RELAY_FORWARDED_UNPROVEN;
}

/* To a node of another beacon: the same message, byte for byte. */
static struct outgoing relay_pass_on(const struct lane *l, const struct datagram *d,
                                     const struct route *to)
{
    return (struct outgoing){.bytes = d->bytes, .len = d->len, .to = next_beacon(l, to)->at};
}

/* To a node behind a stream: the edge takes it from the handoff. */
static bool relay_hand_off(struct lane *l, struct datagram *d, const struct route *to)
{
    assert(l->handoff);
    struct outgoing o = relay_rewrite(d, to);
    if (!handoff_put(l->handoff, to->id, o.bytes, o.len))
        return false;
    l->wake_edge = true;
    return true;
}

enum verdict relay_input(struct lane *l, struct datagram *d, const struct moment *now,
                         struct outbox *out)
{
    const struct server *s = l->server;
    struct msg_relay m;
    struct route to;
    if (!read_relay(d->bytes, d->len, &m))
        return VERDICT_DROPPED_SHORT;
    const struct lane *owner = s->lane[route_owner(s->owner_key, m.dest, s->lane_count)];
    if (!route_find_way(owner->routes, d->dest_hash, m.dest, &to))
        return VERDICT_RELAY_NO_ROUTE;
    enum verdict v = relay_admit(l, d, m.sender, &to, now);
    if (!is_forwarded(v))
        return v;
    if (to.class_ == ROUTE_BEACON)
        out->out[out->count++] = relay_pass_on(l, d, &to);
    else if (!(to.flags & ROUTE_STREAM))
        out->out[out->count++] = relay_rewrite(d, &to);
    else if (!relay_hand_off(l, d, &to))
        return VERDICT_RELAY_STREAM_FULL;
    talkers_note(l->talkers, m.sender, &d->from, d->len);
    return v;
}
