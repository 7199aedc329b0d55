#include <string.h>
#include "gossip/sync_link.h"

/* A number that differs between beacons, peers and owners: so that not all who could help a peer do
 * so at once. The finisher of MurmurHash3. */
static uint64_t jitter_ns(const struct sync *s, const struct link *l, unsigned owner)
{
    uint64_t x = (uint64_t)member_at(s->members, 0)->fact.id << 32;
    x ^= member_at(s->members, l->member)->fact.id;
    x ^= (uint64_t)member_at(s->members, owner)->fact.id << 16;
    x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (x ^ x >> 33) % SYNC_LAZY_NS;
}

/* --- begin and end --- */

void link_close(struct sync *s, struct link *l)
{
    hold_drop_link(s, l);
    s->link_of[l->member] = SYNC_NO_LINK;
    s->due_ns[l - s->link] = UINT64_MAX;
    l->used = false;
}

/* A free one, or of those that are not wanted the one that was idle longest. */
static struct link *link_room(struct sync *s)
{
    struct link *room = NULL;
    for (struct link *l = s->link; l < s->link + SYNC_LINKS_MAX; l++) {
        if (!l->used)
            return l;
        if (!l->wanted && (!room || l->busy_ns < room->busy_ns))
            room = l;
    }
    if (room)
        link_close(s, room);
    return room;
}

struct link *link_open(struct sync *s, unsigned member, uint64_t now_ns)
{
    if (s->link_of[member] != SYNC_NO_LINK)
        return &s->link[s->link_of[member]];
    struct link *l = link_room(s);
    if (!l)
        return NULL;
    memset(l, 0, sizeof *l);
    l->used = true;
    l->member = (uint16_t)member;
    l->since_ns = l->busy_ns = l->heard_ns = now_ns;
    l->exchange_ns = now_ns + SYNC_EXCHANGE_NS;
    l->waiting_ns = UINT64_MAX;
    l->turn = (unsigned)(jitter_ns(s, l, 0) % STORE_MEMBERS_MAX);
    s->link_of[member] = (uint8_t)(l - s->link);
    link_wake(s, l);
    return l;
}

void link_owner_begins(struct link *l, unsigned owner, bool forget)
{
    struct heard *h = &l->of[owner];
    window_drop(l, owner);
    h->sent = (struct store_place){.version = 0};
    h->restart = h->asked = h->moved = false;
    set_drop(&l->ready, owner);
    set_drop(&l->waiting, owner);
    if (!forget)
        return;
    *h = (struct heard){.boot = 0};
    set_drop(&l->ask, owner);
    set_drop(&l->asking, owner);
    set_drop(&l->ack, owner);
    if (!l->told_all)
        set_drop(&l->told, owner);
}

/* --- who is behind --- */

bool link_behind(const struct sync *s, const struct link *l, unsigned owner)
{
    const struct noticed *ours = &s->owner[owner];
    const struct heard *h = &l->of[owner];
    if (ours->version == 0)
        return false;
    return h->boot < ours->boot || (h->boot == ours->boot && h->version < ours->version);
}

/* Nobody is ahead of us in our own log: what was noticed of it may be less than there is. */
bool link_ahead(const struct sync *s, const struct link *l, unsigned owner)
{
    const struct noticed *ours = &s->owner[owner];
    const struct heard *h = &l->of[owner];
    if (owner == STORE_SELF || h->version == 0)
        return false;
    return h->boot > ours->boot || (h->boot == ours->boot && h->version > ours->version);
}

static bool link_deep(const struct sync *s, const struct link *l, unsigned owner)
{
    const struct noticed *ours = &s->owner[owner];
    const struct heard *h = &l->of[owner];
    return ours->version - (h->boot == ours->boot ? h->version : 0) > SYNC_DEEP;
}

/* --- what is to happen about an owner --- */

