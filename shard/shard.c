#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "shard/group.h"
#include "shard/io.h"
#include "shard/shard.h"
#include "shard/sockets.h"

enum {
    CHUNK = 64,               /* datagrams whose rows are prefetched together */
    IDLE_NS = 1000000000,     /* an idle shard turns once a second: expiry, watchdog */
    LAST_TURNS = 256,         /* batches answered after the order to stop */
    SEGMENT_MAX_BYTES = 1472, /* GSO segments start at what fits Ethernet, the kernel lowers it */
    SEGMENT_RETRY_S = 60, /* ... and so often it is tried again: a route may have been to blame */
    STACK_BYTES = 256 * 1024,
};

struct shard {
    /* Fixed before the thread starts. */
    struct shards *all;
    struct lane *lane;
    struct io_sender sender;
    const struct io_port *port;
    pthread_t thread;
    bool running; /* the thread was started and not joined */

    /* The thread writes `io` and `open_error` before it posts all->opened. */
    struct io *io;
    int open_error;

    /* The thread's own. */
    uint8_t local_ip[16]; /* the last service address seen, its index and scope */
    uint8_t local;
    bool local_is_global;
    uint64_t drops_at_ns;
    uint32_t seconds; /* counted by second_passed */
    bool more_mail;   /* the next turn must not sleep */
    struct arrival arrivals[IO_ARRIVALS_MAX];
    unsigned chunk_count;
    struct datagram chunk[CHUNK];
    struct outbox out;
    struct group group;
};

struct shards {
    struct server *server;
    struct socket_set sockets;
    bool busy_poll;
    enum io_choice io;
    int edge_wake; /* our copy of the edge's eventfd; -1: none */
    _Atomic bool stopping;
    sem_t opened; /* posted by each thread when its port is open or refused */
    sem_t go;     /* posted once a thread when all are open: a shard may wake any other */
    struct shard shard[];
};

uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- one turn --- */

/* Sends what is in the outbox and empties it. */
static void outbox_send(struct io_sender *sender, struct group *group, const struct server *server,
                        struct outbox *out)
{
    struct lane_stats *stats = sender->stats;
    if (out->count == 0)
        return;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < out->count; i++)
        bytes += out->out[i].len;
    group_build(group, out, &server->service, sender->sockets.family, sender->segment_max);
    io_send(sender, &group->messages);
    count_add(&stats->sent, out->count);
    count_add(&stats->sent_bytes, bytes);
    count_add(&stats->send_messages, group->messages.count);
    out->count = 0;
}

static void shard_flush(struct shard *s)
{
    outbox_send(&s->sender, &s->group, s->lane->server, &s->out);
}

static void chunk_decide(struct shard *s, const struct moment *now)
{
    for (unsigned i = 0; i < s->chunk_count; i++)
        server_prefetch(s->lane, &s->chunk[i]);
    for (unsigned i = 0; i < s->chunk_count; i++) {
        if (s->out.count + OUTBOX_ROOM > OUTBOX_MAX)
            shard_flush(s);
        enum verdict v = server_input(s->lane, &s->chunk[i], now, &s->out);
        if (v != VERDICT_PASSED)
            count_add(&s->lane->stats.verdict[v], 1);
    }
    s->chunk_count = 0;
}

/* Which of our addresses an arrival came to. Nearly always the same as the one before. */
static void local_note(struct shard *s, const struct arrival *a)
{
    if (!a->has_local || memcmp(a->local, s->local_ip, 16) == 0)
        return;
    enum ip_scope scope = ip_scope(a->local);
    memcpy(s->local_ip, a->local, 16);
    s->local_is_global = scope == SCOPE_GLOBAL || scope == SCOPE_NEVER;
    /* Nothing can be sent from a multicast address: let the kernel choose. */
    s->local = scope == SCOPE_NEVER ? 0 : service_index(&s->lane->server->service, a->local);
    if (s->local == 0)
        memset(s->local_ip, 0, 16); /* full or busy: ask again next time */
}

/* Cuts an arrival into its datagrams and decides them, a chunk at a time. */
static void arrival_input(struct shard *s, const struct arrival *a, const struct moment *now)
{
    local_note(s, a);
    uint32_t at = 0;
    do {
        uint32_t left = a->len - at;
        if (s->chunk_count == CHUNK)
            chunk_decide(s, now);
        struct datagram *d = &s->chunk[s->chunk_count++];
        *d = (struct datagram){
            .bytes = a->bytes + at,
            .len = a->segment && a->segment < left ? a->segment : left,
            .scope = a->scope,
            .from = a->from,
            .local = s->local,
            .local_is_global = s->local_is_global,
        };
        at += d->len;
    } while (at < a->len);
}

static uint32_t arrival_packets(const struct arrival *a)
{
    return a->segment && a->len > a->segment ? (a->len + a->segment - 1) / a->segment : 1;
}

