/* answer - what a node asks about itself: Discover and STUN. */
#ifndef BEACON_SERVER_ANSWER_H
#define BEACON_SERVER_ANSWER_H

#include "server/server.h"

/* Registers, and answers with the observed source even when registration is refused: a node must
 * learn its address. Only a spent reply budget silences it. */
enum verdict discover_input(struct lane *l, struct datagram *d, const struct moment *now,
                            struct outbox *out);

enum verdict stun_input(struct lane *l, struct datagram *d, const struct moment *now,
                        struct outbox *out);

/* An answer of at most OUTBOX_SCRATCH bytes to the datagram's source, from the address it came to.
 * The writer is over the outbox's own memory; answer_send queues what was written. */
struct writer answer_begin(struct outbox *out);
void answer_send(struct outbox *out, const struct writer *w, const struct datagram *d);
/* The same, to a stored route. */
void answer_send_route(struct outbox *out, const struct writer *w, const struct route *to);

#endif
