#include <assert.h>
#include "server/talkers.h"

/* Space-saving (Metwally, Agrawal, El Abbadi, 2005): when the table is full, a newcomer takes the
 * place of the lightest and inherits its weight. The weight decides who stays; what is told are the
 * samples that were the talker's own. */
struct entry {
    struct talker own; /* in samples, not in packets */
    uint64_t weight;   /* 0: free */
};

/* One published talker. All words are atomics, so that any thread may read them. */
struct entry_words {
    _Atomic uint64_t node, ip[2], packets, bytes; /* node: id (32) | port (16) */
};

/* What a reader sees. Two take turns: one is written only while the other is the last whole window,
 * so a reader is disturbed only when it takes longer than a window. */
struct window {
    _Atomic uint32_t count;
    struct entry_words entry[TALKERS_MAX];
};

struct table {
    struct talkers head; /* first: a pointer to it is a pointer to the table */

    /* The lane's thread only. */
    uint32_t count;
    uint64_t random, opened_ns;
    struct entry entry[TALKERS_MAX];

    /* It writes, any thread reads. */
    _Alignas(64) _Atomic uint32_t windows; /* published so far; the last is window[windows % 2] */
    struct window window[2];
};

static_assert((TALKERS_SAMPLE & (TALKERS_SAMPLE - 1)) == 0, "gaps are cut from random bits");

size_t talkers_size(void)
{
    return sizeof(struct table);
}

struct talkers *talkers_init(void *memory)
{
    struct table *t = memory;
    t->head.left = TALKERS_SAMPLE;
    t->random = 0x9e3779b97f4a7c15u;
    return &t->head;
}

/* Gaps are random, 1 to 2 * TALKERS_SAMPLE - 1 and TALKERS_SAMPLE on average: flows that come in
 * step (batches of 64) would else be seen always or never. xorshift64*. */
static uint32_t next_gap(struct table *t)
{
    t->random ^= t->random >> 12;
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    uint32_t bits = (uint32_t)(t->random * 0x2545f4914f6cdd1du >> 32);
    uint32_t gap = bits % (2 * TALKERS_SAMPLE);
    return gap ? gap : TALKERS_SAMPLE;
}

/* The entry of this talker, or the one that makes room for it. */
static struct entry *entry_for(struct table *t, uint32_t node_id, const struct endpoint *from)
{
    struct entry *lightest = &t->entry[0];
    uint64_t inherited = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        struct entry *e = &t->entry[i];
        if (e->own.node_id == node_id && endpoint_equal(&e->own.from, from))
            return e;
        if (e->weight < lightest->weight)
            lightest = e;
    }
    if (t->count < TALKERS_MAX)
        lightest = &t->entry[t->count++];
    else
        inherited = lightest->weight;
    *lightest = (struct entry){.own = {.node_id = node_id, .from = *from}, .weight = inherited};
    return lightest;
}

void talkers_sample(struct talkers *talkers, uint32_t node_id, const struct endpoint *from,
                    uint32_t len)
{
    struct table *t = (struct table *)talkers;
    struct entry *e = entry_for(t, node_id, from);
    e->weight++;
    e->own.packets++;
    e->own.bytes += len;
    t->head.left = next_gap(t);
}

/* Each word is stored with release: a reader that sees one of this window sees `windows` as the
 * last publication left it, which is not what it was when that reader chose this place. */
static void entry_publish(struct entry_words *words, const struct talker *own)
{
    uint64_t ip[2];
    memcpy(ip, own->from.ip, sizeof ip);
    atomic_store_explicit(&words->node, (uint64_t)own->node_id << 32 | own->from.port,
                          memory_order_release);
    atomic_store_explicit(&words->ip[0], ip[0], memory_order_release);
    atomic_store_explicit(&words->ip[1], ip[1], memory_order_release);
    atomic_store_explicit(&words->packets, own->packets * TALKERS_SAMPLE, memory_order_release);
    atomic_store_explicit(&words->bytes, own->bytes * TALKERS_SAMPLE, memory_order_release);
}

void talkers_tick(struct talkers *talkers, uint64_t now_ns)
{
    struct table *t = (struct table *)talkers;
    if (t->opened_ns == 0)
        t->opened_ns = now_ns;
    if (now_ns - t->opened_ns < TALKERS_WINDOW_S * 1000000000ull)
        return;
    uint32_t windows = atomic_load_explicit(&t->windows, memory_order_relaxed); /* ours alone */
    struct window *w = &t->window[(windows + 1) % 2];
    atomic_store_explicit(&w->count, t->count, memory_order_release);
    for (uint32_t i = 0; i < t->count; i++)
        entry_publish(&w->entry[i], &t->entry[i].own);
    atomic_store_explicit(&t->windows, windows + 1, memory_order_release); /* publishes it */
    t->opened_ns = now_ns;
    t->count = 0;
}

static struct talker entry_read(const struct entry_words *words)
{
    struct talker talker;
    uint64_t ip[2], node = atomic_load_explicit(&words->node, memory_order_acquire);
    ip[0] = atomic_load_explicit(&words->ip[0], memory_order_acquire);
    ip[1] = atomic_load_explicit(&words->ip[1], memory_order_acquire);
    talker.node_id = (uint32_t)(node >> 32);
    talker.from.port = (uint16_t)node;
    memcpy(talker.from.ip, ip, sizeof ip);
    talker.packets = atomic_load_explicit(&words->packets, memory_order_acquire);
    talker.bytes = atomic_load_explicit(&words->bytes, memory_order_acquire);
    return talker;
}

unsigned talkers_read(const struct talkers *talkers, struct talker ret[static TALKERS_MAX])
{
    const struct table *t = (const struct table *)talkers;
    uint32_t windows = atomic_load_explicit(&t->windows, memory_order_acquire);
    for (;;) {
        const struct window *w = &t->window[windows % 2];
        uint32_t count = atomic_load_explicit(&w->count, memory_order_acquire);
        assert(count <= TALKERS_MAX);
        for (uint32_t i = 0; i < count; i++)
            ret[i] = entry_read(&w->entry[i]);
        uint32_t again = atomic_load_explicit(&t->windows, memory_order_acquire);
        if (again == windows)
            return count;
        windows = again; /* a window has ended meanwhile: at most every few seconds */
    }
}