static void batch_input(struct shard *s, unsigned arrivals, const struct moment *now)
{
    struct lane_stats *stats = &s->lane->stats;
    uint64_t packets = 0, bytes = 0;
    for (unsigned i = 0; i < arrivals; i++) {
        const struct arrival *a = &s->arrivals[i];
        packets += arrival_packets(a);
        bytes += a->len;
    }
    count_add(&stats->received, packets);
    count_add(&stats->received_bytes, bytes);
    count_add(&stats->arrivals, arrivals);
    count_add(&stats->batches, 1);
    histogram_add(&stats->batch_packets, batch_bounds, packets);
    for (unsigned i = 0; i < arrivals; i++) {
        const struct arrival *a = &s->arrivals[i];
        if (a->truncated)
            count_add(&stats->verdict[VERDICT_DROPPED_TRUNCATED], arrival_packets(a));
        else
            arrival_input(s, a, now);
    }
    chunk_decide(s, now);
}

static struct moment moment_now(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct moment){.ns = clock_ns(), .unix_s = wall.tv_sec};
}

/* Shards that this batch sent mail to, and the edge when it handed something over. */
static void wake_others(struct shard *s)
{
    if (s->lane->wake_edge && s->all->edge_wake >= 0)
        io_wake(s->all->edge_wake);
    s->lane->wake_edge = false;
    for (uint64_t wake = s->lane->wake; wake; wake &= wake - 1)
        shards_wake(s->all, (unsigned)__builtin_ctzll(wake));
    s->lane->wake = 0;
}

/* Once a second: what the kernel dropped, and whether to try large segments again. */
static void second_passed(struct shard *s, uint64_t now_ns)
{
    if (now_ns - s->drops_at_ns < IDLE_NS)
        return;
    s->drops_at_ns = now_ns;
    count_set(&s->lane->stats.kernel_drops, socket_drops(s->sender.sockets.narrow));
    if (++s->seconds % SEGMENT_RETRY_S == 0)
        s->sender.segment_max = SEGMENT_MAX_BYTES;
}

/* Receive, decide, send. Returns how many arrivals there were. */
static unsigned shard_turn(struct shard *s, uint64_t timeout_ns)
{
    unsigned arrivals = s->port->wait(s->io, s->arrivals, timeout_ns);
    struct moment now = moment_now();
    server_begin(s->lane);
    /* Mail first: a node that was told it is registered is, before anybody's answer to it comes. */
    s->more_mail = server_mail(s->lane, &now, &s->out);
    if (arrivals > 0)
        batch_input(s, arrivals, &now);
    shard_flush(s);
    s->port->recycle(s->io);
    wake_others(s);
    server_tick(s->lane, &now);
    second_passed(s, now.ns);
    if (arrivals > 0)
        histogram_add(&s->lane->stats.batch_seconds, seconds_bounds, clock_ns() - now.ns);
    return arrivals;
}

static void semaphore_wait(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0)
        continue; /* EINTR */
}

static void *shard_main(void *arg)
{
    struct shard *s = arg;
    s->open_error = s->port->open(&s->io, &s->sender.sockets, &s->lane->stats);
    int err = s->open_error;
    count_set(&s->lane->stats.tick_ns, clock_ns());
    sem_post(&s->all->opened); /* publishes io and open_error */
    if (err < 0)
        return NULL;
    semaphore_wait(&s->all->go);
    while (!atomic_load_explicit(&s->all->stopping, memory_order_relaxed))
        shard_turn(s, s->all->busy_poll || s->more_mail ? 0 : IDLE_NS);
    for (int i = 0; i < LAST_TURNS && (shard_turn(s, 0) > 0 || s->more_mail); i++)
        continue; /* what was received is answered */
    return NULL;
}

/* --- the set --- */

int shards_open(struct shards **ret, struct server *server, const struct config *c,
                struct shards_report *report, const char **failed)
{
    unsigned count = server->lane_count;
    size_t size = sizeof(struct shards) + count * sizeof(struct shard);
    struct shards *s = aligned_alloc(64, (size + 63) & ~(size_t)63);
    *failed = "memory";
    if (!s)
        return -ENOMEM;
    memset(s, 0, size);
    int err = sockets_open(&s->sockets, c, count, server->owner_key, failed);
    if (err < 0) {
        free(s);
        return err;
    }
    s->server = server;
    s->busy_poll = c->busy_poll;
    s->io = c->io;
    s->edge_wake = -1;
    sem_init(&s->opened, 0, 0);
    sem_init(&s->go, 0, 0);
    server->bound = s->sockets.bound;
    for (unsigned i = 0; i < count; i++) {
        s->shard[i].all = s;
        s->shard[i].lane = server->lane[i];
        s->shard[i].sender =
            (struct io_sender){s->sockets.of[i], &server->lane[i]->stats, SEGMENT_MAX_BYTES};
        s->shard[i].local_is_global = ip_scope(s->sockets.bound.ip) == SCOPE_GLOBAL;
    }
    *report = (struct shards_report){
        .bound = s->sockets.bound,
        .dual_stack = s->sockets.dual_stack,
        .steer_error = s->sockets.steer_error,
        .receive_buffer = s->sockets.receive_buffer,
        .send_buffer = s->sockets.send_buffer,
    };
    *ret = s;
    return 0;
}

