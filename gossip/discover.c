#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gossip/discover_state.h"

enum {
    FILE_MAX = 1 << 18,
    LEAVE_MS = 600, /* so long close waits for what is under way */
    LEAVE_STEP_MS = 10,
    TEXT_MAX = 512,
};
#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void ring(int event)
{
    uint64_t one = 1;
    ssize_t n = write(event, &one, sizeof one); /* fails only at 2^64 - 2 writes */
    (void)n;
}

uint64_t discover_hash(uint64_t h, const char *text)
{
    h = h ? h : 0xcbf29ce484222325u;
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 0x100000001b3u;
    return h;
}

void discover_say(const struct discover *d, uint64_t *said, bool bad, const char *what,
                  const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    uint64_t hash = discover_hash(0, text);
    if (hash != *said && d->c.say)
        d->c.say(d->c.arg, bad, what, text);
    *said = hash;
}

/* --- the result --- */

static bool is_same(const struct gossip_seed *a, const struct gossip_seed *b)
{
    return endpoint_equal(&a->at, &b->at) && a->id == b->id && a->is_pilot == b->is_pilot;
}

static void publish(struct discover *d)
{
    struct gossip_seed fresh[GOSSIP_SEEDS_MAX];
    unsigned left, count = seeds_union(&d->seeds, d->scope, d->c.pilot_default, fresh, &left);
    pthread_mutex_lock(&d->lock);
    bool changed = count != d->count;
    for (unsigned i = 0; i < count && !changed; i++)
        changed = !is_same(&fresh[i], &d->result[i]);
    if (changed) {
        memcpy(d->result, fresh, count * sizeof fresh[0]);
        d->count = count;
        d->changed = true;
    }
    pthread_mutex_unlock(&d->lock);
    if (changed)
        ring(d->c.wake);
    if (left > 0)
        discover_say(d, &d->said_full, true, "peers", "more than %d peers: %u are left out",
                     GOSSIP_SEEDS_MAX, left);
    else
        d->said_full = 0;
}

/* --- the peers file --- */

