#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "wss/api_pages.h"
#include "wss/page.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char type_json[] = "application/json";

void api_refuse(struct edge_response *r, int status, const char *why)
{
    char *body = NULL;
    *r = (struct edge_response){.status = status, .fields = API_SAFE_FIELDS};
    int len = asprintf(&body, "{\"error\":\"%s\"}\n", why); /* our own words: nothing to escape */
    if (len < 0)
        return; /* no memory: the status alone */
    r->content_type = type_json;
    r->body = body;
    r->body_len = (size_t)len;
}

/* --- who may ask --- */

static bool same_text(struct http_text a, struct http_text b)
{
    return a.len == b.len && strncasecmp(a.at, b.at, a.len) == 0;
}

static bool begins_with(struct http_text t, const char *text)
{
    size_t len = strlen(text);
    return t.len >= len && strncasecmp(t.at, text, len) == 0;
}

static struct http_text behind(struct http_text t, size_t len)
{
    return (struct http_text){.at = t.at + len, .len = t.len - len};
}

/* "localhost", "127.0.0.1:8081", "[::1]:8081": what no name server of a stranger can point at us.
 */
static bool host_is_literal(struct http_text host)
{
    char text[ENDPOINT_TEXT_MAX];
    struct endpoint e;
    if (begins_with(host, "localhost") && (host.len == 9 || host.at[9] == ':'))
        return true;
    if (host.len == 0 || host.len + 3 > sizeof text || host.at[0] == ':')
        return false;
    memcpy(text, host.at, host.len);
    text[host.len] = '\0';
    if (endpoint_parse(text, &e))
        return true;
    strcpy(text + host.len, ":1"); /* without a port */
    return endpoint_parse(text, &e);
}

/* A host and port without the port that the scheme implies. */
static struct http_text without_port(struct http_text host, const char *port)
{
    size_t len = strlen(port);
    if (host.len > len && memcmp(host.at + host.len - len, port, len) == 0)
        host.len -= len;
    return host;
}

/* The scheme may differ: what stands in front of us may end TLS. */
static bool origin_is(struct http_text origin, struct http_text host)
{
    if (begins_with(origin, "http://"))
        return same_text(without_port(behind(origin, 7), ":80"), without_port(host, ":80"));
    if (begins_with(origin, "https://"))
        return same_text(without_port(behind(origin, 8), ":443"), without_port(host, ":443"));
    return false; /* "null" and what browsers have for extensions and files */
}

static bool has_token(const struct api *a)
{
    return a->token && a->token[0] != '\0';
}

/* Compares hashes, so that neither content nor length shows in the time. */
static bool token_is_good(const struct api *a, const struct http_request *q)
{
    uint8_t want[crypto_generichash_BYTES], got[crypto_generichash_BYTES];
    const struct http_text *value = http_field(q, "Authorization");
    if (!value || !begins_with(*value, "Bearer "))
        return false;
    struct http_text token = behind(*value, 7);
    crypto_generichash(want, sizeof want, (const uint8_t *)a->token, strlen(a->token), NULL, 0);
    crypto_generichash(got, sizeof got, (const uint8_t *)token.at, token.len, NULL, 0);
    return sodium_memcmp(want, got, sizeof want) == 0;
}

static bool is_unix(const struct edge_request *r)
{
    static const struct endpoint none;
    return endpoint_equal(&r->from, &none);
}

/* A web page elsewhere can make a browser on this host ask us; it cannot forge these two fields.
 * That holds for a unix socket, too: ssh forwards a port of somebody's desk to it. */
static bool guard_browsers(const struct api *a, const struct edge_request *request,
                           struct edge_response *r)
{
    const struct http_text *host = http_field(request->http, "Host");
    const struct http_text *origin = http_field(request->http, "Origin");
    if (!host || (!has_token(a) && !host_is_literal(*host))) {
        api_refuse(r, 403, "name the listener by its IP address or as localhost");
        return false;
    }
    if (origin && !origin_is(*origin, *host)) {
        api_refuse(r, 403, "the request comes from another site");
        return false;
    }
    return true;
}

static bool guard_token(const struct api *a, const struct edge_request *request,
                        struct edge_response *r)
{
    if (!has_token(a) || token_is_good(a, request->http))
        return true;
    if (http_field(request->http, "Authorization")) {
        char from[ENDPOINT_TEXT_MAX] = "unix socket";
        if (!is_unix(request))
            endpoint_format(&request->from, from);
        events_add(a->events, true, "auth", "admin token refused from %s", from);
    }
    api_refuse(r, 401, "the admin token is needed");
    r->fields = API_SAFE_FIELDS "WWW-Authenticate: Bearer\r\n";
    return false;
}

