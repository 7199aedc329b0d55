/* options - what the parts of config share: looking up rows of option_table, their values as text.
 *
 * Private to server/config*.c and server/option*.c. Pure; any thread. */
#ifndef BEACON_SERVER_OPTIONS_H
#define BEACON_SERVER_OPTIONS_H

#include "proto/utf8.h"
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

bool option_refuse(struct refusal *r, const char *why); /* always false, for "return" */

/* The next entry of a comma-separated list, without the blanks around it; empty ones are skipped.
 * *list moves behind it. False: there are no more. */
bool list_take(const char **list, const char **ret, size_t *ret_len);

/* Values that are addresses, read and written (option_address.c). A refusal leaves *ret as it was.
 */
bool read_endpoint(const char *value, struct endpoint *ret, struct refusal *r);
bool read_listener(const char *value, struct endpoint *ret, bool *ret_enabled, struct refusal *r);
bool read_ips(const char *value, struct whitelist *ret, struct refusal *r);
bool read_prefixes(const char *value, struct prefixes *ret, struct refusal *r);
bool read_admin(const char *value, struct admin_at *ret, struct refusal *r);
void format_endpoint(const struct endpoint *e, char *text, size_t capacity);
void format_ips(const struct whitelist *w, char *text, size_t capacity);
void format_prefixes(const struct prefixes *p, char *text, size_t capacity);
void format_admin(const struct admin_at *a, char *text, size_t capacity);

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

/* Did any source set it? */
bool option_is_set(const struct config *c, const char *name);

/* Formats the error and makes control characters harmless. Always false, for "return". */
bool config_fail(struct config_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "ORIGIN: unknown option NAME (did you mean X?)" */
bool config_fail_unknown(struct config_error *error, const char *origin, const char *name);

#endif
