/* gossip_key - edits the file of the keys that beacons seal their gossip with (gossip/seal.h).
 *
 * A change replaces the file as a whole: what is written next to it, under the name with ".new"
 * behind, is renamed over it. That name is also the lock: while it is there nobody else edits.
 * Owner and group stay; nobody but the owner, and the group where it could before, may read it.
 * Comments are not kept. A link is followed. sodium_init must have been called. */
#ifndef BEACON_CMD_GOSSIP_KEY_H
#define BEACON_CMD_GOSSIP_KEY_H

#include <stdio.h>
#include "cmd/ctl.h"
#include "gossip/seal.h"

enum { GOSSIP_KEY_ERROR_MAX = 512, GOSSIP_KEY_MARK_MAX = 9, GOSSIP_KEY_FILE_MAX = 4096 };

enum gossip_key_action {
    GOSSIP_KEY_GENERATE, /* a new file with one new key, in use */
    GOSSIP_KEY_LIST,
    GOSSIP_KEY_ADD,  /* a new key that is accepted */
    GOSSIP_KEY_TAKE, /* the same, but the key comes from a line of another beacon's file */
    GOSSIP_KEY_USE,
    GOSSIP_KEY_REMOVE,
    GOSSIP_KEY_ACTIONS
};

struct gossip_key_wish {
    enum gossip_key_action action;
    bool has_id; /* without, ADD and GENERATE choose one */
    uint8_t id;
    FILE *from; /* of TAKE: a line of a keys file */
};

/* Does it, and fills in the keys that are there then; `ret` is to be wiped. False: nothing has
 * changed, and `error` says why. */
bool gossip_key_edit(const char *path, const struct gossip_key_wish *wish, struct seal_ring *ret,
                     char error[static GOSSIP_KEY_ERROR_MAX]);

/* What tells keys apart, and does not tell them: the first 8 hex digits of their BLAKE2b-256. */
void gossip_key_mark(const uint8_t key[static SEAL_KEY_LEN], char ret[static GOSSIP_KEY_MARK_MAX]);

/* `beaconctl gossip-key ACTION [ID]`. */
int gossip_key_run(struct ctl *c, const char *action, const char *id);

#endif
