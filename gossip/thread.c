#include "gossip/thread.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "proto/sockaddr.h"

enum {
    BATCH = 32,  /* datagrams a call */
    BATCHES = 8, /* calls a socket and turn */
    DATAGRAM_MAX = 65536,
    SENDS_MAX = 512, /* frames a turn: then what came is read first */
    SLICES = PILOT_SLICES_MAX,
    STACK_BYTES = 512 * 1024,
    NICE = 5, /* shards go first */
    GONE_TURNS = 3,
};
#define IDLE_NS UINT64_C(1000000000)

/* One writer, the thread; anyone reads. */
struct counters {
    _Atomic uint64_t sent, sent_bytes, send_errors, drops, tick_ns;
};

struct mesh_thread {
    struct mesh_thread_config config;
    struct gossip *gossip;
    pthread_t thread;
    bool running;
    _Atomic bool stopping, quietly;
    int wake;
    unsigned slice_count;
    int slice[SLICES];
    struct counters counters;
    uint64_t second_ns;
    uint64_t drops_before; /* of the socket, under a former owner */
    bool more;             /* the next turn must not sleep */
    union name names[BATCH];
    struct iovec iov[BATCH];
    struct mmsghdr header[BATCH];
    uint8_t *buffers;
};

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void count(_Atomic uint64_t *counter, uint64_t more)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + more, memory_order_relaxed);
}

/* --- in --- */

static void datagram_input(struct mesh_thread *t, uint8_t *bytes, size_t len,
                           const struct endpoint *from, uint64_t now_ns)
{
    const struct mesh_thread_config *c = &t->config;
    if (len > 0 && (bytes[0] == GOSSIP_TYPE || bytes[0] == 0x07))
        c->verdict(c->arg, gossip_input(t->gossip, bytes, len, from, now_ns), len);
    else
        c->other(c->arg, bytes, len, from);
}

static void batch_prepare(struct mesh_thread *t)
{
    for (unsigned i = 0; i < BATCH; i++) {
        t->iov[i] = (struct iovec){t->buffers + (size_t)i * DATAGRAM_MAX, DATAGRAM_MAX};
        t->header[i].msg_hdr = (struct msghdr){.msg_name = &t->names[i],
                                               .msg_namelen = sizeof t->names[i],
                                               .msg_iov = &t->iov[i],
                                               .msg_iovlen = 1};
    }
}

/* True: there may be more. */
static bool socket_read(struct mesh_thread *t, int fd, uint64_t now_ns)
{
    for (int n = 0; n < BATCHES; n++) {
        batch_prepare(t);
        int got = recvmmsg(fd, t->header, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++) {
            struct endpoint from = endpoint_of_name(&t->names[i], NULL);
            size_t len = t->header[i].msg_len;
            datagram_input(t, t->iov[i].iov_base, len, &from, now_ns);
        }
        if (got < BATCH)
            return false;
    }
    return true;
}

/* --- out --- */

