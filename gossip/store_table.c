#include "gossip/store_rows.h"

static size_t align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

static uint32_t graves_for(uint32_t rows)
{
    return rows < 4 ? 1 : rows / 4;
}

/* Chains are two rows long when the store is full: a head each would cost two bytes a row more. */
static uint32_t heads_for(uint32_t rows)
{
    return rows / 2 + 1;
}

static size_t row_count(uint32_t rows)
{
    return (size_t)rows + 1 + STORE_OWNERS_MAX;
}

size_t store_size(uint32_t rows)
{
    size_t n = align8(sizeof(struct store));
    n += graves_for(rows) * sizeof(uint64_t);
    n += align8(row_count(rows) * sizeof(struct row)); /* nodes, nobody, state records */
    n += heads_for(rows) * sizeof(uint32_t);
    return n;
}

struct store *store_init(void *memory, uint32_t rows, uint32_t owner_rows, struct siphash_key key)
{
    assert(rows > 0);
    assert(rows < UINT32_MAX - STORE_OWNERS_MAX);
    struct store *s = memory;
    *s = (struct store){.key = key, .capacity = rows, .owner_rows = owner_rows, .hand = 1};
    s->graves_max = graves_for(rows);
    uint8_t *at = (uint8_t *)memory + align8(sizeof *s);
    s->grave = (uint64_t *)(void *)at;
    at += s->graves_max * sizeof *s->grave;
    s->row = (struct row *)(void *)at;
    at += align8(row_count(rows) * sizeof *s->row);
    s->head = (uint32_t *)(void *)at;
    memset(s->head, 0, heads_for(rows) * sizeof *s->head);
    for (size_t i = 0; i < row_count(rows); i++)
        s->row[i] = (struct row){.owner = STORE_NONE};
    for (uint32_t i = 1; i < rows; i++)
        s->row[i].next = i + 1;
    s->free = 1;
    s->rank[STORE_SELF] = s->owner[STORE_SELF].shown.rank = STORE_OWN;
    return s;
}

void store_reserve(struct store *s, uint32_t rows)
{
    assert(rows < s->capacity);
    s->reserved = rows;
}

void store_on_change(struct store *s, store_changed *changed, void *arg)
{
    s->changed = changed;
    s->arg = arg;
}

uint32_t store_rows(const struct store *s)
{
    return s->used;
}

uint32_t store_capacity(const struct store *s)
{
    return s->capacity;
}

uint64_t store_view(const struct store *s)
{
    return s->view;
}

/* --- hash chains --- */

uint32_t store_heads(const struct store *s)
{
    return heads_for(s->capacity);
}

static uint32_t bucket_of(const struct store *s, uint32_t id)
{
    return (uint32_t)((siphash_u32(&s->key, id) >> 32) * store_heads(s) >> 32);
}

uint32_t row_find(const struct store *s, unsigned owner, uint32_t id)
{
    uint32_t i = s->head[bucket_of(s, id)];
    while (i && (s->row[i].id != id || s->row[i].owner != owner))
        i = s->row[i].chain;
    return i;
}

static void chain_unlink(struct store *s, uint32_t index)
{
    uint32_t *link = &s->head[bucket_of(s, s->row[index].id)];
    while (*link != index) {
        assert(*link != 0);
        link = &s->row[*link].chain;
    }
    *link = s->row[index].chain;
}

void row_to_front(struct store *s, uint32_t index)
{
    if (s->row[index].id == 0)
        return; /* a state record hangs in no chain */
    chain_unlink(s, index);
    uint32_t *head = &s->head[bucket_of(s, s->row[index].id)];
    s->row[index].chain = *head;
    *head = index;
}

/* --- lists --- */

static void list_unlink(struct store *s, uint32_t index)
{
    const struct row *r = &s->row[index];
    struct owner *o = &s->owner[r->owner];
    if (o->old == index)
        o->old = r->prev; /* old rows are the first ones: before an old one there are only such */
    *(r->prev ? &s->row[r->prev].next : &o->head) = r->next;
    *(r->next ? &s->row[r->next].prev : &o->tail) = r->prev;
}

static void list_append(struct store *s, unsigned owner, uint32_t index)
{
    struct owner *o = &s->owner[owner];
    struct row *r = &s->row[index];
    r->owner = (uint16_t)owner;
    r->prev = o->tail;
    r->next = 0;
    *(o->tail ? &s->row[o->tail].next : &o->head) = index;
    o->tail = index;
}

void row_to_end(struct store *s, unsigned owner, uint32_t index, uint64_t version)
{
    struct row *r = &s->row[index];
    assert(version <= STORE_VERSION_MAX);
    if (r->owner != STORE_NONE)
        list_unlink(s, index);
    list_append(s, owner, index);
    r->version_low = (uint32_t)version;
    r->version_high = (uint16_t)(version >> 32);
}

/* --- rows --- */

uint32_t row_state(const struct store *s, unsigned owner)
{
    return s->capacity + 1 + owner;
}

uint32_t row_take(struct store *s, unsigned owner, uint32_t id)
{
    assert(id != 0);
    uint32_t index = s->free;
    assert(index != 0);
    struct row *r = &s->row[index];
    s->free = r->next;
    s->used++;
    uint32_t *head = &s->head[bucket_of(s, id)];
    *r = (struct row){.id = id, .chain = *head, .gone = true};
    *head = index;
    list_append(s, owner, index);
    return index;
}

