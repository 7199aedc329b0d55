/* bench_wss - load on the TCP edge, driven by edge.py.
 *
 * bench_wss sessions tls|plain PORT COUNT PID UDP_PORT SMALL opens COUNT authenticated sessions
 * (every SMALLth with a small receive buffer; 0: none), answers with a line of JSON, and then each
 * command of stdin with another, until stdin ends. The other modes print one line and end:
 * bench_wss hello|handshakes PORT RATE SECONDS SOURCES, bench_wss streams PORT COUNT STUCK_PERCENT
 * SECONDS. The server listens on 127.0.0.1. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include "bench/meter.h"
#include "bench/strangers.h"
#include "bench/streams.h"
#include "bench/traffic.h"

enum {
    LIFE_SECONDS = 600, /* whatever hangs ends */
    BRING_UP_SECONDS = 90,
    PER_SOURCE = 16, /* sessions at one address: within the burst of its handshakes */
    RELAY_LEN = 1200,
    QUIET_NS = 300000000,
};

struct bench {
    struct swarm swarm;
    struct traffic *traffic;
    char line[256];
    size_t len;
};

static bool read_way(const char *name, bool *ret_udp)
{
    *ret_udp = strcmp(name, "udp") == 0;
    return *ret_udp || strcmp(name, "wss") == 0;
}

static void answer_tally(struct bench *b)
{
    printf("{");
    traffic_print(b->traffic);
    printf("}\n");
}

/* relay udp|wss udp|wss LEN single|bulk RATE SECONDS; RATE 0 is a closed loop */
static void relay_command(struct bench *b, const char *args)
{
    struct traffic_run run = {0};
    char from[8], to[8], how[8];
    if (sscanf(args, "%7s %7s %zu %7s %" SCNu64 " %lf", from, to, &run.len, how, &run.rate,
               &run.seconds) != 6 ||
        !read_way(from, &run.from_udp) || !read_way(to, &run.to_udp) || run.len < 64 ||
        run.len > 1200)
        udp_die("relay FROM TO LEN single|bulk RATE SECONDS");
    run.bulk = strcmp(how, "bulk") == 0;
    traffic_go(b->traffic, &run);
    answer_tally(b);
}

static void status_command(struct bench *b, const char *args)
{
    (void)args;
    printf("{\"up\": %u, \"lost\": %" PRIu64 ", \"reasons\": ", b->swarm.up, b->swarm.lost);
    reasons_print(&b->swarm.reasons);
    printf("}\n");
}

/* hold yes|no: sessions with small buffers stop reading, or go on and read what has piled up. */
static void hold_command(struct bench *b, const char *args)
{
    struct swarm *s = &b->swarm;
    bool holds = strstr(args, "yes") != NULL;
    for (unsigned i = 0; s->small_every > 0 && i < s->count; i += s->small_every) {
        if (s->client[i].state != WSCLIENT_OPEN)
            continue;
        s->client[i].paused = holds;
        swarm_changed(s, &s->client[i]);
    }
    traffic_drain(b->traffic, QUIET_NS);
    status_command(b, args);
}

/* stuff COUNT: so many relays to each of those, to fill the way to them */
static void stuff_command(struct bench *b, const char *args)
{
    traffic_stuff(b->traffic, (unsigned)strtoul(args, NULL, 10), RELAY_LEN);
    traffic_drain(b->traffic, QUIET_NS);
    status_command(b, args);
}

/* even RATE SECONDS: relays from UDP to all in turn; only those that read are tallied */
static void even_command(struct bench *b, const char *args)
{
    struct traffic_run run = {.from_udp = true, .len = RELAY_LEN, .skip_small = true};
    if (sscanf(args, "%" SCNu64 " %lf", &run.rate, &run.seconds) != 2 || run.rate == 0)
        udp_die("even RATE SECONDS");
    traffic_go(b->traffic, &run);
    answer_tally(b);
}

static const struct {
    const char *name;
    void (*run)(struct bench *b, const char *args);
} commands[] = {
    {"relay", relay_command}, {"hold", hold_command},     {"stuff", stuff_command},
    {"even", even_command},   {"status", status_command},
};

