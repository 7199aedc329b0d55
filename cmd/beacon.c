/* beacon - the server: reads its configuration, opens everything, then waits for signals. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include "cmd/front.h"
#include "cmd/load.h"
#include "cmd/log.h"
#include "cmd/notify.h"
#include "cmd/resources.h"
#include "cmd/say.h"
#include "cmd/version.h"
#include "cmd/watch.h"
#include "proto/sockaddr.h"
#include "server/config.h"
#include "server/server.h"
#include "shard/shard.h"
#include "wss/admin.h"

enum {
    SETTLE_MS = 5000,       /* a shard takes new rules within a second */
    READY_MS = 1000,        /* the first probe is answered long before */
    LEAVE_SPREAD_MS = 5000, /* sessions are told to go within so long, or half of drain-time */
    LEAVE_LAST_MS = 500,    /* what a session has at the end to hear that it must go */
};

struct beacon {
    int argc;
    char **argv;
    struct config *config;
    struct rules *rules; /* what the lanes read; replaced by a reload */
    void *memory;
    struct server *server;
    struct shards *shards;
    struct shards_report report;
    struct admin admin;
    struct front front;
    struct watch watch;
};

/* --- commands --- */

static int print_help(void)
{
    printf(
        "usage: beacon [options]\n\n"
        "A public server for nodes behind NATs: tells them their address (STUN, Discover),\n"
        "coordinates hole punching, relays for pairs that cannot punch; over UDP and, for nodes\n"
        "whose UDP is blocked, WebSocket. beaconctl(1) asks and steers a running one.\n\n"
        "  --help              this text\n"
        "  --version           name, version, revision\n"
        "  --check-config      read everything, say what is wrong, do not start\n"
        "  --dump-config       the effective configuration, and where each value came from\n"
        "  --print-man         the options as mdoc(7)\n"
        "  --print-completion  completion for bash\n\n");
    config_help(stdout);
    return EXIT_SUCCESS;
}

static int print_version(void)
{
    printf("beacon %s %s\n", beacon_version, beacon_revision);
    return EXIT_SUCCESS;
}

static int print_man(void)
{
    config_man(stdout);
    return EXIT_SUCCESS;
}

static int print_completion(void)
{
    config_completion(stdout);
    return EXIT_SUCCESS;
}

/* True when `argv` has this command, with one dash or two; it is taken out. */
static bool command_take(int *argc, char **argv, const char *name)
{
    for (int i = 1; i < *argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || strcmp(word + (word[1] == '-' ? 2 : 1), name) != 0)
            continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
        (*argc)--;
        return true;
    }
    return false;
}

/* --- start --- */

static int exit_code_of(int err)
{
    switch (-err) {
    case EADDRINUSE:
    case EADDRNOTAVAIL:
        return EX_UNAVAILABLE;
    case EACCES:
    case EPERM:
        return EX_NOPERM;
    default:
        return EXIT_FAILURE;
    }
}

static int memory_open(struct beacon *b, unsigned shards)
{
    uint8_t seed[64];
    b->memory = memory_take(server_size(b->config, shards), b->config->max_nodes);
    b->rules = malloc(sizeof *b->rules);
    if (!b->memory || !b->rules)
        return -ENOMEM;
    *b->rules = b->config->rules;
    randombytes_buf(seed, sizeof seed);
    b->server = server_init(b->memory, b->config, shards, b->rules, seed);
    sodium_memzero(seed, sizeof seed);
    return 0;
}

static int udp_open(struct beacon *b)
{
    const char *failed;
    int err = shards_open(&b->shards, b->server, b->config, &b->report, &failed);
    if (err < 0)
        log_line(LOG_ERROR, "udp", "cannot listen", "addr=%s step=%s error=%s",
                 endpoint_text(&b->config->addr), failed, log_quote(strerror(-err)));
    return err;
}

/* Whether this host has a way to `to`: asks for a route, sends nothing. */
static bool reachable(const struct endpoint *to)
{
    union name name;
    socklen_t len = name_of_endpoint(&name, to, AF_INET6, 0);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, &name.any, len) == 0;
    if (fd >= 0)
        close(fd);
    return yes;
}

