#include <errno.h>
#include "tests/rig_mesh.h"

#define STUN "000100002112a442000102030405060708090a0b"
#define ZEROS_16 "00000000000000000000000000000000"
#define GOSSIP "20000000" ZEROS_16 ZEROS_16 ZEROS_16 ZEROS_16
#define SYNC "07000000070000"

/* An id that lane `owner` owns. */
static uint32_t id_of(const struct rig *r, unsigned owner, uint32_t after)
{
    for (uint32_t id = after + 1;; id++)
        if (rig_owner(r, id) == owner)
            return id;
}

static uint64_t sum(const struct rig *r, size_t offset)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < r->server->lane_count; i++) {
        const uint8_t *stats = (const uint8_t *)&r->server->lane[i]->stats;
        n += count_read((const counter *)(const void *)(stats + offset));
    }
    return n;
}
#define SUM(r, field) sum((r), offsetof(struct lane_stats, field))

static void test_dispatch(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        enum verdict want;
        const char *answer; /* NULL: none */
    } cases[] = {
        {"", VERDICT_DROPPED_EMPTY, NULL},
        {"010001e240", VERDICT_DISCOVER_NEW, "0204cb0071079c40"},
        {"080001e240", VERDICT_DISCOVER_REFRESHED, "0204cb0071079c40"},
        {"010001e240cb0071071f90", VERDICT_DISCOVER_REFRESHED, "0204cb0071079c40"}, /* M5 */
        {"0100000000", VERDICT_DISCOVER_ID_ZERO, "0204cb0071079c40"},
        {"010001e2", VERDICT_DROPPED_SHORT, NULL}, /* M1 */
        {"0204cb0071079c40", VERDICT_DROPPED_FOR_NODES, NULL},
        {"030001e2400009fbf1", VERDICT_PUNCH_UNKNOWN_TARGET, NULL},
        {"030001e240", VERDICT_DROPPED_SHORT, NULL},
        {"0404c63364090fa0", VERDICT_DROPPED_FOR_NODES, NULL},
        {"050001e2400009fbf1", VERDICT_RELAY_NO_ROUTE, NULL},
        {"050001e2400009fb", VERDICT_DROPPED_SHORT, NULL}, /* M2 */
        {"060001e240", VERDICT_DROPPED_FOR_NODES, NULL},
        {"0700000001ffff00000064000000c8", VERDICT_SYNC_UNSUPPORTED, NULL}, /* M3 */
        {"07000000070000", VERDICT_SYNC_UNSUPPORTED, NULL},
        {"090001e2400009fbf1", VERDICT_DROPPED_FOR_NODES, NULL},
        {"0a01", VERDICT_DROPPED_FOR_NODES, NULL},
        {"0b", VERDICT_DROPPED_UNKNOWN_TYPE, NULL},
        {"50494c50", VERDICT_DROPPED_UNKNOWN_TYPE, NULL},
        {"ff", VERDICT_DROPPED_UNKNOWN_TYPE, NULL},
        {GOSSIP, VERDICT_GOSSIP_UNSUPPORTED, NULL},
        {"20", VERDICT_DROPPED_SHORT, NULL},
        {STUN, VERDICT_STUN_ANSWERED,
         "0101000c2112a442000102030405060708090a0b002000080001bd52ea12d545"},
        {"00", VERDICT_STUN_DROPPED_MALFORMED, NULL},
        {"001100002112a442000102030405060708090a0b", VERDICT_STUN_DROPPED_INDICATION, NULL},
        {"010100002112a442000102030405060708090a0b", VERDICT_STUN_DROPPED_REFLECTED, NULL},
    };
    struct rig r;
    rig_open(&r, 1, 100);
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_verdict(rig_hex(&r, 0, AT_A, cases[i].hex), cases[i].want, cases[i].hex);
        assert_int_equal(r.out.count, cases[i].answer != NULL);
        if (cases[i].answer)
            assert_sent(&r, 0, AT_A, cases[i].answer);
        assert_verdict(rig_hex(&r, 0, "203.0.113.7:0", cases[i].hex), VERDICT_DROPPED_BAD_SOURCE,
                       "port 0");
        assert_int_equal(r.out.count, 0);
        rig_step(&r, 1);
    }
    assert_int_equal(rig_verdicts(&r), r.received);
    rig_close(&r);
}

/* Refused or not, whoever asks learns its address: only the budget silences. */
static void test_always_answered(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    rig_node(&r, AT_A, NODE_A);
    assert_verdict(rig_node(&r, AT_B, NODE_A), VERDICT_DISCOVER_CONFLICT, "conflict");
    assert_sent(&r, 0, AT_B, "0204c63364090fa0");
    r.rules.nodes_per_ipv4 = 1;
    assert_verdict(rig_node(&r, AT_A, 77), VERDICT_DISCOVER_QUOTA, "quota");
    assert_sent(&r, 0, AT_A, "0204cb0071079c40");
    r.rules.nodes_per_ipv4 = 0;
    r.rules.nursery_percent = 1;
    assert_verdict(rig_node(&r, AT_B, 78), VERDICT_DISCOVER_NURSERY, "nursery");
    assert_int_equal(r.out.count, 1);
    r.rules.nursery_percent = 0;
    r.rules.allow_private = PRIVATE_NO;
    assert_verdict(rig_node(&r, "10.0.0.1:9", 79), VERDICT_DISCOVER_ADDRESS_DENIED, "denied");
    assert_sent(&r, 0, "10.0.0.1:9", "02040a0000010009");
    assert_verdict(rig_node(&r, "[2001:db8::1]:40000", 0), VERDICT_DISCOVER_ID_ZERO, "zero");
    assert_sent(&r, 0, "[2001:db8::1]:40000", "021020010db80000000000000000000000019c40"); /* V5 */
    r.rules.allow_private = PRIVATE_YES;
    r.rules.reply_rate = (struct rate){1, 1};
    assert_verdict(rig_node(&r, "192.0.2.1:9", 80), VERDICT_DISCOVER_NEW, "within the budget");
    assert_verdict(rig_node(&r, "192.0.2.1:9", 81), VERDICT_DISCOVER_LIMITED, "over it");
    assert_int_equal(r.out.count, 0);
    assert_string_equal(rig_where(&r, 81), "192.0.2.1:9"); /* registered all the same */
    assert_verdict(rig_hex(&r, 0, "192.0.2.1:9", STUN), VERDICT_STUN_REPLY_LIMITED, "one budget");
    assert_int_equal(r.out.count, 0);
    rig_close(&r);
}

