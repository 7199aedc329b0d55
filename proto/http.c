#include "proto/http.h"

#include <assert.h>
#include <stdio.h>

enum {
    HTTP_READ = 0,
    TARGET_MAX = 4096,  /* bytes of path and query */
    BODY_MAX = 1 << 20, /* no request of ours has a larger body */
};

/* What is left of the head, and the facts that need more than one field. */
struct head_reader {
    const char *at, *end;
    bool request_line_read;
    bool host_seen, length_seen;
    bool close, keep_alive; /* named in Connection */
};

/* --- texts --- */

static struct http_text text_of(const char *at, const char *end)
{
    return (struct http_text){.at = at, .len = (size_t)(end - at)};
}

bool http_text_is(struct http_text t, const char *text)
{
    return t.len == strlen(text) && memcmp(t.at, text, t.len) == 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool http_text_same(struct http_text a, struct http_text b)
{
    size_t i = 0;
    while (i < a.len && i < b.len && lower(a.at[i]) == lower(b.at[i]))
        i++;
    return i == a.len && i == b.len;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z');
}

/* Only letters, digits and the characters of `others`, and at least one of them. */
static bool is_made_of(struct http_text t, const char *others)
{
    for (size_t i = 0; i < t.len; i++) {
        if (!is_alnum(t.at[i]) && !memchr(others, t.at[i], strlen(others)))
            return false;
    }
    return t.len > 0;
}

static bool is_token(struct http_text t)
{
    return is_made_of(t, "!#$%&'*+-.^_`|~");
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct http_text trim(struct http_text t)
{
    while (t.len > 0 && is_blank(t.at[0])) {
        t.at++;
        t.len--;
    }
    while (t.len > 0 && is_blank(t.at[t.len - 1]))
        t.len--;
    return t;
}

/* Takes the text up to `mark`, and the mark; all that is left when there is none. */
static struct http_text cut(struct http_text *t, char mark)
{
    const char *end = t->at + t->len;
    const char *found = memchr(t->at, mark, t->len);
    struct http_text piece = text_of(t->at, found ? found : end);
    *t = text_of(found ? found + 1 : end, end);
    return piece;
}

struct http_text http_list_take(struct http_text *list)
{
    return trim(cut(list, ','));
}

/* --- lines --- */

/* Takes one line and its CRLF. A lone CR or LF, NUL and every other control character but the tab
 * are refused wherever they stand: what others take for the end of a line must not be text to us.
 */
static int read_line(struct head_reader *r, struct http_text *ret)
{
    for (const char *c = r->at; c < r->end; c++) {
        if ((unsigned char)*c >= 0x20 && *c != 0x7f)
            continue;
        if (*c == '\t')
            continue;
        if (*c != '\r')
            return 400;
        if (c + 1 == r->end)
            return HTTP_MORE;
        if (c[1] != '\n')
            return 400;
        *ret = text_of(r->at, c);
        r->at = c + 2;
        return HTTP_READ;
    }
    return HTTP_MORE;
}

/* --- the request line --- */

static enum http_method method_of(struct http_text t)
{
    if (http_text_is(t, "GET"))
        return HTTP_GET;
    if (http_text_is(t, "HEAD"))
        return HTTP_HEAD;
    if (http_text_is(t, "POST"))
        return HTTP_POST;
    return HTTP_OTHER;
}

/* Origin-form only (RFC 9112, 3.2.1): we are no proxy, and "*" is for OPTIONS. */
static int read_target(struct http_text target, struct http_request *q)
{
    if (target.len == 0 || target.at[0] != '/')
        return 400;
    if (target.len > TARGET_MAX)
        return 414;
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char)target.at[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return 400; /* RFC 3986 has none of these in a path or query */
    }
    q->path = cut(&target, '?');
    q->query = target;
    return HTTP_READ;
}

static int read_version(struct http_text version, struct http_request *q)
{
    if (version.len < 6 || memcmp(version.at, "HTTP/", 5) != 0 || !is_digit(version.at[5]) ||
        memchr(version.at, ' ', version.len))
        return 400;
    if (!http_text_is(version, "HTTP/1.0") && !http_text_is(version, "HTTP/1.1"))
        return 505;
    q->version_minor = (unsigned)(version.at[7] - '0');
    return HTTP_READ;
}

/* method SP request-target SP HTTP-version (RFC 9112, 3) */
static int read_request_line(struct http_text line, struct http_request *q)
{
    struct http_text method = cut(&line, ' ');
    struct http_text target = cut(&line, ' ');
    if (!is_token(method))
        return 400;
    q->method = method_of(method);
    int status = read_target(target, q);
    return status == HTTP_READ ? read_version(line, q) : status;
}

/* --- fields --- */

/* One host, perhaps with a port. A list, a path or user information would let two readers of the
 * same request see different hosts. */
static int read_host(struct http_text value, struct head_reader *r)
{
    if (r->host_seen || !is_made_of(value, "-._~%!$&'()*+;=:[]"))
        return 400;
    r->host_seen = true;
    return HTTP_READ;
}

/* Digits, once. Two equal lengths might be merged (RFC 9110, 8.6), but nobody honest sends two. */
static int read_length(struct http_text value, struct head_reader *r, struct http_request *q)
{
    if (r->length_seen || value.len == 0)
        return 400;
    uint64_t len = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (!is_digit(value.at[i]))
            return 400;
        if (len <= BODY_MAX) /* beyond, it is too large whatever follows: no overflow */
            len = len * 10 + (uint64_t)(value.at[i] - '0');
    }
    if (len > BODY_MAX)
        return 413;
    r->length_seen = true;
    q->body_len = len;
    return HTTP_READ;
}

