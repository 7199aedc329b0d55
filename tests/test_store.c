#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "gossip/store_rows.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SECOND_NS UINT64_C(1000000000)

enum { ROOM = GOSSIP_BODY_MAX, GONE = DELTA_GONE, BEACON = 100 };
static const struct siphash_key key = {1, 2};

/* xorshift64*: the same sequence everywhere. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* --- what is told of changes --- */

static struct {
    unsigned count;
    uint32_t last;
} told;

static void note(void *arg, uint32_t id)
{
    assert_ptr_equal(arg, &told);
    told.count++;
    told.last = id;
}

static struct store *store_new(uint32_t rows, uint32_t owner_rows)
{
    void *memory = malloc(store_size(rows));
    assert_non_null(memory);
    memset(memory, 0xa5, store_size(rows)); /* needs no zeroes */
    struct store *s = store_init(memory, rows, owner_rows, key);
    store_on_change(s, note, &told);
    store_owner_begin(s, STORE_SELF, BEACON, 7);
    told.count = 0;
    return s;
}

/* Owner i is beacon BEACON + i with no boot yet, and usable. */
static struct store *store_with(uint32_t rows, uint32_t owner_rows, unsigned owners)
{
    struct store *s = store_new(rows, owner_rows);
    for (unsigned i = 1; i <= owners; i++) {
        store_owner_begin(s, i, BEACON + i, 0);
        store_owner_rank(s, i, STORE_USABLE);
    }
    return s;
}

/* --- what must always hold --- */

static uint32_t check_list(const struct store *s, unsigned owner)
{
    const struct owner *o = &s->owner[owner];
    uint32_t rows = 0, nodes = 0, prev = 0;
    bool found_old = o->old == 0, in_order = o->old == 0;
    for (uint32_t i = o->head; i; prev = i, i = s->row[i].next) {
        const struct row *r = &s->row[i];
        assert_int_equal(r->prev, prev);
        assert_int_equal(r->owner, owner);
        if (in_order && prev && owner < STORE_MEMBERS_MAX)
            assert_true(row_version(r) > row_version(&s->row[prev]));
        if (found_old)
            assert_true(row_version(r) <= o->shown.version);
        in_order = found_old;
        found_old |= i == o->old;
        nodes += r->id != 0;
        rows += r->id != 0 && !r->gone;
    }
    assert_true(found_old);
    assert_int_equal(o->tail, prev);
    assert_int_equal(o->shown.rows, rows);
    assert_true(o->shown.rebuilding || o->shown.horizon <= o->shown.version);
    return nodes;
}

/* Lists, chains and the free list: each row is in its places once. */
static void check_store(const struct store *s)
{
    uint32_t listed = 0, chained = 0, free_rows = 0;
    for (unsigned i = 0; i < STORE_OWNERS_MAX; i++)
        listed += check_list(s, i);
    for (uint32_t b = 0; b < store_heads(s); b++)
        for (uint32_t i = s->head[b]; i; i = s->row[i].chain) {
            assert_int_equal(row_find(s, s->row[i].owner, s->row[i].id), i);
            chained++;
        }
    for (uint32_t i = s->free; i; i = s->row[i].next) {
        assert_int_equal(s->row[i].owner, STORE_NONE);
        free_rows++;
    }
    assert_int_equal(listed, store_rows(s));
    assert_int_equal(chained, store_rows(s));
    assert_int_equal(free_rows + store_rows(s), store_capacity(s));
}

static void store_free(struct store *s)
{
    check_store(s);
    free(s);
}

/* --- pieces of logs --- */

struct piece {
    uint64_t boot, from, to, top;
    struct delta_row row[5]; /* up to the one of version 0 */
};

static const struct gossip_delta *delta_of(unsigned owner, const struct piece *p)
{
    static struct gossip_delta d;
    static const uint8_t state[] = "state";
    d = (struct gossip_delta){BEACON + owner, p->boot, p->from, p->to, p->top, NULL, 0, 0, {{0}}};
    while (d.row_count < COUNT(p->row) && p->row[d.row_count].version) {
        d.row[d.row_count] = p->row[d.row_count];
        if (d.row[d.row_count++].id == 0) {
            d.state = state;
            d.state_len = sizeof state;
        }
    }
    return &d;
}

static enum store_applied apply(struct store *s, unsigned owner, struct piece p, uint64_t now_ns)
{
    return store_apply(s, owner, delta_of(owner, &p), now_ns);
}

/* Fills an owner's log: ids first, first + 1, ... with versions 1, 2, ... */
static void apply_many(struct store *s, unsigned owner, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t v = i + 1;
        assert_int_equal(apply(s, owner, (struct piece){5, v - 1, v, v, {{first + i, 2, v}}}, 0),
                         STORE_APPLIED);
    }
}

/* --- store_apply --- */

enum { KNOWN = STORE_KNOWN, AHEAD = STORE_AHEAD, DONE = STORE_APPLIED };