static void test_answer_leaves_from_local(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    r.local = 5;
    rig_node(&r, AT_A, NODE_A);
    assert_int_equal(r.out.out[0].local, 5);
    struct datagram d = rig_datagram(&r, "[fe80::1]:7", 5);
    memcpy(r.bytes, (uint8_t[]){1, 0, 0, 0, 9}, 5);
    d.scope = 3;
    r.out.count = 0;
    server_prefetch(r.server->lane[0], &d);
    assert_verdict(server_input(r.server->lane[0], &d, &r.now, &r.out),
                   VERDICT_DISCOVER_ADDRESS_DENIED, "link-local");
    assert_int_equal(r.out.out[0].scope, 3);
    rig_close(&r);
}

/* Whichever lane gets it, the owner decides it, once. */
static void test_mail(void **state)
{
    (void)state;
    for (unsigned lanes = 2; lanes <= 4; lanes++) {
        struct rig r;
        rig_open(&r, lanes, 1000);
        for (uint32_t id = 1; id <= 200; id++) {
            uint8_t discover[5] = {1, 0, 0, 0, (uint8_t)id};
            unsigned lane = id % lanes, owner = rig_owner(&r, id);
            struct lane *l = r.server->lane[lane];
            enum verdict v = rig_input(&r, lane, AT_A, discover, sizeof discover);
            assert_verdict(v, lane == owner ? VERDICT_DISCOVER_NEW : VERDICT_PASSED, "Discover");
            assert_int_equal(l->wake, lane == owner ? 0 : 1ull << owner);
            l->wake = 0;
            if (lane == owner)
                continue;
            assert_int_equal(r.out.count, 0);
            assert_string_equal(rig_where(&r, id), "");
            assert_false(server_mail(r.server->lane[owner], &r.now, &r.out));
            assert_sent(&r, 0, AT_A, "0204cb0071079c40");
            assert_string_equal(rig_where(&r, id), AT_A);
        }
        assert_int_equal(rig_count(&r, VERDICT_DISCOVER_NEW), 200);
        assert_int_equal(rig_verdicts(&r), r.received);
        assert_int_equal(SUM(&r, mail_passed), SUM(&r, mail_taken));
        assert_true(SUM(&r, mail_passed) > 0);
        rig_close(&r);
    }
}

/* Everything that decides travels with the letter: source, scope, key, grant, service address. */
static void test_mail_is_whole(void **state)
{
    (void)state;
    struct rig r;
    struct route route;
    uint8_t got[MSG_KEY_LEN];
    rig_open(&r, 2, 100);
    uint32_t id = id_of(&r, 1, 0);
    uint8_t discover[100] = {8};
    for (unsigned i = 1; i < sizeof discover; i++)
        discover[i] = (uint8_t)(i < 5 ? id >> (32 - 8 * i) : i);
    r.local = 9;
    assert_verdict(rig_input(&r, 0, AT_A, discover, sizeof discover), VERDICT_PASSED, "Discover");
    server_mail(r.server->lane[1], &r.now, &r.out);
    assert_true(server_find(r.server, id, &route));
    assert_int_equal(route.local, 9);
    assert_int_equal(route.flags, ROUTE_WANTS_DEST | ROUTE_HAS_KEY);
    assert_true(route_find_key(r.server->lane[1]->routes, id, got));
    assert_memory_equal(got, discover + 5, sizeof got);
    /* allow-private auto: whether the service address is global travels too. */
    r.rules.allow_private = PRIVATE_AUTO;
    uint32_t next = id_of(&r, 1, id);
    for (int global = 1; global >= 0; global--) {
        uint8_t again[5] = {1, 0, 0, (uint8_t)(next >> 8), (uint8_t)next};
        r.local_is_global = global;
        assert_verdict(rig_input(&r, 0, AT_A, again, sizeof again), VERDICT_PASSED, "again");
        server_mail(r.server->lane[1], &r.now, &r.out);
        assert_string_equal(rig_where(&r, next), global ? "" : AT_A);
    }
    /* A punch from there: two commands out of one letter. */
    r.rules.allow_private = PRIVATE_YES;
    uint8_t punch[MSG_PUNCH_LEN];
    struct writer w = writer_of(punch, sizeof punch);
    write_punch(&w, &(struct msg_punch){.requester = id, .target = next});
    assert_verdict(rig_input(&r, 0, AT_A, punch, sizeof punch), VERDICT_PASSED, "punch");
    server_mail(r.server->lane[1], &r.now, &r.out);
    assert_int_equal(r.out.count, 2);
    assert_int_equal(rig_verdicts(&r), r.received);
    rig_close(&r);
}

