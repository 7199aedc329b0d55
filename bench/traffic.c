#include "bench/traffic.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bench/meter.h"
#include "proto/msg.h"

enum {
    STAMP_LEN = 24, /* run (32), flow (32), sequence (64), time (64) */
    FILLER_SAMPLE = 64,
    SAMPLES_MAX = 1 << 20,
    GIVE_UP_NS = 300000000,
    SETTLE_NS = 5000000,
    TURN_NS = 1000000,
    REGISTER_TRIES = 20,
    STUFF_NS = 50000,
};

static uint8_t filler(size_t i)
{
    return (uint8_t)(i * 31 + 7);
}

/* --- flows --- */

static unsigned dest_index(const struct traffic *t, unsigned flow)
{
    bool halves = !t->run.from_udp && !t->run.to_udp;
    return flow + (halves ? t->flows : 0);
}

static uint32_t sender_id(const struct traffic *t, unsigned flow)
{
    return t->run.from_udp ? (uint32_t)TRAFFIC_UDP_SENDER : SWARM_FIRST_ID + flow;
}

static uint32_t dest_id(const struct traffic *t, unsigned flow)
{
    return (t->run.to_udp ? (uint32_t)TRAFFIC_UDP_IDS : SWARM_FIRST_ID) + dest_index(t, flow);
}

static bool is_small(const struct traffic *t, unsigned session)
{
    unsigned every = t->swarm->small_every;
    return every > 0 && session % every == 0;
}

/* Flows to sessions that may be stuck are not in the tally. */
static bool is_tallied(const struct traffic *t, unsigned flow)
{
    return t->run.to_udp || !t->run.skip_small || !is_small(t, dest_index(t, flow));
}

/* --- sending --- */

static void write_relay_of(struct traffic *t, unsigned flow, uint8_t *at)
{
    struct writer w = writer_of(at, t->run.len);
    write_u8(&w, MSG_RELAY);
    write_u32(&w, sender_id(t, flow));
    write_u32(&w, dest_id(t, flow));
    write_u32(&w, t->number);
    write_u32(&w, flow);
    write_u64(&w, ++t->seq);
    write_u64(&w, meter_now_ns());
    t->tally.sent += is_tallied(t, flow);
}

static void send_by_udp(struct traffic *t, unsigned flow, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        write_relay_of(t, flow, udp_at(&t->send, t->run.len, i));
    udp_send(t->udp_out, &t->send, 1);
}

static void send_by_session(struct traffic *t, unsigned flow, unsigned count)
{
    struct wsclient *c = &t->swarm->client[flow];
    if (c->state != WSCLIENT_OPEN)
        return; /* its end is counted by the swarm */
    for (unsigned i = 0; i < count; i++) {
        write_relay_of(t, flow, t->send.bytes);
        wsclient_put(c, t->send.bytes, t->run.len);
    }
    wsclient_flush(c);
    swarm_changed(t->swarm, c);
}

static void send_flow(struct traffic *t, unsigned flow, unsigned count)
{
    if (t->run.from_udp)
        send_by_udp(t, flow, count);
    else
        send_by_session(t, flow, count);
}

/* The filler lies in the buffers once; only heads and stamps are written anew. */
static void lay_out(struct traffic *t, unsigned batch)
{
    bool cut = t->run.from_udp && batch > 1;
    udp_lay_out(&t->send, t->server_port, t->run.len, batch);
    udp_cut(t->udp_out, cut ? t->run.len : 0);
    for (unsigned i = 0; i < batch; i++) {
        uint8_t *payload = udp_at(&t->send, t->run.len, i) + MSG_RELAY_HEAD_LEN;
        for (size_t k = STAMP_LEN; k < t->run.len - MSG_RELAY_HEAD_LEN; k++)
            payload[k] = filler(k);
    }
}

/* --- arrivals --- */

static bool filler_is_right(const struct reader *r)
{
    for (size_t i = 0; i < read_left(r); i++) {
        if (r->at[i] != filler(STAMP_LEN + i))
            return false;
    }
    return true;
}

static void sample(struct traffic *t, uint64_t sent_ns)
{
    t->last_arrival_ns = meter_now_ns();
    if (t->tally.samples < SAMPLES_MAX)
        t->latency_us[t->tally.samples++] = (double)(t->last_arrival_ns - sent_ns) / 1e3;
}

/* `place`: the session or UDP node that it came to. */
static void arrived(struct traffic *t, unsigned place, const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    uint8_t type = read_u8(&r);
    uint32_t sender = read_u32(&r), number = read_u32(&r), flow = read_u32(&r);
    uint64_t seq = read_u64(&r), sent_ns = read_u64(&r);
    if (!r.bad && number != t->number) {
        t->tally.late++;
        return;
    }
    if (!r.bad && flow < t->flows && !is_tallied(t, flow))
        return;
    bool right = type == MSG_RELAY_DELIVER && !r.bad && flow < t->flows;
    right = right && sender == sender_id(t, flow) && place == dest_index(t, flow);
    right = right && len == t->run.len - MSG_RELAY_HEAD_LEN + MSG_DELIVER_HEAD_LEN;
    right = right && (seq % FILLER_SAMPLE != 0 || filler_is_right(&r));
    if (!right) {
        t->tally.wrong++;
        return;
    }
    t->tally.right++;
    t->tally.reordered += seq <= t->last_seq[flow];
    t->last_seq[flow] = seq;
    sample(t, sent_ns);
}

