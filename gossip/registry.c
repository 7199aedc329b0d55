#include "gossip/registry.h"

#include <stdio.h>

#include <jansson.h>
#include "proto/endpoint.h"
#include "proto/wire.h"

enum {
    HEAD_LEN = 4,
    DEPTH_MAX = 16,      /* of nesting; what we look at has 3 */
    LABEL_MAX = 63,      /* of a host name, RFC 1035 */
    SHOWN_MAX = 100,     /* characters of somebody else's text in an error */
    DEFAULT_PORT = 9001, /* of a beacon */
    PORT_DIGITS_MAX = 5,
};

#define PILOT_PREFIX "pilot:"

/* --- errors --- */

/* Others' text for a line of a log: printable ASCII, and not too much of it. */
static const char *shown(const char *text, size_t len, char ret[static SHOWN_MAX + 4])
{
    size_t n = len < SHOWN_MAX ? len : SHOWN_MAX;
    for (size_t i = 0; i < n; i++)
        ret[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    memcpy(ret + n, len > n ? "..." : "", len > n ? 4 : 1);
    return ret;
}

static bool fail(char error[static REGISTRY_ERROR_MAX], const char *text)
{
    snprintf(error, REGISTRY_ERROR_MAX, "%s", text);
    return false;
}

/* --- messages --- */

/* Takes the reference; NULL (a text that is not UTF-8, no memory) is a message that does not fit.
 */
static size_t write_frame(char *text, size_t room, json_t *body)
{
    struct writer w = writer_of((uint8_t *)text, room);
    uint8_t *head = write_room(&w, HEAD_LEN);
    size_t left = room - written(&w), len = 0;
    if (body && head)
        len = json_dumpb(body, text + HEAD_LEN, left, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(body);
    if (len == 0 || len > left)
        return 0;
    struct writer h = writer_of(head, HEAD_LEN);
    write_u32(&h, (uint32_t)len);
    return HEAD_LEN + len;
}

size_t registry_register_message(char *text, size_t room, uint32_t beacon_id, const char *addr,
                                 const char *admin_token)
{
    json_t *body = json_pack("{s:s, s:I, s:s}", "type", "beacon_register", "beacon_id",
                             (json_int_t)beacon_id, "addr", addr);
    if (body && admin_token && admin_token[0] &&
        json_object_set_new(body, "admin_token", json_string(admin_token)) < 0) {
        json_decref(body);
        body = NULL;
    }
    return write_frame(text, room, body);
}

size_t registry_list_message(char *text, size_t room)
{
    return write_frame(text, room, json_pack("{s:s}", "type", "beacon_list"));
}

size_t registry_frame_len(const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    uint32_t body = read_u32(&r);
    if (r.bad)
        return 0;
    return body > REGISTRY_ANSWER_MAX ? SIZE_MAX : HEAD_LEN + (size_t)body;
}

/* --- answers --- */

/* jansson goes deeper than an answer that we understand ever needs, on the stack. Whether brackets
 * match is its business. */
static bool is_shallow(const char *json, size_t len)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string && json[i] == '\\')
            i++;
        else if (json[i] == '"')
            in_string = !in_string;
        else if (!in_string && (json[i] == '{' || json[i] == '['))
            depth++;
        else if (!in_string && depth > 0 && (json[i] == '}' || json[i] == ']'))
            depth--;
        if (depth > DEPTH_MAX)
            return false;
    }
    return true;
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* The answer of that type, or NULL with the reason. */
static json_t *answer_read(const char *json, size_t len, const char *type,
                           char error[static REGISTRY_ERROR_MAX])
{
    char text[SHOWN_MAX + 4];
    json_error_t where;
    json_t *root =
        is_shallow(json, len) ? json_loadb(json, len, JSON_REJECT_DUPLICATES, &where) : NULL;
    const json_t *refused = json_object_get(root, "error");
    const char *said = text_of(root, "type");
    if (!json_is_object(root))
        fail(error, "the answer is not a JSON object");
    else if (json_is_string(refused))
        snprintf(error, REGISTRY_ERROR_MAX, "the registry says: %s",
                 shown(json_string_value(refused), json_string_length(refused), text));
    else if (!said || strcmp(said, type) != 0)
        snprintf(error, REGISTRY_ERROR_MAX, "the answer is not of type %s but %s", type,
                 said ? shown(said, strlen(said), text) : "of none");
    else
        return root;
    json_decref(root);
    return NULL;
}

/* 1 to 2^32 - 1, and an integer as it is written. */
static bool read_id(const json_t *value, uint32_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > UINT32_MAX)
        return false;
    *ret = (uint32_t)json_integer_value(value);
    return true;
}

bool registry_registered(const char *json, size_t len, uint32_t beacon_id,
                         char error[static REGISTRY_ERROR_MAX])
{
    uint32_t id = 0;
    json_t *root = answer_read(json, len, "beacon_register_ok", error);
    if (!root)
        return false;
    bool good = read_id(json_object_get(root, "beacon_id"), &id) && id == beacon_id;
    json_decref(root);
    return good || fail(error, "the registry confirms another beacon id than ours");
}

static bool read_beacon(const json_t *entry, struct registry_beacon *ret)
{
    struct peer_name name;
    uint32_t id;
    const json_t *addr = json_object_get(entry, "addr");
    if (!read_id(json_object_get(entry, "id"), &id) || !json_is_string(addr) ||
        !peer_host_read(json_string_value(addr), json_string_length(addr), 0, &name))
        return false;
    *ret = (struct registry_beacon){.id = id, .port = name.port};
    memcpy(ret->host, name.host, sizeof ret->host);
    return true;
}

