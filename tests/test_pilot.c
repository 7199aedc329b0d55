/* Gossip with original beacons: what a Sync does to the store, who may send one, and that ours
 * arrive whole whatever the number of nodes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "gossip/pilot.h"
#include "proto/wire.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SECOND_NS UINT64_C(1000000000)

enum { SELF = 9, ROWS = 300000, OWNER_ROWS = 40000, SYNC_MAX = 7 + 4 * 65535 };

static struct {
    struct store *store;
    struct pilot *pilot;
    uint64_t now_ns;
    uint8_t bytes[SYNC_MAX];
} t;

static struct endpoint at(const char *text)
{
    struct endpoint e;
    if (!endpoint_parse(text, &e))
        fail_msg("%s is no endpoint", text);
    return e;
}

static void set_peers(const char *names)
{
    struct endpoint e[PILOT_PEERS_MAX];
    unsigned count = 0;
    char copy[512], *rest = copy, *name;
    snprintf(copy, sizeof copy, "%s", names);
    while ((name = strsep(&rest, " ")))
        if (*name)
            e[count++] = at(name);
    pilot_set_peers(t.pilot, e, count, t.now_ns);
}

static void begin(bool strict, const char *peers)
{
    t.store = store_init(calloc(1, store_size(ROWS)), ROWS, OWNER_ROWS,
                         (struct siphash_key){.k0 = 1, .k1 = 2});
    store_owner_begin(t.store, STORE_SELF, SELF, 1);
    t.pilot = pilot_init(malloc(pilot_size()), t.store, SELF, strict);
    t.now_ns = 1000 * SECOND_NS;
    set_peers(peers);
}

static void end(void)
{
    free(t.store);
    free(t.pilot);
}

/* A Sync of beacon 7 with ids [first, first + count). */
static size_t make_sync(uint32_t first, unsigned count)
{
    struct writer w = writer_of(t.bytes, sizeof t.bytes);
    write_u8(&w, 0x07);
    write_u32(&w, 7);
    write_u16(&w, (uint16_t)count);
    for (unsigned i = 0; i < count; i++)
        write_u32(&w, first + i);
    return written(&w);
}

static enum pilot_taken sync_of(const char *from, uint32_t first, unsigned count)
{
    struct endpoint e = at(from);
    return pilot_sync(t.pilot, t.bytes, make_sync(first, count), &e, t.now_ns);
}

static void step(double seconds)
{
    t.now_ns += (uint64_t)(seconds * 1e9);
    pilot_tick(t.pilot, t.now_ns);
}

/* Which source has the node, -1: none. */
static int source_of(uint32_t id)
{
    struct holder h = store_best(t.store, id, true);
    return h.owner == STORE_NONE ? -1 : h.owner - STORE_MEMBERS_MAX;
}

static unsigned holds(uint32_t first, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        n += source_of(first + i) >= 0;
    return n;
}

static unsigned live_sources(void)
{
    struct endpoint e;
    uint64_t heard_ns;
    uint32_t beacon;
    unsigned n = 0;
    for (unsigned i = 0; i < pilot_source_count(t.pilot); i++)
        n += pilot_source(t.pilot, i, &e, &heard_ns, &beacon);
    return n;
}

/* --- in --- */

static size_t unhex(const char *hex)
{
    size_t len = 0;
    unsigned byte;
    for (; sscanf(hex + 2 * len, "%2x", &byte) == 1; len++)
        t.bytes[len] = (uint8_t)byte;
    return len;
}

