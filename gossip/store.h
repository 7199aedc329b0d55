/* store - who claims which node: rows of (node, owner), and each owner's log in order of version.
 *
 * An owner is a beacon that registers nodes: ourselves (STORE_SELF), a member of the mesh, or one
 * socket of an original beacon. Each owner counts its changes: a version. Its log is the list of
 * its rows in order of the version of their last change; a change moves a row to the end, so a log
 * is never longer than its rows and whoever knows it up to version v lacks exactly the rows behind
 * v. A node that is gone leaves a tombstone in the list. Tombstones are purged, oldest first, when
 * there are too many (a quarter of the rows), they are too old, or a row is wanted and none is
 * free; who is further behind than that (below the owner's `horizon`) must take the log from the
 * start.
 *
 * Holds: a row costs 32 bytes, its share of the hash heads and of the queue of tombstones
 * included. Capacity is fixed; state records have room of their own. A row, once placed, does not
 * move, so an index names it until it is freed. One thread. Memory belongs to the caller. Pure. */
#ifndef BEACON_GOSSIP_STORE_H
#define BEACON_GOSSIP_STORE_H

#include "proto/gossipmsg.h"
#include "proto/siphash.h"

enum {
    STORE_SELF = 0,
    STORE_MEMBERS_MAX = 1024, /* owners 1.. are members of the mesh */
    STORE_PILOTS_MAX = 256,   /* behind them: sockets of original beacons */
    STORE_OWNERS_MAX = STORE_MEMBERS_MAX + STORE_PILOTS_MAX,
    STORE_NONE = 0xffff,      /* no owner */
    STORE_TOMBSTONE_S = 1800, /* kept so long, room permitting */
};

struct store;

/* `rows` in all, own nodes included. Of one owner but ourselves at most `owner_rows`. */
size_t store_size(uint32_t rows);
struct store *store_init(void *memory, uint32_t rows, uint32_t owner_rows, struct siphash_key key);

/* Of all rows, so many are for nodes of our own alone: others cannot fill them. */
void store_reserve(struct store *s, uint32_t rows);

/* Told, within the calls below, of each node whose best claim may have changed: the best of all or
 * the best of others, an unusable one not left out. It may read the store, not change it. */
typedef void store_changed(void *arg, uint32_t id);
void store_on_change(struct store *s, store_changed *changed, void *arg);

/* --- owners --- */

/* How much a claim of this owner is worth now; the best claim is of the highest rank, then of the
 * highest class, then the one learnt last. */
enum store_rank { STORE_UNUSABLE, STORE_PILOT, STORE_DOUBTED, STORE_USABLE, STORE_OWN };
struct store_owner {
    uint32_t beacon; /* its id; 0: this index is not in use */
    uint64_t boot, version;
    uint64_t horizon;  /* tombstones up to here are purged */
    uint64_t top;      /* while `rebuilding`: where it will be whole again */
    bool rebuilding;   /* taking the log from the start: rows of before stay until it is whole */
    uint8_t rank;      /* enum store_rank */
    uint32_t rows;     /* tombstones not counted */
    uint32_t refused;  /* rows not taken since the log began, or of the last set: caps */
    uint8_t state_len; /* its state record */
    uint8_t state[GOSSIP_STATE_MAX];
};
const struct store_owner *store_owner(const struct store *s, unsigned owner);
/* Begins an empty log. For STORE_SELF too, with our boot; `boot` 0: not known yet. The rank is
 * STORE_UNUSABLE until it is set, ours STORE_OWN. */
void store_owner_begin(struct store *s, unsigned owner, uint32_t beacon, uint64_t boot);
/* Does not walk the rows: call store_recheck until it says 0. */
void store_owner_rank(struct store *s, unsigned owner, enum store_rank rank);
/* Tells `changed` of the next `rows` rows of the owner from row `*cursor` on (start with
 * STORE_CURSOR_START). False: that was the last. A row that changes meanwhile is told of anyway. */
enum { STORE_CURSOR_START = -1 };
bool store_recheck(struct store *s, unsigned owner, int64_t *cursor, uint32_t rows);
/* Forgets up to `rows` rows of an owner that is no more; nothing is applied to it meanwhile. False:
 * none are left, the index is free. */
bool store_owner_forget(struct store *s, unsigned owner, uint32_t rows);

/* --- own facts --- */

/* A node is registered here (or changed class or transport, or was heard again although another
 * claims it too: news once, until that claim goes); it is gone; our state. The version rises by one
 * when that is news. False: no room. */
bool store_claim(struct store *s, uint32_t id, uint8_t meta, uint64_t now_ns);
void store_withdraw(struct store *s, uint32_t id, uint64_t now_ns);
void store_state(struct store *s, const uint8_t *state, size_t len, uint64_t now_ns);
/* Our boot changes (somebody knows a later one): the log begins again with all rows, in order.
 * Versions go on counting, and every place in the log but zero is now below the horizon. */