static void link_wait(struct sync *s, struct link *l, unsigned owner, uint64_t due_ns)
{
    set_put(&l->waiting, owner);
    l->of[owner].due_ns = due_ns;
    l->waiting_ns = earlier_ns(l->waiting_ns, due_ns);
    link_wake(s, l);
}

static void link_ready(struct sync *s, struct link *l, unsigned owner)
{
    set_drop(&l->waiting, owner);
    if (!l->of[owner].restart)
        set_put(&l->ready, owner);
    link_wake(s, l);
}

/* How long others' facts wait for somebody else to bring them: their owner, where it reaches
 * everybody; and where it does not, whichever of the peer's neighbours happens to be first. */
static uint64_t lazy_ns(const struct sync *s, const struct link *l, unsigned owner)
{
    uint64_t wait_ns = jitter_ns(s, l, owner);
    if (s->relays)
        return wait_ns;
    bool usable = store_owner(s->store, owner)->rank >= STORE_USABLE;
    return wait_ns + (usable ? 4 * SYNC_LAZY_NS : SYNC_LAZY_NS);
}

static void link_lazily(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns)
{
    l->of[owner].asked = l->of[owner].moved = false;
    set_drop(&l->ready, owner);
    link_wait(s, l, owner, now_ns + lazy_ns(s, l, owner));
}

/* Neither lacks anything, as far as is known: questions whether it does are needless too. */
static void link_nothing(struct link *l, unsigned owner)
{
    set_drop(&l->ready, owner);
    set_drop(&l->waiting, owner);
    if (!set_has(&l->told, owner))
        return;
    set_drop(&l->ask, owner);
    set_drop(&l->asking, owner);
}

void link_schedule(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns)
{
    if (link_ahead(s, l, owner)) {
        set_drop(&l->ready, owner);
        if (!set_has(&l->waiting, owner))
            link_wait(s, l, owner, now_ns + SYNC_LAZY_NS);
        return;
    }
    if (!link_behind(s, l, owner) || owner == l->member ||
        (!l->wanted && now_ns - l->since_ns > SYNC_VISIT_NS)) {
        link_nothing(l, owner);
        return;
    }
    if (!set_has(&l->told, owner) && !l->told_all)
        digest_ask(s, l, owner, now_ns + SYNC_ACK_NS);
    else if (owner == STORE_SELF || (s->relays && !link_deep(s, l, owner)))
        link_ready(s, l, owner);
    else if (!set_has(&l->ready, owner) && !set_has(&l->waiting, owner))
        link_lazily(s, l, owner, now_ns);
}

/* The time of one is over. A peer that lags is asked first, for others may have fed it meanwhile;
 * one that is ahead of us is told how far we are, in a question too. */
static void waited(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    if (link_ahead(s, l, owner)) {
        if (now_ns - s->owner[owner].moved_ns >= SYNC_LAZY_NS)
            digest_ask(s, l, owner, now_ns);
        link_wait(s, l, owner, now_ns + 4 * SYNC_LAZY_NS);
    } else if (!link_behind(s, l, owner)) {
        set_drop(&l->waiting, owner);
    } else if (!h->asked) {
        h->asked = true;
        digest_ask(s, l, owner, now_ns);
        link_wait(s, l, owner, now_ns + SYNC_EXCHANGE_NS);
    } else {
        link_lazily(s, l, owner, now_ns);
    }
}

void link_waited(struct sync *s, struct link *l, uint64_t now_ns)
{
    if (now_ns < l->waiting_ns)
        return;
    l->waiting_ns = UINT64_MAX;
    for (int o = set_from(&l->waiting, 0); o >= 0; o = set_from(&l->waiting, (unsigned)o + 1)) {
        if (l->of[o].due_ns <= now_ns)
            waited(s, l, (unsigned)o, now_ns);
        if (set_has(&l->waiting, (unsigned)o))
            l->waiting_ns = earlier_ns(l->waiting_ns, l->of[o].due_ns);
    }
}

/* --- what the peer knows --- */

