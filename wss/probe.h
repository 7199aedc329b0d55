/* probe - asks our own services a question, as a stranger would: STUN over UDP, HTTP over TLS.
 *
 * A prober is a thread that asks each of its endpoints every ADMIN_PROBE_CACHE_MS and keeps the
 * newest result, so that whoever wants to know never waits. */
#ifndef BEACON_WSS_PROBE_H
#define BEACON_WSS_PROBE_H

#include <pthread.h>
#include <stdatomic.h>
#include "proto/endpoint.h"

enum { ADMIN_PROBE_CACHE_MS = 3000, ADMIN_PROBE_WAIT_MS = 500 };

/* Sends one STUN Binding request to `at` from a socket of its own and waits for the answer; asks a
 * second time after half of `wait_ms`, as UDP may lose the first. Blocks up to `wait_ms`. Returns
 * the round trip in ns, or -errno (-ETIMEDOUT, -ECONNREFUSED where nobody listens). `wait_ms` 0
 * finds out whether a request can be sent at all. */
int64_t stun_probe(const struct endpoint *at, unsigned wait_ms);

struct probe_target {
    struct endpoint at; /* port 0: no such service */
    enum { PROBE_STUN, PROBE_HTTP, PROBE_HTTPS } how;
    bool behind_proxy; /* it wants a PROXY header from us */
};

/* Asks for /health over TCP or TLS (the certificate is not checked: the name is not ours to know)
 * and wants 200. Being closed before a byte came is good, too: that is overload. As stun_probe. */
struct ssl_ctx_st;
int64_t http_probe(const struct probe_target *t, struct ssl_ctx_st *context, unsigned wait_ms);

/* What both count their time in. */
int64_t probe_clock_ns(void);

enum { PROBE_UDP4, PROBE_UDP6, PROBE_WSS, PROBE_TARGETS };

enum probe_state {
    PROBE_STARTING, /* no result yet; also before prober_start */
    PROBE_OFF,      /* no such endpoint: port 0 */
    PROBE_OK,
    PROBE_FAILED,
};

/* All zero before prober_start and again of no use after prober_stop, but prober_state may be asked
 * at any time. */
struct prober {
    /* The starter's. */
    struct probe_target target[PROBE_TARGETS];
    struct ssl_ctx_st *context; /* of the client; NULL when nothing speaks TLS */
    int stop;                   /* eventfd: readable when the thread is to end */
    pthread_t thread;
    bool started;
    /* The thread writes, any reads. */
    _Atomic enum probe_state state[PROBE_TARGETS];
};

/* Starts the thread; it probes at once. 0 or -errno. */
int prober_start(struct prober *p, const struct probe_target target[static PROBE_TARGETS]);
/* Ends and joins the thread (a running probe is finished first). Nothing when it did not start. */
void prober_stop(struct prober *p);
/* The newest result. Any thread. */
enum probe_state prober_state(const struct prober *p, unsigned target);

#endif
