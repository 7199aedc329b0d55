#include <assert.h>
#include "server/memory.h"
#include "server/route.h"

/* A hot row. All words are atomics so that other lanes may read while the owner writes:
 *
 *   word 0   sequence (32) | id (32)        odd sequence: the owner is writing this row
 *   word 1-2 address, 16 bytes
 *   word 3   port (16) | local (8) | class (3) | flags (5) | seen (32)
 *
 * The owner makes the sequence odd, stores the rest with release, then the next even sequence with
 * release. A reader loads word 0, the rest with acquire, and word 0 again: had it seen any new
 * word, it would also see the odd sequence before it. No fence is needed, which TSan could not
 * follow. */
struct row {
    _Atomic uint64_t word[4];
};
static_assert(sizeof(struct row) == 32, "two rows to a cache line");

/* The cold row of the same index, written under the hot row's sequence. */
struct key_row {
    _Atomic uint64_t word[MSG_KEY_LEN / 8];
};

struct routes {
    struct siphash_key key;
    uint32_t nodes_max, row_count, prefix_mask;
    struct row *row;
    struct key_row *key_row;
    uint32_t *prefix; /* count-min sketch, 2 rows of prefix_mask + 1 */

    /* The owner writes, anyone reads. */
    _Atomic uint32_t count, count_v4, count_stream;
    _Atomic uint32_t moves; /* odd while rows are being shifted: a miss in between is uncertain */

    /* The owner's alone. */
    uint32_t expire_hand, evict_hand;
};

enum {
    READ_TRIES = 64,    /* a row is written in nanoseconds; past this its writer lost its core */
    PREFIX_MIN = 1024,  /* cells a sketch row, at least */
    EVICT_LOOK = 64,    /* rows compared for one eviction: a few microseconds */
    EXPIRE_MAX = 65536, /* rows looked at in one turn, at most: under a millisecond */
    EXPIRE_GONE_MAX = 2048, /* rows removed in one turn, at most: the rest waits for the next */
};

static uint32_t rows_for(uint32_t nodes)
{
    return nodes + nodes / 4 + 16; /* load 0.8: 13 rows for an average miss, 7 cache lines */
}

static uint32_t prefix_cells_for(uint32_t nodes)
{
    uint32_t cells = PREFIX_MIN;
    while (cells < nodes / 2)
        cells *= 2;
    return cells;
}

size_t routes_size(uint32_t nodes)
{
    size_t n = 0;
    n += align64(sizeof(struct routes));
    n += align64(rows_for(nodes) * sizeof(struct row));
    n += align64(rows_for(nodes) * sizeof(struct key_row));
    n += align64(2 * (size_t)prefix_cells_for(nodes) * sizeof(uint32_t));
    return n;
}

