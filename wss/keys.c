#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "wss/keys_file.h"
#include "wss/keys_table.h"
#include "wss/lookup.h"

/* Ids that nobody has cost a stranger nothing: they have a smaller part of the cache and push out
 * only each other. */
enum { UNKNOWN_MAX = KEYS_CACHE_MAX / 4, FOUND_MAX = KEYS_CACHE_MAX - UNKNOWN_MAX };

#define SECOND_NS UINT64_C(1000000000)
#define FOUND_NS (300 * SECOND_NS)
#define STALE_NS (3600 * SECOND_NS)
#define UNKNOWN_NS (30 * SECOND_NS)
#define PIN_NS (86400 * SECOND_NS)

struct keys {
    /* The main thread writes, the edge's takes: the newest file that it has not seen. NULL: none.
     */
    struct keys_file *_Atomic handed_over;
    /* The main thread writes, any reads. */
    _Atomic unsigned file_count;
    /* The edge's thread. NULL: that source of keys is off. */
    struct keys_file *file; /* never NULL */
    uint64_t file_version;
    struct lookup *lookup;
    struct key_table *found, *unknown; /* answers of the registry */
    struct key_table *pins;
    /* The edge's thread writes, any reads. */
    struct keys_stats stats;
};

/* --- open, close, reload --- */

