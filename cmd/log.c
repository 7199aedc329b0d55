#include "cmd/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, QUOTE_MAX = 200, QUOTES_KEPT = 8 };

/* One event's budget. `key` 0: free. */
struct event {
    uint64_t key;
    int64_t since_s;
    unsigned written;
    uint64_t suppressed; /* since the last written line */
};

/* All of it under `lock`. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_level least = LOG_INFO;
static enum log_format format = LOG_TEXT;
static bool to_journal;
static struct event events[EVENTS_MAX];
static uint64_t suppressed_total;

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char level_priorities[] = {'7', '6', '4', '3'}; /* as syslog(3) counts */

/* --- a line under construction: what does not fit is left out --- */

struct line {
    char text[LOG_LINE_MAX];
    size_t len;
    bool full; /* something was left out */
};

enum { LINE_RESERVED = 24 }; /* for ,"truncated":true} and the newline */

static void put(struct line *l, const char *text, size_t len)
{
    if (len > sizeof l->text - LINE_RESERVED - l->len) {
        l->full = true;
        return;
    }
    memcpy(l->text + l->len, text, len);
    l->len += len;
}

static void put_text(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

/* Unlike put it uses the reserve. */
static void put_end(struct line *l, const char *text)
{
    size_t len = strlen(text);

    memcpy(l->text + l->len, text, len);
    l->len += len;
}

/* --- pairs: "key=value key="quoted value"", one at a time --- */

struct pair {
    const char *key, *value; /* in the text they came in; a quoted value with its quotes */
    size_t key_len, value_len;
};

static bool next_pair(const char **at, struct pair *ret)
{
    const char *p = *at + strspn(*at, " ");

    if (*p == '\0')
        return false;
    ret->key = p;
    ret->key_len = strcspn(p, "= ");
    p += ret->key_len;
    if (*p == '=')
        p++;
    ret->value = p;
    if (*p == '"') {
        for (p++; *p != '\0' && *p != '"'; p++)
            if (*p == '\\' && p[1] != '\0')
                p++;
        p += *p == '"';
    } else {
        p += strcspn(p, " ");
    }
    ret->value_len = (size_t)(p - ret->value);
    *at = p;
    return true;
}

/* --- JSON --- */

/* The bytes as the inside of a JSON string. In quoted text \" \\ \n \r \t mean the same in JSON;
 * the \xNN of log_quote stays readable as it is. */
static void put_json_bytes(struct line *l, const char *text, size_t len, bool quoted)
{
    char code[8];

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (quoted && c == '\\' && i + 1 < len && strchr("\"\\nrt", text[i + 1]) != NULL) {
            put(l, text + i++, 2);
        } else if (c == '"' || c == '\\') {
            code[0] = '\\';
            code[1] = (char)c;
            put(l, code, 2);
        } else if (c < 0x20 || c >= 0x7f) {
            snprintf(code, sizeof code, "\\u%04x", c < 0x80 ? (unsigned)c : 0xfffdU);
            put(l, code, 6);
        } else {
            put(l, text + i, 1);
        }
    }
}

static void put_json_string(struct line *l, const char *text, size_t len)
{
    put(l, "\"", 1);
    put_json_bytes(l, text, len, false);
    put(l, "\"", 1);
}

