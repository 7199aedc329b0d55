#include "server/nursery.h"
#include "tests/rig_mesh.h"
#include "server/policy.h"
#include "server/register.h"

static enum registration claim_at(struct rig *r, const char *from, const struct claim *claim)
{
    struct datagram d = rig_datagram(r, from, 0);
    unsigned owner = rig_owner(r, claim->node_id);
    return register_node(r->server->lane[owner], &d, claim, &r->now);
}

static enum registration id_at(struct rig *r, const char *from, uint32_t id)
{
    return claim_at(r, from, &(struct claim){.node_id = id, .dest = CLAIM_DEST_CLEAR});
}

/* Who may hold the id next, how long after its holder was last heard. */
static void test_ownership(void **state)
{
    (void)state;
    static const struct {
        const char *name, *held, *from;
        uint64_t after_ns;
        enum registration want;
    } cases[] = {
        {"the same endpoint", AT_A, AT_A, 0, REGISTERED_SAME},
        {"the same endpoint much later", AT_A, AT_A, 599 * SECOND_NS, REGISTERED_SAME},
        {"another port at once", AT_A, "203.0.113.7:40001", 0, REGISTERED_MOVED},
        {"another port later", AT_A, "203.0.113.7:1", 300 * SECOND_NS, REGISTERED_MOVED},
        {"another address at once", AT_A, AT_B, 0, REFUSED_CONFLICT},
        {"the neighbour's address", AT_A, "203.0.113.8:40000", 0, REFUSED_CONFLICT},
        {"another address, 89 s", AT_A, AT_B, 89 * SECOND_NS, REFUSED_CONFLICT},
        {"a nanosecond before 90 s", AT_A, AT_B, 90 * SECOND_NS - 1, REFUSED_CONFLICT},
        {"another address, 90 s", AT_A, AT_B, 90 * SECOND_NS, REGISTERED_MOVED},
        {"another address, 91 s", AT_A, AT_B, 91 * SECOND_NS, REGISTERED_MOVED},
        {"another family at once", AT_A, "[2001:db8::7]:40000", 0, REFUSED_CONFLICT},
        {"another family, 90 s", AT_A, "[2001:db8::7]:40000", 90 * SECOND_NS, REGISTERED_MOVED},
        {"v6, another port", "[2001:db8::7]:1", "[2001:db8::7]:2", 0, REGISTERED_MOVED},
        {"v6, the same /64", "[2001:db8::7]:1", "[2001:db8::8]:1", 0, REFUSED_CONFLICT},
        {"v6, the same /64, 90 s", "[2001:db8::7]:1", "[2001:db8::8]:1", 90 * SECOND_NS,
         REGISTERED_MOVED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        char held[ENDPOINT_TEXT_MAX];
        rig_open(&r, 2, 100);
        assert_int_equal(id_at(&r, cases[i].held, NODE_A), REGISTERED_NEW);
        snprintf(held, sizeof held, "%s", rig_where(&r, NODE_A));
        rig_step(&r, cases[i].after_ns);
        enum registration got = id_at(&r, cases[i].from, NODE_A);
        if (got != cases[i].want)
            fail_msg("%s: %d, not %d", cases[i].name, (int)got, (int)cases[i].want);
        assert_string_equal(rig_where(&r, NODE_A), registration_ok(got) ? cases[i].from : held);
        rig_close(&r);
    }
}

/* A refused claim does not count as a sign of life, the holder's own does. */
static void test_silence_is_the_holders(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_NEW);
    for (int s = 0; s < 89; s++) {
        rig_step(&r, SECOND_NS);
        assert_int_equal(id_at(&r, AT_B, NODE_A), REFUSED_CONFLICT);
    }
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_SAME);
    rig_step(&r, 89 * SECOND_NS);
    assert_int_equal(id_at(&r, AT_B, NODE_A), REFUSED_CONFLICT);
    rig_step(&r, SECOND_NS);
    assert_int_equal(id_at(&r, AT_B, NODE_A), REGISTERED_MOVED);
    assert_int_equal(id_at(&r, AT_A, NODE_A), REFUSED_CONFLICT); /* who had it waits in turn */
    rig_close(&r);
}