/* --- commands --- */

/* The members of a command: all that are named, and no other. */
static json_t *read_members(const struct edge_request *request)
{
    json_error_t error;
    if (request->body_len == 0)
        return json_object();
    json_t *value = json_loadb(request->body, request->body_len, JSON_REJECT_DUPLICATES, &error);
    if (value && !json_is_object(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

/* Writes what the command made of its only member (NULL: it has none) to `out`; returns the status,
 * and for 400 and above `out` holds the reason. */
typedef int api_command(FILE *out, struct api *a, const json_t *value);

static int command_reload(FILE *out, struct api *a, const json_t *value)
{
    (void)value;
    uint64_t sequence = admin_ask_reload(a->admin);
    a->commands.reload(a->commands.arg);
    fprintf(out, "{\"accepted\":true,\"sequence\":%" PRIu64 "}", sequence);
    return 202;
}

static int command_drain(FILE *out, struct api *a, const json_t *value)
{
    if (!json_is_boolean(value)) {
        fputs("on must be true or false", out);
        return 400;
    }
    if (!json_is_true(value) && atomic_load_explicit(&a->admin->stopping, memory_order_relaxed)) {
        fputs("the beacon is stopping", out);
        return 409;
    }
    a->commands.drain(a->commands.arg, json_is_true(value));
    fprintf(out, "{\"draining\":%s}", json_is_true(value) ? "true" : "false");
    return 200;
}

static int command_log_level(FILE *out, struct api *a, const json_t *value)
{
    enum log_level level;
    if (!json_is_string(value) || !api_level_read(json_string_value(value), &level)) {
        fputs("level must be debug, info, warn or error", out);
        return 400;
    }
    a->commands.log_level(a->commands.arg, level);
    fprintf(out, "{\"level\":\"%s\"}", api_level_text(level));
    return 200;
}

static int command_notify(FILE *out, struct api *a, const json_t *value)
{
    unsigned lane;
    json_int_t id = json_integer_value(value); /* 0 for what is no integer */
    if (id < 1 || id > UINT32_MAX) {
        fputs("node_id must be a number from 1 to 4294967295", out);
        return 400;
    }
    int err = server_notify(a->admin->server, (uint32_t)id, &lane);
    if (err < 0) {
        fputs(err == -ENOENT ? "no such node is registered" : "the node's shard is busy", out);
        return err == -ENOENT ? 404 : 503;
    }
    a->commands.wake(a->commands.arg, lane);
    fprintf(out, "{\"node_id\":%" JSON_INTEGER_FORMAT "}", id);
    return 200;
}

/* --- what there is --- */

struct api_row {
    const char *path;
    bool is_prefix;
    const char *allow;
    api_page *page;       /* GET and HEAD */
    api_command *command; /* POST */
    const char *member;   /* of the command, NULL: none */
};

static const struct api_row rows[] = {
    {"/v1/status", false, "GET, HEAD", api_status, NULL, NULL},
    {"/v1/nodes", false, "GET, HEAD", api_nodes, NULL, NULL},
    {"/v1/nodes/", true, "GET, HEAD", api_node, NULL, NULL},
    {"/v1/talkers", false, "GET, HEAD", api_talkers, NULL, NULL},
    {"/v1/sessions", false, "GET, HEAD", api_sessions, NULL, NULL},
    {"/v1/peers", false, "GET, HEAD", api_peers, NULL, NULL},
    {"/v1/reload", false, "POST", NULL, command_reload, NULL},
    {"/v1/drain", false, "POST", NULL, command_drain, "on"},
    {"/v1/log-level", false, "POST", NULL, command_log_level, "level"},
    {"/v1/notify", false, "POST", NULL, command_notify, "node_id"},
};

static const struct api_row *row_find(struct http_text path)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool there =
            rows[i].is_prefix ? begins_with(path, rows[i].path) : http_text_is(path, rows[i].path);
        if (there)
            return &rows[i];
    }
    return NULL;
}

static int command_run(FILE *out, struct api *a, const struct api_row *row,
                       const struct edge_request *request)
{
    json_t *members = read_members(request);
    const json_t *value = members && row->member ? json_object_get(members, row->member) : NULL;
    int status = 400;
    if (!members || json_object_size(members) != (row->member ? 1 : 0) || (row->member && !value))
        fprintf(out,
                row->member ? "a JSON object with the member %s is wanted"
                            : "an empty JSON object is wanted",
                row->member);
    else
        status = row->command(out, a, value);
    json_decref(members);
    return status;
}

static void answer_row(struct api *a, const struct api_row *row, const struct edge_request *request,
                       struct edge_response *r)
{
    char *body = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&body, &len);
    int status = 500;
    if (out)
        status = row->page ? row->page(out, a, request->http) : command_run(out, a, row, request);
    if (out && status < 400)
        fputc('\n', out);
    if (out && fclose(out) != 0)
        status = 500; /* no memory for the whole answer: a part of it would lie */
    if (status >= 400) {
        api_refuse(r, status, status == 500 ? "no memory" : body);
        free(body);
        return;
    }
    *r = (struct edge_response){.status = status,
                                .content_type = type_json,
                                .body = body,
                                .body_len = len,
                                .fields = API_SAFE_FIELDS};
}

