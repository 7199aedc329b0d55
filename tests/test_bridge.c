/* bridge - sessions over made-up connections and a virtual clock: authentication, replacement,
 * silence, drain, and what lanes hand over. What conn.c would do with a frame is kept in a list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "tests/rig.h"
#include "wss/bridge.c"
#include "wss/member.c"

enum { FRAMES_MAX = 64, MEMBERS_MAX = 8 };

/* --- what the edge would do --- */

struct heard {
    struct conn *to;
    uint8_t opcode;
    size_t len;
    uint8_t bytes[256];
};
static struct heard heard[FRAMES_MAX];
static unsigned heard_count;
static unsigned ended_count, woken, sent;
static uint64_t now_ns;

void conn_say(struct conn *c, const struct conn_turn *turn, const void *head, size_t head_len,
              const void *body, size_t body_len)
{
    (void)turn;
    assert_true(heard_count < FRAMES_MAX);
    assert_true(head_len >= 2);
    assert_true(body_len <= sizeof heard[0].bytes);
    struct heard *h = &heard[heard_count++];
    *h = (struct heard){.to = c, .opcode = ((const uint8_t *)head)[0] & 15, .len = body_len};
    if (body_len > 0)
        memcpy(h->bytes, body, body_len);
}

void conn_end(struct conn *c, const struct conn_turn *turn)
{
    (void)c;
    (void)turn;
    ended_count++;
}

void conn_set_deadline(struct conn *c, uint64_t at_ns)
{
    c->protocol_deadline_ns = at_ns;
}

bool conn_exporter(const struct conn *c, uint8_t ret[static TLS_EXPORTER_LEN])
{
    (void)c;
    (void)ret;
    return false;
}

uint64_t edge_clock_ns(void)
{
    return now_ns;
}

static void udp_send(void *arg, struct outbox *out)
{
    (void)arg;
    sent += out->count;
    out->count = 0;
}

static void lane_wake(void *arg, unsigned lane)
{
    (void)arg;
    woken |= 1u << lane;
}

/* --- the bench --- */

struct client {
    struct conn conn;
    struct edge_response response;
    uint8_t secret[crypto_sign_SECRETKEYBYTES], key[crypto_sign_PUBLICKEYBYTES];
};

static struct rig rig;
static struct bridge *bridge;
static struct keys *keys;
static struct events events;
static struct mesh_view view;
static struct client clients[MEMBERS_MAX];

static struct conn_turn turn_now(void)
{
    return (struct conn_turn){.now_ns = now_ns};
}

static int bridge_up(void **state)
{
    (void)state;
    char error[KEYS_ERROR_MAX];
    struct config c;
    uint8_t seed[64] = {1, 2, 3};
    memset(&rig, 0, sizeof rig);
    memset(clients, 0, sizeof clients);
    memset(&view, 0, sizeof view);
    heard_count = ended_count = woken = sent = 0;
    now_ns = 5000 * SECOND_NS;
    config_init(&c);
    c.max_nodes = 64;
    c.has_wss = true;
    c.addr.port = 9001;
    rig.config = c;
    rig.rules = c.rules;
    rig.rules.allow_private = PRIVATE_YES;
    size_t size = server_size(&c, 1);
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(memory);
    memset(memory, 0, size);
    rig.server = server_init(memory, &c, 1, &rig.rules, seed);
    events_init(&events);
    keys = keys_open(
        &(struct keys_config){.file = "", .registry = "", .first_use = true, .wake = -1}, error);
    assert_non_null(keys);
    assert_int_equal(
        bridge_open(&bridge, &(struct bridge_config){.server = rig.server,
                                                     .events = &events,
                                                     .mesh = &view,
                                                     .udp = {.send = udp_send, .wake = lane_wake},
                                                     .beacon_id = 7,
                                                     .sessions_max = MEMBERS_MAX,
                                                     .legacy_auth = true}),
        0);
    bridge_set_keys(bridge, keys);
    return 0;
}

static void client_gone(struct client *c)
{
    if (c->response.state)
        c->response.protocol->closed(c->response.state);
    c->response.state = NULL;
}

static int bridge_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        client_gone(&clients[i]);
    bridge_close(bridge);
    keys_close(keys);
    rig_close(&rig);
    return 0;
}

/* The shard's turn: mail is taken. */
static void shard_turns(void)
{
    struct moment now = {.ns = now_ns, .unix_s = 1800000000};
    server_begin(rig.server->lane[0]);
    server_mail(rig.server->lane[0], &now, &rig.out);
}

