#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "shard/io.h"

/* One ring a shard: multishot recvmsg into a ring of provided buffers. It ends with ENOBUFS when
 * all buffers are out (the datagrams wait in the socket) and is armed again by the next wait.
 *
 * A receive that is armed takes datagrams whenever the ring is entered, so it is cancelled before
 * the ring closes: what it took until its last completion is handed out like any other, and the
 * rest stays in the socket. */

enum {
    RING_SQES = 8,   /* one receive, one poll, one cancel */
    RING_CQES = 256, /* a receive for each buffer, and wakes */
    BUFFER_GROUP = 1,
    NAME_ROOM = 32, /* a sockaddr_in6 and padding: the control messages behind it stay aligned */
    BUFFER_HEAD = sizeof(struct io_uring_recvmsg_out) + NAME_ROOM + IO_CONTROL_MAX,
    BUFFER_SIZE = BUFFER_HEAD + IO_PAYLOAD_MAX,
    ERROR_PAUSE_MS = 10, /* a socket that fails again and again must not spin */
};
enum { FIXED_NARROW, FIXED_WAKE, FIXED_COUNT };    /* registered descriptors */
enum operation { OP_RECEIVE, OP_WAKE, OP_CANCEL }; /* user_data */

struct io {
    struct io_uring ring;
    struct lane_stats *stats;
    int wake;
    bool receiving, waking, failing;
    bool stopping;          /* receives no more; `receiving` until the last completion has come */
    struct msghdr template; /* how multishot recvmsg lays out a buffer */
    struct io_uring_buf_ring *provided;
    uint8_t *buffers; /* IO_BUFFERS of BUFFER_SIZE */
    unsigned lent_count;
    uint16_t lent[IO_BUFFERS]; /* buffers of the arrivals handed out by the last wait */
};

static uint8_t *buffer_at(struct io *io, unsigned id)
{
    return io->buffers + id * IO_BUFFERS_STRIDE(BUFFER_SIZE);
}

static void buffers_give(struct io *io, const uint16_t *ids, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        io_uring_buf_ring_add(io->provided, buffer_at(io, ids[i]), BUFFER_SIZE, ids[i],
                              io_uring_buf_ring_mask(IO_BUFFERS), (int)i);
    io_uring_buf_ring_advance(io->provided, (int)count);
}

static int buffers_open(struct io *io)
{
    size_t ring_size = IO_BUFFERS * sizeof(struct io_uring_buf);
    if (posix_memalign((void **)&io->provided, 4096, ring_size) != 0)
        return -ENOMEM;
    memset(io->provided, 0, ring_size);
    io->buffers = io_buffers_new(BUFFER_SIZE);
    if (!io->buffers)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)io->provided, .ring_entries = IO_BUFFERS, .bgid = BUFFER_GROUP};
    int err = io_uring_register_buf_ring(&io->ring, &reg, 0);
    if (err < 0)
        return err;
    io_uring_buf_ring_init(io->provided);
    uint16_t all[IO_BUFFERS];
    for (uint16_t i = 0; i < IO_BUFFERS; i++)
        all[i] = i;
    buffers_give(io, all, IO_BUFFERS);
    return 0;
}

static int ring_open(struct io_uring *ring)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = RING_CQES,
    };
    return io_uring_queue_init_params(RING_SQES, ring, &params);
}

static void uring_close(struct io *io)
{
    if (io->ring.ring_fd >= 0)
        io_uring_queue_exit(&io->ring);
    free(io->provided);
    free(io->buffers);
    free(io);
}

static int uring_open(struct io **ret, const struct io_sockets *sockets, int wake,
                      struct lane_stats *stats)
{
    struct io *io = calloc(1, sizeof *io);
    if (!io)
        return -ENOMEM;
    *io = (struct io){
        .stats = stats,
        .wake = wake,
        .template = {.msg_namelen = NAME_ROOM, .msg_controllen = IO_CONTROL_MAX},
    };
    int err = ring_open(&io->ring);
    if (err < 0) {
        io->ring.ring_fd = -1;
        goto close_all;
    }
    const int files[FIXED_COUNT] = {sockets->narrow, io->wake};
    err = io_uring_register_files(&io->ring, files, FIXED_COUNT);
    if (err < 0)
        goto close_all;
    err = buffers_open(io);
    if (err < 0)
        goto close_all;
    io_uring_register_ring_fd(&io->ring); /* saves a look-up; older kernels do without */
    *ret = io;
    return 0;
close_all:
    uring_close(io);
    return err;
}

static struct io_uring_sqe *sqe_get(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    assert(sqe); /* a wait submits all; two are armed and one cancelled at most */
    return sqe;
}

