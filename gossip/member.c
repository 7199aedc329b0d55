#include "gossip/member_table.h"

struct members *members_init(void *memory, uint32_t self, uint64_t boot, uint64_t seed)
{
    struct members *m = memory;
    assert(self != 0);
    memset(m, 0, sizeof *m);
    m->random = seed;
    m->help_count = (uint32_t)member_dice(m);
    /* Ourselves are in the ring and the view, but nobody to find by hash or to ask. */
    m->count = 1;
    m->ring_count = 1; /* ring[0] is 0 */
    m->of[0].fact = (struct member_fact){.id = self, .state = MEMBER_DEAD};
    m->watch[0].step_ns = NEVER_NS;
    m->due_ns[0] = NEVER_NS;
    member_set(m, 0, &(struct member_fact){.id = self, .boot = boot}, 0);
    member_spread(m, 0);
    return m;
}

/* Later boot, then higher incarnation, then the worse state. */
static int fact_order(const struct member_fact *a, const struct member_fact *b)
{
    if (a->boot != b->boot)
        return a->boot > b->boot ? 1 : -1;
    if (a->incarnation != b->incarnation)
        return a->incarnation > b->incarnation ? 1 : -1;
    return (int)a->state - (int)b->state;
}
static_assert(MEMBER_ALIVE < MEMBER_SUSPECT && MEMBER_SUSPECT < MEMBER_DEAD &&
                  MEMBER_DEAD < MEMBER_LEFT,
              "the order of states");

static uint64_t since(uint64_t at_ns, uint64_t now_ns)
{
    return now_ns > at_ns ? now_ns - at_ns : 0;
}

static bool within(uint64_t at_ns, uint64_t span_ns, uint64_t now_ns)
{
    return at_ns != 0 && since(at_ns, now_ns) < span_ns;
}

/* --- ourselves --- */

/* False: incarnations are used up, as no honest mesh ever does. */
static bool self_raise(struct members *m, uint32_t above)
{
    struct member_fact me = m->of[0].fact;
    if (above == UINT32_MAX)
        return false;
    me.incarnation = above + 1;
    member_set(m, 0, &me, 0);
    member_spread(m, 0);
    member_note(m, 0); /* who waits for news to tell must not wait with this */
    return true;
}

void member_leave(struct members *m, uint64_t now_ns)
{
    struct member_fact me = m->of[0].fact;
    me.state = MEMBER_LEFT;
    member_set(m, 0, &me, now_ns);
    member_spread(m, 0);
}

void member_reboot(struct members *m, uint64_t boot)
{
    struct member_fact me = m->of[0].fact;
    assert(boot > me.boot);
    me.boot = boot;
    me.incarnation = 0;
    member_set(m, 0, &me, 0);
    member_spread(m, 0);
}

void member_self_at(struct members *m, const struct endpoint *at)
{
    struct member_fact me = m->of[0].fact;
    if (endpoint_equal(&me.at, at))
        return;
    me.at = *at;
    if (me.incarnation < UINT32_MAX)
        me.incarnation++; /* so that it beats what was said before */
    member_set(m, 0, &me, 0);
    member_spread(m, 0);
}

/* Awake after a sleep that others may have noticed. */
void member_woken(struct members *m)
{
    self_raise(m, m->of[0].fact.incarnation);
}

static bool told_of_self(struct members *m, const struct member_fact *f, uint64_t *ret_reboot)
{
    const struct member_fact *me = &m->of[0].fact;
    if (me->state == MEMBER_LEFT || fact_order(f, me) <= 0)
        return false;
    if (f->boot > me->boot) {
        if (f->boot < UINT64_MAX) /* else nothing is later */
            *ret_reboot = f->boot + 1;
        return false;
    }
    if (f->state != MEMBER_ALIVE)
        member_worse(m, 1); /* others miss our answers: so may we theirs */
    if (self_raise(m, f->incarnation))
        return true;
    if (me->boot < UINT64_MAX)
        *ret_reboot = me->boot + 1;
    return false;
}

/* --- others --- */

/* What is held against it here or elsewhere, the worst of it. */
static void accuse(struct members *m, unsigned i, uint32_t incarnation, uint8_t state)
{
    struct watch *w = &m->watch[i];
    bool worse = w->accused_state == MEMBER_ALIVE || incarnation > w->accused_incarnation ||
                 (incarnation == w->accused_incarnation && state > w->accused_state);
    if (state == MEMBER_ALIVE || !worse)
        return;
    w->accused_state = state;
    w->accused_incarnation = incarnation;
}

static void acquit_below(struct members *m, unsigned i, uint32_t incarnation)
{
    struct watch *w = &m->watch[i];
    if (w->accused_incarnation < incarnation)
        w->accused_state = MEMBER_ALIVE;
}

/* Nothing of what was known of an earlier boot holds for this one; its round trip does. */
static void begin_boot(struct members *m, unsigned i)
{
    struct watch *w = &m->watch[i];
    m->of[i].heard_ns = 0;
    w->proof_ns = 0;
    w->accused_state = MEMBER_ALIVE;
    w->behind = false;
    member_rest(m, i);
}

static bool disbelieved(const struct members *m, unsigned i, const struct member_fact *f,
                        uint64_t now_ns)
{
    const struct member *p = &m->of[i];
    if (f->boot != p->fact.boot || !fact_lives(&p->fact))
        return false;
    if (f->state == MEMBER_SUSPECT)
        return within(m->watch[i].proof_ns, MEMBER_PERIOD_NS, now_ns);
    if (f->state == MEMBER_DEAD)
        return within(m->watch[i].proof_ns, MEMBER_SUSPECT_NS, now_ns);
    return false;
}