static void edge_turns(void)
{
    struct conn_turn turn = turn_now();
    bridge_turn(bridge, &turn);
}

/* Time passes to the client's deadline; true: it lives on. */
static bool client_expires(struct client *c)
{
    assert_true(c->conn.protocol_deadline_ns != UINT64_MAX);
    if (c->conn.protocol_deadline_ns > now_ns)
        now_ns = c->conn.protocol_deadline_ns;
    struct conn_turn turn = turn_now();
    bool lives = c->response.protocol->expired(&c->conn, c->response.state, &turn);
    if (!lives)
        client_gone(c);
    return lives;
}

/* Passes over deadlines at which nothing is said: the row is refreshed then. */
static bool client_waits(struct client *c)
{
    bool lives;
    heard_count = 0;
    do
        lives = client_expires(c);
    while (lives && heard_count == 0);
    return lives;
}

static bool client_says(struct client *c, enum websocket_opcode opcode, const void *bytes,
                        size_t len)
{
    uint8_t frame[1024] = {(uint8_t)(0x80 | opcode)};
    static const uint8_t mask[4] = {1, 2, 3, 4};
    size_t head = 2;
    assert_true(len < 900);
    if (len < 126) {
        frame[1] = (uint8_t)(0x80 | len);
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = (uint8_t)(len >> 8);
        frame[3] = (uint8_t)len;
        head = 4;
    }
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < len; i++)
        frame[head + 4 + i] = (uint8_t)(((const uint8_t *)bytes)[i] ^ mask[i % 4]);
    struct conn_turn turn = turn_now();
    bool lives =
        c->response.protocol->input(&c->conn, c->response.state, frame, head + 4 + len, &turn);
    if (!lives)
        client_gone(c);
    return lives;
}

static int client_upgrades(struct client *c, const char *subprotocol)
{
    static char head[512];
    struct http_request q;
    snprintf(head, sizeof head,
             "GET /v1/compat HTTP/1.1\r\nHost: Beacon.Example\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
             subprotocol);
    assert_int_equal(http_read_head(head, strlen(head), &q), 0);
    struct edge_request request = {.http = &q, .conn = &c->conn};
    assert_true(endpoint_parse("203.0.113.9:5000", &request.from));
    request.from.port = (uint16_t)(5000 + (c - clients));
    c->response = (struct edge_response){.status = 0};
    bridge_http(bridge, &request, &c->response);
    if (c->response.status != 101) {
        free(c->response.body);
        return c->response.status;
    }
    struct conn_turn turn = turn_now();
    heard_count = 0;
    assert_true(c->response.protocol->opened(&c->conn, c->response.state, &turn));
    assert_int_equal(heard_count, 1);
    assert_int_equal(heard[0].opcode, WEBSOCKET_TEXT);
    return 101;
}

static bool client_replies(struct client *c, uint32_t node_id, uint8_t of)
{
    uint8_t seed[crypto_sign_SEEDBYTES] = {of};
    char text[512], reply[512], key64[64], sig64[128], nonce[65];
    long long ts;
    uint8_t sig[64];
    heard[0].bytes[heard[0].len] = '\0';
    assert_int_equal(sscanf((const char *)heard[0].bytes,
                            "{\"type\":\"auth_challenge\",\"nonce\":\"%64[0-9a-f]\",\"ts\":%lld",
                            nonce, &ts),
                     2);
    crypto_sign_seed_keypair(c->key, c->secret, seed);
    snprintf(text, sizeof text, "compat_auth:%u:%lld:%s", node_id, ts, nonce);
    crypto_sign_detached(sig, NULL, (const uint8_t *)text, strlen(text), c->secret);
    sodium_bin2base64(key64, sizeof key64, c->key, sizeof c->key, sodium_base64_VARIANT_ORIGINAL);
    sodium_bin2base64(sig64, sizeof sig64, sig, sizeof sig, sodium_base64_VARIANT_ORIGINAL);
    snprintf(reply, sizeof reply,
             "{\"type\":\"auth_reply\",\"node_id\":%u,\"public_key\":\"%s\",\"sig\":\"%s\"}",
             node_id, key64, sig64);
    heard_count = 0;
    return client_says(c, WEBSOCKET_TEXT, reply, strlen(reply));
}

static void client_joins(struct client *c, uint32_t node_id, uint8_t of)
{
    assert_int_equal(client_upgrades(c, "pilot.v1"), 101);
    assert_true(client_replies(c, node_id, of));
    assert_true(heard_count >= 1);
    assert_memory_equal(heard[heard_count - 1].bytes, "{\"type\":\"auth_ok\"}", 18);
    heard_count = 0;
}

