/* sync_rig - several syncs, each with its store and members, joined by a network that loses,
 * delays, doubles and reorders, in virtual time. Next to them a model: what each owner claims. */
#ifndef BEACON_TESTS_SYNC_RIG_H
#define BEACON_TESTS_SYNC_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gossip/sync_link.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

enum { NODES_MAX = 128, IDS = 1 << 18, FRAME_COST = GOSSIP_SEAL_LEN };

struct node {
    uint32_t id;
    uint64_t boot;
    bool down;
    struct store *store;
    struct members *members;
    struct sync *sync;
    uint64_t next_ns;       /* of sync; 0: something has happened */
    uint8_t *claims;        /* the model: the meta + 1 of each id, 0: not ours */
    uint64_t frames, bytes; /* sent */
};

struct packet {
    uint64_t at_ns, order;
    unsigned from, to;
    enum gossip_kind kind;
    size_t len;
    uint8_t *body;
};

struct world {
    struct node node[NODES_MAX];
    unsigned nodes;
    bool linked[NODES_MAX][NODES_MAX]; /* neighbours */
    bool cut[NODES_MAX][NODES_MAX];    /* nothing arrives */
    bool relays;
    uint32_t rows, ids; /* ids are below */
    uint64_t now_ns, tick_ns, seed, order;
    unsigned loss, doubled, reordered; /* per cent */
    uint64_t delay_ns;
    struct packet *packet; /* a heap, the earliest first */
    unsigned packets, packets_max;
};

static inline uint64_t dice(struct world *w)
{
    w->seed ^= w->seed >> 12;
    w->seed ^= w->seed << 25;
    w->seed ^= w->seed >> 27;
    return w->seed * 0x2545f4914f6cdd1du >> 16;
}

static inline bool chance(struct world *w, unsigned percent)
{
    return dice(w) % 100 < percent;
}

static inline void *zeroed(size_t size)
{
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(memory);
    memset(memory, 0, size);
    return memory;
}

/* --- the network --- */

static inline bool sooner(const struct packet *a, const struct packet *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static inline void packet_put(struct world *w, const struct packet *p)
{
    if (w->packets == w->packets_max) {
        w->packets_max = w->packets_max ? 2 * w->packets_max : 1024;
        w->packet = realloc(w->packet, w->packets_max * sizeof *w->packet);
        assert_non_null(w->packet);
    }
    unsigned i = w->packets++;
    for (; i > 0 && sooner(p, &w->packet[(i - 1) / 2]); i = (i - 1) / 2)
        w->packet[i] = w->packet[(i - 1) / 2];
    w->packet[i] = *p;
}

static inline struct packet packet_take(struct world *w)
{
    struct packet first = w->packet[0], last = w->packet[--w->packets];
    unsigned i = 0;
    for (unsigned child; (child = 2 * i + 1) < w->packets; i = child) {
        child += child + 1 < w->packets && sooner(&w->packet[child + 1], &w->packet[child]);
        if (!sooner(&w->packet[child], &last))
            break;
        w->packet[i] = w->packet[child];
    }
    w->packet[i] = last;
    return first;
}

static inline int index_of(const struct node *n, const struct node *other)
{
    return member_find(n->members, other->id);
}

static inline void packet_send(struct world *w, unsigned from, const struct sync_out *out)
{
    struct node *n = &w->node[from];
    uint32_t id = member_at(n->members, out->member)->fact.id;
    n->frames++;
    n->bytes += out->len + FRAME_COST;
    unsigned copies = chance(w, w->loss) ? 0 : chance(w, w->doubled) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++) {
        struct packet p = {.at_ns = w->now_ns + w->delay_ns,
                           .order = w->order++,
                           .from = from,
                           .to = id - 100,
                           .kind = out->kind,
                           .len = out->len,
                           .body = malloc(out->len)};
        if (chance(w, w->reordered))
            p.at_ns += dice(w) % (w->delay_ns + 1);
        memcpy(p.body, out->body, out->len);
        if (w->cut[from][p.to])
            free(p.body);
        else
            packet_put(w, &p);
    }
}

/* --- nodes --- */

static inline void node_links(struct world *w, unsigned i)
{
    struct node *n = &w->node[i];
    unsigned neighbours[NODES_MAX], count = 0;
    for (unsigned k = 0; k < w->nodes; k++)
        if (w->linked[i][k] && !w->node[k].down)
            neighbours[count++] = (unsigned)index_of(n, &w->node[k]);
    sync_links(n->sync, neighbours, count, w->relays, w->now_ns);
    n->next_ns = 0;
}

