#include "server/options.h"

#include <string.h>
#include <strings.h>

/* --- one address and port --- */

/* Numeric, but for the one name that means the same everywhere. */
bool read_endpoint(const char *value, struct endpoint *ret, struct refusal *r)
{
    static const char name[] = "localhost:", address[] = "127.0.0.1:";
    char text[ENDPOINT_TEXT_MAX];

    if (strncasecmp(value, name, sizeof name - 1) == 0) {
        int len = snprintf(text, sizeof text, "%s%s", address, value + sizeof name - 1);
        if (len < (int)sizeof text)
            value = text;
    }
    if (endpoint_parse(value, ret))
        return true;
    return option_refuse(r, "not an address and port, like 203.0.113.7:9001, [2001:db8::1]:9001 or "
                            ":9001 (host names are not looked up)");
}

void format_endpoint(const struct endpoint *e, char *text, size_t capacity)
{
    char address[ENDPOINT_TEXT_MAX];

    snprintf(text, capacity, "%s", endpoint_format(e, address));
}

bool read_listener(const char *value, struct endpoint *ret, bool *ret_enabled, struct refusal *r)
{
    struct endpoint at = {.port = 0};

    if (*value != '\0' && !read_endpoint(value, &at, r))
        return false;
    *ret = at;
    *ret_enabled = *value != '\0';
    return true;
}

/* --- the admin interface: one of those, or a path --- */

bool read_admin(const char *value, struct admin_at *ret, struct refusal *r)
{
    static const char scheme[] = "unix:";
    struct admin_at at;
    const char *path = value + sizeof scheme - 1;

    memset(&at, 0, sizeof at);
    if (*value == '\0') {
        at.kind = ADMIN_OFF;
    } else if (strncmp(value, scheme, sizeof scheme - 1) != 0) {
        at.kind = ADMIN_TCP;
        if (!read_endpoint(value, &at.tcp, r))
            return option_refuse(r, "not an address and port, like 127.0.0.1:8081, and not a "
                                    "unix socket, like unix:/run/beacon/admin.sock");
    } else {
        at.kind = ADMIN_UNIX;
        if (*path != '/')
            return option_refuse(r, "the path must begin with a slash");
        if (strlen(path) >= sizeof at.path)
            return option_refuse(r, "the path is longer than 107 bytes");
        memcpy(at.path, path, strlen(path));
    }
    *ret = at;
    return true;
}

void format_admin(const struct admin_at *a, char *text, size_t capacity)
{
    switch (a->kind) {
    case ADMIN_OFF:
        text[0] = '\0';
        break;
    case ADMIN_TCP:
        format_endpoint(&a->tcp, text, capacity);
        break;
    case ADMIN_UNIX:
        snprintf(text, capacity, "unix:%s", a->path);
        break;
    }
}

/* --- lists of addresses --- */

/* endpoint_format without its port. */
static void format_ip(const struct endpoint *e, char text[static ENDPOINT_TEXT_MAX])
{
    endpoint_format(e, text);
    *strrchr(text, ':') = '\0';
    if (text[0] == '[') {
        size_t len = strlen(text);
        memmove(text, text + 1, len - 2);
        text[len - 2] = '\0';
    }
}

static bool read_ip(const char *entry, size_t len, struct whitelist *w, struct refusal *r)
{
    char text[ENDPOINT_TEXT_MAX], shown[OPTION_SHOWN_MAX];

    snprintf(text, sizeof text, "%.*s", len < sizeof text ? (int)len : (int)sizeof text - 1, entry);
    if (strcmp(text, "*") == 0 || strcasecmp(text, "all") == 0) {
        w->all = true;
        return true;
    }
    if (w->count == CONFIG_WHITELIST_MAX)
        return option_refuse(r, "more than 256 addresses");
    if (len >= sizeof text || !endpoint_parse_ip(text, &w->ip[w->count])) {
        snprintf(r->why, sizeof r->why, "%s is not an IP address", text_show(text, shown));
        return false;
    }
    w->count++;
    return true;
}

bool read_ips(const char *value, struct whitelist *ret, struct refusal *r)
{
    struct whitelist w;
    const char *entry;
    size_t len;

    memset(&w, 0, sizeof w);
    while (list_take(&value, &entry, &len))
        if (!read_ip(entry, len, &w, r))
            return false;
    *ret = w;
    return true;
}

