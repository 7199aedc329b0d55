/* sync_link - what the parts of sync share: links, what their peers know, what is in flight.
 *
 * Each link has sets of owners that wait for something (an acknowledgement to give, a question, a
 * time, a free place in the window), so nothing walks all owners of all links; `due_ns` of a link
 * says when to look at it at all.
 *
 * Private to sync*.c:
 *   sync.c         inputs and outputs of the module, and what changed in the store
 *   sync_link.c    what a peer knows, and when it is to be sent what it lacks
 *   sync_window.c  pieces in flight, and sent again
 *   sync_digest.c  acknowledgements and questions
 *   sync_hold.c    pieces that came too early */
#ifndef BEACON_GOSSIP_SYNC_LINK_H
#define BEACON_GOSSIP_SYNC_LINK_H

#include "gossip/sync.h"

enum {
    SYNC_FULL_CHANGES = 128, /* as many fill a piece: waiting for more gains nothing */
    SYNC_DEEP = 256,         /* who lags so many changes behind is fed by one beacon at a time */
    SYNC_ACK_PIECES = 16,    /* are acknowledged at once: the window must not run dry */
    SYNC_REORDERED = 3,      /* younger pieces that arrived: then this one is lost */
    SYNC_LOWER = 3,          /* digests in a row that say less are believed */
    SYNC_ASK_TRIES = 5,      /* so often the time until a question is repeated doubles */
    SYNC_NO_LINK = 0xff,
};
#define SYNC_VERSION_MAX ((UINT64_C(1) << 48) - 1) /* the store knows none beyond */
/* Marks what stands behind an owner's entry in a digest, with boot 0: this bit set, the `began` of
 * struct heard; else the end of a piece that is held. */
#define SYNC_BEGAN_BIT (UINT64_C(1) << 63)
#define SYNC_REBUILT_NS UINT64_C(100000000) /* between looks whether a log is whole again */
#define SYNC_RETRY_MAX_NS UINT64_C(2000000000)
#define SYNC_EXCHANGE_NS UINT64_C(4000000000) /* between whole digests to one that differs */
#define SYNC_VISIT_NS                                                                              \
    UINT64_C(10000000000)                 /* a link that is not wanted gets new pieces so long     \
                                           */
#define SYNC_IDLE_NS UINT64_C(5000000000) /* and ends when it was idle so long */

/* --- sets of owners --- */

struct owner_set {
    uint64_t word[STORE_MEMBERS_MAX / 64];
    unsigned count;
};

static inline bool set_has(const struct owner_set *set, unsigned owner)
{
    return set->word[owner / 64] >> owner % 64 & 1;
}

static inline void set_put(struct owner_set *set, unsigned owner)
{
    set->count += !set_has(set, owner);
    set->word[owner / 64] |= UINT64_C(1) << owner % 64;
}

static inline void set_drop(struct owner_set *set, unsigned owner)
{
    set->count -= set_has(set, owner);
    set->word[owner / 64] &= ~(UINT64_C(1) << owner % 64);
}

/* The first of them from `owner` on, -1: none. */
static inline int set_from(const struct owner_set *set, unsigned owner)
{
    if (set->count == 0 || owner >= STORE_MEMBERS_MAX)
        return -1;
    uint64_t word = set->word[owner / 64] >> owner % 64 << owner % 64;
    for (unsigned i = owner / 64;;) {
        if (word)
            return (int)(i * 64) + __builtin_ctzll(word);
        if (++i == STORE_MEMBERS_MAX / 64)
            return -1;
        word = set->word[i];
    }
}

/* --- links --- */

/* How a peer stands to an owner's log. All zero: it knows nothing. */
struct heard {
    uint64_t boot, version;  /* it knows the log of this boot up to here */
    uint64_t began;          /* while it takes the log from the start: the start's `top`; else 0 */
    struct store_place sent; /* the log of the boot that we know has been sent up to here */
    uint64_t due_ns;         /* while in `waiting` */
    uint8_t lower;           /* digests in a row that said less than we believe */
    bool asked;              /* it waited long enough, and was asked whether it still lags */
    bool moved;              /* what it knows changed since the waiting began: somebody feeds it */
    bool restart;            /* the log's first piece is in flight, alone, see link_restarts */
};

/* One delta in flight. */
struct piece {
    struct store_place place; /* where it begins: version is its `from` */
    uint64_t to, top;
    uint64_t sent_ns, order; /* of the last time */
    uint16_t owner;
    bool held; /* the peer has it, but lacks something before it */
};

struct link {
    bool used, wanted;
    uint16_t member;
    uint64_t since_ns;    /* when it began, or began anew to exchange digests */
    uint64_t exchange_ns; /* not before: the next whole digest because the views differ */
    uint64_t busy_ns;     /* something came */

    /* What the peer is to be asked and told. */
    struct owner_set told;   /* what it knows of these has been said */
    bool told_all;           /* and of owners to come: nothing */
    struct owner_set ask;    /* it is to say what it knows of these */
    struct owner_set asking; /* and these of them go into the next digests */
    uint64_t ask_ns;
    unsigned ask_tries;
    struct owner_set ack; /* to be told what we know of these */
    uint64_t ack_ns;
    unsigned acks; /* pieces that came since the last acknowledgement */