static uint16_t close_status(const struct heard *h)
{
    assert_int_equal(h->opcode, WEBSOCKET_CLOSE);
    assert_true(h->len >= 2);
    return (uint16_t)(h->bytes[0] << 8 | h->bytes[1]);
}

static bool is_stored(uint32_t node_id)
{
    struct route route;
    shard_turns();
    return server_find(rig.server, node_id, &route) && (route.flags & ROUTE_STREAM);
}

/* --- cases --- */

static void session_lives_and_ends(void **state)
{
    (void)state;
    struct client *c = &clients[0];
    client_joins(c, 41, 1);
    assert_true(woken & 1);
    assert_true(is_stored(41));
    assert_int_equal(count_read(&bridge_stats(bridge)->sessions), 1);
    assert_int_equal(count_read(&bridge_stats(bridge)->waiting), 0);
    client_gone(c);
    assert_false(is_stored(41));
    assert_int_equal(count_read(&bridge_stats(bridge)->sessions), 0);
}

static void wrong_key_is_refused(void **state)
{
    (void)state;
    client_joins(&clients[0], 41, 1);
    assert_int_equal(client_upgrades(&clients[1], "pilot.v1"), 101);
    assert_false(client_replies(&clients[1], 41, 2)); /* another key is pinned */
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_POLICY);
    assert_int_equal(count_read(&bridge_stats(bridge)->auth_failures), 1);
    assert_int_equal(count_read(&bridge_stats(bridge)->waiting), 0);
    assert_true(is_stored(41));
}

static void silence_while_asked(void **state)
{
    (void)state;
    assert_int_equal(client_upgrades(&clients[0], "pilot.v1"), 101);
    uint64_t began = now_ns;
    heard_count = 0;
    assert_false(client_expires(&clients[0]));
    assert_int_equal((now_ns - began) / SECOND_NS, BRIDGE_AUTH_SECONDS);
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_POLICY);
    assert_int_equal(count_read(&bridge_stats(bridge)->auth_timeouts), 1);
}

static void newer_replaces_older(void **state)
{
    (void)state;
    client_joins(&clients[0], 41, 1);
    assert_int_equal(client_upgrades(&clients[1], "pilot.v1"), 101);
    assert_true(client_replies(&clients[1], 41, 1));
    assert_int_equal(heard_count, 2);
    assert_ptr_equal(heard[0].to, &clients[0].conn);
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_NORMAL);
    assert_memory_equal(heard[0].bytes + 2, "replaced", 8);
    assert_int_equal(ended_count, 1);
    client_gone(&clients[0]); /* its end takes nothing of the new one along */
    assert_true(is_stored(41));
    assert_int_equal(count_read(&bridge_stats(bridge)->sessions), 1);
    assert_int_equal(count_read(&bridge_stats(bridge)->replaced), 1);
}

static void replaced_one_is_not_heard(void **state)
{
    (void)state;
    client_joins(&clients[0], 41, 1);
    client_joins(&clients[2], 43, 3);
    assert_int_equal(client_upgrades(&clients[1], "pilot.v1"), 101);
    assert_true(client_replies(&clients[1], 41, 1));
    shard_turns();
    heard_count = 0;
    static const uint8_t relay[] = {5, 0, 0, 0, 41, 0, 0, 0, 43, 'x'};
    assert_false(client_says(&clients[0], WEBSOCKET_BINARY, relay, sizeof relay));
    assert_int_equal(heard_count, 0);
    assert_true(client_says(&clients[1], WEBSOCKET_BINARY, relay, sizeof relay));
    assert_int_equal(heard_count, 1);
    assert_ptr_equal(heard[0].to, &clients[2].conn);
}

static void silent_session_is_pinged_then_over(void **state)
{
    (void)state;
    struct client *c = &clients[0];
    client_joins(c, 41, 1);
    uint64_t began = now_ns;
    assert_true(client_waits(c));
    assert_int_equal((now_ns - began) / SECOND_NS, BRIDGE_PING_SECONDS);
    assert_int_equal(heard_count, 1);
    assert_int_equal(heard[0].opcode, WEBSOCKET_PING);
    now_ns += SECOND_NS;
    assert_true(client_says(c, WEBSOCKET_PONG, "", 0)); /* a pong is life */
    uint64_t pong = now_ns;
    assert_true(client_waits(c));
    assert_int_equal((now_ns - pong) / SECOND_NS, BRIDGE_PING_SECONDS);
    assert_false(client_waits(c));
    assert_int_equal((now_ns - pong) / SECOND_NS, BRIDGE_PING_SECONDS + BRIDGE_SILENCE_SECONDS);
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_GOING_AWAY);
    assert_false(is_stored(41));
    assert_int_equal(count_read(&bridge_stats(bridge)->idle), 1);
}

