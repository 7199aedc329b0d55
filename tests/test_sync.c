#include "tests/sync_rig.h"

/* --- several of them --- */

static void test_heals(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned nodes, reach, loss;
        bool relays;
        uint32_t rows; /* each of the first `owners` has */
        unsigned owners;
        uint64_t took_ms, bytes; /* at most */
    } cases[] = {
        {"two, nothing lost", 2, 1, 0, false, 5000, 1, 120, 32000},
        {"two, both have something", 2, 1, 0, false, 5000, 2, 120, 64000},
        {"two at 20 %", 2, 1, 20, false, 20000, 1, 1500, 180000},
        {"three at 20 %", 3, 1, 20, false, 20000, 1, 3000, 380000},
        {"three at 20 %, all have something", 3, 1, 20, false, 20000, 3, 3000, 1150000},
        {"five at 20 %, full mesh", 5, 2, 20, false, 4000, 5, 3000, 900000},
        {"five in a ring at 20 %", 5, 1, 20, true, 4000, 5, 5000, 900000},
        {"a line of two hops at 50 %", 3, 1, 50, true, 4000, 1, 12000, 250000},
    };
    for (unsigned c = 0; c < COUNT(cases); c++) {
        struct world *w = world_open(cases[c].nodes, 1 << 18, c + 1);
        bad_network(w);
        w->loss = cases[c].loss;
        w->relays = cases[c].relays;
        if (w->loss == 50)
            w->cut[0][2] = w->cut[2][0] = true;
        for (unsigned i = 0; i < cases[c].owners; i++)
            for (uint32_t id = 1; id <= cases[c].rows; id++)
                claim(w, i, i * 30000 + id * 7 % 30000 + 1, 2);
        world_join(w, cases[c].reach);
        uint64_t took_ns = world_heal(w, 60 * SECOND), bytes = bytes_sent(w);
        figure(cases[c].name, took_ns, bytes);
        assert_model(w);
        assert_in_range(took_ns / MS, 1, cases[c].took_ms);
        assert_in_range(bytes, 1, cases[c].bytes);
        if (w->loss < 50)
            assert_silent(w);
        world_close(w);
    }
}

/* One change after another: how long until all have it? */
static void test_news(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned nodes, reach;
        bool relays;
        uint64_t p99_ms, bytes; /* bytes: a change and node */
    } cases[] = {
        {"news to three", 3, 1, false, 1500, 600},
        {"news to ten in full mesh", 10, 5, false, 2500, 700},
        {"news to twenty in a ring of reach 3", 20, 3, true, 2500, 2000},
    };
    enum { CHANGES = 200 };
    for (unsigned c = 0; c < COUNT(cases); c++) {
        struct world *w = world_open(cases[c].nodes, 1 << 14, c + 1);
        unsigned late = 0;
        uint64_t worst_ns = 0;
        w->relays = cases[c].relays;
        world_join(w, cases[c].reach);
        for (unsigned i = 0; i < w->nodes; i++)
            claim(w, i, i + 1, 2);
        world_heal(w, 60 * SECOND);
        world_run(w, 60 * SECOND);
        bad_network(w);
        bytes_sent(w);
        for (uint32_t n = 0; n < CHANGES; n++) {
            claim(w, n % w->nodes, 1000 + n, 1);
            uint64_t took_ns = world_heal(w, 60 * SECOND);
            worst_ns = later_ns(took_ns, worst_ns);
            late += took_ns > cases[c].p99_ms * MS;
        }
        uint64_t bytes = bytes_sent(w);
        figure(cases[c].name, worst_ns, bytes);
        assert_in_range(late, 0, CHANGES / 100);
        assert_in_range(bytes / CHANGES / w->nodes, 1, cases[c].bytes);
        world_close(w);
    }
}

/* Nobody resends what nobody lacks: a fresh beacon with eight neighbours takes each log from about
 * one of them. */
static void test_fresh_among_many(void **state)
{
    (void)state;
    enum { NODES = 9, ROWS = 4000 };
    struct world *w = world_open(NODES, 1 << 17, 3);
    for (unsigned i = 1; i < NODES; i++)
        for (uint32_t id = 1; id <= ROWS; id++)
            claim(w, i, i * ROWS + id, 2);
    w->relays = true;
    w->node[0].down = true;
    world_join(w, 4);
    world_heal(w, 60 * SECOND);
    world_run(w, 60 * SECOND);
    w->node[0].down = false;
    bad_network(w);
    bytes_sent(w);
    for (unsigned i = 0; i < NODES; i++)
        node_links(w, i);
    uint64_t took_ns = world_heal(w, 60 * SECOND), bytes = bytes_sent(w);
    figure("fresh among eight", took_ns, bytes);
    assert_model(w);
    assert_in_range(took_ns / MS, 1, 5000);
    assert_in_range(bytes, 1, 8 * ROWS * 9 * 2);
    assert_silent(w);
    world_close(w);
}