/* It said that it knows less than we believe. Mostly that is an old digest that comes late; said
 * again and again it is true, as when it takes a log from the start that somebody else gave it. */
static bool believed(struct heard *h, uint64_t boot, uint64_t version)
{
    bool lower = boot < h->boot || (boot == h->boot && version < h->version);
    h->lower = lower ? (uint8_t)(h->lower + 1) : 0;
    if (!lower)
        return true;
    if (h->lower < SYNC_LOWER)
        return false;
    h->lower = 0;
    return true;
}

static void link_knows(struct sync *s, struct link *l, unsigned owner, uint64_t boot,
                       uint64_t version, uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    bool lower = boot < h->boot || (boot == h->boot && version < h->version);
    bool same = boot == s->owner[owner].boot;
    h->moved |= boot != h->boot || version != h->version;
    h->boot = boot;
    h->version = version;
    if (lower) {
        window_rewind(s, l, owner);
        return;
    }
    if (boot > s->owner[owner].boot) {
        window_drop(l, owner);
        h->restart = false;
    }
    if (same)
        window_acked(l, owner, now_ns);
    if (!same || version <= h->sent.version)
        return;
    bool fed = owner != STORE_SELF && h->sent.version > 0 && set_has(&l->ready, owner);
    h->sent = (struct store_place){.version = version};
    if (fed && link_behind(s, l, owner) && link_deep(s, l, owner))
        link_lazily(s, l, owner, now_ns); /* somebody else is at it, and faster */
}

/* An answer to whether it still lags: yes, and nobody has brought it anything meanwhile. */
static void link_answered(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    if (!h->asked)
        return;
    h->asked = false;
    if (!link_behind(s, l, owner))
        return;
    if (h->moved)
        link_lazily(s, l, owner, now_ns);
    else
        link_ready(s, l, owner);
}

/* Below our horizon no piece may join what the peer has of an earlier start: it would miss the
 * tombstones that we have purged. So a log with a horizon behind its first piece begins with that
 * piece alone, until the peer says that it has taken it, or that it is beyond. */
static bool link_restarts(const struct sync *s, const struct link *l, unsigned owner,
                          const struct said *said)
{
    uint64_t horizon = store_owner(s->store, owner)->horizon;
    return l->of[owner].restart && said->boot == s->owner[owner].boot && said->version < horizon &&
           said->began < horizon;
}

static void link_restarted(struct link *l, unsigned owner, uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    window_drop(l, owner);
    h->restart = false;
    h->sent = (struct store_place){.version = 0};
    h->boot = h->version = 0; /* what it knew before does not count any more */
    h->lower = 0;
    l->heard_ns = now_ns;
    l->backoff = 0;
}

void link_said(struct sync *s, struct link *l, unsigned owner, const struct said *said,
               uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    set_put(&l->told, owner);
    set_drop(&l->ask, owner);
    set_drop(&l->asking, owner);
    link_wake(s, l);
    if (link_restarts(s, l, owner, said))
        return;
    bool restarted = h->restart && said->boot == s->owner[owner].boot;
    if (restarted)
        link_restarted(l, owner, now_ns);
    else if (!believed(h, said->boot, said->version))
        return;
    h->began = said->began;
    link_knows(s, l, owner, said->boot, said->version, now_ns);
    link_answered(s, l, owner, now_ns);
    if (restarted && link_behind(s, l, owner))
        link_ready(s, l, owner);
    link_schedule(s, l, owner, now_ns);
}

void link_shown(struct sync *s, struct link *l, unsigned owner, uint64_t boot, uint64_t version,
                uint64_t now_ns)
{
    struct heard *h = &l->of[owner];
    if (boot < h->boot || (boot == h->boot && version < h->version))
        return;
    set_put(&l->told, owner);
    h->restart &= boot == h->boot && version < store_owner(s->store, owner)->horizon;
    if (h->restart)
        return;
    link_knows(s, l, owner, boot, version, now_ns);
    link_schedule(s, l, owner, now_ns);
}
