/* member_sim - many struct members in one process, a virtual clock, links that lose and delay.
 *
 * Frames are delivered as gossip.c would: every one counts as heard; PING, PROBE and ACK are each
 * followed by a frame of rumours, lost on its own; a PING whose view differs is answered with all
 * facts besides. A paused beacon gets what came meanwhile when it
 * wakes, or never (`pause_drops`). What one holds of another is compared with the truth after each
 * step. The same seed gives the same run. */
#ifndef BEACON_TESTS_MEMBER_SIM_H
#define BEACON_TESTS_MEMBER_SIM_H

#include "tests/rig.h"
#include "gossip/member.h"

enum { SIM_MAX = 64, SIM_FRAMES = 1 << 14, SIM_EVENTS = 1 << 15, SIM_ID = 1000 };
#define SIM_MS UINT64_C(1000000)

struct sim_frame {
    unsigned from, to;
    enum gossip_kind kind;
    uint64_t boot, number, view;
    uint32_t subject;
    unsigned facts;
    struct member_fact fact[MEMBER_RUMOURS];
};

struct sim_event {
    uint64_t at_ns, order;
    int frame;       /* index, or -1: a tick of `beacon` */
    unsigned beacon; /* of a tick */
    uint64_t turn;   /* of that beacon, when this tick is not yet obsolete */
};

struct sim_beacon {
    struct members *m;
    bool runs;
    uint64_t boot, turn, tick_ns;
    uint64_t pause_ns; /* sleeps until */
    /* What the others make of it, since it was killed. */
    uint64_t killed_ns, suspect_ns, dead_ns[SIM_MAX];
};

struct sim {
    unsigned count;
    uint64_t random, now_ns, order;
    unsigned loss_percent;
    bool pause_drops;
    bool deaf[SIM_MAX][SIM_MAX]; /* [from][to]: nothing gets through */
    struct sim_beacon of[SIM_MAX];
    unsigned event_count;
    struct sim_event event[SIM_EVENTS]; /* a heap */
    unsigned free_count;
    uint16_t free[SIM_FRAMES];
    struct sim_frame frame[SIM_FRAMES];
    uint64_t suspicions, false_deaths, frames;
};

static inline struct endpoint sim_at(unsigned b)
{
    struct endpoint e = {.ip = {[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)b}, .port = 9001};
    return e;
}

static inline bool sim_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static inline void sim_push(struct sim *s, struct sim_event e)
{
    unsigned at = s->event_count++;
    assert_true(at < SIM_EVENTS);
    e.order = s->order++;
    for (; at > 0 && sim_before(&e, &s->event[(at - 1) / 2]); at = (at - 1) / 2)
        s->event[at] = s->event[(at - 1) / 2];
    s->event[at] = e;
}

static inline struct sim_event sim_pop(struct sim *s)
{
    struct sim_event first = s->event[0], last = s->event[--s->event_count];
    unsigned at = 0, child;
    for (; (child = 2 * at + 1) < s->event_count; at = child) {
        if (child + 1 < s->event_count && sim_before(&s->event[child + 1], &s->event[child]))
            child++;
        if (!sim_before(&s->event[child], &last))
            break;
        s->event[at] = s->event[child];
    }
    s->event[at] = last;
    return first;
}

/* --- what is believed --- */

static inline void sim_watch(struct sim *s, unsigned b)
{
    unsigned changed[32], n;
    while ((n = member_changes(s->of[b].m, changed, COUNT(changed))) > 0)
        for (unsigned k = 0; k < n; k++) {
            const struct member_fact *f = &member_at(s->of[b].m, changed[k])->fact;
            struct sim_beacon *x = &s->of[f->id - SIM_ID];
            if (f->id == 0 || changed[k] == 0 || f->boot != x->boot)
                continue;
            s->suspicions += f->state == MEMBER_SUSPECT;
            s->false_deaths += f->state == MEMBER_DEAD && x->runs;
            if (f->state == MEMBER_SUSPECT && x->suspect_ns == 0)
                x->suspect_ns = s->now_ns;
            x->dead_ns[b] = f->state == MEMBER_DEAD ? s->now_ns : 0;
        }
}

static inline void sim_wake_at(struct sim *s, unsigned b)
{
    struct sim_beacon *x = &s->of[b];
    uint64_t at_ns = member_next_ns(x->m);
    if (at_ns == UINT64_MAX || (x->tick_ns != 0 && x->tick_ns <= at_ns))
        return;
    x->tick_ns = at_ns > s->now_ns ? at_ns : s->now_ns;
    sim_push(s, (struct sim_event){.at_ns = x->tick_ns + rig_random(&s->random) % (2 * SIM_MS),
                                   .frame = -1,
                                   .beacon = b,
                                   .turn = ++x->turn});
}

