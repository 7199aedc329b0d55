#include <sodium/randombytes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "wss/member.h"

#define HERE_RETRY_NS NS_PER_S

/* --- frames out --- */

void member_say(struct member *p, const struct conn_turn *turn, enum websocket_opcode opcode,
                const void *bytes, size_t len)
{
    uint8_t head[WEBSOCKET_HEAD_MAX];
    conn_say(p->conn, turn, head, websocket_head(head, opcode, len), bytes, len);
}

/* Says why and ends it; always false, for "return". */
static bool member_close(struct member *p, const struct conn_turn *turn, uint16_t status,
                         const char *reason)
{
    uint8_t payload[125];
    member_say(p, turn, WEBSOCKET_CLOSE, payload, websocket_close(payload, status, reason));
    p->state = MEMBER_CLOSING;
    return false;
}

/* Tells the owner of the id that the session lives, on time and not only when it speaks: a row that
 * looks silent may be taken over. A full mailbox is tried again soon. */
static void member_here(struct member *p, uint64_t now_ns)
{
    if (now_ns < p->here_ns)
        return;
    bool told = session_here(p->bridge->config.server->edge, &p->session);
    p->here_ns = now_ns + (told ? SESSION_HERE_SECONDS * NS_PER_S : HERE_RETRY_NS);
    if (p->session.class_ == ROUTE_SIGNED) /* a pin in use does not age */
        keys_pin(p->bridge->keys, p->session.node_id, p->session.key, now_ns);
}

/* --- authentication --- */

static bool auth_failed(struct member *p, const struct conn_turn *turn, _Atomic uint64_t *why)
{
    char ip[ENDPOINT_TEXT_MAX];
    count_add(why, 1);
    events_add(p->bridge->config.events, true, "auth", "refused node %u from %s",
               p->proof->reply.node_id, endpoint_format(&p->session.from, ip));
    return member_close(p, turn, WEBSOCKET_POLICY, "auth failed");
}

/* One session an id: the newer one is where the node is now. */
static void replace(struct bridge *b, uint32_t node_id, const struct conn_turn *turn)
{
    struct member *old = bridge_member(b, node_id);
    if (!old)
        return;
    bridge_map_remove(b, old);
    old->session.node_id = 0; /* its end takes nothing of the new one along */
    count_add(&b->stats.replaced, 1);
    member_close(old, turn, WEBSOCKET_NORMAL, "replaced");
    conn_end(old->conn, turn);
}

static void deadline_set(const struct member *p)
{
    uint64_t quiet_s = BRIDGE_PING_SECONDS + (p->pinged ? BRIDGE_SILENCE_SECONDS : 0);
    uint64_t at_ns = p->heard_ns + quiet_s * NS_PER_S;
    if (p->here_ns < at_ns)
        at_ns = p->here_ns;
    if (p->leave_ns != 0 && p->leave_ns < at_ns)
        at_ns = p->leave_ns;
    conn_set_deadline(p->conn, at_ns);
}

static bool auth_passed(struct member *p, const struct conn_turn *turn,
                        const struct keys_answer *answer)
{
    static const char ok[] = "{\"type\":\"auth_ok\"}";
    struct bridge *b = p->bridge;
    char ip[ENDPOINT_TEXT_MAX];

    replace(b, answer->node_id, turn);
    p->session.node_id = answer->node_id;
    p->session.class_ = answer->class_;
    memcpy(p->session.key, answer->key, sizeof p->session.key);
    p->by_file = keys_file_key(b->keys, answer->node_id) != NULL; /* it goes before all others */
    p->state = MEMBER_OPEN;
    websocket_limit(p->websocket, WEBSOCKET_MESSAGE_MAX);
    free(p->proof);
    p->proof = NULL;
    bridge_waiting_remove(b, p);
    count_add(&b->stats.auth_ok, 1);
    bridge_map_add(b, p);
    member_say(p, turn, WEBSOCKET_TEXT, ok, sizeof ok - 1);
    member_here(p, turn->now_ns);
    if (b->drains) /* the others were told when it began */
        p->leave_ns = turn->now_ns;
    events_add(b->config.events, true, "session", "node %u from %s", answer->node_id,
               endpoint_format(&p->session.from, ip));
    deadline_set(p);
    return true;
}

