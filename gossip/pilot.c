#include "gossip/pilot.h"

#include <assert.h>

#include "proto/msg.h"

enum {
    HEAD_LEN = 7,       /* type, beacon id, count */
    STRANGERS_MAX = 32, /* sources that no peer's name stands for, in all */
    GROUP = 16,         /* slices that one walk over our nodes fills */
    EXTRA_MAX = 8000,   /* of a slice: ids that will have, or had, another one */
    SHRINK_BELOW = 4,   /* half the slices when they are this much emptier than they may be */
    FORGET_ROWS = 4096, /* a tick */
};
static_assert((PILOT_SLICES_MAX & (PILOT_SLICES_MAX - 1)) == 0, "slices are halved and doubled");
static_assert(PILOT_SLICES_MAX % GROUP == 0, "groups are whole");
static_assert((int)EXTRA_MAX < (int)PILOT_SLICE_MAX, "extra ids leave room for the slice's own");

/* Original beacons may say id 0, which names no owner in the store. */
#define NO_BEACON UINT32_MAX
/* No group is in the buffers. */
#define NO_GROUP UINT32_MAX
/* A round of few slices takes this long, one of all of them a whole period: so what is sent was
 * gathered little more than a second ago, and the rate does not depend on how many there are. */
#define SPAN_MIN_NS UINT64_C(1000000000)

enum source_state {
    SOURCE_FREE,
    SOURCE_LIVE,
    SOURCE_GOING, /* its rows are being forgotten, then it is free */
};
struct source {
    struct endpoint at;
    enum source_state state;
    uint32_t beacon; /* as it said last */
    uint64_t heard_ns;
    bool held; /* rows are missing by surprise since `held_ns` */
    uint64_t held_ns;
};

struct pilot {
    /* Fixed. */
    struct store *store;
    uint32_t beacon_id;
    bool strict;

    /* The named ones, and how many sources are at each one's address. Of several with one address
     * the first has them. */
    unsigned peer_count;
    struct endpoint peer[PILOT_PEERS_MAX];
    unsigned sources_of[PILOT_PEERS_MAX];

    unsigned source_count; /* those behind are free */
    unsigned stranger_count, free_count;
    bool sources_changed;
    struct source source[STORE_PILOTS_MAX];

    /* The round. Each id is in its slice of `slices`, and while these were others in the round
     * before, in its slice of `before` too: so whichever datagram gets lost or comes late, no id
     * falls between two. Slices from both on up to `total` say that they are empty. */
    uint64_t round_ns, next_round_ns;
    unsigned slices, before, total; /* powers of two */
    unsigned slice_at, peer_at;     /* what is sent next; slice_at == total: the round is over */

    /* Slices of one group, ready to send. */
    unsigned group;
    uint32_t count[GROUP];
    uint8_t bytes[GROUP][HEAD_LEN + 4 * PILOT_SLICE_MAX];
};

size_t pilot_size(void)
{
    return sizeof(struct pilot);
}

struct pilot *pilot_init(void *memory, struct store *store, uint32_t beacon_id, bool strict)
{
    struct pilot *p = memory;
    memset(p, 0, sizeof *p);
    p->store = store;
    p->beacon_id = beacon_id;
    p->strict = strict;
    p->free_count = STORE_PILOTS_MAX;
    p->slices = p->before = 1;
    p->group = NO_GROUP;
    return p;
}

/* --- sources --- */

static int peer_of(const struct pilot *p, const struct endpoint *at)
{
    for (unsigned i = 0; i < p->peer_count; i++)
        if (endpoint_same_ip(&p->peer[i], at))
            return (int)i;
    return -1;
}

bool pilot_is_peer(const struct pilot *p, const struct endpoint *from)
{
    return peer_of(p, from) >= 0;
}

static void count_sources(struct pilot *p)
{
    memset(p->sources_of, 0, sizeof p->sources_of);
    p->source_count = p->stranger_count = 0;
    p->free_count = STORE_PILOTS_MAX;
    for (unsigned i = 0; i < STORE_PILOTS_MAX; i++) {
        const struct source *s = &p->source[i];
        if (s->state == SOURCE_FREE)
            continue;
        int peer = peer_of(p, &s->at);
        p->source_count = i + 1;
        p->free_count--;
        if (peer >= 0)
            p->sources_of[peer]++;
        else
            p->stranger_count++;
    }
}

