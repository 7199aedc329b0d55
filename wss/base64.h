/* base64 - reads the standard alphabet with padding (RFC 4648, 4), strictly: the whole text, no
 * blanks, no stray bits. Pure. */
#ifndef BEACON_WSS_BASE64_H
#define BEACON_WSS_BASE64_H

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True: `text` stands for exactly `len` bytes. Otherwise `ret` holds nothing of use. */
static inline bool base64_read(const char *text, size_t text_len, uint8_t *ret, size_t len)
{
    size_t got;
    return sodium_base642bin(ret, len, text, text_len, NULL, &got, NULL,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           got == len;
}

#endif
