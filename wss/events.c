#include "wss/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "proto/utf8.h"

/* C0 and C1 controls and delete: a terminal might obey them. `n`: bytes of the character. */
static bool is_control(const char *c, size_t n)
{
    const unsigned char *byte = (const unsigned char *)c;
    return (n == 1 && (byte[0] < 0x20 || byte[0] == 0x7f)) ||
           (n == 2 && byte[0] == 0xc2 && byte[1] < 0xa0);
}

/* Copies whole characters while they fit; what a reader could choke on becomes '?'. */
static void make_harmless(char ret[static EVENTS_TEXT_MAX], const char *text, size_t len)
{
    size_t used = 0;
    for (size_t at = 0; at < len;) {
        size_t bad = 0, n = utf8_character(text + at, len - at, &bad);
        bool keep = n > 0 && !is_control(text + at, n);
        size_t room = EVENTS_TEXT_MAX - 1 - used;
        if (room < (keep ? n : 1))
            break;
        if (keep)
            memcpy(ret + used, text + at, n);
        else
            ret[used] = '?';
        used += keep ? n : 1;
        at += n > 0 ? n : bad;
    }
    ret[used] = '\0';
}

static int64_t now_unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now); /* cannot fail: the clock exists */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Under the lock. Compared for equality only, so a clock that is set back does no harm. */
static bool stranger_may(struct events *e, int64_t second)
{
    if (e->second != second) {
        e->second = second;
        e->in_second = 0;
    }
    if (e->in_second == EVENTS_STRANGER_PER_S) {
        e->held_back++;
        return false;
    }
    e->in_second++;
    return true;
}

void events_init(struct events *e)
{
    memset(e, 0, sizeof *e);
    pthread_mutex_init(&e->lock, NULL); /* cannot fail without attributes */
}

void events_add(struct events *e, bool stranger, const char *kind, const char *format, ...)
{
    /* Longer than a text by three bytes: a character that is cut here would not fit there, unless
     * something before it shrank to '?', and then one more ends the text. */
    char text[EVENTS_TEXT_MAX + 3];
    struct event fresh = {.stranger = stranger, .kind = kind, .unix_ms = now_unix_ms()};
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        text[0] = '\0'; /* an argument that the locale cannot convert: the kind must do */
    make_harmless(fresh.text, text, strlen(text));

    pthread_mutex_lock(&e->lock);
    if (!stranger || stranger_may(e, fresh.unix_ms / 1000)) {
        fresh.sequence = ++e->sequence;
        e->kept[fresh.sequence % EVENTS_KEPT] = fresh;
    }
    pthread_mutex_unlock(&e->lock);
}

bool events_next(struct events *e, uint64_t sequence, struct event *ret)
{
    pthread_mutex_lock(&e->lock);
    bool newer = sequence < e->sequence;
    uint64_t oldest = e->sequence > EVENTS_KEPT ? e->sequence - EVENTS_KEPT + 1 : 1;
    if (newer)
        *ret = e->kept[(sequence < oldest ? oldest : sequence + 1) % EVENTS_KEPT];
    pthread_mutex_unlock(&e->lock);
    return newer;
}
