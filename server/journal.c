#include "server/journal.h"

#include <assert.h>

static_assert((JOURNAL_ENTRIES & (JOURNAL_ENTRIES - 1)) == 0, "positions wrap");

/* An entry in one word: class (8) | stream (1) | gone (1) | id (32), from bit 40 down. */
static uint64_t entry_word(const struct journal_entry *e)
{
    return (uint64_t)e->class_ << 40 | (uint64_t)e->stream << 33 | (uint64_t)e->gone << 32 | e->id;
}

void journal_put(struct journal *j, const struct journal_entry *e)
{
    uint32_t tail = atomic_load_explicit(&j->tail, memory_order_relaxed); /* ours alone */
    /* Pairs with the release in journal_take: the consumer has read what lay there. */
    if (tail - atomic_load_explicit(&j->head, memory_order_acquire) == JOURNAL_ENTRIES) {
        uint32_t lost = atomic_load_explicit(&j->lost, memory_order_relaxed); /* ours alone */
        /* Pairs with journal_lost: who sees the loss sees the table as it was when it happened. */
        atomic_store_explicit(&j->lost, lost + 1, memory_order_release);
        return;
    }
    atomic_store_explicit(&j->entry[tail % JOURNAL_ENTRIES], entry_word(e), memory_order_relaxed);
    atomic_store_explicit(&j->tail, tail + 1, memory_order_release); /* publishes the entry */
}

bool journal_take(struct journal *j, struct journal_entry *ret)
{
    uint32_t head = atomic_load_explicit(&j->head, memory_order_relaxed); /* ours alone */
    /* Pairs with the release in journal_put: entries before `tail` are whole. */
    if (atomic_load_explicit(&j->tail, memory_order_acquire) == head)
        return false;
    uint64_t word = atomic_load_explicit(&j->entry[head % JOURNAL_ENTRIES], memory_order_relaxed);
    atomic_store_explicit(&j->head, head + 1, memory_order_release);
    *ret = (struct journal_entry){
        .id = (uint32_t)word,
        .gone = word >> 32 & 1,
        .class_ = (uint8_t)(word >> 40),
        .stream = word >> 33 & 1,
    };
    return true;
}

uint32_t journal_lost(const struct journal *j)
{
    return atomic_load_explicit(&j->lost, memory_order_acquire);
}
