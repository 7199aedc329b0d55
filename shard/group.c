#include <assert.h>
#include <netinet/udp.h>
#include <string.h>
#include "shard/group.h"

/* Appends one control message; `used` grows by its space. */
static void control_write(uint8_t *control, size_t *used, int level, int type, const void *value,
                          size_t len)
{
    struct cmsghdr c = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    memset(control + *used, 0, CMSG_SPACE(len));
    memcpy(control + *used, &c, sizeof c);
    memcpy(control + *used + CMSG_LEN(0), value, len);
    *used += CMSG_SPACE(len);
}

static_assert(CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo)) <=
                  sizeof((struct group *)0)->control[0],
              "both control messages fit");

static void source_write(uint8_t *control, size_t *used, const uint8_t ip[static 16], int family)
{
    if (family == AF_INET) {
        struct in_pktinfo info = {.ipi_ifindex = 0};
        memcpy(&info.ipi_spec_dst, ip + 12, 4);
        control_write(control, used, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_ifindex = 0};
        memcpy(&info.ipi6_addr, ip, 16);
        control_write(control, used, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

/* How many datagrams from out[i] on become one message. The last may be shorter. */
static unsigned run_length(const struct outbox *out, unsigned i, uint32_t segment_max)
{
    const struct outgoing *first = &out->out[i];
    if (first->len > segment_max)
        return 1;
    uint32_t bytes = first->len;
    unsigned n = 1;
    for (; i + n < out->count && n < GROUP_SEGMENTS_MAX; n++) {
        const struct outgoing *o = &out->out[i + n];
        bytes += o->len;
        if (o->len > first->len || bytes > GROUP_BYTES_MAX || o->local != first->local ||
            o->scope != first->scope || !endpoint_equal(&o->to, &first->to))
            break;
        if (o->len < first->len)
            return n + 1;
    }
    return n;
}

void group_build(struct group *g, const struct outbox *out, const struct service *service,
                 int family, uint32_t segment_max)
{
    struct io_messages *m = &g->messages;
    m->count = 0;
    for (unsigned i = 0, n; i < out->count; i += n) {
        const struct outgoing *o = &out->out[i];
        assert(m->count < IO_SEND_MAX);
        unsigned at = m->count++;
        struct msghdr *h = &m->header[at].msg_hdr;
        size_t control = 0;
        n = run_length(out, i, segment_max);
        for (unsigned k = 0; k < n; k++)
            g->piece[i + k] = (struct iovec){.iov_base = (void *)(uintptr_t)out->out[i + k].bytes,
                                             .iov_len = out->out[i + k].len};
        uint16_t segment = n > 1 ? (uint16_t)o->len : 0;
        if (segment)
            control_write(g->control[at], &control, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
        if (o->local)
            source_write(g->control[at], &control, service->ip[o->local], family);
        *h = (struct msghdr){
            .msg_name = &g->name[at],
            .msg_namelen = name_of_endpoint(&g->name[at], &o->to, family, o->scope),
            .msg_iov = &g->piece[i],
            .msg_iovlen = n,
            .msg_control = control ? g->control[at] : NULL,
            .msg_controllen = control,
        };
        m->of[at].wide = o->len > IO_NARROW_MAX;
        m->of[at].packets = (uint16_t)n;
        m->of[at].segment = segment;
    }
}