static void test_silence_of_zero(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.takeover_silence_s = 0;
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_NEW);
    assert_int_equal(id_at(&r, AT_B, NODE_A), REGISTERED_MOVED);
    rig_close(&r);
}

static void test_id_zero_and_address(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    assert_int_equal(id_at(&r, AT_A, 0), REFUSED_ID_ZERO);
    assert_int_equal(id_at(&r, "169.254.0.1:1", NODE_A), REFUSED_ADDRESS);
    r.rules.allow_private = PRIVATE_NO;
    assert_int_equal(id_at(&r, "10.0.0.1:1", NODE_A), REFUSED_ADDRESS);
    assert_int_equal(id_at(&r, "8.8.8.8:1", NODE_A), REGISTERED_NEW);
    assert_int_equal(id_at(&r, "8.8.8.8:1", UINT32_MAX), REGISTERED_NEW);
    rig_step(&r, 90 * SECOND_NS); /* not even a silent id goes to an address that is denied */
    assert_int_equal(id_at(&r, "10.0.0.1:1", NODE_A), REFUSED_ADDRESS);
    assert_string_equal(rig_where(&r, NODE_A), "8.8.8.8:1");
    assert_int_equal(route_count(r.server->lane[0]->routes), 2);
    rig_close(&r);
}

static bool wants_dest(const struct rig *r, uint32_t id)
{
    struct route route;
    assert_true(server_find(r->server, id, &route));
    return route.flags & ROUTE_WANTS_DEST;
}

static void test_dest_mark(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        int dest;
        bool marked;
    } steps[] = {
        {AT_A, CLAIM_DEST_KEEP, false}, /* new: there is nothing to keep */
        {AT_A, CLAIM_DEST_SET, true},
        {AT_A, CLAIM_DEST_KEEP, true},
        {"203.0.113.7:40001", CLAIM_DEST_KEEP, true},
        {AT_B, CLAIM_DEST_CLEAR, true}, /* refused: another's word does not count */
        {"203.0.113.7:40001", CLAIM_DEST_CLEAR, false},
        {AT_B, CLAIM_DEST_SET, false},
        {"203.0.113.7:40001", CLAIM_DEST_KEEP, false},
        {"203.0.113.7:40001", CLAIM_DEST_SET, true},
        {AT_A, CLAIM_DEST_CLEAR, false},
    };
    struct rig r;
    rig_open(&r, 1, 100);
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct claim c = {.node_id = NODE_A};
        c.dest = steps[i].dest == CLAIM_DEST_SET     ? CLAIM_DEST_SET
                 : steps[i].dest == CLAIM_DEST_CLEAR ? CLAIM_DEST_CLEAR
                                                     : CLAIM_DEST_KEEP;
        claim_at(&r, steps[i].from, &c);
        if (wants_dest(&r, NODE_A) != steps[i].marked)
            fail_msg("step %zu", i);
    }
    rig_close(&r);
}

static void test_first_key_stays(void **state)
{
    (void)state;
    static const uint8_t one[MSG_KEY_LEN] = {1}, two[MSG_KEY_LEN] = {2};
    uint8_t got[MSG_KEY_LEN];
    struct rig r;
    rig_open(&r, 1, 100);
    const struct routes *routes = r.server->lane[0]->routes;
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_NEW);
    assert_false(route_find_key(routes, NODE_A, got));
    struct claim claim = {.node_id = NODE_A, .key = one};
    assert_int_equal(claim_at(&r, AT_B, &claim), REFUSED_CONFLICT);
    assert_false(route_find_key(routes, NODE_A, got)); /* a stranger plants no key */
    assert_int_equal(claim_at(&r, AT_A, &claim), REGISTERED_SAME);
    assert_true(route_find_key(routes, NODE_A, got));
    assert_memory_equal(got, one, sizeof one);
    claim.key = two;
    assert_int_equal(claim_at(&r, AT_A, &claim), REGISTERED_SAME);
    assert_int_equal(claim_at(&r, "203.0.113.7:5", &claim), REGISTERED_MOVED);
    claim.key = NULL;
    assert_int_equal(claim_at(&r, "203.0.113.7:6", &claim), REGISTERED_MOVED);
    assert_true(route_find_key(routes, NODE_A, got));
    assert_memory_equal(got, one, sizeof one);
    /* The key dies with the row. */
    assert_true(route_remove(r.server->lane[0]->routes, NODE_A));
    claim.key = two;
    assert_int_equal(claim_at(&r, AT_A, &claim), REGISTERED_NEW);
    assert_true(route_find_key(routes, NODE_A, got));
    assert_memory_equal(got, two, sizeof two);
    rig_close(&r);
}