static int thread_start(struct shard *s, unsigned index)
{
    char name[16];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int err = -pthread_create(&s->thread, &attr, shard_main, s);
    pthread_attr_destroy(&attr);
    if (err < 0)
        return err;
    s->running = true;
    snprintf(name, sizeof name, "shard-%u", index % CONFIG_SHARDS_MAX);
    pthread_setname_np(s->thread, name);
    return 0;
}

/* Ends the threads and their ports. The sockets stay. */
static void threads_stop(struct shards *s)
{
    atomic_store_explicit(&s->stopping, true, memory_order_relaxed);
    for (unsigned i = 0; i < s->server->lane_count; i++)
        if (s->shard[i].running && s->shard[i].io)
            s->shard[i].port->wake(s->shard[i].io);
    for (unsigned i = 0; i < s->server->lane_count; i++) {
        if (s->shard[i].running)
            pthread_join(s->shard[i].thread, NULL);
        s->shard[i].running = false;
    }
    /* Only now: until its thread ends, a shard may be woken by any other. */
    for (unsigned i = 0; i < s->server->lane_count; i++) {
        if (s->shard[i].io)
            s->shard[i].port->close(s->shard[i].io);
        s->shard[i].io = NULL;
    }
}

/* All threads with this port, or none. */
static int threads_start(struct shards *s, const struct io_port *port)
{
    int err = 0;
    unsigned started = 0;
    atomic_store_explicit(&s->stopping, false, memory_order_relaxed);
    for (unsigned i = 0; err == 0 && i < s->server->lane_count; i++) {
        s->shard[i].port = port;
        err = thread_start(&s->shard[i], i);
        started += err == 0;
    }
    for (unsigned i = 0; i < started; i++)
        semaphore_wait(&s->opened);
    for (unsigned i = 0; err == 0 && i < started; i++)
        err = s->shard[i].open_error;
    atomic_store_explicit(&s->stopping, err < 0, memory_order_relaxed);
    for (unsigned i = 0; i < started; i++)
        if (s->shard[i].open_error == 0)
            sem_post(&s->go);
    if (err < 0)
        threads_stop(s);
    return err;
}

int shards_start(struct shards *s, struct shards_report *report, const char **failed)
{
    const struct io_port *port = s->io == IO_MMSG ? &io_mmsg_port : &io_uring_port;
    int err = threads_start(s, port);
    if (err < 0 && s->io == IO_AUTO) {
        report->uring_error = -err;
        port = &io_mmsg_port;
        err = threads_start(s, port);
    }
    *failed = port->name;
    report->io = port->name;
    return err;
}

void shards_wake(struct shards *s, unsigned index)
{
    assert(index < s->server->lane_count);
    s->shard[index].port->wake(s->shard[index].io);
}

int shards_set_edge(struct shards *s, int wake)
{
    assert(s->edge_wake < 0);
    s->edge_wake = fcntl(wake, F_DUPFD_CLOEXEC, 0);
    return s->edge_wake < 0 ? -errno : 0;
}

/* --- the edge's way out --- */

struct shards_sender {
    const struct server *server;
    struct io_sender sender;
    uint64_t lowered_ns; /* when segment_max was seen lowered; 0: it is not */
    struct group group;
};

struct shards_sender *shards_sender_new(struct shards *s)
{
    struct shards_sender *sender = calloc(1, sizeof *sender);
    assert(s->server->edge);
    if (!sender)
        return NULL;
    sender->server = s->server;
    sender->sender =
        (struct io_sender){s->sockets.of[0], &s->server->edge->stats, SEGMENT_MAX_BYTES};
    return sender;
}

/* As second_passed does for a shard: large segments are tried again after a while. */
static void segments_retry(struct shards_sender *s)
{
    if (s->sender.segment_max == SEGMENT_MAX_BYTES)
        return;
    uint64_t now_ns = clock_ns();
    if (s->lowered_ns == 0)
        s->lowered_ns = now_ns;
    if (now_ns - s->lowered_ns < SEGMENT_RETRY_S * 1000000000ull)
        return;
    s->sender.segment_max = SEGMENT_MAX_BYTES;
    s->lowered_ns = 0;
}

void shards_sender_send(struct shards_sender *sender, struct outbox *out)
{
    segments_retry(sender);
    outbox_send(&sender->sender, &sender->group, sender->server, out);
}

void shards_sender_free(struct shards_sender *sender)
{
    free(sender);
}

void shards_close(struct shards *s)
{
    threads_stop(s);
    sockets_close(&s->sockets);
    if (s->edge_wake >= 0)
        close(s->edge_wake);
    sem_destroy(&s->opened);
    sem_destroy(&s->go);
    free(s);
}
