/* bench_codec - what the pure parts cost: ns per call in one thread, no system call in the loop.
 *
 * Prints one JSON object, see parts.h. */
#include <stdio.h>
#include <string.h>
#include "bench/parts.h"
#include "proto/stun.h"
#include "server/server.h"

enum {
    BATCH = 64, /* datagrams between prefetch and use, like a full receive */
    NODES = 100000,
    NODES_MANY = 1000000,
    RELAY_LEN = 64,
    LIMIT_CELLS = 1 << 16,
    SENDER = NODES, /* the node that all relays come from, and none goes to */
};

static void run_kind(void *arg, unsigned calls)
{
    static const uint8_t first[8] = {0x05, 0x05, 0x05, 0x01, 0x00, 0x03, 0x05, 0x50};
    uint8_t bytes[RELAY_LEN] = {0};
    uint64_t sum = 0;
    (void)arg;
    for (unsigned i = 0; i < calls; i++) {
        bytes[0] = first[i % 8];
        sum += msg_kind(bytes, sizeof bytes);
    }
    parts_used = sum;
}

static void run_stun(void *arg, unsigned calls)
{
    static const struct endpoint source = {.ip = {[10] = 0xff, 0xff, 203, 0, 113, 7}, .port = 4000};
    uint8_t bytes[64], answer[STUN_ANSWER_MAX];
    uint8_t id[12] = {1, 2, 3};
    uint64_t sum = 0;
    struct writer ask = writer_of(bytes, sizeof bytes);
    stun_write_request(&ask, id, *(bool *)arg);
    for (unsigned i = 0; i < calls; i++) {
        struct stun_request q;
        struct writer w = writer_of(answer, sizeof answer);
        if (stun_read(bytes, written(&ask), &q) != STUN_REQUEST)
            parts_die("own STUN request was not read");
        stun_answer(&w, &q, &source);
        sum += written(&w);
    }
    parts_used = sum;
}

static void run_siphash(void *arg, unsigned calls)
{
    static const struct siphash_key key = {1, 2};
    uint64_t value = 0;
    (void)arg;
    for (unsigned i = 0; i < calls; i++)
        value = siphash_u32(&key, (uint32_t)value + i);
    parts_used = value;
}

static void run_limit(void *arg, unsigned calls)
{
    struct limiter *l = arg;
    static const struct rate rate = {.per_s = 4000, .burst = 400};
    uint64_t sum = 0;
    for (unsigned i = 0; i < calls; i++)
        sum += limit_take(l, i * 0x9e3779b97f4a7c15u, rate, 1000000000u + i);
    parts_used = sum;
}

struct table {
    struct routes *routes;
    uint32_t nodes;
};

static struct table table_open(uint32_t nodes)
{
    static const struct siphash_key key = {3, 4};
    struct table t = {.nodes = nodes};
    t.routes = routes_init(parts_memory(routes_size(nodes, 0)), nodes, 0, key);
    for (uint32_t i = 0; i < nodes; i++) {
        struct route r = {.id = parts_id(i), .at = {.ip = {[10] = 0xff, 0xff, 10}, .port = 4000}};
        memcpy(r.at.ip + 13, &i, 3);
        if (route_put(t.routes, &r, NULL) != ROUTE_INSERTED)
            parts_die("table is full before its capacity");
    }
    return t;
}

static void run_find_batch(void *arg, unsigned calls)
{
    const struct table *t = arg;
    uint32_t id[BATCH];
    uint64_t hash[BATCH], sum = 0;
    for (unsigned done = 0; done < calls; done += BATCH) {
        for (unsigned i = 0; i < BATCH; i++) {
            id[i] = parts_id(parts_random(t->nodes));
            hash[i] = route_hash(t->routes, id[i]);
            route_prefetch(t->routes, hash[i]);
        }
        for (unsigned i = 0; i < BATCH; i++) {
            struct route r;
            sum += route_find(t->routes, hash[i], id[i], &r) ? r.at.port : 0;
        }
    }
    parts_used = sum;
}

/* Each look-up waits for the one before: what a table costs without prefetch. */
static void run_find_dependent(void *arg, unsigned calls)
{
    const struct table *t = arg;
    uint32_t offset = 0;
    for (unsigned i = 0; i < calls; i++) {
        struct route r = {0};
        uint32_t id = parts_id((parts_random(t->nodes) + offset) % t->nodes);
        if (!route_find(t->routes, route_hash(t->routes, id), id, &r))
            parts_die("a stored node was not found");
        offset = r.at.port & 1;
    }
    parts_used = offset;
}

struct relay {
    struct config config;
    struct server *server;
    enum verdict want; /* of each relay */
    struct lane *lane;
    struct outbox outbox;
    uint8_t bytes[BATCH][RELAY_LEN];
    struct datagram datagram[BATCH];
    struct moment now;
    uint8_t local;
};

static struct endpoint node_at(uint32_t node)
{
    uint32_t host = 0x01010000 + node;
    uint8_t ip[4] = {127, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host};
    return endpoint_of(ip, sizeof ip, 4000);
}

static void put_u32(uint8_t *at, uint32_t value)
{
    struct writer w = writer_of(at, 4);
    write_u32(&w, value);
}

static void aim(struct relay *r, unsigned i, size_t len, uint32_t source)
{
    r->datagram[i] = (struct datagram){
        .bytes = r->bytes[i], .len = (uint32_t)len, .from = node_at(source), .local = r->local};
}

