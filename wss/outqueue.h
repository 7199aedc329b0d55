/* outqueue - what a connection still has to send: whole frames, bounded, the oldest dropped first.
 *
 * Frames are copied in and lie end to end in pieces of up to OUTQUEUE_PIECE bytes (a larger frame
 * has a piece of its own), so that many small frames leave in one write. A frame of which a part
 * was sent is never dropped; dropping takes whole pieces. All queues share one pool, which hands
 * out at most `total` bytes: a queue may hold an eighth of what is still free, and never more than
 * `each`, so stuck readers cannot take what healthy ones need. The first piece of a queue is small,
 * and all become smaller when the pool runs low. No memory is held by an empty queue.
 * The edge's thread only. */
#ifndef BEACON_WSS_OUTQUEUE_H
#define BEACON_WSS_OUTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    OUTQUEUE_PIECE = 16384 - 64, /* one TLS record */
    OUTQUEUE_FIRST = 2048 - 64,
    OUTQUEUE_SPARES = 16, /* pieces that the pool keeps, beyond `total` */
};

struct outqueue_piece;

struct outqueue_pool {
    size_t each, total;           /* bytes */
    size_t used;                  /* by all queues, as allocated */
    struct outqueue_piece *spare; /* a few pieces kept for the next use */
    unsigned spare_count;
};

struct outqueue {
    struct outqueue_piece *first, *last;
    size_t held;     /* bytes allocated for it */
    unsigned frames; /* whole or begun, not yet sent to the end */
};

void outqueue_pool_init(struct outqueue_pool *p, size_t each, size_t total);
void outqueue_pool_close(
    struct outqueue_pool *p); /* frees the spare pieces; all queues are empty */

/* Appends one frame made of two parts (either may be empty). Returns how many frames were lost for
 * it: 0 good; more: older ones dropped; OUTQUEUE_REFUSED: this one, as it has no room even so (then
 * no other was dropped). */
enum { OUTQUEUE_REFUSED = -1 };
int outqueue_put(struct outqueue *q, struct outqueue_pool *p, const void *head, size_t head_len,
                 const void *body, size_t body_len);

/* The next bytes to send. False: empty. */
bool outqueue_peek(const struct outqueue *q, const uint8_t **ret_bytes, size_t *ret_len);
/* `len` of them were sent. Ends a hold: a stream that took bytes has none that it must see again.
 */
void outqueue_sent(struct outqueue *q, struct outqueue_pool *p, size_t len);
/* They were offered to a stream that must see the same bytes again: they stay now. The next peek
 * gives them again, perhaps with more behind. */
void outqueue_hold(struct outqueue *q);
bool outqueue_is_empty(const struct outqueue *q);
void outqueue_clear(struct outqueue *q, struct outqueue_pool *p);

#endif
