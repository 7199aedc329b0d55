/* How a stream is cut into reads changes neither its messages nor the verdict, and nothing that is
 * not allowed comes out. An input that begins with 'G' or 'P' is a request head for the upgrade
 * instead; else its first byte seeds the cutting. */
#include <stdio.h>
#include <stdlib.h>

#include "server/options.h"
#include "wss/websocket.h"

static struct websocket_memory parts = {.max = 8 << 20};

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* All that was read, folded into a number. */
struct outcome {
    uint64_t hash;
    size_t messages, controls;
    uint16_t bad;
};

static void fold(struct outcome *o, const void *bytes, size_t len)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < len; i++)
        o->hash = (o->hash ^ b[i]) * 0x100000001b3u;
}

static void fold_message(struct outcome *o, const struct websocket_message *m)
{
    uint64_t facts[] = {m->opcode, m->len, m->close_status};
    fold(o, facts, sizeof facts);
    fold(o, m->bytes, m->len);
    o->messages++;
    o->controls += m->opcode == WEBSOCKET_PING || m->opcode == WEBSOCKET_PONG;
}

static void check_message(const struct websocket_message *m, const uint8_t *bytes, size_t len)
{
    size_t at;
    unsigned s = m->close_status;
    CHECK(m->opcode == WEBSOCKET_TEXT || m->opcode == WEBSOCKET_BINARY ||
          (m->opcode >= WEBSOCKET_CLOSE && m->opcode <= WEBSOCKET_PONG));
    CHECK(m->bytes);
    CHECK(m->len <= (m->opcode >= WEBSOCKET_CLOSE ? 125 : WEBSOCKET_MESSAGE_MAX));
    CHECK(m->opcode != WEBSOCKET_TEXT || utf8_valid((const char *)m->bytes, m->len, &at));
    CHECK(s == 0 || (m->opcode == WEBSOCKET_CLOSE && s >= 1000 && s <= 4999));
    CHECK(s != 1004 && s != 1005 && s != 1006 && s != 1015);
    CHECK(m->opcode != WEBSOCKET_CLOSE || (s == 0) == (m->len == 0));
    if (m->in_place)
        CHECK(m->bytes >= bytes && m->len <= (size_t)(bytes + len - m->bytes));
}

/* One read of ours. */
static void read_piece(struct websocket *w, uint8_t *bytes, size_t len, struct outcome *o)
{
    struct websocket_message m;
    uint8_t *at = bytes;
    size_t left = len;
    enum websocket_read got;
    while ((got = websocket_read(w, &at, &left, 0, &m, &o->bad)) == WEBSOCKET_MESSAGE) {
        CHECK(at + left == bytes + len);
        check_message(&m, bytes, len);
        fold_message(o, &m);
    }
    CHECK((got == WEBSOCKET_BAD) == (o->bad != 0));
    CHECK(got == WEBSOCKET_BAD || left == 0);
}

/* Each piece ends where the memory ends, so reading on is noticed. */
static struct outcome read_stream(const uint8_t *bytes, size_t len, size_t piece_max, uint64_t seed)
{
    struct outcome o = {.hash = 0xcbf29ce484222325u};
    struct websocket *w = websocket_new(&parts);
    uint8_t *memory = malloc(len + (len == 0));
    CHECK(w && memory);
    for (size_t at = 0, n; at < len; at += n) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        n = (size_t)(seed >> 33) % piece_max + 1;
        n = piece_max >= len || n > len - at ? len - at : n;
        memcpy(memory + len - n, bytes + at, n);
        read_piece(w, memory + len - n, n, &o);
    }
    free(memory);
    websocket_free(w);
    return o;
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    CHECK(a->hash == b->hash);
    CHECK(a->messages == b->messages);
    CHECK(a->bad == b->bad);
}

static void fuzz_stream(const uint8_t *bytes, size_t len, uint64_t seed)
{
    static const size_t pieces[] = {7, 64, 5000};
    struct outcome whole = read_stream(bytes, len, SIZE_MAX, 0);
    CHECK(whole.controls <= WEBSOCKET_CONTROL_BURST);
    if (len <= 4096) {
        struct outcome single = read_stream(bytes, len, 1, 0);
        check_same(&single, &whole);
    }
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct outcome cut = read_stream(bytes, len, pieces[i], seed + i);
        check_same(&cut, &whole);
    }
}

/* --- the upgrade --- */

static const char *const known[] = {"beacon.v2", "pilot.v1", NULL};

static void check_upgrade(const struct http_request *q, const struct websocket_upgrade *u)
{
    size_t len = strnlen(u->fields, sizeof u->fields);
    CHECK(len < sizeof u->fields);
    CHECK(len == 0 || (u->fields[len - 2] == '\r' && u->fields[len - 1] == '\n'));
    CHECK(u->status == 101 || u->subprotocol == -1);
    CHECK(u->subprotocol >= -1 && u->subprotocol <= 1);
    switch (u->status) {
    case 101:
        CHECK(strstr(u->fields, "Sec-WebSocket-Accept: "));
        CHECK(!strstr(u->fields, "Sec-WebSocket-Protocol: ") == (u->subprotocol == -1));
        CHECK(q->method == HTTP_GET && q->version_minor == 1 && q->body_len == 0);
        CHECK(http_text_is(*http_field(q, "sec-websocket-version"), "13"));
        break;
    case 426:
        CHECK(strstr(u->fields, "Sec-WebSocket-Version: 13\r\n"));
        break;
    case 405:
        CHECK(q->method != HTTP_GET && len == 0);
        break;
    default:
        CHECK((u->status == 400 || u->status == 403) && len == 0);
    }
}

/* A field that means nothing to us changes nothing, wherever it stands. */
static void check_with_stranger(const struct http_request *q, const struct websocket_upgrade *u)
{
    static const struct http_field stranger = {{"X", 1}, {"websocket, upgrade", 18}};
    struct http_request r = *q;
    struct websocket_upgrade v;
    if (q->field_count == HTTP_FIELDS_MAX)
        return;
    memmove(&r.field[1], &r.field[0], q->field_count * sizeof r.field[0]);
    r.field[0] = stranger;
    r.field_count++;
    websocket_upgrade(&r, known, &v);
    CHECK(v.status == u->status && v.subprotocol == u->subprotocol);
    CHECK(strcmp(v.fields, u->fields) == 0);
}

static void fuzz_upgrade(const uint8_t *bytes, size_t len)
{
    struct http_request q;
    struct websocket_upgrade u;
    char *head = malloc(len);
    CHECK(head);
    memcpy(head, bytes, len);
    if (http_read_head(head, len, &q) == 0) {
        websocket_upgrade(&q, known, &u);
        check_upgrade(&q, &u);
        check_with_stranger(&q, &u);
    }
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    if (bytes[0] == 'G' || bytes[0] == 'P')
        fuzz_upgrade(bytes, len);
    else
        fuzz_stream(bytes + 1, len - 1, bytes[0]);
    return 0;
}
