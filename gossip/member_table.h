/* member_table - what the parts of member share: the table, its order and what is told of it.
 *
 * member.c decides what a fact means, member_probe.c when to ask whom, member_table.c keeps the
 * indices. Holds: a fact is changed by member_set alone, so the view, the ring and the list of
 * changes always fit it; due_ns[i] is the earliest of all that waits for member i, and next_ns no
 * later than any of them. */
#ifndef BEACON_GOSSIP_MEMBER_TABLE_H
#define BEACON_GOSSIP_MEMBER_TABLE_H

#include "gossip/member.h"

enum {
    HASH_SLOTS = 2 * MEMBERS_MAX,
    HELPS_MAX = 256,
    OUT_MAX = 1 + MEMBER_HELPERS, /* one try: a ping, and probes */
    SENT_MAX = 4,                 /* tries whose answer measures the round trip */
};
static_assert((HASH_SLOTS & (HASH_SLOTS - 1)) == 0, "probed with a mask");
static_assert((HELPS_MAX & (HELPS_MAX - 1)) == 0, "numbers wrap within it");

#define NEVER_NS UINT64_MAX

/* How we keep an eye on a member. */
struct watch {
    uint64_t proof_ns;    /* the last sign of life: its own frame or a helper's word, 0: none */
    uint64_t since_ns;    /* while suspect: since when it is so here */
    uint64_t sentence_ns; /* while suspect: then it is dead */
    uint64_t step_ns;     /* the next try of its round of questions, NEVER_NS: no round */
    uint64_t sent_ns[SENT_MAX]; /* tries of this round, by their number; 0: do not measure */
    uint32_t round;
    uint16_t tries; /* sent in this round */
    /* What others hold against it and we do not believe: to be told to itself. */
    uint32_t accused_incarnation;
    uint8_t accused_state;      /* MEMBER_ALIVE: nothing */
    bool behind;                /* it lives with an earlier boot than is known of it */
    bool changed, ordered, hot; /* is in the list of that name */
    uint8_t told;               /* how often its fact has been given out */
};

/* A ping for somebody else. */
struct help {
    uint64_t number;       /* ours; 0: none */
    uint64_t asker_number; /* theirs */
    uint64_t at_ns;
    uint16_t asker;
};

struct members {
    uint64_t random;
    uint64_t view;
    unsigned count;
    struct member of[MEMBERS_MAX];
    struct watch watch[MEMBERS_MAX];
    uint64_t due_ns[MEMBERS_MAX];

    uint16_t slot[HASH_SLOTS];  /* open addressing by id: index, 0: empty */
    uint16_t ring[MEMBERS_MAX]; /* alive and suspect ones, and always ourselves, in order of their
                                   hash */
    unsigned ring_count;
    uint16_t order[MEMBERS_MAX]; /* in which they are asked; some may have died since */
    unsigned order_count, order_at;
    uint16_t hot[MEMBERS_MAX]; /* facts that are still told */
    unsigned hot_count, hot_turn;
    uint16_t changed[MEMBERS_MAX];
    unsigned changed_count;

    uint64_t period_ns; /* when the next one begins */
    uint64_t next_ns;   /* when we want to be called */
    bool ticked;        /* before the first call nothing can be late */
    bool woke;          /* slept through a period */
    unsigned scan;      /* member_tick has handled the due ones below */
    unsigned dead_turn;
    unsigned health;
    uint64_t lag_ns;
    struct member_ping out[OUT_MAX]; /* made by member_tick, not yet taken */
    unsigned out_count;
    uint32_t help_count;
    struct help help[HELPS_MAX];
};

static inline bool fact_lives(const struct member_fact *f)
{
    return f->id != 0 && (f->state == MEMBER_ALIVE || f->state == MEMBER_SUSPECT);
}

/* --- member_table.c --- */

uint64_t member_mix(uint64_t x);
uint64_t member_dice(struct members *m);
/* -1: full. Its id is set, nothing else. */
/* By hearsay only three quarters of the places are given away. */
int member_add(struct members *m, uint32_t id, bool hearsay);
void member_set(struct members *m, unsigned i, const struct member_fact *fact, uint64_t now_ns);
/* Reports it by member_changes. */
void member_note(struct members *m, unsigned i);
/* The index is free from now on. */
void member_drop(struct members *m, unsigned i, uint64_t now_ns);
/* Its fact is news; it is none any more. */
void member_spread(struct members *m, unsigned i);
void member_hush(struct members *m, unsigned i);

/* --- member_probe.c --- */

/* Fits due_ns to what waits for this member. */
void member_due(struct members *m, unsigned i);
/* Began now: a suspicion somebody told us of, or (`own`) one of ours. */
void member_suspected(struct members *m, unsigned i, bool own, uint64_t now_ns);
/* No more questions to it for the moment. */
void member_rest(struct members *m, unsigned i);
void member_worse(struct members *m, unsigned by);

/* --- member.c --- */

/* Awake after a sleep that others may have noticed: raises our incarnation. */
void member_woken(struct members *m);
/* It lives: what others hold against it, it must refute. */
bool member_proven(struct members *m, unsigned i, uint64_t now_ns);

#endif