static void row_is_refreshed(void **state)
{
    (void)state;
    struct client *c = &clients[0];
    struct route route;
    client_joins(c, 41, 1);
    assert_true(is_stored(41));
    for (int i = 0; i < 100; i++) {
        now_ns += 10 * SECOND_NS;
        assert_true(client_says(c, WEBSOCKET_PING, "", 0));
        heard_count = 0;
        assert_true(is_stored(41));
        assert_true(server_find(rig.server, 41, &route));
        uint32_t silent_s = (uint32_t)(now_ns / SECOND_NS) - route.seen_s;
        assert_true(silent_s <= SESSION_HERE_SECONDS);
    }
}

/* However it times its frames and pongs: a row that is not refreshed for twice the period may be
 * taken by whoever claims the id. */
static void row_is_refreshed_in_silence(void **state)
{
    (void)state;
    static const unsigned speaks_after_s[] = {1, 19, 20, 21, 29, 44};
    for (size_t i = 0; i < sizeof speaks_after_s / sizeof *speaks_after_s; i++) {
        struct client *c = &clients[i];
        uint32_t id = 41 + (uint32_t)i;
        client_joins(c, id, (uint8_t)(1 + i));
        uint64_t speaks_ns = now_ns + speaks_after_s[i] * SECOND_NS, over_ns = now_ns;
        over_ns += 200 * SECOND_NS;
        while (now_ns < over_ns) {
            struct route route;
            heard_count = 0;
            if (c->conn.protocol_deadline_ns < speaks_ns) {
                assert_true(client_expires(c));
            } else {
                now_ns = speaks_ns;
                assert_true(client_says(c, WEBSOCKET_PONG, "", 0));
                speaks_ns = now_ns + speaks_after_s[i] * SECOND_NS;
            }
            assert_true(is_stored(id));
            assert_true(server_find(rig.server, id, &route));
            uint32_t silent_s = (uint32_t)(now_ns / SECOND_NS) - route.seen_s;
            assert_in_range(silent_s, 0, SESSION_HERE_SECONDS);
            assert_true(c->conn.protocol_deadline_ns > now_ns); /* no turn without end */
            assert_true(c->conn.protocol_deadline_ns <= now_ns + SESSION_HERE_SECONDS * SECOND_NS);
        }
        client_gone(c);
        shard_turns();
    }
}

/* The owner's mailbox is full: it is tried again, in a second and not at once. */
static void full_mailbox_is_tried_again(void **state)
{
    (void)state;
    struct client *c = &clients[0];
    struct mailbox *box = rig.server->lane[0]->mailbox;
    const struct mail notify = {.kind = MAIL_NOTIFY, .node_id = 1};
    assert_int_equal(client_upgrades(c, "pilot.v1"), 101);
    while (mailbox_put(box, &notify))
        ;
    assert_true(client_replies(c, 41, 1));
    for (int i = 0; i < 3; i++) {
        uint64_t before = now_ns;
        heard_count = 0;
        assert_true(client_expires(c));
        assert_int_equal(now_ns - before, SECOND_NS);
    }
    while (server_mail(rig.server->lane[0], &(struct moment){.ns = now_ns}, &rig.out))
        rig.out.count = 0;
    assert_true(client_expires(c));
    assert_true(is_stored(41));
    assert_true(c->conn.protocol_deadline_ns > now_ns + SECOND_NS);
}

/* It had begun to authenticate before the drain: it must not stay for all of it. */
static void late_one_leaves_a_drain(void **state)
{
    (void)state;
    struct client *c = &clients[0];
    assert_int_equal(client_upgrades(c, "pilot.v1"), 101);
    bridge_drain(bridge, true, 5000);
    edge_turns();
    assert_true(client_replies(c, 41, 1));
    heard_count = 0;
    assert_false(client_expires(c));
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_GOING_AWAY);
}