static const struct {
    const char *name, *hex;
    enum pilot_taken want;
    unsigned rows; /* of those that are named: 1, 123456, 4294967295 */
} vectors[] = {
    {"no nodes", "07000000070000", PILOT_TAKEN, 0},
    {"three nodes", "07000000070003000000010001e240ffffffff", PILOT_TAKEN, 3},
    {"bytes behind the last", "07000000070003000000010001e240ffffffffaabbccdd", PILOT_TAKEN, 3},
    {"one fewer announced", "07000000070002000000010001e240ffffffff", PILOT_TAKEN, 2},
    {"one more announced", "07000000070004000000010001e240ffffffff", PILOT_SHORT, 0},
    {"a byte too short", "07000000070003000000010001e240ffffff", PILOT_SHORT, 0},
    {"claims 65535, has 2", "0700000001ffff00000064000000c8", PILOT_SHORT, 0},
    {"head too short", "070000000700", PILOT_SHORT, 0},
    {"another type", "05000000070000", PILOT_SHORT, 0},
    {"nothing", "", PILOT_SHORT, 0},
    {"node 0 is none",
     "0700000007000200000000"
     "0001e240",
     PILOT_TAKEN, 1},
    {"named twice", "070000000700030001e2400001e2400001e240", PILOT_TAKEN, 1},
    {"beacon 0", "0700000000000100000001", PILOT_TAKEN, 1},
    {"beacon 2^32 - 1", "07ffffffff000100000001", PILOT_TAKEN, 1},
    {"our own id", "0700000009000100000001", PILOT_STRANGER, 0},
};

static void test_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        begin(true, "192.0.2.1:9001");
        struct endpoint from = at("192.0.2.1:9001");
        size_t len = unhex(vectors[i].hex);
        int got = (int)pilot_sync(t.pilot, t.bytes, len, &from, t.now_ns);
        unsigned rows = holds(1, 1) + holds(123456, 1) + holds(UINT32_MAX, 1);
        if (got != (int)vectors[i].want || rows != vectors[i].rows || holds(0, 1) != 0)
            fail_msg("%s: %d, %u rows", vectors[i].name, got, rows);
        assert_int_equal(live_sources(), got == PILOT_TAKEN);
        end();
    }
}

static void test_who_may(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001 [2001:db8::1]:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_TAKEN);
    assert_int_equal(sync_of("192.0.2.1:5", 11, 3), PILOT_TAKEN); /* any port */
    assert_int_equal(sync_of("[2001:db8::1]:9001", 21, 3), PILOT_TAKEN);
    assert_int_equal(sync_of("192.0.2.2:9001", 31, 3), PILOT_STRANGER);
    assert_int_equal(sync_of("[2001:db8::2]:9001", 31, 3), PILOT_STRANGER);
    assert_int_equal(live_sources(), 3);
    assert_int_equal(source_of(1), 0);
    assert_int_equal(source_of(11), 1);
    assert_int_equal(source_of(21), 2);
    assert_int_equal(source_of(31), -1);
    struct endpoint e;
    uint64_t heard_ns;
    uint32_t beacon;
    assert_true(pilot_source(t.pilot, 1, &e, &heard_ns, &beacon));
    assert_true(e.port == 5 && heard_ns == t.now_ns && beacon == 7);
    assert_false(pilot_source(t.pilot, 3, &e, &heard_ns, &beacon));
    end();
    begin(false, "");
    assert_int_equal(sync_of("192.0.2.2:9001", 31, 3), PILOT_TAKEN);
    assert_int_equal(holds(31, 3), 3);
    end();
}

static void test_spacing(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_TAKEN);
    t.now_ns += PILOT_SPACING_NS - 1;
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 4), PILOT_LIMITED);
    assert_int_equal(holds(4, 1), 0);
    assert_int_equal(sync_of("192.0.2.1:9002", 4, 1), PILOT_TAKEN); /* another source */
    t.now_ns += 1;
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 5), PILOT_TAKEN);
    assert_int_equal(holds(1, 5), 5);
    end();
}

