/* auth - how a node proves over a WebSocket that it holds the key of its id. Pure: texts in and
 * out.
 *
 * Challenge and reply are JSON text frames. Version 1 is what Pilot daemons speak: they sign
 *   compat_auth:<node_id>:<ts>:<nonce>      or, older,      compat_auth:<node_id>:<nonce>
 * which a rogue beacon could pass on. Version 2 (subprotocol beacon.v2) also signs who asked:
 *   compat_auth2:<beacon_id>:<host>:<node_id>:<ts>:<nonce>:<exporter>
 * where <host> is the Host field of the upgrade as the client sent it, in lower case, and
 * <exporter> the TLS channel binding of RFC 9266 in lower-case hex; empty when the beacon stands
 * behind somebody else's TLS. The nonce is fresh for each connection, so nothing can be replayed.
 */
#ifndef BEACON_WSS_AUTH_H
#define BEACON_WSS_AUTH_H

#include "proto/msg.h"
#include "wss/tls.h"

enum {
    AUTH_NONCE_LEN = 32,
    AUTH_HOST_MAX = 255,
    AUTH_CHALLENGE_MAX = 256,
    AUTH_REPLY_MAX = 4096, /* a longer reply is refused unread */
    AUTH_SIGNATURE_LEN = 64,
};

struct auth_challenge {
    unsigned version; /* 1 or 2 */
    uint8_t nonce[AUTH_NONCE_LEN];
    int64_t unix_s;
    uint32_t beacon_id;           /* version 2 */
    char host[AUTH_HOST_MAX + 1]; /* version 2 */
    bool has_exporter;            /* version 2 */
    uint8_t exporter[TLS_EXPORTER_LEN];
};

/* The challenge as JSON; version 2 has "version", "beacon_id" and
 * "exporter" (whether one is to be signed) too. Returns its length. */
size_t auth_write_challenge(const struct auth_challenge *c, char text[static AUTH_CHALLENGE_MAX]);

struct auth_reply {
    uint32_t node_id;
    bool has_key; /* "public_key" was there and is 32 bytes */
    uint8_t key[MSG_KEY_LEN];
    uint8_t signature[AUTH_SIGNATURE_LEN];
};
/* False: not an auth_reply. Unknown members are ignored unless they nest, member names compare
 * without case (as the daemons' JSON library does), duplicates and wrong types are refused, node_id
 * is 1 to 2^32-1. A "public_key" that is a string but no key leaves has_key false. */
bool auth_read_reply(const char *text, size_t len, struct auth_reply *ret);

/* True: the signature of the reply is good under `key` for this challenge (version 1: either text).
 */
bool auth_verify(const struct auth_challenge *c, const struct auth_reply *r,
                 const uint8_t key[static MSG_KEY_LEN]);

/* The text that version 2 signs; for clients and tests. Returns its length. */
enum { AUTH_TEXT_MAX = 512 };
size_t auth_text2(const struct auth_challenge *c, uint32_t node_id,
                  char text[static AUTH_TEXT_MAX]);

#endif