/* A key was found, or not: the end of it unless the registry is asked. */
static bool auth_decide(struct member *p, const struct conn_turn *turn, struct keys_answer answer)
{
    struct bridge *b = p->bridge;
    const struct proof *proof = p->proof;
    switch (answer.verdict) {
    case KEYS_WAIT:
        p->state = MEMBER_KEY_ASKED;
        return true;
    case KEYS_FAILED:
        return auth_failed(p, turn, &b->stats.auth_unavailable);
    case KEYS_UNKNOWN:
        return auth_failed(p, turn, &b->stats.auth_failures);
    case KEYS_FIRST_USE:
        if (!proof->reply.has_key)
            return auth_failed(p, turn, &b->stats.auth_failures);
        memcpy(answer.key, proof->reply.key, sizeof answer.key);
        answer.class_ = ROUTE_SIGNED;
        break;
    case KEYS_FOUND:
        break;
    }
    if (!auth_verify(&proof->challenge, &proof->reply, answer.key))
        return auth_failed(p, turn, &b->stats.auth_failures);
    if (answer.class_ == ROUTE_SIGNED &&
        !keys_pin(b->keys, answer.node_id, answer.key, turn->now_ns))
        return auth_failed(p, turn, &b->stats.auth_unavailable);
    return auth_passed(p, turn, &answer);
}

static bool auth_reply(struct member *p, const struct conn_turn *turn,
                       const struct websocket_message *m)
{
    struct bridge *b = p->bridge;
    if (p->state != MEMBER_CHALLENGED || m->opcode != WEBSOCKET_TEXT || m->len > AUTH_REPLY_MAX ||
        !auth_read_reply((const char *)m->bytes, m->len, &p->proof->reply))
        return auth_failed(p, turn, &b->stats.auth_failures);
    return auth_decide(p, turn, keys_find(b->keys, p->proof->reply.node_id, turn->now_ns));
}

/* --- frames in --- */

static void decide(struct member *p, const struct conn_turn *turn,
                   const struct websocket_message *m)
{
    struct bridge *b = p->bridge;
    struct lane *l = b->config.server->edge;
    struct moment now = {.ns = turn->now_ns, .unix_s = (int64_t)time(NULL)};
    struct datagram d = {.bytes = m->bytes, .len = (uint32_t)m->len, .from = p->session.from};
    if (b->out.count + OUTBOX_ROOM > OUTBOX_MAX)
        bridge_flush(b, turn);
    server_begin(l);
    session_input(l, &p->session, &d, &now, &b->out);
    p->frames_in++;
    count_add(&b->stats.frames_in, 1);
    count_add(&b->stats.frames_in_bytes, m->len);
    if (!m->in_place)
        bridge_flush(b, turn); /* the message is the reader's and ends with the next call */
}

static bool member_message(struct member *p, const struct conn_turn *turn,
                           const struct websocket_message *m)
{
    switch (m->opcode) {
    case WEBSOCKET_PING:
        member_say(p, turn, WEBSOCKET_PONG, m->bytes, m->len);
        return true;
    case WEBSOCKET_PONG:
        return true;
    case WEBSOCKET_CLOSE:
        return member_close(p, turn, m->close_status ? m->close_status : WEBSOCKET_NORMAL, "");
    case WEBSOCKET_TEXT:
    case WEBSOCKET_BINARY:
        break;
    }
    if (p->state != MEMBER_OPEN)
        return auth_reply(p, turn, m);
    if (m->opcode == WEBSOCKET_BINARY && m->len > 0) /* text and empty ones mean nothing */
        decide(p, turn, m);
    return true;
}

static bool member_opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct member *p = state;
    char text[AUTH_CHALLENGE_MAX];
    p->conn = c;
    size_t len = auth_write_challenge(&p->proof->challenge, text);
    member_say(p, turn, WEBSOCKET_TEXT, text, len);
    conn_set_deadline(c, turn->now_ns + BRIDGE_AUTH_SECONDS * NS_PER_S);
    return true;
}

static bool member_input(struct conn *c, void *state, uint8_t *bytes, size_t len,
                         const struct conn_turn *turn)
{
    struct member *p = state;
    struct bridge *b = p->bridge;
    struct websocket_message m;
    uint16_t status = WEBSOCKET_PROTOCOL_ERROR;
    bool goes_on = true;
    (void)c;
    while (goes_on && p->state != MEMBER_CLOSING) {
        enum websocket_read got =
            websocket_read(p->websocket, &bytes, &len, turn->now_ns, &m, &status);
        if (got == WEBSOCKET_MORE)
            break;
        if (got == WEBSOCKET_BAD) {
            count_add(&b->stats.closed_bad, 1);
            goes_on = member_close(p, turn, status, "");
        } else {
            goes_on = member_message(p, turn, &m);
        }
    }
    if (goes_on && p->state == MEMBER_OPEN) {
        p->heard_ns = turn->now_ns;
        p->pinged = false;
        member_here(p, turn->now_ns);
        deadline_set(p);
    }
    bridge_flush(b, turn); /* relays lie in `bytes`, which is the edge's again after this */
    return goes_on && p->state != MEMBER_CLOSING;
}

