/* tls_pair - a certificate chain and its private key: read from two files, or made by ourselves.
 *
 * A pair is filled whole or not at all, and by any thread. What is wrong is said in words, in
 * `error`; OpenSSL's queue of errors is empty afterwards, whatever came out. Nothing here asks a
 * terminal for a passphrase. */
#ifndef BEACON_WSS_TLS_PAIR_H
#define BEACON_WSS_TLS_PAIR_H

#include "wss/tls.h"

enum { TLS_FILE_MAX = 1 << 20, TLS_RSA_BITS_MIN = 2048 };

struct tls_pair {
    X509 *leaf;
    STACK_OF(X509) * chain; /* what stands behind the leaf, in its order; may be empty */
    EVP_PKEY *key;          /* belongs to the leaf */
};

bool tls_pair_read(struct tls_pair *ret, const char *cert_path, const char *key_path,
                   char error[static TLS_ERROR_MAX]);
bool tls_pair_make(struct tls_pair *ret, char error[static TLS_ERROR_MAX]);
void tls_pair_free(struct tls_pair *p);

/* Writes the error, and is false: for `return tls_fail(...)`. */
bool tls_fail(char error[static TLS_ERROR_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Why OpenSSL refused: of all that it noted, the first. Empties the queue. */
const char *tls_reason(void);

#endif
