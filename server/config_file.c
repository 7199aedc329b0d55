#include "server/options.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SECTION_MAX = 32, KEY_MAX = 64, JSON_KEYS_MAX = 128, JSON_DEPTH_MAX = 8 };

/* One file while it is read. */
struct reading {
    struct config *c;
    const char *path;
    unsigned line;
    char section[SECTION_MAX];        /* "" before the first */
    unsigned set[CONFIG_OPTIONS_MAX]; /* line on which each option was set, 0: not yet */
    char value[CONFIG_VALUE_MAX];
    struct config_error *error;
};

static const char *place(const struct reading *r, char text[static CONFIG_ERROR_MAX])
{
    snprintf(text, CONFIG_ERROR_MAX, "%s:%u", r->path, r->line);
    return text;
}

static bool fail(const struct reading *r, const char *name, const char *why)
{
    char shown[OPTION_SHOWN_MAX];

    if (name == NULL)
        return config_fail(r->error, "%s:%u: %s", r->path, r->line, why);
    return config_fail(r->error, "%s:%u: %s: %s", r->path, r->line, text_show(name, shown), why);
}

/* The option that this key may set here, NULL after an error. */
static const struct option *find_key(struct reading *r, const char *key)
{
    const struct option *o = option_find(key);
    char at[CONFIG_ERROR_MAX];

    if (o == NULL) {
        config_fail_unknown(r->error, place(r, at), key);
        return NULL;
    }
    if (o->not_in_file) {
        config_fail(r->error, "%s:%u: %s: cannot stand in a file (use --%s)", r->path, r->line,
                    o->name, o->name);
        return NULL;
    }
    if (r->section[0] != '\0' && strcmp(r->section, o->section) != 0) {
        config_fail(r->error, "%s:%u: %s: belongs in [%s], not [%s]", r->path, r->line, o->name,
                    o->section, r->section);
        return NULL;
    }
    if (r->set[option_index(o)] != 0) {
        config_fail(r->error, "%s:%u: %s: already set on line %u", r->path, r->line, o->name,
                    r->set[option_index(o)]);
        return NULL;
    }
    return o;
}

static bool set_key(struct reading *r, const struct option *o)
{
    char at[CONFIG_ERROR_MAX];

    r->set[option_index(o)] = r->line;
    return config_set(r->c, o->name, r->value, place(r, at), r->error);
}

/* --- text: lines of "key = value", "[section]" and "# comment" --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Ends the line where a comment begins: '#' first or behind a blank. */
static void cut_comment(char *line)
{
    for (char *at = line; *at != '\0'; at++)
        if (*at == '#' && (at == line || is_blank(at[-1]))) {
            *at = '\0';
            return;
        }
}

static char *trim(char *text)
{
    size_t len;

    while (is_blank(*text))
        text++;
    for (len = strlen(text); len > 0 && is_blank(text[len - 1]); len--)
        text[len - 1] = '\0';
    return text;
}

static bool read_section(struct reading *r, char *line)
{
    const char *guess;
    char *end;

    cut_comment(line);
    line = trim(line);
    end = strchr(line, ']');
    if (end == NULL || end[1] != '\0')
        return fail(r, line, "not a section, like [server]");
    *end = '\0';
    line = trim(line + 1);
    if (section_exists(line)) {
        snprintf(r->section, sizeof r->section, "%s", line);
        return true;
    }
    guess = section_guess(line);
    if (guess == NULL)
        return fail(r, line, "unknown section");
    return config_fail(r->error, "%s:%u: unknown section %s (did you mean %s?)", r->path, r->line,
                       line, guess);
}

/* Replaces "..." at `text` by what it stands for, with \" and \\ inside. */
static bool unquote(struct reading *r, const char *name, char *text)
{
    char *to = text, *from = text + 1;

    for (; *from != '"'; from++) {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        else if (*from == '\\')
            return fail(r, name, "only \\\" and \\\\ can follow a backslash in quotes");
        if (*from == '\0')
            return fail(r, name, "the closing quote is missing");
        *to++ = *from;
    }
    *to = '\0';
    from++;
    cut_comment(from);
    if (*trim(from) != '\0')
        return fail(r, name, "text behind the closing quote");
    return true;
}

