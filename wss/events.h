/* events - the last things that happened, for the status page and the event stream.
 *
 * A ring of EVENTS_KEPT short records under a lock: events are rare, and a stranger's are held to
 * EVENTS_STRANGER_PER_S. Any thread adds; the edge reads. */
#ifndef BEACON_WSS_EVENTS_H
#define BEACON_WSS_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { EVENTS_KEPT = 64, EVENTS_TEXT_MAX = 160, EVENTS_STRANGER_PER_S = 10 };

struct event {
    uint64_t sequence; /* from 1 */
    int64_t unix_ms;
    bool stranger;    /* somebody outside caused it */
    const char *kind; /* constant text: "reload", "drain", "certificate", "session", "auth" */
    char text[EVENTS_TEXT_MAX];
};

struct events {
    pthread_mutex_t lock; /* protects all members */
    uint64_t sequence;    /* of the newest */
    uint64_t held_back;   /* a stranger's events that came too fast */
    int64_t second;       /* of the last event of a stranger, and how many it had */
    unsigned in_second;
    struct event kept[EVENTS_KEPT];
};

void events_init(struct events *e);
/* `stranger`: somebody outside can cause it at will. */
void events_add(struct events *e, bool stranger, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The oldest kept event behind `sequence`. False: none is newer. */
bool events_next(struct events *e, uint64_t sequence, struct event *ret);

#endif