static void test_mailbox_full(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 2, 100);
    uint32_t id = id_of(&r, 1, 0);
    uint8_t discover[5] = {1, 0, 0, (uint8_t)(id >> 8), (uint8_t)id};
    for (int i = 0; i < MAIL_SLOTS; i++)
        assert_int_equal(rig_input(&r, 0, AT_A, discover, 5), VERDICT_PASSED);
    for (int i = 0; i < 10; i++)
        assert_int_equal(rig_input(&r, 0, AT_A, discover, 5), VERDICT_DROPPED_MAILBOX_FULL);
    assert_int_equal(rig_count(&r, VERDICT_DROPPED_MAILBOX_FULL), 10);
    /* More letters than one outbox takes: the owner says so and comes back. */
    unsigned turns = 0, sent = 0;
    bool more;
    do {
        r.out.count = 0;
        more = server_mail(r.server->lane[1], &r.now, &r.out);
        assert_true(r.out.count <= OUTBOX_MAX);
        sent += r.out.count;
        turns++;
    } while (more);
    assert_int_equal(sent, MAIL_SLOTS);
    assert_true(turns > 1);
    assert_int_equal(rig_verdicts(&r), r.received);
    assert_int_equal(rig_input(&r, 0, AT_A, discover, 5), VERDICT_PASSED);
    rig_close(&r);
}

static unsigned notified(struct rig *r, unsigned lane)
{
    r->out.count = 0;
    assert_false(server_mail(r->server->lane[lane], &r->now, &r->out));
    for (unsigned i = 0; i < r->out.count; i++)
        assert_sent(r, i, AT_A, "0a01"); /* V16 */
    return r->out.count;
}

static void test_notify(void **state)
{
    (void)state;
    struct rig r;
    unsigned lane = 77;
    rig_open(&r, 4, 100);
    r.rules.notify_rate = (struct rate){1, 1};
    assert_int_equal(server_notify(r.server, NODE_A, &lane), -ENOENT);
    assert_int_equal(server_notify(r.server, 0, &lane), -ENOENT);
    assert_int_equal(lane, 77);
    r.local = 4;
    rig_node(&r, AT_A, NODE_A);
    assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    assert_int_equal(lane, rig_owner(&r, NODE_A));
    assert_int_equal(notified(&r, lane), 1);
    assert_int_equal(r.out.out[0].local, 4);
    rig_step(&r, SECOND_NS - 1);
    assert_int_equal(server_notify(r.server, NODE_A, &lane), 0); /* spaced, and not an error */
    assert_int_equal(notified(&r, lane), 0);
    rig_step(&r, 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    assert_int_equal(notified(&r, lane), 1);
    assert_int_equal(SUM(&r, notified), 2);
    assert_int_equal(SUM(&r, notify_skipped), 5);
    /* Gone between the call and its turn. */
    rig_step(&r, 10 * SECOND_NS);
    assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    assert_true(route_remove(r.server->lane[lane]->routes, NODE_A));
    assert_int_equal(notified(&r, lane), 0);
    assert_int_equal(SUM(&r, notify_skipped), 6);
    rig_node(&r, AT_A, NODE_A);
    for (int i = 0; i < MAIL_SLOTS; i++)
        assert_int_equal(server_notify(r.server, NODE_A, &lane), 0);
    lane = 77;
    assert_int_equal(server_notify(r.server, NODE_A, &lane), -ENOBUFS);
    assert_int_equal(lane, 77);
    assert_int_equal(rig_verdicts(&r), r.received); /* calls are no datagrams */
    rig_close(&r);
}

static void test_rules_settle(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 3, 100);
    struct rules next = r.rules;
    next.allow_private = PRIVATE_NO;
    assert_true(server_rules_settled(r.server));
    server_set_rules(r.server, &next);
    for (unsigned i = 0; i < 3; i++) {
        assert_false(server_rules_settled(r.server));
        assert_ptr_equal(r.server->lane[i]->rules, &r.rules);
        server_begin(r.server->lane[i]);
        assert_ptr_equal(r.server->lane[i]->rules, &next);
    }
    assert_true(server_rules_settled(r.server));
    assert_verdict(rig_node(&r, "10.0.0.1:5", NODE_A), VERDICT_DISCOVER_ADDRESS_DENIED, "new");
    rig_close(&r);
}

/* The edge's lane reads rules too: its thread must have seen the new ones. */
static void test_rules_settle_at_the_edge(void **state)
{
    (void)state;
    struct rig r;
    rig_open_sessions(&r, 2, 100);
    struct rules next = r.rules;
    assert_true(server_rules_settled(r.server));
    server_set_rules(r.server, &next);
    server_begin(r.server->lane[0]);
    server_begin(r.server->lane[1]);
    assert_false(server_rules_settled(r.server));
    assert_ptr_equal(r.server->edge->rules, &r.rules);
    server_begin(r.server->edge);
    assert_true(server_rules_settled(r.server));
    assert_ptr_equal(r.server->edge->rules, &next);
    rig_close(&r);
}

/* Without a listener for sessions there is no lane for them, and no memory. */
static void test_edge_only_when_wanted(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct config c;
        struct rules rules = {.node_ttl_s = 600};
        uint8_t seed[64] = {1};
        bool wanted = i > 0;
        config_init(&c);
        c.has_wss = c.has_wss_plain = false;
        size_t without = server_size(&c, 2);
        c.has_wss = i & 1;
        c.has_wss_plain = i & 2;
        size_t size = server_size(&c, 2);
        assert_int_equal(size >= without + 3 * handoff_size(), wanted);
        assert_int_equal(size > without, wanted);
        void *memory = aligned_alloc(64, size);
        assert_non_null(memory);
        memset(memory, 0, size);
        struct server *s = server_init(memory, &c, 2, &rules, seed);
        assert_int_equal(s->edge != NULL, wanted);
        for (unsigned l = 0; l < 2; l++)
            assert_int_equal(s->lane[l]->handoff != NULL, wanted);
        if (wanted) {
            assert_int_equal(s->edge->index, s->lane_count);
            assert_non_null(s->edge->handoff);
            assert_int_equal(route_capacity(s->edge->routes), 0);
        }
        free(memory);
    }
}