static const struct {
    const char *name;
    struct {
        struct piece piece;
        int want;
        uint64_t version; /* afterwards */
        bool rebuilding;
    } step[5];
    uint32_t has[4], has_not[3];
    uint64_t horizon;
} pieces[] = {
    {"from the start, in one piece",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false}},
     {10, 11},
     {12},
     2},
    {"what comes before anything is known",
     {{{5, 1, 2, 2, {{11, 1, 2}}}, AHEAD, 0, false}},
     {0},
     {11},
     0},
    {"in two pieces",
     {{{5, 0, 2, 3, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, true},
      {{5, 2, 3, 3, {{12, 1, 3}}}, DONE, 3, false}},
     {10, 11, 12},
     {0},
     3},
    {"a piece that begins where we are",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false}, {{5, 1, 2, 2, {{11, 1, 2}}}, DONE, 2, false}},
     {10, 11},
     {0},
     1},
    {"a piece that begins one later",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false}, {{5, 2, 3, 3, {{11, 1, 3}}}, AHEAD, 1, false}},
     {10},
     {11},
     1},
    {"a piece that overlaps: known rows are skipped",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{5, 2, 3, 3, {{10, GONE, 3}}}, DONE, 3, false},
      {{5, 1, 4, 4, {{10, 1, 2}, {12, 1, 4}}}, DONE, 4, false}},
     {11, 12},
     {10},
     2},
    {"a piece that ends where we are",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{5, 1, 2, 9, {{11, GONE, 2}}}, KNOWN, 2, false}},
     {10, 11},
     {0},
     2},
    {"a piece without rows",
     {{{5, 0, 2, 2, {{10, 1, 1}}}, DONE, 2, false}, {{5, 2, 4, 4, {{0}}}, DONE, 4, false}},
     {10},
     {0},
     2},
    {"the first piece again",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, KNOWN, 2, false}},
     {10, 11},
     {0},
     2},
    {"the first piece again, while the rest comes",
     {{{5, 0, 1, 3, {{10, 1, 1}}}, DONE, 1, true},
      {{5, 1, 2, 3, {{11, 1, 2}}}, DONE, 2, true},
      {{5, 0, 1, 3, {{10, 1, 1}}}, KNOWN, 2, true},
      {{5, 0, 3, 3, {{10, 1, 1}, {12, 1, 3}}}, DONE, 3, false}},
     {10, 11, 12},
     {0},
     3},
    {"a death of one who is not known",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false},
      {{5, 1, 2, 2, {{12, GONE, 2}}}, DONE, 2, false}},
     {10},
     {12},
     1},
    {"a later boot, but not from the start",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false}, {{6, 1, 2, 2, {{11, 1, 2}}}, AHEAD, 1, false}},
     {10},
     {11},
     1},
    {"an earlier boot",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false},
      {{4, 0, 9, 9, {{11, 1, 9}}}, KNOWN, 1, false},
      {{4, 1, 9, 9, {{11, 1, 9}}}, KNOWN, 1, false}},
     {10},
     {11},
     1},
    {"a later boot: what does not come again goes",
     {{{5, 0, 3, 3, {{10, 1, 1}, {11, 1, 2}, {12, 1, 3}}}, DONE, 3, false},
      {{6, 0, 2, 2, {{11, 1, 1}, {13, 1, 2}}}, DONE, 2, false}},
     {11, 13},
     {10, 12},
     2},
    {"a later boot: until it is whole, rows of before count",
     {{{5, 0, 3, 3, {{10, 1, 1}, {11, 1, 2}, {12, 1, 3}}}, DONE, 3, false},
      {{6, 0, 1, 2, {{11, 1, 1}}}, DONE, 1, true}},
     {10, 11, 12},
     {0},
     0},
    {"a later boot with nothing in its log",
     {{{5, 0, 1, 1, {{10, 1, 1}}}, DONE, 1, false}, {{6, 0, 0, 0, {{0}}}, DONE, 0, false}},
     {0},
     {10},
     0},
    {"another boot in the middle of a rebuild",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{6, 0, 1, 9, {{12, 1, 1}}}, DONE, 1, true},
      {{7, 0, 1, 2, {{11, 1, 1}}}, DONE, 1, true},
      {{7, 1, 2, 2, {{13, 1, 2}}}, DONE, 2, false}},
     {11, 13},
     {10, 12},
     2},
    {"a rebuild goes on to the last top heard of: a row may have moved there",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{6, 0, 1, 2, {{11, 1, 1}}}, DONE, 1, true},
      {{6, 1, 2, 3, {{12, 1, 2}}}, DONE, 2, true},
      {{6, 2, 3, 3, {{10, 1, 3}}}, DONE, 3, false}},
     {10, 11, 12},
     {0},
     2},
    {"the same boot from the start, from one who knows more: what was purged goes",
     {{{5, 0, 3, 3, {{10, 1, 1}, {11, 1, 2}, {12, 1, 3}}}, DONE, 3, false},
      {{5, 0, 2, 9, {{11, 1, 2}}}, DONE, 2, true},
      {{5, 2, 9, 9, {{12, 1, 3}}}, DONE, 9, false}},
     {11, 12},
     {10},
     9},
    {"the same boot from the start, from one who knows no more than we",
     {{{5, 0, 3, 3, {{10, 1, 1}, {11, 1, 2}, {12, 1, 3}}}, DONE, 3, false},
      {{5, 0, 2, 3, {{11, 1, 2}}}, KNOWN, 3, false}},
     {10, 11, 12},
     {0},
     3},
    {"in a rebuild, from the start by one who knew more than who began it",
     {{{5, 0, 2, 4, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, true},
      {{5, 2, 3, 4, {{12, 1, 3}}}, DONE, 3, true},
      {{5, 0, 2, 5, {{11, 1, 2}}}, DONE, 2, true},
      {{5, 2, 5, 5, {{0}}}, DONE, 5, false}},
     {11},
     {10, 12},
     5},
    {"in a rebuild, a piece from before it began",
     {{{5, 0, 3, 3, {{10, 1, 1}, {11, 1, 2}, {12, 1, 3}}}, DONE, 3, false},
      {{5, 0, 1, 9, {{10, 1, 1}}}, DONE, 1, true},
      {{5, 1, 3, 8, {{11, 1, 2}, {12, 1, 3}}}, KNOWN, 1, true},
      {{5, 1, 9, 9, {{13, 1, 7}}}, DONE, 9, false}},
     {10, 13},
     {11, 12},
     9},
    {"in a rebuild deaths of before it began need no tombstone",
     {{{5, 0, 2, 2, {{10, 1, 1}, {11, 1, 2}}}, DONE, 2, false},
      {{6, 0, 3, 3, {{10, GONE, 1}, {12, GONE, 2}, {11, 1, 3}}}, DONE, 3, false}},
     {11},
     {10, 12},
     3},
    {"the largest version",
     {{{5, 0, STORE_VERSION_MAX, STORE_VERSION_MAX, {{10, 1, STORE_VERSION_MAX}}},
       DONE,
       STORE_VERSION_MAX,
       false}},
     {10},
     {0},
     STORE_VERSION_MAX},
    {"a version beyond",
     {{{5, 0, STORE_VERSION_MAX + 1, STORE_VERSION_MAX, {{10, 1, 1}}}, AHEAD, 0, false}},
     {0},
     {10},
     0},
    {"a top beyond",
     {{{5, 0, 1, STORE_VERSION_MAX + 1, {{10, 1, 1}}}, AHEAD, 0, false}},
     {0},
     {10},
     0},
};

static void test_apply(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct store *s = store_with(100, 100, 1);
        const struct store_owner *o = store_owner(s, 1);
        for (size_t n = 0; n < COUNT(pieces[i].step) && pieces[i].step[n].piece.boot; n++) {
            uint64_t version = pieces[i].step[n].version;
            int got = (int)apply(s, 1, pieces[i].step[n].piece, 0);
            if (got != pieces[i].step[n].want || o->version != version ||
                o->rebuilding != pieces[i].step[n].rebuilding)
                fail_msg("%s, step %zu: %d, version %llu, %srebuilding", pieces[i].name, n, got,
                         (unsigned long long)o->version, o->rebuilding ? "" : "not ");
            check_store(s);
        }
        for (size_t n = 0; n < COUNT(pieces[i].has) && pieces[i].has[n]; n++)
            if (!store_has(s, 1, pieces[i].has[n]))
                fail_msg("%s: lacks %u", pieces[i].name, pieces[i].has[n]);
        for (size_t n = 0; n < COUNT(pieces[i].has_not) && pieces[i].has_not[n]; n++)
            if (store_has(s, 1, pieces[i].has_not[n]))
                fail_msg("%s: has %u", pieces[i].name, pieces[i].has_not[n]);
        if (o->horizon != pieces[i].horizon)
            fail_msg("%s: horizon %llu", pieces[i].name, (unsigned long long)o->horizon);
        store_free(s);
    }
}

/* What a rebuild brings of the dead takes no rows. */
static void test_needless_tombstones(void **state)
{
    (void)state;
    struct store *s = store_with(10, 10, 1);
    apply(s, 1, (struct piece){5, 0, 3, 4, {{1, GONE, 1}, {2, 1, 2}, {3, GONE, 3}}}, 0);
    assert_int_equal(store_rows(s), 1);
    apply(s, 1, (struct piece){5, 3, 5, 5, {{2, GONE, 4}, {4, GONE, 5}}}, 0);
    assert_int_equal(store_rows(s), 1); /* the one of after it began */
    assert_int_equal(store_owner(s, 1)->horizon, 4);
    store_free(s);
}

