#include "gossip/store_rows.h"

enum {
    SETTLE_APPLY = 1024, /* old rows that go with one piece of a log, and in one tick: a few */
    SETTLE_TICK = 32768, /* hundred nanoseconds each */
    AGE_ROUND_S = 8192,  /* the hand of rows_age is round in so many ticks */
    AGE_MAX_S = 16384,
};
static_assert(AGE_MAX_S + 2 * AGE_ROUND_S <= 32768, "ages can be compared modulo 65536");

/* --- owners --- */

const struct store_owner *store_owner(const struct store *s, unsigned owner)
{
    assert(owner < STORE_OWNERS_MAX);
    return &s->owner[owner].shown;
}

void store_owner_rank(struct store *s, unsigned owner, enum store_rank rank)
{
    assert(owner < STORE_OWNERS_MAX);
    s->rank[owner] = s->owner[owner].shown.rank = (uint8_t)rank;
}

static void owner_clear(struct store *s, unsigned owner)
{
    owner_position(s, owner, 0, 0);
    s->owner[owner] = (struct owner){.head = 0};
    store_owner_rank(s, owner, owner == STORE_SELF ? STORE_OWN : STORE_UNUSABLE);
}

bool store_owner_forget(struct store *s, unsigned owner, uint32_t rows)
{
    assert(owner < STORE_OWNERS_MAX);
    struct owner *o = &s->owner[owner];
    owner_position(s, owner, 0, 0);
    o->shown.rebuilding = false;
    for (; o->head && rows; rows--)
        log_drop_first(s, owner);
    if (o->head)
        return true;
    owner_clear(s, owner);
    return false;
}

void store_owner_begin(struct store *s, unsigned owner, uint32_t beacon, uint64_t boot)
{
    assert(owner < STORE_OWNERS_MAX);
    store_owner_forget(s, owner, UINT32_MAX);
    s->owner[owner].shown.beacon = beacon;
    owner_position(s, owner, boot, 0);
}

/* --- rebuilds --- */

static bool begins_rebuild(const struct owner *o, const struct gossip_delta *delta)
{
    if (delta->from != 0 || delta->boot < o->shown.boot)
        return false;
    if (delta->boot > o->shown.boot)
        return true;
    if (o->shown.version == 0)
        return delta->to > 0;
    return delta->top > (o->shown.rebuilding ? o->began : o->shown.version);
}

/* A piece written before the rebuild began, long on its way: it may name nodes whose tombstones are
 * purged by now. */
static bool is_outdated(const struct owner *o, const struct gossip_delta *delta)
{
    return o->shown.rebuilding && delta->top < o->began;
}

static void rebuild_begin(struct store *s, unsigned owner, const struct gossip_delta *delta)
{
    struct owner *o = &s->owner[owner];
    o->same_log = delta->boot == o->shown.boot;
    owner_position(s, owner, delta->boot, 0);
    o->old = o->tail;
    o->began = delta->top > delta->to ? delta->top : delta->to;
    o->shown.rebuilding = true;
    o->shown.top = o->began;
    o->shown.horizon = 0;
    o->shown.refused = 0;
}

/* When the log is whole, what has not come again goes, up to `rows` of it. Returns how many. */
static uint32_t rebuild_settle(struct store *s, unsigned owner, uint32_t rows)
{
    struct owner *o = &s->owner[owner];
    uint32_t dropped = 0;
    if (!o->shown.rebuilding || o->shown.version < o->shown.top)
        return 0;
    for (; o->old && dropped < rows; dropped++)
        log_drop_first(s, owner);
    if (o->old)
        return dropped;
    o->shown.rebuilding = false;
    /* Tombstones from before it began were not sent to us, or not kept. */
    if (o->shown.horizon < o->began)
        o->shown.horizon = o->began;
    return dropped;
}

/* --- others' facts --- */

/* A row for a node that the owner has not claimed so far, 0: refused. While its log is rebuilt,
 * rows of before make room. */
static uint32_t admit(struct store *s, unsigned owner, uint32_t id)
{
    struct owner *o = &s->owner[owner];
    while (o->shown.rows >= s->owner_rows || !graves_make_room_for_others(s)) {
        if (!o->shown.rebuilding || !o->old) {
            o->shown.refused++;
            return 0;
        }
        log_drop_first(s, owner);
    }
    return row_take(s, owner, id);
}

/* In a rebuild of the same log, a row that has not changed keeps the time it was learnt. */
static bool is_unchanged(const struct owner *o, const struct row *r, uint64_t version)
{
    return o->shown.rebuilding && o->same_log && !r->gone && row_version(r) == version;
}

static void apply_here(struct store *s, unsigned owner, const struct delta_row *row,
                       uint64_t now_ns)
{
    struct standing before = standing(s, row->id);
    uint32_t i = row_find(s, owner, row->id);
    if (!i)
        i = admit(s, owner, row->id);
    if (!i)
        return;
    if (!is_unchanged(&s->owner[owner], &s->row[i], row->version))
        s->row[i].learned = row_seconds(now_ns);
    fact_here(s, owner, i, row->meta, row->version);
    standing_tell(s, row->id, &before);
}