/* Without other beacons nothing is taken for them; with them there are a lane, and ways to it. */
static void test_mesh_only_when_wanted(void **state)
{
    (void)state;
    static const struct {
        const char *name, *peers, *keys, *registry;
        uint32_t beacon_id;
        bool sessions, wanted;
    } cases[] = {
        {"alone", "", "", "", 0, false, false},
        {"alone, with sessions", "", "", "", 0, true, false},
        {"a peer", "192.0.2.1", "", "", 0, false, true},
        {"a peer and sessions", "192.0.2.1", "", "", 0, true, true},
        {"keys", "", "keys", "", 5, false, true},
        {"a registry", "", "", "127.0.0.1:9000", 5, false, true},
        {"a registry for lookups only", "", "", "127.0.0.1:9000", 0, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct config c;
        struct rules rules = {.node_ttl_s = 600};
        uint8_t seed[64] = {1};
        config_init(&c);
        c.max_nodes = 100;
        c.max_routes = 1000;
        c.has_wss = cases[i].sessions;
        size_t without = server_size(&c, 2);
        snprintf(c.peers, sizeof c.peers, "%s", cases[i].peers);
        snprintf(c.gossip_keys, sizeof c.gossip_keys, "%s", cases[i].keys);
        snprintf(c.registry, sizeof c.registry, "%s", cases[i].registry);
        c.beacon_id = cases[i].beacon_id;
        size_t size = server_size(&c, 2);
        assert_int_equal(size > without, cases[i].wanted);
        void *memory = aligned_alloc(64, size);
        assert_non_null(memory);
        memset(memory, 0, size);
        struct server *s = server_init(memory, &c, 2, &rules, seed);
        if ((s->mesh != NULL) != cases[i].wanted)
            fail_msg("%s", cases[i].name);
        assert_int_equal(server_lanes(s), 2 + cases[i].sessions + cases[i].wanted);
        for (unsigned l = 0; l < server_lanes(s); l++) {
            const struct lane *lane = server_lane(s, l);
            bool shard = l < 2;
            assert_int_equal(lane->index, l);
            assert_int_equal(lane->handoff != NULL, cases[i].sessions);
            assert_int_equal(lane->to_mesh != NULL, cases[i].wanted && shard);
            assert_int_equal(lane->journal != NULL, cases[i].wanted && shard);
            assert_int_equal(route_capacity_beacon(lane->routes) >= 500, cases[i].wanted && shard);
            assert_int_equal(route_capacity(lane->routes) >= 50, shard);
        }
        assert_ptr_equal(server_lane(s, 2), cases[i].sessions ? s->edge : s->mesh);
        if (cases[i].wanted)
            assert_ptr_equal(server_lane(s, server_lanes(s) - 1), s->mesh);
        free(memory);
    }
}

/* The old peers may go when each lane, the mesh's and the edge's too, has begun a batch since. */
static void test_peers_settle(void **state)
{
    (void)state;
    static struct peers first, second;
    struct rig r;
    rig_open_mesh(&r, 2, 100, 100, true);
    assert_int_equal(server_lanes(r.server), 4);
    assert_true(server_peers_settled(r.server)); /* NULL is what all have */
    struct peers *next[] = {&first, &second, NULL, &first};
    for (size_t n = 0; n < COUNT(next); n++) {
        server_set_peers(r.server, next[n]);
        for (unsigned i = 0; i < 4; i++) {
            struct lane *l = server_lane(r.server, i);
            assert_false(server_peers_settled(r.server));
            assert_ptr_not_equal(l->peers, next[n]);
            server_begin(l);
            assert_ptr_equal(l->peers, next[n]);
        }
        assert_true(server_peers_settled(r.server));
        assert_true(server_rules_settled(r.server));
    }
    struct rules rules = r.rules; /* rules wait for the mesh's lane too */
    server_set_rules(r.server, &rules);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(server_rules_settled(r.server));
        server_begin(server_lane(r.server, i));
    }
    assert_true(server_rules_settled(r.server));
    rig_close(&r);
}

static void assert_gossip_passed(struct lane *l, const char *from, const char *hex)
{
    struct handoff_message m;
    struct endpoint at = endpoint_at(from);
    char text[512];
    assert_true(l->wake_mesh);
    l->wake_mesh = false;
    assert_true(handoff_peek(l->to_mesh, &m));
    assert_int_equal(m.node_id, TO_MESH_FROM);
    assert_int_equal(m.len, sizeof at);
    assert_memory_equal(m.bytes, &at, sizeof at);
    handoff_drop(l->to_mesh);
    assert_true(handoff_peek(l->to_mesh, &m));
    assert_int_equal(m.node_id, TO_MESH_BYTES);
    assert_string_equal(sodium_bin2hex(text, sizeof text, m.bytes, m.len), hex);
    handoff_drop(l->to_mesh);
    assert_false(handoff_peek(l->to_mesh, &m));
}

/* Gossip that the kernel gave to a shard goes to the mesh's thread, from whomever it is; what the
 * mesh's own thread is asked to decide is refused, and so is gossip from a bad source. */
