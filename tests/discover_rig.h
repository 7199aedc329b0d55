/* discover_rig - what test_discover plays against: a registry and a name server on loopback, each a
 * thread of the test, a certificate for the registry, and a record of what was said. Everything
 * happens in a network namespace of the program's own, where it exists. */
#ifndef BEACON_TESTS_DISCOVER_RIG_H
#define BEACON_TESTS_DISCOVER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "gossip/discover.h"
#include "proto/wire.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static inline uint64_t rig_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline int listen_on_loopback(int type, const char *ip, uint16_t port, uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, ip, &at.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_true(type == SOCK_DGRAM || listen(fd, 8) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

/* --- what was said --- */

static struct {
    pthread_mutex_t lock;
    unsigned count;
    struct {
        bool bad;
        char what[16], text[512];
    } line[256];
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void rig_say(void *arg, bool bad, const char *what, const char *text)
{
    (void)arg;
    pthread_mutex_lock(&said.lock);
    if (said.count < COUNT(said.line)) {
        said.line[said.count].bad = bad;
        snprintf(said.line[said.count].what, 16, "%s", what);
        snprintf(said.line[said.count++].text, 512, "%s", text);
    }
    pthread_mutex_unlock(&said.lock);
}

/* How often a line was said that has this text in it. */
static inline unsigned times_said(bool bad, const char *what, const char *text)
{
    unsigned n = 0;
    pthread_mutex_lock(&said.lock);
    for (unsigned i = 0; i < said.count; i++)
        n += said.line[i].bad == bad && strcmp(said.line[i].what, what) == 0 &&
             strstr(said.line[i].text, text) != NULL;
    pthread_mutex_unlock(&said.lock);
    return n;
}

static inline void wait_said(bool bad, const char *what, const char *text)
{
    for (uint64_t end_ms = rig_now_ms() + 15000; rig_now_ms() < end_ms; poll(NULL, 0, 5))
        if (times_said(bad, what, text) > 0)
            return;
    for (unsigned i = 0; i < said.count; i++)
        print_message("%d %s %s\n", said.line[i].bad, said.line[i].what, said.line[i].text);
    fail_msg("nobody said: %s", text);
}

static inline void forget_said(void)
{
    pthread_mutex_lock(&said.lock);
    said.count = 0;
    pthread_mutex_unlock(&said.lock);
}

/* --- a registry --- */

enum manner {
    ANSWERS,
    REFUSES,      /* registrations, by an error */
    CONFUSES,     /* confirms another id */
    NO_LIST,      /* an error instead of the list */
    NULL_LIST,    /* a list that is none */
    GARBAGE,      /* frames that are no JSON */
    SPEAKS_HTTP,  /* no frames: its first bytes would be a length of a gigabyte */
    SAYS_NOTHING, /* frames of length 0 */
    CUTS,         /* closes within an answer */
    CLOSES,       /* at the first question */
    SILENT,
    DRIPS, /* byte by byte, all good */
};

static struct {
    int listener, stop;
    uint16_t port;
    SSL_CTX *tls; /* NULL: plain */
    pthread_t thread;
    _Atomic enum manner manner;
    _Atomic unsigned connections, registers, lists;

