/* journal - what one lane tells the mesh: nodes that came, changed or went.
 *
 * A ring of small entries, one producer (the lane's thread), one consumer (the mesh's). When it is
 * full the entry is lost and the journal says so: the consumer then reads the lane's whole part of
 * the table instead. Memory belongs to the caller. */
#ifndef BEACON_SERVER_JOURNAL_H
#define BEACON_SERVER_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { JOURNAL_ENTRIES = 1 << 15 };

struct journal_entry {
    uint32_t id;
    bool gone;
    uint8_t class_; /* enum route_class */
    bool stream;
};

struct journal {
    _Alignas(64) _Atomic uint32_t tail; /* the producer writes */
    _Atomic uint32_t lost;              /* entries that found no room, in all */
    _Alignas(64) _Atomic uint32_t head; /* the consumer writes */
    _Atomic uint64_t entry[JOURNAL_ENTRIES];
};

/* The producer. */
void journal_put(struct journal *j, const struct journal_entry *e);
/* The consumer. False: empty. */
bool journal_take(struct journal *j, struct journal_entry *ret);
uint32_t journal_lost(const struct journal *j);

#endif