static struct source *source_find(struct pilot *p, const struct endpoint *at)
{
    for (unsigned i = 0; i < p->source_count; i++)
        if (p->source[i].state != SOURCE_FREE && endpoint_equal(&p->source[i].at, at))
            return &p->source[i];
    return NULL;
}

static unsigned owner_of(const struct pilot *p, const struct source *s)
{
    return STORE_MEMBERS_MAX + (unsigned)(s - p->source);
}

/* Named peers that have no source yet: a place is kept for each. */
static unsigned places_kept(const struct pilot *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->peer_count; i++)
        n += p->sources_of[i] == 0 && peer_of(p, &p->peer[i]) == (int)i;
    return n;
}

static bool has_room(const struct pilot *p, const struct endpoint *at)
{
    int peer = peer_of(p, at);
    if (p->free_count == 0)
        return false;
    if (peer < 0)
        return p->stranger_count < STRANGERS_MAX && p->free_count > places_kept(p);
    if (p->sources_of[peer] == 0)
        return true;
    return p->sources_of[peer] < PILOT_SOURCES_PER_PEER && p->free_count > places_kept(p);
}

static struct source *source_add(struct pilot *p, const struct endpoint *at, uint32_t beacon)
{
    struct source *s = p->source;
    if (!has_room(p, at))
        return NULL;
    while (s->state != SOURCE_FREE)
        s++;
    assert(s < p->source + STORE_PILOTS_MAX);
    *s = (struct source){.at = *at, .state = SOURCE_LIVE, .beacon = beacon};
    store_owner_begin(p->store, owner_of(p, s), beacon ? beacon : NO_BEACON, 1);
    store_owner_rank(p->store, owner_of(p, s), STORE_PILOT);
    count_sources(p);
    p->sources_changed = true;
    return s;
}

static void source_end(struct pilot *p, struct source *s)
{
    assert(s->state == SOURCE_LIVE);
    s->state = SOURCE_GOING;
    store_owner_rank(p->store, owner_of(p, s), STORE_UNUSABLE);
    p->sources_changed = true;
}

/* --- in --- */

/* True: the set is a surprise, and what it lacks stays for now. */
static bool replace(struct pilot *p, struct source *s, struct reader *ids, unsigned count,
                    uint64_t now_ns)
{
    unsigned owner = owner_of(p, s);
    uint64_t before = store_owner(p->store, owner)->rows;
    store_replace_begin(p->store, owner);
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = read_u32(ids);
        /* Every daemon's probes carry id 0, and original beacons tell of it: it is no node. What
         * finds no room the store counts. */
        if (id != 0)
            (void)store_replace_row(p->store, owner, id, now_ns);
    }
    uint64_t missing = store_replace_missing(p->store, owner);
    bool confirmed = s->held && now_ns - s->held_ns >= PILOT_CONFIRM_NS;
    bool hold = missing * 2 > before && !confirmed;
    store_replace_end(p->store, owner, hold);
    if (hold && !s->held)
        s->held_ns = now_ns;
    s->held = hold;
    return hold;
}

enum pilot_taken pilot_sync(struct pilot *p, const uint8_t *bytes, size_t len,
                            const struct endpoint *from, uint64_t now_ns)
{
    struct reader r = reader_of(bytes, len);
    bool is_sync = read_u8(&r) == MSG_SYNC;
    uint32_t beacon = read_u32(&r);
    unsigned count = read_u16(&r);
    if (r.bad || !is_sync)
        return PILOT_SHORT;
    /* Our own id: it is ourselves, when our address is among the peers', or cannot be told from
     * that. Routes to ourselves would send relays round and round. */
    if ((p->strict && !pilot_is_peer(p, from)) || (beacon != 0 && beacon == p->beacon_id))
        return PILOT_STRANGER;
    if (count > read_left(&r) / 4)
        return PILOT_SHORT;
    struct source *s = source_find(p, from);
    if (s && (s->state == SOURCE_GOING || now_ns - s->heard_ns < PILOT_SPACING_NS))
        return PILOT_LIMITED;
    if (!s)
        s = source_add(p, from, beacon);
    if (!s)
        return PILOT_LIMITED;
    s->beacon = beacon;
    s->heard_ns = now_ns;
    return replace(p, s, &r, count, now_ns) ? PILOT_HELD : PILOT_TAKEN;
}

/* --- the named peers --- */