/* --- frames --- */

static inline struct sim_frame *sim_send(struct sim *s, unsigned from, unsigned to,
                                         enum gossip_kind kind)
{
    static struct sim_frame lost;
    s->frames++;
    if (s->deaf[from][to] || rig_random(&s->random) % 100 < s->loss_percent) {
        lost = (struct sim_frame){.from = from, .to = to, .kind = kind};
        return &lost;
    }
    assert_true(s->free_count > 0);
    uint16_t f = s->free[--s->free_count];
    s->frame[f].from = from;
    s->frame[f].to = to;
    s->frame[f].kind = kind;
    s->frame[f].boot = s->of[from].boot;
    uint64_t way_ns = 5 * SIM_MS + rig_random(&s->random) % (60 * SIM_MS);
    sim_push(s, (struct sim_event){.at_ns = s->now_ns + way_ns, .frame = f});
    return &s->frame[f];
}

static inline void sim_tell(struct sim *s, unsigned from, unsigned to)
{
    struct member_fact fact[MEMBER_RUMOURS];
    int index = member_find(s->of[from].m, SIM_ID + to);
    unsigned n = member_rumours(s->of[from].m, (unsigned)index, fact, MEMBER_RUMOURS);
    if (n == 0)
        return;
    struct sim_frame *f = sim_send(s, from, to, GOSSIP_MEMBERS);
    f->facts = n;
    memcpy(f->fact, fact, n * sizeof fact[0]);
}

static inline void sim_tell_all(struct sim *s, unsigned from, unsigned to)
{
    struct sim_frame *f = NULL;
    for (unsigned i = 0; i < members_count(s->of[from].m); i++) {
        if (i % MEMBER_RUMOURS == 0) {
            f = sim_send(s, from, to, GOSSIP_MEMBERS);
            f->facts = 0;
        }
        f->fact[f->facts++] = member_at(s->of[from].m, i)->fact;
    }
}

static inline void sim_say(struct sim *s, unsigned from, unsigned to, enum gossip_kind kind,
                           uint64_t number, uint32_t subject)
{
    struct sim_frame *f = sim_send(s, from, to, kind);
    f->number = number;
    f->subject = subject;
    f->view = member_view(s->of[from].m);
    sim_tell(s, from, to);
}

static inline void sim_question(struct sim *s, unsigned from, const struct member_ping *p)
{
    const struct members *m = s->of[from].m;
    uint32_t to = member_at(m, p->to)->fact.id, subject = member_at(m, p->subject)->fact.id;
    sim_say(s, from, to - SIM_ID, p->to == p->subject ? GOSSIP_PING : GOSSIP_PROBE, p->number,
            subject);
}

static inline void sim_acked(struct sim *s, const struct sim_frame *f)
{
    struct members *m = s->of[f->to].m;
    uint64_t number;
    int asker;
    if (member_helped(m, f->number, &asker, &number))
        sim_say(s, f->to, member_at(m, (unsigned)asker)->fact.id - SIM_ID, GOSSIP_ACK, number,
                f->subject);
    else
        member_acked(m, f->number, f->subject, f->subject == SIM_ID + f->from, s->now_ns);
}

static inline void sim_told(struct sim *s, const struct sim_frame *f)
{
    struct sim_beacon *x = &s->of[f->to];
    uint64_t boot = 0;
    for (unsigned i = 0; i < f->facts; i++) {
        member_told(x->m, &f->fact[i], s->now_ns, &boot);
        if (boot == 0)
            continue;
        member_reboot(x->m, boot);
        x->boot = boot;
    }
}

static inline void sim_receive(struct sim *s, const struct sim_frame *f)
{
    struct members *m = s->of[f->to].m;
    int from, subject = member_find(m, f->subject);
    struct endpoint at = sim_at(f->from);
    struct member_ping ping;
    member_heard(m, SIM_ID + f->from, f->boot, &at, s->now_ns, &from);
    if (f->kind == GOSSIP_PING && f->view != member_view(m))
        sim_tell_all(s, f->to, f->from);
    if (f->kind == GOSSIP_PING)
        sim_say(s, f->to, f->from, GOSSIP_ACK, f->number, SIM_ID + f->to);
    else if (f->kind == GOSSIP_ACK)
        sim_acked(s, f);
    else if (f->kind == GOSSIP_MEMBERS)
        sim_told(s, f);
    else if (subject > 0 &&
             member_help(m, (unsigned)from, f->number, (unsigned)subject, s->now_ns, &ping))
        sim_question(s, f->to, &ping);
}

