#include <pthread.h>
#include <sched.h>
#include <assert.h>
#include "tests/rig.h"
#include "server/journal.h"
#include "server/peers.h"
#include "server/route.h"

static const struct siphash_key test_key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

static struct routes *routes_with(uint32_t nodes, uint32_t remote)
{
    size_t size = (routes_size(nodes, remote) + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    return routes_init(memory, nodes, remote, test_key);
}

static struct routes *routes_new(uint32_t nodes)
{
    return routes_with(nodes, 0);
}

static struct route_ttl ttl_of(uint32_t silent_s)
{
    return (struct route_ttl){.silent_s = silent_s, .claimed_s = silent_s};
}

/* --- the slow, obvious table --- */

enum { MODEL_MAX = 64, MODEL_IDS = 64 };
struct model_row {
    struct route route;
    uint8_t key[MSG_KEY_LEN];
};
/* What somebody who hears the journal takes a node for. */
struct model_heard {
    bool there, stream;
    uint8_t class_;
    unsigned claims; /* each may cause one entry although nothing has changed */
};
struct model {
    struct routes *routes;
    uint32_t capacity, count;
    uint32_t capacity_beacon, count_beacon;
    struct model_row row[MODEL_MAX];
    struct route beacon[MODEL_IDS]; /* by id; id 0: no other beacon has it */
    struct model_heard heard[MODEL_IDS];
    struct journal journal;
    bool wake;
    uint64_t seed; /* of the random numbers */
};

static struct model_row *model_find(struct model *m, uint32_t id)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->row[i].route.id == id)
            return &m->row[i];
    return NULL;
}

static uint32_t model_prefix(const struct model *m, const struct endpoint *at, unsigned bits)
{
    struct endpoint want = endpoint_prefix(at, bits);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct endpoint *held = &m->row[i].route.at;
        if (endpoint_is_v4(held) != endpoint_is_v4(at))
            continue;
        struct endpoint prefix = endpoint_prefix(held, bits);
        n += endpoint_same_ip(&prefix, &want);
    }
    return n;
}

/* Few prefixes, so that they fill: two /24 with 4 addresses, two /48 with two /64 each. */
static struct endpoint random_endpoint(uint64_t *seed)
{
    uint64_t n = rig_random(seed);
    struct endpoint e = {.port = (uint16_t)(1 + n % 5)};
    if (n & 64) {
        memcpy(e.ip, (uint8_t[16]){[10] = 0xff, [11] = 0xff, 203, 0}, 16);
        e.ip[14] = n >> 8 & 1;
        e.ip[15] = n >> 16 & 3;
    } else {
        memcpy(e.ip, (uint8_t[16]){0x20, 0x01, 0x0d, 0xb8}, 16);
        e.ip[5] = n >> 8 & 1;
        e.ip[7] = n >> 16 & 1;
        e.ip[15] = n >> 24 & 7;
    }
    return e;
}

static void assert_same_route(const struct route *got, const struct route *want)
{
    assert_int_equal(got->id, want->id);
    assert_int_equal(got->seen_s, want->seen_s);
    assert_memory_equal(&got->at, &want->at, sizeof got->at);
    assert_int_equal(got->local, want->local);
    assert_int_equal(got->class_, want->class_);
    assert_int_equal(got->flags, want->flags);
    assert_int_equal(got->claimed, want->claimed);
}

/* What a relay finds: the node here, or else another beacon. */
static void check_way(struct model *m, uint32_t id)
{
    const struct model_row *here = model_find(m, id);
    struct route got;
    bool found = route_find_way(m->routes, route_hash(m->routes, id), id, &got);
    assert_int_equal(found, here || m->beacon[id].id);
    if (found)
        assert_same_route(&got, here ? &here->route : &m->beacon[id]);
    assert_false(here && m->beacon[id].id); /* the node's own registration wins */
}

/* Who only hears the journal knows all nodes of ours, their class and their way; and is woken. */
static void check_journal(struct model *m)
{
    struct journal_entry e;
    bool any = false;
    for (; journal_take(&m->journal, &e); any = true) {
        struct model_heard *h = &m->heard[e.id];
        struct model_heard said = {.there = !e.gone, .stream = e.stream, .class_ = e.class_};
        assert_false(e.gone && !h->there);
        bool news = e.gone || !h->there || said.stream != h->stream || said.class_ != h->class_;
        assert_true(news || h->claims > 0); /* heard again after a claim */
        said.claims = h->claims - (!news);
        *h = said;
    }
    assert_int_equal(m->wake, any);
    m->wake = false;
    for (uint32_t id = 1; id < MODEL_IDS; id++) {
        const struct model_row *want = model_find(m, id);
        assert_int_equal(m->heard[id].there, want != NULL);
        if (!want)
            continue;
        assert_int_equal(m->heard[id].class_, want->route.class_);
        assert_int_equal(m->heard[id].stream, (want->route.flags & ROUTE_STREAM) != 0);
    }
}

static void check_row(struct model *m, uint32_t id)
{
    struct route got = {.id = 0};
    uint8_t key[MSG_KEY_LEN] = {0};
    const struct model_row *want = model_find(m, id);
    bool found = route_find(m->routes, route_hash(m->routes, id), id, &got);
    if (found != (want != NULL))
        fail_msg("id %u is %s", id, found ? "found but was removed" : "lost");
    bool has_key = want && want->route.flags & ROUTE_HAS_KEY;
    assert_int_equal(route_find_key(m->routes, id, key), has_key);
    if (want)
        assert_same_route(&got, &want->route);
    if (has_key)
        assert_memory_equal(key, want->key, sizeof key);
    check_way(m, id);
}

static void count_one(const struct route *route, void *arg)
{
    struct model *m = arg;
    const struct model_row *want = model_find(m, route->id);
    assert_non_null(want);
    assert_same_route(route, &want->route);
    m->seed++; /* borrowed as the count, see check_all */
}

