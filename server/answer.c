#include <assert.h>
#include "proto/stun.h"
#include "server/answer.h"
#include "server/policy.h"
#include "server/register.h"

static_assert((int)STUN_ANSWER_MAX <= (int)OUTBOX_SCRATCH, "an answer fits its place");
static_assert((int)MSG_REPLY_MAX <= (int)OUTBOX_SCRATCH, "an answer fits its place");

struct writer answer_begin(struct outbox *out)
{
    assert(out->count < OUTBOX_MAX);
    return writer_of(out->scratch[out->count], OUTBOX_SCRATCH);
}

static void answer_queue(struct outbox *out, const struct writer *w, struct outgoing outgoing)
{
    assert(written(w) > 0);
    outgoing.bytes = w->start;
    outgoing.len = (uint32_t)written(w);
    out->out[out->count++] = outgoing;
}

static bool answer_hand_off(struct lane *l, const struct writer *w, uint32_t node_id)
{
    assert(l->handoff);
    if (!handoff_put(l->handoff, node_id, w->start, (uint32_t)written(w))) {
        count_add(&l->stats.handoff_full, 1);
        return false;
    }
    l->wake_edge = true;
    return true;
}

bool answer_send(struct lane *l, struct outbox *out, const struct writer *w,
                 const struct datagram *d)
{
    if (d->session_id)
        return answer_hand_off(l, w, d->session_id);
    answer_queue(out, w, (struct outgoing){.scope = d->scope, .to = d->from, .local = d->local});
    return true;
}

bool answer_send_route(struct lane *l, struct outbox *out, const struct writer *w,
                       const struct route *to)
{
    if (to->flags & ROUTE_STREAM)
        return answer_hand_off(l, w, to->id);
    answer_queue(out, w, (struct outgoing){.to = to->at, .local = to->local});
    return true;
}

enum verdict discover_verdict(enum registration r)
{
    switch (r) {
    case REGISTERED_NEW:
        return VERDICT_DISCOVER_NEW;
    case REGISTERED_SAME:
        return VERDICT_DISCOVER_REFRESHED;
    case REGISTERED_MOVED:
        return VERDICT_DISCOVER_MOVED;
    case REFUSED_ID_ZERO:
        return VERDICT_DISCOVER_ID_ZERO;
    case REFUSED_CONFLICT:
        return VERDICT_DISCOVER_CONFLICT;
    case REFUSED_ADDRESS:
        return VERDICT_DISCOVER_ADDRESS_DENIED;
    case REFUSED_QUOTA:
        return VERDICT_DISCOVER_QUOTA;
    case REFUSED_NURSERY:
        return VERDICT_DISCOVER_NURSERY;
    case REFUSED_FULL:
        return VERDICT_DISCOVER_FULL;
    }
    return VERDICT_DISCOVER_FULL; /* not reached: the switch is whole */
}

enum verdict discover_input(struct lane *l, struct datagram *d, const struct moment *now,
                            struct outbox *out)
{
    struct msg_discover m;
    if (!read_discover(d->bytes, d->len, &m))
        return VERDICT_DROPPED_SHORT;
    struct claim claim = {
        .node_id = m.node_id,
        .key = m.key,
        .dest = m.wants_dest ? CLAIM_DEST_SET : CLAIM_DEST_CLEAR,
    };
    enum registration registration = register_node(l, d, &claim, now);
    enum reply_budget budget = reply_take(l, &d->from, now);
    if (budget != REPLY_ALLOWED)
        return budget == REPLY_TOTAL_SPENT ? VERDICT_DISCOVER_TOTAL_LIMITED
                                           : VERDICT_DISCOVER_LIMITED;
    struct writer w = answer_begin(out);
    write_address(&w, MSG_DISCOVER_REPLY, &d->from);
    answer_send(l, out, &w, d);
    return discover_verdict(registration);
}

enum verdict stun_input(struct lane *l, struct datagram *d, const struct moment *now,
                        struct outbox *out)
{
    struct stun_request q;
    enum stun_verdict kind = stun_read(d->bytes, d->len, &q);
    switch (kind) {
    case STUN_INDICATION:
        return VERDICT_STUN_DROPPED_INDICATION;
    case STUN_RESPONSE:
        return VERDICT_STUN_DROPPED_RESPONSE;
    case STUN_BAD_FINGERPRINT:
        return VERDICT_STUN_DROPPED_FINGERPRINT;
    case STUN_MALFORMED:
        return VERDICT_STUN_DROPPED_MALFORMED;
    case STUN_REQUEST:
    case STUN_UNKNOWN_REQUIRED:
        break;
    }
    enum reply_budget budget = d->session_id ? REPLY_ALLOWED : reply_take(l, &d->from, now);
    if (budget != REPLY_ALLOWED)
        return budget == REPLY_TOTAL_SPENT ? VERDICT_STUN_TOTAL_LIMITED
                                           : VERDICT_STUN_REPLY_LIMITED;
    struct writer w = answer_begin(out);
    stun_answer(&w, &q, &d->from);
    answer_send(l, out, &w, d);
    return kind == STUN_REQUEST ? VERDICT_STUN_ANSWERED : VERDICT_STUN_UNKNOWN_ATTRIBUTE;
}