void traffic_message(void *arg, struct wsclient *c, const uint8_t *bytes, size_t len)
{
    struct traffic *t = arg;
    if (!t->run.to_udp)
        arrived(t, (unsigned)(c - t->swarm->client), bytes, len);
}

static void turn(struct traffic *t, uint64_t timeout_ns)
{
    swarm_turn(t->swarm, timeout_ns);
    if (!t->swarm->ready[0])
        return;
    udp_receive(t->udp_in, &t->arrivals);
    for (unsigned i = 0; i < t->arrivals.count; i++) {
        const struct udp_datagram *d = &t->arrivals.datagram[i];
        arrived(t, d->came_to - TRAFFIC_UDP_IPS, d->bytes, d->len);
    }
}

void traffic_drain(struct traffic *t, uint64_t quiet_ns)
{
    uint64_t begin_ns = meter_now_ns(), seen = UINT64_MAX, seen_ns = begin_ns;
    do {
        turn(t, TURN_NS);
        if (seen != t->tally.late + t->tally.right) {
            seen = t->tally.late + t->tally.right;
            seen_ns = meter_now_ns();
        }
    } while (meter_now_ns() - seen_ns < quiet_ns && meter_now_ns() - begin_ns < 20 * quiet_ns);
}

/* --- a run --- */

static uint64_t on_their_way(const struct traffic *t)
{
    uint64_t settled = t->tally.right + t->tally.wrong;
    return t->tally.sent > settled ? t->tally.sent - settled : 0;
}

/* What is due now, one after the other through all flows. Returns when the next one is. */
static uint64_t send_due(struct traffic *t, uint64_t begin_ns, uint64_t *done, unsigned batch)
{
    uint64_t now_ns = meter_now_ns();
    uint64_t due = (uint64_t)((double)(now_ns - begin_ns) * 1e-9 * (double)t->run.rate);
    while (*done < due) {
        send_flow(t, (unsigned)(*done / batch % t->flows), batch);
        *done += batch;
    }
    return begin_ns + (uint64_t)((double)(*done + 1) * 1e9 / (double)t->run.rate);
}

static void loop_at_rate(struct traffic *t, unsigned batch)
{
    uint64_t begin_ns = meter_now_ns(), now_ns = begin_ns, done = 0;
    uint64_t end_ns = begin_ns + (uint64_t)(t->run.seconds * 1e9);
    while (now_ns < end_ns) {
        uint64_t next_ns = send_due(t, begin_ns, &done, batch);
        now_ns = meter_now_ns();
        turn(t, next_ns > now_ns ? next_ns - now_ns : 0);
        now_ns = meter_now_ns();
    }
}

static void loop_closed(struct traffic *t, unsigned batch)
{
    uint64_t begin_ns = meter_now_ns(), now_ns = begin_ns;
    uint64_t end_ns = begin_ns + (uint64_t)(t->run.seconds * 1e9);
    unsigned flow = 0;
    while (now_ns < end_ns && now_ns - t->last_arrival_ns < GIVE_UP_NS) {
        while (on_their_way(t) + batch <= TRAFFIC_WINDOW && t->swarm->lost == 0)
            send_flow(t, flow++ % t->flows, batch);
        turn(t, TURN_NS);
        now_ns = meter_now_ns();
    }
}

static void settle(void)
{
    struct timespec pause = {.tv_nsec = SETTLE_NS};
    nanosleep(&pause, NULL);
}

static unsigned flows_of(const struct traffic *t)
{
    if (t->run.bulk)
        return 1;
    if (!t->run.from_udp && !t->run.to_udp)
        return t->swarm->count / 2;
    if (t->run.to_udp && (t->run.from_udp || t->swarm->count > TRAFFIC_UDP_NODES))
        return TRAFFIC_UDP_NODES;
    return t->swarm->count;
}

static void begin(struct traffic *t, const struct traffic_run *run)
{
    t->run = *run;
    t->number++;
    t->tally = (struct traffic_tally){0};
    t->flows = flows_of(t);
    if (t->flows == 0)
        udp_die("no session to send to");
    t->last_arrival_ns = meter_now_ns();
}

