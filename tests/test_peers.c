#include "tests/rig.h"
#include "server/peers.h"

static struct peers table;

static void add(const char *at)
{
    table.of[table.count++].at = endpoint_at(at);
}

static void test_by_address(void **state)
{
    (void)state;
    static const struct {
        const char *name, *at;
        unsigned want;
    } cases[] = {
        {"the first", "192.0.2.1:9001", 0},
        {"another port of it", "192.0.2.1:9002", 1},
        {"IPv6", "[2001:db8::1]:9001", 3},
        {"of two at one address the first", "198.51.100.1:9001", 4},
        {"the last", "203.0.113.1:9001", 6},
        {"a port that nobody has", "192.0.2.1:9003", PEERS_NONE},
        {"an address that nobody has", "192.0.2.2:9001", PEERS_NONE},
        {"IPv6 that nobody has", "[2001:db8::2]:9001", PEERS_NONE},
        {"port 0 is nobody's, though an index has it", "192.0.2.77:0", PEERS_NONE},
    };
    memset(&table, 0, sizeof table);
    add("192.0.2.1:9001");
    add("192.0.2.1:9002");
    add("192.0.2.77:0");
    add("[2001:db8::1]:9001");
    add("198.51.100.1:9001");
    add("198.51.100.1:9001");
    add("203.0.113.1:9001");
    peers_index(&table);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint at = endpoint_at(cases[i].at);
        unsigned got = peers_find(&table, &at);
        if (got != cases[i].want)
            fail_msg("%s: %u, not %u", cases[i].name, got, cases[i].want);
    }
}

static void test_nobody(void **state)
{
    (void)state;
    struct endpoint at = endpoint_at("192.0.2.1:9001"), zero = {.port = 0};
    memset(&table, 0, sizeof table);
    peers_index(&table);
    assert_int_equal(peers_find(&table, &at), PEERS_NONE);
    assert_int_equal(peers_find(&table, &zero), PEERS_NONE);
    table.count = 3; /* in use, but at no address */
    peers_index(&table);
    assert_int_equal(peers_find(&table, &zero), PEERS_NONE);
}

/* Indexed anew, what was there before is not found. */
static void test_again(void **state)
{
    (void)state;
    struct endpoint old = endpoint_at("192.0.2.1:9001"), new = endpoint_at("192.0.2.1:9009");
    memset(&table, 0, sizeof table);
    add("192.0.2.1:9001");
    peers_index(&table);
    assert_int_equal(peers_find(&table, &old), 0);
    table.of[0].at = new;
    peers_index(&table);
    assert_int_equal(peers_find(&table, &old), PEERS_NONE);
    assert_int_equal(peers_find(&table, &new), 0);
}

/* Full, and with addresses alike: next to each other, one host, one port. Everybody is found, and
 * nobody else. */
static void test_full(void **state)
{
    (void)state;
    for (int shape = 0; shape < 3; shape++) {
        uint64_t seed = 7;
        memset(&table, 0, sizeof table);
        table.count = PEERS_MAX;
        for (unsigned i = 0; i < PEERS_MAX; i++) {
            struct endpoint *at = &table.of[i].at;
            memcpy(at->ip, (uint8_t[16]){[10] = 0xff, [11] = 0xff, 10}, 16);
            at->port = shape == 1 ? (uint16_t)(1 + i) : 9001;
            at->ip[14] = shape == 0 ? (uint8_t)(i >> 8) : 0;
            at->ip[15] = shape == 0 ? (uint8_t)i : 0;
            if (shape == 2) {
                uint64_t n = rig_random(&seed);
                memcpy(at->ip, &n, 8);
            }
        }
        peers_index(&table);
        for (unsigned i = 0; i < PEERS_MAX; i++) {
            struct endpoint stranger = table.of[i].at;
            assert_int_equal(peers_find(&table, &stranger), i);
            stranger.port = (uint16_t)(stranger.port + 20000);
            assert_int_equal(peers_find(&table, &stranger), PEERS_NONE);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_address),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
