/* bench_echo - the bare loop that the relay is compared with: receive a batch, send it on. No
 * parsing, no lookup; batches of 64, IP_PMTUDISC_PROBE, a dual-stack socket. It sends to as many
 * addresses as the relay does, in random order, because the kernel's own look-ups cost more for
 * many than for one.
 *
 * bench_echo PORT SINK_PORT NODES; it listens on 127.0.0.1. Runs until it is killed. */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "bench/load.h"

enum { BATCH = 64, BYTES_MAX = 2048, BUFFER = 4 << 20 };

static struct {
    struct mmsghdr header[BATCH];
    struct iovec piece[BATCH];
    struct sockaddr_in6 name[BATCH];
    uint8_t bytes[BATCH][BYTES_MAX];
} batch;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in6 loopback(const char *port)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    static const uint8_t mapped[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
    memcpy(&at.sin6_addr, mapped, sizeof mapped);
    return at;
}

static void set(int fd, int level, int option, int value, const char *name)
{
    if (setsockopt(fd, level, option, &value, sizeof value) != 0)
        die(name);
}

static int open_socket(const char *port)
{
    struct sockaddr_in6 at = loopback(port);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY");
    set(fd, SOL_SOCKET, SO_RCVBUF, BUFFER, "SO_RCVBUF");
    set(fd, SOL_SOCKET, SO_SNDBUF, BUFFER, "SO_SNDBUF");
    set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER");
    set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER");
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
        die("bind");
    return fd;
}

/* Only the first `count`: the others were not used since. */
static void lay_open(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        batch.piece[i] = (struct iovec){.iov_base = batch.bytes[i], .iov_len = BYTES_MAX};
        batch.header[i].msg_hdr = (struct msghdr){.msg_name = &batch.name[i],
                                                  .msg_namelen = sizeof batch.name[i],
                                                  .msg_iov = &batch.piece[i],
                                                  .msg_iovlen = 1};
    }
}

/* Some node's address, by the generator's scheme. */
static uint32_t next_ip(uint32_t nodes)
{
    static uint32_t random = 1;
    random = random * 1664525u + 1013904223u; /* Numerical Recipes' LCG: its high bits are good */
    return node_ip((uint32_t)((uint64_t)random * nodes >> 32));
}

static void send_on(int fd, unsigned count, const struct sockaddr_in6 *sink, uint32_t nodes)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t ip = htonl(next_ip(nodes));
        batch.name[i] = *sink;
        memcpy((uint8_t *)&batch.name[i].sin6_addr + 12, &ip, sizeof ip);
        batch.piece[i].iov_len = batch.header[i].msg_len;
    }
    for (unsigned done = 0; done < count;) {
        int n = sendmmsg(fd, batch.header + done, count - done, 0);
        done += n > 0 ? (unsigned)n : 1; /* a refused one is skipped; the generator counts it */
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_echo PORT SINK_PORT NODES\n");
        return 2;
    }
    int fd = open_socket(argv[1]);
    struct sockaddr_in6 sink = loopback(argv[2]);
    uint32_t nodes = (uint32_t)strtoul(argv[3], NULL, 10);
    lay_open(BATCH);
    while (true) {
        int n = recvmmsg(fd, batch.header, BATCH, MSG_WAITFORONE, NULL);
        if (n < 0 && errno != EINTR)
            die("recvmmsg");
        if (n > 0) {
            send_on(fd, (unsigned)n, &sink, nodes);
            lay_open((unsigned)n);
        }
    }
}