/* A tombstone for which there is no row is as good as purged at once. */
static void apply_gone(struct store *s, unsigned owner, const struct delta_row *row,
                       uint64_t now_ns)
{
    struct owner *o = &s->owner[owner];
    struct standing before = standing(s, row->id);
    uint32_t i = row_find(s, owner, row->id);
    /* From before the rebuild began: whoever lacks this one will be below our horizon. */
    bool is_needless = o->shown.rebuilding && row->version <= o->began;
    if (!i && !is_needless && graves_make_room(s))
        i = row_take(s, owner, row->id);
    if (i && is_needless)
        row_drop(s, i);
    else if (i)
        fact_gone(s, owner, i, row->version, now_ns);
    else if (!is_needless)
        o->shown.horizon = row->version;
    standing_tell(s, row->id, &before);
}

static void apply_row(struct store *s, unsigned owner, const struct gossip_delta *delta,
                      const struct delta_row *row, uint64_t now_ns)
{
    if (row->id != 0 && row->meta & DELTA_GONE)
        apply_gone(s, owner, row, now_ns);
    else if (row->id != 0)
        apply_here(s, owner, row, now_ns);
    else if (delta->state && delta->state_len <= GOSSIP_STATE_MAX)
        fact_state(s, owner, delta->state, delta->state_len, row->version);
}

enum store_applied store_apply(struct store *s, unsigned owner, const struct gossip_delta *delta,
                               uint64_t now_ns)
{
    assert(owner > STORE_SELF);
    assert(owner < STORE_MEMBERS_MAX);
    struct store_owner *o = &s->owner[owner].shown;
    assert(o->beacon != 0);
    assert(o->beacon == delta->owner);
    if (delta->to > STORE_VERSION_MAX || delta->top > STORE_VERSION_MAX)
        return STORE_AHEAD;
    if (delta->boot < o->boot)
        return STORE_KNOWN;
    if (begins_rebuild(&s->owner[owner], delta))
        rebuild_begin(s, owner, delta);
    else if (delta->boot > o->boot || delta->from > o->version)
        return STORE_AHEAD;
    else if (delta->to <= o->version || is_outdated(&s->owner[owner], delta))
        return STORE_KNOWN;
    uint64_t known = o->version;
    /* First, since a tombstone of this very piece may be purged on its way, up to which version the
     * horizon must then rise. */
    owner_position(s, owner, o->boot, delta->to);
    for (unsigned i = 0; i < delta->row_count; i++)
        if (delta->row[i].version > known)
            apply_row(s, owner, delta, &delta->row[i], now_ns);
    if (o->rebuilding && delta->top > o->top)
        o->top = delta->top; /* a row of before may have moved behind the first `top` */
    rebuild_settle(s, owner, SETTLE_APPLY);
    return STORE_APPLIED;
}

/* --- whole sets --- */

void store_replace_begin(struct store *s, unsigned owner)
{
    assert(owner >= STORE_MEMBERS_MAX);
    assert(owner < STORE_OWNERS_MAX);
    struct owner *o = &s->owner[owner];
    owner_position(s, owner, o->shown.boot, o->shown.version + 1);
    o->old = o->tail;
    o->missing = o->shown.rows;
    o->shown.refused = 0;
}

bool store_replace_row(struct store *s, unsigned owner, uint32_t id, uint64_t now_ns)
{
    struct owner *o = &s->owner[owner];
    if (id == 0)
        return false;
    uint32_t i = row_find(s, owner, id);
    if (i && row_version(&s->row[i]) == o->shown.version)
        return true; /* named twice */
    if (i) {
        o->missing--;
        fact_here(s, owner, i, 0, o->shown.version);
        return true;
    }
    struct standing before = standing(s, id);
    i = admit(s, owner, id);
    if (!i)
        return false;
    s->row[i].learned = row_seconds(now_ns);
    fact_here(s, owner, i, 0, o->shown.version);
    standing_tell(s, id, &before);
    return true;
}

uint32_t store_replace_missing(const struct store *s, unsigned owner)
{
    assert(owner < STORE_OWNERS_MAX);
    return s->owner[owner].missing;
}

void store_replace_end(struct store *s, unsigned owner, bool keep_missing)
{
    struct owner *o = &s->owner[owner];
    while (!keep_missing && o->old)
        log_drop_first(s, owner);
    o->old = 0;
}

/* --- time --- */

/* Rows that are older than AGE_MAX_S are made to look just so old: that two of them cannot be told
 * apart matters less than an old one passing for a new one when the seconds wrap. */
static void rows_age(struct store *s, uint64_t now_ns)
{
    uint16_t now = row_seconds(now_ns);
    for (uint32_t n = s->capacity / AGE_ROUND_S + 1; n; n--) {
        struct row *r = &s->row[s->hand];
        if (!r->gone && (uint16_t)(now - r->learned) > AGE_MAX_S)
            r->learned = (uint16_t)(now - AGE_MAX_S);
        s->hand = s->hand % s->capacity + 1;
    }
}

void store_tick(struct store *s, uint64_t now_ns)
{
    uint32_t left = SETTLE_TICK;
    graves_tick(s, now_ns);
    rows_age(s, now_ns);
    for (unsigned i = 1; i < STORE_MEMBERS_MAX; i++)
        left -= rebuild_settle(s, i, left);
}
