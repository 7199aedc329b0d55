#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <resolv.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "wss/dialogue.h"
#include "wss/lookup.h"

enum { HOST_MAX = 255, PORT_TEXT = 6 };

static const uint64_t wait_ns = KEYS_LOOKUP_MS * UINT64_C(1000000);

/* The pause after the first failure, the second, ... */
static const unsigned pause_ms[] = {250, 500, 1000, 2000, 4000, 8000, 10000};
enum { PAUSES = sizeof pause_ms / sizeof *pause_ms };

struct lookup {
    /* Fixed by lookup_open. */
    char host[HOST_MAX + 1], port[PORT_TEXT];
    int wake;  /* our copy of the caller's, which may close its own first */
    int stop;  /* readable: the thread is to end */
    int asked; /* readable: there are requests */
    pthread_t thread;

    /* The edge's thread: ids that were asked for and not yet taken. That they are bounded bounds
     * both queues. */
    unsigned waiting_count;
    uint32_t waiting[KEYS_WAITING_MAX];

    /* The lookup thread. */
    struct dialogue dialogue;
    unsigned failures; /* in a row */

    /* The lookup thread writes, the edge's reads: questions are useless now. */
    _Atomic bool down;

    /* Protects all below. Held for a few instructions only. */
    pthread_mutex_t lock;
    bool resolving; /* the thread is in getaddrinfo, which cannot be interrupted */
    bool closing;   /* too late to begin that */
    bool orphaned;  /* lookup_close has gone: the thread frees everything */
    unsigned request_at, request_count, answer_at, answer_count;
    uint32_t request[KEYS_WAITING_MAX];
    struct lookup_answer answer[KEYS_WAITING_MAX];
};

static void lookup_free(struct lookup *l)
{
    dialogue_close(&l->dialogue);
    if (l->wake >= 0)
        close(l->wake);
    if (l->stop >= 0)
        close(l->stop);
    if (l->asked >= 0)
        close(l->asked);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* --- the queues --- */

static void make_readable(int event)
{
    uint64_t one = 1;
    ssize_t n = write(event, &one, sizeof one); /* fails only at 2^64 - 2 writes */
    (void)n;
}

static void make_unreadable(int event)
{
    uint64_t count;
    ssize_t n = read(event, &count, sizeof count); /* EAGAIN: it was not readable */
    (void)n;
}

static void put_request(struct lookup *l, uint32_t node_id)
{
    pthread_mutex_lock(&l->lock);
    assert(l->request_count < KEYS_WAITING_MAX);
    l->request[(l->request_at + l->request_count++) % KEYS_WAITING_MAX] = node_id;
    pthread_mutex_unlock(&l->lock);
    make_readable(l->asked);
}

static bool take_request(struct lookup *l, uint32_t *ret)
{
    pthread_mutex_lock(&l->lock);
    bool any = l->request_count > 0;
    if (any) {
        *ret = l->request[l->request_at];
        l->request_at = (l->request_at + 1) % KEYS_WAITING_MAX;
        l->request_count--;
    }
    pthread_mutex_unlock(&l->lock);
    return any;
}

static void put_answer(struct lookup *l, const struct lookup_answer *a)
{
    pthread_mutex_lock(&l->lock);
    assert(l->answer_count < KEYS_WAITING_MAX);
    l->answer[(l->answer_at + l->answer_count++) % KEYS_WAITING_MAX] = *a;
    pthread_mutex_unlock(&l->lock);
    make_readable(l->wake);
}

static bool take_answer(struct lookup *l, struct lookup_answer *ret)
{
    pthread_mutex_lock(&l->lock);
    bool any = l->answer_count > 0;
    if (any) {
        *ret = l->answer[l->answer_at];
        l->answer_at = (l->answer_at + 1) % KEYS_WAITING_MAX;
        l->answer_count--;
    }
    pthread_mutex_unlock(&l->lock);
    return any;
}

/* --- the thread --- */

/* Name servers that are silent cost one second each, not the usual ten. Read anew each time, as the
 * resolver's configuration may change while we run. */
static int resolve_now(const struct lookup *l, struct addrinfo **ret)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    if (res_init() == 0) {
        _res.retrans = 1;
        _res.retry = 1;
    }
    return getaddrinfo(l->host, l->port, &hints, ret) == 0 ? 0 : -EHOSTUNREACH;
}

