#include <assert.h>
#include <string.h>
#include "server/handoff.h"

/* A ring of records, each a head, its bytes and padding to 8. Positions count bytes since the
 * beginning and may wrap: HANDOFF_BYTES divides 2^32. A record that would not fit before the end of
 * the ring starts at its beginning; a head with len RECORD_SKIP says so. */
struct record {
    uint32_t node_id, len;
};

enum { RECORD_ALIGN = 8 };
#define RECORD_SKIP UINT32_MAX

struct handoff {
    _Alignas(64) _Atomic uint32_t tail; /* the producer writes */
    uint32_t head_seen;                 /* the producer's alone: `head` when it last looked */
    _Alignas(64) _Atomic uint32_t head; /* the consumer writes */
    _Alignas(64) uint8_t bytes[HANDOFF_BYTES];
};

static_assert(sizeof(struct record) == RECORD_ALIGN, "a head fits wherever a record may begin");
static_assert((HANDOFF_BYTES & (HANDOFF_BYTES - 1)) == 0, "positions are masked");
static_assert(2 * (sizeof(struct record) + HANDOFF_MESSAGE_MAX) < HANDOFF_BYTES,
              "an empty ring takes the longest message wherever it stands");

size_t handoff_size(void)
{
    return sizeof(struct handoff);
}

struct handoff *handoff_init(void *memory)
{
    return memory;
}

static uint32_t record_size(uint32_t len)
{
    return (uint32_t)sizeof(struct record) + ((len + RECORD_ALIGN - 1) & ~(RECORD_ALIGN - 1u));
}

static uint8_t *place(struct handoff *h, uint32_t at)
{
    return &h->bytes[at & (HANDOFF_BYTES - 1)];
}

static uint32_t left_to_end(uint32_t at)
{
    return HANDOFF_BYTES - (at & (HANDOFF_BYTES - 1));
}

static struct record record_at(struct handoff *h, uint32_t at)
{
    struct record r;
    memcpy(&r, place(h, at), sizeof r);
    return r;
}

/* Room for `size` more bytes behind `tail`. The consumer's position is looked at only when the last
 * one seen leaves too little: it lies in a cache line of the other thread. */
static bool has_room(struct handoff *h, uint32_t tail, uint32_t size)
{
    if (size <= HANDOFF_BYTES - (tail - h->head_seen))
        return true;
    /* Pairs with the release in handoff_drop: the consumer has read what lay there. */
    h->head_seen = atomic_load_explicit(&h->head, memory_order_acquire);
    return size <= HANDOFF_BYTES - (tail - h->head_seen);
}

bool handoff_put(struct handoff *h, uint32_t node_id, const uint8_t *bytes, uint32_t len)
{
    if (len > HANDOFF_MESSAGE_MAX)
        return false;
    const struct record record = {node_id, len}, skip = {0, RECORD_SKIP};
    uint32_t tail = atomic_load_explicit(&h->tail, memory_order_relaxed); /* ours alone */
    uint32_t size = record_size(len), left = left_to_end(tail);
    uint32_t skipped = size > left ? left : 0;
    if (!has_room(h, tail, skipped + size))
        return false;
    if (skipped)
        memcpy(place(h, tail), &skip, sizeof skip);
    tail += skipped;
    memcpy(place(h, tail), &record, sizeof record);
    if (len > 0)
        memcpy(place(h, tail) + sizeof record, bytes, len);
    atomic_store_explicit(&h->tail, tail + size, memory_order_release); /* publishes the record */
    return true;
}

bool handoff_peek(struct handoff *h, struct handoff_message *ret)
{
    uint32_t head = atomic_load_explicit(&h->head, memory_order_relaxed); /* ours alone */
    /* Pairs with the release in handoff_put: records before `tail` are whole. */
    if (atomic_load_explicit(&h->tail, memory_order_acquire) == head)
        return false;
    struct record record = record_at(h, head);
    if (record.len == RECORD_SKIP) { /* a record follows: both were published at once */
        head += left_to_end(head);
        atomic_store_explicit(&h->head, head, memory_order_release);
        record = record_at(h, head);
    }
    assert(record.len <= HANDOFF_MESSAGE_MAX);
    ret->node_id = record.node_id;
    ret->len = record.len;
    ret->bytes = place(h, head) + sizeof record;
    return true;
}

void handoff_drop(struct handoff *h)
{
    uint32_t head = atomic_load_explicit(&h->head, memory_order_relaxed); /* ours alone */
    assert(atomic_load_explicit(&h->tail, memory_order_relaxed) != head);
    struct record record = record_at(h, head);
    assert(record.len <= HANDOFF_MESSAGE_MAX); /* handoff_peek has passed the end of the ring */
    atomic_store_explicit(&h->head, head + record_size(record.len), memory_order_release);
}
