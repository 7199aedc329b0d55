/* mailbox - a bounded queue of small letters to one lane.
 *
 * Multi producer (other shards, the edge, the mesh, the main thread), single consumer (the lane's
 * thread). Never blocks: full is an answer. Letters of one producer arrive in order. The memory
 * belongs to the caller. A producer that put something must wake the consumer; the mailbox does
 * not. */
#ifndef BEACON_SERVER_MAILBOX_H
#define BEACON_SERVER_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "proto/endpoint.h"

enum {
    MAIL_SLOTS = 1024,   /* power of two */
    MAIL_BYTES_MAX = 83, /* the longest Discover or PunchRequest that means anything, padded */
};

enum mail_kind {
    MAIL_DATAGRAM,     /* a Discover or PunchRequest for a node of the receiver */
    MAIL_NOTIFY,       /* send a Notify to `node_id` */
    MAIL_SESSION_HERE, /* a session of `node_id` lives at `from`; its key in `bytes` */
    MAIL_SESSION_GONE, /* the one at `from` has ended */
    MAIL_ROUTES_SET,   /* the beacon of index `node_id` has the nodes in `bytes`, see mail_id */
    MAIL_ROUTES_GONE,  /* it has them no more; PEERS_NONE: no other beacon has */
};

struct mail {
    enum mail_kind kind;
    uint32_t node_id; /* MAIL_DATAGRAM: the session it came through, 0 for UDP; MAIL_ROUTES_:
                         index of the beacon in peers.h */
    uint32_t scope;   /* MAIL_DATAGRAM, as in struct datagram, here to `bytes` */
    struct endpoint from;
    uint8_t local;
    bool local_is_global;
    bool wants_dest; /* MAIL_SESSION_HERE */
    bool asks;       /* MAIL_SESSION_HERE: it came with a Discover, to be answered */
    bool stream;     /* MAIL_ROUTES_SET: they are reached through sessions there */
    uint8_t class_;  /* MAIL_SESSION_HERE, MAIL_ROUTES_SET: enum route_class */
    uint8_t len;
    uint8_t bytes[MAIL_BYTES_MAX];
};

/* The node ids of a MAIL_ROUTES_ letter, all of them the receiver's by route_owner. mail_add_id
 * begins with len 0 and is false when the letter is full. */
enum { MAIL_IDS_MAX = 20 };
static_assert(MAIL_IDS_MAX * sizeof(uint32_t) <= MAIL_BYTES_MAX, "they fit");

static inline unsigned mail_ids(const struct mail *m)
{
    return m->len / (unsigned)sizeof(uint32_t);
}
static inline uint32_t mail_id(const struct mail *m, unsigned i)
{
    uint32_t id;
    memcpy(&id, m->bytes + i * sizeof id, sizeof id);
    return id;
}
static inline bool mail_add_id(struct mail *m, uint32_t id)
{
    if (mail_ids(m) == MAIL_IDS_MAX)
        return false;
    memcpy(m->bytes + m->len, &id, sizeof id);
    m->len = (uint8_t)(m->len + sizeof id);
    return true;
}

struct mail_slot {
    _Atomic uint32_t turn; /* == position: free to fill; == position + 1: filled */
    struct mail mail;
};

struct mailbox {
    _Alignas(64) _Atomic uint32_t tail; /* producers claim */
    _Alignas(64) uint32_t head;         /* the consumer's alone */
    struct mail_slot slot[MAIL_SLOTS];
};

void mailbox_init(struct mailbox *m);
/* Any thread. False: full. */
bool mailbox_put(struct mailbox *m, const struct mail *mail);
/* The owner only. False: empty. */
bool mailbox_take(struct mailbox *m, struct mail *ret);

#endif