static inline void node_meets(struct world *w, unsigned i, unsigned k)
{
    struct node *n = &w->node[i], *other = &w->node[k];
    struct endpoint at = {.ip = {[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)k}, .port = 1};
    int member;
    member_heard(n->members, other->id, other->boot, &at, w->now_ns, &member);
    assert_true(member > 0);
    if (store_owner(n->store, (unsigned)member)->beacon == 0)
        store_owner_begin(n->store, (unsigned)member, other->id, 0);
    store_owner_rank(n->store, (unsigned)member, STORE_USABLE);
}

/* So that round trips are known. */
static inline void node_measures(struct node *n, uint64_t now_ns, uint64_t rtt_ns)
{
    struct member_ping ping[64];
    for (int i = 0; i < 64; i++, now_ns += SECOND) {
        unsigned count = member_tick(n->members, now_ns, ping, 64);
        for (unsigned k = 0; k < count; k++)
            member_acked(n->members, ping[k].number,
                         member_at(n->members, ping[k].subject)->fact.id, true, now_ns + rtt_ns);
    }
}

static inline void node_start(struct world *w, unsigned i, uint64_t boot)
{
    struct node *n = &w->node[i];
    free(n->store);
    free(n->members);
    free(n->sync);
    *n = (struct node){.id = 100 + i, .boot = boot, .claims = n->claims};
    n->store =
        store_init(zeroed(store_size(w->rows)), w->rows, w->rows, (struct siphash_key){1, i});
    n->members = members_init(zeroed(members_size()), n->id, boot, i + 1);
    n->sync = sync_init(zeroed(sync_size()), n->store, n->members);
    store_owner_begin(n->store, STORE_SELF, n->id, boot);
    store_owner_rank(n->store, STORE_SELF, STORE_OWN);
    store_state(n->store, (const uint8_t *)"state", 5, w->now_ns);
}

static inline struct world *world_open(unsigned nodes, uint32_t rows, uint64_t seed)
{
    struct world *w = zeroed(sizeof *w);
    w->nodes = nodes;
    w->rows = rows;
    w->seed = seed * 77 + 5;
    w->now_ns = 1000 * SECOND;
    w->delay_ns = 20 * MS;
    for (unsigned i = 0; i < nodes; i++) {
        w->node[i].claims = zeroed(IDS);
        node_start(w, i, 1700000000000 + i);
    }
    return w;
}

/* Everybody knows everybody; neighbours are those at most `reach` apart in the ring. */
static inline void world_join(struct world *w, unsigned reach)
{
    for (unsigned i = 0; i < w->nodes; i++)
        for (unsigned k = 0; k < w->nodes; k++) {
            unsigned far = (k + w->nodes - i) % w->nodes;
            w->linked[i][k] = i != k && (far <= reach || w->nodes - far <= reach);
            if (i != k)
                node_meets(w, i, k);
        }
    for (unsigned i = 0; i < w->nodes; i++) {
        node_measures(&w->node[i], w->now_ns, 2 * w->delay_ns);
        node_links(w, i);
    }
}

static inline void world_close(struct world *w)
{
    for (unsigned i = 0; i < w->nodes; i++) {
        free(w->node[i].store);
        free(w->node[i].members);
        free(w->node[i].sync);
        free(w->node[i].claims);
    }
    while (w->packets)
        free(packet_take(w).body);
    free(w->packet);
    free(w);
}

static inline void packet_input(struct world *w, const struct packet *p)
{
    struct node *n = &w->node[p->to];
    int member = index_of(n, &w->node[p->from]);
    if (!n->down && member > 0) {
        bool well = p->kind == GOSSIP_DIGEST
                        ? sync_digest(n->sync, (unsigned)member, p->body, p->len, w->now_ns)
                        : sync_delta(n->sync, (unsigned)member, p->body, p->len, w->now_ns);
        assert_true(well);
    }
    free(p->body);
}

static inline void node_output(struct world *w, unsigned i)
{
    struct sync_out out;
    if (w->node[i].down || w->node[i].next_ns > w->now_ns)
        return;
    while (sync_next(w->node[i].sync, w->now_ns, &out))
        packet_send(w, i, &out);
    w->node[i].next_ns = sync_next_ns(w->node[i].sync);
}

