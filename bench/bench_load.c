/* bench_load - generator and sink in one process, driven by bench.py.
 *
 * bench_load TARGET PID SERVER_PORT SINK_PORT NODES: TARGET is beacon, echo or turn; the server
 * listens on 127.0.0.1. Commands come on stdin, a line each; every command is answered with one
 * line of JSON. The first line, before any command, says that the generator is ready. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/load.h"
#include "bench/meter.h"
#include "bench/turn.h"
#include "proto/msg.h"

enum {
    WINDOW = 1024,
    BYTES_PER_DATAGRAM = 2560, /* of a receive buffer, in the kernel's accounting, at 1200 bytes */
    REGISTER_PASSES = 5,       /* what got lost is asked again */
    LATENCY_MAX = 100000,
    PAUSE_NS = 200000, /* between single packets: a server that blocks is asleep again */
    STUN_REQUEST_LEN = 20,
};

static void print_tally(const struct tally *t)
{
    uint64_t arrived = t->right + t->wrong;
    printf("{\"sent\": %" PRIu64 ", \"right\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"late\": %" PRIu64 ", \"reordered\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"seconds\": %.6f, \"cpu_ns\": %" PRIu64 ", \"ns\": %.1f}\n",
           t->sent, t->right, t->wrong, t->late, t->reordered, t->lost, t->seconds, t->cpu_ns,
           arrived ? (double)t->cpu_ns / (double)arrived : 0);
}

static void choose(struct load *l, const struct exchange *e, enum pattern pattern, size_t len)
{
    l->exchange = e;
    l->pattern = pattern;
    l->len = len;
    l->merge = false;
}

/* relay LEN PATTERN SECONDS [merged] */
static void relay_command(struct load *l, const char *args)
{
    static const char *const names[] = {"random", "runs", "bulk"};
    size_t len;
    char name[16];
    double seconds;
    if (sscanf(args, "%zu %15s %lf", &len, name, &seconds) != 3 || len > UDP_BYTES_MAX || len < 64)
        udp_die("relay LEN PATTERN SECONDS");
    for (unsigned p = 0; p < sizeof names / sizeof *names; p++) {
        if (strcmp(name, names[p]) == 0) {
            choose(l, &relay_exchange, (enum pattern)p, len);
            l->merge = strstr(args, " merged") != NULL;
            struct tally t = load_run(l, seconds, UINT64_MAX);
            print_tally(&t);
            return;
        }
    }
    udp_die("no such pattern");
}

/* discover SECONDS and stun SECONDS: requests that are answered */
static void discover_command(struct load *l, const char *args)
{
    choose(l, &discover_exchange, PATTERN_RANDOM, MSG_DISCOVER_LEN);
    struct tally t = load_run(l, strtod(args, NULL), UINT64_MAX);
    print_tally(&t);
}

static void stun_command(struct load *l, const char *args)
{
    choose(l, &stun_exchange, PATTERN_RANDOM, STUN_REQUEST_LEN);
    struct tally t = load_run(l, strtod(args, NULL), UINT64_MAX);
    print_tally(&t);
}

static uint64_t unregistered(const struct load *l)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < l->nodes; i++)
        count += !l->registered[i];
    return count;
}

/* register: every node sends a Discover until it has an answer */
static void register_command(struct load *l, const char *args)
{
    (void)args;
    struct tally sum = {0};
    memset(l->registered, 0, l->nodes * sizeof *l->registered);
    choose(l, &register_exchange, PATTERN_RANDOM, MSG_DISCOVER_LEN);
    for (unsigned pass = 0; pass < REGISTER_PASSES && unregistered(l) > 0; pass++) {
        struct tally t = load_run(l, 1e9, unregistered(l));
        sum.sent += t.sent;
        sum.right += t.right;
        sum.wrong += t.wrong;
        sum.lost += t.lost;
        sum.cpu_ns += t.cpu_ns;
        sum.seconds += t.seconds;
    }
    print_tally(&sum);
}

/* aim PID PORT: from now on at another server, with the same nodes */
static void aim_command(struct load *l, const char *args)
{
    int pid;
    unsigned port;
    if (sscanf(args, "%d %u", &pid, &port) != 2 || port > UINT16_MAX)
        udp_die("aim PID PORT");
    l->pid = (pid_t)pid;
    l->server_port = (uint16_t)port;
    printf("{}\n");
}