static bool open_tables(struct keys *k, const struct keys_config *c)
{
    struct siphash_key secret;
    if (getrandom(&secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        return false;
    if (c->lookup != LOOKUP_NONE) {
        k->found = key_table_new(FOUND_MAX, secret);
        k->unknown = key_table_new(UNKNOWN_MAX, secret);
    }
    if (c->first_use)
        k->pins = key_table_new(KEYS_PINS_MAX, secret);
    return (c->lookup == LOOKUP_NONE || (k->found && k->unknown)) && (!c->first_use || k->pins);
}

struct keys *keys_open(const struct keys_config *c, char error[static KEYS_ERROR_MAX])
{
    struct keys *k = calloc(1, sizeof *k);
    if (!k || !open_tables(k, c)) {
        snprintf(error, KEYS_ERROR_MAX, "keys: no memory");
        goto close;
    }
    k->file = keys_file_read(c->file, error);
    if (!k->file)
        goto close;
    atomic_init(&k->file_count, k->file->count);
    if (c->lookup == LOOKUP_NONE)
        return k;
    k->lookup = lookup_open(c, error);
    if (k->lookup)
        return k;
close:
    if (k)
        keys_close(k);
    return NULL;
}

void keys_close(struct keys *k)
{
    if (k->lookup)
        lookup_close(k->lookup);
    key_table_free(k->found);
    key_table_free(k->unknown);
    key_table_free(k->pins);
    free(k->file);
    free(atomic_load_explicit(&k->handed_over, memory_order_acquire));
    free(k);
}

bool keys_reload(struct keys *k, const char *file, char error[static KEYS_ERROR_MAX])
{
    struct keys_file *f = keys_file_read(file, error);
    if (!f)
        return false;
    /* Relaxed: for people to read. */
    atomic_store_explicit(&k->file_count, f->count, memory_order_relaxed);
    /* Release publishes the set; acquire, as one that comes back unseen is ours to free. */
    free(atomic_exchange_explicit(&k->handed_over, f, memory_order_acq_rel));
    return true;
}

unsigned keys_file_count(const struct keys *k)
{
    return atomic_load_explicit(&k->file_count, memory_order_relaxed);
}

static void take_file(struct keys *k)
{
    /* Looked at before it is taken: the line stays shared while nothing is handed over. */
    if (!atomic_load_explicit(&k->handed_over, memory_order_relaxed))
        return;
    struct keys_file *f = atomic_exchange_explicit(&k->handed_over, NULL, memory_order_acquire);
    if (!f)
        return;
    free(k->file);
    k->file = f;
    k->file_version++;
}

uint64_t keys_file_version(struct keys *k)
{
    take_file(k);
    return k->file_version;
}

const uint8_t *keys_file_key(const struct keys *k, uint32_t node_id)
{
    return keys_file_find(k->file, node_id);
}

/* --- counters --- */

/* The edge's thread is the only writer. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void publish_gauges(struct keys *k)
{
    if (k->found)
        atomic_store_explicit(&k->stats.cached,
                              key_table_count(k->found) + key_table_count(k->unknown),
                              memory_order_relaxed);
    if (k->pins)
        atomic_store_explicit(&k->stats.pins, key_table_count(k->pins), memory_order_relaxed);
}

const struct keys_stats *keys_stats(const struct keys *k)
{
    return &k->stats;
}

/* --- the tables --- */

/* Two a call keep step with what one call can add. */
static void expire(struct key_table *t, uint64_t now_ns, uint64_t after_ns)
{
    for (unsigned i = 0; t && i < 2; i++) {
        struct key_row *row = key_table_oldest(t);
        if (!row || now_ns - row->put_ns < after_ns)
            return;
        key_table_remove(t, row);
    }
}

static void expire_all(struct keys *k, uint64_t now_ns)
{
    expire(k->found, now_ns, STALE_NS);
    expire(k->unknown, now_ns, UNKNOWN_NS);
    expire(k->pins, now_ns, PIN_NS);
    publish_gauges(k);
}

/* NULL also when it is older than `after_ns`. */
static struct key_row *find_young(const struct key_table *t, uint32_t node_id, uint64_t now_ns,
                                  uint64_t after_ns)
{
    struct key_row *row = key_table_find(t, node_id);
    return row && now_ns - row->put_ns < after_ns ? row : NULL;
}

static void forget(struct key_table *t, uint32_t node_id)
{
    struct key_row *row = key_table_find(t, node_id);
    if (row)
        key_table_remove(t, row);
}

static struct key_row *put_evicting(struct key_table *t, uint32_t node_id, uint64_t now_ns)
{
    if (key_table_is_full(t) && !key_table_find(t, node_id))
        key_table_remove(t, key_table_oldest(t));
    return key_table_put(t, node_id, now_ns);
}

/* --- the answers --- */

static struct keys_answer answer_found(uint32_t node_id, enum route_class class_,
                                       const uint8_t key[static MSG_KEY_LEN])
{
    struct keys_answer a = {.verdict = KEYS_FOUND, .node_id = node_id, .class_ = class_};
    memcpy(a.key, key, sizeof a.key);
    return a;
}

/* Neither the file nor the registry has a key. */
static struct keys_answer answer_without(const struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    struct keys_answer a = {.verdict = KEYS_UNKNOWN, .node_id = node_id};
    if (!k->pins)
        return a;
    const struct key_row *pin = find_young(k->pins, node_id, now_ns, PIN_NS);
    if (pin)
        return answer_found(node_id, ROUTE_SIGNED, pin->key);
    a.verdict = KEYS_FIRST_USE;
    return a;
}

/* The registry does not answer. A pin does not help: the registry comes before it, and may know
 * another key by now. */
static struct keys_answer answer_failed(struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    const struct key_row *row = find_young(k->found, node_id, now_ns, STALE_NS);
    count(&k->stats.lookup_failures);
    if (row)
        return answer_found(node_id, ROUTE_KEYED, row->key);
    return (struct keys_answer){.verdict = KEYS_FAILED, .node_id = node_id};
}

static struct keys_answer ask_registry(struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    bool asked;
    enum keys_verdict verdict = lookup_ask(k->lookup, node_id, &asked);
    if (asked || verdict == KEYS_FAILED)
        count(&k->stats.lookups);
    if (verdict == KEYS_FAILED)
        return answer_failed(k, node_id, now_ns);
    return (struct keys_answer){.verdict = verdict, .node_id = node_id};
}

static struct keys_answer find_in_registry(struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    const struct key_row *row = find_young(k->found, node_id, now_ns, FOUND_NS);
    if (row) {
        count(&k->stats.cache_hits);
        return answer_found(node_id, ROUTE_KEYED, row->key);
    }
    if (find_young(k->unknown, node_id, now_ns, UNKNOWN_NS)) {
        count(&k->stats.cache_hits);
        return answer_without(k, node_id, now_ns);
    }
    return ask_registry(k, node_id, now_ns);
}

struct keys_answer keys_find(struct keys *k, uint32_t node_id, uint64_t now_ns)
{
    take_file(k);
    expire_all(k, now_ns);
    const uint8_t *key = keys_file_find(k->file, node_id);
    if (key)
        return answer_found(node_id, ROUTE_KEYED, key);
    return k->lookup ? find_in_registry(k, node_id, now_ns) : answer_without(k, node_id, now_ns);
}

static void remember(struct keys *k, const struct lookup_answer *l, uint64_t now_ns)
{
    bool found = l->verdict == KEYS_FOUND;
    forget(found ? k->unknown : k->found, l->node_id);
    struct key_row *row = put_evicting(found ? k->found : k->unknown, l->node_id, now_ns);
    if (found)
        memcpy(row->key, l->key, sizeof row->key);
    publish_gauges(k);
}

bool keys_take(struct keys *k, uint64_t now_ns, struct keys_answer *ret)
{
    struct lookup_answer l;
    take_file(k);
    if (!k->lookup || !lookup_take(k->lookup, &l))
        return false;
    if (l.verdict != KEYS_FAILED)
        remember(k, &l, now_ns);
    /* The file may have been replaced by one that names this id. */
    const uint8_t *key = keys_file_find(k->file, l.node_id);
    if (key)
        *ret = answer_found(l.node_id, ROUTE_KEYED, key);
    else if (l.verdict == KEYS_FOUND)
        *ret = answer_found(l.node_id, ROUTE_KEYED, l.key);
    else if (l.verdict == KEYS_UNKNOWN)
        *ret = answer_without(k, l.node_id, now_ns);
    else
        *ret = answer_failed(k, l.node_id, now_ns);
    return true;
}

bool keys_pin(struct keys *k, uint32_t node_id, const uint8_t key[static MSG_KEY_LEN],
              uint64_t now_ns)
{
    if (!k->pins)
        return false;
    expire_all(k, now_ns);
    const struct key_row *pin = find_young(k->pins, node_id, now_ns, PIN_NS);
    if (pin && memcmp(pin->key, key, MSG_KEY_LEN) != 0)
        return false;
    struct key_row *row = key_table_put(k->pins, node_id, now_ns);
    if (!row)
        return false;
    memcpy(row->key, key, sizeof row->key);
    publish_gauges(k);
    return true;
}
