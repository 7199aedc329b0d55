#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "proto/sockaddr.h"
#include "server/stats.h"
#include "wss/listen.h"
#include "wss/places.h"

enum {
    EVENTS_MAX = 64,     /* one epoll_wait; more come with the next */
    ACCEPTS_A_TURN = 16, /* per listener, so that a flood of connections leaves time for answers */
    NICE = 5,
    UNSENT_MAX =
        256 * 1024, /* bytes that the kernel holds for a reader beyond what is on its way */
};
static const uint64_t tick_ns_max = 1000000000; /* the watchdog wants to see the loop turn */
static const uint64_t pause_ns = 100000000;     /* no accept that fails is tried sooner */

/* What an epoll event belongs to: kind in the upper half of its data, index in the lower. */
enum event_kind { EVENT_WAKE, EVENT_LISTENER, EVENT_CONN };

struct listener {
    struct edge_listener of;
    int fd;
    struct listen_file file; /* of a unix socket */
};

struct edge {
    /* Fixed before the thread starts. */
    int epoll, wake;
    unsigned listener_count;
    struct listener listener[EDGE_LISTENERS_MAX];
    struct edge_limits limits;
    uint64_t (*hook)(void *arg, const struct conn_turn *turn);
    void *hook_arg;
    pthread_t thread;
    bool started;

    /* The thread's alone. */
    struct places places;
    struct outqueue_pool queues;
    int spare;          /* a descriptor given up for a moment when they run out; -1: lost */
    uint64_t resume_ns; /* when listening goes on; 0: it is on */
    uint64_t hook_ns;   /* when the hook wants to be called */
    uint8_t input[CONN_INPUT_A_TURN];

    /* Written by any thread, taken by ours. */
    _Atomic(struct tls *) next_tls;
    /* Written by the thread, read by any. */
    struct edge_stats stats;
    _Atomic uint64_t tick_ns;
    /* Written by edge_close. */
    _Atomic bool stopping;
};

uint64_t edge_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

const struct edge_stats *edge_stats(const struct edge *e)
{
    return &e->stats;
}

uint64_t edge_tick_ns(const struct edge *e)
{
    return atomic_load_explicit(&e->tick_ns, memory_order_relaxed);
}

const struct edge_limits *edge_limits(const struct edge *e)
{
    return &e->limits;
}

int edge_wake_fd(const struct edge *e)
{
    return e->wake;
}

void edge_set_limits(struct edge *e, const struct edge_limits *limits)
{
    assert(!e->started);
    assert(limits->connections <= e->places.count);
    e->limits = *limits;
    outqueue_pool_init(&e->queues, limits->queue_each, limits->queue_total);
}

void edge_set_turn(struct edge *e, uint64_t (*turn)(void *arg, const struct conn_turn *turn),
                   void *arg)
{
    assert(!e->started);
    e->hook = turn;
    e->hook_arg = arg;
}

static void edge_wake(const struct edge *e)
{
    uint64_t one = 1;
    ssize_t n = write(e->wake, &one, sizeof one); /* a full counter wakes as well */
    (void)n;
}

void edge_set_tls(struct edge *e, struct tls *t)
{
    /* Release: publishes *t; acquire: one that the edge never took is ours to free. */
    struct tls *unused = atomic_exchange_explicit(&e->next_tls, t, memory_order_acq_rel);
    if (unused)
        tls_close(unused);
    edge_wake(e);
}

static void edge_take_tls(struct edge *e)
{
    if (!atomic_load_explicit(&e->next_tls, memory_order_relaxed))
        return;
    struct tls *old = e->places.turn.tls;
    e->places.turn.tls = atomic_exchange_explicit(&e->next_tls, NULL, memory_order_acquire);
    if (old)
        tls_close(old);
}