static int resolve(struct lookup *l, struct addrinfo **ret)
{
    struct addrinfo *list = NULL;
    pthread_mutex_lock(&l->lock);
    bool closing = l->closing;
    l->resolving = !closing;
    pthread_mutex_unlock(&l->lock);
    if (closing)
        return -ECANCELED;
    int err = resolve_now(l, &list);
    pthread_mutex_lock(&l->lock);
    l->resolving = false;
    if (l->orphaned && err == 0)
        freeaddrinfo(list);
    if (l->orphaned)
        err = -ECANCELED;
    pthread_mutex_unlock(&l->lock);
    if (err == 0)
        *ret = list;
    return err;
}

static int reach(struct lookup *l, uint64_t until_ns)
{
    struct addrinfo *list;
    int err = resolve(l, &list);
    if (err < 0)
        return err;
    err = dialogue_connect(&l->dialogue, list, until_ns);
    freeaddrinfo(list);
    return err;
}

/* The registry may have closed the connection while we wrote: a second, fresh one decides. */
static int ask(struct lookup *l, struct lookup_answer *a)
{
    uint64_t until_ns = dialogue_now_ns() + wait_ns;
    for (;;) {
        bool used = dialogue_is_ready(&l->dialogue);
        int err = used ? 0 : reach(l, until_ns);
        if (err == 0)
            err = dialogue_ask(&l->dialogue, a->node_id, until_ns, &a->verdict, a->key);
        if (err < 0 || a->verdict == KEYS_FAILED)
            dialogue_hang_up(&l->dialogue);
        if (err != -ECONNRESET || !used)
            return err;
    }
}

static void fail_waiting(struct lookup *l)
{
    struct lookup_answer a = {.verdict = KEYS_FAILED};
    while (take_request(l, &a.node_id))
        put_answer(l, &a);
}

/* False: the thread is to end. */
static bool pause_after_failure(struct lookup *l)
{
    unsigned ms = pause_ms[l->failures < PAUSES ? l->failures : PAUSES - 1];
    uint64_t until_ns = dialogue_now_ns() + ms * UINT64_C(1000000);
    int err;
    l->failures++;
    do {
        make_unreadable(l->asked);
        fail_waiting(l);
        err = dialogue_wait(l->stop, l->asked, POLLIN, until_ns);
    } while (err == 0);
    atomic_store_explicit(&l->down, false, memory_order_relaxed);
    return err == -ETIMEDOUT;
}

/* False: the thread is to end. */
static bool answer(struct lookup *l, uint32_t node_id)
{
    struct lookup_answer a = {.verdict = KEYS_FAILED, .node_id = node_id};
    int err = ask(l, &a);
    if (err == -ECANCELED)
        return false;
    /* Relaxed: who takes the answer sees it by the lock; who asks before that, and does not see it
     * yet, is answered by fail_waiting. */
    if (err < 0)
        atomic_store_explicit(&l->down, true, memory_order_relaxed);
    put_answer(l, &a);
    if (err < 0)
        return pause_after_failure(l);
    l->failures = 0;
    return true;
}

/* Until there are requests, or the thread is to end: then false. What the registry does meanwhile
 * can only be closing, or talk out of turn: both end the connection. */
static bool idle(struct lookup *l)
{
    struct pollfd p[] = {{.fd = l->stop, .events = POLLIN},
                         {.fd = l->asked, .events = POLLIN},
                         {.fd = l->dialogue.fd, .events = POLLIN}};
    if (poll(p, 3, -1) < 0)
        return errno == EINTR;
    if (p[2].revents)
        dialogue_hang_up(&l->dialogue);
    return !p[0].revents;
}