static void check_all(struct model *m)
{
    uint32_t v4 = 0, stream = 0;
    uint64_t seed = m->seed;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct endpoint *at = &m->row[i].route.at;
        bool is_v4 = endpoint_is_v4(at);
        check_row(m, m->row[i].route.id);
        bool by_session = m->row[i].route.flags & ROUTE_STREAM;
        v4 += is_v4 && !by_session;
        stream += by_session;
        const unsigned bits[2] = {is_v4 ? 32 : 64, is_v4 ? 24 : 48};
        for (int b = 0; b < 2; b++) /* eight prefixes in 1024 cells: exact */
            assert_int_equal(route_prefix_count(m->routes, at, bits[b]),
                             model_prefix(m, at, bits[b]));
    }
    assert_int_equal(route_count(m->routes), m->count);
    assert_int_equal(route_count_v4(m->routes), v4);
    assert_int_equal(route_count_stream(m->routes), stream);
    assert_int_equal(route_count_beacon(m->routes), m->count_beacon);
    for (uint32_t id = 1; id < MODEL_IDS; id++)
        check_way(m, id);
    m->seed = 0;
    route_page(m->routes, 0, UINT32_MAX, count_one, m);
    assert_int_equal(m->seed, m->count); /* each node once */
    m->seed = seed;
}

/* --- one random step on both tables --- */

static const uint8_t classes[4] = {ROUTE_UNVERIFIED, ROUTE_UNVERIFIED, ROUTE_SIGNED, ROUTE_KEYED};

static void step_put(struct model *m, uint32_t id, uint32_t now_s)
{
    uint64_t n = rig_random(&m->seed);
    struct model_row *held = model_find(m, id);
    struct route route = {
        .id = id,
        .seen_s = now_s,
        .at = random_endpoint(&m->seed),
        .local = (uint8_t)(n >> 8),
        .class_ = classes[n >> 16 & 3],
        .flags = (uint8_t)((n >> 24 & 1 ? ROUTE_WANTS_DEST : 0) | (n >> 25 & 1 ? ROUTE_STREAM : 0)),
    };
    uint8_t key[MSG_KEY_LEN];
    memset(key, (int)(n >> 32 & 0xff), sizeof key);
    bool with_key = n >> 40 & 1;
    enum route_put got = route_put(m->routes, &route, with_key ? key : NULL);
    if (!held && m->count == m->capacity) {
        assert_int_equal(got, ROUTE_FULL);
        return;
    }
    assert_int_equal(got, held ? ROUTE_UPDATED : ROUTE_INSERTED);
    bool had_key = held && held->route.flags & ROUTE_HAS_KEY;
    route.flags |= held ? held->route.flags & ROUTE_AGE : 0;
    if (!held) {
        held = &m->row[m->count++];
        m->count_beacon -= m->beacon[id].id != 0;
        m->beacon[id].id = 0;
    }
    held->route = route;
    if (had_key || with_key)
        held->route.flags |= ROUTE_HAS_KEY;
    if (!had_key && with_key)
        memcpy(held->key, key, sizeof key);
}

static void model_drop(struct model *m, struct model_row *row)
{
    *row = m->row[--m->count];
}

static void step_remove(struct model *m, uint32_t id)
{
    struct model_row *held = model_find(m, id);
    assert_int_equal(route_remove(m->routes, id), held != NULL);
    if (held)
        model_drop(m, held);
}

static void step_touch(struct model *m, uint32_t id, uint32_t now_s)
{
    struct model_row *held = model_find(m, id);
    route_touch(m->routes, route_hash(m->routes, id), id, now_s);
    if (!held)
        return;
    bool step = now_s / ROUTE_AGE_STEP_S != held->route.seen_s / ROUTE_AGE_STEP_S;
    if (step && (held->route.flags & ROUTE_AGE) < 3 * ROUTE_AGE_ONE)
        held->route.flags += ROUTE_AGE_ONE;
    held->route.seen_s = now_s;
    held->route.claimed = false;
}

static void step_put_beacon(struct model *m, uint32_t id)
{
    uint64_t n = rig_random(&m->seed);
    unsigned beacon = n >> 8 & 0xffff;
    enum route_class class_ = classes[n >> 32 & 3];
    bool stream = n >> 40 & 1, known = m->beacon[id].id;
    bool room = known || m->count_beacon < m->capacity_beacon;
    bool want = room && !model_find(m, id);
    assert_int_equal(route_put_beacon(m->routes, id, beacon, class_, stream), want);
    if (!want)
        return;
    m->beacon[id] = route_of_beacon(id, beacon, class_, stream);
    m->count_beacon += !known;
}

static void step_remove_beacon(struct model *m, uint32_t id)
{
    const struct route *held = &m->beacon[id];
    uint64_t n = rig_random(&m->seed);
    unsigned beacon = n >> 8 & 3 ? route_beacon(held) : n >> 16 & 1 ? PEERS_NONE : n >> 32 & 0xffff;
    bool want = held->id && (beacon == PEERS_NONE || beacon == route_beacon(held));
    assert_int_equal(route_remove_beacon(m->routes, id, beacon), want);
    if (!want)
        return;
    m->beacon[id].id = 0;
    m->count_beacon--;
}

static void step_claim(struct model *m, uint32_t id)
{
    struct model_row *held = model_find(m, id);
    assert_int_equal(route_claim(m->routes, id), held != NULL);
    if (!held)
        return;
    m->heard[id].claims += !held->route.claimed;
    held->route.claimed = true;
}

enum { TTL_S = 100, CLAIMED_S = 30 };

/* Who is gone must have been silent too long; after a whole round nobody silent is left. */
static void step_expire(struct model *m, uint32_t now_s)
{
    bool whole = rig_random(&m->seed) & 1;
    uint32_t rows =
        whole ? 4 * (m->capacity + m->capacity_beacon) + 200 : (uint32_t)(rig_random(&m->seed) % 8);
    const struct route_ttl ttl = {.silent_s = TTL_S, .claimed_s = CLAIMED_S};
    uint32_t gone = route_expire(m->routes, now_s, ttl, rows), missing = 0;
    for (uint32_t i = 0; i < m->count;) {
        const struct route *r = &m->row[i].route;
        struct route got;
        int32_t least_s = r->flags & ROUTE_STREAM ? ROUTE_STREAM_TTL_S : CLAIMED_S;
        bool silent = (int32_t)(now_s - r->seen_s) > (r->claimed ? least_s : TTL_S);
        bool found = route_find(m->routes, route_hash(m->routes, r->id), r->id, &got);
        assert_true(found || silent);
        assert_false(whole && found && silent);
        missing += !found;
        if (found)
            i++;
        else
            model_drop(m, &m->row[i]);
    }
    assert_int_equal(gone, missing);
}

