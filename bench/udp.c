#include "bench/udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void udp_die(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void buffer_ask(int fd, int force, int plain)
{
    int bytes = UDP_BUFFER;
    /* FORCE goes past rmem_max but needs CAP_NET_ADMIN; the plain option is cut to rmem_max. The
     * window is fitted to what was granted, so neither failure is one. */
    if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) != 0)
        (void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

int udp_open(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        udp_die("socket");
    buffer_ask(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    buffer_ask(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    if (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0)
        udp_die("IP_PKTINFO");
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
        udp_die("bind");
    return fd;
}

uint16_t udp_port(int fd)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        udp_die("getsockname");
    return ntohs(at.sin_port);
}

size_t udp_granted(int fd)
{
    int bytes = 0;
    socklen_t len = sizeof bytes;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &len) != 0)
        udp_die("SO_RCVBUF");
    return (size_t)bytes;
}

void udp_lay_out(struct udp_batch *b, uint16_t port, size_t len, unsigned segments)
{
    for (unsigned i = 0; i < UDP_BATCH / segments; i++) {
        b->name[i] = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(UDP_LOOPBACK)};
        b->piece[i] =
            (struct iovec){.iov_base = udp_at(b, len, i * segments), .iov_len = len * segments};
        b->header[i].msg_hdr = (struct msghdr){.msg_name = &b->name[i],
                                               .msg_namelen = sizeof b->name[i],
                                               .msg_iov = &b->piece[i],
                                               .msg_iovlen = 1};
    }
}

void udp_source(struct udp_batch *b, unsigned i, uint32_t ip)
{
    struct msghdr *m = &b->header[i].msg_hdr;
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(ip)};
    m->msg_control = &b->control[i];
    m->msg_controllen = CMSG_SPACE(sizeof info);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
}

void udp_send(int fd, struct udp_batch *b, unsigned count)
{
    for (unsigned done = 0; done < count;) {
        int n = sendmmsg(fd, b->header + done, count - done, 0);
        if (n > 0)
            done += (unsigned)n;
        else if (errno != EINTR)
            udp_die("sendmmsg");
    }
}

void udp_cut(int fd, size_t len)
{
    int bytes = (int)len;
    if (setsockopt(fd, SOL_UDP, UDP_SEGMENT, &bytes, sizeof bytes) != 0)
        udp_die("UDP_SEGMENT");
}

void udp_merge(int fd, bool on)
{
    int value = on;
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &value, sizeof value) != 0)
        udp_die("UDP_GRO");
}

void udp_lay_open(struct udp_arrivals *a)
{
    for (unsigned i = 0; i < UDP_BATCH; i++) {
        a->piece[i] = (struct iovec){.iov_base = a->bytes[i], .iov_len = UDP_MERGED_MAX};
        a->header[i].msg_hdr = (struct msghdr){
            .msg_iov = &a->piece[i], .msg_iovlen = 1, .msg_control = &a->control[i]};
    }
}

static void read_control(struct msghdr *m, uint32_t *ret_came_to, size_t *ret_segment)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct in_pktinfo info;
        int segment;
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&info, CMSG_DATA(c), sizeof info);
            *ret_came_to = ntohl(info.ipi_addr.s_addr);
        } else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            *ret_segment = (size_t)segment;
        }
    }
}

static void take_apart(struct udp_arrivals *a, unsigned i)
{
    size_t left = a->header[i].msg_len, segment = left;
    const uint8_t *at = a->bytes[i];
    uint32_t came_to = 0;
    read_control(&a->header[i].msg_hdr, &came_to, &segment);
    do {
        size_t len = left < segment ? left : segment;
        a->datagram[a->count++] = (struct udp_datagram){at, len, came_to};
        at += len;
        left -= len;
    } while (left > 0 && a->count < UDP_BATCH * UDP_BATCH);
}

void udp_receive(int fd, struct udp_arrivals *a)
{
    for (unsigned i = 0; i < UDP_BATCH; i++)
        a->header[i].msg_hdr.msg_controllen = sizeof a->control[i];
    int n = recvmmsg(fd, a->header, UDP_BATCH, MSG_DONTWAIT, NULL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        udp_die("recvmmsg");
    a->count = 0;
    for (int i = 0; i < n; i++)
        take_apart(a, (unsigned)i);
}