static void test_gossip_is_passed_on(void **state)
{
    (void)state;
    static const char *const messages[] = {GOSSIP, SYNC, "07", "0700000001ffff00000064000000c8"};
    struct rig r;
    struct handoff_message m;
    rig_open_mesh(&r, 2, 100, 100, false);
    r.local = 3;
    for (size_t i = 0; i < COUNT(messages); i++)
        for (unsigned lane = 0; lane < 2; lane++) {
            assert_verdict(rig_hex(&r, lane, AT_A, messages[i]), VERDICT_PASSED, messages[i]);
            assert_int_equal(r.out.count, 0);
            assert_gossip_passed(r.server->lane[lane], AT_A, messages[i]);
        }
    assert_verdict(rig_hex(&r, 0, "224.0.0.1:9", GOSSIP), VERDICT_DROPPED_BAD_SOURCE, "multicast");
    assert_verdict(rig_hex(&r, 0, AT_A, "20000000"), VERDICT_DROPPED_SHORT, "short");
    assert_false(r.server->lane[0]->wake_mesh);
    assert_false(handoff_peek(r.server->lane[0]->to_mesh, &m));
    static const enum verdict refusals[] = {VERDICT_GOSSIP_UNSUPPORTED, VERDICT_SYNC_UNSUPPORTED};
    for (size_t i = 0; i < 2; i++) {
        size_t len;
        assert_int_equal(sodium_hex2bin(r.bytes, sizeof r.bytes, messages[i], strlen(messages[i]),
                                        NULL, &len, NULL),
                         0);
        struct datagram d = rig_datagram(&r, AT_A, len);
        server_prefetch(r.server->mesh, &d);
        assert_verdict(server_input(r.server->mesh, &d, &r.now, &r.out), refusals[i], messages[i]);
    }
    rig_close(&r);
}

static void test_gossip_queue_full(void **state)
{
    (void)state;
    struct rig r;
    struct handoff_message m;
    rig_open_mesh(&r, 1, 100, 100, false);
    struct lane *l = r.server->lane[0];
    unsigned passed = 0;
    while (rig_hex(&r, 0, AT_A, GOSSIP) == VERDICT_PASSED)
        passed++;
    assert_true(passed > 5000); /* 1 MiB of 68 bytes each */
    assert_int_equal(rig_count(&r, VERDICT_GOSSIP_QUEUE_FULL), 1);
    l->wake_mesh = false;
    assert_verdict(rig_hex(&r, 0, AT_A, SYNC), VERDICT_GOSSIP_QUEUE_FULL, "full");
    assert_false(l->wake_mesh);
    unsigned whole = 0, from = 0;
    for (; handoff_peek(l->to_mesh, &m); handoff_drop(l->to_mesh)) {
        from += m.node_id == TO_MESH_FROM;
        whole += m.node_id == TO_MESH_BYTES;
    }
    assert_int_equal(whole, passed); /* of the others it has the source at most */
    assert_true(from >= whole && from <= whole + 2);
    assert_verdict(rig_hex(&r, 0, AT_A, GOSSIP), VERDICT_PASSED, "empty again");
    assert_gossip_passed(l, AT_A, GOSSIP);
    rig_close(&r);
}

/* The mesh's lane decides like any other, and owns nothing: registrations go to their owner. */
static void test_mesh_lane_decides(void **state)
{
    (void)state;
    static struct peers p;
    struct rig r;
    rig_open_mesh(&r, 2, 100, 100, true);
    rig_peers(&r, &p);
    assert_verdict(rig_node(&r, AT_B, NODE_B), VERDICT_DISCOVER_NEW, "B");
    struct lane *l = r.server->mesh;
    static const uint8_t relay[] = {5, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1, 'x'};
    static const uint8_t discover[] = {1, 0, 1, 0xe2, 0x40};
    memcpy(r.bytes, relay, sizeof relay);
    struct datagram d = rig_datagram(&r, AT_PEER_1, sizeof relay);
    r.out.count = 0;
    server_begin(l);
    server_prefetch(l, &d);
    assert_verdict(server_input(l, &d, &r.now, &r.out), VERDICT_RELAY_FROM_BEACON, "relay");
    assert_sent(&r, 0, AT_B, "060001e24078");
    memcpy(r.bytes, discover, sizeof discover);
    d = rig_datagram(&r, AT_A, sizeof discover);
    server_prefetch(l, &d);
    assert_verdict(server_input(l, &d, &r.now, &r.out), VERDICT_PASSED, "discover");
    assert_int_equal(l->wake, 1ull << rig_owner(&r, NODE_A));
    rig_mail(&r);
    assert_string_equal(rig_where(&r, NODE_A), AT_A);
    struct session s = rig_session(77, "192.0.2.50:5", ROUTE_SIGNED, 9);
    assert_true(rig_here(&r, &s));
    memcpy(r.bytes, (uint8_t[]){5, 0, 0, 0, 1, 0, 0, 0, 77, 'x'}, 10);
    d = rig_datagram(&r, AT_PEER_1, 10);
    server_prefetch(l, &d);
    assert_verdict(server_input(l, &d, &r.now, &r.out), VERDICT_RELAY_FROM_BEACON, "to a session");
    assert_true(l->wake_edge);
    assert_handed(l, 77, "060000000178");
    server_tick(l, &r.now);
    assert_int_equal(count_read(&l->stats.ticks), 1);
    rig_close(&r);
}