static void obey(struct bench *b, const char *line)
{
    size_t name_len = strcspn(line, " ");
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strlen(commands[i].name) == name_len && !strncmp(commands[i].name, line, name_len)) {
            commands[i].run(b, line + name_len);
            fflush(stdout);
            return;
        }
    }
    udp_die("no such command");
}

/* False: stdin has ended. */
static bool obey_input(struct bench *b)
{
    ssize_t n = read(STDIN_FILENO, b->line + b->len, sizeof b->line - b->len - 1);
    if (n <= 0)
        return false;
    b->len += (size_t)n;
    for (char *end; (end = memchr(b->line, '\n', b->len));) {
        *end = '\0';
        obey(b, b->line);
        b->len -= (size_t)(end + 1 - b->line);
        memmove(b->line, end + 1, b->len);
    }
    return b->len < sizeof b->line - 1;
}

static int sessions_mode(char **args)
{
    struct bench b = {.swarm = {.epoll = -1}};
    struct swarm *s = &b.swarm;
    bool tls = strcmp(args[0], "tls") == 0;
    s->target = (struct wsclient_target){.port = (uint16_t)atoi(args[1]),
                                         .tls = tls ? wsclient_tls() : NULL};
    s->count = (unsigned)atoi(args[2]);
    s->small_every = (unsigned)atoi(args[5]);
    s->per_source = PER_SOURCE;
    s->message = traffic_message;
    swarm_open(s);
    b.traffic = traffic_open(s, (pid_t)atoi(args[3]), (uint16_t)atoi(args[4]));
    s->arg = b.traffic;
    swarm_watch(s, 1, STDIN_FILENO);
    uint64_t begin_ns = meter_now_ns();
    bool all = swarm_bring_up(s, BRING_UP_SECONDS);
    printf("{\"all\": %s, \"up\": %u, \"seconds\": %.3f, \"failures\": %" PRIu64 ", \"reasons\": ",
           all ? "true" : "false", s->up, (double)(meter_now_ns() - begin_ns) / 1e9, s->failures);
    reasons_print(&s->reasons);
    printf("}\n");
    fflush(stdout);
    do
        swarm_turn(s, 100000000);
    while (!s->ready[1] || obey_input(&b));
    traffic_close(b.traffic);
    return 0;
}

static int strangers_mode(char **args, void (*go)(const struct strangers_run *run))
{
    struct strangers_run run = {.port = (uint16_t)atoi(args[0]),
                                .rate = (unsigned)atoi(args[1]),
                                .seconds = strtod(args[2], NULL),
                                .sources = (unsigned)atoi(args[3])};
    if (run.rate == 0 || run.sources == 0)
        udp_die("RATE and SOURCES are at least 1");
    go(&run);
    return 0;
}

static int streams_mode(char **args)
{
    struct streams_run run = {.port = (uint16_t)atoi(args[0]),
                              .count = (unsigned)atoi(args[1]),
                              .stuck_percent = (unsigned)atoi(args[2]),
                              .seconds = strtod(args[3], NULL)};
    streams_read(&run);
    return 0;
}

/* Descriptors are what such a generator runs out of first. */
static void take_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        udp_die("RLIMIT_NOFILE");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        udp_die("RLIMIT_NOFILE");
}

int main(int argc, char **argv)
{
    if (sodium_init() < 0)
        udp_die("libsodium");
    take_descriptors();
    alarm(LIFE_SECONDS);
    if (argc == 8 && strcmp(argv[1], "sessions") == 0)
        return sessions_mode(argv + 2);
    if (argc == 6 && strcmp(argv[1], "hello") == 0)
        return strangers_mode(argv + 2, strangers_hello);
    if (argc == 6 && strcmp(argv[1], "handshakes") == 0)
        return strangers_mode(argv + 2, strangers_handshakes);
    if (argc == 6 && strcmp(argv[1], "streams") == 0)
        return streams_mode(argv + 2);
    fprintf(stderr, "usage: bench_wss sessions tls|plain PORT COUNT PID UDP_PORT SMALL\n"
                    "       bench_wss hello|handshakes PORT RATE SECONDS SOURCES\n"
                    "       bench_wss streams PORT COUNT STUCK_PERCENT SECONDS\n");
    return 2;
}