static void test_local_follows(void **state)
{
    (void)state;
    struct route route;
    struct rig r;
    rig_open(&r, 1, 100);
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_NEW);
    r.local = 3; /* the node now speaks to another of our addresses */
    assert_int_equal(id_at(&r, AT_A, NODE_A), REGISTERED_SAME);
    assert_true(server_find(r.server, NODE_A, &route));
    assert_int_equal(route.local, 3);
    rig_close(&r);
}

/* The pattern with its # replaced by a number. */
static void numbered(const char *pattern, uint32_t n, char text[static ENDPOINT_TEXT_MAX])
{
    const char *at = strchr(pattern, '#');
    assert_non_null(at);
    snprintf(text, ENDPOINT_TEXT_MAX, "%.*s%u%s", (int)(at - pattern), pattern, n, at + 1);
}

/* Ten sources of one narrow prefix come first, then ten of the wide one around it. */
static void test_quota(void **state)
{
    (void)state;
    static const struct {
        const char *name, *narrow, *wide; /* # is the node's number */
        bool v4;
        uint32_t narrow_max, wide_max;
        uint32_t narrow_in, wide_in; /* of 10 tries each */
    } cases[] = {
        {"IPv4 address", "203.0.113.7:#", "203.0.113.#:1", true, 4, 0, 4, 10},
        {"IPv4 /24", "203.0.113.7:#", "203.0.113.#:1", true, 0, 12, 10, 2},
        {"IPv4 both", "203.0.113.7:#", "203.0.113.#:1", true, 4, 9, 4, 5},
        {"IPv4 off", "203.0.113.7:#", "203.0.113.#:1", true, 0, 0, 10, 10},
        {"IPv6 /64", "[2001:db8:1:7::#]:1", "[2001:db8:1:#::1]:1", false, 4, 0, 4, 10},
        {"IPv6 /48", "[2001:db8:1:7::#]:1", "[2001:db8:1:#::1]:1", false, 0, 12, 10, 2},
        {"IPv6 both", "[2001:db8:1:7::#]:1", "[2001:db8:1:#::1]:1", false, 4, 9, 4, 5},
        {"loopback", "127.0.0.1:#", "127.0.0.#:1", true, 1, 1, 10, 10},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 1000);
        if (cases[i].v4) {
            r.rules.nodes_per_ipv4 = cases[i].narrow_max;
            r.rules.nodes_per_ipv4_24 = cases[i].wide_max;
        } else {
            r.rules.nodes_per_ipv6_64 = cases[i].narrow_max;
            r.rules.nodes_per_ipv6_48 = cases[i].wide_max;
        }
        const struct {
            const char *form;
            uint32_t in, id;
        } rounds[] = {{cases[i].narrow, cases[i].narrow_in, 1000},
                      {cases[i].wide, cases[i].wide_in, 2000}};
        for (int k = 0; k < 2; k++)
            for (uint32_t n = 0; n < 10; n++) {
                char from[ENDPOINT_TEXT_MAX];
                numbered(rounds[k].form, 100 + n, from);
                enum registration want = n < rounds[k].in ? REGISTERED_NEW : REFUSED_QUOTA;
                enum registration got = id_at(&r, from, rounds[k].id + n);
                if (got != want)
                    fail_msg("%s: %s is %d, not %d", cases[i].name, from, (int)got, (int)want);
                if (got == REGISTERED_NEW) /* who is in stays in */
                    assert_int_equal(id_at(&r, from, rounds[k].id + n), REGISTERED_SAME);
            }
        rig_close(&r);
    }
}

