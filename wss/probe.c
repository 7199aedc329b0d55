#include <errno.h>
#include <openssl/ssl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "proto/sockaddr.h"
#include "proto/stun.h"
#include "wss/probe.h"

int64_t probe_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int socket_connect(const struct endpoint *at)
{
    int family = endpoint_is_v4(at) ? AF_INET : AF_INET6;
    union name name;
    socklen_t len = name_of_endpoint(&name, at, family, 0);
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, &name.any, len) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* Waits until `until_ns`. 0: the socket has something to say; or -errno, -ETIMEDOUT. */
static int socket_wait(int fd, int64_t until_ns)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left_ns = until_ns - probe_clock_ns();
        if (left_ns <= 0)
            return -ETIMEDOUT;
        struct timespec left = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
        int n = ppoll(&p, 1, &left, NULL);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* Reads until the answer to `id` comes: strangers' datagrams and late answers are passed over. */
static int answer_wait(int fd, const uint8_t id[static 12], int64_t until_ns)
{
    uint8_t bytes[512];
    struct endpoint mapped;
    for (;;) {
        int err = socket_wait(fd, until_ns);
        if (err < 0)
            return err;
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n > 0 && stun_read_mapped(bytes, (size_t)n, id, &mapped))
            return 0;
    }
}

static int64_t socket_probe(int fd, int64_t wait_ns)
{
    uint8_t id[12], request[64];
    struct writer w = writer_of(request, sizeof request);
    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        return -EIO;
    stun_write_request(&w, id, false);
    size_t len = written(&w);

    int64_t start_ns = probe_clock_ns();
    int err = -ETIMEDOUT;
    for (int try = 1; try <= 2 && err == -ETIMEDOUT; try++) {
        if (send(fd, request, len, 0) < 0)
            return -errno;
        err = answer_wait(fd, id, start_ns + wait_ns * try / 2);
    }
    return err < 0 ? err : probe_clock_ns() - start_ns;
}

int64_t stun_probe(const struct endpoint *at, unsigned wait_ms)
{
    int fd = socket_connect(at);
    if (fd < 0)
        return fd;
    int64_t result = socket_probe(fd, (int64_t)wait_ms * 1000000);
    close(fd);
    return result;
}

/* True: time for the next round. False: the thread is to end. */
static bool prober_sleep(const struct prober *p)
{
    return socket_wait(p->stop, probe_clock_ns() + ADMIN_PROBE_CACHE_MS * INT64_C(1000000)) != 0;
}

static void *prober_run(void *arg)
{
    struct prober *p = arg;
    do {
        for (unsigned i = 0; i < PROBE_TARGETS; i++) {
            const struct probe_target *t = &p->target[i];
            if (t->at.port == 0)
                continue;
            bool answered =
                (t->how == PROBE_STUN ? stun_probe(&t->at, ADMIN_PROBE_WAIT_MS)
                                      : http_probe(t, p->context, ADMIN_PROBE_WAIT_MS)) >= 0;
            /* Relaxed: nothing else is published with it. */
            atomic_store_explicit(&p->state[i], answered ? PROBE_OK : PROBE_FAILED,
                                  memory_order_relaxed);
        }
    } while (prober_sleep(p));
    return NULL;
}

int prober_start(struct prober *p, const struct probe_target target[static PROBE_TARGETS])
{
    bool tls = false;
    for (unsigned i = 0; i < PROBE_TARGETS; i++) {
        p->target[i] = target[i];
        tls |= target[i].how == PROBE_HTTPS && target[i].at.port != 0;
        atomic_store_explicit(&p->state[i], target[i].at.port == 0 ? PROBE_OFF : PROBE_STARTING,
                              memory_order_relaxed);
    }
    p->context = tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (tls && !p->context)
        return -ENOMEM;
    p->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->stop < 0) {
        int error = -errno;
        SSL_CTX_free(p->context);
        return error;
    }
    sigset_t all, before; /* signals are the main thread's: the new one inherits a full mask */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&p->thread, NULL, prober_run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err < 0) {
        close(p->stop);
        SSL_CTX_free(p->context);
        return err;
    }
    (void)pthread_setname_np(p->thread, "prober"); /* for people who look at the threads */
    p->started = true;
    return 0;
}

void prober_stop(struct prober *p)
{
    if (!p->started)
        return;
    uint64_t one = 1;
    ssize_t n = write(p->stop, &one, sizeof one); /* fails only at 2^64 - 2 writes */
    (void)n;
    pthread_join(p->thread, NULL);
    close(p->stop);
    SSL_CTX_free(p->context);
    p->started = false;
}

enum probe_state prober_state(const struct prober *p, unsigned target)
{
    return atomic_load_explicit(&p->state[target], memory_order_relaxed);
}
