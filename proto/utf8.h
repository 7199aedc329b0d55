/* utf8 - which bytes are UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing past U+10FFFF.
 * Pure. */
#ifndef BEACON_PROTO_UTF8_H
#define BEACON_PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that `text` begins with; 0 when it begins with none, and then *ret_bad is
 * how many bytes one U+FFFD stands for: the longest start of a character, else 1 (Unicode, 3.9, as
 * WHATWG decoders do). `len` is at least 1. */
size_t utf8_character(const char *text, size_t len, size_t *ret_bad);

/* Is all of it UTF-8? Else *ret_bad is where it stops to be. */
bool utf8_valid(const char *text, size_t len, size_t *ret_bad);

#endif
