#include <assert.h>
#include "server/answer.h"
#include "server/policy.h"
#include "server/register.h"
#include "server/relay.h"
#include "server/session.h"

static_assert((int)ROUTE_STREAM_TTL_S > 2 * (int)SESSION_HERE_SECONDS, "a letter may be lost");
static_assert((int)MSG_KEY_LEN <= (int)MAIL_BYTES_MAX, "a key fits a letter");

/* --- letters to the owner --- */

static bool post(struct lane *l, const struct session *s, enum mail_kind kind, bool asks)
{
    const struct server *server = l->server;
    unsigned owner = route_owner(server->owner_key, s->node_id, server->lane_count);
    assert(s->node_id != 0);
    struct mail mail = {
        .kind = kind,
        .node_id = s->node_id,
        .from = s->from,
        .wants_dest = s->wants_dest,
        .asks = asks,
        .class_ = (uint8_t)s->class_,
        .len = MSG_KEY_LEN,
    };
    memcpy(mail.bytes, s->key, MSG_KEY_LEN);
    if (!mailbox_put(server->lane[owner]->mailbox, &mail))
        return false;
    l->wake |= 1ull << owner;
    return true;
}

bool session_here(struct lane *l, const struct session *s)
{
    assert(s->class_ > ROUTE_UNVERIFIED);
    return post(l, s, MAIL_SESSION_HERE, false);
}

bool session_gone(struct lane *l, const struct session *s)
{
    return post(l, s, MAIL_SESSION_GONE, false);
}

/* The owner answers, as it does over UDP: who has the reply is registered. */
static void discover_answer(struct lane *l, const struct mail *mail, enum registration as,
                            struct outbox *out)
{
    struct datagram d = {.from = mail->from, .session_id = mail->node_id};
    struct writer w = answer_begin(out);
    write_address(&w, MSG_DISCOVER_REPLY, &d.from);
    answer_send(l, out, &w, &d);
    count_add(&l->stats.verdict[discover_verdict(as)], 1);
}

void session_mail(struct lane *l, const struct mail *mail, const struct moment *now,
                  struct outbox *out)
{
    if (mail->kind == MAIL_SESSION_GONE) {
        register_session_end(l, mail->node_id, &mail->from); /* false: another has the row now */
        return;
    }
    struct session s = {
        .node_id = mail->node_id,
        .from = mail->from,
        .class_ = mail->class_,
        .wants_dest = mail->wants_dest,
    };
    memcpy(s.key, mail->bytes, MSG_KEY_LEN);
    enum registration as = register_session(l, &s, now);
    count_add(registration_ok(as) ? &l->stats.sessions_stored : &l->stats.sessions_refused, 1);
    if (mail->asks)
        discover_answer(l, mail, as, out);
}

/* --- frames --- */

/* The id that a frame says it comes from stands behind the type in all three. */
static bool speaks_for_another(const struct session *s, const struct datagram *d)
{
    if (d->kind != MSG_KIND_RELAY && d->kind != MSG_KIND_DISCOVER && d->kind != MSG_KIND_PUNCH)
        return false;
    struct reader r = reader_of(d->bytes + 1, 4);
    return read_u32(&r) != s->node_id;
}

/* The key in it is not looked at: the session has proved to hold one. */
static enum verdict session_discover(struct lane *l, struct session *s, const struct datagram *d)
{
    struct msg_discover m;
    if (!read_discover(d->bytes, d->len, &m))
        return VERDICT_DROPPED_SHORT;
    s->wants_dest = m.wants_dest;
    if (!post(l, s, MAIL_SESSION_HERE, true))
        return VERDICT_DROPPED_MAILBOX_FULL;
    count_add(&l->stats.mail_passed, 1);
    return VERDICT_PASSED;
}

static enum verdict session_decide(struct lane *l, struct session *s, struct datagram *d,
                                   const struct moment *now, struct outbox *out)
{
    const struct server *server = l->server;
    if (speaks_for_another(s, d))
        return VERDICT_DROPPED_FORGED_ID;
    if (d->kind == MSG_KIND_RELAY)
        return relay_input(l, d, now, out);
    if (!limit_take(&l->reply, limit_hash_pair(l, s->node_id, 0), l->rules->reply_rate, now->ns))
        return VERDICT_DROPPED_SESSION_LIMITED;
    switch (d->kind) {
    case MSG_KIND_DISCOVER:
        return session_discover(l, s, d);
    case MSG_KIND_PUNCH:
        return server_pass_on(l, d, route_owner(server->owner_key, s->node_id, server->lane_count));
    case MSG_KIND_STUN:
        return stun_input(l, d, now, out);
    default:
        return server_refuse(d->kind);
    }
}

enum verdict session_input(struct lane *l, struct session *s, struct datagram *d,
                           const struct moment *now, struct outbox *out)
{
    assert(l == l->server->edge);
    assert(s->node_id != 0);
    assert(out->count + OUTBOX_ROOM <= OUTBOX_MAX);
    *d = (struct datagram){
        .bytes = d->bytes, .len = d->len, .from = s->from, .session_id = s->node_id};
    l->source = (struct source){.from = s->from}; /* of the frame before: another session's */
    count_add(&l->stats.received, 1);
    count_add(&l->stats.received_bytes, d->len);
    server_prefetch(l, d);
    enum verdict v = session_decide(l, s, d, now, out);
    if (v != VERDICT_PASSED)
        count_add(&l->stats.verdict[v], 1);
    return v;
}