static void restart(struct world *w, unsigned i)
{
    node_start(w, i, w->node[i].boot + w->now_ns / MS);
    memset(w->node[i].claims, 0, IDS);
    for (unsigned k = 0; k < w->nodes; k++)
        if (k != i) {
            node_meets(w, i, k);
            node_meets(w, k, i);
            sync_reset(w->node[k].sync, (unsigned)index_of(&w->node[k], &w->node[i]));
        }
    node_measures(&w->node[i], w->now_ns, 2 * w->delay_ns);
    for (unsigned k = 0; k < w->nodes; k++)
        node_links(w, k);
}

static void test_restart(void **state)
{
    (void)state;
    for (unsigned relays = 0; relays < 2; relays++) {
        struct world *w = world_open(3, 1 << 15, 5 + relays);
        w->relays = relays;
        bad_network(w);
        for (uint32_t id = 1; id < 3000; id++)
            claim(w, 0, id, 2);
        world_join(w, 1);
        world_heal(w, 60 * SECOND);
        restart(w, 0);
        for (uint32_t id = 2000; id < 3500; id++)
            claim(w, 0, id, 3);
        uint64_t took_ns = world_heal(w, 60 * SECOND);
        figure("restart", took_ns, bytes_sent(w));
        assert_model(w);
        assert_in_range(took_ns / MS, 1, 4000);
        assert_silent(w);
        /* Nothing at all is left: only the new boot says so. */
        restart(w, 0);
        claim(w, 0, 5, 3);
        world_heal(w, 60 * SECOND);
        assert_model(w);
        world_close(w);
    }
}

/* Two are apart for so long that tombstones are purged; the one that missed them must not keep
 * the rows. Whether the first piece ends before, at or behind what it knew, is up to the rows. */
static void test_purged(void **state)
{
    (void)state;
    static const struct {
        uint32_t known, gone_from, gone_to, later;
    } cases[] = {
        {100, 50, 60, 2000},  {100, 1, 101, 1},     {1000, 10, 900, 3000}, {3000, 500, 600, 500},
        {3000, 1, 3001, 400}, {2, 2, 3, 0},         {1, 1, 2, 0},          {150, 60, 70, 0},
        {160, 100, 120, 5},   {180, 90, 100, 1000}, {400, 100, 101, 3000},
    };
    for (unsigned c = 0; c < COUNT(cases); c++)
        for (unsigned loss = 0; loss <= 40; loss += 20) {
            struct world *w = world_open(2, 1 << 14, c + 1);
            for (uint32_t id = 1; id <= cases[c].known; id++)
                claim(w, 0, id, 2);
            world_join(w, 1);
            world_heal(w, 60 * SECOND);
            w->cut[0][1] = w->cut[1][0] = true;
            for (uint32_t id = cases[c].gone_from; id < cases[c].gone_to; id++)
                withdraw(w, 0, id);
            world_run(w, (STORE_TOMBSTONE_S + 5) * SECOND);
            for (uint32_t id = 1; id <= cases[c].later; id++)
                claim(w, 0, 5000 + id, 2);
            w->cut[0][1] = w->cut[1][0] = false;
            bad_network(w);
            w->loss = loss;
            world_heal(w, 60 * SECOND);
            assert_model(w);
            assert_silent(w);
            world_close(w);
        }
}

/* The owner is gone, or cannot reach one of them: others bring its log. */
static void test_helped(void **state)
{
    (void)state;
    for (unsigned gone = 0; gone < 2; gone++) {
        struct world *w = world_open(4, 1 << 14, 9);
        bad_network(w);
        w->cut[0][2] = w->cut[2][0] = true;
        world_join(w, 2);
        for (uint32_t id = 1; id <= 1000; id++)
            claim(w, 0, id, 2);
        world_run(w, SECOND);
        if (gone) {
            w->node[0].down = true;
            for (unsigned i = 1; i < 4; i++) {
                unsigned owner = (unsigned)index_of(&w->node[i], &w->node[0]);
                store_owner_rank(w->node[i].store, owner, STORE_UNUSABLE);
                sync_reset(w->node[i].sync, owner);
                node_links(w, i);
            }
        }
        uint64_t took_ns = world_heal(w, 60 * SECOND);
        figure(gone ? "the owner is gone" : "the owner does not reach one", took_ns, bytes_sent(w));
        assert_in_range(took_ns / MS, 1, 15000);
        assert_model(w);
        world_close(w);
    }
}

