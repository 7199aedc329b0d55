#include "bench/streams.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench/meter.h"
#include "bench/udp.h"
#include "bench/wsclient.h"

enum {
    TEXT_MAX = 32768, /* of one event */
    EVENTS_A_TURN = 256,
    STATUS_MAX = 4096, /* different ones in a run */
    LAGS_MAX = 1 << 20,
    OPEN_SECONDS = 20,
    STUCK_RCVBUF = 4096,
    AT_ONCE = 64,
};

struct reader_of_events {
    int fd;
    bool asked, open, stuck, ended;
    char *text; /* not yet a whole event */
    size_t len;
};

struct streams {
    const struct streams_run *run;
    int epoll;
    struct reader_of_events *reader;
    unsigned begun, open, refused, ended, ended_stuck;
    bool measures;
    struct {
        uint64_t uptime_ms, first_ns, count;
    } status[STATUS_MAX];
    unsigned statuses;
    double *lag_us;
    unsigned lags;
    uint64_t resyncs;
};

static void watch(struct streams *s, struct reader_of_events *r, int operation, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.u32 = (uint32_t)(r - s->reader)};
    if (epoll_ctl(s->epoll, operation, r->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static void begin(struct streams *s)
{
    struct reader_of_events *r = &s->reader[s->begun];
    uint32_t source = STREAMS_IPS + s->begun / STREAMS_PER_SOURCE;
    r->stuck =
        s->begun * s->run->stuck_percent / 100 != (s->begun + 1) * s->run->stuck_percent / 100;
    s->begun++;
    r->text = malloc(TEXT_MAX);
    r->fd = wsclient_dial(source, s->run->port, r->stuck ? STUCK_RCVBUF : 0);
    if (r->fd < 0 || !r->text)
        udp_die("a stream cannot begin");
    watch(s, r, EPOLL_CTL_ADD, EPOLLOUT);
}

static void ask(struct streams *s, struct reader_of_events *r)
{
    char text[128];
    int len = snprintf(text, sizeof text, "GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                       s->run->port);
    r->asked = true;
    if (send(r->fd, text, (size_t)len, MSG_NOSIGNAL) == len)
        watch(s, r, EPOLL_CTL_MOD, EPOLLIN);
}

static void end(struct streams *s, struct reader_of_events *r)
{
    close(r->fd);
    r->fd = -1;
    r->ended = true;
    if (!r->open)
        s->refused++;
    else if (r->stuck)
        s->ended_stuck++;
    else
        s->ended++;
}

static void status_arrived(struct streams *s, uint64_t uptime_ms)
{
    uint64_t now_ns = meter_now_ns();
    unsigned i = s->statuses; /* it is one of the newest */
    while (i > 0 && s->status[i - 1].uptime_ms != uptime_ms)
        i--;
    if (i == 0) {
        if (s->statuses == STATUS_MAX)
            udp_die("more statuses than there is room for");
        i = ++s->statuses;
        s->status[i - 1].uptime_ms = uptime_ms;
        s->status[i - 1].first_ns = now_ns;
    }
    s->status[i - 1].count++;
    if (s->measures && s->lags < LAGS_MAX)
        s->lag_us[s->lags++] = (double)(now_ns - s->status[i - 1].first_ns) / 1e3;
}

/* One event, or the head of the answer; ended by an empty line. */
static void block_arrived(struct streams *s, struct reader_of_events *r, const char *text)
{
    const char *uptime = strstr(text, "\"uptime_ms\":");
    if (!r->open) {
        if (strncmp(text, "HTTP/1.1 200", 12) == 0) {
            r->open = true;
            s->open++;
        }
        return;
    }
    s->resyncs += strncmp(text, "event: resync", 13) == 0;
    if (strncmp(text, "event: status", 13) != 0 || !uptime)
        return;
    status_arrived(s, strtoull(uptime + strlen("\"uptime_ms\":"), NULL, 10));
    if (r->stuck && s->run->stuck_percent > 0)
        watch(s, r, EPOLL_CTL_MOD, 0); /* from now on its window closes */
}

static size_t block_end(const char *text, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        if (text[i] == '\n' &&
            (text[i - 1] == '\n' || (i >= 3 && memcmp(text + i - 3, "\r\n\r\n", 4) == 0)))
            return i + 1;
    }
    return 0;
}

static void hear(struct streams *s, struct reader_of_events *r)
{
    ssize_t n = recv(r->fd, r->text + r->len, TEXT_MAX - 1 - r->len, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            end(s, r);
        return;
    }
    r->len += (size_t)n;
    for (size_t used = block_end(r->text, r->len); used > 0; used = block_end(r->text, r->len)) {
        r->text[used - 1] = '\0';
        block_arrived(s, r, r->text);
        r->len -= used;
        memmove(r->text, r->text + used, r->len);
    }
}

static void turn(struct streams *s, int timeout_ms)
{
    struct epoll_event e[EVENTS_A_TURN];
    int n = epoll_wait(s->epoll, e, EVENTS_A_TURN, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct reader_of_events *r = &s->reader[e[i].data.u32];
        if (r->fd < 0)
            continue;
        if (!r->asked)
            ask(s, r);
        else if (e[i].events & (uint32_t)EPOLLIN)
            hear(s, r);
        else
            end(s, r); /* hung up; epoll says that unasked */
    }
}

static void bring_up(struct streams *s)
{
    uint64_t begin_ns = meter_now_ns();
    while (s->open + s->refused < s->run->count &&
           meter_now_ns() - begin_ns < OPEN_SECONDS * UINT64_C(1000000000)) {
        while (s->begun < s->run->count && s->begun - s->open - s->refused < AT_ONCE)
            begin(s);
        turn(s, 20);
    }
}

static void print(const struct streams *s, double open_seconds)
{
    unsigned healthy = 0;
    for (unsigned i = 0; i < s->begun; i++)
        healthy += !s->reader[i].stuck;
    printf("{\"open\": %u, \"refused\": %u, \"open_seconds\": %.2f, \"healthy\": %u", s->open,
           s->refused, open_seconds, healthy);
    printf(", \"ended_healthy\": %u, \"ended_stuck\": %u, \"resyncs\": %" PRIu64
           ", \"statuses\": %u, \"lags\": %u",
           s->ended, s->ended_stuck, s->resyncs, s->statuses, s->lags);
    static const unsigned percentiles[] = {50, 90, 99};
    for (unsigned i = 0; s->lags > 0 && i < 3; i++)
        printf(", \"p%u_us\": %.0f", percentiles[i],
               meter_percentile(s->lag_us, s->lags, percentiles[i]));
    if (s->lags > 0)
        printf(", \"max_us\": %.0f", s->lag_us[s->lags - 1]);
    printf("}\n");
}

/* A status that has come while streams were still opening says nothing: some did not exist. */
static void measure(struct streams *s)
{
    uint64_t begin_ns = meter_now_ns();
    unsigned statuses = s->statuses;
    while (s->statuses < statuses + 1 && meter_now_ns() - begin_ns < UINT64_C(3000000000))
        turn(s, 20);
    for (uint64_t since_ns = meter_now_ns(); meter_now_ns() - since_ns < UINT64_C(500000000);)
        turn(s, 20);
    s->measures = true;
    begin_ns = meter_now_ns();
    while (meter_now_ns() - begin_ns < (uint64_t)(s->run->seconds * 1e9))
        turn(s, 20);
}

void streams_read(const struct streams_run *run)
{
    struct streams *s = calloc(1, sizeof *s);
    if (!s)
        udp_die("out of memory");
    s->run = run;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->reader = calloc(run->count, sizeof *s->reader);
    s->lag_us = calloc(LAGS_MAX, sizeof *s->lag_us);
    if (!s->reader || !s->lag_us)
        udp_die("out of memory");
    uint64_t begin_ns = meter_now_ns();
    bring_up(s);
    double open_seconds = (double)(meter_now_ns() - begin_ns) / 1e9;
    measure(s);
    print(s, open_seconds);
    for (unsigned i = 0; i < s->begun; i++) {
        if (s->reader[i].fd >= 0)
            close(s->reader[i].fd);
        free(s->reader[i].text);
    }
    close(s->epoll);
    free(s->lag_us);
    free(s->reader);
    free(s);
}
