#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "cmd/table.h"
#include "cmd/takeover.h"
#include "proto/wire.h"
#include "wss/listen.h"

enum {
    READ_BYTES_PER_MS = 2048, /* of what is known of other beacons */
    TAKEOVER_VERSION = 1,
    MAGIC = 0x42434e54, /* "BCNT" */
    MESSAGE_LEN = 16,
    ERROR_PAUSE_MS = 100,
};

enum kind {
    KIND_ASK = 1,
    KIND_OFFER, /* number: of sockets to come; with the table */
    KIND_SOCKETS,
    KIND_CLEAR,
    KIND_CLEARED,
    KIND_GO,
    KIND_STOPPED, /* with the table of changes */
    KIND_DONE,
    KIND_BYE,
    KIND_NO, /* number: errno */
};

struct message {
    uint16_t version;
    uint16_t kind; /* enum kind, or what another version knows */
    uint32_t number;
    unsigned count;
    int fds[TAKEOVER_CHUNK];
};

/* --- messages --- */

static void fds_close(int *fds, unsigned *count)
{
    for (unsigned i = 0; i < *count; i++)
        close(fds[i]);
    *count = 0;
}

/* Milliseconds until `end_ns`, for poll. */
static int ms_left(uint64_t end_ns)
{
    uint64_t now_ns = clock_ns();
    return now_ns < end_ns ? (int)((end_ns - now_ns) / 1000000) + 1 : 0;
}

/* 0 or -errno. A message is shorter than any socket buffer, so it goes whole or not at all. */
static int message_send(int fd, enum kind kind, uint32_t number, const int *fds, unsigned count)
{
    uint8_t bytes[MESSAGE_LEN];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_u32(&w, MAGIC);
    write_u16(&w, TAKEOVER_VERSION);
    write_u16(&w, (uint16_t)kind);
    write_u32(&w, number);
    write_u32(&w, 0);
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(TAKEOVER_CHUNK * sizeof(int))] = {0};
    struct iovec piece = {bytes, sizeof bytes};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > 0) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)),
                              .cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    return n == MESSAGE_LEN ? 0 : -EIO;
}

/* Descriptors that came with a piece of a message. False: more than there may be. */
static bool descriptors_take(struct message *ret, struct msghdr *m)
{
    bool fit = !(m->msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (ret->count < TAKEOVER_CHUNK) {
                ret->fds[ret->count++] = fd;
                continue;
            }
            close(fd);
            fit = false;
        }
    }
    return fit;
}

/* One piece. Returns its length, 0 at the end of the connection, or -errno. */
static ssize_t piece_receive(int fd, struct message *ret, uint8_t *bytes, size_t len,
                             uint64_t end_ns)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(TAKEOVER_CHUNK * sizeof(int))];
    struct iovec piece = {bytes, len};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    int ready = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ms_left(end_ns));
    if (ready == 0)
        return -ETIMEDOUT;
    ssize_t n = ready < 0 ? -1 : recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? -EAGAIN : -errno;
    return descriptors_take(ret, &m) ? n : -EBADMSG;
}

/* 0 or -errno: -ECONNRESET when the other is gone, -EBADMSG, -ETIMEDOUT. */
static int message_receive(int fd, struct message *ret, int timeout_ms)
{
    uint8_t bytes[MESSAGE_LEN];
    uint64_t end_ns = clock_ns() + (uint64_t)timeout_ms * 1000000;
    ssize_t n = 0;
    ret->count = 0;
    for (size_t len = 0; len<sizeof bytes; len += n> 0 ? (size_t)n : 0) {
        n = piece_receive(fd, ret, bytes + len, sizeof bytes - len, end_ns);
        if (n == 0)
            n = -ECONNRESET;
        if (n < 0 && n != -EAGAIN)
            break;
    }
    struct reader r = reader_of(bytes, sizeof bytes);
    if (n >= 0 && read_u32(&r) != MAGIC)
        n = -EBADMSG;
    if (n < 0) {
        fds_close(ret->fds, &ret->count);
        return (int)n;
    }
    ret->version = read_u16(&r);
    ret->kind = read_u16(&r);
    ret->number = read_u32(&r);
    return 0;
}

