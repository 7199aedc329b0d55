/* The same bytes as a frame, as the body of each kind and as a keys file. What a reader takes is
 * written again in no more room, and read again the same. What is sealed opens, and does not once a
 * byte of it has changed. */
#include <sodium.h>
#include <stdlib.h>

#include "gossip/seal.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return sodium_init() < 0 ? -1 : 0;
}

static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t len)
{
    return !a == !b && (!a || memcmp(a, b, len) == 0);
}

static void check_hello(const uint8_t *body, size_t len)
{
    struct gossip_hello m, n;
    uint8_t again[64];
    if (!read_gossip_hello(body, len, &m))
        return;
    size_t again_len = write_gossip_hello(again, len < 64 ? len : 64, &m);
    CHECK(read_gossip_hello(again, again_len, &n));
    CHECK(same_bytes(m.challenge, n.challenge, GOSSIP_CHALLENGE_LEN));
    CHECK(same_bytes(m.echo, n.echo, GOSSIP_CHALLENGE_LEN));
}

static void check_ping(const uint8_t *body, size_t len, enum gossip_kind kind)
{
    struct gossip_ping m, n;
    uint8_t again[64];
    if (!read_gossip_ping(body, len, kind, &m))
        return;
    size_t again_len = write_gossip_ping(again, len < 64 ? len : 64, kind, &m);
    CHECK(read_gossip_ping(again, again_len, kind, &n));
    CHECK(m.number == n.number && m.subject == n.subject);
    CHECK(m.view == n.view && m.lag_ms == n.lag_ms);
    CHECK(endpoint_equal(&m.at, &n.at));
}

static void check_members(const uint8_t *body, size_t len, uint8_t *again)
{
    struct member_fact m[GOSSIP_MEMBERS_MAX], n[GOSSIP_MEMBERS_MAX];
    unsigned count, count_again, fits;
    if (!read_gossip_members(body, len, m, &count))
        return;
    size_t again_len = write_gossip_members(again, len, m, count, &fits);
    CHECK(fits == count);
    CHECK(read_gossip_members(again, again_len, n, &count_again) && count_again == count);
    for (unsigned i = 0; i < count; i++) {
        CHECK(m[i].id != 0 && m[i].state < MEMBER_STATE_COUNT);
        CHECK(m[i].id == n[i].id && m[i].boot == n[i].boot && m[i].state == n[i].state);
        CHECK(m[i].incarnation == n[i].incarnation && endpoint_equal(&m[i].at, &n[i].at));
    }
}

static void check_digest(const uint8_t *body, size_t len, uint8_t *again)
{
    struct digest_entry m[GOSSIP_DIGEST_MAX], n[GOSSIP_DIGEST_MAX];
    unsigned count, count_again, flags, flags_again, fits;
    if (!read_gossip_digest(body, len, &flags, m, &count))
        return;
    size_t again_len = write_gossip_digest(again, len, flags, m, count, &fits);
    CHECK(fits == count);
    CHECK(read_gossip_digest(again, again_len, &flags_again, n, &count_again));
    CHECK(flags_again == flags && count_again == count);
    for (unsigned i = 0; i < count; i++) {
        CHECK(m[i].owner != 0 && m[i].owner == n[i].owner);
        CHECK(m[i].boot == n[i].boot && m[i].version == n[i].version);
    }
}

static void check_delta(const uint8_t *body, size_t len, uint8_t *again)
{
    static struct gossip_delta m, n;
    if (!read_gossip_delta(body, len, &m))
        return;
    size_t again_len = write_gossip_delta(again, len, &m);
    CHECK(read_gossip_delta(again, again_len, &n));
    CHECK(m.owner == n.owner && m.boot == n.boot && m.top == n.top);
    CHECK(m.from == n.from && m.to == n.to && m.row_count == n.row_count);
    CHECK(m.state_len == n.state_len && same_bytes(m.state, n.state, m.state_len));
    CHECK(!m.state || (m.state >= body && m.state + m.state_len <= body + len));
    uint64_t version = m.from;
    for (unsigned i = 0; i < m.row_count; i++) {
        CHECK(m.row[i].version > version && m.row[i].version <= m.to);
        CHECK(m.row[i].id == n.row[i].id && m.row[i].meta == n.row[i].meta);
        CHECK(m.row[i].version == n.row[i].version && !(m.row[i].meta & DELTA_PROOF));
        version = m.row[i].version;
    }
}

