#include "gossip/store_rows.h"

/* The same on every beacon, for views are compared; nobody gains by a collision of his own making:
 * what he says of himself is believed anyway. */
static const struct siphash_key view_key = {0x626561636f6e2076u, 0x6965772031000000u};

static uint64_t view_part(const struct store *s, unsigned owner)
{
    const struct store_owner *o = &s->owner[owner].shown;
    uint64_t words[3] = {o->beacon, o->boot, o->version};
    return owner < STORE_MEMBERS_MAX && o->boot ? siphash(&view_key, words, sizeof words) : 0;
}

void owner_position(struct store *s, unsigned owner, uint64_t boot, uint64_t version)
{
    struct store_owner *o = &s->owner[owner].shown;
    s->view -= view_part(s, owner);
    o->boot = boot;
    o->version = version;
    s->view += view_part(s, owner);
}

/* --- tombstones --- */

static void grave_purge(struct store *s, uint32_t index)
{
    const struct row *r = &s->row[index];
    struct store_owner *o = &s->owner[r->owner].shown;
    /* In a rebuild it may be a tombstone of the log before, whose versions mean nothing now. */
    uint64_t version = row_version(r) < o->version ? row_version(r) : o->version;
    if (version > o->horizon)
        o->horizon = version;
    row_drop(s, index);
}

/* The oldest entry's row, 0 when the entry is void. */
static uint32_t grave_oldest(const struct store *s)
{
    uint64_t entry = s->grave[s->grave_first];
    const struct row *r = &s->row[entry >> 32];
    bool valid = r->owner != STORE_NONE && r->gone && r->version_low == (uint32_t)entry;
    return valid ? (uint32_t)(entry >> 32) : 0;
}

/* True: a row became free. */
static bool grave_pop(struct store *s)
{
    uint32_t index = grave_oldest(s);
    s->grave_first = (s->grave_first + 1) % s->graves_max;
    s->graves--;
    if (index)
        grave_purge(s, index);
    return index != 0;
}

static void grave_push(struct store *s, uint32_t index)
{
    if (s->graves == s->graves_max)
        grave_pop(s);
    uint32_t last = (uint32_t)(((uint64_t)s->grave_first + s->graves) % s->graves_max);
    s->grave[last] = (uint64_t)index << 32 | s->row[index].version_low;
    s->graves++;
}

bool graves_make_room(struct store *s)
{
    while (!s->free && s->graves)
        grave_pop(s);
    return s->free != 0;
}

bool graves_make_room_for_others(struct store *s)
{
    uint32_t most = s->capacity - s->reserved;
    while (s->used - s->owner[STORE_SELF].shown.rows >= most && s->graves)
        grave_pop(s);
    return s->used - s->owner[STORE_SELF].shown.rows < most && graves_make_room(s);
}

void graves_tick(struct store *s, uint64_t now_ns)
{
    for (; s->graves; grave_pop(s)) {
        uint32_t index = grave_oldest(s);
        if (index && (uint16_t)(row_seconds(now_ns) - s->row[index].learned) < STORE_TOMBSTONE_S)
            return;
    }
}

/* --- facts --- */

void fact_here(struct store *s, unsigned owner, uint32_t index, uint8_t meta, uint64_t version)
{
    struct row *r = &s->row[index];
    if (r->gone)
        s->owner[owner].shown.rows++;
    r->gone = false;
    r->meta = meta & ROW_META;
    row_to_front(s, index);
    row_to_end(s, owner, index, version);
}

void fact_gone(struct store *s, unsigned owner, uint32_t index, uint64_t version, uint64_t now_ns)
{
    struct row *r = &s->row[index];
    if (!r->gone)
        s->owner[owner].shown.rows--;
    r->gone = true;
    r->meta = 0;
    r->learned = row_seconds(now_ns);
    row_to_end(s, owner, index, version);
    grave_push(s, index);
}

void fact_state(struct store *s, unsigned owner, const uint8_t *state, size_t len, uint64_t version)
{
    struct store_owner *o = &s->owner[owner].shown;
    assert(len <= sizeof o->state);
    memcpy(o->state, state, len);
    o->state_len = (uint8_t)len;
    row_to_end(s, owner, row_state(s, owner), version);
}

void log_drop_first(struct store *s, unsigned owner)
{
    uint32_t index = s->owner[owner].head, id = s->row[index].id;
    assert(index != 0);
    if (id == 0 || s->row[index].gone) {
        row_drop(s, index);
        return;
    }
    struct standing before = standing(s, id);
    row_drop(s, index);
    standing_tell(s, id, &before);
}

/* --- own facts --- */

static uint64_t own_version_raise(struct store *s)
{
    const struct store_owner *o = &s->owner[STORE_SELF].shown;
    owner_position(s, STORE_SELF, o->boot, o->version + 1);
    return o->version;
}

/* A node of ours that was heard here again: is that news? It is when another claims it, who may
 * have been the last to hear it. Once, until that claim goes: else a node that is at both would
 * make two beacons talk of it for ever. */
static bool renewal(const struct store *s, struct row *own)
{
    if (store_claimant(s, own->id) == STORE_NONE) {
        own->renewed = false;
        return false;
    }
    return !own->renewed;
}