static unsigned wide(const struct endpoint *at)
{
    return endpoint_is_v4(at) ? 24 : 48;
}

/* True when `a` must go before `b`: class, age, fullest prefix, oldest. */
static bool goes_first(const struct model *m, const struct route *a, const struct route *b)
{
    uint32_t crowd_a = model_prefix(m, &a->at, wide(&a->at));
    uint32_t crowd_b = model_prefix(m, &b->at, wide(&b->at));
    if (a->class_ != b->class_)
        return a->class_ < b->class_;
    if ((a->flags & ROUTE_AGE) != (b->flags & ROUTE_AGE))
        return (a->flags & ROUTE_AGE) < (b->flags & ROUTE_AGE);
    if (crowd_a != crowd_b)
        return crowd_a > crowd_b;
    return (int32_t)(a->seen_s - b->seen_s) < 0;
}

static void step_evict(struct model *m)
{
    struct endpoint newcomer = random_endpoint(&m->seed);
    enum route_class class_ = classes[rig_random(&m->seed) >> 32 & 3];
    bool evicted = route_evict(m->routes, &newcomer, class_);
    struct model_row *victim = NULL;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct route *r = &m->row[i].route;
        struct route got;
        if (route_find(m->routes, route_hash(m->routes, r->id), r->id, &got))
            continue;
        assert_null(victim); /* at most one */
        victim = &m->row[i];
    }
    assert_int_equal(evicted, victim != NULL);
    const struct model_row *first = victim ? victim : &m->row[0];
    for (uint32_t i = 0; i < m->count; i++) {
        if (victim && goes_first(m, &m->row[i].route, &victim->route))
            fail_msg("id %u should have gone before %u", m->row[i].route.id, victim->route.id);
        if (goes_first(m, &m->row[i].route, &first->route))
            first = &m->row[i];
    }
    if (victim) {
        assert_true(class_ >= victim->route.class_);
        model_drop(m, victim);
    } else if (m->count > 0 && class_ >= first->route.class_) { /* it only moved the crowd */
        assert_int_equal(class_, first->route.class_);
        uint32_t crowd = model_prefix(m, &first->route.at, wide(&first->route.at));
        assert_true(model_prefix(m, &newcomer, wide(&newcomer)) >= crowd);
    }
}

static void step(struct model *m, uint64_t dice, uint32_t id, uint32_t now_s)
{
    unsigned kind = dice % 256;
    if (dice >> 16 & 1 && m->capacity_beacon > 0) {
        if (kind < 140)
            step_put_beacon(m, id);
        else
            step_remove_beacon(m, id);
    } else if (kind < 140)
        step_put(m, id, now_s);
    else if (kind < 170)
        step_remove(m, id);
    else if (kind < 180)
        step_claim(m, id);
    else if (kind < 250)
        step_touch(m, id, now_s);
    else if (kind < 253)
        step_expire(m, now_s);
    else
        step_evict(m);
    check_row(m, id);
}

/* Tables of at most 64 rows, without those of other beacons: an eviction looks at all of them, so
 * the order is known. */
static void test_against_model(void **state)
{
    (void)state;
    static const struct {
        uint32_t nodes, remote;
    } capacities[] = {{1, 0}, {2, 0}, {3, 0}, {7, 0}, {24, 0}, {1, 1}, {3, 20}, {20, 3}, {14, 14}};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const uint32_t steps = 60000;
#else
    const uint32_t steps = 500000;
#endif
    for (size_t c = 0; c < COUNT(capacities); c++) {
        static struct model m;
        m = (struct model){.capacity = capacities[c].nodes,
                           .capacity_beacon = capacities[c].remote,
                           .seed = 0xbeac01 + c};
        uint32_t now_s = UINT32_MAX - 1000; /* seconds wrap on the way */
        m.routes = routes_with(m.capacity, m.capacity_beacon);
        routes_set_journal(m.routes, &m.journal, &m.wake);
        assert_int_equal(route_capacity(m.routes), m.capacity);
        assert_int_equal(route_capacity_beacon(m.routes), m.capacity_beacon);
        for (uint32_t n = 0; n < steps; n++) {
            uint64_t dice = rig_random(&m.seed);
            uint32_t id = 1 + (uint32_t)(dice >> 32) % (2 * (m.capacity + m.capacity_beacon) + 2);
            now_s += (dice >> 8 & 63) == 0;
            step(&m, dice, id, now_s);
            if (n % 128 == 0) {
                check_all(&m);
                check_journal(&m);
            }
        }
        check_all(&m);
        check_journal(&m);
        assert_int_equal(journal_lost(&m.journal), 0);
        free(m.routes);
    }
}

/* Larger tables, kept full to the last row: ids that come and go in long chains. The model is an
 * array indexed by id. */
