#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "bench/meter.h"
#include "bench/reasons.h"
#include "bench/strangers.h"
#include "bench/udp.h"
#include "bench/wsclient.h"

enum { PLACES = 4096, EVENTS_A_TURN = 256, TURN_MS = 1, NAMES_MAX = 8, NAME_LEN = 64 };
#define DEADLINE_NS UINT64_C(5000000000)

struct churn {
    const struct strangers_run *run;
    struct wsclient_target target;
    int epoll;
    struct wsclient place[PLACES];
    unsigned next;
    uint64_t begun, good, failed;
    struct reasons reasons;
    double *took_us;
    struct {
        char text[NAME_LEN];
        uint64_t count;
    } name[NAMES_MAX]; /* common names of the certificates that were shown */
};

static void note_name(struct churn *h, SSL *ssl)
{
    char text[NAME_LEN] = "?";
    X509 *leaf = SSL_get1_peer_certificate(ssl);
    if (leaf)
        X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, text, sizeof text);
    X509_free(leaf);
    unsigned i = 0;
    while (i < NAMES_MAX - 1 && h->name[i].count > 0 && strcmp(h->name[i].text, text) != 0)
        i++;
    memcpy(h->name[i].text, text, sizeof text);
    h->name[i].count++;
}

static void end(struct churn *h, struct wsclient *c)
{
    if (c->state == WSCLIENT_DONE) {
        h->took_us[h->good++] = (double)(meter_now_ns() - c->began_ns) / 1e3;
        note_name(h, c->ssl);
        (void)SSL_shutdown(c->ssl); /* our last word; nobody waits for the answer */
    } else {
        h->failed++;
        reasons_add(&h->reasons, c->why);
    }
    wsclient_close(c);
}

static void begin(struct churn *h)
{
    struct wsclient *c = &h->place[h->next];
    h->next = (h->next + 1) % PLACES;
    uint32_t source_ip =
        STRANGERS_HANDSHAKE_IPS + wsclient_spread((uint32_t)(h->begun % h->run->sources));
    h->begun++;
    if (c->state != WSCLIENT_NONE) {
        h->failed++;
        reasons_add(&h->reasons, "the generator has no place");
        return;
    }
    c->source_ip = source_ip;
    wsclient_begin(c, &h->target, 0);
    if (c->state == WSCLIENT_FAILED) {
        end(h, c);
        return;
    }
    c->events = wsclient_events(c);
    struct epoll_event e = {.events = c->events, .data.u32 = (uint32_t)(c - h->place)};
    if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static void no_message(void *arg, struct wsclient *c, const uint8_t *bytes, size_t len)
{
    (void)arg, (void)c, (void)bytes, (void)len;
}

static void ready(struct churn *h, struct wsclient *c)
{
    if (c->state == WSCLIENT_NONE)
        return;
    wsclient_ready(c, &h->target, no_message, NULL);
    if (c->state >= WSCLIENT_DONE) {
        end(h, c);
        return;
    }
    uint32_t wanted = wsclient_events(c);
    if (wanted == c->events)
        return;
    c->events = wanted;
    struct epoll_event e = {.events = wanted, .data.u32 = (uint32_t)(c - h->place)};
    if (epoll_ctl(h->epoll, EPOLL_CTL_MOD, c->fd, &e) != 0)
        udp_die("epoll_ctl");
}

static const char *late_reason(const struct wsclient *c)
{
    return c->state == WSCLIENT_CONNECTING  ? "no connection in 5 s"
           : c->state == WSCLIENT_HANDSHAKE ? "no handshake in 5 s"
                                            : "no answer in 5 s";
}

static void turn(struct churn *h)
{
    struct epoll_event e[EVENTS_A_TURN];
    int n = epoll_wait(h->epoll, e, EVENTS_A_TURN, TURN_MS);
    for (int i = 0; i < n; i++)
        ready(h, &h->place[e[i].data.u32]);
}

static void end_late_ones(struct churn *h)
{
    uint64_t now_ns = meter_now_ns();
    for (unsigned i = 0; i < PLACES; i++) {
        struct wsclient *c = &h->place[i];
        if (c->state == WSCLIENT_NONE || now_ns - c->began_ns < DEADLINE_NS)
            continue;
        c->why = late_reason(c);
        c->state = WSCLIENT_FAILED;
        end(h, c);
    }
}

static void print(struct churn *h)
{
    printf("{\"begun\": %" PRIu64 ", \"good\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"reasons\": ",
           h->begun, h->good, h->failed);
    reasons_print(&h->reasons);
    printf(", \"names\": {");
    for (unsigned i = 0; i < NAMES_MAX && h->name[i].count > 0; i++)
        printf("%s\"%s\": %" PRIu64, i ? ", " : "", h->name[i].text, h->name[i].count);
    printf("}");
    if (h->good > 0)
        printf(", \"p50_us\": %.0f, \"p99_us\": %.0f",
               meter_percentile(h->took_us, (unsigned)h->good, 50),
               meter_percentile(h->took_us, (unsigned)h->good, 99));
    printf("}\n");
}

void strangers_handshakes(const struct strangers_run *run)
{
    struct churn *h = calloc(1, sizeof *h);
    size_t most = (size_t)(run->rate * run->seconds) + 2;
    double *took_us = calloc(most, sizeof *took_us);
    if (!h || !took_us)
        udp_die("out of memory");
    h->run = run;
    h->took_us = took_us;
    h->target =
        (struct wsclient_target){.port = run->port, .tls = wsclient_tls(), .goal = WSCLIENT_HEALTH};
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t begin_ns = meter_now_ns(), passed_ns = 0, last_ns = (uint64_t)(run->seconds * 1e9);
    while (passed_ns < last_ns + DEADLINE_NS &&
           (passed_ns < last_ns || h->begun > h->good + h->failed)) {
        double until_ns = (double)(passed_ns < last_ns ? passed_ns : last_ns);
        for (uint64_t due = (uint64_t)(until_ns * 1e-9 * run->rate); h->begun < due;)
            begin(h);
        turn(h);
        end_late_ones(h);
        passed_ns = meter_now_ns() - begin_ns;
    }
    end_late_ones(h);
    print(h);
    for (unsigned i = 0; i < PLACES; i++) {
        if (h->place[i].state != WSCLIENT_NONE)
            wsclient_close(&h->place[i]);
    }
    SSL_CTX_free(h->target.tls);
    close(h->epoll);
    free(h->took_us);
    free(h);
}