/* Length, or -errno. Never waits for anybody, as a pipe would. */
static ssize_t read_file(const char *path, char *text, size_t room, struct stat *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    size_t len = 0;
    ssize_t n = 1;
    if (fstat(fd, ret) < 0)
        n = -errno;
    else if (!S_ISREG(ret->st_mode))
        n = -EINVAL;
    while (n > 0 && len < room) {
        n = read(fd, text + len, room - len);
        if (n < 0)
            n = -errno;
        len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (n < 0)
        return n;
    return len < room ? (ssize_t)len : -EFBIG;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void take_names(struct discover *d, enum seeds_source source, const struct peer_name *name,
                       unsigned count)
{
    seeds_begin(&d->seeds, source);
    for (unsigned i = 0; i < count; i++)
        seeds_add(&d->seeds, source, &name[i], 0, false);
    seeds_end(&d->seeds, source);
}

static void take_file(struct discover *d, const char *text, size_t len)
{
    char error[REGISTRY_ERROR_MAX];
    struct peer_name *name = calloc(GOSSIP_SEEDS_MAX, sizeof *name);
    if (!name)
        return;
    int count = peer_names_read(d->c.peers_file, text, len, name, GOSSIP_SEEDS_MAX, error);
    if (count >= 0) {
        take_names(d, SEEDS_FILE, name, (unsigned)count);
        d->said_file = 0; /* each new one is said */
        discover_say(d, &d->said_file, false, "peers", "%s: %d peers", d->c.peers_file, count);
    } else {
        discover_say(d, &d->said_file, true, "peers", "%s", error);
    }
    free(name);
}

static void look_at_file(struct discover *d)
{
    struct stat now;
    if (stat(d->c.peers_file, &now) == 0 && is_same_file(&now, &d->file))
        return;
    char *text = malloc(FILE_MAX);
    ssize_t len = text ? read_file(d->c.peers_file, text, FILE_MAX, &now) : -ENOMEM;
    if (len < 0) {
        discover_say(d, &d->said_file, true, "peers", "%s: %s", d->c.peers_file,
                     strerror((int)-len));
        memset(&d->file, 0, sizeof d->file);
    } else {
        take_file(d, text, (size_t)len);
        d->file = now;
    }
    free(text);
}

/* --- the thread --- */

/* What it waits for is at most a look at the peers file away. */
static void turn(struct discover *d)
{
    uint64_t now_ns = clock_ns();
    discover_collect_lookups(d, now_ns);
    discover_collect_cycle(d);
    if (d->c.peers_file[0] && now_ns >= d->file_ns) {
        d->file_ns = now_ns + DISCOVER_FILE_MS * NS_PER_MS;
        look_at_file(d);
    }
    if (d->status.registry_used && !d->cycle && now_ns >= d->cycle_ns)
        discover_start_cycle(d, now_ns);
    discover_start_lookups(d, now_ns);
    publish(d);
}

static void *discover_run(void *arg)
{
    struct discover *d = arg;
    unsigned period_ms = d->c.period_ms;
    int pause_ms = period_ms && period_ms < DISCOVER_FILE_MS ? (int)period_ms : DISCOVER_FILE_MS;
    struct pollfd p[] = {{.fd = d->stop, .events = POLLIN}, {.fd = d->bell, .events = POLLIN}};
    do {
        eventfd_t count;
        (void)eventfd_read(d->bell,
                           &count); /* EAGAIN: nobody rang. Before the look: none is lost */
        turn(d);
        if (poll(p, 2, pause_ms) < 0)
            p[0].revents = 0; /* EINTR, or no memory: the next turn */
    } while (!p[0].revents);
    return NULL;
}

/* --- open and close --- */

static bool take_texts(struct discover *d)
{
    const char **text[DISCOVER_TEXTS] = {
        &d->c.peers,       &d->c.peers_file,     &d->c.peers_dns, &d->c.registry,
        &d->c.registry_ca, &d->c.registry_token, &d->c.advertise,
    };
    for (unsigned i = 0; i < DISCOVER_TEXTS; i++) {
        d->text[i] = strdup(*text[i] ? *text[i] : "");
        if (!d->text[i])
            return false;
        *text[i] = d->text[i];
    }
    return true;
}

static bool fail(char error[static REGISTRY_ERROR_MAX], const char *option, const char *text,
                 const char *reason)
{
    snprintf(error, REGISTRY_ERROR_MAX, "%s = %.100s: %s", option, text, reason);
    return false;
}

/* Ours says its port always. */
static bool take_advertise(struct discover *d, char error[static REGISTRY_ERROR_MAX])
{
    struct peer_name n;
    struct endpoint e;
    const char *text = d->c.advertise;
    if (text[0] == '\0')
        return true;
    if (peer_host_read(text, strlen(text), d->c.bound.port, &n))
        (void)peer_name_write(d->advertise, n.host, n.port);
    else if (endpoint_parse_ip(text, &e))
        (void)peer_name_write(d->advertise, text, d->c.bound.port);
    else
        return fail(error, "advertise-addr", text, "not a host and port");
    return true;
}

static bool take_registry(struct discover *d, char error[static REGISTRY_ERROR_MAX])
{
    const char *text = d->c.registry;
    if (text[0] == '\0' || d->c.beacon_id == 0)
        return true;
    if (!peer_host_read(text, strlen(text), 0, &d->registry))
        return fail(error, "registry", text, "not a host and port");
    if (strlen(d->c.registry_token) >= REGISTRY_TOKEN_MAX)
        return fail(error, "registry-admin-token", "...", "too long");
    if (!take_advertise(d, error))
        return false;
    if (d->c.registry_tls && !(d->tls = registry_tls_open(d->c.registry_ca, error)))
        return false;
    d->status.registry_used = true;
    return true;
}

static bool take_peers(struct discover *d, char error[static REGISTRY_ERROR_MAX])
{
    struct peer_name *name = calloc(GOSSIP_SEEDS_MAX, sizeof *name);
    if (!name)
        return fail(error, "peers", "...", "no memory");
    int count =
        peer_names_read("peers", d->c.peers, strlen(d->c.peers), name, GOSSIP_SEEDS_MAX, error);
    if (count > 0)
        take_names(d, SEEDS_OPTION, name, (unsigned)count);
    free(name);
    return count >= 0;
}

static bool take_dns(struct discover *d, char error[static REGISTRY_ERROR_MAX])
{
    struct peer_name name;
    const char *text = d->c.peers_dns;
    if (text[0] == '\0')
        return true;
    if (!peer_name_read(text, strlen(text), &name))
        return fail(error, "peers-dns", text, "not a name");
    seeds_begin(&d->seeds, SEEDS_DNS);
    seeds_add(&d->seeds, SEEDS_DNS, &name, 0, true);
    seeds_end(&d->seeds, SEEDS_DNS);
    return true;
}

static int start(struct discover *d)
{
    sigset_t all, before; /* signals are the main thread's: the new one inherits a full mask */
    d->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->stop < 0 || d->bell < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = -pthread_create(&d->thread, NULL, discover_run, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        (void)pthread_setname_np(d->thread, "discover"); /* for people who look at the threads */
    return err;
}

static void discover_free(struct discover *d)
{
    for (unsigned i = 0; i < DISCOVER_TEXTS; i++) {
        if (d->text[i])
            explicit_bzero(d->text[i], strlen(d->text[i])); /* one of them is the token */
        free(d->text[i]);
    }
    SSL_CTX_free(d->tls);
    if (d->stop >= 0)
        close(d->stop);
    if (d->bell >= 0)
        close(d->bell);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

struct discover *discover_open(const struct discover_config *c,
                               char error[static REGISTRY_ERROR_MAX])
{
    struct discover *d = calloc(1, sizeof *d);
    int err = d ? 0 : -ENOMEM;
    if (d) {
        d->c = *c;
        d->stop = d->bell = -1;
        d->scope = ip_scope(c->bound.ip);
        pthread_mutex_init(&d->lock, NULL);
        if (!take_texts(d))
            err = -ENOMEM;
        else if (!take_registry(d, error) || !take_peers(d, error) || !take_dns(d, error))
            goto free_it;
    }
    if (err == 0) {
        if (d->c.peers_file[0])
            look_at_file(d);
        publish(d); /* addresses are there at once */
        err = start(d);
    }
    if (err == 0)
        return d;
    snprintf(error, REGISTRY_ERROR_MAX, "cannot look for peers: %s", strerror(-err));
free_it:
    if (d)
        discover_free(d);
    return NULL;
}

/* A cycle sees `stop` and ends at once; the resolver knows no such thing. */
static void leave(struct discover *d)
{
    struct errand *e[DISCOVER_LOOKUPS_MAX + 1] = {[DISCOVER_LOOKUPS_MAX] = d->cycle};
    memcpy(e, d->lookup, sizeof d->lookup);
    unsigned waited_ms = 0;
    for (unsigned i = 0; i <= DISCOVER_LOOKUPS_MAX; i++) {
        for (; e[i] && !errand_is_done(e[i]) && waited_ms < LEAVE_MS; waited_ms += LEAVE_STEP_MS)
            poll(NULL, 0, LEAVE_STEP_MS);
        if (e[i])
            errand_drop(e[i]);
    }
}

void discover_close(struct discover *d)
{
    ring(d->stop);
    pthread_join(d->thread, NULL);
    leave(d);
    discover_free(d);
}

/* --- for others --- */

int discover_take(struct discover *d, struct gossip_seed ret[static GOSSIP_SEEDS_MAX])
{
    int count = -1;
    pthread_mutex_lock(&d->lock);
    if (d->changed) {
        memcpy(ret, d->result, d->count * sizeof ret[0]);
        count = (int)d->count;
        d->changed = false;
    }
    pthread_mutex_unlock(&d->lock);
    return count;
}

void discover_status(struct discover *d, struct discover_status *ret)
{
    pthread_mutex_lock(&d->lock);
    *ret = d->status;
    pthread_mutex_unlock(&d->lock);
}