    /* What it is to be sent. */
    struct owner_set ready;   /* may lack something, and nothing stands against sending it */
    struct owner_set waiting; /* lacks or has something; to be looked at when due */
    uint64_t waiting_ns;      /* the earliest due_ns of them, or earlier */
    unsigned turn;            /* owner of the last new piece */
    unsigned count;
    struct piece piece[SYNC_WINDOW]; /* the oldest first */
    uint64_t order, heard_order;     /* of the last piece sent; the latest sent that arrived */
    uint64_t heard_ns;               /* when something was acknowledged last */
    unsigned backoff;                /* times that a timeout passed without that */

    struct heard of[STORE_MEMBERS_MAX];
};

/* A piece that came too early. */
struct held {
    uint64_t boot, from, to; /* to 0: free */
    uint64_t since_ns;
    uint16_t owner, len;
    uint8_t link;
};

/* What of the store has been looked at. Of our own log: what may be sent by now. */
struct noticed {
    uint32_t beacon;
    uint64_t boot, version;
    uint64_t moved_ns; /* when the version rose last */
};

struct sync {
    struct store *store;
    const struct members *members;
    bool relays;

    uint64_t due_ns[SYNC_LINKS_MAX]; /* when to look at the link */
    unsigned turn;                   /* of the links */
    uint8_t link_of[STORE_MEMBERS_MAX];
    uint64_t visit_ns; /* not before: the next link to one that is no neighbour */

    struct noticed owner[STORE_MEMBERS_MAX];
    uint64_t began[STORE_MEMBERS_MAX]; /* the `top` of the piece that began the last rebuild */
    uint64_t view;                     /* the store's when all owners were looked at */
    uint64_t own_ns; /* when our latest changes may be sent, UINT64_MAX: there are none */
    struct owner_set rebuilding; /* taken from the start: not to be read yet */
    uint64_t rebuilding_ns;      /* when to look whether one of them is whole */
    uint64_t now_ns;             /* the latest time we were told */
    struct sync_stats stats;
    struct gossip_delta delta; /* the one at hand */

    unsigned held; /* in use */
    struct held hold[SYNC_HOLD_MAX];
    uint8_t hold_body[SYNC_HOLD_MAX][GOSSIP_BODY_MAX];
    struct link link[SYNC_LINKS_MAX];
};

static inline uint64_t earlier_ns(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t later_ns(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Something may be due on the link. */
static inline void link_wake(struct sync *s, const struct link *l)
{
    s->due_ns[l - s->link] = 0;
}

/* --- sync_link.c --- */

/* The link to a member, one begun when there is none, or NULL: there is no room for it. */
struct link *link_open(struct sync *s, unsigned member, uint64_t now_ns);
void link_close(struct sync *s, struct link *l);
/* What a digest says of an owner. */
struct said {
    uint64_t boot, version;
    uint64_t began; /* as in struct heard */
};
/* The peer has said that it knows so much, or shown (a delta) that it knows as much. */
void link_said(struct sync *s, struct link *l, unsigned owner, const struct said *said,
               uint64_t now_ns);
void link_shown(struct sync *s, struct link *l, unsigned owner, uint64_t boot, uint64_t version,
                uint64_t now_ns);
bool link_behind(const struct sync *s, const struct link *l, unsigned owner);
bool link_ahead(const struct sync *s, const struct link *l, unsigned owner);
/* Decides what is to happen about the owner: nothing, sending, waiting, asking. */
void link_schedule(struct sync *s, struct link *l, unsigned owner, uint64_t now_ns);
/* Looks at those whose waiting is over. */
void link_waited(struct sync *s, struct link *l, uint64_t now_ns);
/* The owner's log is another one now: it will be sent from the start. `forget`: it is even another
 * owner. */
void link_owner_begins(struct link *l, unsigned owner, bool forget);

/* --- sync_window.c --- */

/* The next piece to send, again or for the first time. */
bool window_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret);
uint64_t window_next_ns(const struct sync *s, const struct link *l);
/* What the peer knows of the owner has grown: frees what arrived. */
void window_acked(struct link *l, unsigned owner, uint64_t now_ns);
/* The peer holds the piece that ends there. */
void window_held(struct link *l, unsigned owner, uint64_t to, uint64_t now_ns);
/* Drops the owner's pieces; what the peer is not known to have will be read again. */
void window_rewind(const struct sync *s, struct link *l, unsigned owner);
/* Forgets the owner's pieces. */
void window_drop(struct link *l, unsigned owner);
/* --- sync_digest.c --- */

/* The next digest that is due. */
bool digest_next(struct sync *s, struct link *l, uint64_t now_ns, struct sync_out *ret);
uint64_t digest_next_ns(const struct link *l);
void digest_ack(struct sync *s, struct link *l, unsigned owner, uint64_t at_ns);
void digest_ask(struct sync *s, struct link *l, unsigned owner, uint64_t at_ns);
/* Asks about all that we know. */
void digest_ask_all(struct sync *s, struct link *l, uint64_t at_ns);
void digest_ack_all(struct sync *s, struct link *l, uint64_t at_ns);

/* --- sync_hold.c --- */

/* Keeps s->delta, whose body this is. */
void hold_put(struct sync *s, const struct link *l, unsigned owner, const uint8_t *body, size_t len,
              uint64_t now_ns);
/* The owner's log has grown: applies what joins it now. */
void hold_apply(struct sync *s, unsigned owner, uint64_t now_ns);
void hold_drop_link(struct sync *s, const struct link *l);
/* Lists the pieces of the owner held of this link behind entry `count`; returns the new count. */
unsigned hold_list(const struct sync *s, const struct link *l, unsigned owner,
                   struct digest_entry entry[static GOSSIP_DIGEST_MAX], unsigned count);

#endif