static void test_full_load(void **state)
{
    (void)state;
    enum { NODES = 5000, IDS = 2 * NODES, STEPS = 1000000 };
    static uint16_t port[IDS + 1]; /* 0: not there */
    struct routes *r = routes_new(NODES);
    uint64_t seed = 0x5eed;
    uint32_t count = 0;
    memset(port, 0, sizeof port);
    for (uint32_t n = 0; n < STEPS; n++) {
        uint32_t id = 1 + (uint32_t)(rig_random(&seed) % IDS);
        uint32_t victim = 1 + (uint32_t)(rig_random(&seed) % IDS);
        struct route route = {.id = id, .at = random_endpoint(&seed)}, got;
        route.at.port = (uint16_t)(1 + n % 65535);
        enum route_put put = route_put(r, &route, NULL);
        enum route_put want = port[id]         ? ROUTE_UPDATED
                              : count == NODES ? ROUTE_FULL
                                               : ROUTE_INSERTED;
        assert_int_equal(put, want);
        count += put == ROUTE_INSERTED;
        if (put != ROUTE_FULL)
            port[id] = route.at.port;
        if (put == ROUTE_FULL) {
            assert_int_equal(route_remove(r, victim), port[victim] != 0);
            count -= port[victim] != 0;
            port[victim] = 0;
        }
        bool found = route_find(r, route_hash(r, victim), victim, &got);
        assert_int_equal(found, port[victim] != 0);
        if (found)
            assert_int_equal(got.at.port, port[victim]);
    }
    assert_int_equal(route_count(r), count);
    for (uint32_t id = 1; id <= IDS; id++) {
        struct route got;
        assert_int_equal(route_find(r, route_hash(r, id), id, &got), port[id] != 0);
    }
    assert_true(count > NODES * 9 / 10);
    free(r);
}

static void test_id_zero(void **state)
{
    (void)state;
    struct routes *r = routes_new(10);
    struct route got = {.id = 42};
    uint8_t key[MSG_KEY_LEN];
    assert_false(route_find(r, route_hash(r, 0), 0, &got));
    assert_int_equal(got.id, 42);
    assert_false(route_find_key(r, 0, key));
    assert_false(route_remove(r, 0));
    free(r);
}

/* Prefixes far beyond the sketch's cells: counts may be too high, never too low. */
static void test_prefix_never_too_few(void **state)
{
    (void)state;
    enum { NODES = 20000 };
    static uint32_t of_24[4096];
    struct routes *r = routes_new(NODES);
    uint64_t seed = 4711;
    memset(of_24, 0, sizeof of_24);
    for (uint32_t id = 1; id <= NODES; id++) {
        uint32_t net = (uint32_t)(rig_random(&seed) % COUNT(of_24));
        struct route route = {.id = id, .at = {.port = 1}};
        memcpy(route.at.ip, (uint8_t[16]){[10] = 0xff, [11] = 0xff, 9}, 16);
        route.at.ip[13] = (uint8_t)(net >> 8);
        route.at.ip[14] = (uint8_t)net;
        route.at.ip[15] = (uint8_t)id;
        assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
        of_24[net]++;
    }
    uint64_t over = 0;
    for (uint32_t net = 0; net < COUNT(of_24); net++) {
        struct endpoint at = {.ip = {[10] = 0xff, [11] = 0xff, 9}};
        at.ip[13] = (uint8_t)(net >> 8);
        at.ip[14] = (uint8_t)net;
        uint32_t got = route_prefix_count(r, &at, 24);
        assert_true(got >= of_24[net]);
        over += got - of_24[net];
    }
    assert_true(over < 4 * NODES); /* a sketch of some use */
    for (uint32_t id = 1; id <= NODES; id++)
        assert_true(route_remove(r, id));
    for (uint32_t net = 0; net < COUNT(of_24); net++) {
        struct endpoint at = {.ip = {[10] = 0xff, [11] = 0xff, 9}};
        at.ip[13] = (uint8_t)(net >> 8);
        at.ip[14] = (uint8_t)net;
        assert_int_equal(route_prefix_count(r, &at, 24), 0);
    }
    free(r);
}

static void test_expire_limits(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t seen_s, now_s;
        bool gone;
        uint32_t ttl_s;
        uint8_t flags;
        uint32_t claimed_s; /* 0: not claimed */
    } cases[] = {
        {"just heard", 1000, 1000, false, 600, 0, 0},
        {"at the limit", 1000, 1600, false, 600, 0, 0},
        {"a second past it", 1000, 1601, true, 600, 0, 0},
        {"heard later than now", 1001, 1000, false, 600, 0, 0},
        {"at the limit across the wrap", UINT32_MAX - 99, 500, false, 600, 0, 0},
        {"past it across the wrap", UINT32_MAX - 99, 501, true, 600, 0, 0},
        {"past a short one", 1000, 1011, true, 10, 0, 0},
        {"a session past a short one", 1000, 1011, false, 10, ROUTE_STREAM, 0},
        {"a session at its own limit", 1000, 1060, false, 10, ROUTE_STREAM, 0},
        {"a session past its own limit", 1000, 1061, true, 10, ROUTE_STREAM, 0},
        {"a session at a long limit", 1000, 1600, false, 600, ROUTE_STREAM, 0},
        {"a session past a long one", 1000, 1601, true, 600, ROUTE_STREAM, 0},
        {"claimed, at its limit", 1000, 1090, false, 600, 0, 90},
        {"claimed, past it", 1000, 1091, true, 600, 0, 90},
        {"claimed, at a shorter limit of all", 1000, 1080, false, 80, 0, 90},
        {"claimed, past a shorter limit of all", 1000, 1081, true, 80, 0, 90},
        {"a claimed session at its own limit", 1000, 1060, false, 600, ROUTE_STREAM, 30},
        {"a claimed session past its own limit", 1000, 1061, true, 600, ROUTE_STREAM, 30},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct routes *r = routes_new(4);
        struct route route = {
            .id = 9, .seen_s = cases[i].seen_s, .at = {.port = 1}, .flags = cases[i].flags};
        assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
        struct route_ttl ttl = {cases[i].ttl_s, cases[i].claimed_s};
        if (cases[i].claimed_s)
            assert_true(route_claim(r, 9));
        uint32_t gone = route_expire(r, cases[i].now_s, ttl, 100);
        if (gone != cases[i].gone)
            fail_msg("%s: %u gone", cases[i].name, gone);
        assert_int_equal(route_count(r), !cases[i].gone);
        free(r);
    }
}

