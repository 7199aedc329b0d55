#include "proto/mp.h"

#include <assert.h>
#include <string.h>

enum { ENDPOINT_LEN = 18 };

/* --- writing --- */

static int pack_bytes(void *writer, const char *bytes, size_t len)
{
    struct writer *w = writer;
    write_bytes(w, bytes, len);
    return w->bad ? -1 : 0;
}

msgpack_packer mp_packer(struct writer *w)
{
    msgpack_packer p;
    msgpack_packer_init(&p, w, pack_bytes);
    return p;
}

void mp_pack_bin(msgpack_packer *p, const void *bytes, size_t len)
{
    msgpack_pack_bin(p, len);
    msgpack_pack_bin_body(p, bytes, len);
}

void mp_pack_endpoint(msgpack_packer *p, const struct endpoint *e)
{
    uint8_t bytes[ENDPOINT_LEN];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_bytes(&w, e->ip, sizeof e->ip);
    write_u16(&w, e->port);
    mp_pack_bin(p, bytes, sizeof bytes);
}

/* Bytes that the head of an array takes. */
size_t mp_array_head_len(size_t count)
{
    assert(count <= UINT16_MAX);
    return count <= 15 ? 1 : 3;
}

/* --- reading --- */

/* An unsigned number up to `max`, in whichever of the encodings that can hold it: writers differ in
 * which they choose. */
uint64_t mp_number(struct reader *r, uint64_t max)
{
    uint8_t type = read_u8(r);
    uint64_t value = type;
    if (type >= 0xcc && type <= 0xcf) { /* uint 8, 16, 32, 64 */
        value = read_big_endian(r, (size_t)1 << (type - 0xcc));
    } else if (type >= 0xd0 && type <= 0xd3) { /* int 8, 16, 32, 64 */
        size_t len = (size_t)1 << (type - 0xd0);
        value = read_big_endian(r, len);
        r->bad |= value >> (8 * len - 1) != 0; /* negative */
    } else if (type > 0x7f) {
        r->bad = true;
    }
    r->bad |= value > max;
    return r->bad ? 0 : value;
}

uint32_t mp_number32(struct reader *r)
{
    return (uint32_t)mp_number(r, UINT32_MAX);
}

uint64_t mp_number64(struct reader *r)
{
    return mp_number(r, UINT64_MAX);
}

/* The id of a beacon: never 0. */
uint32_t mp_id(struct reader *r)
{
    uint32_t id = mp_number32(r);
    r->bad |= id == 0;
    return id;
}

/* The bytes lie in what is read. NULL only when `bad`. */
const uint8_t *mp_bin(struct reader *r, size_t *ret_len)
{
    uint8_t type = read_u8(r);
    r->bad |= type != 0xc4 && type != 0xc5;
    *ret_len = read_big_endian(r, type == 0xc4 ? 1 : 2);
    return read_bytes(r, *ret_len);
}

const uint8_t *mp_bin_of(struct reader *r, size_t len)
{
    size_t got;
    const uint8_t *bytes = mp_bin(r, &got);
    r->bad |= got != len;
    return r->bad ? NULL : bytes;
}

bool mp_nil(struct reader *r)
{
    if (read_left(r) == 0 || *r->at != 0xc0)
        return false;
    r->at++;
    return true;
}

struct endpoint mp_endpoint(struct reader *r)
{
    struct endpoint e = {.port = 0};
    const uint8_t *bytes = mp_bin_of(r, ENDPOINT_LEN);
    if (!bytes)
        return e;
    struct reader b = reader_of(bytes, ENDPOINT_LEN);
    memcpy(e.ip, read_bytes(&b, sizeof e.ip), sizeof e.ip);
    e.port = read_u16(&b);
    return e;
}

/* How many elements the array says it has: a claim, until they have been read. */
uint32_t mp_array(struct reader *r)
{
    uint8_t type = read_u8(r);
    if (type >= 0x90 && type <= 0x9f)
        return type & 15;
    r->bad |= type != 0xdc && type != 0xdd;
    return (uint32_t)read_big_endian(r, type == 0xdc ? 2 : 4);
}

/* One value, but only the head of an array or map: returns how many values it says are inside. */
static uint64_t skip_head(struct reader *r)
{
    /* 0xc0 to 0xdf: bytes of its length field, bytes besides those that the field counts. */
    static const struct {
        uint8_t length_len, fixed;
    } shape[] = {
        {0, 0}, {0, 0}, {0, 0}, {0, 0},          /* nil, (never used), false, true */
        {1, 0}, {2, 0}, {4, 0},                  /* bin */
        {1, 1}, {2, 1}, {4, 1},                  /* ext, with its type */
        {0, 4}, {0, 8},                          /* float */
        {0, 1}, {0, 2}, {0, 4}, {0, 8},          /* uint */
        {0, 1}, {0, 2}, {0, 4}, {0, 8},          /* int */
        {0, 2}, {0, 3}, {0, 5}, {0, 9}, {0, 17}, /* fixext, with its type */
        {1, 0}, {2, 0}, {4, 0},                  /* str */
        {2, 0}, {4, 0}, {2, 0}, {4, 0},          /* array, map: the field counts values */
    };
    static_assert(sizeof shape == 32 * sizeof *shape, "a row for each of 0xc0 to 0xdf");
    uint8_t type = read_u8(r);
    if (type <= 0x7f || type >= 0xe0) /* small numbers */
        return 0;
    if (type <= 0x8f)
        return 2 * (type & 15u);
    if (type <= 0x9f)
        return type & 15;
    if (type <= 0xbf) {
        read_bytes(r, type & 31);
        return 0;
    }
    r->bad |= type == 0xc1;
    uint64_t length = read_big_endian(r, shape[type - 0xc0].length_len);
    if (type >= 0xdc)
        return type >= 0xde ? 2 * length : length;
    read_bytes(r, length + shape[type - 0xc0].fixed);
    return 0;
}

/* One value with all that is in it, by a stack of fixed depth. Each value inside takes a byte at
 * least, so a count that lies meets the end of the bytes. */
static void skip_value(struct reader *r)
{
    uint64_t left[MP_SKIP_DEPTH + 1] = {1};
    unsigned depth = 0;
    while (!r->bad) {
        if (left[depth] == 0) {
            if (depth-- == 0)
                return;
            continue;
        }
        left[depth]--;
        uint64_t inside = skip_head(r);
        if (inside == 0)
            continue;
        if (depth == MP_SKIP_DEPTH)
            r->bad = true;
        else
            left[++depth] = inside;
    }
}

/* A record is an array of at least `count` elements: opens it, and tells how many more there are;
 * closing it skips them. */
uint32_t mp_open(struct reader *r, uint32_t count)
{
    uint32_t got = mp_array(r);
    r->bad |= got < count;
    return r->bad ? 0 : got - count;
}

void mp_close(struct reader *r, uint32_t more)
{
    for (; more > 0 && !r->bad; more--)
        skip_value(r);
}

/* Read to its last byte, and nothing was wrong. */
bool mp_all_read(const struct reader *r)
{
    return !r->bad && read_left(r) == 0;
}
