#include <assert.h>
#include "server/journal.h"
#include "server/memory.h"
#include "server/peers.h"
#include "server/route_part.h"

enum {
    READ_TRIES = 64, /* a row is written in nanoseconds; past this its writer lost its core */
    CODE_SHIFT = 37, /* where in word 3 the class code lies */
};

static uint32_t rows_for(uint32_t nodes)
{
    return nodes + nodes / 4 + 16; /* load 0.8: 13 rows for an average miss, 7 cache lines */
}

size_t routes_size(uint32_t nodes, uint32_t remote)
{
    size_t n = 0;
    n += align64(sizeof(struct routes));
    n += align64(rows_for(nodes + remote) * sizeof(struct row));
    n += align64(rows_for(nodes + remote) * sizeof(struct key_row));
    n += align64(2 * (size_t)prefix_cells_for(nodes) * sizeof(uint32_t));
    return n;
}

struct routes *routes_init(void *memory, uint32_t nodes, uint32_t remote, struct siphash_key key)
{
    uint8_t *at = memory;
    struct routes *r = memory;
    r->key = key;
    r->nodes_max = nodes;
    r->remote_max = remote;
    r->row_count = rows_for(nodes + remote);
    r->prefix_mask = prefix_cells_for(nodes) - 1;
    at += align64(sizeof *r);
    r->row = (struct row *)at;
    at += align64(r->row_count * sizeof(struct row));
    r->key_row = (struct key_row *)at;
    at += align64(r->row_count * sizeof(struct key_row));
    r->prefix = (uint32_t *)at;
    return r;
}

void routes_set_journal(struct routes *r, struct journal *j, bool *wake)
{
    r->journal = j;
    r->wake = wake;
}

/* --- one row --- */

static uint32_t row_id(uint64_t word0)
{
    return (uint32_t)word0;
}

static bool row_busy(uint64_t word0)
{
    return word0 >> 32 & 1;
}

/* Class and `claimed` in three bits: 0 to 3 and ROUTE_BEACON as they are; 5 to 7 are claimed, of
 * the classes unverified, signed and keyed (there is no class 1). */
static uint64_t class_code(const struct route *route)
{
    assert(route->class_ <= ROUTE_BEACON);
    if (!route->claimed)
        return route->class_;
    return route->class_ == ROUTE_UNVERIFIED ? 5u : 4u + route->class_;
}

static bool code_is_claimed(unsigned code)
{
    return code > ROUTE_BEACON;
}

static uint8_t code_class(unsigned code)
{
    static const uint8_t classes[8] = {
        0, 1, ROUTE_SIGNED, ROUTE_KEYED, ROUTE_BEACON, ROUTE_UNVERIFIED, ROUTE_SIGNED, ROUTE_KEYED};
    return classes[code];
}

static unsigned word_code(uint64_t word3)
{
    return word3 >> CODE_SHIFT & 7;
}

static uint64_t row_tail(const struct route *route)
{
    return (uint64_t)route->at.port << 48 | (uint64_t)route->local << 40 |
           class_code(route) << CODE_SHIFT | (uint64_t)(route->flags & 31) << 32 | route->seen_s;
}

static void route_from_words(struct route *route, uint32_t id, const uint64_t word[static 4])
{
    route->id = id;
    memcpy(route->at.ip, &word[1], 16);
    route->at.port = (uint16_t)(word[3] >> 48);
    route->local = (uint8_t)(word[3] >> 40);
    route->class_ = code_class(word_code(word[3]));
    route->claimed = code_is_claimed(word_code(word[3]));
    route->flags = word[3] >> 32 & 31;
    route->seen_s = (uint32_t)word[3];
}

/* Reads row `i` and, when `ret_key` is wanted, its key. False: the row no longer holds `id`. */
static bool row_read(const struct routes *r, uint32_t i, uint32_t id, struct route *ret,
                     uint64_t *ret_key)
{
    const struct row *row = &r->row[i];
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint64_t word[4];
        word[0] = atomic_load_explicit(&row->word[0], memory_order_acquire);
        if (row_id(word[0]) != id)
            return false;
        if (row_busy(word[0]))
            continue;
        for (int w = 1; w < 4; w++)
            word[w] = atomic_load_explicit(&row->word[w], memory_order_acquire);
        for (int w = 0; ret_key && w < MSG_KEY_LEN / 8; w++)
            ret_key[w] = atomic_load_explicit(&r->key_row[i].word[w], memory_order_acquire);
        if (atomic_load_explicit(&row->word[0], memory_order_relaxed) != word[0])
            continue;
        route_from_words(ret, id, word);
        return true;
    }
    return false;
}

