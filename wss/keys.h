/* keys - node id -> Ed25519 key: a file, a Pilot registry, first use; in this order.
 *
 * The file is authoritative and whole in memory (sorted, replaced as a whole by a reload). The
 * registry is asked by a thread of its own, never on the edge's time; its answers are kept in a
 * bounded cache (KEYS_CACHE_MAX; found for 5 minutes, unknown for 30 seconds, and a found one
 * serves for an hour while the registry does not answer; full, the oldest of its kind goes, so that
 * ids which nobody has never push out a key). First use, if allowed, pins the key that came with a
 * good signature for 24 hours after it was last used, for at most KEYS_PINS_MAX ids; full refuses
 * newcomers. A pin is as good as the registry's word that it has no key: it does not serve while
 * the registry fails, but the registry's error answers count as that word, as nothing tells them
 * apart. Whatever fails, fails closed. All calls but keys_reload are the edge's thread. */
#ifndef BEACON_WSS_KEYS_H
#define BEACON_WSS_KEYS_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/endpoint.h"
#include "proto/msg.h"
#include "server/config.h"
#include "server/route.h"

enum {
    KEYS_CACHE_MAX = 65536,
    KEYS_PINS_MAX = 65536,
    KEYS_WAITING_MAX = 1024,  /* lookups under way */
    KEYS_FILE_MAX = 64 << 20, /* bytes */
    KEYS_ERROR_MAX = 512,
    KEYS_LOOKUP_MS = 3000, /* for one answer of the registry */
};

struct keys_config {
    const char *file;            /* "" none */
    enum registry_lookup lookup; /* none, binary or JSON dialect */
    const char *registry; /* host:port, resolved by the lookup thread each time it connects */
    bool first_use;
    int wake; /* eventfd (copied) made readable when keys_take has something */
};

struct keys;
/* Reads the file, starts the lookup thread. NULL with `error` (file:line: what is wrong). */
struct keys *keys_open(const struct keys_config *c, char error[static KEYS_ERROR_MAX]);
void keys_close(struct keys *k);

/* Main thread. Reads the file again and hands the new set over, which counts from the edge's next
 * keys_find or keys_take on; false keeps the old one whole. "" is the empty set. */
bool keys_reload(struct keys *k, const char *file, char error[static KEYS_ERROR_MAX]);
/* Any thread. Of the file. */
unsigned keys_file_count(const struct keys *k);
/* Grows when a reload has brought another file; and the key that the file has for the id, NULL when
 * it has none. Valid until the next call. */
uint64_t keys_file_version(struct keys *k);
const uint8_t *keys_file_key(const struct keys *k, uint32_t node_id);

enum keys_verdict {
    KEYS_FOUND,
    KEYS_UNKNOWN,   /* nobody has a key for this id */
    KEYS_FIRST_USE, /* nobody has one, and the client's own may be pinned (keys_pin) */
    KEYS_WAIT,      /* asked; keys_take will say */
    KEYS_FAILED,    /* the registry does not answer, or too many wait */
};
struct keys_answer {
    enum keys_verdict verdict;
    uint32_t node_id;
    enum route_class class_; /* ROUTE_KEYED of file and registry, ROUTE_SIGNED of a pin */
    uint8_t key[MSG_KEY_LEN];
};
struct keys_answer keys_find(struct keys *k, uint32_t node_id, uint64_t now_ns);
/* The next lookup that has ended: never KEYS_WAIT. False: none. An id that several clients wait for
 * is asked once and answered once, for all of them. Read `wake` before, not after. */
bool keys_take(struct keys *k, uint64_t now_ns, struct keys_answer *ret);

/* A good signature under the client's own key, after KEYS_FIRST_USE: pins it. Also refreshes a pin
 * in use. False: no room, or another key is pinned. */
bool keys_pin(struct keys *k, uint32_t node_id, const uint8_t key[static MSG_KEY_LEN],
              uint64_t now_ns);

struct keys_stats {                   /* any thread reads */
    _Atomic uint64_t lookups;         /* ids that the registry was to be asked for */
    _Atomic uint64_t lookup_failures; /* of these, without an answer of use */
    _Atomic uint64_t cache_hits;
    _Atomic uint64_t pins, cached; /* gauges */
};
const struct keys_stats *keys_stats(const struct keys *k);

/* Exposed for fuzzing: one answer of the registry, binary payload (without length) or JSON text.
 * KEYS_FOUND, KEYS_UNKNOWN or KEYS_FAILED. */
enum keys_verdict keys_read_binary(const uint8_t *bytes, size_t len, uint32_t node_id,
                                   uint8_t ret_key[static MSG_KEY_LEN]);
enum keys_verdict keys_read_json(const char *text, size_t len, uint32_t node_id,
                                 uint8_t ret_key[static MSG_KEY_LEN]);
/* And one keys file. The number of keys, or -1 with `error`. */
int keys_check_file(const char *path, const char *text, size_t len,
                    char error[static KEYS_ERROR_MAX]);

#endif