/* The next message is of this kind and has so many descriptors. `ret` holds none on an error. */
static int message_expect(int fd, struct message *ret, enum kind kind, unsigned count,
                          int timeout_ms)
{
    int err = message_receive(fd, ret, timeout_ms);
    if (err < 0)
        return err;
    if (ret->version != TAKEOVER_VERSION)
        err = -EPROTONOSUPPORT;
    else if (ret->kind == KIND_NO)
        err = ret->number == EPROTONOSUPPORT ? -EPROTONOSUPPORT : -ECANCELED;
    else if (ret->kind != kind || ret->count != count)
        err = -EBADMSG;
    if (err < 0)
        fds_close(ret->fds, &ret->count);
    return err;
}

static bool peer_is_ours(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

/* --- the predecessor --- */

struct takeover {
    struct takeover_serve serve;
    struct listen_file file;
    int listener;
    int wake; /* eventfd: the thread is to end, or main is done with a successor */
    pthread_t thread;
    pthread_mutex_t lock; /* protects `successor` from being closed under a shutdown */
    int successor;        /* -1: none. While `wanted`, main talks to it and the thread does not */
    uint32_t since_s;     /* when the table that it has was written */
    _Atomic bool wanted;
    _Atomic bool ending;
};

static void refuse(int fd, int reason)
{
    (void)message_send(fd, KIND_NO, (uint32_t)-reason, NULL, 0); /* gone already: no matter */
}

/* The table and the sockets. 0 or -errno. */
static int offer(struct takeover *t, int fd)
{
    int fds[SHARDS_DESCRIPTORS_MAX];
    unsigned count = shards_descriptors(t->serve.shards, fds, SHARDS_DESCRIPTORS_MAX);
    uint64_t now_ns = clock_ns();
    if (count == 0)
        return -EOPNOTSUPP; /* not steered: see shards_descriptors */
    int table = table_write(t->serve.server, 0, now_ns);
    if (table < 0)
        return table;
    t->since_s = (uint32_t)(now_ns / 1000000000u);
    int err = message_send(fd, KIND_OFFER, count, &table, 1);
    close(table);
    for (unsigned at = 0; err == 0 && at < count; at += TAKEOVER_CHUNK) {
        unsigned n = count - at < TAKEOVER_CHUNK ? count - at : TAKEOVER_CHUNK;
        err = message_send(fd, KIND_SOCKETS, count, fds + at, n);
    }
    return err;
}

/* All that can be done while the shards serve. 0: main's turn. */
static int prepare(struct takeover *t, int fd)
{
    struct message m;
    int err = peer_is_ours(fd) ? 0 : -EPERM;
    if (err == 0)
        err = message_expect(fd, &m, KIND_ASK, 0, TAKEOVER_SILENCE_MS);
    if (err == 0)
        err = offer(t, fd);
    if (err == 0)
        err = message_expect(fd, &m, KIND_CLEAR, 0, TAKEOVER_PATIENCE_MS);
    return err;
}

/* Until takeover_hand_over has ended with this successor, or the process with it. */
static void main_wait(struct takeover *t)
{
    uint64_t count;
    pthread_kill(t->serve.main, SIGUSR2);
    while (atomic_load(&t->wanted) && !atomic_load(&t->ending)) {
        poll(&(struct pollfd){.fd = t->wake, .events = POLLIN}, 1, -1);
        (void)!read(t->wake, &count, sizeof count); /* EAGAIN: a poll that was interrupted */
    }
}

static void successor_set(struct takeover *t, int fd)
{
    pthread_mutex_lock(&t->lock);
    t->successor = fd;
    pthread_mutex_unlock(&t->lock);
}

static void *serve_main(void *arg)
{
    struct takeover *t = arg;
    while (!atomic_load(&t->ending)) {
        struct pollfd ready[2] = {{.fd = t->listener, .events = POLLIN},
                                  {.fd = t->wake, .events = POLLIN}};
        poll(ready, 2, -1);
        if (atomic_load(&t->ending) || !ready[0].revents)
            continue;
        int fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) { /* it has gone again; or no descriptors, which must not spin */
            poll(&ready[1], 1, ERROR_PAUSE_MS);
            continue;
        }
        successor_set(t, fd);
        int err = atomic_load(&t->ending) ? -ECANCELED : prepare(t, fd);
        if (err == 0) {
            atomic_store(&t->wanted, true); /* publishes successor and since_s */
            main_wait(t);
        } else {
            refuse(fd, err);
        }
        successor_set(t, -1);
        close(fd);
    }
    return NULL;
}