/* Rows that come due in steps of any length add up to the whole table in one period. */
static void test_rows_due(void **state)
{
    (void)state;
    struct routes *r = routes_new(8000);
    uint32_t all = route_rows_due(r, 30 * SECOND_NS, 30);
    assert_true(all >= 8000);
    assert_int_equal(route_rows_due(r, 0, 30), 0);
    assert_int_equal(route_rows_due(r, 15 * SECOND_NS, 30), all / 2);
    assert_true(route_rows_due(r, SECOND_NS, 30) >= all / 30);
    uint32_t most = route_rows_due(r, 3600 * SECOND_NS, 30);
    assert_true(most >= all && most <= 65536); /* one turn stays short */
    assert_int_equal(route_rows_due(r, 100 * 86400 * SECOND_NS, 30), most);
    /* Everyone silent: one whole round, in small steps, finds all of them. */
    for (uint32_t id = 1; id <= 8000; id++) {
        struct route route = {.id = id, .seen_s = 1, .at = {.port = 1}};
        assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
    }
    uint32_t gone = 0;
    for (uint32_t left = all + 8000; left > 0;) { /* a row that goes is looked at again */
        uint32_t step = left < 7 ? left : 7;
        gone += route_expire(r, 5000, ttl_of(600), step);
        left -= step;
    }
    assert_int_equal(gone, 8000);
    free(r);
}

static void test_evict_limits(void **state)
{
    (void)state;
    struct routes *r = routes_new(8);
    struct endpoint newcomer = endpoint_at("203.0.113.200:1");
    assert_false(route_evict(r, &newcomer, ROUTE_UNVERIFIED)); /* nobody there */
    static const struct {
        uint32_t id, seen_s;
        const char *at;
    } nodes[] = {
        {1, 50, "203.0.113.1:1"}, {2, 10, "203.0.113.2:1"},  {3, 40, "203.0.113.3:1"},
        {4, 5, "198.51.100.1:1"}, {5, 1, "[2001:db8::1]:1"}, {6, 2, "[2001:db8:0:1::1]:1"},
    };
    for (size_t i = 0; i < COUNT(nodes); i++) {
        struct route route = {
            .id = nodes[i].id, .seen_s = nodes[i].seen_s, .at = endpoint_at(nodes[i].at)};
        assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
    }
    static const struct {
        const char *newcomer;
        uint32_t victim; /* 0: none */
    } cases[] = {
        {"203.0.113.200:1", 2}, /* the fullest prefix is its own: it may replace there */
        {"192.0.2.1:1", 5},     /* two v4 and two v6 (one /48) now: the oldest of them */
        {"203.0.113.200:1", 3}, /* 203.0.113/24 holds two, all others one */
        {"203.0.113.200:1", 0}, /* everyone stands alone, it would be the second */
        {"192.0.2.1:1", 6},     /* alone too: the oldest goes */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint at = endpoint_at(cases[i].newcomer);
        struct route got;
        uint32_t id = cases[i].victim;
        bool evicted = route_evict(r, &at, ROUTE_UNVERIFIED);
        assert_int_equal(evicted, id != 0);
        if (id && route_find(r, route_hash(r, id), id, &got))
            fail_msg("case %zu: %u is still there", i, id);
    }
    free(r);
}

/* The class comes first, on both sides: a crowd does not save a lower one, loneliness not either.
 */