/* A Sync, then one with `kept` of its 100 rows, `after` seconds later the same again. */
static const struct {
    const char *name;
    unsigned kept;
    double after;
    enum pilot_taken first, second;
    unsigned rows_first, rows_second;
} surprises[] = {
    {"all stay", 100, 10, PILOT_TAKEN, PILOT_TAKEN, 100, 100},
    {"one goes", 99, 10, PILOT_TAKEN, PILOT_TAKEN, 99, 99},
    {"half go", 50, 10, PILOT_TAKEN, PILOT_TAKEN, 50, 50},
    {"more than half, confirmed", 49, 20, PILOT_HELD, PILOT_TAKEN, 100, 49},
    {"more than half, confirmed in time", 49, 11, PILOT_HELD, PILOT_TAKEN, 100, 49},
    {"more than half, too early", 49, 10.999, PILOT_HELD, PILOT_HELD, 100, 100},
    {"all go", 0, 11, PILOT_HELD, PILOT_TAKEN, 100, 0},
    {"all go, too early", 0, 10, PILOT_HELD, PILOT_HELD, 100, 100},
};

static void test_surprises(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(surprises); i++) {
        print_message("%s\n", surprises[i].name);
        begin(true, "192.0.2.1:9001");
        assert_int_equal(sync_of("192.0.2.1:9001", 1, 100), PILOT_TAKEN);
        step(10);
        assert_int_equal(sync_of("192.0.2.1:9001", 1, surprises[i].kept), surprises[i].first);
        assert_int_equal(holds(1, 100), surprises[i].rows_first);
        step(surprises[i].after);
        assert_int_equal(sync_of("192.0.2.1:9001", 1, surprises[i].kept), surprises[i].second);
        assert_int_equal(holds(1, 100), surprises[i].rows_second);
        end();
    }
}

static void test_surprise_adds_and_is_refuted(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 100), PILOT_TAKEN);
    step(10);
    assert_int_equal(sync_of("192.0.2.1:9001", 501, 10), PILOT_HELD); /* what is new is taken */
    assert_int_equal(holds(1, 100) + holds(501, 10), 110);
    step(3);
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 100), PILOT_TAKEN); /* it was a forgery */
    assert_int_equal(holds(1, 100), 100);
    assert_int_equal(holds(501, 10), 0);
    step(3);
    assert_int_equal(sync_of("192.0.2.1:9001", 0, 0), PILOT_HELD); /* counts from here again */
    step(5);
    assert_int_equal(sync_of("192.0.2.1:9001", 0, 0), PILOT_HELD);
    step(6);
    assert_int_equal(sync_of("192.0.2.1:9001", 0, 0), PILOT_TAKEN);
    assert_int_equal(holds(1, 100), 0);
    end();
}

static void test_silence(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 10000), PILOT_TAKEN);
    assert_int_equal(sync_of("192.0.2.1:9002", 20001, 3), PILOT_TAKEN);
    assert_true(pilot_sources_changed(t.pilot));
    assert_false(pilot_sources_changed(t.pilot));
    t.now_ns += 50 * SECOND_NS;
    assert_int_equal(sync_of("192.0.2.1:9002", 20001, 3), PILOT_TAKEN);
    t.now_ns += PILOT_TTL_NS - 50 * SECOND_NS - 1;
    pilot_tick(t.pilot, t.now_ns);
    assert_int_equal(holds(1, 10000), 10000);
    step(1e-9);
    assert_true(pilot_sources_changed(t.pilot));
    assert_int_equal(live_sources(), 1);
    assert_int_equal(source_of(1), -1); /* unusable before all is forgotten */
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_LIMITED);
    for (unsigned i = 0; pilot_next_ns(t.pilot) == 0; i++) {
        assert_true(i < 10);
        step(0);
    }
    assert_int_equal(store_rows(t.store), 3);
    assert_int_equal(holds(20001, 3), 3);
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_TAKEN); /* and back */
    assert_int_equal(source_of(1), 0);
    end();
}

static void settle(void)
{
    for (unsigned i = 0; i < 1000 && pilot_next_ns(t.pilot) == 0; i++)
        pilot_tick(t.pilot, t.now_ns);
    assert_true(pilot_next_ns(t.pilot) != 0);
}