static int read_connection(struct http_text value, struct head_reader *r)
{
    while (value.len > 0) {
        struct http_text option = http_list_take(&value);
        r->close = r->close || http_text_same(option, http_text_of("close"));
        r->keep_alive = r->keep_alive || http_text_same(option, http_text_of("keep-alive"));
    }
    return HTTP_READ;
}

/* An HTTP/1.0 client cannot wait for 100 (RFC 9110, 10.1.1). */
static int read_expect(struct http_text value, struct http_request *q)
{
    if (q->version_minor == 0)
        return HTTP_READ;
    if (!http_text_same(value, http_text_of("100-continue")))
        return 417;
    q->expects_continue = true;
    return HTTP_READ;
}

/* The fields that say where this request ends and the next begins. */
static int read_meaning(const struct http_field *f, struct head_reader *r, struct http_request *q)
{
    if (http_text_same(f->name, http_text_of("host")))
        return read_host(f->value, r);
    if (http_text_same(f->name, http_text_of("content-length")))
        return read_length(f->value, r, q);
    if (http_text_same(f->name, http_text_of("transfer-encoding")))
        return 501; /* also beside a Content-Length: the classic of smuggling */
    if (http_text_same(f->name, http_text_of("connection")))
        return read_connection(f->value, r);
    if (http_text_same(f->name, http_text_of("expect")))
        return read_expect(f->value, q);
    return HTTP_READ;
}

/* field-name ":" OWS field-value OWS (RFC 9112, 5). A name is a token, so a folded line, a blank
 * before the colon and a missing colon all end here. */
static int read_field(struct http_text line, struct head_reader *r, struct http_request *q)
{
    if (!memchr(line.at, ':', line.len))
        return 400;
    struct http_field f = {.name = cut(&line, ':')};
    f.value = trim(line);
    if (!is_token(f.name))
        return 400;
    if (q->field_count == HTTP_FIELDS_MAX)
        return 431;
    q->field[q->field_count++] = f;
    return read_meaning(&f, r, q);
}

/* --- the head --- */