static bool is_integer(const char *text, size_t len)
{
    size_t sign = len > 0 && text[0] == '-';

    if (len == sign || len > 20 || (text[sign] == '0' && len > sign + 1))
        return false;
    for (size_t i = sign; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

/* ,"key":value - whole or not at all, so that the line stays JSON. */
static void put_member(struct line *l, const char *key, size_t key_len, const char *value,
                       size_t value_len)
{
    struct line before = *l;

    if (l->full)
        return;
    put_text(l, l->len > 0 && l->text[l->len - 1] == '{' ? "" : ",");
    put_json_string(l, key, key_len);
    put(l, ":", 1);
    if (is_integer(value, value_len)) {
        put(l, value, value_len);
    } else if (value_len >= 2 && value[0] == '"' && value[value_len - 1] == '"') {
        put(l, "\"", 1);
        put_json_bytes(l, value + 1, value_len - 2, true);
        put(l, "\"", 1);
    } else {
        put_json_string(l, value, value_len);
    }
    if (l->full) {
        *l = before;
        l->full = true;
    }
}

/* --- the three formats --- */

/* What a line says. `time` is "" under journald, which keeps its own. */
struct record {
    const char *time, *level, *component, *message, *pairs;
    char priority; /* of journald; 0: none */
};

static void put_prefix(struct line *l, const struct record *r)
{
    char prefix[4] = {'<', r->priority, '>', '\0'};

    if (r->priority != 0)
        put_text(l, prefix);
}

static void put_json(struct line *l, const struct record *r)
{
    const char *at = r->pairs;
    struct pair p;

    put_prefix(l, r);
    put(l, "{", 1);
    if (r->time[0] != '\0')
        put_member(l, "ts", 2, r->time, strlen(r->time));
    put_member(l, "level", 5, r->level, strlen(r->level));
    put_member(l, "component", 9, r->component, strlen(r->component));
    put_member(l, "msg", 3, r->message, strlen(r->message));
    while (next_pair(&at, &p))
        put_member(l, p.key, p.key_len, p.value, p.value_len);
    put_end(l, l->full ? ",\"truncated\":true}" : "}");
}

/* Pairs as they are, each whole or not at all; nothing can begin a line or steer a terminal. */
static void put_pairs(struct line *l, const char *pairs)
{
    struct pair p;

    while (!l->full && next_pair(&pairs, &p)) {
        const char *end = p.value + p.value_len;
        size_t from = l->len;
        put_text(l, " ");
        put(l, p.key, (size_t)(end - p.key));
        if (l->full)
            l->len = from;
    }
    for (size_t i = 0; i < l->len; i++)
        if ((unsigned char)l->text[i] < 0x20 || l->text[i] == 0x7f)
            l->text[i] = '?';
    if (l->full)
        put_end(l, " truncated=true");
}

static void put_plain(struct line *l, const struct record *r)
{
    put_prefix(l, r);
    if (r->time[0] != '\0') {
        put_text(l, r->time);
        put_text(l, " ");
    }
    put_text(l, r->level);
    put_text(l, " ");
    put_text(l, r->component);
    put_text(l, " ");
    put_text(l, r->message);
    put_pairs(l, r->pairs);
}

static void put_logfmt(struct line *l, const struct record *r)
{
    put_prefix(l, r);
    if (r->time[0] != '\0') {
        put_text(l, "ts=");
        put_text(l, r->time);
        put_text(l, " ");
    }
    put_text(l, "level=");
    put_text(l, r->level);
    put_text(l, " component=");
    put_text(l, log_quote(r->component));
    put_text(l, " msg=");
    put_text(l, log_quote(r->message));
    put_pairs(l, r->pairs);
}

/* --- suppression --- */

/* FNV-1a: messages are ours, so nobody can choose colliding ones. */
static uint64_t event_key(const char *message)
{
    uint64_t h = 14695981039346656037U;

    for (; *message != '\0'; message++)
        h = (h ^ (unsigned char)*message) * 1099511628211U;
    return h != 0 ? h : 1;
}

/* The event's row; the longest unused one is given up when all are taken. */
static struct event *event_find(uint64_t key)
{
    struct event *oldest = &events[0];

    for (unsigned i = 0; i < EVENTS_MAX; i++) {
        struct event *e = &events[i];
        if (e->key == key)
            return e;
        if (e->key == 0) {
            e->key = key;
            return e;
        }
        if (e->since_s < oldest->since_s)
            oldest = e;
    }
    *oldest = (struct event){.key = key};
    return oldest;
}

/* May the line be written now? If so *ret_suppressed is how many before it were not. */
static bool event_take(const char *message, uint64_t *ret_suppressed)
{
    struct event *e = event_find(event_key(message));
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (e->written == 0 || now.tv_sec - e->since_s >= LOG_PERIOD_SECONDS) {
        e->since_s = now.tv_sec;
        e->written = 0;
    }
    if (e->written == LOG_PER_PERIOD) {
        e->suppressed++;
        suppressed_total++;
        return false;
    }
    e->written++;
    *ret_suppressed = e->suppressed;
    e->suppressed = 0;
    return true;
}

/* --- writing --- */

static void format_time(char text[static 32])
{
    struct timespec now;
    struct tm utc;
    size_t len;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    len = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + len, 32 - len, ".%03uZ", (unsigned)(now.tv_nsec / 1000000) % 1000);
}

/* One write, so that lines of several processes do not mix. When stderr is closed or full there is
 * nobody to tell: the line is lost. */
static void write_line(struct line *l)
{
    ssize_t n;

    put_end(l, "\n");
    /* A pipe that nobody reads must not stop the program. It takes the line whole or not at all. */
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&room, 1, 0) <= 0) {
        suppressed_total++;
        return;
    }
    do {
        n = write(STDERR_FILENO, l->text, l->len);
    } while (n < 0 && errno == EINTR);
}