static void test_unnamed(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001 192.0.2.2:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_TAKEN);
    assert_int_equal(sync_of("192.0.2.2:9001", 11, 3), PILOT_TAKEN);
    set_peers("192.0.2.2:7 192.0.2.3:9001"); /* another port, the same address */
    settle();
    assert_int_equal(holds(1, 3), 0);
    assert_int_equal(holds(11, 3), 3);
    assert_int_equal(store_rows(t.store), 3);
    end();
    begin(false, "192.0.2.1:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 3), PILOT_TAKEN);
    assert_int_equal(sync_of("192.0.2.2:9001", 11, 3), PILOT_TAKEN); /* a stranger */
    set_peers("192.0.2.3:9001");
    settle();
    assert_int_equal(holds(1, 3), 0);
    assert_int_equal(holds(11, 3), 3);
    end();
}

/* Syncs from `count` ports of one address; how many were taken. */
static unsigned ports(const char *ip, unsigned first, unsigned count)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < count; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s:%u", ip, first + i);
        taken += sync_of(text, 1 + i, 1) == PILOT_TAKEN;
    }
    return taken;
}

static void test_caps(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001 192.0.2.2:9001 192.0.2.3:9001");
    assert_int_equal(ports("192.0.2.1", 1, 200), PILOT_SOURCES_PER_PEER);
    assert_int_equal(ports("192.0.2.2", 1, 200), STORE_PILOTS_MAX - PILOT_SOURCES_PER_PEER - 1);
    assert_int_equal(ports("192.0.2.3", 1, 200), 1); /* its place was kept */
    assert_int_equal(live_sources(), STORE_PILOTS_MAX);
    end();
    begin(false, "192.0.2.1:9001");
    assert_int_equal(ports("192.0.2.7", 1, 20), 20);
    assert_int_equal(ports("192.0.2.8", 1, 20), 12); /* strangers share theirs */
    assert_int_equal(ports("192.0.2.1", 1, 200), PILOT_SOURCES_PER_PEER);
    set_peers("192.0.2.1:9001 192.0.2.7:9001"); /* no strangers any more */
    assert_int_equal(ports("192.0.2.8", 100, 30), 20);
    end();
}

static void test_too_many_rows(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001");
    assert_int_equal(sync_of("192.0.2.1:9001", 1, 65535), PILOT_TAKEN);
    assert_int_equal(store_owner(t.store, STORE_MEMBERS_MAX)->rows, OWNER_ROWS);
    assert_true(store_owner(t.store, STORE_MEMBERS_MAX)->refused > 0);
    end();
}

/* --- out: an original beacon listens --- */

enum { NODES_MAX = 280000 };
static struct {
    unsigned syncs, nodes, empty;
    size_t longest;
    uint64_t first_ns, last_ns;
    uint16_t route[NODES_MAX]; /* slice + 1, 0: none */
    unsigned lost_now;         /* nodes that were routed and are not */
} there;

/* What spec and source say of a Sync: routes to that source go, then those named come. */
static void listen(unsigned slice, const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    assert_int_equal(read_u8(&r), 0x07);
    assert_int_equal(read_u32(&r), SELF);
    unsigned count = read_u16(&r);
    assert_int_equal(read_left(&r), 4 * count);
    assert_true(len <= 7 + 4 * PILOT_SLICE_MAX);
    there.longest = len > there.longest ? len : there.longest;
    there.empty += count == 0;
    unsigned before = 0, after = 0;
    for (unsigned i = 0; i < NODES_MAX; i++)
        if (there.route[i] == slice + 1) {
            there.route[i] = 0;
            before++;
        }
    there.nodes -= before;
    for (unsigned i = 0; i < count; i++) {
        uint32_t id = read_u32(&r);
        assert_true(id < NODES_MAX);
        after += there.route[id] == 0;
        there.route[id] = (uint16_t)(slice + 1);
    }
    there.nodes += after;
    if (there.syncs++ == 0)
        there.first_ns = t.now_ns;
    there.last_ns = t.now_ns;
}

/* Sends what is due up to then; the first peer listens. Returns the smallest number of nodes that
 * it knew meanwhile. */
