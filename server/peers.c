#include "server/peers.h"

static_assert((PEERS_HASH & (PEERS_HASH - 1)) == 0, "positions are masked");
static_assert(PEERS_HASH > 2 * PEERS_MAX, "a search ends soon, at an empty place");
static_assert(PEERS_MAX < PEERS_NONE, "an index and the mark for none are told apart");

/* Not keyed: a lookup is at worst as long as there are beacons, and only who is let into the mesh
 * adds to them. The multiplier is 2^64 divided by the golden ratio. */
static uint32_t place_of(const struct endpoint *at)
{
    const uint64_t multiplier = 0x9e3779b97f4a7c15u;
    uint64_t high, low;
    memcpy(&high, at->ip, 8);
    memcpy(&low, at->ip + 8, 8);
    uint64_t h = (high ^ at->port) * multiplier;
    h = (h ^ h >> 32 ^ low) * multiplier;
    return (uint32_t)(h >> 40) & (PEERS_HASH - 1);
}

/* The slot of who sends from `at`, or the empty one where it would be. */
static uint32_t slot_find(const struct peers *p, const struct endpoint *at)
{
    uint32_t i = place_of(at);
    while (p->slot[i] != 0 && !endpoint_equal(&p->of[p->slot[i] - 1].at, at))
        i = (i + 1) & (PEERS_HASH - 1);
    return i;
}

void peers_index(struct peers *p)
{
    assert(p->count <= PEERS_MAX);
    memset(p->slot, 0, sizeof p->slot);
    for (unsigned i = 0; i < p->count; i++) {
        if (p->of[i].at.port == 0)
            continue;
        uint32_t place = slot_find(p, &p->of[i].at);
        if (p->slot[place] == 0) /* of two at one address the first is found */
            p->slot[place] = (uint16_t)(i + 1);
    }
}

unsigned peers_find(const struct peers *p, const struct endpoint *at)
{
    uint16_t held = p->slot[slot_find(p, at)];
    return held ? held - 1u : PEERS_NONE;
}
