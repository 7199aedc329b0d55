#include <assert.h>
#include "gossip/sync_link.h"

enum {
    /* Left free in a new piece: read again, it may have grown by wider numbers. */
    PIECE_SLACK = 24,
};

/* --- what is in flight --- */

void window_drop(struct link *l, unsigned owner)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < l->count; i++)
        if (l->piece[i].owner != owner)
            l->piece[kept++] = l->piece[i];
    l->count = kept;
}

void window_rewind(const struct sync *s, struct link *l, unsigned owner)
{
    struct heard *h = &l->of[owner];
    window_drop(l, owner);
    h->restart = false;
    h->sent.version = h->boot == s->owner[owner].boot ? h->version : 0;
    h->sent.row = 0;
}

/* The piece has arrived. */
static void piece_heard(struct link *l, const struct piece *p, uint64_t now_ns)
{
    if (!p->held && p->order > l->heard_order)
        l->heard_order = p->order;
    l->heard_ns = now_ns;
    l->backoff = 0;
}

void window_acked(struct link *l, unsigned owner, uint64_t now_ns)
{
    uint64_t version = l->of[owner].version;
    unsigned kept = 0;
    for (unsigned i = 0; i < l->count; i++) {
        struct piece *p = &l->piece[i];
        if (p->owner == owner && p->to <= version) {
            piece_heard(l, p, now_ns);
            continue;
        }
        /* What joins what it knows it would not hold back: it has lost it. */
        if (p->owner == owner && p->place.version <= version)
            p->held = false;
        l->piece[kept++] = *p;
    }
    l->count = kept;
}

void window_held(struct link *l, unsigned owner, uint64_t to, uint64_t now_ns)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct piece *p = &l->piece[i];
        if (p->owner != owner || p->to != to || p->held || p->place.version <= l->of[owner].version)
            continue;
        piece_heard(l, p, now_ns);
        p->held = true;
    }
}

/* --- when it is sent again --- */

static uint64_t rtt_ns(const struct sync *s, const struct link *l)
{
    return member_at(s->members, l->member)->rtt_ns;
}

/* Twice the same, then twice the double: a lost frame or two are nothing special. */
static uint64_t retry_ns(const struct sync *s, const struct link *l)
{
    uint64_t once_ns = later_ns(SYNC_RETRY_MIN_NS, 2 * rtt_ns(s, l));
    return earlier_ns(once_ns << l->backoff / 2, later_ns(once_ns, SYNC_RETRY_MAX_NS));
}

/* When it counts as lost although no timeout has passed: others that were sent later have arrived,
 * and it had the time to. UINT64_MAX: no sign of that. After RFC 8985. */
static uint64_t overtaken_ns(const struct sync *s, const struct link *l, const struct piece *p)
{
    uint64_t way_ns = rtt_ns(s, l);
    if (way_ns == 0 || l->heard_order < p->order + SYNC_REORDERED)
        return UINT64_MAX;
    return p->sent_ns + way_ns + way_ns / 4 + SYNC_ACK_NS;
}

static uint64_t piece_due_ns(const struct sync *s, const struct link *l, const struct piece *p)
{
    if (p->held)
        return p->sent_ns + SYNC_RETRY_MAX_NS;
    return earlier_ns(p->sent_ns + retry_ns(s, l), overtaken_ns(s, l, p));
}

uint64_t window_next_ns(const struct sync *s, const struct link *l)
{
    uint64_t next_ns = l->ready.count > 0 && l->count < SYNC_WINDOW ? 0 : UINT64_MAX;
    for (unsigned i = 0; i < l->count; i++)
        next_ns = earlier_ns(next_ns, piece_due_ns(s, l, &l->piece[i]));
    return next_ns;
}

/* --- sending --- */

