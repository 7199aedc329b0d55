#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "shard/io.h"

/* The port for hosts that refuse io_uring: recvmmsg, as fast as the ring. */

enum { ERROR_PAUSE_MS = 10 }; /* a socket that fails again and again must not spin */

struct io {
    struct io_sockets sockets;
    struct lane_stats *stats;
    int wake;
    struct mmsghdr header[IO_BUFFERS];
    struct iovec piece[IO_BUFFERS];
    union name name[IO_BUFFERS];
    _Alignas(8) uint8_t control[IO_BUFFERS][IO_CONTROL_MAX];
    uint8_t *buffers; /* IO_BUFFERS of IO_PAYLOAD_MAX */
};

static int mmsg_open(struct io **ret, const struct io_sockets *sockets, int wake,
                     struct lane_stats *stats)
{
    int err = -ENOMEM;
    struct io *io = calloc(1, sizeof *io);
    if (!io)
        return err;
    *io = (struct io){.sockets = *sockets, .stats = stats, .wake = wake};
    io->buffers = io_buffers_new(IO_PAYLOAD_MAX);
    if (!io->buffers)
        goto free_io;
    for (unsigned i = 0; i < IO_BUFFERS; i++) {
        io->piece[i] =
            (struct iovec){io->buffers + i * IO_BUFFERS_STRIDE(IO_PAYLOAD_MAX), IO_PAYLOAD_MAX};
        io->header[i].msg_hdr = (struct msghdr){.msg_name = &io->name[i],
                                                .msg_iov = &io->piece[i],
                                                .msg_iovlen = 1,
                                                .msg_control = io->control[i]};
    }
    *ret = io;
    return 0;
free_io:
    free(io);
    return err;
}

static unsigned receive(struct io *io, struct arrival arrivals[static IO_ARRIVALS_MAX])
{
    for (unsigned i = 0; i < IO_BUFFERS; i++) {
        io->header[i].msg_hdr.msg_namelen = sizeof io->name[i];
        io->header[i].msg_hdr.msg_controllen = IO_CONTROL_MAX;
    }
    int n = recvmmsg(io->sockets.narrow, io->header, IO_BUFFERS, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            count_add(&io->stats->receive_errors, 1);
            poll(&(struct pollfd){.fd = io->wake, .events = POLLIN}, 1, ERROR_PAUSE_MS);
        }
        return 0;
    }
    for (int i = 0; i < n; i++) {
        const struct msghdr *h = &io->header[i].msg_hdr;
        arrivals[i].bytes = io->piece[i].iov_base;
        arrivals[i].len = io->header[i].msg_len;
        arrivals[i].truncated = h->msg_flags & MSG_TRUNC;
        arrival_from_msg(&arrivals[i], &io->name[i], h);
    }
    return (unsigned)n;
}

static unsigned mmsg_wait(struct io *io, struct arrival arrivals[static IO_ARRIVALS_MAX],
                          uint64_t timeout_ns)
{
    unsigned n = receive(io, arrivals);
    if (n > 0 || timeout_ns == 0)
        return n;
    struct pollfd ready[2] = {{.fd = io->sockets.narrow, .events = POLLIN},
                              {.fd = io->wake, .events = POLLIN}};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    if (ppoll(ready, 2, &timeout, NULL) <= 0)
        return 0; /* time is up, or a signal: the caller turns and comes back */
    uint64_t wakes;
    if (ready[1].revents && read(io->wake, &wakes, sizeof wakes) < 0 && errno != EAGAIN)
        count_add(&io->stats->receive_errors, 1);
    return ready[0].revents ? receive(io, arrivals) : 0;
}

static void mmsg_recycle(struct io *io)
{
    (void)io; /* recvmmsg takes the same buffers again */
}

static bool mmsg_stop(struct io *io)
{
    (void)io; /* nothing is taken but in a wait, which hands all of it out */
    return true;
}

static void mmsg_close(struct io *io)
{
    free(io->buffers);
    free(io);
}

const struct io_port io_mmsg_port = {
    .name = "mmsg",
    .open = mmsg_open,
    .wait = mmsg_wait,
    .recycle = mmsg_recycle,
    .stop = mmsg_stop,
    .close = mmsg_close,
};
