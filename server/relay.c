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

/* The sender id in a relay is a claim. It is proven when that id is registered at this source. */
static bool sender_proven(const struct lane *l, const struct datagram *d, uint32_t sender)
{
    const struct server *s = l->server;
    struct route route;
    const struct lane *owner = s->lane[route_owner(s->owner_key, sender, s->lane_count)];
    return route_find(owner->routes, d->sender_hash, sender, &route) &&
           endpoint_equal(&route.at, &d->from);
}

enum verdict relay_input(struct lane *l, struct datagram *d, const struct moment *now,
                         struct outbox *out)
{
    const struct server *s = l->server;
    const struct rules *rules = l->rules;
    struct msg_relay m;
    struct route to;
    if (!read_relay(d->bytes, d->len, &m))
        return VERDICT_DROPPED_SHORT;
    const struct lane *owner = s->lane[route_owner(s->owner_key, m.dest, s->lane_count)];
    if (!route_find(owner->routes, d->dest_hash, m.dest, &to))
        return VERDICT_RELAY_NO_ROUTE;
    bool proven = sender_proven(l, d, m.sender);
    if (!proven && rules->strict_relay_source)
        return VERDICT_RELAY_SENDER_MISMATCH;
    if (rules->relay_rate.per_s &&
        !limit_take(&l->relay, limit_hash_endpoint(l, &d->from), rules->relay_rate, now->ns))
        return VERDICT_RELAY_LIMITED;
    if (rules->relay_ip_rate.per_s &&
        !limit_take(&l->relay_ip, limit_hash_source(l, &d->from, LIMIT_SENDS), rules->relay_ip_rate,
                    now->ns))
        return VERDICT_RELAY_IP_LIMITED;
    out->out[out->count++] = relay_rewrite(d, &to);
    return proven ? VERDICT_RELAY_FORWARDED : VERDICT_RELAY_FORWARDED_UNPROVEN;
}
