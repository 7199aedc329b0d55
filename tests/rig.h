/* rig - a server in memory that a test feeds by hand: one virtual clock, one outbox. With sessions
 * when opened by rig_open_sessions.
 *
 * Every rate, quota and the nursery are off at first, so that a test turns on only what it is about
 * (r.rules may be written at any time: the lanes see it at once). The addresses of the examples are
 * documentation addresses, so allow-private is on. */
#ifndef BEACON_TESTS_RIG_H
#define BEACON_TESTS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sodium.h>
#include "server/server.h"
#include "server/session.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { NODE_A = 123456, NODE_B = 654321 };
#define AT_A "203.0.113.7:40000"
#define AT_B "198.51.100.9:4000"
#define SECOND_NS 1000000000ull

struct rig {
    struct config config;
    struct rules rules;
    struct server *server;
    struct moment now;
    uint8_t local; /* of the datagrams to come */
    bool local_is_global;
    struct outbox out; /* of the last datagram */
    uint8_t bytes[2048];
    uint64_t received;
};

/* xorshift64*: the same sequence everywhere. */
static inline uint64_t rig_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static inline struct endpoint endpoint_at(const char *text)
{
    struct endpoint e;
    if (!endpoint_parse(text, &e))
        fail_msg("%s is no endpoint", text);
    return e;
}

static inline void rig_open_with(struct rig *r, unsigned lanes, uint32_t max_nodes, bool sessions)
{
    uint8_t seed[64];
    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < sizeof seed; i++)
        seed[i] = (uint8_t)(37 * i + 11);
    config_init(&r->config);
    r->config.max_nodes = max_nodes;
    r->config.addr.port = 9001;
    r->config.has_wss_plain = sessions;
    r->rules = (struct rules){
        .node_ttl_s = 600,
        .takeover_silence_s = 90,
        .grant_lifetime_s = 86400,
        .allow_private = PRIVATE_YES,
    };
    r->now = (struct moment){.ns = 5000 * SECOND_NS, .unix_s = 1800000000};
    size_t size = server_size(&r->config, lanes);
    void *memory = aligned_alloc(64, size);
    assert_non_null(memory);
    memset(memory, 0, size);
    r->server = server_init(memory, &r->config, lanes, &r->rules, seed);
}

static inline void rig_open(struct rig *r, unsigned lanes, uint32_t max_nodes)
{
    rig_open_with(r, lanes, max_nodes, false);
}

static inline void rig_open_sessions(struct rig *r, unsigned lanes, uint32_t max_nodes)
{
    rig_open_with(r, lanes, max_nodes, true);
}

static inline void rig_close(struct rig *r)
{
    free(r->server);
}

static inline void rig_step(struct rig *r, uint64_t ns)
{
    r->now.ns += ns;
}

static inline uint64_t rig_count(const struct rig *r, enum verdict v)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < r->server->lane_count; i++)
        n += count_read(&r->server->lane[i]->stats.verdict[v]);
    return n + (r->server->edge ? count_read(&r->server->edge->stats.verdict[v]) : 0);
}

static inline uint64_t rig_verdicts(const struct rig *r)
{
    uint64_t n = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        n += rig_count(r, (enum verdict)v);
    return n;
}

static inline unsigned rig_owner(const struct rig *r, uint32_t id)
{
    return route_owner(r->server->owner_key, id, r->server->lane_count);
}

static inline struct datagram rig_datagram(struct rig *r, const char *from, size_t len)
{
    return (struct datagram){
        .bytes = r->bytes,
        .len = (uint32_t)len,
        .from = endpoint_at(from),
        .local = r->local,
        .local_is_global = r->local_is_global,
    };
}

/* One datagram on one lane, as the shard does it: each is a batch of its own, at a time of its own.
 */
static inline enum verdict rig_input(struct rig *r, unsigned lane, const char *from,
                                     const void *bytes, size_t len)
{
    struct lane *l = r->server->lane[lane];
    assert_true(len <= sizeof r->bytes);
    if (len > 0)
        memcpy(r->bytes, bytes, len);
    struct datagram d = rig_datagram(r, from, len);
    r->out.count = 0;
    server_begin(l);
    server_prefetch(l, &d);
    enum verdict v = server_input(l, &d, &r->now, &r->out);
    r->received++;
    if (v != VERDICT_PASSED)
        count_add(&l->stats.verdict[v], 1);
    return v;
}

static inline enum verdict rig_hex(struct rig *r, unsigned lane, const char *from, const char *hex)
{
    uint8_t bytes[1024];
    size_t len;
    assert_int_equal(sodium_hex2bin(bytes, sizeof bytes, hex, strlen(hex), " ", &len, NULL), 0);
    return rig_input(r, lane, from, bytes, len);
}

/* The messages of nodes, given to the lane that owns the sender. */
static inline enum verdict rig_discover(struct rig *r, const char *from,
                                        const struct msg_discover *m)
{
    uint8_t bytes[MSG_DISCOVER_KEY_LEN];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_discover(&w, m);
    return rig_input(r, rig_owner(r, m->node_id), from, bytes, written(&w));
}