void traffic_go(struct traffic *t, const struct traffic_run *run)
{
    unsigned batch = !run->bulk ? 1 : run->from_udp ? TRAFFIC_BULK_UDP : TRAFFIC_BULK_WSS;
    begin(t, run);
    lay_out(t, batch);
    uint64_t cpu_ns = meter_cpu_ns(t->pid), begin_ns = meter_now_ns();
    if (run->rate > 0)
        loop_at_rate(t, batch);
    else
        loop_closed(t, batch);
    t->last_arrival_ns = meter_now_ns();
    while (on_their_way(t) > 0 && meter_now_ns() - t->last_arrival_ns < GIVE_UP_NS)
        turn(t, TURN_NS);
    t->tally.lost = on_their_way(t);
    t->tally.seconds = (double)(meter_now_ns() - begin_ns) / 1e9;
    settle();
    uint64_t after_ns = meter_cpu_ns(t->pid);
    t->tally.cpu_ns = after_ns > cpu_ns ? after_ns - cpu_ns : 0; /* 0: the server is gone */
}

/* At a rate that the server takes without loss, or the buffers would not fill. */
void traffic_stuff(struct traffic *t, unsigned count, size_t len)
{
    struct traffic_run run = {.from_udp = true, .len = len, .skip_small = true};
    uint64_t begin_ns = meter_now_ns(), done = 0;
    begin(t, &run);
    lay_out(t, 1);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned flow = 0; flow < t->flows; flow++) {
            if (!is_small(t, flow))
                continue;
            send_flow(t, flow, 1);
            done++;
            while ((meter_now_ns() - begin_ns) / STUFF_NS < done)
                turn(t, STUFF_NS);
        }
    }
}

void traffic_print(struct traffic *t)
{
    const struct traffic_tally *y = &t->tally;
    printf("\"sent\": %" PRIu64 ", \"right\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"reordered\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"late\": %" PRIu64,
           y->sent, y->right, y->wrong, y->reordered, y->lost, y->late);
    printf(
        ", \"seconds\": %.3f, \"cpu_ns\": %" PRIu64 ", \"ns\": %.1f, \"sessions_lost\": %" PRIu64,
        y->seconds, y->cpu_ns, y->right ? (double)y->cpu_ns / (double)y->right : 0, t->swarm->lost);
    static const unsigned percentiles[] = {50, 90, 99};
    for (unsigned i = 0; y->samples > 0 && i < 3; i++)
        printf(", \"p%u_us\": %.1f", percentiles[i],
               meter_percentile(t->latency_us, y->samples, percentiles[i]));
    if (y->samples > 0) /* sorted by now */
        printf(", \"max_us\": %.1f", t->latency_us[y->samples - 1]);
}

/* --- opening --- */

static unsigned registered_count(struct traffic *t, bool *registered)
{
    unsigned count = 0;
    udp_receive(t->udp_in, &t->arrivals);
    for (unsigned i = 0; i < t->arrivals.count; i++) {
        const struct udp_datagram *d = &t->arrivals.datagram[i];
        uint32_t node = d->came_to - TRAFFIC_UDP_IPS;
        if (node < TRAFFIC_UDP_NODES && d->len > 0 && d->bytes[0] == MSG_DISCOVER_REPLY)
            registered[node] = true;
    }
    for (unsigned i = 0; i < TRAFFIC_UDP_NODES; i++)
        count += registered[i];
    return count;
}

static void register_nodes(struct traffic *t)
{
    bool registered[TRAFFIC_UDP_NODES] = {false};
    udp_lay_out(&t->send, t->server_port, MSG_DISCOVER_LEN, 1);
    for (unsigned i = 0; i < TRAFFIC_UDP_NODES; i++) {
        struct writer w = writer_of(udp_at(&t->send, MSG_DISCOVER_LEN, i), MSG_DISCOVER_LEN);
        write_u8(&w, MSG_DISCOVER);
        write_u32(&w, TRAFFIC_UDP_IDS + i);
        udp_source(&t->send, i, TRAFFIC_UDP_IPS + i);
    }
    for (unsigned tries = 0; tries < REGISTER_TRIES; tries++) {
        udp_send(t->udp_in, &t->send, TRAFFIC_UDP_NODES);
        settle();
        if (registered_count(t, registered) == TRAFFIC_UDP_NODES)
            return;
    }
    udp_die("the UDP nodes got no answers");
}

struct traffic *traffic_open(struct swarm *s, pid_t pid, uint16_t server_port)
{
    struct traffic *t = calloc(1, sizeof *t);
    if (!t)
        udp_die("out of memory");
    t->swarm = s;
    t->pid = pid;
    t->server_port = server_port;
    t->udp_in = udp_open(0);
    t->udp_out = udp_open(0);
    t->last_seq = calloc(s->count + TRAFFIC_UDP_NODES, sizeof *t->last_seq);
    t->latency_us = calloc(SAMPLES_MAX, sizeof *t->latency_us);
    if (!t->last_seq || !t->latency_us)
        udp_die("out of memory");
    udp_lay_open(&t->arrivals);
    register_nodes(t);
    swarm_watch(s, 0, t->udp_in);
    return t;
}

void traffic_close(struct traffic *t)
{
    free(t->latency_us);
    free(t->last_seq);
    free(t);
}