static int edge_register(const struct edge *e, int fd, uint32_t events, enum event_kind kind,
                         unsigned index, int operation)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    return epoll_ctl(e->epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/* --- listening --- */

static void edge_listen(struct edge *e, uint32_t events)
{
    for (unsigned i = 0; i < e->listener_count; i++) {
        /* MOD of a descriptor that is in the set needs no memory: it cannot fail. */
        int err = edge_register(e, e->listener[i].fd, events, EVENT_LISTENER, i, EPOLL_CTL_MOD);
        assert(err == 0);
        (void)err;
    }
}

/* Accepting fails and would fail again at once, while epoll goes on to report the listener. */
static void edge_pause(struct edge *e)
{
    edge_listen(e, 0);
    e->resume_ns = e->places.turn.now_ns + pause_ns;
}

/* No descriptor is left. One is kept for this: the client learns at once instead of hanging in the
 * backlog. False: that is lost too, to another thread that was quicker. */
static bool edge_turn_away(struct edge *e, int listen_fd)
{
    if (e->spare < 0)
        e->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (e->spare < 0)
        return false;
    close(e->spare);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        count_add(&e->stats.refused, 1);
    }
    e->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

static struct endpoint endpoint_of_client(const struct listener *l, const union name *name, int fd)
{
    int on = 1;
    if (l->of.unix_path)
        return (struct endpoint){.port = 0};
    /* Only makes answers faster. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* A reader that stops would else hold megabytes in the kernel before our own queue sees a byte.
     * Where it fails the kernel's own bounds hold. */
    int unsent = UNSENT_MAX;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    return endpoint_of_name(name, NULL);
}

static void edge_accept(struct edge *e, const struct listener *l)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        union name name;
        socklen_t len = sizeof name;
        int fd = accept4(l->fd, &name.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            struct endpoint from = endpoint_of_client(l, &name, fd);
            places_add(&e->places, fd, &l->of, &from);
            continue;
        }
        if (errno == EAGAIN)
            return;
        if (errno == ECONNABORTED || errno == EINTR)
            continue; /* that one is gone, the next may be good */
        if ((errno == EMFILE || errno == ENFILE) && edge_turn_away(e, l->fd))
            continue;
        edge_pause(e);
        return;
    }
}

/* --- the loop --- */

/* Milliseconds until something is due, rounded up: rounding down would spin through the last one.
 */
static int edge_timeout_ms(const struct edge *e)
{
    uint64_t now_ns = e->places.turn.now_ns, at_ns = now_ns + tick_ns_max;
    uint64_t sweep_ns = places_due_ns(&e->places);
    if (sweep_ns < at_ns)
        at_ns = sweep_ns;
    if (e->resume_ns != 0 && e->resume_ns < at_ns)
        at_ns = e->resume_ns;
    if (e->hook_ns < at_ns)
        at_ns = e->hook_ns;
    return at_ns <= now_ns ? 0 : (int)((at_ns - now_ns + 999999) / 1000000);
}

static void edge_event(struct edge *e, const struct epoll_event *event)
{
    unsigned index = (uint32_t)event->data.u64;
    uint64_t wakes;
    switch ((enum event_kind)(event->data.u64 >> 32)) {
    case EVENT_WAKE: /* the hook and the loop's condition look at why */
        while (read(e->wake, &wakes, sizeof wakes) < 0 && errno == EINTR)
            ;
        return;
    case EVENT_LISTENER:
        edge_accept(e, &e->listener[index]);
        return;
    case EVENT_CONN:
        places_event(&e->places, index);
        return;
    }
}

static void edge_turn(struct edge *e, const struct epoll_event *event, int n)
{
    struct places *p = &e->places;
    p->turn.now_ns = edge_clock_ns();
    atomic_store_explicit(&e->tick_ns, p->turn.now_ns, memory_order_relaxed);
    edge_take_tls(e);
    for (int i = 0; i < n; i++)
        edge_event(e, &event[i]);
    if (p->turn.now_ns >= places_due_ns(p))
        places_sweep(p);
    if (e->resume_ns != 0 && p->turn.now_ns >= e->resume_ns) {
        edge_listen(e, EPOLLIN);
        e->resume_ns = 0;
    }
    e->hook_ns = e->hook ? e->hook(e->hook_arg, &p->turn) : UINT64_MAX;
    places_flush(p);
    count_set(&e->stats.queued_bytes, e->queues.used);
}

static void *edge_run(void *arg)
{
    struct edge *e = arg;
    struct epoll_event event[EVENTS_MAX];

    /* A flood of TLS handshakes can keep this thread busy; the shards must not lose their cores to
     * it. Where it may not be set, they share equally. Linux takes 0 as this thread alone. */
    (void)setpriority(PRIO_PROCESS, 0, NICE);
    /* Relaxed: nothing else is published with the flag. */
    while (!atomic_load_explicit(&e->stopping, memory_order_relaxed)) {
        int n = epoll_wait(e->epoll, event, EVENTS_MAX, edge_timeout_ms(e));
        assert(n >= 0 || errno == EINTR); /* all else is our own mistake */
        edge_turn(e, event, n);
    }
    return NULL;
}

/* --- opening and closing --- */