static void test_evict_classes(void **state)
{
    (void)state;
    enum { NONE = -1 };
    static const struct {
        int held[2]; /* two nodes of one /24, that is a crowd */
        int newcomer;
        const char *at;  /* of the newcomer */
        uint32_t victim; /* 0: none */
    } cases[] = {
        {{ROUTE_UNVERIFIED, ROUTE_SIGNED}, ROUTE_UNVERIFIED, "192.0.2.1:1", 1},
        {{ROUTE_SIGNED, ROUTE_UNVERIFIED}, ROUTE_UNVERIFIED, "192.0.2.1:1", 2},
        {{ROUTE_SIGNED, ROUTE_KEYED}, ROUTE_UNVERIFIED, "192.0.2.1:1", 0},
        {{ROUTE_SIGNED, ROUTE_KEYED}, ROUTE_UNVERIFIED, "203.0.113.9:1", 0},
        {{ROUTE_SIGNED, ROUTE_KEYED}, ROUTE_SIGNED, "192.0.2.1:1", 1},
        {{ROUTE_KEYED, ROUTE_KEYED}, ROUTE_SIGNED, "192.0.2.1:1", 0},
        {{ROUTE_KEYED, ROUTE_KEYED}, ROUTE_KEYED, "192.0.2.1:1", 1},
        {{ROUTE_UNVERIFIED, NONE}, ROUTE_UNVERIFIED, "192.0.2.1:1", 1},
        {{ROUTE_SIGNED, NONE}, ROUTE_UNVERIFIED, "192.0.2.1:1", 0},
        {{ROUTE_SIGNED, NONE}, ROUTE_KEYED, "192.0.2.1:1", 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct routes *r = routes_new(8);
        struct endpoint newcomer = endpoint_at(cases[i].at);
        struct route got;
        uint32_t nodes = cases[i].held[1] == NONE ? 1 : 2;
        for (uint32_t id = 1; id <= nodes; id++) {
            struct route route = {.id = id, .seen_s = id, .at = endpoint_at("203.0.113.1:1")};
            route.class_ = (uint8_t)cases[i].held[id - 1];
            assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
        }
        bool evicted = route_evict(r, &newcomer, (enum route_class)cases[i].newcomer);
        if (evicted != (cases[i].victim != 0))
            fail_msg("case %zu: evicted %d", i, evicted);
        for (uint32_t id = 1; id <= nodes; id++)
            if (route_find(r, route_hash(r, id), id, &got) == (id == cases[i].victim))
                fail_msg("case %zu: %u", i, id);
        free(r);
    }
}

/* Every class, flag and local address comes back from the row's packed word. */
static void test_packed_fields(void **state)
{
    (void)state;
    struct routes *r = routes_new(8);
    static const uint8_t flags[] = {0, ROUTE_WANTS_DEST, ROUTE_STREAM,
                                    ROUTE_STREAM | ROUTE_WANTS_DEST};
    for (unsigned c = 0; c < 2 * COUNT(classes); c++)
        for (size_t f = 0; f < COUNT(flags); f++)
            for (unsigned local = 0; local <= 255; local += 51) {
                struct route got, route = {.id = 7,
                                           .seen_s = UINT32_MAX,
                                           .at = endpoint_at("203.0.113.1:65535"),
                                           .local = (uint8_t)local,
                                           .class_ = classes[c / 2],
                                           .flags = flags[f]};
                route_put(r, &route, NULL);
                if (c & 1)
                    route.claimed = route_claim(r, 7);
                assert_true(route_find(r, route_hash(r, 7), 7, &got));
                assert_same_route(&got, &route);
                for (uint32_t n = 0; n < 5; n++) /* ageing touches nothing else */
                    route_touch(r, route_hash(r, 7), 7, n * ROUTE_AGE_STEP_S);
                assert_true(route_find(r, route_hash(r, 7), 7, &got));
                assert_int_equal(got.flags, flags[f] | ROUTE_AGE);
                assert_int_equal(got.class_, classes[c / 2]);
                assert_false(got.claimed);
                assert_int_equal(got.local, local);
                assert_int_equal(got.at.port, 65535);
                assert_true(route_remove(r, 7));
            }
    free(r);
}

/* --- a reader beside the writer --- */

enum { RACE_NODES = 200, PINNED = 40 };
static struct routes *race_routes;
static _Atomic bool race_over;

/* An endpoint whose every byte follows from `n`: half of one and half of another shows. */
static struct endpoint race_endpoint(uint32_t id, uint16_t n)
{
    struct endpoint e = {.port = n};
    memset(e.ip, (int)((id + n) & 0xff), sizeof e.ip);
    return e;
}

/* Now ours and now another beacon's: whichever is read is whole. */
static void race_put_beacon(uint32_t id, uint16_t n)
{
    (void)route_put_beacon(race_routes, id, n, id & 1 ? ROUTE_KEYED : ROUTE_SIGNED, id & 2);
}

static void race_check_way(uint32_t id)
{
    struct route got;
    if (!route_find_way(race_routes, route_hash(race_routes, id), id, &got) ||
        got.class_ != ROUTE_BEACON)
        return;
    assert_int_equal(route_beacon_class(&got), id & 1 ? ROUTE_KEYED : ROUTE_SIGNED);
    assert_int_equal(route_beacon_stream(&got), (id & 2) != 0);
    assert_int_equal(got.local, 0);
}

static void race_put(uint32_t id, uint16_t n)
{
    uint8_t key[MSG_KEY_LEN];
    memset(key, (int)(id & 0xff), sizeof key);
    struct route route = {.id = id, .at = race_endpoint(id, n), .local = (uint8_t)n};
    assert(route_put(race_routes, &route, key) != ROUTE_FULL);
}

static void *race_write(void *arg)
{
    uint64_t seed = 31;
    (void)arg;
    while (!atomic_load(&race_over)) {
        uint64_t dice = rig_random(&seed);
        uint32_t other = 1000 + (uint32_t)(dice >> 32) % 400;
        if (dice & 1)
            race_put(1 + (uint32_t)(dice >> 8) % PINNED, (uint16_t)(dice >> 40));
        else if (route_count(race_routes) < RACE_NODES)
            race_put(other, (uint16_t)(dice >> 40));
        if (route_count(race_routes) == RACE_NODES || dice & 2)
            route_remove(race_routes, 1000 + (uint32_t)(dice >> 24) % 400);
        if (dice & 4)
            race_put_beacon(other, (uint16_t)(dice >> 40));
        if (dice & 8)
            route_remove_beacon(race_routes, other, PEERS_NONE);
        if ((dice & 0xf0) == 0)
            sched_yield();
    }
    return NULL;
}

/* A miss is allowed while rows move; it must not last. Returns how often it was missed. */
static unsigned race_read(uint32_t id)
{
    struct route got;
    uint64_t hash = route_hash(race_routes, id);
    unsigned misses = 0;
    while (!route_find(race_routes, hash, id, &got)) {
        if (++misses > 1000000)
            fail_msg("pinned id %u is lost", id);
        sched_yield();
    }
    struct endpoint want = race_endpoint(id, got.at.port);
    assert_int_equal(got.id, id);
    assert_memory_equal(&got.at, &want, sizeof want);
    assert_int_equal(got.local, (uint8_t)got.at.port);
    return misses;
}

static void test_reader_races(void **state)
{
    (void)state;
    enum { READS = 300000 };
    pthread_t writer;
    uint64_t seed = 77, misses = 0, strangers = 0;
    race_routes = routes_with(RACE_NODES, RACE_NODES);
    for (uint32_t id = 1; id <= PINNED; id++)
        race_put(id, 1);
    assert_int_equal(pthread_create(&writer, NULL, race_write, NULL), 0);
    for (int n = 0; n < READS; n++) {
        uint32_t id = 1 + (uint32_t)(rig_random(&seed) % PINNED);
        misses += race_read(id) > 0;
        uint32_t other = 1000 + (uint32_t)(rig_random(&seed) % 400);
        uint8_t key[MSG_KEY_LEN], want[MSG_KEY_LEN];
        memset(want, (int)(other & 0xff), sizeof want);
        race_check_way(other);
        if (route_find_key(race_routes, other, key)) {
            assert_memory_equal(key, want, sizeof want);
            strangers++;
        }
    }
    atomic_store(&race_over, true);
    pthread_join(writer, NULL);
    for (uint32_t id = 1; id <= PINNED; id++)
        assert_int_equal(race_read(id), 0); /* nothing moves any more */
    assert_true(strangers > 0);
    assert_true(misses < READS / 10); /* rare, but for a writer that lost its core */
    free(race_routes);
}

/* Nodes that came back for a while stay; new ids push out new ids, however crowded the old ones
 * are. */
static void test_age_comes_before_the_crowd(void **state)
{
    (void)state;
    enum { NODES = 30, OLD = 20 };
    struct routes *r = routes_new(NODES);
    struct endpoint at, newcomer;
    for (uint32_t id = 1; id <= NODES; id++) {
        char text[ENDPOINT_TEXT_MAX];
        if (id <= OLD)
            snprintf(text, sizeof text, "203.0.113.7:%u", id);
        else
            snprintf(text, sizeof text, "198.%u.0.1:1", id);
        assert_true(endpoint_parse(text, &at));
        route_put(r, &(struct route){.id = id, .at = at, .seen_s = 1000}, NULL);
    }
    struct route got;
    for (uint32_t id = 1; id <= OLD; id++) {
        route_touch(r, route_hash(r, id), id, 1001); /* the same step: does not count */
        assert_true(route_find(r, route_hash(r, id), id, &got));
        assert_int_equal(got.flags & ROUTE_AGE, 0);
        for (uint32_t n = 1; n <= 5; n++)
            route_touch(r, route_hash(r, id), id, 1000 + n * ROUTE_AGE_STEP_S);
        assert_true(route_find(r, route_hash(r, id), id, &got));
        assert_int_equal(got.flags & ROUTE_AGE, ROUTE_AGE);
    }
    assert_true(endpoint_parse("192.0.2.1:1", &newcomer));
    for (unsigned n = 0; n < NODES - OLD; n++)
        assert_true(route_evict(r, &newcomer, ROUTE_UNVERIFIED));
    for (uint32_t id = 1; id <= NODES; id++)
        assert_int_equal(route_find(r, route_hash(r, id), id, &got), id <= OLD);
    free(r);
}

/* --- rows of other beacons --- */

static void test_restored_age(void **state)
{
    (void)state;
    struct routes *r = routes_new(4);
    struct route got, route = {.id = 5, .seen_s = 77, .at = endpoint_at("203.0.113.1:1")};
    route.flags = ROUTE_WANTS_DEST | 2 * ROUTE_AGE_ONE;
    assert_int_equal(route_put(r, &route, NULL), ROUTE_INSERTED);
    route.flags = ROUTE_AGE; /* of a row that is there, the table knows better */
    assert_int_equal(route_put(r, &route, NULL), ROUTE_UPDATED);
    assert_true(route_find(r, route_hash(r, 5), 5, &got));
    assert_int_equal(got.flags, 2 * ROUTE_AGE_ONE);
    free(r);
}

static void test_beacon_rows(void **state)
{
    (void)state;
    struct routes *r = routes_with(2, 2);
    uint8_t key[MSG_KEY_LEN] = {1};
    struct route got = {.id = 42}, node = {.id = 1, .at = endpoint_at("203.0.113.1:1")};
    assert_true(route_put_beacon(r, 1, 1279, ROUTE_KEYED, true));
    assert_false(route_find(r, route_hash(r, 1), 1, &got));
    assert_int_equal(got.id, 42); /* untouched */
    assert_true(route_find_way(r, route_hash(r, 1), 1, &got));
    assert_int_equal(got.class_, ROUTE_BEACON);
    assert_int_equal(route_beacon(&got), 1279);
    assert_int_equal(route_beacon_class(&got), ROUTE_KEYED);
    assert_true(route_beacon_stream(&got));
    assert_int_equal(route_count(r), 0);
    assert_int_equal(route_count_beacon(r), 1);
    assert_false(route_find_key(r, 1, key));
    assert_false(route_remove(r, 1));
    assert_false(route_claim(r, 1));
    route_touch(r, route_hash(r, 1), 1, 99); /* nothing of ours: nothing happens */
    assert_true(route_find_way(r, route_hash(r, 1), 1, &got));
    assert_int_equal(route_beacon(&got), 1279);
    assert_int_equal(got.seen_s, 0);
    assert_false(route_remove_beacon(r, 1, 1278));
    assert_false(route_remove_beacon(r, 2, 1279));
    assert_false(route_remove_beacon(r, 0, PEERS_NONE));

    assert_true(route_put_beacon(r, 2, 5, ROUTE_UNVERIFIED, false));
    assert_false(route_put_beacon(r, 3, 5, ROUTE_UNVERIFIED, false)); /* full */
    assert_true(route_put_beacon(r, 1, 6, ROUTE_SIGNED, false));      /* but for who is there */
    assert_int_equal(route_count_beacon(r), 2);

    assert_int_equal(route_put(r, &node, key), ROUTE_INSERTED); /* it comes to us */
    assert_int_equal(route_count(r), 1);
    assert_int_equal(route_count_beacon(r), 1);
    assert_true(route_find_key(r, 1, key));
    assert_false(route_put_beacon(r, 1, 6, ROUTE_KEYED, false));
    assert_false(route_remove_beacon(r, 1, PEERS_NONE));
    assert_true(route_put_beacon(r, 3, 5, ROUTE_UNVERIFIED, false)); /* its place is free */
    node.id = 2;
    assert_int_equal(route_put(r, &node, NULL), ROUTE_INSERTED);
    assert_false(route_find_key(r, 2, key));
    node.id = 3;
    assert_int_equal(route_put(r, &node, NULL), ROUTE_FULL); /* of ours there are two */
    assert_true(route_remove_beacon(r, 3, PEERS_NONE));
    assert_int_equal(route_count_beacon(r), 0);
    free(r);
}

/* Neither expiry nor paging nor the quotas see them. */
static void count_route(const struct route *route, void *arg)
{
    (void)route;
    ++*(uint32_t *)arg;
}

static void test_beacon_rows_stay(void **state)
{
    (void)state;
    enum { REMOTE = 500 };
    struct routes *r = routes_with(10, REMOTE);
    struct route node = {.id = 1000, .seen_s = 1, .at = endpoint_at("203.0.113.1:1")};
    uint32_t seen = 0;
    for (uint32_t id = 1; id <= REMOTE; id++)
        assert_true(route_put_beacon(r, id, id, ROUTE_UNVERIFIED, false));
    assert_int_equal(route_put(r, &node, NULL), ROUTE_INSERTED);
    route_page(r, 0, UINT32_MAX, count_route, &seen);
    assert_int_equal(seen, 1);
    assert_int_equal(route_prefix_count(r, &node.at, 24), 1);
    assert_int_equal(route_expire(r, 100000, ttl_of(600), 2000), 1);
    assert_int_equal(route_count_beacon(r), REMOTE);
    free(r);
}

/* Few of ours among many: room is made nevertheless, if not by the first call. */
static void test_evict_among_beacon_rows(void **state)
{
    (void)state;
    enum { REMOTE = 40000, NODES = 4 };
    struct routes *r = routes_with(NODES, REMOTE);
    struct endpoint newcomer = endpoint_at("203.0.113.200:1");
    for (uint32_t id = 1; id <= REMOTE; id++)
        assert_true(route_put_beacon(r, id, 1, ROUTE_UNVERIFIED, false));
    for (uint32_t id = 1; id <= NODES; id++) {
        struct route node = {.id = REMOTE + id, .at = endpoint_at("203.0.113.1:1")};
        assert_int_equal(route_put(r, &node, NULL), ROUTE_INSERTED);
    }
    for (uint32_t left = NODES; left > 0; left--) {
        unsigned calls = 1;
        while (!route_evict(r, &newcomer, ROUTE_UNVERIFIED))
            assert_true(++calls <= 8); /* 50 016 rows, 8192 a call */
        assert_int_equal(route_count(r), left - 1);
    }
    assert_false(route_evict(r, &newcomer, ROUTE_UNVERIFIED));
    assert_int_equal(route_count_beacon(r), REMOTE);
    free(r);
}

/* One of ours in sixteen: of those that the walk meets, the right one goes. */
static void test_evict_compares_among_beacon_rows(void **state)
{
    (void)state;
    enum { REMOTE = 600, NODES = 40 };
    struct routes *r = routes_with(NODES, REMOTE);
    struct endpoint newcomer = endpoint_at("203.0.113.200:1");
    struct route got;
    for (uint32_t id = 1; id <= REMOTE; id++)
        assert_true(route_put_beacon(r, id, 1, ROUTE_UNVERIFIED, false));
    for (uint32_t id = 1; id <= NODES; id++) {
        struct route node = {.id = REMOTE + id, .seen_s = 100, .at = endpoint_at("203.0.113.1:1")};
        node.seen_s -= id == 17;
        assert_int_equal(route_put(r, &node, NULL), ROUTE_INSERTED);
    }
    assert_true(route_evict(r, &newcomer, ROUTE_UNVERIFIED)); /* 816 rows: all are looked at */
    assert_false(route_find(r, route_hash(r, REMOTE + 17), REMOTE + 17, &got));
    assert_int_equal(route_count(r), NODES - 1);
    free(r);
}

/* Entries are made for what comes, goes, or changes class or way, and for nothing else. */
static void test_journal_entries(void **state)
{
    (void)state;
    static struct journal j;
    static const struct {
        const char *name, *at;
        uint8_t class_, flags;
        bool entry;
    } cases[] = {
        {"new", "203.0.113.1:1", ROUTE_UNVERIFIED, 0, true},
        {"the same", "203.0.113.1:1", ROUTE_UNVERIFIED, 0, false},
        {"another port", "203.0.113.1:2", ROUTE_UNVERIFIED, 0, false},
        {"another address", "203.0.113.2:2", ROUTE_UNVERIFIED, 0, false},
        {"0x09 wanted", "203.0.113.2:2", ROUTE_UNVERIFIED, ROUTE_WANTS_DEST, false},
        {"another class", "203.0.113.2:2", ROUTE_SIGNED, ROUTE_WANTS_DEST, true},
        {"a session", "203.0.113.2:2", ROUTE_SIGNED, ROUTE_STREAM, true},
        {"of another class", "203.0.113.2:2", ROUTE_KEYED, ROUTE_STREAM, true},
        {"no session", "203.0.113.2:2", ROUTE_KEYED, 0, true},
    };
    struct routes *r = routes_with(4, 4);
    struct journal_entry e;
    bool wake = false;
    memset(&j, 0, sizeof j);
    routes_set_journal(r, &j, &wake);
    assert_true(route_put_beacon(r, 9, 1, ROUTE_KEYED, false)); /* what others have is no news */
    assert_true(route_put_beacon(r, 8, 1, ROUTE_KEYED, false));
    assert_true(route_remove_beacon(r, 8, 1));
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct route route = {.id = 9,
                              .at = endpoint_at(cases[i].at),
                              .class_ = cases[i].class_,
                              .flags = cases[i].flags};
        assert_true(route_put(r, &route, NULL) != ROUTE_FULL);
        bool got = journal_take(&j, &e);
        if (got != cases[i].entry || wake != cases[i].entry)
            fail_msg("%s: %d, woken %d", cases[i].name, got, wake);
        wake = false;
        if (!got)
            continue;
        assert_int_equal(e.id, 9);
        assert_false(e.gone);
        assert_int_equal(e.class_, cases[i].class_);
        assert_int_equal(e.stream, (cases[i].flags & ROUTE_STREAM) != 0);
    }
    route_touch(r, route_hash(r, 9), 9, 500);
    assert_true(route_claim(r, 9));
    assert_false(journal_take(&j, &e));
    assert_true(route_remove(r, 9));
    assert_true(wake && journal_take(&j, &e) && e.gone && e.id == 9);
    assert_false(journal_take(&j, &e));
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_full_load),
        cmocka_unit_test(test_id_zero),
        cmocka_unit_test(test_prefix_never_too_few),
        cmocka_unit_test(test_expire_limits),
        cmocka_unit_test(test_rows_due),
        cmocka_unit_test(test_age_comes_before_the_crowd),
        cmocka_unit_test(test_evict_limits),
        cmocka_unit_test(test_evict_classes),
        cmocka_unit_test(test_packed_fields),
        cmocka_unit_test(test_restored_age),
        cmocka_unit_test(test_beacon_rows),
        cmocka_unit_test(test_beacon_rows_stay),
        cmocka_unit_test(test_evict_among_beacon_rows),
        cmocka_unit_test(test_evict_compares_among_beacon_rows),
        cmocka_unit_test(test_journal_entries),
        cmocka_unit_test(test_reader_races),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
