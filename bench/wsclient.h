/* wsclient - one client of the TCP edge: TCP from a chosen source address, TLS or none, upgrade,
 * authentication as beacon.v2, frames.
 *
 * Nonblocking: the caller waits for what wsclient_events names and calls wsclient_ready. A client
 * fails with a constant text that says where; it is never retried here. What waits to be written
 * is kept in memory that exists only meanwhile, so an idle client costs its TLS state alone. One
 * thread. */
#ifndef BEACON_BENCH_WSCLIENT_H
#define BEACON_BENCH_WSCLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WSCLIENT_SERVER_IP = 0x7f000001 };

/* The n-th address of 127.0.0.0/12, so that neighbours stand in different /16s, then in different
 * /24s: networks have budgets, too. */
static inline uint32_t wsclient_spread(uint32_t n)
{
    return (n & 15) << 16 | (n >> 4 & 255) << 8 | n >> 12;
}

enum wsclient_goal {
    WSCLIENT_SESSION, /* authenticated, open until either side ends it */
    WSCLIENT_HEALTH,  /* GET /health is answered with 200, and that is all */
};

struct wsclient_target {
    uint16_t port; /* on 127.0.0.1 */
    SSL_CTX *tls;  /* NULL: plain */
    enum wsclient_goal goal;
};

enum wsclient_state {
    WSCLIENT_NONE,
    WSCLIENT_CONNECTING,
    WSCLIENT_HANDSHAKE, /* of TLS */
    WSCLIENT_REQUESTED, /* the head of the answer is awaited */
    WSCLIENT_UPGRADED,  /* the challenge is awaited */
    WSCLIENT_REPLIED,   /* auth_ok is awaited */
    WSCLIENT_OPEN,
    WSCLIENT_DONE,   /* the goal was WSCLIENT_HEALTH and is reached */
    WSCLIENT_FAILED, /* `why` says how */
};

struct wsclient {
    int fd;
    SSL *ssl;
    enum wsclient_state state;
    const char *why;
    uint32_t node_id, source_ip;
    bool paused;  /* reads nothing: the kernel's buffers fill, then its window closes */
    bool blocked; /* the socket takes no more for now */
    uint64_t began_ns;
    uint32_t events; /* the caller's: what is registered with epoll */

    uint8_t *held; /* the beginning of a message */
    size_t held_len;
    uint8_t *out; /* not yet taken by the socket */
    size_t out_len, out_room;
};

/* A context for clients that check no certificate. Ends the process on failure. */
SSL_CTX *wsclient_tls(void);

/* A nonblocking TCP socket from `source_ip` (host order) on its way to 127.0.0.1:port; -errno.
 * `rcvbuf` > 0 bounds its receive buffer. */
int wsclient_dial(uint32_t source_ip, uint16_t port, int rcvbuf);

/* Called for each binary message of an open session. */
typedef void wsclient_message(void *arg, struct wsclient *c, const uint8_t *bytes, size_t len);

void wsclient_begin(struct wsclient *c, const struct wsclient_target *t, int rcvbuf);
/* Goes on as far as it can. */
void wsclient_ready(struct wsclient *c, const struct wsclient_target *t, wsclient_message *message,
                    void *arg);
uint32_t wsclient_events(const struct wsclient *c);
/* Queues one binary frame, masked. */
void wsclient_put(struct wsclient *c, const uint8_t *bytes, size_t len);
/* Writes what is queued, in as few TLS records as it takes. */
void wsclient_flush(struct wsclient *c);
void wsclient_close(struct wsclient *c);

#endif