static void arm(struct io *io)
{
    if (!io->waking) {
        struct io_uring_sqe *sqe = sqe_get(io);
        io_uring_prep_poll_multishot(sqe, FIXED_WAKE, POLLIN);
        sqe->flags |= IOSQE_FIXED_FILE;
        io_uring_sqe_set_data64(sqe, OP_WAKE);
        io->waking = true;
    }
    if (!io->receiving && !io->stopping) {
        struct io_uring_sqe *sqe = sqe_get(io);
        io_uring_prep_recvmsg_multishot(sqe, FIXED_NARROW, &io->template, 0);
        sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
        sqe->buf_group = BUFFER_GROUP;
        io_uring_sqe_set_data64(sqe, OP_RECEIVE);
        io->receiving = true;
        count_add(&io->stats->rearms, 1);
    }
}

/* A receive completion. True when it filled `a`. */
static bool received(struct io *io, const struct io_uring_cqe *cqe, struct arrival *a)
{
    if (!(cqe->flags & IORING_CQE_F_MORE))
        io->receiving = false;
    if (cqe->res < 0) {
        if (cqe->res != -ENOBUFS && !(io->stopping && cqe->res == -ECANCELED)) {
            count_add(&io->stats->receive_errors, 1);
            io->failing = true;
        }
        return false;
    }
    uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    io->lent[io->lent_count++] = id;
    struct io_uring_recvmsg_out *o =
        io_uring_recvmsg_validate(buffer_at(io, id), cqe->res, &io->template);
    if (!o) {
        count_add(&io->stats->receive_errors, 1);
        return false;
    }
    struct msghdr control = {
        .msg_control = (uint8_t *)io_uring_recvmsg_name(o) + io->template.msg_namelen,
        .msg_controllen = o->controllen,
    };
    a->bytes = io_uring_recvmsg_payload(o, &io->template);
    a->len = io_uring_recvmsg_payload_length(o, cqe->res, &io->template);
    a->truncated = o->flags & MSG_TRUNC;
    arrival_from_msg(a, io_uring_recvmsg_name(o), &control);
    return true;
}

static void woken(struct io *io, const struct io_uring_cqe *cqe)
{
    uint64_t wakes;
    if (!(cqe->flags & IORING_CQE_F_MORE))
        io->waking = false;
    if (read(io->wake, &wakes, sizeof wakes) < 0 && errno != EAGAIN)
        count_add(&io->stats->receive_errors, 1);
}

static unsigned uring_wait(struct io *io, struct arrival arrivals[static IO_ARRIVALS_MAX],
                           uint64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    if (io->failing) {
        poll(&(struct pollfd){.fd = io->wake, .events = POLLIN}, 1, ERROR_PAUSE_MS);
        io->failing = false;
    }
    arm(io);
    int err;
    if (timeout_ns == 0) {
        err = io_uring_submit_and_get_events(&io->ring);
    } else {
        struct __kernel_timespec timeout = {.tv_sec = (int64_t)(timeout_ns / 1000000000),
                                            .tv_nsec = (int64_t)(timeout_ns % 1000000000)};
        err = io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, &timeout, NULL);
    }
    if (err < 0 && err != -ETIME && err != -EINTR && err != -EAGAIN) {
        count_add(&io->stats->receive_errors, 1);
        io->failing = true;
    }
    unsigned head, seen = 0, n = 0;
    io_uring_for_each_cqe(&io->ring, head, cqe)
    {
        seen++;
        switch ((enum operation)io_uring_cqe_get_data64(cqe)) {
        case OP_RECEIVE:
            n += received(io, cqe, &arrivals[n]);
            break;
        case OP_WAKE:
            woken(io, cqe);
            break;
        case OP_CANCEL:
            break; /* the receive's own last completion tells */
        }
    }
    io_uring_cq_advance(&io->ring, seen);
    return n;
}

static void uring_recycle(struct io *io)
{
    buffers_give(io, io->lent, io->lent_count);
    io->lent_count = 0;
}

static bool uring_stop(struct io *io)
{
    if (io->receiving && !io->stopping) { /* submitted by the next wait */
        struct io_uring_sqe *sqe = sqe_get(io);
        io_uring_prep_cancel64(sqe, OP_RECEIVE, 0);
        io_uring_sqe_set_data64(sqe, OP_CANCEL);
    }
    io->stopping = true;
    return !io->receiving;
}

const struct io_port io_uring_port = {
    .name = "uring",
    .open = uring_open,
    .wait = uring_wait,
    .recycle = uring_recycle,
    .stop = uring_stop,
    .close = uring_close,
};
