#include "cmd/service.h"

#include <errno.h>
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
#include "cmd/mesh.h"
#include "cmd/notify.h"
#include "cmd/probes.h"
#include "cmd/resources.h"
#include "cmd/say.h"
#include "cmd/succession.h"
#include "cmd/version.h"
#include "cmd/watch.h"
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
#define QUIET_NS UINT64_C(30000000000) /* without a relay for so long, a drain is over */

struct beacon {
    int argc;
    char **argv;
    struct config *config;
    struct rules *rules; /* what the lanes read; replaced by a reload */
    void *memory;
    struct server *server;
    struct shards *shards;
    struct mesh *mesh; /* NULL: there are no other beacons */
    struct shards_report report;
    struct admin admin;
    struct front front;
    struct watch watch;
    struct succession succession;
    struct takeover *takeover; /* where a successor asks; NULL: nowhere */
    bool away, stopped;        /* during a handover: what is not UDP is closed; UDP is stopped */
};

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

/* Where the edge's thread has ended, its lane is the caller's: else it would never look up again.
 */
static void edge_wake(void *arg)
{
    struct beacon *b = arg;
    if (b->front.edge)
        front_wake(&b->front);
    else if (b->server->edge)
        server_begin(b->server->edge);
}

/* What is not UDP: mesh, TCP. The same after a successor that failed. */
static int around_open(struct beacon *b)
{
    b->front = (struct front){.config = NULL};
    b->mesh = NULL;
    b->admin = (struct admin){.server = b->server,
                              .version = beacon_version,
                              .revision = beacon_revision,
                              .compiler = beacon_compiler,
                              .io = b->report.io,
                              .receive_buffer = b->report.receive_buffer,
                              .private_allowed = b->config->rules.allow_private != PRIVATE_NO,
                              .log_level = b->config->log_level};
    int err = 0;
    if (config_has_mesh(b->config))
        err = mesh_open(&b->mesh, &(struct mesh_config){.config = b->config,
                                                        .server = b->server,
                                                        .shards = b->shards,
                                                        .bound = b->report.bound,
                                                        .arg = b,
                                                        .wake_edge = edge_wake});
    if (err == 0 && b->mesh && b->succession.heir.mesh >= 0 && b->succession.has_predecessor)
        mesh_load(b->mesh, b->succession.heir.mesh);
    b->admin.mesh = b->mesh ? mesh_view(b->mesh) : NULL;
    return err ? err : front_open(&b->front, b->config, b->server, b->shards, &b->admin);
}