static void write_record(enum log_level level, struct record *r)
{
    struct line l = {.len = 0};
    char time[32] = "";

    if (to_journal)
        r->priority = level_priorities[level];
    else
        format_time(time);
    r->time = time;
    r->level = level_names[level];
    switch (format) {
    case LOG_TEXT:
        put_plain(&l, r);
        break;
    case LOG_LOGFMT:
        put_logfmt(&l, r);
        break;
    case LOG_JSON:
        put_json(&l, r);
        break;
    }
    write_line(&l);
}

/* systemd names the pipe it made, so that a program whose stderr was redirected since can tell. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char self[64];

    if (stream == NULL || fstat(STDERR_FILENO, &st) != 0)
        return false;
    snprintf(self, sizeof self, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    return strcmp(stream, self) == 0;
}

void log_set(enum log_level new_least, enum log_format new_format)
{
    pthread_mutex_lock(&lock);
    least = new_least;
    format = new_format;
    pthread_mutex_unlock(&lock);
}

void log_open(enum log_level new_least, enum log_format new_format)
{
    log_set(new_least, new_format);
    pthread_mutex_lock(&lock);
    to_journal = is_journal();
    pthread_mutex_unlock(&lock);
}

void log_line(enum log_level level, const char *component, const char *message, const char *pairs,
              ...)
{
    char text[LOG_LINE_MAX] = "";
    struct record r = {.component = component, .message = message, .pairs = text};
    uint64_t suppressed = 0;
    size_t len = 0;
    va_list args;

    pthread_mutex_lock(&lock);
    if (level < least || !event_take(message, &suppressed))
        goto unlock;
    if (suppressed > 0)
        len =
            (size_t)snprintf(text, sizeof text, "suppressed=%llu ", (unsigned long long)suppressed);
    if (pairs != NULL) {
        va_start(args, pairs);
        vsnprintf(text + len, sizeof text - len, pairs, args);
        va_end(args);
    }
    write_record(level, &r);
unlock:
    pthread_mutex_unlock(&lock);
}

uint64_t log_suppressed_total(void)
{
    uint64_t n;

    pthread_mutex_lock(&lock);
    n = suppressed_total;
    pthread_mutex_unlock(&lock);
    return n;
}

/* --- quoting --- */

static bool needs_quotes(const char *value)
{
    if (*value == '\0')
        return true;
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return true;
    }
    return false;
}

/* One character as it stands in quotes; all but printable ASCII is escaped, since a terminal may
 * take the rest for orders. Returns its length. */
static size_t escape(char c, char code[static 5])
{
    static const char known[] = "\"\\\n\r\t", names[] = "\"\\nrt";
    const char *at = c != '\0' ? strchr(known, c) : NULL;

    if (at != NULL)
        return (size_t)snprintf(code, 5, "\\%c", names[at - known]);
    if (c >= ' ' && c < 0x7f) {
        code[0] = c;
        return 1;
    }
    return (size_t)snprintf(code, 5, "\\x%02x", (unsigned char)c);
}

const char *log_quote(const char *value)
{
    static _Thread_local char kept[QUOTES_KEPT][4 * QUOTE_MAX + sizeof "\"...\""];
    static _Thread_local unsigned next;
    char *text = kept[next++ % QUOTES_KEPT];
    bool quotes = needs_quotes(value) || strlen(value) > QUOTE_MAX;
    size_t len = 0;

    if (!quotes)
        return strcpy(text, value);
    text[len++] = '"';
    for (unsigned i = 0; i < QUOTE_MAX && value[i] != '\0'; i++) {
        char code[5];
        size_t n = escape(value[i], code);
        memcpy(text + len, code, n);
        len += n;
    }
    strcpy(text + len, strlen(value) > QUOTE_MAX ? "...\"" : "\"");
    return text;
}