/* stream LEN RATE SECONDS: so many a second, whatever arrives */
static void stream_command(struct load *l, const char *args)
{
    size_t len;
    struct stream s = {.rate = 0};
    if (sscanf(args, "%zu %lf %lf", &len, &s.rate, &s.seconds) != 3 || len > UDP_BYTES_MAX ||
        len < 64 || s.rate < 1)
        udp_die("stream LEN RATE SECONDS");
    choose(l, &relay_exchange, PATTERN_RANDOM, len);
    load_stream(l, &s);
    printf("{\"sent\": %" PRIu64 ", \"right\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"reordered\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"gap_us\": %.1f, \"send_gap_us\": %.1f}\n",
           l->tally.sent, l->tally.right, l->tally.wrong, l->tally.reordered, l->tally.lost,
           (double)s.gap_ns / 1e3, (double)s.send_gap_ns / 1e3);
}

static void pause_spinning(void)
{
    uint64_t begin_ns = meter_now_ns();
    while (meter_now_ns() - begin_ns < PAUSE_NS)
        ;
}

/* latency LEN COUNT: one packet at a time */
static void latency_command(struct load *l, const char *args)
{
    static double us[LATENCY_MAX];
    size_t len;
    unsigned count, got = 0;
    if (sscanf(args, "%zu %u", &len, &count) != 2 || count > LATENCY_MAX || len < 64)
        udp_die("latency LEN COUNT");
    choose(l, &relay_exchange, PATTERN_RANDOM, len);
    load_begin(l);
    for (unsigned i = 0; i < count; i++) {
        uint64_t ns = load_one(l);
        if (ns > 0)
            us[got++] = (double)ns / 1e3;
        pause_spinning();
    }
    printf("{\"count\": %u, \"lost\": %" PRIu64 ", \"wrong\": %" PRIu64, got, l->tally.lost,
           l->tally.wrong);
    static const unsigned percentiles[] = {50, 90, 99};
    for (unsigned i = 0; got > 0 && i < 3; i++)
        printf(", \"p%u\": %.2f", percentiles[i], meter_percentile(us, got, percentiles[i]));
    printf("}\n");
}

static const struct {
    const char *name;
    void (*run)(struct load *l, const char *args);
} commands[] = {
    {"relay", relay_command},       {"discover", discover_command}, {"stun", stun_command},
    {"register", register_command}, {"latency", latency_command},   {"aim", aim_command},
    {"stream", stream_command},
};

static void obey(struct load *l, const char *line)
{
    size_t name_len = strcspn(line, " \n");
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strlen(commands[i].name) == name_len && !strncmp(commands[i].name, line, name_len)) {
            commands[i].run(l, line + name_len);
            fflush(stdout);
            return;
        }
    }
    udp_die("no such command");
}

static struct load *load_open(char **args)
{
    static const char *const targets[] = {"beacon", "echo", "turn"};
    struct load *l = calloc(1, sizeof *l);
    unsigned target = 0;
    while (target < 3 && strcmp(args[0], targets[target]) != 0)
        target++;
    if (!l || target == 3)
        udp_die("TARGET is beacon, echo or turn");
    l->target = (enum target)target;
    l->pid = (pid_t)atoi(args[1]);
    l->server_port = (uint16_t)atoi(args[2]);
    l->sink_port = (uint16_t)atoi(args[3]);
    l->nodes = (uint32_t)strtoul(args[4], NULL, 10);
    l->out = udp_open(0);
    l->in = udp_open(l->sink_port);
    l->random = 0x9e3779b97f4a7c15u; /* the same load in every run of the benchmark */
    l->last_seq = calloc(l->nodes, sizeof *l->last_seq);
    l->registered = calloc(l->nodes, sizeof *l->registered);
    if (!l->last_seq || !l->registered || l->nodes == 0 || l->nodes > 16000000)
        udp_die("NODES");
    size_t room = udp_granted(l->in) / BYTES_PER_DATAGRAM;
    l->window = room < WINDOW ? (unsigned)room : WINDOW;
    udp_lay_open(&l->arrivals);
    if (l->target == TARGET_TURN)
        turn_open(l->out, l->server_port, l->sink_port);
    return l;
}

int main(int argc, char **argv)
{
    char line[128];
    if (argc != 6) {
        fprintf(stderr, "usage: bench_load beacon|echo|turn PID SERVER_PORT SINK_PORT NODES\n");
        return 2;
    }
    struct load *l = load_open(argv + 1);
    printf("{\"ready\": true, \"window\": %u}\n", l->window);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        obey(l, line);
    free(l->registered);
    free(l->last_seq);
    free(l);
    return 0;
}
