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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "proto/sockaddr.h"
#include "server/stats.h"
#include "wss/conn.h"
#include "wss/edge.h"

enum {
    BACKLOG = 512,
    EVENTS_MAX = 64,     /* one epoll_wait; more come with the next */
    ACCEPTS_A_TURN = 16, /* per listener, so that a flood of connections leaves time for answers */
};
static const uint64_t tick_ns_max = 1000000000; /* the watchdog wants to see the loop turn */
static const uint64_t pause_ns = 100000000;     /* no accept that fails is tried sooner */

/* What an epoll event belongs to: kind in the upper half of its data, index in the lower. */
enum event_kind { EVENT_WAKE, EVENT_LISTENER, EVENT_CONN };

/* slot[0..active) are the connections in use, the others are free. The source lies beside the
 * pointer, so that counting a source touches no connection. */
struct slot {
    struct conn *conn;
    struct endpoint source;
};

struct edge {
    /* Fixed before the thread starts. */
    int epoll, wake;
    unsigned listener_count;
    struct edge_listener listener[EDGE_LISTENERS_MAX];
    int listen_fd[EDGE_LISTENERS_MAX];
    struct edge_limits limits;
    struct conn *pool;
    pthread_t thread;
    bool started;

    /* The thread's alone. */
    int spare; /* given up for a moment when descriptors run out; -1: lost */
    unsigned active;
    struct slot slot[EDGE_CONNECTIONS_MAX];
    uint64_t sweep_ns;  /* no deadline ends before */
    uint64_t resume_ns; /* when listening goes on; 0: it is on */

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

void edge_set_limits(struct edge *e, const struct edge_limits *limits)
{
    assert(!e->started);
    assert(limits->connections <= EDGE_CONNECTIONS_MAX);
    e->limits = *limits;
}

/* --- connections --- */

static int edge_register(const struct edge *e, int fd, uint32_t events, enum event_kind kind,
                         unsigned index, int operation)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    return epoll_ctl(e->epoll, operation, fd, &event) < 0 ? -errno : 0;
}

static unsigned source_count(const struct edge *e, const struct endpoint *source, unsigned bits)
{
    unsigned count = 0;
    for (unsigned i = 0; i < e->active; i++)
        count += endpoint_same_prefix(&e->slot[i].source, source, bits);
    return count;
}

/* Whether its source may have one more connection. */
static bool source_has_room(const struct edge *e, const struct endpoint *source)
{
    const struct edge_limits *l = &e->limits;
    if (endpoint_is_v4(source))
        return source_count(e, source, 32) < l->per_ipv4;
    return source_count(e, source, 64) < l->per_ipv6_64 &&
           source_count(e, source, 48) < l->per_ipv6_64 * EDGE_IPV6_48_TIMES;
}

static bool conn_in_use(const struct edge *e, const struct conn *c)
{
    return c->slot < e->active && e->slot[c->slot].conn == c;
}

static void conn_remove(struct edge *e, struct conn *c)
{
    unsigned last = --e->active;
    struct slot freed = e->slot[c->slot];

    conn_close(c); /* leaves the epoll set with its only descriptor */
    e->slot[c->slot] = e->slot[last];
    e->slot[c->slot].conn->slot = c->slot;
    e->slot[last] = freed;
    count_set(&e->stats.connections, e->active);
}

/* Which of two connections gives up its place first: an idle one, then one whose head is awaited,
 * the older of equals. An answer is never cut off. */
static bool yields_before(const struct conn *a, const struct conn *b)
{
    if (a->state != b->state)
        return a->state == CONN_IDLE;
    return a->deadline_ns < b->deadline_ns;
}

/* Ends a connection that does nothing, so that a full pool cannot keep a load balancer's check out.
 */
static bool room_made(struct edge *e)
{
    struct conn *victim = NULL;
    for (unsigned i = 0; i < e->active; i++) {
        struct conn *c = e->slot[i].conn;
        bool waits = c->state == CONN_IDLE || c->state == CONN_HEAD;
        if (waits && (!victim || yields_before(c, victim)))
            victim = c;
    }
    if (!victim)
        return false;
    conn_remove(e, victim);
    count_add(&e->stats.refused, 1);
    return true;
}

/* Waits for what the connection wants now; the next deadline may be its own. */
static void conn_rearm(struct edge *e, struct conn *c)
{
    uint32_t events = conn_events(c);
    if (events != c->events) {
        unsigned index = (unsigned)(c - e->pool);
        if (edge_register(e, c->fd, events, EVENT_CONN, index, EPOLL_CTL_MOD) < 0) {
            conn_remove(e, c); /* it would never be heard of again */
            return;
        }
        c->events = events;
    }
    if (c->deadline_ns < e->sweep_ns)
        e->sweep_ns = c->deadline_ns;
}

