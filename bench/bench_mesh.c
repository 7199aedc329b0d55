/* bench_mesh - what the pure parts of the mesh cost: ns per call in one thread, and bytes a row.
 *
 * Prints one JSON object: {"ns": ..., "bytes": ...}. One beacon is measured; the other is played by
 * hand, for it only has to hold the key. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "bench/parts.h"
#include "gossip/gossip.h"
#include "server/server.h"

enum {
    NODES = 1000000,
    ROWS = NODES + NODES / 4 + 16,
    PIECE_ROWS = 160, /* of a delta: about as many as fit a frame */
    FRAMES = 8192,    /* PINGs of one pass, each sealed with a number of its own */
    ROUTES = 50000,   /* of one pass: fewer than a gossip queues */
    SMALL_BODY = 28,  /* with header, nonce and tag 96 bytes */
    SMALL = SMALL_BODY + GOSSIP_SEAL_LEN,
    US = 100, /* gossip as measured gets a frame each so many microseconds: within all budgets */
    SELF = 1,
    OTHER = 2, /* beacon ids */
    OTHER_BOOT = 5,
    OWNER = 1, /* index of the other beacon */
};

static const struct siphash_key key = {3, 4};
static const struct endpoint other_at = {.ip = {[10] = 0xff, 0xff, 192, 0, 2, 2}, .port = 9001};
static const struct endpoint stranger_at = {.ip = {[10] = 0xff, 0xff, 192, 0, 2, 9}, .port = 9};

/* --- frames --- */

struct talk {
    struct gossip *gossip;
    uint64_t now_ns, sequence; /* of the other beacon's frames */
    struct seal_ring ring;
    struct seal_random random;
    size_t len; /* of the frames of this part */
    enum gossip_verdict want;
    uint8_t frame[GOSSIP_FRAME_MAX];
    struct {
        uint8_t bytes[160];
        size_t len;
    } ping[FRAMES];
};

static size_t talk_seal(struct talk *t, enum gossip_kind kind, const uint8_t *body, size_t len,
                        uint8_t *ret)
{
    uint8_t frame[GOSSIP_FRAME_MAX];
    struct gossip_head head = {.kind = (uint8_t)kind,
                               .sender = OTHER,
                               .receiver = SELF,
                               .boot = OTHER_BOOT,
                               .sequence = ++t->sequence};
    size_t frame_len = seal_frame(&t->ring, &t->random, &head, body, len, frame);
    memcpy(ret, frame, frame_len);
    return frame_len;
}

static enum gossip_verdict talk_say(struct talk *t, enum gossip_kind kind, const uint8_t *body,
                                    size_t len)
{
    uint8_t frame[GOSSIP_FRAME_MAX];
    size_t frame_len = talk_seal(t, kind, body, len, frame);
    return gossip_input(t->gossip, frame, frame_len, &other_at, t->now_ns);
}

/* What it has to send: the last HELLO's challenge, if there is one. */
static bool talk_drain(struct talk *t, uint8_t ret_challenge[static GOSSIP_CHALLENGE_LEN])
{
    struct gossip_out out;
    bool found = false;
    while (gossip_send(t->gossip, t->now_ns, &out)) {
        struct gossip_head head;
        struct gossip_hello hello;
        uint8_t body[GOSSIP_BODY_MAX];
        size_t len;
        if (seal_open(&t->ring, out.bytes, out.len, &head, body, &len) == SEAL_OK &&
            head.kind == GOSSIP_HELLO && read_gossip_hello(body, len, &hello) && hello.challenge) {
            memcpy(ret_challenge, hello.challenge, GOSSIP_CHALLENGE_LEN);
            found = true;
        }
    }
    return found;
}

/* The other beacon proves its boot. */
static void talk_meet(struct talk *t)
{
    uint8_t body[64], challenge[GOSSIP_CHALLENGE_LEN];
    struct gossip_hello hello = {.padded = true}, echo = {.echo = challenge};
    size_t len = write_gossip_hello(body, sizeof body, &hello);
    if (talk_say(t, GOSSIP_HELLO, body, len) != GOSSIP_CHALLENGED || !talk_drain(t, challenge))
        parts_die("the other beacon was not challenged");
    len = write_gossip_hello(body, sizeof body, &echo);
    if (talk_say(t, GOSSIP_HELLO, body, len) != GOSSIP_TAKEN)
        parts_die("the other beacon has not proven itself");
    gossip_tick(t->gossip, t->now_ns);
    talk_drain(t, challenge);
}

