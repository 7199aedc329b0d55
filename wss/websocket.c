#include "wss/websocket.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <wslay/wslay.h>

#include "proto/utf8.h"

enum {
    CONTROL_MAX = 125, /* RFC 6455, 5.5 */
    HEAD_MIN = 6,      /* two bytes and the masking key: nothing that we take has a shorter head */
    MEMORY_MIN = 4096, /* of a message in parts, at first */
    REASON_MAX = 123,  /* of a close frame */
    CONTINUATION = 0,  /* opcode */
    MESSAGE_NONE = 0,  /* no opcode of a message */
};

#define CONTROL_INTERVAL_NS (1000000000ull / WEBSOCKET_CONTROL_PER_S)

struct websocket {
    wslay_frame_context_ptr wslay;
    uint16_t bad; /* why reading has ended, or 0 */
    bool closed;  /* a close frame came: what follows is discarded */

    /* What the call under way was given and has not used. */
    uint8_t *in;
    size_t in_len;

    /* The frame that is coming in. */
    size_t head_fed; /* bytes of its head that wslay has got */
    bool in_payload;
    bool fin;
    bool in_place;             /* its payload stays in the caller's bytes */
    uint8_t opcode;            /* of this frame */
    size_t left;               /* bytes of payload that wslay has not got */
    uint8_t *payload, *target; /* of one in place: its first byte, and where the next one goes */

    /* The message that is coming in. Its memory is NULL while all of it stays in place. */
    uint8_t message_opcode; /* or MESSAGE_NONE */
    bool given_out;         /* `memory` is the caller's until the next call */
    size_t message_max;
    unsigned fragments;
    uint8_t *memory;
    size_t len, capacity; /* of memory */
    struct websocket_memory *shared;

    uint64_t control_spent_ns; /* GCRA: until when the budget of control frames is spent */
    size_t control_len;
    uint8_t control[CONTROL_MAX];
};

/* --- what wslay is given --- */

/* wslay tells the length of a frame only with its first byte of payload. So the head is fed byte by
 * byte once it is longer than the shortest, and the payload by its length: nothing of the next
 * frame ever lies in wslay's buffer, and where a message ends in the caller's bytes is exact. */
static ssize_t feed(uint8_t *bytes, size_t capacity, int flags, void *arg)
{
    struct websocket *w = arg;
    size_t len = w->in_payload ? w->left : w->head_fed < HEAD_MIN ? HEAD_MIN - w->head_fed : 1;
    (void)flags;
    if (len > capacity)
        len = capacity;
    if (len > w->in_len)
        len = w->in_len;
    if (len > 0)
        memcpy(bytes, w->in, len);
    w->in += len;
    w->in_len -= len;
    if (!w->in_payload)
        w->head_fed += len;
    return (ssize_t)len; /* 0: wslay wants to read more */
}

struct websocket *websocket_new(struct websocket_memory *shared)
{
    static const struct wslay_frame_callbacks callbacks = {.recv_callback = feed};
    struct websocket *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->message_max = WEBSOCKET_MESSAGE_MAX;
    w->shared = shared;
    if (wslay_frame_context_init(&w->wslay, &callbacks, w) < 0) {
        free(w);
        return NULL;
    }
    return w;
}

void websocket_limit(struct websocket *w, size_t len)
{
    assert(len <= WEBSOCKET_MESSAGE_MAX);
    w->message_max = len;
}

/* --- the memory of a message in parts --- */

static void memory_free(struct websocket *w)
{
    free(w->memory);
    w->shared->used -= w->capacity;
    w->memory = NULL;
    w->len = w->capacity = 0;
    w->given_out = false;
}

void websocket_free(struct websocket *w)
{
    if (!w)
        return;
    memory_free(w);
    wslay_frame_context_free(w->wslay);
    free(w);
}

/* Grows with the bytes that came, not with what a head claims. */
static bool memory_append(struct websocket *w, const uint8_t *bytes, size_t len)
{
    if (len > w->capacity - w->len) {
        size_t capacity = w->capacity > 0 ? w->capacity : MEMORY_MIN;
        while (capacity < w->len + len)
            capacity *= 2;
        size_t more = capacity - w->capacity;
        if (more > w->shared->max - w->shared->used)
            return false;
        uint8_t *memory = realloc(w->memory, capacity);
        if (!memory)
            return false;
        w->shared->used += more;
        w->memory = memory;
        w->capacity = capacity;
    }
    if (len > 0)
        memcpy(w->memory + w->len, bytes, len);
    w->len += len;
    return true;
}

/* --- a frame begins --- */

