#include "server/options.h"

#include <string.h>

/* The end of an origin tells more than its beginning: a path's file name and the line. Always
 * UTF-8, since config_dump writes it into text that config_read takes. */
static void remember_origin(struct config *c, const struct option *o, const char *origin)
{
    char *row = c->origin[option_index(o)];
    size_t len = strlen(origin), bad;

    if (len >= CONFIG_ORIGIN_MAX) {
        origin += len - (CONFIG_ORIGIN_MAX - 1);
        len = CONFIG_ORIGIN_MAX - 1;
    }
    memset(row, 0, CONFIG_ORIGIN_MAX);
    memcpy(row, origin, len);
    while (!utf8_valid(row, len, &bad))
        row[bad] = '?';
}

bool config_set(struct config *c, const char *name, const char *value, const char *origin,
                struct config_error *error)
{
    const struct option *o = option_find(name);
    struct refusal r;
    char shown[OPTION_SHOWN_MAX];

    if (o == NULL)
        return config_fail_unknown(error, origin, name);
    if (!option_read(o, c, value, &r)) {
        if (o->secret) /* errors end up in logs */
            return config_fail(error, "%s: %s: %s", origin, o->name, r.why);
        return config_fail(error, "%s: %s = %s: %s", origin, o->name, text_show(value, shown),
                           r.why);
    }
    remember_origin(c, o, origin);
    return true;
}

void config_init(struct config *c)
{
    struct refusal r;

    memset(c, 0, sizeof *c);
    for (unsigned i = 0; i < option_count; i++) {
        bool good = option_read(&option_table[i], c, option_table[i].fallback, &r);
        assert(good);
        (void)good;
    }
}

/* --- environment --- */

static const char prefix[] = "BEACON_";
enum { VARIABLE_MAX = 80 };

/* "BEACON_RELAY_RATE=20" into "BEACON_RELAY_RATE" and "relay-rate". Returns the value, NULL when
 * the variable is not for us. */
static const char *split_variable(const char *entry, char variable[static VARIABLE_MAX],
                                  char name[static VARIABLE_MAX])
{
    const char *value = strchr(entry, '=');
    size_t len, skip = sizeof prefix - 1;

    if (value == NULL || strncmp(entry, prefix, skip) != 0)
        return NULL;
    len = (size_t)(value - entry);
    if (len >= VARIABLE_MAX)
        len = VARIABLE_MAX - 1;
    memcpy(variable, entry, len);
    variable[len] = '\0';
    for (size_t i = skip; i <= len; i++) {
        bool upper = variable[i] >= 'A' && variable[i] <= 'Z';
        /* Lower case is no name of ours: a '?' is in none. */
        bool lower = variable[i] >= 'a' && variable[i] <= 'z';
        name[i - skip] = upper ? (char)(variable[i] - 'A' + 'a') : lower ? '?' : variable[i];
    }
    return value + 1;
}

/* The secret whose file this variable names, NULL when it is none. */
static const struct option *find_secret_file(const char *name)
{
    static const char ending[] = "_file";
    char secret[VARIABLE_MAX];
    size_t len = strlen(name), cut = sizeof ending - 1;
    const struct option *o;

    if (len <= cut || strcmp(name + len - cut, ending) != 0)
        return NULL;
    snprintf(secret, sizeof secret, "%.*s", (int)(len - cut), name);
    o = option_find(secret);
    return o != NULL && o->secret ? o : NULL;
}

/* The first line, without its end, is what config_set takes. */
static const char *first_line(char *text, size_t len)
{
    char *newline = memchr(text, '\n', len);

    if (newline != NULL)
        len = (size_t)(newline - text);
    if (len > 0 && text[len - 1] == '\r')
        len--;
    if (memchr(text, '\0', len) != NULL)
        return "a NUL byte in the first line";
    if (len == 0)
        return "the first line is empty";
    text[len] = '\0';
    return NULL;
}

static bool read_secret(struct config *c, const struct option *o, const char *path,
                        const char *origin, const struct config_environment *e,
                        struct config_error *error)
{
    char text[CONFIG_TEXT_MAX + 2] = "",
                                shown[OPTION_SHOWN_MAX]; /* a longest line, its end, zero */
    size_t len = 0;
    const char *why = e->read_file(path, text, sizeof text - 1, &len);
    bool good;

    if (why == NULL)
        why = first_line(text, len);
    good = why == NULL
               ? config_set(c, o->name, text, origin, error)
               : config_fail(error, "%s: %s: %s: %s", origin, o->name, text_show(path, shown), why);
    explicit_bzero(text, sizeof text);
    return good;
}

/* Which of the two were meant is not for us to say. */
static bool is_set_twice(const struct config *c, const struct option *o, const char *origin)
{
    const char *before = c->origin[option_index(o)];

    return before[0] == '$' && strchr(before, ':') == NULL && strcmp(before, origin) != 0;
}

bool config_read_environment(struct config *c, const struct config_environment *e,
                             struct config_error *error)
{
    char variable[VARIABLE_MAX], name[VARIABLE_MAX], origin[VARIABLE_MAX + 1];

