/* gossip_state - the inside of struct gossip, for gossip*.c only.
 */
#ifndef BEACON_GOSSIP_GOSSIP_STATE_H
#define BEACON_GOSSIP_GOSSIP_STATE_H

#include "gossip/gossip.h"

enum {
    OUT_QUEUE = 256,       /* frames about members and keys that wait to be taken */
    ROUTE_QUEUE = 1 << 18, /* nodes whose way has changed: half takes what one delta can set off */
    RECHECK_ROWS = 4096,   /* a turn */
    FRAMES_PER_S = 20000,  /* of one member: a megabyte-a-second log is 1,000 */
    BAD_PER_S = 50000,     /* frames that do not open, before strangers are not read any more */
    HELLO_EACH_MS = 200,   /* challenges to one member */
    STRANGER_HELLO_BURST = 64,
    STRANGER_HELLO_EACH_MS = 5, /* and to all ids that are no member yet */
    REBOOTS_MAX = 3,            /* in a while: then somebody else uses our id */
    HELLO_LEN_MAX = GOSSIP_SEAL_LEN + GOSSIP_HELLO_FULL,            /* of a frame */
    HELLO_LEN_MIN = GOSSIP_SEAL_LEN + 3 + 1 + GOSSIP_CHALLENGE_LEN, /* that says anything */
};
#define GOSSIP_SECOND_NS UINT64_C(1000000000)
#define MUTE_NS UINT64_C(60000000000)
#define REBOOTS_NS UINT64_C(60000000000)
#define RUMOUR_NS UINT64_C(100000000)   /* news of members go out together */
#define DIFFERS_NS UINT64_C(1500000000) /* views may differ so long before it means something */
#define SEED_MIN_NS UINT64_C(1000000000)
#define SEED_MAX_NS UINT64_C(15000000000)

/* What we share with one member, by its index. */
struct peer_session {
    uint64_t boot; /* proven, 0: not yet */
    struct seal_window window;
    bool anew;           /* its window is of no use: it has to prove itself once more */
    uint64_t hello_ns;   /* when it was last challenged */
    uint64_t behind_ns;  /* when it was last told that it lives with an earlier boot */
    uint64_t second;     /* of `in_second` */
    uint32_t in_second;  /* frames of this second */
    uint64_t differs_ns; /* since when its view differs, 0: it does not */
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    const char *error;
};

/* What is known of an owner's rows in the shards. */
struct owner_walk {
    bool walking, all; /* all: tell of every row; else of those that several claim */
    bool forgetting;
    uint8_t rank;
    int64_t cursor;
    uint64_t left_boot, left_version; /* when it became unusable */
};

struct seed_state {
    struct gossip_seed seed;
    bool learned_pilot; /* speaks 0x07 and has not proven a key */
    bool is_us;
    uint64_t next_ns, pause_ns;
};

struct out_frame {
    struct endpoint to;
    uint32_t receiver;
    int member; /* index, -1: none yet */
    enum gossip_kind kind;
    uint16_t len;
    uint8_t body[GOSSIP_BODY_MAX];
};

struct gossip {
    struct gossip_config config;
    struct store *store;
    struct members *members;
    struct sync *sync;
    struct pilot *pilot;

    bool has_keys;
    struct seal_ring ring;
    struct seal_random random;
    uint8_t challenge_secret[16];
    struct siphash_key place_key;
    uint64_t boot, sequence, now_ns;

    struct peer_session session[MEMBERS_MAX];
    struct owner_walk walk[STORE_OWNERS_MAX];
    bool beacons_changed, links_changed;
    unsigned walks; /* owners that are walking or forgetting */

    unsigned seed_count;
    struct seed_state seed[GOSSIP_SEEDS_MAX];
    uint64_t seeds_ns; /* the next time one is due */

    uint64_t second_ns, rumours_ns, strangers_ns;
    uint64_t bad_second;
    uint32_t bad_in_second;
    unsigned reboots;
    uint64_t reboots_ns, muted_until_ns;
    struct endpoint duplicate_at;

    uint32_t out_head, out_tail;
    struct out_frame out[OUT_QUEUE];
    uint32_t route_head, route_tail;
    bool routes_lost; /* the queue was full: all rows are walked again */
    bool own_news;    /* `changed` comes from a node of ours */
    bool rechecking;  /* `changed` comes from a walk */
    uint32_t routes[ROUTE_QUEUE];
    uint8_t frame[GOSSIP_FRAME_MAX];

    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    uint64_t verdict[GOSSIP_VERDICT_COUNT];
};

/* Queues a body to a member, or to an address whose id is not known. A full queue drops it: each of
 * these is sent again when it is missed. */
void out_put(struct gossip *g, int member, const struct endpoint *to, uint32_t receiver,
             enum gossip_kind kind, const uint8_t *body, size_t len);
/* HELLO to `to`: with a challenge for (id, boot) unless boot is 0, and an echo if any. In at most
 * `room` bytes of a frame, which are as many as came: nobody shall make us send more to an address
 * that has not proven itself. */
void hello_put(struct gossip *g, const struct endpoint *to, uint32_t id, uint64_t boot,
               const uint8_t *echo, size_t room);
/* HELLO to a seed, whoever is there. */
void knock_put(struct gossip *g, const struct endpoint *to);
bool echo_holds(const struct gossip *g, const struct gossip_head *head, const uint8_t *echo,
                const struct endpoint *from);
/* Tells a knock of ours that comes back: to whom it went. */
void knock_mark(const struct gossip *g, const struct endpoint *to,
                uint8_t ret[static GOSSIP_CHALLENGE_LEN]);
/* A ping or probe that is due. */
void gossip_ping(struct gossip *g, const struct member_ping *ping);
/* All we know about beacons, to one member. */
void members_put(struct gossip *g, unsigned member);
/* Takes a later boot, because others know one that is not ours. */
void gossip_reboot(struct gossip *g, uint64_t boot);
/* Hash of what we know: members in use and how far we have their logs. */
uint64_t gossip_view(const struct gossip *g);
void pilots_choose(struct gossip *g);

static inline bool gossip_muted(const struct gossip *g)
{
    return g->now_ns < g->muted_until_ns;
}

#endif