static int around_start(struct beacon *b)
{
    b->admin.io = b->report.io;
    probes_set(&b->admin, &b->report);
    int err = admin_start(&b->admin);
    if (err == 0)
        err = front_start(&b->front);
    if (err == 0 && b->mesh)
        err = mesh_start(b->mesh);
    if (err < 0)
        log_line(LOG_ERROR, "http", "cannot start", "error=%s", log_quote(strerror(-err)));
    /* "ready" is said when it is true. Should the probe fail, /readyz tells why. */
    for (int ms = 0; err == 0 && ms < READY_MS && !admin_is_ready(&b->admin); ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return err;
}

static void around_close(struct beacon *b)
{
    admin_stop(&b->admin);
    mesh_stop(b->mesh, false);
    front_close(&b->front); /* it shows the mesh to its end */
    mesh_close(b->mesh);
    b->mesh = NULL;
}

static int udp_start(struct beacon *b)
{
    const char *failed;
    int err = shards_start(b->shards, &b->report, &failed);
    if (err < 0)
        log_line(LOG_ERROR, "udp", "cannot start the I/O port", "io=%s error=%s hint=%s", failed,
                 log_quote(strerror(-err)),
                 log_quote("--io auto or --io mmsg works without io_uring"));
    else if (b->report.uring_error)
        log_line(LOG_WARN, "udp", "io_uring refused, using recvmmsg instead", "error=%s hint=%s",
                 log_quote(strerror(b->report.uring_error)),
                 log_quote("as fast; kernel.io_uring_disabled or a seccomp profile forbids it"));
    return err;
}

/* Where a successor may ask. */
static int takeover_open(struct beacon *b)
{
    const char *path = b->config->takeover_socket;
    struct takeover_serve serve = {
        .path = path, .server = b->server, .shards = b->shards, .main = pthread_self()};
    int err = path[0] ? takeover_serve_start(&b->takeover, &serve) : 0;
    if (err < 0)
        log_line(LOG_ERROR, "takeover", "cannot listen", "path=%s error=%s", log_quote(path),
                 log_quote(strerror(-err)));
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
        if (b->mesh)
            mesh_wake(b->mesh);
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
    if (!rules || (b->mesh && !mesh_reload(b->mesh, error->text, sizeof error->text)) ||
        !front_reload(&b->front, error->text, sizeof error->text)) {
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
    if (b->mesh)
        mesh_drain(b->mesh, on);
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
           (!b->mesh || mesh_alive(b->mesh, now_ns, ADMIN_STUCK_SECONDS)) &&
           front_alive(&b->front, now_ns, ADMIN_STUCK_SECONDS);
}

/* Relays to other beacons go on until the shards stop. */
static int around_clear(void *arg)
{
    struct beacon *b = arg;
    admin_stop(&b->admin);
    mesh_stop(b->mesh, true);
    front_close(&b->front);
    b->away = true;
    return mesh_save(b->mesh);
}

static void udp_stop(void *arg)
{
    struct beacon *b = arg;
    shards_stop(b->shards);
    b->stopped = true;
}

/* What was closed and stopped for a successor that failed is started again. 0, or as around_open.
 */
static int serve_on(struct beacon *b)
{
    int err = b->stopped ? udp_start(b) : 0;
    bool away = b->away;
    if (away) {
        mesh_stop(b->mesh, false);
        mesh_close(b->mesh);
        b->mesh = NULL;
    }
    b->stopped = b->away = false;
    if (err == 0 && away)
        err = around_open(b);
    if (err == 0 && away)
        err = around_start(b);
    return err;
}

/* Gives all to the successor that asks. True: it serves. Else everything is as it was. */
static bool hand_over(struct beacon *b)
{
    const struct takeover_steps steps = {b, around_clear, udp_stop};
    log_line(LOG_INFO, "takeover", "a successor takes over", NULL);
    int err = takeover_hand_over(b->takeover, &steps);
    if (err == 0) {
        log_line(LOG_INFO, "takeover", "handed over", NULL);
        mesh_close(b->mesh);
        return true;
    }
    log_line(LOG_ERROR, "takeover", "the successor failed, serving on", "error=%s",
             log_quote(strerror(-err)));
    if (serve_on(b) != 0)
        kill(getpid(), SIGTERM); /* half a beacon is none: the manager starts another */
    return false;
}

/* Until told to end. True: a successor has all, nothing is to be closed. */
static bool serve(struct beacon *b, const sigset_t *set)
{
    uint64_t watchdog_ns = notify_watchdog_us() * 1000 / 2;
    uint64_t turn_ns = watchdog_ns && watchdog_ns < 1000000000 ? watchdog_ns : 1000000000;
    uint64_t second_ns = 0; /* when the last one was looked after */
    for (;;) {
        int signal = signal_wait(set, turn_ns);
        if (signal == SIGTERM || signal == SIGINT)
            return false;
        if (signal == SIGHUP)
            reload(b);
        else if (signal == SIGUSR1)
            drain_set(b, !atomic_load(&b->admin.draining));
        notes_take(b);
        if (b->takeover && takeover_wanted(b->takeover) && hand_over(b))
            return true;
        if (watchdog_ns && alive(b))
            notify_send("WATCHDOG=1");
        if (clock_ns() - second_ns < 900000000)
            continue; /* a signal came in between */
        second_ns = clock_ns();
        watch_tick(&b->watch, b->server);
        front_watch(&b->front);
        if (b->mesh)
            mesh_watch(b->mesh);
        atomic_store(&b->admin.log_suppressed, log_suppressed_total());
    }
}

static uint64_t relays_counted(const struct server *s)
{
    static const enum verdict forwarded[] = {VERDICT_RELAY_FORWARDED,
                                             VERDICT_RELAY_FORWARDED_UNPROVEN,
                                             VERDICT_RELAY_TO_BEACON, VERDICT_RELAY_FROM_BEACON};
    uint64_t sum = 0;
    for (unsigned i = 0; i < server_lanes(s); i++)
        for (size_t v = 0; v < sizeof forwarded / sizeof *forwarded; v++)
            sum += count_read(&server_lane(s, i)->stats.verdict[forwarded[v]]);
    return sum;
}

/* How long a drain lasts at most. Nobody asks for readiness without a health listener, and nobody
 * has to find another way without sessions or other beacons: nothing is waited for then. */
static uint32_t drain_seconds(const struct beacon *b)
{
    bool somebody = b->config->has_health || b->mesh || front_sessions(&b->front) > 0;
    return somebody ? b->config->drain_time_s : 0;
}

/* Readiness goes first, so that load balancers and other beacons look elsewhere while everything is
 * still served: until the time is up, or nothing has been relayed for a while. Sessions are told.
 */
static void drain(struct beacon *b, const sigset_t *set)
{
    uint32_t seconds = drain_seconds(b), spread_ms = seconds * 500;
    if (b->mesh)
        mesh_drain(b->mesh, true);
    front_drain(&b->front, true, spread_ms < LEAVE_SPREAD_MS ? spread_ms : LEAVE_SPREAD_MS);
    atomic_store(&b->admin.stopping, true);
    notify_send("STOPPING=1");
    log_line(LOG_INFO, "beacon", "draining", "seconds=%" PRIu32, seconds);
    /* By the clock: other signals, which mean nothing now, must not make it longer. */
    uint64_t now_ns = clock_ns(), end_ns = now_ns + seconds * UINT64_C(1000000000);
    uint64_t relays = relays_counted(b->server), relayed_ns = now_ns;
    for (; now_ns < end_ns && now_ns - relayed_ns < QUIET_NS; now_ns = clock_ns()) {
        uint64_t left_ns = end_ns - now_ns, seen = relays_counted(b->server);
        relayed_ns = seen == relays ? relayed_ns : now_ns;
        relays = seen;
        int signal = signal_wait(set, left_ns < 1000000000 ? left_ns : 1000000000);
        if (signal == SIGTERM || signal == SIGINT)
            break;
        notify_send("WATCHDOG=1");
    }
    for (int ms = 0; ms < LEAVE_LAST_MS && front_sessions(&b->front) > 0; ms += 10)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* `orderly`: what comes from here on waits in the sockets, for whom the manager gives them to. */
static void beacon_close(struct beacon *b, bool orderly)
{
    if (!b->away)
        around_close(b);
    if (orderly) {
        shards_stop(b->shards);
        succession_store_table(b->server);
    }
    succession_end(&b->succession);
    if (b->takeover)
        takeover_serve_stop(b->takeover);
    if (b->shards)
        shards_close(b->shards);
    free(b->memory);
    free(b->rules);
    free(b->config);
}

static int beacon_open(struct beacon *b)
{
    unsigned shards = shards_wanted(b->config);
    int err = succession_begin(&b->succession, b->config);
    if (err == 0)
        err = limits_raise(shards, EDGE_HTTP_CONNECTIONS + front_places(b->config));
    if (err == 0)
        err = memory_open(b, shards);
    if (err == 0)
        err = succession_open(&b->succession, b->server, &b->shards, &b->report);
    if (err == 0)
        err = succession_clear(&b->succession);
    if (err == 0)
        err = around_open(b);
    if (err == 0)
        err = succession_go(&b->succession);
    if (err == 0)
        err = udp_start(b);
    if (err == 0)
        err = succession_done(&b->succession);
    if (err == 0)
        err = around_start(b);
    return err ? err : takeover_open(b);
}

int service_run(struct config *config, int argc, char **argv)
{
    struct beacon *b = &(struct beacon){.argc = argc, .argv = argv, .config = config};
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
        beacon_close(b, false);
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
    succession_store_sockets(b->shards);
    bool handed_over = serve(b, &set);
    if (!handed_over)
        drain(b, &set);
    beacon_close(b, !handed_over);
    log_line(LOG_INFO, "beacon", "stopped", NULL);
    return EXIT_SUCCESS;
}
