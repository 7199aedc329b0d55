/* registry - a Pilot registry that is played by a thread of the test, over TCP on loopback. Behaves
 * as its manner says, which may change while it runs. One at a time. */
#ifndef BEACON_TESTS_REGISTRY_H
#define BEACON_TESTS_REGISTRY_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/rig.h"
#include "wss/dialogue.h"

enum manner {
    ANSWERS,      /* ids that end in 0 are unknown */
    SLOW,         /* byte by byte */
    SILENT,       /* never says anything */
    CLOSES,       /* after each answer */
    CUTS,         /* closes within an answer */
    ONCE,         /* closes at the second question */
    REPEATS,      /* says everything twice */
    OTHER_ID,     /* of ids that end in 5 it names the next one's key */
    SPEAKS_HTTP,  /* no frames: its first bytes would be a length of a gigabyte */
    SAYS_NOTHING, /* a frame of length 0 */
    TALKS_LONG,   /* a frame one byte too long */
};

static struct {
    int listener, stop;
    uint16_t port;
    pthread_t thread;
    enum registry_lookup dialect;
    _Atomic enum manner manner;
    _Atomic unsigned connections, requests;
} registry = {.listener = -1};

static inline void key_for(uint32_t node_id, uint8_t key[static MSG_KEY_LEN])
{
    uint8_t seed[crypto_sign_SEEDBYTES] = {0}, secret[crypto_sign_SECRETKEYBYTES];
    memcpy(seed, &node_id, sizeof node_id);
    crypto_sign_seed_keypair(key, secret, seed);
}

/* False: the peer has closed, or the test ends. */
static inline bool registry_read(int fd, void *bytes, size_t len)
{
    uint8_t *at = bytes;
    while (len > 0) {
        if (dialogue_wait(registry.stop, fd, POLLIN, UINT64_MAX) < 0)
            return false;
        ssize_t n = recv(fd, at, len, 0);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool registry_write(int fd, const void *bytes, size_t len)
{
    return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static inline size_t write_answer_binary(uint8_t frame[static 256], uint32_t node_id, bool known,
                                         const uint8_t key[static MSG_KEY_LEN])
{
    struct writer w = writer_of(frame, 256);
    write_u32(&w, known ? 1 + 4 + 1 + 4 + 2 + 2 + 1 + 32 + 2 : 1);
    write_u8(&w, known ? 0x82 : 0xff);
    if (known) {
        write_u32(&w, node_id);
        write_u8(&w, 0);
        write_u32(&w, 0);
        write_u16(&w, 1);
        write_u16(&w, 9);
        write_u8(&w, 32);
        write_bytes(&w, key, 32);
        write_u16(&w, 0);
    }
    return written(&w);
}

static inline size_t write_answer_json(uint8_t frame[static 256], uint32_t node_id, bool known,
                                       const uint8_t key[static MSG_KEY_LEN])
{
    char text[200], base64[64];
    sodium_bin2base64(base64, sizeof base64, key, 32, sodium_base64_VARIANT_ORIGINAL);
    int len = known ? snprintf(text, sizeof text, "{\"node_id\":%u,\"public_key\":\"%s\"}", node_id,
                               base64)
                    : snprintf(text, sizeof text, "{\"error\":\"unknown node\"}");
    struct writer w = writer_of(frame, 256);
    write_u32(&w, (uint32_t)len);
    write_bytes(&w, text, (size_t)len);
    return written(&w);
}

static inline size_t write_answer(uint8_t frame[static 256], uint32_t node_id, enum manner manner)
{
    uint8_t key[MSG_KEY_LEN];
    if (manner == OTHER_ID && node_id % 10 == 5)
        node_id++;
    key_for(node_id, key);
    bool known = node_id % 10 != 0;
    return registry.dialect == LOOKUP_BINARY ? write_answer_binary(frame, node_id, known, key)
                                             : write_answer_json(frame, node_id, known, key);
}

/* False: this connection has ended. */
static inline bool registry_answer(int fd, uint32_t node_id)
{
    enum manner manner = atomic_load(&registry.manner);
    uint8_t frame[512];
    size_t len = write_answer(frame, node_id, manner);
    bool good = true;
    switch (manner) {
    case SILENT:
        return true;
    case SLOW:
        for (size_t i = 0; good && i < len; i++) {
            good = registry_write(fd, frame + i, 1);
            poll(NULL, 0, 2);
        }
        return good;
    case CUTS:
        (void)registry_write(fd, frame, len / 2);
        return false;
    case REPEATS:
        memcpy(frame + len, frame, len);
        return registry_write(fd, frame, 2 * len);
    case SPEAKS_HTTP:
        return registry_write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    case SAYS_NOTHING:
        return registry_write(fd, "\0\0\0\0", 4);
    case TALKS_LONG:
        return registry_write(fd, "\0\x10\0\1{}", 6);
    default:
        return registry_write(fd, frame, len) && manner != CLOSES;
    }
}

static inline bool read_request(int fd, uint32_t *ret_id)
{
    uint8_t bytes[64];
    struct reader r = reader_of(bytes, 4);
    if (!registry_read(fd, bytes, 4))
        return false;
    uint32_t len = read_u32(&r);
    if (len == 0 || len >= sizeof bytes || !registry_read(fd, bytes, len))
        return false;
    bytes[len] = '\0';
    r = reader_of(bytes, len);
    if (registry.dialect == LOOKUP_BINARY) {
        bool good = read_u8(&r) == 0x02;
        *ret_id = read_u32(&r);
        return good && !r.bad && read_left(&r) == 0;
    }
    int end = 0;
    return sscanf((char *)bytes, "{\"type\":\"lookup\",\"node_id\":%u}%n", ret_id, &end) == 1 &&
           end == (int)len;
}

static inline void registry_serve(int fd)
{
    uint8_t hello[5];
    uint32_t node_id;
    if (registry.dialect == LOOKUP_BINARY &&
        !(registry_read(fd, hello, 5) && memcmp(hello, "PILT\1", 5) == 0))
        return;
    for (unsigned i = 0; read_request(fd, &node_id); i++) {
        atomic_fetch_add(&registry.requests, 1);
        if ((i == 1 && atomic_load(&registry.manner) == ONCE) || !registry_answer(fd, node_id))
            return;
    }
}

static inline void *registry_run(void *arg)
{
    while (dialogue_wait(registry.stop, registry.listener, POLLIN, UINT64_MAX) == 0) {
        int fd = accept4(registry.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            break;
        atomic_fetch_add(&registry.connections, 1);
        registry_serve(fd);
        close(fd);
    }
    return arg;
}

/* On `port`, 0: any. */
static inline void registry_open(enum registry_lookup dialect, enum manner manner, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t len = sizeof at;
    int on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    registry.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(registry.listener >= 0);
    setsockopt(registry.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(registry.listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(registry.listener, 8), 0);
    assert_int_equal(getsockname(registry.listener, (struct sockaddr *)&at, &len), 0);
    registry.port = ntohs(at.sin_port);
    registry.stop = eventfd(0, EFD_CLOEXEC);
    registry.dialect = dialect;
    atomic_store(&registry.manner, manner);
    atomic_store(&registry.connections, 0);
    atomic_store(&registry.requests, 0);
    assert_int_equal(pthread_create(&registry.thread, NULL, registry_run, NULL), 0);
}

static inline void registry_close(void)
{
    uint64_t one = 1;
    assert_int_equal(write(registry.stop, &one, sizeof one), sizeof one);
    pthread_join(registry.thread, NULL);
    close(registry.listener);
    close(registry.stop);
}

#endif