/* Owner only. `key`: NULL leaves the cold row as it is. */
static void row_write(struct routes *r, uint32_t i, const struct route *route, const uint64_t *key)
{
    struct row *row = &r->row[i];
    uint64_t word0 = atomic_load_explicit(&row->word[0], memory_order_relaxed);
    uint64_t ip[2];
    memcpy(ip, route->at.ip, 16);
    atomic_store_explicit(&row->word[0], word0 + (1ull << 32), memory_order_relaxed);
    atomic_store_explicit(&row->word[1], ip[0], memory_order_release);
    atomic_store_explicit(&row->word[2], ip[1], memory_order_release);
    atomic_store_explicit(&row->word[3], row_tail(route), memory_order_release);
    for (int w = 0; key && w < MSG_KEY_LEN / 8; w++)
        atomic_store_explicit(&r->key_row[i].word[w], key[w], memory_order_release);
    uint64_t sequence = (word0 >> 32) + 2;
    atomic_store_explicit(&row->word[0], sequence << 32 | route->id, memory_order_release);
}

static void row_clear(struct routes *r, uint32_t i)
{
    uint64_t word0 = atomic_load_explicit(&r->row[i].word[0], memory_order_relaxed);
    uint64_t sequence = (word0 >> 32) + 2;
    atomic_store_explicit(&r->row[i].word[0], sequence << 32, memory_order_release);
}

/* --- finding --- */

static uint32_t row_home(const struct routes *r, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * r->row_count >> 32);
}

uint64_t route_hash(const struct routes *r, uint32_t id)
{
    return siphash_u32(&r->key, id);
}

void route_prefetch(const struct routes *r, uint64_t hash)
{
    __builtin_prefetch(&r->row[row_home(r, hash)]);
}

/* The row of `id`, or of the empty row where its chain ends. A table at its load limit always has
 * empty rows, so the walk ends; the bound is for a reader that races with a writer. */
static bool row_find(const struct routes *r, uint64_t hash, uint32_t id, uint32_t *ret)
{
    uint32_t i = row_home(r, hash);
    for (uint32_t n = 0; n < r->row_count; n++, i = row_next(r, i)) {
        uint32_t at = row_id(atomic_load_explicit(&r->row[i].word[0], memory_order_acquire));
        if (at == id || at == 0) {
            *ret = i;
            return at == id;
        }
    }
    *ret = UINT32_MAX;
    return false;
}

static bool find(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret,
                 uint64_t *ret_key)
{
    if (id == 0)
        return false;
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t moves = atomic_load_explicit(&r->moves, memory_order_acquire);
        uint32_t i;
        if (row_find(r, hash, id, &i) && row_read(r, i, id, ret, ret_key))
            return true;
        if (!(moves & 1) && atomic_load_explicit(&r->moves, memory_order_acquire) == moves)
            return false; /* nothing moved meanwhile: it is not there */
    }
    return false;
}

bool route_find_way(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret)
{
    return find(r, hash, id, ret, NULL);
}

bool route_find(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret)
{
    struct route route;
    if (!find(r, hash, id, &route, NULL) || route.class_ == ROUTE_BEACON)
        return false;
    *ret = route;
    return true;
}

bool route_find_key(const struct routes *r, uint32_t id, uint8_t ret_key[static MSG_KEY_LEN])
{
    struct route route;
    uint64_t key[MSG_KEY_LEN / 8];
    if (!find(r, route_hash(r, id), id, &route, key) || !(route.flags & ROUTE_HAS_KEY))
        return false;
    memcpy(ret_key, key, MSG_KEY_LEN);
    return true;
}

/* --- writing --- */

static void count_change(_Atomic uint32_t *count, int change)
{
    uint32_t value = atomic_load_explicit(count, memory_order_relaxed); /* the owner's alone */
    atomic_store_explicit(count, value + (uint32_t)change, memory_order_relaxed);
}

