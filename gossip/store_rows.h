/* store_rows - what the files of the store share: rows, the chains and lists they hang in, owners.
 * Private to gossip/store*.c.
 *
 * Holds: a node's row hangs in one hash chain (by id) and in one list (its owner's, in order of
 * version), or it is free. An owner's state record has a row of its own behind the others; it hangs
 * in the list only, or nowhere. Row 0 is nobody's: an index of 0 means none. */
#ifndef BEACON_GOSSIP_STORE_ROWS_H
#define BEACON_GOSSIP_STORE_ROWS_H

#include <assert.h>
#include "gossip/store.h"

struct row {
    uint32_t id; /* 0: a state record */
    uint32_t version_low;
    uint32_t prev, next; /* in the owner's list; `next` links free rows too */
    uint32_t chain;
    uint16_t owner; /* STORE_NONE: free, or a state record that hangs nowhere */
    uint16_t version_high;
    uint16_t learned; /* seconds, modulo 65536: of the claim, or of the death of a tombstone */
    uint8_t meta;     /* ROW_META bits */
    bool gone : 1;    /* a tombstone */
    bool renewed : 1; /* ours, and claimed anew against another's claim */
};
static_assert(sizeof(struct row) + sizeof(uint32_t) / 2 + sizeof(uint64_t) / 4 == 32,
              "a row, its share of the heads and of the queue of tombstones");

enum { ROW_META = DELTA_CLASS | DELTA_STREAM };
#define STORE_VERSION_MAX ((UINT64_C(1) << 48) - 1)

struct owner {
    struct store_owner shown;
    uint32_t head, tail; /* the list */
    uint32_t old;        /* the last row of before a rebuild or replacement: the list's first part
                            ends with it. 0: none */
    uint64_t began;      /* `top` of the piece that began the rebuild */
    bool same_log;       /* the rebuild is of the boot that the old rows are of */
    uint32_t missing;    /* rows of before a replacement, not named again */
};

struct store {
    struct siphash_key key;
    uint32_t capacity, owner_rows;
    uint32_t reserved;      /* rows that only our own nodes take */
    store_changed *changed; /* NULL: nobody wants to know */
    void *arg;

    uint32_t used;
    uint32_t free; /* list of free rows */
    uint32_t hand; /* the row that is aged next */
    uint64_t view;
    struct row *row; /* 1 .. capacity are nodes', those behind are state records by owner */
    uint32_t *head;  /* hash chains, half as many as rows */

    /* The queue of tombstones: row (32) | low half of its version (32), oldest first. An entry
     * whose row has another version or lives again is void. */
    uint64_t *grave;
    uint32_t graves_max, grave_first, graves;

    uint8_t rank[STORE_OWNERS_MAX]; /* as in `shown`, close together for whoever compares claims */
    struct owner owner[STORE_OWNERS_MAX];
};

static inline uint64_t row_version(const struct row *r)
{
    return (uint64_t)r->version_high << 32 | r->version_low;
}

static inline uint16_t row_seconds(uint64_t now_ns)
{
    return (uint16_t)(now_ns / 1000000000);
}

/* --- store_table.c: chains, lists, and whose claim is best --- */

uint32_t store_heads(const struct store *s);                           /* hash chains */
uint32_t row_find(const struct store *s, unsigned owner, uint32_t id); /* a tombstone too */
uint32_t row_state(const struct store *s, unsigned owner);
/* Puts the row at the end of its owner's list, with this version. */
void row_to_end(struct store *s, unsigned owner, uint32_t index, uint64_t version);
/* To the front of its chain: its claim is the latest. */
void row_to_front(struct store *s, uint32_t index);
/* Takes a free row for a node, with no claim yet: a tombstone, for the caller to place. */
uint32_t row_take(struct store *s, unsigned owner, uint32_t id);
/* Out of chain and list, and free. Tells nobody. */
void row_drop(struct store *s, uint32_t index);

/* Both answers of store_best, to compare before and after; but owners of no rank count too. Who
 * acts on changes may not have come to the loss of an owner's rank, and must hear when that owner's
 * row goes. */
struct standing {
    struct holder best, others;
};
struct standing standing(const struct store *s, uint32_t id);
void standing_tell(const struct store *s, uint32_t id, const struct standing *before);

/* --- store_log.c: facts and tombstones --- */

/* Boot and version, and with them the view. */
void owner_position(struct store *s, unsigned owner, uint64_t boot, uint64_t version);
void fact_here(struct store *s, unsigned owner, uint32_t index, uint8_t meta, uint64_t version);
void fact_gone(struct store *s, unsigned owner, uint32_t index, uint64_t version, uint64_t now_ns);
void fact_state(struct store *s, unsigned owner, const uint8_t *state, size_t len,
                uint64_t version);
/* Frees a row by purging the oldest tombstone, if none is free. False: there is no tombstone. */
/* The same where `all` are the rows that others than ourselves may use. */
bool graves_make_room_for_others(struct store *s);
bool graves_make_room(struct store *s);
void graves_tick(struct store *s, uint64_t now_ns);
/* Drops the first row of the list, and tells. */
void log_drop_first(struct store *s, unsigned owner);

#endif
