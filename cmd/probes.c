#include "cmd/probes.h"

#include <unistd.h>
#include "proto/sockaddr.h"

/* Whether this host has a way to `to`: asks for a route, sends nothing. */
static bool reachable(const struct endpoint *to)
{
    union name name;
    socklen_t len = name_of_endpoint(&name, to, AF_INET6, 0);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, &name.any, len) == 0;
    if (fd >= 0)
        close(fd);
    return yes;
}

void probes_set(struct admin *a, const struct shards_report *report)
{
    static const uint8_t loop4[4] = {127, 0, 0, 1}, loop6[16] = {[15] = 1};
    struct endpoint bound = report->bound;
    bool any = endpoint_is_any(&bound), any6 = any && !endpoint_is_v4(&bound);
    if (any)
        a->probe4 = endpoint_of(loop4, 4, bound.port);
    else if (endpoint_is_v4(&bound))
        a->probe4 = bound;
    if (any6 && report->dual_stack) {
        struct endpoint probe = endpoint_of(loop6, 16, bound.port);
        if (reachable(&probe))
            a->probe6 = probe; /* else IPv6 is switched off on this host */
    } else if (!endpoint_is_v4(&bound) && !any6) {
        a->probe6 = bound;
    }
}
