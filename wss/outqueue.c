#include "wss/outqueue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Frames grow from the front of the bytes; the length of each is noted at their back, downwards:
 *
 *   | sent | frame 0's rest | frame 1 | ... free ... | length 1 | length 0 |
 */
struct outqueue_piece {
    struct outqueue_piece *next;
    size_t size;                /* as allocated, this header included */
    size_t at, end;             /* of the bytes still to send */
    size_t begun;               /* bytes sent of the first frame */
    uint32_t frame, frame_next; /* numbers of the first frame here and of the one to come */
    bool held;
    uint8_t bytes[];
};

enum {
    NOTE = sizeof(uint32_t), /* a frame's length */
    PIECE_SIZE = sizeof(struct outqueue_piece) + OUTQUEUE_PIECE,
    FIRST_SIZE = sizeof(struct outqueue_piece) + OUTQUEUE_FIRST,
    POOL_SHARE = 8,  /* of what is free, for one queue */
    QUEUE_SHARE = 4, /* of what a queue may hold, for one piece: dropping must not take all */
};
static_assert(PIECE_SIZE <= 16384, "a piece and malloc's own header are four pages");

/* --- pieces --- */

static size_t note_at(const struct outqueue_piece *x, uint32_t frame)
{
    return x->size - sizeof *x - (frame + 1) * (size_t)NOTE;
}

static uint32_t frame_len(const struct outqueue_piece *x, uint32_t frame)
{
    uint32_t len;
    memcpy(&len, x->bytes + note_at(x, frame), NOTE);
    return len;
}

static unsigned frame_count(const struct outqueue_piece *x)
{
    return x->frame_next - x->frame;
}

static bool piece_fits(const struct outqueue_piece *x, size_t len)
{
    size_t used = x->end + (x->frame_next + 1) * (size_t)NOTE;
    size_t capacity = x->size - sizeof *x;
    return used <= capacity && len <= capacity - used;
}

/* Not when the reader has got a part of a frame, or TLS a part of the bytes. */
static bool piece_may_go(const struct outqueue_piece *x)
{
    return !x->held && x->begun == 0;
}

static struct outqueue_piece *piece_new(struct outqueue_pool *p, size_t size)
{
    struct outqueue_piece *x = p->spare;
    if (size == PIECE_SIZE && x) {
        p->spare = x->next;
        p->spare_count--;
    } else {
        x = malloc(size);
        if (!x)
            return NULL;
    }
    memset(x, 0, sizeof *x);
    x->size = size;
    return x;
}

static void piece_free(struct outqueue_pool *p, struct outqueue_piece *x)
{
    if (x->size != PIECE_SIZE || p->spare_count == OUTQUEUE_SPARES) {
        free(x);
        return;
    }
    x->next = p->spare;
    p->spare = x;
    p->spare_count++;
}

static void piece_append(struct outqueue_piece *x, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(x->bytes + x->end, bytes, len);
    x->end += len;
}

/* --- the queue's pieces --- */

static void queue_add(struct outqueue *q, struct outqueue_pool *p, struct outqueue_piece *x)
{
    *(q->last ? &q->last->next : &q->first) = x;
    q->last = x;
    q->held += x->size;
    p->used += x->size;
    assert(p->used <= p->total);
}

/* Takes out the piece behind `before`; the first one for NULL. Returns its frames. */
static unsigned queue_remove(struct outqueue *q, struct outqueue_pool *p,
                             struct outqueue_piece *before)
{
    struct outqueue_piece **link = before ? &before->next : &q->first;
    struct outqueue_piece *x = *link;
    unsigned frames = frame_count(x);
    *link = x->next;
    if (q->last == x)
        q->last = before;
    assert(q->held >= x->size);
    assert(p->used >= x->size);
    assert(q->frames >= frames);
    q->held -= x->size;
    p->used -= x->size;
    q->frames -= frames;
    piece_free(p, x);
    return frames;
}

/* --- who may hold how much --- */

/* What one queue may hold when the pool has handed out so much. All stuck queues together thus
 * leave eight times the share of one free (dynamic thresholds: Choudhury and Hahne, 1998). */
static size_t share(const struct outqueue_pool *p, size_t used)
{
    size_t free_share = (p->total - used) / POOL_SHARE;
    return free_share < p->each ? free_share : p->each;
}