static void *lookup_run(void *arg)
{
    struct lookup *l = arg;
    uint32_t node_id;
    bool going = true;
    while (going && idle(l)) {
        make_unreadable(l->asked); /* before the queue is read: what comes later shows again */
        while (going && take_request(l, &node_id))
            going = answer(l, node_id);
    }
    pthread_mutex_lock(&l->lock);
    bool orphaned = l->orphaned;
    pthread_mutex_unlock(&l->lock);
    if (orphaned)
        lookup_free(l);
    return NULL;
}

/* --- the edge's side --- */

/* "host:port", "[ipv6]:port". */
static bool read_registry(struct lookup *l, const char *text)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text)
        return false;
    size_t len = (size_t)(colon - text), port_len = strlen(colon + 1);
    if (text[0] == '[' && colon[-1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return false;
    }
    if (len == 0 || len > HOST_MAX || port_len == 0 || port_len >= PORT_TEXT)
        return false;
    unsigned long port = strtoul(colon + 1, NULL, 10);
    if (strspn(colon + 1, "0123456789") != port_len || port == 0 || port > UINT16_MAX)
        return false;
    memcpy(l->host, text, len); /* all was zero: it ends */
    memcpy(l->port, colon + 1, port_len);
    return true;
}

static int start(struct lookup *l)
{
    sigset_t all, before; /* signals are the main thread's: the new one inherits a full mask */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&l->thread, NULL, lookup_run, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        (void)pthread_setname_np(l->thread, "lookup"); /* for people who look at the threads */
    return err;
}

struct lookup *lookup_open(const struct keys_config *c, char error[static KEYS_ERROR_MAX])
{
    struct lookup *l = calloc(1, sizeof *l);
    if (!l) {
        snprintf(error, KEYS_ERROR_MAX, "registry: no memory");
        return NULL;
    }
    l->wake = fcntl(c->wake, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_init(&l->lock, NULL);
    l->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->asked = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int err = l->wake < 0 || l->stop < 0 || l->asked < 0 ? -errno : 0;
    int opened = dialogue_open(&l->dialogue, c->lookup, l->stop);
    if (err == 0)
        err = opened;
    if (!read_registry(l, c->registry))
        snprintf(error, KEYS_ERROR_MAX, "registry = %s: not host:port", c->registry);
    else if (err < 0 || (err = start(l)) < 0)
        snprintf(error, KEYS_ERROR_MAX, "registry: cannot start lookups: %s", strerror(-err));
    else
        return l;
    lookup_free(l);
    return NULL;
}

void lookup_close(struct lookup *l)
{
    pthread_t thread = l->thread; /* an orphan may be gone as soon as the lock is free */
    pthread_mutex_lock(&l->lock);
    make_readable(l->stop);
    bool orphaned = l->resolving;
    l->closing = true;
    l->orphaned = orphaned;
    pthread_mutex_unlock(&l->lock);
    if (orphaned) {
        pthread_detach(thread);
        return;
    }
    pthread_join(thread, NULL);
    lookup_free(l);
}

enum keys_verdict lookup_ask(struct lookup *l, uint32_t node_id, bool *ret_asked)
{
    *ret_asked = false;
    for (unsigned i = 0; i < l->waiting_count; i++)
        if (l->waiting[i] == node_id)
            return KEYS_WAIT;
    if (l->waiting_count == KEYS_WAITING_MAX ||
        atomic_load_explicit(&l->down, memory_order_relaxed))
        return KEYS_FAILED;
    l->waiting[l->waiting_count++] = node_id;
    put_request(l, node_id);
    *ret_asked = true;
    return KEYS_WAIT;
}

bool lookup_take(struct lookup *l, struct lookup_answer *ret)
{
    struct lookup_answer a;
    if (!take_answer(l, &a))
        return false;
    unsigned i = 0;
    while (l->waiting[i] != a.node_id) {
        i++;
        assert(i < l->waiting_count);
    }
    l->waiting[i] = l->waiting[--l->waiting_count];
    *ret = a;
    return true;
}
