#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "wss/base64.h"
#include "wss/dialect.h"

enum { BINARY_VERSION = 1, BINARY_LOOKUP = 0x02, BINARY_FOUND = 0x82, BINARY_ERROR = 0xff };

static void write_binary(struct writer *w, bool first, uint32_t node_id)
{
    if (first) {
        write_bytes(w, "PILT", 4);
        write_u8(w, BINARY_VERSION);
    }
    write_u32(w, 1 + sizeof node_id);
    write_u8(w, BINARY_LOOKUP);
    write_u32(w, node_id);
}

static void write_json(struct writer *w, uint32_t node_id)
{
    char text[DIALECT_REQUEST_MAX];
    int len = snprintf(text, sizeof text, "{\"type\":\"lookup\",\"node_id\":%" PRIu32 "}", node_id);
    write_u32(w, (uint32_t)len);
    write_bytes(w, text, (size_t)len);
}

void dialect_write_request(struct writer *w, enum registry_lookup dialect, bool first,
                           uint32_t node_id)
{
    assert(dialect != LOOKUP_NONE);
    if (dialect == LOOKUP_BINARY)
        write_binary(w, first, node_id);
    else
        write_json(w, node_id);
}

/* A registry that names a key under which nothing can be signed is as good as broken. */
static enum keys_verdict found(const uint8_t key[static MSG_KEY_LEN],
                               uint8_t ret_key[static MSG_KEY_LEN])
{
    if (crypto_core_ed25519_is_valid_point(key) != 1)
        return KEYS_FAILED;
    memcpy(ret_key, key, MSG_KEY_LEN);
    return KEYS_FOUND;
}

enum keys_verdict keys_read_binary(const uint8_t *bytes, size_t len, uint32_t node_id,
                                   uint8_t ret_key[static MSG_KEY_LEN])
{
    struct reader r = reader_of(bytes, len);
    uint8_t type = read_u8(&r);
    if (!r.bad && type == BINARY_ERROR)
        return KEYS_UNKNOWN;
    uint32_t id = read_u32(&r);
    read_bytes(&r, 1 + 4);
    read_bytes(&r, 2 * (size_t)read_u16(&r));
    uint8_t key_len = read_u8(&r);
    const uint8_t *key = read_bytes(&r, key_len);
    if (r.bad || type != BINARY_FOUND || id != node_id)
        return KEYS_FAILED;
    if (key_len == 0)
        return KEYS_UNKNOWN;
    return key_len == MSG_KEY_LEN ? found(key, ret_key) : KEYS_FAILED;
}

static enum keys_verdict read_object(const json_t *root, uint32_t node_id,
                                     uint8_t ret_key[static MSG_KEY_LEN])
{
    uint8_t key[MSG_KEY_LEN];
    if (!json_is_object(root))
        return KEYS_FAILED;
    if (json_is_string(json_object_get(root, "error")))
        return KEYS_UNKNOWN;
    const json_t *id = json_object_get(root, "node_id");
    if (id && !(json_is_integer(id) && json_integer_value(id) == node_id))
        return KEYS_FAILED;
    const json_t *text = json_object_get(root, "public_key");
    if (!text || json_is_null(text))
        return KEYS_UNKNOWN;
    if (!json_is_string(text))
        return KEYS_FAILED;
    if (json_string_length(text) == 0)
        return KEYS_UNKNOWN;
    if (!base64_read(json_string_value(text), json_string_length(text), key, sizeof key))
        return KEYS_FAILED;
    return found(key, ret_key);
}

enum keys_verdict keys_read_json(const char *text, size_t len, uint32_t node_id,
                                 uint8_t ret_key[static MSG_KEY_LEN])
{
    if (len > DIALECT_FRAME_MAX)
        return KEYS_FAILED;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    enum keys_verdict verdict = read_object(root, node_id, ret_key);
    json_decref(root);
    return verdict;
}

enum keys_verdict dialect_read_answer(enum registry_lookup dialect, const uint8_t *bytes,
                                      size_t len, uint32_t node_id,
                                      uint8_t ret_key[static MSG_KEY_LEN])
{
    assert(dialect != LOOKUP_NONE);
    if (dialect == LOOKUP_BINARY)
        return keys_read_binary(bytes, len, node_id, ret_key);
    return keys_read_json((const char *)bytes, len, node_id, ret_key);
}