/* Letters about other beacons' nodes. */
static void test_route_letters(void **state)
{
    (void)state;
    struct rig r;
    struct route route;
    rig_open_mesh(&r, 2, 100, 4, false); /* each of the two lanes gets some more than a half */
    for (unsigned lane = 0; lane < 2; lane++) {
        struct lane *l = r.server->lane[lane];
        uint32_t room = route_capacity_beacon(l->routes), id = 0;
        struct mail mail = {.kind = MAIL_ROUTES_SET, .node_id = 7, .class_ = ROUTE_KEYED};
        assert_true(room >= 2 && room + 1 <= 2 * MAIL_IDS_MAX);
        uint32_t ids[2 * MAIL_IDS_MAX];
        for (uint32_t n = 0; n <= room; n++) { /* one more than there is room for */
            ids[n] = id = id_of(&r, lane, id);
            if (!mail_add_id(&mail, id)) {
                assert_true(mailbox_put(l->mailbox, &mail));
                mail.len = 0;
                assert_true(mail_add_id(&mail, id));
            }
        }
        assert_true(mailbox_put(l->mailbox, &mail));
        rig_mail(&r);
        assert_int_equal(count_read(&l->stats.routes_set), room);
        assert_int_equal(count_read(&l->stats.routes_refused), 1);
        for (uint32_t n = 0; n <= room; n++) {
            assert_int_equal(server_find_way(r.server, ids[n], &route), n < room);
            assert_false(server_find(r.server, ids[n], &route));
        }
        assert_true(server_find_way(r.server, ids[0], &route));
        assert_int_equal(route_beacon(&route), 7);
        assert_int_equal(route_beacon_class(&route), ROUTE_KEYED);
        assert_false(route_beacon_stream(&route));
        server_tick(l, &r.now);
        assert_int_equal(count_read(&l->stats.nodes_beacon), room);
        assert_int_equal(count_read(&l->stats.nodes_v6), 0);
        rig_route(&r, MAIL_ROUTES_GONE, ids[0], 8); /* another's */
        assert_int_equal(rig_beacon_of(&r, ids[0]), 7);
        rig_route(&r, MAIL_ROUTES_SET, ids[0], 8); /* it moves there */
        assert_int_equal(rig_beacon_of(&r, ids[0]), 8);
        rig_route(&r, MAIL_ROUTES_GONE, ids[0], 7); /* late news */
        assert_int_equal(rig_beacon_of(&r, ids[0]), 8);
        rig_route(&r, MAIL_ROUTES_GONE, ids[0], 8);
        assert_int_equal(rig_beacon_of(&r, ids[0]), PEERS_NONE);
        rig_route(&r, MAIL_ROUTES_GONE, ids[1], PEERS_NONE); /* whoever had it */
        assert_int_equal(rig_beacon_of(&r, ids[1]), PEERS_NONE);
        assert_int_equal(count_read(&l->stats.received), 0);
    }
    assert_int_equal(rig_verdicts(&r), 0); /* letters are no datagrams */
    rig_close(&r);
}

/* A letter that names id 0, which is nobody's, does nothing. */
static void test_route_letter_about_nobody(void **state)
{
    (void)state;
    struct rig r;
    struct route route;
    rig_open_mesh(&r, 1, 100, 100, false);
    rig_route(&r, MAIL_ROUTES_SET, 0, 1);
    rig_route(&r, MAIL_ROUTES_GONE, 0, PEERS_NONE);
    assert_false(server_find_way(r.server, 0, &route));
    assert_int_equal(route_count_beacon(r.server->lane[0]->routes), 0);
    assert_int_equal(count_read(&r.server->lane[0]->stats.routes_set), 0);
    rig_close(&r);
}

/* A node of ours that another beacon has too lives on while it is heard, and else not for long. */
static void test_claimed_elsewhere(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool claimed, heard_after;
        unsigned silent_s;
        bool there;
    } cases[] = {
        {"claimed, within takeover-silence", true, false, 90, true},
        {"claimed, past it", true, false, 130, false},
        {"claimed and heard since", true, true, 130, true},
        {"not claimed", false, false, 130, true},
        {"not claimed, past node-ttl", false, false, 640, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rig r;
        rig_open_mesh(&r, 1, 100, 100, false);
        server_tick(r.server->lane[0], &r.now);
        rig_node(&r, AT_A, NODE_A);
        if (cases[i].claimed)
            rig_route(&r, MAIL_ROUTES_SET, NODE_A, 1);
        assert_string_equal(rig_where(&r, NODE_A), AT_A);
        if (cases[i].heard_after)
            assert_verdict(rig_node(&r, AT_A, NODE_A), VERDICT_DISCOVER_REFRESHED, "refresh");
        for (unsigned s = 0; s < cases[i].silent_s; s += 2) {
            rig_step(&r, 2 * SECOND_NS);
            server_tick(r.server->lane[0], &r.now);
        }
        if ((*rig_where(&r, NODE_A) != '\0') != cases[i].there)
            fail_msg("%s", cases[i].name);
        assert_int_equal(count_read(&r.server->lane[0]->stats.routes_refused), 0);
        rig_close(&r);
    }
}

/* The mesh hears of nodes that come and go, and is woken. */
static void test_journal_of_a_lane(void **state)
{
    (void)state;
    struct rig r;
    struct journal_entry e;
    rig_open_mesh(&r, 1, 100, 100, false);
    struct lane *l = r.server->lane[0];
    server_tick(l, &r.now);
    rig_node(&r, AT_A, NODE_A);
    assert_true(l->wake_mesh && journal_take(l->journal, &e));
    assert_true(e.id == NODE_A && !e.gone && e.class_ == ROUTE_UNVERIFIED && !e.stream);
    l->wake_mesh = false;
    rig_node(&r, AT_A, NODE_A);
    rig_node(&r, "203.0.113.7:40001", NODE_A); /* the NAT has rebound */
    assert_false(l->wake_mesh || journal_take(l->journal, &e));
    rig_step(&r, 91 * SECOND_NS);
    rig_node(&r, AT_B, NODE_A); /* another holder: it goes and comes */
    assert_true(journal_take(l->journal, &e) && e.gone && journal_take(l->journal, &e) && !e.gone);
    l->wake_mesh = false;
    for (int s = 0; s < 700; s++) {
        rig_step(&r, SECOND_NS);
        server_tick(l, &r.now);
    }
    assert_true(l->wake_mesh && journal_take(l->journal, &e) && e.gone && e.id == NODE_A);
    assert_false(journal_take(l->journal, &e));
    assert_int_equal(journal_lost(l->journal), 0);
    rig_close(&r);
}