static int edge_open_loop(struct edge *e, unsigned places)
{
    struct conn_turn *turn = &e->places.turn;
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    e->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (e->epoll < 0 || e->wake < 0 || e->spare < 0)
        return -errno;
    int err = places_open(&e->places, e->epoll, (uint64_t)EVENT_CONN << 32, places);
    if (err < 0)
        return err;
    turn->limits = &e->limits;
    turn->stats = &e->stats;
    turn->pool = &e->queues;
    turn->input = e->input;
    turn->now_ns = edge_clock_ns();
    turn->gate = gate_new(places + 1); /* one is over until it is refused */
    if (!turn->gate)
        return -ENOMEM;
    return edge_register(e, e->wake, EPOLLIN, EVENT_WAKE, 0, EPOLL_CTL_ADD);
}

static int edge_open_listener(struct edge *e, struct edge_listener *of)
{
    struct listener *l = &e->listener[e->listener_count];
    l->fd = of->unix_path ? listen_unix(of->unix_path, &l->file) : listen_tcp(&of->at);
    if (l->fd < 0)
        return l->fd;
    l->of = *of;
    return edge_register(e, l->fd, EPOLLIN, EVENT_LISTENER, e->listener_count++, EPOLL_CTL_ADD);
}

static struct edge_limits limits_of(unsigned places)
{
    return (struct edge_limits){
        .head_ms = EDGE_HEAD_SECONDS * 1000,
        .body_ms = EDGE_BODY_SECONDS * 1000,
        .idle_ms = EDGE_IDLE_SECONDS * 1000,
        .write_ms = EDGE_WRITE_SECONDS * 1000,
        .stuck_ms = EDGE_STUCK_SECONDS * 1000,
        .connections = places,
        .per_ipv4 = GATE_PER_IPV4,
        .per_ipv6_64 = GATE_PER_IPV6_64,
        .handshakes = {.per_s = 5, .burst = 20},
        .handshakes_total = {.per_s = 1500, .burst = 1500},
        .queue_each = 256 << 10,
        .queue_total = 64 << 20,
    };
}

int edge_open(struct edge **ret, struct edge_listener *listeners, unsigned count, unsigned sessions,
              const char **failed)
{
    assert(count <= EDGE_LISTENERS_MAX);
    unsigned places = EDGE_HTTP_CONNECTIONS + sessions;
    struct edge *e = calloc(1, sizeof *e);
    *failed = "epoll";
    if (!e)
        return -ENOMEM;
    e->epoll = e->wake = e->spare = -1;
    int err = edge_open_loop(e, places);
    for (unsigned i = 0; err == 0 && i < count; i++) {
        *failed = listeners[i].name;
        err = edge_open_listener(e, &listeners[i]);
    }
    if (err < 0) {
        edge_close(e);
        return err;
    }
    struct edge_limits limits = limits_of(places);
    edge_set_limits(e, &limits);
    *failed = NULL;
    *ret = e;
    return 0;
}

static bool has_tls_listener(const struct edge *e)
{
    for (unsigned i = 0; i < e->listener_count; i++)
        if (e->listener[i].of.tls)
            return true;
    return false;
}

/* Signals are the main thread's: the new thread inherits a full mask. (SIGPIPE, too: OpenSSL's
 * writes then fail with EPIPE, as ours do.) */
int edge_start(struct edge *e)
{
    sigset_t all, before;
    edge_take_tls(e);
    assert(e->places.turn.tls || !has_tls_listener(e));
    atomic_store_explicit(&e->tick_ns, edge_clock_ns(), memory_order_relaxed);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&e->thread, NULL, edge_run, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return -err;
    e->started = true;
    (void)pthread_setname_np(e->thread, "edge"); /* for people who look at the threads */
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void listener_close(const struct listener *l)
{
    if (l->of.unix_path)
        listen_unix_remove(l->of.unix_path, &l->file);
    close(l->fd);
}

void edge_close(struct edge *e)
{
    if (e->started) {
        atomic_store_explicit(&e->stopping, true, memory_order_relaxed);
        edge_wake(e);
        pthread_join(e->thread, NULL);
    }
    edge_take_tls(e);
    places_close(&e->places);
    for (unsigned i = 0; i < e->listener_count; i++)
        listener_close(&e->listener[i]);
    outqueue_pool_close(&e->queues);
    if (e->places.turn.gate)
        gate_free(e->places.turn.gate);
    if (e->places.turn.tls)
        tls_close(e->places.turn.tls);
    close_if_open(e->spare);
    close_if_open(e->wake);
    close_if_open(e->epoll);
    free(e);
}