static bool is_control(unsigned opcode)
{
    return (opcode & 8) != 0;
}

static bool control_allowed(struct websocket *w, uint64_t now_ns)
{
    if (w->control_spent_ns < now_ns)
        w->control_spent_ns = now_ns;
    if (w->control_spent_ns - now_ns > (WEBSOCKET_CONTROL_BURST - 1) * CONTROL_INTERVAL_NS)
        return false;
    w->control_spent_ns += CONTROL_INTERVAL_NS;
    return true;
}

/* These return 0 or the status to close with. */

static uint16_t begin_control(struct websocket *w, const struct wslay_frame_iocb *f,
                              uint64_t now_ns)
{
    if (f->opcode > WEBSOCKET_PONG || !f->fin || f->payload_length > CONTROL_MAX)
        return WEBSOCKET_PROTOCOL_ERROR;
    if (f->opcode != WEBSOCKET_CLOSE && !control_allowed(w, now_ns))
        return WEBSOCKET_POLICY;
    w->control_len = 0;
    return 0;
}

static uint16_t begin_data(struct websocket *w, const struct wslay_frame_iocb *f)
{
    if (f->opcode > WEBSOCKET_BINARY)
        return WEBSOCKET_PROTOCOL_ERROR;
    if ((f->opcode == CONTINUATION) != (w->message_opcode != MESSAGE_NONE))
        return WEBSOCKET_PROTOCOL_ERROR;
    if (f->payload_length > w->message_max - w->len)
        return WEBSOCKET_TOO_BIG;
    if (w->fragments == WEBSOCKET_FRAGMENTS_MAX)
        return WEBSOCKET_POLICY;
    if (f->opcode != CONTINUATION)
        w->message_opcode = f->opcode;
    w->fragments++;
    return 0;
}

static uint16_t frame_begins(struct websocket *w, const struct wslay_frame_iocb *f, uint64_t now_ns)
{
    if (f->rsv != 0 || !f->mask)
        return WEBSOCKET_PROTOCOL_ERROR;
    uint16_t bad = is_control(f->opcode) ? begin_control(w, f, now_ns) : begin_data(w, f);
    if (bad)
        return bad;
    w->in_payload = true;
    w->opcode = f->opcode;
    w->fin = f->fin;
    w->left = (size_t)f->payload_length - f->data_length;
    w->in_place =
        !is_control(f->opcode) && f->opcode != CONTINUATION && f->fin && w->left <= w->in_len;
    w->payload = w->target = w->in - f->data_length; /* that byte was the last one fed */
    return 0;
}

/* --- its payload --- */

static bool take_payload(struct websocket *w, const struct wslay_frame_iocb *f)
{
    if (is_control(w->opcode)) {
        assert(f->data_length <= CONTROL_MAX - w->control_len);
        memcpy(w->control + w->control_len, f->data, f->data_length);
        w->control_len += f->data_length;
        return true;
    }
    if (!w->in_place)
        return memory_append(w, f->data, f->data_length);
    memcpy(w->target, f->data, f->data_length);
    w->target += f->data_length;
    return true;
}

/* --- a frame ends --- */

/* RFC 6455, 7.4, and what IANA has registered since (1012 to 1014). */
static bool status_may_be_sent(unsigned status)
{
    return (status >= 1000 && status <= 1003) || (status >= 1007 && status <= 1014) ||
           (status >= 3000 && status <= 4999);
}

static uint16_t end_control(struct websocket *w, struct websocket_message *ret)
{
    struct reader r = reader_of(w->control, w->control_len);
    uint16_t status = 0;
    size_t at;
    if (w->opcode == WEBSOCKET_CLOSE && w->control_len > 0) {
        status = read_u16(&r);
        if (r.bad || !status_may_be_sent(status))
            return WEBSOCKET_PROTOCOL_ERROR;
        if (!utf8_valid((const char *)r.at, read_left(&r), &at))
            return WEBSOCKET_INVALID_DATA;
    }
    w->closed = w->opcode == WEBSOCKET_CLOSE;
    *ret = (struct websocket_message){
        .opcode = w->opcode, .bytes = w->control, .len = w->control_len, .close_status = status};
    return 0;
}

static uint16_t end_message(struct websocket *w, struct websocket_message *ret)
{
    struct websocket_message m = {.opcode = w->message_opcode, .len = w->len};
    m.bytes = w->memory ? w->memory : w->control; /* an empty one has a place, too */
    size_t at;
    if (w->in_place) {
        m.bytes = w->payload;
        m.len = (size_t)(w->target - w->payload);
        m.in_place = true;
    }
    if (m.opcode == WEBSOCKET_TEXT && !utf8_valid((const char *)m.bytes, m.len, &at))
        return WEBSOCKET_INVALID_DATA;
    w->message_opcode = MESSAGE_NONE;
    w->fragments = 0;
    w->given_out = true;
    *ret = m;
    return 0;
}

