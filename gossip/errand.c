#include "gossip/errand.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct errand {
    const struct errand_kind *kind;
    void *what;
    int wake;                 /* our copy */
    _Atomic bool done;        /* publishes what `run` has written to `what` */
    _Atomic unsigned holders; /* the thread, and who sent it */
};

static void let_go(struct errand *e)
{
    /* Both orders: what the other has written is seen before it is disposed of. */
    if (atomic_fetch_sub_explicit(&e->holders, 1, memory_order_acq_rel) != 1)
        return;
    e->kind->dispose(e->what);
    close(e->wake);
    free(e);
}

static void *errand_run(void *arg)
{
    struct errand *e = arg;
    uint64_t one = 1;
    (void)pthread_setname_np(pthread_self(), e->kind->name); /* for people who look */
    e->kind->run(e->what);
    atomic_store_explicit(&e->done, true, memory_order_release);
    ssize_t n = write(e->wake, &one, sizeof one); /* fails only at 2^64 - 2 writes */
    (void)n;
    let_go(e);
    return NULL;
}

static int start_thread(struct errand *e)
{
    pthread_t thread;
    sigset_t all, before; /* signals are the main thread's; and no SIGPIPE from OpenSSL */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&thread, NULL, errand_run, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        pthread_detach(thread);
    return err;
}

struct errand *errand_start(const struct errand_kind *kind, void *what, int wake)
{
    struct errand *e = calloc(1, sizeof *e);
    if (!e)
        goto dispose;
    e->kind = kind;
    e->what = what;
    e->wake = fcntl(wake, F_DUPFD_CLOEXEC, 0);
    if (e->wake < 0)
        goto free_errand;
    atomic_init(&e->holders, 2);
    if (start_thread(e) < 0)
        goto close_wake;
    return e;
close_wake:
    close(e->wake);
free_errand:
    free(e);
dispose:
    kind->dispose(what);
    return NULL;
}

bool errand_is_done(const struct errand *e)
{
    return atomic_load_explicit(&e->done, memory_order_acquire);
}

void *errand_result(struct errand *e)
{
    assert(errand_is_done(e));
    return e->what;
}

void errand_drop(struct errand *e)
{
    let_go(e);
}
