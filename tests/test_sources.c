#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wss/sources.c"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct siphash_key hash_key = {0x0123456789abcdef, 0xfedcba9876543210};
enum { MANY = 1000 };

static struct endpoint at(const char *text)
{
    struct endpoint e;
    assert_true(endpoint_parse(text, &e));
    return e;
}

static struct sources *sources_of(unsigned connections)
{
    struct sources *s = sources_new(connections, hash_key);
    assert_non_null(s);
    return s;
}

static bool take(struct sources *s, const char *from)
{
    struct endpoint e = at(from);
    return sources_take(s, &e, 2, 3, 5);
}

static void give(struct sources *s, const char *from)
{
    struct endpoint e = at(from);
    sources_give(s, &e);
}

static unsigned count(struct sources *s, const char *from)
{
    struct endpoint e = at(from);
    return sources_count(s, &e);
}

static void test_ipv4(void **state)
{
    (void)state;
    struct sources *s = sources_of(MANY);
    assert_int_equal(count(s, "1.2.3.4:5"), 0);
    assert_true(take(s, "1.2.3.4:5"));
    assert_true(take(s, "1.2.3.4:5"));
    assert_false(take(s, "1.2.3.4:6"));
    assert_int_equal(count(s, "1.2.3.4:7"), 2);
    assert_true(take(s, "1.2.3.5:5")); /* a neighbour is another source */
    assert_true(take(s, "2.2.3.4:5"));
    give(s, "1.2.3.4:5");
    assert_int_equal(count(s, "1.2.3.4:5"), 1);
    assert_true(take(s, "1.2.3.4:5"));
    assert_false(take(s, "1.2.3.4:5"));
    sources_free(s);
}

static void test_ipv6(void **state)
{
    (void)state;
    struct sources *s = sources_of(MANY);
    for (unsigned i = 0; i < 3; i++)
        assert_true(take(s, "[2001:db8:0:1::1]:5"));
    assert_false(take(s, "[2001:db8:0:1:ffff::2]:5")); /* the /64 is full */
    assert_int_equal(count(s, "[2001:db8:0:1:ffff::2]:5"), 3);
    assert_true(take(s, "[2001:db8:0:2::1]:5"));
    assert_true(take(s, "[2001:db8:0:ffff::1]:5"));
    assert_false(take(s, "[2001:db8:0:3::1]:5"));         /* the /48 is full */
    assert_int_equal(count(s, "[2001:db8:0:3::1]:5"), 0); /* and nothing was taken */
    assert_true(take(s, "[2001:db8:1:3::1]:5"));
    give(s, "[2001:db8:0:1::1]:5");
    assert_true(take(s, "[2001:db8:0:3::1]:5"));
    sources_free(s);
}

/* The first bytes of an IPv6 prefix may look like an IPv4 address, or a /64 like its own /48. */
static void test_kinds_are_apart(void **state)
{
    (void)state;
    struct sources *s = sources_of(MANY);
    assert_true(take(s, "[2001:db8::1]:5")); /* /64 and /48 are the same bytes */
    assert_int_equal(count(s, "[2001:db8::1]:5"), 1);
    assert_true(take(s, "1.2.3.4:5"));
    assert_int_equal(count(s, "[0:0:0:ffff:102:304::]:5"), 0);
    assert_int_equal(count(s, "[0:ffff:102:304::]:5"), 0);
    assert_int_equal(count(s, "[::102:304]:5"), 0);
    assert_true(take(s, "[::]:0")); /* what a unix socket's clients are */
    assert_int_equal(count(s, "[::1]:5"), 1);
    assert_int_equal(count(s, "0.0.0.0:5"), 0);
    sources_free(s);
}

static void test_full(void **state)
{
    (void)state;
    struct sources *none = sources_of(0);
    assert_false(take(none, "1.2.3.4:5"));
    sources_free(none);
    struct sources *s = sources_of(2);
    assert_true(take(s, "[2001:db8::]:5"));
    assert_true(take(s, "[2001:db9::]:5"));
    assert_false(take(s, "[2001:db8::]:5"));
    assert_false(take(s, "1.2.3.4:5"));
    give(s, "[2001:db8::]:5");
    assert_true(take(s, "1.2.3.4:5"));
    sources_free(s);
}

