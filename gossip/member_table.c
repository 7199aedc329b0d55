#include "gossip/member_table.h"

/* splitmix64's finalizer: a bijection, so different ids have different places in the ring. */
uint64_t member_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t member_dice(struct members *m)
{
    m->random += 0x9e3779b97f4a7c15u;
    return member_mix(m->random);
}

size_t members_size(void)
{
    return sizeof(struct members);
}

unsigned members_count(const struct members *m)
{
    return m->count;
}

const struct member *member_at(const struct members *m, unsigned index)
{
    assert(index < m->count);
    return &m->of[index];
}

/* --- by id --- */

/* Ids are given by the operators of the mesh: nobody gains by choosing colliding ones. */
static unsigned slot_of(uint32_t id)
{
    return (unsigned)(member_mix(id) & (HASH_SLOTS - 1));
}

int member_find(const struct members *m, uint32_t id)
{
    if (id == 0)
        return -1;
    if (id == m->of[0].fact.id)
        return 0;
    for (unsigned s = slot_of(id); m->slot[s] != 0; s = (s + 1) & (HASH_SLOTS - 1))
        if (m->of[m->slot[s]].fact.id == id)
            return m->slot[s];
    return -1;
}

static void hash_add(struct members *m, unsigned i)
{
    unsigned s = slot_of(m->of[i].fact.id);
    while (m->slot[s] != 0)
        s = (s + 1) & (HASH_SLOTS - 1);
    m->slot[s] = (uint16_t)i;
}

/* Moves up what stood behind it, so that no search ends too early. */
static void hash_remove(struct members *m, unsigned i)
{
    unsigned hole = slot_of(m->of[i].fact.id);
    while (m->slot[hole] != i)
        hole = (hole + 1) & (HASH_SLOTS - 1);
    for (unsigned s = hole;;) {
        s = (s + 1) & (HASH_SLOTS - 1);
        if (m->slot[s] == 0)
            break;
        unsigned home = slot_of(m->of[m->slot[s]].fact.id);
        if (((s - home) & (HASH_SLOTS - 1)) < ((s - hole) & (HASH_SLOTS - 1)))
            continue; /* its home lies behind the hole */
        m->slot[hole] = m->slot[s];
        hole = s;
    }
    m->slot[hole] = 0;
}

/* One that never served, else the one that is free for longest: whoever keeps tables by index has
 * all the time there is to empty them. */
static int free_index(const struct members *m, bool hearsay)
{
    int best = -1;
    if (m->count < (hearsay ? MEMBERS_MAX / 4 * 3 : MEMBERS_MAX))
        return (int)m->count;
    for (unsigned i = 1; i < m->count; i++) {
        if (m->of[i].fact.id != 0 || m->watch[i].changed)
            continue;
        if (best < 0 || m->of[i].changed_ns < m->of[best].changed_ns)
            best = (int)i;
    }
    return best;
}

int member_add(struct members *m, uint32_t id, bool hearsay)
{
    int i = free_index(m, hearsay);
    if (i < 0)
        return -1;
    if ((unsigned)i == m->count)
        m->count++;
    m->of[i] = (struct member){.fact = {.id = id, .state = MEMBER_DEAD}};
    bool ordered = m->watch[i].ordered, hot = m->watch[i].hot; /* still in those lists */
    m->watch[i] = (struct watch){
        .step_ns = NEVER_NS,
        .round = (uint32_t)member_dice(m), /* answers to who we were before mean nothing */
        .ordered = ordered,
        .hot = hot,
    };
    m->due_ns[i] = NEVER_NS;
    hash_add(m, (unsigned)i);
    return i;
}

/* --- the ring --- */