static unsigned run_until(uint64_t until_ns)
{
    unsigned least = UINT32_MAX;
    struct endpoint first, to;
    assert_int_equal(pilot_peers(t.pilot, &first, 1), 1);
    while (pilot_next_ns(t.pilot) <= until_ns) {
        const uint8_t *bytes;
        size_t len;
        unsigned slice;
        if (pilot_next_ns(t.pilot) > t.now_ns)
            t.now_ns = pilot_next_ns(t.pilot);
        assert_true(pilot_send(t.pilot, t.now_ns, &to, &slice, &bytes, &len));
        assert_true(slice < pilot_slices(t.pilot));
        if (endpoint_equal(&to, &first)) {
            listen(slice, bytes, len);
            least = there.nodes < least ? there.nodes : least;
        }
    }
    t.now_ns = until_ns;
    return least;
}

static void own(uint32_t first, uint32_t count, bool here)
{
    for (uint32_t i = 0; i < count; i++) {
        if (here)
            assert_true(store_claim(t.store, first + i, 0, t.now_ns));
        else
            store_withdraw(t.store, first + i, t.now_ns);
    }
}

static void test_sends_nothing_too(void **state)
{
    (void)state;
    uint64_t start_ns;
    begin(true, "");
    assert_true(pilot_next_ns(t.pilot) == UINT64_MAX);
    set_peers("192.0.2.1:9001");
    memset(&there, 0, sizeof there);
    start_ns = t.now_ns;
    assert_true(pilot_next_ns(t.pilot) == start_ns); /* at once */
    run_until(start_ns + 35 * SECOND_NS);
    assert_int_equal(there.syncs, 4); /* at 0, 10, 20, 30 s */
    assert_int_equal(there.empty, 4);
    assert_int_equal(there.longest, 7);
    assert_true(there.last_ns == start_ns + 30 * SECOND_NS);
    assert_int_equal(pilot_slices(t.pilot), 1);
    t.now_ns += 1000 * SECOND_NS; /* asleep */
    run_until(t.now_ns + 5 * SECOND_NS);
    assert_int_equal(there.syncs, 5);
    set_peers("");
    assert_true(pilot_next_ns(t.pilot) == UINT64_MAX);
    end();
}

static void test_schedule(void **state)
{
    (void)state;
    uint64_t heard[3][2] = {{0}};
    const uint8_t *bytes;
    size_t len;
    unsigned slice, sent = 0;
    struct endpoint to;
    begin(true, "192.0.2.1:1 192.0.2.1:2 192.0.2.1:3 192.0.2.1:2");
    own(1, 6000, true); /* two slices */
    uint64_t end_ns = t.now_ns + 10 * PILOT_PERIOD_NS;
    while ((t.now_ns = pilot_next_ns(t.pilot)) < end_ns) {
        assert_true(pilot_send(t.pilot, t.now_ns, &to, &slice, &bytes, &len));
        uint64_t *last = &heard[to.port - 1][slice];
        assert_true(*last == 0 || t.now_ns - *last == PILOT_PERIOD_NS);
        *last = t.now_ns;
        sent++;
    }
    assert_int_equal(sent, 10 * 3 * 2);
    end();
}

static const struct {
    unsigned nodes, slices;
} cuts[] = {{0, 1},       {1, 1},       {4096, 1},     {4097, 2},    {8192, 2},
            {8193, 4},    {16375, 4},   {16385, 8},    {65536, 16},  {65537, 32},
            {131072, 32}, {131073, 64}, {262145, 128}, {270000, 128}};

static void test_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cuts); i++) {
        begin(true, "192.0.2.1:9001 192.0.2.2:9001");
        own(1, cuts[i].nodes, true);
        memset(&there, 0, sizeof there);
        run_until(t.now_ns + PILOT_PERIOD_NS - 1);
        assert_int_equal(there.syncs, cuts[i].slices);
        assert_int_equal(pilot_slices(t.pilot), cuts[i].slices);
        assert_int_equal(there.nodes, cuts[i].nodes);
        /* Slices are of about one size: six standard deviations for the least even. */
        if (cuts[i].slices > 1)
            assert_true(there.longest < 7 + 4 * (PILOT_SLICE_NODES + 6 * 64));
        end();
    }
}