    for (char *const *entry = e->variables; *entry != NULL; entry++) {
        const char *value = split_variable(*entry, variable, name);
        if (value == NULL)
            continue;
        const struct option *o = option_find(name), *secret = NULL;
        if (o == NULL)
            o = secret = find_secret_file(name);
        if (o == NULL) {
            if (e->unknown != NULL)
                e->unknown(variable);
            continue;
        }
        /* Compose files and units pass on variables that nobody gave a value. */
        if (*value == '\0')
            continue;
        snprintf(origin, sizeof origin, "$%s", variable);
        if (o->secret && is_set_twice(c, o, origin))
            return config_fail(error, "%s: %s: already set by %s", origin, o->name,
                               c->origin[option_index(o)]);
        if (!(secret != NULL ? read_secret(c, o, value, origin, e, error)
                             : config_set(c, o->name, value, origin, error)))
            return false;
    }
    return true;
}

/* --- flags --- */

enum { FLAG_MAX = 64 };

struct flag {
    char name[FLAG_MAX];       /* without dashes */
    char origin[FLAG_MAX + 2]; /* "--name" */
    const char *value;         /* what stands behind '=', else NULL */
};

/* False: the argument is no flag. */
static bool split_flag(const char *argument, struct flag *ret)
{
    size_t len;

    if (argument[0] != '-' || argument[1] == '\0')
        return false;
    argument += argument[1] == '-' ? 2 : 1;
    len = strcspn(argument, "=");
    if (len == 0)
        return false;
    ret->value = argument[len] == '=' ? argument + len + 1 : NULL;
    if (len >= FLAG_MAX)
        len = FLAG_MAX - 1;
    memcpy(ret->name, argument, len);
    ret->name[len] = '\0';
    snprintf(ret->origin, sizeof ret->origin, "--%s", ret->name);
    return true;
}

static bool fail_argument(const char *argument, const char *before, struct config_error *error)
{
    char shown[OPTION_SHOWN_MAX], value[OPTION_SHOWN_MAX];
    struct flag f;
    const struct option *o = NULL;

    if (before != NULL && split_flag(before, &f))
        o = option_find(f.name);
    text_show(argument, shown);
    if (o != NULL && o->type == OPTION_BOOL && f.value == NULL)
        return config_fail(error, "%s: unexpected argument (for a value write --%s=%s)", shown,
                           o->name, text_show(argument, value));
    return config_fail(error, "%s: unexpected argument", shown);
}

static bool fail_flag(const struct flag *f, struct config_error *error)
{
    const char *guess = option_guess(f->name, true);

    if (guess == NULL)
        return config_fail(error, "%s: unknown option", f->origin);
    return config_fail(error, "%s: unknown option (did you mean --%s?)", f->origin, guess);
}

/* The flag at argv[*at]; *at moves to the last argument that belongs to it. */
static bool read_flag(struct config *c, int argc, char *const *argv, int *at,
                      struct config_error *error)
{
    struct flag f;
    const struct option *o;

    error->usage = true;
    if (!split_flag(argv[*at], &f))
        return fail_argument(argv[*at], *at > 1 ? argv[*at - 1] : NULL, error);
    o = option_find(f.name);
    if (o == NULL)
        return fail_flag(&f, error);
    snprintf(f.origin, sizeof f.origin, "--%s", o->name);
    if (f.value == NULL && o->type == OPTION_BOOL)
        f.value = "true";
    if (f.value == NULL) {
        /* A flag behind a flag is a forgotten value far more often than a value with a dash. */
        if (*at + 1 >= argc || argv[*at + 1][0] == '-')
            return config_fail(error, "%s: needs a value (%s=VALUE)", f.origin, f.origin);
        f.value = argv[++*at];
    }
    error->usage = false;
    return config_set(c, o->name, f.value, f.origin, error);
}

bool config_read_flags(struct config *c, int argc, char *const *argv, struct config_error *error)
{
    for (int i = 1; i < argc; i++)
        if (!read_flag(c, argc, argv, &i, error))
            return false;
    return true;
}

const char *config_find_file(int argc, char *const *argv, char *const *environment)
{
    const char *found = NULL;
    static const char variable[] = "BEACON_CONFIG=";

    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, variable, sizeof variable - 1) == 0)
            found = *environment + sizeof variable - 1;
    for (int i = 1; i < argc; i++) {
        struct flag f;
        if (!split_flag(argv[i], &f) || strcmp(f.name, "config") != 0)
            continue;
        if (f.value != NULL)
            found = f.value;
        else if (i + 1 < argc && argv[i + 1][0] != '-')
            found = argv[++i];
    }
    return found != NULL && *found != '\0' ? found : NULL;
}

/* --- reloading --- */

unsigned config_needs_restart(const struct config *running, const struct config *wanted,
                              char *names, size_t capacity)
{
    char before[CONFIG_VALUE_MAX], after[CONFIG_VALUE_MAX];
    unsigned count = 0;
    size_t len = 0;

    if (capacity > 0)
        names[0] = '\0';
    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->reloadable || strcmp(option_format(o, running, before, sizeof before),
                                    option_format(o, wanted, after, sizeof after)) == 0)
            continue;
        if (len < capacity)
            len += (size_t)snprintf(names + len, capacity - len, "%s%s", count > 0 ? "," : "",
                                    o->name);
        count++;
    }
    return count;
}