static bool piece_write(struct sync *s, const struct link *l, struct sync_out *ret)
{
    ret->member = l->member;
    ret->kind = GOSSIP_DELTA;
    ret->len = write_gossip_delta(ret->body, sizeof ret->body, &s->delta);
    assert(ret->len > 0);
    s->stats.deltas_sent++;
    return true;
}

/* Cuts the delta at hand, which may do without the facts behind: they come in others. */
static void delta_cut(struct gossip_delta *d, uint64_t to)
{
    while (d->row_count > 0 && d->row[d->row_count - 1].version > to)
        if (d->row[--d->row_count].id == 0)
            d->state = NULL;
    d->to = to;
}

/* The log may have changed since: tombstones that it told of may have been purged, facts have left
 * the piece for the end of the log, and a few bytes may have been added. What does not fit any more
 * is read anew, with all behind it. */
static bool piece_again(struct sync *s, struct link *l, unsigned i, uint64_t now_ns,
                        struct sync_out *ret)
{
    struct piece p = l->piece[i];
    struct store_place place = p.place;
    bool restart = false;
    place.began = l->of[p.owner].began;
    if (p.top < store_owner(s->store, p.owner)->horizon ||
        !store_read(s->store, p.owner, &place, GOSSIP_BODY_MAX, &s->delta, &restart) ||
        s->delta.to < p.to) {
        window_rewind(s, l, p.owner);
        set_put(&l->ready, p.owner);
        return false;
    }
    delta_cut(&s->delta, p.to);
    s->delta.top = p.top; /* with another one the start of a log would begin it once more */
    bool timed_out = now_ns < overtaken_ns(s, l, &p);
    if (timed_out && l->heard_ns <= p.sent_ns && retry_ns(s, l) < SYNC_RETRY_MAX_NS)
        l->backoff++;
    p.sent_ns = now_ns;
    p.order = ++l->order;
    p.held = false;
    l->piece[i] = p;
    s->stats.deltas_again++;
    return piece_write(s, l, ret);
}

/* A new piece of the owner's log. False: there is nothing to send. */
static bool piece_begin(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns,
                        struct sync_out *ret)
{
    struct heard *h = &l->of[owner];
    struct store_place place = h->sent, begin;
    bool restart = false;
    size_t room = GOSSIP_BODY_MAX - PIECE_SLACK;
    place.began = h->began; /* not from when we were at zero, but from when the peer was */
    begin = place;
    if (!store_read(s->store, owner, &place, room, &s->delta, &restart)) {
        if (!restart)
            return false;
        window_drop(l, owner);
        place = begin = (struct store_place){.version = 0};
        if (!store_read(s->store, owner, &place, room, &s->delta, &restart))
            return false;
    }
    if (begin.version == 0 && place.version < store_owner(s->store, owner)->horizon) {
        h->restart = true;
        set_drop(&l->ready, owner);
    }
    h->sent = place;
    l->piece[l->count++] = (struct piece){.place = begin,
                                          .to = s->delta.to,
                                          .top = s->delta.top,
                                          .sent_ns = now_ns,
                                          .order = ++l->order,
                                          .owner = (uint16_t)owner};
    return piece_write(s, l, ret);
}

static bool window_again(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    for (unsigned i = 0; i < l->count;) {
        if (piece_due_ns(s, l, &l->piece[i]) > now_ns)
            i++;
        else if (piece_again(s, l, i, now_ns, ret))
            return true;
        else
            i = 0; /* the owner's pieces are no longer there */
    }
    return false;
}

static bool window_new(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    while (l->count < SYNC_WINDOW && l->ready.count > 0) {
        int next = set_from(&l->ready, l->turn + 1);
        unsigned owner = (unsigned)(next >= 0 ? next : set_from(&l->ready, 0));
        l->turn = owner;
        if (piece_begin(s, l, owner, now_ns, ret))
            return true;
        set_drop(&l->ready, owner);
    }
    return false;
}

bool window_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    return window_again(s, l, now_ns, ret) || window_new(s, l, now_ns, ret);
}