void format_ips(const struct whitelist *w, char *text, size_t capacity)
{
    char ip[ENDPOINT_TEXT_MAX];
    size_t len = (size_t)snprintf(text, capacity, "%s", w->all ? "*" : "");

    for (unsigned i = 0; i < w->count && len < capacity; i++) {
        format_ip(&w->ip[i], ip);
        len += (size_t)snprintf(text + len, capacity - len, "%s%s", len > 0 ? "," : "", ip);
    }
}

/* --- lists of address blocks --- */

static unsigned width(const struct endpoint *e)
{
    return endpoint_is_v4(e) ? 32 : 128;
}

/* "24" of "192.0.2.0/24". An IPv4-mapped prefix counts as IPv6 where it is written so, and is IPv4
 * then like its address: ::ffff:192.0.2.0/120 is the same. */
static bool read_bits(const char *digits, unsigned skip, unsigned bits_max, unsigned *ret)
{
    unsigned n = 0;

    if (*digits == '\0')
        return false;
    for (; *digits != '\0'; digits++) {
        if (*digits < '0' || *digits > '9')
            return false;
        n = n * 10 + (unsigned)(*digits - '0');
        if (n > skip + bits_max)
            return false;
    }
    if (n < skip)
        return false;
    *ret = n - skip;
    return true;
}

static bool read_block(const char *text, struct endpoint *ret, unsigned *ret_bits)
{
    char ip[ENDPOINT_TEXT_MAX];
    size_t len = strcspn(text, "/");

    snprintf(ip, sizeof ip, "%.*s", (int)len, text);
    if (!endpoint_parse_ip(ip, ret))
        return false;
    *ret_bits = width(ret);
    if (text[len] == '\0')
        return true;
    bool mapped = endpoint_is_v4(ret) && strchr(ip, ':') != NULL;
    return read_bits(text + len + 1, mapped ? 96 : 0, width(ret), ret_bits);
}

static bool read_prefix(const char *entry, size_t len, struct prefixes *p, struct refusal *r)
{
    char text[ENDPOINT_TEXT_MAX], shown[OPTION_SHOWN_MAX], begin[ENDPOINT_TEXT_MAX];
    struct endpoint at, first;
    unsigned bits;

    if (p->count == CONFIG_PREFIXES_MAX)
        return option_refuse(r, "more than 64 prefixes");
    snprintf(text, sizeof text, "%.*s", len < sizeof text ? (int)len : (int)sizeof text - 1, entry);
    if (len >= sizeof text || !read_block(text, &at, &bits)) {
        snprintf(r->why, sizeof r->why, "%s is not an address or prefix, like 10.0.0.0/8",
                 text_show(text, shown));
        return false;
    }
    first = endpoint_prefix(&at, bits);
    if (!endpoint_same_ip(&first, &at)) { /* a slip: who is trusted must be plain to see */
        format_ip(&first, begin);
        snprintf(r->why, sizeof r->why, "%s is no whole block, which begins at %s",
                 text_show(text, shown), begin);
        return false;
    }
    p->of[p->count].at = at;
    p->of[p->count++].bits = bits;
    return true;
}

bool read_prefixes(const char *value, struct prefixes *ret, struct refusal *r)
{
    struct prefixes p;
    const char *entry;
    size_t len;

    memset(&p, 0, sizeof p);
    while (list_take(&value, &entry, &len))
        if (!read_prefix(entry, len, &p, r))
            return false;
    *ret = p;
    return true;
}

void format_prefixes(const struct prefixes *p, char *text, size_t capacity)
{
    char ip[ENDPOINT_TEXT_MAX];
    size_t len = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < p->count && len < capacity; i++) {
        format_ip(&p->of[i].at, ip);
        len += (size_t)snprintf(text + len, capacity - len, "%s%s", i > 0 ? "," : "", ip);
        if (p->of[i].bits < width(&p->of[i].at) && len < capacity)
            len += (size_t)snprintf(text + len, capacity - len, "/%u", p->of[i].bits);
    }
}

bool prefixes_have(const struct prefixes *p, const struct endpoint *at)
{
    for (unsigned i = 0; i < p->count; i++)
        if (endpoint_same_prefix(&p->of[i].at, at, p->of[i].bits))
            return true;
    return false;
}