/* A big log is not swept in one go. */
static void test_rebuild_ends_in_pieces(void **state)
{
    (void)state;
    enum { ROWS = 50000 };
    struct store *s = store_with(ROWS, ROWS, 1);
    apply_many(s, 1, 1, ROWS);
    assert_int_equal(apply(s, 1, (struct piece){6, 0, 1, 1, {{1, 2, 1}}}, 0), STORE_APPLIED);
    uint32_t rows = store_owner(s, 1)->rows;
    assert_true(store_owner(s, 1)->rebuilding);
    assert_in_range(rows, 2, ROWS - 1);
    assert_true(store_has(s, 1, ROWS));
    store_tick(s, 0);
    assert_true(store_owner(s, 1)->rows < rows);
    assert_true(store_owner(s, 1)->rebuilding);
    store_tick(s, 0);
    assert_false(store_owner(s, 1)->rebuilding);
    assert_int_equal(store_owner(s, 1)->rows, 1);
    store_free(s);
}

/* --- whose claim is best --- */

static const struct {
    const char *name;
    struct {
        unsigned owner; /* 0: ours */
        enum store_rank rank;
        uint8_t meta;
        uint32_t at_s;
    } claim[3];
    unsigned count, best, others;
} bests[] = {
    {"nobody", {{0}}, 0, STORE_NONE, STORE_NONE},
    {"ours alone", {{0, STORE_OWN, 1, 0}}, 1, 0, STORE_NONE},
    {"another's", {{1, STORE_USABLE, 1, 0}}, 1, 1, 1},
    {"an unusable one", {{1, STORE_UNUSABLE, 7, 0}}, 1, STORE_NONE, STORE_NONE},
    {"ours before a better class", {{0, STORE_OWN, 1, 0}, {1, STORE_USABLE, 7, 9}}, 2, 0, 1},
    {"rank before class", {{1, STORE_DOUBTED, 7, 0}, {2, STORE_USABLE, 1, 0}}, 2, 2, 2},
    {"rank before time", {{1, STORE_USABLE, 1, 1}, {2, STORE_DOUBTED, 1, 2}}, 2, 1, 1},
    {"pilots last", {{1, STORE_PILOT, 7, 9}, {2, STORE_DOUBTED, 1, 9}}, 2, 2, 2},
    {"class before time", {{1, STORE_USABLE, 2, 1}, {2, STORE_USABLE, 1, 2}}, 2, 1, 1},
    {"a session is no class", {{1, STORE_USABLE, 9, 1}, {2, STORE_USABLE, 1, 2}}, 2, 2, 2},
    {"the later one", {{1, STORE_USABLE, 1, 1}, {2, STORE_USABLE, 1, 2}}, 2, 2, 2},
    {"the later one, the other way", {{2, STORE_USABLE, 1, 1}, {1, STORE_USABLE, 1, 2}}, 2, 1, 1},
    {"the later one past the wrap",
     {{1, STORE_USABLE, 1, 65535}, {2, STORE_USABLE, 1, 65536}},
     2,
     2,
     2},
    {"three", {{1, STORE_USABLE, 1, 3}, {2, STORE_USABLE, 2, 1}, {3, STORE_USABLE, 2, 2}}, 3, 3, 3},
};

static void test_best(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bests); i++) {
        struct store *s = store_with(10, 10, 3);
        for (unsigned n = 0; n < bests[i].count; n++) {
            unsigned owner = bests[i].claim[n].owner;
            uint64_t now_ns = bests[i].claim[n].at_s * SECOND_NS;
            store_owner_rank(s, owner, bests[i].claim[n].rank);
            if (owner)
                apply(s, owner, (struct piece){5, 0, 1, 1, {{77, bests[i].claim[n].meta, 1}}},
                      now_ns);
            else
                assert_true(store_claim(s, 77, bests[i].claim[n].meta, now_ns));
        }
        struct holder best = store_best(s, 77, false), others = store_best(s, 77, true);
        if (best.owner != bests[i].best || others.owner != bests[i].others)
            fail_msg("%s: %u and %u", bests[i].name, best.owner, others.owner);
        for (unsigned n = 0; n < bests[i].count; n++)
            if (bests[i].claim[n].owner == best.owner)
                assert_int_equal(best.meta, bests[i].claim[n].meta);
        unsigned by_others = 0;
        for (unsigned n = 0; n < bests[i].count; n++)
            by_others += bests[i].claim[n].owner != 0;
        assert_int_equal(store_contested(s, 77), by_others > 1);
        assert_int_equal(store_best(s, 78, false).owner, STORE_NONE);
        store_free(s);
    }
}

/* Two claims that stay for longer than seconds modulo 65536 can tell. */
static void test_age_does_not_wrap(void **state)
{
    (void)state;
    struct store *s = store_with(100000, 100000, 2);
    assert_true(store_claim(s, 1, 1, 0)); /* not the hand's first row */
    apply(s, 1, (struct piece){5, 0, 1, 1, {{77, 1, 1}}}, 0);
    for (uint64_t at_s = 1; at_s < 300000; at_s++) {
        store_tick(s, at_s * SECOND_NS);
        if (at_s % 20000 != 0)
            continue;
        uint64_t v = at_s / 20000;
        apply(s, 2, (struct piece){5, v - 1, v, v, {{77, 1, v}}}, at_s * SECOND_NS);
        assert_int_equal(store_best(s, 77, false).owner, 2);
    }
    apply(s, 1, (struct piece){5, 1, 2, 2, {{77, 9, 2}}}, 300000 * SECOND_NS);
    assert_int_equal(store_best(s, 77, false).owner, 1);
    store_free(s);
}

/* A rebuild of the same log does not make claims new; one of a new boot does. */
static void test_learnt_once(void **state)
{
    (void)state;
    for (unsigned boot = 5; boot <= 6; boot++) {
        struct store *s = store_with(10, 10, 2);
        apply(s, 1, (struct piece){5, 0, 1, 1, {{77, 1, 1}}}, 1 * SECOND_NS);
        apply(s, 2, (struct piece){5, 0, 1, 1, {{77, 1, 1}}}, 2 * SECOND_NS);
        apply(s, 1, (struct piece){boot, 0, 9, 9, {{77, 1, 1}}}, 3 * SECOND_NS);
        assert_int_equal(store_best(s, 77, false).owner, boot == 5 ? 2 : 1);
        store_free(s);
    }
}

/* --- own facts --- */