/* --- time --- */

static inline void sim_tick(struct sim *s, unsigned b)
{
    struct member_ping ping[8];
    unsigned n;
    s->of[b].tick_ns = 0;
    do {
        n = member_tick(s->of[b].m, s->now_ns, ping, COUNT(ping));
        for (unsigned i = 0; i < n; i++)
            sim_question(s, b, &ping[i]);
    } while (n == COUNT(ping));
}

static inline void sim_step(struct sim *s)
{
    struct sim_event e = sim_pop(s);
    unsigned b = e.frame >= 0 ? s->frame[e.frame].to : e.beacon;
    struct sim_beacon *x = &s->of[b];
    s->now_ns = e.at_ns;
    bool sleeps = e.at_ns < x->pause_ns, acts = x->runs && !sleeps;
    if (e.frame < 0 && e.turn != x->turn)
        return;
    if (x->runs && sleeps && (e.frame < 0 || !s->pause_drops)) {
        e.at_ns = x->pause_ns;
        sim_push(s, e);
        return;
    }
    if (acts && e.frame < 0)
        sim_tick(s, b);
    else if (acts)
        sim_receive(s, &s->frame[e.frame]);
    if (e.frame >= 0)
        s->free[s->free_count++] = (uint16_t)e.frame;
    if (acts) {
        sim_watch(s, b);
        sim_wake_at(s, b);
    }
}

static inline void sim_run(struct sim *s, uint64_t span_ns)
{
    uint64_t until_ns = s->now_ns + span_ns;
    while (s->event_count > 0 && s->event[0].at_ns <= until_ns)
        sim_step(s);
    s->now_ns = until_ns;
}

/* --- beacons come and go --- */

/* Starts it, knowing of one other. */
static inline void sim_start(struct sim *s, unsigned b, unsigned seed)
{
    struct sim_beacon *x = &s->of[b];
    struct member_fact fact = {.id = SIM_ID + seed, .boot = s->of[seed].boot, .at = sim_at(seed)};
    struct endpoint at = sim_at(b);
    uint64_t reboot;
    *x = (struct sim_beacon){.m = x->m, .runs = true, .boot = x->boot + 1, .turn = x->turn};
    if (x->m == NULL)
        x->m = malloc(members_size());
    assert_non_null(x->m);
    members_init(x->m, SIM_ID + b, x->boot, rig_random(&s->random));
    member_self_at(x->m, &at);
    if (seed != b)
        assert_true(member_told(x->m, &fact, s->now_ns, &reboot));
    sim_wake_at(s, b);
}

static inline void sim_kill(struct sim *s, unsigned b)
{
    struct sim_beacon *x = &s->of[b];
    x->runs = false;
    x->killed_ns = s->now_ns;
    x->suspect_ns = 0;
    memset(x->dead_ns, 0, sizeof x->dead_ns);
}

static inline struct sim *sim_open(unsigned count, unsigned loss_percent, uint64_t seed)
{
    struct sim *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->count = count;
    s->random = seed;
    s->now_ns = 1000 * SECOND_NS;
    s->loss_percent = loss_percent;
    for (unsigned f = 0; f < SIM_FRAMES; f++)
        s->free[s->free_count++] = (uint16_t)f;
    for (unsigned b = 0; b < count; b++)
        sim_start(s, b, 0);
    sim_run(s, 20 * SECOND_NS);
    s->false_deaths = s->suspicions = s->frames = 0;
    return s;
}

static inline void sim_close(struct sim *s)
{
    for (unsigned b = 0; b < s->count; b++)
        free(s->of[b].m);
    free(s);
}

/* Everybody who runs holds exactly those for living who run. */
static inline bool sim_agrees(const struct sim *s)
{
    for (unsigned b = 0; b < s->count; b++)
        for (unsigned c = 0; s->of[b].runs && c < s->count; c++) {
            int i = member_find(s->of[b].m, SIM_ID + c);
            bool lives = i >= 0 && member_at(s->of[b].m, (unsigned)i)->fact.state <= MEMBER_SUSPECT;
            if (lives != s->of[c].runs)
                return false;
        }
    return true;
}

#endif
