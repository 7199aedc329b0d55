/* websocket - RFC 6455, the server's side: the upgrade and the frames (wslay does the framing).
 *
 * Strict: masked frames only, no extension (RSV 0), known opcodes, control frames whole and at most
 * 125 bytes, minimal lengths, text in UTF-8. A message is at most WEBSOCKET_MESSAGE_MAX bytes in at
 * most WEBSOCKET_FRAGMENTS_MAX frames, empty ones counted. Pure but for the memory of the reader: a
 * message in parts is kept until whole, in memory that exists only meanwhile. */
#ifndef BEACON_WSS_WEBSOCKET_H
#define BEACON_WSS_WEBSOCKET_H

#include "proto/http.h"

enum {
    WEBSOCKET_MESSAGE_MAX = 65536,
    WEBSOCKET_FRAGMENTS_MAX = 16,
    WEBSOCKET_CONTROL_PER_S = 10, /* pings and pongs; more is WEBSOCKET_POLICY */
    WEBSOCKET_CONTROL_BURST = 20,
    WEBSOCKET_HEAD_MAX = 10, /* of a frame that we send */
    WEBSOCKET_FIELDS_MAX = 160,
};

/* --- upgrade --- */

struct websocket_upgrade {
    int status; /* 101, or the refusal: 400, 403 (Origin), 405, 426; 500: no memory for SHA-1 */
    /* Header fields of the answer, each with its CRLF: for 101 Upgrade, Sec-WebSocket-Accept and
     * the subprotocol; for 426 Upgrade and Sec-WebSocket-Version. Connection is not among them. */
    char fields[WEBSOCKET_FIELDS_MAX];
    int subprotocol; /* index of the chosen one, -1: the client offered none that we know */
};

/* `subprotocols`: NULL-ended, in our order of preference, short enough for the fields. A client
 * that offers none is taken too. What does not ask for WebSocket 13 is a probe or a plain request
 * and gets 426. Origin, when there is one, must have the host (and port) of the Host field, or be
 * "pilot://" anything: a page of another site must not speak to us in its reader's name. */
void websocket_upgrade(const struct http_request *q, const char *const *subprotocols,
                       struct websocket_upgrade *ret);

/* --- frames in --- */

enum websocket_opcode {
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING,
    WEBSOCKET_PONG
};

/* RFC 6455, 7.4.1. INTERNAL_ERROR: no memory. */
enum websocket_status {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_INVALID_DATA = 1007,
    WEBSOCKET_POLICY = 1008,
    WEBSOCKET_TOO_BIG = 1009,
    WEBSOCKET_INTERNAL_ERROR = 1011,
};

/* One whole message or control frame. The bytes are writable. In place, they are a part of the
 * bytes that were read and valid as long as those; else only until the next call. */
struct websocket_message {
    enum websocket_opcode opcode;
    bool in_place;
    uint8_t *bytes;
    size_t len;
    uint16_t close_status; /* of WEBSOCKET_CLOSE; 0: none was given */
};

struct websocket;
/* What the messages in parts of all readers may hold together; one that finds none left is over. */
struct websocket_memory {
    size_t max, used;
};

struct websocket *websocket_new(struct websocket_memory *shared); /* NULL: no memory */
void websocket_free(struct websocket *w);
/* Messages are at most `len` bytes from now on (WEBSOCKET_MESSAGE_MAX at first and at most): a
 * client that has not proved anything gets less memory. */
void websocket_limit(struct websocket *w, size_t len);

enum websocket_read {
    WEBSOCKET_MORE,    /* all bytes are used up */
    WEBSOCKET_MESSAGE, /* *ret is filled; call again with what is left */
    WEBSOCKET_BAD,     /* *ret_status says why: close with it; nothing more may be read */
};
/* Takes from *bytes (moved on, *len made smaller) up to the end of one message. `now_ns` is for the
 * rate of control frames. An unfragmented message whose payload lies whole in `bytes` is unmasked
 * in place and takes no memory. Call again until WEBSOCKET_MORE, also with nothing left: that frees
 * the last message. What is too big is refused at its first byte of payload. Whatever comes behind
 * a close frame is discarded; after WEBSOCKET_BAD every call says the same again. */
enum websocket_read websocket_read(struct websocket *w, uint8_t **bytes, size_t *len,
                                   uint64_t now_ns, struct websocket_message *ret,
                                   uint16_t *ret_status);

/* --- frames out --- */

/* The head of an unfragmented, unmasked frame. Returns its length. */
size_t websocket_head(uint8_t head[static WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode,
                      size_t len);
/* A close frame's payload: status and reason (cut to fit). Returns its length. */
size_t websocket_close(uint8_t payload[static 125], uint16_t status, const char *reason);

#endif
