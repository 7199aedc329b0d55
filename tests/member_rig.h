/* member_rig - one struct members that a test feeds by hand. */
#ifndef BEACON_TESTS_MEMBER_RIG_H
#define BEACON_TESTS_MEMBER_RIG_H

#include "tests/rig.h"
#include "gossip/member.h"

enum { SELF = 7, BOOT = 100, PINGS = 64 };
#define NOW (5000 * SECOND_NS)
#define MS_NS UINT64_C(1000000)

static inline struct members *open_one(void)
{
    struct members *m = malloc(members_size());
    assert_non_null(m);
    return members_init(m, SELF, BOOT, 42);
}

static inline struct endpoint at_of(uint32_t id)
{
    struct endpoint e = {.ip = {[10] = 0xff, [11] = 0xff, 10, 1, (uint8_t)(id >> 8), (uint8_t)id},
                         .port = 9001};
    return e;
}

static inline struct member_fact fact_of(uint32_t id, uint64_t boot, uint32_t incarnation,
                                         enum member_state state)
{
    return (struct member_fact){id, boot, incarnation, (uint8_t)state, at_of(id)};
}

static inline bool tell(struct members *m, struct member_fact f, uint64_t now_ns)
{
    uint64_t reboot = 77;
    bool news = member_told(m, &f, now_ns, &reboot);
    assert_int_equal(reboot, 0);
    return news;
}

static inline int hear(struct members *m, uint32_t id, uint64_t boot, uint64_t now_ns)
{
    struct endpoint at = at_of(id);
    int index;
    member_heard(m, id, boot, &at, now_ns, &index);
    return index;
}

static inline const struct member_fact *known(const struct members *m, uint32_t id)
{
    int i = member_find(m, id);
    assert_true(i >= 0);
    return &member_at(m, (unsigned)i)->fact;
}

/* Runs all that is due at this time. Returns how many questions there were. */
static inline unsigned tick(struct members *m, uint64_t now_ns,
                            struct member_ping ret[static PINGS])
{
    unsigned n = member_tick(m, now_ns, ret, PINGS);
    assert_in_range(n, 0, PINGS - 1);
    assert_int_equal(member_tick(m, now_ns, ret + n, PINGS - n), 0);
    assert_true(member_next_ns(m) > now_ns);
    return n;
}

/* Goes on to when the next questions are sent. */
static inline uint64_t next_questions(struct members *m, struct member_ping ret[static PINGS],
                                      unsigned *ret_count)
{
    uint64_t at_ns;
    do {
        at_ns = member_next_ns(m);
        *ret_count = tick(m, at_ns, ret);
    } while (*ret_count == 0);
    return at_ns;
}

/* In steps that its clockwork wants; never late. */
static inline void run_until(struct members *m, uint64_t until_ns)
{
    struct member_ping p[PINGS];
    while (member_next_ns(m) < until_ns)
        tick(m, member_next_ns(m), p);
}

/* A table in which nobody is new; its clockwork runs, its next period begins at the result. */
static inline uint64_t quiet(struct members *m, unsigned others)
{
    struct member_ping p[PINGS];
    uint64_t now_ns = NOW;
    tick(m, now_ns, p);
    for (uint32_t id = 1000; id < 1000 + others; id++)
        hear(m, id, 5, now_ns);
    uint64_t next_ns = member_next_ns(m);
    assert_in_range(next_ns - now_ns, MEMBER_PERIOD_NS * 95 / 100, MEMBER_PERIOD_NS * 105 / 100);
    return next_ns;
}

#endif