int takeover_serve_start(struct takeover **ret, const struct takeover_serve *serve)
{
    struct takeover *t = calloc(1, sizeof *t);
    int err = -ENOMEM;
    if (!t)
        return err;
    t->serve = *serve;
    t->successor = -1;
    pthread_mutex_init(&t->lock, NULL);
    t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake < 0) {
        err = -errno;
        goto free_it;
    }
    t->listener = err = listen_unix(serve->path, &t->file);
    if (err < 0)
        goto close_wake;
    err = chmod(serve->path, S_IRUSR | S_IWUSR) < 0 ? -errno : 0;
    if (err == 0)
        err = -pthread_create(&t->thread, NULL, serve_main, t);
    if (err < 0)
        goto close_listener;
    pthread_setname_np(t->thread, "takeover");
    *ret = t;
    return 0;
close_listener:
    listen_unix_remove(serve->path, &t->file);
    close(t->listener);
close_wake:
    close(t->wake);
free_it:
    pthread_mutex_destroy(&t->lock);
    free(t);
    return err;
}

static void thread_wake(struct takeover *t)
{
    uint64_t one = 1;
    (void)!write(t->wake, &one, sizeof one); /* EAGAIN: awake already */
}

void takeover_serve_stop(struct takeover *t)
{
    if (!t)
        return;
    atomic_store(&t->ending, true);
    thread_wake(t);
    pthread_mutex_lock(&t->lock);
    if (t->successor >= 0)
        shutdown(t->successor, SHUT_RDWR); /* ends the wait for what it says next */
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    /* In this order: the file's number is not given to another before its socket is closed. */
    listen_unix_remove(t->serve.path, &t->file);
    close(t->listener);
    close(t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

bool takeover_wanted(const struct takeover *t)
{
    return t && atomic_load(&t->wanted);
}

/* From here on a successor may be serving. 0 or -errno. */
static int stop_and_give(struct takeover *t, const struct takeover_steps *steps)
{
    struct message m;
    steps->stop(steps->arg);
    int table = table_write(t->serve.server, t->since_s, clock_ns());
    if (table < 0)
        return table;
    int err = message_send(t->successor, KIND_STOPPED, 0, &table, 1);
    close(table);
    if (err == 0)
        err = message_expect(t->successor, &m, KIND_DONE, 0, TAKEOVER_SILENCE_MS);
    return err;
}

/* What a successor may take to read this: ten times what it does. UDP is served meanwhile. */
static int reading_time_ms(int fd)
{
    struct stat file;
    if (fd < 0 || fstat(fd, &file) < 0)
        return 0;
    return (int)(file.st_size < INT_MAX ? file.st_size / READ_BYTES_PER_MS : TAKEOVER_PATIENCE_MS);
}

int takeover_hand_over(struct takeover *t, const struct takeover_steps *steps)
{
    struct message m;
    if (!takeover_wanted(t))
        return -EINVAL;
    int known = steps->clear(steps->arg);
    int reading_ms = reading_time_ms(known);
    int err = known < 0 ? known : message_send(t->successor, KIND_CLEARED, 0, &known, 1);
    if (known >= 0)
        close(known);
    if (err == 0)
        err = message_expect(t->successor, &m, KIND_GO, 0, TAKEOVER_SILENCE_MS + reading_ms);
    if (err == 0)
        err = stop_and_give(t, steps);
    if (err < 0) {
        refuse(t->successor, err);
        shutdown(t->successor, SHUT_RDWR);
    } else {
        listen_unix_remove(t->serve.path, &t->file);            /* the path is the successor's */
        (void)message_send(t->successor, KIND_BYE, 0, NULL, 0); /* it serves, heard or not */
    }
    atomic_store(&t->wanted, false);
    thread_wake(t);
    return err;
}

/* --- the successor --- */

static int connect_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path)
        return -ENAMETOOLONG;
    strcpy(to.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        int err = errno == ECONNREFUSED ? -ENOENT : -errno; /* a file that was left behind */
        close(fd);
        return err;
    }
    return fd;
}