static bool contains(const struct endpoint *in, unsigned count, const struct endpoint *e)
{
    for (unsigned i = 0; i < count; i++)
        if (endpoint_equal(&in[i], e))
            return true;
    return false;
}

/* Those that stay keep their order, and so their place in the round. */
static void merge_peers(struct pilot *p, const struct endpoint *peers, unsigned count)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < p->peer_count; i++)
        if (contains(peers, count, &p->peer[i]))
            p->peer[kept++] = p->peer[i];
    for (unsigned i = 0; i < count && kept < PILOT_PEERS_MAX; i++)
        if (!contains(p->peer, kept, &peers[i]))
            p->peer[kept++] = peers[i];
    p->peer_count = kept;
}

void pilot_set_peers(struct pilot *p, const struct endpoint *peers, unsigned count, uint64_t now_ns)
{
    bool was_named[STORE_PILOTS_MAX], had_none = p->peer_count == 0;
    for (unsigned i = 0; i < p->source_count; i++)
        was_named[i] = pilot_is_peer(p, &p->source[i].at);
    merge_peers(p, peers, count);
    for (unsigned i = 0; i < p->source_count; i++) {
        struct source *s = &p->source[i];
        if (s->state == SOURCE_LIVE && was_named[i] && !pilot_is_peer(p, &s->at))
            source_end(p, s);
    }
    count_sources(p);
    if (had_none && p->next_round_ns < now_ns)
        p->next_round_ns = now_ns;
    if (p->peer_at >= p->peer_count && p->slice_at < p->total) {
        p->peer_at = 0;
        p->slice_at++;
    }
}

unsigned pilot_peers(const struct pilot *p, struct endpoint *ret, unsigned max)
{
    unsigned count = p->peer_count < max ? p->peer_count : max;
    for (unsigned i = 0; i < count; i++)
        ret[i] = p->peer[i];
    return count;
}

/* --- out --- */

/* Ids are chosen by nodes, and may be consecutive: mixed (the finalizer of MurmurHash3), then their
 * low bits choose the slice. Whoever chooses them to meet in one slice fills it, no more. */
