/* handoff - a bounded ring of messages from one lane to the edge's thread, for nodes that are
 * reached over a stream.
 *
 * One producer (the lane's thread), one consumer (the edge's). Never blocks: full is an answer, and
 * the message is the destination's loss alone. Each message lies in one piece. The memory belongs
 * to the caller. The producer must wake the consumer after a batch; the ring does not. */
#ifndef BEACON_SERVER_HANDOFF_H
#define BEACON_SERVER_HANDOFF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HANDOFF_BYTES = 1 << 20,     /* power of two; headers and padding included */
    HANDOFF_MESSAGE_MAX = 65536, /* longer ones are refused like a full ring */
};

struct handoff;
size_t handoff_size(void);
/* `memory`: handoff_size() zeroed bytes, 64-aligned. */
struct handoff *handoff_init(void *memory);

/* The producer. False: full. */
bool handoff_put(struct handoff *h, uint32_t node_id, const uint8_t *bytes, uint32_t len);

struct handoff_message {
    uint32_t node_id;
    uint32_t len;
    const uint8_t *bytes; /* in the ring, valid until handoff_drop */
};
/* The consumer. False: empty. */
bool handoff_peek(struct handoff *h, struct handoff_message *ret);
/* Done with what handoff_peek gave. */
void handoff_drop(struct handoff *h);

#endif
