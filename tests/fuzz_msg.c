/* What a reader accepts, its writer says back byte for byte, up to bytes that are ignored; and no
 * reader takes what msg_kind calls something else. */
#include <stdlib.h>

#include "proto/msg.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static uint8_t again[1 << 16];

static size_t check_same(const struct writer *w, const uint8_t *bytes, size_t len)
{
    size_t n = written(w);
    CHECK(n > 0 && n <= len);
    CHECK(memcmp(again, bytes, n) == 0);
    return n;
}

/* One address has two accepted forms, IPv4 and IPv4-mapped: the canonical one comes back. */
static void check_address(const uint8_t *bytes, size_t len, enum msg_type type)
{
    struct endpoint e, back;
    struct writer w = writer_of(again, sizeof again);
    if (!read_address(bytes, len, type, &e))
        return;
    CHECK(msg_kind(bytes, len) == MSG_KIND_FOR_NODES);
    write_address(&w, type, &e);
    if (bytes[1] == 4 || !endpoint_is_v4(&e))
        check_same(&w, bytes, len);
    CHECK(read_address(again, written(&w), type, &back));
    CHECK(endpoint_equal(&e, &back));
}

static void check_deliver(const uint8_t *bytes, size_t len)
{
    memcpy(again, bytes, len);
    CHECK(msg_deliver_dest(again) == again && again[0] == MSG_RELAY_DELIVER_DEST);
    CHECK(memcmp(again + 1, bytes + 1, len - 1) == 0);
    CHECK(msg_deliver(again) == again + 4 && again[4] == MSG_RELAY_DELIVER);
    CHECK(memcmp(again + 5, bytes + 1, 4) == 0 && memcmp(again + 9, bytes + 9, len - 9) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct msg_discover d;
    struct msg_punch p;
    struct msg_relay r;
    if (len > sizeof again)
        return -1;
    enum msg_kind kind = msg_kind(bytes, len);
    CHECK((kind == MSG_KIND_DISCOVER) == read_discover(bytes, len, &d));
    CHECK((kind == MSG_KIND_PUNCH) == read_punch(bytes, len, &p));
    CHECK((kind == MSG_KIND_RELAY) == (len > 0 && read_relay(bytes, len, &r)));
    struct writer w = writer_of(again, sizeof again);
    if (kind == MSG_KIND_DISCOVER) {
        write_discover(&w, &d);
        CHECK(check_same(&w, bytes, len) == (len < MSG_DISCOVER_KEY_LEN ? 5 : 37));
    } else if (kind == MSG_KIND_PUNCH) {
        char text[MSG_GRANT_TEXT_MAX];
        write_punch(&w, &p);
        CHECK(check_same(&w, bytes, len) == (len < MSG_PUNCH_GRANT_LEN ? 9 : 81));
        CHECK(punch_grant_text(&p, text) == strlen(text));
    } else if (kind == MSG_KIND_RELAY) {
        write_relay(&w, &r);
        CHECK(check_same(&w, bytes, len) == len); /* nothing of a relay is ignored */
        check_deliver(bytes, len);
    }
    check_address(bytes, len, MSG_DISCOVER_REPLY);
    check_address(bytes, len, MSG_PUNCH_COMMAND);
    return 0;
}