static void test_own(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        char what; /* claim, withdraw, state */
        uint32_t id;
        uint8_t meta;
        bool is_news;
    } steps[] = {
        {"a claim", 'c', 1, 2, true},
        {"the same", 'c', 1, 2, false},
        {"another class", 'c', 1, 3, true},
        {"a session", 'c', 1, 3 | DELTA_STREAM, true},
        {"bits that are not kept", 'c', 1, 3 | DELTA_STREAM | DELTA_PROOF | DELTA_GONE, false},
        {"another node", 'c', 2, 2, true},
        {"one that is not here goes", 'w', 3, 0, false},
        {"one goes", 'w', 1, 0, true},
        {"and is gone", 'w', 1, 0, false},
        {"and comes back", 'c', 1, 3, true},
        {"a state", 's', 1, 0, true},
        {"the same state", 's', 1, 0, false},
        {"another state", 's', 2, 0, true},
    };
    struct store *s = store_new(10, 1);
    for (size_t i = 0; i < COUNT(steps); i++) {
        uint64_t version = store_owner(s, STORE_SELF)->version, view = store_view(s);
        uint8_t bytes[4] = {(uint8_t)steps[i].id};
        told.count = 0;
        if (steps[i].what == 'c')
            assert_true(store_claim(s, steps[i].id, steps[i].meta, 0));
        else if (steps[i].what == 'w')
            store_withdraw(s, steps[i].id, 0);
        else
            store_state(s, bytes, sizeof bytes, 0);
        if (store_owner(s, STORE_SELF)->version != version + steps[i].is_news)
            fail_msg("%s: version", steps[i].name);
        assert_int_equal(store_view(s) != view, steps[i].is_news);
        assert_int_equal(told.count, steps[i].is_news && steps[i].what != 's');
        check_store(s);
    }
    assert_int_equal(store_rows(s), 2);
    assert_int_equal(store_owner(s, STORE_SELF)->rows, 2);
    assert_int_equal(store_owner(s, STORE_SELF)->state_len, 4);
    store_free(s);
}

/* --- room --- */

static void test_room(void **state)
{
    (void)state;
    enum { ROWS = 40 };
    struct store *s = store_with(ROWS, 30, 2);
    apply_many(s, 1, 1, 31); /* one over its share: refused, but the log goes on */
    assert_int_equal(store_owner(s, 1)->rows, 30);
    assert_int_equal(store_owner(s, 1)->refused, 1);
    assert_int_equal(store_owner(s, 1)->version, 31);
    assert_false(store_has(s, 1, 31));
    for (uint32_t id = 1; id <= 10; id++)
        assert_true(store_claim(s, id, 1, 0));
    assert_false(store_claim(s, 11, 1, 0));
    assert_int_equal(store_owner(s, STORE_SELF)->version, 10);
    assert_int_equal(store_owner(s, STORE_SELF)->refused, 1);
    assert_true(store_claim(s, 10, 2, 0)); /* who has a row needs no room */
    store_state(s, (const uint8_t *)"x", 1, 0);
    assert_int_equal(store_owner(s, STORE_SELF)->state_len, 1); /* nor has a state record */
    assert_int_equal(apply(s, 2, (struct piece){5, 0, 2, 2, {{0, 0, 1}, {50, 1, 2}}}, 0),
                     STORE_APPLIED);
    assert_int_equal(store_owner(s, 2)->refused, 1);
    assert_int_equal(store_owner(s, 2)->state_len, 6);
    /* A death for which there is no row raises the horizon, as if it were purged. */
    uint64_t horizon = store_owner(s, 2)->horizon;
    apply(s, 2, (struct piece){5, 2, 3, 3, {{60, GONE, 3}}}, 0);
    assert_true(horizon < 3);
    assert_int_equal(store_owner(s, 2)->horizon, 3);
    /* A tombstone gives way to a node. */
    apply(s, 1, (struct piece){5, 31, 32, 32, {{5, GONE, 32}}}, 0);
    assert_int_equal(store_rows(s), ROWS);
    assert_true(store_claim(s, 11, 1, 0));
    assert_int_equal(store_rows(s), ROWS);
    assert_int_equal(store_owner(s, 1)->horizon, 32);
    assert_false(store_claim(s, 12, 1, 0));
    store_free(s);
}

/* What is kept for our own nodes others do not get, by as many owners or tombstones as they like.
 */
static void test_reserve(void **state)
{
    (void)state;
    struct store *s = store_with(40, 40, 2);
    store_reserve(s, 10);
    apply_many(s, 1, 1, 20);
    apply_many(s, 2, 1001, 11); /* one too many */
    assert_int_equal(store_rows(s), 30);
    assert_int_equal(store_owner(s, 2)->refused, 1);
    for (uint32_t id = 1; id <= 10; id++)
        assert_true(store_claim(s, id, 1, 0));
    assert_false(store_claim(s, 11, 1, 0));
    store_withdraw(s, 10, 0); /* its tombstone is nobody's room but ours */
    assert_true(store_claim(s, 11, 1, 0));
    /* A tombstone of others gives way to them. */
    apply(s, 1, (struct piece){5, 20, 21, 21, {{5, GONE, 21}}}, 0);
    apply(s, 1, (struct piece){5, 21, 22, 22, {{99, 1, 22}}}, 0);
    assert_true(store_has(s, 1, 99));
    assert_int_equal(store_owner(s, 1)->refused, 0);
    assert_int_equal(store_rows(s), 40);
    store_free(s);
}

/* While a log is rebuilt, its new rows push out those of before. */
static void test_room_in_rebuild(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, owner_rows;
    } caps[] = {{4, 10}, {10, 4}};
    for (size_t i = 0; i < COUNT(caps); i++) {
        struct store *s = store_with(caps[i].rows, caps[i].owner_rows, 1);
        apply_many(s, 1, 1, 4);
        apply(s, 1, (struct piece){6, 0, 3, 9, {{11, 1, 1}, {12, 1, 2}, {13, 1, 3}}}, 0);
        assert_int_equal(store_owner(s, 1)->refused, 0);
        assert_true(store_has(s, 1, 4));
        apply(s, 1, (struct piece){6, 3, 5, 9, {{14, 1, 4}, {15, 1, 5}}}, 0);
        assert_int_equal(store_owner(s, 1)->rows, 4);
        assert_int_equal(store_owner(s, 1)->refused, 1);
        assert_true(store_has(s, 1, 11));
        assert_false(store_has(s, 1, 4));
        store_free(s);
    }
}

/* A tombstone that is purged in the piece that brought it: its version must be below the horizon.
 */
static void test_purged_on_arrival(void **state)
{
    (void)state;
    struct store *s = store_with(4, 10, 1);
    apply_many(s, 1, 1, 4);
    apply(s, 1, (struct piece){5, 4, 8, 8, {{1, GONE, 6}, {9, 1, 8}}}, 0);
    assert_true(store_has(s, 1, 9));
    assert_int_equal(store_owner(s, 1)->horizon, 6);
    store_free(s);
}

static void test_tombstones(void **state)
{
    (void)state;
    enum { ROWS = 100, GRAVES = ROWS / 4 };
    struct store *s = store_new(ROWS, 10);
    const struct store_owner *o = store_owner(s, STORE_SELF);
    for (uint32_t id = 1; id <= GRAVES + 1; id++)
        assert_true(store_claim(s, id, 1, 0));
    for (uint32_t id = 1; id <= GRAVES; id++)
        store_withdraw(s, id, 10 * SECOND_NS);
    assert_int_equal(store_rows(s), GRAVES + 1);
    assert_int_equal(o->horizon, 0);
    store_withdraw(s, GRAVES + 1, 10 * SECOND_NS); /* one too many: the first goes */
    assert_int_equal(store_rows(s), GRAVES);
    assert_int_equal(o->horizon, GRAVES + 2);
    /* One returns and dies again, later. */
    assert_true(store_claim(s, 2, 1, 20 * SECOND_NS));
    store_withdraw(s, 2, 20 * SECOND_NS);
    check_store(s);
    store_tick(s, (10 + STORE_TOMBSTONE_S) * SECOND_NS - 1);
    assert_int_equal(store_rows(s), GRAVES);
    store_tick(s, (10 + STORE_TOMBSTONE_S) * SECOND_NS);
    assert_int_equal(store_rows(s), 1);
    assert_int_equal(o->horizon, o->version - 2);
    store_tick(s, (19 + STORE_TOMBSTONE_S) * SECOND_NS);
    assert_int_equal(store_rows(s), 1);
    store_tick(s, (20 + STORE_TOMBSTONE_S) * SECOND_NS);
    assert_int_equal(store_rows(s), 0);
    assert_int_equal(o->horizon, o->version);
    store_free(s);
}