static void check_state(const uint8_t *bytes, size_t len)
{
    struct beacon_state m, n;
    uint8_t again[GOSSIP_STATE_MAX];
    if (!read_beacon_state(bytes, len, &m))
        return;
    size_t again_len = write_beacon_state(again, len < sizeof again ? len : sizeof again, &m);
    CHECK(read_beacon_state(again, again_len, &n));
    CHECK(m.draining == n.draining && m.level == n.level);
    CHECK(m.nodes == n.nodes && m.nodes_max == n.nodes_max);
    CHECK(strcmp(m.version, n.version) == 0 && m.endpoint_count == n.endpoint_count);
    CHECK(memcmp(m.endpoint, n.endpoint, m.endpoint_count * sizeof *m.endpoint) == 0);
}

/* The ring has the key id that the frame names, then another. */
static void check_frame(const uint8_t *bytes, size_t len)
{
    struct seal_ring ring = {.count = 1, .of = {{.id = len > 2 ? bytes[2] : 0, .key = {1}}}};
    struct gossip_head head;
    uint8_t body[GOSSIP_BODY_MAX], written[GOSSIP_HEAD_LEN];
    size_t body_len;
    bool has_head = read_gossip_head(bytes, len, &head);
    if (has_head) {
        write_gossip_head(written, &head);
        CHECK(memcmp(written, bytes, GOSSIP_HEAD_LEN) == 0);
    }
    CHECK(seal_open(&ring, bytes, len, &head, body, &body_len) ==
          (has_head ? SEAL_FORGED : SEAL_MALFORMED));
    ring.of[0].id ^= 1;
    CHECK(seal_open(&ring, bytes, len, &head, body, &body_len) ==
          (has_head ? SEAL_UNKNOWN_KEY : SEAL_MALFORMED));
}

static void check_sealed(const uint8_t *body, size_t len)
{
    const struct seal_ring ring = {.count = 1, .of = {{.id = 3, .key = {1}}}};
    struct seal_random random = {.seed = {1}};
    struct gossip_head head = {.kind = body[0], .sender = 1, .sequence = len}, got;
    uint8_t frame[GOSSIP_FRAME_MAX], opened[GOSSIP_BODY_MAX];
    size_t opened_len, frame_len = seal_frame(&ring, &random, &head, body, len, frame);
    CHECK(seal_open(&ring, frame, frame_len, &got, opened, &opened_len) == SEAL_OK);
    CHECK(opened_len == len && memcmp(opened, body, len) == 0);
    CHECK(got.key_id == 3 && got.kind == body[0] && got.sequence == len);
    frame[body[len / 2] * (frame_len - 1) / UINT8_MAX] ^= body[len - 1] | 1;
    CHECK(seal_open(&ring, frame, frame_len, &got, opened, &opened_len) != SEAL_OK);
}

static void check_ring(const char *text, size_t len)
{
    struct seal_ring ring, again;
    char error[SEAL_ERROR_MAX] = "", written[SEAL_TEXT_MAX];
    if (!seal_ring_read(&ring, "ring", text, len, error)) {
        CHECK(strncmp(error, "ring:", 5) == 0);
        return;
    }
    CHECK(error[0] == '\0' && ring.count >= 1 && ring.count <= SEAL_KEYS_MAX);
    CHECK(ring.in_use < ring.count);
    size_t written_len = seal_ring_write(&ring, written, sizeof written);
    CHECK(seal_ring_read(&again, "ring", written, written_len, error));
    CHECK(again.count == ring.count && again.in_use == ring.in_use);
    for (unsigned i = 0; i < ring.count; i++) {
        CHECK(again.of[i].id == ring.of[i].id);
        CHECK(memcmp(again.of[i].key, ring.of[i].key, SEAL_KEY_LEN) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    uint8_t *again = malloc(len + 1);
    CHECK(again);
    check_frame(bytes, len);
    if (len > 0 && len <= GOSSIP_BODY_MAX)
        check_sealed(bytes, len);
    check_hello(bytes, len);
    check_ping(bytes, len, GOSSIP_PING);
    check_ping(bytes, len, GOSSIP_ACK);
    check_ping(bytes, len, GOSSIP_PROBE);
    check_members(bytes, len, again);
    check_digest(bytes, len, again);
    check_delta(bytes, len, again);
    check_state(bytes, len);
    check_ring((const char *)bytes, len);
    free(again);
    return 0;
}