/* Where a probe of our own reaches the UDP port in each family. */
static void probes_set(struct beacon *b)
{
    static const uint8_t loop4[4] = {127, 0, 0, 1}, loop6[16] = {[15] = 1};
    struct endpoint bound = b->report.bound;
    bool any = endpoint_is_any(&bound), any6 = any && !endpoint_is_v4(&bound);
    if (any)
        b->admin.probe4 = endpoint_of(loop4, 4, bound.port);
    else if (endpoint_is_v4(&bound))
        b->admin.probe4 = bound;
    if (any6 && b->report.dual_stack) {
        struct endpoint probe = endpoint_of(loop6, 16, bound.port);
        if (reachable(&probe))
            b->admin.probe6 = probe; /* else IPv6 is switched off on this host */
    } else if (!endpoint_is_v4(&bound) && !any6) {
        b->admin.probe6 = bound;
    }
}

static int threads_start(struct beacon *b)
{
    const char *failed;
    int err = shards_start(b->shards, &b->report, &failed);
    if (err < 0) {
        log_line(LOG_ERROR, "udp", "cannot start the I/O port", "io=%s error=%s hint=%s", failed,
                 log_quote(strerror(-err)),
                 log_quote("--io auto or --io mmsg works without io_uring"));
        return err;
    }
    if (b->report.uring_error)
        log_line(LOG_WARN, "udp", "io_uring refused, using recvmmsg instead", "error=%s hint=%s",
                 log_quote(strerror(b->report.uring_error)),
                 log_quote("as fast; kernel.io_uring_disabled or a seccomp profile forbids it"));
    b->admin.io = b->report.io;
    b->admin.receive_buffer = b->report.receive_buffer;
    probes_set(b);
    err = admin_start(&b->admin);
    if (err == 0)
        err = front_start(&b->front);
    if (err < 0)
        log_line(LOG_ERROR, "http", "cannot start", "error=%s", log_quote(strerror(-err)));
    /* "ready" is said when it is true. Should the probe fail, /readyz tells why. */
    for (int ms = 0; err == 0 && ms < READY_MS && !admin_is_ready(&b->admin); ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return err;
}

/* --- running --- */

static bool rules_settled(const struct beacon *b)
{
    for (int ms = 0; ms < SETTLE_MS; ms += 10) {
        if (server_rules_settled(b->server))
            return true;
        for (unsigned i = 0; i < b->server->lane_count; i++)
            shards_wake(b->shards, i);
        front_wake(&b->front);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

/* Takes `rules` over. */
static void rules_replace(struct beacon *b, struct rules *rules)
{
    server_set_rules(b->server, rules);
    if (rules_settled(b))
        free(b->rules);
    else /* a stuck shard may still read the old ones: they are left to it */
        log_line(LOG_WARN, "config", "a shard is slow to take the new rules", NULL);
    b->rules = rules;
}

static void level_set(struct beacon *b, enum log_level level)
{
    log_set(level, b->config->log_format);
    atomic_store(&b->admin.log_level, level);
}

/* What SIGHUP changes, all of it or nothing. */
static bool reload_apply(struct beacon *b, const struct config *wanted, struct config_error *error)
{
    char names[512];
    struct rules *rules = malloc(sizeof *rules);
    if (!rules)
        snprintf(error->text, sizeof error->text, "no memory for the rules");
    if (!rules || !front_reload(&b->front, error->text, sizeof error->text)) {
        free(rules);
        return false;
    }
    *rules = wanted->rules;
    rules_replace(b, rules);
    if (config_needs_restart(b->config, wanted, names, sizeof names) > 0)
        log_line(LOG_WARN, "config", "changed options need a restart", "options=%s",
                 log_quote(names));
    atomic_store(&b->admin.private_allowed, wanted->rules.allow_private != PRIVATE_NO);
    b->config->log_level = wanted->log_level;
    b->config->log_format = wanted->log_format;
    level_set(b, wanted->log_level);
    return true;
}

static void reload(struct beacon *b)
{
    struct config *wanted = malloc(sizeof *wanted);
    struct config_error error = {.text = "no memory"};
    notify_reloading();
    admin_reloading(&b->admin);
    bool ok = wanted && config_load(wanted, b->argc, b->argv, &error) == 0 &&
              reload_apply(b, wanted, &error);
    if (ok)
        log_line(LOG_INFO, "config", "reloaded", NULL);
    else
        log_line(LOG_ERROR, "config", "reload refused, the old configuration stays", "error=%s",
                 log_quote(error.text));
    front_event(&b->front, "reload", ok ? "taken" : error.text);
    admin_reloaded(&b->admin, ok,
                   ok ? "" : error.text); /* after the log: who sees one finds both */
    free(wanted);
    notify_send("READY=1");
}

/* Waits for a signal of `set`, at most so long. 0: none came. */
static int signal_wait(const sigset_t *set, uint64_t ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000),
                               .tv_nsec = (long)(ns % 1000000000)};
    int signal = sigtimedwait(set, NULL, &timeout);
    return signal < 0 ? 0 : signal;
}

/* Drains without ending, or serves again. */
static void drain_set(struct beacon *b, bool on)
{
    if (on == atomic_load(&b->admin.draining))
        return;
    log_line(LOG_INFO, "beacon", on ? "draining, until told otherwise" : "serving again", NULL);
    front_drain(&b->front, on, LEAVE_SPREAD_MS);
}

/* What the admin interface has asked for since the last time. */
static void notes_take(struct beacon *b)
{
    struct front_notes *n = &b->front.notes;
    int drain = atomic_exchange(&n->drain, FRONT_DRAIN_SAME);
    int level = atomic_exchange(&n->level, -1);
    if (drain != FRONT_DRAIN_SAME)
        drain_set(b, drain == FRONT_DRAIN_ON);
    if (level >= 0)
        level_set(b, (enum log_level)level);
    if (atomic_exchange(&n->reload, false))
        reload(b);
}

static bool alive(const struct beacon *b)
{
    uint64_t now_ns = clock_ns();
    return watch_alive(b->server, now_ns, ADMIN_STUCK_SECONDS) &&
           front_alive(&b->front, now_ns, ADMIN_STUCK_SECONDS);
}

static void serve(struct beacon *b, const sigset_t *set)
{
    uint64_t watchdog_ns = notify_watchdog_us() * 1000 / 2;
    uint64_t turn_ns = watchdog_ns && watchdog_ns < 1000000000 ? watchdog_ns : 1000000000;
    uint64_t second_ns = 0; /* when the last one was looked after */
    for (;;) {
        int signal = signal_wait(set, turn_ns);
        if (signal == SIGTERM || signal == SIGINT)
            return;
        if (signal == SIGHUP)
            reload(b);
        else if (signal == SIGUSR1)
            drain_set(b, !atomic_load(&b->admin.draining));
        notes_take(b);
        if (watchdog_ns && alive(b))
            notify_send("WATCHDOG=1");
        if (clock_ns() - second_ns < 900000000)
            continue; /* a signal came in between */
        second_ns = clock_ns();
        watch_tick(&b->watch, b->server);
        front_watch(&b->front);
        atomic_store(&b->admin.log_suppressed, log_suppressed_total());
    }
}

/* Readiness goes first, so that load balancers look elsewhere while everything is still served.
 * Nobody asks for readiness without a health listener, so nothing is waited for then; sessions are
 * told in any case. */
static void drain(struct beacon *b, const sigset_t *set)
{
    uint32_t seconds =
        b->config->has_health || front_sessions(&b->front) > 0 ? b->config->drain_time_s : 0;
    uint32_t spread_ms = seconds * 500;
    front_drain(&b->front, true, spread_ms < LEAVE_SPREAD_MS ? spread_ms : LEAVE_SPREAD_MS);
    atomic_store(&b->admin.stopping, true);
    notify_send("STOPPING=1");
    log_line(LOG_INFO, "beacon", "draining", "seconds=%" PRIu32, seconds);
    /* By the clock: other signals, which mean nothing now, must not make it longer. */
    uint64_t now_ns = clock_ns(), end_ns = now_ns + seconds * UINT64_C(1000000000);
    for (; now_ns < end_ns; now_ns = clock_ns()) {
        uint64_t left_ns = end_ns - now_ns;
        int signal = signal_wait(set, left_ns < 1000000000 ? left_ns : 1000000000);
        if (signal == SIGTERM || signal == SIGINT)
            break;
        notify_send("WATCHDOG=1");
    }
    for (int ms = 0; ms < LEAVE_LAST_MS && front_sessions(&b->front) > 0; ms += 10)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

static void beacon_close(struct beacon *b)
{
    admin_stop(&b->admin);
    front_close(&b->front);
    if (b->shards)
        shards_close(b->shards);
    free(b->memory);
    free(b->rules);
    free(b->config);
}

static int beacon_open(struct beacon *b)
{
    unsigned shards = shards_wanted(b->config);
    int err = limits_raise(shards, EDGE_HTTP_CONNECTIONS + front_places(b->config));
    if (err == 0)
        err = memory_open(b, shards);
    b->admin.server = b->server;
    b->admin.version = beacon_version;
    b->admin.revision = beacon_revision;
    b->admin.compiler = beacon_compiler;
    b->admin.private_allowed = b->config->rules.allow_private != PRIVATE_NO;
    b->admin.log_level = b->config->log_level;
    if (err == 0)
        err = udp_open(b);
    if (err == 0)
        err = front_open(&b->front, b->config, b->server, b->shards, &b->admin);
    if (err == 0)
        err = threads_start(b);
    return err;
}

static int beacon_run(struct beacon *b)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);               /* the admin interface has left a note */
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread: all signals are taken here */
    signal(SIGPIPE, SIG_IGN);
    int err = beacon_open(b);
    if (err != 0) {
        beacon_close(b);
        return err > 0 ? err : exit_code_of(err);
    }
    struct started started = {
        .config = b->config,
        .report = &b->report,
        .shards = b->server->lane_count,
        .listener = b->front.listener,
        .listener_count = b->front.listener_count,
        .admin = &b->admin,
    };
    say_listeners(&started);
    if (b->config->dev)
        say_dev(&started);
    log_line(LOG_INFO, "beacon", "ready", "version=%s revision=%s", beacon_version,
             beacon_revision);
    notify_send("READY=1");
    serve(b, &set);
    drain(b, &set);
    beacon_close(b);
    log_line(LOG_INFO, "beacon", "stopped", NULL);
    return EXIT_SUCCESS;
}