struct routes *routes_init(void *memory, uint32_t nodes, struct siphash_key key)
{
    uint8_t *at = memory;
    struct routes *r = memory;
    r->key = key;
    r->nodes_max = nodes;
    r->row_count = rows_for(nodes);
    r->prefix_mask = prefix_cells_for(nodes) - 1;
    at += align64(sizeof *r);
    r->row = (struct row *)at;
    at += align64(r->row_count * sizeof(struct row));
    r->key_row = (struct key_row *)at;
    at += align64(r->row_count * sizeof(struct key_row));
    r->prefix = (uint32_t *)at;
    return r;
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

static uint64_t row_tail(const struct route *route)
{
    return (uint64_t)route->at.port << 48 | (uint64_t)route->local << 40 |
           (uint64_t)(route->class_ & 7) << 37 | (uint64_t)(route->flags & 31) << 32 |
           route->seen_s;
}

static void route_from_words(struct route *route, uint32_t id, const uint64_t word[static 4])
{
    route->id = id;
    memcpy(route->at.ip, &word[1], 16);
    route->at.port = (uint16_t)(word[3] >> 48);
    route->local = (uint8_t)(word[3] >> 40);
    route->class_ = word[3] >> 37 & 7;
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

static uint32_t row_next(const struct routes *r, uint32_t i)
{
    return i + 1 == r->row_count ? 0 : i + 1;
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

bool route_find(const struct routes *r, uint64_t hash, uint32_t id, struct route *ret)
{
    return find(r, hash, id, ret, NULL);
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

/* --- how full each prefix is --- */

struct prefix_cells {
    uint32_t *cell[2];
};

static struct prefix_cells prefix_cells(const struct routes *r, const struct endpoint *at,
                                        unsigned bits)
{
    struct endpoint prefix = endpoint_prefix(at, bits);
    prefix.port = (uint16_t)bits; /* a /24 and a /32 of the same address are two keys */
    uint64_t hash = siphash(&r->key, &prefix, sizeof prefix);
    return (struct prefix_cells){{&r->prefix[hash & r->prefix_mask],
                                  &r->prefix[r->prefix_mask + 1 + (hash >> 32 & r->prefix_mask)]}};
}

uint32_t route_prefix_count(const struct routes *r, const struct endpoint *at, unsigned bits)
{
    struct prefix_cells p = prefix_cells(r, at, bits);
    return *p.cell[0] < *p.cell[1] ? *p.cell[0] : *p.cell[1];
}

static void prefix_add(struct routes *r, const struct endpoint *at, int change)
{
    const unsigned widths[2] = {endpoint_host_bits(at), endpoint_network_bits(at)};
    for (int i = 0; i < 2; i++) {
        struct prefix_cells p = prefix_cells(r, at, widths[i]);
        *p.cell[0] += (uint32_t)change;
        *p.cell[1] += (uint32_t)change;
    }
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
    count_change(&r->count, change);
    if (route->flags & ROUTE_STREAM)
        count_change(&r->count_stream, change);
    else if (endpoint_is_v4(&route->at))
        count_change(&r->count_v4, change);
    prefix_add(r, &route->at, change);
}

enum route_put route_put(struct routes *r, const struct route *route, const uint8_t *key)
{
    assert(route->id != 0);
    uint32_t i;
    struct route old = {.id = 0};
    bool known = row_find(r, route_hash(r, route->id), route->id, &i);
    if (!known && route_count(r) == r->nodes_max)
        return ROUTE_FULL;
    assert(i < r->row_count);
    if (known) {
        bool read = row_read(r, i, route->id, &old, NULL);
        assert(read); /* we are the only writer */
        book(r, &old, -1);
    }
    struct route new = *route;
    uint64_t words[MSG_KEY_LEN / 8];
    bool keep = old.flags & ROUTE_HAS_KEY || !key; /* the first key stays */
    enum { OURS = ROUTE_HAS_KEY | ROUTE_AGE };     /* kept by the table, not by the caller */
    new.flags = (uint8_t)((route->flags & ~OURS) | (old.flags & OURS) | (keep ? 0 : ROUTE_HAS_KEY));
    if (!keep)
        memcpy(words, key, MSG_KEY_LEN);
    row_write(r, i, &new, keep ? NULL : words);
    book(r, &new, +1);
    return known ? ROUTE_UPDATED : ROUTE_INSERTED;
}

void route_touch(struct routes *r, uint64_t hash, uint32_t id, uint32_t now_s)
{
    uint32_t i;
    if (!row_find(r, hash, id, &i))
        return;
    uint64_t word = atomic_load_explicit(&r->row[i].word[3], memory_order_relaxed);
    uint64_t aged = (uint64_t)ROUTE_AGE_ONE << 32, oldest = (uint64_t)ROUTE_AGE << 32;
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

static void row_remove(struct routes *r, uint32_t i, const struct route *route)
{
    book(r, route, -1);
    rows_shift(r, i);
}

bool route_remove(struct routes *r, uint32_t id)
{
    uint32_t i;
    struct route route;
    if (id == 0 || !row_find(r, route_hash(r, id), id, &i) || !row_read(r, i, id, &route, NULL))
        return false;
    row_remove(r, i, &route);
    return true;
}

/* --- ageing and room --- */

/* Row `i` if it holds a node. */
static bool row_at(const struct routes *r, uint32_t i, struct route *ret)
{
    uint32_t id = row_id(atomic_load_explicit(&r->row[i].word[0], memory_order_acquire));
    return id != 0 && row_read(r, i, id, ret, NULL);
}

static uint32_t silent_s(const struct route *route, uint32_t now_s)
{
    int32_t silent = (int32_t)(now_s - route->seen_s);
    return silent > 0 ? (uint32_t)silent : 0;
}

static bool is_expired(const struct route *route, uint32_t now_s, uint32_t ttl_s)
{
    if (route->flags & ROUTE_STREAM && ttl_s < ROUTE_STREAM_TTL_S)
        ttl_s = ROUTE_STREAM_TTL_S;
    return silent_s(route, now_s) > ttl_s;
}

uint32_t route_expire(struct routes *r, uint32_t now_s, uint32_t ttl_s, uint32_t rows)
{
    uint32_t removed = 0;
    for (uint32_t n = 0; n < rows && removed < EXPIRE_GONE_MAX; n++) {
        struct route route;
        if (row_at(r, r->expire_hand, &route) && is_expired(&route, now_s, ttl_s)) {
            row_remove(r, r->expire_hand, &route);
            removed++; /* the hand stays: another row may have moved up */
        } else {
            r->expire_hand = row_next(r, r->expire_hand);
        }
    }
    return removed;
}

uint32_t route_rows_due(const struct routes *r, uint64_t elapsed_ns, uint32_t period_s)
{
    uint64_t elapsed_us = elapsed_ns / 1000;
    uint64_t rows = (uint64_t)r->row_count * elapsed_us / (period_s * 1000000ull);
    return rows > EXPIRE_MAX ? EXPIRE_MAX : (uint32_t)rows;
}

/* A row that may be evicted, and how full its prefix is. */
struct candidate {
    struct route route;
    uint32_t crowd;
};

static uint32_t crowd_at(const struct routes *r, const struct endpoint *at)
{
    return route_prefix_count(r, at, endpoint_network_bits(at));
}

/* Whether `a` should leave before `b`. */
static bool leaves_first(const struct candidate *a, const struct candidate *b)
{
    if (a->route.class_ != b->route.class_)
        return a->route.class_ < b->route.class_;
    if ((a->route.flags & ROUTE_AGE) != (b->route.flags & ROUTE_AGE))
        return (a->route.flags & ROUTE_AGE) < (b->route.flags & ROUTE_AGE);
    if (a->crowd != b->crowd)
        return a->crowd > b->crowd;
    return (int32_t)(a->route.seen_s - b->route.seen_s) < 0;
}

/* Within a class the newcomer's prefix must not end up fuller than the victim's was. */
static bool may_push_out(const struct routes *r, const struct endpoint *newcomer,
                         enum route_class class_, const struct candidate *victim)
{
    if (class_ != victim->route.class_)
        return class_ > victim->route.class_;
    return crowd_at(r, newcomer) + 1 <= victim->crowd ||
           endpoint_same_prefix(newcomer, &victim->route.at, endpoint_network_bits(newcomer));
}

bool route_evict(struct routes *r, const struct endpoint *newcomer, enum route_class class_)
{
    struct candidate victim = {.crowd = 0}, next;
    for (uint32_t n = 0; n < EVICT_LOOK || (victim.route.id == 0 && n < r->row_count); n++) {
        r->evict_hand = row_next(r, r->evict_hand);
        if (!row_at(r, r->evict_hand, &next.route))
            continue;
        next.crowd = crowd_at(r, &next.route.at);
        if (victim.route.id == 0 || leaves_first(&next, &victim))
            victim = next;
    }
    if (victim.route.id == 0 || !may_push_out(r, newcomer, class_, &victim))
        return false;
    return route_remove(r, victim.route.id);
}

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

uint32_t route_capacity(const struct routes *r)
{
    return r->nodes_max;
}

uint32_t route_page(const struct routes *r, uint32_t from_row, uint32_t rows,
                    void (*each)(const struct route *, void *), void *arg)
{
    struct route route;
    uint32_t i = from_row;
    for (; i < r->row_count && rows > 0; i++, rows--)
        if (row_at(r, i, &route))
            each(&route, arg);
    return i < r->row_count ? i : 0;
}
