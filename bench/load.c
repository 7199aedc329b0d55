#include "bench/load.h"

#include <string.h>
#include <time.h>
#include "bench/meter.h"

#define STREAM_WAIT_NS UINT64_C(2000000000) /* as GIVE_UP_NS, for who is being replaced */

enum {
    GIVE_UP_NS = 200000000, /* without any arrival: what is on its way is lost */
    SETTLE_NS = 2000000,    /* after the last arrival the server goes back to sleep */
    STREAM_NAP_NS = 20000,  /* a stream sleeps so long between two looks */
};

/* xorshift64*: cheap, and good enough to scatter look-ups. */
uint32_t load_random(struct load *l, uint32_t below)
{
    l->random ^= l->random >> 12;
    l->random ^= l->random << 25;
    l->random ^= l->random >> 27;
    uint64_t high = l->random * 2685821657736338717u >> 32;
    return (uint32_t)(high * below >> 32);
}

/* A stray datagram may count as one that arrived, so this saturates. */
static uint64_t on_their_way(const struct load *l)
{
    uint64_t settled = l->tally.right + l->tally.wrong + l->tally.lost;
    return l->tally.sent > settled ? l->tally.sent - settled : 0;
}

static void send_some(struct load *l, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        l->seq++;
        l->exchange->fill(l, i);
    }
    bool relays = l->exchange == &relay_exchange;
    udp_send(relays ? l->out : l->in, &l->send, count / l->segments);
    l->tally.sent += count;
}

/* Returns how many datagrams of this run arrived. */
static unsigned receive_some(struct load *l)
{
    unsigned ours = 0;
    udp_receive(l->in, &l->arrivals);
    for (unsigned i = 0; i < l->arrivals.count; i++) {
        enum arrival a = l->exchange->check(l, &l->arrivals.datagram[i]);
        l->tally.right += a == ARRIVAL_RIGHT;
        l->tally.wrong += a == ARRIVAL_WRONG;
        l->tally.late += a == ARRIVAL_LATE;
        ours += a != ARRIVAL_LATE;
    }
    return ours;
}

static void sleep_ns(long ns)
{
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

void load_begin(struct load *l)
{
    l->run++;
    l->tally = (struct tally){0};
    l->segments = l->pattern == PATTERN_RANDOM ? 1 : UDP_BATCH / 2;
    memset(&l->send, 0, sizeof l->send);
    udp_lay_out(&l->send, l->server_port, l->len, l->segments);
    udp_cut(l->out, l->segments > 1 ? l->len : 0);
    udp_merge(l->in, l->merge);
    l->exchange->lay_out(l);
}

static void loop(struct load *l, uint64_t end_ns, uint64_t count)
{
    uint64_t now_ns = meter_now_ns(), arrived_ns = now_ns;
    while ((now_ns < end_ns && l->tally.sent < count) || on_their_way(l) > 0) {
        uint64_t left = now_ns < end_ns ? count - l->tally.sent : 0;
        unsigned batch = left < UDP_BATCH ? (unsigned)left : UDP_BATCH;
        if (batch > 0 && on_their_way(l) + batch <= l->window)
            send_some(l, batch);
        if (receive_some(l) > 0)
            arrived_ns = now_ns;
        now_ns = meter_now_ns();
        if (now_ns - arrived_ns > GIVE_UP_NS) {
            l->tally.lost += on_their_way(l);
            arrived_ns = now_ns;
        }
    }
}

struct tally load_run(struct load *l, double seconds, uint64_t count)
{
    load_begin(l);
    uint64_t cpu_ns = meter_cpu_ns(l->pid), begin_ns = meter_now_ns();
    loop(l, begin_ns + (uint64_t)(seconds * 1e9), count);
    l->tally.seconds = (double)(meter_now_ns() - begin_ns) / 1e9;
    sleep_ns(SETTLE_NS);
    uint64_t after_ns = meter_cpu_ns(l->pid);
    l->tally.cpu_ns = after_ns > cpu_ns ? after_ns - cpu_ns : 0; /* 0: the server is gone */
    return l->tally;
}

static void longest(uint64_t *longest_ns, uint64_t *last_ns, uint64_t now_ns)
{
    if (now_ns - *last_ns > *longest_ns)
        *longest_ns = now_ns - *last_ns;
    *last_ns = now_ns;
}

void load_stream(struct load *l, struct stream *s)
{
    load_begin(l);
    uint64_t begin_ns = meter_now_ns(), now_ns = begin_ns;
    uint64_t sent_ns = begin_ns, arrived_ns = begin_ns;
    uint64_t count = (uint64_t)(s->rate * s->seconds);
    while (l->tally.sent < count || (on_their_way(l) > 0 && now_ns - arrived_ns < STREAM_WAIT_NS)) {
        uint64_t due = (uint64_t)((double)(now_ns - begin_ns) * s->rate / 1e9) + 1;
        due = (due < count ? due : count) - l->tally.sent;
        if (due > 0) {
            send_some(l, due < UDP_BATCH ? (unsigned)due : UDP_BATCH);
            longest(&s->send_gap_ns, &sent_ns, now_ns);
        }
        if (receive_some(l) > 0)
            longest(&s->gap_ns, &arrived_ns, meter_now_ns());
        else
            sleep_ns(STREAM_NAP_NS);
        now_ns = meter_now_ns();
    }
    l->tally.lost += on_their_way(l);
}

uint64_t load_one(struct load *l)
{
    uint64_t begin_ns = meter_now_ns(), now_ns;
    send_some(l, 1);
    do {
        unsigned ours = receive_some(l);
        now_ns = meter_now_ns();
        if (ours > 0)
            return now_ns - begin_ns;
    } while (now_ns - begin_ns < GIVE_UP_NS);
    l->tally.lost++;
    return 0;
}
