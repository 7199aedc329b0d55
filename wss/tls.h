/* tls - the server's certificates and TLS contexts (OpenSSL 3): TLS 1.3, and 1.2 with ECDHE and
 * AEAD suites only; no renegotiation, compression, tickets, session cache, early data.
 *
 * A `struct tls` is built whole or not at all, from files, by any thread; then it belongs to the
 * thread that accepts. To reload, build another and swap: connections that began with the old one,
 * also those still shaking hands, keep what they need of it until their SSL_free. Several pairs are
 * chosen by SNI (names of the certificate, wildcards in the leftmost label, an exact name before a
 * wildcard); the first pair serves names that no certificate has, and clients without SNI. A client
 * that offers ALPN must offer http/1.1.
 *
 * OpenSSL's queue of errors is empty after every call but tls_accept's success. It writes to
 * sockets with write(2): the process must ignore SIGPIPE. */
#ifndef BEACON_WSS_TLS_H
#define BEACON_WSS_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    TLS_PAIRS_MAX = 8,
    TLS_NAME_MAX = 64, /* of a certificate, cut */
    TLS_ERROR_MAX = 1024,
    TLS_EXPORTER_LEN = 32,
    TLS_WARNING_DAYS = 14,
};

struct tls;

/* Comma-separated file names, as many certificates as keys. A certificate file holds the chain,
 * leaf first (PEM). NULL with `error` complete: which file, what is wrong with it, which user
 * cannot read it with which mode. Refuses: unreadable, no PEM, a passphrase, key and certificate
 * that do not match, a key that is readable by everyone, RSA below 2048 bits. A certificate that
 * has expired or is not yet valid only warns: see tls_warning. */
struct tls *tls_open(const char *certs, const char *keys, char error[static TLS_ERROR_MAX]);
/* A self-made ECDSA P-256 certificate for localhost, 127.0.0.1 and ::1, valid for 30 days, kept in
 * memory only. For --dev. */
struct tls *tls_open_self_made(char error[static TLS_ERROR_MAX]);
/* Nothing of NULL. */
void tls_close(struct tls *t);

/* What /metrics and the log show: of pair `i` < tls_count. The name is the first DNS name of the
 * certificate, or its common name, or "-"; letters, digits and "*._-" only, all else is '?'. */
unsigned tls_count(const struct tls *t);
const char *tls_name(const struct tls *t, unsigned i);
time_t tls_not_after(const struct tls *t, unsigned i);
/* Something to tell the operator, as it was at tls_open (expired, not yet valid, expires within
 * TLS_WARNING_DAYS), or NULL. */
const char *tls_warning(const struct tls *t);

/* A new server connection on `fd`, not yet shaken hands. NULL: no memory. The caller frees it. */
SSL *tls_accept(struct tls *t, int fd);

/* RFC 9266: the channel binding of an established connection. False: none (TLS 1.2 without extended
 * master secret). */
bool tls_exporter(SSL *ssl, uint8_t ret[static TLS_EXPORTER_LEN]);

/* Watching the files: what they were when looked at (a symlink that is swapped shows, too). */
struct tls_stamp {
    uint64_t hash; /* over device, inode, size, mtime, ctime of every file; 0: one is missing */
};
struct tls_stamp tls_stamp(const char *certs, const char *keys);

#endif