/* The books of a node that comes (+1) or goes (-1). */
static void book(struct routes *r, const struct route *route, int change)
{
    if (route->class_ == ROUTE_BEACON) {
        count_change(&r->count_beacon, change);
        return;
    }
    count_change(&r->count, change);
    if (route->flags & ROUTE_STREAM)
        count_change(&r->count_stream, change);
    else if (endpoint_is_v4(&route->at))
        count_change(&r->count_v4, change);
    prefix_add(r, &route->at, change);
}

static void journal(struct routes *r, const struct route *route, bool gone)
{
    if (!r->journal)
        return;
    journal_put(r->journal, &(struct journal_entry){.id = route->id,
                                                    .gone = gone,
                                                    .class_ = route->class_,
                                                    .stream = route->flags & ROUTE_STREAM});
    *r->wake = true;
}

/* The owner: what stands under `id`, with id 0 for nothing, and in *ret_row its row or the one to
 * put it in. */
static struct route row_held(const struct routes *r, uint32_t id, uint32_t *ret_row)
{
    struct route held = {.id = 0};
    assert(id != 0);
    if (row_find(r, route_hash(r, id), id, ret_row)) {
        bool read = row_read(r, *ret_row, id, &held, NULL);
        assert(read); /* we are the only writer */
    }
    assert(*ret_row < r->row_count);
    return held;
}

static bool is_ours(const struct route *held)
{
    return held->id != 0 && held->class_ != ROUTE_BEACON;
}

/* The flags of `route` over `old`, which is of ours or nothing. */
static uint8_t flags_put(const struct route *old, const struct route *route, bool new_key)
{
    uint8_t flags = route->flags & (ROUTE_WANTS_DEST | ROUTE_STREAM);
    flags |= old->flags & ROUTE_HAS_KEY;
    flags |= (old->id ? old->flags : route->flags) & ROUTE_AGE;
    return flags | (new_key ? ROUTE_HAS_KEY : 0);
}

enum route_put route_put(struct routes *r, const struct route *route, const uint8_t *key)
{
    assert(route->class_ < ROUTE_BEACON);
    uint32_t i;
    struct route old = row_held(r, route->id, &i), new = *route;
    bool known = is_ours(&old);
    if (!known && route_count(r) == r->nodes_max)
        return ROUTE_FULL;
    if (old.id)
        book(r, &old, -1);
    if (!known) /* it comes here from another beacon, or from nowhere */
        old = (struct route){.id = 0};
    uint64_t words[MSG_KEY_LEN / 8];
    bool keep = old.flags & ROUTE_HAS_KEY || !key; /* the first key stays */
    new.flags = flags_put(&old, route, !keep);
    new.claimed = false;
    if (!keep)
        memcpy(words, key, MSG_KEY_LEN);
    row_write(r, i, &new, keep ? NULL : words);
    book(r, &new, +1);
    if (!known || old.claimed || old.class_ != new.class_ || (old.flags ^ new.flags) & ROUTE_STREAM)
        journal(r, &new, false);
    return known ? ROUTE_UPDATED : ROUTE_INSERTED;
}

bool route_put_beacon(struct routes *r, uint32_t id, unsigned beacon, enum route_class class_,
                      bool stream)
{
    uint32_t i;
    struct route old = row_held(r, id, &i), new = route_of_beacon(id, beacon, class_, stream);
    if (is_ours(&old) || (!old.id && route_count_beacon(r) == r->remote_max))
        return false;
    row_write(r, i, &new, NULL);
    if (!old.id)
        book(r, &new, +1);
    return true;
}

bool route_claim(struct routes *r, uint32_t id)
{
    uint32_t i;
    struct route held = row_held(r, id, &i);
    if (!is_ours(&held))
        return false;
    held.claimed = true;
    atomic_store_explicit(&r->row[i].word[3], row_tail(&held), memory_order_release);
    return true;
}

