/* bench_flood - random and mutated datagrams, as fast as one core makes them.
 *
 * bench_flood PORT COUNT SEED: sends COUNT datagrams to 127.0.0.1:PORT from a few loopback
 * addresses, in UDP_SEGMENT batches whose datagrams differ, and reads away what is answered. A
 * tenth is noise; the rest are real messages with a few bits, bytes or lengths wrong, or none. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "proto/sockaddr.h"

enum {
    SENDERS = 8,
    BATCH = 64, /* datagrams in one message */
    LEN_MAX = 700,
    SEEDS = 12,
    DRAIN = 64,
};

static const struct {
    uint8_t len;
    uint8_t bytes[96];
} seeds[SEEDS] = {
    {5, {1, 0, 1, 0xe2, 0x40}},
    {37, {1, 0, 9, 0xfb, 0xf1}},
    {5, {8, 0, 0, 0, 7}},
    {9, {3, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1}},
    {81, {3, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1, 0, 0, 0, 0, 0x71, 0x3f, 0xb3}},
    {40, {5, 0, 1, 0xe2, 0x40, 0, 9, 0xfb, 0xf1, 'P', 'I', 'L', 'P'}},
    {40, {5, 0, 1, 0xe2, 0x40, 0, 0, 0, 99}},
    {15, {7, 0, 0, 0, 7, 0, 2}},
    {20, {0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
    {28, {0, 1, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 3, 0, 4}},
    {32, {1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4}},
    {24, {0, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0x26}},
};

static uint64_t random_state;

static uint64_t next_random(void) /* xorshift64 (Marsaglia, 2003) */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench_flood: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int sender_open(uint8_t host, uint16_t port)
{
    const uint8_t from[4] = {127, 0, 0, host}, to[4] = {127, 0, 0, 1};
    struct endpoint source = endpoint_of(from, 4, 0), target = endpoint_of(to, 4, port);
    union name name;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    socklen_t len = name_of_endpoint(&name, &source, AF_INET, 0);
    if (bind(fd, &name.any, len) < 0)
        die("bind");
    len = name_of_endpoint(&name, &target, AF_INET, 0);
    if (connect(fd, &name.any, len) < 0)
        die("connect");
    return fd;
}

static void fill(uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(next_random() >> 32);
}

/* One datagram of exactly `len` bytes: a seed cut or prolonged to it, with some bits flipped. */
static void mutate(uint8_t *at, size_t len)
{
    uint64_t r = next_random();
    if (r % 10 == 0) {
        fill(at, len);
        return;
    }
    unsigned seed = (unsigned)(r >> 8) % SEEDS;
    size_t known = len < sizeof seeds[seed].bytes ? len : sizeof seeds[seed].bytes;
    memcpy(at, seeds[seed].bytes, known);
    memset(at + known, (int)(r >> 16), len - known);
    for (unsigned flips = (unsigned)(r >> 24) % 4; flips > 0 && len > 0; flips--) {
        uint64_t where = next_random();
        at[where % (len < 48 ? len : 48)] ^= (uint8_t)(1u << (where >> 60 & 7));
    }
}

static unsigned flood_once(int fd)
{
    static uint8_t bytes[BATCH * LEN_MAX];
    _Alignas(8) uint8_t control[CMSG_SPACE(sizeof(uint16_t))] = {0};
    uint64_t r = next_random();
    /* Mostly the length of some message, so that what is mutated is the content. */
    uint16_t len = r % 4 ? seeds[r / 4 % SEEDS].len : (uint16_t)(1 + r / 4 % LEN_MAX);
    for (unsigned i = 0; i < BATCH; i++)
        mutate(bytes + i * len, len);
    struct iovec piece = {bytes, (size_t)BATCH * len};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof len), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(c), &len, sizeof len);
    if (sendmsg(fd, &m, 0) < 0 && errno != ECONNREFUSED)
        die("sendmsg");
    for (int i = 0; i < DRAIN && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0; i++)
        continue;
    return BATCH;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_flood PORT COUNT SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[2], NULL, 10), sent = 0;
    random_state = strtoull(argv[3], NULL, 10) | 1;
    int fd[SENDERS];
    for (uint8_t i = 0; i < SENDERS; i++)
        fd[i] = sender_open((uint8_t)(2 + i), (uint16_t)atoi(argv[1]));
    while (sent < count)
        sent += flood_once(fd[sent / BATCH % SENDERS]);
    printf("%llu\n", (unsigned long long)sent);
    return 0;
}