bool store_claim(struct store *s, uint32_t id, uint8_t meta, uint64_t now_ns)
{
    uint32_t i = row_find(s, STORE_SELF, id);
    bool same = i && !s->row[i].gone && s->row[i].meta == (meta & ROW_META);
    bool renews = same && renewal(s, &s->row[i]);
    if (same && !renews)
        return true;
    struct standing before = standing(s, id);
    if (!i) {
        if (!graves_make_room(s)) {
            s->owner[STORE_SELF].shown.refused++;
            return false;
        }
        i = row_take(s, STORE_SELF, id);
    }
    s->row[i].learned = row_seconds(now_ns);
    fact_here(s, STORE_SELF, i, meta, own_version_raise(s));
    s->row[i].renewed = renews;
    standing_tell(s, id, &before);
    return true;
}

void store_withdraw(struct store *s, uint32_t id, uint64_t now_ns)
{
    uint32_t i = row_find(s, STORE_SELF, id);
    if (!i || s->row[i].gone)
        return;
    struct standing before = standing(s, id);
    fact_gone(s, STORE_SELF, i, own_version_raise(s), now_ns);
    standing_tell(s, id, &before);
}

void store_state(struct store *s, const uint8_t *state, size_t len, uint64_t now_ns)
{
    (void)now_ns;
    const struct store_owner *o = &s->owner[STORE_SELF].shown;
    if (len == o->state_len && memcmp(state, o->state, len) == 0)
        return;
    fact_state(s, STORE_SELF, state, len, own_version_raise(s));
}

void store_reboot(struct store *s, uint64_t boot)
{
    struct store_owner *o = &s->owner[STORE_SELF].shown;
    /* A version that no reader has: even one that knew all is below the horizon now. */
    owner_position(s, STORE_SELF, boot, o->version + 1);
    o->horizon = o->version;
}

/* --- reading --- */

static size_t uint_len(uint64_t v)
{
    return v < 0x80 ? 1 : v < 0x100 ? 2 : v < 0x10000 ? 3 : v <= UINT32_MAX ? 5 : 9;
}

/* What the row takes in a body: an array of id, meta and gap, and for a state record its bytes. */
static size_t row_len(const struct store *s, const struct row *r, uint64_t gap)
{
    size_t len = 1 + uint_len(r->id) + uint_len(DELTA_GONE | r->meta) + uint_len(gap);
    return r->id ? len : len + 3 + s->owner[r->owner].shown.state_len;
}

/* Where to look for a place: its hint if that is still a row of this log, else whichever end seems
 * closer. */
static uint32_t row_near(const struct store *s, unsigned owner, const struct store_place *place)
{
    const struct owner *o = &s->owner[owner];
    if (place->row <= row_state(s, STORE_OWNERS_MAX - 1) && s->row[place->row].owner == owner)
        return place->row;
    return place->version < o->shown.version / 2 ? o->head : o->tail;
}

/* The first row behind a place. */
static uint32_t row_behind(const struct store *s, unsigned owner, const struct store_place *place)
{
    if (place->version == 0)
        return s->owner[owner].head;
    uint32_t i = row_near(s, owner, place);
    uint32_t behind = i ? s->row[i].next : 0;
    for (; i && row_version(&s->row[i]) > place->version; i = s->row[i].prev)
        behind = i;
    while (behind && row_version(&s->row[behind]) <= place->version)
        behind = s->row[behind].next;
    return behind;
}

static void read_row(const struct store *s, const struct row *r, struct gossip_delta *ret)
{
    uint8_t meta = r->gone ? DELTA_GONE : r->meta;
    ret->row[ret->row_count++] =
        (struct delta_row){.id = r->id, .meta = meta, .version = row_version(r)};
    if (r->id == 0) {
        ret->state = s->owner[r->owner].shown.state;
        ret->state_len = s->owner[r->owner].shown.state_len;
    }
}

static void read_rows(const struct store *s, unsigned owner, struct store_place *place, size_t room,
                      struct gossip_delta *ret)
{
    const struct store_owner *o = &s->owner[owner].shown;
    uint32_t next = row_behind(s, owner, place), last = 0;
    size_t len = DELTA_HEAD_MAX;
    ret->to = place->version;
    for (; next && ret->row_count < GOSSIP_ROWS_MAX; next = s->row[next].next) {
        const struct row *r = &s->row[next];
        len += row_len(s, r, row_version(r) - ret->to);
        if (len > room)
            break;
        read_row(s, r, ret);
        ret->to = row_version(r);
        last = next;
    }
    if (!next && ret->to < o->version) {
        ret->to = o->version; /* what was the last has been purged, or was never taken */
        last = 0;
    }
    place->version = ret->to;
    place->row = last;
}

bool store_read(const struct store *s, unsigned owner, struct store_place *place, size_t room,
                struct gossip_delta *ret, bool *ret_restart)
{
    assert(owner < STORE_MEMBERS_MAX);
    assert(room >= STORE_READ_MIN);
    const struct store_owner *o = &s->owner[owner].shown;
    *ret_restart = !o->rebuilding && place->version && place->version < o->horizon &&
                   place->began < o->horizon;
    if (*ret_restart || o->rebuilding || place->version >= o->version)
        return false;
    if (place->version == 0)
        place->began = o->version;
    ret->owner = o->beacon;
    ret->boot = o->boot;
    ret->from = place->version;
    ret->top = o->version;
    ret->state = NULL;
    ret->state_len = 0;
    ret->row_count = 0;
    read_rows(s, owner, place, room, ret);
    return true;
}
