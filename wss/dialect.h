/* dialect - the two ways to ask a Pilot registry for a key over TCP: bytes <-> structs. Pure.
 *
 * Both send frames: a length of 4 bytes, big-endian, that counts what follows. A binary frame is a
 * type byte and its payload; the connection begins with "PILT" and the version. A JSON frame is one
 * object. Answers are read by keys_read_binary and keys_read_json (keys.h):
 *
 *   0x82 | id 4 | flags 1 | zero 4 | networks 2 | 2 bytes each | key length 1 | key | more: ignored
 *   0xFF | error: taken for "unknown"; nothing tells one error from another
 *
 *   {"node_id":N,"public_key":"<base64>"} and members that we do not know, or {"error":"..."} */
#ifndef BEACON_WSS_DIALECT_H
#define BEACON_WSS_DIALECT_H

#include "proto/wire.h"
#include "wss/keys.h"

enum { DIALECT_FRAME_MAX = 1 << 20, DIALECT_REQUEST_MAX = 64 };

/* One request as a frame; `first` of its connection: with what comes before. */
void dialect_write_request(struct writer *w, enum registry_lookup dialect, bool first,
                           uint32_t node_id);
/* The payload of a frame. */
enum keys_verdict dialect_read_answer(enum registry_lookup dialect, const uint8_t *bytes,
                                      size_t len, uint32_t node_id,
                                      uint8_t ret_key[static MSG_KEY_LEN]);

#endif
