/* What is taken for a reply says the same again when it is written anew, and no other size of
 * memory than its own was read for it. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "wss/auth.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_again(const struct auth_reply *r)
{
    char text[512], key[64], signature[128];
    struct auth_reply again;
    sodium_bin2base64(key, sizeof key, r->key, sizeof r->key, sodium_base64_VARIANT_ORIGINAL);
    sodium_bin2base64(signature, sizeof signature, r->signature, sizeof r->signature,
                      sodium_base64_VARIANT_ORIGINAL);
    int len =
        snprintf(text, sizeof text,
                 "{\"type\":\"auth_reply\",\"node_id\":%u,\"public_key\":\"%s\",\"sig\":\"%s\"}",
                 r->node_id, r->has_key ? key : "", signature);
    CHECK(auth_read_reply(text, (size_t)len, &again));
    CHECK(again.node_id == r->node_id && again.has_key == r->has_key);
    CHECK(memcmp(again.key, r->key, sizeof r->key) == 0);
    CHECK(memcmp(again.signature, r->signature, sizeof r->signature) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct auth_reply r;
    char *text = malloc(len + (len == 0));
    CHECK(text);
    memcpy(text, bytes, len);
    bool good = auth_read_reply(text, len, &r);
    free(text);
    if (!good)
        return 0;
    CHECK(len <= AUTH_REPLY_MAX && r.node_id > 0);
    check_again(&r);
    return 0;
}
