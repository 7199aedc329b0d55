#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench/meter.h"
#include "bench/strangers.h"
#include "bench/udp.h"
#include "bench/wsclient.h"

enum {
    HELLO_MAX = 2048,
    RANDOM_AT = 11, /* behind the record's and the message's head, and the version */
    RANDOM_LEN = 32,
    PLACES = 18000,
    EVENTS_A_TURN = 512,
    TURN_MS = 1,
    LINGER_MS = 500,
};

struct stranger {
    int fd; /* -1: a free place */
    bool said, answered;
};

struct hello {
    const struct strangers_run *run;
    int epoll;
    uint8_t bytes[HELLO_MAX];
    size_t len;
    struct stranger place[PLACES];
    unsigned next; /* place to be used; whoever still holds it is ended */
    uint64_t begun, said, answered, ended_unanswered, displaced, refused, reset;
};

/* What OpenSSL's client would say. */
static void make_hello(struct hello *h)
{
    SSL_CTX *context = wsclient_tls();
    SSL *ssl = SSL_new(context);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (!ssl || !in || !out)
        udp_die("SSL_new");
    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
    (void)SSL_do_handshake(ssl); /* wants the server's answer, which never comes */
    int len = BIO_read(out, h->bytes, sizeof h->bytes);
    if (len < RANDOM_AT + RANDOM_LEN)
        udp_die("no ClientHello");
    h->len = (size_t)len;
    SSL_free(ssl);
    SSL_CTX_free(context);
}

static void leave(struct stranger *s)
{
    close(s->fd);
    *s = (struct stranger){.fd = -1};
}

static void begin(struct hello *h)
{
    struct stranger *s = &h->place[h->next];
    uint32_t source = STRANGERS_HELLO_IPS + (uint32_t)(h->begun % h->run->sources);
    if (s->fd >= 0) {
        leave(s);
        h->displaced++;
    }
    h->begun++;
    *s = (struct stranger){.fd = wsclient_dial(source, h->run->port, 0)};
    if (s->fd < 0) {
        s->fd = -1;
        h->refused++;
        return;
    }
    struct epoll_event e = {.events = EPOLLOUT, .data.u32 = h->next};
    if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0)
        udp_die("epoll_ctl");
    h->next = (h->next + 1) % PLACES;
}

static void say(struct hello *h, unsigned i)
{
    struct stranger *s = &h->place[i];
    uint64_t number = h->said;
    memcpy(h->bytes + RANDOM_AT, &number, sizeof number);
    if (send(s->fd, h->bytes, h->len, MSG_NOSIGNAL) != (ssize_t)h->len) {
        h->refused++; /* closed before we spoke */
        leave(s);
        return;
    }
    h->said++;
    s->said = true;
    if (number % 2 == 0) {
        leave(s);
        return;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
    if (epoll_ctl(h->epoll, EPOLL_CTL_MOD, s->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static void hear(struct hello *h, struct stranger *s)
{
    uint8_t bytes[8192];
    ssize_t n = recv(s->fd, bytes, sizeof bytes, 0);
    if (n > 0) {
        h->answered += !s->answered;
        s->answered = true;
        return;
    }
    if (n < 0 && errno == EAGAIN)
        return;
    h->reset += n < 0;
    h->ended_unanswered += !s->answered;
    leave(s);
}

static void turn(struct hello *h)
{
    struct epoll_event e[EVENTS_A_TURN];
    int n = epoll_wait(h->epoll, e, EVENTS_A_TURN, TURN_MS);
    for (int i = 0; i < n; i++) {
        struct stranger *s = &h->place[e[i].data.u32];
        if (s->fd < 0)
            continue;
        if (s->said)
            hear(h, s);
        else
            say(h, e[i].data.u32);
    }
}

void strangers_hello(const struct strangers_run *run)
{
    struct hello *h = calloc(1, sizeof *h);
    if (!h)
        udp_die("out of memory");
    h->run = run;
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    make_hello(h);
    for (unsigned i = 0; i < PLACES; i++)
        h->place[i].fd = -1;
    uint64_t begin_ns = meter_now_ns(), passed_ns = 0;
    while (passed_ns < (uint64_t)(run->seconds * 1e9)) {
        uint64_t due = (uint64_t)((double)passed_ns * 1e-9 * run->rate);
        while (h->begun < due)
            begin(h);
        turn(h);
        passed_ns = meter_now_ns() - begin_ns;
    }
    for (unsigned i = 0; i < LINGER_MS / TURN_MS; i++)
        turn(h);
    printf("{\"begun\": %" PRIu64 ", \"said\": %" PRIu64 ", \"answered\": %" PRIu64
           ", \"ended_unanswered\": %" PRIu64 ", \"reset\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"displaced\": %" PRIu64 ", \"seconds\": %.2f}\n",
           h->begun, h->said, h->answered, h->ended_unanswered, h->reset, h->refused, h->displaced,
           (double)passed_ns / 1e9);
    for (unsigned i = 0; i < PLACES; i++) {
        if (h->place[i].fd >= 0)
            leave(&h->place[i]);
    }
    close(h->epoll);
    free(h);
}