/* A place is free again when its node goes, and a node that moves away frees its place. */
static void test_quota_is_given_back(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.nodes_per_ipv4 = 2;
    assert_int_equal(id_at(&r, AT_A, 1), REGISTERED_NEW);
    assert_int_equal(id_at(&r, AT_A, 2), REGISTERED_NEW);
    assert_int_equal(id_at(&r, AT_A, 3), REFUSED_QUOTA);
    assert_true(route_remove(r.server->lane[0]->routes, 1));
    assert_int_equal(id_at(&r, AT_A, 3), REGISTERED_NEW);
    assert_int_equal(id_at(&r, AT_A, 4), REFUSED_QUOTA);
    rig_step(&r, 90 * SECOND_NS);
    assert_int_equal(id_at(&r, AT_B, 3), REGISTERED_MOVED);
    assert_int_equal(id_at(&r, AT_A, 4), REGISTERED_NEW);
    assert_int_equal(id_at(&r, AT_B, 2), REGISTERED_MOVED);
    rig_step(&r, 90 * SECOND_NS);
    assert_int_equal(id_at(&r, AT_B, 4), REFUSED_QUOTA); /* a takeover is counted where it goes */
    assert_string_equal(rig_where(&r, 4), AT_A);
    rig_close(&r);
}

/* With 100 rows and 50 %: the 51st id is the first that must come twice. */
static void fill(struct rig *r, uint32_t nodes)
{
    for (uint32_t id = 1; id <= nodes; id++)
        assert_int_equal(id_at(r, "192.0.2.1:1", id), REGISTERED_NEW);
}

static void test_nursery_wait(void **state)
{
    (void)state;
    static const struct {
        const char *name, *second;
        uint64_t after_ns;
        enum registration want;
    } cases[] = {
        {"at once", AT_A, 0, REFUSED_NURSERY},
        {"a nanosecond before 1 s", AT_A, SECOND_NS - 1, REFUSED_NURSERY},
        {"after 1 s", AT_A, SECOND_NS, REGISTERED_NEW},
        {"after 60 s", AT_A, 60 * SECOND_NS, REGISTERED_NEW},
        {"after one period", AT_A, NURSERY_PERIOD_S * SECOND_NS, REGISTERED_NEW},
        {"after two", AT_A, 2 * NURSERY_PERIOD_S * SECOND_NS, REFUSED_NURSERY},
        {"after many", AT_A, 9 * NURSERY_PERIOD_S * SECOND_NS, REFUSED_NURSERY},
        {"from another port", "203.0.113.7:5", SECOND_NS, REGISTERED_NEW},
        {"from another address", AT_B, SECOND_NS, REFUSED_NURSERY},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 100);
        r.rules.nursery_percent = 50;
        fill(&r, 50);
        assert_int_equal(id_at(&r, AT_A, NODE_A), REFUSED_NURSERY);
        rig_step(&r, cases[i].after_ns);
        enum registration got = id_at(&r, cases[i].second, NODE_A);
        if (got != cases[i].want)
            fail_msg("%s: %d, not %d", cases[i].name, (int)got, (int)cases[i].want);
        rig_step(&r, SECOND_NS); /* whoever was refused is let in a second later */
        if (got == REFUSED_NURSERY)
            assert_int_equal(id_at(&r, cases[i].second, NODE_A), REGISTERED_NEW);
        rig_close(&r);
    }
}

