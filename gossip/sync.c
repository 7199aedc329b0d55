#include <assert.h>
#include <string.h>
#include "gossip/sync_link.h"

size_t sync_size(void)
{
    return sizeof(struct sync);
}

struct sync *sync_init(void *memory, struct store *store, const struct members *members)
{
    struct sync *s = memory;
    memset(s, 0, sizeof *s);
    s->store = store;
    s->members = members;
    s->own_ns = UINT64_MAX;
    memset(s->link_of, SYNC_NO_LINK, sizeof s->link_of);
    for (unsigned i = 0; i < SYNC_LINKS_MAX; i++)
        s->due_ns[i] = UINT64_MAX;
    return s;
}

/* --- what changed in the store --- */

/* Another log than before: what was sent of it means nothing now. */
static void owner_begins(struct sync *s, unsigned owner, const struct store_owner *w)
{
    struct noticed *n = &s->owner[owner];
    for (struct link *l = s->link; l < s->link + SYNC_LINKS_MAX; l++)
        if (l->used)
            link_owner_begins(l, owner, w->beacon != n->beacon);
    *n = (struct noticed){.beacon = w->beacon, .boot = w->boot};
}

static void owner_schedule(struct sync *s, unsigned owner, uint64_t now_ns)
{
    for (struct link *l = s->link; l < s->link + SYNC_LINKS_MAX; l++)
        if (l->used && l->wanted)
            link_schedule(s, l, owner, now_ns);
}

static void owner_notice(struct sync *s, unsigned owner, uint64_t now_ns)
{
    const struct store_owner *w = store_owner(s->store, owner);
    struct noticed *n = &s->owner[owner];
    if (w->beacon == n->beacon && w->boot == n->boot && w->version == n->version)
        return;
    if (w->beacon != n->beacon || w->boot != n->boot)
        owner_begins(s, owner, w);
    n->version = w->version;
    n->moved_ns = now_ns;
    if (!w->rebuilding) {
        set_drop(&s->rebuilding, owner);
        owner_schedule(s, owner, now_ns);
    } else if (!set_has(&s->rebuilding, owner)) {
        if (s->rebuilding.count == 0)
            s->rebuilding_ns = now_ns + SYNC_REBUILT_NS;
        set_put(&s->rebuilding, owner);
    }
}

/* A rebuild may end without a new version: what is left of before goes a bit at a time. */
static void rebuilt_notice(struct sync *s, uint64_t now_ns)
{
    if (s->rebuilding.count == 0 || now_ns < s->rebuilding_ns)
        return;
    s->rebuilding_ns = now_ns + SYNC_REBUILT_NS;
    for (int o = set_from(&s->rebuilding, 0); o >= 0; o = set_from(&s->rebuilding, (unsigned)o + 1))
        if (!store_owner(s->store, (unsigned)o)->rebuilding) {
            set_drop(&s->rebuilding, (unsigned)o);
            owner_schedule(s, (unsigned)o, now_ns);
        }
}

/* Our own changes are noticed some together. */
static void own_notice(struct sync *s, uint64_t now_ns)
{
    const struct store_owner *w = store_owner(s->store, STORE_SELF);
    struct noticed *n = &s->owner[STORE_SELF];
    if (w->beacon != n->beacon || w->boot != n->boot) {
        owner_begins(s, STORE_SELF, w);
        s->own_ns = now_ns;
    } else if (w->version - n->version >= SYNC_FULL_CHANGES) {
        s->own_ns = now_ns;
    } else if (w->version != n->version && s->own_ns == UINT64_MAX) {
        s->own_ns = now_ns + SYNC_COALESCE_NS;
    }
    if (now_ns < s->own_ns)
        return;
    s->own_ns = UINT64_MAX;
    owner_notice(s, STORE_SELF, now_ns);
}

static void notice(struct sync *s, uint64_t now_ns)
{
    s->now_ns = now_ns;
    own_notice(s, now_ns);
    rebuilt_notice(s, now_ns);
    uint64_t view = store_view(s->store);
    if (view == s->view)
        return;
    s->view = view;
    for (unsigned i = 1; i < members_count(s->members); i++)
        owner_notice(s, i, now_ns);
}

/* --- links --- */

/* One of the two ends asks first; most often its question tells the other enough. */
static void link_begin(struct sync *s, struct link *l)
{
    uint32_t ours = member_at(s->members, 0)->fact.id;
    bool first = ours < member_at(s->members, l->member)->fact.id;
    digest_ask_all(s, l, s->now_ns + (first ? 0 : SYNC_RETRY_MIN_NS));
}

static void link_want(struct sync *s, unsigned member)
{
    bool is_new = s->link_of[member] == SYNC_NO_LINK;
    struct link *l = link_open(s, member, s->now_ns);
    assert(l); /* neighbours are fewer than links, and others give way */
    bool was_wanted = l->wanted;
    l->wanted = true;
    if (is_new)
        link_begin(s, l);
    else if (!was_wanted)
        for (unsigned i = 0; i < members_count(s->members); i++)
            link_schedule(s, l, i, s->now_ns);
}