/* A port of its own for each slice, at the service's address. */
static int slice_open(const struct mesh_thread_config *c)
{
    struct endpoint at = c->bound;
    union name name;
    at.port = 0;
    socklen_t len = name_of_endpoint(&name, &at, c->family, 0);
    int fd = socket(c->family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), off = 0;
    if (fd < 0)
        return -1;
    if ((c->family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0) ||
        bind(fd, &name.any, len) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int slice_fd(struct mesh_thread *t, unsigned slice)
{
    if (slice == 0)
        return t->config.sender;
    while (t->slice_count < slice && t->slice_count < SLICES) {
        int fd = slice_open(&t->config);
        if (fd < 0)
            return -1;
        t->slice[t->slice_count++] = fd;
    }
    return slice <= t->slice_count ? t->slice[slice - 1] : -1;
}

static void frame_send(struct mesh_thread *t, const struct gossip_out *out)
{
    union name name;
    socklen_t len = name_of_endpoint(&name, &out->to, t->config.family, 0);
    int fd = slice_fd(t, out->slice);
    if (fd < 0 || len == 0 || sendto(fd, out->bytes, out->len, MSG_DONTWAIT, &name.any, len) < 0) {
        count(&t->counters.send_errors, 1); /* what matters is sent again */
        return;
    }
    count(&t->counters.sent, 1);
    count(&t->counters.sent_bytes, out->len);
}

/* True: there is more. */
static bool frames_send(struct mesh_thread *t, uint64_t now_ns)
{
    struct gossip_out out;
    for (int n = 0; n < SENDS_MAX; n++) {
        if (!gossip_send(t->gossip, now_ns, &out))
            return false;
        frame_send(t, &out);
    }
    return true;
}

/* --- the loop --- */

static uint64_t socket_lost(int fd)
{
    uint32_t info[SK_MEMINFO_VARS];
    socklen_t len = sizeof info;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 ||
        len <= SK_MEMINFO_DROPS * sizeof *info)
        return 0;
    return info[SK_MEMINFO_DROPS];
}

static void wait_for_news(struct mesh_thread *t, uint64_t timeout_ns)
{
    struct pollfd fds[SLICES + 2];
    nfds_t n = 0;
    uint64_t wakes;
    fds[n++] = (struct pollfd){.fd = t->wake, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = t->config.socket, .events = POLLIN}; /* -1 is passed over */
    for (unsigned i = 0; i < t->slice_count; i++)
        fds[n++] = (struct pollfd){.fd = t->slice[i], .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    if (ppoll(fds, n, &timeout, NULL) <= 0)
        return;
    if (fds[0].revents && read(t->wake, &wakes, sizeof wakes) < 0)
        return; /* somebody took it: only this thread reads, so it was spurious */
    uint64_t now_ns = now();
    for (nfds_t i = 1; i < n; i++)
        if (fds[i].revents)
            t->more |= socket_read(t, fds[i].fd, now_ns);
}

static void turn(struct mesh_thread *t)
{
    const struct mesh_thread_config *c = &t->config;
    uint64_t now_ns = now(), next_ns = gossip_next_ns(t->gossip), timeout_ns = 0;
    if (!t->more && next_ns > now_ns)
        timeout_ns = next_ns - now_ns < IDLE_NS ? next_ns - now_ns : IDLE_NS;
    t->more = false;
    wait_for_news(t, timeout_ns);
    now_ns = now();
    t->more |= c->inbox(c->arg, t->gossip, now_ns);
    gossip_tick(t->gossip, now_ns);
    t->more |= frames_send(t, now_ns);
    t->more |= c->outbox(c->arg, t->gossip, now_ns);
    c->flush(c->arg);
    if (now_ns >= t->second_ns) {
        t->second_ns = now_ns + 1000000000;
        c->second(c->arg, t->gossip, now_ns);
        atomic_store_explicit(&t->counters.drops, socket_lost(c->socket) - t->drops_before,
                              memory_order_relaxed);
    }
    atomic_store_explicit(&t->counters.tick_ns, now_ns, memory_order_relaxed);
}

static void *thread_main(void *arg)
{
    struct mesh_thread *t = arg;
    setpriority(PRIO_PROCESS, 0, NICE); /* of this thread alone; refused is no harm */
    while (!atomic_load_explicit(&t->stopping, memory_order_relaxed))
        turn(t);
    if (atomic_load_explicit(&t->quietly, memory_order_relaxed))
        return NULL;
    gossip_leave(t->gossip, now());
    for (int i = 0; i < GONE_TURNS && frames_send(t, now()); i++)
        continue;
    return NULL;
}

/* --- life --- */

int mesh_thread_open(struct mesh_thread **ret, const struct mesh_thread_config *c)
{
    struct mesh_thread *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->config = *c;
    t->gossip = c->gossip;
    t->drops_before = socket_lost(c->socket);
    t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int err = t->wake < 0 ? -errno : 0;
    t->buffers = malloc((size_t)BATCH * DATAGRAM_MAX);
    if (err < 0 || !t->buffers) {
        if (t->wake >= 0)
            close(t->wake);
        free(t->buffers);
        free(t);
        return err < 0 ? err : -ENOMEM;
    }
    *ret = t;
    return 0;
}

int mesh_thread_start(struct mesh_thread *t)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    atomic_store(&t->counters.tick_ns, now());
    int err = -pthread_create(&t->thread, &attr, thread_main, t);
    pthread_attr_destroy(&attr);
    if (err < 0)
        return err;
    t->running = true;
    pthread_setname_np(t->thread, "mesh");
    return 0;
}

void mesh_thread_wake(const struct mesh_thread *t)
{
    uint64_t one = 1;
    ssize_t n = write(t->wake, &one, sizeof one); /* fails only when it is awake */
    (void)n;
}

int mesh_thread_wake_fd(const struct mesh_thread *t)
{
    return t->wake;
}

uint64_t mesh_thread_tick_ns(const struct mesh_thread *t)
{
    return atomic_load_explicit(&t->counters.tick_ns, memory_order_relaxed);
}

void mesh_thread_stop(struct mesh_thread *t, bool quietly)
{
    if (!t->running)
        return;
    atomic_store_explicit(&t->quietly, quietly, memory_order_relaxed);
    atomic_store_explicit(&t->stopping, true, memory_order_relaxed);
    mesh_thread_wake(t);
    pthread_join(t->thread, NULL);
    t->running = false;
    atomic_store_explicit(&t->stopping, false, memory_order_relaxed);
}

void mesh_thread_close(struct mesh_thread *t)
{
    mesh_thread_stop(t, true);
    for (unsigned i = 0; i < t->slice_count; i++)
        close(t->slice[i]);
    close(t->wake);
    free(t->buffers);
    free(t);
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void mesh_thread_stats(const struct mesh_thread *t, struct mesh_thread_stats *ret)
{
    const struct counters *c = &t->counters;
    *ret = (struct mesh_thread_stats){.sent = counted(&c->sent),
                                      .sent_bytes = counted(&c->sent_bytes),
                                      .send_errors = counted(&c->send_errors),
                                      .kernel_drops = counted(&c->drops)};
}
