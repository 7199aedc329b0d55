/* dialogue - one TCP connection to a Pilot registry: connect, ask, read the answer.
 *
 * Plain TCP: the way to the registry must be one that nobody else can write on. Everything that
 * waits has a deadline and ends with -ECANCELED when the stop descriptor becomes readable. The
 * lookup thread only. */
#ifndef BEACON_WSS_DIALOGUE_H
#define BEACON_WSS_DIALOGUE_H

#include <netdb.h>
#include "wss/dialect.h"

struct dialogue {
    enum registry_lookup dialect;
    int stop;       /* readable: give up */
    int fd;         /* -1: not connected */
    bool asked;     /* this connection has carried a request */
    uint8_t *frame; /* DIALECT_FRAME_MAX bytes, for answers */
};

int dialogue_open(struct dialogue *d, enum registry_lookup dialect, int stop); /* 0 or -ENOMEM */
void dialogue_close(struct dialogue *d);

/* Tries the addresses one after another; each has an equal share of the time that is left. 0 or
 * -errno of the last one. */
int dialogue_connect(struct dialogue *d, const struct addrinfo *list, uint64_t until_ns);
/* 0 with the answer (also one that makes no sense: KEYS_FAILED), or -errno: -ECONNRESET when the
 * registry has closed, -EPROTO when it does not speak in frames. After anything but KEYS_FOUND and
 * KEYS_UNKNOWN hang up: questions and answers may be out of step. */
int dialogue_ask(struct dialogue *d, uint32_t node_id, uint64_t until_ns,
                 enum keys_verdict *ret_verdict, uint8_t ret_key[static MSG_KEY_LEN]);
void dialogue_hang_up(struct dialogue *d);
/* Connected, and nothing lies there unread that a question could take for its answer. Else it hangs
 * up. */
bool dialogue_is_ready(struct dialogue *d);

/* CLOCK_MONOTONIC. */
uint64_t dialogue_now_ns(void);
/* 0: one of the events (errors are events, too), -ETIMEDOUT, -ECANCELED: `stop` is readable. */
int dialogue_wait(int stop, int fd, short events, uint64_t until_ns);

#endif