static struct talk *talk_open(void)
{
    struct talk *t = parts_memory(sizeof *t);
    struct gossip_config c = {
        .beacon_id = SELF, .boot = 7, .rows = ROWS, .owner_rows = ROWS, .seed = {1, 2, 3}};
    t->ring = (struct seal_ring){.count = 1, .of = {{.id = 7, .key = {1, 2, 3}}}};
    t->random.seed[0] = 9;
    t->now_ns = UINT64_C(1000000000000);
    t->gossip = gossip_init(parts_memory(gossip_size(&c)), &c, t->now_ns);
    gossip_set_keys(t->gossip, &t->ring);
    gossip_set_state(t->gossip, &(struct beacon_state){.version = "bench"}, t->now_ns);
    talk_meet(t);
    return t;
}

/* A piece of the other beacon's log: nodes from `first` on. */
static void piece_of(struct gossip_delta *d, uint32_t first, unsigned count)
{
    *d = (struct gossip_delta){.owner = OTHER,
                               .boot = OTHER_BOOT,
                               .from = first,
                               .to = first + count,
                               .top = NODES,
                               .row_count = count};
    for (unsigned i = 0; i < count; i++)
        d->row[i] = (struct delta_row){.id = parts_id(first + i), .version = first + i + 1};
}

static unsigned piece_len(uint32_t first)
{
    return NODES - first < PIECE_ROWS ? NODES - first : PIECE_ROWS;
}

/* The other beacon's whole log, frame by frame. */
static void talk_fill(struct talk *t)
{
    static struct gossip_delta d;
    uint8_t body[GOSSIP_BODY_MAX], challenge[GOSSIP_CHALLENGE_LEN];
    struct gossip_route route;
    for (uint32_t first = 0; first < NODES; first += piece_len(first)) {
        piece_of(&d, first, piece_len(first));
        size_t len = write_gossip_delta(body, sizeof body, &d);
        t->now_ns += US * 1000;
        if (len == 0 || talk_say(t, GOSSIP_DELTA, body, len) != GOSSIP_TAKEN)
            parts_die("a piece of a log was not taken");
        talk_drain(t, challenge);
        while (gossip_route(t->gossip, &route))
            continue;
    }
    if (store_owner(gossip_store(t->gossip), OWNER)->rows != NODES)
        parts_die("a node of the other beacon is missing");
}

/* As long as the part wants, from a stranger, with our key's id and a tag that is wrong. */
static void forge(struct talk *t, size_t len, uint8_t key_id, enum gossip_verdict want)
{
    struct gossip_head head = {.key_id = key_id,
                               .kind = GOSSIP_PING,
                               .sender = OTHER,
                               .receiver = SELF,
                               .boot = OTHER_BOOT,
                               .sequence = 1};
    memset(t->frame, 0x5a, sizeof t->frame);
    write_gossip_head(t->frame, &head);
    t->len = len;
    t->want = want;
}

static void forge_full(void *arg, unsigned calls)
{
    (void)calls;
    forge(arg, GOSSIP_FRAME_MAX, 7, GOSSIP_FORGED);
}

static void forge_small(void *arg, unsigned calls)
{
    (void)calls;
    forge(arg, SMALL, 7, GOSSIP_FORGED);
}

static void forge_unknown(void *arg, unsigned calls)
{
    (void)calls;
    forge(arg, GOSSIP_FRAME_MAX, 8, GOSSIP_UNKNOWN_KEY);
}

/* A frame that was taken once; its body matters no more then. */
static void replay_of(struct talk *t, size_t body_len)
{
    static const uint8_t body[GOSSIP_BODY_MAX];
    t->len = talk_seal(t, GOSSIP_PING, body, body_len, t->frame);
    t->want = GOSSIP_REPLAYED;
    if (gossip_input(t->gossip, t->frame, t->len, &other_at, t->now_ns) != GOSSIP_MALFORMED)
        parts_die("a frame with a number of its own was not opened");
}

static void replay_full(void *arg, unsigned calls)
{
    (void)calls;
    replay_of(arg, GOSSIP_BODY_MAX);
}

static void replay_small(void *arg, unsigned calls)
{
    (void)calls;
    replay_of(arg, SMALL_BODY);
}

