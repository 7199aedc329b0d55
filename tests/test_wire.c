#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/wire.h"

static void test_read_in_order(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct reader r = reader_of(bytes, sizeof bytes);
    assert_int_equal(read_u8(&r), 0x01);
    assert_int_equal(read_u16(&r), 0x0203);
    assert_int_equal(read_u32(&r), 0x04050607);
    assert_true(read_u64(&r) == 0x08090a0b0c0d0e0f);
    assert_false(r.bad);
    assert_int_equal(read_left(&r), 0);
}

/* For every length, the last read that fits is right and the first that does not sticks. */
static void test_short_read_sticks(void **state)
{
    (void)state;
    const uint8_t bytes[9] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99};
    const size_t sizes[] = {1, 2, 4, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t len = 0; len <= 8; len++) {
            struct reader r = reader_of(bytes, len);
            uint64_t value = read_big_endian(&r, sizes[i]);
            assert_int_equal(r.bad, len < sizes[i]);
            assert_true(r.bad ? value == 0 : value >> (8 * (sizes[i] - 1)) == 0x11);
            assert_int_equal(read_left(&r), r.bad ? len : len - sizes[i]);
            if (!r.bad)
                continue;
            assert_int_equal(read_u8(&r), 0); /* though a byte may be left */
            assert_null(read_bytes(&r, 0));
            assert_ptr_equal(r.at, bytes);
        }
    }
}

static void test_read_bytes(void **state)
{
    (void)state;
    const uint8_t bytes[4] = {1, 2, 3, 4};
    struct reader r = reader_of(bytes, sizeof bytes);
    assert_ptr_equal(read_bytes(&r, 0), bytes);
    assert_ptr_equal(read_bytes(&r, 3), bytes);
    assert_null(read_bytes(&r, SIZE_MAX)); /* no sum that wraps */
    assert_true(r.bad);
    assert_int_equal(read_left(&r), 1);
}

static void test_sub_reader_is_fenced(void **state)
{
    (void)state;
    const uint8_t bytes[4] = {1, 2, 3, 4};
    struct reader r = reader_of(bytes, sizeof bytes);
    struct reader sub = read_sub(&r, 2);
    assert_int_equal(read_u16(&sub), 0x0102);
    assert_int_equal(read_u8(&sub), 0); /* the next byte is the outer reader's */
    assert_true(sub.bad);
    assert_false(r.bad);
    sub = read_sub(&r, 3);
    assert_true(sub.bad);
    assert_true(r.bad);
    assert_int_equal(read_left(&sub), 0);
}

static void test_write_in_order(void **state)
{
    (void)state;
    const uint8_t want[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
    uint8_t bytes[sizeof want];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_u8(&w, 0x01);
    write_u16(&w, 0x0203);
    write_u32(&w, 0x04050607);
    write_u64(&w, 0x08090a0b0c0d0e0f);
    write_bytes(&w, "\x10\x11", 2);
    assert_int_equal(written(&w), sizeof want); /* to the last byte */
    assert_memory_equal(bytes, want, sizeof want);
}

static void test_write_beyond_sticks(void **state)
{
    (void)state;
    uint8_t bytes[4] = {0, 0, 0, 0xee};
    struct writer w = writer_of(bytes, 3);
    write_u16(&w, 0x0102);
    assert_int_equal(written(&w), 2);
    write_u16(&w, 0x0304); /* one byte too many: nothing of it is written */
    assert_true(w.bad);
    assert_int_equal(bytes[2], 0);
    write_u8(&w, 5); /* would fit, but half a message is no message */
    assert_int_equal(bytes[2], 0);
    assert_int_equal(bytes[3], 0xee);
    assert_int_equal(written(&w), 0);
}

static void test_write_room(void **state)
{
    (void)state;
    uint8_t bytes[4];
    struct writer w = writer_of(bytes, sizeof bytes);
    assert_ptr_equal(write_room(&w, 4), bytes);
    write_bytes(&w, NULL, 0);
    assert_int_equal(written(&w), 4);
    assert_null(write_room(&w, SIZE_MAX));
    assert_true(w.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_in_order),  cmocka_unit_test(test_short_read_sticks),
        cmocka_unit_test(test_read_bytes),     cmocka_unit_test(test_sub_reader_is_fenced),
        cmocka_unit_test(test_write_in_order), cmocka_unit_test(test_write_beyond_sticks),
        cmocka_unit_test(test_write_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