/* Robust servers skip one empty line in front (RFC 9112, 2.2): old clients end a body with it. */
static int read_first_line(struct head_reader *r, struct http_text *ret)
{
    int status = read_line(r, ret);
    return status == HTTP_READ && ret->len == 0 ? read_line(r, ret) : status;
}

static int read_lines(struct head_reader *r, struct http_request *q)
{
    struct http_text line;
    int status = read_first_line(r, &line);
    if (status == HTTP_READ)
        status = read_request_line(line, q);
    while (status == HTTP_READ) {
        r->request_line_read = true;
        status = read_line(r, &line);
        if (status == HTTP_READ && line.len == 0)
            return HTTP_READ;
        if (status == HTTP_READ)
            status = read_field(line, r, q);
    }
    return status;
}

int http_read_head(const char *bytes, size_t len, struct http_request *ret)
{
    bool full = len >= HTTP_HEAD_MAX;
    struct head_reader r = {.at = bytes, .end = bytes + (full ? HTTP_HEAD_MAX : len)};
    ret->field_count = 0;
    ret->body_len = 0;
    ret->expects_continue = false;
    int status = read_lines(&r, ret);
    if (status == HTTP_MORE && full)
        return r.request_line_read ? 431 : 414;
    if (status != HTTP_READ)
        return status;
    if (!r.host_seen && ret->version_minor == 1)
        return 400;
    ret->keep_alive = !r.close && (ret->version_minor == 1 || r.keep_alive);
    ret->head_len = (size_t)(r.at - bytes);
    return HTTP_READ;
}

const struct http_text *http_field(const struct http_request *q, const char *name)
{
    for (unsigned i = 0; i < q->field_count; i++) {
        if (http_text_same(q->field[i].name, http_text_of(name)))
            return &q->field[i].value;
    }
    return NULL;
}

/* --- the answer --- */

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return ""; /* a phrase may be empty (RFC 9112, 4) */
}

static void write_text(struct writer *w, const char *text)
{
    write_bytes(w, text, strlen(text));
}

static void write_decimal(struct writer *w, size_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", value);
    write_text(w, text);
}

static void write_field(struct writer *w, const char *name, const char *value)
{
    write_text(w, name);
    write_text(w, ": ");
    write_text(w, value);
    write_text(w, "\r\n");
}

/* "Connection: ", its options. What a 101 has agreed on is no connection of HTTP any more. */
static void write_connection(struct writer *w, const struct http_answer *a)
{
    static const char *const options[2][2] = {
        {"close", "close, Upgrade"},
        {"keep-alive", "keep-alive, Upgrade"},
    };
    bool keep_alive = a->keep_alive && !a->endless;
    const char *value = options[keep_alive][a->upgrade];
    write_field(w, "Connection", a->status == 101 ? "Upgrade" : value);
}

/* RFC 9110, 8.6: 1xx and 204 have no body, so no length. */
static bool has_length(const struct http_answer *a)
{
    return a->status >= 200 && a->status != 204 && !a->endless;
}

void http_write_head(struct writer *w, const struct http_answer *a)
{
    assert(a->status >= 100);
    assert(a->status <= 599);
    write_text(w, "HTTP/1.1 ");
    write_decimal(w, (size_t)a->status);
    write_text(w, " ");
    write_text(w, http_reason(a->status));
    write_text(w, "\r\n");
    if (a->content_type)
        write_field(w, "Content-Type", a->content_type);
    if (has_length(a)) {
        write_text(w, "Content-Length: ");
        write_decimal(w, a->body_len);
        write_text(w, "\r\n");
    }
    if (a->status != 101) /* nothing here that a cache could keep */
        write_field(w, "Cache-Control", "no-store");
    write_connection(w, a);
    if (a->allow)
        write_field(w, "Allow", a->allow);
    if (a->secure)
        write_field(w, "Strict-Transport-Security", "max-age=31536000");
    if (a->fields)
        write_text(w, a->fields);
    write_text(w, "\r\n");
}