/* Descriptors 0 to 2 are there, so that no socket of ours ever is stderr. */
static bool streams_open(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } commands[] = {
        {"help", print_help},
        {"h", print_help},
        {"version", print_version},
        {"print-man", print_man},
        {"print-completion", print_completion},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (command_take(&argc, argv, commands[i].name))
            return commands[i].run();
    bool check = command_take(&argc, argv, "check-config");
    bool dump = command_take(&argc, argv, "dump-config");
    struct beacon b = {.argc = argc, .argv = argv, .config = malloc(sizeof *b.config)};
    struct config_error error;
    if (!b.config || sodium_init() < 0 || !streams_open())
        return EXIT_FAILURE;
    log_open(LOG_INFO, LOG_TEXT); /* until the configuration says otherwise */
    int code = config_load(b.config, argc, argv, &error);
    if (code != 0) {
        fprintf(stderr, "beacon: %s\n", error.text);
        free(b.config);
        return code;
    }
    if (check && !front_check(b.config, error.text, sizeof error.text)) {
        fprintf(stderr, "beacon: %s\n", error.text);
        free(b.config);
        return EX_CONFIG;
    }
    if (check || dump) {
        if (dump)
            config_dump(b.config, stdout);
        else
            puts("configuration ok");
        free(b.config);
        return EXIT_SUCCESS;
    }
    log_open(b.config->log_level, b.config->log_format);
    return beacon_run(&b);
}
