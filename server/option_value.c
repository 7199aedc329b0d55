#include "server/options.h"

#include <string.h>
#include <strings.h>

/* --- reading: each read_* leaves *ret alone and says why when it refuses --- */

static bool refuse(struct refusal *r, const char *why)
{
    snprintf(r->why, sizeof r->why, "%s", why);
    return false;
}

static bool refuse_range(struct refusal *r, const char *low, const char *high)
{
    snprintf(r->why, sizeof r->why, "must be %s to %s", low, high);
    return false;
}

/* Decimal digits at *at, which moves behind them. Too many digits stop at UINT64_MAX, which is out
 * of every range. */
static bool take_digits(const char **at, uint64_t *ret)
{
    uint64_t n = 0;

    if (**at < '0' || **at > '9')
        return false;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(**at - '0'), &n))
            n = UINT64_MAX / 10 + 1; /* the next digit overflows again */
    *ret = n;
    return true;
}

struct unit {
    const char *name;
    uint64_t times;
};

static const struct unit time_units[] = {
    {"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {NULL, 0},
};
static const struct unit size_units[] = {
    {"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {NULL, 0},
};

static bool read_scaled(const char *value, const struct unit *units, uint64_t *ret)
{
    uint64_t n = 0;

    if (!take_digits(&value, &n))
        return false;
    for (; units->name != NULL; units++) {
        if (strcasecmp(units->name, value) != 0)
            continue;
        if (__builtin_mul_overflow(n, units->times, &n))
            n = UINT64_MAX;
        *ret = n;
        return true;
    }
    return false;
}

static bool read_number(const struct option *o, const char *value, uint64_t *ret, struct refusal *r)
{
    char low[32], high[32];
    uint64_t n = 0;

    if (!take_digits(&value, &n) || *value != '\0')
        return refuse(r, "not a whole number");
    if (n < o->min || n > o->max) {
        snprintf(low, sizeof low, "%llu", (unsigned long long)o->min);
        snprintf(high, sizeof high, "%llu", (unsigned long long)o->max);
        return refuse_range(r, low, high);
    }
    *ret = n;
    return true;
}

static bool read_seconds(const struct option *o, const char *value, uint64_t *ret,
                         struct refusal *r)
{
    char low[32], high[32];
    uint64_t n = 0;

    if (!read_scaled(value, time_units, &n))
        return refuse(r, "not a time, like 90, 90s, 10m, 1h or 1d");
    if (n < o->min || n > o->max)
        return refuse_range(r, seconds_format(o->min, low, sizeof low),
                            seconds_format(o->max, high, sizeof high));
    *ret = n;
    return true;
}

static bool read_size(const struct option *o, const char *value, uint64_t *ret, struct refusal *r)
{
    char low[32], high[32];
    uint64_t n = 0;

    if (!read_scaled(value, size_units, &n))
        return refuse(r, "not a size, like 4194304, 64KiB, 8MiB or 1GiB");
    if (n < o->min || n > o->max)
        return refuse_range(r, size_format(o->min, low, sizeof low),
                            size_format(o->max, high, sizeof high));
    *ret = n;
    return true;
}

static bool read_rate(const struct option *o, const char *value, struct rate *ret,
                      struct refusal *r)
{
    uint64_t per_s = 0, burst = 0;
    bool has_burst = false, good = take_digits(&value, &per_s);

    if (good && *value == '/') {
        value++;
        has_burst = true;
        good = take_digits(&value, &burst);
    }
    if (!good || *value != '\0')
        return refuse(r, "not a rate, like 20 or 20/50 (a second, and at once)");
    if (per_s > o->max || burst > o->max) {
        snprintf(r->why, sizeof r->why, "rate and burst must be at most %llu",
                 (unsigned long long)o->max);
        return false;
    }
    if (has_burst && burst == 0)
        return refuse(r, "a burst of 0 would let nothing pass (a rate of 0 is off)");
    if (!has_burst)
        burst = o->scale == 0 ? per_s : per_s * o->scale / 10;
    if (burst > o->max)
        burst = o->max;
    *ret = (struct rate){.per_s = (uint32_t)per_s, .burst = burst == 0 ? 1 : (uint32_t)burst};
    return true;
}

static bool read_bool(const char *value, bool *ret, struct refusal *r)
{
    static const char *const yes[] = {"true", "1", "yes", "on", "t"};
    static const char *const no[] = {"false", "0", "no", "off", "f"};

    for (unsigned i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        bool is_yes = strcasecmp(value, yes[i]) == 0;
        if (is_yes || strcasecmp(value, no[i]) == 0) {
            *ret = is_yes;
            return true;
        }
    }
    return refuse(r, "not true or false");
}

static bool read_enum(const struct option *o, const char *value, unsigned *ret, struct refusal *r)
{
    const char *at = o->choices;
    /* The Pilot beacon knows both words. */
    size_t len = strlen(strcasecmp(value, "warning") == 0 ? "warn" : value);

    for (unsigned i = 0;; i++) {
        size_t choice_len = strcspn(at, "|");
        if (choice_len == len && strncasecmp(at, value, len) == 0) {
            *ret = i;
            return true;
        }
        if (at[choice_len] == '\0')
            break;
        at += choice_len + 1;
    }
    snprintf(r->why, sizeof r->why, "must be one of %s", o->choices);
    return false;
}

/* Numeric, but for the one name that means the same everywhere. */
static bool read_endpoint(const char *value, struct endpoint *ret, struct refusal *r)
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
    return refuse(r, "not an address and port, like 203.0.113.7:9001, [2001:db8::1]:9001 or :9001 "
                     "(host names are not looked up)");
}

static bool read_listener(const char *value, struct endpoint *ret, bool *ret_enabled,
                          struct refusal *r)
{
    struct endpoint at = {.port = 0};

    if (*value != '\0' && !read_endpoint(value, &at, r))
        return false;
    *ret = at;
    *ret_enabled = *value != '\0';
    return true;
}

/* One entry of a list, without the blanks around it; empty entries are skipped. */
static bool read_ip(const char *at, size_t len, struct whitelist *w, struct refusal *r)
{
    char text[ENDPOINT_TEXT_MAX], shown[OPTION_SHOWN_MAX];

    for (; len > 0 && (*at == ' ' || *at == '\t'); len--)
        at++;
    while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t'))
        len--;
    if (len == 0)
        return true;
    snprintf(text, sizeof text, "%.*s", len < sizeof text ? (int)len : (int)sizeof text - 1, at);
    if (strcmp(text, "*") == 0 || strcasecmp(text, "all") == 0) {
        w->all = true;
        return true;
    }
    if (w->count == CONFIG_WHITELIST_MAX)
        return refuse(r, "more than 256 addresses");
    if (len >= sizeof text || !endpoint_parse_ip(text, &w->ip[w->count])) {
        snprintf(r->why, sizeof r->why, "%s is not an IP address", text_show(text, shown));
        return false;
    }
    w->count++;
    return true;
}

static bool read_ips(const char *value, struct whitelist *ret, struct refusal *r)
{
    struct whitelist w;

    memset(&w, 0, sizeof w);
    for (;;) {
        size_t len = strcspn(value, ",");
        if (!read_ip(value, len, &w, r))
            return false;
        if (value[len] == '\0')
            break;
        value += len + 1;
    }
    *ret = w;
    return true;
}

/* Every value can be written to beacon.conf and read back, so what a line cannot hold is refused
 * wherever it comes from. */
static bool readable(const char *value, struct refusal *r)
{
    size_t len = strlen(value), bad;

    if (len >= CONFIG_VALUE_MAX)
        return refuse(r, "too long");
    if (!utf8_valid(value, len, &bad))
        return refuse(r, "not UTF-8");
    for (; *value != '\0'; value++)
        if (((unsigned char)*value < 0x20 && *value != '\t') || *value == 0x7f)
            return refuse(r, "holds a control character");
    return true;
}

static bool read_wide(const struct option *o, void *field, const char *value, struct refusal *r)
{
    uint64_t n = 0;
    uint32_t narrow;

    if (o->type == OPTION_SIZE) {
        if (!read_size(o, value, &n, r))
            return false;
        memcpy(field, &n, sizeof n);
        return true;
    }
    if (!(o->type == OPTION_INT ? read_number : read_seconds)(o, value, &n, r))
        return false;
    narrow = (uint32_t)n; /* no row's max is wider */
    memcpy(field, &narrow, sizeof narrow);
    return true;
}

bool option_read(const struct option *o, struct config *c, const char *value, struct refusal *r)
{
    char *field = (char *)c + o->offset;
    unsigned choice;

    if (!readable(value, r))
        return false;
    switch (o->type) {
    case OPTION_BOOL:
        return read_bool(value, (bool *)(void *)field, r);
    case OPTION_INT:
    case OPTION_SECONDS:
    case OPTION_SIZE:
        return read_wide(o, field, value, r);
    case OPTION_RATE:
        return read_rate(o, value, (struct rate *)(void *)field, r);
    case OPTION_ENUM:
        if (!read_enum(o, value, &choice, r))
            return false;
        memcpy(field, &choice, sizeof choice);
        return true;
    case OPTION_TEXT:
        if (strlen(value) >= CONFIG_TEXT_MAX)
            return refuse(r, "too long");
        memset(field, 0, CONFIG_TEXT_MAX);
        memcpy(field, value, strlen(value));
        return true;
    case OPTION_LISTENER:
        return read_listener(value, (struct endpoint *)(void *)field,
                             (bool *)(void *)((char *)c + o->enabled), r);
    case OPTION_ENDPOINT:
        return read_endpoint(value, (struct endpoint *)(void *)field, r);
    case OPTION_IPS:
        return read_ips(value, (struct whitelist *)(void *)field, r);
    }
    return refuse(r, "cannot be set");
}

/* --- writing --- */

static const char *scaled_format(uint64_t n, const struct unit *units, char *text, size_t capacity)
{
    const struct unit *best = units;

    for (; n != 0 && units->name != NULL; units++)
        if (n % units->times == 0)
            best = units;
    snprintf(text, capacity, "%llu%s", (unsigned long long)(n / best->times), best->name);
    return text;
}

const char *seconds_format(uint64_t seconds, char *text, size_t capacity)
{
    return scaled_format(seconds, time_units, text, capacity);
}

const char *size_format(uint64_t bytes, char *text, size_t capacity)
{
    return scaled_format(bytes, size_units, text, capacity);
}

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

static void format_ips(const struct whitelist *w, char *text, size_t capacity)
{
    char ip[ENDPOINT_TEXT_MAX];
    size_t len = (size_t)snprintf(text, capacity, "%s", w->all ? "*" : "");

    for (unsigned i = 0; i < w->count && len < capacity; i++) {
        format_ip(&w->ip[i], ip);
        len += (size_t)snprintf(text + len, capacity - len, "%s%s", len > 0 ? "," : "", ip);
    }
}

static void format_enum(const struct option *o, unsigned choice, char *text, size_t capacity)
{
    const char *at = o->choices;

    for (; choice > 0; choice--)
        at += strcspn(at, "|") + 1;
    snprintf(text, capacity, "%.*s", (int)strcspn(at, "|"), at);
}

static uint32_t narrow_at(const char *field)
{
    uint32_t n;

    memcpy(&n, field, sizeof n);
    return n;
}

const char *option_format(const struct option *o, const struct config *c, char *text,
                          size_t capacity)
{
    const char *field = (const char *)c + o->offset;
    const struct rate *rate = (const void *)field;
    uint64_t wide;

    switch (o->type) {
    case OPTION_BOOL:
        snprintf(text, capacity, "%s", *(const bool *)(const void *)field ? "true" : "false");
        break;
    case OPTION_INT:
        snprintf(text, capacity, "%u", narrow_at(field));
        break;
    case OPTION_SECONDS:
        seconds_format(narrow_at(field), text, capacity);
        break;
    case OPTION_SIZE:
        memcpy(&wide, field, sizeof wide);
        size_format(wide, text, capacity);
        break;
    case OPTION_RATE:
        snprintf(text, capacity, "%u/%u", rate->per_s, rate->burst);
        break;
    case OPTION_ENUM:
        format_enum(o, narrow_at(field), text, capacity);
        break;
    case OPTION_TEXT:
        snprintf(text, capacity, "%s", field);
        break;
    case OPTION_LISTENER:
        text[0] = '\0';
        if (!*(const bool *)(const void *)((const char *)c + o->enabled))
            break;
        /* fall through */
    case OPTION_ENDPOINT: {
        char address[ENDPOINT_TEXT_MAX];
        snprintf(text, capacity, "%s", endpoint_format((const void *)field, address));
        break;
    }
    case OPTION_IPS:
        format_ips((const void *)field, text, capacity);
        break;
    }
    return text;
}
