#include <string.h>
#include "server/memory.h"
#include "server/nursery.h"

enum {
    PERIOD_BITS =
        32, /* per node and period: six times the table's ids leave one in ten wrongly "seen" */
    SECOND_BITS = 4,
    BITS_MIN = 1 << 20, /* a small table is flooded as fast as a large one */
    BITS_MAX = 1 << 26,
    PROBES = 3,
};

struct bloom {
    uint64_t *word;
    uint32_t mask; /* bits - 1, a power of two less one */
};

struct nursery {
    uint32_t period, second; /* what the filters are about */
    struct bloom this_second, this_period, last_period;
};

static uint32_t bits_for(uint32_t nodes, uint32_t each)
{
    uint64_t bits = BITS_MIN;
    while (bits < (uint64_t)nodes * each && bits < BITS_MAX)
        bits *= 2;
    return (uint32_t)bits;
}

size_t nursery_size(uint32_t nodes)
{
    size_t n = 0;
    n += align64(sizeof(struct nursery));
    n += bits_for(nodes, SECOND_BITS) / 8;
    n += 2 * (size_t)(bits_for(nodes, PERIOD_BITS) / 8);
    return n;
}

static struct bloom bloom_take(uint8_t **at, uint32_t bits)
{
    struct bloom b = {.word = (uint64_t *)(void *)*at, .mask = bits - 1};
    *at += bits / 8;
    return b;
}

struct nursery *nursery_init(void *memory, uint32_t nodes)
{
    struct nursery *n = memory;
    uint8_t *at = (uint8_t *)memory + align64(sizeof *n);
    n->this_second = bloom_take(&at, bits_for(nodes, SECOND_BITS));
    n->this_period = bloom_take(&at, bits_for(nodes, PERIOD_BITS));
    n->last_period = bloom_take(&at, bits_for(nodes, PERIOD_BITS));
    return n;
}

/* Probe i of a hash (Kirsch and Mitzenmacher: two hashes do for all). */
static uint32_t bit_of(const struct bloom *b, uint64_t hash, uint32_t i)
{
    return ((uint32_t)hash + i * ((uint32_t)(hash >> 32) | 1)) & b->mask;
}

static bool bloom_has(const struct bloom *b, uint64_t hash)
{
    for (uint32_t i = 0; i < PROBES; i++) {
        uint32_t bit = bit_of(b, hash, i);
        if (!(b->word[bit / 64] >> bit % 64 & 1))
            return false;
    }
    return true;
}

static void bloom_add(struct bloom *b, uint64_t hash)
{
    for (uint32_t i = 0; i < PROBES; i++) {
        uint32_t bit = bit_of(b, hash, i);
        b->word[bit / 64] |= 1ull << bit % 64;
    }
}

static void bloom_clear(struct bloom *b)
{
    memset(b->word, 0, ((size_t)b->mask + 1) / 8);
}

/* Turns the filters to this second and period. */
static void turn(struct nursery *n, uint32_t now_s)
{
    uint32_t period = now_s / NURSERY_PERIOD_S;
    if (n->second != now_s)
        bloom_clear(&n->this_second);
    n->second = now_s;
    if (n->period == period)
        return;
    struct bloom old = n->last_period;
    n->last_period = n->this_period;
    n->this_period = old;
    bloom_clear(&n->this_period);
    if (period - n->period > 1)
        bloom_clear(&n->last_period); /* nobody came for a whole period */
    n->period = period;
}

bool nursery_admits(struct nursery *n, uint64_t hash, uint32_t now_s)
{
    turn(n, now_s);
    if (bloom_has(&n->this_second, hash))
        return false;
    if (bloom_has(&n->this_period, hash) || bloom_has(&n->last_period, hash))
        return true;
    bloom_add(&n->this_second, hash);
    bloom_add(&n->this_period, hash);
    return false;
}

void nursery_defer(struct nursery *n, uint64_t hash, uint32_t now_s)
{
    turn(n, now_s);
    bloom_add(&n->this_second, hash);
}