static void test_nursery_fill(void **state)
{
    (void)state;
    static const struct {
        uint32_t percent, before, refused_from;
    } cases[] = {{50, 49, 50}, {50, 50, 50}, {1, 0, 1}, {100, 99, 100}, {70, 69, 70}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open(&r, 1, 100);
        r.rules.nursery_percent = 0;
        fill(&r, cases[i].before);
        r.rules.nursery_percent = cases[i].percent;
        bool full_enough = cases[i].before >= cases[i].refused_from;
        assert_int_equal(id_at(&r, AT_A, NODE_A), full_enough ? REFUSED_NURSERY : REGISTERED_NEW);
        if (cases[i].before > 0) /* known ids are not asked */
            assert_int_equal(id_at(&r, "192.0.2.1:1", 1), REGISTERED_SAME);
        rig_close(&r);
    }
}

static void test_full_table(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    fill(&r, 50); /* of one prefix, the others stand alone */
    for (uint32_t n = 0; n < 50; n++) {
        char from[ENDPOINT_TEXT_MAX];
        snprintf(from, sizeof from, "203.0.%u.1:1", n);
        assert_int_equal(id_at(&r, from, 100 + n), REGISTERED_NEW);
    }
    const struct routes *routes = r.server->lane[0]->routes;
    assert_int_equal(route_count(routes), 100);
    for (uint32_t n = 0; n < 20; n++) { /* the crowd makes room */
        char from[ENDPOINT_TEXT_MAX];
        snprintf(from, sizeof from, "198.51.%u.1:1", n);
        assert_int_equal(id_at(&r, from, 200 + n), REGISTERED_NEW);
        assert_int_equal(route_count(routes), 100);
        assert_string_not_equal(rig_where(&r, 200 + n), "");
    }
    assert_int_equal(count_read(&r.server->lane[0]->stats.evicted), 20);
    for (uint32_t n = 0; n < 50; n++)
        assert_string_not_equal(rig_where(&r, 100 + n), "");
    rig_close(&r);
}

/* Nobody stands in a fuller prefix than the newcomer would. */
static void test_full_of_loners(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 10);
    for (uint32_t n = 0; n < 10; n++) {
        char from[ENDPOINT_TEXT_MAX];
        snprintf(from, sizeof from, "203.0.%u.1:1", n);
        assert_int_equal(id_at(&r, from, 100 + n), REGISTERED_NEW);
    }
    rig_step(&r, SECOND_NS);
    assert_int_equal(id_at(&r, "203.0.0.1:1", 100), REGISTERED_SAME); /* not the oldest now */
    assert_int_equal(id_at(&r, "203.0.0.2:1", 7), REFUSED_FULL);
    assert_int_equal(count_read(&r.server->lane[0]->stats.evicted), 0);
    assert_int_equal(route_count(r.server->lane[0]->routes), 10);
    assert_string_equal(rig_where(&r, 7), "");
    rig_close(&r);
}

/* An address that takes over an id by PunchRequest does not inherit the old holder's 0x09 mark
 * (a stock node drops 0x09). */
static void takeover_by_punch_drops_the_dest_mark(void **state)
{
    (void)state;
    struct rig r;
    struct route route;
    rig_open(&r, 1, 100);
    rig_discover(&r, AT_A, &(struct msg_discover){.wants_dest = true, .node_id = NODE_A});
    rig_step(&r, 90 * SECOND_NS);
    rig_punch(&r, AT_B, NODE_A, NODE_A);
    assert_true(server_find(r.server, NODE_A, &route));
    assert_string_equal(rig_where(&r, NODE_A), AT_B);
    assert_int_equal(route.flags & ROUTE_WANTS_DEST, 0);
    rig_close(&r);
}

/* A node that changes its address inside a full prefix takes no more room than before. */
static void move_inside_a_full_prefix_is_no_newcomer(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.rules.nodes_per_ipv6_64 = 2;
    rig_node(&r, "[2001:db8::1]:1", 1);
    rig_node(&r, "[2001:db8::2]:1", 2);
    rig_step(&r, 90 * SECOND_NS);
    assert_verdict(rig_node(&r, "[2001:db8::99]:1", 2), VERDICT_DISCOVER_MOVED,
                   "new privacy address");
    rig_close(&r);
}