static bool conn_add(struct edge *e, int fd, unsigned listener, const struct endpoint *from,
                     const struct conn_turn *turn)
{
    if (!source_has_room(e, from) || (e->active >= e->limits.connections && !room_made(e)))
        return false;
    struct conn *c = e->slot[e->active].conn;
    if (edge_register(e, fd, EPOLLIN, EVENT_CONN, (unsigned)(c - e->pool), EPOLL_CTL_ADD) < 0)
        return false;
    conn_open(c, fd, &e->listener[listener], turn);
    c->events = EPOLLIN;
    c->slot = e->active;
    e->slot[e->active++].source = *from;
    conn_rearm(e, c);
    count_add(&e->stats.accepted, 1);
    count_set(&e->stats.connections, e->active);
    return true;
}

/* --- listening --- */

/* A connection that got no place is closed at once; that a client sees, silence it would wait for.
 */
static void edge_take(struct edge *e, int fd, unsigned listener, const union name *name,
                      const struct conn_turn *turn)
{
    struct endpoint from = endpoint_of_name(name, NULL);
    int on = 1;

    if (!conn_add(e, fd, listener, &from, turn)) {
        count_add(&e->stats.refused, 1);
        close(fd);
        return;
    }
    /* Only makes answers faster. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void edge_listen(struct edge *e, uint32_t events)
{
    for (unsigned i = 0; i < e->listener_count; i++) {
        /* MOD of a descriptor that is in the set needs no memory: it cannot fail. */
        int err = edge_register(e, e->listen_fd[i], events, EVENT_LISTENER, i, EPOLL_CTL_MOD);
        assert(err == 0);
        (void)err;
    }
}

/* Accepting fails and would fail again at once, while epoll goes on to report the listener. */
static void edge_pause(struct edge *e, uint64_t now_ns)
{
    edge_listen(e, 0);
    e->resume_ns = now_ns + pause_ns;
}

/* No descriptor is left. One is kept for this: the client learns at once instead of hanging in the
 * backlog. False: that is lost
 * too, to another thread that was quicker. */
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

static void edge_accept(struct edge *e, unsigned listener, const struct conn_turn *turn)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        union name name;
        socklen_t len = sizeof name;
        int fd = accept4(e->listen_fd[listener], &name.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            edge_take(e, fd, listener, &name, turn);
            continue;
        }
        if (errno == EAGAIN)
            return;
        if (errno == ECONNABORTED || errno == EINTR)
            continue; /* that one is gone, the next may be good */
        if ((errno == EMFILE || errno == ENFILE) && edge_turn_away(e, e->listen_fd[listener]))
            continue;
        edge_pause(e, turn->now_ns);
        return;
    }
}

/* --- the loop --- */

static void edge_sweep(struct edge *e, const struct conn_turn *turn)
{
    e->sweep_ns = turn->now_ns + tick_ns_max;
    for (unsigned i = e->active; i-- > 0;) { /* backwards: removal moves the last one here */
        struct conn *c = e->slot[i].conn;
        if (c->deadline_ns <= turn->now_ns) {
            conn_expired(c, turn);
            conn_remove(e, c);
        } else if (c->deadline_ns < e->sweep_ns) {
            e->sweep_ns = c->deadline_ns;
        }
    }
}

/* Milliseconds until something is due, rounded up: rounding down would spin through the last one.
 */
static int edge_timeout_ms(const struct edge *e, uint64_t now_ns)
{
    uint64_t at_ns = e->sweep_ns;
    if (e->resume_ns != 0 && e->resume_ns < at_ns)
        at_ns = e->resume_ns;
    return at_ns <= now_ns ? 0 : (int)((at_ns - now_ns + 999999) / 1000000);
}

static void edge_event(struct edge *e, const struct epoll_event *event,
                       const struct conn_turn *turn)
{
    unsigned index = (uint32_t)event->data.u64;
    switch ((enum event_kind)(event->data.u64 >> 32)) {
    case EVENT_WAKE: /* the loop's condition looks at why */
        return;
    case EVENT_LISTENER:
        edge_accept(e, index, turn);
        return;
    case EVENT_CONN:
        if (!conn_in_use(e, &e->pool[index]))
            return; /* it gave up its place earlier in this turn */
        if (conn_ready(&e->pool[index], turn))
            conn_rearm(e, &e->pool[index]);
        else
            conn_remove(e, &e->pool[index]);
        return;
    }
}

