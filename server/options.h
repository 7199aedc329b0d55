/* options - what the parts of config share: looking up rows of option_table, their values as text.
 *
 * Private to server/config*.c and server/option*.c. Pure; any thread. */
#ifndef BEACON_SERVER_OPTIONS_H
#define BEACON_SERVER_OPTIONS_H

#include "server/config.h"

enum { OPTION_SHOWN_MAX = 80 };

/* Flags that are commands and not options, NULL-ended, without dashes. */
extern const char *const command_names[];

/* By name, '_' the same as '-'; NULL when there is none. */
const struct option *option_find(const char *name);
unsigned option_index(const struct option *o);

/* The known name that `name` was most likely meant to be, NULL when none is within two edits. */
const char *option_guess(const char *name, bool with_commands);
const char *section_guess(const char *name);
bool section_exists(const char *name);

/* Why a value was refused. */
struct refusal {
    char why[160];
};

/* Stores the value in its field; false: `c` is unchanged. */
bool option_read(const struct option *o, struct config *c, const char *value, struct refusal *r);

/* The value as config_set takes it. Returns `text`. */
const char *option_format(const struct option *o, const struct config *c, char *text,
                          size_t capacity);

/* Seconds and bytes in the largest unit that holds them exactly. */
const char *seconds_format(uint64_t seconds, char *text, size_t capacity);
const char *size_format(uint64_t bytes, char *text, size_t capacity);

/* Bytes of a stranger made fit for a message: control characters become '?', long text is cut at a
 * character, empty text is "". */
const char *text_show(const char *value, char shown[static OPTION_SHOWN_MAX]);

/* Is all of it UTF-8? Else *ret_bad is where it stops to be. */
bool utf8_valid(const char *text, size_t len, size_t *ret_bad);

/* Formats the error and makes control characters harmless. Always false, for "return". */
bool config_fail(struct config_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "ORIGIN: unknown option NAME (did you mean X?)" */
bool config_fail_unknown(struct config_error *error, const char *origin, const char *name);

#endif
