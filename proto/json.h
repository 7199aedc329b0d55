/* json - writes JSON text into a FILE (RFC 8259): one pass, no tree, no memory of its own.
 *
 * Commas and nesting are kept by the writer. Strings are escaped, also what would mean something
 * inside of HTML or JavaScript; bytes that are not UTF-8 become U+FFFD, so the output is always
 * valid. Misuse (a value without a name in an object, unbalanced ends, a second outermost value) is
 * asserted. Numbers above 2^53 are written as they are. Whether all was written, the FILE knows
 * (ferror). jansson owns json_object, json_array and json_real; one file may need both headers. */
#ifndef BEACON_PROTO_JSON_H
#define BEACON_PROTO_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 8 };

struct json {
    FILE *out;
    unsigned depth;
    bool begun; /* the outermost value; there is only one */
    bool in_object[JSON_DEPTH_MAX];
    bool has_value[JSON_DEPTH_MAX]; /* a comma is due before the next */
};

struct json json_of(FILE *out);

/* `name` is NULL in an array and for the outermost value, else the member's name. */
void json_open_object(struct json *j, const char *name);
void json_open_array(struct json *j, const char *name);
void json_end(struct json *j); /* of the innermost object or array */
void json_text(struct json *j, const char *name, const char *value); /* NULL is null */
void json_bytes(struct json *j, const char *name, const char *bytes, size_t len);
void json_uint(struct json *j, const char *name, uint64_t value);
void json_int(struct json *j, const char *name, int64_t value);
void json_bool(struct json *j, const char *name, bool value);

/* True when the outermost value is written and everything that was opened has ended. */
bool json_whole(const struct json *j);

#endif
