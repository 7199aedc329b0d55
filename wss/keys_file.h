/* keys_file - the keys file: one "node_id base64key" a line.
 *
 * Blanks or tabs between; '#' begins a comment; empty lines and CRLF are taken. Node ids are
 * decimal, 1 to 4294967295, each once. Keys that could verify nothing or everything are refused:
 * small order and non-canonical ones in every line; that a key is a point of the group costs 33 us
 * to find out and is asked of the first KEYS_FILE_POINTS keys only (for the others no signature
 * will be good). A set is built whole or not at all and never changes: any thread may read it. */
#ifndef BEACON_WSS_KEYS_FILE_H
#define BEACON_WSS_KEYS_FILE_H

#include "wss/keys.h"

enum { KEYS_FILE_POINTS = 16384, KEYS_FILE_LINE_MAX = 1024 };

struct keys_entry {
    uint32_t node_id, line;
    uint8_t key[MSG_KEY_LEN];
};
static_assert(sizeof(struct keys_entry) == 40, "a million keys are 40 MB");

struct keys_file {
    unsigned count;
    struct keys_entry entry[]; /* ascending ids */
};

/* NULL with `error`: what is wrong where. "" is the empty set. The caller frees it with free(). */
struct keys_file *keys_file_read(const char *path, char error[static KEYS_ERROR_MAX]);
/* The same of a text that was read before; `path` is for messages. */
struct keys_file *keys_file_parse(const char *path, const char *text, size_t len,
                                  char error[static KEYS_ERROR_MAX]);

/* NULL: not in it. */
const uint8_t *keys_file_find(const struct keys_file *f, uint32_t node_id);

#endif
