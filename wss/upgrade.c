#include "wss/websocket.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "wss/base64.h"

enum {
    KEY_LEN = 16,    /* bytes behind the base64 of Sec-WebSocket-Key */
    KEY_TEXT = 24,   /* characters of it, padding included */
    ACCEPT_TEXT = 29 /* base64 of a SHA-1, zero-ended */
};

static struct http_text behind(struct http_text t, size_t len)
{
    return (struct http_text){.at = t.at + len, .len = t.len - len};
}

/* --- fields --- */

static bool is_named(const struct http_field *f, const char *name)
{
    return http_text_same(f->name, http_text_of(name));
}

static unsigned field_count(const struct http_request *q, const char *name)
{
    unsigned count = 0;
    for (unsigned i = 0; i < q->field_count; i++)
        count += is_named(&q->field[i], name);
    return count;
}

/* Is it an element of the list that all fields of this name make together (RFC 9110, 5.3)? */
static bool list_has(const struct http_request *q, const char *name, const char *element,
                     bool case_matters)
{
    for (unsigned i = 0; i < q->field_count; i++) {
        struct http_text list = q->field[i].value;
        while (is_named(&q->field[i], name) && list.len > 0) {
            struct http_text t = http_list_take(&list);
            if (case_matters ? http_text_is(t, element) : http_text_same(t, http_text_of(element)))
                return true;
        }
    }
    return false;
}

/* --- Origin --- */

struct place {
    struct http_text host;
    unsigned port;
};

/* 1 to 5 digits, at most 65535. */
static bool read_port(struct http_text t, unsigned *ret)
{
    unsigned port = 0;
    if (t.len == 0 || t.len > 5)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        port = port * 10 + (unsigned)(t.at[i] - '0');
    }
    if (port > UINT16_MAX)
        return false;
    *ret = port;
    return true;
}

/* host [":" port]. The colons of an IPv6 address stand between brackets. */
static bool read_place(struct http_text t, unsigned default_port, struct place *ret)
{
    const char *bracket = t.len > 0 && t.at[0] == '[' ? memchr(t.at, ']', t.len) : NULL;
    struct http_text rest = bracket ? behind(t, (size_t)(bracket - t.at)) : t;
    const char *colon = memchr(rest.at, ':', rest.len);
    struct place p = {.host = t, .port = default_port};
    if (colon) {
        p.host.len = (size_t)(colon - t.at);
        if (!read_port(behind(t, p.host.len + 1), &p.port))
            return false;
    }
    *ret = p;
    return p.host.len > 0;
}

/* Takes "scheme://" away. */
static bool cut_scheme(struct http_text *t, const char *scheme)
{
    size_t len = strlen(scheme);
    struct http_text start = {.at = t->at, .len = len};
    if (t->len < len || !http_text_same(start, http_text_of(scheme)))
        return false;
    *t = behind(*t, len);
    return true;
}

/* A Host without a port has the default one of the origin's scheme: behind somebody else's TLS we
 * do not know our own. */
static bool origin_is_ours(struct http_text origin, struct http_text host)
{
    static const struct {
        const char *scheme;
        unsigned port;
    } schemes[] = {{"https://", 443}, {"http://", 80}, {"wss://", 443}, {"ws://", 80}};
    struct place from, to;
    if (cut_scheme(&origin, "pilot://"))
        return true;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (cut_scheme(&origin, schemes[i].scheme))
            return read_place(origin, schemes[i].port, &from) &&
                   read_place(host, schemes[i].port, &to) && from.port == to.port &&
                   http_text_same(from.host, to.host);
    }
    return false; /* "null" among them */
}

static bool origin_allowed(const struct http_request *q)
{
    const struct http_text *origin = http_field(q, "Origin");
    const struct http_text *host = http_field(q, "Host");
    return !origin || (host && origin_is_ours(*origin, *host));
}

/* --- the key --- */

static bool key_is_good(struct http_text key)
{
    uint8_t bytes[KEY_LEN];
    return key.len == KEY_TEXT && base64_read(key.at, key.len, bytes, sizeof bytes);
}

/* RFC 6455, 4.2.2: that we have understood is proven by a hash of the key's text and this. */
static bool accept_write(struct http_text key, char text[static ACCEPT_TEXT])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t proof[KEY_TEXT + sizeof guid - 1], hash[EVP_MAX_MD_SIZE];
    unsigned len;
    memcpy(proof, key.at, KEY_TEXT);
    memcpy(proof + KEY_TEXT, guid, sizeof guid - 1);
    if (EVP_Digest(proof, sizeof proof, hash, &len, EVP_sha1(), NULL) != 1)
        return false;
    sodium_bin2base64(text, ACCEPT_TEXT, hash, len, sodium_base64_VARIANT_ORIGINAL);
    return true;
}

/* --- the decision --- */

/* HTTP/1.0 has no Upgrade (RFC 9110, 7.8), and one that Connection does not name is not for us. */
static bool asks_for_websocket(const struct http_request *q)
{
    return q->version_minor >= 1 && list_has(q, "Upgrade", "websocket", false) &&
           list_has(q, "Connection", "upgrade", false);
}

static int upgrade_status(const struct http_request *q)
{
    const struct http_text *version = http_field(q, "Sec-WebSocket-Version");
    const struct http_text *key = http_field(q, "Sec-WebSocket-Key");
    if (q->method != HTTP_GET)
        return 405;
    if (field_count(q, "Sec-WebSocket-Version") > 1 || field_count(q, "Sec-WebSocket-Key") > 1 ||
        field_count(q, "Origin") > 1)
        return 400; /* another reader might see the other one */
    if (!asks_for_websocket(q) || !version || !http_text_is(*version, "13"))
        return 426;
    if (!key || !key_is_good(*key) || q->body_len > 0)
        return 400;
    return origin_allowed(q) ? 101 : 403;
}

static int subprotocol_choose(const struct http_request *q, const char *const *subprotocols)
{
    for (int i = 0; subprotocols[i]; i++) {
        if (list_has(q, "Sec-WebSocket-Protocol", subprotocols[i], true))
            return i;
    }
    return -1;
}

static void write_accepted(const struct http_request *q, const char *subprotocol,
                           struct websocket_upgrade *ret)
{
    char text[ACCEPT_TEXT];
    if (!accept_write(*http_field(q, "Sec-WebSocket-Key"), text)) {
        ret->status = 500;
        return;
    }
    int len = snprintf(ret->fields, sizeof ret->fields,
                       "Upgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n%s%s%s", text,
                       subprotocol ? "Sec-WebSocket-Protocol: " : "",
                       subprotocol ? subprotocol : "", subprotocol ? "\r\n" : "");
    assert(len > 0);
    assert(len < WEBSOCKET_FIELDS_MAX);
}

void websocket_upgrade(const struct http_request *q, const char *const *subprotocols,
                       struct websocket_upgrade *ret)
{
    *ret = (struct websocket_upgrade){.status = upgrade_status(q), .subprotocol = -1};
    if (ret->status == 426)
        snprintf(ret->fields, sizeof ret->fields,
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (ret->status != 101)
        return;
    ret->subprotocol = subprotocol_choose(q, subprotocols);
    write_accepted(q, ret->subprotocol >= 0 ? subprotocols[ret->subprotocol] : NULL, ret);
}
