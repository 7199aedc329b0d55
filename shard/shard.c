#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "shard/sender.h"
#include "shard/shard.h"
#include "shard/sockets.h"

enum {
    CHUNK = 64,           /* datagrams whose rows are prefetched together */
    IDLE_NS = 1000000000, /* an idle shard turns once a second: expiry, watchdog */
    LAST_TURNS = 256,     /* batches answered after the order to stop */
    STOP_NS = 10000000,   /* a cancelled receive ends at once; a wait that missed it is short */
    STACK_BYTES = 256 * 1024,
};

struct shard {
    /* Fixed before the thread starts. */
    struct shards *all;
    struct lane *lane;
    struct io_sender sender;
    const struct io_port *port;
    int wake; /* eventfd, from open to close: anybody may wake a shard that is stopped */
    uint64_t drops_before; /* of the socket, under a former owner */
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
    int edge_wake, mesh_wake;  /* our copies of their eventfds; -1: none */
    bool steered;              /* with this server's key */
    _Atomic bool leaves_queue; /* what lies in the sockets is for another; set before `stopping` */
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

/* Shards that this batch sent mail to; edge and mesh when it handed something over. */
static void wake_others(struct shard *s)
{
    if (s->lane->wake_edge && s->all->edge_wake >= 0)
        io_wake(s->all->edge_wake);
    s->lane->wake_edge = false;
    if (s->lane->wake_mesh && s->all->mesh_wake >= 0)
        io_wake(s->all->mesh_wake);
    s->lane->wake_mesh = false;
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
    count_set(&s->lane->stats.kernel_drops,
              socket_drops(s->sender.sockets.narrow) - s->drops_before);
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

/* The last turns: what was received is answered. What is not may be taken up by another. */
static void shard_finish(struct shard *s)
{
    bool leaves_queue = atomic_load_explicit(&s->all->leaves_queue, memory_order_relaxed);
    for (int i = 0; i < LAST_TURNS && !leaves_queue; i++)
        if (shard_turn(s, 0) == 0 && !s->more_mail)
            break;
    for (int i = 0; i < LAST_TURNS && !s->port->stop(s->io); i++)
        shard_turn(s, STOP_NS);
}

static void *shard_main(void *arg)
{
    struct shard *s = arg;
    s->open_error = s->port->open(&s->io, &s->sender.sockets, s->wake, &s->lane->stats);
    int err = s->open_error;
    count_set(&s->lane->stats.tick_ns, clock_ns());
    sem_post(&s->all->opened); /* publishes io and open_error */
    if (err < 0)
        return NULL;
    semaphore_wait(&s->all->go);
    while (!atomic_load_explicit(&s->all->stopping, memory_order_acquire)) /* leaves_queue */
        shard_turn(s, s->all->busy_poll || s->more_mail ? 0 : IDLE_NS);
    shard_finish(s);
    return NULL;
}

/* --- the set --- */

static void shards_free(struct shards *s)
{
    for (unsigned i = 0; i < s->server->lane_count; i++)
        if (s->shard[i].wake >= 0)
            close(s->shard[i].wake);
    if (s->edge_wake >= 0)
        close(s->edge_wake);
    if (s->mesh_wake >= 0)
        close(s->mesh_wake);
    sem_destroy(&s->opened);
    sem_destroy(&s->go);
    free(s);
}

/* All but the sockets. NULL: no memory, or no descriptors. */
static struct shards *shards_new(struct server *server, const struct config *c)
{
    size_t size = sizeof(struct shards) + server->lane_count * sizeof(struct shard);
    struct shards *s = aligned_alloc(64, (size + 63) & ~(size_t)63);
    bool whole = true;
    if (!s)
        return NULL;
    memset(s, 0, size);
    s->server = server;
    s->busy_poll = c->busy_poll;
    s->io = c->io;
    s->edge_wake = s->mesh_wake = -1;
    sem_init(&s->opened, 0, 0);
    sem_init(&s->go, 0, 0);
    for (unsigned i = 0; i < server->lane_count; i++) {
        s->shard[i].all = s;
        s->shard[i].lane = server->lane[i];
        s->shard[i].wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        whole = whole && s->shard[i].wake >= 0;
    }
    if (whole)
        return s;
    shards_free(s);
    return NULL;
}

static int set_open(struct shards **ret, struct server *server, const struct config *c,
                    const struct inherited *inherited, struct shards_report *report,
                    const char **failed)
{
    struct shards *s = shards_new(server, c);
    *failed = "memory";
    if (!s)
        return -ENOMEM;
    int err =
        sockets_open(&s->sockets, c, server->lane_count, server->owner_key, inherited, failed);
    if (err < 0) {
        shards_free(s);
        return err;
    }
    s->steered = !inherited;
    server->bound = s->sockets.bound;
    for (unsigned i = 0; i < server->lane_count; i++) {
        s->shard[i].sender =
            (struct io_sender){s->sockets.of[i], &server->lane[i]->stats, SEGMENT_MAX_BYTES};
        s->shard[i].local_is_global = ip_scope(s->sockets.bound.ip) == SCOPE_GLOBAL;
        s->shard[i].drops_before = socket_drops(s->sockets.of[i].narrow);
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

int shards_open(struct shards **ret, struct server *server, const struct config *c,
                struct shards_report *report, const char **failed)
{
    return set_open(ret, server, c, NULL, report, failed);
}

int shards_adopt(struct shards **ret, struct server *server, const struct config *c, const int *fds,
                 unsigned count, struct shards_report *report, const char **failed)
{
    struct inherited inherited = {fds, count};
    return set_open(ret, server, c, &inherited, report, failed);
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

/* Letters that shards left for each other in their last turns: without threads the lanes are the
 * caller's. Ends though edge and mesh may go on writing. */
static void letters_finish(struct shards *s)
{
    for (unsigned i = 0; i < s->server->lane_count; i++) {
        struct shard *shard = &s->shard[i];
        if (!shard->io)
            continue;
        struct moment now = moment_now();
        server_begin(shard->lane);
        shard->more_mail = true;
        for (int n = 0; n < MAIL_SLOTS && shard->more_mail; n++) {
            shard->more_mail = server_mail(shard->lane, &now, &shard->out);
            shard_flush(shard);
        }
        wake_others(shard);
    }
}

/* Ends the threads and their ports. The sockets stay, and with `leaves_queue` what lies in them. */
static void threads_stop(struct shards *s, bool leaves_queue)
{
    atomic_store_explicit(&s->leaves_queue, leaves_queue, memory_order_relaxed);
    atomic_store_explicit(&s->stopping, true, memory_order_release); /* publishes leaves_queue */
    for (unsigned i = 0; i < s->server->lane_count; i++)
        io_wake(s->shard[i].wake);
    for (unsigned i = 0; i < s->server->lane_count; i++) {
        if (s->shard[i].running)
            pthread_join(s->shard[i].thread, NULL);
        s->shard[i].running = false;
    }
    letters_finish(s);
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
        threads_stop(s, true);
    return err;
}

int shards_start(struct shards *s, struct shards_report *report, const char **failed)
{
    *failed = "steering";
    int err = s->steered ? 0 : sockets_steer(&s->sockets, s->server->owner_key);
    if (err < 0)
        return err;
    s->steered = true;
    const struct io_port *port = s->io == IO_MMSG ? &io_mmsg_port : &io_uring_port;
    err = threads_start(s, port);
    if (err < 0 && s->io == IO_AUTO) {
        report->uring_error = -err;
        port = &io_mmsg_port;
        err = threads_start(s, port);
    }
    *failed = port->name;
    report->io = port->name;
    return err;
}

void shards_stop(struct shards *s)
{
    threads_stop(s, true);
    s->steered = false; /* whoever had the sockets meanwhile has steered with another key */
}

void shards_close(struct shards *s)
{
    threads_stop(s, false);
    sockets_close(&s->sockets);
    shards_free(s);
}

unsigned shards_descriptors(const struct shards *s, int *fds, unsigned max)
{
    return sockets_list(&s->sockets, fds, max);
}

/* --- the others --- */

void shards_wake(struct shards *s, unsigned index)
{
    assert(index < s->server->lane_count);
    io_wake(s->shard[index].wake);
}

static int wake_copy(int *copy, int wake)
{
    /* In the place of the one before: a shard that runs never sees a number that is closed. */
    int fd = *copy >= 0 ? dup3(wake, *copy, O_CLOEXEC) : fcntl(wake, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (*copy < 0)
        *copy = fd;
    return 0;
}

int shards_set_edge(struct shards *s, int wake)
{
    return wake_copy(&s->edge_wake, wake);
}

int shards_set_mesh(struct shards *s, int wake)
{
    return wake_copy(&s->mesh_wake, wake);
}

int shards_mesh_socket(const struct shards *s)
{
    return s->sockets.mesh;
}

int shards_wide_socket(const struct shards *s)
{
    return s->sockets.of[0].wide;
}

int shards_family(const struct shards *s)
{
    return s->sockets.dual_stack ? AF_INET6 : AF_INET;
}

struct shards_sender *shards_sender_new(struct shards *s, struct lane *lane)
{
    assert(lane && lane->server == s->server);
    return sender_new(&s->sockets.of[0], lane);
}