static void drain_spreads_and_ends(void **state)
{
    (void)state;
    for (uint8_t i = 0; i < 5; i++)
        client_joins(&clients[i], 41u + i, (uint8_t)(1 + i));
    uint64_t began = now_ns, last = 0;
    bridge_drain(bridge, true, 5000);
    edge_turns();
    assert_int_equal(client_upgrades(&clients[5], "pilot.v1"), 503);
    for (int i = 0; i < 5; i++) {
        uint64_t at = clients[i].conn.protocol_deadline_ns;
        assert_true(at > last); /* one behind the other */
        assert_true(at - began <= 5 * SECOND_NS);
        last = at;
    }
    assert_true(last - began > 2 * SECOND_NS);
    heard_count = 0;
    assert_false(client_expires(&clients[0]));
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_GOING_AWAY);
    assert_memory_equal(heard[0].bytes + 2, "beacon shutting down", 20);
    bridge_drain(bridge, false, 0);
    edge_turns();
    assert_true(client_waits(&clients[4])); /* a ping, at the usual time */
    assert_int_equal(heard[0].opcode, WEBSOCKET_PING);
    client_joins(&clients[0], 41, 1);
}

static void expect_farewell(const char *want)
{
    assert_int_equal(close_status(&heard[0]), WEBSOCKET_GOING_AWAY);
    assert_int_equal(heard[0].len, 2 + strlen(want));
    assert_memory_equal(heard[0].bytes + 2, want, strlen(want));
}

/* All that one drain sends away hear the same; the next asks the mesh anew. */
static void drain_names_other_beacons(void **state)
{
    (void)state;
    client_joins(&clients[0], 41, 1);
    client_joins(&clients[1], 42, 2);
    view.successor[0] = endpoint_at("192.0.2.1:9001");
    view.successor[1] = endpoint_at("[2001:db8::2]:9002");
    view.successor_count = 2;
    bridge_drain(bridge, true, 5000);
    edge_turns();
    view.successor_count = 0;
    edge_turns();
    for (int i = 0; i < 2; i++) {
        heard_count = 0;
        assert_false(client_expires(&clients[i]));
        expect_farewell("beacon shutting down; try 192.0.2.1:9001 [2001:db8::2]:9002");
    }
    bridge_drain(bridge, false, 0);
    edge_turns();
    client_joins(&clients[0], 41, 1);
    bridge_drain(bridge, true, 5000);
    edge_turns();
    heard_count = 0;
    assert_false(client_expires(&clients[0]));
    expect_farewell("beacon shutting down");
}

static void places_are_bounded(void **state)
{
    (void)state;
    for (uint8_t i = 0; i < MEMBERS_MAX - 1; i++)
        client_joins(&clients[i], 41u + i, (uint8_t)(1 + i));
    assert_int_equal(client_upgrades(&clients[MEMBERS_MAX - 1], "pilot.v1"), 101);
    struct client late = {.response = {.status = 0}};
    assert_int_equal(client_upgrades(&late, "pilot.v1"), 503);
    client_gone(&clients[3]);
    clients[3] = (struct client){.response = {.status = 0}};
    assert_int_equal(client_upgrades(&clients[3], "pilot.v1"), 101);
}

static void handed_over_to_nobody(void **state)
{
    (void)state;
    client_joins(&clients[0], 41, 1);
    assert_true(is_stored(41));
    /* As if the end of the session had met a full mailbox. */
    bridge_map_remove(bridge, clients[0].response.state);
    struct lane *l = rig.server->lane[0];
    assert_true(handoff_put(l->handoff, 41, (const uint8_t *)"\x06xxxx", 5));
    heard_count = 0;
    edge_turns();
    assert_int_equal(heard_count, 0);
    assert_int_equal(count_read(&bridge_stats(bridge)->no_session), 1);
    assert_false(is_stored(41)); /* the owner has heard it now */
    bridge_map_add(bridge, clients[0].response.state);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, bridge_up, bridge_down)
    const struct CMUnitTest tests[] = {
        CASE(session_lives_and_ends),
        CASE(wrong_key_is_refused),
        CASE(silence_while_asked),
        CASE(newer_replaces_older),
        CASE(replaced_one_is_not_heard),
        CASE(silent_session_is_pinged_then_over),
        CASE(row_is_refreshed),
        CASE(drain_spreads_and_ends),
        CASE(drain_names_other_beacons),
        CASE(places_are_bounded),
        CASE(handed_over_to_nobody),
        CASE(row_is_refreshed_in_silence),
        CASE(full_mailbox_is_tried_again),
        CASE(late_one_leaves_a_drain),
    };
    return cmocka_run_group_tests_name("bridge", tests, NULL, NULL);
}