/* Would a new piece of this size be allowed once all that may go has gone? */
static bool can_make_room(const struct outqueue *q, const struct outqueue_pool *p, size_t size)
{
    size_t stays = q->first && !piece_may_go(q->first) ? q->first->size : 0;
    size_t allowed = share(p, p->used - (q->held - stays));
    return size <= allowed && stays <= allowed - size;
}

/* Larger than `need` when there is room for frames to come. 0: it cannot be had. */
static size_t piece_size(const struct outqueue *q, const struct outqueue_pool *p, size_t need)
{
    size_t size = q->first ? PIECE_SIZE : FIRST_SIZE;
    size_t part = share(p, p->used) / QUEUE_SHARE;
    if (size > part)
        size = part;
    if (size > need && can_make_room(q, p, size))
        return size;
    return can_make_room(q, p, need) ? need : 0;
}

/* Drops the oldest pieces that may go until one of `size` is allowed. Returns the frames lost. */
static unsigned make_room(struct outqueue *q, struct outqueue_pool *p, size_t size)
{
    unsigned lost = 0;
    while (q->held + size > share(p, p->used)) {
        assert(q->first); /* can_make_room */
        lost += queue_remove(q, p, piece_may_go(q->first) ? NULL : q->first);
    }
    return lost;
}

/* Adds a piece with room for a frame. */
static int grow(struct outqueue *q, struct outqueue_pool *p, size_t len)
{
    size_t size = piece_size(q, p, sizeof(struct outqueue_piece) + len + NOTE);
    struct outqueue_piece *x = size > 0 ? piece_new(p, size) : NULL;
    if (!x)
        return OUTQUEUE_REFUSED;
    int lost = (int)make_room(q, p, size);
    queue_add(q, p, x);
    return lost;
}

/* --- the interface --- */

void outqueue_pool_init(struct outqueue_pool *p, size_t each, size_t total)
{
    *p = (struct outqueue_pool){.each = each, .total = total};
}

void outqueue_pool_close(struct outqueue_pool *p)
{
    assert(p->used == 0);
    while (p->spare) {
        struct outqueue_piece *next = p->spare->next;
        free(p->spare);
        p->spare = next;
    }
    p->spare_count = 0;
}

int outqueue_put(struct outqueue *q, struct outqueue_pool *p, const void *head, size_t head_len,
                 const void *body, size_t body_len)
{
    assert(head_len <= UINT32_MAX / 4);
    assert(body_len <= UINT32_MAX / 4);
    size_t len = head_len + body_len;
    uint32_t note = (uint32_t)len;
    int lost = 0;
    if (len == 0)
        return 0;
    if (!q->last || !piece_fits(q->last, len))
        lost = grow(q, p, len);
    if (lost == OUTQUEUE_REFUSED)
        return lost;
    struct outqueue_piece *x = q->last;
    piece_append(x, head, head_len);
    piece_append(x, body, body_len);
    memcpy(x->bytes + note_at(x, x->frame_next), &note, NOTE);
    x->frame_next++;
    q->frames++;
    return lost;
}

bool outqueue_peek(const struct outqueue *q, const uint8_t **ret_bytes, size_t *ret_len)
{
    const struct outqueue_piece *x = q->first;
    if (!x)
        return false;
    *ret_bytes = x->bytes + x->at;
    *ret_len = x->end - x->at;
    return true;
}

void outqueue_sent(struct outqueue *q, struct outqueue_pool *p, size_t len)
{
    struct outqueue_piece *x = q->first;
    if (len == 0)
        return;
    assert(x);
    assert(len <= x->end - x->at);
    x->held = false;
    x->at += len;
    x->begun += len;
    while (x->frame < x->frame_next && x->begun >= frame_len(x, x->frame)) {
        x->begun -= frame_len(x, x->frame++);
        q->frames--;
    }
    if (x->at == x->end)
        queue_remove(q, p, NULL);
}

void outqueue_hold(struct outqueue *q)
{
    if (q->first)
        q->first->held = true;
}

bool outqueue_is_empty(const struct outqueue *q)
{
    return !q->first;
}

void outqueue_clear(struct outqueue *q, struct outqueue_pool *p)
{
    while (q->first)
        queue_remove(q, p, NULL);
    assert(q->held == 0);
    assert(q->frames == 0);
}
