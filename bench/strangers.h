/* strangers - short connections: ClientHellos that lead nowhere, and whole handshakes.
 *
 * Open loop: each begins when it is due, whatever became of those before. One thread. */
#ifndef BEACON_BENCH_STRANGERS_H
#define BEACON_BENCH_STRANGERS_H

#include <stdint.h>

enum {
    STRANGERS_HELLO_IPS = 0x7f400000,     /* 127.64.0.0 and on */
    STRANGERS_HANDSHAKE_IPS = 0x7f600000, /* 127.96.0.0 and on */
};

struct strangers_run {
    uint16_t port;
    unsigned rate; /* a second */
    double seconds;
    unsigned sources; /* addresses that take turns */
};

/* Sends real ClientHellos; every other connection vanishes at once, the others stay until the
 * server ends them. Prints one line of JSON. */
void strangers_hello(const struct strangers_run *run);
/* Full TLS handshakes, each with one request for /health. Prints one line of JSON: how many
 * succeeded, why the others failed, how long they took, which certificates were shown. */
void strangers_handshakes(const struct strangers_run *run);

#endif