static bool is_json(const struct http_request *q)
{
    const struct http_text *type = http_field(q, "Content-Type");
    size_t len = sizeof type_json - 1;
    return type && begins_with(*type, type_json) &&
           (type->len == len || type->at[len] == ';' || type->at[len] == ' ');
}

static bool is_read(enum http_method method)
{
    return method == HTTP_GET || method == HTTP_HEAD;
}

static void answer(struct api *a, const struct edge_request *request, struct edge_response *r)
{
    const struct http_request *q = request->http;
    const struct api_row *row = row_find(q->path);
    if (!row) {
        api_refuse(r, 404, "no such page");
    } else if (row->page ? !is_read(q->method) : q->method != HTTP_POST) {
        api_refuse(r, 405, "not for this page");
        r->allow = row->allow;
    } else if (row->command && !is_json(q)) {
        api_refuse(r, 415, "Content-Type must be application/json");
    } else {
        answer_row(a, row, request, r);
    }
}

/* --- the status page --- */

/* 'sha256-...' of what stands between two marks of the page, for Content-Security-Policy. */
static void hash_between(const char *from, const char *to, char ret[static 64])
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    const char *begin = strstr(status_page, from), *end = begin ? strstr(begin, to) : NULL;
    assert(end);
    begin += strlen(from);
    crypto_hash_sha256(hash, (const uint8_t *)begin, (unsigned long long)(end - begin));
    sodium_bin2base64(ret, 64, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
}

/* Only the page's own style and script run in it, and it speaks to nobody but us. */
static const char *page_fields(struct api *a)
{
    char style[64], script[64];
    if (a->page_fields[0])
        return a->page_fields;
    hash_between("<style>", "</style>", style);
    hash_between("<script>", "</script>", script);
    int len =
        snprintf(a->page_fields, sizeof a->page_fields,
                 "Content-Security-Policy: default-src 'none'; style-src 'sha256-%s'; "
                 "script-src 'sha256-%s'; connect-src 'self'; img-src data:; "
                 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n" API_SAFE_FIELDS,
                 style, script);
    assert(len > 0 && (size_t)len < sizeof a->page_fields);
    return a->page_fields;
}

static void answer_page(struct api *a, const struct http_request *q, struct edge_response *r)
{
    if (!is_read(q->method)) {
        api_refuse(r, 405, "not for this page");
        r->allow = "GET, HEAD";
        return;
    }
    size_t len = status_page_len;
    char *body = malloc(len);
    if (!body) {
        api_refuse(r, 500, "no memory");
        return;
    }
    memcpy(body, status_page, len);
    *r = (struct edge_response){.status = 200,
                                .content_type = "text/html; charset=utf-8",
                                .body = body,
                                .body_len = len,
                                .fields = page_fields(a)};
}

/* --- the entry --- */

static bool is_health(struct http_text path)
{
    return http_text_is(path, "/healthz") || http_text_is(path, "/livez") ||
           http_text_is(path, "/readyz");
}

void api_http(void *arg, const struct edge_request *request, struct edge_response *r)
{
    struct api *a = arg;
    const struct http_request *q = request->http;
    if (is_health(q->path)) { /* load balancers come under any name, and without a token */
        admin_health(a->admin, request, r);
        return;
    }
    if (!guard_browsers(a, request, r))
        return;
    if (http_text_is(q->path, "/")) { /* has no secrets, and asks for the token itself */
        answer_page(a, q, r);
        return;
    }
    if (!guard_token(a, request, r))
        return;
    if (http_text_is(q->path, "/metrics"))
        admin_metrics(a->admin, request, r);
    else if (http_text_is(q->path, "/v1/events"))
        api_events(a, q, r);
    else
        answer(a, request, r);
}
