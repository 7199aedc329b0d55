#include "gossip/resolve.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "proto/sockaddr.h"

enum { SILENCE_S = 1, TRIES = 2, PORT_TEXT = 6 };

#define SERVICE "_beacon._udp."

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Name servers that are silent cost a second each, not the usual five. The state is the thread's
 * own, and read anew each time, as the resolver's configuration may change while we run. */
static void be_quick(void)
{
    if (res_init() == 0) {
        _res.retrans = SILENCE_S;
        _res.retry = TRIES;
    }
}

int resolve_list(const char *host, uint16_t port, struct addrinfo **ret)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port_text[PORT_TEXT];
    snprintf(port_text, sizeof port_text, "%u", (unsigned)port);
    be_quick();
    return getaddrinfo(host, port_text, &hints, ret);
}

static void add(struct resolved *r, const struct addrinfo *list)
{
    for (const struct addrinfo *a = list; a && r->count < RESOLVE_MAX; a = a->ai_next) {
        union name name;
        if (a->ai_addrlen > sizeof name || (a->ai_family != AF_INET && a->ai_family != AF_INET6))
            continue;
        memcpy(&name, a->ai_addr, a->ai_addrlen);
        struct endpoint e = endpoint_of_name(&name, NULL);
        bool known = false;
        for (unsigned i = 0; i < r->count; i++)
            known = known || endpoint_equal(&r->at[i], &e);
        if (!known)
            r->at[r->count++] = e;
    }
}

/* False: it may have addresses, but they could not be asked for. */
static bool add_host(struct resolved *r, const char *host, uint16_t port)
{
    struct addrinfo *list;
    int err = resolve_list(host, port, &list);
    if (err == 0) {
        add(r, list);
        freeaddrinfo(list);
        return true;
    }
    snprintf(r->error, sizeof r->error, "%s", gai_strerror(err));
    return err == EAI_NONAME || err == EAI_NODATA || err == EAI_ADDRFAMILY;
}

void resolve_host(const char *host, uint16_t port, struct resolved *ret)
{
    *ret = (struct resolved){.good = false};
    ret->good = add_host(ret, host, port) && ret->count > 0;
}

/* --- SRV --- */

/* Length of the answer, 0: there are no such records, -1: it could not be asked, or was refused.
 */
static int ask_service(const char *name, uint8_t answer[static NS_MAXMSG],
                       char error[static RESOLVE_ERROR_MAX])
{
    char full[NS_MAXDNAME];
    struct __res_state state = {0};
    int n = snprintf(full, sizeof full, "%s%s", SERVICE, name);
    if (n < 0 || n >= (int)sizeof full)
        return 0;
    if (res_ninit(&state) != 0) {
        snprintf(error, RESOLVE_ERROR_MAX, "the resolver does not start");
        return -1;
    }
    state.retrans = SILENCE_S;
    state.retry = TRIES;
    n = res_nquery(&state, full, ns_c_in, ns_t_srv, answer, NS_MAXMSG);
    int why = state.res_h_errno;
    res_nclose(&state);
    if (n > 0)
        return n;
    if (why == HOST_NOT_FOUND || why == NO_DATA)
        return 0;
    snprintf(error, RESOLVE_ERROR_MAX, "SRV records: %s", hstrerror(why));
    return -1;
}

/* RFC 2782: priority (2), weight (2), port (2), target. All of them are wanted, so the first two
 * do not matter. A target "." says that there is no such service. */
static bool read_record(const ns_msg *m, const ns_rr *rr, char target[static NS_MAXDNAME],
                        uint16_t *ret_port)
{
    const uint8_t *at = ns_rr_rdata(*rr);
    if (ns_rr_type(*rr) != ns_t_srv || ns_rr_rdlen(*rr) < 7)
        return false;
    *ret_port = (uint16_t)(at[4] << 8 | at[5]);
    return *ret_port != 0 &&
           dn_expand(ns_msg_base(*m), ns_msg_end(*m), at + 6, target, NS_MAXDNAME) > 0 &&
           target[0] != '\0' && strcmp(target, ".") != 0;
}

/* How many records were followed, -1: not all could be. */
static int add_targets(struct resolved *r, const uint8_t *answer, int len, uint64_t until_ns)
{
    ns_msg m;
    ns_rr rr;
    char target[NS_MAXDNAME];
    uint16_t port;
    int records = 0;
    if (ns_initparse(answer, len, &m) < 0)
        return -1;
    for (int i = 0; i < ns_msg_count(m, ns_s_an); i++) {
        if (now_ns() >= until_ns || ns_parserr(&m, ns_s_an, i, &rr) < 0) {
            snprintf(r->error, sizeof r->error, "SRV records: too slow, or malformed");
            return -1;
        }
        if (!read_record(&m, &rr, target, &port))
            continue;
        if (!add_host(r, target, port))
            return -1;
        records++;
    }
    return records;
}

void resolve_service(const char *name, uint16_t port, bool was_service, uint64_t until_ns,
                     struct resolved *ret)
{
    uint8_t *answer = malloc(NS_MAXMSG);
    *ret = (struct resolved){.good = false};
    if (!answer) {
        snprintf(ret->error, sizeof ret->error, "no memory");
        return;
    }
    int len = ask_service(name, answer, ret->error);
    int records = len > 0 ? add_targets(ret, answer, len, until_ns) : len;
    free(answer);
    ret->is_service = records > 0;
    bool whole = records > 0;
    if (records == 0 || (len < 0 && !was_service))
        whole = add_host(ret, name, port);
    ret->good = whole && ret->count > 0;
    if (ret->good)
        ret->error[0] = '\0'; /* of those targets that have no address */
}