/* While the number of slices rises and falls the peer always knows every node that stays. */
static void test_never_a_gap(void **state)
{
    (void)state;
    static const unsigned steps[] = {100,  5000, 30000, 70000, 70000, 20000, 8000,
                                     3000, 1500, 900,   900,   900,   40000, 100};
    unsigned have = 100;
    begin(true, "192.0.2.1:9001 192.0.2.2:9001");
    own(1, have, true);
    memset(&there, 0, sizeof there);
    run_until(t.now_ns + PILOT_PERIOD_NS - 1);
    for (size_t i = 0; i < COUNT(steps); i++) {
        unsigned stay = steps[i] < have ? steps[i] : have;
        if (steps[i] > have)
            own(1 + have, steps[i] - have, true);
        else
            own(1 + steps[i], have - steps[i], false);
        have = steps[i];
        unsigned least = run_until(t.now_ns + PILOT_PERIOD_NS);
        assert_true(least >= stay);
        for (unsigned round = 0; round < 9; round++) {
            least = run_until(t.now_ns + PILOT_PERIOD_NS);
            assert_true(least >= have);
        }
        assert_int_equal(there.nodes, have);
        for (uint32_t id = 1; id < NODES_MAX; id++)
            assert_int_equal(there.route[id] != 0, id <= have);
    }
    assert_int_equal(pilot_slices(t.pilot), 1);
    end();
}

/* Hysteresis: around a limit the number of slices does not go back and forth. */
static void test_hysteresis(void **state)
{
    (void)state;
    begin(true, "192.0.2.1:9001");
    own(1, 4097, true);
    for (unsigned i = 0; i < 20; i++) {
        own(4000, 98, i % 2);
        run_until(t.now_ns + PILOT_PERIOD_NS);
        assert_int_equal(pilot_slices(t.pilot), i == 0 ? 1 : 2);
    }
    own(1, 4097 - 2048, false);
    run_until(t.now_ns + 3 * PILOT_PERIOD_NS);
    assert_int_equal(pilot_slices(t.pilot), 2);
    own(2050, 1, false);
    run_until(t.now_ns + 4 * PILOT_PERIOD_NS);
    assert_int_equal(pilot_slices(t.pilot), 1);
    end();
}

/* Ids chosen so that all of them meet in few slices: none is lost, no slice is too long. */
static void test_chosen_ids(void **state)
{
    (void)state;
    const uint8_t *bytes;
    size_t len, ids = 0;
    unsigned slice;
    struct endpoint to;
    uint32_t found = 0;
    begin(true, "192.0.2.1:9001");
    for (uint32_t id = 1; found < 40000; id++) {
        uint32_t h = (id ^ id >> 16) * 0x85ebca6bu;
        h = (h ^ h >> 13) * 0xc2b2ae35u;
        if (((h ^ h >> 16) & 15) == 3) {
            assert_true(store_claim(t.store, id, 0, t.now_ns));
            found++;
        }
    }
    for (uint64_t end_ns = t.now_ns + PILOT_PERIOD_NS; pilot_next_ns(t.pilot) < end_ns;) {
        t.now_ns = pilot_next_ns(t.pilot);
        assert_true(pilot_send(t.pilot, t.now_ns, &to, &slice, &bytes, &len));
        assert_true(len <= 7 + 4 * PILOT_SLICE_MAX);
        ids += (len - 7) / 4;
    }
    assert_int_equal(ids, 40000);
    end();
}

/* --- in, against a model: a set a source, kept by hand --- */

enum { MODEL_IDS = 64, MODEL_SOURCES = 4 };
static struct {
    bool known, held, has[MODEL_IDS];
    uint64_t heard_ns, held_ns;
} model[MODEL_SOURCES];

