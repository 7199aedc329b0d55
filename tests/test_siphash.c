#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>

#include "proto/siphash.h"

/* The paper's key and messages: byte i is i. */
static const struct siphash_key paper_key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

static void counting(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)i;
}

static void test_published_vectors(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        uint64_t want;
    } cases[] = {
        {0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {2, 0x0d6c8009d9a94f5a},
        {7, 0xab0200f58b01d137}, {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5},
    };
    uint8_t bytes[16];
    counting(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(siphash(&paper_key, bytes, cases[i].len) == cases[i].want);
}

/* libsodium has the same function; every length, every alignment, several keys. */
static void test_against_libsodium(void **state)
{
    (void)state;
    uint8_t bytes[264];
    counting(bytes, sizeof bytes);
    for (size_t at = 0; at < 8; at++) {
        struct siphash_key key;
        memcpy(&key, bytes + 16 * at, sizeof key);
        for (size_t len = 0; len <= 256; len++) {
            uint8_t out[crypto_shorthash_BYTES];
            uint64_t want;
            crypto_shorthash(out, bytes + at, len, (const unsigned char *)&key);
            memcpy(&want, out, sizeof want);
            assert_true(siphash(&key, bytes + at, len) == want);
        }
    }
}

static void test_u32(void **state)
{
    (void)state;
    const uint8_t bytes[4] = {0x40, 0xe2, 0x01, 0x00}; /* 123456, little-endian */
    assert_true(siphash_u32(&paper_key, 123456) == siphash(&paper_key, bytes, 4));
    assert_true(siphash_u32(&paper_key, 123456) != siphash_u32(&paper_key, 123457));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_against_libsodium),
        cmocka_unit_test(test_u32),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