/* --- who is told --- */

static void test_told(void **state)
{
    (void)state;
    struct store *s = store_with(20, 20, 3);
    static const struct {
        const char *name;
        unsigned owner;
        struct piece piece;
        bool told;
    } steps[] = {
        {"the first claim", 1, {5, 0, 1, 1, {{7, 2, 1}}}, true},
        {"the same again", 1, {5, 1, 2, 2, {{7, 2, 2}}}, false},
        {"another class", 1, {5, 2, 3, 3, {{7, 3, 3}}}, true},
        {"a worse claim", 2, {5, 0, 1, 1, {{7, 2, 1}}}, false},
        {"it goes again", 2, {5, 1, 2, 2, {{7, GONE, 2}}}, false},
        {"a better one", 2, {5, 2, 3, 3, {{7, 4, 3}}}, true},
        {"the worse one goes", 1, {5, 3, 4, 4, {{7, GONE, 4}}}, false},
        {"the last one goes", 2, {5, 3, 4, 4, {{7, GONE, 4}}}, true},
        {"a state record", 2, {5, 4, 5, 5, {{0, 0, 5}}}, false},
        {"of an unusable owner", 3, {5, 0, 1, 1, {{7, 1, 1}}}, true},
        {"which a rebuild forgets", 3, {6, 0, 0, 0, {{0}}}, true},
    };
    store_owner_rank(s, 3, STORE_UNUSABLE);
    for (size_t i = 0; i < COUNT(steps); i++) {
        told.count = 0;
        assert_int_equal(apply(s, steps[i].owner, steps[i].piece, 0), STORE_APPLIED);
        if (told.count != steps[i].told || (told.count && told.last != 7))
            fail_msg("%s: %u", steps[i].name, told.count);
    }
    store_claim(s, 7, 1, 0);
    told.count = 0;
    apply(s, 1, (struct piece){5, 4, 5, 5, {{7, 1, 5}}}, 0); /* the best of others */
    assert_int_equal(told.count, 1);
    store_free(s);
}

/* --- owners --- */

static void test_owners(void **state)
{
    (void)state;
    enum { ROWS = 10 };
    struct store *s = store_with(100, 100, 2);
    uint64_t view = store_view(s);
    assert_int_equal(store_owner(s, 3)->beacon, 0);
    apply_many(s, 1, 1, ROWS);
    apply(s, 1, (struct piece){5, ROWS, ROWS + 1, ROWS + 1, {{0, 0, ROWS + 1}}}, 0);
    assert_int_not_equal(store_view(s), view);
    /* A new rank is told in steps. */
    int64_t cursor = STORE_CURSOR_START;
    store_owner_rank(s, 1, STORE_DOUBTED);
    told.count = 0;
    assert_true(store_recheck(s, 1, &cursor, 4));
    assert_int_equal(told.count, 4);
    assert_true(store_recheck(s, 1, &cursor, 4));
    assert_false(store_recheck(s, 1, &cursor, 4));
    assert_int_equal(told.count, ROWS);
    assert_false(store_recheck(s, 1, &cursor, 4));
    assert_int_equal(told.count, ROWS);
    /* The row at the cursor changes: nobody is left out. */
    cursor = STORE_CURSOR_START;
    assert_true(store_recheck(s, 1, &cursor, 4));
    apply(s, 1, (struct piece){5, ROWS + 1, ROWS + 2, ROWS + 2, {{told.last, 3, ROWS + 2}}}, 0);
    told.count = 0;
    while (store_recheck(s, 1, &cursor, 4))
        ;
    assert_int_equal(told.count, ROWS);
    cursor = STORE_CURSOR_START;
    assert_false(store_recheck(s, 2, &cursor, 4));
    /* It is forgotten in steps. */
    told.count = 0;
    assert_true(store_owner_forget(s, 1, ROWS));
    assert_int_equal(store_view(s), view);
    assert_int_equal(store_owner(s, 1)->beacon, BEACON + 1);
    assert_false(store_owner_forget(s, 1, ROWS));
    assert_int_equal(told.count, ROWS);
    assert_int_equal(store_owner(s, 1)->beacon, 0);
    assert_int_equal(store_rows(s), 0);
    /* The index is used again; beginning anew forgets what is there. */
    store_owner_begin(s, 1, 4711, 5);
    assert_int_equal(store_owner(s, 1)->rank, STORE_UNUSABLE);
    assert_int_equal(store_owner(s, 1)->boot, 5);
    store_owner_begin(s, 1, BEACON + 1, 5);
    apply_many(s, 1, 1, 3);
    store_owner_begin(s, 1, BEACON + 1, 6);
    assert_int_equal(store_rows(s), 0);
    assert_int_equal(store_owner(s, 1)->version, 0);
    store_free(s);
}

static void test_view(void **state)
{
    (void)state;
    struct store *a = store_new(10, 10), *b = store_with(10, 10, 0);
    assert_int_equal(store_view(a), store_view(b));
    store_claim(a, 1, 1, 0);
    assert_int_not_equal(store_view(a), store_view(b));
    store_claim(b, 1, 1, 0);
    assert_int_equal(store_view(a), store_view(b));
    store_owner_begin(a, 1, 200, 5); /* at other indices */
    store_owner_begin(a, 2, 300, 6);
    store_owner_begin(b, 9, 300, 6);
    assert_int_not_equal(store_view(a), store_view(b));
    store_owner_begin(b, 4, 200, 5);
    assert_int_equal(store_view(a), store_view(b));
    store_reboot(a, 8);
    assert_int_not_equal(store_view(a), store_view(b));
    store_reboot(b, 8);
    store_owner_begin(b, STORE_MEMBERS_MAX, 400, 1);
    store_replace_begin(b, STORE_MEMBERS_MAX);
    assert_int_equal(store_view(a), store_view(b));
    store_free(a);
    store_free(b);
}

/* --- whole sets --- */