static enum pilot_taken model_sync(unsigned s, uint64_t set)
{
    unsigned before = 0, missing = 0;
    if (model[s].known && t.now_ns - model[s].heard_ns < PILOT_SPACING_NS)
        return PILOT_LIMITED;
    model[s].known = true;
    model[s].heard_ns = t.now_ns;
    for (unsigned i = 0; i < MODEL_IDS; i++) {
        before += model[s].has[i];
        missing += model[s].has[i] && !(set >> i & 1);
    }
    bool surprise = 2 * missing > before;
    bool goes = !surprise || (model[s].held && t.now_ns - model[s].held_ns >= PILOT_CONFIRM_NS);
    for (unsigned i = 0; i < MODEL_IDS; i++)
        model[s].has[i] = (set >> i & 1) || (!goes && model[s].has[i]);
    if (!goes && !model[s].held)
        model[s].held_ns = t.now_ns;
    model[s].held = !goes;
    return goes ? PILOT_TAKEN : PILOT_HELD;
}

static void model_expire(void)
{
    for (unsigned s = 0; s < MODEL_SOURCES; s++)
        if (model[s].known && t.now_ns - model[s].heard_ns >= PILOT_TTL_NS)
            memset(&model[s], 0, sizeof model[s]);
}

static uint64_t draw(uint64_t *random)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return *random * 0x2545f4914f6cdd1du;
}

static void check_model(unsigned turn)
{
    for (unsigned i = 0; i < MODEL_IDS; i++) {
        bool want = false;
        for (unsigned s = 0; s < MODEL_SOURCES; s++)
            want = want || model[s].has[i];
        if ((source_of(1 + i) >= 0) != want)
            fail_msg("turn %u: id %u is %d", turn, 1 + i, !want);
    }
}

static void test_model(void **state)
{
    (void)state;
    uint64_t random = 20260101;
    unsigned seen[PILOT_LIMITED + 1] = {0};
    begin(true, "192.0.2.1:9001");
    memset(model, 0, sizeof model);
    for (unsigned turn = 0; turn < 20000; turn++) {
        static const double pauses[] = {0.1, 0.4, 1, 2, 5, 10, 40, 95};
        unsigned s = (unsigned)(draw(&random) % MODEL_SOURCES);
        uint64_t set = draw(&random) | draw(&random);
        if (draw(&random) % 4 == 0)
            set &= draw(&random) & draw(&random);
        struct endpoint from = at("192.0.2.1:1");
        from.port = (uint16_t)(from.port + s);
        struct writer w = writer_of(t.bytes, sizeof t.bytes);
        write_u8(&w, 7);
        write_u32(&w, 1 + s);
        write_u16(&w, (uint16_t)__builtin_popcountll(set));
        for (unsigned i = 0; i < MODEL_IDS; i++)
            if (set >> i & 1)
                write_u32(&w, 1 + i);
        enum pilot_taken want = model_sync(s, set);
        enum pilot_taken got = pilot_sync(t.pilot, t.bytes, written(&w), &from, t.now_ns);
        if (got != want)
            fail_msg("turn %u: %d, not %d", turn, got, want);
        seen[got]++;
        step(pauses[draw(&random) % (turn % 50 == 0 ? 8 : 6)]);
        settle();
        model_expire();
        check_model(turn);
    }
    assert_true(seen[PILOT_TAKEN] > 1000 && seen[PILOT_HELD] > 100 && seen[PILOT_LIMITED] > 100);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_who_may),
        cmocka_unit_test(test_spacing),
        cmocka_unit_test(test_surprises),
        cmocka_unit_test(test_surprise_adds_and_is_refuted),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_unnamed),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_too_many_rows),
        cmocka_unit_test(test_sends_nothing_too),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_never_a_gap),
        cmocka_unit_test(test_hysteresis),
        cmocka_unit_test(test_chosen_ids),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