static enum verdict decide(struct relay *r, unsigned i)
{
    enum verdict v = server_input(r->lane, &r->datagram[i], &r->now, &r->outbox);
    if (r->outbox.count + OUTBOX_ROOM > OUTBOX_MAX)
        r->outbox.count = 0;
    return v;
}

static void register_nodes(struct relay *r, uint32_t first, uint32_t count)
{
    for (uint32_t node = first; node < first + count; node++) {
        r->bytes[0][0] = MSG_DISCOVER;
        put_u32(r->bytes[0] + 1, parts_id(node));
        aim(r, 0, MSG_DISCOVER_LEN, node);
        server_prefetch(r->lane, &r->datagram[0]);
        if (decide(r, 0) != VERDICT_DISCOVER_NEW)
            parts_die("a node was not registered");
    }
}

/* All nodes but the sender are another beacon's, at `peers->of[1]`. */
static void learn_all(struct relay *r, const struct peers *peers)
{
    server_set_peers(r->server, peers);
    server_begin(r->lane);
    for (uint32_t node = 0; node < NODES; node++)
        if (!route_put_beacon(r->lane->routes, parts_id(node), 1, ROUTE_UNVERIFIED, false))
            parts_die("a route found no room");
}

/* `peers`: where the nodes are; NULL: here. */
static struct relay *relay_open(const struct peers *peers)
{
    static const uint8_t seed[64] = {1, 2, 3};
    static const char *const unlimited[] = {"relay-rate", "relay-ip-rate", "reply-rate",
                                            "reply-total"};
    static const uint8_t loopback[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
    struct config_error error;
    struct relay *r = parts_memory(sizeof *r);
    struct config *c = &r->config;
    config_init(c);
    for (unsigned i = 0; i < sizeof unlimited / sizeof *unlimited; i++) {
        if (!config_set(c, unlimited[i], "0", "bench", &error))
            parts_die(error.text);
    }
    c->shards = 1;
    snprintf(c->peers, sizeof c->peers, "%s", peers ? "192.0.2.1" : "");
    r->want = peers ? VERDICT_RELAY_TO_BEACON : VERDICT_RELAY_FORWARDED;
    r->server = server_init(parts_memory(server_size(c, 1)), c, 1, &c->rules, seed);
    r->lane = r->server->lane[0];
    r->now = (struct moment){.ns = 1000000000000, .unix_s = 1800000000};
    r->local = service_index(&r->server->service, loopback);
    server_begin(r->lane);
    if (peers)
        learn_all(r, peers);
    else
        register_nodes(r, 0, NODES);
    register_nodes(r, SENDER, 1);
    return r;
}

/* What the loop below pays for making its input; bench.py subtracts it. */
static void fill_batch(struct relay *r)
{
    for (unsigned i = 0; i < BATCH; i++) {
        r->bytes[i][0] = MSG_RELAY;
        put_u32(r->bytes[i] + 1, parts_id(SENDER));
        put_u32(r->bytes[i] + 5, parts_id(parts_random(NODES)));
        aim(r, i, RELAY_LEN, SENDER);
    }
}

static void run_fill(void *arg, unsigned calls)
{
    struct relay *r = arg;
    for (unsigned done = 0; done < calls; done += BATCH) {
        fill_batch(r);
        parts_used = r->datagram[done % BATCH].len;
    }
}

static void run_relay(void *arg, unsigned calls)
{
    struct relay *r = arg;
    uint64_t forwarded = 0;
    for (unsigned done = 0; done < calls; done += BATCH) {
        fill_batch(r);
        for (unsigned i = 0; i < BATCH; i++)
            server_prefetch(r->lane, &r->datagram[i]);
        for (unsigned i = 0; i < BATCH; i++)
            forwarded += decide(r, i) == r->want;
    }
    if (forwarded != calls)
        parts_die("a relay was not forwarded");
}

int main(void)
{
    static bool plain = false, fingerprint = true;
    struct limiter limiter;
    limiter_init(&limiter, parts_memory(limiter_size(LIMIT_CELLS)), LIMIT_CELLS);
    struct table few = table_open(NODES), many = table_open(NODES_MANY);
    struct peers peers = {.count = 2, .of[1] = {.at = node_at(SENDER + 1), .usable = true}};
    peers_index(&peers);
    struct relay *relay = relay_open(NULL), *across = relay_open(&peers);
    const struct part parts[] = {
        {"msg_kind", run_kind, NULL, 1 << 22, NULL},
        {"stun", run_stun, &plain, 1 << 20, NULL},
        {"stun, FINGERPRINT", run_stun, &fingerprint, 1 << 20, NULL},
        {"siphash of an id", run_siphash, NULL, 1 << 22, NULL},
        {"limit_take", run_limit, &limiter, 1 << 20, NULL},
        {"route_find 100k, prefetched", run_find_batch, &few, 1 << 20, NULL},
        {"route_find 100k, dependent", run_find_dependent, &few, 1 << 20, NULL},
        {"route_find 1M, prefetched", run_find_batch, &many, 1 << 20, NULL},
        {"route_find 1M, dependent", run_find_dependent, &many, 1 << 20, NULL},
        {"making its input", run_fill, relay, 1 << 20, NULL},
        {"relay, whole decision", run_relay, relay, 1 << 20, NULL},
        {"relay to another beacon, whole decision", run_relay, across, 1 << 20, NULL},
    };
    parts_print(parts, sizeof parts / sizeof *parts);
    printf("\n");
    return 0;
}
