/* wire - bounded big-endian cursors over one message.
 *
 * Holds: at <= end. The first read or write that does not fit sets `bad`; from then on reads give
 * zero and move nothing, writes do nothing, so a codec runs to its end and tests `bad` once.
 * Borrows the bytes, owns nothing, lives on one stack. */
#ifndef BEACON_PROTO_WIRE_H
#define BEACON_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static inline struct reader reader_of(const uint8_t *bytes, size_t len)
{
    return (struct reader){.at = bytes, .end = bytes + len};
}

static inline size_t read_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

/* The next `len` bytes, or NULL (and `bad`) when fewer are left. */
static inline const uint8_t *read_bytes(struct reader *r, size_t len)
{
    if (r->bad || len > read_left(r)) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *bytes = r->at;
    r->at += len;
    return bytes;
}

/* A reader over the next `len` bytes: it cannot look past its own block. */
static inline struct reader read_sub(struct reader *r, size_t len)
{
    const uint8_t *bytes = read_bytes(r, len);
    if (!bytes)
        return (struct reader){.at = r->at, .end = r->at, .bad = true};
    return reader_of(bytes, len);
}

static inline uint64_t read_big_endian(struct reader *r, size_t len)
{
    const uint8_t *bytes = read_bytes(r, len);
    uint64_t value = 0;
    for (size_t i = 0; bytes && i < len; i++)
        value = value << 8 | bytes[i];
    return value;
}

static inline uint8_t read_u8(struct reader *r)
{
    return (uint8_t)read_big_endian(r, 1);
}

static inline uint16_t read_u16(struct reader *r)
{
    return (uint16_t)read_big_endian(r, 2);
}

static inline uint32_t read_u32(struct reader *r)
{
    return (uint32_t)read_big_endian(r, 4);
}

static inline uint64_t read_u64(struct reader *r)
{
    return read_big_endian(r, 8);
}

struct writer {
    uint8_t *start, *at, *end;
    bool bad;
};

static inline struct writer writer_of(uint8_t *bytes, size_t capacity)
{
    return (struct writer){.start = bytes, .at = bytes, .end = bytes + capacity};
}

/* Bytes written so far; 0 once `bad`, so that half a message is never sent. */
static inline size_t written(const struct writer *w)
{
    return w->bad ? 0 : (size_t)(w->at - w->start);
}

/* Room for `len` bytes that the caller fills, or NULL (and `bad`) when they do not fit. */
static inline uint8_t *write_room(struct writer *w, size_t len)
{
    if (w->bad || len > (size_t)(w->end - w->at)) {
        w->bad = true;
        return NULL;
    }
    uint8_t *room = w->at;
    w->at += len;
    return room;
}

static inline void write_bytes(struct writer *w, const void *bytes, size_t len)
{
    uint8_t *room = write_room(w, len);
    if (room && len > 0)
        memcpy(room, bytes, len);
}

static inline void write_big_endian(struct writer *w, uint64_t value, size_t len)
{
    uint8_t *room = write_room(w, len);
    for (size_t i = 0; room && i < len; i++)
        room[i] = (uint8_t)(value >> (8 * (len - 1 - i)));
}

static inline void write_u8(struct writer *w, uint8_t value)
{
    write_big_endian(w, value, 1);
}

static inline void write_u16(struct writer *w, uint16_t value)
{
    write_big_endian(w, value, 2);
}

static inline void write_u32(struct writer *w, uint32_t value)
{
    write_big_endian(w, value, 4);
}

static inline void write_u64(struct writer *w, uint64_t value)
{
    write_big_endian(w, value, 8);
}

#endif