void route_touch(struct routes *r, uint64_t hash, uint32_t id, uint32_t now_s)
{
    uint32_t i;
    if (!row_find(r, hash, id, &i))
        return;
    uint64_t word = atomic_load_explicit(&r->row[i].word[3], memory_order_relaxed);
    uint64_t aged = (uint64_t)ROUTE_AGE_ONE << 32, oldest = (uint64_t)ROUTE_AGE << 32;
    unsigned code = word_code(word);
    if (code == ROUTE_BEACON)
        return;
    if (code_is_claimed(code)) {
        struct route back = {
            .id = id, .class_ = (uint8_t)code_class(code), .flags = word >> 32 & 31};
        word ^= (uint64_t)(code ^ code_class(code)) << CODE_SHIFT;
        journal(r, &back, false);
    }
    if (now_s / ROUTE_AGE_STEP_S != (uint32_t)word / ROUTE_AGE_STEP_S && (word & oldest) != oldest)
        word += aged;
    atomic_store_explicit(&r->row[i].word[3], (word & ~0xffffffffull) | now_s,
                          memory_order_release);
}

static void row_move(struct routes *r, uint32_t from, uint32_t to)
{
    struct route route;
    uint64_t key[MSG_KEY_LEN / 8];
    uint32_t id = row_id(atomic_load_explicit(&r->row[from].word[0], memory_order_relaxed));
    bool read = row_read(r, from, id, &route, key);
    assert(read);
    row_write(r, to, &route, key);
}

/* Closes the gap at `gap`: each row behind it that may stand there moves up (Knuth, 6.4 R). */
static void rows_shift(struct routes *r, uint32_t gap)
{
    uint32_t moves = atomic_load_explicit(&r->moves, memory_order_relaxed); /* ours alone */
    atomic_store_explicit(&r->moves, moves + 1, memory_order_relaxed);
    for (uint32_t i = row_next(r, gap);; i = row_next(r, i)) {
        uint32_t id = row_id(atomic_load_explicit(&r->row[i].word[0], memory_order_relaxed));
        if (id == 0)
            break;
        uint32_t home = row_home(r, route_hash(r, id));
        bool stays = gap < i ? gap < home && home <= i : gap < home || home <= i;
        if (stays)
            continue;
        row_move(r, i, gap);
        gap = i;
    }
    row_clear(r, gap);
    atomic_store_explicit(&r->moves, moves + 2, memory_order_release);
}

void row_remove(struct routes *r, uint32_t i, const struct route *route)
{
    book(r, route, -1);
    rows_shift(r, i);
    if (route->class_ != ROUTE_BEACON)
        journal(r, route, true);
}

bool route_remove(struct routes *r, uint32_t id)
{
    uint32_t i;
    struct route held = {.id = 0};
    if (id != 0)
        held = row_held(r, id, &i);
    if (!is_ours(&held))
        return false;
    row_remove(r, i, &held);
    return true;
}

bool route_remove_beacon(struct routes *r, uint32_t id, unsigned beacon)
{
    uint32_t i;
    struct route held = {.id = 0};
    if (id != 0)
        held = row_held(r, id, &i);
    if (held.class_ != ROUTE_BEACON || (beacon != PEERS_NONE && route_beacon(&held) != beacon))
        return false;
    row_remove(r, i, &held);
    return true;
}

/* --- counts and walks --- */

uint32_t route_count(const struct routes *r)
{
    return atomic_load_explicit(&r->count, memory_order_relaxed);
}

uint32_t route_count_stream(const struct routes *r)
{
    return atomic_load_explicit(&r->count_stream, memory_order_relaxed);
}

uint32_t route_count_v4(const struct routes *r)
{
    return atomic_load_explicit(&r->count_v4, memory_order_relaxed);
}

uint32_t route_count_beacon(const struct routes *r)
{
    return atomic_load_explicit(&r->count_beacon, memory_order_relaxed);
}

uint32_t route_capacity(const struct routes *r)
{
    return r->nodes_max;
}

uint32_t route_capacity_beacon(const struct routes *r)
{
    return r->remote_max;
}

bool row_at(const struct routes *r, uint32_t i, struct route *ret)
{
    uint32_t id = row_id(atomic_load_explicit(&r->row[i].word[0], memory_order_acquire));
    return id != 0 && row_read(r, i, id, ret, NULL);
}

uint32_t route_page(const struct routes *r, uint32_t from_row, uint32_t rows,
                    void (*each)(const struct route *, void *), void *arg)
{
    struct route route;
    uint32_t i = from_row;
    for (; i < r->row_count && rows > 0; i++, rows--)
        if (row_at(r, i, &route) && route.class_ != ROUTE_BEACON)
            each(&route, arg);
    return i < r->row_count ? i : 0;
}