static void *edge_run(void *arg)
{
    struct edge *e = arg;
    struct conn_turn turn = {.limits = &e->limits, .stats = &e->stats, .now_ns = edge_clock_ns()};
    struct epoll_event event[EVENTS_MAX];

    e->sweep_ns = turn.now_ns + tick_ns_max;
    /* Relaxed: nothing else is published with the flag. */
    while (!atomic_load_explicit(&e->stopping, memory_order_relaxed)) {
        int n = epoll_wait(e->epoll, event, EVENTS_MAX, edge_timeout_ms(e, turn.now_ns));
        assert(n >= 0 || errno == EINTR); /* all else is our own mistake */
        turn.now_ns = edge_clock_ns();
        atomic_store_explicit(&e->tick_ns, turn.now_ns, memory_order_relaxed);
        for (int i = 0; i < n; i++)
            edge_event(e, &event[i], &turn);
        if (turn.now_ns >= e->sweep_ns)
            edge_sweep(e, &turn);
        if (e->resume_ns != 0 && turn.now_ns >= e->resume_ns) {
            edge_listen(e, EPOLLIN);
            e->resume_ns = 0;
        }
    }
    return NULL;
}

/* --- opening and closing --- */

static int socket_listen(int family, struct endpoint *at)
{
    int on = 1, off = 0, err;
    union name name;
    socklen_t len = name_of_endpoint(&name, at, family, 0);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        goto close_socket;
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
        goto close_socket;
    if (bind(fd, &name.any, len) < 0 || listen(fd, BACKLOG) < 0)
        goto close_socket;
    len = sizeof name;
    if (getsockname(fd, &name.any, &len) < 0)
        goto close_socket;
    at->port = endpoint_of_name(&name, NULL).port;
    return fd;

close_socket:
    err = -errno;
    close(fd);
    return err;
}

static int listener_open(struct endpoint *at)
{
    static const uint8_t any[16];
    if (endpoint_is_v4(at))
        return socket_listen(AF_INET, at);
    int fd = socket_listen(AF_INET6, at);
    /* A kernel without IPv6, or with it switched off: "any address" then means any of IPv4. */
    if ((fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) && memcmp(at->ip, any, sizeof any) == 0)
        return socket_listen(AF_INET, at);
    return fd;
}

static int edge_open_loop(struct edge *e)
{
    e->pool = calloc(EDGE_CONNECTIONS_MAX, sizeof *e->pool);
    if (!e->pool)
        return -ENOMEM;
    for (unsigned i = 0; i < EDGE_CONNECTIONS_MAX; i++)
        e->slot[i].conn = &e->pool[i];
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    e->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (e->epoll < 0 || e->wake < 0 || e->spare < 0)
        return -errno;
    return edge_register(e, e->wake, EPOLLIN, EVENT_WAKE, 0, EPOLL_CTL_ADD);
}

int edge_open(struct edge **ret, struct edge_listener *listeners, unsigned count,
              const char **failed)
{
    assert(count <= EDGE_LISTENERS_MAX);
    struct edge *e = calloc(1, sizeof *e);
    *failed = "epoll";
    if (!e)
        return -ENOMEM;
    e->epoll = e->wake = e->spare = -1;
    e->limits = (struct edge_limits){
        .head_ms = EDGE_HEAD_SECONDS * 1000,
        .idle_ms = EDGE_IDLE_SECONDS * 1000,
        .write_ms = EDGE_WRITE_SECONDS * 1000,
        .connections = EDGE_CONNECTIONS_MAX,
        .per_ipv4 = EDGE_PER_IPV4,
        .per_ipv6_64 = EDGE_PER_IPV6_64,
    };
    int err = edge_open_loop(e);
    for (unsigned i = 0; err == 0 && i < count; i++) {
        *failed = listeners[i].name;
        int fd = listener_open(&listeners[i].at);
        if (fd < 0) {
            err = fd;
            break;
        }
        e->listener[i] = listeners[i];
        e->listen_fd[i] = fd;
        e->listener_count = i + 1;
        err = edge_register(e, fd, EPOLLIN, EVENT_LISTENER, i, EPOLL_CTL_ADD);
    }
    if (err < 0) {
        edge_close(e);
        return err;
    }
    *failed = NULL;
    *ret = e;
    return 0;
}

/* Signals are the main thread's: the new thread inherits a full mask. */
int edge_start(struct edge *e)
{
    sigset_t all, before;
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

void edge_close(struct edge *e)
{
    if (e->started) {
        uint64_t one = 1;
        atomic_store_explicit(&e->stopping, true, memory_order_relaxed);
        ssize_t n = write(e->wake, &one, sizeof one); /* fails only at 2^64 - 2 wakes */
        (void)n;
        pthread_join(e->thread, NULL);
    }
    while (e->active > 0)
        conn_remove(e, e->slot[0].conn);
    for (unsigned i = 0; i < e->listener_count; i++)
        close(e->listen_fd[i]);
    close_if_open(e->spare);
    close_if_open(e->wake);
    close_if_open(e->epoll);
    free(e->pool);
    free(e);
}