/* What stood in a table before is put back as it was, but for sessions and others' nodes. */
static void test_restore(void **state)
{
    (void)state;
    static const struct {
        const char *name, *at;
        uint32_t id;
        uint8_t class_, flags;
        bool taken;
    } cases[] = {
        {"plain", AT_A, 1, ROUTE_UNVERIFIED, 0, true},
        {"with what it was", AT_B, 2, ROUTE_SIGNED, ROUTE_WANTS_DEST | ROUTE_AGE_ONE, true},
        {"IPv6", "[2001:db8::1]:7", 3, ROUTE_UNVERIFIED, ROUTE_AGE, true},
        {"a session", AT_A, 4, ROUTE_KEYED, ROUTE_STREAM, false},
        {"another beacon's", AT_A, 5, ROUTE_BEACON, 0, false},
        {"id 0", AT_A, 0, ROUTE_UNVERIFIED, 0, false},
        {"port 0", "192.0.2.1:0", 6, ROUTE_UNVERIFIED, 0, false},
    };
    for (unsigned lanes = 1; lanes <= 3; lanes++)
        for (size_t i = 0; i < COUNT(cases) * 2; i++) {
            struct rig r;
            size_t k = i / 2;
            uint8_t key[MSG_KEY_LEN] = {42}, held[MSG_KEY_LEN];
            struct route got, route = {.id = cases[k].id,
                                       .seen_s = 1234,
                                       .at = endpoint_at(cases[k].at),
                                       .local = 2,
                                       .class_ = cases[k].class_,
                                       .flags = cases[k].flags | ROUTE_HAS_KEY};
            rig_open_mesh(&r, lanes, 100, 100, true);
            bool with_key = i & 1;
            bool taken = server_restore(r.server, &route, with_key ? key : NULL);
            if (taken != cases[k].taken || server_find(r.server, route.id, &got) != taken)
                fail_msg("%s: %d", cases[k].name, taken);
            if (taken) {
                const struct lane *l = r.server->lane[rig_owner(&r, route.id)];
                assert_int_equal(got.seen_s, 1234);
                assert_int_equal(got.local, 2);
                assert_int_equal(got.class_, cases[k].class_);
                assert_int_equal(got.flags, cases[k].flags | (with_key ? ROUTE_HAS_KEY : 0));
                assert_true(endpoint_equal(&got.at, &route.at));
                assert_int_equal(route_find_key(l->routes, route.id, held), with_key);
                assert_int_equal(count_read(&l->stats.received), 0);
                assert_true(!with_key || memcmp(held, key, sizeof key) == 0);
            }
            rig_close(&r);
        }
    struct rig r;
    struct route route = {.id = 1, .at = endpoint_at(AT_A)};
    rig_open(&r, 1, 3);
    for (; route.id <= 3; route.id++)
        assert_true(server_restore(r.server, &route, NULL));
    assert_false(server_restore(r.server, &route, NULL)); /* full: the others were first */
    rig_close(&r);
}

/* Not a byte beyond what was asked for is touched; a sanitizer would see it. */
static void test_size(void **state)
{
    (void)state;
    static const uint32_t nodes[] = {1, 10, 1000, 33333};
    for (size_t n = 0; n < 4 * COUNT(nodes); n++)
        for (unsigned lanes = 1; lanes <= 4; lanes++) {
            struct config c;
            struct rules rules = {.node_ttl_s = 600};
            uint8_t seed[64] = {1};
            config_init(&c);
            c.max_nodes = c.max_routes = nodes[n / 4];
            c.has_wss = n & 1;
            c.peers[0] = n & 2 ? 'x' : '\0';
            size_t size = server_size(&c, lanes);
            assert_int_equal(size % 64, 0);
            uint8_t *memory = aligned_alloc(64, size + 64);
            assert_non_null(memory);
            memset(memory, 0, size);
            memset(memory + size, 0xa5, 64);
            struct server *s = server_init(memory, &c, lanes, &rules, seed);
            uint64_t room = 0, remote = 0;
            for (unsigned i = 0; i < lanes; i++) {
                room += route_capacity(s->lane[i]->routes);
                remote += route_capacity_beacon(s->lane[i]->routes);
            }
            assert_true(room >= nodes[n / 4]);
            assert_true(n & 2 ? remote >= nodes[n / 4] : remote == 0);
            struct moment now = {.ns = 1};
            for (unsigned i = 0; i < server_lanes(s); i++)
                server_tick(server_lane(s, i), &now);
            for (int i = 0; i < 64; i++)
                assert_int_equal(memory[size + (size_t)i], 0xa5);
            free(memory);
        }
}

/* max-nodes ids fit, however they fall on the lanes. */
static void test_max_nodes_fit(void **state)
{
    (void)state;
    static const uint32_t maxima[] = {1, 7, 100, 5000};
    for (size_t m = 0; m < COUNT(maxima); m++)
        for (unsigned lanes = 1; lanes <= 4; lanes++) {
            struct rig r;
            rig_open(&r, lanes, maxima[m]);
            uint64_t seed = 17;
            for (uint32_t n = 0; n < maxima[m]; n++) {
                char from[ENDPOINT_TEXT_MAX];
                snprintf(from, sizeof from, "10.%u.%u.1:9", n >> 8, n & 255);
                uint32_t id = (uint32_t)(rig_random(&seed) >> 32) | 1;
                assert_verdict(rig_node(&r, from, id), VERDICT_DISCOVER_NEW, from);
            }
            assert_int_equal(SUM(&r, evicted), 0);
            rig_close(&r);
        }
}

