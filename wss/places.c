#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "server/stats.h"
#include "wss/places.h"

static const uint64_t sweep_ns_max = 1000000000; /* a deadline is a second late at worst */
/* Thousands of connections with a deadline each would make thousands of sweeps over all of them; a
 * deadline of seconds may come a tenth of one late. */
static const uint64_t sweep_distance_ns = 100000000;

/* Who gives up its place when the pool is full: the highest. */
enum yield { YIELD_NEVER, YIELD_WAITS, YIELD_IDLE };

struct slot {
    struct conn *conn;
    uint64_t deadline_ns;
    enum yield yield;
};

/* --- the pool --- */

/* NULL: none is left. That is so only while the dirty list holds connections that are no more. */
static struct conn *place_take(struct places *p)
{
    struct conn *c = p->vacant;
    if (c) {
        p->vacant = c->next_dirty;
        return c;
    }
    return p->untouched <= p->count ? &p->pool[p->untouched++] : NULL;
}

/* One in the dirty list is given back when that has been gone through. */
static void place_give(struct places *p, struct conn *c)
{
    c->slot = UINT_MAX;
    if (c->dirty)
        return;
    c->next_dirty = p->vacant;
    p->vacant = c;
}

static bool place_in_use(const struct places *p, const struct conn *c)
{
    return c->slot < p->active && p->slot[c->slot].conn == c;
}

static void places_remove(struct places *p, struct conn *c)
{
    struct slot *gap = &p->slot[c->slot];
    conn_close(c, &p->turn); /* leaves the epoll set with its only descriptor */
    *gap = p->slot[--p->active];
    gap->conn->slot = c->slot;
    place_give(p, c);
    count_set(&p->turn.stats->connections, p->active);
}

/* --- who gives way --- */

static enum yield yield_of(const struct conn *c)
{
    switch (c->state) {
    case CONN_IDLE:
        return YIELD_IDLE;
    case CONN_PROXY:
    case CONN_HANDSHAKE:
    case CONN_HEAD:
        return YIELD_WAITS;
    case CONN_BODY:
    case CONN_ANSWER:
    case CONN_PROTOCOL:
    case CONN_FLUSH:
    case CONN_LINGER:
        break;
    }
    return YIELD_NEVER;
}

/* An idle one goes before one whose head is awaited, the older of equals first. An answer is never
 * cut off. */
static bool yields_before(const struct slot *a, const struct slot *b)
{
    if (a->yield != b->yield)
        return a->yield > b->yield;
    return a->deadline_ns < b->deadline_ns;
}

/* Ends a connection that does nothing, so that a full pool cannot keep a load balancer's check out.
 */
static bool room_made(struct places *p)
{
    const struct slot *victim = NULL;
    for (unsigned i = 0; i < p->active; i++) {
        const struct slot *s = &p->slot[i];
        if (s->yield != YIELD_NEVER && (!victim || yields_before(s, victim)))
            victim = s;
    }
    if (!victim)
        return false;
    places_remove(p, victim->conn);
    count_add(&p->turn.stats->refused, 1);
    return true;
}

/* --- what epoll and the sweep know --- */

static bool epoll_set(const struct places *p, struct conn *c, int operation)
{
    uint32_t events = conn_events(c);
    if (operation == EPOLL_CTL_MOD && events == c->events)
        return true;
    c->events = events;
    struct epoll_event event = {.events = events,
                                .data.u64 = p->event_base + (uint64_t)(c - p->pool)};
    return epoll_ctl(p->epoll, operation, c->stream.fd, &event) == 0;
}

static void slot_set(struct places *p, const struct conn *c)
{
    p->slot[c->slot].deadline_ns = c->deadline_ns;
    p->slot[c->slot].yield = yield_of(c);
    if (c->deadline_ns < p->sweep_ns)
        p->sweep_ns = c->deadline_ns;
}

/* After each step of a connection. One that epoll does not take would never be heard of again. */
static void places_go_on(struct places *p, struct conn *c, bool alive)
{
    if (alive && epoll_set(p, c, EPOLL_CTL_MOD))
        slot_set(p, c);
    else
        places_remove(p, c);
}

/* --- for the edge --- */

/* The gate has let it in already, so whoever is turned away there pushes nobody out. */
static bool has_room(struct places *p)
{
    return p->active < p->turn.limits->connections || room_made(p);
}

/* A connection that got no place is closed at once; that a client sees, silence it would wait for.
 */
void places_add(struct places *p, int fd, const struct edge_listener *listener,
                const struct endpoint *from)
{
    const struct prefixes *proxies = listener->is_public ? p->turn.limits->proxies : NULL;
    bool behind_proxy = proxies && !listener->unix_path && prefixes_have(proxies, from);
    struct conn *c = place_take(p);
    if (!c) {
        count_add(&p->turn.stats->refused, 1);
        close(fd);
        return;
    }
    bool open = conn_open(c, fd, listener, from, behind_proxy, &p->turn);

    if (open && !(has_room(p) && epoll_set(p, c, EPOLL_CTL_ADD))) {
        count_add(&p->turn.stats->refused, 1);
        open = false;
    }
    if (!open) {
        conn_close(c, &p->turn);
        place_give(p, c);
        return;
    }
    c->slot = p->active++;
    p->slot[c->slot].conn = c;
    slot_set(p, c);
    count_add(&p->turn.stats->accepted, 1);
    count_set(&p->turn.stats->connections, p->active);
}

void places_event(struct places *p, unsigned index)
{
    struct conn *c = &p->pool[index];
    if (place_in_use(p, c)) /* else it gave up its place earlier in this turn */
        places_go_on(p, c, conn_ready(c, &p->turn));
}

uint64_t places_due_ns(const struct places *p)
{
    uint64_t soonest_ns = p->active > PLACES_CROWD ? p->swept_ns + sweep_distance_ns : 0;
    return p->sweep_ns > soonest_ns ? p->sweep_ns : soonest_ns;
}

void places_sweep(struct places *p)
{
    uint64_t now_ns = p->turn.now_ns;
    p->swept_ns = now_ns;
    p->sweep_ns = now_ns + sweep_ns_max;
    for (unsigned i = p->active; i-- > 0;) { /* backwards: removal moves the last one here */
        const struct slot *s = &p->slot[i];
        if (s->deadline_ns <= now_ns)
            places_go_on(p, s->conn, conn_expired(s->conn, &p->turn));
        else if (s->deadline_ns < p->sweep_ns)
            p->sweep_ns = s->deadline_ns;
    }
}

/* Protocols may hear here that they are closed, and add others to the list. */
void places_flush(struct places *p)
{
    while (p->dirty) {
        struct conn *c = p->dirty;
        p->dirty = c->next_dirty;
        c->dirty = false;
        if (place_in_use(p, c))
            places_go_on(p, c, conn_flush(c, &p->turn));
        else
            place_give(p, c);
    }
}

int places_open(struct places *p, int epoll, uint64_t event_base, unsigned count)
{
    *p = (struct places){.epoll = epoll, .event_base = event_base, .count = count};
    p->pool = calloc((size_t)count + 1, sizeof *p->pool);
    p->slot = calloc((size_t)count + 1, sizeof *p->slot);
    p->turn.dirty = &p->dirty;
    return p->pool && p->slot ? 0 : -ENOMEM;
}

void places_close(struct places *p)
{
    while (p->active > 0)
        places_remove(p, p->slot[p->active - 1].conn);
    free(p->pool);
    free(p->slot);
}
