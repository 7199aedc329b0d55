/* lookup - the thread that asks a Pilot registry for the keys of node ids, one after another over
 * one TCP connection that is kept.
 *
 * At most KEYS_WAITING_MAX ids wait, each once. Each id that was taken gets one answer, within
 * KEYS_LOOKUP_MS of its turn; only a name server that is silent can make it later. When the
 * registry cannot be reached, is silent or does not speak in frames, all that wait fail at once,
 * and so does whatever is asked during a pause of 0.25 s, doubled each time up to 10 s. A
 * connection that the registry closed between two questions is no failure. An answer that makes no
 * sense fails its own id only: a stranger who registers an odd key must not silence the registry
 * for all others. */
#ifndef BEACON_WSS_LOOKUP_H
#define BEACON_WSS_LOOKUP_H

#include "wss/keys.h"

struct lookup;

struct lookup_answer {
    enum keys_verdict verdict; /* KEYS_FOUND, KEYS_UNKNOWN or KEYS_FAILED */
    uint32_t node_id;
    uint8_t key[MSG_KEY_LEN]; /* of KEYS_FOUND */
};

/* `c`: lookup, registry and wake. Starts the thread; NULL with `error`. */
struct lookup *lookup_open(const struct keys_config *c, char error[static KEYS_ERROR_MAX]);
/* Ends the thread, whatever it waits for: one that waits for a name server is left to end by
 * itself, and touches nothing of the caller's any more. (The eventfd `c->wake` was copied.) */
void lookup_close(struct lookup *l);

/* The two below: one thread, the edge's. */

/* KEYS_WAIT: lookup_take will say (the same when it is waited for already: then `*ret_asked` is
 * false). KEYS_FAILED: too many wait, or the registry is known not to answer. */
enum keys_verdict lookup_ask(struct lookup *l, uint32_t node_id, bool *ret_asked);
/* False: nothing has ended. */
bool lookup_take(struct lookup *l, struct lookup_answer *ret);

#endif