void sync_links(struct sync *s, const unsigned *neighbours, unsigned count, bool relays,
                uint64_t now_ns)
{
    assert(count < SYNC_LINKS_MAX);
    notice(s, now_ns);
    bool keep[SYNC_LINKS_MAX] = {false};
    for (unsigned i = 0; i < count; i++)
        if (s->link_of[neighbours[i]] != SYNC_NO_LINK)
            keep[s->link_of[neighbours[i]]] = true;
    for (unsigned i = 0; i < SYNC_LINKS_MAX; i++) {
        struct link *l = &s->link[i];
        if (l->used && l->wanted && !keep[i]) {
            l->wanted = false;
            l->since_ns = l->busy_ns = now_ns;
            link_wake(s, l);
        }
    }
    for (unsigned i = 0; i < count; i++)
        link_want(s, neighbours[i]);
    if (s->relays == relays)
        return;
    s->relays = relays;
    for (unsigned i = 0; i < members_count(s->members); i++)
        owner_schedule(s, i, now_ns);
}

void sync_differs(struct sync *s, unsigned member, uint64_t now_ns)
{
    notice(s, now_ns);
    bool is_new = s->link_of[member] == SYNC_NO_LINK;
    if (is_new && now_ns < s->visit_ns)
        return;
    struct link *l = link_open(s, member, now_ns);
    if (!l || (!is_new && (l->count > 0 || now_ns < l->exchange_ns)))
        return;
    if (is_new)
        s->visit_ns = now_ns + SYNC_LAZY_NS;
    l->since_ns = l->busy_ns = now_ns;
    l->exchange_ns = now_ns + SYNC_EXCHANGE_NS;
    digest_ask_all(s, l, now_ns);
}

void sync_reset(struct sync *s, unsigned member)
{
    /* An owner that is gone brings its log to nobody: others need not wait for it any longer. */
    for (struct link *l = s->link; l < s->link + SYNC_LINKS_MAX; l++)
        if (l->used && set_has(&l->waiting, member)) {
            set_drop(&l->waiting, member);
            link_schedule(s, l, member, s->now_ns);
        }
    if (s->link_of[member] == SYNC_NO_LINK)
        return;
    struct link *l = &s->link[s->link_of[member]];
    bool wanted = l->wanted;
    link_close(s, l);
    if (wanted && member_at(s->members, member)->fact.id)
        link_want(s, member);
}

/* --- inputs --- */

/* One entry and what belongs to it. */
static void digest_entry(struct sync *s, struct link *l, unsigned owner,
                         const struct digest_entry *entry, bool more)
{
    if (entry->boot == 0 && entry->version > 0) {
        if (!(entry->version & SYNC_BEGAN_BIT))
            window_held(l, owner, entry->version, s->now_ns);
        return;
    }
    struct said said = {.boot = entry->boot, .version = entry->version};
    if (more && entry[1].owner == entry->owner && entry[1].boot == 0 &&
        entry[1].version & SYNC_BEGAN_BIT)
        said.began = entry[1].version & ~SYNC_BEGAN_BIT;
    link_said(s, l, owner, &said, s->now_ns);
}

static void digest_entries(struct sync *s, struct link *l, const struct digest_entry *entry,
                           unsigned count, unsigned flags)
{
    static const struct said nothing = {.boot = 0};
    struct owner_set named = {.count = 0};
    for (unsigned i = 0; i < count; i++) {
        int owner = member_find(s->members, entry[i].owner);
        if (owner < 0)
            continue;
        set_put(&named, (unsigned)owner);
        digest_entry(s, l, (unsigned)owner, &entry[i], i + 1 < count);
        if (flags & DIGEST_ASKS)
            digest_ack(s, l, (unsigned)owner, s->now_ns);
    }
    if (!(flags & DIGEST_COMPLETE))
        return;
    l->told_all = true;
    for (unsigned i = 0; i < members_count(s->members); i++)
        if (!set_has(&named, i) && store_owner(s->store, i)->beacon)
            link_said(s, l, i, &nothing, s->now_ns);
    if (flags & DIGEST_ASKS)
        digest_ack_all(s, l, s->now_ns);
}

bool sync_digest(struct sync *s, unsigned member, const uint8_t *body, size_t len, uint64_t now_ns)
{
    struct digest_entry entry[GOSSIP_DIGEST_MAX];
    unsigned flags, count;
    if (!read_gossip_digest(body, len, &flags, entry, &count))
        return false;
    for (unsigned i = 0; i < count; i++)
        if ((entry[i].boot ? entry[i].version : entry[i].version & ~SYNC_BEGAN_BIT) >
            SYNC_VERSION_MAX)
            return false;
    notice(s, now_ns);
    /* Nobody asks and nobody is asked: too late. */
    if (s->link_of[member] == SYNC_NO_LINK && !(flags & DIGEST_ASKS))
        return true;
    struct link *l = link_open(s, member, now_ns);
    if (!l)
        return true;
    l->busy_ns = now_ns;
    link_wake(s, l);
    digest_entries(s, l, entry, count, flags);
    return true;
}