/* From a stranger's address and at a rate within the budget of bad frames. */
static void run_forged(void *arg, unsigned calls)
{
    struct talk *t = arg;
    unsigned other = 0;
    for (unsigned i = 0; i < calls; i++) {
        t->now_ns += US * 1000;
        other += gossip_input(t->gossip, t->frame, t->len, &stranger_at, t->now_ns) != t->want;
    }
    if (other > 0)
        parts_die("a forged frame had another verdict");
}

/* All at one time: after a long silence of the sender a replay is looked at more closely. */
static void run_replayed(void *arg, unsigned calls)
{
    struct talk *t = arg;
    unsigned other = 0;
    for (unsigned i = 0; i < calls; i++)
        other += gossip_input(t->gossip, t->frame, t->len, &other_at, t->now_ns) != t->want;
    if (other > 0)
        parts_die("a replayed frame had another verdict");
}

static void prepare_pings(void *arg, unsigned calls)
{
    struct talk *t = arg;
    uint8_t body[64];
    for (unsigned i = 0; i < calls; i++) {
        struct gossip_ping ping = {.number = t->sequence << 20, .subject = SELF, .view = ~0ull};
        size_t len = write_gossip_ping(body, sizeof body, GOSSIP_PING, &ping);
        t->ping[i].len = talk_seal(t, GOSSIP_PING, body, len, t->ping[i].bytes);
    }
}

/* Opened, answered, and the answer sealed. */
static void run_pings(void *arg, unsigned calls)
{
    struct talk *t = arg;
    struct gossip_out out;
    unsigned taken = 0, answered = 0;
    for (unsigned i = 0; i < calls; i++) {
        t->now_ns += US * 1000;
        taken += gossip_input(t->gossip, t->ping[i].bytes, t->ping[i].len, &other_at, t->now_ns) ==
                 GOSSIP_TAKEN;
        while (gossip_send(t->gossip, t->now_ns, &out))
            answered++;
    }
    if (taken != calls || answered < calls)
        parts_die("a PING was not answered");
}

static void prepare_routes(void *arg, unsigned calls)
{
    struct talk *t = arg;
    struct gossip_route route;
    while (gossip_route(t->gossip, &route))
        continue;
    for (unsigned i = 0; i < calls; i++)
        gossip_route_again(t->gossip, parts_id(parts_random(NODES)));
}

static void run_routes(void *arg, unsigned calls)
{
    struct talk *t = arg;
    struct gossip_route route;
    unsigned found = 0;
    while (gossip_route(t->gossip, &route))
        found += route.beacon == OWNER;
    if (found != calls)
        parts_die("a node has no way");
}

/* --- seal --- */

struct sealing {
    struct talk *talk;
    size_t body_len;
    size_t len;
    uint8_t body[GOSSIP_BODY_MAX], frame[GOSSIP_FRAME_MAX];
};

static void run_seal(void *arg, unsigned calls)
{
    struct sealing *s = arg;
    struct gossip_head head = {.kind = GOSSIP_DELTA, .sender = OTHER, .receiver = SELF, .boot = 1};
    for (unsigned i = 0; i < calls; i++) {
        head.sequence = i;
        s->len =
            seal_frame(&s->talk->ring, &s->talk->random, &head, s->body, s->body_len, s->frame);
    }
}

static void run_open(void *arg, unsigned calls)
{
    struct sealing *s = arg;
    struct gossip_head head;
    unsigned bad = 0;
    for (unsigned i = 0; i < calls; i++) {
        size_t len;
        bad += seal_open(&s->talk->ring, s->frame, s->len, &head, s->body, &len) != SEAL_OK;
    }
    if (bad > 0)
        parts_die("an own frame does not open");
}

/* --- the store --- */

struct filled {
    void *memory;
    struct store *store;
};

static void prepare_store(void *arg, unsigned calls)
{
    struct filled *f = arg;
    (void)calls;
    memset(f->memory, 0, store_size(ROWS));
    f->store = store_init(f->memory, ROWS, ROWS, key);
    store_owner_begin(f->store, STORE_SELF, SELF, 7);
    store_owner_begin(f->store, OWNER, OTHER, OTHER_BOOT);
    store_owner_rank(f->store, OWNER, STORE_USABLE);
}

static void run_claim(void *arg, unsigned calls)
{
    const struct filled *f = arg;
    for (unsigned i = 0; i < calls; i++)
        if (!store_claim(f->store, parts_id(i), 0, 1000000000))
            parts_die("an own node found no room");
}