static void test_replace(void **state)
{
    (void)state;
    enum { P = STORE_MEMBERS_MAX + 3 };
    static const struct {
        const char *name;
        uint32_t ids[5];
        bool keep;
        uint32_t missing, rows;
        unsigned told;
    } sets[] = {
        {"the first", {1, 2, 3, 4}, false, 0, 4, 4},
        {"the same", {4, 3, 2, 1}, false, 0, 4, 0},
        {"one named twice", {1, 2, 3, 4, 4}, false, 0, 4, 0},
        {"two gone, one new", {1, 2, 5}, false, 2, 3, 3},
        {"none, and kept", {0}, true, 3, 3, 0},
        {"one, the others kept", {5}, true, 2, 3, 0},
        {"still missing", {5, 6}, false, 2, 2, 3},
        {"none", {0}, false, 2, 0, 2},
    };
    struct store *s = store_new(100, 100);
    store_owner_begin(s, P, BEACON + 1, 1);
    store_owner_rank(s, P, STORE_PILOT);
    for (size_t i = 0; i < COUNT(sets); i++) {
        told.count = 0;
        store_replace_begin(s, P);
        for (size_t n = 0; n < COUNT(sets[i].ids) && sets[i].ids[n]; n++)
            assert_true(store_replace_row(s, P, sets[i].ids[n], 0));
        assert_false(store_replace_row(s, P, 0, 0));
        uint32_t missing = store_replace_missing(s, P);
        store_replace_end(s, P, sets[i].keep);
        if (missing != sets[i].missing || store_owner(s, P)->rows != sets[i].rows ||
            told.count != sets[i].told)
            fail_msg("%s: %u missing, %u rows, %u told", sets[i].name, missing,
                     store_owner(s, P)->rows, told.count);
        for (size_t n = 0; n < COUNT(sets[i].ids) && sets[i].ids[n]; n++)
            assert_int_equal(store_best(s, sets[i].ids[n], true).owner, P);
        check_store(s);
    }
    store_free(s);
    s = store_new(4, 100);
    store_owner_begin(s, P, BEACON + 1, 1);
    store_replace_begin(s, P);
    for (uint32_t id = 1; id <= 5; id++)
        assert_int_equal(store_replace_row(s, P, id, 0), id <= 4);
    store_replace_end(s, P, false);
    assert_int_equal(store_owner(s, P)->refused, 1);
    store_free(s);
}

/* --- reading --- */

/* Reads on from a place; the versions in all pieces. */
static unsigned read_all(const struct store *s, unsigned owner, struct store_place *place,
                         size_t room, uint64_t *ret, unsigned max)
{
    static struct gossip_delta d;
    const struct store_owner *o = store_owner(s, owner);
    unsigned count = 0;
    bool restart;
    for (uint64_t from = place->version; store_read(s, owner, place, room, &d, &restart);
         from = d.to) {
        assert_int_equal(d.owner, o->beacon);
        assert_int_equal(d.boot, o->boot);
        assert_int_equal(d.from, from);
        assert_int_equal(d.to, place->version);
        assert_int_equal(d.top, o->version);
        assert_true(d.to > d.from);
        for (unsigned i = 0; i < d.row_count; i++, count++) {
            assert_in_range(d.row[i].version, from + 1, d.to);
            assert_true(count < max);
            ret[count] = d.row[i].version;
        }
    }
    assert_false(restart);
    assert_int_equal(place->version, o->version);
    return count;
}

static void test_read(void **state)
{
    (void)state;
    enum { ROWS = 3000 };
    static const size_t rooms[] = {STORE_READ_MIN, 500, GOSSIP_BODY_MAX, SIZE_MAX};
    static uint64_t version[ROWS + 10];
    struct store *s = store_new(ROWS, 1);
    for (uint32_t id = 1; id <= ROWS; id++)
        assert_true(store_claim(s, id * 7919, 1, 0));
    store_state(s, (const uint8_t[GOSSIP_STATE_MAX]){1}, GOSSIP_STATE_MAX, 0);
    for (size_t i = 0; i < COUNT(rooms); i++) {
        struct store_place place = {0};
        assert_int_equal(read_all(s, STORE_SELF, &place, rooms[i], version, ROWS + 10), ROWS + 1);
        for (uint32_t n = 0; n <= ROWS; n++)
            assert_int_equal(version[n], n + 1);
        assert_int_equal(read_all(s, STORE_SELF, &place, rooms[i], version, 0), 0);
    }
    /* From each place, with the right hint, none, another row's and nonsense. */
    for (uint64_t from = 1; from <= ROWS + 1; from += 500) {
        for (uint32_t hint = 0; hint < 4; hint++) {
            uint32_t row = row_find(s, STORE_SELF, (uint32_t)from * 7919);
            uint32_t hints[] = {row, 0, row_find(s, STORE_SELF, 7919 * 77), UINT32_MAX};
            struct store_place place = {.version = from, .row = hints[hint]};
            unsigned count = read_all(s, STORE_SELF, &place, ROOM, version, ROWS);
            assert_int_equal(count, ROWS + 1 - from);
            assert_true(count == 0 || version[0] == from + 1);
        }
    }
    store_free(s);
}

/* The row of the hint moves, is purged, is another owner's. */
static void test_read_hint(void **state)
{
    (void)state;
    static struct gossip_delta d;
    bool restart;
    struct store *s = store_with(4, 4, 1);
    for (uint32_t id = 1; id <= 3; id++)
        store_claim(s, id, 1, 0);
    store_state(s, (const uint8_t *)"one", 3, 0);
    struct store_place place = {0}, again;
    assert_true(store_read(s, STORE_SELF, &place, ROOM, &d, &restart));
    assert_int_equal(d.state_len, 3);
    assert_memory_equal(d.state, "one", 3);
    assert_int_equal(place.row, row_state(s, STORE_SELF));
    store_claim(s, 2, 2, 0);
    store_state(s, (const uint8_t *)"two", 3, 0); /* the hint's row moves */
    assert_true(store_read(s, STORE_SELF, &place, ROOM, &d, &restart));
    assert_int_equal(d.row_count, 2);
    assert_int_equal(d.row[0].id, 2);
    assert_int_equal(d.row[1].id, 0);
    assert_memory_equal(d.state, "two", 3);
    again = place;
    again.row = row_find(s, STORE_SELF, 3);
    store_withdraw(s, 3, 0);
    apply(s, 1, (struct piece){5, 0, 1, 1, {{8, 1, 1}}}, 0);
    apply(s, 1, (struct piece){5, 1, 2, 2, {{9, 1, 2}}}, 0); /* takes the tombstone's row */
    assert_int_equal(row_find(s, 1, 9), again.row);
    assert_false(store_read(s, STORE_SELF, &again, ROOM, &d, &restart));
    assert_true(restart);
    store_free(s);
}

static void test_read_restart(void **state)
{
    (void)state;
    enum { VERSION = 12, HORIZON = 9 };
    static const struct {
        const char *name;
        struct store_place place;
        bool is_read, restart;
    } places[] = {
        {"the start", {.version = 0}, true, false},
        {"below the horizon", {.version = 1}, false, true},
        {"just below", {.version = HORIZON - 1}, false, true},
        {"just below, begun below", {.version = HORIZON - 1, .began = HORIZON - 1}, false, true},
        {"below, begun at it", {.version = 1, .began = HORIZON}, true, false},
        {"at it", {.version = HORIZON}, true, false},
        {"one to go", {.version = VERSION - 1}, true, false},
        {"at the end", {.version = VERSION}, false, false},
        {"behind the end", {.version = VERSION + 1}, false, false},
    };
    static struct gossip_delta d;
    struct store *s = store_new(100, 1);
    store_claim(s, 1, 1, 0);
    for (uint32_t n = 0; n < 4; n++) { /* versions 2 to 9 */
        store_claim(s, 2, 1, 0);
        store_withdraw(s, 2, 0);
    }
    store_tick(s, STORE_TOMBSTONE_S * SECOND_NS);
    for (uint32_t id = 3; id <= 5; id++)
        store_claim(s, id, 1, 0);
    assert_int_equal(store_owner(s, STORE_SELF)->horizon, HORIZON);
    assert_int_equal(store_owner(s, STORE_SELF)->version, VERSION);
    for (size_t i = 0; i < COUNT(places); i++) {
        struct store_place place = places[i].place;
        bool restart = !places[i].restart;
        bool is_read = store_read(s, STORE_SELF, &place, ROOM, &d, &restart);
        if (is_read != places[i].is_read || restart != places[i].restart)
            fail_msg("%s", places[i].name);
        if (place.version == 0)
            assert_int_equal(place.began, VERSION);
    }
    /* Who is at the end of the log of one boot is below the horizon of the next. */
    struct store_place end = {.version = VERSION, .began = VERSION}, zero = {0};
    bool restart;
    store_reboot(s, 8);
    assert_int_equal(store_owner(s, STORE_SELF)->boot, 8);
    assert_false(store_read(s, STORE_SELF, &end, ROOM, &d, &restart));
    assert_true(restart);
    assert_true(store_read(s, STORE_SELF, &zero, ROOM, &d, &restart));
    assert_int_equal(d.row_count, 4);
    assert_int_equal(d.boot, 8);
    store_free(s);
}