/* More owners than a digest holds. */
static void test_many_owners(void **state)
{
    (void)state;
    enum { NODES = 100 };
    struct world *w = world_open(NODES, 1 << 12, 4);
    w->relays = true;
    for (unsigned i = 0; i < NODES; i++)
        for (uint32_t n = 0; n < 20; n++)
            claim(w, i, i * 20 + n + 1, 2);
    world_join(w, 2);
    bad_network(w);
    uint64_t took_ns = world_heal(w, 120 * SECOND);
    figure("a hundred owners in a ring", took_ns, bytes_sent(w));
    assert_in_range(took_ns / MS, 1, 30000);
    assert_model(w);
    world_run(w, 60 * SECOND);
    /* One starts again and knows nothing. */
    restart(w, 17);
    world_heal(w, 60 * SECOND);
    assert_model(w);
    world_close(w);
}

/* No neighbours: the ping has shown that they differ. */
static void test_differs(void **state)
{
    (void)state;
    struct world *w = world_open(3, 1 << 12, 4);
    struct node *n = w->node;
    w->relays = true;
    world_join(w, 0);
    for (unsigned i = 0; i < 3; i++)
        claim(w, i, i + 1, 2);
    world_run(w, 20 * SECOND);
    assert_int_equal(bytes_sent(w), 0);
    assert_false(same_views(w));
    for (int i = 0; i < 8; i++) {
        sync_differs(n[0].sync, 1, w->now_ns);
        sync_differs(n[0].sync, 2, w->now_ns);
        n[0].next_ns = 0;
        world_run(w, SECOND);
    }
    assert_int_equal(store_owner(n[0].store, 1)->rows, 1);
    assert_int_equal(store_owner(n[0].store, 2)->rows, 1);
    assert_true(same_views(w)); /* 1 and 2 learnt of each other through 0 */
    assert_in_range(bytes_sent(w), 1, 6000);
    world_run(w, 20 * SECOND);
    bytes_sent(w);
    claim(w, 0, 9, 1); /* visits are over */
    world_run(w, 20 * SECOND);
    assert_int_equal(bytes_sent(w), 0);
    world_close(w);
}

/* --- one sync, fed by hand --- */

static size_t delta_of(uint8_t body[static GOSSIP_BODY_MAX], uint32_t owner, uint64_t from,
                       uint64_t to, uint64_t top)
{
    struct gossip_delta d = {.owner = owner, .boot = 7, .from = from, .to = to, .top = top};
    d.row[0] = (struct delta_row){.id = (uint32_t)to, .meta = 1, .version = to};
    d.row_count = 1;
    return write_gossip_delta(body, GOSSIP_BODY_MAX, &d);
}

static void test_hold_full(void **state)
{
    (void)state;
    enum { OWNERS = 8, AHEAD = 100 };
    struct world *w = world_open(OWNERS + 1, 1 << 12, 1);
    struct node *n = &w->node[0];
    uint8_t body[GOSSIP_BODY_MAX];
    w->relays = true;
    world_join(w, OWNERS);
    for (unsigned o = 1; o <= OWNERS; o++) {
        uint64_t before = sync_stats(n->sync)->deltas_held;
        for (uint64_t v = 2; v <= AHEAD; v++) {
            size_t len = delta_of(body, 100 + o, v - 1, v, AHEAD);
            assert_true(sync_delta(n->sync, o, body, len, w->now_ns));
            assert_true(sync_delta(n->sync, o, body, len, w->now_ns)); /* is held once */
        }
        /* Each gets something, and the first not all. */
        assert_in_range(sync_stats(n->sync)->deltas_held - before, 1, SYNC_WINDOW);
        assert_int_equal(store_owner(n->store, o)->version, 0);
    }
    assert_in_range(sync_stats(n->sync)->deltas_held, SYNC_HOLD_MAX - 8, SYNC_HOLD_MAX);
    assert_true(sync_stats(n->sync)->held_full > 0);
    for (unsigned o = 1; o <= OWNERS; o++) {
        size_t len = delta_of(body, 100 + o, 0, 1, AHEAD);
        assert_true(sync_delta(n->sync, o, body, len, w->now_ns));
        assert_true(store_owner(n->store, o)->version > 1); /* what was held has joined */
    }
    assert_int_equal(n->sync->held, 0);
    /* What waits in vain makes room. */
    for (uint64_t v = 1000; v < 1000 + SYNC_WINDOW; v++)
        assert_true(sync_delta(n->sync, 1, body, delta_of(body, 101, v, v + 1, v + 1), w->now_ns));
    assert_int_equal(n->sync->held, SYNC_WINDOW);
    assert_true(sync_delta(n->sync, 1, body, delta_of(body, 101, 3000, 3001, 3001),
                           w->now_ns + SYNC_IDLE_NS + 1));
    assert_int_equal(n->sync->held, 1);
    sync_reset(n->sync, 1);
    assert_int_equal(n->sync->held, 0);
    world_close(w);
}

