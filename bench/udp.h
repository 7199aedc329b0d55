/* udp - the load generator's sockets and batches.
 *
 * One wildcard socket stands for every host of 127/8: the source address of a datagram is chosen
 * with IP_PKTINFO, and the address it arrived at is read the same way. So 100,000 nodes have
 * 100,000 different endpoints and need one descriptor. Addresses are IPv4 in host order. */
#ifndef BEACON_BENCH_UDP_H
#define BEACON_BENCH_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    UDP_BATCH = 64,       /* datagrams of one sendmmsg or recvmmsg */
    UDP_BYTES_MAX = 1472, /* of one datagram */
    UDP_BUFFER = 4 << 20, /* asked of the kernel for each socket */
    UDP_LOOPBACK = 0x7f000001,
};

/* Room for an address and a segment size. */
struct udp_control {
    _Alignas(struct cmsghdr)
        uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))];
};

struct udp_batch {
    struct mmsghdr header[UDP_BATCH];
    struct iovec piece[UDP_BATCH];
    struct sockaddr_in name[UDP_BATCH];
    struct udp_control control[UDP_BATCH];
    uint8_t bytes[UDP_BATCH * UDP_BYTES_MAX];
};

/* Ends the process with the reason: a generator that cannot send has nothing to measure. */
_Noreturn void udp_die(const char *what);

/* A wildcard socket; port 0 lets the kernel choose. Ends the process on failure. */
int udp_open(uint16_t port);
uint16_t udp_port(int fd);
/* Receive buffer that the kernel granted, in its own accounting. */
size_t udp_granted(int fd);

/* Prepares `b` to send datagrams of `len` bytes to 127.0.0.1:port, `segments` of them in each
 * message. Datagram i lies at udp_at(b, len, i). */
void udp_lay_out(struct udp_batch *b, uint16_t port, size_t len, unsigned segments);
static inline uint8_t *udp_at(struct udp_batch *b, size_t len, unsigned i)
{
    return b->bytes + len * i;
}
/* Message i leaves from `ip`. */
void udp_source(struct udp_batch *b, unsigned i, uint32_t ip);
/* Messages first..first+count-1, all of them. */
void udp_send(int fd, struct udp_batch *b, unsigned count);
/* Every send of `fd` is cut into datagrams of `len` bytes; 0: no cutting. */
void udp_cut(int fd, size_t len);

enum {
    UDP_MERGED_MAX = 65536, /* UDP_GRO hands over up to 64 KiB at once */
    /* Not a power of two, or all buffers would begin in the same cache set. */
    UDP_STRIDE = UDP_MERGED_MAX + 192,
};

/* One datagram as received. Valid until the next udp_receive. */
struct udp_datagram {
    const uint8_t *bytes;
    size_t len;
    uint32_t came_to; /* the address it was sent to */
};

struct udp_arrivals {
    unsigned count;
    struct udp_datagram datagram[UDP_BATCH * UDP_BATCH];
    struct mmsghdr header[UDP_BATCH];
    struct iovec piece[UDP_BATCH];
    struct udp_control control[UDP_BATCH];
    uint8_t bytes[UDP_BATCH][UDP_STRIDE];
};

/* Prepares `a` to receive. */
void udp_lay_open(struct udp_arrivals *a);
/* What is there now, without waiting: fills a->datagram. Messages that the kernel merged are taken
 * apart. */
void udp_receive(int fd, struct udp_arrivals *a);
/* Whether the socket takes merged messages: like a network card that cuts by itself, the receiver's
 * share of the work is then not done in the sender's time. */
void udp_merge(int fd, bool on);

#endif
