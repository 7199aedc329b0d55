#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "wss/auth.h"
#include "wss/base64.h"

enum { NONCE_TEXT = 2 * AUTH_NONCE_LEN + 1, EXPORTER_TEXT = 2 * TLS_EXPORTER_LEN + 1 };

/* --- what we send, and what is signed --- */

size_t auth_write_challenge(const struct auth_challenge *c, char text[static AUTH_CHALLENGE_MAX])
{
    char nonce[NONCE_TEXT], more[80] = "";
    sodium_bin2hex(nonce, sizeof nonce, c->nonce, sizeof c->nonce);
    if (c->version == 2)
        snprintf(more, sizeof more, ",\"version\":2,\"beacon_id\":%" PRIu32 ",\"exporter\":%s",
                 c->beacon_id, c->has_exporter ? "true" : "false");
    int len = snprintf(text, AUTH_CHALLENGE_MAX,
                       "{\"type\":\"auth_challenge\",\"nonce\":\"%s\",\"ts\":%" PRId64 "%s}", nonce,
                       c->unix_s, more);
    assert(len > 0 && len < AUTH_CHALLENGE_MAX);
    return (size_t)len;
}

static size_t text1(const struct auth_challenge *c, uint32_t node_id,
                    char text[static AUTH_TEXT_MAX])
{
    char nonce[NONCE_TEXT];
    sodium_bin2hex(nonce, sizeof nonce, c->nonce, sizeof c->nonce);
    return (size_t)snprintf(text, AUTH_TEXT_MAX, "compat_auth:%" PRIu32 ":%" PRId64 ":%s", node_id,
                            c->unix_s, nonce);
}

static size_t text1_without_time(const struct auth_challenge *c, uint32_t node_id,
                                 char text[static AUTH_TEXT_MAX])
{
    char nonce[NONCE_TEXT];
    sodium_bin2hex(nonce, sizeof nonce, c->nonce, sizeof c->nonce);
    return (size_t)snprintf(text, AUTH_TEXT_MAX, "compat_auth:%" PRIu32 ":%s", node_id, nonce);
}

static void lower_host(const char *host, char lower[static AUTH_HOST_MAX + 1])
{
    size_t len = strnlen(host, AUTH_HOST_MAX);
    for (size_t i = 0; i < len; i++)
        lower[i] = (char)(host[i] >= 'A' && host[i] <= 'Z' ? host[i] - 'A' + 'a' : host[i]);
    lower[len] = '\0';
}

/* A host has colons of its own, but all that follows it has a fixed form: no two challenges make
 * one text. */
size_t auth_text2(const struct auth_challenge *c, uint32_t node_id, char text[static AUTH_TEXT_MAX])
{
    char nonce[NONCE_TEXT], exporter[EXPORTER_TEXT] = "", host[AUTH_HOST_MAX + 1];
    sodium_bin2hex(nonce, sizeof nonce, c->nonce, sizeof c->nonce);
    if (c->has_exporter)
        sodium_bin2hex(exporter, sizeof exporter, c->exporter, sizeof c->exporter);
    lower_host(c->host, host);
    int len =
        snprintf(text, AUTH_TEXT_MAX, "compat_auth2:%" PRIu32 ":%s:%" PRIu32 ":%" PRId64 ":%s:%s",
                 c->beacon_id, host, node_id, c->unix_s, nonce, exporter);
    assert(len > 0 && len < AUTH_TEXT_MAX);
    return (size_t)len;
}

/* --- what they send --- */

/* The members of a reply that mean something, NULL while not seen. */
struct members {
    const json_t *type, *node_id, *public_key, *sig;
};

/* Where the member of this name belongs, NULL for one that we do not know. */
static const json_t **member_place(struct members *m, const char *name)
{
    const struct {
        const char *name;
        const json_t **place;
    } known[] = {
        {"type", &m->type},
        {"node_id", &m->node_id},
        {"public_key", &m->public_key},
        {"sig", &m->sig},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(name, known[i].name) == 0)
            return known[i].place;
    return NULL;
}

/* jansson refuses a name that comes twice; two spellings of one it cannot know. */
static bool read_members(json_t *root, struct members *ret)
{
    const char *name;
    json_t *value;
    if (!json_is_object(root))
        return false;
    json_object_foreach(root, name, value)
    {
        if (json_is_object(value) || json_is_array(value))
            return false;
        const json_t **place = member_place(ret, name);
        if (place && *place)
            return false;
        if (place)
            *place = value;
    }
    return true;
}

/* False: no string. `*ret_read`: it stands for `len` bytes. */
static bool read_base64_member(const json_t *value, uint8_t *bytes, size_t len, bool *ret_read)
{
    if (!json_is_string(value))
        return false;
    *ret_read = base64_read(json_string_value(value), json_string_length(value), bytes, len);
    return true;
}

static bool read_reply(json_t *root, struct auth_reply *r)
{
    struct members m = {.type = NULL};
    bool has_signature;
    if (!read_members(root, &m) || !json_is_string(m.type) || !json_is_integer(m.node_id))
        return false;
    if (strcmp(json_string_value(m.type), "auth_reply") != 0)
        return false;
    json_int_t node_id = json_integer_value(m.node_id);
    if (node_id < 1 || node_id > UINT32_MAX)
        return false;
    r->node_id = (uint32_t)node_id;
    /* A key that is none is as good as no key: daemons' keys are looked up, not taken from here. */
    if (m.public_key && !read_base64_member(m.public_key, r->key, sizeof r->key, &r->has_key))
        return false;
    return read_base64_member(m.sig, r->signature, sizeof r->signature, &has_signature) &&
           has_signature;
}

bool auth_read_reply(const char *text, size_t len, struct auth_reply *ret)
{
    struct auth_reply r = {.has_key = false};
    if (len > AUTH_REPLY_MAX)
        return false;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    bool good = read_reply(root, &r);
    json_decref(root);
    if (!good)
        return false;
    if (!r.has_key)
        memset(r.key, 0, sizeof r.key);
    *ret = r;
    return true;
}

static bool signed_by(const struct auth_reply *r, const char *text, size_t len,
                      const uint8_t key[static MSG_KEY_LEN])
{
    return crypto_sign_verify_detached(r->signature, (const uint8_t *)text, len, key) == 0;
}

bool auth_verify(const struct auth_challenge *c, const struct auth_reply *r,
                 const uint8_t key[static MSG_KEY_LEN])
{
    char text[AUTH_TEXT_MAX];
    if (c->version == 2)
        return signed_by(r, text, auth_text2(c, r->node_id, text), key);
    if (c->version != 1)
        return false;
    /* Both are tried always, so that time does not tell which was signed. */
    bool with_time = signed_by(r, text, text1(c, r->node_id, text), key);
    bool without = signed_by(r, text, text1_without_time(c, r->node_id, text), key);
    return with_time || without;
}
