/* io - UDP in and out of one shard: two ways to receive behind one interface, one way to send.
 *
 * A port owns receive buffers and yields arrivals (one buffer, which may hold a GRO batch of equal
 * segments). Sending takes messages (struct mmsghdr, which may carry a GSO batch). All calls come
 * from the shard's thread. The eventfd that ends a wait is the shard's: it lives longer than a
 * port.
 *
 * One turn: wait, decide, io_send (once or more), recycle. Bytes of an arrival are valid until
 * recycle; io_send has read its messages when it returns. */
#ifndef BEACON_SHARD_IO_H
#define BEACON_SHARD_IO_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include "proto/sockaddr.h"
#include "server/stats.h"

enum {
    IO_BUFFERS = 64,        /* per shard; measured: more gains nothing */
    IO_PAYLOAD_MAX = 65536, /* UDP_GRO hands over up to 64 KiB at once */
    IO_CONTROL_MAX = 128,   /* segment size and packet info */
    IO_ARRIVALS_MAX = IO_BUFFERS,
    IO_SEND_MAX = 256, /* messages a call of io_send */
};

/* The shard's two sockets, both bound to the service address and in the reuseport group. `narrow`
 * receives, and sends what fits every path (IP_PMTUDISC_PROBE: no path-MTU look-up, measured 6 to
 * 11 % cheaper). `wide` only sends: larger datagrams, with path-MTU discovery and fragmentation. */
struct io_sockets {
    int family; /* AF_INET6 (dual-stack) or AF_INET where the host has no IPv6 */
    int narrow, wide;
};
enum { IO_NARROW_MAX = 1232 }; /* IPv6 minimum MTU less headers: fits every path */

struct arrival {
    uint8_t *bytes;
    uint32_t len;
    uint32_t segment; /* size of each datagram in it but the last; 0: it is one datagram */
    uint32_t scope;   /* interface index of a link-local source */
    bool truncated;
    struct endpoint from;
    bool has_local;
    uint8_t local[16]; /* address it was sent to */
};

/* Messages to send, in order. The headers are what sendmmsg takes; the rest is about them. Where
 * `segment` is set, UDP_SEGMENT is the first control message. */
struct io_messages {
    unsigned count;
    struct mmsghdr header[IO_SEND_MAX];
    struct {
        bool wide;        /* leaves by the wide socket */
        uint16_t packets; /* datagrams in it */
        uint16_t segment; /* UDP_SEGMENT size, 0: one datagram */
    } of[IO_SEND_MAX];
};

struct io; /* a port's own state */

struct io_port {
    const char *name;
    /* 0 or -errno. -ENOSYS, -EPERM, -ENOMEM, ...: this host refuses it, try the other port. Called
     * on the thread that will use it. */
    int (*open)(struct io **ret, const struct io_sockets *sockets, int wake,
                struct lane_stats *stats);
    /* Fills up to IO_ARRIVALS_MAX. Blocks until a datagram, a wake or `timeout_ns` (0: only looks).
     */
    unsigned (*wait)(struct io *io, struct arrival arrivals[static IO_ARRIVALS_MAX],
                     uint64_t timeout_ns);
    /* The arrivals of the last wait are done with. */
    void (*recycle)(struct io *io);
    /* Takes nothing more from the socket. False: the kernel may have taken something already, so
     * wait, decide and recycle, and ask again. True: all that was taken has been handed out by a
     * wait, the rest lies in the socket for whoever reads it next. No wait after that. */
    bool (*stop)(struct io *io);
    void (*close)(struct io *io);
};

extern const struct io_port io_uring_port, io_mmsg_port;

/* Where a shard sends. */
struct io_sender {
    struct io_sockets sockets;
    struct lane_stats *stats;
    uint32_t segment_max; /* lowered when segments turn out not to fit the device */
};

/* Sends in order with sendmmsg, without waiting. What the kernel refuses is skipped and counted; a
 * refused GSO batch is sent again one by one. The uring port sends like this too: measured 4 to 5 %
 * cheaper than an entry in the ring for each message. */
void io_send(struct io_sender *s, struct io_messages *m);

/* Shared by the ports: memory for IO_BUFFERS of `size` bytes each, IO_BUFFERS_STRIDE(size) apart.
 * The stride is no multiple of a cache's way: the heads of all buffers would else share a few sets.
 * Huge pages where the host gives them. NULL: no memory. Freed with free. */
#define IO_BUFFERS_STRIDE(size) ((((size_t)(size) + 63) & ~(size_t)63) + 5 * 64)
uint8_t *io_buffers_new(size_t size);

/* Makes an eventfd readable. Any thread. */
void io_wake(int eventfd);

/* Shared by the ports: what recvmsg gave -> arrival. */
void arrival_from_msg(struct arrival *a, const union name *name, const struct msghdr *control);

#endif