static void test_bad_bodies(void **state)
{
    (void)state;
    struct world *w = world_open(3, 1 << 12, 1);
    struct node *n = &w->node[0];
    uint8_t body[GOSSIP_BODY_MAX], bad[GOSSIP_BODY_MAX];
    world_join(w, 1);
    claim(w, 1, 77, 1);
    world_heal(w, 10 * SECOND);
    uint64_t view = store_view(n->store);
    size_t len = delta_of(body, 101, 5, 6, 6);
    for (size_t cut = 0; cut < len; cut++) {
        assert_false(sync_delta(n->sync, 1, body, cut, w->now_ns));
        assert_false(sync_digest(n->sync, 1, body, cut, w->now_ns));
    }
    for (int round = 0; round < 100000; round++) {
        size_t bytes = dice(w) % sizeof bad;
        for (size_t i = 0; i < bytes; i++)
            bad[i] = (uint8_t)dice(w);
        assert_false(sync_delta(n->sync, 1, bad, bytes, w->now_ns));
        assert_false(sync_digest(n->sync, 1, bad, bytes, w->now_ns));
    }
    static const struct {
        const char *name;
        uint32_t owner;
        uint64_t from, to, top;
        bool well;
    } cases[] = {
        {"nobody's log", 999, 0, 1, 1, true},
        {"our own log", 100, 0, 1, 1, true},
        {"the end behind the top", 102, 0, 2, 1, false},
        {"the last version", 102, 1, SYNC_VERSION_MAX, SYNC_VERSION_MAX, true},
        {"a version too far", 102, 1, 2, SYNC_VERSION_MAX + 1, false},
    };
    for (unsigned c = 0; c < COUNT(cases); c++) {
        len = delta_of(body, cases[c].owner, cases[c].from, cases[c].to, cases[c].top);
        if (sync_delta(n->sync, 1, body, len, w->now_ns) != cases[c].well)
            fail_msg("%s", cases[c].name);
        assert_true(store_view(n->store) == view);
    }
    world_close(w);
}

static uint64_t random_seed;

static int tell_seed(void **state)
{
    (void)state;
    print_message("           last seed %llu\n", (unsigned long long)random_seed);
    return 0;
}

/* What goes wrong at random: changes, restarts, cuts, bad network; then all is well again. */
static void test_random(void **state)
{
    (void)state;
    enum { SEEDS = 40, ROUNDS = 60 };
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world *w = world_open(2 + (unsigned)seed % 4, 1 << 13, seed);
        w->relays = seed & 4;
        bad_network(w);
        w->loss = (unsigned)(seed % 3 * 20);
        w->reordered = (unsigned)(seed % 5 * 20);
        random_seed = seed;
        world_join(w, w->nodes);
        for (int round = 0; round < ROUNDS; round++) {
            unsigned i = (unsigned)(dice(w) % w->nodes), k = (unsigned)(dice(w) % w->nodes);
            for (uint64_t n = dice(w) % 100; n > 0; n--) {
                uint32_t id = 1 + (uint32_t)(dice(w) % 600);
                if (chance(w, 60))
                    claim(w, i, id, (uint8_t)(dice(w) % 3));
                else
                    withdraw(w, i, id);
            }
            if (chance(w, 5))
                restart(w, k);
            w->cut[i][k] = chance(w, 20);
            /* Now and then so long that tombstones are purged. */
            world_run(w, chance(w, 3) ? 2000 * SECOND : dice(w) % (3 * SECOND));
        }
        memset(w->cut, 0, sizeof w->cut);
        world_heal(w, 120 * SECOND);
        assert_model(w);
        assert_silent(w);
        world_close(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heals),
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_purged),
        cmocka_unit_test(test_helped),
        cmocka_unit_test(test_fresh_among_many),
        cmocka_unit_test(test_many_owners),
        cmocka_unit_test(test_differs),
        cmocka_unit_test(test_hold_full),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test_teardown(test_random, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