/* Goes on to the next thing that happens, at `until_ns` at the latest. */
static inline void world_step(struct world *w, uint64_t until_ns)
{
    uint64_t next_ns = later_ns(w->tick_ns, w->now_ns);
    if (w->packets)
        next_ns = earlier_ns(next_ns, w->packet[0].at_ns);
    for (unsigned i = 0; i < w->nodes; i++)
        if (!w->node[i].down)
            next_ns = earlier_ns(next_ns, w->node[i].next_ns);
    w->now_ns = later_ns(w->now_ns, earlier_ns(next_ns, until_ns));
    if (w->now_ns >= w->tick_ns) {
        w->tick_ns = w->now_ns + SECOND;
        for (unsigned i = 0; i < w->nodes; i++)
            store_tick(w->node[i].store, w->now_ns);
    }
    while (w->packets && w->packet[0].at_ns <= w->now_ns) {
        struct packet p = packet_take(w);
        unsigned to = p.to;
        packet_input(w, &p);
        w->node[to].next_ns = 0;
        node_output(w, to);
    }
    for (unsigned i = 0; i < w->nodes; i++)
        node_output(w, i);
}

static inline void world_run(struct world *w, uint64_t for_ns)
{
    uint64_t until_ns = w->now_ns + for_ns;
    while (w->now_ns < until_ns)
        world_step(w, until_ns);
}

static inline bool same_views(const struct world *w)
{
    const struct node *first = NULL;
    for (unsigned i = 0; i < w->nodes; i++) {
        if (w->node[i].down)
            continue;
        if (first && store_view(first->store) != store_view(w->node[i].store))
            return false;
        first = &w->node[i];
        for (unsigned k = 0; k < w->nodes; k++)
            if (store_owner(first->store, k)->rebuilding)
                return false;
    }
    return true;
}

/* Until all know the same; returns how long that took. */
static inline uint64_t world_heal(struct world *w, uint64_t most_ns)
{
    uint64_t began_ns = w->now_ns;
    while (w->now_ns < began_ns + most_ns) {
        world_step(w, began_ns + most_ns);
        if (same_views(w))
            return w->now_ns - began_ns;
    }
    fail_msg("not the same after %llu ms", (unsigned long long)(most_ns / MS));
    return 0;
}

static inline void claim(struct world *w, unsigned i, uint32_t id, uint8_t meta)
{
    assert_true(store_claim(w->node[i].store, id, meta, w->now_ns));
    w->node[i].claims[id] = (uint8_t)(meta + 1);
    w->ids = id < w->ids ? w->ids : id + 1;
    w->node[i].next_ns = 0;
}

static inline void withdraw(struct world *w, unsigned i, uint32_t id)
{
    store_withdraw(w->node[i].store, id, w->now_ns);
    w->node[i].claims[id] = 0;
    w->node[i].next_ns = 0;
}

/* Every store has just the rows that the owners have. */
static inline void assert_model(const struct world *w)
{
    for (unsigned i = 0; i < w->nodes; i++)
        for (unsigned k = 0; k < w->nodes; k++) {
            const struct node *n = &w->node[i], *of = &w->node[k];
            unsigned owner = i == k ? 0 : (unsigned)index_of(n, of), rows = 0;
            if (n->down)
                continue;
            for (uint32_t id = 1; id < w->ids; id++) {
                rows += of->claims[id] > 0;
                if (store_has(n->store, owner, id) != (of->claims[id] > 0))
                    fail_msg("node %u about node %u: id %u", i, k, id);
            }
            assert_int_equal(store_owner(n->store, owner)->rows, rows);
        }
}

static inline uint64_t bytes_sent(struct world *w)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < w->nodes; i++) {
        bytes += w->node[i].bytes;
        w->node[i].frames = w->node[i].bytes = 0;
    }
    return bytes;
}

static inline void figure(const char *what, uint64_t took_ns, uint64_t bytes)
{
    print_message("           %s: %llu ms, %llu KB\n", what, (unsigned long long)(took_ns / MS),
                  (unsigned long long)(bytes / 1000));
}

static inline void bad_network(struct world *w)
{
    w->loss = 20;
    w->doubled = 1;
    w->reordered = 1;
}

static inline bool all_settled(const struct world *w)
{
    for (unsigned i = 0; i < w->nodes; i++)
        if (!w->node[i].down && !sync_settled(w->node[i].sync))
            return false;
    return true;
}

/* At the end everybody knows that all know the same, and then nothing is sent. */
static inline void assert_silent(struct world *w)
{
    for (unsigned seconds = 0; !all_settled(w) && seconds < 600; seconds++)
        world_run(w, SECOND);
    assert_true(all_settled(w));
    world_run(w, 20 * SECOND); /* the last acknowledgements may have been lost */
    bytes_sent(w);
    world_run(w, 300 * SECOND);
    assert_int_equal(bytes_sent(w), 0);
    assert_true(all_settled(w));
}

#endif
