#include "gossip/sync_link.h"

void digest_ack(struct sync *s, struct link *l, unsigned owner, uint64_t at_ns)
{
    l->ack_ns = l->ack.count ? earlier_ns(l->ack_ns, at_ns) : at_ns;
    set_put(&l->ack, owner);
    link_wake(s, l);
}

void digest_ask(struct sync *s, struct link *l, unsigned owner, uint64_t at_ns)
{
    l->ask_ns = l->ask.count ? earlier_ns(l->ask_ns, at_ns) : at_ns;
    if (!set_has(&l->ask, owner))
        l->ask_tries = 0;
    set_put(&l->ask, owner);
    link_wake(s, l);
}

void digest_ask_all(struct sync *s, struct link *l, uint64_t at_ns)
{
    for (unsigned i = 0; i < members_count(s->members); i++)
        if (member_at(s->members, i)->fact.id)
            digest_ask(s, l, i, at_ns);
    l->ask_tries = 0;
}

void digest_ack_all(struct sync *s, struct link *l, uint64_t at_ns)
{
    for (unsigned i = 0; i < members_count(s->members); i++)
        if (member_at(s->members, i)->fact.id)
            digest_ack(s, l, i, at_ns);
}

/* Nothing that we know is left out of the set. */
static bool set_complete(const struct sync *s, const struct owner_set *set)
{
    if (set->count > GOSSIP_DIGEST_MAX)
        return false;
    for (unsigned i = 0; i < members_count(s->members); i++)
        if (store_owner(s->store, i)->version > 0 && !set_has(set, i))
            return false;
    return true;
}

/* What we know of one owner, behind entry `count`; returns the new count. */
static unsigned entries_of(const struct sync *s, const struct link *l, unsigned owner,
                           struct digest_entry entry[static GOSSIP_DIGEST_MAX], unsigned count)
{
    uint32_t id = member_at(s->members, owner)->fact.id;
    const struct store_owner *w = store_owner(s->store, owner);
    entry[count++] = (struct digest_entry){.owner = id, .boot = w->boot, .version = w->version};
    if (w->rebuilding)
        entry[count++] =
            (struct digest_entry){.owner = id, .version = SYNC_BEGAN_BIT | s->began[owner]};
    return hold_list(s, l, owner, entry, count);
}

/* What we know of as many owners of the set as fit; takes them out of it. */
static bool digest_write(struct sync *s, const struct link *l, struct owner_set *set,
                         unsigned flags, struct sync_out *ret)
{
    struct digest_entry entry[GOSSIP_DIGEST_MAX];
    uint16_t owner[GOSSIP_DIGEST_MAX];
    unsigned count = 0, written;
    flags |= set_complete(s, set) ? DIGEST_COMPLETE : 0;
    for (int o = set_from(set, 0); o >= 0 && count + 2 <= GOSSIP_DIGEST_MAX;
         o = set_from(set, (unsigned)o + 1)) {
        unsigned first = count;
        if (member_at(s->members, (unsigned)o)->fact.id == 0) {
            set_drop(set, (unsigned)o);
            continue;
        }
        count = entries_of(s, l, (unsigned)o, entry, count);
        for (unsigned i = first; i < count; i++)
            owner[i] = (uint16_t)o;
    }
    if (count == 0)
        return false;
    if (set->count > 0 && set_from(set, owner[count - 1] + 1u) >= 0)
        flags &= ~(unsigned)DIGEST_COMPLETE;
    ret->member = l->member;
    ret->kind = GOSSIP_DIGEST;
    ret->len = write_gossip_digest(ret->body, sizeof ret->body, flags, entry, count, &written);
    for (unsigned i = 0; i < written; i++)
        set_drop(set, owner[i]);
    /* Of the last one, some may not have fitted: then it comes again, unless it came alone. */
    if (written < count && owner[written] == owner[written - 1] && owner[0] != owner[written])
        set_put(set, owner[written]);
    return ret->len > 0;
}

static bool ack_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    if (l->ack.count == 0 || now_ns < l->ack_ns)
        return false;
    l->acks = 0;
    return digest_write(s, l, &l->ack, 0, ret);
}

static bool ask_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    if (l->asking.count == 0 && l->ask.count > 0 && now_ns >= l->ask_ns) {
        l->ask_ns = now_ns + (SYNC_DIGEST_NS << l->ask_tries);
        l->ask_tries += l->ask_tries < SYNC_ASK_TRIES;
        l->asking = l->ask;
    }
    return l->asking.count > 0 && digest_write(s, l, &l->asking, DIGEST_ASKS, ret);
}

bool digest_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    return ack_next(s, l, now_ns, ret) || ask_next(s, l, now_ns, ret);
}

uint64_t digest_next_ns(const struct link *l)
{
    uint64_t ack_ns = l->ack.count ? l->ack_ns : UINT64_MAX;
    uint64_t ask_ns = l->asking.count ? 0 : l->ask.count ? l->ask_ns : UINT64_MAX;
    return earlier_ns(ack_ns, ask_ns);
}
