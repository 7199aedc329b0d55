#include "gossip/member_table.h"

enum {
    TRIES = 3,       /* without an answer, then it is suspect */
    WAKE_PINGS = 16, /* at once after a sleep */
    SUSPECT_ASKERS =
        8, /* of those who know a suspicion by hearsay, about so many ask the suspect */
};
#define WAIT_MAX_NS UINT64_C(1000000000)
/* The last chance: so long before the sentence everybody who would carry it out asks so often. */
#define LAST_NS UINT64_C(2000000000)
#define LAST_GAP_NS UINT64_C(200000000)
/* Less is the fault of no one; so much tells of a machine that is not well. */
#define LATE_MIN_NS UINT64_C(20000000)
#define LATE_ILL_NS UINT64_C(200000000)

#define HELP_NS UINT64_C(2000000000) /* who asked has lost patience by then */

/* Numbers of questions: for ourselves the round and the try, for others HELP and a count. */
#define NUMBER_HELP (UINT64_C(1) << 63)
enum { NUMBER_TRY_BITS = 16 };

static uint64_t question(const struct watch *w, unsigned try)
{
    return (uint64_t)w->round << NUMBER_TRY_BITS | try;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- when --- */

void member_due(struct members *m, unsigned i)
{
    const struct member *p = &m->of[i];
    const struct watch *w = &m->watch[i];
    uint64_t due_ns = NEVER_NS;
    if (p->fact.id != 0 && !fact_lives(&p->fact))
        due_ns = p->changed_ns + (p->heard_ns ? MEMBER_KEEP_NS : MEMBER_KEEP_HEARSAY_NS);
    else if (p->fact.state == MEMBER_SUSPECT)
        due_ns = least(w->step_ns, w->sentence_ns);
    else
        due_ns = w->step_ns;
    m->due_ns[i] = due_ns;
    m->next_ns = least(m->next_ns, due_ns);
}

void member_rest(struct members *m, unsigned i)
{
    m->watch[i].step_ns = NEVER_NS;
    member_due(m, i);
}

void member_worse(struct members *m, unsigned by)
{
    m->health = m->health + by < MEMBER_HEALTH_MAX ? m->health + by : MEMBER_HEALTH_MAX;
}

static void round_begin(struct members *m, unsigned i, uint64_t at_ns)
{
    struct watch *w = &m->watch[i];
    w->round++;
    w->tries = 0;
    w->step_ns = at_ns;
    member_due(m, i);
}

static bool is_last_chance(const struct members *m, unsigned i, uint64_t now_ns)
{
    return m->of[i].fact.state == MEMBER_SUSPECT && now_ns + LAST_NS >= m->watch[i].sentence_ns;
}

/* How long the next try waits for an answer. */
static uint64_t patience(const struct members *m, unsigned i, uint64_t now_ns)
{
    const struct watch *w = &m->watch[i];
    uint64_t wait_ns = least(most(2 * m->of[i].rtt_ns, MEMBER_WAIT_NS), WAIT_MAX_NS);
    wait_ns += wait_ns / MEMBER_HEALTH_MAX * m->health;
    if (m->of[i].fact.state != MEMBER_SUSPECT)
        return wait_ns;
    if (is_last_chance(m, i, now_ns))
        return LAST_GAP_NS;
    return least(wait_ns, w->sentence_ns - LAST_NS - now_ns);
}

/* A suspicion of our own goes on with the round that led to it. Of what is told to many, few need
 * to ask at once: a thousand questions would drown an answer. */
void member_suspected(struct members *m, unsigned i, bool own, uint64_t now_ns)
{
    struct watch *w = &m->watch[i];
    w->since_ns = now_ns;
    w->sentence_ns =
        now_ns + MEMBER_SUSPECT_NS + MEMBER_SUSPECT_NS / 32 * m->health; /* 25 % at worst */
    if (!own && w->step_ns == NEVER_NS) {
        bool asks = member_dice(m) % members_usable(m) < SUSPECT_ASKERS;
        round_begin(m, i, asks ? now_ns : w->sentence_ns - LAST_NS);
    }
    member_due(m, i);
}

/* --- whom --- */

static void put(struct members *m, unsigned to, unsigned subject, uint64_t number)
{
    assert(m->out_count < OUT_MAX);
    m->out[m->out_count++] = (struct member_ping){.to = to, .subject = subject, .number = number};
}

/* A few draws, not a walk: in a mesh with hardly anybody well one helper less is no loss. */
static void ask_helpers(struct members *m, unsigned i, uint64_t number)
{
    int chosen[MEMBER_HELPERS];
    unsigned n = 0;
    for (unsigned draws = 0; draws < 8 * MEMBER_HELPERS && n < MEMBER_HELPERS; draws++) {
        int h = member_random(m);
        bool fit = h > 0 && h != (int)i && m->of[h].fact.state == MEMBER_ALIVE;
        for (unsigned k = 0; fit && k < n; k++)
            fit = chosen[k] != h;
        if (!fit)
            continue;
        chosen[n++] = h;
        put(m, (unsigned)h, i, number);
    }
}

static void ask(struct members *m, unsigned i, uint64_t now_ns)
{
    struct watch *w = &m->watch[i];
    uint64_t number = question(w, w->tries);
    w->sent_ns[w->tries % SENT_MAX] = now_ns;
    put(m, i, i, number);
    if (w->tries % TRIES == 1 || is_last_chance(m, i, now_ns))
        ask_helpers(m, i, number);
    w->tries++;
    w->step_ns = now_ns + patience(m, i, now_ns);
}

static void set_state(struct members *m, unsigned i, enum member_state state, uint64_t now_ns)
{
    struct member_fact next = m->of[i].fact;
    next.state = (uint8_t)state;
    member_set(m, i, &next, now_ns);
    member_spread(m, i);
}

/* What is due of one member. Afterwards nothing is, until later. */
static void turn(struct members *m, unsigned i, uint64_t now_ns)
{
    struct member *p = &m->of[i];
    struct watch *w = &m->watch[i];
    if (!fact_lives(&p->fact)) {
        member_drop(m, i, now_ns);
        return;
    }
    if (p->fact.state == MEMBER_SUSPECT && now_ns >= w->sentence_ns) {
        set_state(m, i, MEMBER_DEAD, now_ns);
        member_rest(m, i);
        return;
    }
    if (p->fact.state == MEMBER_ALIVE && w->tries >= TRIES) {
        set_state(m, i, MEMBER_SUSPECT, now_ns);
        member_worse(m, 1);
        member_suspected(m, i, true, now_ns);
    }
    ask(m, i, now_ns);
    member_due(m, i);
}

/* --- the period --- */

static void order_shuffle(struct members *m)
{
    for (unsigned n = m->order_count; n > 1; n--) {
        unsigned at = (unsigned)(member_dice(m) % n);
        uint16_t last = m->order[n - 1];
        m->order[n - 1] = m->order[at];
        m->order[at] = last;
    }
    m->order_at = 0;
}

/* The next in order who lives; -1: nobody does. */
static int order_next(struct members *m)
{
    while (m->order_count > 0) {
        if (m->order_at >= m->order_count)
            order_shuffle(m);
        unsigned i = m->order[m->order_at];
        if (fact_lives(&m->of[i].fact)) {
            m->order_at++;
            return (int)i;
        }
        m->watch[i].ordered = false;
        m->order[m->order_at] = m->order[--m->order_count];
    }
    return -1;
}

static void ask_some(struct members *m, unsigned some, uint64_t now_ns)
{
    unsigned all = members_usable(m);
    if (all <= some)
        m->order_at = m->order_count; /* a new order, so that it has each exactly once */
    for (unsigned asked = 0, seen = 0; asked < some && seen < all; seen++) {
        int i = order_next(m);
        if (i < 0)
            return;
        if (m->of[i].fact.state == MEMBER_SUSPECT || m->watch[i].step_ns != NEVER_NS)
            continue; /* is being asked, or its last chance is to come */
        round_begin(m, (unsigned)i, now_ns);
        asked++;
    }
}

/* One that is dead here may be alive beyond a link that is whole again. */
static void ask_a_dead_one(struct members *m)
{
    for (unsigned n = 0; n < m->count; n++) {
        unsigned i = m->dead_turn++ % m->count;
        if (m->of[i].fact.id == 0 || m->of[i].fact.state != MEMBER_DEAD)
            continue;
        m->watch[i].round++;
        m->watch[i].tries = 0;
        put(m, i, i, question(&m->watch[i], 0));
        return;
    }
}

/* Of uneven length, so that beacons that started together do not stay in step. */
static void period_begin(struct members *m, uint64_t now_ns)
{
    m->period_ns = now_ns + MEMBER_PERIOD_NS * 19 / 20 + member_dice(m) % (MEMBER_PERIOD_NS / 10);
    m->lag_ns -= m->lag_ns / 4;
    ask_some(m, m->woke ? WAKE_PINGS : MEMBER_PINGS, now_ns);
    m->woke = false;
    if (m->out_count == 0)
        ask_a_dead_one(m);
}

/* --- lateness --- */

/* What we slept through is nobody's silence; and answers that came meanwhile must have the time to
 * be read: we may have slept just before the last moment. What began after we should have been
 * called (news that were taken in before this call) is not lengthened. */
static void stretch(struct members *m, uint64_t late_ns, uint64_t now_ns)
{
    for (unsigned i = 1; i < m->count; i++) {
        struct watch *w = &m->watch[i];
        if (!fact_lives(&m->of[i].fact))
            continue;
        if (m->of[i].fact.state == MEMBER_SUSPECT && w->since_ns < m->next_ns)
            w->sentence_ns =
                most(w->sentence_ns + late_ns, now_ns + least(late_ns, MEMBER_PERIOD_NS));
        if (w->step_ns != NEVER_NS && w->tries > 0)
            w->step_ns = most(w->step_ns + late_ns, now_ns + least(late_ns, MEMBER_WAIT_NS));
        memset(w->sent_ns, 0, sizeof w->sent_ns); /* nor is it the way's length */
        member_due(m, i);
    }
}

static void notice_lateness(struct members *m, uint64_t now_ns)
{
    uint64_t late_ns = m->ticked && now_ns > m->next_ns ? now_ns - m->next_ns : 0;
    m->ticked = true;
    m->lag_ns = most(m->lag_ns, late_ns);
    if (late_ns < LATE_MIN_NS)
        return;
    stretch(m, late_ns, now_ns);
    if (late_ns >= LATE_ILL_NS)
        member_worse(m, 1);
    if (late_ns >= MEMBER_PERIOD_NS) {
        m->woke = true;
        member_woken(m);
    }
}

uint32_t member_lag_ms(const struct members *m)
{
    return (uint32_t)least(m->lag_ns / 1000000, UINT32_MAX);
}

unsigned member_health(const struct members *m)
{
    return m->health;
}

/* --- the clockwork --- */

static bool next_turn(struct members *m, uint64_t now_ns)
{
    for (; m->scan < m->count; m->scan++)
        if (m->due_ns[m->scan] <= now_ns) {
            turn(m, m->scan, now_ns);
            assert(m->due_ns[m->scan] > now_ns);
            return true;
        }
    return false;
}

static uint64_t earliest(const struct members *m)
{
    uint64_t at_ns = m->period_ns;
    for (unsigned i = 1; i < m->count; i++)
        at_ns = least(at_ns, m->due_ns[i]);
    return at_ns;
}

unsigned member_tick(struct members *m, uint64_t now_ns, struct member_ping *ret, unsigned max)
{
    unsigned n = 0;
    if (m->of[0].fact.state == MEMBER_LEFT) {
        m->next_ns = NEVER_NS;
        return 0;
    }
    notice_lateness(m, now_ns);
    m->next_ns = now_ns;
    if (now_ns >= m->period_ns)
        period_begin(m, now_ns);
    while (n < max) {
        if (m->out_count > 0)
            ret[n++] = m->out[--m->out_count];
        else if (!next_turn(m, now_ns))
            break;
    }
    if (n == max)
        return n; /* perhaps not all: next_ns stays at now */
    m->scan = 0;
    m->next_ns = earliest(m);
    return n;
}

uint64_t member_next_ns(const struct members *m)
{
    return m->next_ns;
}

/* --- answers --- */

static void measure(struct members *m, unsigned i, unsigned try, uint64_t now_ns)
{
    struct watch *w = &m->watch[i];
    struct member *p = &m->of[i];
    if (try >= w->tries || w->tries - try > SENT_MAX)
        return;
    uint64_t sent_ns = w->sent_ns[try % SENT_MAX];
    w->sent_ns[try % SENT_MAX] = 0;
    if (sent_ns == 0 || now_ns < sent_ns)
        return;
    uint64_t rtt_ns = most(now_ns - sent_ns, 1);
    p->rtt_ns = p->rtt_ns == 0 ? rtt_ns : p->rtt_ns - p->rtt_ns / 8 + rtt_ns / 8;
}

void member_acked(struct members *m, uint64_t number, uint32_t subject, bool directly,
                  uint64_t now_ns)
{
    int i = member_find(m, subject);
    uint64_t round = number >> NUMBER_TRY_BITS;
    if (i <= 0 || round > UINT32_MAX)
        return;
    uint32_t ago = m->watch[i].round - (uint32_t)round;
    if (ago > 1)
        return;
    if (directly && ago == 0)
        measure(m, (unsigned)i, (unsigned)(number & UINT16_MAX), now_ns);
    member_proven(m, (unsigned)i, now_ns);
}

/* --- for others --- */

bool member_help(struct members *m, unsigned asker, uint64_t number, unsigned subject,
                 uint64_t now_ns, struct member_ping *ret)
{
    struct help *place = &m->help[m->help_count % HELPS_MAX];
    if (asker >= m->count || subject >= m->count || asker == subject || asker == 0 || subject == 0)
        return false;
    if (m->of[asker].fact.id == 0 || m->of[subject].fact.id == 0)
        return false;
    if (place->number != 0 && now_ns < place->at_ns + HELP_NS)
        return false;
    *place = (struct help){
        .number = NUMBER_HELP | m->help_count++,
        .asker_number = number,
        .at_ns = now_ns,
        .asker = (uint16_t)asker,
    };
    *ret = (struct member_ping){.to = subject, .subject = subject, .number = place->number};
    return true;
}

bool member_helped(struct members *m, uint64_t number, int *ret_asker, uint64_t *ret_number)
{
    struct help *h = &m->help[number % HELPS_MAX];
    if (h->number == 0 || h->number != number)
        return false;
    *ret_asker = h->asker;
    *ret_number = h->asker_number;
    h->number = 0;
    return true;
}
