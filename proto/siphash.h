/* siphash - SipHash-2-4 with 64-bit output (Aumasson and Bernstein, 2012), inline.
 *
 * For tables that a stranger fills: without the key nobody can choose ids or addresses that
 * collide. libsodium has the same function, but out of line; a relay computes two of these. */
#ifndef BEACON_PROTO_SIPHASH_H
#define BEACON_PROTO_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct siphash_key {
    uint64_t k0, k1;
};

struct siphash_state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t siphash_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void siphash_round(struct siphash_state *s)
{
    s->v0 += s->v1;
    s->v1 = siphash_rotl(s->v1, 13) ^ s->v0;
    s->v0 = siphash_rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = siphash_rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = siphash_rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = siphash_rotl(s->v1, 17) ^ s->v2;
    s->v2 = siphash_rotl(s->v2, 32);
}

static inline void siphash_block(struct siphash_state *s, uint64_t m)
{
    s->v3 ^= m;
    siphash_round(s);
    siphash_round(s);
    s->v0 ^= m;
}

/* Reads `bytes` as the reference does, little-endian, on the little-endian hosts we run on. */
static inline uint64_t siphash(const struct siphash_key *key, const void *bytes, size_t len)
{
    struct siphash_state s = {
        .v0 = key->k0 ^ 0x736f6d6570736575u,
        .v1 = key->k1 ^ 0x646f72616e646f6du,
        .v2 = key->k0 ^ 0x6c7967656e657261u,
        .v3 = key->k1 ^ 0x7465646279746573u,
    };
    const uint8_t *at = bytes;
    uint64_t m;
    for (size_t left = len; left >= 8; left -= 8, at += 8) {
        memcpy(&m, at, 8);
        siphash_block(&s, m);
    }
    m = 0;
    memcpy(&m, at, len & 7);
    siphash_block(&s, m | (uint64_t)len << 56);
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; i++)
        siphash_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static inline uint64_t siphash_u32(const struct siphash_key *key, uint32_t value)
{
    return siphash(key, &value, sizeof value);
}

#endif