static bool read_pair(struct reading *r, char *line)
{
    char *equals = strchr(line, '='), *value;
    const struct option *o;

    if (equals == NULL || equals == line)
        return fail(r, line, "not \"key = value\"");
    *equals = '\0';
    o = find_key(r, trim(line));
    if (o == NULL)
        return false;
    value = equals + 1;
    while (is_blank(*value))
        value++;
    if (*value == '"') {
        if (!unquote(r, o->name, value))
            return false;
    } else {
        cut_comment(equals + 1); /* from there, so that a comment may be all there is */
        value = trim(equals + 1);
    }
    memmove(r->value, value, strlen(value) + 1);
    return set_key(r, o);
}

static bool read_line(struct reading *r, const char *text, size_t len)
{
    char line[CONFIG_VALUE_MAX], *start;

    if (len >= sizeof line)
        return fail(r, NULL, "the line is too long");
    memcpy(line, text, len);
    line[len] = '\0';
    start = trim(line);
    if (*start == '\0' || *start == '#')
        return true;
    return *start == '[' ? read_section(r, start) : read_pair(r, start);
}

static bool read_text(struct reading *r, const char *text, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline != NULL ? (size_t)(newline - text) : len;

        r->line++;
        if (!read_line(r, text, line_len))
            return false;
        line_len += newline != NULL;
        text += line_len;
        len -= line_len;
    }
    return true;
}

/* --- JSON: one object of option names and plain values --- */

/* Where the keys of the outermost object stand, in their order: jansson tells lines of syntax
 * errors only. The text need not be valid JSON. */
struct key_lines {
    unsigned count, depth_max, depth_line;
    unsigned line[JSON_KEYS_MAX];
    size_t at[JSON_KEYS_MAX];
};

static size_t skip_string(const char *text, size_t len, size_t at)
{
    for (at++; at < len && text[at] != '"' && text[at] != '\n'; at++)
        if (text[at] == '\\')
            at++;
    return at;
}

static void find_keys(const char *text, size_t len, struct key_lines *k)
{
    unsigned depth = 0, line = 1;
    bool key_next = false;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '{' || c == '[') {
            key_next = ++depth == 1 && c == '{';
            if (depth > JSON_DEPTH_MAX && k->depth_line == 0)
                k->depth_line = line;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',') {
            key_next = depth == 1;
        } else if (c == '"') {
            if (key_next && depth == 1 && k->count < JSON_KEYS_MAX) {
                k->at[k->count] = i;
                k->line[k->count++] = line;
            }
            key_next = false;
            i = skip_string(text, len, i);
        }
        line += i < len && text[i] == '\n';
    }
}

/* Appends an entry of a list, separated by commas. */
static bool append(struct reading *r, size_t *len, const char *entry)
{
    size_t more = strlen(entry) + (*len > 0);

    if (more >= sizeof r->value - *len)
        return false;
    snprintf(r->value + *len, sizeof r->value - *len, "%s%s", *len > 0 ? "," : "", entry);
    *len += more;
    return true;
}

/* A value that is no option's, shown as it stands. */
static bool fail_json(const struct reading *r, const struct option *o, const json_t *value,
                      const char *why)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    char shown[OPTION_SHOWN_MAX];

    if (o->secret)
        fail(r, o->name, why);
    else
        config_fail(r->error, "%s:%u: %s = %s: %s", r->path, r->line, o->name,
                    text_show(text != NULL ? text : "?", shown), why);
    free(text);
    return false;
}

static bool read_list(struct reading *r, const struct option *o, const json_t *list)
{
    size_t len = 0;

    r->value[0] = '\0';
    if (!o->list)
        return fail_json(r, o, list, "takes no list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *entry = json_string_value(json_array_get(list, i));
        if (entry == NULL)
            return fail_json(r, o, list, "a list may only hold strings");
        if (!append(r, &len, entry))
            return fail_json(r, o, list, "too long");
    }
    return true;
}

