/* http - a strict HTTP/1.1 request head parser (RFC 9112), and the head of an answer.
 *
 * Pure. One pass over a complete or incomplete head in the caller's buffer; the result points into
 * it. Strict where leniency makes smuggling: CRLF only, one Host, no space before a colon, no
 * folding, Content-Length of digits only and once, no Transfer-Encoding at all. */
#ifndef BEACON_PROTO_HTTP_H
#define BEACON_PROTO_HTTP_H

#include "proto/wire.h"

enum {
    HTTP_HEAD_MAX = 8192, /* bytes of request line and fields, the empty line included */
    HTTP_FIELDS_MAX = 64,
};

struct http_text { /* a piece of the head; not zero-ended */
    const char *at;
    size_t len;
};

struct http_field {
    struct http_text name, value; /* value without surrounding blanks */
};

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_OTHER, /* any other token: the caller answers 405 */
};

struct http_request {
    enum http_method method;
    struct http_text path;  /* begins with '/'; percent-encoding untouched */
    struct http_text query; /* behind '?', may be empty */
    unsigned version_minor; /* 0 or 1 */
    bool keep_alive;        /* 1.1 unless "close"; 1.0 only with "keep-alive" */
    uint64_t body_len;      /* Content-Length, 0 without */
    bool expects_continue;
    unsigned field_count;
    struct http_field field[HTTP_FIELDS_MAX];
    size_t head_len; /* bytes of the buffer that the head used, empty line included */
};

/* Returns 0 when `ret` is filled, HTTP_MORE when the head is not complete yet, else the status code
 * that refuses it: 400, 413, 414, 417, 431, 501 or 505. After a refusal the connection must close:
 * where the next request begins is unknown. `ret` is undefined unless 0. More bytes never change a
 * refusal, and the first one in the order of the bytes is the answer. */
enum { HTTP_MORE = -1 };
int http_read_head(const char *bytes, size_t len, struct http_request *ret);

/* The value of the first field with this name (case-insensitive), or NULL. */
const struct http_text *http_field(const struct http_request *q, const char *name);

/* Exactly this text, case and all. */
bool http_text_is(struct http_text t, const char *text);

/* The same but for the case of letters; ASCII only, as names must not depend on the locale. */
bool http_text_same(struct http_text a, struct http_text b);
static inline struct http_text http_text_of(const char *text)
{
    return (struct http_text){.at = text, .len = strlen(text)};
}

/* Takes one element of a comma-separated list, without the blanks around it. */
struct http_text http_list_take(struct http_text *list);

/* The reason phrase of a status code that we send. */
const char *http_reason(int status);

struct http_answer {
    int status;
    const char *content_type; /* NULL: no body type */
    size_t body_len;
    bool keep_alive;
    const char *allow;  /* for 405, else NULL */
    const char *fields; /* more fields, each with its CRLF, or NULL */
    bool endless;       /* the body ends with the connection: no Content-Length, "close" */
    bool upgrade;       /* "Upgrade" is among the options of Connection (101: the only one) */
    bool secure;        /* browsers are to come by https only (RFC 6797) */
};

/* Status line and fields, the empty line included: Content-Length, Cache-Control: no-store,
 * Connection. No Server, no Date of a stranger's use. A 101 has neither of the first two, and
 * always "Connection: Upgrade"; the field Upgrade itself is one of `fields`. */
void http_write_head(struct writer *w, const struct http_answer *a);

#endif
