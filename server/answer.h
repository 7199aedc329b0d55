/* answer - what a node asks about itself: Discover and STUN. */
#ifndef BEACON_SERVER_ANSWER_H
#define BEACON_SERVER_ANSWER_H

#include "server/register.h"
#include "server/server.h"

/* Registers, and answers with the observed source even when registration is refused: a node must
 * learn its address. Only a spent reply budget silences it. */
enum verdict discover_input(struct lane *l, struct datagram *d, const struct moment *now,
                            struct outbox *out);

/* A session's budget is its own (session.h); the budgets of unproven sources are for UDP. */
/* What a Discover comes to when it registered its node so. */
enum verdict discover_verdict(enum registration r);

enum verdict stun_input(struct lane *l, struct datagram *d, const struct moment *now,
                        struct outbox *out);

/* An answer of at most OUTBOX_SCRATCH bytes to the datagram's source, from the address it came to,
 * or to the session that it came through. The writer is over the outbox's own memory; answer_send
 * queues what was written. False: the session's handoff is full, which is counted. */
struct writer answer_begin(struct outbox *out);
bool answer_send(struct lane *l, struct outbox *out, const struct writer *w,
                 const struct datagram *d);
/* The same, to a stored route. */
bool answer_send_route(struct lane *l, struct outbox *out, const struct writer *w,
                       const struct route *to);

#endif
