/* A keys file that is taken says the same again when it is written anew, and a second time over it
 * is refused. Of a registry's answer only keys come out under which something can be signed. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "wss/keys_file.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

enum { LINE = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_file_again(const struct keys_file *f)
{
    char error[KEYS_ERROR_MAX], *text = malloc((f->count + 1) * (size_t)LINE), *at = text;
    CHECK(text);
    for (unsigned i = 0; i < f->count; i++) {
        char key[48];
        sodium_bin2base64(key, sizeof key, f->entry[i].key, MSG_KEY_LEN,
                          sodium_base64_VARIANT_ORIGINAL);
        at += sprintf(at, "%u %s\n", f->entry[i].node_id, key);
        CHECK(i == 0 || f->entry[i - 1].node_id < f->entry[i].node_id);
        CHECK(keys_file_find(f, f->entry[i].node_id) == f->entry[i].key);
    }
    size_t len = (size_t)(at - text);
    CHECK(keys_check_file("again", text, len, error) == (int)f->count);
    if (f->count > 0) {
        const char *end = memchr(text, '\n', len);
        memcpy(at, text, (size_t)(end - text));
        CHECK(keys_check_file("twice", text, len + (size_t)(end - text), error) == -1);
    }
    free(text);
}

static void check_file(const char *text, size_t len)
{
    char error[KEYS_ERROR_MAX] = "";
    struct keys_file *f = keys_file_parse("file", text, len, error);
    CHECK(keys_check_file("file", text, len, error) == (f ? (int)f->count : -1));
    CHECK(f || strncmp(error, "file:", 5) == 0);
    CHECK(!f || error[0] == '\0');
    if (f)
        check_file_again(f);
    free(f);
}

static void check_answer(enum keys_verdict v, const uint8_t key[static MSG_KEY_LEN])
{
    CHECK(v == KEYS_FOUND || v == KEYS_UNKNOWN || v == KEYS_FAILED);
    if (v == KEYS_FOUND)
        CHECK(crypto_core_ed25519_is_valid_point(key) == 1);
    else
        CHECK(sodium_is_zero(key, MSG_KEY_LEN));
}

static void check_binary(const uint8_t *bytes, size_t len)
{
    uint8_t key[MSG_KEY_LEN] = {0}, other[MSG_KEY_LEN] = {0};
    struct reader r = reader_of(bytes, len);
    bool is_error = len > 0 && bytes[0] == 0xff;
    read_u8(&r);
    uint32_t node_id = read_u32(&r); /* so that the id is right */
    check_answer(keys_read_binary(bytes, len, node_id, key), key);
    CHECK(is_error || keys_read_binary(bytes, len, node_id + 1, other) == KEYS_FAILED);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    uint8_t key[MSG_KEY_LEN] = {0}, *copy = malloc(len + (len == 0));
    CHECK(copy);
    memcpy(copy, bytes, len);
    check_file((const char *)copy, len);
    check_binary(copy, len);
    check_answer(keys_read_json((const char *)copy, len, 123456, key), key);
    free(copy);
    return 0;
}