/* Where `id` stands or would stand. */
static unsigned ring_place(const struct members *m, uint32_t id)
{
    unsigned low = 0, high = m->ring_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (member_mix(m->of[m->ring[middle]].fact.id) < member_mix(id))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void ring_add(struct members *m, unsigned i)
{
    assert(m->ring_count < MEMBERS_MAX);
    unsigned at = ring_place(m, m->of[i].fact.id);
    memmove(m->ring + at + 1, m->ring + at, (m->ring_count - at) * sizeof m->ring[0]);
    m->ring[at] = (uint16_t)i;
    m->ring_count++;
}

static void ring_remove(struct members *m, unsigned i)
{
    unsigned at = ring_place(m, m->of[i].fact.id);
    assert(at < m->ring_count && m->ring[at] == i);
    m->ring_count--;
    memmove(m->ring + at, m->ring + at + 1, (m->ring_count - at) * sizeof m->ring[0]);
}

unsigned members_usable(const struct members *m)
{
    return m->ring_count - 1; /* we stand in it ourselves, for good */
}

int member_random(struct members *m)
{
    unsigned others = members_usable(m);
    if (others == 0)
        return -1;
    unsigned at = (unsigned)(member_dice(m) % others);
    if (at >= ring_place(m, m->of[0].fact.id))
        at++; /* all but ourselves */
    return m->ring[at];
}

unsigned member_neighbours(const struct members *m, unsigned ret[static MEMBER_NEIGHBOURS_MAX])
{
    unsigned n = 0, count = m->ring_count, self = ring_place(m, m->of[0].fact.id);
    if (count - 1 <= MEMBER_FULL_MESH) {
        for (unsigned at = 0; at < count; at++)
            if (at != self)
                ret[n++] = m->ring[at];
        return n;
    }
    /* Two different powers of two, neither above half the ring, never meet. */
    for (unsigned distance = 1; 2 * distance <= count; distance *= 2) {
        ret[n++] = m->ring[(self + distance) % count];
        if (2 * distance < count)
            ret[n++] = m->ring[(self + count - distance) % count];
    }
    assert(n <= MEMBER_NEIGHBOURS_MAX);
    return n;
}

/* --- the order in which they are asked --- */

/* A newcomer gets a random place among those whose turn is still to come. */
static void order_add(struct members *m, unsigned i)
{
    if (m->watch[i].ordered)
        return;
    m->watch[i].ordered = true;
    unsigned last = m->order_count++;
    unsigned at = m->order_at + (unsigned)(member_dice(m) % (last - m->order_at + 1));
    m->order[last] = m->order[at];
    m->order[at] = (uint16_t)i;
}

/* --- facts --- */

static uint64_t view_of(const struct member_fact *f)
{
    return member_mix(member_mix(f->id) ^ f->boot);
}

uint64_t member_view(const struct members *m)
{
    return m->view;
}

void member_note(struct members *m, unsigned i)
{
    if (m->watch[i].changed)
        return;
    m->watch[i].changed = true;
    m->changed[m->changed_count++] = (uint16_t)i;
}

unsigned member_changes(struct members *m, unsigned *ret, unsigned max)
{
    unsigned n = 0;
    while (n < max && m->changed_count > 0) {
        ret[n] = m->changed[--m->changed_count];
        m->watch[ret[n++]].changed = false;
    }
    return n;
}

void member_set(struct members *m, unsigned i, const struct member_fact *fact, uint64_t now_ns)
{
    struct member *p = &m->of[i];
    const struct member_fact old = p->fact;
    bool lived = fact_lives(&old), lives = fact_lives(fact);
    assert(fact->id == old.id);
    if (lived)
        m->view -= view_of(&old);
    if (lives)
        m->view += view_of(fact);
    if (i != 0 && lived && !lives)
        ring_remove(m, i);
    p->fact = *fact;
    if (i != 0 && !lived && lives) {
        ring_add(m, i);
        order_add(m, i);
    }
    if (old.state != fact->state || old.boot != fact->boot)
        p->changed_ns = now_ns;
    if (old.state != fact->state || old.boot != fact->boot || !endpoint_equal(&old.at, &fact->at))
        member_note(m, i);
}

void member_drop(struct members *m, unsigned i, uint64_t now_ns)
{
    assert(i != 0 && m->of[i].fact.id != 0 && !fact_lives(&m->of[i].fact));
    hash_remove(m, i);
    m->of[i] = (struct member){.changed_ns = now_ns};
    m->due_ns[i] = NEVER_NS;
    member_hush(m, i);
    member_note(m, i);
}

/* --- rumours --- */

/* ceil(3 * log2(n + 1)): the smallest b with 2^b >= (n + 1)^3. */
static unsigned rumour_budget(const struct members *m)
{
    uint64_t n = members_usable(m) + UINT64_C(1), cube = n * n * n;
    unsigned b = 0;
    while (UINT64_C(1) << b < cube)
        b++;
    return b;
}
enum { BUDGET_MAX = 30 };
static_assert((UINT64_C(1) << BUDGET_MAX) >= (uint64_t)MEMBERS_MAX * MEMBERS_MAX * MEMBERS_MAX,
              "every budget is at most this");

void member_spread(struct members *m, unsigned i)
{
    m->watch[i].told = 0;
    if (m->watch[i].hot)
        return;
    m->watch[i].hot = true;
    m->hot[m->hot_count++] = (uint16_t)i;
}

void member_hush(struct members *m, unsigned i)
{
    m->watch[i].told = UINT8_MAX;
}

/* What a member must be told of itself, so that it refutes, or takes a later boot. */
static bool charge_against(const struct members *m, unsigned i, struct member_fact *ret)
{
    const struct member_fact *f = &m->of[i].fact;
    const struct watch *w = &m->watch[i];
    if (i == 0 || f->id == 0)
        return false;
    if (w->accused_state == MEMBER_ALIVE && f->state == MEMBER_ALIVE && !w->behind)
        return false;
    *ret = *f;
    if (w->accused_state != MEMBER_ALIVE && f->state == MEMBER_ALIVE) {
        ret->state = w->accused_state;
        ret->incarnation = w->accused_incarnation;
    }
    return true;
}

/* Takes what has been told often enough off the list; counts the others, `to` aside, by how often
 * they have been told. */
static void hot_sort_out(struct members *m, unsigned to, unsigned counts[static BUDGET_MAX])
{
    unsigned kept = 0, budget = rumour_budget(m);
    for (unsigned h = 0; h < m->hot_count; h++) {
        unsigned i = m->hot[h];
        if (m->watch[i].told >= budget) {
            m->watch[i].hot = false;
            continue;
        }
        if (i != to)
            counts[m->watch[i].told]++;
        m->hot[kept++] = (uint16_t)i;
    }
    m->hot_count = kept;
}

static unsigned hot_take(struct members *m, unsigned to, struct member_fact *ret, unsigned max)
{
    unsigned counts[BUDGET_MAX] = {0}, level = 0, n = 0, room = max;
    hot_sort_out(m, to, counts);
    while (level < BUDGET_MAX && counts[level] <= room)
        room -= counts[level++];
    /* All that have been told less than `level` times, and `room` of those at it: another `room`
     * of them each time. */
    unsigned start = m->hot_count > 0 ? m->hot_turn++ * 7 % m->hot_count : 0;
    for (unsigned h = 0; h < m->hot_count; h++) {
        unsigned i = m->hot[(start + h) % m->hot_count];
        struct watch *w = &m->watch[i];
        if (i == to || w->told > level || (w->told == level && room == 0))
            continue;
        if (w->told == level)
            room--;
        w->told++;
        ret[n++] = m->of[i].fact;
    }
    return n;
}

unsigned member_rumours(struct members *m, unsigned to, struct member_fact *ret, unsigned max)
{
    unsigned n = 0;
    assert(to < m->count);
    if (n < max && charge_against(m, to, &ret[n]))
        n++;
    if (n < max && m->of[0].fact.state == MEMBER_LEFT)
        ret[n++] = m->of[0].fact;
    return n + hot_take(m, to, ret + n, max - n);
}