static bool member_expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    struct member *p = state;
    struct bridge *b = p->bridge;
    uint64_t quiet_ns = turn->now_ns - p->heard_ns;
    (void)c;
    if (p->state != MEMBER_OPEN)
        return p->state == MEMBER_CLOSING ? false : auth_failed(p, turn, &b->stats.auth_timeouts);
    if (p->leave_ns != 0 && turn->now_ns >= p->leave_ns)
        return member_close(p, turn, WEBSOCKET_GOING_AWAY, b->farewell);
    if (quiet_ns >= (BRIDGE_PING_SECONDS + BRIDGE_SILENCE_SECONDS) * NS_PER_S) {
        count_add(&b->stats.idle, 1);
        return member_close(p, turn, WEBSOCKET_GOING_AWAY, "silent");
    }
    member_here(p, turn->now_ns);
    if (quiet_ns >= BRIDGE_PING_SECONDS * NS_PER_S && !p->pinged) {
        member_say(p, turn, WEBSOCKET_PING, NULL, 0);
        p->pinged = true;
    }
    bridge_flush(b, turn);
    deadline_set(p);
    return true;
}

static void member_closed(void *state)
{
    struct member *p = state;
    struct bridge *b = p->bridge;
    if (p->session.node_id != 0) {
        bridge_map_remove(b, p);
        /* Should the mailbox be full: the next message for it tells the bridge, or the row ages. */
        session_gone(b->config.server->edge, &p->session);
        bridge_wake(b);
    }
    if (p->proof) {
        bridge_waiting_remove(b, p);
        free(p->proof);
    }
    websocket_free(p->websocket);
    bridge_place_give(b, p->place);
    free(p);
}

const struct edge_protocol member_protocol = {
    .opened = member_opened,
    .input = member_input,
    .expired = member_expired,
    .closed = member_closed,
};

struct member *member_new(struct bridge *b, const struct edge_request *q, unsigned version)
{
    struct member *p = calloc(1, sizeof *p);
    if (p)
        p->proof = calloc(1, sizeof *p->proof);
    if (p && p->proof)
        p->websocket = websocket_new(&b->parts);
    if (!p || !p->websocket) {
        free(p ? p->proof : NULL);
        free(p);
        return NULL;
    }
    struct auth_challenge *c = &p->proof->challenge;
    c->version = p->auth_version = version;
    c->unix_s = (int64_t)time(NULL);
    c->beacon_id = b->config.beacon_id;
    c->has_exporter = conn_exporter(q->conn, c->exporter);
    p->tls = q->conn->stream.ssl != NULL;
    bridge_host(q->http, c->host);
    randombytes_buf(c->nonce, sizeof c->nonce);
    websocket_limit(p->websocket, AUTH_REPLY_MAX);
    p->bridge = b;
    p->session.from = q->from;
    p->opened_ns = p->heard_ns = edge_clock_ns();
    bridge_place_take(b, p);
    bridge_waiting_add(b, p);
    return p;
}

void member_key_arrived(struct member *p, const struct conn_turn *turn,
                        const struct keys_answer *answer)
{
    if (p->state == MEMBER_KEY_ASKED && p->proof->reply.node_id == answer->node_id &&
        !auth_decide(p, turn, *answer))
        conn_end(p->conn, turn);
}

void member_keys_changed(struct member *p, const struct conn_turn *turn)
{
    if (p->state != MEMBER_OPEN)
        return;
    const uint8_t *key = keys_file_key(p->bridge->keys, p->session.node_id);
    bool good = key ? memcmp(key, p->session.key, MSG_KEY_LEN) == 0 : !p->by_file;
    if (good) {
        p->by_file = key != NULL;
        return;
    }
    count_add(&p->bridge->stats.withdrawn, 1);
    member_close(p, turn, WEBSOCKET_POLICY, "key withdrawn");
    conn_end(p->conn, turn);
}

void member_end(struct member *p, uint64_t at_ns)
{
    if (p->state != MEMBER_OPEN)
        return;
    p->leave_ns = at_ns;
    deadline_set(p);
}
