/* log - structured lines on stderr: one record, one line, one write.
 *
 * "2026-01-02T03:04:05.678Z warn shard mailbox full shard=3 dropped=1841" (text), the same as
 * logfmt or JSON. Only cmd/ logs. Any thread may call; what a stranger can trigger is held to
 * LOG_PER_PERIOD lines per event and period, and the next line says how many were suppressed. */
#ifndef BEACON_CMD_LOG_H
#define BEACON_CMD_LOG_H

#include <stdint.h>
#include "server/config.h"

enum { LOG_PER_PERIOD = 10, LOG_PERIOD_SECONDS = 1, LOG_LINE_MAX = 2048 };

/* Text on a terminal or without journald; under journald (JOURNAL_STREAM) a "<N>" priority prefix
 * and no time stamp. */
void log_open(enum log_level least, enum log_format format);
void log_set(enum log_level least, enum log_format format);

/* `message` is fixed text and names the event: it is the key for suppression. `pairs` is a
 * printf-format of "key=value" pairs separated by blanks, NULL for none; values with blanks, quotes
 * or control characters go through log_quote. */
void log_line(enum log_level level, const char *component, const char *message, const char *pairs,
              ...) __attribute__((format(printf, 4, 5)));

/* A value made safe: quoted and escaped when needed, cut at 200 bytes. Valid until the 8th next
 * call on this thread. */
const char *log_quote(const char *value);

uint64_t log_suppressed_total(void);

#endif
