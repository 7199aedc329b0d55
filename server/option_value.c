#include "server/options.h"

#include <string.h>
#include <strings.h>

/* --- reading: each read_* leaves *ret alone and says why when it refuses --- */

bool option_refuse(struct refusal *r, const char *why)
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
        return option_refuse(r, "not a whole number");
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
        return option_refuse(r, "not a time, like 90, 90s, 10m, 1h or 1d");
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
        return option_refuse(r, "not a size, like 4194304, 64KiB, 8MiB or 1GiB");
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
        return option_refuse(r, "not a rate, like 20 or 20/50 (a second, and at once)");
    if (per_s > o->max || burst > o->max) {
        snprintf(r->why, sizeof r->why, "rate and burst must be at most %llu",
                 (unsigned long long)o->max);
        return false;
    }
    if (has_burst && burst == 0)
        return option_refuse(r, "a burst of 0 would let nothing pass (a rate of 0 is off)");
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
    return option_refuse(r, "not true or false");
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

bool list_take(const char **list, const char **ret, size_t *ret_len)
{
    while (**list != '\0') {
        const char *entry = *list;
        size_t len = strcspn(entry, ",");
        *list += len + (entry[len] == ',');
        for (; len > 0 && (*entry == ' ' || *entry == '\t'); len--)
            entry++;
        while (len > 0 && (entry[len - 1] == ' ' || entry[len - 1] == '\t'))
            len--;
        if (len == 0)
            continue;
        *ret = entry;
        *ret_len = len;
        return true;
    }
    return false;
}

/* Every value can be written to beacon.conf and read back, so what a line cannot hold is refused
 * wherever it comes from. */
static bool readable(const char *value, struct refusal *r)
{
    size_t len = strlen(value), bad;

    if (len >= CONFIG_VALUE_MAX)
        return option_refuse(r, "too long");
    if (!utf8_valid(value, len, &bad))
        return option_refuse(r, "not UTF-8");
    for (; *value != '\0'; value++)
        if (((unsigned char)*value < 0x20 && *value != '\t') || *value == 0x7f)
            return option_refuse(r, "holds a control character");
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

/* Entries of a list are kept without the blanks between them, so that who splits it need not trim.
 */
static bool read_text(const struct option *o, const char *value, char *field, struct refusal *r)
{
    char text[CONFIG_TEXT_MAX] = "";
    const char *entry;
    size_t entry_len, len = 0;

    if (strlen(value) >= CONFIG_TEXT_MAX)
        return option_refuse(r, "too long");
    if (!o->list)
        memcpy(text, value, strlen(value));
    while (o->list && list_take(&value, &entry, &entry_len)) {
        if (len > 0)
            text[len++] = ',';
        memcpy(text + len, entry, entry_len);
        len += entry_len;
    }
    memcpy(field, text, sizeof text);
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
        return read_text(o, value, field, r);
    case OPTION_LISTENER:
        return read_listener(value, (struct endpoint *)(void *)field,
                             (bool *)(void *)((char *)c + o->enabled), r);
    case OPTION_ENDPOINT:
        return read_endpoint(value, (struct endpoint *)(void *)field, r);
    case OPTION_IPS:
        return read_ips(value, (struct whitelist *)(void *)field, r);
    case OPTION_PREFIXES:
        return read_prefixes(value, (struct prefixes *)(void *)field, r);
    case OPTION_ADMIN:
        return read_admin(value, (struct admin_at *)(void *)field, r);
    }
    return option_refuse(r, "cannot be set");
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
    case OPTION_ENDPOINT:
        format_endpoint((const void *)field, text, capacity);
        break;
    case OPTION_IPS:
        format_ips((const void *)field, text, capacity);
        break;
    case OPTION_PREFIXES:
        format_prefixes((const void *)field, text, capacity);
        break;
    case OPTION_ADMIN:
        format_admin((const void *)field, text, capacity);
        break;
    }
    return text;
}