/* The table and the sockets of the offer. */
static int offer_take(struct takeover_heir *h)
{
    struct message m;
    int err = message_expect(h->connection, &m, KIND_OFFER, 1, TAKEOVER_PATIENCE_MS);
    if (err < 0)
        return err;
    h->table = m.fds[0];
    unsigned count = m.number;
    if (count == 0 || count > SHARDS_DESCRIPTORS_MAX)
        return -EBADMSG;
    while (h->count < count) {
        unsigned n = count - h->count < TAKEOVER_CHUNK ? count - h->count : TAKEOVER_CHUNK;
        err = message_expect(h->connection, &m, KIND_SOCKETS, n, TAKEOVER_SILENCE_MS);
        if (err < 0)
            return err;
        memcpy(h->fds + h->count, m.fds, n * sizeof *m.fds);
        h->count += n;
    }
    return 0;
}

int takeover_ask(struct takeover_heir *h, const char *path)
{
    *h = (struct takeover_heir){.connection = connect_to(path), .table = -1, .mesh = -1};
    if (h->connection < 0)
        return h->connection;
    int err = peer_is_ours(h->connection) ? 0 : -EPERM;
    if (err == 0)
        err = message_send(h->connection, KIND_ASK, 0, NULL, 0);
    if (err == 0)
        err = offer_take(h);
    if (err < 0)
        takeover_leave(h);
    /* Who is of another user is hung up on without a word. */
    return err == -EPIPE || err == -ECONNRESET ? -EPERM : err;
}

static void table_close(struct takeover_heir *h)
{
    if (h->table >= 0)
        close(h->table);
    h->table = -1;
}

int takeover_clear(struct takeover_heir *h)
{
    struct message m;
    table_close(h);
    int err = message_send(h->connection, KIND_CLEAR, 0, NULL, 0);
    if (err == 0)
        err = message_expect(h->connection, &m, KIND_CLEARED, 1, TAKEOVER_PATIENCE_MS);
    if (err == 0)
        h->mesh = m.fds[0];
    return err;
}

int takeover_go(struct takeover_heir *h)
{
    struct message m;
    int err = message_send(h->connection, KIND_GO, 0, NULL, 0);
    if (err == 0)
        err = message_expect(h->connection, &m, KIND_STOPPED, 1, TAKEOVER_PATIENCE_MS);
    if (err == 0)
        h->table = m.fds[0];
    return err;
}

int takeover_done(struct takeover_heir *h)
{
    struct message m;
    /* A predecessor that has just said no may have closed its end: what it said is still there. */
    (void)message_send(h->connection, KIND_DONE, 0, NULL, 0);
    int err = message_expect(h->connection, &m, KIND_BYE, 0, TAKEOVER_SILENCE_MS);
    if (err == -ECANCELED)
        return err;
    takeover_leave(h); /* gone with or without a word, or stuck: it does not serve, so we do */
    return 0;
}

void takeover_leave(struct takeover_heir *h)
{
    table_close(h);
    if (h->mesh >= 0)
        close(h->mesh);
    h->mesh = -1;
    fds_close(h->fds, &h->count);
    if (h->connection >= 0)
        close(h->connection);
    h->connection = -1;
}
