#include "proto/utf8.h"

#include <assert.h>
#include <stdint.h>

/* What may follow a first byte. The second byte's range shuts out overlong forms, surrogates and
 * what is past U+10FFFF (RFC 3629, 4). */
static const struct {
    uint8_t first_low, first_high;
    uint8_t len;
    uint8_t second_low, second_high;
} utf8_forms[] = {
    {0x00, 0x7f, 1, 0x00, 0x00}, {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
    {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
    {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};
enum { UTF8_FORMS = sizeof utf8_forms / sizeof *utf8_forms };

size_t utf8_character(const char *text, size_t len, size_t *ret_bad)
{
    const uint8_t *t = (const uint8_t *)text;
    size_t form = 0, n = 1;

    assert(len > 0);
    while (form < UTF8_FORMS && t[0] > utf8_forms[form].first_high)
        form++;
    if (form == UTF8_FORMS || t[0] < utf8_forms[form].first_low) {
        *ret_bad = 1;
        return 0;
    }
    uint8_t low = utf8_forms[form].second_low, high = utf8_forms[form].second_high;
    while (n < utf8_forms[form].len && n < len && t[n] >= low && t[n] <= high) {
        low = 0x80;
        high = 0xbf;
        n++;
    }
    if (n == utf8_forms[form].len)
        return n;
    *ret_bad = n;
    return 0;
}

bool utf8_valid(const char *text, size_t len, size_t *ret_bad)
{
    for (size_t at = 0; at < len;) {
        size_t bad, n = utf8_character(text + at, len - at, &bad);
        if (n == 0) {
            *ret_bad = at;
            return false;
        }
        at += n;
    }
    return true;
}
