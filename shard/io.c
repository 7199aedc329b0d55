#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shard/io.h"

enum {
    HUGE_PAGE = 2 << 20,
    SEGMENT_CONTROL = CMSG_SPACE(sizeof(uint16_t)), /* of the segment size, which stands first */
};

uint8_t *io_buffers_new(size_t size)
{
    size_t bytes = IO_BUFFERS * IO_BUFFERS_STRIDE(size);
    void *memory;
    if (posix_memalign(&memory, HUGE_PAGE, bytes) != 0)
        return NULL;
    madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish */
    memset(memory, 0, bytes); /* touched now: no page fault on a packet's way */
    return memory;
}

/* The kernel refused a message of `segment`-sized datagrams: lowers *segment_max when the reason
 * can be the size (not for what fits every path: that was the destination's fault), or to 0 where
 * the device cannot segment at all. */
static void segment_refused(uint32_t *segment_max, uint16_t segment, int err)
{
    if (segment == 0)
        return;
    if (err == EIO) /* no checksum offload, or an xfrm route, before Linux 6.11 */
        *segment_max = 0;
    else if ((err == EMSGSIZE || err == EINVAL) && segment > IO_NARROW_MAX &&
             segment <= *segment_max)
        *segment_max = segment - 1u;
}

void io_wake(int eventfd)
{
    uint64_t one = 1;
    while (write(eventfd, &one, sizeof one) < 0 && errno == EINTR)
        continue; /* EAGAIN: the counter is full, so it is awake already */
}

static void local_from(struct arrival *a, const void *ip, size_t len)
{
    struct endpoint local = endpoint_of(ip, len, 0);
    memcpy(a->local, local.ip, sizeof a->local);
    a->has_local = true;
}

void arrival_from_msg(struct arrival *a, const union name *name, const struct msghdr *control)
{
    a->from = endpoint_of_name(name, &a->scope);
    a->segment = 0;
    a->has_local = false;
    struct msghdr m = *control; /* CMSG_NXTHDR wants it writable */
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            a->segment = size > 0 ? (uint32_t)size : 0;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            local_from(a, &info.ipi6_addr, 16);
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            /* For a broadcast this one is ours, ipi_addr is not. */
            local_from(a, &info.ipi_spec_dst, 4);
        }
    }
}

/* One message that the kernel refused. Segments are tried one by one: the reason may be their
 * joining. */
static void refused(struct io_sender *s, int fd, const struct io_messages *m, unsigned i, int err)
{
    const struct msghdr *whole = &m->header[i].msg_hdr;
    segment_refused(&s->segment_max, m->of[i].segment, err);
    if (m->of[i].segment == 0) {
        count_add(&s->stats->send_errors, 1);
        return;
    }
    for (unsigned k = 0; k < m->of[i].packets; k++) {
        struct msghdr one = *whole;
        one.msg_iov = whole->msg_iov + k;
        one.msg_iovlen = 1;
        one.msg_control = (uint8_t *)whole->msg_control + SEGMENT_CONTROL;
        one.msg_controllen = whole->msg_controllen - SEGMENT_CONTROL;
        if (sendmsg(fd, &one, MSG_DONTWAIT) < 0)
            count_add(&s->stats->send_errors, 1);
    }
}

void io_send(struct io_sender *s, struct io_messages *m)
{
    for (unsigned i = 0; i < m->count;) {
        bool wide = m->of[i].wide;
        unsigned end = i + 1;
        while (end < m->count && m->of[end].wide == wide)
            end++;
        while (i < end) {
            int fd = wide ? s->sockets.wide : s->sockets.narrow;
            int n = sendmmsg(fd, &m->header[i], end - i, MSG_DONTWAIT);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                refused(s, fd, m, i++, errno); /* that one only: go on behind it */
            else
                i += (unsigned)n;
        }
    }
}