static void test_no_reading_in_rebuild(void **state)
{
    (void)state;
    static struct gossip_delta d;
    bool restart = true;
    struct store *s = store_with(10, 10, 1);
    struct store_place zero = {0}, one = {.version = 1};
    assert_false(store_read(s, 1, &zero, ROOM, &d, &restart)); /* nothing is known */
    assert_false(restart);
    apply(s, 1, (struct piece){5, 0, 2, 3, {{1, 1, 1}, {2, 1, 2}}}, 0);
    restart = true;
    assert_false(store_read(s, 1, &zero, ROOM, &d, &restart));
    assert_false(restart);
    assert_false(store_read(s, 1, &one, ROOM, &d, &restart));
    assert_false(restart);
    apply(s, 1, (struct piece){5, 2, 3, 3, {{3, 1, 3}}}, 0);
    assert_true(store_read(s, 1, &zero, ROOM, &d, &restart));
    assert_int_equal(d.row_count, 3);
    store_free(s);
}

/* Each own node once, and of others none. */
static void test_own_nodes(void **state)
{
    (void)state;
    enum { NODES = 5000 };
    static uint8_t seen[2 * NODES + 1];
    struct store *s = store_with(8000, 8000, 1);
    int64_t cursor = STORE_CURSOR_START;
    uint32_t id;
    assert_false(store_own_next(s, &cursor, &id));
    for (id = 1; id <= NODES; id++)
        store_claim(s, id, 1, 0);
    for (id = 1; id <= 1000; id++)
        store_withdraw(s, id, 0);
    store_state(s, (const uint8_t *)"x", 1, 0);
    apply_many(s, 1, NODES + 1, 1000);
    memset(seen, 0, sizeof seen);
    unsigned count = 0;
    for (; store_own_next(s, &cursor, &id); count++) {
        assert_in_range(id, 1001, NODES);
        assert_int_equal(seen[id]++, 0);
    }
    assert_int_equal(count, NODES - 1000);
    /* What moves the row of the cursor makes ids come twice, and none be missed. */
    cursor = STORE_CURSOR_START;
    memset(seen, 0, sizeof seen);
    for (unsigned n = 0; store_own_next(s, &cursor, &id); n++) {
        seen[id] = 1;
        if (n == 100)
            store_withdraw(s, id, 0);
    }
    for (id = 1001; id <= NODES; id++)
        assert_true(seen[id]);
    store_free(s);
}

/* --- several stores and one truth --- */

enum { BEACONS = 4, IDS = 60, NET = 400, MODEL_ROWS = BEACONS * IDS };

/* A delta on its way. */
struct letter {
    unsigned to, owner; /* store; beacon number */
    unsigned tries;
    uint8_t state[GOSSIP_STATE_MAX];
    struct gossip_delta d;
};

/* What one knows of a store who only listens to its changes. */
struct mirror {
    const struct store *store;
    struct holder best[IDS + 1], others[IDS + 1];
};

static void mirror_changed(void *arg, uint32_t id)
{
    struct mirror *m = arg;
    m->best[id] = store_best(m->store, id, false);
    m->others[id] = store_best(m->store, id, true);
}

static void mirror_check(const struct mirror *m)
{
    for (uint32_t id = 1; id <= IDS; id++) {
        struct holder best = store_best(m->store, id, false),
                      others = store_best(m->store, id, true);
        assert_int_equal(best.owner, m->best[id].owner);
        assert_int_equal(best.meta, m->best[id].meta);
        assert_int_equal(others.owner, m->others[id].owner);
        assert_int_equal(others.meta, m->others[id].meta);
    }
}

struct world {
    uint64_t seed, now_ns;
    struct store *store[BEACONS];
    struct mirror mirror[BEACONS];
    uint8_t truth[BEACONS][IDS + 1]; /* meta + 1, 0: not there */
    uint8_t state[BEACONS];
    uint64_t boot[BEACONS];
    struct store_place place[BEACONS][BEACONS][BEACONS]; /* from, to, owner */
    uint64_t place_boot[BEACONS][BEACONS][BEACONS];
    unsigned net_count;
    struct letter net[NET];
    unsigned applied[3], restarts, rebuilds;
};

static unsigned owner_index(unsigned at, unsigned beacon)
{
    return at == beacon ? STORE_SELF : beacon + 1;
}

static unsigned dice(struct world *w, unsigned sides)
{
    return (unsigned)((next_random(&w->seed) >> 32) * sides >> 32);
}

static void world_begin(struct world *w, unsigned b)
{
    void *memory = malloc(store_size(MODEL_ROWS));
    assert_non_null(memory);
    w->store[b] = store_init(memory, MODEL_ROWS, IDS, (struct siphash_key){b, w->seed});
    w->mirror[b].store = w->store[b];
    store_on_change(w->store[b], mirror_changed, &w->mirror[b]);
    for (uint32_t id = 0; id <= IDS; id++)
        w->mirror[b].best[id] = w->mirror[b].others[id] = (struct holder){.owner = STORE_NONE};
    w->boot[b]++;
    memset(w->truth[b], 0, sizeof w->truth[b]);
    w->state[b] = 0;
    for (unsigned k = 0; k < BEACONS; k++) {
        store_owner_begin(w->store[b], owner_index(b, k), BEACON + k, k == b ? w->boot[b] : 0);
        store_owner_rank(w->store[b], owner_index(b, k), k == b ? STORE_OWN : STORE_USABLE);
        for (unsigned other = 0; other < BEACONS; other++) {
            w->place[b][other][k] = w->place[other][b][k] = (struct store_place){0};
            w->place_boot[b][other][k] = w->place_boot[other][b][k] = 0;
        }
    }
}

static void world_deliver(struct world *w, struct letter *l)
{
    unsigned index = owner_index(l->to, l->owner);
    uint64_t version = store_owner(w->store[l->to], index)->version;
    enum store_applied got = store_apply(w->store[l->to], index, &l->d, w->now_ns);
    w->applied[got]++;
    w->rebuilds += got == STORE_APPLIED && l->d.from == 0 && version > 0;
    if (got != STORE_APPLIED)
        assert_int_equal(store_owner(w->store[l->to], index)->version, version);
}