/* The log begins with this piece, as store_apply says it. */
static bool delta_begins(const struct sync *s, unsigned owner)
{
    const struct store_owner *w = store_owner(s->store, owner);
    const struct gossip_delta *d = &s->delta;
    if (d->from != 0 || d->boot < w->boot)
        return false;
    return d->boot > w->boot || w->version == 0 ||
           d->top > (w->rebuilding ? s->began[owner] : w->version);
}

/* Into the store, or kept for later. */
static void delta_take(struct sync *s, const struct link *l, unsigned owner, const uint8_t *body,
                       size_t len)
{
    if (delta_begins(s, owner))
        s->began[owner] = s->delta.top;
    switch (store_apply(s->store, owner, &s->delta, s->now_ns)) {
    case STORE_APPLIED:
        s->stats.deltas_taken++;
        hold_apply(s, owner, s->now_ns);
        break;
    case STORE_KNOWN:
        s->stats.deltas_known++;
        break;
    case STORE_AHEAD:
        hold_put(s, l, owner, body, len, s->now_ns);
        break;
    }
}

bool sync_delta(struct sync *s, unsigned member, const uint8_t *body, size_t len, uint64_t now_ns)
{
    struct gossip_delta *d = &s->delta;
    if (!read_gossip_delta(body, len, d) || d->boot == 0 || d->to > d->top ||
        d->top > SYNC_VERSION_MAX)
        return false;
    notice(s, now_ns);
    int owner = member_find(s->members, d->owner);
    if (owner <= STORE_SELF || store_owner(s->store, (unsigned)owner)->beacon != d->owner)
        return true;
    struct link *l = link_open(s, member, now_ns);
    if (!l)
        return true;
    uint64_t boot = d->boot, top = d->top;
    l->busy_ns = now_ns;
    delta_take(s, l, (unsigned)owner, body, len);
    /* Only this owner has changed: no need to look at all of them. */
    s->view = store_view(s->store);
    owner_notice(s, (unsigned)owner, now_ns);
    link_shown(s, l, (unsigned)owner, boot, top, now_ns);
    digest_ack(s, l, (unsigned)owner, now_ns + SYNC_ACK_NS);
    if (++l->acks >= SYNC_ACK_PIECES)
        l->ack_ns = now_ns;
    return true;
}

/* --- outputs --- */

static uint64_t link_next_ns(const struct sync *s, const struct link *l)
{
    uint64_t next_ns = earlier_ns(digest_next_ns(l), window_next_ns(s, l));
    if (l->waiting.count > 0)
        next_ns = earlier_ns(next_ns, l->waiting_ns);
    if (!l->wanted)
        next_ns = earlier_ns(next_ns, l->busy_ns + SYNC_IDLE_NS);
    return next_ns;
}

static bool link_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret)
{
    if (!l->used)
        return false;
    if (!l->wanted && now_ns - l->busy_ns >= SYNC_IDLE_NS) {
        link_close(s, l);
        return false;
    }
    link_waited(s, l, now_ns);
    if (digest_next(s, l, now_ns, ret) || window_next(s, l, now_ns, ret))
        return true;
    s->due_ns[l - s->link] = link_next_ns(s, l);
    return false;
}

bool sync_next(struct sync *s, uint64_t now_ns, struct sync_out *ret)
{
    notice(s, now_ns);
    for (unsigned i = 0; i < SYNC_LINKS_MAX; i++) {
        unsigned at = (s->turn + i) % SYNC_LINKS_MAX;
        if (s->due_ns[at] > now_ns)
            continue;
        if (link_next(s, &s->link[at], now_ns, ret)) {
            s->turn = at + 1;
            return true;
        }
    }
    return false;
}

uint64_t sync_next_ns(const struct sync *s)
{
    uint64_t next_ns = s->own_ns;
    if (store_view(s->store) != s->view)
        return s->now_ns;
    if (s->rebuilding.count > 0)
        next_ns = earlier_ns(next_ns, s->rebuilding_ns);
    for (unsigned i = 0; i < SYNC_LINKS_MAX; i++)
        next_ns = earlier_ns(next_ns, s->due_ns[i]);
    return next_ns;
}

/* --- status --- */

const struct sync_stats *sync_stats(const struct sync *s)
{
    return &s->stats;
}

/* How far a peer is with its own log it tells us by sending it. */
static bool owner_settled(const struct sync *s, const struct link *l, unsigned owner)
{
    const struct store_owner *w = store_owner(s->store, owner);
    const struct heard *h = &l->of[owner];
    if (w->beacon && !l->told_all && !set_has(&l->told, owner))
        return false;
    if (h->boot == w->boot && h->version == w->version)
        return true;
    if (owner == l->member)
        return h->boot < w->boot || (h->boot == w->boot && h->version < w->version);
    return w->version == 0 && h->version == 0;
}

bool sync_settled(const struct sync *s)
{
    for (const struct link *l = s->link; l < s->link + SYNC_LINKS_MAX; l++)
        for (unsigned i = 0; l->used && l->wanted && i < members_count(s->members); i++)
            if (!owner_settled(s, l, i))
                return false;
    return true;
}