/* Which address to keep: see member_told. */
static struct endpoint address_from(const struct members *m, unsigned i,
                                    const struct member_fact *f, uint64_t now_ns)
{
    const struct member *p = &m->of[i];
    if (f->at.port == 0)
        return p->fact.at;
    if (p->fact.at.port == 0 || f->boot > p->fact.boot)
        return f->at;
    if (fact_order(f, &p->fact) == 0)
        return p->fact.at;
    return within(p->heard_ns, MEMBER_SUSPECT_NS, now_ns) ? p->fact.at : f->at;
}

/* Something follows from the new state. */
static void entered(struct members *m, unsigned i, const struct member_fact *old, uint64_t now_ns)
{
    const struct member_fact *f = &m->of[i].fact;
    if (f->boot != old->boot)
        begin_boot(m, i);
    switch (f->state) {
    case MEMBER_ALIVE:
        acquit_below(m, i, f->incarnation);
        if (old->state != MEMBER_ALIVE)
            member_rest(m, i);
        break;
    case MEMBER_SUSPECT:
        /* With a higher incarnation it is another suspicion: the member lived in between. */
        if (old->state != MEMBER_SUSPECT || fact_order(f, old) != 0)
            member_suspected(m, i, false, now_ns);
        break;
    default:
        member_rest(m, i);
    }
}

static bool told_of_unknown(struct members *m, const struct member_fact *f, uint64_t now_ns)
{
    if (!fact_lives(f))
        return false;
    int i = member_add(m, f->id, true);
    if (i < 0)
        return false;
    const struct member_fact none = {.state = MEMBER_DEAD};
    member_set(m, (unsigned)i, f, now_ns);
    entered(m, (unsigned)i, &none, now_ns);
    member_spread(m, (unsigned)i);
    return true;
}

static bool told_of_known(struct members *m, unsigned i, const struct member_fact *f,
                          uint64_t now_ns)
{
    const struct member_fact old = m->of[i].fact;
    struct member_fact next = *f;
    int order = fact_order(f, &old);
    bool believed = !disbelieved(m, i, f, now_ns);
    if (order < 0)
        return false;
    next.at = address_from(m, i, f, now_ns);
    if (!believed) {
        accuse(m, i, f->incarnation, f->state);
        next.state = old.state;
    }
    if (fact_order(&next, &old) == 0 && endpoint_equal(&next.at, &old.at))
        return false;
    member_set(m, i, &next, now_ns);
    entered(m, i, &old, now_ns);
    if (order > 0)
        member_spread(m, i);
    return true;
}

bool member_told(struct members *m, const struct member_fact *fact, uint64_t now_ns,
                 uint64_t *ret_reboot)
{
    *ret_reboot = 0;
    if (fact->id == 0 || fact->state >= MEMBER_STATE_COUNT)
        return false;
    int i = member_find(m, fact->id);
    if (i == 0)
        return told_of_self(m, fact, ret_reboot);
    if (i < 0)
        return told_of_unknown(m, fact, now_ns);
    return told_of_known(m, (unsigned)i, fact, now_ns);
}

bool member_proven(struct members *m, unsigned i, uint64_t now_ns)
{
    struct member_fact next = m->of[i].fact;
    struct watch *w = &m->watch[i];
    w->proof_ns = now_ns > 0 ? now_ns : 1;
    if (next.state == MEMBER_LEFT)
        return false;
    if (w->step_ns != NEVER_NS && w->tries > 0 && m->health > 0)
        m->health--; /* an answer that we waited for */
    if (next.state == MEMBER_ALIVE) {
        member_rest(m, i);
        return false;
    }
    accuse(m, i, next.incarnation, next.state);
    next.state = MEMBER_ALIVE;
    member_set(m, i, &next, now_ns);
    member_rest(m, i);
    /* Of this incarnation "alive" convinces nobody who has heard "suspect". */
    member_hush(m, i);
    return true;
}

static bool heard_new(struct members *m, unsigned i, const struct member_fact *f, uint64_t now_ns)
{
    const struct member_fact old = m->of[i].fact;
    member_set(m, i, f, now_ns);
    entered(m, i, &old, now_ns);
    member_proven(m, i, now_ns);
    m->of[i].heard_ns = m->watch[i].proof_ns;
    member_spread(m, i);
    return true;
}

bool member_heard(struct members *m, uint32_t id, uint64_t boot, const struct endpoint *at,
                  uint64_t now_ns, int *ret_index)
{
    struct member_fact next = {.id = id, .boot = boot, .at = *at};
    int i = member_find(m, id);
    bool is_new = i < 0;
    if (is_new && id != 0)
        i = member_add(m, id, false);
    *ret_index = i;
    if (i <= 0)
        return false;
    const struct member_fact *known = &m->of[i].fact;
    if (at->port == 0)
        next.at = known->at;
    if (is_new || boot > known->boot)
        return heard_new(m, (unsigned)i, &next, now_ns);
    if (boot < known->boot) {
        m->watch[i].behind = true;
        return false;
    }
    bool news = member_proven(m, (unsigned)i, now_ns);
    if (known->state == MEMBER_LEFT)
        return false;
    m->of[i].heard_ns = m->watch[i].proof_ns;
    if (endpoint_equal(&known->at, &next.at))
        return news;
    struct member_fact moved = *known;
    moved.at = next.at;
    member_set(m, (unsigned)i, &moved, now_ns);
    return true;
}