/* Reads a piece for another store and puts it on its way, sometimes twice; drops some. Who had a
 * version and is started again gets the first piece for certain, as the contract wants. */
static bool world_send(struct world *w, unsigned a, unsigned b, unsigned k, bool surely)
{
    static struct letter l;
    struct store_place *place = &w->place[a][b][k];
    const struct store_owner *mine = store_owner(w->store[a], owner_index(a, k));
    const struct store_owner *theirs = store_owner(w->store[b], owner_index(b, k));
    bool restart;
    if (a == b || b == k)
        return false;
    if (w->place_boot[a][b][k] != mine->boot)
        *place = (struct store_place){0};
    w->place_boot[a][b][k] = mine->boot;
    if (surely || dice(w, 6) == 0) { /* an acknowledgement came */
        place->version = theirs->boot == mine->boot ? theirs->version : 0;
        place->began = place->version ? place->began : 0;
    }
    l = (struct letter){.to = b, .owner = k};
    bool is_read =
        store_read(w->store[a], owner_index(a, k), place, 300 + dice(w, 300), &l.d, &restart);
    if (!is_read && restart) {
        w->restarts++;
        *place = (struct store_place){0};
        is_read = store_read(w->store[a], owner_index(a, k), place, ROOM, &l.d, &restart);
        assert_true(is_read);
    }
    if (!is_read)
        return false;
    if (l.d.state) {
        memcpy(l.state, l.d.state, l.d.state_len);
        l.d.state = l.state;
    }
    surely |= l.d.from == 0 && theirs->version && theirs->boot == mine->boot;
    if (surely) {
        world_deliver(w, &l);
        return true;
    }
    if (l.d.from == 0)
        place->began = 0; /* who knows whether it will begin with this one */
    for (unsigned copies = dice(w, 8) == 0 ? 2 : dice(w, 8) != 0; copies; copies--)
        if (w->net_count < NET) {
            w->net[w->net_count] = l;
            w->net[w->net_count].d.state = l.d.state ? w->net[w->net_count].state : NULL;
            w->net_count++;
        }
    return true;
}

/* A letter arrives, any of those on their way; one that is ahead waits. */
static void world_arrive(struct world *w)
{
    if (w->net_count == 0)
        return;
    struct letter *l = &w->net[dice(w, w->net_count)], *last = &w->net[w->net_count - 1];
    unsigned ahead = w->applied[STORE_AHEAD];
    world_deliver(w, l);
    if (w->applied[STORE_AHEAD] > ahead && ++l->tries < 20)
        return;
    *l = *last;
    l->d.state = l->d.state ? l->state : NULL;
    w->net_count--;
}

static void world_change(struct world *w)
{
    unsigned b = dice(w, BEACONS), id = 1 + dice(w, IDS), what = dice(w, 1000);
    if (what < 500) {
        uint8_t meta = (uint8_t)dice(w, 4);
        assert_true(store_claim(w->store[b], id, meta, w->now_ns));
        w->truth[b][id] = meta + 1;
    } else if (what < 950) {
        store_withdraw(w->store[b], id, w->now_ns);
        w->truth[b][id] = 0;
    } else if (what < 980) {
        w->state[b]++;
        store_state(w->store[b], &w->state[b], 1, w->now_ns);
    } else if (what < 988) {
        w->now_ns += (1 + dice(w, STORE_TOMBSTONE_S)) * SECOND_NS;
    } else if (what < 992) {
        store_reboot(w->store[b], ++w->boot[b]);
    } else if (what < 994) {
        store_free(w->store[b]);
        world_begin(w, b);
    }
}

/* All is sent and taken, in order. */
static void world_settle(struct world *w)
{
    bool busy = true;
    w->net_count = 0;
    for (unsigned round = 0; busy; round++) {
        busy = false;
        assert_true(round < 1000);
        for (unsigned n = 0; n < BEACONS * BEACONS * BEACONS; n++)
            busy |= world_send(w, n % BEACONS, n / BEACONS % BEACONS, n / BEACONS / BEACONS, true);
    }
}

static void world_check(const struct world *w)
{
    for (unsigned b = 0; b < BEACONS; b++) {
        const struct store *s = w->store[b];
        check_store(s);
        mirror_check(&w->mirror[b]);
        if (store_view(s) != store_view(w->store[0]))
            fail_msg("seed: store %u has another view", b);
        for (unsigned k = 0; k < BEACONS; k++) {
            const struct store_owner *o = store_owner(s, owner_index(b, k));
            assert_false(o->rebuilding);
            assert_int_equal(o->boot, o->version ? w->boot[k] : o->boot);
            assert_int_equal(o->state_len, w->state[k] ? 1 : 0);
            assert_true(!o->state_len || o->state[0] == w->state[k]);
            uint32_t rows = 0;
            for (uint32_t id = 1; id <= IDS; id++) {
                uint32_t i = row_find(s, owner_index(b, k), id);
                bool is_here = i && !s->row[i].gone;
                if (is_here != (w->truth[k][id] != 0))
                    fail_msg("store %u: node %u of %u is %shere", b, id, k, is_here ? "" : "not ");
                if (is_here)
                    assert_int_equal(s->row[i].meta, w->truth[k][id] - 1);
                rows += is_here;
            }
            assert_int_equal(o->rows, rows);
            assert_int_equal(o->refused, 0);
        }
    }
}

static void world_run(uint64_t seed, unsigned *total)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->seed = seed;
    for (unsigned b = 0; b < BEACONS; b++)
        world_begin(w, b);
    for (unsigned phase = 0; phase < 6; phase++) {
        for (unsigned step = 0; step < 1500; step++) {
            if (dice(w, 3) == 0)
                world_change(w);
            if (dice(w, 50) == 0)
                store_tick(w->store[dice(w, BEACONS)], w->now_ns);
            world_send(w, dice(w, BEACONS), dice(w, BEACONS), dice(w, BEACONS), false);
            world_arrive(w);
        }
        for (unsigned b = 0; b < BEACONS; b++)
            store_claim(w->store[b], 1, 0, w->now_ns), w->truth[b][1] = 1; /* nobody is empty */
        world_settle(w);
        world_check(w);
    }
    for (unsigned i = 0; i < 3; i++)
        total[i] += w->applied[i];
    total[3] += w->restarts;
    total[4] += w->rebuilds;
    for (unsigned b = 0; b < BEACONS; b++)
        store_free(w->store[b]);
    free(w);
}

static void test_world(void **state)
{
    (void)state;
    unsigned total[5] = {0};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        world_run(seed * 0x9e3779b97f4a7c15u, total);
    }
    print_message("applied %u, known %u, ahead %u, restarts %u, rebuilds %u\n", total[0], total[1],
                  total[2], total[3], total[4]);
    for (unsigned i = 0; i < 5; i++)
        assert_true(total[i] > 100); /* all that can happen did */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_needless_tombstones),
        cmocka_unit_test(test_rebuild_ends_in_pieces),
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_age_does_not_wrap),
        cmocka_unit_test(test_learnt_once),
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_room_in_rebuild),
        cmocka_unit_test(test_purged_on_arrival),
        cmocka_unit_test(test_tombstones),
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_hint),
        cmocka_unit_test(test_read_restart),
        cmocka_unit_test(test_no_reading_in_rebuild),
        cmocka_unit_test(test_own_nodes),
        cmocka_unit_test(test_world),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