static inline enum verdict rig_node(struct rig *r, const char *from, uint32_t id)
{
    return rig_discover(r, from, &(struct msg_discover){.node_id = id});
}

static inline enum verdict rig_punch(struct rig *r, const char *from, uint32_t requester,
                                     uint32_t target)
{
    uint8_t bytes[MSG_PUNCH_LEN];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_punch(&w, &(struct msg_punch){.requester = requester, .target = target});
    return rig_input(r, rig_owner(r, requester), from, bytes, written(&w));
}

static inline enum verdict rig_relay(struct rig *r, unsigned lane, const char *from,
                                     uint32_t sender, uint32_t dest)
{
    static const uint8_t hello[] = "PILPhello";
    uint8_t bytes[64];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_relay(&w, &(struct msg_relay){sender, dest, hello, sizeof hello - 1});
    return rig_input(r, lane, from, bytes, written(&w));
}

/* All letters are read, by lane; what they cause is in the outbox. */
static inline void rig_mail(struct rig *r)
{
    r->out.count = 0;
    for (unsigned i = 0; i < r->server->lane_count; i++)
        while (server_mail(r->server->lane[i], &r->now, &r->out))
            continue;
}

/* A session of `id` whose key is all `key`. */
static inline struct session rig_session(uint32_t id, const char *from, enum route_class class_,
                                         uint8_t key)
{
    struct session s = {.node_id = id, .from = endpoint_at(from), .class_ = class_};
    memset(s.key, key, sizeof s.key);
    return s;
}

/* Tells the owner of it. True: the node is where the session is. */
static inline bool rig_here(struct rig *r, const struct session *s)
{
    struct route route;
    assert_true(session_here(r->server->edge, s));
    rig_mail(r);
    return server_find(r->server, s->node_id, &route) && route.flags & ROUTE_STREAM &&
           endpoint_equal(&route.at, &s->from);
}

static inline void rig_gone(struct rig *r, const struct session *s)
{
    assert_true(session_gone(r->server->edge, s));
    rig_mail(r);
}

/* One frame of a session. */
static inline enum verdict rig_frame(struct rig *r, struct session *s, const void *bytes,
                                     size_t len)
{
    assert_true(len <= sizeof r->bytes);
    if (len > 0)
        memcpy(r->bytes, bytes, len);
    struct datagram d = {.bytes = r->bytes, .len = (uint32_t)len};
    r->out.count = 0;
    server_begin(r->server->edge);
    r->received++;
    return session_input(r->server->edge, s, &d, &r->now, &r->out);
}

static inline enum verdict rig_frame_hex(struct rig *r, struct session *s, const char *hex)
{
    uint8_t bytes[1024];
    size_t len;
    assert_int_equal(sodium_hex2bin(bytes, sizeof bytes, hex, strlen(hex), " ", &len, NULL), 0);
    return rig_frame(r, s, bytes, len);
}

/* The next message in a lane's handoff, which is taken out. */
static inline void assert_handed(struct lane *l, uint32_t node_id, const char *hex)
{
    struct handoff_message m;
    char text[2 * OUTBOX_SCRATCH + 1];
    if (!handoff_peek(l->handoff, &m))
        fail_msg("nothing was handed over");
    assert_int_equal(m.node_id, node_id);
    assert_true(m.len <= OUTBOX_SCRATCH);
    assert_string_equal(sodium_bin2hex(text, sizeof text, m.bytes, m.len), hex);
    handoff_drop(l->handoff);
}

static inline void assert_nothing_handed(const struct rig *r)
{
    struct handoff_message m;
    for (unsigned i = 0; i < r->server->lane_count; i++)
        assert_false(handoff_peek(r->server->lane[i]->handoff, &m));
    assert_false(handoff_peek(r->server->edge->handoff, &m));
}

/* Where a node is, as text; "" for nowhere. Valid until the next call. */
static inline const char *rig_where(const struct rig *r, uint32_t id)
{
    static char text[ENDPOINT_TEXT_MAX];
    struct route route;
    return server_find(r->server, id, &route) ? endpoint_format(&route.at, text) : "";
}

static inline void assert_verdict(enum verdict got, enum verdict want, const char *what)
{
    static const char *const names[VERDICT_COUNT + 1] = {
#define X(name, outcome, type, reason, help) #name,
        VERDICTS(X)
#undef X
            "PASSED"};
    if (got != want)
        fail_msg("%s: %s, not %s", what, names[got], names[want]);
}

/* Outgoing datagram `i` of the last input. */
static inline void assert_sent(const struct rig *r, unsigned i, const char *to, const char *hex)
{
    char text[2 * OUTBOX_SCRATCH + 1], at[ENDPOINT_TEXT_MAX];
    if (i >= r->out.count)
        fail_msg("only %u datagrams were sent", r->out.count);
    const struct outgoing *o = &r->out.out[i];
    assert_true(o->len <= OUTBOX_SCRATCH);
    assert_string_equal(endpoint_format(&o->to, at), to);
    assert_string_equal(sodium_bin2hex(text, sizeof text, o->bytes, o->len), hex);
}

#endif