static void run_apply(void *arg, unsigned calls)
{
    static struct gossip_delta d;
    const struct filled *f = arg;
    for (uint32_t first = 0; first < calls; first += d.row_count) {
        piece_of(&d, first, piece_len(first));
        if (store_apply(f->store, OWNER, &d, 1000000000) != STORE_APPLIED)
            parts_die("a piece of a log was not applied");
    }
}

static unsigned run_best(const struct store *s, unsigned calls, uint32_t first)
{
    unsigned found = 0;
    for (unsigned i = 0; i < calls; i++) /* the next id hangs on this answer: no two at once */
        found +=
            store_best(s, parts_id(first + parts_random(NODES - 1) + (found & 1)), true).owner ==
            OWNER;
    return found;
}

static void run_best_hit(void *arg, unsigned calls)
{
    const struct filled *f = arg;
    if (run_best(f->store, calls, 0) != calls)
        parts_die("a row was not found");
}

static void run_best_miss(void *arg, unsigned calls)
{
    const struct filled *f = arg;
    if (run_best(f->store, calls, 2 * NODES) != 0)
        parts_die("a row was found that is none");
}

/* --- bytes --- */

static size_t table_size(uint32_t nodes, uint32_t routes, bool mesh)
{
    struct config c;
    config_init(&c);
    c.max_nodes = nodes;
    c.max_routes = routes;
    snprintf(c.peers, sizeof c.peers, "%s", mesh ? "192.0.2.1" : "");
    return server_size(&c, 1);
}

/* Of a million more, and one of them. */
static double each(size_t more, size_t less)
{
    return (double)(more - less) / NODES;
}

static void print_bytes(void)
{
    struct gossip_config c = {.rows = NODES, .owner_rows = NODES};
    double row = each(store_size(2 * NODES), store_size(NODES));
    double node = each(table_size(2 * NODES, NODES, true), table_size(NODES, NODES, true));
    double route = each(table_size(NODES, 2 * NODES, true), table_size(NODES, NODES, true));
    printf("{\"store, a row\": %.1f, \"table, a node\": %.1f, "
           "\"table, a route to another beacon's node\": %.1f, "
           "\"a route in all, table and store\": %.1f, \"a node in all, with 1.25 rows\": %.1f, "
           "\"gossip, whatever its rows, MB\": %.2f, \"server, a shard's mesh, MB\": %.2f}",
           row, node, route, route + row, node + 1.25 * row,
           (double)(gossip_size(&c) - store_size(NODES)) / (1 << 20),
           ((double)table_size(NODES, NODES, true) - NODES * route -
            (double)table_size(NODES, NODES, false)) /
               (1 << 20));
}

int main(void)
{
    if (sodium_init() < 0)
        parts_die("libsodium does not start");
    struct talk *talk = talk_open();
    struct sealing full = {.talk = talk, .body_len = GOSSIP_BODY_MAX};
    struct sealing small = {.talk = talk, .body_len = SMALL_BODY};
    struct filled filled = {.memory = parts_memory(store_size(ROWS))};
    talk_fill(talk);
    const struct part parts[] = {
        {"forged frame, 1232 B", run_forged, talk, 1 << 16, forge_full},
        {"forged frame, 96 B", run_forged, talk, 1 << 16, forge_small},
        {"unknown key", run_forged, talk, 1 << 18, forge_unknown},
        {"replayed frame, 1232 B", run_replayed, talk, 1 << 16, replay_full},
        {"replayed frame, 96 B", run_replayed, talk, 1 << 16, replay_small},
        {"PING taken, and its ACK", run_pings, talk, FRAMES, prepare_pings},
        {"seal_frame, 1232 B", run_seal, &full, 1 << 16, NULL},
        {"seal_open, 1232 B", run_open, &full, 1 << 16, NULL},
        {"seal_frame, 96 B", run_seal, &small, 1 << 16, NULL},
        {"seal_open, 96 B", run_open, &small, 1 << 16, NULL},
        {"gossip_route, 1M rows", run_routes, talk, ROUTES, prepare_routes},
        {"store_claim, a new row of 1M", run_claim, &filled, NODES, prepare_store},
        {"store_apply, a new row of 1M", run_apply, &filled, NODES, prepare_store},
        {"store_best hit, 1M rows", run_best_hit, &filled, 1 << 20, NULL},
        {"store_best miss, 1M rows", run_best_miss, &filled, 1 << 20, NULL},
    };
    printf("{\"ns\": ");
    parts_print(parts, sizeof parts / sizeof *parts);
    printf(", \"bytes\": ");
    print_bytes();
    printf("}\n");
    return 0;
}