static void test_limit_0(void **state)
{
    (void)state;
    struct sources *s = sources_of(MANY);
    struct endpoint v4 = at("1.2.3.4:5"), v6 = at("[2001:db8::]:5");
    assert_false(sources_take(s, &v4, 0, 1, 1));
    assert_false(sources_take(s, &v6, 1, 0, 1));
    assert_false(sources_take(s, &v6, 1, 1, 0));
    assert_true(sources_take(s, &v6, 0, 1, 1));
    assert_true(sources_take(s, &v4, 1, 0, 0));
    sources_free(s);
}

/* --- against a list of all connections --- */

enum { HELD_MAX = 96, OPERATIONS = 100000, PER_IPV4 = 3, PER_64 = 4, PER_48 = 7 };

struct model {
    unsigned count;
    struct endpoint held[HELD_MAX];
};

static uint64_t dice_state = 0x9e3779b97f4a7c15;

static unsigned dice(unsigned sides)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (unsigned)(dice_state >> 33) % sides;
}

/* From few prefixes, so that limits are met, or from many, so that the table fills. */
static struct endpoint any_source(void)
{
    struct endpoint e = {.port = (uint16_t)dice(65536)};
    bool crowd = dice(2) == 0;
    uint8_t v4[4] = {10, 0, (uint8_t)dice(crowd ? 1 : 256), (uint8_t)dice(16)};
    if (dice(2) == 0)
        return endpoint_of(v4, sizeof v4, e.port);
    e.ip[0] = 0x20;
    e.ip[5] = (uint8_t)dice(crowd ? 3 : 256);
    e.ip[7] = (uint8_t)dice(4);
    e.ip[15] = (uint8_t)dice(256);
    return e;
}

static unsigned model_count(const struct model *m, const struct endpoint *from, unsigned bits)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->count; i++)
        n += endpoint_same_prefix(&m->held[i], from, bits);
    return n;
}

static bool model_may(const struct model *m, const struct endpoint *from)
{
    if (m->count == HELD_MAX)
        return false;
    if (endpoint_is_v4(from))
        return model_count(m, from, 32) < PER_IPV4;
    return model_count(m, from, 64) < PER_64 && model_count(m, from, 48) < PER_48;
}

/* Every key can be found from its home, and no place is in use twice. */
static void check_table(const struct sources *s, const struct model *m)
{
    unsigned connections = 0;
    for (size_t i = 0; i <= s->mask; i++) {
        const struct place *p = &s->place[i];
        if (p->count == 0)
            continue;
        assert_int_equal(find(s, &p->key), i);
        connections += p->key.kind == SOURCE_IPV6_48 ? 0 : p->count;
    }
    assert_int_equal(connections, m->count);
    assert_int_equal(s->taken, m->count);
}

static void test_against_a_list(void **state)
{
    (void)state;
    struct sources *s = sources_of(HELD_MAX);
    struct model m = {.count = 0};
    unsigned refused = 0, full = 0;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        /* The tide turns, so that the table is full at times and empty at times. */
        bool rising = i / 500 % 2 == 0;
        struct endpoint e = any_source();
        if (dice(8) < (rising ? 6u : 2u)) {
            bool may = model_may(&m, &e);
            assert_int_equal(sources_take(s, &e, PER_IPV4, PER_64, PER_48), may);
            if (may)
                m.held[m.count++] = e;
            refused += !may;
            full += m.count == HELD_MAX;
        } else if (m.count > 0) {
            unsigned gone = dice(m.count);
            sources_give(s, &m.held[gone]);
            m.held[gone] = m.held[--m.count];
        }
        assert_int_equal(sources_count(s, &e), model_count(&m, &e, endpoint_host_bits(&e)));
        if (i % 64 == 0)
            check_table(s, &m);
    }
    assert_true(refused > OPERATIONS / 100); /* else the dice missed the point */
    assert_true(full > OPERATIONS / 100);
    while (m.count > 0)
        sources_give(s, &m.held[--m.count]);
    check_table(s, &m);
    for (size_t i = 0; i <= s->mask; i++)
        assert_int_equal(s->place[i].count, 0);
    sources_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ipv4),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_kinds_are_apart),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_limit_0),
        cmocka_unit_test(test_against_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
