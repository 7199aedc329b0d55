#include "bench/swarm.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include "bench/meter.h"
#include "bench/udp.h"

enum { EVENTS_A_TURN = 256 };
#define ATTEMPT_NS UINT64_C(10000000000)
#define CHECK_NS UINT64_C(500000000)
#define OTHERS_FROM UINT64_C(0xffff0000) /* in epoll_data: descriptors that are no client */

void swarm_open(struct swarm *s)
{
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->client = calloc(s->count + 1, sizeof *s->client);
    s->again = calloc(s->count + 1, sizeof *s->again);
    if (s->epoll < 0 || !s->client || !s->again)
        udp_die("swarm");
    for (unsigned i = 0; i < s->count; i++) {
        s->client[i].fd = -1;
        s->client[i].node_id = SWARM_FIRST_ID + i;
        s->client[i].source_ip = SWARM_SOURCES + wsclient_spread(i / s->per_source);
    }
}

void swarm_watch(struct swarm *s, unsigned which, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = OTHERS_FROM + which};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        udp_die("epoll_ctl");
}

/* A failed client's descriptor leaves the epoll with its close. */
static void settle_failed(struct swarm *s, struct wsclient *c, bool was_open)
{
    reasons_add(&s->reasons, c->why);
    wsclient_close(c);
    if (was_open) {
        s->lost++;
        s->up--;
        return;
    }
    s->failures++;
    s->under_way--;
    s->again[s->again_count++] = (unsigned)(c - s->client);
}

void swarm_changed(struct swarm *s, struct wsclient *c)
{
    uint32_t wanted = wsclient_events(c);
    struct epoll_event e = {.events = wanted, .data.u64 = (uint64_t)(c - s->client)};
    if (c->state == WSCLIENT_FAILED)
        settle_failed(s, c, true); /* its caller found it open, and writing failed */
    if (c->state == WSCLIENT_NONE || wanted == c->events)
        return;
    c->events = wanted;
    if (epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static void begin(struct swarm *s, unsigned i)
{
    struct wsclient *c = &s->client[i];
    bool small = s->small_every > 0 && i % s->small_every == 0;
    wsclient_begin(c, &s->target, small ? SWARM_SMALL_RCVBUF : 0);
    s->under_way++;
    if (c->state == WSCLIENT_FAILED) {
        settle_failed(s, c, false);
        return;
    }
    c->events = wsclient_events(c);
    struct epoll_event e = {.events = c->events, .data.u64 = i};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static void ready(struct swarm *s, struct wsclient *c, uint32_t events)
{
    if (c->state == WSCLIENT_NONE)
        return; /* closed in this very turn */
    bool was_open = c->state == WSCLIENT_OPEN;
    if (c->paused && (events & (uint32_t)(EPOLLHUP | EPOLLERR))) { /* told unasked, ever again */
        c->state = WSCLIENT_FAILED;
        c->why = "cut while it did not read";
    }
    wsclient_ready(c, &s->target, s->message, s->arg);
    if (c->state == WSCLIENT_FAILED) {
        settle_failed(s, c, was_open);
        return;
    }
    if (c->state == WSCLIENT_OPEN && !was_open) {
        s->under_way--;
        s->up++;
    }
    swarm_changed(s, c);
}

void swarm_turn(struct swarm *s, uint64_t timeout_ns)
{
    struct epoll_event e[EVENTS_A_TURN];
    struct timespec t = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                         .tv_nsec = (long)(timeout_ns % 1000000000)};
    for (unsigned i = 0; i < SWARM_OTHERS_MAX; i++)
        s->ready[i] = false;
    int n = epoll_pwait2(s->epoll, e, EVENTS_A_TURN, &t, NULL);
    for (int i = 0; i < n; i++) {
        if (e[i].data.u64 >= OTHERS_FROM)
            s->ready[e[i].data.u64 - OTHERS_FROM] = true;
        else
            ready(s, &s->client[e[i].data.u64], e[i].events);
    }
}

static void end_slow_attempts(struct swarm *s, uint64_t now_ns)
{
    for (unsigned i = 0; i < s->next; i++) {
        struct wsclient *c = &s->client[i];
        if (c->state > WSCLIENT_NONE && c->state < WSCLIENT_OPEN &&
            now_ns - c->began_ns > ATTEMPT_NS) {
            c->state = WSCLIENT_FAILED;
            c->why = "no progress for 10 s";
            settle_failed(s, c, false);
        }
    }
}

bool swarm_bring_up(struct swarm *s, double seconds)
{
    uint64_t now_ns = meter_now_ns(), end_ns = now_ns + (uint64_t)(seconds * 1e9);
    uint64_t check_ns = now_ns + CHECK_NS;
    while (s->up < s->count && now_ns < end_ns) {
        while (s->under_way < SWARM_AT_ONCE && s->next < s->count)
            begin(s, s->next++);
        swarm_turn(s, 20000000);
        now_ns = meter_now_ns();
        if (now_ns < check_ns)
            continue;
        /* What failed waits for the next of these moments: a refusal is no reason to hurry. */
        check_ns = now_ns + CHECK_NS;
        end_slow_attempts(s, now_ns);
        while (s->again_count > 0 && s->under_way < SWARM_AT_ONCE)
            begin(s, s->again[--s->again_count]);
    }
    return s->up == s->count;
}
