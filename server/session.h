/* session - nodes that speak through an authenticated stream (WebSocket) instead of UDP.
 *
 * A session's frames are decided by the edge's lane, which owns no nodes, with the same code as
 * datagrams. A session speaks for one id only: every frame that names another is dropped. Its node
 * has a row like any other, marked ROUTE_STREAM, which the id's owner writes; the row's endpoint is
 * the client's TCP endpoint and is never sent to by UDP. What is for such a node goes into the
 * deciding lane's handoff.
 *
 * The edge's thread is to its lane what a shard's is to its own: server_begin before it decides (at
 * least once a second, or a reload of the rules waits), then frames, then it sends the outbox,
 * wakes the lanes in l->wake and clears it, drains the handoffs of all lanes, server_tick. */
#ifndef BEACON_SERVER_SESSION_H
#define BEACON_SERVER_SESSION_H

#include "server/server.h"

/* Written by the edge, but for wants_dest; copied into letters. */
struct session {
    uint32_t node_id;
    struct endpoint from;     /* the client's TCP endpoint */
    enum route_class class_;  /* how its key came to be trusted: above ROUTE_UNVERIFIED */
    bool wants_dest;          /* session_input: asked for 0x09 by a 0x08 */
    uint8_t key[MSG_KEY_LEN]; /* that it proved to hold */
};

/* The edge's lane. One frame of a session: `d->bytes` and `d->len` are set, all else is set here.
 * Relay, Discover, PunchRequest and STUN mean what they mean in a datagram, but a Discover only
 * refreshes what the session has registered. Answers name the TCP endpoint; that to STUN lies in
 * the lane's own handoff, that to Discover in the owner's, which gives it (and the verdict) when
 * the node is registered. Relays have the session's budget (relay-rate) and that of its address,
 * all else spends one of reply-rate. Counts received and verdict (unless VERDICT_PASSED). A relay
 * to UDP lies in the outbox and points into the frame: send before the frame goes. */
enum verdict session_input(struct lane *l, struct session *s, struct datagram *d,
                           const struct moment *now, struct outbox *out);

/* The edge's lane. Tells the owner that the session is there (again: call at authentication, and
 * every SESSION_HERE_SECONDS while it lives), or that the id has no session any more. False: the
 * owner's mailbox is full, try later. */
enum { SESSION_HERE_SECONDS = 20 };
bool session_here(struct lane *l, const struct session *s);
bool session_gone(struct lane *l, const struct session *s); /* needs node_id and from only */

/* The owner, for these two letters. */
void session_mail(struct lane *l, const struct mail *mail, const struct moment *now,
                  struct outbox *out);

#endif