void row_drop(struct store *s, uint32_t index)
{
    struct row *r = &s->row[index];
    struct store_owner *o = &s->owner[r->owner].shown;
    list_unlink(s, index);
    r->owner = STORE_NONE;
    if (r->id == 0) {
        o->state_len = 0;
        return;
    }
    if (!r->gone) {
        assert(o->rows > 0);
        o->rows--;
    }
    chain_unlink(s, index);
    r->next = s->free;
    s->free = index;
    assert(s->used > 0);
    s->used--;
}

/* --- whose claim is best --- */

static bool row_better(const struct store *s, const struct row *a, const struct row *b)
{
    if (s->rank[a->owner] != s->rank[b->owner])
        return s->rank[a->owner] > s->rank[b->owner];
    if ((a->meta & DELTA_CLASS) != (b->meta & DELTA_CLASS))
        return (a->meta & DELTA_CLASS) > (b->meta & DELTA_CLASS);
    /* Of claims of one second the one that stands further in front came last. Right round the wrap,
     * since no row is older than half of it: see rows_age. */
    return (int16_t)(uint16_t)(a->learned - b->learned) > 0;
}

static struct holder holder_of(const struct row *r)
{
    return r ? (struct holder){r->owner, r->meta} : (struct holder){.owner = STORE_NONE};
}

struct standing standing(const struct store *s, uint32_t id)
{
    const struct row *best = NULL, *others = NULL;
    for (uint32_t i = s->head[bucket_of(s, id)]; i; i = s->row[i].chain) {
        const struct row *r = &s->row[i];
        if (r->id != id || r->gone)
            continue;
        if (!best || row_better(s, r, best))
            best = r;
        if (r->owner != STORE_SELF && (!others || row_better(s, r, others)))
            others = r;
    }
    return (struct standing){holder_of(best), holder_of(others)};
}

static bool holder_equal(struct holder a, struct holder b)
{
    return a.owner == b.owner && a.meta == b.meta;
}

void standing_tell(const struct store *s, uint32_t id, const struct standing *before)
{
    if (!s->changed)
        return;
    struct standing after = standing(s, id);
    if (!holder_equal(after.best, before->best) || !holder_equal(after.others, before->others))
        s->changed(s->arg, id);
}

struct holder store_best(const struct store *s, uint32_t id, bool others)
{
    struct standing now = standing(s, id);
    struct holder h = others ? now.others : now.best;
    bool usable = h.owner != STORE_NONE && s->rank[h.owner] != STORE_UNUSABLE;
    return usable ? h : holder_of(NULL);
}

bool store_contested(const struct store *s, uint32_t id)
{
    unsigned claims = 0;
    for (uint32_t i = s->head[bucket_of(s, id)]; i; i = s->row[i].chain) {
        const struct row *r = &s->row[i];
        claims += r->id == id && !r->gone && r->owner != STORE_SELF;
    }
    return claims > 1;
}

unsigned store_claimant(const struct store *s, uint32_t id)
{
    for (uint32_t i = s->head[bucket_of(s, id)]; i; i = s->row[i].chain) {
        const struct row *r = &s->row[i];
        if (r->id == id && !r->gone && r->owner != STORE_SELF)
            return r->owner;
    }
    return STORE_NONE;
}

bool store_has(const struct store *s, unsigned owner, uint32_t id)
{
    uint32_t i = row_find(s, owner, id);
    return i && !s->row[i].gone;
}

/* --- walks --- */

/* A cursor is the row that was told last and part of its version. When the row has changed since,
 * its place is lost and the walk begins again: rare, and telling twice does no harm. */
static int64_t cursor_at(const struct store *s, uint32_t index)
{
    return (int64_t)(s->row[index].version_low & INT32_MAX) << 32 | index;
}

static uint32_t cursor_row(const struct store *s, unsigned owner, int64_t cursor)
{
    uint32_t index = cursor == STORE_CURSOR_START ? 0 : (uint32_t)cursor;
    return s->row[index].owner == owner && cursor_at(s, index) == cursor ? index : 0;
}

bool store_recheck(struct store *s, unsigned owner, int64_t *cursor, uint32_t rows)
{
    assert(owner < STORE_OWNERS_MAX);
    uint32_t last = cursor_row(s, owner, *cursor);
    uint32_t i = last ? s->row[last].next : s->owner[owner].head;
    for (; i && rows; i = s->row[i].next, rows--) {
        last = i;
        if (s->row[i].id && !s->row[i].gone && s->changed)
            s->changed(s->arg, s->row[i].id);
    }
    *cursor = last ? cursor_at(s, last) : STORE_CURSOR_START;
    return i != 0;
}

static bool is_own_node(const struct store *s, uint32_t index)
{
    const struct row *r = &s->row[index];
    return r->owner == STORE_SELF && r->id && !r->gone;
}

bool store_own_next(const struct store *s, int64_t *cursor, uint32_t *ret_id)
{
    uint32_t last = cursor_row(s, STORE_SELF, *cursor);
    uint32_t i = last ? s->row[last].next : s->owner[STORE_SELF].head;
    while (i && !is_own_node(s, i))
        i = s->row[i].next;
    if (i == 0)
        return false;
    *cursor = cursor_at(s, i);
    *ret_id = s->row[i].id;
    return true;
}
