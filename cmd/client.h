/* client - asks a beacon's admin interface over HTTP: TCP, TLS or a unix socket; one request a
 * connection.
 *
 * Blocks, up to the timeout for each request. HTTP/1.0, so that an answer is never chunked, and a
 * proxy in front may be any. For beaconctl; one thread. */
#ifndef BEACON_CMD_CLIENT_H
#define BEACON_CMD_CLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

enum { CLIENT_TEXT_MAX = 256, CLIENT_ERROR_MAX = 768, CLIENT_ANSWER_MAX = 64 << 20 };

struct client {
    /* Filled by the caller. */
    const char *token; /* NULL: none */
    const char *ca;    /* file of CAs to believe instead of the system's, or NULL */
    bool insecure;     /* believe any certificate */
    unsigned timeout_ms;

    /* Filled by client_set_address. */
    bool is_unix, tls;
    char host[CLIENT_TEXT_MAX]; /* or the path of the socket */
    char port[16];
    char prefix[CLIENT_TEXT_MAX]; /* of the path, "" or "/x" */

    SSL_CTX *context;             /* made when first needed */
    char error[CLIENT_ERROR_MAX]; /* of the last failure */
};

/* "unix:PATH", "HOST:PORT", "[V6]:PORT", "http://HOST[:PORT][/PREFIX]", "https://...". False:
 * `error` says what is wrong. */
bool client_set_address(struct client *c, const char *text);

struct answer {
    int status;
    char *body; /* ends with a zero byte behind `len`; to be freed */
    size_t len;
};

/* `body` NULL: GET, else POST of JSON. 0 when there is an answer, whatever its status; else an exit
 * code (EX_UNAVAILABLE, EX_NOPERM, EXIT_FAILURE) and `error`. */
int client_ask(struct client *c, const char *path, const char *body, struct answer *ret);

void client_close(struct client *c);

#endif