    /* Protects all below. */
    pthread_mutex_t lock;
    char entries[2048]; /* of the list */
    char registered[1024];
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct pipe {
    int fd;
    SSL *ssl;
};

static inline bool pipe_read(const struct pipe *p, uint8_t *bytes, size_t len)
{
    while (len > 0) {
        struct pollfd fds[] = {{.fd = registry.stop, .events = POLLIN},
                               {.fd = p->fd, .events = POLLIN}};
        if (!(p->ssl && SSL_pending(p->ssl)) && (poll(fds, 2, -1) < 0 || fds[0].revents))
            return false;
        ssize_t n = p->ssl ? SSL_read(p->ssl, bytes, (int)len) : recv(p->fd, bytes, len, 0);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool pipe_write(const struct pipe *p, const void *bytes, size_t len)
{
    return (p->ssl ? SSL_write(p->ssl, bytes, (int)len) : send(p->fd, bytes, len, MSG_NOSIGNAL)) ==
           (ssize_t)len;
}

static inline bool registry_answer(const struct pipe *p, const char *text)
{
    static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    uint8_t frame[4096];
    enum manner manner = atomic_load(&registry.manner);
    struct writer w = writer_of(frame, sizeof frame);
    text = manner == GARBAGE ? "{\"type\":" : manner == SAYS_NOTHING ? "" : text;
    write_u32(&w, (uint32_t)strlen(text));
    write_bytes(&w, text, strlen(text));
    size_t len = written(&w);
    bool good = true;
    switch (manner) {
    case SILENT:
        return true;
    case CLOSES:
        return false;
    case CUTS:
        return pipe_write(p, frame, len - 1) && false;
    case SPEAKS_HTTP:
        return pipe_write(p, http, sizeof http - 1);
    case DRIPS:
        for (size_t i = 0; good && i < len; i++) {
            good = pipe_write(p, frame + i, 1);
            poll(NULL, 0, 1);
        }
        return good;
    default:
        return pipe_write(p, frame, len);
    }
}

static inline void compose(const char *request, char answer[static 3000])
{
    enum manner manner = atomic_load(&registry.manner);
    unsigned id = 0;
    const char *at = strstr(request, "\"beacon_id\":");
    pthread_mutex_lock(&registry.lock);
    if (strstr(request, "\"beacon_list\"")) {
        atomic_fetch_add(&registry.lists, 1);
        snprintf(answer, 3000, "{\"type\":\"beacon_list_ok\",\"beacons\":[%s]}", registry.entries);
        if (manner == NO_LIST || manner == NULL_LIST)
            strcpy(answer, manner == NO_LIST ? "{\"type\":\"error\",\"error\":\"no list today\"}"
                                             : "{\"type\":\"beacon_list_ok\",\"beacons\":null}");
    } else {
        atomic_fetch_add(&registry.registers, 1);
        snprintf(registry.registered, sizeof registry.registered, "%s", request);
        (void)(at && sscanf(at, "\"beacon_id\":%u", &id));
        snprintf(answer, 3000, "{\"type\":\"beacon_register_ok\",\"beacon_id\":%u}",
                 id + (manner == CONFUSES));
        if (manner == REFUSES)
            strcpy(answer, "{\"type\":\"error\",\"error\":\"bad admin token\"}");
    }
    pthread_mutex_unlock(&registry.lock);
}

static inline void registry_serve(const struct pipe *p)
{
    uint8_t head[4], body[1024];
    char answer[3000];
    while (pipe_read(p, head, 4)) {
        struct reader r = reader_of(head, 4);
        uint32_t len = read_u32(&r);
        if (len >= sizeof body || !pipe_read(p, body, len))
            return;
        body[len] = '\0';
        compose((char *)body, answer);
        if (!registry_answer(p, answer))
            return;
    }
}

static inline void *registry_run(void *arg)
{
    struct pollfd fds[] = {{.fd = registry.stop, .events = POLLIN},
                           {.fd = registry.listener, .events = POLLIN}};
    while (poll(fds, 2, -1) > 0 && !fds[0].revents) {
        struct pipe p = {.fd = accept4(registry.listener, NULL, NULL, SOCK_CLOEXEC)};
        atomic_fetch_add(&registry.connections, 1);
        if (registry.tls) {
            p.ssl = SSL_new(registry.tls);
            SSL_set_fd(p.ssl, p.fd);
        }
        if (!p.ssl || SSL_accept(p.ssl) == 1)
            registry_serve(&p);
        SSL_free(p.ssl);
        close(p.fd);
    }
    return arg;
}

static inline void registry_open(enum manner manner, SSL_CTX *tls)
{
    registry.listener = listen_on_loopback(SOCK_STREAM, "127.0.0.1", 0, &registry.port);
    registry.stop = eventfd(0, EFD_CLOEXEC);
    registry.tls = tls;
    registry.entries[0] = registry.registered[0] = '\0';
    atomic_store(&registry.manner, manner);
    atomic_store(&registry.connections, 0);
    atomic_store(&registry.registers, 0);
    atomic_store(&registry.lists, 0);
    assert_int_equal(pthread_create(&registry.thread, NULL, registry_run, NULL), 0);
}

static inline void registry_close(void)
{
    eventfd_write(registry.stop, 1);
    pthread_join(registry.thread, NULL);
    close(registry.listener);
    close(registry.stop);
    SSL_CTX_free(registry.tls);
}

static inline void registry_lists(const char *entries)
{
    pthread_mutex_lock(&registry.lock);
    snprintf(registry.entries, sizeof registry.entries, "%s", entries);
    pthread_mutex_unlock(&registry.lock);
}

static inline bool registry_was_told(const char *text)
{
    pthread_mutex_lock(&registry.lock);
    bool told = strstr(registry.registered, text) != NULL;
    pthread_mutex_unlock(&registry.lock);
    return told;
}

/* --- its certificate --- */

/* Signed by itself, for `names`; also written to `path`. */
static inline SSL_CTX *tls_server(const char *names, const char *path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 7);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"registry", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_pubkey(cert, key);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    assert_non_null(e);
    X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(PEM_write_X509(f, cert));
    fclose(f);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_true(SSL_CTX_use_certificate(tls, cert) == 1 && SSL_CTX_use_PrivateKey(tls, key) == 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    return tls;
}

/* --- a name server --- */

static struct {
    int socket, stop;
    pthread_t thread;
    _Atomic bool refuses, silent;
    _Atomic unsigned targets, questions;
    bool works; /* there is a namespace where we may play it */
} names = {.socket = -1};

/* "_beacon._udp.fleet.test" has `targets` SRV records, that point to localhost with ports from 7001
 * on, and one that says nothing. "localhost." is 127.0.0.1. All
 * else does not exist. */
static inline size_t name_answer(const uint8_t *question, size_t len, uint8_t *answer, size_t room)
{
    static const uint8_t fleet[] = "\x07_beacon\x04_udp\x05"
                                   "fleet\x04"
                                   "test",
                         target[] = "\x09localhost";
    bool known = len >= 12 + sizeof fleet + 4 && memcmp(question + 12, fleet, sizeof fleet) == 0;
    static const uint8_t ask_local[] = "\x09localhost\0\0\1\0", local_at[] = {127, 0, 0, 1};
    bool is_local = len == 12 + sizeof ask_local && memcmp(question + 12, ask_local, 14) == 0;
    unsigned targets = atomic_load(&names.targets);
    struct writer w = writer_of(answer, room);
    write_bytes(&w, question, 2);
    write_u16(&w, atomic_load(&names.refuses) ? 0x8182 : known || is_local ? 0x8180 : 0x8183);
    write_u16(&w, 1);
    write_u16(&w, (uint16_t)(known ? targets + 1 : is_local));
    write_u32(&w, 0);
    write_bytes(&w, question + 12, len - 12);
    if (is_local) { /* "localhost." is no name of a hosts file */
        write_u32(&w, 0xc00c0001);
        write_u16(&w, 1);
        write_u32(&w, 5);
        write_u16(&w, 4);
        write_bytes(&w, local_at, 4);
    }
    for (unsigned i = 0; known && i <= targets; i++) {
        bool none = i == targets;
        write_u16(&w, 0xc00c); /* the name of the question */
        write_u16(&w, 33);
        write_u16(&w, 1);
        write_u32(&w, 5);
        write_u16(&w, (uint16_t)(6 + (none ? 1 : sizeof target)));
        write_u32(&w, 0);
        write_u16(&w, (uint16_t)(none ? 1 : 7001 + i));
        write_bytes(&w, target, none ? 0 : sizeof target);
        if (none)
            write_u8(&w, 0);
    }
    return written(&w);
}

static inline void *names_run(void *arg)
{
    struct pollfd fds[] = {{.fd = names.stop, .events = POLLIN},
                           {.fd = names.socket, .events = POLLIN}};
    while (poll(fds, 2, -1) > 0 && !fds[0].revents) {
        uint8_t question[512], answer[4096];
        struct sockaddr_in from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(names.socket, question, sizeof question, 0, (struct sockaddr *)&from,
                             &from_len);
        atomic_fetch_add(&names.questions, 1);
        size_t end = 12; /* of the name */
        while (n > 12 && end < (size_t)n && question[end])
            end += 1u + question[end];
        if (n < 17 || end + 5 > (size_t)n || atomic_load(&names.silent))
            continue;
        size_t len = name_answer(question, end + 5, answer, sizeof answer);
        (void)sendto(names.socket, answer, len, 0, (struct sockaddr *)&from, from_len);
    }
    return arg;
}

/* Gives the address, or for "" the one it has, to lo, and sets it up. */
static inline bool lo_up(const char *address)
{
    struct ifreq r = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    r.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
    bool good = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    if (good && address[0]) {
        struct sockaddr_in at = {.sin_family = AF_INET};
        good = inet_pton(AF_INET, address, &at.sin_addr) == 1;
        strcpy(r.ifr_name, "lo:1");
        memcpy(&r.ifr_addr, &at, sizeof at);
        good = good && ioctl(fd, SIOCSIFADDR, &r) == 0;
    }
    close(fd);
    return good;
}

/* In a namespace of our own we are the name server that this host asks. */
static inline int names_open(void **state)
{
    char line[256], address[64] = "127.0.0.1";
    uint16_t port;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    names.stop = eventfd(0, EFD_CLOEXEC);
    FILE *f = fopen("/etc/resolv.conf", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "nameserver %63[0-9.]", address) != 1)
        ;
    if (f)
        fclose(f);
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return 0;
    if (!lo_up(strncmp(address, "127.", 4) == 0 ? "" : address))
        return -1;
    names.socket = listen_on_loopback(SOCK_DGRAM, address, 53, &port);
    names.works = true;
    return pthread_create(&names.thread, NULL, names_run, NULL);
}

static inline int names_close(void **state)
{
    (void)state;
    eventfd_write(names.stop, 1);
    if (names.works) {
        pthread_join(names.thread, NULL);
        close(names.socket);
    }
    close(names.stop);
    return 0;
}

#endif