bool registry_listed(const char *json, size_t len, struct registry_list *ret,
                     char error[static REGISTRY_ERROR_MAX])
{
    size_t i;
    const json_t *entry;
    json_t *root = answer_read(json, len, "beacon_list_ok", error);
    if (!root)
        return false;
    const json_t *beacons = json_object_get(root, "beacons");
    bool good = json_is_array(beacons);
    if (good)
        ret->count = ret->skipped = 0;
    json_array_foreach(beacons, i, entry)
    {
        if (ret->count < REGISTRY_BEACONS_MAX && read_beacon(entry, &ret->of[ret->count]))
            ret->count++;
        else
            ret->skipped++;
    }
    json_decref(root);
    return good || fail(error, "the answer has no array of beacons");
}

/* --- names of peers --- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_label_character(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

static bool read_port(const char *text, size_t len, uint16_t *ret)
{
    uint32_t port = 0;
    if (len == 0 || len > PORT_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return false;
        port = 10 * port + (uint32_t)(text[i] - '0');
    }
    if (port == 0 || port > UINT16_MAX)
        return false;
    *ret = (uint16_t)port;
    return true;
}

/* A name as resolvers take it; one whose last label is a number must be an address of IPv4, for
 * some of them take "9001" for one, too. */
static bool is_host(const char *host)
{
    struct endpoint e;
    size_t label = 0;
    bool numeric = true; /* the label so far */
    for (const char *c = host; *c; c++) {
        if (*c == '.') {
            if (label == 0)
                return false;
            if (!c[1])
                break; /* the root's dot */
            label = 0;
            numeric = true;
            continue;
        }
        if (!is_label_character(*c) || ++label > LABEL_MAX)
            return false;
        numeric = numeric && is_digit(*c);
    }
    return label > 0 && (!numeric || (endpoint_parse_ip(host, &e) && endpoint_is_v4(&e)));
}

static bool is_v6(const char *host)
{
    struct endpoint e;
    return strchr(host, ':') && endpoint_parse_ip(host, &e);
}

bool peer_host_read(const char *text, size_t len, uint16_t port, struct peer_name *ret)
{
    struct peer_name n = {.port = port};
    bool bracket = len > 0 && text[0] == '[';
    const char *end = memchr(text, bracket ? ']' : ':', len);
    const char *host = bracket ? text + 1 : text;
    if (bracket && !end)
        return false;
    size_t host_len = (size_t)((end ? end : text + len) - host);
    const char *rest = host + host_len + bracket; /* ":port" or nothing */
    size_t rest_len = len - (size_t)(rest - text);
    if (host_len >= sizeof n.host || memchr(host, '\0', host_len))
        return false;
    memcpy(n.host, host, host_len);
    if (rest_len > 0 && (rest[0] != ':' || !read_port(rest + 1, rest_len - 1, &n.port)))
        return false;
    if (n.port == 0 || !(bracket ? is_v6(n.host) : is_host(n.host)))
        return false;
    *ret = n;
    return true;
}

bool peer_name_read(const char *text, size_t len, struct peer_name *ret)
{
    static const size_t prefix = sizeof PILOT_PREFIX - 1;
    if (len > prefix && memcmp(text, PILOT_PREFIX, prefix) == 0 &&
        peer_host_read(text + prefix, len - prefix, DEFAULT_PORT, ret)) {
        ret->is_pilot = true;
        return true;
    }
    return peer_host_read(text, len, DEFAULT_PORT, ret); /* "pilot:9001" is a host, too */
}

size_t peer_name_write(char text[static PEER_TEXT_MAX], const char *host, uint16_t port)
{
    bool v6 = strchr(host, ':') != NULL;
    int len = snprintf(text, PEER_TEXT_MAX, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
                       (unsigned)port);
    return len > 0 && len < PEER_TEXT_MAX ? (size_t)len : 0;
}

/* --- a list of them --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && is_blank(**text)) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && is_blank((*text)[*len - 1]))
        (*len)--;
}

/* Names of one line, which may have none. */
static bool read_line(const char *line, size_t len, struct peer_name *ret, unsigned max,
                      unsigned *count, char error[static REGISTRY_ERROR_MAX])
{
    const char *comment = memchr(line, '#', len), *end = comment ? comment : line + len;
    for (const char *at = line, *stop; at <= end; at = stop + 1) {
        char text[SHOWN_MAX + 4];
        stop = memchr(at, ',', (size_t)(end - at));
        stop = stop ? stop : end;
        const char *name = at;
        size_t name_len = (size_t)(stop - at);
        trim(&name, &name_len);
        if (name_len == 0)
            continue;
        if (*count == max)
            return fail(error, "too many peers");
        if (!peer_name_read(name, name_len, &ret[*count])) {
            snprintf(error, REGISTRY_ERROR_MAX, "not a peer, like beacon.example.org:9001: %s",
                     shown(name, name_len, text));
            return false;
        }
        (*count)++;
    }
    return true;
}

int peer_names_read(const char *path, const char *text, size_t len, struct peer_name *ret,
                    unsigned max, char error[static REGISTRY_ERROR_MAX])
{
    char reason[REGISTRY_ERROR_MAX];
    unsigned count = 0, line = 1;
    for (size_t at = 0; at < len; line++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end ? (size_t)(end - text) - at : len - at;
        if (!read_line(text + at, line_len, ret, max, &count, reason)) {
            int n = snprintf(error, REGISTRY_ERROR_MAX, "%.100s:%u: ", path, line);
            snprintf(error + n, REGISTRY_ERROR_MAX - (size_t)n, "%.150s", reason);
            return -1;
        }
        at += line_len + 1;
    }
    return (int)count;
}
