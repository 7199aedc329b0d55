#include <string.h>
#include "gossip/sync_link.h"

static void hold_free(struct sync *s, struct held *h)
{
    h->to = 0;
    s->held--;
}

/* A free place, if the link may have one more: it may hold as many as are left for others. What
 * nobody has filled the hole before for long makes room. */
static struct held *hold_room(struct sync *s, const struct link *l, uint64_t now_ns)
{
    struct held *room = NULL;
    unsigned own = 0;
    for (struct held *h = s->hold; h < s->hold + SYNC_HOLD_MAX; h++) {
        if (h->to && now_ns - h->since_ns > SYNC_IDLE_NS)
            hold_free(s, h);
        own += h->to && h->link == l - s->link;
        if (!h->to)
            room = h;
    }
    return own < SYNC_WINDOW && own < SYNC_HOLD_MAX - s->held ? room : NULL;
}

static bool hold_has(const struct sync *s, uint8_t link, unsigned owner)
{
    const struct gossip_delta *d = &s->delta;
    for (const struct held *h = s->hold; h < s->hold + SYNC_HOLD_MAX; h++)
        if (h->to == d->to && h->from == d->from && h->boot == d->boot && h->owner == owner &&
            h->link == link)
            return true;
    return false;
}

void hold_put(struct sync *s, const struct link *l, unsigned owner, const uint8_t *body, size_t len,
              uint64_t now_ns)
{
    uint8_t link = (uint8_t)(l - s->link);
    if (s->delta.to == 0 || len > GOSSIP_BODY_MAX || hold_has(s, link, owner))
        return;
    struct held *h = hold_room(s, l, now_ns);
    if (!h) {
        s->stats.held_full++;
        return;
    }
    *h = (struct held){.boot = s->delta.boot,
                       .from = s->delta.from,
                       .to = s->delta.to,
                       .since_ns = now_ns,
                       .owner = (uint16_t)owner,
                       .len = (uint16_t)len,
                       .link = link};
    memcpy(s->hold_body[h - s->hold], body, len);
    s->held++;
    s->stats.deltas_held++;
}

/* True: one of the owner's was applied, so that others may join now. */
static bool hold_pass(struct sync *s, unsigned owner, uint64_t now_ns)
{
    const struct store_owner *w = store_owner(s->store, owner);
    bool any = false;
    for (struct held *h = s->hold; h < s->hold + SYNC_HOLD_MAX; h++) {
        if (!h->to || h->owner != owner || h->boot > w->boot)
            continue;
        if (h->boot == w->boot && h->to > w->version) {
            if (h->from > w->version ||
                !read_gossip_delta(s->hold_body[h - s->hold], h->len, &s->delta) ||
                s->delta.owner != w->beacon)
                continue;
            any |= store_apply(s->store, owner, &s->delta, now_ns) == STORE_APPLIED;
            s->stats.deltas_taken++;
        }
        hold_free(s, h);
    }
    return any;
}

void hold_apply(struct sync *s, unsigned owner, uint64_t now_ns)
{
    while (s->held > 0 && hold_pass(s, owner, now_ns))
        ;
}

void hold_drop_link(struct sync *s, const struct link *l)
{
    for (struct held *h = s->hold; h < s->hold + SYNC_HOLD_MAX; h++)
        if (h->to && h->link == l - s->link)
            hold_free(s, h);
}

unsigned hold_list(const struct sync *s, const struct link *l, unsigned owner,
                   struct digest_entry entry[static GOSSIP_DIGEST_MAX], unsigned count)
{
    if (s->held == 0)
        return count;
    for (const struct held *h = s->hold; h < s->hold + SYNC_HOLD_MAX; h++)
        if (h->to && h->owner == owner && h->link == l - s->link && count < GOSSIP_DIGEST_MAX)
            entry[count++] = (struct digest_entry){.owner = member_at(s->members, owner)->fact.id,
                                                   .version = h->to};
    return count;
}
