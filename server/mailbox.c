#include "server/mailbox.h"

/* A ring of slots that each say whose turn it is (after D. Vyukov's bounded queue). A producer
 * claims a position by moving `tail`, fills the slot and publishes it by its turn. */

void mailbox_init(struct mailbox *m)
{
    for (uint32_t i = 0; i < MAIL_SLOTS; i++)
        atomic_store_explicit(&m->slot[i].turn, i, memory_order_relaxed);
    atomic_store_explicit(&m->tail, 0, memory_order_relaxed);
    m->head = 0;
}

bool mailbox_put(struct mailbox *m, const struct mail *mail)
{
    uint32_t at = atomic_load_explicit(&m->tail, memory_order_relaxed);
    for (;;) {
        struct mail_slot *slot = &m->slot[at % MAIL_SLOTS];
        /* Pairs with the release in mailbox_take: the consumer has read the old letter. */
        int32_t ahead = (int32_t)(atomic_load_explicit(&slot->turn, memory_order_acquire) - at);
        if (ahead < 0)
            return false; /* still holds the letter of one round before: full */
        if (ahead > 0) {  /* another producer took this position */
            at = atomic_load_explicit(&m->tail, memory_order_relaxed);
            continue;
        }
        if (!atomic_compare_exchange_weak_explicit(&m->tail, &at, at + 1, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        slot->mail = *mail;
        atomic_store_explicit(&slot->turn, at + 1, memory_order_release); /* publishes the letter */
        return true;
    }
}

bool mailbox_take(struct mailbox *m, struct mail *ret)
{
    struct mail_slot *slot = &m->slot[m->head % MAIL_SLOTS];
    if (atomic_load_explicit(&slot->turn, memory_order_acquire) != m->head + 1)
        return false;
    *ret = slot->mail;
    atomic_store_explicit(&slot->turn, m->head + MAIL_SLOTS, memory_order_release);
    m->head++;
    return true;
}
