#include <assert.h>
#include <sodium.h>
#include <string.h>
#include "gossip/gossip_state.h"

/* --- frames that come --- */

uint64_t gossip_view(const struct gossip *g)
{
    uint64_t view = 0;
    unsigned count = members_count(g->members);
    for (unsigned i = 0; i < count; i++) {
        const struct member_fact *f = &member_at(g->members, i)->fact;
        const struct store_owner *o = store_owner(g->store, i);
        if (f->id == 0 || f->state > MEMBER_SUSPECT)
            continue;
        /* Odd constants mix each word into all bits; sums do not depend on the order. */
        uint64_t h = (f->id + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
        h = (h ^ f->boot ^ h >> 31) * UINT64_C(0x94d049bb133111eb);
        h = (h ^ (o->boot == f->boot ? o->version : 0) ^ h >> 29) * UINT64_C(0xd6e8feb86659fd93);
        view += h ^ h >> 32;
    }
    return view;
}

void gossip_reboot(struct gossip *g, uint64_t boot)
{
    if (g->now_ns - g->reboots_ns > REBOOTS_NS) {
        g->reboots = 0;
        g->reboots_ns = g->now_ns;
    }
    if (++g->reboots > REBOOTS_MAX) {
        g->muted_until_ns = g->now_ns + MUTE_NS; /* a duel of two with one id: we step back */
        return;
    }
    /* Who told us may be behind: the same boot must not be taken twice, with two logs. */
    uint32_t apart;
    seal_random(&g->random, &apart, sizeof apart);
    apart >>= 12;
    boot = boot < UINT64_MAX - apart ? boot + apart : UINT64_MAX;
    g->boot = boot;
    g->sequence = 0;
    store_reboot(g->store, boot);
    member_reboot(g->members, boot);
}

/* The answer to a view that is not ours: at first nothing, for news may be on their way. */
static void view_compare(struct gossip *g, unsigned member, uint64_t view)
{
    struct peer_session *s = &g->session[member];
    if (view == gossip_view(g)) {
        s->differs_ns = 0;
        return;
    }
    if (s->differs_ns == 0)
        s->differs_ns = g->now_ns;
    if (g->now_ns - s->differs_ns < DIFFERS_NS)
        return;
    s->differs_ns = g->now_ns;
    members_put(g, member);
    sync_differs(g->sync, member, g->now_ns);
}

static void ping_answer(struct gossip *g, unsigned to, uint64_t number, uint32_t subject)
{
    const struct member *m = member_at(g->members, to);
    uint8_t body[64];
    struct gossip_ping ack = {.number = number,
                              .subject = subject,
                              .view = gossip_view(g),
                              .lag_ms = member_lag_ms(g->members)};
    size_t len = write_gossip_ping(body, sizeof body, GOSSIP_ACK, &ack);
    out_put(g, (int)to, &m->fact.at, m->fact.id, GOSSIP_ACK, body, len);
}

static bool ping_input(struct gossip *g, unsigned member, enum gossip_kind kind,
                       const uint8_t *body, size_t len)
{
    struct gossip_ping p;
    if (!read_gossip_ping(body, len, kind, &p))
        return false;
    if (kind == GOSSIP_PING) {
        ping_answer(g, member, p.number, g->config.beacon_id);
    } else if (kind == GOSSIP_PROBE) {
        int subject = member_find(g->members, p.subject);
        struct member_ping ping;
        if (subject > 0 &&
            member_help(g->members, member, p.number, (unsigned)subject, g->now_ns, &ping))
            gossip_ping(g, &ping);
        return true; /* views are compared by PING and ACK */
    } else {
        int asker;
        uint64_t number;
        bool directly = member_at(g->members, member)->fact.id == p.subject;
        if (directly && member_helped(g->members, p.number, &asker, &number))
            ping_answer(g, (unsigned)asker, number, p.subject);
        else
            member_acked(g->members, p.number, p.subject, directly, g->now_ns);
        if (!directly)
            return true;
    }
    view_compare(g, member, p.view);
    return true;
}

static bool members_input(struct gossip *g, const uint8_t *body, size_t len)
{
    struct member_fact facts[GOSSIP_MEMBERS_MAX];
    unsigned count;
    uint64_t reboot = 0;
    if (!read_gossip_members(body, len, facts, &count))
        return false;
    for (unsigned i = 0; i < count; i++) {
        uint64_t later = 0;
        /* Of one that is gone and was never known there is nothing to learn. */
        if (facts[i].id == 0 ||
            (facts[i].state >= MEMBER_DEAD && member_find(g->members, facts[i].id) < 0))
            continue;
        if (ip_scope(facts[i].at.ip) == SCOPE_NEVER)
            facts[i].at.port = 0; /* a group or nobody: no beacon can be there */
        member_told(g->members, &facts[i], g->now_ns, &later);
        reboot = later ? later : reboot;
        if (later && facts[i].at.port != 0)
            g->duplicate_at = facts[i].at; /* should it turn out to be another beacon */
    }
    if (reboot)
        gossip_reboot(g, reboot);
    return true;
}

static bool body_input(struct gossip *g, unsigned member, enum gossip_kind kind,
                       const uint8_t *body, size_t len)
{
    switch (kind) {
    case GOSSIP_PING:
    case GOSSIP_ACK:
    case GOSSIP_PROBE:
        return ping_input(g, member, kind, body, len);
    case GOSSIP_MEMBERS:
        return members_input(g, body, len);
    case GOSSIP_DIGEST:
        return sync_digest(g->sync, member, body, len, g->now_ns);
    case GOSSIP_DELTA:
        if (g->route_tail - g->route_head > ROUTE_QUEUE / 2)
            return true; /* it comes again when the lanes have taken what there is */
        return sync_delta(g->sync, member, body, len, g->now_ns);
    case GOSSIP_HELLO: /* its boot is proven: only its challenge and echo were of interest */
        return true;
    case GOSSIP_KIND_COUNT:
        break;
    }
    return false;
}

/* A clock that went back, or another beacon had its id for a while: there, which is not where the
 * later boot was, it is told of that, to take one later still. The session of the later one is not
 * touched. */
static void behind_put(struct gossip *g, unsigned member, const struct endpoint *to)
{
    const struct member_fact *f = &member_at(g->members, member)->fact;
    struct peer_session *s = &g->session[member];
    uint8_t body[GOSSIP_BODY_MAX];
    unsigned written;
    if (s->behind_ns && g->now_ns - s->behind_ns < HELLO_EACH_MS * UINT64_C(1000000))
        return;
    s->behind_ns = g->now_ns;
    size_t len = write_gossip_members(body, sizeof body, f, 1, &written);
    out_put(g, (int)member, to, f->id, GOSSIP_MEMBERS, body, len);
}

/* The sender has shown that it is alive now: its frames count from here on. */
static int session_begin(struct gossip *g, const struct gossip_head *head,
                         const struct endpoint *from)
{
    int member;
    member_heard(g->members, head->sender, head->boot, from, g->now_ns, &member);
    if (member < 0)
        return -1; /* no room for more members */
    struct peer_session *s = &g->session[member];
    if (head->boot < member_at(g->members, (unsigned)member)->fact.boot) {
        behind_put(g, (unsigned)member, from);
        return member;
    }
    s->boot = head->boot;
    s->anew = false;
    s->window = (struct seal_window){.newest = 0};
    s->differs_ns = 0;
    seal_window_take(&s->window, head->sequence);
    sync_reset(g->sync, (unsigned)member);
    members_put(g, (unsigned)member);
    g->links_changed = true;
    for (unsigned i = 0; i < g->seed_count; i++)
        if (endpoint_equal(&g->seed[i].seed.at, from) && g->seed[i].learned_pilot) {
            g->seed[i].learned_pilot = false;
            pilots_choose(g);
        }
    return member;
}

/* At most so many challenges to each member, and so many to all that are none yet. */
static bool may_challenge(struct gossip *g, int member)
{
    if (member >= 0) {
        struct peer_session *s = &g->session[member];
        if (s->hello_ns && g->now_ns - s->hello_ns < HELLO_EACH_MS * UINT64_C(1000000))
            return false;
        s->hello_ns = g->now_ns;
        return true;
    }
    /* Strangers share a bucket: at a start all others speak at once. */
    uint64_t each_ns = STRANGER_HELLO_EACH_MS * UINT64_C(1000000);
    if (g->strangers_ns > g->now_ns + (STRANGER_HELLO_BURST - 1) * each_ns)
        return false;
    g->strangers_ns = (g->strangers_ns > g->now_ns ? g->strangers_ns : g->now_ns) + each_ns;
    return true;
}

/* How long an answer may be: where a member is known to be, as long as it must. */
static size_t hello_room(const struct gossip *g, int member, size_t body_len,
                         const struct endpoint *from)
{
    bool there =
        member > 0 && endpoint_equal(&member_at(g->members, (unsigned)member)->fact.at, from);
    return there ? GOSSIP_FRAME_MAX : GOSSIP_SEAL_LEN + body_len;
}

/* A frame of a boot that has not proven itself. */
static enum gossip_verdict stranger_input(struct gossip *g, const struct gossip_head *head,
                                          int member, const uint8_t *body, size_t len,
                                          const struct endpoint *from)
{
    struct gossip_hello hello = {.echo = NULL};
    bool is_us = head->sender == g->config.beacon_id;
    if (head->kind == GOSSIP_HELLO && !read_gossip_hello(body, len, &hello))
        return GOSSIP_MALFORMED;
    size_t room = hello_room(g, member, len, from);
    bool proven = echo_holds(g, head, hello.echo, from);
    if (proven && is_us) {
        g->duplicate_at = *from;
        if (head->boot < g->boot) /* who came later steps back */
            g->muted_until_ns = g->now_ns + MUTE_NS;
        else if (hello.challenge) /* so that it hears of us, and does */
            hello_put(g, from, head->sender, 0, hello.challenge, room);
        return GOSSIP_OWN_ID;
    }
    if (proven) {
        member = session_begin(g, head, from);
        if (member < 0)
            return GOSSIP_LIMITED;
        if (hello.challenge)
            hello_put(g, from, head->sender, 0, hello.challenge, room);
        return GOSSIP_TAKEN;
    }
    if (room < HELLO_LEN_MIN || !may_challenge(g, member))
        return GOSSIP_LIMITED;
    hello_put(g, from, head->sender, head->boot, hello.challenge, room);
    return is_us ? GOSSIP_OWN_ID : GOSSIP_CHALLENGED;
}

/* A sequence number that is not new. From who is silent otherwise it may be that the window is
 * wrong, as after a forged frame with the last number there is: only a new proof ends that. */
static enum gossip_verdict replayed(struct gossip *g, unsigned member)
{
    const struct member *m = member_at(g->members, member);
    g->session[member].anew = g->now_ns - m->heard_ns > MEMBER_SUSPECT_NS;
    return GOSSIP_REPLAYED;
}

/* It lives; but that it is where the frame seems to come from, anybody could make us believe who
 * passes frames on. So it is asked there, and has moved when it echoes that. */
static void member_seen(struct gossip *g, const struct gossip_head *head, unsigned member,
                        const struct gossip_hello *hello, size_t len, const struct endpoint *from)
{
    static const struct endpoint unknown;
    size_t room = hello_room(g, (int)member, len, from);
    bool there = room == GOSSIP_FRAME_MAX;
    int index;
    there = there || echo_holds(g, head, hello->echo, from);
    member_heard(g->members, head->sender, head->boot, there ? from : &unknown, g->now_ns, &index);
    uint64_t boot = there ? 0 : head->boot;
    bool asks = boot != 0 || hello->challenge;
    if (asks && room >= HELLO_LEN_MIN && may_challenge(g, (int)member))
        hello_put(g, from, head->sender, boot, hello->challenge, room);
}

/* A frame of a member whose boot is proven. */
static enum gossip_verdict member_input(struct gossip *g, const struct gossip_head *head,
                                        unsigned member, const uint8_t *body, size_t len,
                                        const struct endpoint *from)
{
    struct peer_session *s = &g->session[member];
    uint64_t second = g->now_ns / GOSSIP_SECOND_NS;
    struct gossip_hello hello = {.echo = NULL};
    if (!seal_window_take(&s->window, head->sequence))
        return replayed(g, member);
    if (s->second != second) {
        s->second = second;
        s->in_second = 0;
    }
    if (++s->in_second > FRAMES_PER_S)
        return GOSSIP_LIMITED;
    s->frames_in++;
    s->bytes_in += len + GOSSIP_SEAL_LEN;
    if (head->kind == GOSSIP_HELLO && !read_gossip_hello(body, len, &hello))
        return GOSSIP_MALFORMED;
    member_seen(g, head, member, &hello, len, from);
    if (body_input(g, member, (enum gossip_kind)head->kind, body, len))
        return GOSSIP_TAKEN;
    s->error = "sent a body of the wrong shape: another version?";
    return GOSSIP_MALFORMED;
}

/* Our own HELLO, back from a seed that is ourselves: from where it was sent to, or somebody would
 * have us forget all seeds. */
static void seed_is_us(struct gossip *g, const struct gossip_head *head, const uint8_t *body,
                       size_t len, const struct endpoint *from)
{
    struct gossip_hello hello;
    uint8_t mark[GOSSIP_CHALLENGE_LEN];
    knock_mark(g, from, mark);
    if (head->kind != GOSSIP_HELLO || !read_gossip_hello(body, len, &hello) || !hello.echo ||
        sodium_memcmp(hello.echo, mark, sizeof mark) != 0)
        return;
    for (unsigned i = 0; i < g->seed_count; i++)
        if (endpoint_equal(&g->seed[i].seed.at, from))
            g->seed[i].is_us = true;
    pilots_choose(g);
}

static bool bad_budget(struct gossip *g)
{
    uint64_t second = g->now_ns / GOSSIP_SECOND_NS;
    if (g->bad_second != second) {
        g->bad_second = second;
        g->bad_in_second = 0;
    }
    return g->bad_in_second < BAD_PER_S;
}

static enum gossip_verdict frame_input(struct gossip *g, const uint8_t *bytes, size_t len,
                                       const struct endpoint *from)
{
    static const enum gossip_verdict refused[] = {[SEAL_MALFORMED] = GOSSIP_MALFORMED,
                                                  [SEAL_UNKNOWN_KEY] = GOSSIP_UNKNOWN_KEY,
                                                  [SEAL_FORGED] = GOSSIP_FORGED};
    struct gossip_head head;
    uint8_t body[GOSSIP_BODY_MAX];
    size_t body_len;
    if (!read_gossip_head(bytes, len, &head) || head.boot == 0)
        return GOSSIP_MALFORMED;
    int member = member_find(g->members, head.sender);
    bool known_source =
        member > 0 && endpoint_equal(&member_at(g->members, (unsigned)member)->fact.at, from);
    if (!known_source && !bad_budget(g))
        return GOSSIP_LIMITED;
    if (head.receiver != 0 && head.receiver != g->config.beacon_id)
        return GOSSIP_NOT_OURS;
    if (!g->has_keys)
        return GOSSIP_UNKNOWN_KEY;
    enum seal_opened opened = seal_open(&g->ring, bytes, len, &head, body, &body_len);
    if (opened != SEAL_OK) {
        g->bad_in_second++;
        return refused[opened];
    }
    if (head.sender == g->config.beacon_id && head.boot == g->boot) {
        seed_is_us(g, &head, body, body_len, from);
        return GOSSIP_NOT_OURS;
    }
    if (member > 0 && g->session[member].boot == head.boot && !g->session[member].anew)
        return member_input(g, &head, (unsigned)member, body, body_len, from);
    return stranger_input(g, &head, member > 0 ? member : -1, body, body_len, from);
}

/* An original beacon, or one of ours that has no keys: named without a mark, but it speaks 0x07. */
static void pilot_learn(struct gossip *g, const struct endpoint *from)
{
    for (unsigned i = 0; i < g->seed_count; i++) {
        struct seed_state *s = &g->seed[i];
        if (s->seed.is_pilot || s->learned_pilot || s->is_us ||
            !endpoint_same_ip(&s->seed.at, from))
            continue;
        bool seals = false;
        for (unsigned m = 1; m < members_count(g->members) && !seals; m++)
            seals = g->session[m].boot &&
                    endpoint_equal(&member_at(g->members, m)->fact.at, &s->seed.at);
        if (seals)
            continue;
        s->learned_pilot = true;
        pilots_choose(g);
    }
}

static enum gossip_verdict sync_input(struct gossip *g, const uint8_t *bytes, size_t len,
                                      const struct endpoint *from)
{
    static const enum gossip_verdict verdict[] = {[PILOT_TAKEN] = SYNC_TAKEN,
                                                  [PILOT_HELD] = SYNC_HELD,
                                                  [PILOT_STRANGER] = SYNC_STRANGER,
                                                  [PILOT_SHORT] = SYNC_SHORT,
                                                  [PILOT_LIMITED] = SYNC_LIMITED};
    if (g->route_tail - g->route_head > ROUTE_QUEUE / 2)
        return SYNC_LIMITED; /* as a delta: the next one comes when the lanes have taken these */
    if (g->has_keys)
        pilot_learn(g, from);
    return verdict[pilot_sync(g->pilot, bytes, len, from, g->now_ns)];
}

enum gossip_verdict gossip_input(struct gossip *g, const uint8_t *bytes, size_t len,
                                 const struct endpoint *from, uint64_t now_ns)
{
    assert(len > 0);
    g->now_ns = now_ns;
    enum gossip_verdict v = bytes[0] == GOSSIP_TYPE ? frame_input(g, bytes, len, from)
                                                    : sync_input(g, bytes, len, from);
    g->frames_in++;
    g->bytes_in += len;
    g->verdict[v]++;
    return v;
}