void store_reboot(struct store *s, uint64_t boot);

/* --- others' facts --- */

enum store_applied {
    STORE_APPLIED, /* the owner's version is now delta->to */
    STORE_KNOWN,   /* all of it was known, or is older than the rebuild that is under way */
    STORE_AHEAD, /* does not join what is known: something before it is missing. Nothing changed */
};
/* Takes a piece of an owner's log. A later boot than the known one needs `from` 0 (else
 * STORE_AHEAD); an earlier one is STORE_KNOWN. A row for which there is no room is counted in
 * `refused`; the version rises all the same: it comes with its next change, or the next rebuild.
 * The log is passed on without it.
 *
 * A piece with `from` 0 begins a rebuild when the boot is later, when nothing is known yet, or when
 * its `top` is above our version (while rebuilding: above the `top` that began it). That is how
 * a sender starts us again who has purged tombstones that we lack; so a sender must not begin at
 * zero with who is further. The version falls back to the piece's `to`, and rises with the pieces
 * that follow, from whoever. Rows of before count until they have come again, or until `top` is
 * reached: then they go, some thousands a call and a tick; only then does `rebuilding` end.
 * Versions have 48 bits: what lies beyond is STORE_AHEAD. */
enum store_applied store_apply(struct store *s, unsigned owner, const struct gossip_delta *delta,
                               uint64_t now_ns);

/* A pilot owner's whole set, in three steps: what is not named again between begin and end is gone,
 * unless `keep_missing`. */
void store_replace_begin(struct store *s, unsigned owner);
/* False: id 0, or no room. */
bool store_replace_row(struct store *s, unsigned owner, uint32_t id, uint64_t now_ns);
/* How many rows of the last set have not been named, to be asked before the end. */
uint32_t store_replace_missing(const struct store *s, unsigned owner);
void store_replace_end(struct store *s, unsigned owner, bool keep_missing);

/* --- reading --- */

struct holder {
    uint16_t owner; /* STORE_NONE: nobody who is usable */
    uint8_t meta;
};
/* The best usable claim on a node; `others`: our own does not count. */
struct holder store_best(const struct store *s, uint32_t id, bool others);
/* Do several owners but ourselves claim it, usable or not? */
bool store_contested(const struct store *s, uint32_t id);
/* One of them, STORE_NONE: nobody. */
unsigned store_claimant(const struct store *s, uint32_t id);
/* Does `owner` claim `id`? */
bool store_has(const struct store *s, unsigned owner, uint32_t id);

/* Where a reader of a log is. All zero is its start. A place is of one boot: with another, begin at
 * zero. `row` only saves a walk: through the log from the hint, or from an end of it without one.
 *
 * Below the horizon only `began` tells a reader that started lately, and may go on, from one that
 * has missed tombstones. Who goes back to an earlier version, to send again, keeps it; who is not
 * sure that the reader took the piece that began at zero, rather than had its version from somebody
 * else, clears it. */
struct store_place {
    uint64_t version; /* everything up to here has been read */
    uint64_t began;   /* the owner's version when the reader was at zero; 0: it never was */
    uint32_t row;     /* a hint: a row close by, at best the one with that version; 0: none */
};
/* The next piece of the owner's log behind `*place`, as much as fits `room` bytes of a body; moves
 * `*place`. False: nothing is behind it, or the owner is being rebuilt, or cannot be continued from
 * there: `*ret_restart` says so, and the reader must begin at zero. `room` is STORE_READ_MIN at
 * least. `ret->state` points into the store. Who had a version and is started again must have taken
 * the first piece before it gets another: nothing in the others tells that they belong to it. */
enum { STORE_READ_MIN = DELTA_HEAD_MAX + DELTA_ROW_MAX + GOSSIP_STATE_MAX + 3 };
bool store_read(const struct store *s, unsigned owner, struct store_place *place, size_t room,
                struct gossip_delta *ret, bool *ret_restart);

/* The own id behind `*cursor` (start with STORE_CURSOR_START). False at the end. When the own rows
 * change between two calls, ids may come twice. */
bool store_own_next(const struct store *s, int64_t *cursor, uint32_t *ret_id);

/* Purges tombstones that are due, goes on with the ends of rebuilds. Call once a second. */
void store_tick(struct store *s, uint64_t now_ns);

uint32_t store_rows(const struct store *s); /* in use, tombstones included */
uint32_t store_capacity(const struct store *s);
/* Changes whenever any owner's boot or version does: of two stores that know the same it is equal.
 * Pilot owners do not count. */
uint64_t store_view(const struct store *s);

#endif
