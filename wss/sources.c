#include "wss/sources.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

enum source_kind { SOURCE_IPV4, SOURCE_IPV6_64, SOURCE_IPV6_48 };
enum { KEYS_MAX = 2 }; /* of one connection: its /64 and its /48 */

struct source_key {
    uint64_t prefix; /* as it lies in memory: only compared and hashed */
    uint64_t kind;
};
static_assert(sizeof(struct source_key) == 16, "hashed as bytes: no padding");

struct place {
    struct source_key key;
    unsigned count; /* 0: the place is free */
};

/* Linear probing, at most half full. Deletion moves later keys back, so a search may end at the
 * first free place and nothing has to be swept. */
struct sources {
    struct siphash_key hash_key;
    size_t mask;
    unsigned taken, connections; /* now, and at most */
    struct place place[];
};

/* Returns how many keys `from` has. The first is the one that sources_count is about. */
static unsigned keys_of(const struct endpoint *from, struct source_key ret[static KEYS_MAX])
{
    static const unsigned bits[] = {
        [SOURCE_IPV4] = 32, [SOURCE_IPV6_64] = 64, [SOURCE_IPV6_48] = 48};
    bool v4 = endpoint_is_v4(from);
    unsigned count = v4 ? 1 : 2;
    ret[0].kind = v4 ? SOURCE_IPV4 : SOURCE_IPV6_64;
    ret[1].kind = SOURCE_IPV6_48;
    for (unsigned i = 0; i < count; i++) {
        struct endpoint prefix = endpoint_prefix(from, bits[ret[i].kind]);
        memcpy(&ret[i].prefix, prefix.ip + (v4 ? 8 : 0), sizeof ret[i].prefix);
    }
    return count;
}

static size_t home(const struct sources *s, const struct source_key *key)
{
    return siphash(&s->hash_key, key, sizeof *key) & s->mask;
}

/* The key's place, or the free one where it would be. Ends: half of the places are free. */
static size_t find(const struct sources *s, const struct source_key *key)
{
    size_t at = home(s, key);
    while (s->place[at].count > 0 && memcmp(&s->place[at].key, key, sizeof *key) != 0)
        at = (at + 1) & s->mask;
    return at;
}

/* Frees the place. A later key of the same run moves into the gap if its home is not behind it. */
static void vacate(struct sources *s, size_t gap)
{
    for (size_t at = (gap + 1) & s->mask; s->place[at].count > 0; at = (at + 1) & s->mask) {
        size_t from_home = (at - home(s, &s->place[at].key)) & s->mask;
        if (from_home < ((at - gap) & s->mask))
            continue;
        s->place[gap] = s->place[at];
        gap = at;
    }
    s->place[gap].count = 0;
}

struct sources *sources_new(unsigned connections, struct siphash_key key)
{
    size_t places = 4;
    while (places < 2 * (size_t)KEYS_MAX * connections)
        places *= 2;
    struct sources *s = calloc(1, sizeof *s + places * sizeof *s->place);
    if (!s)
        return NULL;
    s->hash_key = key;
    s->mask = places - 1;
    s->connections = connections;
    return s;
}

void sources_free(struct sources *s)
{
    free(s);
}

bool sources_take(struct sources *s, const struct endpoint *from, unsigned per_ipv4,
                  unsigned per_ipv6_64, unsigned per_ipv6_48)
{
    const unsigned limits[] = {
        [SOURCE_IPV4] = per_ipv4, [SOURCE_IPV6_64] = per_ipv6_64, [SOURCE_IPV6_48] = per_ipv6_48};
    struct source_key keys[KEYS_MAX];
    unsigned count = keys_of(from, keys);
    if (s->taken == s->connections)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (s->place[find(s, &keys[i])].count >= limits[keys[i].kind])
            return false;
    }
    for (unsigned i = 0; i < count; i++) {
        struct place *p = &s->place[find(s, &keys[i])];
        p->key = keys[i];
        p->count++;
    }
    s->taken++;
    return true;
}

void sources_give(struct sources *s, const struct endpoint *from)
{
    struct source_key keys[KEYS_MAX];
    unsigned count = keys_of(from, keys);
    for (unsigned i = 0; i < count; i++) {
        size_t at = find(s, &keys[i]);
        assert(s->place[at].count > 0);
        if (--s->place[at].count == 0)
            vacate(s, at);
    }
    assert(s->taken > 0);
    s->taken--;
}

unsigned sources_count(const struct sources *s, const struct endpoint *from)
{
    struct source_key keys[KEYS_MAX];
    keys_of(from, keys);
    return s->place[find(s, &keys[0])].count;
}