static bool read_json_value(struct reading *r, const struct option *o, const json_t *value)
{
    bool is_bool = o->type == OPTION_BOOL;
    size_t len = 0;

    r->value[0] = '\0';
    switch (json_typeof(value)) {
    case JSON_STRING:
        return append(r, &len, json_string_value(value)) || fail_json(r, o, value, "too long");
    case JSON_INTEGER:
        snprintf(r->value, sizeof r->value, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        if (!is_bool)
            return fail_json(r, o, value, "takes no boolean");
        append(r, &len, json_is_true(value) ? "true" : "false");
        return true;
    case JSON_ARRAY:
        return read_list(r, o, value);
    case JSON_REAL:
        return fail_json(r, o, value, "a number with a fraction or an exponent");
    case JSON_OBJECT:
        return fail_json(r, o, value, "takes no object");
    case JSON_NULL:
        break;
    }
    return fail_json(r, o, value, "takes no null");
}

/* A syntax error. A number that no integer holds is a wrong value, so its key is named. */
static bool fail_syntax(struct reading *r, const char *text, const struct key_lines *k,
                        const json_error_t *e)
{
    unsigned i = k->count;

    r->line = e->line > 0 ? (unsigned)e->line : 1;
    if (json_error_code(e) == json_error_numeric_overflow) {
        while (i > 0 && (int)k->at[i - 1] >= e->position)
            i--;
        if (i > 0) {
            const char *key = text + k->at[i - 1] + 1;
            char name[KEY_MAX];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(key, "\"\n"), key);
            return fail(r, name, e->text);
        }
    }
    return fail(r, NULL, e->text);
}

static bool read_object(struct reading *r, json_t *object, const struct key_lines *k)
{
    const char *key;
    json_t *value;
    unsigned i = 0;

    /* In the order of the text. Fewer keys than JSON_KEYS_MAX are known, so an unknown one ends the
     * loop before the lines do. */
    json_object_foreach(object, key, value)
    {
        const struct option *o;
        r->line = i < k->count ? k->line[i++] : 0;
        o = find_key(r, key);
        if (o == NULL || !read_json_value(r, o, value) || !set_key(r, o))
            return false;
    }
    return true;
}

static bool read_json(struct reading *r, const char *text, size_t len)
{
    struct key_lines k = {.count = 0};
    json_error_t e;
    json_t *root;
    bool good;

    find_keys(text, len, &k);
    if (k.depth_line != 0) {
        r->line = k.depth_line;
        return fail(r, NULL, "nested too deep");
    }
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (root == NULL)
        return fail_syntax(r, text, &k, &e);
    r->line = 1;
    good = json_is_object(root) ? read_object(r, root, &k) : fail(r, NULL, "not a JSON object");
    json_decref(root);
    return good;
}

/* --- either --- */

static bool is_json(const char *path, const char *text, size_t len)
{
    static const char ending[] = ".json";
    size_t path_len = strlen(path), at = 0;

    if (path_len >= sizeof ending - 1 &&
        strcasecmp(path + path_len - (sizeof ending - 1), ending) == 0)
        return true;
    while (at < len && (is_blank(text[at]) || text[at] == '\n'))
        at++;
    return at < len && text[at] == '{';
}

bool config_read(struct config *c, const char *path, const char *text, size_t len,
                 struct config_error *error)
{
    static const char mark[] = "\xef\xbb\xbf"; /* byte order mark of some editors */
    struct reading r = {.c = c, .path = path, .error = error};
    const char *nul = memchr(text, '\0', len);
    size_t bad = nul != NULL ? (size_t)(nul - text) : len;

    if (!utf8_valid(text, bad, &bad) || nul != NULL) {
        r.line = 1;
        for (size_t i = 0; i < bad; i++)
            r.line += text[i] == '\n';
        return fail(&r, NULL, text[bad] == '\0' ? "a NUL byte" : "not UTF-8");
    }
    if (len >= sizeof mark - 1 && memcmp(text, mark, sizeof mark - 1) == 0) {
        text += sizeof mark - 1;
        len -= sizeof mark - 1;
    }
    return is_json(path, text, len) ? read_json(&r, text, len) : read_text(&r, text, len);
}
