/* keys_table - node id -> key, for a fixed number of ids, in the order in which they were last put.
 *
 * All memory is taken by key_table_new. Ids are hashed under a secret, so nobody can choose ids
 * that collide. Full is the caller's to solve: remove the oldest, or refuse. One thread. */
#ifndef BEACON_WSS_KEYS_TABLE_H
#define BEACON_WSS_KEYS_TABLE_H

#include <stdint.h>
#include "proto/msg.h"
#include "proto/siphash.h"

struct key_row {
    uint64_t put_ns;
    uint8_t key[MSG_KEY_LEN]; /* the caller's */
    uint32_t node_id;
    /* The table's: places of other rows, UINT32_MAX at the end. */
    uint32_t next;         /* of the same hash, or the next free one */
    uint32_t older, newer; /* by put_ns */
};

struct key_table;
struct key_table *key_table_new(unsigned rows, struct siphash_key secret); /* NULL: no memory */
void key_table_free(struct key_table *t);                                  /* NULL is fine */

/* NULL: not there. */
struct key_row *key_table_find(const struct key_table *t, uint32_t node_id);
/* The row of this id, old or new, which becomes the newest. NULL: full. A new one has no key yet.
 */
struct key_row *key_table_put(struct key_table *t, uint32_t node_id, uint64_t now_ns);
void key_table_remove(struct key_table *t, struct key_row *row);
/* NULL: empty. */
struct key_row *key_table_oldest(const struct key_table *t);
unsigned key_table_count(const struct key_table *t);
bool key_table_is_full(const struct key_table *t);

#endif