/* A flood of new ids fills the nursery: it then lets more in, and never keeps one out for good. */
static void nursery_is_open_under_a_flood(void **state)
{
    (void)state;
    enum { NODES = 1000, HONEST = 200 };
    size_t size = (nursery_size(NODES) + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    struct nursery *n = nursery_init(memory, NODES);
    uint64_t seed = 7;
    unsigned admitted = 0;
    for (uint32_t second = 1; second <= 60; second++)
        for (unsigned i = 0; i < 20000; i++)
            nursery_admits(n, rig_random(&seed), second);
    for (uint64_t id = 1; id <= HONEST; id++) {
        uint64_t hash = id * 0x9e3779b97f4a7c15u;
        bool at_once = nursery_admits(n, hash, 61);
        admitted += at_once || nursery_admits(n, hash, 62) || nursery_admits(n, hash, 63);
    }
    assert_int_equal(admitted, HONEST);
    free(memory);
}

/* Without a flood it is right: once is not enough, and one id does not speak for another. */
static void nursery_knows_ids_apart(void **state)
{
    (void)state;
    enum { NODES = 10000, IDS = 5000 };
    size_t size = (nursery_size(NODES) + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    struct nursery *n = nursery_init(memory, NODES);
    uint64_t seed = 9;
    unsigned wrongly = 0;
    for (unsigned i = 0; i < IDS; i++)
        wrongly += nursery_admits(n, rig_random(&seed), 1 + i / 100);
    assert_in_range(wrongly, 0, IDS / 50);
    nursery_defer(n, 42, 70);
    assert_false(nursery_admits(n, 42, 70));
    assert_false(nursery_admits(n, 42, 71)); /* deferring is not having come */
    assert_true(nursery_admits(n, 42, 72));
    free(memory);
}

/* Who takes a silent id over is not bound by a key that a stranger planted before. */
static void takeover_brings_its_own_key(void **state)
{
    (void)state;
    static const uint8_t planted[MSG_KEY_LEN] = {1}, own[MSG_KEY_LEN] = {2};
    struct rig r;
    uint8_t key[MSG_KEY_LEN];
    rig_open(&r, 1, 100);
    struct msg_discover m = {.node_id = NODE_A, .key = planted};
    rig_discover(&r, AT_A, &m);
    m.key = own;
    rig_discover(&r, AT_A, &m); /* the holder's first key stays */
    assert_true(route_find_key(r.server->lane[0]->routes, NODE_A, key));
    assert_memory_equal(key, planted, sizeof key);
    rig_step(&r, 90 * SECOND_NS);
    m.key = NULL;
    rig_discover(&r, AT_B, &m);
    assert_string_equal(rig_where(&r, NODE_A), AT_B);
    assert_false(route_find_key(r.server->lane[0]->routes, NODE_A, key));
    m.key = own;
    rig_discover(&r, AT_B, &m);
    assert_true(route_find_key(r.server->lane[0]->routes, NODE_A, key));
    assert_memory_equal(key, own, sizeof key);
    rig_close(&r);
}

/* Another beacon's address registers nobody: relays to it would go in a circle. It learns its
 * address nevertheless. What was there before it became a beacon's stays, until it falls silent. */
static void test_beacons_do_not_register(void **state)
{
    (void)state;
    static struct peers p;
    for (unsigned lane = 0; lane < 2; lane++) {
        struct rig r;
        rig_open_mesh(&r, 2, 100, 100, false);
        assert_verdict(rig_node(&r, AT_PEER_2, NODE_B), VERDICT_DISCOVER_NEW, "before");
        rig_peers(&r, &p);
        assert_verdict(rig_node(&r, AT_B, 7), VERDICT_DISCOVER_NEW, "a node");
        enum verdict v = rig_hex(&r, lane, AT_PEER_1, "010001e240");
        if (v == VERDICT_PASSED)
            rig_mail(&r);
        assert_int_equal(rig_count(&r, VERDICT_DISCOVER_ADDRESS_DENIED), 1);
        assert_sent(&r, 0, AT_PEER_1, "0204c00002012329");
        assert_string_equal(rig_where(&r, NODE_A), "");
        v = rig_hex(&r, lane, AT_PEER_1, "030001e24000000007");
        if (v == VERDICT_PASSED)
            rig_mail(&r);
        assert_int_equal(rig_count(&r, VERDICT_PUNCH_NOT_STORED), 1);
        assert_int_equal(r.out.count, 0);
        assert_string_equal(rig_where(&r, NODE_A), "");
        assert_string_equal(rig_where(&r, NODE_B), AT_PEER_2);
        assert_verdict(rig_node(&r, AT_PEER_2, NODE_B), VERDICT_DISCOVER_ADDRESS_DENIED, "refresh");
        assert_verdict(rig_node(&r, "192.0.2.1:9002", NODE_A), VERDICT_DISCOVER_NEW, "its host");
        rig_close(&r);
    }
}

/* A node that another beacon has registers here like any new one. */
static void test_node_of_a_beacon_comes_here(void **state)
{
    (void)state;
    struct rig r;
    rig_open_mesh(&r, 1, 100, 100, false);
    rig_route(&r, MAIL_ROUTES_SET, NODE_A, 1);
    assert_int_equal(rig_beacon_of(&r, NODE_A), 1);
    r.rules.nodes_per_ipv4 = 1;
    assert_verdict(rig_node(&r, AT_A, 5), VERDICT_DISCOVER_NEW, "another of that address");
    assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_QUOTA, "quota");
    assert_int_equal(rig_beacon_of(&r, NODE_A), 1);
    r.rules.nodes_per_ipv4 = 0;
    assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_NEW, "new");
    assert_int_equal(rig_beacon_of(&r, NODE_A), PEERS_NONE);
    assert_string_equal(rig_where(&r, NODE_A), AT_A);
    assert_int_equal(route_count_beacon(r.server->lane[0]->routes), 0);
    rig_close(&r);
}