/* --- reading --- */

static enum websocket_read refuse(struct websocket *w, uint16_t status)
{
    w->bad = status;
    memory_free(w);
    return WEBSOCKET_BAD;
}

/* RFC 6455, 5.5.1: behind a close frame comes nothing that counts. */
static void discard(struct websocket *w)
{
    w->in += w->in_len;
    w->in_len = 0;
}

/* The frame is whole. WEBSOCKET_MORE: it was not the end of a message. */
static enum websocket_read frame_ended(struct websocket *w, struct websocket_message *ret)
{
    w->in_payload = false;
    w->head_fed = 0;
    if (!is_control(w->opcode) && !w->fin)
        return WEBSOCKET_MORE;
    uint16_t bad = is_control(w->opcode) ? end_control(w, ret) : end_message(w, ret);
    return bad ? refuse(w, bad) : WEBSOCKET_MESSAGE;
}

static enum websocket_read read_frames(struct websocket *w, uint64_t now_ns,
                                       struct websocket_message *ret)
{
    struct wslay_frame_iocb f;
    enum websocket_read got = WEBSOCKET_MORE;
    while (got == WEBSOCKET_MORE) {
        ssize_t n = wslay_frame_recv(w->wslay, &f);
        if (n == WSLAY_ERR_WANT_READ && w->in_len == 0)
            return WEBSOCKET_MORE;
        if (n == WSLAY_ERR_WANT_READ)
            continue;
        if (n < 0)
            return refuse(w, WEBSOCKET_PROTOCOL_ERROR);
        uint16_t bad = 0;
        if (w->in_payload)
            w->left -= f.data_length;
        else
            bad = frame_begins(w, &f, now_ns);
        if (bad)
            return refuse(w, bad);
        if (!take_payload(w, &f))
            return refuse(w, WEBSOCKET_INTERNAL_ERROR);
        if (w->left == 0)
            got = frame_ended(w, ret);
    }
    return got;
}

enum websocket_read websocket_read(struct websocket *w, uint8_t **bytes, size_t *len,
                                   uint64_t now_ns, struct websocket_message *ret,
                                   uint16_t *ret_status)
{
    enum websocket_read got = WEBSOCKET_MORE;
    if (w->given_out)
        memory_free(w);
    w->in = *bytes;
    w->in_len = *len;
    if (w->bad)
        got = WEBSOCKET_BAD;
    else if (!w->closed)
        got = read_frames(w, now_ns, ret);
    else
        discard(w);
    *bytes = w->in;
    *len = w->in_len;
    if (got == WEBSOCKET_BAD)
        *ret_status = w->bad;
    return got;
}

/* --- writing --- */

/*   0                   1
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
 *  +-+-+-+-+-------+-+-------------+-------------------------------+
 *  |F|R|R|R| opcode|M| Payload len |  Extended payload length      |
 *  |1|0|0|0|  (4)  |0|     (7)     |  (none, 16 bits or 64 bits)   |
 *  +-+-+-+-+-------+-+-------------+-------------------------------+
 *
 * By hand: wslay_frame_send wants a context of 4 KiB, and to see the payload pass. */
size_t websocket_head(uint8_t head[static WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode,
                      size_t len)
{
    struct writer w = writer_of(head, WEBSOCKET_HEAD_MAX);
    assert(!is_control(opcode) || len <= CONTROL_MAX);
    write_u8(&w, (uint8_t)(0x80 | opcode));
    if (len < 126) {
        write_u8(&w, (uint8_t)len);
    } else if (len <= UINT16_MAX) {
        write_u8(&w, 126);
        write_u16(&w, (uint16_t)len);
    } else {
        write_u8(&w, 127);
        write_u64(&w, len);
    }
    return written(&w);
}

/* The reason is cut before a character that does not fit whole: it must stay UTF-8. */
size_t websocket_close(uint8_t payload[static 125], uint16_t status, const char *reason)
{
    struct writer w = writer_of(payload, CONTROL_MAX);
    size_t len = strlen(reason);
    if (len > REASON_MAX) {
        len = REASON_MAX;
        while (len > 0 && ((uint8_t)reason[len] & 0xc0) == 0x80)
            len--;
    }
    assert(status_may_be_sent(status));
    write_u16(&w, status);
    write_bytes(&w, reason, len);
    return written(&w);
}