static void test_service_index(void **state)
{
    (void)state;
    struct rig r;
    uint8_t ip[16] = {0xfd};
    rig_open(&r, 1, 100);
    struct service *s = &r.server->service;
    assert_false(service_has(s, ip));
    assert_int_equal(service_index(s, ip), 1);
    assert_int_equal(service_index(s, ip), 1);
    assert_true(service_has(s, ip));
    for (unsigned i = 1; i < SERVICE_MAX; i++) {
        ip[15] = (uint8_t)i;
        assert_int_equal(service_index(s, ip), i + 1);
    }
    for (int i = 0; i < 3; i++) {
        ip[14] = (uint8_t)(1 + i);
        assert_int_equal(service_index(s, ip), 0); /* full */
        assert_false(service_has(s, ip));
    }
    ip[14] = 0;
    ip[15] = 200;
    assert_int_equal(service_index(s, ip), 201);
    rig_close(&r);
}

static void test_service_busy(void **state)
{
    (void)state;
    struct rig r;
    uint8_t ip[16] = {0xfd};
    rig_open(&r, 1, 100);
    struct service *s = &r.server->service;
    assert_false(atomic_flag_test_and_set(&s->claim)); /* another thread is adding one */
    assert_int_equal(service_index(s, ip), 0);
    atomic_flag_clear(&s->claim);
    assert_int_equal(service_index(s, ip), 1);
    assert_false(atomic_flag_test_and_set(&s->claim));
    assert_int_equal(service_index(s, ip), 1); /* known ones need no claim */
    rig_close(&r);
}

/* Ticks at any pace: a silent node is gone a period (30 s) after its time, never before. */
static void test_expiry(void **state)
{
    (void)state;
    static const uint64_t steps_ns[] = {SECOND_NS, SECOND_NS / 4, 7 * SECOND_NS};
    for (size_t i = 0; i < COUNT(steps_ns); i++) {
        struct rig r;
        rig_open(&r, 2, 1000);
        for (uint32_t id = 1; id <= 800; id++)
            rig_node(&r, id % 2 ? AT_A : "[2001:db8::1]:40000", id);
        uint64_t start_ns = r.now.ns;
        while (r.now.ns - start_ns <= 700 * SECOND_NS) {
            for (unsigned l = 0; l < 2; l++)
                server_tick(r.server->lane[l], &r.now);
            uint64_t passed_s = (r.now.ns - start_ns) / SECOND_NS;
            if (passed_s <= 600)
                assert_int_equal(SUM(&r, nodes_v4) + SUM(&r, nodes_v6), 800);
            if (passed_s <= 590 && passed_s % 100 == 0)
                assert_int_equal(SUM(&r, nodes_v4), 400);
            rig_step(&r, steps_ns[i]);
        }
        assert_int_equal(SUM(&r, nodes_v4) + SUM(&r, nodes_v6), 0);
        assert_int_equal(SUM(&r, expired), 800);
        assert_string_equal(rig_where(&r, 1), "");
        rig_close(&r);
    }
}

static void test_tick_gauges(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, 1, 100);
    rig_node(&r, AT_A, 1);
    rig_node(&r, AT_A, 2);
    rig_node(&r, "[2001:db8::1]:1", 3);
    server_tick(r.server->lane[0], &r.now);
    assert_int_equal(SUM(&r, nodes_v4), 2);
    assert_int_equal(SUM(&r, nodes_v6), 1);
    assert_int_equal(SUM(&r, tick_ns), r.now.ns);
    assert_int_equal(SUM(&r, ticks), 1);
    rig_step(&r, 90 * SECOND_NS);
    rig_node(&r, "[2001:db8::2]:1", 2); /* changes its family */
    server_tick(r.server->lane[0], &r.now);
    assert_int_equal(SUM(&r, nodes_v4), 1);
    assert_int_equal(SUM(&r, nodes_v6), 2);
    rig_close(&r);
}

/* What is remembered about the last source never answers for another one. */
static void test_source_changes(void **state)
{
    (void)state;
    static const char *const from[] = {AT_A, "203.0.113.7:0", AT_B, "224.0.0.1:1", AT_A, AT_B};
    struct rig r;
    rig_open(&r, 1, 100);
    rig_node(&r, AT_A, NODE_A);
    rig_node(&r, AT_B, NODE_B);
    for (size_t i = 0; i < 10 * COUNT(from); i++) {
        size_t k = (i * 7) % COUNT(from);
        bool bad = k == 1 || k == 3;
        bool is_a = k == 0 || k == 4;
        uint32_t claimed = i & 1 ? NODE_A : NODE_B;
        enum verdict v = rig_relay(&r, 0, from[k], claimed, NODE_A);
        bool proven = is_a == (claimed == NODE_A);
        assert_verdict(v,
                       bad      ? VERDICT_DROPPED_BAD_SOURCE
                       : proven ? VERDICT_RELAY_FORWARDED
                                : VERDICT_RELAY_FORWARDED_UNPROVEN,
                       from[k]);
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_always_answered),
        cmocka_unit_test(test_answer_leaves_from_local),
        cmocka_unit_test(test_mail),
        cmocka_unit_test(test_mail_is_whole),
        cmocka_unit_test(test_mailbox_full),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_rules_settle),
        cmocka_unit_test(test_rules_settle_at_the_edge),
        cmocka_unit_test(test_edge_only_when_wanted),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_max_nodes_fit),
        cmocka_unit_test(test_service_index),
        cmocka_unit_test(test_service_busy),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_tick_gauges),
        cmocka_unit_test(test_mesh_only_when_wanted),
        cmocka_unit_test(test_peers_settle),
        cmocka_unit_test(test_gossip_is_passed_on),
        cmocka_unit_test(test_gossip_queue_full),
        cmocka_unit_test(test_mesh_lane_decides),
        cmocka_unit_test(test_route_letters),
        cmocka_unit_test(test_route_letter_about_nobody),
        cmocka_unit_test(test_claimed_elsewhere),
        cmocka_unit_test(test_journal_of_a_lane),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_source_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