/* Nor do rows of other beacons take the place of ours: a full table of ours evicts ours. */
static void test_room_beside_beacons(void **state)
{
    (void)state;
    struct rig r;
    rig_open_mesh(&r, 1, 3, 50, false);
    for (uint32_t id = 1000; id < 1050; id++)
        rig_route(&r, MAIL_ROUTES_SET, id, 1);
    for (uint32_t id = 1; id <= 10; id++) {
        char from[ENDPOINT_TEXT_MAX];
        snprintf(from, sizeof from, "203.0.113.%u:9", id);
        rig_step(&r, SECOND_NS);
        assert_verdict(rig_node(&r, from, id), VERDICT_DISCOVER_NEW, from);
    }
    assert_int_equal(route_count(r.server->lane[0]->routes), 3);
    assert_int_equal(route_count_beacon(r.server->lane[0]->routes), 50);
    assert_int_equal(count_read(&r.server->lane[0]->stats.evicted), 7);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ownership),
        cmocka_unit_test(test_silence_is_the_holders),
        cmocka_unit_test(test_silence_of_zero),
        cmocka_unit_test(test_id_zero_and_address),
        cmocka_unit_test(test_dest_mark),
        cmocka_unit_test(test_first_key_stays),
        cmocka_unit_test(test_local_follows),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_quota_is_given_back),
        cmocka_unit_test(test_nursery_wait),
        cmocka_unit_test(test_nursery_fill),
        cmocka_unit_test(test_full_table),
        cmocka_unit_test(test_full_of_loners),
        cmocka_unit_test(takeover_by_punch_drops_the_dest_mark),
        cmocka_unit_test(nursery_is_open_under_a_flood),
        cmocka_unit_test(nursery_knows_ids_apart),
        cmocka_unit_test(takeover_brings_its_own_key),
        cmocka_unit_test(move_inside_a_full_prefix_is_no_newcomer),
        cmocka_unit_test(test_beacons_do_not_register),
        cmocka_unit_test(test_node_of_a_beacon_comes_here),
        cmocka_unit_test(test_room_beside_beacons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