static uint32_t mix(uint32_t h)
{
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

/* Doubled as soon as they are too full, halved only when they are far too empty. */
static unsigned slices_wanted(const struct pilot *p)
{
    uint64_t rows = store_owner(p->store, STORE_SELF)->rows;
    unsigned n = p->slices;
    while (n < PILOT_SLICES_MAX && rows > (uint64_t)n * PILOT_SLICE_NODES)
        n *= 2;
    if (n == p->slices && n > 1 && rows < (uint64_t)n * PILOT_SLICE_NODES / SHRINK_BELOW)
        n /= 2;
    return n;
}

static unsigned larger(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

unsigned pilot_slices(const struct pilot *p)
{
    return larger(p->total, slices_wanted(p));
}

/* False: it is of another group, or the slice has `max` ids. */
static bool put(struct pilot *p, unsigned slice, uint32_t id, uint32_t max)
{
    unsigned at = slice % GROUP;
    if (slice / GROUP != p->group || p->count[at] >= max)
        return false;
    struct writer w = writer_of(p->bytes[at] + HEAD_LEN + 4 * p->count[at], 4);
    write_u32(&w, id);
    p->count[at]++;
    return true;
}

/* Its slice is full, which only somebody who chose the ids can bring about: any other will do. */
static void put_anywhere(struct pilot *p, uint32_t id)
{
    unsigned first = p->group * GROUP;
    for (unsigned i = first; i < first + GROUP && i < p->slices; i++)
        if (put(p, i, id, PILOT_SLICE_MAX))
            return;
}

static void gather(struct pilot *p, unsigned group)
{
    int64_t cursor = STORE_CURSOR_START;
    uint32_t id;
    p->group = group;
    memset(p->count, 0, sizeof p->count);
    while (store_own_next(p->store, &cursor, &id)) {
        unsigned slice = mix(id) & (p->slices - 1), other = mix(id) & (p->before - 1);
        if (slice / GROUP == group && !put(p, slice, id, PILOT_SLICE_MAX))
            put_anywhere(p, id);
        if (other != slice)
            (void)put(p, other, id, EXTRA_MAX);
    }
}

static void begin_round(struct pilot *p, uint64_t now_ns)
{
    unsigned used = larger(p->slices, p->before), wanted = slices_wanted(p);
    /* After a pause (a suspended machine) rounds are not made up for. */
    bool late = now_ns - p->next_round_ns > PILOT_PERIOD_NS;
    p->round_ns = late ? now_ns : p->next_round_ns;
    p->next_round_ns = p->round_ns + PILOT_PERIOD_NS;
    p->before = p->total == 0 ? wanted : p->slices;
    p->slices = wanted;
    p->total = larger(used, wanted);
    p->slice_at = p->peer_at = 0;
    p->group = NO_GROUP;
}

static uint64_t send_due_ns(const struct pilot *p)
{
    if (p->peer_count == 0)
        return UINT64_MAX;
    if (p->slice_at == p->total)
        return p->next_round_ns;
    uint64_t span_ns = PILOT_PERIOD_NS / PILOT_SLICES_MAX * p->total;
    uint64_t step = (uint64_t)p->slice_at * p->peer_count + p->peer_at;
    uint64_t steps = (uint64_t)p->total * p->peer_count;
    return p->round_ns + (span_ns > SPAN_MIN_NS ? span_ns : SPAN_MIN_NS) / steps * step;
}

static size_t finish_slice(struct pilot *p, unsigned slice)
{
    unsigned at = slice % GROUP;
    struct writer w = writer_of(p->bytes[at], HEAD_LEN);
    write_u8(&w, MSG_SYNC);
    write_u32(&w, p->beacon_id);
    write_u16(&w, (uint16_t)p->count[at]);
    return written(&w) + 4 * (size_t)p->count[at];
}

bool pilot_send(struct pilot *p, uint64_t now_ns, struct endpoint *ret_to, unsigned *ret_slice,
                const uint8_t **ret_bytes, size_t *ret_len)
{
    if (now_ns < send_due_ns(p))
        return false;
    if (p->slice_at == p->total)
        begin_round(p, now_ns);
    if (p->slice_at / GROUP != p->group)
        gather(p, p->slice_at / GROUP);
    assert(p->peer_at < p->peer_count);
    *ret_to = p->peer[p->peer_at];
    *ret_slice = p->slice_at;
    *ret_bytes = p->bytes[p->slice_at % GROUP];
    *ret_len = finish_slice(p, p->slice_at);
    if (++p->peer_at == p->peer_count) {
        p->peer_at = 0;
        p->slice_at++;
    }
    return true;
}

/* --- time --- */

/* One at a time: there may be many rows. */
static void forget(struct pilot *p)
{
    for (unsigned i = 0; i < p->source_count; i++) {
        struct source *s = &p->source[i];
        if (s->state != SOURCE_GOING)
            continue;
        if (!store_owner_forget(p->store, owner_of(p, s), FORGET_ROWS)) {
            s->state = SOURCE_FREE;
            count_sources(p);
        }
        return;
    }
}

void pilot_tick(struct pilot *p, uint64_t now_ns)
{
    for (unsigned i = 0; i < p->source_count; i++) {
        struct source *s = &p->source[i];
        if (s->state == SOURCE_LIVE && now_ns - s->heard_ns >= PILOT_TTL_NS)
            source_end(p, s);
    }
    forget(p);
}

uint64_t pilot_next_ns(const struct pilot *p)
{
    uint64_t next_ns = send_due_ns(p);
    for (unsigned i = 0; i < p->source_count; i++) {
        const struct source *s = &p->source[i];
        if (s->state == SOURCE_GOING)
            return 0;
        if (s->state == SOURCE_LIVE && s->heard_ns + PILOT_TTL_NS < next_ns)
            next_ns = s->heard_ns + PILOT_TTL_NS;
    }
    return next_ns;
}

/* --- status --- */

unsigned pilot_source_count(const struct pilot *p)
{
    return p->source_count;
}

bool pilot_source(const struct pilot *p, unsigned index, struct endpoint *ret_at,
                  uint64_t *ret_heard_ns, uint32_t *ret_beacon)
{
    if (index >= p->source_count || p->source[index].state != SOURCE_LIVE)
        return false;
    *ret_at = p->source[index].at;
    *ret_heard_ns = p->source[index].heard_ns;
    *ret_beacon = p->source[index].beacon;
    return true;
}

bool pilot_sources_changed(struct pilot *p)
{
    bool changed = p->sources_changed;
    p->sources_changed = false;
    return changed;
}
